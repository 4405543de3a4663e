//! A framework that gets work done: launches so many tasks over the offers that come, declines some,
//! holds some back, kills some, and is told the end of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::check::{Check, HealthCheck};
use meros_proto::executor::ExecutorDescription;
use meros_proto::group::TaskGroup;
use meros_proto::ids::{ExecutorId, OfferId, SlaveId, TaskId};
use meros_proto::message::master::ReconcileTask;
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar};
use meros_proto::status::TaskState;
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, News};

use super::App;
use super::claiming::Claiming;
use super::script::SERVICE_PREFIX;
use crate::fault::Memory;
use crate::plan::WorkloadPlan;
use crate::prng::Rng;

/// How often it looks at what it holds and has to do.
const ROUND: Duration = Duration::from_secs(20);

/// What it remembers of a task. Written down before the launch is sent.
#[derive(Debug, Clone)]
pub(crate) struct Believed {
    pub(crate) slave: Option<SlaveId>,
    /// Its end, once told.
    pub(crate) ended: Option<TaskState>,
    pub(crate) is_killed: bool,
}

/// The framework above the driver.
#[derive(Debug)]
pub(crate) struct Workload {
    plan: WorkloadPlan,
    name: String,
    rng: Rng,
    launched: u32,
    tasks: BTreeMap<TaskId, Believed>,
    held: Vec<(Timestamp, Offer)>,
    kills: BTreeMap<TaskId, Timestamp>,
    /// Acknowledgements that it takes its time for.
    late: Vec<(Timestamp, Call)>,
    round: Option<Timestamp>,
    claiming: Claiming,
    is_suppressed: bool,
    is_draining: bool,
}

impl Workload {
    pub(crate) fn new(plan: WorkloadPlan, name: String, rng: Rng) -> Self {
        Self {
            claiming: Claiming::new(plan.claims, rng.fork("claiming")),
            plan,
            name,
            rng,
            launched: 0,
            tasks: BTreeMap::new(),
            held: Vec::new(),
            kills: BTreeMap::new(),
            late: Vec::new(),
            round: None,
            is_suppressed: false,
            is_draining: false,
        }
    }

    fn on_offer(&mut self, offer: Offer, now: Timestamp, calls: &mut Vec<Call>) {
        if self.launched >= self.plan.tasks {
            if self.plan.suppresses && !std::mem::replace(&mut self.is_suppressed, true) {
                calls.push(Call::Suppress { roles: Vec::new() });
            }
            calls.push(self.decline(vec![offer.offer_id]));
        } else if self.rng.percent(self.plan.hoards) {
            let wait = self
                .rng
                .skewed(Duration::from_secs(1), Duration::from_secs(120));
            self.held.push((now.after(wait), offer));
        } else if self.rng.percent(self.plan.declines) {
            calls.push(self.decline(vec![offer.offer_id]));
        } else {
            let accept = self.accept(vec![offer], now);
            calls.push(accept);
        }
    }

    fn filters(&mut self) -> Filters {
        let refuse = Duration::from_millis(*self.rng.pick(&[0, 1_000, 5_000, 30_000]));
        Filters { refuse }
    }

    fn decline(&mut self, offer_ids: Vec<OfferId>) -> Call {
        let mut filters = self.filters();
        // With no pause at all, two who want nothing would pass an offer to and fro for ever.
        filters.refuse = filters.refuse.max(Duration::from_millis(500));
        Call::Decline { offer_ids, filters }
    }

    /// Uses offers of one slave for as many tasks as it likes and as fit.
    fn accept(&mut self, offers: Vec<Offer>, now: Timestamp) -> Call {
        let slave_id = offers[0].slave_id;
        let mut free = Resources::new();
        for offer in &offers {
            free.checked_add_assign(&offer.resources)
                .expect("parts of one slave");
        }
        let role = offers[0].role.clone();
        let mut operations = self.claiming.steps(&role, &mut free);
        let mut tasks = Vec::new();
        let mut started = BTreeSet::new();
        let wanted = self.plan.batch.min(self.plan.tasks - self.launched);
        for _ in 0..wanted {
            let mut resources = self.draw_resources(&free);
            if let Some(volume) = self.claiming.volume(&role, &free) {
                resources
                    .checked_add_assign(&volume)
                    .expect("small amounts");
            }
            let Some(resources) = free.take_fitting(&resources) else {
                break;
            };
            free.checked_sub_assign(&resources)
                .expect("taken from there");
            self.launched += 1;
            let prefix = if self.rng.percent(self.plan.services) {
                SERVICE_PREFIX
            } else {
                ""
            };
            let task_id = TaskId::new(format!("{prefix}{}-{}", self.name, self.launched))
                .expect("letters and digits");
            self.tasks.insert(
                task_id.clone(),
                Believed {
                    slave: Some(slave_id),
                    ended: None,
                    is_killed: false,
                },
            );
            if self.rng.percent(self.plan.regrets) {
                let wait = self
                    .rng
                    .skewed(Duration::from_millis(1), Duration::from_secs(5));
                self.kills.insert(task_id.clone(), now.after(wait));
            }
            let command = Command::shell("true");
            let mut task = TaskDescription::command(task_id, slave_id, resources, command);
            self.draw_checks(&mut task);
            self.draw_executor(&mut task, &mut started, &mut free);
            tasks.push(task);
        }
        let offer_ids = offers.iter().map(|offer| offer.offer_id).collect();
        if let Some(group) = self.draw_group(&mut tasks, &mut free) {
            operations.push(Operation::LaunchGroup(Box::new(group)));
        }
        if !tasks.is_empty() {
            operations.push(Operation::Launch(tasks));
        }
        if operations.is_empty() {
            return self.decline(offer_ids);
        }
        Call::Accept {
            offer_ids,
            operations,
            filters: self.filters(),
        }
    }

    /// Some tasks are checked; drawn apart, so that they are the same tasks.
    fn draw_checks(&self, task: &mut TaskDescription) {
        let mut rng = self.rng.fork("checks");
        let check = Check::tcp(80)
            .delay(rng.skewed(Duration::from_millis(1), Duration::from_secs(20)))
            .interval(rng.skewed(Duration::from_millis(100), Duration::from_secs(20)));
        if rng.percent(10) {
            task.health_check = Some(HealthCheck::new(check.clone()));
        }
        if rng.percent(10) {
            task.check = Some(check);
        }
    }

    /// Some tasks run in one of two executors; drawn apart, as checks are.
    fn draw_executor(
        &self,
        task: &mut TaskDescription,
        started: &mut BTreeSet<ExecutorId>,
        free: &mut Resources,
    ) {
        let mut rng = self.rng.fork("executors");
        let has_volume = task.resources.iter().any(|it| it.volume().is_some());
        if has_volume || !rng.percent(self.plan.executors) {
            return;
        }
        let name = format!("{}-e{}", self.name, rng.below(2));
        let executor_id = ExecutorId::new(name).expect("letters and digits");
        let resources: Resources = "cpus:0.1;mem:32".parse().expect("written well here");
        // It may be there already; then this is left over.
        let is_here = started.contains(&executor_id);
        if !is_here {
            if free.checked_sub_assign(&resources).is_err() {
                return;
            }
            started.insert(executor_id.clone());
        }
        let command = Command::shell("exec ./executor");
        task.command = None;
        task.health_check = None;
        task.check = None;
        task.executor = Some(ExecutorDescription::new(executor_id, command, resources));
    }

    /// Sometimes the command tasks of an accept are a group; drawn apart, as executors are.
    fn draw_group(
        &self,
        tasks: &mut Vec<TaskDescription>,
        free: &mut Resources,
    ) -> Option<TaskGroup> {
        let mut rng = self.rng.fork("groups");
        if tasks.is_empty() || !rng.percent(self.plan.groups) {
            return None;
        }
        let resources: Resources = match rng.percent(50) {
            true => "cpus:0.1;mem:32".parse().expect("written well here"),
            false => Resources::new(),
        };
        free.checked_sub_assign(&resources).ok()?;
        let of_commands = |task: &mut TaskDescription| task.command.is_some();
        let members: Vec<TaskDescription> = tasks.extract_if(.., of_commands).collect();
        let name = format!("{}-g{}", self.name, self.launched);
        let group_id = ExecutorId::new(name).expect("letters and digits");
        (!members.is_empty()).then(|| TaskGroup {
            executor: ExecutorDescription::group(group_id, resources),
            tasks: members,
        })
    }

    fn draw_resources(&mut self, free: &Resources) -> Resources {
        let mut scalar = |name: &str, most: u64| {
            let name: ResourceName = name.parse().expect("a name");
            let amount = i64::try_from(self.rng.between(100, most)).expect("small");
            let amount = Scalar::from_thousandths(amount).expect("positive");
            Resource::new(name, amount).expect("a scalar")
        };
        let mut resources = Resources::from(scalar("cpus", 2_000));
        let mem = Resources::from(scalar("mem", 512_000));
        resources.checked_add_assign(&mem).expect("small amounts");
        let ports = free.ports().take(1);
        if !ports.is_empty() && self.rng.percent(30) {
            let name: ResourceName = "ports".parse().expect("a name");
            let port = Resources::from(Resource::new(name, ports).expect("ranges"));
            resources.checked_add_assign(&port).expect("one port");
        }
        resources
    }

    fn release_held(&mut self, now: Timestamp, calls: &mut Vec<Call>) {
        while let Some(at) = self.held.iter().position(|(until, _)| *until <= now) {
            let (_, first) = self.held.remove(at);
            let mut offers = vec![first];
            // All it holds of that slave, in one accept.
            self.held.retain(|(_, offer)| {
                let joins = offer.slave_id == offers[0].slave_id && offer.role == offers[0].role;
                if joins {
                    offers.push(offer.clone());
                }
                !joins
            });
            let call = match self.launched < self.plan.tasks {
                true => self.accept(offers, now),
                false => self.decline(offers.iter().map(|offer| offer.offer_id).collect()),
            };
            calls.push(call);
        }
    }

    fn go_round(&mut self, calls: &mut Vec<Call>) {
        if self.is_draining {
            let services: Vec<TaskId> = self
                .live()
                .filter(|(task_id, it)| {
                    task_id.as_str().starts_with(SERVICE_PREFIX) && !it.is_killed
                })
                .map(|(task_id, _)| task_id.clone())
                .collect();
            for task_id in services {
                self.kill(task_id, calls);
            }
        }
        if self.launched < self.plan.tasks && self.rng.percent(20) {
            calls.push(Call::Revive { roles: Vec::new() });
        }
        if self.rng.percent(self.plan.asks) {
            calls.push(Call::Reconcile { tasks: Vec::new() });
        }
    }

    /// Asks once: that it arrives is the driver's and the master's business.
    fn kill(&mut self, task_id: TaskId, calls: &mut Vec<Call>) {
        if let Some(task) = self.tasks.get_mut(&task_id).filter(|it| it.ended.is_none()) {
            task.is_killed = true;
            let grace = *self.rng.pick(&[
                None,
                None,
                Some(Duration::ZERO),
                Some(Duration::from_secs(1)),
            ]);
            calls.push(Call::Kill { task_id, grace });
        }
    }
}

impl App for Workload {
    fn restart(&mut self, memory: Memory, _now: Timestamp) -> Vec<Call> {
        self.held.clear();
        self.kills.clear();
        self.late.clear();
        self.round = None;
        self.is_suppressed = false;
        if memory != Memory::Everything {
            self.tasks.clear();
        }
        // Whom to kill is remembered by the driver, which is new.
        self.tasks.values_mut().for_each(|it| it.is_killed = false);
        let tasks: Vec<ReconcileTask> = self
            .live()
            .map(|(task_id, it)| ReconcileTask {
                task_id: task_id.clone(),
                slave_id: it.slave,
            })
            .collect();
        match tasks.is_empty() {
            true => Vec::new(),
            false => vec![Call::Reconcile { tasks }],
        }
    }

    fn drain(&mut self, now: Timestamp) {
        self.is_draining = true;
        self.round = Some(now);
    }

    fn has_launched_all(&self) -> bool {
        self.launched >= self.plan.tasks
    }

    fn live(&self) -> Box<dyn Iterator<Item = (&TaskId, &Believed)> + '_> {
        Box::new(self.tasks.iter().filter(|(_, it)| it.ended.is_none()))
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let held = self.held.iter().map(|(until, _)| *until);
        let kills = self.kills.values().copied();
        let late = self.late.iter().map(|(at, _)| *at);
        held.chain(kills).chain(late).chain(self.round).min()
    }

    fn thinking(&mut self) -> Duration {
        self.rng.duration(Duration::ZERO, self.plan.thinking)
    }

    fn on_news(&mut self, news: News, now: Timestamp) -> Vec<Call> {
        match news {
            News::Subscribed { .. } => {
                self.held.clear();
                self.round = Some(now.after(ROUND));
                Vec::new()
            }
            News::Disconnected { .. } | News::Ended(_) => {
                self.held.clear();
                Vec::new()
            }
            News::Offers(offers) => {
                let mut calls = Vec::new();
                for offer in offers {
                    self.on_offer(offer, now, &mut calls);
                }
                calls
            }
            News::Rescinded(offer_id) => {
                self.held.retain(|(_, offer)| offer.offer_id != offer_id);
                Vec::new()
            }
            News::Update(status) => {
                let task = self
                    .tasks
                    .entry(status.task_id.clone())
                    .or_insert(Believed {
                        slave: status.slave_id,
                        ended: None,
                        is_killed: false,
                    });
                let task_has_ended = task.ended.is_some();
                if status.state.is_terminal() {
                    task.ended.get_or_insert(status.state);
                    self.kills.remove(&status.task_id);
                } else if status.state == TaskState::Running
                    && !task.is_killed
                    && self.rng.percent(self.plan.kills)
                {
                    let wait = self
                        .rng
                        .skewed(Duration::from_millis(10), Duration::from_secs(20));
                    self.kills.insert(status.task_id.clone(), now.after(wait));
                }
                if self.is_draining {
                    self.round = Some(now);
                }
                // It was said to be lost, in another life of this framework: semantics F5.
                let is_back = !status.state.is_terminal() && task_has_ended;
                let mut calls = Vec::new();
                if is_back {
                    calls.push(Call::Kill {
                        task_id: status.task_id.clone(),
                        grace: None,
                    });
                }
                let lingers = !status.state.is_terminal() && self.rng.percent(self.plan.lingers);
                let acknowledge = Call::Acknowledge {
                    slave_id: status.slave_id,
                    task_id: status.task_id,
                    update_id: status.update_id,
                };
                if lingers {
                    let wait = self
                        .rng
                        .skewed(Duration::from_millis(10), Duration::from_secs(5));
                    self.late.push((now.after(wait), acknowledge));
                } else {
                    calls.push(acknowledge);
                }
                calls
            }
            News::ConnectFailed { .. }
            | News::SlaveLost(_)
            | News::ExecutorEnded { .. }
            | News::ExecutorMessage { .. }
            | News::Refused { .. }
            | News::Operation(_) => Vec::new(),
        }
    }

    fn on_wake(&mut self, now: Timestamp) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(at) = self.late.iter().position(|(at, _)| *at <= now) {
            calls.push(self.late.remove(at).1);
        }
        self.release_held(now, &mut calls);
        let due: Vec<TaskId> = self
            .kills
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(task_id, _)| task_id.clone())
            .collect();
        for task_id in due {
            self.kills.remove(&task_id);
            self.kill(task_id, &mut calls);
        }
        if self.round.is_some_and(|at| at <= now) {
            self.round = Some(now.after(ROUND));
            self.go_round(&mut calls);
        }
        calls
    }
}
