//! Stand-in until the platform's own branch is merged: only what the simulator
//! names. It must never be released.

use crate::error::Error;

/// Where the platform is.
#[derive(Clone, Debug)]
pub struct Environment(#[allow(dead_code)] String);

impl Environment {
    /// One host for everything.
    ///
    /// # Errors
    ///
    /// None in the stand-in.
    pub fn from_base_url(url: &str) -> Result<Self, Error> {
        Ok(Self(url.to_owned()))
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Credentials(#[allow(dead_code)] String);

impl Credentials {
    /// The client's id and secret.
    pub fn new(client_id: impl Into<String>, client_secret: impl Into<String>) -> Self {
        let _ = client_secret.into();
        Self(client_id.into())
    }
}
