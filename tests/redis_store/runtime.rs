//! `connect` on runtimes that lack something: a driver, a free blocking thread.

use super::connect::unavailable;

/// A runtime without a driver makes the client panic in the middle.
///
/// Red when the panic goes on to the caller.
#[test]
fn panic_of_the_client_is_an_error() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let told = runtime.block_on(unavailable("redis://127.0.0.1:1"));
    assert!(told.contains("the redis client panicked"), "{told}");
}

/// Red when names are looked up by the runtime's blocking threads: nothing comes
/// back in time.
#[test]
fn name_is_resolved_although_the_blocking_pool_is_busy() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (free, busy) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || busy.recv());
    let told = runtime.block_on(unavailable("redis://localhost:1"));
    drop(free);
    // By an address that was found, not by silence.
    assert!(told.contains("refused"), "{told}");
}
