//! The simulated datacenter: the production cores in virtual time, with faults from a seed.
//!
//! What is modelled is the world around the cores: network, disks, clocks, processes, containers,
//! the replicated log, and frameworks with behaviours. Nothing here re-implements the kernel.
