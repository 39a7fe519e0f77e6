//! A record as it is shown to an operator: as a block of lines, as a row of a table,
//! as JSON without bodies. It reads no store.

use std::time::{Duration, SystemTime};

use genesys_once::IdempotencyKey;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{About, Attempts, Namespace, Phase, RecordState};
use genesys_once::request::ActionId;
use genesys_once::store::UnreadableRecord;
use serde_json::{Value, json};

use super::text::{clean, length, short, since, utc};

/// The columns of [`row`].
pub const HEADING: [&str; 8] = [
    "KEY",
    "STATE",
    "SINCE",
    "ACTION",
    "OWN KEY",
    "LABEL",
    "CORRELATION ID",
    "CAUSE",
];

/// The longest cell of a table, in characters.
const CELL: usize = 60;

/// What is said of a record whose holder has gone.
const LOST: &str = "its holder was lost with a request under way";

/// The action that a record names.
pub fn action(state: &RecordState) -> Option<&ActionId> {
    match state {
        RecordState::Cached { origin, .. } => origin.action.as_ref(),
        state => about(state)?.action.as_ref(),
    }
}

/// When the request was sent or answered, by the wall clock of that process.
pub fn moment(state: &RecordState) -> Option<SystemTime> {
    match state {
        RecordState::Indeterminate { attempts, .. } | RecordState::Locked { attempts, .. } => {
            attempts.sent
        }
        RecordState::Cached { origin, .. } => {
            let resolved = origin.resolved.as_ref().map(|resolved| resolved.at);
            origin.answered.or(resolved)
        }
        _ => None,
    }
}

/// The state as the library names it, with `, expired` for a lock that is free. A lock whose holder was lost with a request under way
/// is indeterminate, whether or not the record says so already.
pub fn word(state: &RecordState) -> &'static str {
    match state {
        state if state.is_indeterminate() => "indeterminate",
        RecordState::Locked { .. } if state.is_free() => "locked, expired",
        RecordState::Locked { .. } => "locked",
        RecordState::Cached { .. } => "cached",
        RecordState::Released { .. } => "released",
        _ => "unknown",
    }
}

pub fn row(key: &IdempotencyKey, state: &RecordState, now: SystemTime) -> Vec<String> {
    let caller = about(state).map(|about| &about.caller);
    let text = |text: Option<&str>| text.map_or_else(|| "-".into(), |text| short(text, CELL));
    vec![
        key.to_string(),
        word(state).into(),
        moment(state).map_or_else(|| "-".into(), |moment| since(moment, now)),
        text(action(state).map(ActionId::as_str)),
        text(caller.and_then(|caller| caller.own_key.as_deref())),
        text(caller.and_then(|caller| caller.label.as_deref())),
        text(correlation_id(state)),
        text(cause(state)),
    ]
}

/// Everything that is known of a record, one name and value a line.
pub fn rows(
    name: (&Namespace, &IdempotencyKey),
    state: &RecordState,
    now: SystemTime,
) -> Vec<(&'static str, String)> {
    let (namespace, key) = name;
    let mut rows = vec![
        ("key", key.to_string()),
        ("namespace", namespace.to_string()),
        ("state", word(state).to_owned()),
    ];
    let mut add = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    add("action", action(state).map(ActionId::to_string));
    if let Some(About { caller, holder, .. }) = about(state) {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(clean);
        add("own key", text(&caller.own_key));
        add("scope", text(&caller.scope));
        add("label", text(&caller.label));
        let sealed = is_sealed(state).then(|| "encrypted: set ENCRYPTION_KEYS to read it".into());
        add("caller", sealed);
        let holder = holder.as_ref().map(|holder| {
            let (host, process) = (clean(&holder.host), holder.process);
            format!("{host}, process {process}, started {}", utc(holder.started))
        });
        add("holder", holder);
    }
    match state {
        RecordState::Locked {
            attempts,
            lease_left,
            phase,
            ..
        } => {
            let lost = attempts.sent.filter(|_| state.is_indeterminate());
            add("since", lost.map(|sent| since(sent, now)));
            add("attempts", Some(attempted(attempts, now)));
            let phase = match phase {
                Phase::Claimed => "nothing is sent yet",
                _ => "a request might be on the wire",
            };
            let lease = match lease_left.is_zero() {
                true => "expired".to_owned(),
                false => format!("{} left", length(*lease_left)),
            };
            add("lease", Some(format!("{lease}; {phase}")));
            add("cause", cause(state).map(clean));
        }
        RecordState::Indeterminate { attempts, age, .. } => {
            let by_store = age.map(|age| format!("{} ago by the store's clock", length(age)));
            let sent = attempts.sent.map(|sent| since(sent, now));
            add("since", sent.or(by_store));
            add("attempts", Some(attempted(attempts, now)));
            add("cause", cause(state).map(clean));
            add("correlation id", correlation_id(state).map(clean));
        }
        RecordState::Cached {
            stored,
            origin,
            left,
            ..
        } => {
            let outcome = &stored.outcome;
            let body = match stored.body {
                StoredBody::Full => format!("body of {} bytes", outcome.body().len()),
                StoredBody::OmittedSensitive => "no body: the request is sensitive".into(),
                _ => "no body: it is too large".into(),
            };
            add("answer", Some(format!("{}, {body}", outcome.status())));
            let answered = origin.answered.map(|answered| since(answered, now));
            add("answered", answered);
            add("attempts", Some(origin.attempts.to_string()));
            let resolved = origin.resolved.as_ref().map(|resolved| {
                let by = resolved.by.as_deref().map_or_else(String::new, clean);
                format!("{} by {by}", since(resolved.at, now))
            });
            add("resolved", resolved);
            add("replayed for", Some(length(*left)));
        }
        RecordState::Released { refusal, .. } => {
            let refused = refusal
                .as_ref()
                .map(|_| "the platform refused it".to_owned());
            add("refusal", refused);
        }
        _ => {}
    }
    add("version", Some(state.version().to_string()));
    add("next", next(key, state, now));
    rows
}

/// What an operator does with an indeterminate key.
fn next(key: &IdempotencyKey, state: &RecordState, now: SystemTime) -> Option<String> {
    if !state.is_indeterminate() {
        return None;
    }
    let version = state.version();
    let mut next = format!(
        "ask the system behind the action, by correlation id or key, whether it was executed\n\
         it was:     genesys-once resolve {key} --version {version} --by NAME --applied STATUS BODY\n\
         it was not: genesys-once resolve {key} --version {version} --by NAME --not-applied"
    );
    if let Some(left) = may_run(state, now) {
        let until = now.checked_add(left).map_or_else(String::new, utc);
        let left = length(left);
        next.push_str(&format!("\n            not before {until} (in {left})"));
    }
    if let RecordState::Locked {
        attempts, lease, ..
    } = state
    {
        let left = length(attempts.timeout.saturating_add(*lease));
        next.push_str(&format!(
            "\n            refused for {left} from the first try, which records that the holder was lost"
        ));
    }
    Some(next)
}

/// How long the lost attempt of an indeterminate record might still be running.
fn may_run(state: &RecordState, now: SystemTime) -> Option<Duration> {
    let RecordState::Indeterminate {
        since,
        age,
        may_run,
        ..
    } = state
    else {
        return None;
    };
    let by_wall = now.duration_since(*since).ok();
    let passed = match (*age, by_wall) {
        (Some(one), Some(other)) => one.min(other),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    may_run.checked_sub(passed).filter(|left| !left.is_zero())
}

fn attempted(attempts: &Attempts, now: SystemTime) -> String {
    match attempts.sent {
        Some(sent) => format!("{}, the last one sent {}", attempts.count, since(sent, now)),
        None => attempts.count.to_string(),
    }
}

fn cause(state: &RecordState) -> Option<&str> {
    match state {
        RecordState::Indeterminate { cause, .. } => Some(cause),
        RecordState::Locked { .. } if state.is_indeterminate() => Some(LOST),
        _ => None,
    }
}

fn correlation_id(state: &RecordState) -> Option<&str> {
    match state {
        RecordState::Indeterminate { correlation_id, .. } => correlation_id.as_deref(),
        _ => None,
    }
}

/// The request of a record, and its holder.
pub fn about(state: &RecordState) -> Option<&About> {
    match state {
        RecordState::Locked { about, .. } | RecordState::Indeterminate { about, .. } => Some(about),
        _ => None,
    }
}

/// Whether the record has something encrypted that was not opened.
pub fn is_sealed(state: &RecordState) -> bool {
    json_of(state)["sealed"] == true
}

fn json_of(state: &RecordState) -> Value {
    // Its members are text and numbers, all of which JSON has.
    serde_json::to_value(state).unwrap_or_default()
}

/// A record as JSON, as serde has it, with its name and version, and without headers
/// and body of an answer.
pub fn json(name: (&Namespace, &IdempotencyKey), state: &RecordState) -> Value {
    let (namespace, key) = name;
    let mut record = json_of(state);
    for pointer in ["/outcome", "/refusal/refused/outcome"] {
        if let Some(Value::Object(answer)) = record.pointer_mut(pointer) {
            answer.remove("body");
            answer.remove("headers");
        }
    }
    record["key"] = json!(key);
    record["namespace"] = json!(namespace.as_str());
    record["version"] = json!(state.version());
    record["indeterminate"] = json!(state.is_indeterminate());
    record
}

/// A record that cannot be read, as JSON.
pub fn unreadable_json(record: &UnreadableRecord) -> Value {
    json!({
        "state": "unreadable",
        "key": record.key(),
        "namespace": record.name().namespace.as_str(),
        "reason": record.reason(),
        "newer": record.is_newer(),
    })
}

/// A record that cannot be read, in one line.
pub fn unreadable_line(record: &UnreadableRecord) -> String {
    let (key, reason) = (record.key(), clean(record.reason()));
    let next = match record.is_newer() {
        true => "a newer version wrote it: update this program".to_owned(),
        false => {
            format!("find out what it stood for, then: genesys-once forget {key} --unreadable")
        }
    };
    format!("{key}  cannot be read: {reason}; {next}\n")
}
