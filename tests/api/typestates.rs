//! The compiler refuses each wrong program in `tests/api/typestates/`, with the error in the
//! file of the same name. The correct program passes all states in order.

#[test]
fn wrong_order_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/api/typestates/wrong_*.rs");
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn right_order_executes() {
    use genesys_once::execution::{Attempt, Execution, Lock, Terms};
    use genesys_once::testing::{ScriptedUpstream, Step};
    use genesys_once::{DataActionRequest, MemoryStore, Served, Upstream as _};

    let upstream = ScriptedUpstream::new(|_| Step::ok(r#"{"receipt": "R-1"}"#));
    let store = MemoryStore::new();
    let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#).unwrap();

    let hashed = Execution::new(request.clone(), upstream.namespace());
    let Ok(Lock::Locked(locked)) = hashed.lock(&store, &Terms::default()).await else {
        panic!("the key is free");
    };
    let Ok(Attempt::Executed(executed)) = locked.execute(&store, &upstream, None).await else {
        panic!("the answer is final");
    };
    let cached = executed.cache(&store).await.map_err(|(_, error)| error);
    assert_eq!(cached.unwrap().into_reply().served(), Served::Upstream);

    let hashed = Execution::new(request, upstream.namespace());
    let Ok(Lock::Cached(cached)) = hashed.lock(&store, &Terms::default()).await else {
        panic!("the outcome is recorded");
    };
    assert_eq!(cached.into_reply().served(), Served::Store);
    assert_eq!(upstream.ledger().total(), 1);
}
