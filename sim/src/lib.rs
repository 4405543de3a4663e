//! The simulated datacenter: the production cores in virtual time, with faults from a seed.
//!
//! What is modelled is the world around the cores: network, disks, clocks, processes, containers,
//! the replicated log, and frameworks with behaviours. Nothing here re-implements the kernel.
//!
//! [`check()`] runs many seeds, [`replay`] one. A seed fixes topology, settings, workload and faults.
//! A run has a time with faults; then everything heals and has to come to its end.

mod behaviour;
mod check;
mod clock;
pub mod command;
mod fault;
mod invariants;
mod journal;
pub mod kit;
mod plan;
mod prng;
mod queue;
pub mod scenario;
mod world;

pub use check::{Failure, Outcome, Report, check, replay};
pub use invariants::Broken;
pub use plan::Bounds;
