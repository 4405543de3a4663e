//! The tables of the read model and the questions they answer.
//!
//! Bounds (semantics F9): 1,000 ended tasks per framework, 50 completed frameworks; the rest is as
//! large as the core's own tables. Resources of a task count as used while it holds them (semantics
//! F8): not once it has ended, not while its slave is unreachable; those of an executor until it is removed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use meros_master_core::Holding;
use meros_proto::ids::{ExecutorId, FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::resources::{Resources, Value};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveState;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ClusterChange, ClusterEvent, ExecutorView, FrameworkRow, FrameworkState, FrameworkView,
    MasterView, OfferEnd, OfferView, RoleRow, SlaveRow, SlaveView, TaskRow, TaskView,
};
use tracing::error;

use super::history::Place;
use super::page::{Builder, Page, TaskCursor};
use super::roles::{Holder, RoleFilter, Roles};

mod snapshot;

pub use snapshot::Row;

/// Ended tasks kept per framework (semantics F9).
pub const COMPLETED_TASKS_MAX: usize = 1_000;
/// Completed frameworks kept (semantics F9).
pub const COMPLETED_FRAMEWORKS_MAX: usize = 50;

/// Which tasks are asked for. Absent: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Of this framework.
    pub framework: Option<FrameworkId>,
    /// With this id.
    pub task: Option<TaskId>,
    /// In this state.
    pub state: Option<StateFilter>,
}

impl TaskFilter {
    /// Whether a task has the id and the state; its framework is a matter of where to look.
    fn matches(&self, task: &TaskView) -> bool {
        self.task.as_ref().is_none_or(|id| *id == task.task_id)
            && self.state.is_none_or(|state| state.matches(task.state))
    }
}

/// Which states are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// Those that have not ended.
    Active,
    /// Those that have ended.
    Ended,
    /// One.
    Is(TaskState),
}

impl StateFilter {
    fn matches(self, state: TaskState) -> bool {
        match self {
            Self::Active => !state.is_terminal(),
            Self::Ended => state.is_terminal(),
            Self::Is(wanted) => state == wanted,
        }
    }
}

/// Tasks in the master's tables by state, in the order of [`TaskState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskTotals([u64; TaskState::ALL.len()]);

impl TaskTotals {
    fn slot(&mut self, state: TaskState) -> &mut u64 {
        let at = TaskState::ALL
            .iter()
            .position(|one| *one == state)
            .expect("ALL has every state");
        &mut self.0[at]
    }

    /// Each state with its count.
    pub fn iter(&self) -> impl Iterator<Item = (TaskState, u64)> {
        TaskState::ALL.into_iter().zip(self.0)
    }
}

#[derive(Debug)]
struct Slave {
    view: Arc<SlaveView>,
    held: Held,
    offered: Resources,
}

#[derive(Debug)]
struct Framework {
    view: Arc<FrameworkView>,
    held: Held,
    offers: u64,
    holding: Holding,
    tasks: BTreeMap<TaskId, TaskRow>,
    /// Oldest first, each with its number.
    completed: VecDeque<(u64, Arc<TaskView>)>,
    completed_next: u64,
}

/// Where an executor is, whose, and which.
type ExecutorAt = (SlaveId, FrameworkId, ExecutorId);

/// What tasks and executors hold, of one slave or by one framework.
#[derive(Debug, Default)]
struct Held {
    used: Resources,
    tasks: u64,
}

/// What is known of the cluster. Void until a master is elected.
#[derive(Debug, Default)]
pub struct ReadModel {
    sequence: u64,
    master: Option<MasterView>,
    slaves: BTreeMap<SlaveId, Slave>,
    frameworks: BTreeMap<FrameworkId, Framework>,
    /// Ids of completed frameworks, oldest first.
    completed: VecDeque<FrameworkId>,
    offers: BTreeMap<OfferId, Arc<OfferView>>,
    executors: BTreeMap<ExecutorAt, Arc<ExecutorView>>,
    roles: Roles,
    totals: TaskTotals,
    /// Remembered tasks; they are in no other sum.
    remembered: usize,
}

impl ReadModel {
    /// The leading master, once there is one.
    #[must_use]
    pub fn master(&self) -> Option<&MasterView> {
        self.master.as_ref()
    }

    /// The sequence number of the last event applied.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The place of the last event applied, once there is a leader.
    pub(crate) fn place(&self) -> Option<Place> {
        let master = self.master.as_ref()?;
        Some(Place {
            epoch: master.epoch,
            sequence: self.sequence,
        })
    }

    /// Whether the slave that a change is about is with the master now, or its framework has not ended;
    /// true where that does not matter.
    pub(super) fn has_subject_of(&self, change: &ClusterChange) -> bool {
        let slave = |id| {
            let slave = self.slaves.get(&id);
            slave.is_some_and(|slave| is_with_master(slave.view.state))
        };
        match change {
            ClusterChange::Slave(view) => slave(view.slave_id),
            ClusterChange::SlaveRemoved(id) => slave(*id),
            ClusterChange::Framework(view) => {
                let framework = self.frameworks.get(&view.framework_id);
                framework.is_some_and(|it| it.view.state != FrameworkState::Completed)
            }
            _ => true,
        }
    }

    /// Tasks by state.
    #[must_use]
    pub fn task_totals(&self) -> TaskTotals {
        self.totals
    }

    /// Tasks that only the leader before has known so far.
    #[must_use]
    pub fn remembered_count(&self) -> usize {
        self.remembered
    }

    /// All tasks in the master's tables, and those that are remembered: what the next leader begins with.
    #[must_use]
    pub fn tasks_known(&self) -> Vec<Arc<TaskView>> {
        let of_each = self.frameworks.values().map(|framework| &framework.tasks);
        let tasks = of_each.flat_map(BTreeMap::values);
        tasks.map(|row| Arc::clone(&row.task)).collect()
    }

    /// Outstanding offers.
    #[must_use]
    pub fn offers_count(&self) -> usize {
        self.offers.len()
    }

    /// The views of all slaves, for counting.
    pub fn slave_views(&self) -> impl Iterator<Item = &SlaveView> {
        self.slaves.values().map(|slave| &*slave.view)
    }

    /// The views of all frameworks, completed ones too, for counting.
    pub fn framework_views(&self) -> impl Iterator<Item = &FrameworkView> {
        self.frameworks.values().map(|framework| &*framework.view)
    }

    /// One slave.
    #[must_use]
    pub fn slave_view(&self, id: SlaveId) -> Option<&SlaveView> {
        self.slaves.get(&id).map(|slave| &*slave.view)
    }

    /// One framework, maybe completed.
    #[must_use]
    pub fn framework_view(&self, id: FrameworkId) -> Option<&FrameworkView> {
        let framework = self.frameworks.get(&id);
        framework.map(|framework| &*framework.view)
    }

    /// Slaves by id, those after a given one.
    #[must_use]
    pub fn slaves(&self, after: Option<SlaveId>, limit: usize) -> Page<SlaveRow> {
        Page::of(&self.slaves, after, limit, |slave| SlaveRow {
            slave: (*slave.view).clone(),
            used: slave.held.used.clone(),
            offered: slave.offered.clone(),
            tasks: slave.held.tasks,
        })
    }

    /// Frameworks by id, completed ones too, those after a given one.
    #[must_use]
    pub fn frameworks(&self, after: Option<FrameworkId>, limit: usize) -> Page<FrameworkRow> {
        Page::of(&self.frameworks, after, limit, |framework| FrameworkRow {
            framework: (*framework.view).clone(),
            used: framework.held.used.clone(),
            tasks: framework.held.tasks,
            offers: framework.offers,
            offers_ended: framework.holding.ended,
            offers_unused: framework.holding.unused,
            offers_held_mean: framework.holding.mean,
        })
    }

    /// Outstanding offers by id, those after a given one.
    #[must_use]
    pub fn offers(
        &self,
        framework: Option<FrameworkId>,
        after: Option<OfferId>,
        limit: usize,
    ) -> Page<Arc<OfferView>> {
        let mut page = Builder::new(limit);
        for (id, offer) in &self.offers {
            if framework.is_some_and(|framework| offer.framework_id != framework) {
                continue;
            }
            let seen = after.is_some_and(|after| *id <= after);
            page.add(seen, || id.to_string(), || Arc::clone(offer));
        }
        page.finish()
    }

    /// All executors of frameworks, by slave, framework and id.
    pub fn executors(&self) -> impl Iterator<Item = &Arc<ExecutorView>> {
        self.executors.values()
    }

    /// Roles by name, those after a given one.
    #[must_use]
    pub fn roles(
        &self,
        filter: RoleFilter,
        after: Option<&RoleName>,
        limit: usize,
    ) -> Page<RoleRow> {
        self.roles.page(filter, after, limit)
    }

    /// Whether a framework is in a role or in one below it.
    #[must_use]
    pub fn has_framework_in(&self, role: &RoleName) -> bool {
        self.roles.has_framework(role)
    }

    /// Tasks: those in the master's tables by framework and id, then those that have left them, by
    /// framework, newest first; those after a given one. A task that leaves the tables meanwhile
    /// comes after where it was.
    #[must_use]
    pub fn tasks(
        &self,
        filter: &TaskFilter,
        after: Option<&TaskCursor>,
        limit: usize,
    ) -> Page<TaskRow> {
        let mut page = Builder::new(limit);
        let (first, last) = match filter.framework {
            Some(one) => (one, one),
            None => (FrameworkId(0), FrameworkId(u32::MAX)),
        };
        let frameworks = || self.frameworks.range(first..=last);
        for (id, framework) in frameworks() {
            let seen = |task: &TaskId| match after {
                Some(TaskCursor::Live(last, name)) => (id, task) <= (last, name),
                Some(TaskCursor::Left(..)) => true,
                None => false,
            };
            let mut take = |row: &TaskRow| {
                let task = &row.task;
                if filter.matches(task) {
                    let cursor = || TaskCursor::Live(*id, task.task_id.clone()).to_string();
                    page.add(seen(&task.task_id), cursor, || row.clone());
                }
            };
            match &filter.task {
                // Looked up, not searched for: `meros logs` must not cost a scan.
                Some(name) => framework.tasks.get(name).into_iter().for_each(&mut take),
                None => framework.tasks.values().for_each(&mut take),
            }
        }
        for (id, framework) in frameworks() {
            let seen = |number: u64| match after {
                Some(TaskCursor::Left(last, at)) => id < last || (id == last && number >= *at),
                _ => false,
            };
            for (number, task) in framework.completed.iter().rev() {
                if filter.matches(task) {
                    let cursor = || TaskCursor::Left(*id, *number).to_string();
                    page.add(seen(*number), cursor, || TaskRow {
                        task: Arc::clone(task),
                        remembered: false,
                    });
                }
            }
        }
        page.finish()
    }

    /// Applies the next event. Events about what is not known are ours to answer for: they are
    /// logged and change nothing, since a read model must not take the master down.
    pub fn apply(&mut self, event: ClusterEvent) {
        if matches!(event.change, ClusterChange::Elected(_)) {
            *self = Self::default();
        } else if event.sequence != self.sequence + 1 {
            error!(
                sequence = event.sequence,
                after = self.sequence,
                "gap in the cluster's events"
            );
        }
        self.sequence = event.sequence;
        match event.change {
            ClusterChange::Elected(master) => self.master = Some(master),
            ClusterChange::Slave(view) => self.put_slave(view),
            ClusterChange::SlaveRemoved(id) => {
                if let Some(slave) = self.slaves.remove(&id) {
                    self.roles.reserve(takes_part(&slave.view), false);
                }
            }
            ClusterChange::Framework(view) => self.put_framework(view),
            ClusterChange::OfferMade(offer) => self.add_offer(offer),
            ClusterChange::OfferEnded { offer_id, end } => {
                self.end_offer(offer_id, end, event.at);
            }
            ClusterChange::TaskAdded(task) => self.add_task(Arc::new(task)),
            ClusterChange::TaskChanged {
                framework_id,
                task_id,
                state,
                status,
            } => {
                self.change_task(framework_id, &task_id, state, status);
            }
            ClusterChange::TaskRemoved {
                framework_id,
                task_id,
            } => {
                self.remove_task(framework_id, &task_id);
            }
            ClusterChange::Role(view) => self.roles.configure(view),
            ClusterChange::TaskRemembered(task) => self.remember_task(task),
            ClusterChange::TaskForgotten {
                framework_id,
                task_id,
            } => self.forget_task(framework_id, &task_id),
            ClusterChange::ExecutorAdded(executor) => self.add_executor(executor),
            ClusterChange::ExecutorRemoved {
                slave_id,
                framework_id,
                executor_id,
            } => self.remove_executor(&(slave_id, framework_id, executor_id)),
        }
    }

    fn put_slave(&mut self, view: impl Into<Arc<SlaveView>>) {
        let view = view.into();
        if let Some(before) = self.slaves.get(&view.slave_id) {
            self.roles.reserve(takes_part(&before.view), false);
        }
        self.roles.reserve(takes_part(&view), true);
        self.slaves
            .entry(view.slave_id)
            .and_modify(|slave| slave.view = Arc::clone(&view))
            .or_insert_with(|| Slave {
                view,
                held: Held::default(),
                offered: Resources::new(),
            });
    }

    fn put_framework(&mut self, view: impl Into<Arc<FrameworkView>>) {
        let view = view.into();
        let id = view.framework_id;
        if view.state == FrameworkState::Completed && !self.completed.contains(&id) {
            self.completed.push_back(id);
        }
        if let Some(before) = self.frameworks.get(&id) {
            self.roles.count_framework(live_roles(&before.view), false);
        }
        self.roles.count_framework(live_roles(&view), true);
        self.frameworks
            .entry(id)
            .and_modify(|framework| framework.view = Arc::clone(&view))
            .or_insert_with(|| Framework {
                view,
                held: Held::default(),
                offers: 0,
                holding: Holding::default(),
                tasks: BTreeMap::new(),
                completed: VecDeque::new(),
                completed_next: 0,
            });
        if self.completed.len() > COMPLETED_FRAMEWORKS_MAX
            && let Some(oldest) = self.completed.pop_front()
        {
            self.forget_framework(oldest);
        }
    }

    fn forget_framework(&mut self, id: FrameworkId) {
        let tasks: Vec<TaskId> = self
            .frameworks
            .get(&id)
            .map_or_else(Vec::new, |one| one.tasks.keys().cloned().collect());
        for task in tasks {
            let row = self
                .frameworks
                .get_mut(&id)
                .and_then(|one| one.tasks.remove(&task));
            if let Some(task) = row.and_then(|row| self.counted(row)) {
                self.account(Some(&task), None);
            }
        }
        self.frameworks.remove(&id);
    }

    fn add_offer(&mut self, offer: impl Into<Arc<OfferView>>) {
        let offer = offer.into();
        if let Some(slave) = self.slaves.get_mut(&offer.slave_id)
            && let Err(error) = slave.offered.checked_add_assign(&offer.resources)
        {
            error!(slave_id = %offer.slave_id, %error, "offers of a slave do not add up");
        }
        if let Some(framework) = self.frameworks.get_mut(&offer.framework_id) {
            framework.offers += 1;
        }
        self.roles
            .hold(&offer.role, Holder::Offer, &offer.resources, true);
        self.offers.insert(offer.offer_id, offer);
    }

    fn end_offer(&mut self, id: OfferId, end: OfferEnd, at: Timestamp) {
        let Some(offer) = self.offers.remove(&id) else {
            error!(offer_id = %id, "an offer ended that was not known");
            return;
        };
        if let Some(slave) = self.slaves.get_mut(&offer.slave_id)
            && let Err(error) = slave.offered.checked_sub_assign(&offer.resources)
        {
            error!(slave_id = %offer.slave_id, %error, "offers of a slave do not add up");
        }
        if let Some(framework) = self.frameworks.get_mut(&offer.framework_id) {
            framework.offers = framework.offers.saturating_sub(1);
            let held = at.since(offer.made_at);
            framework.holding.ended(held, end == OfferEnd::Accepted);
        }
        self.roles
            .hold(&offer.role, Holder::Offer, &offer.resources, false);
    }

    fn add_executor(&mut self, executor: Arc<ExecutorView>) {
        let at = (
            executor.slave_id,
            executor.framework_id,
            executor.executor_id.clone(),
        );
        self.hold_of_executor(&executor, true);
        if let Some(before) = self.executors.insert(at, executor) {
            self.hold_of_executor(&before, false);
        }
    }

    fn remove_executor(&mut self, at: &ExecutorAt) {
        match self.executors.remove(at) {
            Some(executor) => self.hold_of_executor(&executor, false),
            None => {
                error!(slave_id = %at.0, executor_id = %at.2, "an executor ended that was not known");
            }
        }
    }

    fn hold_of_executor(&mut self, executor: &ExecutorView, is_more: bool) {
        let id = &executor.executor_id;
        if let Some(slave) = self.slaves.get_mut(&executor.slave_id) {
            slave.held.hold(&executor.resources, is_more, id);
        }
        if let Some(framework) = self.frameworks.get_mut(&executor.framework_id) {
            let scalars = only_scalars(&executor.resources);
            framework.held.hold(&scalars, is_more, id);
        }
        self.roles.hold(
            &executor.role,
            Holder::Executor,
            &executor.resources,
            is_more,
        );
    }

    fn add_task(&mut self, task: Arc<TaskView>) {
        let Some(framework) = self.frameworks.get_mut(&task.framework_id) else {
            error!(framework_id = %task.framework_id, task_id = %task.task_id, "a task of no framework");
            return;
        };
        let row = TaskRow {
            task: Arc::clone(&task),
            remembered: false,
        };
        let before = framework.tasks.insert(task.task_id.clone(), row);
        let before = before.and_then(|before| self.counted(before));
        self.account(before.as_deref(), Some(&task));
    }

    fn remember_task(&mut self, task: Arc<TaskView>) {
        let Some(framework) = self.frameworks.get_mut(&task.framework_id) else {
            error!(framework_id = %task.framework_id, task_id = %task.task_id, "a task of no framework");
            return;
        };
        let row = TaskRow {
            task: Arc::clone(&task),
            remembered: true,
        };
        let before = framework.tasks.insert(task.task_id.clone(), row);
        self.remembered += 1;
        if let Some(before) = before.and_then(|before| self.counted(before)) {
            self.account(Some(&before), None);
        }
    }

    /// Nothing if it is not remembered.
    fn forget_task(&mut self, framework_id: FrameworkId, task_id: &TaskId) {
        let Some(framework) = self.frameworks.get_mut(&framework_id) else {
            return;
        };
        if framework
            .tasks
            .get(task_id)
            .is_some_and(|row| row.remembered)
        {
            framework.tasks.remove(task_id);
            self.remembered -= 1;
        }
    }

    /// A task that leaves its place, if it was in the sums.
    fn counted(&mut self, row: TaskRow) -> Option<Arc<TaskView>> {
        self.remembered -= usize::from(row.remembered);
        (!row.remembered).then_some(row.task)
    }

    fn change_task(
        &mut self,
        framework_id: FrameworkId,
        task_id: &TaskId,
        state: TaskState,
        status: Option<TaskStatus>,
    ) {
        let Some(task) = self
            .frameworks
            .get_mut(&framework_id)
            .and_then(|one| one.tasks.get_mut(task_id))
            .filter(|row| !row.remembered)
        else {
            error!(%framework_id, %task_id, "a task changed that was not known");
            return;
        };
        let before = Arc::clone(&task.task);
        let mut view = (*before).clone();
        view.state = state;
        view.status = status;
        task.task = Arc::new(view);
        let after = Arc::clone(&task.task);
        self.account(Some(&before), Some(&after));
    }

    fn remove_task(&mut self, framework_id: FrameworkId, task_id: &TaskId) {
        let Some(framework) = self.frameworks.get_mut(&framework_id) else {
            error!(%framework_id, %task_id, "a task of no framework");
            return;
        };
        let known = framework.tasks.get(task_id).filter(|row| !row.remembered);
        let Some(task) = known.map(|row| Arc::clone(&row.task)) else {
            error!(%framework_id, %task_id, "a task left that was not known");
            return;
        };
        framework.tasks.remove(task_id);
        let number = framework.completed_next;
        framework.completed_next += 1;
        framework.completed.push_back((number, Arc::clone(&task)));
        if framework.completed.len() > COMPLETED_TASKS_MAX {
            framework.completed.pop_front();
        }
        self.account(Some(&task), None);
    }

    /// Moves the sums from what a task was to what it is.
    fn account(&mut self, before: Option<&TaskView>, after: Option<&TaskView>) {
        if let Some(task) = before {
            *self.totals.slot(task.state) -= 1;
        }
        if let Some(task) = after {
            *self.totals.slot(task.state) += 1;
        }
        // Most changes move nothing between sums: RUNNING follows STAGING.
        let same_place = match (before, after) {
            (Some(before), Some(after)) => {
                before.slave_id == after.slave_id
                    && before.resources == after.resources
                    && before.state.is_terminal() == after.state.is_terminal()
                    && holds_resources(before.state) == holds_resources(after.state)
            }
            _ => false,
        };
        if same_place {
            return;
        }
        if let Some(task) = before.filter(|task| !task.state.is_terminal()) {
            self.each_held(task, |held, resources| held.release(task, resources));
            self.hold_in_role(task, false);
        }
        if let Some(task) = after.filter(|task| !task.state.is_terminal()) {
            self.each_held(task, |held, resources| held.charge(task, resources));
            self.hold_in_role(task, true);
        }
    }

    fn hold_in_role(&mut self, task: &TaskView, is_more: bool) {
        let nothing = Resources::new();
        let resources = match holds_resources(task.state) {
            true => &task.resources,
            false => &nothing,
        };
        self.roles
            .hold(&task.role, Holder::Task, resources, is_more);
    }

    fn each_held(&mut self, task: &TaskView, mut change: impl FnMut(&mut Held, &Resources)) {
        let holds = holds_resources(task.state);
        let nothing = Resources::new();
        if let Some(slave) = self.slaves.get_mut(&task.slave_id) {
            change(
                &mut slave.held,
                if holds { &task.resources } else { &nothing },
            );
        }
        if let Some(framework) = self.frameworks.get_mut(&task.framework_id) {
            change(
                &mut framework.held,
                &if holds {
                    only_scalars(&task.resources)
                } else {
                    nothing
                },
            );
        }
    }
}

impl Held {
    fn charge(&mut self, task: &TaskView, resources: &Resources) {
        self.tasks += 1;
        self.hold(resources, true, &task.task_id);
    }

    fn release(&mut self, task: &TaskView, resources: &Resources) {
        self.tasks = self.tasks.saturating_sub(1);
        self.hold(resources, false, &task.task_id);
    }

    fn hold(&mut self, resources: &Resources, is_more: bool, by: &impl Display) {
        let wrong = match is_more {
            true => self
                .used
                .checked_add_assign(resources)
                .map_err(|it| it.to_string()),
            false => self
                .used
                .checked_sub_assign(resources)
                .map_err(|it| it.to_string()),
        };
        if let Err(error) = wrong {
            error!(%by, error, "resources of tasks and executors do not add up");
        }
    }
}

/// What of a slave is shared out: all it has once it is back, nothing before or when it is given up.
fn takes_part(slave: &SlaveView) -> &Resources {
    static NOTHING: LazyLock<Resources> = LazyLock::new(Resources::new);
    match is_with_master(slave.state) {
        true => &slave.resources,
        false => &NOTHING,
    }
}

/// Whether a slave is back with this leader, and not given up.
fn is_with_master(state: SlaveState) -> bool {
    match state {
        SlaveState::Registered | SlaveState::Disconnected => true,
        SlaveState::Recovered | SlaveState::Unreachable => false,
    }
}

/// The roles that a framework is in, as long as it is not completed.
fn live_roles(framework: &FrameworkView) -> &[RoleName] {
    match framework.state {
        FrameworkState::Completed => &[],
        _ => &framework.roles,
    }
}

/// Whether a task in this state takes part of its slave (semantics F4, F8).
fn holds_resources(state: TaskState) -> bool {
    !state.is_terminal() && state != TaskState::Unreachable
}

/// What can be summed over slaves: port 31000 of one slave is not that of another.
fn only_scalars(resources: &Resources) -> Resources {
    let mut sum = Resources::new();
    for one in resources
        .iter()
        .filter(|one| matches!(one.value(), Value::Scalar(_)))
    {
        sum.checked_add_assign(&Resources::from(one.clone()))
            .expect("part of a sum that fits");
    }
    sum
}
