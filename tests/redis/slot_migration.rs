//! Separate bodies in slots that move from one cluster node to another.

use genesys_once::Store;
use genesys_once::error::RefusalKind;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{Answer, Event};

use super::cluster::{connect, hand_over};
use super::large_bodies::{body, body_key, replay};
use super::{acquire, apply, claim, complete, name};
use crate::support::cluster::RedisCluster;

/// A slot that has left one server and has not reached the other.
struct Move {
    slot: String,
    from: usize,
    to: usize,
}

fn set_slot(cluster: &RedisCluster, node: usize, slot: &str, state: &str, of: usize) {
    let id: String = cluster.nodes[of].command(&["CLUSTER", "MYID"]);
    cluster.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", slot, state, &id]);
}

/// Begins to move the slot of a number; its keys stay on the old server.
fn begin_move(cluster: &RedisCluster, number: u8) -> Move {
    let record = name(number).to_string();
    let (slot, from) = (
        cluster.slot(&record).to_string(),
        cluster.primary_of(&record),
    );
    let to = (from + 1) % 3;
    set_slot(cluster, to, &slot, "IMPORTING", from);
    set_slot(cluster, from, &slot, "MIGRATING", to);
    Move { slot, from, to }
}

/// A body stays in the slot of its record, also after a move.
///
/// Red if `ASK` or `MOVED` is not followed on the connections for bodies.
#[tokio::test]
async fn large_body_follows_its_slot() {
    let cluster = RedisCluster::start().await;
    let (store, other) = (connect(&cluster).await, connect(&cluster).await);
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    replay(&other, 1).await;
    let record = name(1).to_string();
    let Move { slot, from, to } = begin_move(&cluster, 1);
    let port = cluster.nodes[to].port.to_string();
    let body_key = body_key(1, claim(1).lease);
    let migrate = [
        "MIGRATE",
        "127.0.0.1",
        &port,
        "",
        "0",
        "5000",
        "KEYS",
        &record,
        &body_key,
    ];
    cluster.nodes[from].command::<()>(&migrate);
    let (stored_body, outcome) = replay(&other, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));
    set_slot(&cluster, to, &slot, "NODE", to);
    set_slot(&cluster, from, &slot, "NODE", to);
    let (stored_body, outcome) = replay(&other, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));
    apply(&other, 1, forget()).await.unwrap();
    let there: u32 = cluster.nodes[to].command(&["EXISTS", &body_key]);
    assert_eq!(there, 0);
}

fn forget() -> Event {
    Event::Forget {
        lease: claim(9).lease,
    }
}

/// A script finds the record on the old node, but not its body: the node refuses access to
/// a key that has already moved.
///
/// Red if that ends the script: in `forget.lua`, `discard.lua` and `write` of
/// `common.lua` with `redis.call` instead of `redis.pcall` for `DEL`, and in `has_body`
/// without `TRYAGAIN`. Each reply was then an `ERR`, which does not prove that the command
/// was not applied.
#[tokio::test]
async fn scripts_handle_body_on_other_server() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    for number in [2, 3] {
        apply(&store, number, acquire(1)).await.unwrap();
    }
    // An unreadable record: a copy under another name.
    let [record, copy] = [1, 4].map(|number| name(number).to_string());
    let bytes: String = cluster.nodes[cluster.primary_of(&record)].command(&["GET", &record]);
    cluster.nodes[cluster.primary_of(&copy)].command::<()>(&["SET", &copy, &bytes]);
    let unreadable = store.look_unreadable(&name(4)).await.unwrap().unwrap();
    let moves = [1, 2, 3, 4].map(|number| begin_move(&cluster, number));

    let forgotten = apply(&store, 1, forget()).await;
    let large = apply(&store, 2, complete(1, &body(2))).await;
    let mut reduced = complete(1, "");
    if let Event::Complete { stored, .. } = &mut reduced {
        stored.body = StoredBody::OmittedTooLarge;
    }
    let reduced = apply(&store, 3, reduced).await;
    let discarded = store.discard(&unreadable).await;
    let [forgotten, large, reduced] =
        [forgotten, large, reduced].map(|answer| answer.map_err(|error| error.refusal()));
    let discarded = discarded.map_err(|error| error.refusal());
    let expected = (
        Ok(Answer::Done),
        Err(Some(RefusalKind::NotNow)),
        Ok(Answer::Done),
        Ok(true),
    );
    assert_eq!((forgotten, large, reduced, discarded), expected);

    // Once the slot has moved, the whole outcome is accepted.
    let Move { slot, from, to } = &moves[1];
    hand_over(&cluster, slot, *from, *to);
    let large = apply(&store, 2, complete(1, &body(2))).await.unwrap();
    assert_eq!(large, Answer::Done);
    let (stored_body, outcome) = replay(&store, 2).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(2));
}
