//! The store's operations as Redis commands and scripts. Nothing here knows which server
//! has a key.

pub(super) mod bodies;
pub(super) mod commands;
pub(super) mod list;
pub(super) mod read;
pub(super) mod replica_acks;
pub(super) mod script_reply;
pub(super) mod scripts;
pub(super) mod shard_marker;
pub(super) mod stored_record;
pub(super) mod unreadable;
