//! The wire between masters, slaves, frameworks and tools: QUIC with mutual TLS.
//!
//! One UDP port of a master serves every [`Protocol`]; ALPN names it in the handshake. Peers prove
//! who they are by certificates of the cluster's own CA ([`ClusterCa`], [`Identity`]), which carry a
//! [`PeerRole`] and a name. A connection is one long, ordered stream of messages in each direction
//! ([`Connection::split`] into [`Sender`] and [`Receiver`]), written in batches.
//!
//! A master runs a [`Server`]; everyone else has a [`Client`] and, for each connection to keep, a
//! [`Dialer`], or [`Masters`] for connections to several of which one leads.
//!
//! Beside it there is a tunnel from an operator to a slave, TLS inside of a stream of bytes
//! ([`TunnelAcceptor`], [`tunnel_to_slave`]).
//!
//! Everything has a bound: the send queue (full is an error that gives the message back), the frame,
//! bytes in flight, connections, handshakes, every wait. What a peer does wrong ends its own
//! connection with a [`CloseCode`] and a reason, and nobody else's.
//!
//! Absent: what messages mean, who leads, when a silent peer is declared lost.

mod alpn;
mod backoff;
mod ca;
mod client;
mod close;
mod connection;
mod dialer;
mod files;
mod identity;
mod masters;
mod opening;
mod receiver;
mod sender;
mod server;
mod sparing;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;

pub use alpn::Protocol;
pub use backoff::{BACKOFF_BASE, BACKOFF_CAP, Backoff};
pub use ca::{CA_VALIDITY, CERT_VALIDITY, CLOCK_SKEW_MAX, ClusterCa, IssueError};
pub use client::{CONNECT_TIMEOUT, Client, ClientError, ConnectError};
pub use close::{CloseCode, Disconnect};
pub use connection::{Anchor, Connection, ConnectionStats, QueueBound};
pub use dialer::{Dialer, FailedAttempt, STABLE_AFTER};
pub use files::{LoadError, SaveError};
pub use identity::{
    Identity, MASTER_SERVER_NAME, PEER_NAME_CHARS_MAX, PeerIdentity, PeerIdentityError, PeerRole,
    UnknownRole,
};
pub use masters::{MasterNews, Masters};
pub use receiver::{Receiver, RecvError};
pub use sender::{FLUSH_TIMEOUT, SendError, Sender, TrySendError};
pub use server::{BindError, Gate, Server, ServerLimits, ServerStats};
pub use tls::{IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, TlsError};
pub use tunnel::{TunnelAcceptor, tunnel_to_slave};
