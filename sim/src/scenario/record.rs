//! What is measured of one framework, by the framework itself.

use meros_proto::status::TaskState;

/// Counts since the run began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Tasks that became ready to run, those that came back included.
    pub(crate) submitted: u64,
    /// Tasks in an accept.
    pub(crate) launched: u64,
    /// Tasks that it was told to be running.
    pub(crate) started: u64,
    /// Tasks that ended as they should.
    pub(crate) finished: u64,
    /// Tasks that ended with the failure that the scenario has given them.
    pub(crate) failed: u64,
    /// Tasks that the datacenter lost; each is submitted again.
    pub(crate) lost: u64,
    /// Tasks refused because too many wait.
    pub(crate) rejected: u64,
    /// Offers that came, and what became of them.
    pub(crate) offers: u64,
    pub(crate) accepted: u64,
    pub(crate) declined: u64,
    pub(crate) rescinded: u64,
    /// From ready to running, in microseconds, in the order in which they ran.
    pub(crate) waits: Vec<u64>,
    /// Tasks that wait for an offer now, and those that were launched and have not ended.
    pub(crate) pending: u64,
    pub(crate) live: u64,
}

impl Record {
    /// Takes in the end of a task; true if it is to be submitted again.
    pub(crate) fn on_end(&mut self, state: TaskState, is_meant_to_fail: bool) -> bool {
        let is_lost = state != TaskState::Finished && !is_meant_to_fail;
        *match state {
            TaskState::Finished => &mut self.finished,
            _ if is_meant_to_fail => &mut self.failed,
            _ => &mut self.lost,
        } += 1;
        is_lost
    }

    /// Adds the counts of another framework of the same kind.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Self {
            submitted,
            launched,
            started,
            finished,
            failed,
            lost,
            rejected,
            offers,
            accepted,
            declined,
            rescinded,
            waits,
            pending,
            live,
        } = other;
        self.submitted += submitted;
        self.launched += launched;
        self.started += started;
        self.finished += finished;
        self.failed += failed;
        self.lost += lost;
        self.rejected += rejected;
        self.offers += offers;
        self.accepted += accepted;
        self.declined += declined;
        self.rescinded += rescinded;
        self.waits.extend_from_slice(waits);
        self.pending += pending;
        self.live += live;
    }
}
