//! `key` and `completions`: the commands that need no store.

use genesys_once::IdempotencyKey;
use genesys_once::request::Scope;

use super::process::Cli;
use super::records::{ACTION, labelled, request};

#[tokio::test]
async fn key_equals_the_library_from_every_source() {
    let key = IdempotencyKey::of(&request(42)).to_string();
    let cli = Cli::bare();
    let spelled = r#"{ "order": 42.0 }"#;
    let said = cli.run(&["key", ACTION, spelled]).await.expect(0).out;
    assert_eq!(said, format!("{key}\n"));

    let said = cli.run_with(&["key", ACTION, "-"], spelled).await.expect(0);
    assert_eq!(said.out.trim(), key);

    let path = std::env::temp_dir().join(format!("cli-payload-{}", std::process::id()));
    std::fs::write(&path, spelled).unwrap();
    let at = format!("@{}", path.display());
    let said = cli.run(&["key", ACTION, &at]).await.expect(0);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(said.out.trim(), key);
}

#[tokio::test]
async fn key_takes_own_keys_scopes_and_pointers() {
    let cli = Cli::bare();
    let own = ["key", ACTION, "--own-key", "order-7", "--scope", "eu"];
    let said = cli.run(&own).await.expect(0);
    assert_eq!(
        said.out.trim(),
        IdempotencyKey::of(&labelled(7)).to_string()
    );

    let noisy = r#"{"order":42,"timestamp":1}"#;
    let words = ["key", ACTION, noisy, "--ignoring", "/timestamp"];
    let said = cli.run(&words).await.expect(0);
    assert_eq!(
        said.out.trim(),
        IdempotencyKey::of(&request(42)).to_string()
    );
}

/// The name of a service's caller is not the scope of its requests, but a scope around it.
///
/// Red if `--within` sets the request's own scope.
#[tokio::test]
async fn key_within_a_caller_equals_scoped_engine() {
    let cli = Cli::bare();
    let scope: Scope = "billing".parse().unwrap();
    let own = ["key", ACTION, "--own-key", "order-7", "--scope", "eu"];
    let words = [&own[..], &["--within", "billing"]].concat();
    let said = cli.run(&words).await.expect(0);
    assert_eq!(said.out.trim(), scope.key_of(&labelled(7)).to_string());
    let words = ["key", ACTION, r#"{"order":42}"#, "--within", "billing"];
    let said = cli.run(&words).await.expect(0);
    assert_eq!(said.out.trim(), scope.key_of(&request(42)).to_string());
}

#[tokio::test]
async fn key_refuses_what_is_no_request() {
    let cli = Cli::bare();
    let said = cli.run(&["key", ACTION, "{"]).await.expect(2);
    assert!(said.err.contains("invalid payload"), "{}", said.err);
    cli.run(&["key", "a/b", "{}"]).await.expect(2);
    cli.run(&["key", ACTION]).await.expect(2);
    cli.run(&["key", ACTION, "{}", "--own-key", "k"])
        .await
        .expect(2);
    let said = cli.run(&["key", ACTION, "@/no/such/file"]).await.expect(2);
    assert!(said.err.contains("/no/such/file"), "{}", said.err);
}

#[tokio::test]
async fn completion_scripts_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = Cli::bare().run(&["completions", shell]).await.expect(0);
        for command in ["list", "resolve", "doctor", "--own-key", "--not-applied"] {
            let command = command.trim_start_matches('-');
            assert!(said.out.contains(command), "{shell} lacks {command}");
        }
    }
    Cli::bare().run(&["completions", "tcsh"]).await.expect(2);
}
