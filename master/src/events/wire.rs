//! What is said on `meros-events/1`.

use meros_proto::view::ClusterEvent;
use serde::{Deserialize, Serialize};

use crate::projection::Row;

/// From a follower to the leader. Variants are appended, never reordered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromFollower {
    /// Answer with `Mark` when all that is published by now has been sent. Asked all the time; one
    /// that stays without an answer is made up for by the next.
    Mark {
        /// Whatever the follower likes.
        number: u64,
    },
}

/// From the leader to a follower. Variants are appended, never reordered.
#[derive(Debug, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "events are nearly all of it: a box each would cost an allocation for each"
)]
pub(crate) enum FromLeader {
    /// A part of all there is. First all of these come.
    Row(Row),
    /// Those were all.
    Complete {
        /// The number of the last event that is in them.
        sequence: u64,
    },
    /// The next event.
    Event(ClusterEvent),
    /// See there.
    Mark {
        /// As asked.
        number: u64,
    },
}
