//! The platform of a run: what it does with each call, what it knows of the call, and the
//! labels that name the request of every answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use genesys_once::error::{SendError, TokenError};
use genesys_once::record::{Namespace, RecordName};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, TokenStep, answers};
use genesys_once::upstream::{AccessToken, Call, TokenSource};
use genesys_once::{Outcome, Upstream};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};

use super::facts::Ended;
use super::schedule::{Answer, Kind, TokenAnswer};
use super::world::World;

/// The platform as one engine reaches it.
pub struct Platform {
    pub world: Arc<World>,
    pub engine: usize,
    pub life: usize,
}

impl Platform {
    fn namespace_of(&self) -> Namespace {
        self.world.namespace(self.engine)
    }

    async fn follow(&self, call: &Call, token: Option<&AccessToken>) -> Result<Outcome, SendError> {
        let world = &self.world;
        let (slot, variant) = parts(call.request().payload());
        let admitted = world
            .tokens
            .as_ref()
            .is_none_or(|tokens| tokens.admits(token));
        let Answer {
            connect,
            delay,
            kind,
            executes,
        } = if admitted {
            world.next_answer(slot)
        } else {
            Answer {
                connect: 0,
                delay: 0,
                kind: Kind::Unauthorized,
                executes: false,
            }
        };
        let name = RecordName::new(self.namespace_of(), call.key());
        if connect > 0 || kind == Kind::Refused {
            let connecting = Connecting { world, name: &name };
            sleep(Duration::from_millis(connect)).await;
            if kind == Kind::Refused {
                sleep(Duration::from_millis(delay)).await;
            }
            std::mem::forget(connecting);
            if !call.may_leave() {
                return Err(SendError::before_sending("scripted: the lease expired"));
            }
        }
        let delay = Duration::from_millis(delay);
        if kind == Kind::Refused {
            return Err(SendError::before_sending("scripted: connection refused"));
        }
        let limit = self.attempt_timeout();
        let executes_at = executes_at(kind, executes, delay.min(limit));
        let id = world.arrive(
            self,
            name,
            (slot, variant),
            call.attempt(),
            kind,
            executes_at,
        );
        let arrival = Arrival { world, id };
        sleep(delay).await;
        let label = world.label(self.engine, slot, variant);
        match kind {
            Kind::Silent => std::future::pending().await,
            Kind::Reset => {
                arrival.ends(Ended::Unknown);
                Err(SendError::after_sending("scripted: reset"))
            }
            Kind::Panic => {
                arrival.ends(Ended::Unknown);
                panic!("scripted: the upstream panics");
            }
            kind => {
                let mut outcome = outcome(kind, &label, id);
                world.name_by_status(&mut outcome, &label, id);
                arrival.ends(ended(kind));
                Ok(outcome)
            }
        }
    }
}

/// Slot and variant of a payload.
pub fn parts(payload: &Bytes) -> (u8, u8) {
    let value: serde_json::Value = serde_json::from_slice(payload).expect("our own payload");
    let number = |field: &str| value[field].as_u64().expect("our own payload") as u8;
    (number("slot"), number("variant"))
}

/// When a call is executed, after its arrival.
fn executes_at(kind: Kind, executes: bool, at: Duration) -> Option<Duration> {
    let does = match kind {
        Kind::Ok | Kind::Large | Kind::RelayedLimit | Kind::RelayedForbidden => true,
        Kind::Unavailable | Kind::Reset | Kind::Silent | Kind::Panic => executes,
        _ => false,
    };
    does.then_some(at)
}

/// What an answer of this kind proves, by a rule of this test's own.
fn ended(kind: Kind) -> Ended {
    match kind {
        Kind::Ok | Kind::Large | Kind::RelayedForbidden => Ended::Final,
        Kind::Unavailable | Kind::RelayedLimit => Ended::Unknown,
        _ => Ended::Refused,
    }
}

fn outcome(kind: Kind, label: &str, id: usize) -> Outcome {
    let words = format!("call {id} for {label}");
    let details = |status, code: &str| {
        let mut outcome = answers::remote_error(status, code, &words);
        outcome.headers_mut().clear();
        outcome
    };
    let plain = |status: u16, body: String| {
        let status = StatusCode::from_u16(status).expect("a status");
        Outcome::new(status, HeaderMap::new(), body)
    };
    let refusal = |status| plain(status, format!(r#"{{"code":"no","message":"{words}"}}"#));
    let with = |mut outcome: Outcome, name: &'static str, value: String| {
        outcome
            .headers_mut()
            .insert(name, HeaderValue::from_str(&value).expect("a header"));
        outcome
    };
    let outcome = match kind {
        Kind::Ok => plain(200, format!(r#"{{"message":"{words}"}}"#)),
        Kind::Large => plain(
            200,
            format!(r#"{{"message":"{words}","more":"{}"}}"#, "x".repeat(3000)),
        ),
        Kind::Forbidden => refusal(403),
        Kind::NotFound => refusal(404),
        Kind::Unauthorized => refusal(401),
        Kind::Timeout408 => refusal(408),
        Kind::Unavailable => refusal(503),
        Kind::Limited(seconds) => with(refusal(429), "retry-after", seconds.to_string()),
        Kind::OddLimit(which) => {
            let value = [
                "-1",
                "soon",
                "1e9",
                "99999999999999999999",
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "0.5",
            ];
            with(
                refusal(429),
                "retry-after",
                value[usize::from(which)].to_owned(),
            )
        }
        Kind::Unreadable(0) => plain(403, String::new()),
        Kind::Unreadable(1) => plain(403, "<html>no</html>".to_owned()),
        Kind::Unreadable(_) => plain(
            403,
            r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDP"#.to_owned(),
        ),
        Kind::RelayedLimit => details(429, "ACTION.REMOTE_ENDPOINT"),
        Kind::RelayedForbidden => details(403, "ACTION.REMOTE_ENDPOINT"),
        Kind::RemoteLogin => details(400, "ACTION.AUTHENTICATION"),
        Kind::Reset | Kind::Refused | Kind::Silent | Kind::Panic => unreachable!("no answer"),
    };
    with(outcome, "inin-correlation-id", format!("{label}-{id}"))
}

/// A call that has not left yet. If it is dropped, its engine cannot know that it had not
/// left.
struct Connecting<'a> {
    world: &'a World,
    name: &'a RecordName,
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.world.state().connecting.insert(self.name.clone());
    }
}

/// A call on the platform. If it is dropped without an end, its caller gave it up.
struct Arrival<'a> {
    world: &'a World,
    id: usize,
}

impl Arrival<'_> {
    fn ends(&self, how: Ended) {
        self.world.ends(self.id, how);
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.world.ends(self.id, Ended::Dropped);
    }
}

impl Upstream for Platform {
    fn namespace(&self) -> Namespace {
        self.namespace_of()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(self.follow(call, token))
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        let tokens = self.world.tokens.clone()?;
        Some(Arc::new(tokens))
    }

    fn attempt_timeout(&self) -> Duration {
        Duration::from_millis(self.world.schedule.setup.engines[self.engine].attempt_timeout)
    }
}

/// The token endpoint: the schedule's answers first, tokens afterwards.
pub fn tokens(life: Duration, script: Vec<TokenAnswer>, until: Instant) -> ScriptedTokens {
    let script = move |number: usize| {
        script
            .get(number - 1)
            .filter(|_| Instant::now() < until)
            .cloned()
    };
    ScriptedTokens::new(move |number| match script(number) {
        None => TokenStep::Issue(life),
        Some(TokenAnswer::Late(after)) => TokenStep::After(
            Duration::from_millis(after),
            Box::new(TokenStep::Issue(life)),
        ),
        Some(TokenAnswer::Fail) => TokenStep::Fail(TokenError::new("scripted: down")),
        Some(TokenAnswer::Reject) => TokenStep::Fail(TokenError::rejected("scripted: rejected")),
        Some(TokenAnswer::Limited(seconds)) => TokenStep::Fail(TokenError::rate_limited(
            Duration::from_secs(u64::from(seconds)),
        )),
        Some(TokenAnswer::Silent) => TokenStep::Silent,
        Some(TokenAnswer::Panic) => TokenStep::Panic,
    })
}
