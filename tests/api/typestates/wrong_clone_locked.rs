use genesys_once::execution::{Execution, Locked};

fn wrong(locked: Execution<Locked>) -> (Execution<Locked>, Execution<Locked>) {
    (locked.clone(), locked)
}

fn main() {}
