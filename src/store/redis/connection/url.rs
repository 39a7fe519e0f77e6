//! The parts of a URL that nothing reads. redis-rs parses the rest.

use super::connect_error::invalid;
use crate::error::Error;

/// Refuses the parts of a URL that would be ignored, since their author expects an effect.
/// No message contains their text: it might be a password with a special character.
pub(crate) fn check_unused_parts(url: &str) -> Result<(), Error> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (rest, None),
    };
    match fragment {
        Some("insecure") => {
            return Err(invalid(
                "#insecure is not supported: certificates are always verified",
            ));
        }
        Some(_) => {
            return Err(invalid(
                "it has a fragment, which means nothing; a # in a password is written %23",
            ));
        }
        None => {}
    }
    if rest.contains('?') {
        return Err(invalid(
            "it has query parameters, and none is known; a ? in a password is written %3F",
        ));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@').map(|(login, _)| login) {
        Some(login)
            if login
                .split_once(':')
                .is_none_or(|(_, word)| word.is_empty()) =>
        {
            Err(invalid(
                "it has a user without a password: user:password@host is needed",
            ))
        }
        _ => Ok(()),
    }
}
