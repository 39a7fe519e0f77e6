//! The page for operators in a real browser: an operator finds a lost refund, resolves it,
//! and ends a cooldown. Values from callers are shown as text.

use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step};

use crate::devtools::Browser;
use crate::key;
use crate::process::{Settings, TOKEN};
use crate::support::redis::RedisServer;

/// A label that a caller might choose, shown to operators.
const HOSTILE: &str = "</h3><script>document.title='owned'</script><img src=x onerror=alert(1)>";

/// Seen red with `PreEscaped` around the label.
///
/// `PICTURE=FILE` writes the picture for the manual.
#[tokio::test]
async fn operator_resolves_a_lost_refund_in_a_browser() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Reset);
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    let lost = [
        ("genesys-once-label", "refund of order 1, 19.90 EUR"),
        ("idempotency-key", "order-1"),
    ];
    let answer = service.execute_with(r#"{"order":1}"#, &lost).await;
    let answer = answer.problem(502, "indeterminate");
    let lost_key = answer["key"].as_str().unwrap();
    platform.script(|_| Step::RateLimited(Duration::from_secs(200)));
    service.execute("2").await.problem(429, "rate_limited");

    let mut browser = Browser::start().await;
    let page = format!("http://{}/", service.address);
    browser.open(&page).await;
    browser.until("location.pathname == '/login'").await;
    browser
        .write("input[name=token]", "not-the-admin-token")
        .await;
    browser.click("button").await;
    browser
        .until("document.querySelector('.refused') != null")
        .await;
    browser.write("input[name=token]", TOKEN).await;
    browser.click("button").await;
    browser.until("location.pathname == '/'").await;
    assert_eq!(browser.evaluate("document.cookie").await, "");
    assert!(
        browser
            .evaluate("document.styleSheets[0].cssRules.length")
            .await
            .as_u64()
            > Some(20)
    );
    let text = browser.text().await;
    for shown in [
        "Indeterminate keys: 1",
        "refund of order 1, 19.90 EUR",
        "refund",
        "order-1",
        "Connection reset by peer",
        lost_key,
        "asks to wait for another 3 min",
        "no record is evicted",
        "circuit breaker is closed",
        "valid for another",
    ] {
        assert!(text.contains(shown), "no {shown:?} in {text}");
    }

    let article = format!("article[id='{lost_key}']");
    browser.click(&format!("{article} summary")).await;
    let field = |name: &str| format!("{article} {name}");
    browser.click(&field("input[value=applied]")).await;
    browser
        .write(&field("textarea"), r#"{"refund":"R-1"}"#)
        .await;
    browser
        .write(&field("input[name=by]"), "night shift, ticket 7")
        .await;
    let picture = browser.picture().await;
    assert!(picture.starts_with(b"\x89PNG"));
    if let Some(file) = std::env::var_os("PICTURE") {
        std::fs::write(file, &picture).unwrap();
    }
    browser.click(&field("form button")).await;
    browser
        .until("document.querySelector('.done') != null")
        .await;
    let text = browser.text().await;
    assert!(
        text.contains(&format!("Key {lost_key} is resolved.")),
        "{text}"
    );
    assert!(text.contains("Indeterminate keys: 0"), "{text}");
    let replay = service.execute_with(r#"{"order":1}"#, &lost).await;
    assert_eq!(replay.body, r#"{"refund":"R-1"}"#);
    assert_eq!(replay.header("idempotency-replayed"), "true");

    browser.click("form[action='/end-cooldown'] button").await;
    browser
        .until("document.querySelector(\"form[action='/end-cooldown']\") == null")
        .await;
    platform.script(|_| Step::Reset);
    let hostile = [("genesys-once-label", HOSTILE)];
    let answer = service.execute_with(r#"{"order":3}"#, &hostile).await;
    answer.problem(502, "indeterminate");
    browser.click("header a").await;
    browser
        .until("document.querySelector('article') != null")
        .await;
    let text = browser.text().await;
    assert!(text.contains(HOSTILE), "{text}");
    assert_eq!(browser.evaluate("document.title").await, "genesys-once");
    let made = "document.querySelectorAll('script, img').length";
    assert_eq!(browser.evaluate(made).await, 0);

    // Too early, as the page reports.
    let article = format!("article[id='{}']", key(3));
    browser.click(&format!("{article} summary")).await;
    browser
        .click(&format!("{article} input[value=not_applied]"))
        .await;
    browser
        .write(&format!("{article} input[name=by]"), "me")
        .await;
    browser.click(&format!("{article} form button")).await;
    browser
        .until("document.querySelector('.refused') != null")
        .await;
    assert!(browser.text().await.contains("might run for another"));

    browser.click("form[action='/logout'] button").await;
    browser.until("location.pathname == '/login'").await;
    browser.open(&page).await;
    browser.until("location.pathname == '/login'").await;
    browser.close().await;
    assert_eq!(platform.ledger().total(), 3);
}
