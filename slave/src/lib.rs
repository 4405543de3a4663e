//! The slave: containers, checkpoint, network and HTTP around SlaveCore.
//!
//! [`start`] takes a checked [`config::Config`] and returns a [`Running`] slave. It runs on the
//! current tokio runtime plus three threads: the core, the checkpoint, the launcher of containers.
//!
//! Tasks run under shims and outlive the slave, however it ends; the next start takes them up and
//! reports those that ended meanwhile (semantics L2). Those of frameworks without `checkpoint`, or all
//! if it is configured so, end with the slave: with grace if it is stopped (semantics L1).

pub mod checkpoint;
pub mod config;
pub mod container;
pub mod detect;
mod endpoint;
mod exec;
mod executor;
mod exit;
mod fetch;
mod files;
mod http;
mod image;
mod metrics;
mod output;
mod plan;
mod probe;
mod sandbox;
mod shell;
mod start;
mod usage;
mod volumes;

use std::net::SocketAddr;
use std::time::Duration;

use meros_slave_core::Event;
use tokio::sync::watch;

pub use exit::ExitReason;
pub use fetch::OpenFetcherError;
pub use start::{StartError, start};

use shell::inbox::{Inbox, Input};

/// A slave at work. Dropping it does not stop it; the end of the runtime does, without grace.
#[derive(Debug)]
pub struct Running {
    http_addr: SocketAddr,
    inbox: Inbox,
    stop_grace: Duration,
    ended: watch::Receiver<Option<ExitReason>>,
}

impl Running {
    fn new(
        http_addr: SocketAddr,
        inbox: Inbox,
        stop_grace: Duration,
        ended: watch::Receiver<Option<ExitReason>>,
    ) -> Self {
        Self {
            http_addr,
            inbox,
            stop_grace,
            ended,
        }
    }

    /// Where HTTP listens.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Waits until it has ended, by itself or because it was asked to. May be called again.
    pub async fn wait(&self) -> ExitReason {
        let mut ended = self.ended.clone();
        let reason = match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            // The task that says why is gone with the runtime.
            Err(_) => None,
        };
        reason.unwrap_or(ExitReason::Stopped)
    }

    /// Stops it: tasks run on, those that end with the slave are killed with the configured grace, the
    /// id is kept, and what is left to report is reported at the next start.
    pub async fn shutdown(&self) -> ExitReason {
        self.end(Event::Stop {
            grace: self.stop_grace,
        })
        .await
    }

    /// Stops it for good: tasks are killed, the last updates delivered where possible, and the slave
    /// unregisters (semantics K8). The next start in this data directory is a new slave.
    pub async fn leave(&self) -> ExitReason {
        self.end(Event::Leave {
            grace: self.stop_grace,
        })
        .await
    }

    async fn end(&self, event: Event) -> ExitReason {
        // If the core is gone the reason is on its way.
        let _ = self.inbox.send(Input::Event(event)).await;
        self.wait().await
    }
}
