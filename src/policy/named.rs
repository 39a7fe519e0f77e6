//! Policies in text: names of values for settings files and variables, and the members of
//! a retry policy. It reads no file and no variable.

use std::time::Duration;

use serde::Deserialize;

use super::RetryPolicy;

/// `Display`, `FromStr` and `Deserialize` of an enum whose values have names. The error
/// shows the text that was found and lists the names.
macro_rules! named_values {
    ($of:ident, $setting:literal, $($value:ident = $name:literal),+) => {
        impl std::fmt::Display for $of {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self {
                    $(Self::$value => $name,)+
                })
            }
        }

        impl std::str::FromStr for $of {
            type Err = $crate::error::Error;

            /// # Errors
            ///
            /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) with the allowed names.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$value),)+
                    _ => {
                        let names = [$($name),+].join(", ");
                        let reason = format!("expected one of {names}; found {text:?}");
                        Err($crate::error::Error::invalid_config($setting, reason))
                    }
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $of {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use named_values;

/// The members of a [`RetryPolicy`] in text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryMembers {
    attempts: Option<u32>,
    backoff_ms: Option<u64>,
    max_wait_ms: Option<u64>,
}

impl TryFrom<RetryMembers> for RetryPolicy {
    type Error = &'static str;

    fn try_from(members: RetryMembers) -> Result<Self, Self::Error> {
        let default = Self::default();
        let millis = |value: Option<u64>, or| value.map_or(or, Duration::from_millis);
        let policy = Self {
            attempts: members.attempts.unwrap_or(default.attempts),
            backoff: millis(members.backoff_ms, default.backoff),
            max_wait: millis(members.max_wait_ms, default.max_wait),
        };
        match policy.fault() {
            Some(fault) => Err(fault),
            None => Ok(policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{OnDuplicate, OnUnknown};

    /// Red with a name that only one direction knows.
    #[test]
    fn each_name_is_read_back() {
        for (value, name) in [
            (OnDuplicate::Wait, "wait"),
            (OnDuplicate::FailFast, "fail_fast"),
        ] {
            assert_eq!(value.to_string(), name);
            assert_eq!(name.parse::<OnDuplicate>().unwrap(), value);
            let json = serde_json::json!(name);
            assert_eq!(serde_json::from_value::<OnDuplicate>(json).unwrap(), value);
        }
        for (value, name) in [(OnUnknown::Hold, "hold"), (OnUnknown::Retry, "retry")] {
            assert_eq!(value.to_string(), name);
            assert_eq!(name.parse::<OnUnknown>().unwrap(), value);
        }
        #[cfg(feature = "redis")]
        for (value, name) in [
            (crate::store::WhenEmptied::Go, "go"),
            (crate::store::WhenEmptied::Refuse, "refuse"),
        ] {
            assert_eq!(value.to_string(), name);
            assert_eq!(name.parse::<crate::store::WhenEmptied>().unwrap(), value);
        }
        #[cfg(feature = "genesys")]
        for (value, name) in [
            (crate::genesys::ClientAuth::Basic, "basic"),
            (crate::genesys::ClientAuth::RequestBody, "request_body"),
        ] {
            assert_eq!(value.to_string(), name);
            assert_eq!(name.parse::<crate::genesys::ClientAuth>().unwrap(), value);
        }
    }

    #[test]
    fn other_name_is_refused_with_the_allowed_ones() {
        let message =
            "invalid setting on_duplicate: expected one of wait, fail_fast; found \"FailFast\"";
        let error = "FailFast".parse::<OnDuplicate>().unwrap_err();
        assert_eq!(error.to_string(), message);
        let error = serde_json::from_str::<OnDuplicate>("\"FailFast\"").unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!("".parse::<OnUnknown>().is_err());
    }

    #[test]
    fn retry_policy_is_read_with_defaults() {
        let read = serde_json::from_str::<RetryPolicy>;
        assert_eq!(read("{}").unwrap(), RetryPolicy::default());
        let policy = read(r#"{"attempts":5,"backoff_ms":250,"max_wait_ms":90000}"#).unwrap();
        assert_eq!(policy.attempts, 5);
        assert_eq!(policy.backoff, Duration::from_millis(250));
        assert_eq!(policy.max_wait, Duration::from_secs(90));
    }

    /// Red without `deny_unknown_fields`, and without the check of the values.
    #[test]
    fn faulty_retry_policy_is_refused() {
        let refused = |text| {
            serde_json::from_str::<RetryPolicy>(text)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(r#"{"atempts":5}"#).contains("unknown field `atempts`"));
        assert!(refused(r#"{"attempts":0}"#).contains("attempts must be at least 1"));
        assert!(refused(r#"{"backoff_ms":2592000001}"#).contains("at most 30 days"));
        assert!(refused(r#"{"backoff_ms":"2s"}"#).contains("invalid type"));
    }
}
