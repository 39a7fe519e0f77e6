//! `watch`: the indeterminate keys, round after round. A store that is away for a
//! while does not end it.

use std::collections::BTreeSet;
use std::time::SystemTime;

use genesys_once::IdempotencyKey;
use genesys_once::store::ListQuery;
use tokio::time::{MissedTickBehavior, interval};

use super::args::{Place, WatchArgs};
use super::exit::{Exit, Failure};
use super::walk::{Found, walk};
use super::{list, record, settings, terminal, text};

/// The shortest time between two walks through the whole store, in milliseconds.
const MIN_PERIOD: u128 = 100;

pub async fn watch(place: &Place, args: &WatchArgs) -> Result<Exit, Failure> {
    if args.every.as_millis() < MIN_PERIOD {
        return Err(Failure::usage("--every is at least 100ms"));
    }
    let namespace = settings::namespace(place, None)?;
    let opened = settings::open(place).await?;
    let engine = settings::engine(opened.store, namespace.clone(), None).await?;
    let mut due = interval(args.every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let live = terminal::is_live();
    let mut known = BTreeSet::new();
    let mut rounds = 0;
    while args.rounds.is_none_or(|most| rounds < most) {
        due.tick().await;
        let query = ListQuery::indeterminate();
        let action = args.action.as_ref();
        let found = walk(&engine, query, action, usize::MAX, terminal::progress).await;
        terminal::end_progress();
        let now = text::utc(SystemTime::now());
        let shown = match found {
            Err(error) if rounds == 0 => return Err(error.into()),
            Err(error) => format!("{now}  {}\n", Failure::from(error)),
            Ok(found) if live => {
                let every = text::length(args.every);
                let (summary, rows) = (list::summary(&found), list::rows(&found));
                let examined = found.examined;
                format!(
                    "\x1b[H\x1b[2Jnamespace {namespace}, {now}, every {every}, {examined} records\n\
                     {summary}\n{rows}"
                )
            }
            Ok(found) => changes(&now, &found, &mut known),
        };
        terminal::print(&shown)?;
        rounds += 1;
    }
    Ok(Exit::Done)
}

/// What is new and what has gone since the round before.
fn changes(now: &str, found: &Found, known: &mut BTreeSet<IdempotencyKey>) -> String {
    let mut shown = format!("{now}  {}", list::summary(found));
    let moment = SystemTime::now();
    for (key, state) in &found.records {
        if !known.contains(key) {
            let row = record::row(key, state, moment).join("  ");
            shown.push_str(&format!("{now}  + {row}\n"));
        }
    }
    let current: BTreeSet<_> = found.records.iter().map(|(key, _)| *key).collect();
    for key in known.difference(&current) {
        shown.push_str(&format!("{now}  - {key}\n"));
    }
    *known = current;
    shown
}
