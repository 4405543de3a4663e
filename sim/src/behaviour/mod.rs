//! What frameworks and tasks do of their own will.

use std::fmt::Debug;
use std::time::Duration;

use meros_proto::ids::TaskId;
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, EndReason, News};

use crate::fault::Memory;
use crate::scenario::Record;

pub(crate) mod claiming;
pub(crate) mod nonsense;
pub(crate) mod probe;
pub(crate) mod script;
pub(crate) mod workload;

pub(crate) use workload::Believed;

/// A framework above its driver: what it does about news, and when it acts by itself.
pub(crate) trait App: Debug {
    /// A new life begins with what is left of the memory of the last one; what it asks at once.
    fn restart(&mut self, memory: Memory, now: Timestamp) -> Vec<Call>;

    /// From now on what runs for ever is killed.
    fn drain(&mut self, now: Timestamp);

    /// Whether there is nothing more that it will launch.
    fn has_launched_all(&self) -> bool;

    /// Tasks whose end it has not been told.
    fn live(&self) -> Box<dyn Iterator<Item = (&TaskId, &Believed)> + '_>;

    /// When it wants to act without news.
    fn next_wake(&self) -> Option<Timestamp>;

    /// How long the next piece of news takes it.
    fn thinking(&mut self) -> Duration;

    /// Deals with news; what it asks of its driver.
    fn on_news(&mut self, news: News, now: Timestamp) -> Vec<Call>;

    /// What is due by itself; what it asks of its driver.
    fn on_wake(&mut self, now: Timestamp) -> Vec<Call>;

    /// Whether it begins anew after its session has ended like this.
    fn comes_back(&self, reason: &EndReason) -> bool {
        *reason != EndReason::Left
    }

    /// What is measured of it, if anything is.
    fn record(&self) -> Option<&Record> {
        None
    }
}
