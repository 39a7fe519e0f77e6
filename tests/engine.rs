//! What a caller of the engine sees, under virtual time: coalescing, replays,
//! retries, refusals, unknown outcomes, bounds and the end of the engine.
#![cfg(feature = "testing")]

mod engine {
    mod answers;
    mod bounds;
    mod company;
    mod fail_open;
    mod lifecycle;
    mod limits;
    mod mismatch;
    mod once;
    mod outage;
    mod tokens;
    mod unknown;
    mod wishes;

    use std::time::Duration;

    use genesys_once::DataActionRequest;

    pub const SECOND: Duration = Duration::from_secs(1);

    /// Lets others run until `condition` holds; no time passes meanwhile.
    pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("waited in vain until {what}");
    }

    pub fn request(payload: &str) -> DataActionRequest {
        DataActionRequest::new("custom_-_refund", payload).unwrap()
    }
}
