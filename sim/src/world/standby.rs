//! What masters that do not lead know of the tasks: the leader's changes reach them after a while, and what
//! is on its way when the leader dies is lost. How they are sent is not modelled, but that one that has
//! missed too many gets all that there is, and that a process forgets everything when it dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use meros_proto::ids::{Epoch, FrameworkId, TaskId};
use meros_proto::view::{ClusterChange, TaskView};

use super::{Happening, Life, Node, World};
use crate::prng::Rng;

/// Changes that a leader keeps for those that are behind.
const KEPT_MAX: usize = 1_024;

/// What one master knows.
#[derive(Debug)]
pub(super) struct Standby {
    tasks: BTreeMap<(FrameworkId, TaskId), Arc<TaskView>>,
    /// Of which leader's changes, and how many of them.
    term: Epoch,
    known: u64,
    /// The leader's last changes.
    recent: VecDeque<ClusterChange>,
    is_coming: bool,
    rng: Rng,
}

impl Standby {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            tasks: BTreeMap::new(),
            term: Epoch(0),
            known: 0,
            recent: VecDeque::new(),
            is_coming: false,
            rng,
        }
    }

    /// Its process dies.
    pub(super) fn forget(&mut self) {
        self.tasks.clear();
        self.recent.clear();
        self.term = Epoch(0);
        self.known = 0;
        self.is_coming = false;
    }

    /// The tasks, as a leader begins with them.
    pub(super) fn tasks(&self) -> Vec<Arc<TaskView>> {
        self.tasks.values().cloned().collect()
    }

    fn apply(&mut self, change: &ClusterChange) {
        match change {
            ClusterChange::Elected(_) => self.tasks.clear(),
            ClusterChange::TaskAdded(task) => self.put(Arc::new(task.clone())),
            ClusterChange::TaskRemembered(task) => self.put(Arc::clone(task)),
            ClusterChange::TaskChanged {
                framework_id,
                task_id,
                state,
                status,
            } => {
                let name = (*framework_id, task_id.clone());
                if let Some(task) = self.tasks.get_mut(&name) {
                    let task = Arc::make_mut(task);
                    task.state = *state;
                    task.status.clone_from(status);
                }
            }
            ClusterChange::TaskRemoved {
                framework_id,
                task_id,
            }
            | ClusterChange::TaskForgotten {
                framework_id,
                task_id,
            } => {
                self.tasks.remove(&(*framework_id, task_id.clone()));
            }
            ClusterChange::Slave(_)
            | ClusterChange::SlaveRemoved(_)
            | ClusterChange::Framework(_)
            | ClusterChange::OfferMade(_)
            | ClusterChange::OfferEnded { .. }
            | ClusterChange::Role(_)
            | ClusterChange::ExecutorAdded(_)
            | ClusterChange::ExecutorRemoved { .. } => {}
        }
    }

    fn put(&mut self, task: Arc<TaskView>) {
        let name = (task.framework_id, task.task_id.clone());
        self.tasks.insert(name, task);
    }

    /// As its leader, this master has published a change.
    fn publish(&mut self, term: Epoch, change: &ClusterChange) {
        if self.term != term {
            self.recent.clear();
            self.known = 0;
            self.term = term;
        }
        self.apply(change);
        self.known += 1;
        self.recent.push_back(change.clone());
        if self.recent.len() > KEPT_MAX {
            self.recent.pop_front();
        }
    }

    /// Takes over what the leader knows and this one does not.
    fn follow(&mut self, leader: &Self) {
        let kept = u64::try_from(leader.recent.len()).expect("lengths fit 64 bits");
        let missed = leader.known.saturating_sub(self.known);
        if self.term != leader.term || missed > kept {
            self.tasks.clone_from(&leader.tasks);
        } else {
            let known = usize::try_from(kept - missed).expect("it was a length");
            for change in leader.recent.iter().skip(known) {
                self.apply(change);
            }
        }
        self.term = leader.term;
        self.known = leader.known;
        self.recent.clear();
    }
}

impl World {
    /// A master that leads publishes a change.
    pub(super) fn stream(&mut self, from: usize, change: &ClusterChange) {
        let Some(term) = self.masters[from].term.filter(|_| self.masters.len() > 1) else {
            return;
        };
        self.masters[from].standby.publish(term, change);
        for at in 0..self.masters.len() {
            let node = &mut self.masters[at];
            let is_coming = at == from || node.core.is_none() || node.standby.is_coming;
            if is_coming {
                continue;
            }
            node.standby.is_coming = true;
            let rng = &mut node.standby.rng;
            let wait = rng.skewed(Duration::from_micros(200), Duration::from_secs(1));
            let life = Life(Node::Master(at), node.life);
            self.after(wait, Happening::Stream(life));
        }
    }

    pub(super) fn on_stream(&mut self, at: usize) {
        self.masters[at].standby.is_coming = false;
        let Some(leader) = self.log.leader().filter(|leader| *leader != at) else {
            return;
        };
        let (ours, theirs) = (&self.masters[at], &self.masters[leader]);
        let is_heard = theirs.core.is_some() && !theirs.is_isolated && !ours.is_isolated;
        if !is_heard || theirs.term != Some(self.log.term()) || ours.term.is_some() {
            return;
        }
        let [ours, theirs] = self
            .masters
            .get_disjoint_mut([at, leader])
            .expect("two different masters");
        ours.standby.follow(&theirs.standby);
        self.meet("a master that does not lead hears of changes");
    }
}
