//! What the environment sets for this service. It refuses values that it does not understand,
//! names the variable and its value (never the value of a secret), and never guesses.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use genesys_once::{Error, OnDuplicate};

use crate::callers::Callers;
use crate::server::Limits;
use crate::token::Token;

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

const DAY: u64 = 86_400;

pub struct Settings {
    pub address: SocketAddr,
    pub metrics_address: Option<SocketAddr>,
    pub limits: Limits,
    pub body_time: Duration,
    /// In bytes, like `body_total`.
    pub body_limit: usize,
    pub body_total: usize,
    pub admin: Option<Token>,
    pub callers: Callers,
    /// In lower case; empty means all hosts.
    pub hosts: Vec<String>,
    pub require_key: bool,
    pub on_duplicate: OnDuplicate,
    pub deadline: Duration,
    /// `None`: the service does not look for indeterminate keys.
    pub watch: Option<Duration>,
    pub ready_delay: Duration,
    pub grace: Duration,
}

impl Settings {
    pub fn from_environment() -> Result<Self, String> {
        let body_limit = number("SERVICE_BODY_LIMIT", 1 << 20, 1..=1 << 30)?;
        let body_total = number("SERVICE_BODY_TOTAL", body_limit.max(64 << 20), 1..=1 << 40)?;
        if body_total < body_limit {
            return Err(format!(
                "SERVICE_BODY_TOTAL is {body_total}, less than SERVICE_BODY_LIMIT, {body_limit}"
            ));
        }
        let admin_text = variable("SERVICE_ADMIN_TOKEN")?;
        let admin = admin_text
            .as_deref()
            .map(|token| Token::parse(token).map_err(|e| format!("SERVICE_ADMIN_TOKEN {e}")));
        let on_duplicate = match variable("SERVICE_ON_DUPLICATE")?.as_deref() {
            None | Some("wait") => OnDuplicate::Wait,
            Some("fail-fast") => OnDuplicate::FailFast,
            Some(other) => {
                return Err(refused("SERVICE_ON_DUPLICATE", other, "wait or fail-fast"));
            }
        };
        Ok(Self {
            address: address("SERVICE_ADDRESS")?.unwrap_or(([127, 0, 0, 1], 8080).into()),
            metrics_address: address("SERVICE_METRICS_ADDRESS")?,
            limits: Limits {
                connections: number("SERVICE_CONNECTIONS", 4096, 1..=1_000_000)?,
                idle: seconds("SERVICE_IDLE_SECONDS", 30, 1)?,
            },
            body_time: seconds("SERVICE_BODY_SECONDS", 30, 1)?,
            body_limit,
            body_total,
            admin: admin.transpose()?,
            callers: callers(admin_text.as_deref())?,
            hosts: hosts()?,
            require_key: switch("SERVICE_REQUIRE_KEY")?,
            on_duplicate,
            deadline: seconds("SERVICE_DEADLINE_SECONDS", 300, 1)?,
            watch: Some(seconds("SERVICE_WATCH_SECONDS", 60, 0)?).filter(|every| !every.is_zero()),
            ready_delay: seconds("SERVICE_READY_DELAY_SECONDS", 5, 0)?,
            grace: seconds("SERVICE_GRACE_SECONDS", 30, 0)?,
        })
    }
}

/// The callers; no caller's token may be the operators' token.
fn callers(admin: Option<&str>) -> Result<Callers, String> {
    let callers = named_callers()?;
    match admin.is_some_and(|admin| callers.find(admin).is_some()) {
        true => Err("SERVICE_ADMIN_TOKEN is a caller's token, too".into()),
        false => Ok(callers),
    }
}

fn named_callers() -> Result<Callers, String> {
    let file = variable("SERVICE_CALLERS_FILE")?;
    match (variable("SERVICE_CALLERS")?, file) {
        (Some(_), Some(_)) => {
            Err("SERVICE_CALLERS and SERVICE_CALLERS_FILE are both set: unset one of them".into())
        }
        (Some(pairs), None) => Callers::parse(&pairs).map_err(|e| format!("SERVICE_CALLERS: {e}")),
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map_err(|e| e.to_string())
            .and_then(|pairs| Callers::parse(&pairs))
            .map_err(|e| format!("SERVICE_CALLERS_FILE is {path:?}: {e}")),
        (None, None) => Ok(Callers::default()),
    }
}

fn hosts() -> Result<Vec<String>, String> {
    const NAME: &str = "SERVICE_HOSTS";
    let Some(list) = variable(NAME)? else {
        return Ok(Vec::new());
    };
    let hosts: Vec<_> = list
        .split(',')
        .map(|host| host.trim().to_lowercase())
        .collect();
    let is_host = |host: &String| host.parse::<axum::http::uri::Authority>().is_ok();
    match hosts.iter().all(is_host) {
        true => Ok(hosts),
        false => Err(refused(NAME, &list, "host names with commas between them")),
    }
}

fn address(name: &str) -> Result<Option<SocketAddr>, String> {
    const EXPECTED: &str = "an IP address and a port, such as 127.0.0.1:8080";
    let Some(text) = variable(name)? else {
        return Ok(None);
    };
    let address = text
        .trim()
        .parse()
        .map_err(|_| refused(name, &text, EXPECTED));
    address.map(Some)
}

fn seconds(name: &str, default: u64, least: u64) -> Result<Duration, String> {
    number(name, default, least..=DAY).map(Duration::from_secs)
}

fn number<T>(name: &str, default: T, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(text) = variable(name)? else {
        return Ok(default);
    };
    let number = text
        .trim()
        .parse()
        .ok()
        .filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        refused(name, &text, &expected)
    })
}

/// A switch that is off unless it is set.
pub fn switch(name: &str) -> Result<bool, String> {
    match variable(name)?.as_deref().map(str::trim) {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(refused(name, other, "0 or 1")),
    }
}

/// Why a value is refused.
pub fn refused(name: &str, value: &str, expected: &str) -> String {
    format!("{name} is {value:?}: expected {expected}")
}

/// A variable that is set to something, or not set.
pub fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(format!("{name} is set, and empty")),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not text")),
    }
}

/// An error and its causes in one line.
pub fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.replace('\n', " ")
}
