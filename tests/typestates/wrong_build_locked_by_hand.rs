use genesys_once::execution::Locked;

fn main() {
    let _ = Locked { step: 0, unproven: false };
}
