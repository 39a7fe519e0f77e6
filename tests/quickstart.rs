//! The quickstart as a process: its output in a first, a second and a fresh run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder as cargo lays out its target directory, with the program in it.
struct Target(PathBuf);

impl Target {
    fn new() -> Self {
        static TARGETS: AtomicUsize = AtomicUsize::new(0);
        let number = TARGETS.fetch_add(1, Ordering::Relaxed);
        let name = format!("quickstart-{}-{number}", std::process::id());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let profile = folder.join("debug");
        std::fs::create_dir_all(&profile).unwrap();
        // A copy might fail to start while another test starts a process.
        let program = env!("CARGO_BIN_EXE_quickstart");
        std::fs::hard_link(program, profile.join("quickstart")).unwrap();
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("debug").join("quickstart"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GENESYS_")) {
            command.env_remove(name);
        }
        // A variable of the service has no effect here.
        command.env("SERVICE_NAMESPACE", "prod");
        command.args(arguments).env_remove("REDIS_URL");
        command
    }

    /// The lines that a run prints.
    fn run(&self, arguments: &[&str]) -> Vec<String> {
        let run = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{errors}");
        let text = String::from_utf8(run.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn line<'a>(lines: &'a [String], beginning: &str) -> &'a str {
    let found = lines.iter().find(|line| line.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line begins with {beginning:?}: {lines:#?}"))
}

fn last_word(line: &str) -> &str {
    line.split_whitespace().last().unwrap()
}

#[test]
fn later_run_replays_and_fresh_run_executes() {
    let target = Target::new();
    let first = target.run(&[]);
    assert!(line(&first, "first caller ").contains("from upstream"));
    assert_eq!(first.last().unwrap(), "upstream calls: 1");
    assert!(target.0.join("quickstart").join("records.redb").exists());

    let second = target.run(&[]);
    assert_eq!(line(&second, "key "), line(&first, "key "));
    assert!(line(&second, "first caller ").contains("from store"));
    assert!(line(&second, "order 43 ").contains("200 OK from store: refund R-43"));
    assert_eq!(second.last().unwrap(), "upstream calls: 0");

    let fresh = target.run(&["--fresh"]);
    assert!(line(&fresh, "first caller ").contains("from upstream"));
    assert_eq!(fresh.last().unwrap(), "upstream calls: 1");

    // Seen red with the namespace that a real platform might have.
    for run in [&first, &second, &fresh] {
        let namespace = last_word(line(run, "namespace "));
        assert!(namespace.starts_with("simulated-"), "{run:#?}");
        let key = last_word(line(run, "key "));
        assert!(line(run, "counted for ").contains(key), "{run:#?}");
    }
    assert_eq!(line(&first, "namespace "), line(&second, "namespace "));
}

/// Red if each caller waits for the caller before it: all others are then served from
/// memory.
#[test]
fn most_callers_join_the_first() {
    let run = Target::new().run(&[]);
    let served = line(&run, "1000 callers ");
    assert!(served.contains(" 1 upstream, "), "{served}");
    let joined = served.split(' ').rev().nth(1).unwrap();
    assert!(served.ends_with(" joined"), "{served}");
    assert!(joined.parse::<usize>().unwrap() > 500, "{served}");
    assert!(line(&run, "other process ").contains("from store: refund R-1"));
}

/// Red with `on_unknown(Retry)`, and without the resolution.
#[test]
fn lost_answer_is_reported_resolved_and_replayed() {
    let run = Target::new().run(&[]);
    assert!(line(&run, "order 43 ").contains(" indeterminate: "));
    assert!(line(&run, "asked again ").ends_with(" indeterminate, 1 call"));
    assert!(line(&run, "resolved ").ends_with(" 200 OK from store: refund R-43, 1 call"));
}

/// Red with a variable that `help.txt` does not explain.
#[test]
fn help_names_every_variable() {
    let help = Target::new().run(&["--help"]).join("\n");
    let quoted = include_str!("../examples/quickstart/setup.rs").split('"');
    let is_name = |text: &&str| {
        let begins = text.starts_with("GENESYS_") || text.starts_with("REDIS_");
        begins && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    let names: BTreeSet<_> = quoted.filter(is_name).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        assert!(help.contains(&format!("  {name} ")), "--help lacks {name}");
    }
}

/// Red if a missing variable selects the simulator: a typing error would then replay
/// simulated answers.
#[test]
fn incomplete_platform_is_refused() {
    let target = Target::new();
    let mut command = target.command(&[]);
    command.env("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie");
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("not set: GENESYS_CLOUD_CLIENT_ID, "),
        "{errors}"
    );
}
