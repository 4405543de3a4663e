//! Rounds of explicit reconciliation (semantics H8): after each subscription and now and then,
//! every live task is asked about until there is an answer.
//!
//! Invariants: D5 one round at a time, and in it one message at a time. Absent: sending.

use std::collections::BTreeSet;

use meros_proto::ids::TaskId;
use meros_proto::time::Timestamp;

use crate::backoff::Backoff;
use crate::config::{
    RECONCILE_ANSWER_TIMEOUT, RECONCILE_CHUNK, RECONCILE_INTERVAL, RECONCILE_RETRY_MAX,
    RECONCILE_RETRY_MIN,
};

/// How the round stands.
///
/// Transitions: `Idle -> Asking`; `Asking -> Asking | Resting | Idle`; `Resting -> Asking`;
/// all `-> Off` on a disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not subscribed.
    Off,
    /// Nothing to ask before this moment.
    Idle(Timestamp),
    /// Waiting for answers, up to this moment.
    Asking(Timestamp),
    /// What is unanswered is asked again at this moment.
    Resting(Timestamp),
}

/// The round in progress, or when the next one is due.
#[derive(Debug, Clone)]
pub(crate) struct Reconciler {
    phase: Phase,
    /// Not asked yet in this pass.
    waiting: BTreeSet<TaskId>,
    /// In the message that is out; at most [`RECONCILE_CHUNK`].
    asked: BTreeSet<TaskId>,
    /// Asked in this pass, without an answer in time.
    unanswered: BTreeSet<TaskId>,
    backoff: Backoff,
}

impl Reconciler {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Off,
            waiting: BTreeSet::new(),
            asked: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            backoff: Backoff::new(RECONCILE_RETRY_MIN, RECONCILE_RETRY_MAX, seed),
        }
    }

    /// Begins a round over these tasks; one in progress goes on with them added.
    pub(crate) fn begin<'a>(&mut self, tasks: impl Iterator<Item = &'a TaskId>, now: Timestamp) {
        if !matches!(self.phase, Phase::Asking(_)) {
            self.backoff.reset();
            self.phase = Phase::Resting(now);
        }
        self.waiting.extend(tasks.cloned());
    }

    /// The connection is gone, and with it what was asked.
    pub(crate) fn stop(&mut self) {
        *self = Self {
            backoff: self.backoff.clone(),
            ..Self::new(0)
        };
    }

    /// The tasks of the round that have no answer yet; some may come twice.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &TaskId> {
        self.waiting
            .iter()
            .chain(&self.asked)
            .chain(&self.unanswered)
    }

    /// News of a task, whatever it says, answers the question.
    pub(crate) fn answered(&mut self, task_id: &TaskId) {
        self.asked.remove(task_id);
        self.unanswered.remove(task_id);
        self.waiting.remove(task_id);
    }

    /// The answer was not enough: asked again after a while.
    pub(crate) fn ask_later(&mut self, task_id: &TaskId, now: Timestamp) {
        self.answered(task_id);
        self.unanswered.insert(task_id.clone());
        if matches!(self.phase, Phase::Idle(_)) {
            self.phase = Phase::Resting(now.after(self.backoff.next_delay()));
        }
    }

    /// When [`Reconciler::next_chunk`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Off => None,
            Phase::Idle(at) | Phase::Asking(at) | Phase::Resting(at) => Some(at),
        }
    }

    /// Whether the time has come for a round over all live tasks.
    pub(crate) fn is_round_due(&self, now: Timestamp) -> bool {
        matches!(self.phase, Phase::Idle(at) if at <= now)
    }

    /// Moves on, and returns the tasks to ask about now, if any.
    pub(crate) fn next_chunk(&mut self, now: Timestamp) -> Option<Vec<TaskId>> {
        match self.phase {
            Phase::Off | Phase::Idle(_) => return None,
            Phase::Asking(until) if !self.asked.is_empty() && now < until => return None,
            Phase::Asking(_) => self.unanswered.append(&mut self.asked),
            Phase::Resting(until) if now < until => return None,
            Phase::Resting(_) => self.waiting.append(&mut self.unanswered),
        }
        while self.asked.len() < RECONCILE_CHUNK
            && let Some(task_id) = self.waiting.pop_first()
        {
            self.asked.insert(task_id);
        }
        if !self.asked.is_empty() {
            self.phase = Phase::Asking(now.after(RECONCILE_ANSWER_TIMEOUT));
            return Some(self.asked.iter().cloned().collect());
        }
        self.phase = if self.unanswered.is_empty() {
            self.backoff.reset();
            Phase::Idle(now.after(RECONCILE_INTERVAL))
        } else {
            Phase::Resting(now.after(self.backoff.next_delay()))
        };
        None
    }

    /// D5: what is out fits one message, and nothing is out unless we are waiting for it.
    pub(crate) fn check_invariants(&self) {
        assert!(
            self.asked.len() <= RECONCILE_CHUNK,
            "D5 broken: more than one message is out"
        );
        if !matches!(self.phase, Phase::Asking(_)) {
            assert!(
                self.asked.is_empty(),
                "D5 broken: asked without waiting for the answer"
            );
        }
    }
}
