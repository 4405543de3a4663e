//! The dialing side.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    CloseCode, Connection, Disconnect, Identity, MASTER_SERVER_NAME, PeerIdentity, PeerRole,
    Protocol, TlsError,
    opening::{self, OpeningError},
    server::peer_identity,
    tls,
};
use crate::codec::DecodeError;

/// How long one attempt to connect may take: 3 s. A live master answers in milliseconds; of several
/// masters the next one should be tried soon.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Handshakes of one client and its clones with one address at a time; others wait, and their time begins after
/// that. Who shares a client among thousands would have all of them begin at once, on a processor that
/// finishes none of them in time, and so again for ever.
const HANDSHAKES_MAX: usize = 16;

/// Dials masters with one identity, from one UDP port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: quinn::Endpoint,
    /// In the order of [`Protocol::ALL`].
    configs: [quinn::ClientConfig; Protocol::ALL.len()],
    places: Arc<Places>,
}

/// Of handshakes, by address; only of those that are dialled now. An address has its own, since one that is dead holds
/// each of them for [`CONNECT_TIMEOUT`].
#[derive(Debug, Default)]
struct Places(Mutex<BTreeMap<SocketAddr, Arc<Semaphore>>>);

impl Places {
    async fn take(&self, address: SocketAddr) -> OwnedSemaphorePermit {
        let places = {
            // A panic elsewhere leaves it as good as it was.
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds and nobody waits for.
            all.retain(|_, places| Arc::strong_count(places) > 1);
            let places = all.entry(address);
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(HANDSHAKES_MAX))))
        };
        let place = places.acquire_owned().await;
        place.expect("it is never closed")
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No UDP port can be had.
    #[error("failed to open a UDP port")]
    Socket(#[source] io::Error),
    /// The identity cannot be used.
    #[error("failed to set up TLS")]
    Tls(#[source] TlsError),
}

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name could not be resolved, or the address has no port.
    #[error("failed to resolve {host:?}")]
    Resolve {
        /// The `host:port` as given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No packet can be sent to that address.
    #[error("cannot dial {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        source: quinn::ConnectError,
    },
    /// Nobody answered within [`CONNECT_TIMEOUT`].
    #[error("no answer from {address}")]
    NoAnswer {
        /// The address.
        address: SocketAddr,
    },
    /// The peer answered, and the connection ended before it was usable.
    #[error("connection to {address} failed")]
    Ended {
        /// The address.
        address: SocketAddr,
        /// How it ended.
        source: Disconnect,
    },
    /// The peer speaks another version of the wire format.
    #[error("{address} does not speak our format")]
    Opening {
        /// The address.
        address: SocketAddr,
        /// What it sent.
        source: DecodeError,
    },
    /// The peer is trusted, but is no master.
    #[error("{address} is not a master: {detail}")]
    NotAMaster {
        /// The address.
        address: SocketAddr,
        /// What it is.
        detail: String,
    },
}

impl ConnectError {
    /// Whether trying again may help without anyone changing certificates, permissions or releases.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::NoAnswer { .. } => true,
            Self::Ended { source, .. } => source.is_retryable(),
            Self::Address { .. } | Self::Opening { .. } | Self::NotAMaster { .. } => false,
        }
    }
}

impl Client {
    /// A client with this identity. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(identity: &Identity) -> Result<Self, ClientError> {
        let config = |protocol| tls::client_config(identity, protocol).map_err(ClientError::Tls);
        let [slave, framework, raft, events] = Protocol::ALL.map(config);
        let configs = [slave?, framework?, raft?, events?];
        // An IPv6 socket dials IPv4 too; hosts without IPv6 have the other.
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .map_err(ClientError::Socket)?;
        let endpoint = tls::client_endpoint(socket).map_err(ClientError::Socket)?;
        Ok(Self {
            endpoint,
            configs,
            places: Arc::default(),
        })
    }

    /// Connects to a master: when this returns, both sides know each other and agree on protocol and
    /// version. Takes at most [`CONNECT_TIMEOUT`] from when it is one of the 16 attempts that a client makes at an address
    /// at a time. Cancelling it gives the attempt up.
    ///
    /// # Errors
    /// [`ConnectError`], never `Resolve`.
    pub async fn connect(
        &self,
        protocol: Protocol,
        address: SocketAddr,
    ) -> Result<Connection, ConnectError> {
        let _place = self.places.take(address).await;
        let attempt = async {
            let known = self.shake_hands(protocol, address).await?;
            known.open(protocol, false).await
        };
        timeout(CONNECT_TIMEOUT, attempt)
            .await
            .unwrap_or(Err(ConnectError::NoAnswer { address }))
    }

    /// The first half of [`Client::connect`], which takes as long. The other is
    /// [`Known::open`].
    ///
    /// # Errors
    /// [`ConnectError`], never `Resolve`.
    pub(super) async fn meet(
        &self,
        protocol: Protocol,
        address: SocketAddr,
    ) -> Result<Known, ConnectError> {
        let _place = self.places.take(address).await;
        let known = timeout(CONNECT_TIMEOUT, self.shake_hands(protocol, address));
        let known = known.await;
        known.unwrap_or(Err(ConnectError::NoAnswer { address }))
    }

    /// Closes all connections of this client and its clones, and waits up to `grace` for the peers to
    /// be told.
    pub async fn close(&self, grace: Duration) {
        self.endpoint.close(CloseCode::Done.to_wire(), b"");
        // The time being over is an answer as good as any.
        let _ = timeout(grace, self.endpoint.wait_idle()).await;
    }

    async fn shake_hands(
        &self,
        protocol: Protocol,
        address: SocketAddr,
    ) -> Result<Known, ConnectError> {
        let config = self.configs[protocol.index()].clone();
        let quic = self
            .endpoint
            .connect_with(config, address, MASTER_SERVER_NAME)
            .map_err(|source| ConnectError::Address { address, source })?
            .await
            .map_err(|error| ended(address, error.into()))?;
        let refuse = |detail: String| {
            quic.close(CloseCode::NotAllowed.to_wire(), b"not a master");
            ConnectError::NotAMaster { address, detail }
        };
        let peer = peer_identity(&quic).map_err(refuse)?;
        if peer.role() != PeerRole::Master {
            return Err(refuse(format!("its certificate is for {peer}")));
        }
        Ok(Known {
            quic,
            peer,
            address,
        })
    }
}

/// A master that has proved who it is.
pub(super) struct Known {
    pub(super) quic: quinn::Connection,
    pub(super) peer: PeerIdentity,
    address: SocketAddr,
}

impl Known {
    /// Whether to wait until it leads, which may take for ever; one that does not lead answers then only.
    pub(super) async fn open(
        self,
        protocol: Protocol,
        waits: bool,
    ) -> Result<Connection, ConnectError> {
        let Self {
            quic,
            peer,
            address,
        } = self;
        let opened = opening::begin(&quic, waits).await;
        let (send, recv) = opened.map_err(|error| match error {
            OpeningError::Closed(source) => ended(address, source),
            OpeningError::Opening(source) => {
                quic.close(CloseCode::BadFrame.to_wire(), source.code().as_bytes());
                ConnectError::Opening { address, source }
            }
        })?;
        Ok(Connection {
            quic,
            send,
            recv,
            peer,
            protocol,
        })
    }
}

fn ended(address: SocketAddr, source: Disconnect) -> ConnectError {
    match source {
        // Silence up to here is nobody there, not a peer that fell silent.
        Disconnect::TimedOut => ConnectError::NoAnswer { address },
        source => ConnectError::Ended { address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_nobody_answers_at_holds_up_no_other_and_is_forgotten() {
        let places = Places::default();
        let [dead, live] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut held = Vec::new();
        for _ in 0..HANDSHAKES_MAX {
            held.push(places.take(dead).await);
        }
        {
            let mut next = std::pin::pin!(places.take(dead));
            let soon = timeout(Duration::from_millis(20), &mut next).await;
            assert!(soon.is_err(), "all places are taken");
            drop(places.take(live).await);
            held.pop();
            drop(next.await);
        }
        held.clear();
        drop(places.take(live).await);
        let known = places.0.lock().unwrap();
        assert!(known.keys().eq([&live]), "{known:?}");
    }
}
