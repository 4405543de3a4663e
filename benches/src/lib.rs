//! What the benchmarks of the hot paths share: clusters to measure, and ways to measure them.

pub mod cluster;
pub mod counting;
pub mod cpu_time;
pub mod leader;
