//! `list`: the indeterminate keys, or all records, as a table or as JSON lines.

use std::time::SystemTime;

use genesys_once::store::ListQuery;

use super::args::{ListArgs, Place};
use super::exit::{Exit, Failure};
use super::walk::{Found, walk};
use super::{record, settings, terminal, text};

pub async fn list(place: &Place, args: &ListArgs) -> Result<Exit, Failure> {
    let namespace = settings::namespace(place, None)?;
    let opened = settings::open(place).await?;
    let engine = settings::engine(opened.store, namespace.clone(), None).await?;
    let query = match args.all_states {
        true => ListQuery::all(),
        false => ListQuery::indeterminate(),
    };
    let action = args.action.as_ref();
    let found = walk(&engine, query, action, args.limit, terminal::progress).await;
    terminal::end_progress();
    let found = found?;
    if args.json {
        let records = found.records.iter();
        let records = records.map(|(key, state)| record::json((&namespace, key), state));
        let unreadable = found.unreadable.iter().map(record::unreadable_json);
        let lines: String = records
            .chain(unreadable)
            .map(|line| format!("{line}\n"))
            .collect();
        terminal::print(&lines)?;
        if found.more {
            terminal::report(&limited(args.limit));
        }
        return Ok(Exit::Done);
    }
    let mut shown = rows(&found);
    if found.records.is_empty() {
        let what = if args.all_states {
            "record"
        } else {
            "indeterminate key"
        };
        shown.push_str(&format!("no {what} in namespace {namespace}\n"));
    } else if !args.all_states {
        shown.push_str(&summary(&found));
        shown.push_str("genesys-once show KEY says what is known of one, and what to do\n");
    }
    if found.more {
        shown.push_str(&limited(args.limit));
    }
    terminal::print(&shown)?;
    Ok(Exit::Done)
}

fn limited(limit: usize) -> String {
    format!("there might be more than {limit}: raise --limit\n")
}

/// The records as a table, and those that cannot be read below it.
pub fn rows(found: &Found) -> String {
    let now = SystemTime::now();
    let rows: Vec<_> = found
        .records
        .iter()
        .map(|(key, state)| record::row(key, state, now))
        .collect();
    let mut shown = String::new();
    if !rows.is_empty() {
        shown.push_str(&text::table(&record::HEADING, &rows));
    }
    let unreadable = found.unreadable.iter().map(record::unreadable_line);
    shown.extend(unreadable);
    shown
}

/// How many keys are indeterminate, and since when.
pub fn summary(found: &Found) -> String {
    let number = found.records.len();
    let keys = if number == 1 { "key" } else { "keys" };
    let mut line = format!("{number} indeterminate {keys}");
    let oldest = found
        .records
        .iter()
        .find_map(|(_, state)| record::moment(state));
    if let Some(oldest) = oldest {
        let oldest = text::since(oldest, SystemTime::now());
        line.push_str(&format!(", the oldest since {oldest}"));
    }
    if !found.unreadable.is_empty() {
        line.push_str(&format!("; {} cannot be read", found.unreadable.len()));
    }
    line.push('\n');
    line
}
