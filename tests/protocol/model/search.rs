//! The breadth-first search over a [`World`]: every state once, the shortest path to the
//! first state that breaks a property, and a path from every other state to an end.

use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

use super::packed;
use super::world::{Broken, Config, Revisions, World};

/// A hasher for keys without chosen collisions.
pub type Fast = BuildHasherDefault<Mix>;

#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// What a search found.
pub struct Found {
    pub states: usize,
    /// Whether a state was not explored further: see [`Revisions::UpTo`].
    pub cut: bool,
    pub broken: Option<(Broken, Vec<String>)>,
}

/// Explores all of a world, or up to the first state that breaks a property which counts.
pub fn search(name: &str, config: Config, counts: impl Fn(Broken) -> bool) -> Found {
    let began = Instant::now();
    let mut world = World::new(config);
    let mut tree = Tree::default();
    tree.insert(packed::pack(&world.start()), 0);
    let mut successors = Vec::new();
    let mut at = 0;
    let mut cut = false;
    let mut bad = None;
    'search: while at < tree.states.len() {
        let state = packed::unpack(tree.states[at]);
        let mut calm = at as u32;
        if matches!(config.revisions, Revisions::UpTo(most) if state.rec.rev > most) {
            cut = true;
        } else {
            world.successors(&state, &mut successors);
            for (label, next) in &successors {
                let (place, new) = tree.insert(packed::pack(next), at as u32);
                if label.calm && calm == at as u32 {
                    calm = place;
                }
                if new && let Some(broken) = world.broken(next).filter(|broken| counts(*broken)) {
                    bad = Some((broken, place));
                    break 'search;
                }
            }
        }
        tree.calm.push(calm);
        at += 1;
    }
    if bad.is_none() && !cut && counts(Broken::NoWayOut) {
        bad = tree
            .stuck(&mut world)
            .map(|place| (Broken::NoWayOut, place));
    }
    println!(
        "{name}: {} states{}, {} questions to the rules, {:.1} s",
        tree.states.len(),
        if bad.is_some() || cut {
            ""
        } else {
            " (exhausted)"
        },
        world.store.asked(),
        began.elapsed().as_secs_f32()
    );
    let broken = bad.map(|(broken, place)| (broken, tree.path(&mut world, place)));
    if let Some((broken, path)) = &broken {
        println!("{name}: {broken:?} after {} steps", path.len());
        path.iter().for_each(|step| println!("    {step}"));
    }
    Found {
        states: tree.states.len(),
        cut,
        broken,
    }
}

/// All states in the order of discovery; for each, the state before it and the state after
/// a calm step.
#[derive(Default)]
struct Tree {
    states: Vec<u128>,
    parents: Vec<u32>,
    calm: Vec<u32>,
    /// The numbers of the states by their hashes, with open addressing: a map of `std`
    /// would hold every state a second time.
    places: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl Tree {
    /// The number of a state, and whether it is new.
    fn insert(&mut self, state: u128, parent: u32) -> (u32, bool) {
        if self.places.len() <= self.states.len() * 2 {
            self.places = vec![FREE; (self.places.len() * 2).max(1 << 16)];
            for number in 0..self.states.len() {
                let (place, _) = self.find(self.states[number]);
                self.places[place] = number as u32;
            }
        }
        let (place, found) = self.find(state);
        if let Some(number) = found {
            return (number, false);
        }
        let number = self.states.len() as u32;
        self.places[place] = number;
        self.states.push(state);
        self.parents.push(parent);
        (number, true)
    }

    /// The place of a state in the table, or the free place for it.
    fn find(&self, state: u128) -> (usize, Option<u32>) {
        let mut hash = Mix::default();
        hash.write_u128(state);
        let last = self.places.len() - 1;
        let mut place = hash.finish() as usize & last;
        loop {
            match self.places[place] {
                FREE => return (place, None),
                number if self.states[number as usize] == state => return (place, Some(number)),
                _ => place = (place + 1) & last,
            }
        }
    }

    /// A state from which calm steps lead into a cycle, or to an end at which the key is
    /// not finished.
    fn stuck(&self, world: &mut World) -> Option<u32> {
        let mut leads_out = vec![false; self.states.len()];
        for from in 0..self.states.len() as u32 {
            let mut path = Vec::new();
            let mut at = from;
            while !leads_out[at as usize] {
                let next = self.calm[at as usize];
                let state = packed::unpack(self.states[at as usize]);
                if next == at && !world.is_finished(&state) || path.len() > 1_000 {
                    return Some(at);
                }
                path.push(at);
                if next == at {
                    break;
                }
                at = next;
            }
            path.into_iter()
                .for_each(|at| leads_out[at as usize] = true);
        }
        None
    }

    fn path(&self, world: &mut World, to: u32) -> Vec<String> {
        let mut steps = Vec::new();
        let mut successors = Vec::new();
        let mut at = to;
        while at != 0 {
            let from = self.parents[at as usize];
            let state = packed::unpack(self.states[from as usize]);
            world.successors(&state, &mut successors);
            let step = successors
                .iter()
                .find(|(_, next)| packed::pack(next) == self.states[at as usize]);
            let (label, next) = step.expect("a state is found from its parent");
            steps.push(format!("{label}  →  {}", next.rec));
            at = from;
        }
        steps.reverse();
        steps
    }
}
