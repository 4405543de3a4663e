//! One connection to an identified peer: a single ordered stream of messages in each direction.
//!
//! One long stream with batched frames carries 0.6 to 1 million small messages a second; a stream for
//! each message a thirtieth of that. It also keeps the order that the protocol promises
//! (semantics: A8).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::{CloseCode, Disconnect, PeerIdentity, Protocol, Receiver, Sender, sender};

/// An open connection whose peer has been identified and may speak its protocol.
///
/// Closed when dropped. [`Connection::split`] it to exchange messages.
#[derive(Debug)]
pub struct Connection {
    pub(super) quic: quinn::Connection,
    pub(super) send: quinn::SendStream,
    pub(super) recv: quinn::RecvStream,
    pub(super) peer: PeerIdentity,
    pub(super) protocol: Protocol,
}

impl Connection {
    /// Who the peer is, by its certificate.
    #[must_use]
    pub const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// What the connection is for.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where the peer is now. May change when its network does.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// Which master it leads to, for [`Masters::hold`](super::Masters::hold).
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor {
            name: self.peer.name().to_owned(),
            quic: self.quic.clone(),
        }
    }

    /// Closes without having said anything.
    pub fn close(self, code: CloseCode, reason: &str) {
        self.quic.close(code.to_wire(), reason.as_bytes());
    }

    /// Starts the exchange of messages: `Out` from here, `In` from the peer.
    ///
    /// `queue_capacity` is how many messages may wait to be written, at least 1. When it is full,
    /// [`Sender::try_send`] gives the message back, and the owner decides: a master disconnects a peer
    /// that does not read ([`CloseCode::SlowReader`]), a client waits.
    ///
    /// Must be called inside a tokio runtime, which then runs the writing task.
    #[must_use]
    pub fn split<Out, In>(self, queue_capacity: usize) -> (Sender<Out>, Receiver<In>)
    where
        Out: Serialize + Send + 'static,
        In: DeserializeOwned,
    {
        self.split_bounded(QueueBound {
            messages: queue_capacity,
            bytes: usize::MAX,
            weigh: |_| 0,
        })
    }

    /// As [`Connection::split`], for messages of very different sizes: their memory is bounded, too.
    #[must_use]
    pub fn split_bounded<Out, In>(self, bound: QueueBound<Out>) -> (Sender<Out>, Receiver<In>)
    where
        Out: Serialize + Send + 'static,
        In: DeserializeOwned,
    {
        let link = Arc::new(Link {
            quic: self.quic,
            counters: Counters::default(),
            closing: watch::Sender::new(None),
        });
        let sender = sender::start(Arc::clone(&link), self.send, bound);
        (sender, Receiver::new(link, self.recv))
    }
}

/// That there is a connection to a master, for as long as it lasts. Does not keep it open.
#[derive(Debug, Clone)]
pub struct Anchor {
    pub(super) name: String,
    pub(super) quic: quinn::Connection,
}

/// What may wait to be written to a connection.
#[derive(Debug, Clone, Copy)]
pub struct QueueBound<Out> {
    /// Messages, at least 1.
    pub messages: usize,
    /// Bytes, as `weigh` counts them. For [`Sender::try_send`] only; an empty queue takes one
    /// message of any weight, or it could never be sent.
    pub bytes: usize,
    /// How many bytes of memory a message takes. Asked for each, so it should be cheap and may be
    /// rough.
    pub weigh: fn(&Out) -> usize,
}

/// What the two halves of a connection share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) quic: quinn::Connection,
    pub(super) counters: Counters,
    /// Set once, by the first who wants to close.
    pub(super) closing: watch::Sender<Option<(CloseCode, String)>>,
}

impl Link {
    /// Waits until someone wants to close.
    pub(super) async fn asked_to_close(&self) {
        // Fails only when the channel is gone, which it cannot be while `self` is borrowed.
        drop(self.closing.subscribe().wait_for(Option::is_some).await);
    }

    /// How the connection ended, if it has.
    pub(super) fn disconnect(&self) -> Option<Disconnect> {
        self.quic.close_reason().map(Disconnect::from)
    }
}

/// What went over a connection since it was split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Messages written to the stream.
    pub frames_sent: u64,
    /// Bytes written to the stream, lengths and versions included.
    pub bytes_sent: u64,
    /// Messages received.
    pub frames_received: u64,
    /// Bytes read from the stream.
    pub bytes_received: u64,
    /// Messages given back because the queue was full.
    pub sends_refused: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) sends_refused: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> ConnectionStats {
        ConnectionStats {
            frames_sent: self.frames_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            frames_received: self.frames_received.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            sends_refused: self.sends_refused.load(Ordering::Relaxed),
        }
    }
}

/// Counts `amount`; counters are for people, so their order with other memory does not matter.
pub(super) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The address as people write it, not as an IPv6 socket sees IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
