//! The callers that may execute, each with a name and a token. The name is the scope of all
//! requests of a caller, so that no caller gets the answer to another caller's request.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use genesys_once::Error;
use genesys_once::request::Scope;

use crate::app::App;
use crate::problem::Problem;
use crate::token::{Token, bearer};

/// An authenticated caller's name, in the extensions of its requests.
#[derive(Clone)]
pub struct Caller(pub Scope);

/// The callers of a setting.
#[derive(Default)]
pub struct Callers(Vec<(Scope, Token)>);

impl Callers {
    /// Reads `NAME=TOKEN` pairs with white space between them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut callers, mut owners) = (Vec::new(), BTreeMap::new());
        for (number, pair) in (1..).zip(text.split_whitespace()) {
            let Some((name, token)) = pair.split_once('=') else {
                // Not quoted: it might be a token.
                return Err(format!("pair {number} is not NAME=TOKEN"));
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                return Err(format!(
                    "the name of pair {number} is not 1 to 64 characters of A-Z a-z 0-9 . - _"
                ));
            }
            // A name may have two tokens while one token replaces the other. A token must
            // have one name; otherwise one caller would get the answers of another.
            let owner = *owners.entry(token.trim()).or_insert(name);
            if owner != name {
                return Err(format!("{owner:?} and {name:?} have the same token"));
            }
            let token = Token::parse(token).map_err(|e| format!("the token of {name:?} {e}"))?;
            let scope = name.parse().map_err(|e: Error| format!("{name:?}: {e}"))?;
            callers.push((scope, token));
        }
        match callers.is_empty() {
            true => Err("names no caller".into()),
            false => Ok(Self(callers)),
        }
    }

    /// Without a list of callers, every client that reaches the service may execute.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The caller whose token this is.
    pub fn find(&self, shown: &str) -> Option<&Scope> {
        let mut found = None;
        // Compares all tokens, so that the time does not depend on which token it is.
        for (name, token) in &self.0 {
            if token.is(shown) {
                found = Some(name);
            }
        }
        found
    }
}

/// Lets a request through with its [`Caller`], or unchanged if there is no list of callers.
pub async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let callers = &app.settings.callers;
    if !callers.is_empty() {
        let shown = bearer(request.headers()).unwrap_or_default();
        let Some(name) = callers.find(shown) else {
            let detail = "send the caller's token as Authorization: Bearer";
            return Err(Problem::new("unauthenticated", detail));
        };
        let caller = Caller(name.clone());
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}
