//! Whether the login service gives a token, and whether the API takes it. No action
//! is executed.

use genesys_once::error::TokenError;
use genesys_once::{GenesysCloud, Upstream as _};
use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::Report;
use crate::exit::{Failure, chain};
use crate::settings::{self, Platform};
use crate::text::length;

pub async fn check(report: &mut Report, platform: Option<Platform>) -> Result<(), Failure> {
    const UNSET: &str = "set GENESYS_CLOUD_DOMAIN, GENESYS_CLOUD_CLIENT_ID and \
                         GENESYS_CLOUD_CLIENT_SECRET[_FILE], or pass --store-only";
    let Some(platform) = platform else {
        return report.warn("platform", "not checked", UNSET);
    };
    let Some(secret) = settings::secret("GENESYS_CLOUD_CLIENT_SECRET")? else {
        return report.warn(
            "token",
            "not checked: the client's secret is not set",
            UNSET,
        );
    };
    let upstream = platform.upstream(secret.expose_secret());
    if let Err(error) = upstream.check() {
        return report.fail("platform", chain(&error), "correct the setting");
    }
    examine(report, &upstream, platform.environment.api_url()).await
}

async fn examine(report: &mut Report, upstream: &GenesysCloud, api: &str) -> Result<(), Failure> {
    let token = match upstream.token_source() {
        Some(source) => source.fetch().await,
        None => Err(TokenError::new("there is no token source")),
    };
    let token = match token {
        Ok(token) => token,
        Err(error) => {
            let todo = match error.is_rejected() {
                true => "correct GENESYS_CLOUD_CLIENT_ID or GENESYS_CLOUD_CLIENT_SECRET",
                false => "nothing is sent without a token: is the login service reachable?",
            };
            return report.fail("token", chain(&error), todo);
        }
    };
    let life = token.expires_in().map_or_else(
        || "of unknown life".into(),
        |life| format!("valid for {}", length(life)),
    );
    report.ok("token", life)?;
    match upstream.reach(&token).await {
        Ok(StatusCode::UNAUTHORIZED) => report.fail(
            "platform",
            format!("{api} refuses the token that its login service gave"),
            "is the client of this organisation and region?",
        ),
        Ok(status) if status.is_server_error() => report.warn(
            "platform",
            format!("{api} answers {status}"),
            "it is there, and in trouble: see the vendor's status page",
        ),
        Ok(status) => report.ok("platform", format!("{api} answers {}", status.as_u16())),
        Err(error) => {
            let error = chain(&error);
            report.fail(
                "platform",
                format!("{api}: {error}"),
                "is it reachable from here?",
            )
        }
    }
}
