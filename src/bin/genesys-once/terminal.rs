//! Standard output, standard error and the question before a write. A reader that
//! has gone ends the program, and is no failure.

use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _, stderr, stdin, stdout};

use super::exit::{Exit, Failure};

/// The largest payload or body that is read, in bytes.
const MAX_INPUT: u64 = 64 << 20;

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::new(Exit::Done, "")),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("standard output: {error}"),
        )),
    }
}

/// Writes to standard error, which may be closed.
pub fn report(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Whether standard output is a terminal.
pub fn is_live() -> bool {
    stdout().is_terminal()
}

/// How far a long walk has come, where a person looks at it.
pub fn progress(examined: usize, found: usize) {
    if stderr().is_terminal() {
        report(&format!("\r\x1b[Kwalked {examined} records, found {found}"));
    }
}

/// Takes the line of [`progress`] away.
pub fn end_progress() {
    if stderr().is_terminal() {
        report("\r\x1b[K");
    }
}

/// Asks before a write; `yes` answers for the operator.
///
/// # Errors
///
/// [`Exit::Unconfirmed`] where the operator does not agree, or cannot be asked.
pub fn confirm(yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refuse = |text: &str| Err(Failure::new(Exit::Unconfirmed, text));
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return refuse("nothing was written: pass --yes, or run it on a terminal to be asked");
    }
    report("Write this? Type yes: ");
    let mut answer = String::new();
    match stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => refuse("nothing was written"),
    }
}

/// A payload or a body as it is typed: itself, `-` for standard input, `@FILE`.
pub fn input(text: &str) -> Result<Vec<u8>, Failure> {
    let read = |from: &mut dyn io::Read| {
        let mut bytes = Vec::new();
        from.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MAX_INPUT {
            true => Err(io::Error::other("it is larger than 64 MiB")),
            false => Ok(bytes),
        }
    };
    let bytes = match text.strip_prefix('@') {
        _ if text == "-" => read(&mut stdin().lock()),
        Some(path) => std::fs::File::open(path).and_then(|mut file| read(&mut file)),
        None => Ok(text.as_bytes().to_vec()),
    };
    bytes.map_err(|error| Failure::usage(format!("cannot read {text}: {error}")))
}
