//! How times, ages and foreign text are printed. Nothing here knows a record.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Text of a record or a server, with the characters escaped that could move the
/// cursor or turn the direction of a terminal.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        match c.is_control() || turns {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
    }
    clean
}

/// At most `most` characters.
pub fn short(text: &str, most: usize) -> String {
    let clean = clean(text);
    match clean.char_indices().nth(most) {
        None => clean,
        Some(_) => clean.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// A moment in UTC, to the second.
pub fn utc(time: SystemTime) -> String {
    let mut text = String::new();
    // What lies before 1970 or beyond the year 9999 has no such form.
    let written =
        time >= UNIX_EPOCH && write!(text, "{}", humantime::format_rfc3339_seconds(time)).is_ok();
    match written {
        true => text,
        false => "a time that makes no sense".into(),
    }
}

/// A length of time, its two or three largest units.
pub fn length(time: Duration) -> String {
    const HOUR: u64 = 3600;
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let step = match seconds {
        0..HOUR => 1,
        HOUR..172_800 => 60,
        _ => HOUR,
    };
    humantime::format_duration(Duration::from_secs(seconds / step * step)).to_string()
}

/// A moment in UTC, and how long ago it was.
pub fn since(time: SystemTime, now: SystemTime) -> String {
    match now.duration_since(time) {
        Ok(age) => format!("{} ({} ago)", utc(time), length(age)),
        Err(ahead) => format!("{} (in {})", utc(time), length(ahead.duration())),
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(heading[column].len())
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let heading = heading.iter().map(|word| (*word).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one a line, the values below one another.
pub fn block(rows: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in rows {
        let mut lines = value.lines();
        let _ = writeln!(text, "{name:15}{}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(text, "{:15}{line}", "");
        }
    }
    text
}
