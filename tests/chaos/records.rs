//! What stands in the store, as engines of the coordinator's own see it. They
//! only look, and would fail the run if they called anybody.

use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, IdempotencyKey, RedisStore};

use super::roles::{Realm, Roles};
use super::worker::request;

/// The state of each number's record, in a word.
pub async fn look(store: RedisStore, roles: Roles, numbers: u64) -> Vec<&'static str> {
    let held = looker(&store, Realm::Held).await;
    let open = looker(&store, Realm::Open).await;
    let mut states = Vec::new();
    for number in 0..numbers {
        let engine = match roles.realm(number) {
            Realm::Held => &held,
            Realm::Open => &open,
        };
        states.push(match engine.inspect(&key(number)).await.unwrap() {
            None => "absent",
            Some(RecordState::Locked { .. }) => "locked",
            Some(RecordState::Cached { .. }) => "cached",
            Some(RecordState::Indeterminate { .. }) => "indeterminate",
            Some(RecordState::Released { .. }) => "released",
            Some(_) => "in an unknown state",
        });
    }
    states
}

/// The key of a number.
pub fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::of(&request(number, 0, 0))
}

async fn looker(store: &RedisStore, realm: Realm) -> Engine {
    let engine = Engine::builder(ScriptedUpstream::new(|_| Step::Panic))
        .store(store.clone())
        .namespace(realm.namespace());
    engine.start().await.unwrap()
}
