//! Why and how long an execution waits before a call.

use std::sync::Arc;

use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::upstream::{AccessToken, Call, RatePermit, TokenSource};
use genesys_once::{Engine, Outcome, Upstream};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{NAMESPACE, SECOND, ask, builder, exporter, request, until, value};

/// The number of waits for this reason, and their seconds in all.
fn held(recorder: &PrometheusRecorder, by: &str) -> (f64, f64) {
    let part = |part| {
        let series = format!("genesys_once_wait_duration_seconds_{part}{{by=\"{by}\"}}");
        value(recorder, &series)
    };
    (part("count"), part("sum"))
}

/// Red without `held` at the cooldown, and without `held` at the wait between two attempts.
#[tokio::test(start_paused = true)]
async fn platform_limit_delays_all_executions() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"1", 1) => Step::RateLimited(20 * SECOND),
        _ => Step::ok("{}"),
    });
    let engine = builder(&upstream).start().await.unwrap();
    let first = ask(&engine, "1");
    until("the cooldown begins", || !engine.stats().cooldown.is_zero()).await;
    engine.execute(request("2")).await.unwrap();
    first.await.unwrap().unwrap();
    let (times, waited) = held(&recorder, "retry");
    assert!(times == 1.0 && (20.0..21.0).contains(&waited), "{waited}");
    let (times, waited) = held(&recorder, "platform");
    assert!(times >= 1.0 && (20.0..21.0).contains(&waited), "{waited}");
}

/// Red without `held` at the permit, and if a permit that is free at once counts.
#[tokio::test(start_paused = true)]
async fn max_in_flight_delays_the_next_call() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(7 * SECOND));
    let engine = builder(&upstream).max_in_flight(1).start().await.unwrap();
    let callers = [ask(&engine, "1"), ask(&engine, "2")];
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(held(&recorder, "permit"), (1.0, 7.0));
    for at_once in ["platform", "limiter"] {
        assert_eq!(held(&recorder, at_once), (0.0, 0.0));
    }
}

/// Red without `held` at the token.
#[tokio::test(start_paused = true)]
async fn slow_token_delays_its_execution() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let tokens = ScriptedTokens::new(|_| {
        TokenStep::After(4 * SECOND, Box::new(TokenStep::Issue(3600 * SECOND)))
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens);
    let engine = builder(&upstream).start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    assert_eq!(held(&recorder, "token"), (1.0, 4.0));
}

/// A platform with a rate limit of its own.
struct Limited(ScriptedUpstream);

impl Upstream for Limited {
    fn namespace(&self) -> Namespace {
        NAMESPACE.parse().unwrap()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        self.0.send(call, token)
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        None
    }

    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        Box::pin(async {
            tokio::time::sleep(3 * SECOND).await;
            RatePermit::default()
        })
    }
}

/// Red without `held` at the upstream's own limit. For a dropped wait, red if the time is
/// recorded after the wait and not in `Drop`.
#[tokio::test(start_paused = true)]
async fn upstream_limit_delays_executions() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = Limited(ScriptedUpstream::new(|_| Step::ok("{}")));
    let engine = Engine::builder(upstream).start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    assert_eq!(held(&recorder, "limiter"), (1.0, 3.0));

    let caller = ask(&engine, "2");
    until("the execution is admitted", || {
        engine.stats().executions == 1
    })
    .await;
    engine.shutdown(SECOND).await;
    caller.await.unwrap().unwrap_err();
    assert_eq!(held(&recorder, "limiter"), (2.0, 4.0));
}
