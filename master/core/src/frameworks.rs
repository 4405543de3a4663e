//! The frameworks as this leader sees them. What they say of themselves is in the registry.
//!
//! Invariants: M8 each row has its record in the registry; one that is away has a deadline.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::constraint::OfferWishes;
use meros_proto::ids::{FrameworkId, OperationId, SlaveId, TaskId};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use meros_proto::view::FrameworkState;

use crate::event::{ConnectionId, ProposalId, RequestId};
use crate::framework_update::PendingUpdate;
use crate::holding::Holding;
use crate::numbered::Numbered;

/// The most frameworks that are not removed; one more is refused with `OverLimit`.
pub const FRAMEWORKS_MAX: usize = 20_000;

/// The most operators that wait for the end of one framework; one more is refused.
pub(crate) const TEARDOWN_REQUESTS_MAX: usize = 64;

/// One framework.
#[derive(Debug)]
pub(crate) struct Framework {
    pub(crate) state: FrameworkState,
    /// Since when it has that state.
    pub(crate) since: Timestamp,
    /// Its connection, in `Subscribed` only.
    pub(crate) connection: Option<ConnectionId>,
    /// The connection that wants to be this framework.
    pub(crate) claimant: Option<ConnectionId>,
    /// A command about it is being committed; everything else about its membership waits.
    pub(crate) proposal: Option<ProposalId>,
    /// What that command is about, if the framework changes itself.
    pub(crate) update: Option<PendingUpdate>,
    /// It is to be removed.
    pub(crate) is_ending: bool,
    /// Operators who wait for its end.
    pub(crate) teardown_requests: Vec<RequestId>,
    /// The roles it wants no offers for now (semantics B8, N6).
    pub(crate) suppressed: BTreeSet<RoleName>,
    /// How far an implicit reconciliation has come, while it goes on.
    pub(crate) answered: Option<TaskId>,
    /// The slaves that have not answered its operations, by id and number. A framework may use an id
    /// again.
    pub(crate) operations: BTreeMap<(OperationId, u64), SlaveId>,
    /// The roles that the allocator makes offers for.
    pub(crate) offered_roles: BTreeSet<RoleName>,
    /// What it wishes of its offers, as it said it.
    pub(crate) wishes: Vec<OfferWishes>,
    /// How it treats its offers.
    pub(crate) holding: Holding,
    /// The most that it may hold unanswered, while it hoards.
    pub(crate) offers_max: Option<u32>,
}

impl Framework {
    pub(crate) fn new(state: FrameworkState, since: Timestamp) -> Self {
        Self {
            state,
            since,
            connection: None,
            claimant: None,
            proposal: None,
            update: None,
            is_ending: false,
            teardown_requests: Vec::new(),
            suppressed: BTreeSet::new(),
            answered: None,
            operations: BTreeMap::new(),
            offered_roles: BTreeSet::new(),
            wishes: Vec::new(),
            holding: Holding::default(),
            offers_max: None,
        }
    }
}

impl Framework {
    /// The slave that has not answered the operation of this id; the first one's, of several.
    pub(crate) fn pending(&self, id: &OperationId) -> Option<SlaveId> {
        let mut found = self.operations.range((id.clone(), 0)..);
        let ((first, _), slave) = found.next()?;
        (first == id).then_some(*slave)
    }
}

/// All frameworks that are not removed.
#[derive(Debug, Default)]
pub(crate) struct Frameworks(Numbered<Framework>);

impl Frameworks {
    pub(crate) fn get(&self, id: FrameworkId) -> Option<&Framework> {
        self.0.get(id.0)
    }

    pub(crate) fn get_mut(&mut self, id: FrameworkId) -> Option<&mut Framework> {
        self.0.get_mut(id.0)
    }

    pub(crate) fn insert(&mut self, id: FrameworkId, framework: Framework) {
        self.0.insert(id.0, framework);
    }

    pub(crate) fn remove(&mut self, id: FrameworkId) -> Option<Framework> {
        self.0.remove(id.0).map(|framework| *framework)
    }

    /// The connection of a subscribed framework.
    pub(crate) fn connection(&self, id: FrameworkId) -> Option<ConnectionId> {
        self.get(id)?.connection
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (FrameworkId, &Framework)> {
        self.0
            .iter()
            .map(|(number, framework)| (FrameworkId(number), framework))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
