//! The process of a slave: its core, its checkpoint, its containers, its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::ids::FrameworkId;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveDescription;
use meros_proto::time::Timestamp;
use meros_slave_core::{
    Checkpoint, Config, ConnectionId, ContainerExit, ContainerId, Effect, Effects, Event, Record,
    RecordId, SlaveCore, TaskKey,
};

use super::network::{End, Link, Message, Way};
use super::{Crash, Happening, Life, Node, World};
use crate::behaviour::script::Script;
use crate::clock::Clock;
use crate::invariants::{Broken, durable, fits};
use crate::journal::Journal;
use crate::plan::SlavePlan;
use crate::prng::Rng;
use crate::scenario::Stopwatch;

/// What becomes of a container next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerStep {
    Started,
    NotStarted,
    /// In a box: what is going to happen is moved about in a heap, and should be small.
    Ended(Box<ContainerExit>),
}

#[derive(Debug)]
struct Container {
    key: TaskKey,
    resources: Resources,
    script: Script,
}

#[derive(Debug)]
pub(super) struct SlaveNode {
    pub(super) core: Option<Box<SlaveCore>>,
    pub(super) life: u32,
    pub(super) link: Option<Link>,
    is_connected: bool,
    plan: SlavePlan,
    clock: Clock,
    rng: Rng,
    disk: Checkpoint,
    journal: Journal<(RecordId, Record)>,
    containers: BTreeMap<ContainerId, Container>,
    /// Frameworks whose tasks it no longer answers for, in this life.
    shut_down: BTreeSet<FrameworkId>,
    tick: Option<Timestamp>,
    pids: u32,
    pub(super) crash: Option<Crash>,
    pub(super) slow: Option<Duration>,
    /// Set while it is going in good order: when it comes back.
    pub(super) back_in: Option<Duration>,
}

impl SlaveNode {
    pub(super) fn new(plan: SlavePlan, mut rng: Rng) -> Self {
        Self {
            core: None,
            life: 0,
            link: None,
            is_connected: false,
            plan,
            clock: Clock::draw(&mut rng),
            rng,
            disk: Checkpoint::default(),
            journal: Journal::new(),
            containers: BTreeMap::new(),
            shut_down: BTreeSet::new(),
            tick: None,
            pids: 0,
            crash: None,
            slow: None,
            back_in: None,
        }
    }

    pub(super) fn resources(&self) -> &Resources {
        &self.plan.resources
    }

    /// The tasks whose containers run, or are about to.
    pub(super) fn running(&self) -> impl Iterator<Item = (ContainerId, &TaskKey)> {
        self.containers.iter().map(|(id, it)| (*id, &it.key))
    }
}

impl World {
    pub(super) fn start_slave(&mut self, slave: usize) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if node.core.is_some() {
            return Ok(());
        }
        node.life += 1;
        if node.rng.percent(50) {
            node.clock = Clock::draw(&mut node.rng);
        }
        node.tick = None;
        node.shut_down.clear();
        let now = node.clock.local(self.now);
        let description = SlaveDescription {
            hostname: format!("host{slave}"),
            http_address: String::new(),
            resources: node.plan.resources.clone(),
            attributes: node.plan.attributes.clone(),
            capabilities: Vec::new(),
            version: "simulated".to_owned(),
        };
        let mut effects = Effects::new();
        let recovered = node.disk.clone();
        let core = SlaveCore::new(Config::new(description), recovered, now, &mut effects);
        node.core = Some(Box::new(core));
        let life = Life(Node::Slave(slave), node.life);
        self.carry_out_slave(slave, &mut effects)?;
        self.after(Duration::from_millis(1), Happening::Dial(life));
        Ok(())
    }

    /// The process dies, and its containers with it.
    pub(super) fn crash_slave(&mut self, slave: usize, down: Duration) {
        let node = &mut self.slaves[slave];
        if node.core.take().is_none() {
            return;
        }
        node.crash = None;
        node.back_in = None;
        for (_, container) in std::mem::take(&mut node.containers) {
            if let Some(meter) = &mut self.meter {
                meter.on_container_ended(container.key.0, &container.resources);
            }
        }
        node.is_connected = false;
        for (_, record) in node.journal.crash(&mut node.rng) {
            node.disk.apply(record);
        }
        if let Some(link) = node.link.take() {
            self.network
                .die(link, End::Client, self.now, &mut self.queue);
        }
        self.trace.line(|| format!("slave {slave} dies"));
        self.after(down, Happening::Start(Node::Slave(slave)));
    }

    fn redial(&mut self, slave: usize) {
        let node = &mut self.slaves[slave];
        let wait = node
            .rng
            .skewed(Duration::from_millis(10), Duration::from_secs(2));
        let life = Life(Node::Slave(slave), node.life);
        if node.core.is_some() {
            self.after(wait, Happening::Dial(life));
        }
    }

    pub(super) fn on_slave_answer(
        &mut self,
        slave: usize,
        link: Link,
        stands: bool,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if node.link != Some(link) {
            return Ok(());
        }
        if !stands {
            node.link = None;
            self.redial(slave);
            return Ok(());
        }
        node.is_connected = true;
        let connection = ConnectionId(link.0);
        self.feed_slave(slave, Event::Connected { connection })
    }

    pub(super) fn on_slave_lost(&mut self, slave: usize, link: Link) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        node.link = None;
        let was_connected = std::mem::take(&mut node.is_connected);
        self.redial(slave);
        match was_connected {
            true => {
                let connection = ConnectionId(link.0);
                self.feed_slave(slave, Event::Disconnected { connection })
            }
            false => Ok(()),
        }
    }

    pub(super) fn on_to_slave(
        &mut self,
        slave: usize,
        link: Link,
        message: MasterToSlave,
    ) -> Result<(), Broken> {
        let connection = ConnectionId(link.0);
        self.feed_slave(
            slave,
            Event::Master {
                connection,
                message,
            },
        )
    }

    pub(super) fn tick_slave(&mut self, slave: usize) -> Result<(), Broken> {
        // Another one was set after it, for an earlier time.
        let now = self.now;
        if self.slaves[slave].tick.take_if(|at| *at == now).is_none() {
            return Ok(());
        }
        self.feed_slave(slave, Event::Tick)
    }

    pub(super) fn on_checkpoint_written(&mut self, slave: usize) -> Result<(), Broken> {
        let (durable, goes_on) = self.slaves[slave].journal.written();
        if goes_on {
            self.begin_checkpoint_write(slave);
        }
        let last = durable.last().map(|(id, _)| *id);
        for (_, record) in durable {
            self.slaves[slave].disk.apply(record);
        }
        match last {
            Some(record) => self.feed_slave(slave, Event::Persisted { record }),
            None => Ok(()),
        }
    }

    fn begin_checkpoint_write(&mut self, slave: usize) {
        let most = self.plan.disk_max;
        let node = &mut self.slaves[slave];
        let wait = node
            .slow
            .unwrap_or_else(|| node.rng.skewed(Duration::from_micros(50), most));
        let life = Life(Node::Slave(slave), node.life);
        self.after(wait, Happening::Written(life));
    }

    pub(super) fn on_container(
        &mut self,
        slave: usize,
        container: ContainerId,
        step: ContainerStep,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        // It may have ended meanwhile: killed, or by itself before the kill.
        let Some(known) = node.containers.get(&container) else {
            return Ok(());
        };
        let event = match step {
            ContainerStep::Started => {
                node.pids += 1;
                let pid = node.pids;
                if let Some(runs) = known.script.runs {
                    let ended = ContainerStep::Ended(Box::new(known.script.exit.clone()));
                    let life = Life(Node::Slave(slave), node.life);
                    self.after(runs, Happening::Container(life, container, ended));
                }
                Event::ContainerStarted { container, pid }
            }
            ContainerStep::NotStarted => {
                self.remove_container(slave, container);
                let message = "the command is not there".to_owned();
                Event::ContainerNotStarted { container, message }
            }
            ContainerStep::Ended(exit) => {
                self.remove_container(slave, container);
                let exit = *exit;
                Event::ContainerEnded { container, exit }
            }
        };
        self.feed_slave(slave, event)
    }

    fn remove_container(&mut self, slave: usize, container: ContainerId) {
        let removed = self.slaves[slave].containers.remove(&container);
        if let (Some(container), Some(meter)) = (removed, &mut self.meter) {
            meter.on_container_ended(container.key.0, &container.resources);
        }
    }

    /// Something happens to a slave's core; nothing if it is down.
    pub(super) fn feed_slave(&mut self, slave: usize, event: Event) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        let now = node.clock.local(self.now);
        let Some(core) = node.core.as_deref_mut() else {
            return Ok(());
        };
        let mut effects = Effects::new();
        let watch = Stopwatch::start(self.meter.is_some());
        core.handle(event, now, &mut effects);
        if let Some(meter) = &mut self.meter {
            meter.on_slave_time(watch);
        }
        if self.plan.checks() {
            core.check_invariants();
        }
        self.carry_out_slave(slave, &mut effects)
    }

    fn carry_out_slave(&mut self, slave: usize, effects: &mut Effects) -> Result<(), Broken> {
        let all: Vec<Effect> = effects.drain().collect();
        let crash = self.slaves[slave].crash.filter(|_| !all.is_empty());
        let carried = crash.map_or(all.len(), |crash| crash.effects);
        for effect in all.into_iter().take(carried) {
            self.carry_out_one(slave, effect)?;
        }
        match crash {
            Some(crash) => self.crash_slave(slave, crash.down),
            None => self.arm_slave(slave),
        }
        Ok(())
    }

    fn arm_slave(&mut self, slave: usize) {
        let node = &mut self.slaves[slave];
        let Some(deadline) = node.core.as_ref().and_then(|core| core.next_deadline()) else {
            return;
        };
        let at = node.clock.when(deadline, self.now);
        if node.tick.is_none_or(|armed| at < armed) {
            node.tick = Some(at);
            let life = Life(Node::Slave(slave), node.life);
            self.queue.push(at, Happening::Tick(life));
        }
    }

    fn carry_out_one(&mut self, slave: usize, effect: Effect) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        let life = Life(Node::Slave(slave), node.life);
        match effect {
            Effect::Persist { id, record } => {
                match &record {
                    Record::UpdateMade {
                        framework_id,
                        status,
                    } if self.plan.checks() => self.checks.own_news.on_made(*framework_id, status),
                    Record::FrameworkShutDown { framework_id } => {
                        node.shut_down.insert(*framework_id);
                    }
                    _ => {}
                }
                if node.journal.append((id, record)) {
                    self.begin_checkpoint_write(slave);
                }
            }
            Effect::Send {
                connection,
                message,
            } => {
                if let SlaveToMaster::Update(update) = &message
                    && self.plan.checks()
                {
                    durable::check_sent(&node.disk, update.framework_id, &update.status)?;
                }
                let link = Link(connection.0);
                let message = Message::FromSlave(message);
                self.network
                    .send(link, Way::Up, message, self.now, &mut self.queue);
            }
            Effect::Reconnect { connection, .. } => {
                let link = Link(connection.0);
                self.network
                    .close(link, End::Client, self.now, &mut self.queue);
                self.queue
                    .push(self.now, Happening::Lost(link, End::Client));
            }
            Effect::StartContainer { container, run, .. } => {
                let key = (run.framework.framework_id, run.task.task_id.clone());
                if self.plan.checks() {
                    durable::check_started(&node.disk, &key)?;
                }
                let script = Script::of(&self.rng, &run.task);
                let step = match script.starts {
                    true => ContainerStep::Started,
                    false => ContainerStep::NotStarted,
                };
                self.queue.push(
                    self.now.after(script.start),
                    Happening::Container(life, container, step),
                );
                let resources = run.task.resources;
                if let Some(meter) = &mut self.meter {
                    meter.on_container_started(key.0, &resources);
                }
                node.containers.insert(
                    container,
                    Container {
                        key,
                        resources,
                        script,
                    },
                );
                if self.plan.checks() {
                    let answered = node
                        .containers
                        .values()
                        .filter(|it| !node.shut_down.contains(&it.key.0))
                        .map(|it| &it.resources);
                    fits::check_containers(&node.plan.resources, answered)?;
                }
            }
            Effect::KillContainer { container, grace } => {
                if let Some(known) = node.containers.get(&container) {
                    let (after, exit) = known.script.killed(grace);
                    let step = ContainerStep::Ended(Box::new(exit));
                    self.after(after, Happening::Container(life, container, step));
                }
            }
            Effect::FrameworkForgotten { .. } => {}
            Effect::Exit { why } => self.exit_slave(slave, why)?,
        }
        Ok(())
    }

    fn exit_slave(
        &mut self,
        slave: usize,
        why: Option<meros_proto::refusal::Refusal>,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if let Some(why) = why {
            // Nobody gives a slave up for good here but the slave itself.
            let what = format!("slave {slave} is told to end: {why}");
            return Err(Broken { id: "W10", what });
        }
        let down = node.back_in.take().unwrap_or_default();
        node.crash = None;
        node.core = None;
        node.is_connected = false;
        // What it was asked to make durable is: its core waits for that before it goes.
        for (_, container) in std::mem::take(&mut node.containers) {
            if let Some(meter) = &mut self.meter {
                meter.on_container_ended(container.key.0, &container.resources);
            }
        }
        if let Some(link) = node.link.take() {
            self.network
                .close(link, End::Client, self.now, &mut self.queue);
        }
        self.after(down, Happening::Start(Node::Slave(slave)));
        Ok(())
    }
}
