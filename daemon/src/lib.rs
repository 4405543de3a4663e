//! What both daemons need and is about no scheduling: an HTTP server with bounds, metrics of
//! the process, how much it logs, the clock, the lock of a data directory.
//!
//! Nothing here knows what a slave, an offer or a task is; of `meros-proto` it takes time and
//! refusals. What only one daemon needs stays there. Why there is such a crate:
//! `docs/decisions/0006-daemon.md`.

pub mod clock;
pub mod http;
pub mod lock;
pub mod metrics;
pub mod verbosity;
