//! Which server has a key: one server, the primary that sentinels name, or the nodes of a
//! cluster. Nothing here knows what a record is.

pub(super) mod cluster;
pub(super) mod cluster_state;
pub(super) mod member;
pub(super) mod node;
pub(super) mod primary;
pub(super) mod quorum;
pub(super) mod refresh;
pub(super) mod routes;
pub(super) mod sentinel;
pub(super) mod slot_map;
pub(super) mod slots;
pub(super) mod snapshot;
