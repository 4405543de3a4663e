//! The way to the leading master: dial, hand over what arrives, dial again.
//!
//! One that knows several masters keeps a connection to each, of which the one to the leader is used: a
//! new leader is heard of at once. The leader tells which masters there are. Until then, one that was given
//! a single master has one connection at a time; if that master is not the leader it says who is, and that
//! address is tried first, once, so that two masters who send us to each other do not make us spin.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_proto::message::is_list_of_masters;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::transport::{
    Anchor, Client, CloseCode, Connection, Dialer, FailedAttempt, MasterNews, Masters, Protocol,
    RecvError, STABLE_AFTER,
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
        let mut masters = (self.masters.len() > 1)
            .then(|| Masters::new(&self.client, Protocol::Slave, &self.masters));
        let mut dialer = Dialer::new(self.client.clone(), Protocol::Slave, self.masters.clone());
        let mut stop = self.stop.clone();
        let mut number = 0;
        let mut may_follow_hint = true;
        let mut next = None;
        loop {
            let connection = match (next.take(), &mut masters) {
                (Some(connection), _) => Some(connection),
                (None, Some(masters)) => tokio::select! {
                    biased;
                    // Its sender gone means that the slave is going, too.
                    _ = stop.wait_for(|stop| *stop) => None,
                    connection = self.leader(masters) => Some(connection),
                },
                (None, None) => self.follow_hint(&mut dialer, &mut may_follow_hint).await,
            };
            let Some(connection) = connection else { return };
            number += 1;
            let began = Instant::now();
            let served = self.serve(ConnectionId(number), connection, &mut masters);
            match served.await {
                Ok(other) => next = other,
                Err(CoreGone) => return,
            }
            may_follow_hint |= began.elapsed() >= STABLE_AFTER;
        }
    }

    /// Waits until a master leads.
    async fn leader(&self, masters: &mut Masters) -> Connection {
        loop {
            match masters.next().await {
                MasterNews::Leads(connection) => return connection,
                MasterNews::Failed {
                    host,
                    number,
                    error,
                } => {
                    self.counters
                        .attempts_failed
                        .fetch_add(1, Ordering::Relaxed);
                    log_failure(&FailedAttempt {
                        number,
                        host: &host,
                        error: &error,
                        retry_in: Duration::ZERO,
                    });
                }
            }
        }
    }

    /// The leader, as far as the only master that is known can say.
    async fn follow_hint(
        &mut self,
        dialer: &mut Dialer,
        may_follow_hint: &mut bool,
    ) -> Option<Connection> {
        let hinted = match self.hint.take().filter(|_| *may_follow_hint) {
            Some(leader) => self.try_leader(&leader).await,
            None => None,
        };
        *may_follow_hint = hinted.is_none();
        match hinted {
            Some(connection) => Some(connection),
            None => self.dial(dialer).await,
        }
    }

    /// The masters are these, says the one at the other end. With more than one, each has a connection.
    fn learn(&self, masters: &mut Option<Masters>, told: &[String], anchor: &Anchor) {
        if !is_list_of_masters(told) {
            return warn!(masters = ?told, "this is no list of masters, ignored");
        }
        if masters.is_none() && told.len() == 1 {
            return;
        }
        info!(masters = told.join(","), "the masters of the cluster");
        let masters = masters.get_or_insert_with(|| {
            let given = &self.masters;
            Masters::holding(&self.client, Protocol::Slave, given, anchor.clone())
        });
        masters.learn(told);
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

    /// Waits until another master leads; for ever while no others are known. Cancelling it loses nothing.
    async fn other_leader(&self, masters: &mut Option<Masters>) -> Connection {
        match masters {
            Some(masters) => self.leader(masters).await,
            None => std::future::pending().await,
        }
    }

    /// To the end of the connection, or until another master leads.
    async fn serve(
        &self,
        id: ConnectionId,
        connection: Connection,
        masters: &mut Option<Masters>,
    ) -> Result<Option<Connection>, CoreGone> {
        info!(connection = id.0, master = %connection.remote_address(), "connected");
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let anchor = connection.anchor();
        let (sender, mut receiver) = connection.split(SEND_QUEUE);
        let connected = Input::Connected(id, sender.clone());
        self.inbox.send(connected).await?;
        let mut batch: Vec<MasterToSlave> = Vec::new();
        let error = loop {
            let received = tokio::select! {
                biased;
                received = receiver.recv_batch(&mut batch, BATCH_MAX) => received,
                other = self.other_leader(masters) => {
                    info!(connection = id.0, "another master leads");
                    sender.close(CloseCode::Done, "another master leads");
                    let ended = Event::Disconnected { connection: id };
                    self.inbox.send(Input::Event(ended)).await?;
                    return Ok(Some(other));
                }
            };
            if let Err(error) = received {
                break error;
            }
            for message in batch.drain(..) {
                if let MasterToSlave::Masters { addresses } = &message {
                    self.learn(masters, addresses, &anchor);
                }
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
        let ended = Event::Disconnected { connection: id };
        self.inbox.send(Input::Event(ended)).await?;
        Ok(None)
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
