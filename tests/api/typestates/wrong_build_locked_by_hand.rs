use genesys_once::execution::Locked;

fn main() {
    let _ = Locked { lease: unimplemented!() };
}
