//! A simulated datacenter for tests of frameworks: what `meros_sdk::testing` is made of.
//!
//! Masters, slaves and drivers are the production cores, as in [`crate::check()`]. The programs of the
//! frameworks under test are outside: [`Datacenter::step`] says what one of them is to be told, and
//! [`Datacenter::call`] takes what it makes of it.

mod faults;
mod guest;
mod load;
mod runs;
mod story;
mod views;

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use meros_master_core::{Command, Config};
use meros_proto::attribute::Attributes;
use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::quota::Quota;
use meros_proto::resources::{Resources, Scalar};
use meros_proto::role::RoleName;
use meros_sdk_core::{Call, News};

pub use crate::invariants::Broken;
use crate::plan::{FrameworkPlan, NetworkPlan, Plan, SlavePlan};
use crate::prng::Rng;
use crate::world::World;
pub(crate) use guest::{Guest, GuestApp, GuestPlan};
pub use load::Load;
pub use runs::{Chance, TaskRun, TaskRuns};
pub(crate) use story::of_trouble;
pub use views::{SlaveView, TaskView};

/// Messages take as long as between machines of one room.
const LATENCY_MIN: Duration = Duration::from_micros(200);
const LATENCY_MAX: Duration = Duration::from_millis(2);
/// How long silence is borne before a connection is taken for dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A write to a disk that makes records durable, at the most.
const DISK_MAX: Duration = Duration::from_millis(8);
/// How many of the last lines of the story are kept.
const LINES_MAX: usize = 200;
/// Happenings in one moment beyond which something goes round in circles: messages take time, so that
/// a healthy cluster has few at once.
const STEPS_AT_ONCE_MAX: u64 = 20_000;

/// The id of what [`Datacenter::step`] says when a program and its driver go round in circles without
/// any time passing: no fault of Meros.
pub const SPINNING: &str = "spinning";

/// What a datacenter is made of.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Fixes all chance: latencies, the order of things that happen at once, faults that are drawn.
    pub seed: u64,
    /// How many masters there are; 1, 3 or 5.
    pub masters: usize,
    /// What each slave has. They are `host0`, `host1`, … in this order.
    pub slaves: Vec<(Resources, Attributes)>,
    /// Frameworks that compete.
    pub loads: Vec<Load>,
    /// How the tasks of the frameworks under test behave.
    pub tasks: TaskRuns,
    /// The settings of the masters.
    pub master: Config,
    /// Weights of roles, of which 1 is the default.
    pub weights: BTreeMap<RoleName, Scalar>,
    /// Quotas of roles.
    pub quotas: BTreeMap<RoleName, Quota>,
}

impl Default for Setting {
    /// One master, no slaves, the production settings.
    fn default() -> Self {
        Self {
            seed: 0,
            masters: 1,
            slaves: Vec::new(),
            loads: Vec::new(),
            tasks: TaskRuns::default(),
            master: Config::default(),
            weights: BTreeMap::new(),
            quotas: BTreeMap::new(),
        }
    }
}

impl Setting {
    fn plan(&self) -> Plan {
        let mut configured = Vec::new();
        if !self.weights.is_empty() {
            let weights = self.weights.clone().into_iter().collect();
            configured.push(Command::SetWeights { weights });
        }
        if !self.quotas.is_empty() {
            let quotas = self.quotas.clone().into_iter().collect();
            configured.push(Command::SetQuotas { quotas });
        }
        let slave = |(resources, attributes): &(Resources, Attributes)| SlavePlan {
            resources: resources.clone(),
            attributes: attributes.clone(),
        };
        let load = |load: &Load| FrameworkPlan::Jobs(Box::new(load.plan()));
        Plan {
            seed: self.seed,
            masters: self.masters,
            master: self.master.clone(),
            network: NetworkPlan {
                latency_min: LATENCY_MIN,
                latency_max: LATENCY_MAX,
                idle_timeout: IDLE_TIMEOUT,
            },
            disk_max: DISK_MAX,
            slaves: self.slaves.iter().map(slave).collect(),
            frameworks: self.loads.iter().map(load).collect(),
            faults: Vec::new(),
            safety: Duration::ZERO,
            patience: Duration::ZERO,
            configured,
            measured: None,
            driven: Some(self.tasks.clone()),
        }
    }
}

/// A framework under test, as it subscribes.
#[derive(Debug, Clone)]
pub struct FrameworkSetting {
    /// Who it is; an id in it is not looked at.
    pub framework: FrameworkDescription,
    /// Roles it wants no offers for at first.
    pub suppressed_roles: Vec<RoleName>,
    /// What it wishes of its offers at first.
    pub wishes: Vec<OfferWishes>,
    /// The longest time that its program takes for one piece of news.
    pub thinking_max: Duration,
    /// Whether a program that starts again after a crash is the same framework: whether it has a
    /// state file.
    pub keeps_id: bool,
}

/// A framework under test: its place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestId(usize);

impl GuestId {
    /// Counted from 0, in the order in which they were added.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a step has brought.
#[derive(Debug)]
pub enum Step {
    /// The time is reached; nothing else happens before it.
    Reached,
    /// Something that no framework under test hears of.
    Elsewhere,
    /// The program of a framework has been started again: what it knew is gone.
    Restarted(GuestId),
    /// The program of a framework has to deal with this now. What it wants done goes to
    /// [`Datacenter::call`] before the next step.
    Told(GuestId, Box<News>),
}

/// A guest and where it is in the world.
#[derive(Debug)]
struct Place {
    name: String,
    /// Among all frameworks of the world.
    at: usize,
    guest: Rc<RefCell<Guest>>,
    /// How many starts of its program have been reported.
    lives: u32,
    keeps_id: bool,
}

/// A simulated datacenter.
#[derive(Debug)]
pub struct Datacenter {
    world: World,
    seed: u64,
    rng: Rng,
    guests: Vec<Place>,
    /// Slaves and frameworks that are cut off, by the number of the fault that did it.
    cut_off: BTreeMap<crate::plan::Client, usize>,
    /// A moment, and how much has happened in it.
    at_once: (Duration, u64),
}

impl Datacenter {
    /// Its masters and slaves start at once.
    ///
    /// # Panics
    /// There is no master, or no slave.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        assert!(setting.masters > 0, "a cluster has a master");
        assert!(!setting.slaves.is_empty(), "a cluster has a slave");
        Self {
            world: World::new(setting.plan(), LINES_MAX),
            seed: setting.seed,
            rng: Rng::new(setting.seed).fork("kit"),
            guests: Vec::new(),
            cut_off: BTreeMap::new(),
            at_once: (Duration::ZERO, 0),
        }
    }

    /// A framework starts, now. Its first life is not reported as [`Step::Restarted`].
    pub fn add(&mut self, setting: FrameworkSetting) -> GuestId {
        let guest = Rc::new(RefCell::new(Guest::default()));
        let name = setting.framework.name.clone();
        let at = self.world.add_framework(FrameworkPlan::Guest(GuestPlan {
            framework: setting.framework,
            suppressed_roles: setting.suppressed_roles,
            wishes: setting.wishes,
            thinking_max: setting.thinking_max,
            keeps_id: setting.keeps_id,
            guest: Rc::clone(&guest),
        }));
        self.guests.push(Place {
            name,
            at,
            guest,
            lives: 1,
            keeps_id: setting.keeps_id,
        });
        GuestId(self.guests.len() - 1)
    }

    /// The next thing happens, unless it is later than this long after the beginning: then it is
    /// that time.
    ///
    /// # Errors
    /// An invariant of Meros does not hold.
    pub fn step(&mut self, until: Duration) -> Result<Step, Broken> {
        if !self.world.step(crate::clock::START.after(until))? {
            return Ok(Step::Reached);
        }
        self.check_spinning()?;
        for (number, place) in self.guests.iter_mut().enumerate() {
            let mut guest = place.guest.borrow_mut();
            if guest.lives > place.lives {
                place.lives = guest.lives;
                drop(guest);
                self.world
                    .say(|| format!("{} starts again", self.guests[number].name));
                return Ok(Step::Restarted(GuestId(number)));
            }
            if let Some(news) = guest.take_told() {
                let name = &place.name;
                self.world.say(|| story::of_news(name, &news));
                return Ok(Step::Told(GuestId(number), Box::new(news)));
            }
        }
        Ok(Step::Elsewhere)
    }

    fn check_spinning(&mut self) -> Result<(), Broken> {
        let now = self.elapsed();
        match self.at_once.0 == now {
            true => self.at_once.1 += 1,
            false => self.at_once = (now, 1),
        }
        let steps = self.at_once.1;
        crate::invariants::check(SPINNING, steps <= STEPS_AT_ONCE_MAX, || {
            format!("{steps} happenings in one moment")
        })
    }

    /// A framework asks something of its driver.
    ///
    /// # Errors
    /// An invariant of Meros does not hold.
    pub fn call(&mut self, guest: GuestId, calls: Vec<Call>) -> Result<(), Broken> {
        // A program that is down says nothing.
        if !self.world.framework_is_up(self.guests[guest.0].at) {
            return Ok(());
        }
        for call in &calls {
            let reused = self.guest_mut(guest).on_call(call);
            let Place { name, at, .. } = &self.guests[guest.0];
            for task in reused {
                self.world.on_reused(*at, &task);
            }
            if let Some(line) = story::of_call(name, call) {
                self.world.say(|| line);
            }
        }
        let at = self.guests[guest.0].at;
        self.world.ask(at, calls)
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.world.elapsed()
    }

    /// How many things have happened.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.world.steps()
    }

    /// The same for runs in which the same happened in the same order.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.world.hash()
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What happened last, a line each.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        self.world.lines()
    }

    /// Adds a line to the story.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        self.world.say(line);
    }

    /// The framework that was added as this one, counted from 0.
    ///
    /// # Panics
    /// There are fewer.
    #[must_use]
    pub fn guest_at(&self, index: usize) -> GuestId {
        assert!(index < self.guests.len(), "there is no framework {index}");
        GuestId(index)
    }

    /// The name of a framework.
    #[must_use]
    pub fn name(&self, guest: GuestId) -> &str {
        &self.guests[guest.0].name
    }

    fn guest(&self, guest: GuestId) -> Ref<'_, Guest> {
        self.guests[guest.0].guest.borrow()
    }

    fn guest_mut(&self, guest: GuestId) -> RefMut<'_, Guest> {
        self.guests[guest.0].guest.borrow_mut()
    }
}
