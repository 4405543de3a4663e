//! The leader's stream of events to the other masters (`meros-events/1`): with it they answer reads, and the
//! next leader knows the tasks of the one before (architecture decision 5).
//!
//! A follower dials the leader and gets everything there is in rows, then every event as it happens. It asks
//! again and again how current it is: the answer comes behind all that was published before the
//! question, so its lag is a bound by its own clock, whatever the clocks say. A stream that breaks, has a gap
//! or comes from one who leads no more is dropped, and the next one starts over.
//!
//! Bounds: a message is an event or a row; a leader keeps some 260,000 events for a follower that is slow and
//! then drops it; a follower reads no faster than it applies.

mod follow;
mod serve;
mod wire;

pub(crate) use follow::Follower;
pub(crate) use serve::serve;
