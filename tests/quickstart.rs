//! `examples/quickstart` as a process: the second run of the same command is
//! served from the file that the first one left, and its last line says so.

use std::path::PathBuf;
use std::process::Command;

/// A folder as cargo lays out its target directory, with the program in it.
struct Target(PathBuf);

impl Target {
    fn new() -> Self {
        let name = format!("genesys-once-quickstart-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let profile = folder.join("debug");
        std::fs::create_dir_all(&profile).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_quickstart"), profile.join("quickstart")).unwrap();
        Self(folder)
    }

    /// What a run prints.
    fn run(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.0.join("debug").join("quickstart");
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GENESYS_")) {
            command.env_remove(name);
        }
        // What the service reads changes nothing here.
        command.env("SERVICE_NAMESPACE", "prod");
        let run = command.args(arguments).env_remove("REDIS_URL").output();
        let run = run.unwrap();
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

#[test]
fn the_second_run_is_served_from_the_store_and_fresh_starts_over() {
    let target = Target::new();
    let first = target.run(&[]);
    assert!(
        line(&first, "first ").contains("from upstream"),
        "{first:#?}"
    );
    assert_eq!(first.last().unwrap(), "upstream calls: 1");
    assert!(target.0.join("quickstart").join("records.redb").exists());

    let second = target.run(&[]);
    assert_eq!(line(&second, "key "), line(&first, "key "));
    assert!(
        line(&second, "first ").contains("from store"),
        "{second:#?}"
    );
    assert_eq!(second.last().unwrap(), "upstream calls: 0");

    let fresh = target.run(&["--fresh"]);
    assert!(
        line(&fresh, "first ").contains("from upstream"),
        "{fresh:#?}"
    );
    assert_eq!(fresh.last().unwrap(), "upstream calls: 1");

    // Seen red with the namespace that a real platform might have.
    for run in [&first, &second, &fresh] {
        let namespace = line(run, "namespace ").split_whitespace().last();
        assert!(namespace.unwrap().starts_with("simulated-"), "{run:#?}");
    }
    assert_eq!(line(&first, "namespace "), line(&second, "namespace "));
}
