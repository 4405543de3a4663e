//! The vocabulary of Meros: what masters, slaves, frameworks and tools say to each other.
//!
//! Typed ids, the resource algebra, descriptions of slaves, frameworks, offers and tasks, messages
//! by receiver, coded refusals, and the codec that turns them into bounded frames. With the feature
//! `transport` also QUIC with mutual TLS and the cluster's certificate authority.
//!
//! Absent: policy, clocks, and (without the feature) any input or output.

pub mod attribute;
mod bounded_list;
pub mod check;
pub mod codec;
pub mod constraint;
pub mod executor;
pub mod fetch;
pub mod framework;
pub mod group;
pub mod ids;
pub mod image;
pub mod labels;
pub mod maintenance;
pub mod message;
pub mod minimum;
pub mod mutant;
pub mod offer;
pub mod operation;
pub mod quota;
pub mod refusal;
pub mod resources;
pub mod role;
pub mod slave;
pub mod state;
pub mod status;
pub mod task;
pub mod time;
#[cfg(feature = "transport")]
pub mod transport;
pub mod view;
pub mod why;
