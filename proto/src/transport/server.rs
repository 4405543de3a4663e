//! The listening side: one UDP port, every protocol, only peers that the cluster knows.
//!
//! Everything that a stranger can cause is bounded and counted: handshakes in flight, connections,
//! the time to say hello. Addresses are asked to prove themselves (a QUIC retry) once handshakes
//! queue up, so that forged addresses cannot occupy the places of honest peers.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{error::Elapsed, timeout},
};

use super::{
    CONNECT_TIMEOUT, CloseCode, Connection, Disconnect, Identity, PeerIdentity, Protocol, TlsError,
    connection::{canonical, count},
    opening::{self, OpeningError},
    sparing::Sparing,
    tls,
};

/// How much a [`Server`] takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once, those in handshake included. Default 60,000: 50,000 slaves and room for
    /// frameworks and tools. One costs about 20 KiB when idle. Beyond it newcomers are refused.
    pub connections_max: usize,
    /// Handshakes at once, including finished ones not yet taken by [`Server::accept`]. Default 256:
    /// at 2 to 4 ms of CPU each, half a second's worth. From half of it on, addresses must prove
    /// themselves; beyond it newcomers are refused and come back by their backoff.
    pub handshakes_max: usize,
    /// Time for opening the control stream, and for a handshake, which has no more than [`CONNECT_TIMEOUT`]: peers
    /// have given it up by then, and its place is for others. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 60_000,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The UDP port cannot be had; most often another process has it.
    #[error("failed to listen on UDP {address}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used.
    #[error("failed to set up TLS")]
    Tls(#[source] TlsError),
}

/// What became of the connections that peers asked for, since the start but for those that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections given to [`Server::accept`].
    pub accepted: u64,
    /// Refused at the limit of connections or of handshakes. A first flight is two packets, and each
    /// may be counted here and in `retried`.
    pub refused_busy: u64,
    /// Asked to prove their address first.
    pub retried: u64,
    /// Handshakes that failed: no certificate, a foreign one, no common protocol, too slow.
    pub failed_handshakes: u64,
    /// Closed because the certificate's role may not speak the protocol, or has no role.
    pub not_allowed: u64,
    /// Closed because no proper control stream was opened in time.
    pub failed_openings: u64,
    /// Peers that are connected now and wait until this master leads.
    pub waiting: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    refused_busy: AtomicU64,
    retried: AtomicU64,
    failed_handshakes: AtomicU64,
    not_allowed: AtomicU64,
    failed_openings: AtomicU64,
    waiting: AtomicU64,
}

/// A listening endpoint. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    accepted: mpsc::Receiver<Admitted>,
    counters: Arc<Counters>,
    gate: Arc<watch::Sender<Way>>,
    listener: JoinHandle<()>,
}

/// Whether peers that would rather wait than be turned away are let in. Open at first. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<Way>>);

/// What becomes of those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Wait,
    Out,
}

impl Gate {
    /// Lets those in that wait, and those that come.
    pub fn open(&self) {
        self.0.send_replace(Way::In);
    }

    /// Lets those that come wait.
    pub fn close(&self) {
        self.0.send_replace(Way::Wait);
    }

    /// Sends those away that wait, and those that come: the process is stopping.
    pub fn dismiss(&self) {
        self.0.send_replace(Way::Out);
    }
}

impl Server {
    /// Starts to listen. Port 0 picks a free one, see [`Server::local_addr`].
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        limits: ServerLimits,
    ) -> Result<Self, BindError> {
        let mut config = tls::server_config(identity).map_err(BindError::Tls)?;
        // A place for each handshake that may run and as many that wait to be looked at; a first
        // flight is two packets.
        config
            .max_incoming(limits.handshakes_max.max(1) * 2)
            .incoming_buffer_size(16 * 1024)
            .incoming_buffer_size_total(8 * 1024 * 1024);
        let endpoint = UdpSocket::bind(address)
            .and_then(|socket| tls::server_endpoint(socket, identity, config))
            .map_err(|source| BindError::Socket { address, source })?;
        // As many of those that waited and are not slaves have places of their own.
        let (sender, accepted) = mpsc::channel(limits.handshakes_max.max(1) * 2);
        let counters = Arc::new(Counters::default());
        let gate = Arc::new(watch::Sender::new(Way::In));
        let listener = Listener {
            endpoint: endpoint.clone(),
            limits,
            accepted: sender,
            counters: Arc::clone(&counters),
            gate: Arc::clone(&gate),
        };
        Ok(Self {
            endpoint,
            accepted,
            counters,
            gate,
            listener: tokio::spawn(listener.run()),
        })
    }

    /// Waits for the next peer that proved who it is and may speak its protocol.
    ///
    /// Must be called again soon: peers that wait here hold a place of `handshakes_max`. `None` once
    /// the server is closed. Cancelling it loses nothing.
    pub async fn accept(&mut self) -> Option<Connection> {
        let Admitted { connection, place } = self.accepted.recv().await?;
        drop(place);
        Some(connection)
    }

    /// What a master closes while it does not lead.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate(Arc::clone(&self.gate))
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system says, which it does not for a socket that is open.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Connections that are open now, those in handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// What became of the connections asked for.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStats {
            accepted: read(&self.counters.accepted),
            refused_busy: read(&self.counters.refused_busy),
            retried: read(&self.counters.retried),
            failed_handshakes: read(&self.counters.failed_handshakes),
            not_allowed: read(&self.counters.not_allowed),
            failed_openings: read(&self.counters.failed_openings),
            waiting: read(&self.counters.waiting),
        }
    }

    /// Stops listening, closes what is open, and waits up to `grace` for the peers to be told.
    ///
    /// Messages still queued are lost: close connections by their [`Sender`](super::Sender) before.
    /// The port is free again once the halves of its connections have been dropped as well.
    pub async fn close(self, grace: Duration) {
        self.endpoint
            .close(CloseCode::ShuttingDown.to_wire(), b"shutting down");
        // The time being over is an answer as good as any.
        let _ = timeout(grace, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.abort();
        self.endpoint
            .close(CloseCode::ShuttingDown.to_wire(), b"shutting down");
    }
}

/// A connection on its way to [`Server::accept`], and the place that it holds until then.
#[derive(Debug)]
struct Admitted {
    connection: Connection,
    place: OwnedSemaphorePermit,
}

/// Takes connection attempts from the endpoint and decides which become handshakes.
struct Listener {
    endpoint: quinn::Endpoint,
    limits: ServerLimits,
    accepted: mpsc::Sender<Admitted>,
    counters: Arc<Counters>,
    gate: Arc<watch::Sender<Way>>,
}

impl Listener {
    async fn run(self) {
        let places = Arc::new(Semaphore::new(self.limits.handshakes_max));
        let others = Arc::new(Semaphore::new(self.limits.handshakes_max));
        let lines = Arc::<Lines>::default();
        // Aborted with this task, so a dropped server leaves no handshake behind.
        let mut handshakes = JoinSet::new();
        while let Some(incoming) = self.endpoint.accept().await {
            while handshakes.try_join_next().is_some() {}
            if self.endpoint.open_connections() >= self.limits.connections_max {
                count(&self.counters.refused_busy, 1);
                incoming.refuse();
                continue;
            }
            let crowded = places.available_permits() * 2 <= self.limits.handshakes_max;
            if crowded && !incoming.remote_address_validated() {
                count(&self.counters.retried, 1);
                incoming
                    .retry()
                    .expect("an address not yet validated may be asked to retry");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                count(&self.counters.refused_busy, 1);
                incoming.refuse();
                continue;
            };
            let welcome = Welcome {
                accepted: self.accepted.clone(),
                counters: Arc::clone(&self.counters),
                time: self.limits.handshake_timeout,
                gate: self.gate.subscribe(),
                places: Arc::clone(&places),
                others: Arc::clone(&others),
                lines: Arc::clone(&lines),
            };
            handshakes.spawn(welcome.run(incoming, place));
        }
    }
}

/// One newcomer's way from first packet to an accepted connection.
struct Welcome {
    accepted: mpsc::Sender<Admitted>,
    counters: Arc<Counters>,
    time: Duration,
    gate: watch::Receiver<Way>,
    places: Arc<Semaphore>,
    /// For those that have waited and are no slaves: few, and what ten thousand slaves bring is worth nothing
    /// until a framework is there.
    others: Arc<Semaphore>,
    lines: Arc<Lines>,
}

/// What is said of newcomers that are not let in.
#[derive(Debug, Default)]
struct Lines {
    handshakes: Sparing,
    not_allowed: Sparing,
    openings: Sparing,
}

impl Welcome {
    async fn run(mut self, incoming: quinn::Incoming, mut place: OwnedSemaphorePermit) {
        let address = canonical(incoming.remote_address());
        let quic = match timeout(self.time.min(CONNECT_TIMEOUT), incoming).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => {
                count(&self.counters.failed_handshakes, 1);
                let error = Disconnect::from(error);
                if let Some(untold) = self.lines.handshakes.line(Instant::now()) {
                    tracing::info!(%address, %error, untold, "handshake failed");
                }
                return;
            }
            Err(_) => {
                count(&self.counters.failed_handshakes, 1);
                if let Some(untold) = self.lines.handshakes.line(Instant::now()) {
                    tracing::info!(%address, untold, "handshake timed out");
                }
                return;
            }
        };
        let (peer, protocol) = match admit(&quic) {
            Ok(admitted) => admitted,
            Err(reason) => {
                count(&self.counters.not_allowed, 1);
                if let Some(untold) = self.lines.not_allowed.line(Instant::now()) {
                    tracing::warn!(%address, reason, untold, "peer not allowed");
                }
                return quic.close(CloseCode::NotAllowed.to_wire(), reason.as_bytes());
            }
        };
        let heard = timeout(self.time, opening::hear(&quic)).await;
        let ((mut send, recv), waits) = match heard {
            Ok(Ok(heard)) => heard,
            failed => return self.not_opened(&quic, address, &peer, failed.map(drop_ok)),
        };
        let is_open = *self.gate.borrow() == Way::In;
        if waits && !is_open {
            // The place is for others meanwhile; the limit of connections still counts this one.
            drop(place);
            tracing::debug!(%address, %peer, "peer waits until this master leads");
            count(&self.counters.waiting, 1);
            let waited = tokio::select! {
                place = self.wait(protocol) => Some(place),
                _ = quic.closed() => None,
            };
            self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            place = match waited {
                None => return,
                Some(Some(place)) => place,
                Some(None) => {
                    let reason = b"shutting down";
                    return quic.close(CloseCode::ShuttingDown.to_wire(), reason);
                }
            };
        }
        let answered = timeout(self.time, opening::welcome(&quic, &mut send)).await;
        if !matches!(answered, Ok(Ok(()))) {
            return self.not_opened(&quic, address, &peer, answered.map(drop_ok));
        }
        count(&self.counters.accepted, 1);
        let connection = Connection {
            quic,
            send,
            recv,
            peer,
            protocol,
        };
        // Never waits, since there is as much room as there are places. Fails only when the server is
        // gone, and the connection then goes with it.
        let _ = self.accepted.send(Admitted { connection, place }).await;
    }

    /// Until the gate is open, and then for a place; none if it will not be.
    async fn wait(&mut self, protocol: Protocol) -> Option<OwnedSemaphorePermit> {
        let way = *self.gate.wait_for(|way| *way != Way::Wait).await.ok()?;
        if way == Way::Out {
            return None;
        }
        let places = match protocol {
            Protocol::Slave => &self.places,
            Protocol::Framework | Protocol::Raft | Protocol::Events => &self.others,
        };
        Arc::clone(places).acquire_owned().await.ok()
    }

    fn not_opened(
        &self,
        quic: &quinn::Connection,
        address: SocketAddr,
        peer: &PeerIdentity,
        failed: Result<Result<(), OpeningError>, Elapsed>,
    ) {
        count(&self.counters.failed_openings, 1);
        let (code, reason) = match failed {
            Ok(Err(error)) => (error.close_code(), error.to_string()),
            _ => (
                CloseCode::NoControlStream,
                "no control stream in time".to_owned(),
            ),
        };
        if let Some(untold) = self.lines.openings.line(Instant::now()) {
            tracing::info!(%address, %peer, reason, untold, "control stream not opened");
        }
        quic.close(code.to_wire(), reason.as_bytes());
    }
}

fn drop_ok<T>(result: Result<T, OpeningError>) -> Result<(), OpeningError> {
    result.map(drop)
}

/// Who the peer is and what it wants, if it may.
fn admit(quic: &quinn::Connection) -> Result<(PeerIdentity, Protocol), String> {
    let protocol = quic
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| Protocol::from_alpn(&data.protocol?))
        .ok_or("no protocol was agreed on")?;
    let peer = peer_identity(quic)?;
    if !protocol.allows(peer.role()) {
        return Err(format!(
            "a {} certificate may not speak {protocol}",
            peer.role()
        ));
    }
    Ok((peer, protocol))
}

/// The peer's role and name, from the certificate that TLS verified.
pub(super) fn peer_identity(quic: &quinn::Connection) -> Result<PeerIdentity, String> {
    let chain = quic
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("no certificate was presented")?;
    let leaf = chain.first().ok_or("no certificate was presented")?;
    PeerIdentity::from_certificate(leaf).map_err(|error| error.to_string())
}
