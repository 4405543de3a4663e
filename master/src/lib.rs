//! The master: network, registry, projections and HTTP around MasterCore.
//!
//! [`start`] runs one; [`config`] is what can be set. Inside:
//!
//! - [`registry`]: what the cluster consists of, replicated among the masters;
//! - `shell`: the thread that owns the core, the queue into it, and the peers' connections;
//! - [`projection`]: the read model behind every GET; `events`: the leader's stream that keeps those of others;
//! - `http`: health, metrics, reads, orders of operators, the Mesos v1 API;
//! - [`metrics`]: the only place that names metrics.
//!
//! Threads: `core` decides, `read-model` keeps what can be read; the registry, the network and HTTP are
//! tasks of the caller's tokio runtime. Queues between them are bounded.

mod bind;
pub mod config;
pub mod endpoint;
mod events;
pub mod exit;
mod http;
pub mod metrics;
pub mod projection;
pub mod registry;
pub mod restore;
mod running;
mod shell;

pub use bind::BindError;
pub use running::{Running, StartError, start};
