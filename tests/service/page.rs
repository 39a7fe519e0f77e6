//! The page for operators, without a browser: which clients may see it, and which forms it
//! accepts.

use std::time::{Duration, SystemTime};

use genesys_once::testing::{GenesysSimulator, Step};

use crate::http_client::{Answer, send};
use crate::key;
use crate::process::{Service, Settings, TOKEN};
use crate::session::Sessions;
use crate::support::redis::RedisServer;
use crate::token::Token;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Sends a form with these fields.
async fn post(service: &Service, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let encoded = |text: &str| -> String {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        bytes.collect()
    };
    let fields = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)));
    let body = fields.collect::<Vec<_>>().join("&");
    let headers = [FORM, ("cookie", cookie)];
    let answer = send(&service.address, "POST", path, &headers, &body).await;
    answer.unwrap()
}

async fn get(service: &Service, cookie: &str) -> Answer {
    let answer = send(&service.address, "GET", "/", &[("cookie", cookie)], "").await;
    answer.unwrap()
}

/// The cookie of a new session, and the token that its forms carry.
async fn log_in(service: &Service) -> (String, String) {
    let answer = post(service, "/login", "", &[("token", TOKEN)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    let cookie = answer.header("set-cookie").split(';').next().unwrap();
    let page = get(service, cookie).await;
    assert_eq!(page.status, 200, "{page:?}");
    let (_, rest) = page
        .body
        .split_once(r#"name="form_token" value=""#)
        .unwrap();
    let form_token = rest.split('"').next().unwrap();
    (cookie.to_owned(), form_token.to_owned())
}

/// A service whose key of order 1 is indeterminate.
async fn with_open_key(redis: &RedisServer, platform: &GenesysSimulator) -> Service {
    platform.script(|_| Step::Reset);
    let service = Settings::of(platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    let lost = service.execute(r#"{"order":1}"#).await;
    lost.problem(502, "indeterminate");
    service
}

/// Seen red if the cookie's signature is not compared, and without `HttpOnly`.
#[tokio::test]
async fn page_needs_the_admin_token() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = with_open_key(&redis, &platform).await;
    let anonymous = get(&service, "").await;
    assert_eq!(
        (anonymous.status, anonymous.header("location")),
        (303, "/login")
    );
    let login = service.get("/login").await;
    assert_eq!(login.status, 200);
    for wrong in ["", "an-admin-token-of-the-test", "' or ''='"] {
        let answer = post(&service, "/login", "", &[("token", wrong)]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, ""));
    }

    let answer = post(&service, "/login", "", &[("token", TOKEN)]).await;
    let attributes = answer.header("set-cookie").split_once("; ").unwrap().1;
    assert_eq!(
        attributes,
        "Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"
    );
    let headers = [FORM, ("x-forwarded-proto", "https")];
    let body = format!("token={TOKEN}");
    let answer = send(&service.address, "POST", "/login", &headers, &body).await;
    assert!(answer.unwrap().header("set-cookie").ends_with("; Secure"));

    let (cookie, _) = log_in(&service).await;
    let page = get(&service, &cookie).await;
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("script") && !policy.contains("unsafe"));
    assert!(page.body.contains(&key(1).to_string()));

    // Another time, another signature, no signature, no value.
    let (name, value) = cookie.split_once('=').unwrap();
    let (signed, signature) = value.rsplit_once('.').unwrap();
    for value in [
        format!("9{signed}.{signature}"),
        format!("{signed}.{}", signature.to_uppercase()),
        signed.to_owned(),
        String::new(),
    ] {
        let answer = get(&service, &format!("{name}={value}")).await;
        assert_eq!(answer.status, 303, "{value}");
    }
}

/// Seen red if the token of a form is not compared: another site resolved a key.
#[tokio::test]
async fn no_other_site_resolves_a_key() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = with_open_key(&redis, &platform).await;
    let (cookie, form_token) = log_in(&service).await;
    let (_, other_session) = log_in(&service).await;
    let key = key(1).to_string();
    let path = format!("/keys/{key}");
    let record = service.admin("GET", &path, "").await.json();
    let version = record["version"].as_str().unwrap();
    let fields = |token| {
        [
            ("form_token", token),
            ("key", key.as_str()),
            ("version", version),
            ("resolution", "applied"),
            ("status", "200"),
            ("body", r#"{"refund":"R-1"}"#),
            ("by", "night shift, ticket 7"),
        ]
    };
    for token in ["", &other_session] {
        let answer = post(&service, "/resolve", &cookie, &fields(token)).await;
        answer.problem(403, "forbidden");
        let cooldown = [("form_token", token)];
        let answer = post(&service, "/end-cooldown", &cookie, &cooldown).await;
        answer.problem(403, "forbidden");
        let answer = post(&service, "/logout", &cookie, &cooldown).await;
        answer.problem(403, "forbidden");
    }
    let answer = post(&service, "/resolve", &cookie, &[]).await;
    answer.problem(400, "invalid_request");
    let answer = post(&service, "/resolve", "", &fields(&form_token)).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/login"));
    let record = service.admin("GET", &path, "").await.json();
    assert_eq!(record["state"], "indeterminate");

    // The page reports what is wrong with its own forms, and why a resolution is too early.
    for (name, value, status, says) in [
        ("by", " ", 400, "name its source"),
        ("status", "1000", 400, "status is 200 to 599"),
        ("body", "{", 400, "body is not JSON"),
        ("resolution", "", 400, "whether the request was executed"),
        ("resolution", "not_applied", 409, "might run for another"),
    ] {
        let mut fields = fields(&form_token);
        let field = fields.iter_mut().find(|field| field.0 == name).unwrap();
        field.1 = value;
        let answer = post(&service, "/resolve", &cookie, &fields).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(says), "{answer:?}");
    }

    let answer = post(&service, "/resolve", &cookie, &fields(&form_token)).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.header("location"), format!("/?resolved={key}"));
    let replay = service.execute(r#"{"order":1}"#).await;
    assert_eq!(replay.body, r#"{"refund":"R-1"}"#);
    assert_eq!(platform.ledger().total(), 1);
}

/// Seen red without the comparison with `now`.
#[test]
fn session_ends_with_its_time_and_its_token() {
    let sessions = Sessions::new(Token::parse(TOKEN).unwrap());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let session = sessions.open(now).unwrap();
    let cookie = session.cookie(false);
    let mut headers = axum::http::HeaderMap::new();
    let value = format!("other=1; {}", cookie.split(';').next().unwrap());
    headers.insert("cookie", value.parse().unwrap());
    let hours = |hours: u64| now + Duration::from_secs(hours * 60 * 60);
    assert_eq!(sessions.of(&headers, hours(7)), Some(session.clone()));
    assert_eq!(sessions.of(&headers, hours(8)), None);
    let others = Sessions::new(Token::parse("another-admin-token").unwrap());
    assert_eq!(others.of(&headers, now), None);
    assert_ne!(others.form_token(&session), sessions.form_token(&session));
    assert_ne!(sessions.open(now).unwrap(), session);
}

/// During an outage the page reports the outage, and shows everything else.
#[tokio::test]
async fn page_reports_an_outage() {
    let mut redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = with_open_key(&redis, &platform).await;
    let (cookie, _) = log_in(&service).await;
    redis.kill();
    let page = get(&service, &cookie).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("cannot be listed"), "{page:?}");
}

/// An unreadable record's key is refused, and no other list shows it. Seen red without that
/// part of the page.
#[tokio::test]
async fn page_shows_unreadable_records() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_NAMESPACE", "billing")
        .start()
        .await;
    let name = format!("genesys-once:billing:{}", key(1));
    redis.command::<()>(&["SET", &name, "not a record"]);
    let (cookie, _) = log_in(&service).await;
    let page = get(&service, &cookie).await;
    assert!(page.body.contains("cannot be read: 1"), "{page:?}");
    assert!(page.body.contains(&key(1).to_string()), "{page:?}");
}
