//! What several test binaries share. Each uses a part of it, so unused items
//! are no mistake here.
#![allow(dead_code)]

pub mod cluster;
pub mod redis;
pub mod sentinel;

use std::time::{Duration, Instant};

/// Waits until `condition` holds; for what no notice announces.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(60), what, condition).await;
}

/// The same, for what takes longer.
pub async fn eventually_within(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
