//! The slaves as this leader sees them. What they are and have is in the registry.
//!
//! Invariants: M7 each row has its record in the registry and agrees with it about unreachability.

use std::collections::VecDeque;
use std::sync::Arc;

use meros_proto::ids::SlaveId;
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveState;
use meros_proto::time::Timestamp;

use crate::event::{ConnectionId, ProposalId, RequestId};
use crate::numbered::Numbered;
use crate::operations::PendingOperation;

/// The most members, unreachable ones included; one more is refused with `OverLimit`. Twice the
/// largest cluster that we measure.
pub const SLAVES_MAX: usize = 100_000;

/// One slave.
#[derive(Debug)]
pub(crate) struct Slave {
    state: SlaveState,
    /// Since when it has that state.
    pub(crate) since: Timestamp,
    /// Its connection, in `Registered` only.
    pub(crate) connection: Option<ConnectionId>,
    /// The connection that wants to be this slave.
    pub(crate) claimant: Option<ConnectionId>,
    /// A command about it is being committed; everything else about its membership waits.
    pub(crate) proposal: Option<ProposalId>,
    /// It goes for good (semantics K8).
    pub(crate) is_leaving: bool,
    /// It is to be declared gone (semantics K7).
    pub(crate) is_gone: bool,
    /// Operators who wait until it is gone.
    pub(crate) gone_requests: Vec<RequestId>,
    /// Its tasks are killed, as its record says; here for a quick look.
    pub(crate) is_draining: bool,
    /// It is draining, and nothing is left on it.
    pub(crate) is_drained: bool,
    /// From when on its drain waits for no tasks of executors; none before it can have heard of the drain.
    pub(crate) executors_end_at: Option<Timestamp>,
    /// Its executors were told to end, by its connection of now.
    pub(crate) executors_told_to_end: bool,
    /// Pings in a row without an answer.
    pub(crate) misses: u32,
    /// What is reserved on it dynamically and its volumes, as far as this leader knows.
    pub(crate) claims: Option<Arc<Resources>>,
    /// Operations that it has not answered, in their order.
    pub(crate) operations: VecDeque<PendingOperation>,
    /// It was given up and has not been welcomed since (semantics K5).
    pub(crate) was_unreachable: bool,
    /// It obeys no leader before this one any more.
    is_ours: bool,
}

impl Slave {
    pub(crate) fn new(state: SlaveState, since: Timestamp) -> Self {
        Self {
            state,
            since,
            connection: None,
            claimant: None,
            proposal: None,
            is_leaving: false,
            is_gone: false,
            gone_requests: Vec::new(),
            is_draining: false,
            is_drained: false,
            executors_end_at: None,
            executors_told_to_end: false,
            misses: 0,
            claims: None,
            operations: VecDeque::new(),
            was_unreachable: false,
            is_ours: false,
        }
    }

    /// One that this leader has admitted: none before knows it.
    pub(crate) fn admitted(since: Timestamp) -> Self {
        Self {
            is_ours: true,
            ..Self::new(SlaveState::Recovered, since)
        }
    }

    pub(crate) fn state(&self) -> SlaveState {
        self.state
    }

    /// Whether this leader knows all its tasks, while it is reachable. What it reported is not all as long
    /// as a deposed leader may give it more.
    pub(crate) fn is_known(&self) -> bool {
        let was_welcomed = matches!(
            self.state,
            SlaveState::Registered | SlaveState::Disconnected
        );
        was_welcomed && self.is_ours
    }

    /// Whether it may be back with tasks that this leader does not know.
    fn is_unsure(&self) -> bool {
        !self.is_known() && self.state != SlaveState::Unreachable
    }
}

/// All members.
#[derive(Debug, Default)]
pub(crate) struct Slaves {
    rows: Numbered<Slave>,
    recovered: usize,
    unsure: usize,
}

impl Slaves {
    pub(crate) fn get(&self, id: SlaveId) -> Option<&Slave> {
        self.rows.get(id.0)
    }

    pub(crate) fn get_mut(&mut self, id: SlaveId) -> Option<&mut Slave> {
        self.rows.get_mut(id.0)
    }

    pub(crate) fn insert(&mut self, id: SlaveId, slave: Slave) {
        self.remove(id);
        self.recovered += usize::from(slave.state == SlaveState::Recovered);
        self.unsure += usize::from(slave.is_unsure());
        self.rows.insert(id.0, slave);
    }

    pub(crate) fn remove(&mut self, id: SlaveId) -> Option<Slave> {
        let slave = *self.rows.remove(id.0)?;
        self.recovered -= usize::from(slave.state == SlaveState::Recovered);
        self.unsure -= usize::from(slave.is_unsure());
        Some(slave)
    }

    pub(crate) fn set_state(&mut self, id: SlaveId, state: SlaveState, now: Timestamp) {
        self.change(id, |slave| {
            slave.state = state;
            slave.since = now;
        });
    }

    /// It will obey no leader before this one.
    pub(crate) fn set_ours(&mut self, id: SlaveId) {
        self.change(id, |slave| slave.is_ours = true);
    }

    fn change(&mut self, id: SlaveId, change: impl FnOnce(&mut Slave)) {
        if let Some(slave) = self.rows.get_mut(id.0) {
            self.recovered -= usize::from(slave.state == SlaveState::Recovered);
            self.unsure -= usize::from(slave.is_unsure());
            change(slave);
            self.recovered += usize::from(slave.state == SlaveState::Recovered);
            self.unsure += usize::from(slave.is_unsure());
        }
    }

    /// The connection of a slave that takes orders.
    pub(crate) fn connection(&self, id: SlaveId) -> Option<ConnectionId> {
        self.get(id)?.connection
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlaveId, &Slave)> {
        self.rows
            .iter()
            .map(|(number, slave)| (SlaveId(number), slave))
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many are known and have not come back yet (semantics H2).
    pub(crate) fn recovered(&self) -> usize {
        self.recovered
    }

    /// How many may have tasks that this leader does not know and is yet to hear of (semantics H2).
    pub(crate) fn unsure(&self) -> usize {
        self.unsure
    }

    /// Whether what is counted is what is there.
    pub(crate) fn is_consistent(&self) -> bool {
        let recovered = |slave: &&Slave| slave.state == SlaveState::Recovered;
        let rows = || self.iter().map(|(_, slave)| slave);
        self.recovered == rows().filter(recovered).count()
            && self.unsure == rows().filter(|slave| slave.is_unsure()).count()
    }
}
