//! Peers: one task per connection, from its handshake to its end.
//!
//! A task registers the connection with the core, hands over what it reads, and reports the end; in
//! that order, always all three. Who may speak which protocol the transport has checked already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meros_master_core::event::{ConnectionId, Event};
use meros_proto::transport::{
    Connection, Disconnect, FLUSH_TIMEOUT, Protocol, Receiver, RecvError, Server,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::inbox::{CoreGone, Inbox, Input};
use super::link::{FRAMEWORK_BOUND, FrameworkLink};
use super::outbox::SLAVE_QUEUE;
use crate::events;
use crate::metrics::Metrics;
use crate::projection::Projection;
use crate::registry::Replica;

/// Messages handed to the core at once: the share of one peer while others wait.
const BATCH_MAX: usize = 256;

/// How often the transport's own counters are read while there is nothing to accept. They are for
/// people who look every few seconds.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// How often to look whether the peers have gone, once the master stops.
const GONE_INTERVAL: Duration = Duration::from_millis(10);

/// Accepts peers until `stop` changes, then waits until those that are connected have heard their
/// last messages.
pub(crate) async fn serve(
    mut server: Server,
    inbox: Inbox,
    replica: Arc<Replica>,
    projection: Projection,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let gate = server.gate();
    let peers = Arc::new(Peers {
        inbox,
        replica,
        projection,
        metrics,
        stop: stop.clone(),
    });
    let mut tasks = JoinSet::new();
    let mut stats = tokio::time::interval(STATS_INTERVAL);
    loop {
        tokio::select! {
            biased;
            // An error means that whoever would stop us is gone, which is the same.
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = server.accept() => match accepted {
                Some(connection) => drop(tasks.spawn(Arc::clone(&peers).serve_peer(connection))),
                None => break,
            },
            _ = stats.tick() => {}
        }
        while tasks.try_join_next().is_some() {}
        peers.metrics.transport(server.stats());
    }
    gate.dismiss();
    // The core closes each connection after its last message; closing the server at once would
    // lose those on their way.
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    while server.connections() > 0 && Instant::now() < deadline {
        tokio::time::sleep(GONE_INTERVAL).await;
    }
    server.close(FLUSH_TIMEOUT).await;
    // Closed, so there is nothing left that a task could wait for.
    while tasks.join_next().await.is_some() {}
}

struct Peers {
    inbox: Inbox,
    replica: Arc<Replica>,
    projection: Projection,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
}

impl Peers {
    async fn serve_peer(self: Arc<Self>, connection: Connection) {
        let id = self.inbox.connection();
        let address = connection.remote_address();
        let principal = connection.peer().to_string();
        debug!(connection = id.0, %principal, %address, protocol = %connection.protocol(), "peer connected");
        let name = connection.peer().name().to_owned();
        let served = match connection.protocol() {
            Protocol::Slave => {
                let (sender, receiver) = connection.split(SLAVE_QUEUE);
                let hello = Input::SlaveConnected(id, name, sender);
                self.forward("slave", id, hello, receiver, |connection, message| {
                    Event::Slave {
                        connection,
                        message,
                    }
                })
                .await
            }
            Protocol::Framework => {
                let (sender, receiver) = connection.split_bounded(FRAMEWORK_BOUND);
                let hello = Input::FrameworkConnected(id, name, FrameworkLink::Native(sender));
                self.forward("framework", id, hello, receiver, |connection, message| {
                    Event::Framework {
                        connection,
                        message,
                    }
                })
                .await
            }
            Protocol::Raft => {
                let serving = self.replica.serve(connection);
                self.serve_master("master", serving).await;
                Ok(())
            }
            Protocol::Events => {
                let (projection, metrics) = (self.projection.clone(), Arc::clone(&self.metrics));
                let serving = events::serve(projection, metrics, connection);
                self.serve_master("follower", serving).await;
                Ok(())
            }
        };
        if served.is_err() {
            debug!(connection = id.0, "master is stopping");
        }
    }

    async fn serve_master(&self, peer: &'static str, serving: impl Future<Output = ()>) {
        self.metrics.connected(peer);
        let mut stop = self.stop.clone();
        tokio::select! {
            () = serving => {}
            // Its sender gone means that the master is going, too.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.metrics.disconnected(peer, "by_peer");
    }

    async fn forward<In: DeserializeOwned>(
        &self,
        peer: &'static str,
        id: ConnectionId,
        hello: Input,
        mut receiver: Receiver<In>,
        event: fn(ConnectionId, In) -> Event,
    ) -> Result<(), CoreGone> {
        self.inbox.send([hello], 0).await?;
        self.metrics.connected(peer);
        let ended = self.pump(peer, id, &mut receiver, event).await;
        let code = ended.as_ref().map_or("stopping", end_code);
        self.metrics.disconnected(peer, code);
        let error = ended?;
        match &error {
            RecvError::BadFrame(why) => {
                warn!(connection = id.0, peer, code = why.code(), error = %why, "peer sent a bad frame");
            }
            RecvError::Closed(why) => debug!(connection = id.0, peer, %why, "peer disconnected"),
        }
        self.inbox
            .send(
                [Input::Event(Box::new(Event::Disconnected {
                    connection: id,
                }))],
                0,
            )
            .await
    }

    async fn pump<In: DeserializeOwned>(
        &self,
        peer: &'static str,
        id: ConnectionId,
        receiver: &mut Receiver<In>,
        event: fn(ConnectionId, In) -> Event,
    ) -> Result<RecvError, CoreGone> {
        let mut batch = Vec::new();
        let mut seen = 0;
        loop {
            if let Err(error) = receiver.recv_batch(&mut batch, BATCH_MAX).await {
                return Ok(error);
            }
            let bytes = receiver.stats().bytes_received;
            self.metrics.received(peer, batch.len());
            let inputs = batch
                .drain(..)
                .map(|message| Input::Event(Box::new(event(id, message))));
            self.inbox.send(inputs, bytes - seen).await?;
            seen = bytes;
        }
    }
}

/// Why a connection ended, as a label of few values.
fn end_code(error: &RecvError) -> &'static str {
    match error {
        RecvError::BadFrame(_) => "bad_frame",
        RecvError::Closed(Disconnect::ByPeer { .. }) => "by_peer",
        RecvError::Closed(Disconnect::ByUs) => "by_us",
        RecvError::Closed(Disconnect::TimedOut) => "timed_out",
        RecvError::Closed(Disconnect::Reset) => "reset",
        RecvError::Closed(_) => "failed",
    }
}
