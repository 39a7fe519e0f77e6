//! The command line `genesys-once` as a process: every command, every exit code and every
//! refusal, against a real `redis-server` and a file.
#![cfg(all(feature = "cli", feature = "testing"))]

#[path = "support/subscriber.rs"]
mod subscriber;
mod support;

mod cli {
    mod doctor;
    mod help;
    mod incident;
    mod keys;
    mod lists;
    mod process;
    mod records;
    mod refusals;
    mod runbook;
    mod stores;
    mod tampering_proxy;
    mod watch;
    mod writes;
}
