//! A framework of a scenario: tasks come, wait for offers, run and end. How it treats offers is its
//! decline policy; how long it takes to decide is its decision time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::framework::{FrameworkCapability, FrameworkDescription};
use meros_proto::ids::{FrameworkId, OfferId, TaskId};
use meros_proto::message::master::{CALL_ITEMS_MAX, ReconcileTask};
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, News};

use super::amounts::{Amounts, GPUS};
use super::arrivals::{Arrivals, Arrived, Listed, Runs, Source};
use super::record::Record;
use super::trace::MODEL;
use super::waiting::{Pending, Waiting};
use crate::behaviour::script::Script;
use crate::behaviour::{App, Believed};
use crate::clock::START;
use crate::fault::Memory;
use crate::prng::Rng;

/// Tasks that wait in one framework; more are refused and counted.
pub(crate) const PENDING_MAX: usize = 1_000_000;
/// What a framework does with offers.
#[derive(Debug, Clone)]
pub(crate) struct OfferPolicy {
    /// How long an offer that is not used yet is kept; None: until it is taken back.
    pub(crate) hold: Option<Duration>,
    /// For how long it declines.
    pub(crate) refuse: Duration,
    /// Whether it says that it wants none while it has nothing to run.
    pub(crate) suppress: bool,
    /// The most tasks in one accept.
    pub(crate) tasks_per_offer: usize,
}

/// Work of one kind.
#[derive(Debug, Clone)]
pub(crate) struct WorkPlan {
    pub(crate) arrivals: Arrivals,
    pub(crate) resources: Arc<Resources>,
    pub(crate) runs: Runs,
    /// Of a million tasks so many end with a failure.
    pub(crate) fails_ppm: u64,
    /// From the order to the first process.
    pub(crate) start: Duration,
}

impl WorkPlan {
    fn wants_gpus(&self) -> bool {
        let gpus = |resources: &Resources| Amounts::of(resources).0[GPUS] > 0;
        match &self.arrivals {
            Arrivals::Listed(list) => list.iter().any(|it| gpus(&it.resources)),
            _ => gpus(&self.resources),
        }
    }
}

/// A framework.
#[derive(Debug, Clone)]
pub(crate) struct JobsPlan {
    pub(crate) name: String,
    pub(crate) role: RoleName,
    pub(crate) policy: OfferPolicy,
    /// From having both work and offers to the accept; one decision at a time.
    pub(crate) decision: Duration,
    pub(crate) work: Vec<WorkPlan>,
}

impl JobsPlan {
    /// As it describes itself.
    pub(crate) fn describe(&self, id: Option<FrameworkId>) -> FrameworkDescription {
        let mut framework = FrameworkDescription::new(self.name.clone(), self.role.clone());
        framework.framework_id = id;
        if self.work.iter().any(WorkPlan::wants_gpus) {
            // Others are not offered slaves that have some (semantics E2).
            framework
                .capabilities
                .push(FrameworkCapability::GpuResources);
        }
        framework
    }
}

/// A task that was launched.
#[derive(Debug)]
struct Live {
    task: Pending,
    believed: Believed,
    has_started: bool,
}

/// How many of a group of a list are still to end, and how many groups it waits for itself.
#[derive(Debug, Clone, Copy)]
struct Group {
    unfinished: u32,
    waits_for: u32,
}

/// The framework above the driver.
#[derive(Debug)]
pub(crate) struct Jobs {
    name: String,
    policy: OfferPolicy,
    decision: Duration,
    work: Vec<WorkPlan>,
    rng: Rng,
    sources: Vec<Source>,
    /// Of each source that is a list.
    groups: Vec<Vec<Group>>,
    pending: Waiting,
    /// The oldest first, by their numbers; until when they are kept.
    held: BTreeMap<OfferId, (Option<Timestamp>, Offer)>,
    live: BTreeMap<TaskId, Live>,
    decides_at: Option<Timestamp>,
    launched: u64,
    is_suppressed: bool,
    record: Record,
}

impl Jobs {
    pub(crate) fn new(plan: &JobsPlan, rng: Rng) -> Self {
        let sources: Vec<Source> = plan
            .work
            .iter()
            .enumerate()
            .map(|(at, work)| {
                let rng = rng.fork(&format!("arrivals{at}"));
                Source::new(work.arrivals.clone(), rng, START)
            })
            .collect();
        let groups = sources.iter().map(|source| {
            let list = source.list().map_or(&[][..], |list| list);
            let group = |it: &Listed| Group {
                unfinished: it.count,
                waits_for: it.waits_for,
            };
            list.iter().map(group).collect()
        });
        Self {
            name: plan.name.clone(),
            policy: plan.policy.clone(),
            decision: plan.decision,
            work: plan.work.clone(),
            groups: groups.collect(),
            sources,
            rng,
            pending: Waiting::default(),
            held: BTreeMap::new(),
            live: BTreeMap::new(),
            decides_at: None,
            launched: 0,
            is_suppressed: false,
            record: Record::default(),
        }
    }

    // ---- work comes -----------------------------------------------------------------------

    /// Takes in the work that has come.
    fn take_arrivals(&mut self, now: Timestamp) {
        for source in 0..self.sources.len() {
            while self.sources[source].next().is_some_and(|due| due <= now) {
                let ready = self.sources[source].next().expect("looked at above");
                match self.sources[source].take(now, START) {
                    Arrived::Count(count) => {
                        (0..count).for_each(|_| self.submit_drawn(source, ready));
                    }
                    Arrived::Listed(places) => {
                        for place in places {
                            self.release(source, place, ready, false);
                        }
                    }
                }
            }
        }
    }

    fn submit_drawn(&mut self, source: usize, ready: Timestamp) {
        let work = &self.work[source];
        let task = Pending {
            resources: work.resources.clone(),
            models: None,
            runs: work.runs.draw(&mut self.rng),
            fails: self.rng.below(1_000_000) < work.fails_ppm,
            start: work.start,
            ready,
            source,
            place: None,
        };
        self.submit(task);
    }

    fn submit(&mut self, task: Pending) {
        if self.pending.len() >= PENDING_MAX {
            self.record.rejected += 1;
            return;
        }
        self.record.submitted += 1;
        self.pending.push(task);
    }

    /// A group of a list has come, or one that it waits for has ended: ready when both are true.
    fn release(&mut self, source: usize, place: usize, now: Timestamp, is_unlocked: bool) {
        let Some(list) = self.sources[source].list().cloned() else {
            return;
        };
        let group = &mut self.groups[source][place];
        if is_unlocked {
            group.waits_for -= 1;
        }
        let listed = &list[place];
        // What is unlocked before its own time comes with its time.
        if group.waits_for > 0 || START.after(listed.at) > now {
            return;
        }
        let number = u32::try_from(place).expect("lists are bounded");
        for _ in 0..listed.count {
            self.submit(Pending {
                resources: listed.resources.clone(),
                models: listed.models.clone(),
                runs: listed.runs,
                fails: false,
                start: self.work[source].start,
                ready: now,
                source,
                place: Some(number),
            });
        }
    }

    /// A task of a list has ended; what waited for its group may be ready.
    fn on_listed_end(&mut self, source: usize, place: u32, now: Timestamp) {
        let at = usize::try_from(place).expect("places are lengths");
        let group = &mut self.groups[source][at];
        group.unfinished -= 1;
        if group.unfinished > 0 {
            return;
        }
        let Some(list) = self.sources[source].list().cloned() else {
            return;
        };
        for next in &list[at].unlocks {
            let next = usize::try_from(*next).expect("places are lengths");
            self.release(source, next, now, true);
        }
    }

    // ---- offers come ----------------------------------------------------------------------

    fn on_offers(&mut self, offers: Vec<Offer>, now: Timestamp) {
        let until = self.policy.hold.map(|hold| now.after(hold));
        for offer in offers {
            self.record.offers += 1;
            self.held.insert(offer.offer_id, (until, offer));
        }
    }

    /// Decides now, or begins to think about it.
    fn consider(&mut self, now: Timestamp, calls: &mut Vec<Call>) {
        if !self.pending.is_empty() && self.is_suppressed {
            self.is_suppressed = false;
            calls.push(Call::Revive { roles: Vec::new() });
        }
        let has_both = !self.pending.is_empty() && !self.held.is_empty();
        if has_both && !self.decision.is_zero() && self.decides_at.is_none() {
            self.decides_at = Some(now.after(self.decision));
        }
        let decides = self.decides_at.is_none_or(|at| at <= now);
        if decides {
            self.decides_at = None;
            if has_both {
                self.place(calls);
            }
            self.put_back(now, calls);
        }
    }

    /// Puts tasks that wait on offers that are held.
    fn place(&mut self, calls: &mut Vec<Call>) {
        let mut last = None;
        while !self.pending.is_empty() {
            let from = last.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = self.held.range((from, Bound::Unbounded));
            let Some(offer_id) = rest.next().map(|(offer_id, _)| *offer_id) else {
                break;
            };
            last = Some(offer_id);
            let tasks = self.choose(offer_id);
            if tasks.is_empty() {
                continue;
            }
            self.held.remove(&offer_id);
            self.record.accepted += 1;
            calls.push(Call::Accept {
                offer_ids: vec![offer_id],
                operations: vec![Operation::Launch(tasks)],
                // What is left is welcome to everybody at once, to us as well.
                filters: Filters {
                    refuse: Duration::ZERO,
                },
            });
        }
    }

    /// Those that wait and fit this offer.
    fn choose(&mut self, offer_id: OfferId) -> Vec<TaskDescription> {
        let (_, offer) = &self.held[&offer_id];
        let slave_id = offer.slave_id;
        let model = offer.attributes.value(MODEL);
        let mut free = offer.resources.clone();
        let reserved = free.iter().any(|resource| !resource.is_unreserved());
        let most = self.policy.tasks_per_offer.min(CALL_ITEMS_MAX);
        let mut tasks = Vec::new();
        let mut passed_over = BTreeSet::new();
        while tasks.len() < most {
            let fits = |task: &Pending| {
                let suits = task.suits(model);
                suits.then(|| take(&mut free, &task.resources, reserved))?
            };
            let Some((task, resources)) = self.pending.take_first(fits, &mut passed_over) else {
                break;
            };
            self.launched += 1;
            self.record.launched += 1;
            let task_id = TaskId::new(format!("{}-{}", self.name, self.launched))
                .expect("names of scenarios are letters, digits and dashes");
            let command = Command::shell("true");
            let mut description =
                TaskDescription::command(task_id.clone(), slave_id, resources, command);
            description.data = Script::encode(task.start, task.runs, i32::from(task.fails)).into();
            tasks.push(description);
            let believed = Believed {
                slave: Some(slave_id),
                ended: None,
                is_killed: false,
            };
            let live = Live {
                task,
                believed,
                has_started: false,
            };
            self.live.insert(task_id, live);
        }
        tasks
    }

    /// Gives back what is of no use, or has been kept for long enough.
    fn put_back(&mut self, now: Timestamp, calls: &mut Vec<Call>) {
        let Some(_) = self.policy.hold else {
            return;
        };
        // While tasks wait, offers that have just been passed over are for nothing. Else the first
        // to come is the first to go.
        let all = !self.pending.is_empty();
        let mut offer_ids = Vec::new();
        while let Some(first) = self.held.first_entry()
            && (all || first.get().0.is_some_and(|until| until <= now))
        {
            offer_ids.push(first.remove_entry().0);
        }
        for offer_ids in offer_ids.chunks(CALL_ITEMS_MAX) {
            self.record.declined += offer_ids.iter().map(|_| 1).sum::<u64>();
            calls.push(Call::Decline {
                offer_ids: offer_ids.to_vec(),
                filters: Filters {
                    refuse: self.policy.refuse,
                },
            });
        }
        let is_idle = self.pending.is_empty() && !offer_ids.is_empty();
        if is_idle && self.policy.suppress && !self.is_suppressed {
            self.is_suppressed = true;
            calls.push(Call::Suppress { roles: Vec::new() });
        }
    }

    // ---- tasks run ------------------------------------------------------------------------

    fn on_update(&mut self, status: TaskStatus, now: Timestamp, calls: &mut Vec<Call>) {
        let is_over = status.state.is_terminal() || status.state == TaskState::Unreachable;
        match self.live.get_mut(&status.task_id) {
            Some(live) if is_over => {
                let fails = live.task.fails;
                let live = self.live.remove(&status.task_id).expect("found above");
                let again = self.record.on_end(status.state, fails);
                if again {
                    let ready = now;
                    self.submit(Pending { ready, ..live.task });
                } else if let Some(place) = live.task.place {
                    self.on_listed_end(live.task.source, place, now);
                }
            }
            Some(live) if status.state == TaskState::Running && !live.has_started => {
                live.has_started = true;
                self.record.started += 1;
                let wait = now.since(live.task.ready);
                self.record.waits.push(crate::prng::micros(wait));
            }
            Some(_) => {}
            // One that was given up has come back, and another one runs for it.
            None if !is_over => calls.push(Call::Kill {
                task_id: status.task_id.clone(),
                grace: None,
            }),
            None => {}
        }
        calls.push(Call::Acknowledge {
            slave_id: status.slave_id,
            task_id: status.task_id,
            update_id: status.update_id,
        });
    }

    fn count(&mut self) {
        let length = |len: usize| u64::try_from(len).expect("lengths fit 64 bits");
        self.record.pending = length(self.pending.len());
        self.record.live = length(self.live.len());
    }
}

/// Takes so much out of what is free; None if there is not enough.
fn take(free: &mut Resources, want: &Resources, reserved: bool) -> Option<Resources> {
    // Most offers have nothing that is reserved, and this is much cheaper.
    let taken = match reserved {
        true => free.take_fitting(want)?,
        false => want.clone(),
    };
    free.checked_sub_assign(&taken).ok()?;
    Some(taken)
}

impl App for Jobs {
    fn restart(&mut self, _memory: Memory, _now: Timestamp) -> Vec<Call> {
        self.held.clear();
        self.decides_at = None;
        self.is_suppressed = false;
        let ask = |(task_id, live): (&TaskId, &Live)| ReconcileTask {
            task_id: task_id.clone(),
            slave_id: live.believed.slave,
        };
        let tasks: Vec<ReconcileTask> = self.live.iter().map(ask).collect();
        match tasks.is_empty() {
            true => Vec::new(),
            false => vec![Call::Reconcile { tasks }],
        }
    }

    fn drain(&mut self, _now: Timestamp) {
        self.pending.clear();
    }

    fn has_launched_all(&self) -> bool {
        self.pending.is_empty() && self.sources.iter().all(|source| source.next().is_none())
    }

    fn live(&self) -> Box<dyn Iterator<Item = (&TaskId, &Believed)> + '_> {
        Box::new(self.live.iter().map(|(id, live)| (id, &live.believed)))
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let arrivals = self.sources.iter().filter_map(Source::next);
        // The first to come is the first to go; while it thinks, nothing goes.
        let first = self.held.first_key_value();
        let held = first.and_then(|(_, (until, _))| *until);
        let acts = self.decides_at.or(held);
        arrivals.chain(acts).min()
    }

    fn thinking(&mut self) -> Duration {
        Duration::ZERO
    }

    fn on_news(&mut self, news: News, now: Timestamp) -> Vec<Call> {
        let mut calls = Vec::new();
        match news {
            News::Subscribed { .. } | News::Disconnected { .. } | News::Ended(_) => {
                self.held.clear();
                self.decides_at = None;
            }
            News::Offers(offers) => self.on_offers(offers, now),
            News::Rescinded(offer_id) => {
                if self.held.remove(&offer_id).is_some() {
                    self.record.rescinded += 1;
                }
            }
            News::Update(status) => self.on_update(status, now, &mut calls),
            News::ConnectFailed { .. }
            | News::ExecutorEnded { .. }
            | News::ExecutorMessage { .. }
            | News::SlaveLost(_)
            | News::Refused { .. }
            | News::Operation(_) => {}
        }
        self.consider(now, &mut calls);
        self.count();
        calls
    }

    fn on_wake(&mut self, now: Timestamp) -> Vec<Call> {
        let mut calls = Vec::new();
        self.take_arrivals(now);
        self.consider(now, &mut calls);
        self.count();
        calls
    }

    fn record(&self) -> Option<&Record> {
        Some(&self.record)
    }
}
