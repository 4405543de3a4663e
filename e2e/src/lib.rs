//! Real Meros processes on loopback, for end-to-end tests.
//!
//! [`LocalCluster`] starts the `meros` binary as a cluster admin would: its own certificate
//! authority, one data folder per daemon, free ports. Everything it started ends with it, also
//! when a test fails; then logs and data are kept and their place is printed.

pub mod cgroups;
pub mod cluster;
pub mod daemon;
pub mod liar;
pub mod linearizable;
pub mod meros;
pub mod network;
pub mod ports;
pub mod wait;

pub use cluster::{ClusterOptions, LocalCluster};
pub use daemon::Daemon;
pub use meros::{Ran, meros, meros_program};
pub use network::Network;
pub use ports::Ports;
pub use wait::eventually;
