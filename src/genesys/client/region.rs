//! The platform's regions by AWS name, and settings from environment variables. It sends
//! nothing, and shows the value of no variable.

use std::env;
use std::ffi::OsString;

use super::{Credentials, Environment};
use crate::error::Error;
use crate::telemetry;

/// AWS region and domain, from `PureCloudRegionHosts` of the vendor's JavaScript SDK and
/// the region table of its Terraform provider. `eusc-de-east-1` is in neither: it comes
/// from copies of a newer table of the SDK.
#[rustfmt::skip]
const REGIONS: [(&str, &str); 18] = [
    ("ap-northeast-1", "mypurecloud.jp"),
    ("ap-northeast-2", "apne2.pure.cloud"),
    ("ap-northeast-3", "apne3.pure.cloud"),
    ("ap-south-1", "aps1.pure.cloud"),
    ("ap-southeast-1", "apse1.pure.cloud"),
    ("ap-southeast-2", "mypurecloud.com.au"),
    ("ca-central-1", "cac1.pure.cloud"),
    ("eu-central-1", "mypurecloud.de"),
    ("eu-central-2", "euc2.pure.cloud"),
    ("eu-west-1", "mypurecloud.ie"),
    ("eu-west-2", "euw2.pure.cloud"),
    ("eusc-de-east-1", "edee1.eusc-pure.cloud"),
    ("me-central-1", "mec1.pure.cloud"),
    ("mx-central-1", "mxc1.pure.cloud"),
    ("sa-east-1", "sae1.pure.cloud"),
    ("us-east-1", "mypurecloud.com"),
    ("us-east-2", "use2.us-gov-pure.cloud"),
    ("us-west-2", "usw2.pure.cloud"),
];

const REGION: &str = "GENESYS_CLOUD_REGION";
const DOMAIN: &str = "GENESYS_CLOUD_DOMAIN";
const CLIENT_ID: &str = "GENESYS_CLOUD_CLIENT_ID";
const CLIENT_SECRET: &str = "GENESYS_CLOUD_CLIENT_SECRET";

/// Logs a domain of no known region: most often a typing error, and else a newer region.
pub(super) fn warn_of_unknown(domain: &str) {
    if REGIONS.iter().all(|(_, known)| *known != domain) {
        telemetry::contained(|| {
            tracing::warn!(
                domain,
                "the domain belongs to no known Genesys Cloud region"
            );
        });
    }
}

impl Environment {
    /// The platform's region in this AWS region, such as `eu-west-1`.
    ///
    /// The table is part of the release. For a newer region, use
    /// [`from_domain`](Self::from_domain).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for `region`, with the known regions.
    pub fn from_region(region: &str) -> Result<Self, Error> {
        let lower = region.to_ascii_lowercase();
        let known = REGIONS.iter().find(|(name, _)| *name == lower);
        let Some((_, domain)) = known else {
            let names = REGIONS.map(|(name, _)| name).join(", ");
            let reason = format!("expected one of {names}; for another, set the domain");
            return Err(Error::invalid_config("region", reason));
        };
        Self::from_domain(domain)
    }

    /// The region that the environment variables name: `GENESYS_CLOUD_REGION` as for
    /// [`from_region`](Self::from_region), or `GENESYS_CLOUD_DOMAIN` as for
    /// [`from_domain`](Self::from_domain). An empty variable counts as absent.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the variable at fault, also if both or none are set.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(env::var_os)
    }

    fn from_variables(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        let (name, made) = match (text(&lookup, REGION)?, text(&lookup, DOMAIN)?) {
            (Some(region), None) => (REGION, Self::from_region(&region)),
            (None, Some(domain)) => (DOMAIN, Self::from_domain(&domain)),
            (Some(_), Some(_)) => {
                let reason = "GENESYS_CLOUD_DOMAIN is set, too: set one of them";
                return Err(Error::invalid_config(REGION, reason));
            }
            (None, None) => {
                let reason = "it must be set, or GENESYS_CLOUD_DOMAIN";
                return Err(Error::invalid_config(REGION, reason));
            }
        };
        made.map_err(|error| match error {
            Error::InvalidConfig { reason, .. } => Error::invalid_config(name, reason),
            error => error,
        })
    }
}

impl Credentials {
    /// The id and secret in the environment variables `GENESYS_CLOUD_CLIENT_ID` and
    /// `GENESYS_CLOUD_CLIENT_SECRET`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the variable that is absent, empty or not UTF-8. It
    /// shows no value.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(env::var_os)
    }

    fn from_variables(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        let required = |name| match text(&lookup, name)? {
            Some(value) => Ok(value),
            None => Err(Error::invalid_config(name, "it must be set")),
        };
        Ok(Self::new(required(CLIENT_ID)?, required(CLIENT_SECRET)?))
    }
}

/// A variable's value; `None` where it is absent or empty.
fn text(
    lookup: impl Fn(&'static str) -> Option<OsString>,
    name: &'static str,
) -> Result<Option<String>, Error> {
    let Some(value) = lookup(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = value.into_string();
    text.map(Some)
        .map_err(|_| Error::invalid_config(name, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables of a test, instead of the process's own.
    fn set(
        variables: &'static [(&'static str, &'static str)],
    ) -> impl Fn(&'static str) -> Option<OsString> {
        move |name| {
            let found = variables.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| value.into())
        }
    }

    /// The setting at fault and the whole error in text.
    fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> (&'static str, String) {
        match result.unwrap_err() {
            error @ Error::InvalidConfig { setting, .. } => (setting, format!("{error} {error:?}")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_region_is_one_domain() {
        for (region, domain) in REGIONS {
            let environment = Environment::from_region(region).unwrap();
            assert_eq!(environment, Environment::from_domain(domain).unwrap());
            let same = |other: &&(&str, &str)| other.0 == region || other.1 == domain;
            assert_eq!(REGIONS.iter().filter(same).count(), 1, "{region}");
        }
        let ireland = Environment::from_region("EU-WEST-1").unwrap();
        assert_eq!(ireland.api_url(), "https://api.mypurecloud.ie/");
        let (setting, text) = fault(Environment::from_region("eu-west-9"));
        assert_eq!(setting, "region");
        assert!(text.contains("eu-west-1, eu-west-2"), "{text}");
    }

    #[test]
    fn environment_is_read_from_one_of_two_variables() {
        let ireland = Environment::from_domain("mypurecloud.ie").unwrap();
        for variables in [
            &[(REGION, "eu-west-1")][..],
            &[(DOMAIN, "mypurecloud.ie")],
            &[(DOMAIN, "mypurecloud.ie"), (REGION, "")],
        ] {
            let read = Environment::from_variables(set(variables)).unwrap();
            assert_eq!(read, ireland);
        }
        for (variables, at_fault) in [
            (&[][..], REGION),
            (&[(REGION, "eu-west-1"), (DOMAIN, "mypurecloud.ie")], REGION),
            (&[(REGION, "mypurecloud.ie")], REGION),
            (&[(DOMAIN, "https://mypurecloud.ie")], DOMAIN),
        ] {
            let (setting, _) = fault(Environment::from_variables(set(variables)));
            assert_eq!(setting, at_fault);
        }
    }

    /// Red with a value in the error, here those of variables that were interchanged.
    #[test]
    fn faulty_variable_is_named_and_not_shown() {
        let read = Credentials::from_variables;
        let credentials = read(set(&[(CLIENT_ID, "id"), (CLIENT_SECRET, "hunter2")])).unwrap();
        assert_eq!(credentials.client_id(), "id");
        assert!(credentials.secret_contains("hunter2"));
        let (setting, text) = fault(read(set(&[(CLIENT_SECRET, "hunter2")])));
        assert_eq!(setting, CLIENT_ID);
        assert!(text.contains(CLIENT_ID) && !text.contains("hunter2"));
        let (setting, _) = fault(read(set(&[(CLIENT_ID, "id"), (CLIENT_SECRET, "")])));
        assert_eq!(setting, CLIENT_SECRET);
        for variable in [REGION, DOMAIN] {
            let lookup = |name| (name == variable).then(|| OsString::from("hunter2"));
            let (setting, text) = fault(Environment::from_variables(lookup));
            assert_eq!(setting, variable);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn variable_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let lookup = |_| Some(OsString::from_vec(b"hunter\xff".to_vec()));
        let (setting, text) = fault(Credentials::from_variables(lookup));
        assert_eq!(setting, CLIENT_ID);
        assert!(!text.contains("hunter"), "{text}");
    }
}
