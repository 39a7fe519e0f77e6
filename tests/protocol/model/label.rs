//! The description of a step between two states, for the printed path.

use std::fmt;

use super::command::{Command, Verb};

/// One step, for the printed path.
#[derive(Clone, Copy)]
pub struct Label {
    holder: Option<usize>,
    what: &'static str,
    command: Command,
    /// Whether it is a step without a failure. The first such steps from each state form
    /// one schedule, and it must lead every state to an end.
    pub calm: bool,
}

pub fn label(holder: Option<usize>, what: &'static str, command: Command, calm: bool) -> Label {
    Label {
        holder,
        what,
        command,
        calm,
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(holder) = self.holder {
            write!(f, "holder {holder} ")?;
        }
        write!(f, "{}", self.what)?;
        if self.command.verb != Verb::None {
            write!(f, ": {}", self.command)?;
        }
        Ok(())
    }
}
