//! `key` and `show`: what a key is made of, and what is known of it. Both only read.

use std::time::SystemTime;

use genesys_once::outcome::StoredBody;
use genesys_once::record::RecordState;
use genesys_once::request::{ActionId, Scope};
use genesys_once::{DataActionRequest, IdempotencyKey};

use super::args::{KeyArgs, KeyName, Place, ShowArgs, Which};
use super::exit::{Exit, Failure};
use super::{record, settings, terminal, text};

pub fn key(args: &KeyArgs) -> Result<Exit, Failure> {
    let request = match (&args.own_key, &args.payload) {
        (Some(own_key), _) => of_own_key(&args.action, own_key)?,
        (None, payload) => {
            let payload = terminal::input(payload.as_deref().unwrap_or_default())?;
            DataActionRequest::new(&args.action, payload)?.ignoring(&args.ignoring)?
        }
    };
    let key = scoped(request, args.scope.as_deref(), args.within.as_ref())?;
    terminal::print(&format!("{key}\n"))?;
    Ok(Exit::Done)
}

pub async fn show(place: &Place, args: &ShowArgs) -> Result<Exit, Failure> {
    let name = which(&args.which)?;
    let namespace = settings::namespace(place, Some(&name))?;
    let opened = settings::open(place).await?;
    let engine = settings::engine(opened.store, namespace.clone(), None).await?;
    let key = name.key;
    let state = match engine.inspect(&key).await {
        Ok(state) => state,
        Err(error) => return Err(explained(&engine, &key, error).await),
    };
    let Some(state) = state else {
        return Err(unknown(&key, &namespace));
    };
    if args.body {
        return body(&state);
    }
    let name = (&namespace, &key);
    let shown = match args.json {
        true => {
            let mut json = record::json(name, &state);
            if let RecordState::Cached { stored, .. } = &state {
                json["outcome"]["body_bytes"] = stored.outcome.body().len().into();
            }
            format!("{json}\n")
        }
        false => text::block(&record::rows(name, &state, SystemTime::now())),
    };
    terminal::print(&shown)?;
    Ok(Exit::Done)
}

fn body(state: &RecordState) -> Result<Exit, Failure> {
    let RecordState::Cached { stored, .. } = state else {
        let word = record::word(state);
        return Err(Failure::new(
            Exit::Refused,
            format!("the key is {word}: it has no recorded body"),
        ));
    };
    if stored.body != StoredBody::Full {
        let reason = "the body is not recorded: the request is sensitive, or it is too large";
        return Err(Failure::new(Exit::Refused, reason));
    }
    match terminal::is_live() {
        true => terminal::print(&text::clean(&String::from_utf8_lossy(
            stored.outcome.body(),
        )))?,
        false => terminal::print_bytes(stored.outcome.body())?,
    }
    Ok(Exit::Done)
}

/// The key that the command line names.
fn which(which: &Which) -> Result<KeyName, Failure> {
    match (&which.key, &which.own_key, &which.action) {
        (Some(name), ..) => Ok(name.clone()),
        (None, Some(own_key), Some(action)) => {
            let request = of_own_key(action, own_key)?;
            Ok(KeyName {
                namespace: None,
                key: scoped(request, which.scope.as_deref(), which.within.as_ref())?,
            })
        }
        _ => Err(Failure::usage("name a KEY, or --own-key and --action")),
    }
}

/// The key of a request with a key of its own does not depend on the payload.
fn of_own_key(action: &ActionId, own_key: &str) -> Result<DataActionRequest, Failure> {
    Ok(DataActionRequest::new(action, "{}")?.with_key(own_key)?)
}

fn scoped(
    request: DataActionRequest,
    scope: Option<&str>,
    within: Option<&Scope>,
) -> Result<IdempotencyKey, Failure> {
    let request = match scope {
        Some(scope) => request.with_scope(scope)?,
        None => request,
    };
    Ok(match within {
        Some(within) => within.key_of(&request),
        None => IdempotencyKey::of(&request),
    })
}

/// The store has no record of a key.
pub fn unknown(key: &IdempotencyKey, namespace: &genesys_once::record::Namespace) -> Failure {
    let text = format!(
        "key {key} has no record in namespace {namespace}: its record has expired, or it was never \
         executed, or it is another key: another namespace, --scope or --within"
    );
    Failure::new(Exit::Unknown, text)
}

/// What is wrong with a record that cannot be read, and what to do.
pub async fn explained(
    engine: &genesys_once::Engine,
    key: &IdempotencyKey,
    error: genesys_once::Error,
) -> Failure {
    let failure = Failure::from(error);
    if failure.exit() != Exit::Unreadable {
        return failure;
    }
    match engine.inspect_unreadable(key).await {
        Ok(Some(record)) => {
            let line = record::unreadable_line(&record);
            Failure::new(Exit::Unreadable, line.trim_end())
        }
        // What is wrong is not in the first line: a key that is missing, say.
        _ => failure,
    }
}
