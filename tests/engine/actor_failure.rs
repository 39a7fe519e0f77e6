//! An execution that dies at any step: its waiters are answered, its record is finished by
//! what is known, and no request is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use genesys_once::record::{RecordName, RecordState};
use genesys_once::testing::{Fault, FaultyStore, Operation, ScriptedUpstream, Step};
use genesys_once::{
    Engine, EngineBuilder, Error, IdempotencyKey, MemoryStore, OnUnknown, Reply, Store as _,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SECOND, child, request, until};

/// How the record must end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// No request was executed: the next caller's request may be.
    Free,
    /// The request might have been executed.
    Held,
    /// The outcome is known.
    Cached,
}

/// The script of an execution, and how its record must end if the execution dies at each of
/// its store commands.
struct Course {
    name: &'static str,
    steps: Vec<Step>,
    on_unknown: OnUnknown,
    ends: &'static [End],
}

fn courses() -> Vec<Course> {
    use End::{Cached, Free, Held};
    let limited = || Step::RateLimited(5 * SECOND);
    let course = |name, steps, on_unknown, ends| Course {
        name,
        steps,
        on_unknown,
        ends,
    };
    let (hold, retry) = (OnUnknown::Hold, OnUnknown::Retry);
    vec![
        // Acquire, Enter(Claimed), Enter(Dispatched), Complete.
        course(
            "limited, then executed",
            vec![limited(), Step::ok("{}")],
            hold,
            &[Free, Free, Free, Cached],
        ),
        // Acquire, Release.
        course(
            "refused",
            vec![Step::status(403, "{}")],
            hold,
            &[Free, Free],
        ),
        // Acquire, Release: the wait is longer than any wait allowed.
        course(
            "limited for long",
            vec![Step::RateLimited(500 * SECOND)],
            hold,
            &[Free, Free],
        ),
        // Acquire, Abandon.
        course("reset", vec![Step::Reset], hold, &[Free, Held]),
        // Acquire, Enter(Dispatched) twice, Complete: every attempt is written before
        // it is sent.
        course(
            "reset, then executed",
            vec![Step::Reset, limited(), Step::ok("{}")],
            retry,
            &[Free, Held, Held, Cached],
        ),
        // Acquire, Enter(Dispatched), Abandon.
        course(
            "reset, then refused",
            vec![Step::Reset, Step::status(403, "{}")],
            retry,
            &[Free, Held, Held],
        ),
    ]
}

impl Course {
    /// The platform, and the switch that makes it answer later callers with success.
    fn upstream(&self) -> (ScriptedUpstream, Arc<AtomicBool>) {
        let (steps, calls) = (self.steps.clone(), AtomicU32::new(0));
        let well = Arc::new(AtomicBool::new(false));
        let upstream = ScriptedUpstream::new({
            let well = well.clone();
            move |_| {
                let call = calls.fetch_add(1, Ordering::SeqCst) as usize;
                match steps.get(call) {
                    Some(step) if !well.load(Ordering::SeqCst) => step.clone(),
                    _ => Step::ok("{}"),
                }
            }
        });
        (upstream, well)
    }
}

/// What happens to the execution at a store command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// Killed before the store gets the command.
    KilledBefore,
    /// Killed after the store has applied the command, before the execution gets the reply.
    KilledAfter,
    /// Cut off by the end of a grace period, at the same two moments.
    CutBefore,
    CutAfter,
}

impl Death {
    fn is_cut(self) -> bool {
        matches!(self, Self::CutBefore | Self::CutAfter)
    }

    fn at(self, number: usize) -> impl Fn(&Operation<'_>) -> Fault + Send + Sync + 'static {
        move |operation| match self {
            _ if operation.number != number => Fault::Pass,
            Self::KilledBefore | Self::CutBefore => {
                Fault::After(3600 * SECOND, Box::new(Fault::Fail))
            }
            Self::KilledAfter | Self::CutAfter => Fault::Silent,
        }
    }
}

pub fn ask(engine: &Engine) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request("{}")).await })
}

pub async fn answers_of(
    waiters: Vec<JoinHandle<Result<Reply, Error>>>,
    what: &str,
) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for waiter in waiters {
        let answer = timeout(3600 * SECOND, waiter).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: a waiter was left unanswered"));
        codes.push(match answer.unwrap() {
            Ok(_) => "ok",
            Err(error) => error.code(),
        });
    }
    codes
}

/// How the record ends once no holder has its key. No time passes meanwhile.
pub async fn end(store: &MemoryStore, upstream: &ScriptedUpstream, what: &str) -> End {
    use genesys_once::Upstream as _;
    let key = IdempotencyKey::of(&request("{}"));
    let name = RecordName::new(upstream.namespace(), key);
    for _ in 0..10_000 {
        match store.look(&name).await.unwrap() {
            Some(RecordState::Locked { .. }) => tokio::task::yield_now().await,
            None | Some(RecordState::Released { .. }) => return End::Free,
            Some(RecordState::Indeterminate { .. }) => return End::Held,
            Some(RecordState::Cached { .. }) => return End::Cached,
            other => panic!("{what}: {other:?}"),
        }
    }
    panic!("{what}: its record is still locked");
}

/// The next process finds this end, and executes only a free key.
async fn next(builder: EngineBuilder, store: MemoryStore, end: End, what: &str) -> usize {
    let next = builder.store(store).start().await.unwrap();
    match (next.execute(request("{}")).await, end) {
        (Ok(reply), End::Free) => assert!(reply.is_success(), "{what}: {reply:?}"),
        (Ok(reply), End::Cached) => assert_eq!(
            reply.served(),
            genesys_once::Served::Store,
            "{what}: {reply:?}"
        ),
        (Err(Error::Indeterminate { .. }), End::Held) => {}
        (answer, end) => panic!("{what}: {answer:?} where the record ended {end:?}"),
    }
    usize::from(end == End::Free)
}

/// I3. Red if the guard's `Drop` leaves the flight in the table, without the supervisor's
/// `finish_record` for dead children, and without the notes `acquiring` before the acquire
/// and `set_outcome` before the complete.
#[tokio::test(start_paused = true)]
async fn at_every_store_command_of_every_course() {
    let deaths = [
        Death::KilledBefore,
        Death::KilledAfter,
        Death::CutBefore,
        Death::CutAfter,
    ];
    let mut tried = 0;
    for course in courses() {
        for (number, expected) in (1..).zip(course.ends) {
            for death in deaths {
                let what = format!("{}, command {number}, {death:?}", course.name);
                let ((upstream, well), store) = (course.upstream(), MemoryStore::new());
                let faulty = FaultyStore::new(store.clone(), death.at(number));
                let builder = Engine::builder(upstream.clone()).on_unknown(course.on_unknown);
                let engine = builder.clone().store(faulty.clone()).start().await.unwrap();
                let waiters = vec![ask(&engine), ask(&engine)];
                while faulty.commands() < number {
                    tokio::time::sleep(SECOND / 10).await;
                }
                let expected_code = if death.is_cut() { "stopped" } else { "crashed" };
                match death {
                    Death::KilledBefore | Death::KilledAfter => child(&engine, 1).kill(),
                    Death::CutBefore | Death::CutAfter => {
                        engine.shutdown(Duration::ZERO).await;
                    }
                }
                let codes = answers_of(waiters, &what).await;
                assert_eq!(codes, [expected_code; 2], "{what}");
                assert_eq!(end(&store, &upstream, &what).await, *expected, "{what}");
                let calls = upstream.ledger().total();
                well.store(true, Ordering::SeqCst);
                let more = next(builder, store, *expected, &what).await;
                assert_eq!(upstream.ledger().total(), calls + more, "{what}");
                if !death.is_cut() {
                    assert_eq!(
                        engine.actor().get_status(),
                        ractor::ActorStatus::Running,
                        "{what}"
                    );
                    until("the table is empty", || engine.stats().executions == 0).await;
                    assert_eq!(engine.stats().waiting, 0, "{what}");
                }
                tried += 1;
            }
        }
    }
    println!("deaths at store commands: {tried}");
}

/// Deaths between the store commands: while a request is under way, and during the wait for
/// the next attempt.
///
/// Red without the note `sending` before `send`, and if under `Retry` a later proof that
/// nothing was executed takes the note back.
#[tokio::test(start_paused = true)]
async fn under_way_and_between_attempts() {
    let slow = || Step::ok("{}").after(10 * SECOND);
    let (hold, retry) = (OnUnknown::Hold, OnUnknown::Retry);
    type Moment = fn(&Engine, &ScriptedUpstream) -> bool;
    let calls_1: Moment = |_, upstream| upstream.ledger().total() == 1;
    let calls_2: Moment = |_, upstream| upstream.ledger().total() == 2;
    let refused_1: Moment = |engine, _| engine.stats().calls_not_executed == 1;
    let unknown_1: Moment = |engine, _| engine.stats().calls_unknown == 1;
    let limited = Step::RateLimited(5 * SECOND);
    let cases = [
        ("first", vec![slow()], hold, calls_1, End::Held),
        ("wait", vec![limited.clone()], hold, refused_1, End::Free),
        (
            "second",
            vec![limited.clone(), slow()],
            hold,
            calls_2,
            End::Held,
        ),
        (
            "wait after a refused connection",
            vec![Step::Refused],
            hold,
            refused_1,
            End::Free,
        ),
        (
            "wait after an unknown outcome",
            vec![Step::Reset],
            retry,
            unknown_1,
            End::Held,
        ),
        (
            "second after an unknown outcome",
            vec![Step::Reset, slow()],
            retry,
            calls_2,
            End::Held,
        ),
        (
            "wait after an unknown outcome and a refusal",
            vec![Step::Reset, limited],
            retry,
            refused_1,
            End::Held,
        ),
    ];
    for (name, steps, on_unknown, moment, expected) in cases {
        for cut in [false, true] {
            let what = format!("{name}, cut: {cut}");
            let course = Course {
                name,
                steps: steps.clone(),
                on_unknown,
                ends: &[],
            };
            let ((upstream, well), store) = (course.upstream(), MemoryStore::new());
            let builder = Engine::builder(upstream.clone()).on_unknown(on_unknown);
            let engine = builder.clone().store(store.clone()).start().await.unwrap();
            let waiters = vec![ask(&engine), ask(&engine)];
            while !moment(&engine, &upstream) {
                tokio::time::sleep(SECOND / 10).await;
            }
            if cut {
                engine.shutdown(Duration::ZERO).await;
            } else {
                child(&engine, 1).kill();
            }
            let expected_code = if cut { "stopped" } else { "crashed" };
            assert_eq!(
                answers_of(waiters, &what).await,
                [expected_code; 2],
                "{what}"
            );
            assert_eq!(end(&store, &upstream, &what).await, expected, "{what}");
            let calls = upstream.ledger().total();
            well.store(true, Ordering::SeqCst);
            let more = next(builder, store, expected, &what).await;
            assert_eq!(upstream.ledger().total(), calls + more, "{what}");
        }
    }
}

/// The whole tree dies at once. No actor finishes a record, and only the expiry of the lease
/// ends it. Nothing is executed twice, whatever the moment of death.
#[tokio::test(start_paused = true)]
async fn with_the_root_at_every_store_command() {
    for course in courses() {
        for number in 1..=course.ends.len() {
            for death in [Death::KilledBefore, Death::KilledAfter] {
                let what = format!("{}, command {number}, {death:?}", course.name);
                let ((upstream, well), store) = (course.upstream(), MemoryStore::new());
                let faulty = FaultyStore::new(store.clone(), death.at(number));
                let builder = Engine::builder(upstream.clone()).on_unknown(course.on_unknown);
                let engine = builder.clone().store(faulty.clone()).start().await.unwrap();
                let waiters = vec![ask(&engine), ask(&engine)];
                while faulty.commands() < number {
                    tokio::time::sleep(SECOND / 10).await;
                }
                engine.actor().get_cell().kill();
                assert_eq!(answers_of(waiters, &what).await, ["stopped"; 2], "{what}");
                tokio::time::sleep(40 * SECOND).await;
                well.store(true, Ordering::SeqCst);
                let next = builder.store(store).start().await.unwrap();
                let key = IdempotencyKey::of(&request("{}"));
                let before = upstream.ledger().executed(&key);
                let answer = next.execute(request("{}")).await;
                let after = upstream.ledger().executed(&key);
                match answer {
                    Ok(_) => assert!(before == 0 || after == before, "{what}"),
                    Err(Error::Indeterminate { .. }) => assert_eq!(after, before, "{what}"),
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}
