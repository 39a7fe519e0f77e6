//! The command line `genesys-once` as a process: every command, every exit code and
//! every refusal, against a real `redis-server` and a file.
#![cfg(feature = "cli")]

mod support;

#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/lists.rs"]
mod lists;
#[path = "cli/night.rs"]
mod night;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/proxy.rs"]
mod proxy;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/stores.rs"]
mod stores;
#[path = "cli/watch.rs"]
mod watch;
#[path = "cli/world.rs"]
mod world;
#[path = "cli/writes.rs"]
mod writes;
