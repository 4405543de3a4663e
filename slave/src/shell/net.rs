//! The way to the leading master: dial, hand over what arrives, dial again.
//!
//! One connection at a time. A master that is not the leader says who is; that address is tried
//! first, once, so that two masters who send us to each other do not make us spin.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meros_proto::message::slave::MasterToSlave;
use meros_proto::transport::{
    Client, Connection, Dialer, FailedAttempt, Protocol, RecvError, STABLE_AFTER,
};
use meros_slave_core::{ConnectionId, Event};
use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::inbox::{CoreGone, Inbox, Input};

/// Messages that may wait to be written: a registration after a long partition reports 100,000 tasks
/// in some 400 messages, and updates come 256 at a time.
const SEND_QUEUE: usize = 4_096;
/// Messages handed to the core in one go.
const BATCH_MAX: usize = 256;
/// Failed attempts in a row that are each worth a line in the log; of more, each hundredth.
const ATTEMPTS_LOGGED: u32 = 3;

/// Where the leader is said to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaderHint(Arc<Mutex<Option<String>>>);

impl LeaderHint {
    pub(super) fn set(&self, leader: String) {
        *self.0.lock() = Some(leader);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().take()
    }
}

/// What is counted of connections.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    connections: AtomicU64,
    attempts_failed: AtomicU64,
    bad_frames: AtomicU64,
}

impl LinkCounters {
    /// Connections that stood.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Attempts to connect that failed.
    pub(crate) fn attempts_failed(&self) -> u64 {
        self.attempts_failed.load(Ordering::Relaxed)
    }

    /// Connections ended by bytes that were no message.
    pub(crate) fn bad_frames(&self) -> u64 {
        self.bad_frames.load(Ordering::Relaxed)
    }
}

/// The task that keeps a connection to the leading master.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) masters: Vec<String>,
    pub(crate) hint: LeaderHint,
    pub(crate) inbox: Inbox,
    pub(crate) counters: Arc<LinkCounters>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Link {
    /// Until stopped, or the core is gone.
    pub(crate) async fn run(mut self) {
        let mut dialer = Dialer::new(self.client.clone(), Protocol::Slave, self.masters.clone());
        let mut number = 0;
        let mut may_follow_hint = true;
        loop {
            let hinted = match self.hint.take().filter(|_| may_follow_hint) {
                Some(leader) => self.try_leader(&leader).await,
                None => None,
            };
            may_follow_hint = hinted.is_none();
            let connection = match hinted {
                Some(connection) => Some(connection),
                None => self.dial(&mut dialer).await,
            };
            let Some(connection) = connection else { return };
            number += 1;
            let began = Instant::now();
            if self.serve(ConnectionId(number), connection).await.is_err() {
                return;
            }
            may_follow_hint |= began.elapsed() >= STABLE_AFTER;
        }
    }

    async fn dial(&mut self, dialer: &mut Dialer) -> Option<Connection> {
        let counters = Arc::clone(&self.counters);
        let report = |failed: &FailedAttempt<'_>| {
            counters.attempts_failed.fetch_add(1, Ordering::Relaxed);
            log_failure(failed);
            ControlFlow::Continue(())
        };
        let mut stop = self.stop.clone();
        // Its sender gone means that the slave is going, too.
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        dialer.dial(stopped, report).await
    }

    /// One attempt, in silence: the dialer tries everything that is configured.
    async fn try_leader(&self, leader: &str) -> Option<Connection> {
        let address = lookup_host(leader).await.ok()?.next()?;
        debug!(leader, "trying the leader");
        self.client.connect(Protocol::Slave, address).await.ok()
    }

    async fn serve(&self, id: ConnectionId, connection: Connection) -> Result<(), CoreGone> {
        info!(connection = id.0, master = %connection.remote_address(), "connected");
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, mut receiver) = connection.split(SEND_QUEUE);
        self.inbox.send(Input::Connected(id, sender)).await?;
        let mut batch: Vec<MasterToSlave> = Vec::new();
        let error = loop {
            match receiver.recv_batch(&mut batch, BATCH_MAX).await {
                Ok(()) => {}
                Err(error) => break error,
            }
            for message in batch.drain(..) {
                let event = Event::Master {
                    connection: id,
                    message,
                };
                self.inbox.send(Input::Event(event)).await?;
            }
        };
        match &error {
            RecvError::BadFrame(why) => {
                self.counters.bad_frames.fetch_add(1, Ordering::Relaxed);
                warn!(connection = id.0, code = why.code(), error = %why, "master sent a bad frame");
            }
            RecvError::Closed(why) => info!(connection = id.0, %why, "disconnected"),
        }
        self.inbox
            .send(Input::Event(Event::Disconnected { connection: id }))
            .await
    }
}

fn log_failure(failed: &FailedAttempt<'_>) {
    let FailedAttempt {
        number,
        host,
        error,
        retry_in,
    } = failed;
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    if !error.is_retryable() && *number <= ATTEMPTS_LOGGED {
        tracing::error!(
            master = host,
            error = why,
            "this master does not take us, or is none"
        );
    } else if *number <= ATTEMPTS_LOGGED || number % 100 == 0 {
        warn!(
            master = host,
            attempt = number,
            error = why,
            ?retry_in,
            "cannot connect to master"
        );
    }
}
