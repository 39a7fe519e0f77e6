//! `resolve` and `forget`: the two commands that write. Each shows what it will do
//! and asks, and writes nothing but what the operator saw.

use std::sync::Arc;
use std::time::SystemTime;

use genesys_once::engine::Forgotten;
use genesys_once::record::{Namespace, RecordState, WRITER};
use genesys_once::{Engine, Error, IdempotencyKey, Outcome, Resolution, Store};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::args::{ForgetArgs, KeyName, Place, ResolveArgs};
use super::exit::{Exit, Failure};
use super::settings::{self, Opened};
use super::{record, show, terminal, text};

pub async fn resolve(place: &Place, args: &ResolveArgs) -> Result<Exit, Failure> {
    let (resolution, becomes) = resolution(args)?;
    let place = Written::open(place, &args.key, Some(args.ttl)).await?;
    let state = place.see().await?;
    if state.version() != args.version {
        return Err(place.refuse(&state, "it is not in the version that you named"));
    }
    if !state.is_indeterminate() {
        return Err(place.refuse(&state, "it is not indeterminate"));
    }
    if args.applied.is_some() && place.keys.is_none() && record::is_sealed(&state) {
        return Err(Failure::usage(
            "the records of this namespace are encrypted: set ENCRYPTION_KEYS, or your service \
             cannot read the answer",
        ));
    }
    let by = Some(args.by.as_str());
    place.agreed(&state, &becomes, by, args.yes).await?;
    let resolved = place.engine.resolve(&place.key, args.version, resolution);
    resolved.await?;
    let key = place.key;
    terminal::print(&format!("resolved {key}: {becomes}\n"))?;
    Ok(Exit::Done)
}

/// What was found out, and what the record becomes by it.
fn resolution(args: &ResolveArgs) -> Result<(Resolution, String), Failure> {
    let Some([status, body]) = args.applied.as_deref().and_then(<[String]>::first_chunk) else {
        let mut resolution = Resolution::not_applied().by(&args.by);
        if args.despite_clocks {
            resolution = resolution.despite_clocks();
        }
        let becomes = "not executed: THE NEXT REQUEST IS SENT to the platform";
        return Ok((resolution, becomes.into()));
    };
    let status: StatusCode = status
        .parse()
        .ok()
        .filter(|status: &StatusCode| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| Failure::usage(format!("STATUS is 200 to 599, not {status:?}")))?;
    let body = terminal::input(body)?;
    let kind = HeaderValue::try_from(&args.content_type)
        .map_err(|_| Failure::usage("--content-type is not the value of a header"))?;
    let json = args.content_type.starts_with("application/json");
    if json && !body.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        return Err(Failure::usage(
            "BODY is not JSON: correct it, or name another --content-type",
        ));
    }
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, kind);
    }
    let (bytes, ttl) = (body.len(), text::length(args.ttl));
    let mut resolution = Resolution::applied(Outcome::new(status, headers, body)).by(&args.by);
    let mut what = format!("{bytes} bytes of body");
    if args.sensitive {
        resolution = resolution.sensitive();
        what = "without its body".into();
    }
    let becomes = format!("executed: {status}, {what}, is replayed for {ttl}; nothing is sent");
    Ok((resolution, becomes))
}

pub async fn forget(place: &Place, args: &ForgetArgs) -> Result<Exit, Failure> {
    let place = Written::open(place, &args.key, None).await?;
    if args.unreadable {
        return place.forget_unreadable(args.yes).await;
    }
    let state = place.see().await?;
    if !matches!(state, RecordState::Cached { .. }) {
        return Err(place.refuse(&state, "only a recorded outcome can be forgotten"));
    }
    let becomes = "forgotten: THE NEXT REQUEST IS SENT to the platform";
    place.agreed(&state, becomes, None, args.yes).await?;
    // It might have been forgotten, and executed again, since it was shown.
    match place.see().await?.version() == state.version() {
        true => place.forgotten(becomes).await,
        false => Err(place.changed()),
    }
}

/// Where something is written, and about what.
struct Written {
    engine: Engine,
    store: Arc<dyn Store>,
    namespace: Namespace,
    key: IdempotencyKey,
    keys: Option<String>,
}

impl Written {
    async fn open(
        place: &Place,
        name: &KeyName,
        ttl: Option<std::time::Duration>,
    ) -> Result<Self, Failure> {
        let namespace = settings::namespace(place, Some(name))?;
        let Opened { store, keys, .. } = settings::open(place).await?;
        Ok(Self {
            engine: settings::engine(store.clone(), namespace.clone(), ttl).await?,
            store,
            namespace,
            key: name.key,
            keys,
        })
    }

    /// The record as it is now.
    async fn see(&self) -> Result<RecordState, Failure> {
        match self.engine.inspect(&self.key).await {
            Ok(Some(state)) => Ok(state),
            Ok(None) => Err(show::unknown(&self.key, &self.namespace)),
            Err(error) => Err(show::explained(&self.engine, &self.key, error).await),
        }
    }

    fn refuse(&self, state: &RecordState, why: &str) -> Failure {
        let name = (&self.namespace, &self.key);
        let shown = text::block(&record::rows(name, state, SystemTime::now()));
        let text = format!("{why}; nothing was written. The record now:\n{shown}");
        Failure::new(Exit::Refused, text.trim_end())
    }

    /// Says what will be written, before it is; asks, unless `yes` is the answer.
    async fn agreed(
        &self,
        state: &RecordState,
        becomes: &str,
        by: Option<&str>,
        yes: bool,
    ) -> Result<(), Failure> {
        self.older_writers().await?;
        let mut rows = record::rows((&self.namespace, &self.key), state, SystemTime::now());
        rows.retain(|(name, _)| *name != "next");
        rows.extend(by.map(|by| ("by", text::clean(by))));
        rows.push(("will become", becomes.to_owned()));
        terminal::report(&text::block(&rows));
        terminal::confirm(yes)
    }

    async fn forget_unreadable(&self, yes: bool) -> Result<Exit, Failure> {
        let reason = match self.engine.inspect(&self.key).await {
            Err(error @ Error::RecordUnreadable { .. }) => super::exit::chain(&error),
            Err(error) => return Err(error.into()),
            Ok(None) => return Err(show::unknown(&self.key, &self.namespace)),
            Ok(Some(state)) => return Err(self.refuse(&state, "the record can be read")),
        };
        let damaged = self.engine.inspect_unreadable(&self.key).await?;
        if damaged.as_ref().is_some_and(|record| record.is_newer()) {
            let text = "a newer version wrote the record: update this program";
            return Err(Failure::new(Exit::Refused, text));
        }
        self.older_writers().await?;
        let becomes = "removed, whatever it stood for: THE NEXT REQUEST IS SENT to the platform";
        terminal::report(&text::block(&[
            ("key", self.key.to_string()),
            ("namespace", self.namespace.to_string()),
            ("state", reason),
            ("will become", becomes.to_owned()),
        ]));
        terminal::confirm(yes)?;
        let Some(damaged) = damaged else {
            // Its outcome cannot be read, its state can.
            return self.forgotten(becomes).await;
        };
        match self.engine.discard_unreadable(&damaged).await? {
            true => self.done(becomes),
            false => Err(self.changed()),
        }
    }

    async fn forgotten(&self, becomes: &str) -> Result<Exit, Failure> {
        match self.engine.forget(&self.key).await? {
            Forgotten::Outcome | Forgotten::Unreadable => self.done(becomes),
            _ => Err(self.changed()),
        }
    }

    fn done(&self, becomes: &str) -> Result<Exit, Failure> {
        terminal::print(&format!("{}: {becomes}\n", self.key))?;
        Ok(Exit::Done)
    }

    fn changed(&self) -> Failure {
        let text = "nothing was removed: the record has changed since; look again";
        Failure::new(Exit::Refused, text)
    }

    /// Refuses to write where the engines of a namespace are older than this program,
    /// whose writes would keep them from taking keys.
    async fn older_writers(&self) -> Result<(), Failure> {
        let Self {
            store, namespace, ..
        } = self;
        let least = store.least_writer(namespace, 0).await;
        let least =
            least.map_err(|error| Failure::new(Exit::Unavailable, super::exit::chain(&error)))?;
        match least {
            1.. if least < WRITER => Err(Failure::new(
                Exit::Refused,
                format!(
                    "engines of writer version {least} use namespace {namespace}, this program is \
                     of version {WRITER}: use the one of their release"
                ),
            )),
            _ => Ok(()),
        }
    }
}
