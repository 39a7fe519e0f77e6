//! Tests in processes of their own: this test binary, started again for one of its tests.
//! Not in `support`, which needs a Redis client.
#![allow(dead_code)] // not every binary needs both

use std::process::Command;

/// The command that runs one test: `test` in `module`, as `module_path!()` names it,
/// whether it is ignored or not.
pub fn own_process(module: &str, test: &str) -> Command {
    // The names of tests do not include the crate.
    let (_, module) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}")]);
    command.args(["--include-ignored", "--nocapture"]);
    command
}

/// Runs that test, and fails unless it passes.
pub fn pass_alone(command: &mut Command) {
    let output = command.output().unwrap();
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}
