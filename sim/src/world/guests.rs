//! What a test kit asks of the world: frameworks that come while it runs, faults at this moment,
//! and how things stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::resources::Resources;
use meros_proto::status::TaskState;
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, Driver};

use super::framework::{FrameworkNode, Mind};
use super::{Happening, Node, World};
use crate::behaviour::script::Script;
use crate::fault::{Fault, Memory, Trouble};
use crate::invariants::Broken;
use crate::plan::{FrameworkPlan, Plan};
use crate::prng::Rng;

/// What becomes of a task of a guest; None for those of all others.
pub(super) fn script_of(
    plan: &Plan,
    owners: &BTreeMap<FrameworkId, usize>,
    framework: FrameworkId,
    task: &TaskDescription,
) -> Option<Script> {
    let runs = plan.driven.as_ref()?;
    let owner = owners.get(&framework)?;
    let is_guest = matches!(plan.frameworks[*owner], FrameworkPlan::Guest(_));
    is_guest.then(|| runs.script_of(plan.seed, task))
}

impl World {
    /// A framework comes, now.
    pub(crate) fn add_framework(&mut self, plan: FrameworkPlan) -> usize {
        let at = self.frameworks.len();
        let root = Rng::new(self.plan.seed);
        self.frameworks.push(FrameworkNode::new(at, &plan, &root));
        self.plan.frameworks.push(plan);
        self.start_now(Node::Framework(at));
        at
    }

    /// A process starts now, if it is down.
    pub(crate) fn start_now(&mut self, node: Node) {
        self.after(Duration::ZERO, Happening::Start(node));
    }

    /// The next thing happens, or none does until then and false.
    pub(crate) fn step(&mut self, until: Timestamp) -> Result<bool, Broken> {
        match self.queue.next_at() {
            Some(at) if at <= until => self.advance(),
            _ => {
                self.now = until;
                self.trace.wait(until);
                Ok(false)
            }
        }
    }

    /// A line of the story.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.line(line);
    }

    /// A guest is about to use the id of a task that has ended for another one.
    pub(crate) fn on_reused(&mut self, at: usize, task: &TaskId) {
        self.checks.ends_once.on_reused(at, task);
        self.checks.in_order.on_reused(at, task);
    }

    /// A guest asks its driver.
    pub(crate) fn ask(&mut self, at: usize, calls: Vec<Call>) -> Result<(), Broken> {
        self.call(at, calls)
    }

    // ---- faults ---------------------------------------------------------------------------

    /// Something goes wrong now; its number.
    pub(crate) fn inject(&mut self, what: Trouble) -> Result<usize, Broken> {
        let number = self.plan.faults.len();
        let at = self.elapsed();
        self.plan.faults.push(Fault { at, what });
        self.on_fault(number)?;
        Ok(number)
    }

    /// Something goes wrong later.
    pub(crate) fn schedule(&mut self, fault: Fault) {
        let number = self.plan.faults.len();
        let wait = fault.at.saturating_sub(self.elapsed());
        self.plan.faults.push(fault);
        self.after(wait, Happening::Fault(number));
    }

    /// The story of a test kit tells of each fault.
    pub(super) fn say_fault(&mut self, what: &Trouble) {
        if self.plan.driven.is_none() {
            return;
        }
        let frameworks = &self.plan.frameworks;
        self.trace
            .line(|| crate::kit::of_trouble(what, |at| frameworks[at].name(at)));
    }

    /// A fault that lasts is over.
    pub(crate) fn relieve(&mut self, fault: usize) {
        self.on_relief(fault);
    }

    /// A framework's process dies now.
    pub(crate) fn crash_guest(&mut self, at: usize, down: Duration, memory: Memory) {
        self.crash_framework(at, down, memory);
    }

    /// All faults are over, and what is down starts.
    pub(crate) fn heal_all(&mut self) {
        self.end_faults();
        for at in 0..self.masters.len() {
            self.start_now(Node::Master(at));
        }
        for at in 0..self.slaves.len() {
            self.start_now(Node::Slave(at));
        }
        for at in 0..self.frameworks.len() {
            self.start_now(Node::Framework(at));
        }
    }

    /// How long messages take from now on.
    pub(crate) fn set_latency(&mut self, min: Duration, max: Duration) {
        self.network.set_latency(min, max);
    }

    // ---- how things stand -----------------------------------------------------------------

    /// How many masters, slaves and frameworks there are.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.masters.len(), self.slaves.len(), self.frameworks.len())
    }

    /// The master that may commit, if it is up.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leader = self.log.leader()?;
        let node = &self.masters[leader];
        (node.core.is_some() && node.term == Some(self.log.term())).then_some(leader)
    }

    pub(crate) fn slave_resources(&self, slave: usize) -> &Resources {
        self.slaves[slave].resources()
    }

    /// None while it is down, or before it has an id.
    pub(crate) fn slave_id(&self, slave: usize) -> Option<SlaveId> {
        Some(self.slaves[slave].identity()?.slave_id)
    }

    pub(crate) fn slave_is_up(&self, slave: usize) -> bool {
        self.slaves[slave].core.is_some()
    }

    /// Whether it takes itself for a member.
    pub(crate) fn slave_is_registered(&self, slave: usize) -> bool {
        let core = self.slaves[slave].core.as_ref();
        core.is_some_and(|core| core.is_registered())
    }

    /// What its tasks take; nothing while it is down.
    pub(crate) fn slave_used(&self, slave: usize) -> Resources {
        let node = &self.slaves[slave];
        let used = node
            .core
            .as_ref()
            .and_then(|core| node.resources().checked_sub(core.free()).ok());
        used.unwrap_or_default()
    }

    /// On which slaves containers of a framework's tasks are.
    pub(crate) fn containers(&self, framework_id: FrameworkId) -> BTreeSet<(TaskId, usize)> {
        let nodes = self.slaves.iter().enumerate();
        nodes
            .flat_map(|(at, node)| node.running().map(move |(_, key)| (key, at)))
            .filter(|(key, _)| key.0 == framework_id)
            .map(|(key, at)| (key.1, at))
            .collect()
    }

    /// The tasks of a framework in the leader's tables; None while nobody leads.
    pub(crate) fn masters_tasks(
        &self,
        framework_id: FrameworkId,
    ) -> Option<BTreeMap<TaskId, TaskState>> {
        let node = &self.masters[self.leader()?];
        let tasks = node.reading.fits.tasks();
        Some(
            tasks
                .filter(|(framework, ..)| **framework == framework_id)
                .map(|(_, task, _, state)| (task.clone(), state))
                .collect(),
        )
    }

    /// The id that a framework was given last.
    pub(crate) fn framework_id(&self, at: usize) -> Option<FrameworkId> {
        self.frameworks[at].framework_id
    }

    pub(crate) fn framework_is_up(&self, at: usize) -> bool {
        self.frameworks[at].is_up
    }

    /// How many tasks its driver waits for; none while it is down.
    pub(crate) fn drivers_tasks(&self, at: usize) -> usize {
        match &self.frameworks[at].mind {
            Mind::Workload(worker) => worker.driver.as_ref().map_or(0, Driver::live_tasks),
            Mind::Nonsense(_) | Mind::Probe(_) => 0,
        }
    }
}
