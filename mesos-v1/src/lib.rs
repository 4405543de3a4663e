//! The Mesos v1 protocol at Meros's edge: its messages, how they are written, and what they are in our
//! own words. Pure: no socket, clock or thread.
//!
//! - [`pb`]: the messages, compiled from `proto/`; names and numbers are the public protocol's;
//! - [`encoding`]: JSON and protobuf, as lenient as clients need it (semantics A2, R7);
//! - [`recordio`]: the framing of streams (semantics A3, R1);
//! - [`ids`], [`resources`], [`framework`], [`task`], [`operation`], [`calls`], [`roles`]: from v1 to native;
//! - [`events`], [`state`], [`views`], [`watch`]: from native to v1;
//! - [`agent`]: the same of what a slave says of itself;
//! - [`machines`], [`executor`]: both ways.
//!
//! Invariants: bytes from outside never panic here, and what they make us allocate is bounded by
//! their length. What Meros cannot do is a [`Refused`] that names the field, unless a framework loses
//! nothing by it; those fields are listed in `docs/mesos.md`.

pub mod agent;
pub mod calls;
pub mod encoding;
pub mod events;
pub mod executor;
pub mod framework;
pub mod ids;
mod json;
pub mod machines;
pub mod operation;
pub mod recordio;
mod refused;
pub mod resources;
pub mod roles;
pub mod state;
pub mod task;
#[cfg(test)]
mod tests;
pub mod views;
pub mod watch;

pub use refused::Refused;

#[expect(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; what the messages mean is in the public protocol"
)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// The messages of the protocol: the common ones, and those of each API in a module of its name.
pub use messages::mesos::v1 as pb;
