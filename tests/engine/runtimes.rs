//! The engine's functions outside of a tokio runtime, and in a runtime that cannot drive
//! them: an error before anything is sent, and never a panic.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use genesys_once::execution::{Execution, Lock, Terms};
use genesys_once::record::Version;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, Error, IdempotencyKey, MemoryStore, Resolution, RetryHint, Upstream};
use tokio::runtime::{Builder, Runtime};

use super::{SECOND, request};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread, as an executor other than tokio's does.
fn outside<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

fn assert_no_runtime<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::NoRuntime), "{error}");
    assert_eq!(
        (error.code(), error.hint()),
        ("no_runtime", RetryHint::Never)
    );
}

/// Red without the checks: each of these functions panicked, `execute` after it had begun
/// the execution.
#[test]
fn functions_outside_runtime_report_it() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    assert_no_runtime(outside(Engine::builder(upstream.clone()).start()));
    let runtime = runtime();
    let engine = runtime.block_on(Engine::builder(upstream.clone()).start());
    let engine = engine.unwrap();
    let key = IdempotencyKey::of(&request("{}"));
    assert_no_runtime(outside(engine.execute(request("{}"))));
    assert_no_runtime(outside(engine.execute_within(request("{}"), SECOND)));
    assert_no_runtime(outside(engine.inspect(&key)));
    let version = format!("{}-{}", "0".repeat(32), "0".repeat(64));
    let version: Version = version.parse().unwrap();
    let resolution = Resolution::not_applied();
    assert_no_runtime(outside(engine.resolve(&key, version, resolution)));
    assert_no_runtime(outside(engine.forget(&key)));
    assert_no_runtime(outside(engine.indeterminate(1)));
    assert_eq!((engine.stats().executions, engine.stats().waiting), (0, 0));
    assert_eq!(upstream.ledger().total(), 0);

    // Nothing is left behind: inside the runtime the key is executed.
    assert!(runtime.block_on(engine.execute(request("{}"))).is_ok());
    // A replay from memory needs a runtime as well.
    assert_no_runtime(outside(engine.execute(request("{}"))));
    assert_eq!(upstream.ledger().total(), 1);
    assert!(outside(engine.shutdown(SECOND)).is_clean());
    assert!(outside(engine.shutdown(SECOND)).is_clean());
    let stopped = runtime.block_on(engine.execute(request("[1]")));
    assert!(matches!(stopped, Err(Error::Stopped)));
}

#[test]
fn after_its_runtime_an_engine_has_stopped() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let first = runtime();
    let engine = first.block_on(Engine::builder(upstream.clone()).start());
    let engine = engine.unwrap();
    drop(first);
    let answer = runtime().block_on(engine.execute(request("{}")));
    assert!(matches!(answer, Err(Error::Stopped)), "{answer:?}");
    outside(engine.shutdown(SECOND));
    assert_eq!(upstream.ledger().total(), 0);
}

/// Red without the check: the engine started, and its first execution crashed.
#[test]
fn engine_needs_runtime_timers() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    assert_no_runtime(runtime.block_on(Engine::builder(upstream).start()));
}

#[test]
fn manual_execution_needs_a_runtime() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let (store, terms) = (MemoryStore::new(), Terms::default());
    let hashed = || Execution::new(request("{}"), upstream.namespace());
    assert_no_runtime(outside(hashed().lock(&store, &terms)));
    let runtime = runtime();
    let Ok(Lock::Locked(locked)) = runtime.block_on(hashed().lock(&store, &terms)) else {
        panic!("the key is free");
    };
    assert_no_runtime(outside(locked.execute(&store, &upstream, None)));
    assert_eq!(upstream.ledger().total(), 0);
}
