//! A custom platform and a custom store, which implement the two traits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use genesys_once::error::{SendError, StoreError, TokenError};
use genesys_once::record::{Answer, Event, Namespace, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::upstream::{AccessToken, Call, TokenSource};
use genesys_once::{
    DataActionRequest, Error, IdempotencyKey, MemoryStore, Outcome, Store, Upstream,
};
use http::{HeaderMap, StatusCode};

/// A service's own platform.
pub struct Own(pub Arc<OwnTokens>);

pub struct OwnTokens;

impl TokenSource for OwnTokens {
    fn fetch(&self) -> BoxFuture<'_, Result<AccessToken, TokenError>> {
        Box::pin(async { Ok(AccessToken::new("t", Some(Duration::from_secs(60)))) })
    }
}

impl Upstream for Own {
    fn namespace(&self) -> Namespace {
        "own".parse().unwrap()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            assert_eq!(token.map(AccessToken::expose), Some("t"));
            let _: (&DataActionRequest, IdempotencyKey, u32) =
                (call.request(), call.key(), call.attempt());
            match call.request().payload().as_ref() {
                b"0" => Err(SendError::before_sending("no route")),
                b"1" => Err(SendError::after_sending(std::io::Error::other("cut"))),
                payload => {
                    let body = Bytes::copy_from_slice(payload);
                    Ok(Outcome::new(StatusCode::OK, HeaderMap::new(), body))
                }
            }
        })
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        Some(self.0.clone())
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A service's own store: three functions, of which one is optional.
#[derive(Clone)]
pub struct Counting(pub MemoryStore);

impl Store for Counting {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        self.0.apply(name, event)
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.0.look(name)
    }
}
