//! What a namespace holds and which engines write in it.

use std::collections::{BTreeMap, BTreeSet};

use genesys_once::record::WRITER;
use genesys_once::store::ListQuery;
use genesys_once::{Engine, Store};

use super::Report;
use crate::exit::{Failure, chain};
use crate::text::{clean, utc};
use crate::walk::{Found, walk};
use crate::{record, terminal};

/// Holders that are named.
const NAMED: usize = 8;

pub async fn check(
    report: &mut Report,
    store: &dyn Store,
    engine: &Engine,
    sample: usize,
) -> Result<(), Failure> {
    let namespace = engine.namespace();
    let found = walk(engine, ListQuery::all(), None, sample, terminal::progress).await;
    terminal::end_progress();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let error = Failure::from(error);
            let found = format!("{namespace}: its records cannot be listed: {error}");
            return report.warn("records", found, "see `rights`");
        }
    };
    records(report, engine, &found)?;
    if found.examined > 0 {
        // A store may note down whose namespace it is asked about.
        writers(report, store, engine).await?;
    }
    holders(report, &found)
}

async fn writers(report: &mut Report, store: &dyn Store, engine: &Engine) -> Result<(), Failure> {
    const WHAT: &str = "writers";
    match store.least_writer(engine.namespace(), 0).await {
        Err(error) => report.fail(
            WHAT,
            chain(&error),
            "the store does not answer: look at its log",
        ),
        Ok(0) => report.ok(WHAT, "no engine has written its version here"),
        Ok(least) if least > WRITER => report.fail(
            WHAT,
            format!("engines of version {least} or later; this program is of version {WRITER}"),
            "use the program of their release: this one takes no keys here",
        ),
        Ok(least) if least < WRITER => report.warn(
            WHAT,
            format!("engines of version {least} or later; this program is of version {WRITER}"),
            "use the program of their release: this one refuses to write here",
        ),
        Ok(least) => report.ok(WHAT, format!("version {least}, as this program")),
    }
}

fn records(report: &mut Report, engine: &Engine, found: &Found) -> Result<(), Failure> {
    const WHAT: &str = "records";
    let namespace = engine.namespace();
    let mut states = BTreeMap::<_, usize>::new();
    for (_, state) in &found.records {
        *states.entry(record::word(state)).or_default() += 1;
    }
    if states.is_empty() && found.unreadable.is_empty() {
        return report.warn(
            WHAT,
            format!("{namespace} has no record"),
            "where your service has executed something, it uses another namespace: compare \
             SERVICE_NAMESPACE, platform and client id",
        );
    }
    let counts: Vec<_> = states
        .iter()
        .map(|(word, n)| format!("{n} {word}"))
        .collect();
    let counts = counts.join(", ");
    let more = if found.more { " and more" } else { "" };
    report.ok(WHAT, format!("{namespace}: {counts}{more}"))?;
    if let Some(open) = states.get("indeterminate") {
        let found = format!("{open} indeterminate: their requests might have been executed");
        report.warn("keys", found, "genesys-once list")?;
    }
    if !found.unreadable.is_empty() {
        let found = format!("{} records cannot be read", found.unreadable.len());
        report.warn(
            "keys",
            found,
            "genesys-once list names them, and what to do",
        )?;
    }
    Ok(())
}

/// The holders of keys, and those of indeterminate keys.
fn holders(report: &mut Report, found: &Found) -> Result<(), Failure> {
    let abouts = found
        .records
        .iter()
        .filter_map(|(_, state)| record::about(state));
    let holders: BTreeSet<_> = abouts
        .filter_map(|about| about.holder.as_ref())
        .map(|holder| {
            let (host, process) = (clean(&holder.host), holder.process);
            format!("{host} process {process} since {}", utc(holder.started))
        })
        .collect();
    if holders.is_empty() {
        return report.ok("holders", "no key has a holder");
    }
    let named: Vec<_> = holders.iter().take(NAMED).map(String::as_str).collect();
    let mut line = named.join("; ");
    if holders.len() > NAMED {
        line.push_str(&format!("; {} more", holders.len() - NAMED));
    }
    report.ok("holders", line)
}
