//! The world around the cores: one event at a time, in virtual time.
//!
//! Absent: decisions about slaves, frameworks, offers and tasks; those are the cores' own.

mod election;
mod executors;
mod finish;
mod framework;
mod guests;
mod log;
mod master;
mod network;
mod operator;
mod slave;
mod standby;
mod trace;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_master_core::{OperatorCall, RequestId};
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, UpdateId};
use meros_proto::quota::Quota;
use meros_proto::time::Timestamp;
use meros_slave_core::{ContainerId, Event as SlaveEvent, Found, ProbeId, VolumeDirectory};

use crate::clock::START;
use crate::fault::{Memory, Point};
use crate::invariants::{Broken, Checks};
use crate::plan::{Client, FrameworkPlan, Plan};
use crate::prng::Rng;
use crate::queue::Queue;
use crate::scenario::{Meter, Record};
use executors::ExecutorStep;
use framework::FrameworkNode;
use log::Log;
use master::MasterNode;
use network::{End, Link, Message, Network, Way};
use slave::{ContainerStep, SlaveNode};
use standby::Standby;
use trace::Trace;

/// Happenings in one judged run beyond which something spins: a healthy run has far fewer.
const STEPS_MAX: u64 = 300_000;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Master(usize),
    Slave(usize),
    Framework(usize),
}

/// A process and which of its lives; what was meant for an earlier one is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(Node, u32);

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A dial reaches the master.
    Arrive(Link),
    /// The answer to a dial reaches the client.
    Answer(Link, bool),
    Deliver(Link, Way),
    /// An end notices that its connection is gone.
    Lost(Link, End),
    /// An end may have heard nothing for too long.
    Idle(Link, End),
    /// A client looks for the master.
    Dial(Life),
    /// The deadline of a core.
    Tick(Life),
    /// A write to a disk has ended.
    Written(Life),
    Container(Life, ContainerId, ContainerStep),
    /// In a box: as for the end of a container.
    Executor(Life, ContainerId, Box<ExecutorStep>),
    /// The data of a destroyed volume is gone.
    Wiped(Life, VolumeDirectory),
    /// A probe of a task has come to an end.
    Probed(Life, ProbeId, Option<Found>),
    /// A framework deals with news.
    Think(Life),
    /// A framework acts by itself.
    Wake(Life),
    Start(Node),
    /// Masters elect a leader, if this is the latest term still.
    Elect(Epoch),
    /// A master learns that it does not lead any more.
    StepDown(Life),
    /// What is committed reaches a master that does not lead.
    Replicate(Life),
    /// What the leader has published reaches one that does not.
    Stream(Life),
    /// The connections of a process that stands still are given up.
    Sever(Link),
    Fault(usize),
    /// A fault that lasts is over.
    Relief(usize),
    /// The faults are over.
    Heal,
    /// Services are stopped from now on.
    Drain,
    /// An operator removes frameworks that nobody is any more.
    Operate,
    /// Has everything come to its end?
    Watch,
    /// The probe, or the creditor, has had its time.
    Judge,
    /// What changes over time is measured.
    Sample,
    /// A measured run is over.
    End,
}

/// A crash that waits for its moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crash {
    point: Point,
    effects: usize,
    down: Duration,
    memory: Memory,
}

/// The simulated datacenter.
#[derive(Debug)]
pub(crate) struct World {
    plan: Plan,
    now: Timestamp,
    rng: Rng,
    queue: Queue<Happening>,
    network: Network,
    log: Log,
    masters: Vec<MasterNode>,
    /// Which framework's process has subscribed under an id last.
    owners: BTreeMap<FrameworkId, usize>,
    /// The term of the master at the other end.
    terms: BTreeMap<Link, Epoch>,
    requests: u64,
    /// What operators wait for an answer to.
    orders: BTreeMap<RequestId, OperatorCall>,
    /// What was promised to the role of the creditor, once it was.
    promised: Option<Quota>,
    /// Masters that are cut off from the others, by the fault that did it.
    isolated: BTreeMap<usize, Option<usize>>,
    /// Processes that stand still, until when.
    paused: BTreeMap<Node, Timestamp>,
    slaves: Vec<SlaveNode>,
    frameworks: Vec<FrameworkNode>,
    checks: Checks,
    /// Frameworks that were nobody's when the operator last looked.
    orphans: Vec<FrameworkId>,
    /// How often what has happened, to know what runs are worth.
    met: BTreeMap<&'static str, u64>,
    /// Updates that have reached a framework.
    seen: BTreeSet<(usize, UpdateId)>,
    /// The latest connection that each client was heard on.
    heard_on: BTreeMap<Client, Link>,
    healed_at: Option<Timestamp>,
    judgements: u32,
    /// Who is judged at the end.
    last: Option<usize>,
    is_over: bool,
    trace: Trace,
    /// Set while the run is measured.
    meter: Option<Box<Meter>>,
}

impl World {
    pub(crate) fn new(plan: Plan, lines_max: usize) -> Self {
        let root = Rng::new(plan.seed);
        let cluster_id = ClusterId(u128::from(root.fork("cluster").next()));
        let log = Log::form(cluster_id, &plan.configured);
        let mut world = Self {
            now: START,
            rng: root.fork("world"),
            queue: Queue::new(),
            network: Network::new(plan.network.clone(), root.fork("network")),
            masters: (0..plan.masters)
                .map(|at| {
                    let standby = Standby::new(root.fork(&format!("standby{at}")));
                    let rng = root.fork(&format!("master{at}"));
                    MasterNode::new(log.registry().clone(), standby, rng)
                })
                .collect(),
            log,
            owners: BTreeMap::new(),
            terms: BTreeMap::new(),
            requests: 0,
            orders: BTreeMap::new(),
            promised: None,
            isolated: BTreeMap::new(),
            paused: BTreeMap::new(),
            slaves: plan
                .slaves
                .iter()
                .enumerate()
                .map(|(at, plan)| SlaveNode::new(plan.clone(), root.fork(&format!("slave{at}"))))
                .collect(),
            frameworks: plan
                .frameworks
                .iter()
                .enumerate()
                .map(|(at, plan)| FrameworkNode::new(at, plan, &root))
                .collect(),
            checks: Checks::default(),
            orphans: Vec::new(),
            met: BTreeMap::new(),
            seen: BTreeSet::new(),
            heard_on: BTreeMap::new(),
            healed_at: None,
            judgements: 0,
            last: None,
            is_over: false,
            trace: Trace::new(lines_max, plan.driven.is_some()),
            meter: plan.measured.is_some().then(|| Box::new(Meter::new(&plan))),
            plan,
        };
        world.schedule_all();
        world
    }

    fn schedule_all(&mut self) {
        for master in 0..self.masters.len() {
            self.after(Duration::ZERO, Happening::Start(Node::Master(master)));
        }
        for slave in 0..self.slaves.len() {
            let wait = self.rng.duration(Duration::ZERO, Duration::from_secs(2));
            self.after(wait, Happening::Start(Node::Slave(slave)));
        }
        for framework in 0..self.frameworks.len() {
            // Those come at the end.
            let plan = &self.plan.frameworks[framework];
            if matches!(plan, FrameworkPlan::Probe | FrameworkPlan::Creditor) {
                continue;
            }
            let wait = self.rng.duration(Duration::ZERO, Duration::from_secs(5));
            self.after(wait, Happening::Start(Node::Framework(framework)));
        }
        for at in 0..self.plan.faults.len() {
            let when = self.plan.faults[at].at;
            self.after(when, Happening::Fault(at));
        }
        match self.plan.measured.clone() {
            None if self.plan.driven.is_some() => {}
            None => self.after(self.plan.safety, Happening::Heal),
            Some(measured) => {
                self.after(measured.every, Happening::Sample);
                self.after(measured.duration, Happening::End);
            }
        }
    }

    fn after(&mut self, wait: Duration, what: Happening) {
        self.queue.push(self.now.after(wait), what);
    }

    /// Runs until the end of everything.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        while self.advance()? {}
        Ok(())
    }

    /// One thing happens; false once everything has.
    pub(crate) fn advance(&mut self) -> Result<bool, Broken> {
        let Some((at, what)) = self.queue.pop() else {
            return Ok(false);
        };
        self.now = at;
        // Whoever stands still deals with it later, in the same order.
        let until = self.whom(&what).and_then(|node| self.paused.get(&node));
        if let Some(until) = until.copied().filter(|until| *until > at) {
            self.queue.push(until, what);
            return Ok(true);
        }
        let steps = self.trace.step(at, &what);
        let is_judged = self.plan.measured.is_none() && self.plan.driven.is_none();
        if steps > STEPS_MAX && is_judged {
            let what = format!("{steps} happenings in one run");
            return Err(Broken { id: "W10", what });
        }
        self.happen(what)?;
        Ok(!self.is_over)
    }

    /// What has been measured, of the whole and of each framework.
    pub(crate) fn into_measurements(mut self) -> Option<(Box<Meter>, Vec<Record>)> {
        let meter = self.meter.take()?;
        let records = self.frameworks.iter().filter_map(FrameworkNode::record);
        Some((meter, records.cloned().collect()))
    }

    fn on_sample(&mut self) {
        let (Some(meter), Some(measured)) = (&mut self.meter, &self.plan.measured) else {
            return;
        };
        let every = measured.every;
        let records = self.frameworks.iter().map(FrameworkNode::record);
        meter.sample(self.now, records);
        self.after(every, Happening::Sample);
    }

    /// How many things have happened.
    pub(crate) fn steps(&self) -> u64 {
        self.trace.steps()
    }

    /// The same for runs in which the same happened.
    pub(crate) fn hash(&self) -> u64 {
        self.trace.hash()
    }

    /// The last lines, if they are kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.trace.lines()
    }

    /// When it is, since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        crate::clock::elapsed(self.now)
    }

    /// How often what has happened.
    pub(crate) fn met(&self) -> BTreeMap<&'static str, u64> {
        self.met.clone()
    }

    fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn is_paused(&self, node: Node) -> bool {
        self.paused
            .get(&node)
            .is_some_and(|until| *until > self.now)
    }

    /// The process that has to deal with something.
    fn whom(&self, what: &Happening) -> Option<Node> {
        if self.paused.is_empty() {
            return None;
        }
        let end_of = |link: Link, end: End| {
            let (client, master) = self.network.dialled_by(link);
            match (end, client) {
                (End::Master, _) => Node::Master(master),
                (End::Client, Client::Slave(slave)) => Node::Slave(slave),
                (End::Client, Client::Framework(framework)) => Node::Framework(framework),
            }
        };
        match what {
            Happening::Arrive(link) | Happening::Deliver(link, Way::Up) => {
                Some(end_of(*link, End::Master))
            }
            Happening::Answer(link, _) | Happening::Deliver(link, Way::Down) => {
                Some(end_of(*link, End::Client))
            }
            Happening::Lost(link, end) | Happening::Idle(link, end) => Some(end_of(*link, *end)),
            Happening::Dial(life)
            | Happening::Tick(life)
            | Happening::Written(life)
            | Happening::Container(life, ..)
            | Happening::Executor(life, ..)
            | Happening::Wiped(life, _)
            | Happening::Probed(life, ..)
            | Happening::Think(life)
            | Happening::Wake(life)
            | Happening::StepDown(life)
            | Happening::Replicate(life)
            | Happening::Stream(life) => Some(life.0),
            _ => None,
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Arrive(link) => self.on_arrive(link)?,
            Happening::Answer(link, stands) => {
                if let Some(client) = self.network.answer(link, stands) {
                    self.on_answer(client, link, stands)?;
                }
            }
            Happening::Deliver(link, Way::Down) if self.is_overrun(link) => {
                self.meet("a framework that cannot keep up");
                self.network.hold(link, Way::Down);
            }
            Happening::Deliver(link, way) => {
                let received = self.network.receive(link, way, self.now, &mut self.queue);
                if let Some((client, message)) = received {
                    self.trace.message(client, &message);
                    if way == Way::Up {
                        let latest = self.heard_on.entry(client).or_insert(link);
                        if link < *latest {
                            self.meet("a message overtaken by a later connection's");
                        } else {
                            *latest = link;
                        }
                    }
                    self.on_message(client, link, message)?;
                }
            }
            Happening::Lost(link, end) => self.on_lost(link, end)?,
            Happening::Idle(link, end) => {
                if self.network.is_idle(link, end, self.now) {
                    self.network.break_off(link, self.now, &mut self.queue);
                    self.on_lost(link, end)?;
                }
            }
            Happening::Dial(life) if self.lives(life) => self.dial(life.0),
            Happening::Tick(life) if self.lives(life) => self.on_tick(life.0)?,
            Happening::Written(life) if self.lives(life) => self.on_written(life.0)?,
            Happening::Container(Life(Node::Slave(slave), life), container, step) => {
                self.on_container(slave, life, container, step)?;
            }
            Happening::Executor(Life(Node::Slave(slave), life), container, step) => {
                self.on_executor_step(slave, life, container, *step)?;
            }
            Happening::Wiped(Life(Node::Slave(slave), life), directory) => {
                if self.lives(Life(Node::Slave(slave), life)) {
                    self.on_volume_wiped(slave, directory)?;
                }
            }
            Happening::Probed(Life(Node::Slave(slave), life), probe, found) => {
                if self.lives(Life(Node::Slave(slave), life)) {
                    self.feed_slave(slave, SlaveEvent::Probed { probe, found })?;
                }
            }
            Happening::Think(life) if self.lives(life) => self.on_think(life.0)?,
            Happening::Wake(life) if self.lives(life) => self.on_wake(life.0)?,
            Happening::Start(node) => self.start(node)?,
            Happening::Elect(term) => self.elect(term)?,
            Happening::StepDown(Life(Node::Master(at), life)) => {
                if self.lives(Life(Node::Master(at), life)) {
                    self.step_down(at);
                }
            }
            Happening::Replicate(Life(Node::Master(at), life)) => {
                if self.lives(Life(Node::Master(at), life)) {
                    self.on_replicate(at)?;
                }
            }
            Happening::Stream(Life(Node::Master(at), life)) => {
                if self.lives(Life(Node::Master(at), life)) {
                    self.on_stream(at);
                }
            }
            Happening::Sever(link) => {
                self.network.break_off(link, self.now, &mut self.queue);
            }
            Happening::Fault(at) => self.on_fault(at)?,
            Happening::Relief(at) => self.on_relief(at),
            Happening::Heal => self.heal()?,
            Happening::Drain => self.drain(),
            Happening::Operate => self.operate()?,
            Happening::Watch => self.watch()?,
            Happening::Judge => self.judge()?,
            Happening::Sample => self.on_sample(),
            Happening::End => self.is_over = true,
            // Of an earlier life.
            Happening::Dial(_)
            | Happening::Tick(_)
            | Happening::Written(_)
            | Happening::Container(..)
            | Happening::Executor(..)
            | Happening::Wiped(..)
            | Happening::Probed(..)
            | Happening::Think(_)
            | Happening::Wake(_)
            | Happening::StepDown(_)
            | Happening::Replicate(_)
            | Happening::Stream(_) => {}
        }
        Ok(())
    }

    fn lives(&self, Life(node, life): Life) -> bool {
        match node {
            Node::Master(at) => self.masters[at].core.is_some() && self.masters[at].life == life,
            Node::Slave(at) => self.slaves[at].core.is_some() && self.slaves[at].life == life,
            Node::Framework(at) => self.frameworks[at].is_up && self.frameworks[at].life == life,
        }
    }

    fn start(&mut self, node: Node) -> Result<(), Broken> {
        match node {
            Node::Master(at) => self.start_master(at),
            Node::Slave(slave) => self.start_slave(slave)?,
            Node::Framework(framework) => self.start_framework(framework)?,
        }
        Ok(())
    }

    fn on_tick(&mut self, node: Node) -> Result<(), Broken> {
        match node {
            Node::Master(at) => self.tick_master(at),
            Node::Slave(slave) => self.tick_slave(slave),
            Node::Framework(framework) => self.tick_framework(framework),
        }
    }

    fn on_written(&mut self, node: Node) -> Result<(), Broken> {
        match node {
            Node::Master(at) => self.on_log_written(at),
            Node::Slave(slave) => self.on_checkpoint_written(slave),
            Node::Framework(_) => Ok(()),
        }
    }

    fn dial(&mut self, node: Node) {
        // After this one the next, unless somebody names the leader.
        let masters = self.masters.len();
        match node {
            Node::Slave(slave) if self.slaves[slave].link.is_none() => {
                let client = Client::Slave(slave);
                let node = &mut self.slaves[slave];
                let master = node.master;
                node.master = (master + 1) % masters;
                let link = self.network.dial(client, master, self.now, &mut self.queue);
                node.link = Some(link);
            }
            Node::Framework(framework) if self.frameworks[framework].link.is_none() => {
                let client = Client::Framework(framework);
                let node = &mut self.frameworks[framework];
                let master = node.master;
                node.master = (master + 1) % masters;
                let link = self.network.dial(client, master, self.now, &mut self.queue);
                node.link = Some(link);
            }
            _ => {}
        }
    }

    fn on_answer(&mut self, client: Client, link: Link, stands: bool) -> Result<(), Broken> {
        match client {
            Client::Slave(slave) => self.on_slave_answer(slave, link, stands),
            Client::Framework(framework) => self.on_framework_answer(framework, link, stands),
        }
    }

    fn on_message(&mut self, client: Client, link: Link, message: Message) -> Result<(), Broken> {
        match (client, message) {
            (_, Message::FromSlave(message)) => self.on_from_slave(link, message),
            (_, Message::FromFramework(message)) => self.on_from_framework(link, message),
            (Client::Slave(slave), Message::ToSlave(message)) => {
                self.on_to_slave(slave, link, message)
            }
            (Client::Framework(framework), Message::ToFramework(message)) => {
                self.on_to_framework(framework, link, message)
            }
            (_, Message::EndUp) => self.on_lost(link, End::Master),
            (_, Message::EndDown) => self.on_lost(link, End::Client),
            (_, Message::ToSlave(_) | Message::ToFramework(_)) => Ok(()),
        }
    }

    fn on_lost(&mut self, link: Link, end: End) -> Result<(), Broken> {
        let client = self.network.client(link);
        if client.is_some() {
            self.network.forget(link, end);
        }
        match end {
            End::Master => self.on_master_lost(link),
            End::Client => {
                // Whose it was is known to the client even if the network has forgotten it.
                match self.network.dialled_by(link).0 {
                    Client::Slave(slave) if self.slaves[slave].link == Some(link) => {
                        self.on_slave_lost(slave, link)
                    }
                    Client::Framework(at) if self.frameworks[at].link == Some(link) => {
                        self.on_framework_lost(at)
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}
