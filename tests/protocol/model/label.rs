//! What happens between two states, in words.

use std::fmt;

use super::command::{Command, Verb};

/// One thing that happens, for the path that is printed.
#[derive(Clone, Copy)]
pub struct Label {
    who: Option<usize>,
    what: &'static str,
    command: Command,
    /// Whether it happens where nothing goes wrong. The first such step from
    /// each state is one schedule, and it must lead every state to an end.
    pub calm: bool,
}

pub fn label(who: Option<usize>, what: &'static str, command: Command, calm: bool) -> Label {
    Label {
        who,
        what,
        command,
        calm,
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(who) = self.who {
            write!(f, "holder {who} ")?;
        }
        write!(f, "{}", self.what)?;
        if self.command.verb != Verb::None {
            write!(f, ": {}", self.command)?;
        }
        Ok(())
    }
}
