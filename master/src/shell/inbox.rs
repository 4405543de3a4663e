//! The one queue into the core.
//!
//! Its room is counted in units: a message takes one, and one more for each 4 KiB it came in, so that
//! neither many nor large messages can grow the queue. A peer's reader task waits for room before it
//! hands over what it read; while it waits it reads nothing, and QUIC's flow control makes the peer
//! wait. Whoever waits longest is served first (the semaphore is fair), so a flood from one peer
//! delays the others by at most one batch each.
//!
//! What the registry reports needs no room: it is what this core has proposed, and of that there is at
//! most one for each slave, framework and order of an operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use meros_master_core::effect::Answer;
use meros_master_core::event::{ConnectionId, Event, OperatorCall};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::transport;
use tokio::sync::{Semaphore, oneshot};

use super::link::FrameworkLink;
use crate::registry::machine::Report;

/// Room in the queue, in units: 16,384 small messages, or 64 MiB of large ones. At a few microseconds
/// each that is some 50 ms of work; more would only be more waiting.
pub(crate) const INBOX_UNITS: u32 = 1 << 14;

/// Bytes on the wire that take one unit besides the message's own.
const BYTES_PER_UNIT: u64 = 4 << 10;

/// The most units that one batch takes for its bytes: half, so that it can always be served.
const LARGE_UNITS_MAX: u32 = INBOX_UNITS / 2;

/// What can reach the core's thread.
#[derive(Debug)]
pub(crate) enum Input {
    /// A slave's connection, and how to write to it.
    SlaveConnected(ConnectionId, String, transport::Sender<MasterToSlave>),
    /// A framework's connection, and how to write to it.
    FrameworkConnected(ConnectionId, String, FrameworkLink),
    /// Anything else that the core is told as it is. Boxed: the queue's slots are allocated ahead.
    Event(Box<Event>),
    /// The registry reports what this master may act on.
    Registry(Report),
    /// This master does not lead any more, whoever it is that does.
    Follow,
    /// The masters of the cluster are at these addresses.
    Members(Vec<String>),
    /// An operator waits for the answer.
    Operator(OperatorCall, oneshot::Sender<Result<Answer, Refusal>>),
    /// End the thread.
    Stop,
}

#[derive(Debug)]
struct Item {
    input: Input,
    /// To be given back once handled.
    units: u32,
}

/// The sending side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    sender: Sender<Item>,
    room: Arc<Semaphore>,
    connections: Arc<AtomicU64>,
}

/// The thread of the core has ended; the process is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("core has ended")]
pub(crate) struct CoreGone;

/// The receiving side, owned by the core's thread.
#[derive(Debug)]
pub(crate) struct Outlet {
    receiver: Receiver<Item>,
    room: Arc<Semaphore>,
}

/// An empty queue.
#[expect(
    clippy::disallowed_methods,
    reason = "the semaphore bounds what peers send, and the core what the registry reports; room for the latter would be allocated ahead"
)]
pub(crate) fn inbox() -> (Inbox, Outlet) {
    // Each item holds at least one unit, or is a report, of which the core itself bounds the number.
    let (sender, receiver) = channel::unbounded();
    let room = Arc::new(Semaphore::new(INBOX_UNITS as usize));
    (
        Inbox {
            sender,
            room: Arc::clone(&room),
            connections: Arc::new(AtomicU64::new(1)),
        },
        Outlet { receiver, room },
    )
}

impl Inbox {
    /// The next connection's number, whatever it speaks; never used twice by this process.
    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits for room for `inputs`, which came in `bytes` on the wire, and hands them over in order.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub(crate) async fn send(
        &self,
        inputs: impl IntoIterator<Item = Input, IntoIter: ExactSizeIterator>,
        bytes: u64,
    ) -> Result<(), CoreGone> {
        let inputs = inputs.into_iter();
        let count = u32::try_from(inputs.len()).expect("a batch is a few hundred inputs");
        let large = u32::try_from(bytes / BYTES_PER_UNIT)
            .unwrap_or(u32::MAX)
            .min(LARGE_UNITS_MAX);
        self.room
            .acquire_many(count + large)
            .await
            .map_err(|_| CoreGone)?
            .forget();
        // The first carries what the batch takes for its bytes.
        let mut units = 1 + large;
        for input in inputs {
            self.sender
                .send(Item { input, units })
                .map_err(|_| CoreGone)?;
            units = 1;
        }
        Ok(())
    }

    /// Hands over what needs no room, from any thread, without waiting.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub(crate) fn report(&self, input: Input) -> Result<(), CoreGone> {
        self.sender
            .send(Item { input, units: 0 })
            .map_err(|_| CoreGone)
    }

    /// Inputs that wait.
    pub(crate) fn len(&self) -> usize {
        self.sender.len()
    }
}

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// The time is up.
    Yet,
    /// All senders are gone.
    EverAgain,
}

impl Outlet {
    /// Waits for the first input, at most for `timeout` if there is one, then takes up to `max` of
    /// those that are there.
    pub(crate) fn receive(
        &self,
        into: &mut Vec<Input>,
        max: usize,
        timeout: Option<Duration>,
    ) -> Result<(), Nothing> {
        let first = match timeout {
            Some(timeout) => self
                .receiver
                .recv_timeout(timeout)
                .map_err(|error| match error {
                    RecvTimeoutError::Timeout => Nothing::Yet,
                    RecvTimeoutError::Disconnected => Nothing::EverAgain,
                }),
            None => self.receiver.recv().map_err(|_| Nothing::EverAgain),
        }?;
        let mut units = 0;
        for item in std::iter::once(first)
            .chain(self.receiver.try_iter())
            .take(max)
        {
            units += item.units as usize;
            into.push(item.input);
        }
        self.room.add_permits(units);
        Ok(())
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Those that wait for room must hear that there will be none.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use meros_master_core::event::ConnectionId;

    use super::*;

    fn input(number: u64) -> Input {
        Input::Event(Box::new(Event::Disconnected {
            connection: ConnectionId(number),
        }))
    }

    fn number(input: &Input) -> u64 {
        match input {
            Input::Event(event) => match **event {
                Event::Disconnected { connection } => connection.0,
                _ => panic!("{event:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_sender_waits_for_room_and_goes_on_when_there_is_some() {
        let (inbox, outlet) = inbox();
        for batch in 0..u64::from(INBOX_UNITS) / 256 {
            let inputs: Vec<_> = (batch * 256..(batch + 1) * 256).map(input).collect();
            inbox.send(inputs, 0).await.expect("there is room");
        }
        let full = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.send([input(u64::from(INBOX_UNITS))], 0).await }
        });
        tokio::task::yield_now().await;
        assert!(!full.is_finished(), "the queue is full");
        inbox.report(input(7)).expect("a report needs no room");

        let mut got = Vec::new();
        outlet.receive(&mut got, 10, None).expect("there are some");
        assert_eq!(
            got.iter().map(number).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        full.await.expect("no panic").expect("there is room now");
        assert_eq!(inbox.len(), INBOX_UNITS as usize - 10 + 2);
    }

    #[tokio::test]
    async fn large_messages_take_the_room_of_many() {
        let (inbox, outlet) = inbox();
        inbox
            .send([input(0)], 32 << 20)
            .await
            .expect("half the room");
        inbox
            .send([input(1)], 31 << 20)
            .await
            .expect("nearly the rest");
        let third = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.send([input(2)], 4 << 20).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "64 MiB wait already");
        let mut got = Vec::new();
        outlet.receive(&mut got, 1, None).expect("there is one");
        third.await.expect("no panic").expect("half is free again");
    }

    #[tokio::test]
    async fn senders_hear_that_the_core_is_gone() {
        let (inbox, outlet) = inbox();
        drop(outlet);
        assert_eq!(inbox.send([input(0)], 0).await, Err(CoreGone));
        assert_eq!(inbox.report(input(0)), Err(CoreGone));
    }

    #[test]
    fn an_empty_queue_waits_until_the_deadline_only() {
        let (inbox, outlet) = inbox();
        let began = Instant::now();
        let waited = outlet.receive(&mut Vec::new(), 1, Some(Duration::from_millis(5)));
        assert_eq!(waited, Err(Nothing::Yet));
        assert!(began.elapsed() >= Duration::from_millis(5));
        drop(inbox);
        assert_eq!(
            outlet.receive(&mut Vec::new(), 1, None),
            Err(Nothing::EverAgain)
        );
    }
}
