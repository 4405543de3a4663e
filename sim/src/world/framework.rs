//! The process of a framework: a driver with a workload above it, or something that speaks the
//! protocol by itself.

use std::time::Duration;

use meros_proto::framework::{FrameworkCapability, FrameworkDescription};
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::Operation;
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, Driver, DriverConfig, Effect, EndReason, Event, News, NewsQueue};

use super::election::master_named;
use super::network::{End, Link, Message, Way};
use super::{Crash, Happening, Life, Node, World};
use crate::behaviour::App;
use crate::behaviour::nonsense::Nonsense;
use crate::behaviour::probe::Probe;
use crate::behaviour::workload::Workload;
use crate::clock::Clock;
use crate::fault::{Memory, Point};
use crate::invariants::{Broken, sent_away};
use crate::kit::GuestApp;
use crate::plan::{Client, FrameworkPlan};
use crate::prng::Rng;
use crate::scenario::{Jobs, Record};

#[derive(Debug)]
pub(super) enum Mind {
    Workload(Box<Worker>),
    Nonsense(Nonsense),
    Probe(Probe),
}

/// A framework and the driver of its present life.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) app: Box<dyn App>,
    pub(super) driver: Option<Driver>,
    inbox: NewsQueue,
    /// It is dealing with news, or about to.
    is_thinking: bool,
}

#[derive(Debug)]
pub(super) struct FrameworkNode {
    pub(super) mind: Mind,
    pub(super) is_up: bool,
    pub(super) life: u32,
    pub(super) link: Option<Link>,
    is_connected: bool,
    /// The master to dial next.
    pub(super) master: usize,
    /// As its last subscription said. On disk, like the cluster.
    pub(super) framework_id: Option<FrameworkId>,
    cluster_id: Option<ClusterId>,
    /// The highest term that has subscribed it; on disk as well.
    epoch: Epoch,
    /// What the next life will remember.
    memory: Memory,
    pub(super) clock: Clock,
    rng: Rng,
    /// Since these were cleared it was welcomed, or has done something about what it heard.
    was_welcomed: bool,
    has_obeyed: bool,
    tick: Option<Timestamp>,
    wake: Option<Timestamp>,
    pub(super) crash: Option<Crash>,
    /// It does not come back.
    pub(super) is_over: bool,
}

impl FrameworkNode {
    pub(super) fn new(at: usize, plan: &FrameworkPlan, root: &Rng) -> Self {
        let mut rng = root.fork(&format!("framework{at}"));
        let work = |app, inbox| {
            Mind::Workload(Box::new(Worker {
                app,
                driver: None,
                inbox,
                is_thinking: false,
            }))
        };
        let mind = match plan {
            FrameworkPlan::Workload(plan) => {
                let inbox = NewsQueue::new(plan.inbox);
                let app = Workload::new(plan.clone(), format!("f{at}"), rng.fork("app"));
                work(Box::new(app), inbox)
            }
            FrameworkPlan::Jobs(plan) => {
                let app = Jobs::new(plan, rng.fork("app"));
                work(Box::new(app), NewsQueue::default())
            }
            FrameworkPlan::Nonsense { every, manner } => {
                let name = format!("n{at}");
                Mind::Nonsense(Nonsense::new(*every, *manner, name, rng.fork("app")))
            }
            FrameworkPlan::Probe => Mind::Probe(Probe::of_everything()),
            FrameworkPlan::Creditor => Mind::Probe(Probe::creditor()),
            FrameworkPlan::Guest(plan) => {
                let app = GuestApp::new(plan, rng.fork("app"));
                work(Box::new(app), NewsQueue::default())
            }
        };
        Self {
            mind,
            is_up: false,
            life: 0,
            link: None,
            is_connected: false,
            master: 0,
            framework_id: None,
            cluster_id: None,
            epoch: Epoch(0),
            memory: Memory::Everything,
            clock: Clock::draw(&mut rng),
            rng,
            was_welcomed: false,
            has_obeyed: false,
            tick: None,
            wake: None,
            crash: None,
            is_over: false,
        }
    }

    /// What is measured of it, if anything is.
    pub(super) fn record(&self) -> Option<&Record> {
        match &self.mind {
            Mind::Workload(worker) => worker.app.record(),
            Mind::Nonsense(_) | Mind::Probe(_) => None,
        }
    }
}

fn describe(
    at: usize,
    plan: &FrameworkPlan,
    id: Option<FrameworkId>,
) -> Option<FrameworkDescription> {
    let plan = match plan {
        FrameworkPlan::Workload(plan) => plan,
        FrameworkPlan::Jobs(plan) => return Some(plan.describe(id)),
        FrameworkPlan::Guest(plan) => return Some(plan.describe(id)),
        FrameworkPlan::Nonsense { .. } | FrameworkPlan::Probe | FrameworkPlan::Creditor => {
            return None;
        }
    };
    let role = plan.role.parse().expect("a role");
    let mut framework = FrameworkDescription::new(format!("workload{at}"), role);
    framework.framework_id = id;
    framework.failover_timeout = plan.failover_timeout;
    framework.checkpoint = plan.checkpoint;
    framework
        .capabilities
        .retain(|capability| match capability {
            FrameworkCapability::PartitionAware => plan.partition_aware,
            FrameworkCapability::TaskKillingState => plan.hears_killing,
            _ => true,
        });
    Some(framework)
}

impl World {
    pub(super) fn start_framework(&mut self, at: usize) -> Result<(), Broken> {
        let node = &mut self.frameworks[at];
        if node.is_up || node.is_over {
            return Ok(());
        }
        node.is_up = true;
        node.life += 1;
        if node.rng.percent(50) {
            node.clock = Clock::draw(&mut node.rng);
        }
        node.tick = None;
        node.wake = None;
        if node.memory == Memory::Nothing {
            node.framework_id = None;
            node.cluster_id = None;
            node.epoch = Epoch(0);
        }
        if self.plan.checks() {
            self.checks.ends_once.on_life(at);
            self.checks.in_order.on_life(at);
            let client = Client::Framework(at);
            self.checks.old_terms.on_life(client, node.epoch);
        }
        let now = node.clock.local(self.now);
        let memory = std::mem::replace(&mut node.memory, Memory::Everything);
        let description = describe(at, &self.plan.frameworks[at], node.framework_id);
        let (Mind::Workload(worker), Some(framework)) = (&mut node.mind, description) else {
            self.wake_after(at, Duration::ZERO);
            return Ok(());
        };
        let config = DriverConfig {
            framework,
            suppressed_roles: self.plan.frameworks[at].suppressed_roles(),
            wishes: self.plan.frameworks[at].wishes(),
            cluster_id: node.cluster_id,
            epoch: node.epoch,
            seed: node.rng.next(),
        };
        worker.driver = Some(Driver::new(config, now));
        while worker.inbox.pop().is_some() {}
        worker.is_thinking = false;
        let calls = worker.app.restart(memory, self.now);
        self.feed_driver(at, Event::Tick)?;
        self.call(at, calls)?;
        self.arm_wake(at);
        Ok(())
    }

    pub(super) fn crash_framework(&mut self, at: usize, down: Duration, memory: Memory) {
        let node = &mut self.frameworks[at];
        if !node.is_up {
            return;
        }
        self.trace.line(|| format!("framework {at} dies"));
        self.end_process(at, memory);
        self.after(down, Happening::Start(Node::Framework(at)));
    }

    fn end_process(&mut self, at: usize, memory: Memory) {
        let node = &mut self.frameworks[at];
        node.is_up = false;
        node.is_connected = false;
        node.crash = None;
        node.memory = memory;
        if let Mind::Workload(worker) = &mut node.mind {
            worker.driver = None;
        }
        if let Some(link) = node.link.take() {
            self.network
                .die(link, End::Client, self.now, &mut self.queue);
        }
    }

    /// It does not come back.
    pub(super) fn retire_framework(&mut self, at: usize) {
        self.frameworks[at].is_over = true;
        self.end_process(at, Memory::Everything);
    }

    /// It acts again after this long; what was set before is void, so that there is one at a time.
    fn wake_after(&mut self, at: usize, wait: Duration) {
        let due = self.now.after(wait);
        self.frameworks[at].wake = Some(due);
        let life = Life(Node::Framework(at), self.frameworks[at].life);
        self.queue.push(due, Happening::Wake(life));
    }

    pub(super) fn on_framework_answer(
        &mut self,
        at: usize,
        link: Link,
        stands: bool,
    ) -> Result<(), Broken> {
        let node = &mut self.frameworks[at];
        if node.link != Some(link) {
            return Ok(());
        }
        node.is_connected = stands;
        if !stands {
            node.link = None;
        }
        let first = match &mut node.mind {
            Mind::Workload(_) if stands => return self.feed_driver(at, Event::Connected),
            Mind::Workload(_) => {
                let why = "nobody answers".to_owned();
                let hopeless = false;
                return self.feed_driver(at, Event::ConnectFailed { why, hopeless });
            }
            Mind::Nonsense(mind) => mind.first(),
            Mind::Probe(mind) => mind.subscribe(),
        };
        if stands {
            self.send_up(at, first)?;
        }
        self.wake_after(at, Duration::from_millis(200));
        Ok(())
    }

    pub(super) fn on_framework_lost(&mut self, at: usize) -> Result<(), Broken> {
        let node = &mut self.frameworks[at];
        node.link = None;
        let was_connected = std::mem::take(&mut node.is_connected);
        if !node.is_up {
            return Ok(());
        }
        let why = "the connection broke".to_owned();
        match (&node.mind, was_connected) {
            (Mind::Workload(_), true) => self.feed_driver(at, Event::Disconnected { why }),
            (Mind::Workload(_), false) => {
                let hopeless = false;
                self.feed_driver(at, Event::ConnectFailed { why, hopeless })
            }
            // They look again when they wake.
            _ => {
                self.wake_after(at, Duration::from_millis(200));
                Ok(())
            }
        }
    }

    pub(super) fn on_to_framework(
        &mut self,
        at: usize,
        link: Link,
        message: MasterToFramework,
    ) -> Result<(), Broken> {
        let node = &mut self.frameworks[at];
        if node.link != Some(link) {
            return Ok(());
        }
        match &message {
            MasterToFramework::Subscribed {
                framework_id,
                cluster_id,
                epoch,
            } => {
                node.framework_id = Some(*framework_id);
                node.cluster_id = Some(*cluster_id);
                node.epoch = node.epoch.max(*epoch);
                if let Some(meter) = &mut self.meter {
                    meter.on_subscribed(at, *framework_id);
                }
            }
            MasterToFramework::Offers(offers) if self.plan.checks() => {
                self.checks.own_news.on_offers(node.framework_id, offers)?;
            }
            MasterToFramework::Update(status) if self.plan.checks() => {
                let id = status.update_id;
                if id.is_some_and(|id| !self.seen.insert((at, id))) {
                    *self.met.entry("an update that comes twice").or_default() += 1;
                }
                self.checks
                    .own_news
                    .on_update(at, node.framework_id, status)?;
            }
            _ => {}
        }
        match &mut node.mind {
            Mind::Nonsense(mind) => {
                let answer = mind.on_message(message);
                if let Some(answer) = answer {
                    self.send_up(at, answer)?;
                }
            }
            Mind::Probe(mind) => mind.on_message(message),
            Mind::Workload(_) => {
                (node.was_welcomed, node.has_obeyed) = (false, false);
                self.feed_driver(at, Event::Master(message))?;
                let node = &self.frameworks[at];
                if let (Some(term), true) = (self.terms.get(&link), self.plan.checks()) {
                    let client = Client::Framework(at);
                    let old_terms = &mut self.checks.old_terms;
                    old_terms.on_heard(client, *term, node.was_welcomed, node.has_obeyed)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn tick_framework(&mut self, at: usize) -> Result<(), Broken> {
        let now = self.now;
        if self.frameworks[at]
            .tick
            .take_if(|due| *due <= now)
            .is_none()
        {
            return Ok(());
        }
        self.feed_driver(at, Event::Tick)
    }

    /// Whether the process at the other end of a connection reads nothing more for now: its
    /// framework has too much to do.
    pub(super) fn is_overrun(&self, link: Link) -> bool {
        let (Client::Framework(at), _) = self.network.dialled_by(link) else {
            return false;
        };
        let node = &self.frameworks[at];
        match &node.mind {
            Mind::Workload(worker) => node.link == Some(link) && worker.inbox.is_full(),
            Mind::Nonsense(_) | Mind::Probe(_) => false,
        }
    }

    /// The framework deals with one piece of news.
    pub(super) fn on_think(&mut self, node: Node) -> Result<(), Broken> {
        let Node::Framework(at) = node else {
            return Ok(());
        };
        let Mind::Workload(worker) = &mut self.frameworks[at].mind else {
            return Ok(());
        };
        let Some(news) = worker.inbox.pop() else {
            worker.is_thinking = false;
            return Ok(());
        };
        let has_room = !worker.inbox.is_full();
        if let News::Update(status) = &news
            && self.plan.checks()
        {
            self.checks.acknowledged.on_handled(
                at,
                &status.task_id,
                status.update_id,
                status.state.is_terminal(),
            );
        }
        let ended = match &news {
            News::Ended(reason) => Some(reason.clone()),
            _ => None,
        };
        let calls = worker.app.on_news(news, self.now);
        if let Some(reason) = ended {
            return self.on_session_ended(at, reason);
        }
        worker.is_thinking = !worker.inbox.is_empty();
        if worker.is_thinking {
            let wait = worker.app.thinking();
            let life = Life(Node::Framework(at), self.frameworks[at].life);
            self.after(wait, Happening::Think(life));
        }
        if let (Some(link), true) = (self.frameworks[at].link, has_room) {
            self.network
                .release(link, Way::Down, self.now, &mut self.queue);
        }
        self.call(at, calls)?;
        self.arm_wake(at);
        Ok(())
    }

    fn on_session_ended(&mut self, at: usize, reason: EndReason) -> Result<(), Broken> {
        let is_over = match &self.frameworks[at].mind {
            Mind::Workload(worker) => !worker.app.comes_back(&reason),
            Mind::Nonsense(_) | Mind::Probe(_) => false,
        };
        self.trace
            .line(|| format!("session of framework {at} ends: {reason:?}"));
        self.end_process(at, Memory::Nothing);
        self.frameworks[at].is_over = is_over;
        self.after(
            Duration::from_secs(1),
            Happening::Start(Node::Framework(at)),
        );
        Ok(())
    }

    fn arm_wake(&mut self, at: usize) {
        let node = &mut self.frameworks[at];
        let Mind::Workload(worker) = &node.mind else {
            return;
        };
        let Some(due) = worker.app.next_wake() else {
            return;
        };
        let due = due.max(self.now);
        if node.is_up && node.wake.is_none_or(|armed| due < armed) {
            node.wake = Some(due);
            let life = Life(Node::Framework(at), node.life);
            self.queue.push(due, Happening::Wake(life));
        }
    }

    /// From now on it brings its services to an end.
    pub(super) fn drain_framework(&mut self, at: usize) {
        if let Mind::Workload(worker) = &mut self.frameworks[at].mind {
            worker.app.drain(self.now);
        }
        self.arm_wake(at);
    }

    pub(super) fn on_wake(&mut self, node: Node) -> Result<(), Broken> {
        let Node::Framework(at) = node else {
            return Ok(());
        };
        let now = self.now;
        let node = &mut self.frameworks[at];
        if node.wake.take_if(|due| *due <= now).is_none() {
            return Ok(());
        }
        match &mut node.mind {
            Mind::Workload(worker) => {
                let calls = worker.app.on_wake(now);
                self.call(at, calls)?;
                self.arm_wake(at);
            }
            _ if node.link.is_none() => self.dial(Node::Framework(at)),
            Mind::Nonsense(mind) if node.is_connected => {
                let message = mind.message();
                let wait = mind.wait();
                let quits = node.rng.percent(2);
                self.send_up(at, message)?;
                if quits && let Some(link) = self.frameworks[at].link.take() {
                    self.frameworks[at].is_connected = false;
                    self.network
                        .close(link, End::Client, self.now, &mut self.queue);
                }
                self.wake_after(at, wait);
            }
            Mind::Nonsense(_) | Mind::Probe(_) => {}
        }
        Ok(())
    }

    /// The framework asks its driver.
    pub(super) fn call(&mut self, at: usize, calls: Vec<Call>) -> Result<(), Broken> {
        calls
            .into_iter()
            .try_for_each(|call| self.feed_driver(at, Event::Call(call)))
    }

    fn feed_driver(&mut self, at: usize, event: Event) -> Result<(), Broken> {
        let node = &mut self.frameworks[at];
        let now = node.clock.local(self.now);
        let Mind::Workload(worker) = &mut node.mind else {
            return Ok(());
        };
        let Some(driver) = &mut worker.driver else {
            return Ok(());
        };
        let mut effects = Vec::new();
        driver.handle(event, now, &mut effects);
        if self.plan.checks() {
            driver.check_invariants();
        }
        let sends = |it: &Effect| matches!(it, Effect::Send(_));
        let crash = node.crash.filter(|crash| match crash.point {
            Point::Any | Point::Acknowledgement => !effects.is_empty(),
            Point::Durable => effects.iter().any(sends),
        });
        let carried = crash.map_or(effects.len(), |crash| crash.effects);
        for effect in effects.into_iter().take(carried) {
            self.carry_out_driver(at, effect)?;
        }
        match crash {
            Some(crash) => self.crash_framework(at, crash.down, crash.memory),
            None => self.arm_driver(at),
        }
        Ok(())
    }

    pub(super) fn arm_driver(&mut self, at: usize) {
        let node = &mut self.frameworks[at];
        let Mind::Workload(worker) = &node.mind else {
            return;
        };
        let Some(deadline) = worker.driver.as_ref().and_then(Driver::next_deadline) else {
            return;
        };
        let due = node.clock.when(deadline, self.now);
        if node.tick.is_none_or(|armed| due < armed) {
            node.tick = Some(due);
            let life = Life(Node::Framework(at), node.life);
            self.queue.push(due, Happening::Tick(life));
        }
    }

    fn carry_out_driver(&mut self, at: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Send(message) => {
                self.frameworks[at].has_obeyed = true;
                self.send_up(at, message)
            }
            Effect::Deliver(news) => self.deliver(at, news),
            Effect::Connect { hint } => {
                let named = hint.and_then(|name| master_named(&name, self.masters.len()));
                let node = &mut self.frameworks[at];
                node.master = named.unwrap_or(node.master);
                self.dial(Node::Framework(at));
                Ok(())
            }
            Effect::Disconnect => {
                let node = &mut self.frameworks[at];
                node.is_connected = false;
                if let Some(link) = node.link.take() {
                    self.network
                        .close(link, End::Client, self.now, &mut self.queue);
                }
                Ok(())
            }
        }
    }

    fn deliver(&mut self, at: usize, news: News) -> Result<(), Broken> {
        if let News::Update(status) = &news
            && self.plan.checks()
        {
            self.checks.ends_once.on_told(at, status)?;
            self.checks.in_order.on_told(at, status)?;
        }
        // A guest may describe itself as no framework can be: that is its own fault.
        let is_guest = matches!(self.plan.frameworks[at], FrameworkPlan::Guest(_));
        let is_odd = is_guest
            && matches!(
                news,
                News::Ended(EndReason::Refused(Refusal::Invalid { .. }))
            );
        if let (News::Ended(reason), true) = (&news, self.plan.checks() && !is_odd) {
            let id = self.frameworks[at].framework_id;
            sent_away::check_session(self.log.registry(), id, reason)?;
        }
        if !matches!(news, News::Offers(_)) && self.plan.driven.is_none() {
            self.trace
                .line(|| format!("framework {at} is told {news:?}"));
        }
        let node = &mut self.frameworks[at];
        node.was_welcomed |= matches!(news, News::Subscribed { .. });
        node.has_obeyed |= matches!(
            news,
            News::Update(_) | News::Offers(_) | News::Rescinded(_) | News::SlaveLost(_)
        );
        let life = Life(Node::Framework(at), node.life);
        let Mind::Workload(worker) = &mut node.mind else {
            return Ok(());
        };
        worker.inbox.push(news);
        if !std::mem::replace(&mut worker.is_thinking, true) {
            let wait = worker.app.thinking();
            self.after(wait, Happening::Think(life));
        }
        Ok(())
    }

    /// A framework speaks to the master.
    fn send_up(&mut self, at: usize, message: FrameworkToMaster) -> Result<(), Broken> {
        if self.plan.checks() {
            self.check_up(at, &message)?;
        }
        if let Some(link) = self.frameworks[at].link {
            let message = Message::FromFramework(message);
            self.network
                .send(link, Way::Up, message, self.now, &mut self.queue);
        }
        Ok(())
    }

    fn check_up(&mut self, at: usize, message: &FrameworkToMaster) -> Result<(), Broken> {
        let node = &self.frameworks[at];
        let has_driver = matches!(node.mind, Mind::Workload(_));
        let mut named: Vec<&TaskId> = Vec::new();
        match message {
            FrameworkToMaster::Accept { operations, .. } => {
                let launches = operations.iter().flat_map(Operation::tasks);
                named.extend(launches.map(|task| &task.task_id));
            }
            FrameworkToMaster::Kill { task_id, .. } => named.push(task_id),
            FrameworkToMaster::Reconcile { tasks } => {
                named.extend(tasks.iter().map(|task| &task.task_id));
            }
            FrameworkToMaster::Acknowledge {
                task_id, update_id, ..
            } => {
                let acknowledged = &mut self.checks.acknowledged;
                acknowledged.on_said(at, has_driver, task_id, *update_id)?;
            }
            _ => {}
        }
        for task in named {
            self.checks.own_news.on_named(at, task);
        }
        Ok(())
    }
}
