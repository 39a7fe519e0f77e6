//! What these tests share: a request, the clock, and stores that pass commands on.

/// Store commands that a test's own store passes to the store in one of its fields.
macro_rules! delegate {
    ($field:tt: $($command:ident),*) => { $(delegate!(@ $command $field);)* };
    (@ apply $field:tt) => {
        fn apply<'a>(
            &'a self,
            name: &'a genesys_once::record::RecordName,
            event: genesys_once::record::Event,
        ) -> genesys_once::store::BoxFuture<
            'a,
            Result<genesys_once::record::Answer, genesys_once::error::StoreError>,
        > {
            self.$field.apply(name, event)
        }
    };
    (@ look $field:tt) => {
        fn look<'a>(
            &'a self,
            name: &'a genesys_once::record::RecordName,
        ) -> genesys_once::store::BoxFuture<
            'a,
            Result<Option<genesys_once::record::RecordState>, genesys_once::error::StoreError>,
        > {
            self.$field.look(name)
        }
    };
}

use std::time::Duration;

use genesys_once::{DataActionRequest, Engine};

pub const SECOND: Duration = Duration::from_secs(1);

/// Lets other tasks run until `condition` holds; no time passes meanwhile.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("timed out waiting until {what}");
}

/// The actor of the flight that began last, found through ractor's own tree; the root has
/// `count` children in all.
pub fn child(engine: &Engine, count: usize) -> ractor::ActorCell {
    let children = engine.actor().get_cell().get_children();
    assert_eq!(children.len(), count);
    let newest = children
        .into_iter()
        .max_by_key(|child| child.get_id().pid());
    newest.expect("count is not 0")
}

pub fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}
