//! placeholder
mod conformance;
mod ledger;
mod scripted;
mod simulator;
pub mod strategies;
