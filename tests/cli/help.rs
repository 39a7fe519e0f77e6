//! `--help`: what an operator must find there.

use super::process::Cli;

/// Red if a command loses its examples, or if the table of exit codes or the environment is
/// left out.
#[tokio::test]
async fn help_has_examples_exit_codes_and_environment() {
    let cli = Cli::bare();
    let said = cli.run(&["--help"]).await.expect(0).out;
    for needed in [
        "REDIS_URL[_FILE]",
        "REDIS_CLUSTER_URLS",
        "REDIS_SENTINEL_URLS",
        "SERVICE_FILE",
        "SERVICE_NAMESPACE",
        "GENESYS_CLOUD_DOMAIN",
        "GENESYS_CLOUD_CLIENT_SECRET[_FILE]",
        "ENCRYPTION_KEYS[_FILE]",
        "Exit codes:",
        "--namespace",
    ] {
        assert!(said.contains(needed), "--help lacks {needed}:\n{said}");
    }
    for code in 0..=11 {
        let line = format!("\n  {code:<4}");
        assert!(said.contains(&line), "--help lacks exit code {code}");
    }
    for (command, needed) in [
        ("key", "genesys-once key custom_-_refund @payload.json"),
        ("list", "genesys-once list --json | jq"),
        ("show", "genesys-once show --own-key order-42 --action"),
        ("resolve", "--by 'ticket 4711' --not-applied"),
        ("forget", "genesys-once forget KEY --unreadable"),
        ("accept-emptied", "genesys-once accept-emptied --namespace"),
        ("doctor", "genesys-once doctor --store-only"),
        ("watch", "genesys-once watch --every 1m"),
        ("completions", "genesys-once completions bash"),
    ] {
        assert!(cli.run(&["--help"]).await.out.contains(command));
        let said = cli.run(&[command, "--help"]).await.expect(0).out;
        assert!(said.contains("Examples:"), "{command} has no examples");
        assert!(said.contains(needed), "{command} lacks {needed}:\n{said}");
    }
}

#[tokio::test]
async fn version_is_the_crate_version() {
    let said = Cli::bare().run(&["--version"]).await.expect(0).out;
    assert_eq!(
        said.trim(),
        concat!("genesys-once ", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn unknown_commands_and_options_are_usage_errors() {
    for words in [
        &["execute"][..],
        &[],
        &["list", "--state", "x"],
        &["watch", "--every", "soon"],
        &["show"],
        &["show", "--own-key", "k"],
        &["show", "not-a-key"],
        &["show", "genesys-once:night"],
        &["resolve", "00"],
    ] {
        let said = Cli::bare().run(words).await;
        assert_eq!(said.code, 2, "{words:?}: {}", said.said());
    }
}
