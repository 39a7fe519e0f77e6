use genesys_once::execution::Locked;

fn main() {
    let _ = Locked { held: unimplemented!() };
}
