//! What several test binaries share. Each uses a part of it, so unused items
//! are no mistake here.
#![allow(dead_code)]

pub mod redis;

use std::time::{Duration, Instant};

/// Waits until `condition` holds; for what no notice announces.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
