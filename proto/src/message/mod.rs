//! Messages of the native wire, by receiver. One ordered stream each way per peer; within it
//! nothing is lost or swapped while the connection lives (semantics A8).
//!
//! The wire is positional: variants and fields are appended, never reordered.

pub mod framework;
pub mod master;
pub mod slave;
