//! HTTP/1.1 with bounds: connections, the time of each stage of a connection, requests at work,
//! their bodies, and the memory of answers.
//!
//! A connection is always in one stage, and each stage ends by itself:
//!
//! ```text
//! accepted -> Head -> Work -> Answer | Stream -> Idle -> Head …
//! ```
//!
//! A head has its time from its first byte (the first one: from the connection) to its last, however
//! busily bytes arrive; a request has its time, body included; an answer has its time, however
//! slowly it is read; one without an end ([`Endless`]) goes on until its reader stands still. When all places are taken the connection that idles longest makes room for a
//! new one, and after it the oldest unfinished head. Errors are JSON, `{"code": …, "message": …}`,
//! also those that the parser of requests finds.

mod error;
mod server;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod track;

pub use error::ApiError;
pub use server::{Endless, Limits, serve};
pub use stats::{Cut, HttpStats};
