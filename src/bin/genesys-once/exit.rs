//! Exit codes, and the failures that lead to them. Each has a text that says what to
//! do next where that is known.

use std::fmt;
use std::process::ExitCode;

use genesys_once::Error;

use super::text;

/// How the process ends; `args` has the table that operators read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unknown = 3,
    Refused = 4,
    TooEarly = 5,
    Unavailable = 6,
    Unreadable = 7,
    Unconfirmed = 8,
    Uncertain = 9,
    Warn = 10,
    Fail = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended without doing what it was asked for.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    /// The command line or the environment is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same failure, of this setting.
    pub fn of(self, setting: &str) -> Self {
        Self {
            text: format!("{setting}: {}", self.text),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::InvalidRequest { .. } | Error::InvalidConfig { .. } => Exit::Usage,
            Error::NotIndeterminate { .. } => Exit::Refused,
            Error::UnknownKey { .. } => Exit::Unknown,
            Error::TooEarly { .. } => Exit::TooEarly,
            Error::StoreUnavailable { .. } => Exit::Unavailable,
            Error::RecordUnreadable { .. } => Exit::Unreadable,
            Error::ResolutionUnknown { .. } => Exit::Uncertain,
            _ => Exit::Failed,
        };
        let mut line = chain(&error);
        if let Error::TooEarly { until, wait, .. } = &error {
            let (until, wait) = (text::utc(*until), text::length(*wait));
            line.push_str(&format!(
                ": wait until {until} (for {wait}); if you know that it has ended, pass \
                 --despite-clocks"
            ));
        }
        Self::new(exit, line)
    }
}

/// An error and its causes in one line. Causes come from servers and records: their
/// control characters do not reach the terminal.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    text::clean(&line)
}
