//! A wrapper must delegate: for methods with a default in the trait, it returns the inner
//! store's answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use genesys_once::Store;
use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Event, Namespace, RecordName, RecordState};
use genesys_once::store::{BoxFuture, ListQuery, Page};
use genesys_once::testing::{Fault, FaultyStore};

use super::{encrypted, name};

/// A store with two shards, an immediate notification, and an empty list.
struct TwoParts;

impl Store for TwoParts {
    fn apply<'a>(
        &'a self,
        _: &'a RecordName,
        _: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async { Ok(Answer::Is(None)) })
    }

    fn look<'a>(
        &'a self,
        _: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async { Ok(None) })
    }

    fn changed<'a>(&'a self, _: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn shard(&self, name: &RecordName) -> u64 {
        u64::from(name.key.as_bytes()[0] % 2)
    }

    fn list<'a>(
        &'a self,
        _: &'a Namespace,
        _: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn walk_turn<'a>(
        &'a self,
        _: &'a Namespace,
        _: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async { Ok(false) })
    }

    fn least_writer<'a>(
        &'a self,
        _: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        Box::pin(async move { Ok(at_least + 1) })
    }
}

/// Red without `shard` in `Encrypted`: shards would fail together. Red without
/// `least_writer`: an outdated engine would acquire keys. Red without `walk_turn`: every
/// process would walk.
#[test]
fn wrapper_delegates_every_default_method() {
    let wrappers: [Box<dyn Store>; 3] = [
        Box::new(encrypted(TwoParts)),
        Box::new(Arc::new(TwoParts)),
        Box::new(FaultyStore::new(TwoParts, |_| Fault::Pass)),
    ];
    for store in wrappers {
        assert_eq!((store.shard(&name(4)), store.shard(&name(5))), (0, 1));
        assert!(store.changed(&name(4)).now_or_never().is_some());
        let namespace = "test".parse().unwrap();
        let query = ListQuery::indeterminate();
        let listed = store.list(&namespace, &query).now_or_never();
        assert_eq!(listed.unwrap().unwrap(), Page::default());
        let turn = store.walk_turn(&namespace, Duration::from_secs(60));
        assert!(!turn.now_or_never().unwrap().unwrap());
        let least = store.least_writer(&namespace, 7).now_or_never();
        assert_eq!(least.unwrap().unwrap(), 8);
    }
}
