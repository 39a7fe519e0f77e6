//! The world of the model: the record, the holders, the commands under way, and all
//! possible next steps. Time is one bit: a lease lives, or it has expired; it may expire at
//! any step.

use super::command::{Command, Lease, NEWCOMER, OPERATOR, Revision, Verb};
use super::holder::{At, Holder, Policy};
use super::label::{Label, label};
use super::mutation::Mutation;
use super::state::{DELAYED, HOLDERS, State};
use super::store::{Kind, Rec, Reply, Store};

const LATE: &str = "sends, to arrive late";

/// The world to explore.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub holders: &'static [Policy],
    /// How many leases each holder may use, one after the other.
    pub leases: u8,
    /// How many commands may be delayed, so that they arrive after later ones.
    pub delayed: usize,
    /// How many times an operator resolves an indeterminate key.
    pub resolutions: u8,
    /// Whether holders crash, and start again while they have leases left.
    pub crashes: bool,
    pub revisions: Revisions,
    /// Whether leases expire by the store's clock, or only by that of the waiting holders.
    pub expires: bool,
    pub mutation: Option<Mutation>,
}

/// How revisions are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revisions {
    /// Only as current or past. A comparison finds no more while revisions only rise, which
    /// is asserted at every write. This makes the world finite.
    Current,
    /// By their numbers; a state with a higher number is not explored further.
    UpTo(u8),
}

/// A property that a state breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A request was executed after another one, against its holder's policy.
    SecondCall,
    /// Two holders believe that their requests might be on the wire.
    LiveTwice,
    /// A holder received `Done` for its outcome, but the record has another one.
    TwoAnswers,
    /// A lease was taken over as expired, but was extended after its revision was seen.
    TakenAlive,
    /// A key is blocked by a request that its holder has proved to be not executed.
    FalseIndeterminate,
    /// All holders are at rest, and the next caller gets neither the key nor its outcome.
    NoWayOut,
}

pub struct World {
    pub config: Config,
    pub store: Store,
}

impl World {
    pub fn new(config: Config) -> Self {
        assert!(config.holders.len() <= HOLDERS && config.delayed <= DELAYED);
        assert!(
            config.holders.len() * usize::from(config.leases) + usize::from(config.resolutions)
                < usize::from(NEWCOMER)
        );
        Self {
            config,
            store: Store::new(config.mutation),
        }
    }

    pub fn start(&self) -> State {
        State {
            rec: Rec::ABSENT,
            holders: [Holder::NEW; HOLDERS],
            delayed: [Command::NONE; DELAYED],
            executed: None,
            second_call: false,
            two_answers: false,
            taken_alive: false,
            resolutions: self.config.resolutions,
        }
    }

    /// All possible next steps.
    pub fn successors(&mut self, state: &State, out: &mut Vec<(Label, State)>) {
        out.clear();
        for number in 0..self.config.holders.len() {
            self.holder(state, number, out);
        }
        for (place, command) in state.delayed.iter().enumerate() {
            if command.verb != Verb::None {
                let mut next = *state;
                next.delayed[place] = Command::NONE;
                next.delayed.sort_unstable();
                next.rec = self.store.apply(state.rec, *command).0;
                out.push((label(None, "arrives late", *command, true), next));
            }
        }
        self.operator(state, out);
        if state.rec.live && self.config.expires {
            let next = State {
                rec: Rec {
                    live: false,
                    ..state.rec
                },
                ..*state
            };
            out.push((label(None, "the lease expires", Command::NONE, true), next));
        }
        if self.config.revisions == Revisions::Current {
            for (_, next) in out {
                next.renumber();
            }
        }
    }

    fn holder(&mut self, state: &State, number: usize, out: &mut Vec<(Label, State)>) {
        let holder = state.holders[number];
        let lease = self.lease(number, holder);
        let careless = self.config.mutation == Some(Mutation::ClaimedUnknown);
        if self.may_start(state, number) {
            out.push((
                label(Some(number), "starts", Command::NONE, false),
                state.with(number, holder.start()),
            ));
        }
        if let Some(command) = holder.command(lease, careless) {
            let (rec, reply) = self.store.apply(state.rec, command);
            let reported_recorded = command.verb == Verb::Complete && reply == Reply::Done;
            let answered = State {
                rec,
                two_answers: state.two_answers || reported_recorded && rec.kind == Kind::Resolved,
                ..state.with(number, holder.heard(lease, reply))
            };
            out.push((
                label(Some(number), "sends and is answered", command, true),
                answered,
            ));
            if rec != state.rec {
                let unheard = State { rec, ..*state };
                out.push((
                    label(Some(number), "sends, the reply is lost", command, false),
                    unheard,
                ));
            }
            self.delay(state, Some(number), LATE, command, out);
        }
        if let Some(command) = holder.watched(lease) {
            self.watched(state, number, lease, command, out);
        }
        let policy = self.config.holders[number];
        holder.acts(policy, |act| {
            let mut next = state.with(number, act.then);
            if act.executes {
                next.execute(lease, policy);
            }
            out.push((label(Some(number), act.what, Command::NONE, act.calm), next));
        });
        if let Some(command) = holder.heartbeat(lease) {
            let (rec, reply) = self.store.apply(state.rec, command);
            let mut next = State { rec, ..*state };
            if reply == Reply::Done && state.rec.kind != Kind::Absent {
                next.renew(lease);
            }
            if next != *state {
                out.push((label(Some(number), "has a heartbeat", command, false), next));
            }
            self.delay(state, Some(number), LATE, command, out);
        }
        if let Some(dead) = holder.crash().filter(|_| self.config.crashes) {
            out.push((
                label(Some(number), "crashes", Command::NONE, false),
                state.with(number, dead),
            ));
        }
    }

    /// A waiting holder saw one revision for a whole lease, or believes so.
    fn watched(
        &mut self,
        state: &State,
        number: usize,
        lease: Lease,
        command: Command,
        out: &mut Vec<(Label, State)>,
    ) {
        let holder = state.holders[number];
        let (rec, reply) = self.store.apply(state.rec, command);
        let takes = rec != state.rec && state.rec.live;
        let answered = State {
            rec,
            taken_alive: state.taken_alive || takes && holder.renewed,
            ..state.with(number, holder.heard(lease, reply))
        };
        let what = "has watched, sends and is answered";
        out.push((label(Some(number), what, command, true), answered));
        if rec != state.rec {
            let unheard = State {
                taken_alive: answered.taken_alive,
                rec,
                ..*state
            };
            out.push((
                label(
                    Some(number),
                    "has watched, the reply is lost",
                    command,
                    false,
                ),
                unheard,
            ));
        }
        self.delay(state, Some(number), LATE, command, out);
    }

    /// Equal holders acquire their first leases in one order: any other order is
    /// equivalent.
    fn may_start(&self, state: &State, number: usize) -> bool {
        let holder = state.holders[number];
        let rests = holder.at == At::Idle || self.config.crashes && holder.rests();
        let alike = number > 0 && self.config.holders[number - 1] == self.config.holders[number];
        rests
            && holder.leases < self.config.leases
            && (!alike || state.holders[number - 1].leases > 0)
    }

    /// An operator resolves the key by the truth, but not while the lost request might be
    /// under way. The command may arrive twice, or late.
    fn operator(&mut self, state: &State, out: &mut Vec<(Label, State)>) {
        if state.resolutions == 0 || state.rec.kind != Kind::Indeterminate {
            return;
        }
        let owner = usize::from(state.rec.lease / self.config.leases);
        let holder = state.holders[owner];
        let under_way = holder.believes() || holder.at == At::Adrift;
        if under_way && self.lease(owner, holder) == state.rec.lease {
            return;
        }
        let verb = match state.executed {
            None => Verb::ResolveNotApplied,
            Some(_) => Verb::ResolveApplied,
        };
        let command = Command {
            verb,
            lease: OPERATOR + 1 - state.resolutions,
            step: 0,
            revision: state.rec.revision(),
        };
        let (rec, _) = self.store.apply(state.rec, command);
        let sent = State {
            resolutions: state.resolutions - 1,
            ..*state
        };
        let resolved = State { rec, ..sent };
        out.push((label(None, "an operator sends", command, false), resolved));
        self.delay(
            &sent,
            None,
            "an operator sends, to arrive late",
            command,
            out,
        );
        self.delay(
            &resolved,
            None,
            "an operator sends, and again, to arrive late",
            command,
            out,
        );
    }

    fn delay(
        &self,
        state: &State,
        holder: Option<usize>,
        what: &'static str,
        command: Command,
        out: &mut Vec<(Label, State)>,
    ) {
        let free = state
            .delayed
            .iter()
            .filter(|delayed| delayed.verb == Verb::None)
            .count();
        if DELAYED - free < self.config.delayed && !state.delayed.contains(&command) {
            let mut next = *state;
            next.delayed[0] = command;
            next.delayed.sort_unstable();
            out.push((label(holder, what, command, false), next));
        }
    }

    fn lease(&self, number: usize, holder: Holder) -> Lease {
        number as Lease * self.config.leases + holder.leases.saturating_sub(1)
    }

    /// The property that this state breaks.
    pub fn broken(&self, state: &State) -> Option<Broken> {
        if state.second_call {
            return Some(Broken::SecondCall);
        }
        if state.two_answers {
            return Some(Broken::TwoAnswers);
        }
        if state
            .holders
            .iter()
            .filter(|holder| holder.believes())
            .count()
            > 1
        {
            return Some(Broken::LiveTwice);
        }
        if state.taken_alive {
            return Some(Broken::TakenAlive);
        }
        let stuck = match state.rec.kind {
            Kind::Dispatched => !state.rec.live,
            Kind::Indeterminate => true,
            _ => false,
        };
        let quiet = state.delayed == [Command::NONE; DELAYED] && state.executed.is_none();
        if !self.config.crashes && stuck && quiet {
            let owner = usize::from(state.rec.lease / self.config.leases);
            let holder = state.holders[owner];
            // Without crashes only an idle holder continues with its next lease.
            let current = self.lease(owner, holder) == state.rec.lease;
            if !current || holder.at == At::Idle {
                return Some(Broken::FalseIndeterminate);
            }
        }
        None
    }

    /// Whether all holders are at rest, and the next caller gets the key or its outcome; an
    /// operator resolves an indeterminate key first.
    pub fn is_finished(&mut self, state: &State) -> bool {
        let quiet = state.delayed == [Command::NONE; DELAYED];
        if !quiet || !state.holders.iter().all(|holder| holder.rests()) {
            return false;
        }
        let ask = |verb, revision| Command {
            verb,
            lease: NEWCOMER,
            step: 0,
            revision,
        };
        let (mut rec, mut reply) = self
            .store
            .apply(state.rec, ask(Verb::Acquire, Revision::NONE));
        for _ in 0..3 {
            let verb = match reply {
                Reply::Done => return rec.lease == NEWCOMER && rec.live,
                Reply::Is(Rec {
                    kind: Kind::Cached | Kind::Resolved,
                    ..
                }) => return true,
                Reply::Is(Rec {
                    kind: Kind::Indeterminate,
                    ..
                }) => {
                    let resolve = ask(Verb::ResolveNotApplied, rec.revision());
                    rec = self.store.apply(rec, resolve).0;
                    Verb::TakeOver
                }
                _ if self.config.expires => Verb::TakeOver,
                _ => Verb::TakeOverWatched,
            };
            (rec, reply) = self.store.apply(rec, ask(verb, rec.revision()));
        }
        false
    }
}
