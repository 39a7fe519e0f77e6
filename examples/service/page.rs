//! The page for operators as HTML: which keys are indeterminate and why, a form to resolve
//! them, and what the engine waits for. Every value is escaped; there is no script.

use std::time::Duration;

use genesys_once::engine::{BacklogEntry, IndeterminateKeys, Stats};
use genesys_once::record::RecordState;
use genesys_once::{Error, IdempotencyKey};
use maud::{DOCTYPE, Markup, html};

use crate::app::App;

pub const STYLE: &str = include_str!("page.css");

/// What the page shows.
pub struct View<'a> {
    pub app: &'a App,
    pub form_token: &'a str,
    pub listed: Result<IndeterminateKeys, Error>,
    pub message: Option<Message>,
}

/// The result of the form that was sent before.
pub enum Message {
    Done(String),
    Refused(String),
}

pub fn login(refused: bool) -> Markup {
    document(html! {
        main.login {
            h1 { "genesys-once" }
            @if refused { p.refused { "This is not the admin token." } }
            form method="post" action="/login" {
                label { "Admin token"
                    input type="password" name="token" required autofocus
                        autocomplete="current-password";
                }
                button { "Log in" }
            }
        }
    })
}

pub fn operators(view: &View) -> Markup {
    let stats = view.app.engine.stats();
    let places = &view.app.places;
    document(html! {
        header {
            h1 { "genesys-once" }
            span { (places.platform) }
            span { "namespace " code { (view.app.engine.namespace().as_str()) } }
            a href="/" { "Refresh" }
            form method="post" action="/logout" {
                (hidden("form_token", view.form_token))
                button { "Log out" }
            }
        }
        main {
            @match &view.message {
                Some(Message::Done(text)) => p.done role="status" { (text) },
                Some(Message::Refused(text)) => p.refused role="alert" { (text) },
                None => {}
            }
            (indeterminate(view))
            h2 { "Now" }
            (now(view, &stats))
            h2 { "What executions wait for" }
            (waits(&stats))
        }
    })
}

fn document(body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "genesys-once" }
                link rel="stylesheet" href="/page.css";
            }
            body { (body) }
        }
    }
}

fn indeterminate(view: &View) -> Markup {
    let listed = match &view.listed {
        Ok(listed) => listed,
        Err(error) => {
            return html! {
                h2 { "Indeterminate keys" }
                p.refused role="alert" { "They cannot be listed: " (error) "." }
            };
        }
    };
    let more = if listed.next.is_some() {
        " or more"
    } else {
        ""
    };
    html! {
        h2 { "Indeterminate keys: " (listed.keys.len()) (more) }
        @if !listed.age.is_zero() {
            p { "As of " (duration(Some(listed.age))) " ago." }
        }
        @if listed.keys.is_empty() && listed.next.is_some() {
            p { "None was found in the time that the page has, and not all records were looked at: "
                code { "genesys-once list" } " looks at all of them." }
        } @else if listed.keys.is_empty() {
            p { "None. Every request sent has an answer, or is under way." }
        } @else {
            p { "Each of these requests might have been executed. No key is executed again "
                "until it is resolved. Find out at the system behind the action, by what "
                "the request is called here." }
        }
        @for (key, state) in &listed.keys { (one(view, key, state)) }
        @if !listed.unreadable.is_empty() {
            h2 { "Records that cannot be read: " (listed.unreadable.len()) }
            p { "Their keys are refused. What became of their requests is not known." }
            dl {
                @for record in &listed.unreadable {
                    dt { code { (record.key()) } } dd { (record.reason()) }
                }
            }
        }
    }
}

fn one(view: &View, key: &IdempotencyKey, state: &RecordState) -> Markup {
    let RecordState::Indeterminate {
        since,
        cause,
        correlation_id,
        age,
        attempts,
        about,
        ..
    } = state
    else {
        return html! {};
    };
    let caller = &about.caller;
    let holder = about.holder.as_ref();
    let action = about.action.as_ref().map(|action| action.as_str());
    html! {
        article id=(key) {
            h3 {
                (caller.label.as_deref().or(caller.own_key.as_deref()).unwrap_or("no label"))
                small { (action.unwrap_or("unknown action")) }
            }
            dl {
                (term("Sent", &httpdate::fmt_http_date(*since)))
                (term("Age", &duration(age.or_else(|| since.elapsed().ok()))))
                (term("Cause", cause))
                (term("Own key", caller.own_key.as_deref().unwrap_or("none")))
                (term("Scope", caller.scope.as_deref().unwrap_or("none")))
                (term("Correlation id", correlation_id.as_deref().unwrap_or("none")))
                (term("Attempts", &attempts.count.to_string()))
                @if let Some(holder) = holder {
                    (term("Sent by", &format!("process {} on {}", holder.process, holder.host)))
                }
                dt { "Key" } dd { code { (key) } }
            }
            details {
                summary { "Resolve" }
                (form(view, key, state))
            }
        }
    }
}

fn form(view: &View, key: &IdempotencyKey, state: &RecordState) -> Markup {
    html! {
        form method="post" action="/resolve" {
            (hidden("form_token", view.form_token))
            (hidden("key", &key.to_string()))
            (hidden("version", &state.version().to_string()))
            label.choice {
                input type="radio" name="resolution" value="applied" required;
                span { b { "It was executed." } " This is the answer to every later request:" }
            }
            div.answer {
                label { "Status" input name="status" value="200" inputmode="numeric"; }
                label { "Body (JSON)" textarea name="body" rows="3" {} }
            }
            label.choice {
                input type="radio" name="resolution" value="not_applied" required;
                span { b { "It was not executed." } " The next request with this key executes it." }
            }
            label { "Found out by (name, ticket)" input name="by" required maxlength="200"; }
            button { "Resolve" }
        }
    }
}

fn now(view: &View, stats: &Stats) -> Markup {
    let places = &view.app.places;
    let store = match stats.store_up {
        true => "it answers; the circuit breaker is closed",
        false => "it does not answer; the circuit breaker is open",
    };
    let token = match stats.token_valid_for {
        Some(left) => format!("valid for another {}", duration(Some(left))),
        None => "none; the next execution fetches one".into(),
    };
    html! {
        dl {
            (term("Store", &format!("{}: {store}", places.store)))
            (term("Durability", &(places.durability)()))
            @if stats.store_emptied > 0 {
                (term("Records lost", &format!(
                    "{} times since this process started; a lost key is executed again",
                    stats.store_emptied
                )))
            }
            (term("Token", &token))
            dt { "Cooldown" }
            dd {
                @if stats.cooldown.is_zero() {
                    "none"
                } @else {
                    "the platform asks to wait for another " (duration(Some(stats.cooldown)))
                    form method="post" action="/end-cooldown" {
                        (hidden("form_token", view.form_token))
                        button { "End all cooldowns" }
                    }
                }
            }
            (term("Executions", &format!(
                "{} ({} calls in flight), {} callers wait",
                stats.executions, stats.in_flight, stats.waiting
            )))
            (term("Calls", &format!(
                "{} answered, {} refused before execution, {} with an unknown outcome",
                stats.calls_final, stats.calls_not_executed, stats.calls_unknown
            )))
        }
    }
}

fn waits(stats: &Stats) -> Markup {
    let rows: [(&str, BacklogEntry); 6] = [
        ("the end of a cooldown", stats.backlog.cooldown),
        ("an access token", stats.backlog.token),
        (
            "a free place for a call (max_in_flight)",
            stats.backlog.permit,
        ),
        ("the upstream's rate limit", stats.backlog.limiter),
        ("their next attempt", stats.backlog.retry),
        (
            "another process, which executes their key",
            stats.backlog.remote_holder,
        ),
    ];
    html! {
        table {
            thead { tr { th { "For" } th { "Executions" } th { "Longest" } } }
            tbody {
                @for (what, wait) in rows {
                    tr {
                        td { (what) }
                        td { (wait.executions) }
                        td { @if wait.executions > 0 { (duration(Some(wait.oldest))) } }
                    }
                }
            }
        }
    }
}

fn term(name: &str, value: &str) -> Markup {
    html! { dt { (name) } dd { (value) } }
}

fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// A length of time in its two largest units.
fn duration(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return "unknown".into();
    };
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}
