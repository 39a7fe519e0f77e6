//! `RedisStore` against real servers: the protocol, how it connects, what it does when
//! a server fails, records that it did not write, and engines over it.
#![cfg(all(feature = "redis", feature = "testing"))]

#[path = "support/own_process.rs"]
mod own_process;
mod support;

mod redis {
    mod body_transfer;
    mod builder;
    mod cluster;
    mod cluster_identity;
    mod common;
    mod connect;
    mod connect_checks;
    #[cfg(all(feature = "file", feature = "genesys"))]
    mod engines;
    #[cfg(feature = "genesys")]
    mod exactly_once;
    mod failover;
    mod failover_time;
    mod fake_server;
    mod foreign_records;
    mod large_bodies;
    mod limited_proxy;
    mod lists;
    mod notifications;
    mod outage;
    mod permissions;
    mod protocol;
    mod record_header;
    mod refused_writes;
    mod replicas;
    mod runtimes;
    mod sentinel;
    mod sentinel_votes;
    mod server_changes;
    mod silent_connections;
    mod slot_migration;
    mod tls;
    mod topologies;
    mod urls;

    use common::*;
}
