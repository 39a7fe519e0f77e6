//! `examples/supervised` runs, and prints what its supervision did.

#[path = "../examples/supervised/main.rs"]
#[allow(dead_code)] // its `main` is the example's
mod supervised;

use std::time::Duration;

/// Red if the application keeps the dead engine, and if it starts one more engine than its
/// budget allows.
#[tokio::test]
async fn the_application_supervises_the_engine_within_its_budget() {
    let ended = tokio::time::timeout(Duration::from_secs(60), supervised::run()).await;
    let lines = ended.expect("the example did not end").unwrap();
    assert_eq!(
        lines,
        [
            "order 1        200 OK from upstream",
            "order 2        indeterminate; what now: Resolve",
            "order 1 again  200 OK from store",
            "engine starts  3",
            "upstream calls: 2",
        ]
    );
}
