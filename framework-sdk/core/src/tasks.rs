//! The tasks of a framework as its driver knows them.
//!
//! Invariants: D1 a task is live or ended, never both; D2 a terminal status of a task is
//! delivered once; D3 an update is acknowledged only after it was delivered and handled.
//! Absent: resources, sending.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use meros_proto::ids::{SlaveId, TaskId, UpdateId};
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, TaskState, TaskStatus};
use meros_proto::time::Timestamp;

use crate::config::{ENDED_TASKS_MAX, LIVE_TASKS_MAX, RECONCILE_RETRY_MIN, UNHANDLED_UPDATES_MAX};

/// Which updates of a task have come. Masters and slaves number theirs apart and send again
/// what is not acknowledged, each only its latest one (semantics I1, Q2).
#[derive(Debug, Clone, Default)]
struct Seen {
    /// With the slave that made it: numbers of two slaves do not compare.
    last_by_slave: Option<(Option<SlaveId>, UpdateId)>,
    last_by_master: Option<UpdateId>,
    /// Delivered, and not acknowledged by the framework yet. `None` is an end that was told without
    /// an id.
    unhandled: Vec<Option<UpdateId>>,
    /// How many were delivered without an id that were no end, and are not acknowledged by the
    /// framework yet. An acknowledgement without an id does not say of which: of the end it is once
    /// all of these have theirs.
    unhandled_plain: u32,
}

impl Seen {
    /// Whether this update, or a later one of the same maker, has come before. Ids of one slave,
    /// through all its lives, and those of all masters grow.
    fn is_old(&self, id: UpdateId, slave_id: Option<SlaveId>) -> bool {
        if id.is_by_master() {
            return self.last_by_master.is_some_and(|last| id <= last);
        }
        self.last_by_slave.is_some_and(|(slave, last)| {
            let is_older = id < last && !Mutant::TellOlder.is_on();
            slave == slave_id && (id == last || is_older)
        })
    }

    fn note(&mut self, id: UpdateId, slave_id: Option<SlaveId>) {
        match id.is_by_master() {
            true => self.last_by_master = Some(id),
            false => self.last_by_slave = Some((slave_id, id)),
        }
    }
}

/// How long answers that name an end wait for the update that tells how. No task is asked about
/// again before.
const ANNOUNCEMENT_WAIT: Duration = Duration::from_secs(1);
const _: () = assert!(ANNOUNCEMENT_WAIT.as_millis() * 2 <= RECONCILE_RETRY_MIN.as_millis());

/// A task that has not ended.
#[derive(Debug, Clone, Default)]
struct LiveTask {
    slave_id: Option<SlaveId>,
    /// This driver has launched it on `slave_id`: no other slave has anything to say of it.
    is_launched: bool,
    /// The state delivered last; none if the framework only named the task.
    state: Option<TaskState>,
    seen: Seen,
    kill: Option<Kill>,
    /// An answer to a question has named its end; the update that tells how is on its way.
    end_announced: Option<Timestamp>,
}

/// A kill that is repeated until the task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) grace: Option<Duration>,
}

#[derive(Debug, Clone)]
struct EndedTask {
    seen: Seen,
    /// An update that came before the end was handled; it is settled with the end.
    late: Option<Late>,
    /// Tells its own entry in `order` from one of an earlier life of the same id.
    number: u64,
}

/// An update that is to be acknowledged, and of which slave it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) slave_id: Option<SlaveId>,
    pub(crate) update_id: UpdateId,
}

/// What to do with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// News: tell the framework.
    Deliver,
    /// Delivered and handled before: only acknowledge it again.
    Repeat,
    /// Nothing: said before, or it will come again once the framework has caught up.
    Ignore,
    /// A task lives whose end was delivered: acknowledge and kill it.
    Kill,
}

/// All tasks, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskTable {
    live: BTreeMap<TaskId, LiveTask>,
    ended: BTreeMap<TaskId, EndedTask>,
    /// The ended ones, oldest first; may hold entries of ids that live again.
    order: VecDeque<(TaskId, u64)>,
    ended_count: u64,
}

impl TaskTable {
    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (&TaskId, Option<SlaveId>)> {
        self.live.iter().map(|(id, task)| (id, task.slave_id))
    }

    pub(crate) fn is_live(&self, task_id: &TaskId) -> bool {
        self.live.contains_key(task_id)
    }

    pub(crate) fn is_ended(&self, task_id: &TaskId) -> bool {
        self.ended.contains_key(task_id)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.live.len() < LIVE_TASKS_MAX
    }

    pub(crate) fn live_ids(&self) -> impl Iterator<Item = &TaskId> {
        self.live.keys()
    }

    pub(crate) fn slave_of(&self, task_id: &TaskId) -> Option<SlaveId> {
        self.live.get(task_id).and_then(|task| task.slave_id)
    }

    /// Starts to track a task that is being launched. An id may be used again after its end; what
    /// was seen of its earlier life is kept to tell late duplicates apart.
    pub(crate) fn launch(&mut self, task_id: &TaskId, slave_id: SlaveId) {
        let seen = self
            .ended
            .remove(task_id)
            .map(|ended| ended.seen)
            .unwrap_or_default();
        let task = LiveTask {
            slave_id: Some(slave_id),
            is_launched: true,
            state: Some(TaskState::Staging),
            seen,
            kill: None,
            end_announced: None,
        };
        self.live.insert(task_id.clone(), task);
    }

    /// A launch ended before it was sent. What is remembered of an earlier life stays.
    pub(crate) fn end_launch(&mut self, task_id: &TaskId) {
        if !self.is_ended(task_id) {
            self.remember_end(task_id.clone(), Seen::default());
        }
    }

    /// Starts to track a task by its name; does nothing if it is known or there is no room.
    pub(crate) fn track(&mut self, task_id: &TaskId, slave_id: Option<SlaveId>) {
        if !self.is_ended(task_id) && (self.is_live(task_id) || self.has_room()) {
            let task = self.live.entry(task_id.clone()).or_default();
            task.slave_id = task.slave_id.or(slave_id);
        }
    }

    /// Remembers a kill, and returns it as it is now: a repeat can only shorten the grace.
    pub(crate) fn kill(&mut self, task_id: &TaskId, grace: Option<Duration>) -> Kill {
        let Some(task) = self.live.get_mut(task_id) else {
            return Kill { grace };
        };
        let grace = match (task.kill.and_then(|kill| kill.grace), grace) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
        *task.kill.insert(Kill { grace })
    }

    /// The kills that are remembered.
    pub(crate) fn kills(&self) -> impl Iterator<Item = (&TaskId, Kill)> {
        self.live
            .iter()
            .filter_map(|(id, task)| task.kill.map(|kill| (id, kill)))
    }

    /// The kill of a task that is said to go on all the same. A new leader drops a kill that comes
    /// before the task's slave is back (semantics H2), so it is sent again on every sign of life.
    /// Not on UNREACHABLE, which is what a master answers to a kill.
    pub(crate) fn unheard_kill(&self, status: &TaskStatus) -> Option<Kill> {
        use TaskState::{Running, Staging, Starting};
        let goes_on =
            matches!(status.state, Staging | Starting | Running) && !Mutant::ForgetKills.is_on();
        let task = self.live.get(&status.task_id).filter(|_| goes_on)?;
        task.kill
    }

    /// The terminal state of a task that the master does not know (semantics H6): a launch that
    /// was lost on the way never started, anything else is gone.
    pub(crate) fn end_of_unknown(&self, task_id: &TaskId) -> TaskState {
        match self.live.get(task_id).map(|task| task.state) {
            Some(Some(TaskState::Staging)) => TaskState::Dropped,
            _ => TaskState::Gone,
        }
    }

    /// Whether this answer to a question names an end of which the slave tells more: how its
    /// process ended, and why. A master that knows such an end sends the update until it is
    /// acknowledged, so the answer waits for it a little.
    pub(crate) fn is_announcement(&mut self, status: &TaskStatus, now: Timestamp) -> bool {
        use TaskState::{Error, Failed, Finished, Killed};
        let is_answer = status.update_id.is_none() && status.reason == Some(Reason::Reconciliation);
        if !is_answer || !matches!(status.state, Error | Failed | Finished | Killed) {
            return false;
        }
        self.track(&status.task_id, status.slave_id);
        let Some(task) = self.live.get_mut(&status.task_id) else {
            return false;
        };
        // What the framework has not acknowledged yet holds the end up on its slave.
        if !task.seen.unhandled.is_empty() {
            task.end_announced = None;
            return true;
        }
        // A task may be asked about twice at once: answers that come together are one.
        let first = *task.end_announced.get_or_insert(now);
        now < first.after(ANNOUNCEMENT_WAIT)
    }

    /// Takes in what was said of a task.
    pub(crate) fn observe(&mut self, status: &TaskStatus) -> Verdict {
        if let Some(ended) = self.ended.get_mut(&status.task_id) {
            return late(ended, status);
        }
        self.track(&status.task_id, status.slave_id);
        let Some(task) = self.live.get_mut(&status.task_id) else {
            // No room to track it: its end is still remembered, so that it is told once.
            if status.state.is_terminal() {
                let mut seen = Seen::default();
                seen.unhandled.push(status.update_id);
                self.remember_end(status.task_id.clone(), seen);
            }
            return Verdict::Deliver;
        };
        match status.update_id {
            Some(id) if task.seen.unhandled.contains(&Some(id)) => return Verdict::Ignore,
            Some(id) if task.seen.is_old(id, status.slave_id) => return Verdict::Repeat,
            // Of an earlier task of the same id.
            Some(id)
                if task.is_launched && !id.is_by_master() && task.slave_id != status.slave_id =>
            {
                return Verdict::Repeat;
            }
            Some(_) if task.seen.unhandled.len() >= UNHANDLED_UPDATES_MAX => {
                return Verdict::Ignore;
            }
            Some(id) => {
                task.seen.unhandled.push(Some(id));
                task.seen.note(id, status.slave_id);
            }
            None if status.reason == Some(Reason::Reconciliation)
                && task.state == Some(status.state) =>
            {
                return Verdict::Ignore;
            }
            None if Mutant::TakeEndForHandled.is_on() => {}
            None if status.state.is_terminal() => task.seen.unhandled.push(None),
            None => task.seen.unhandled_plain = task.seen.unhandled_plain.saturating_add(1),
        }
        task.state = Some(status.state);
        if !task.is_launched {
            task.slave_id = status.slave_id.or(task.slave_id);
        }
        if status.state.is_terminal() {
            let task = self.live.remove(&status.task_id).expect("looked up above");
            self.remember_end(status.task_id.clone(), task.seen);
        }
        Verdict::Deliver
    }

    /// Marks an update as handled. False if it was not delivered, or was handled before.
    pub(crate) fn handled(&mut self, task_id: &TaskId, update_id: Option<UpdateId>) -> bool {
        let seen = match self.live.get_mut(task_id) {
            Some(task) => &mut task.seen,
            None => match self.ended.get_mut(task_id) {
                Some(task) => &mut task.seen,
                // Ended so long ago that it was forgotten, or never tracked for want of room.
                None => return true,
            },
        };
        if update_id.is_none() && seen.unhandled_plain > 0 {
            seen.unhandled_plain -= 1;
            return true;
        }
        let before = seen.unhandled.len();
        seen.unhandled.retain(|id| *id != update_id);
        seen.unhandled.len() < before
    }

    /// What can be acknowledged now that the end of a task is handled.
    pub(crate) fn take_late(&mut self, task_id: &TaskId) -> Option<Late> {
        let ended = self.ended.get_mut(task_id)?;
        ended.late.take_if(|_| ended.seen.unhandled.is_empty())
    }

    fn remember_end(&mut self, task_id: TaskId, seen: Seen) {
        if Mutant::ForgetEnds.is_on() {
            return;
        }
        self.ended_count += 1;
        let number = self.ended_count;
        self.order.push_back((task_id.clone(), number));
        let ended = EndedTask {
            seen,
            late: None,
            number,
        };
        self.ended.insert(task_id, ended);
        // Every ended task has one entry of its number in `order`, so this bounds both.
        while self.order.len() > ENDED_TASKS_MAX {
            let (oldest, number) = self.order.pop_front().expect("the loop's condition");
            if self
                .ended
                .get(&oldest)
                .is_some_and(|ended| ended.number == number)
            {
                self.ended.remove(&oldest);
            }
        }
    }

    /// D1 and the bounds.
    pub(crate) fn check_invariants(&self) {
        assert!(
            self.live.len() <= LIVE_TASKS_MAX,
            "more live tasks than the bound"
        );
        assert!(
            self.ended.len() <= self.order.len(),
            "an ended task is never forgotten"
        );
        assert!(
            self.order.len() <= ENDED_TASKS_MAX,
            "more ended tasks than the bound"
        );
        for (id, task) in &self.live {
            assert!(
                !self.ended.contains_key(id),
                "{id}: D1 broken, live and ended"
            );
            let terminal = task.state.is_some_and(TaskState::is_terminal);
            assert!(!terminal, "{id}: D1 broken, live in a terminal state");
            assert!(
                task.seen.unhandled.len() <= UNHANDLED_UPDATES_MAX,
                "{id}: too many unhandled"
            );
        }
    }
}

/// What to do with news of a task whose end was delivered.
fn late(ended: &mut EndedTask, status: &TaskStatus) -> Verdict {
    // An acknowledgement of any later update would let the master forget the task before the
    // framework has handled its end (D3). It may not come again: its slave may be lost by then.
    if !ended.seen.unhandled.is_empty() {
        let id = status.update_id;
        if let Some(update_id) = id.filter(|_| !ended.seen.unhandled.contains(&id)) {
            let slave_id = status.slave_id;
            ended.late = Some(Late {
                slave_id,
                update_id,
            });
        }
        Verdict::Ignore
    } else if !status.state.is_terminal() && !is_answer_to_kill(status) {
        Verdict::Kill
    } else if status.update_id.is_some() {
        Verdict::Repeat
    } else {
        Verdict::Ignore
    }
}

/// A master answers so to a kill of a task whose slave is away, and kills it when that is back: to kill it
/// again would be answered again, without end.
fn is_answer_to_kill(status: &TaskStatus) -> bool {
    status.state == TaskState::Unreachable && status.reason == Some(Reason::Reconciliation)
}
