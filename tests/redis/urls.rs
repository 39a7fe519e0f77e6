//! Unusable URLs, and URLs of which some part is not used: each error says why, and none
//! echoes the URL.

use super::connect::invalid;

/// Partly red if a part of a URL that nothing reads is ignored.
#[tokio::test]
async fn unusable_url_is_reported() {
    for (url, reason) in [
        (
            "",
            "it has no scheme: expected redis://host or rediss://host",
        ),
        (
            "localhost:6379",
            "it has no scheme: expected redis://host or rediss://host",
        ),
        (
            "http://:hunter2@localhost",
            "its scheme is neither redis:// nor rediss://",
        ),
        (
            "hunter2://localhost",
            "its scheme is neither redis:// nor rediss://",
        ),
        (
            "unix:///tmp/redis.sock",
            "its scheme is neither redis:// nor rediss://",
        ),
        (
            "redis://:hunter2@localhost/zero",
            "its path is not a database number",
        ),
        (
            "redis://:hunter2@local host",
            "it cannot be read: redis url did not parse",
        ),
        (
            "redis://:hunter2@localhost:port",
            "it cannot be read: redis url did not parse",
        ),
        (
            "rediss://localhost/#insecure",
            "#insecure is not supported: certificates are always verified",
        ),
        (
            "redis://localhost/#insecure",
            "#insecure is not supported: certificates are always verified",
        ),
        (
            "redis://:hunter2#@localhost",
            "it has a fragment, which means nothing; a # in a password is written %23",
        ),
        (
            "redis://localhost/?password=hunter2",
            "it has query parameters, and none is known; a ? in a password is written %3F",
        ),
        (
            "redis://hunter2@localhost",
            "it has a user without a password: user:password@host is needed",
        ),
        (
            "redis://app:@localhost",
            "it has a user without a password: user:password@host is needed",
        ),
    ] {
        assert_eq!(invalid(url).await, reason, "{url}");
    }
}
