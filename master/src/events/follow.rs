//! The follower's side of `meros-events/1`.

use std::time::Duration;

use meros_proto::transport::{Client, Protocol, Receiver, RecvError, Sender};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::wire::{FromFollower, FromLeader};
use crate::metrics::Metrics;
use crate::projection::{Followed, Projection};
use crate::registry::{Status, connect};

/// Questions that may wait to be written: there is one at a time.
const SEND_QUEUE: usize = 16;
/// Messages that are applied together.
const BATCH_MAX: usize = 256;
/// How often the leader is asked how current this is: what reads are behind when nothing happens.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two attempts to follow.
const AGAIN: Duration = Duration::from_millis(100);
/// Before another look whether there is room for what the leader has sent.
const NO_ROOM: Duration = Duration::from_millis(2);

/// Follows whoever leads, while it is another master.
pub(crate) struct Follower {
    /// To reach the leader.
    pub(crate) client: Client,
    /// Who leads.
    pub(crate) status: Status,
    /// What is kept.
    pub(crate) projection: Projection,
    /// What is counted.
    pub(crate) metrics: std::sync::Arc<Metrics>,
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The connection has ended.
    #[error("it ended: {0}")]
    Closed(RecvError),
    /// An event is missing, or they are not events of this stream.
    #[error("event {got} follows {after}")]
    Gap {
        /// The last one.
        after: u64,
        /// The next one that came.
        got: u64,
    },
    /// Somebody else leads now.
    #[error("another master leads")]
    OtherLeader,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Rows are coming.
    Rows,
    /// The last event was this one.
    Event(u64),
}

impl Follower {
    /// Until `stop` changes.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            // Its sender gone means that the master is going, too.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow(&self) {
        loop {
            if let Some(address) = self.leader() {
                match connect(&self.client, Protocol::Events, &address).await {
                    Ok(connection) => {
                        let (sender, receiver) = connection.split(SEND_QUEUE);
                        let ended = self.take_in(&address, &sender, receiver).await;
                        info!(leader = address, %ended, "the leader is followed no more");
                        self.metrics.stream_ended();
                    }
                    Err(error) => debug!(leader = address, %error, "the leader is not reached"),
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Where the leader is, if it is another master.
    fn leader(&self) -> Option<String> {
        let leader = self.status.other_leader()?;
        (!self.projection.is_leading()).then_some(leader.address)
    }

    /// Whether another stream would be better. One goes on while nobody knows who leads.
    fn is_outdated(&self, address: &str) -> bool {
        self.projection.is_leading()
            || (self.status.other_leader()).is_some_and(|leader| leader.address != address)
    }

    async fn take_in(
        &self,
        address: &str,
        sender: &Sender<FromFollower>,
        mut receiver: Receiver<FromLeader>,
    ) -> Ended {
        let mut asking = interval(ASK_INTERVAL);
        asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut messages = Vec::new();
        let mut place = Place::Rows;
        self.apply(vec![Followed::Begin]).await;
        loop {
            tokio::select! {
                received = receiver.recv_batch(&mut messages, BATCH_MAX) => {
                    let ended = received.err();
                    match pieces(messages.drain(..), &mut place) {
                        Ok(pieces) => self.apply(pieces).await,
                        Err(gap) => {
                            warn!(leader = address, %gap, "the leader's events do not fit together");
                            return gap;
                        }
                    }
                    if let Some(error) = ended {
                        return Ended::Closed(error);
                    }
                }
                _ = asking.tick() => {
                    if self.is_outdated(address) {
                        return Ended::OtherLeader;
                    }
                    // One that cannot be asked now can be in a moment.
                    let _ = sender.try_send(FromFollower::Mark { number: self.projection.now() });
                }
            }
        }
    }

    /// Waits for room: meanwhile nothing is read, and the leader waits, too.
    async fn apply(&self, mut pieces: Vec<Followed>) {
        while let Err(all) = self.projection.follow(pieces) {
            pieces = all;
            sleep(NO_ROOM).await;
        }
    }
}

/// What messages mean, at this place of the stream.
fn pieces(
    messages: impl Iterator<Item = FromLeader>,
    place: &mut Place,
) -> Result<Vec<Followed>, Ended> {
    let mut pieces = Vec::with_capacity(messages.size_hint().0);
    for message in messages {
        let piece = match (message, *place) {
            (FromLeader::Row(row), Place::Rows) => Followed::Row(row),
            (FromLeader::Complete { sequence }, Place::Rows) => {
                *place = Place::Event(sequence);
                Followed::Complete(sequence)
            }
            (FromLeader::Event(event), Place::Event(last))
                if last.checked_add(1) == Some(event.sequence) =>
            {
                *place = Place::Event(event.sequence);
                Followed::Event(event)
            }
            (FromLeader::Mark { number }, _) => Followed::AsOf(number),
            (FromLeader::Event(event), Place::Event(after)) => {
                let got = event.sequence;
                return Err(Ended::Gap { after, got });
            }
            (FromLeader::Event(event), Place::Rows) => {
                let got = event.sequence;
                return Err(Ended::Gap { after: 0, got });
            }
            (FromLeader::Row(_) | FromLeader::Complete { .. }, Place::Event(after)) => {
                return Err(Ended::Gap { after, got: 0 });
            }
        };
        pieces.push(piece);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::SlaveId;
    use meros_proto::time::Timestamp;
    use meros_proto::view::{ClusterChange, ClusterEvent};

    use super::*;

    fn event(sequence: u64) -> FromLeader {
        FromLeader::Event(ClusterEvent {
            sequence,
            at: Timestamp(1),
            change: ClusterChange::SlaveRemoved(SlaveId(0)),
        })
    }

    #[test]
    fn a_stream_with_a_gap_is_given_up() {
        let mut place = Place::Rows;
        let complete = FromLeader::Complete { sequence: 7 };
        let all = pieces([complete, event(8), event(9)].into_iter(), &mut place);
        assert_eq!(all.expect("they fit together").len(), 3);
        let gap = pieces([event(11)].into_iter(), &mut place).expect_err("10 is missing");
        assert!(matches!(gap, Ended::Gap { after: 9, got: 11 }));
        let again = pieces([event(9)].into_iter(), &mut place);
        assert!(again.is_err(), "it has been applied");
    }

    #[test]
    fn events_before_the_rows_and_rows_among_events_are_refused() {
        assert!(pieces([event(1)].into_iter(), &mut Place::Rows).is_err());
        let complete = FromLeader::Complete { sequence: 3 };
        assert!(pieces([complete].into_iter(), &mut Place::Event(3)).is_err());
    }
}
