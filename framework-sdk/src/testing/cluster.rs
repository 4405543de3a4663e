//! A simulated cluster with the programs of the frameworks under test.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use meros_proto::ids::FrameworkId;
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::TaskState;
use meros_sdk_core::EndReason;
use meros_sim::kit::{
    Broken, Datacenter, FrameworkSetting, GuestId, SPINNING, SlaveView, Step, TaskView,
};

use super::builder::Builder;
use super::program::{Program, Typed};
use super::seeds::replay;
use crate::config::SessionConfig;
use crate::scheduler::{Actions, Scheduler};

/// How long [`Cluster::settle`] waits: a lost launch is found by the reconciliation every 15 min, and
/// an update is repeated every 10 min at the most.
const SETTLE_MAX: Duration = Duration::from_secs(2 * 3_600);
/// Between two looks at whether everything is in order.
const SETTLE_STEP: Duration = Duration::from_secs(1);
/// In a cluster that goes on working there is always something under way: what is not in order for
/// this long is not under way.
const SETTLE_WINDOW: Duration = Duration::from_secs(30);

/// A simulated cluster; see the [module](super).
pub struct Cluster {
    pub(super) datacenter: Datacenter,
    programs: Vec<Box<dyn Program>>,
}

/// A framework in a [`Cluster`]: index the cluster with it to get at its scheduler.
pub struct Framework<S> {
    pub(super) id: GuestId,
    marker: PhantomData<fn() -> S>,
}

impl<S> Clone for Framework<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Framework<S> {}

impl<S> fmt::Debug for Framework<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framework({})", self.id.index())
    }
}

impl Cluster {
    /// What it is to be made of.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(datacenter: Datacenter) -> Self {
        Self {
            datacenter,
            programs: Vec::new(),
        }
    }

    /// Starts a framework of this name, with the role `*` and the defaults of
    /// [`SessionConfig::new`]. `make` makes its scheduler, now and whenever its program starts again
    /// after a crash.
    #[track_caller]
    pub fn framework<S: Scheduler + 'static>(
        &mut self,
        name: &str,
        make: impl FnMut() -> S + 'static,
    ) -> Framework<S> {
        self.framework_with(SessionConfig::new(name, Vec::new(), ""), make)
    }

    /// Starts a framework with the configuration that it has in production: its description, its
    /// suppressed roles and wishes, who acknowledges, how long it declines when idle, and whether it has a state
    /// file: with one, its program is the same framework when it starts again. Masters, identity and
    /// framework id are not looked at, and no file is read or written.
    #[track_caller]
    pub fn framework_with<S: Scheduler + 'static>(
        &mut self,
        config: SessionConfig,
        make: impl FnMut() -> S + 'static,
    ) -> Framework<S> {
        let id = self.datacenter.add(FrameworkSetting {
            framework: config.framework.clone(),
            suppressed_roles: config.suppressed_roles.clone(),
            wishes: config.wishes.clone(),
            thinking_max: Duration::ZERO,
            keeps_id: config.state_file.is_some(),
        });
        self.programs.push(Box::new(Typed::new(config, make)));
        Framework {
            id,
            marker: PhantomData,
        }
    }

    // ---- time -----------------------------------------------------------------------------

    /// Lets so much simulated time pass.
    ///
    /// # Panics
    /// As everything that lets time pass: an invariant of Meros is broken, a scheduler panics, or the
    /// cluster goes round in circles.
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) {
        let until = self.elapsed().saturating_add(time);
        while self.step(until) {}
    }

    /// Lets time pass until the condition holds, which is looked at after every event. Returns how
    /// long it took.
    ///
    /// # Panics
    /// It does not hold within this limit; see also [`Cluster::run_for`].
    #[track_caller]
    pub fn run_until(&mut self, limit: Duration, condition: impl FnMut(&Self) -> bool) -> Duration {
        let from = self.elapsed();
        let holds = self.reaches(limit, condition);
        assert!(
            holds,
            "what was waited for has not come within {limit:?} of simulated time"
        );
        self.elapsed() - from
    }

    /// As [`Cluster::run_until`], but it may not come: false then.
    #[track_caller]
    pub fn reaches(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let until = self.elapsed().saturating_add(limit);
        loop {
            if condition(self) {
                return true;
            }
            if !self.step(until) {
                return false;
            }
        }
    }

    /// Ends all faults, and lets time pass until everybody is of one mind: slaves are back,
    /// frameworks subscribed, and scheduler, driver, master and slaves have the same tasks.
    ///
    /// # Panics
    /// That does not come within two hours of simulated time; see also [`Cluster::run_for`].
    #[track_caller]
    pub fn settle(&mut self) {
        self.heal();
        let begun = self.elapsed();
        // What is not in order, since when.
        let mut since: BTreeMap<String, Duration> = BTreeMap::new();
        loop {
            self.run_for(SETTLE_STEP);
            let now = self.elapsed();
            let open = self.datacenter.unsettled();
            since.retain(|what, _| open.contains(what));
            for what in open {
                since.entry(what).or_insert(now);
            }
            let is_fleeting = since.values().all(|since| now - *since < SETTLE_WINDOW);
            if since.is_empty() || (is_fleeting && now - begun >= SETTLE_WINDOW * 2) {
                return;
            }
            let list = || {
                since
                    .keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join("; ")
            };
            assert!(
                now - begun < SETTLE_MAX,
                "not in order {SETTLE_MAX:?} after the last fault: {}. Unless a framework does not \
                 acknowledge its updates, Meros itself is at fault: please report it",
                list()
            );
        }
    }

    /// Simulated time since the cluster was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.datacenter.elapsed()
    }

    /// The same for runs in which the same happened in the same order: two runs of one test with one
    /// seed have the same.
    #[must_use]
    pub fn event_hash(&self) -> u64 {
        self.datacenter.hash()
    }

    /// What happened last, a line each: what frameworks were told and asked for, and faults.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        self.datacenter.story()
    }

    /// Something happens; false if nothing does until then.
    #[track_caller]
    fn step(&mut self, until: Duration) -> bool {
        let step = sound(self.datacenter.step(until));
        match step {
            Step::Reached => return false,
            Step::Elsewhere => {}
            Step::Restarted(id) => self.programs[id.index()].renew(),
            Step::Told(id, news) => {
                let calls = self.programs[id.index()].react(*news);
                sound(self.datacenter.call(id, calls));
            }
        }
        true
    }

    // ---- schedulers -----------------------------------------------------------------------

    /// Lets a scheduler do something on its own account, as a program does with a
    /// [`Handle`](crate::Handle): give it work, and let it revive or kill. Nothing is carried out
    /// while its program is down.
    ///
    /// # Panics
    /// The framework is of another cluster.
    #[track_caller]
    pub fn act<S: Scheduler + 'static, R>(
        &mut self,
        framework: Framework<S>,
        act: impl FnOnce(&mut S, &mut Actions) -> R,
    ) -> R {
        let mut actions = Actions::default();
        let typed = self.typed_mut(framework);
        let result = act(&mut typed.scheduler, &mut actions);
        let calls = actions.into_calls(typed.config.idle_refuse);
        sound(self.datacenter.call(framework.id, calls));
        result
    }

    #[track_caller]
    fn typed<S: Scheduler + 'static>(&self, framework: Framework<S>) -> &Typed<S> {
        let program = self.programs.get(framework.id.index());
        let typed = program.and_then(|program| {
            let program: &dyn Any = &**program;
            program.downcast_ref()
        });
        typed.expect("a framework is used with the cluster that it was made by")
    }

    #[track_caller]
    pub(super) fn typed_mut<S: Scheduler + 'static>(
        &mut self,
        framework: Framework<S>,
    ) -> &mut Typed<S> {
        let program = self.programs.get_mut(framework.id.index());
        let typed = program.and_then(|program| {
            let program: &mut dyn Any = &mut **program;
            program.downcast_mut()
        });
        typed.expect("a framework is used with the cluster that it was made by")
    }

    // ---- how things stand -----------------------------------------------------------------

    /// All tasks that a framework has launched, in all its lives, by their ids.
    #[must_use]
    pub fn tasks<S>(&self, framework: Framework<S>) -> Vec<TaskView> {
        self.datacenter.tasks(framework.id)
    }

    /// One task of a framework.
    ///
    /// # Panics
    /// It has launched no such task.
    #[must_use]
    #[track_caller]
    pub fn task<S>(&self, framework: Framework<S>, task_id: &str) -> TaskView {
        let tasks = self.tasks(framework);
        let found = tasks.iter().find(|task| task.task_id.as_str() == task_id);
        found.cloned().unwrap_or_else(|| {
            let known: Vec<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
            let name = self.datacenter.name(framework.id);
            panic!("{name} has launched no {task_id:?}, only {known:?}")
        })
    }

    /// The state in which each task of a framework was told last.
    #[must_use]
    pub fn task_states<S>(&self, framework: Framework<S>) -> BTreeMap<String, TaskState> {
        let tasks = self.tasks(framework).into_iter();
        tasks
            .map(|task| (task.task_id.as_str().to_owned(), task.told))
            .collect()
    }

    /// How many tasks of a framework have been told to be in this state last.
    #[must_use]
    pub fn count<S>(&self, framework: Framework<S>, state: TaskState) -> usize {
        let tasks = self.tasks(framework);
        tasks.iter().filter(|task| task.told == state).count()
    }

    /// How many tasks of a framework are there, on all slaves, also on those that are cut off.
    #[must_use]
    pub fn running<S>(&self, framework: Framework<S>) -> usize {
        let tasks = self.tasks(framework);
        tasks.iter().filter(|task| task.runs).count()
    }

    /// The offers that a framework was told of and has neither used nor given back.
    #[must_use]
    pub fn offers<S>(&self, framework: Framework<S>) -> Vec<Offer> {
        self.datacenter.offers(framework.id)
    }

    /// The calls of a framework that were refused, by their names, and why. Most are bugs of the
    /// framework; an accept may also meet an offer that has just been rescinded.
    #[must_use]
    pub fn refusals<S>(&self, framework: Framework<S>) -> Vec<(String, Refusal)> {
        self.datacenter.refusals(framework.id)
    }

    /// The id of a framework, once it has one.
    #[must_use]
    pub fn framework_id<S>(&self, framework: Framework<S>) -> Option<FrameworkId> {
        self.datacenter.framework_id(framework.id)
    }

    /// Whether the subscription of a framework holds, as far as it was told.
    #[must_use]
    pub fn is_subscribed<S>(&self, framework: Framework<S>) -> bool {
        self.datacenter.is_subscribed(framework.id)
    }

    /// Why the session of a framework has ended, if it has.
    #[must_use]
    pub fn ended<S>(&self, framework: Framework<S>) -> Option<EndReason> {
        self.datacenter.ended(framework.id)
    }

    /// All slaves.
    #[must_use]
    pub fn slaves(&self) -> Vec<SlaveView> {
        self.datacenter.slaves()
    }

    /// What tasks take, on all slaves together. Ports and sets of different slaves count as one.
    #[must_use]
    pub fn used(&self) -> Resources {
        let mut sum = Resources::new();
        for slave in self.slaves() {
            if let Ok(more) = sum.checked_add(&slave.used) {
                sum = more;
            }
        }
        sum
    }

    /// Prints what happened last, for a test that has failed.
    fn explain(&self) {
        let seed = self.datacenter.seed();
        let at = self.elapsed().as_secs_f64();
        eprintln!("\nwhat happened last in the simulated cluster (seed {seed}, after {at:.3} s):");
        for line in self.story() {
            eprintln!("{line}");
        }
        for number in 0..self.programs.len() {
            let id = self.datacenter.guest_at(number);
            let name = self.datacenter.name(id);
            let tasks = self.datacenter.tasks(id);
            let task = |task: &TaskView| {
                let runs = if task.runs { ", runs" } else { "" };
                format!(
                    "{} ({} on {}{runs})",
                    task.task_id, task.told, task.hostname
                )
            };
            let tasks: Vec<String> = tasks.iter().map(task).collect();
            eprintln!("tasks of {name}: {}", tasks.join(", "));
        }
        if let Some(line) = replay(seed) {
            eprintln!("this seed alone: {line}");
        }
    }
}

impl Drop for Cluster {
    /// A test that fails tells what has led to it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("seed", &self.datacenter.seed())
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

impl<S: Scheduler + 'static> Index<Framework<S>> for Cluster {
    type Output = S;

    #[track_caller]
    fn index(&self, framework: Framework<S>) -> &S {
        &self.typed(framework).scheduler
    }
}

impl<S: Scheduler + 'static> IndexMut<Framework<S>> for Cluster {
    #[track_caller]
    fn index_mut(&mut self, framework: Framework<S>) -> &mut S {
        &mut self.typed_mut(framework).scheduler
    }
}

/// What the datacenter says, if nothing is wrong with Meros.
#[track_caller]
pub(super) fn sound<T>(result: Result<T, Broken>) -> T {
    match result {
        Ok(value) => value,
        Err(broken) if broken.id == SPINNING => panic!(
            "the cluster goes round in circles: {}. Does a scheduler launch again in answer to \
             TASK_DROPPED, without waiting for a new offer?",
            broken.what
        ),
        Err(broken) => {
            panic!("this is a bug of Meros, not of a framework: {broken}. Please report it")
        }
    }
}
