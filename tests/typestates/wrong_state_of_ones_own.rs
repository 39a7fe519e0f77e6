use genesys_once::execution::State;

struct Mine;

impl State for Mine {
    const NAME: &'static str = "Mine";
}

fn main() {}
