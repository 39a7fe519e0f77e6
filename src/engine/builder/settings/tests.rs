//! Members of settings against the builder's methods.

use super::*;
use crate::engine::Engine;
use crate::testing::{ScriptedUpstream, Step};

fn builder() -> EngineBuilder {
    Engine::builder(ScriptedUpstream::new(|_| Step::ok("{}")))
}

/// Red where a member sets another setting, or none.
#[test]
fn each_member_sets_what_its_method_sets() {
    type By = fn(EngineBuilder) -> EngineBuilder;
    let cases: [(&str, By); 16] = [
        (r#""on_duplicate": "fail_fast""#, |b| {
            b.on_duplicate(OnDuplicate::FailFast)
        }),
        (r#""on_unknown": "retry""#, |b| {
            b.on_unknown(OnUnknown::Retry)
        }),
        (r#""retry": {"attempts": 7}"#, |b| {
            b.retry(RetryPolicy::default().attempts(7))
        }),
        (r#""result_ttl_ms": 7001"#, |b| {
            b.result_ttl(Duration::from_millis(7001))
        }),
        (r#""indeterminate_ttl_ms": 7002"#, |b| {
            b.indeterminate_ttl(Duration::from_millis(7002))
        }),
        (r#""watch_indeterminate_ms": 7003"#, |b| {
            b.watch_indeterminate(Duration::from_millis(7003))
        }),
        (r#""lease_ms": 7004"#, |b| {
            b.lease(Duration::from_millis(7004))
        }),
        (r#""deadline_ms": 7005"#, |b| {
            b.deadline(Duration::from_millis(7005))
        }),
        (r#""store_timeout_ms": 7006"#, |b| {
            b.store_timeout(Duration::from_millis(7006))
        }),
        (r#""max_in_flight": 71"#, |b| b.max_in_flight(71)),
        (r#""max_in_flight_per_action": 72"#, |b| {
            b.max_in_flight_per_action(72)
        }),
        (r#""max_waiting": 73"#, |b| b.max_waiting(73)),
        (r#""max_payload_bytes": 74"#, |b| b.max_payload_bytes(74)),
        (r#""max_response_bytes": 75"#, |b| b.max_response_bytes(75)),
        (r#""recent_bytes": 76"#, |b| {
            b.recent(76, Duration::from_secs(60))
        }),
        (r#""recent_ms": 7007"#, |b| {
            b.recent(64 << 20, Duration::from_millis(7007))
        }),
    ];
    let shown = |builder: &EngineBuilder| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            builder.on_duplicate,
            builder.terms.on_unknown,
            builder.retry,
            builder.terms.result_ttl,
            builder.terms.indeterminate_ttl,
            builder.watch_indeterminate,
            builder.terms.lease,
            builder.deadline,
            builder.store_timeout,
            [builder.max_in_flight, builder.max_in_flight_per_action],
            [builder.max_payload_bytes, builder.terms.max_response_bytes],
            builder.limits.max_waiting,
            (builder.limits.recent_bytes, builder.limits.recent_ttl),
        )
    };
    let default = shown(&builder());
    for (member, by) in cases {
        let settings = serde_json::from_str(&format!("{{{member}}}")).unwrap();
        let from_text = shown(&builder().settings(settings));
        assert_eq!(from_text, shown(&by(builder())), "{member}");
        assert_ne!(from_text, default, "{member}");
    }
    assert_eq!(shown(&builder().settings(Settings::default())), default);
}

/// Red without `deny_unknown_fields`.
#[test]
fn unknown_member_is_an_error_that_names_it() {
    let error = serde_json::from_str::<Settings>(r#"{"dead_line_ms": 1}"#).unwrap_err();
    assert!(error.to_string().contains("dead_line_ms"), "{error}");
}

/// Red if the guide names a member that does not exist.
#[test]
fn settings_of_the_guide_are_accepted() {
    let guide = include_str!("../../../guide/policies.md");
    let json = guide.split("```json\n").nth(1).unwrap();
    let json = json.split("```").next().unwrap();
    let settings: Settings = serde_json::from_str(json).unwrap();
    assert_ne!(settings, Settings::default());
}
