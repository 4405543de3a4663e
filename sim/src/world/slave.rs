//! The process of a slave: its core, its checkpoint, its containers, its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::check::{CheckStatus, Probe};
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::resources::Resources;
use meros_proto::slave::{SlaveCapability, SlaveDescription};
use meros_proto::time::Timestamp;
use meros_slave_core::{
    Checkpoint, Config, ConnectionId, ContainerExit, ContainerId, Effect, Effects, Event, Found,
    FoundContainer, FoundState, Identity, Owner, Record, RecordId, SlaveCore, TaskKey,
    VolumeDirectory,
};

use super::election::master_named;
use super::executors::{self, Process};
use super::guests::script_of;
use super::network::{End, Link, Message, Way};
use super::{Crash, Happening, Life, Node, World};
use crate::behaviour::script::Script;
use crate::clock::Clock;
use crate::fault::Point;
use crate::invariants::{Broken, check, durable, fits, groups, sent_away, volumes};
use crate::journal::Journal;
use crate::plan::{Client, SlavePlan};
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

/// A container with its shim: it lives on its machine, whatever becomes of the slave.
#[derive(Debug)]
pub(super) struct Container {
    /// The task; of an executor a name that no task has.
    pub(super) key: TaskKey,
    /// The program in it, if it is an executor.
    pub(super) executor: Option<Box<Process>>,
    /// What it was started with.
    resources: Resources,
    /// What it may use.
    allowed: Resources,
    script: Script,
    /// The life of the slave that asked for it: numbers come again on an empty disk.
    pub(super) born: u32,
    asked: Timestamp,
    ends_with_slave: bool,
    /// No task has it any more, and it is being killed.
    is_stray: bool,
    shim: Shim,
}

/// What the shim of a container has to say.
#[derive(Debug)]
enum Shim {
    Starting,
    Watching { pid: u32 },
    Ended(FoundState),
}

impl Container {
    fn has_ended(&self) -> bool {
        matches!(self.shim, Shim::Ended(_))
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.shim, Shim::Watching { .. })
    }

    fn owner(&self) -> Owner {
        match self.executor.as_deref() {
            None => Owner::Task(self.key.clone()),
            Some(process) => Owner::Executor(process.key.clone()),
        }
    }

    /// Whether it is for this task, or its executor has it.
    fn has(&self, framework_id: FrameworkId, task: &TaskId) -> bool {
        match self.executor.as_deref() {
            None => self.key.0 == framework_id && self.key.1 == *task,
            Some(process) => process.key.0 == framework_id && process.runs(task),
        }
    }
}

#[derive(Debug)]
pub(super) struct SlaveNode {
    pub(super) core: Option<Box<SlaveCore>>,
    pub(super) life: u32,
    pub(super) link: Option<Link>,
    is_connected: bool,
    /// The master to dial next.
    pub(super) master: usize,
    plan: SlavePlan,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    disk: Checkpoint,
    journal: Journal<(RecordId, Record)>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    /// Connections of executors in all its lives.
    pub(super) sessions: u64,
    /// Frameworks whose tasks it no longer answers for, in this life.
    shut_down: BTreeSet<FrameworkId>,
    tick: Option<Timestamp>,
    pids: u32,
    pub(super) crash: Option<Crash>,
    pub(super) slow: Option<Duration>,
    /// It died before it had written down which term had welcomed it.
    has_forgotten_term: bool,
    /// It has done something about tasks since this was cleared.
    has_obeyed: bool,
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
            master: 0,
            plan,
            clock: Clock::draw(&mut rng),
            rng,
            disk: Checkpoint::default(),
            journal: Journal::new(),
            containers: BTreeMap::new(),
            sessions: 0,
            shut_down: BTreeSet::new(),
            tick: None,
            pids: 0,
            crash: None,
            slow: None,
            has_forgotten_term: false,
            has_obeyed: false,
            back_in: None,
        }
    }

    /// What it has, with what was reserved, while it is up.
    pub(super) fn resources(&self) -> &Resources {
        self.core
            .as_ref()
            .map_or(&self.plan.resources, |core| core.total())
    }

    /// Who it is, while it is up.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.core.as_ref()?.identity()
    }

    /// Whether it runs a task for its framework.
    pub(super) fn answers_for(&self, framework_id: FrameworkId, task: &TaskId) -> bool {
        let is_it = |it: &Container| it.has(framework_id, task) && !it.has_ended() && !it.is_stray;
        // One that has forgotten whom it obeyed may be with a deposed master for a moment.
        let is_known = !self.has_forgotten_term && !self.shut_down.contains(&framework_id);
        is_known && self.containers.values().any(is_it)
    }

    /// The tasks whose containers run, or are about to.
    pub(super) fn running(&self) -> impl Iterator<Item = (ContainerId, TaskKey)> {
        let alive = self.containers.iter().filter(|(_, it)| !it.has_ended());
        alive.flat_map(|(id, it)| it.tasks().into_iter().map(|key| (*id, key)))
    }
}

/// Whether an event with these effects is the one that a crash waits for.
fn is_at(point: Point, effects: &[Effect]) -> bool {
    let persists = |effect: &Effect| matches!(effect, Effect::Persist { .. });
    let acknowledges = |effect: &Effect| {
        let record = match effect {
            Effect::Persist { record, .. } => Some(record),
            _ => None,
        };
        matches!(record, Some(Record::UpdateAcknowledged { .. }))
    };
    let sends = |effect: &Effect| matches!(effect, Effect::Send { .. });
    match point {
        Point::Any => !effects.is_empty(),
        Point::Durable => effects.iter().any(persists),
        Point::Acknowledgement => effects.iter().any(acknowledges) && effects.iter().any(sends),
    }
}

impl World {
    pub(super) fn start_slave(&mut self, slave: usize) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if node.core.is_some() {
            return Ok(());
        }
        node.life += 1;
        if self.plan.checks() {
            let client = Client::Slave(slave);
            self.checks.old_terms.on_life(client, node.disk.epoch);
        }
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
            capabilities: vec![SlaveCapability::CustomExecutors],
            version: "simulated".to_owned(),
        };
        let mut effects = Effects::new();
        let recovered = node.disk.clone();
        let found = self.find_containers(slave);
        let config = Config::new(description);
        let core = SlaveCore::new(config, recovered, found, now, &mut effects);
        let node = &mut self.slaves[slave];
        node.core = Some(Box::new(core));
        if let Some(meter) = &mut self.meter {
            meter.on_slave_up(&node.plan.resources);
        }
        let life = Life(Node::Slave(slave), node.life);
        self.carry_out_slave(slave, &mut effects)?;
        self.after(Duration::from_millis(1), Happening::Dial(life));
        Ok(())
    }

    /// What a slave that starts is told by the shims. One that is just starting its task answers when
    /// it has.
    fn find_containers(&mut self, slave: usize) -> Vec<FoundContainer> {
        let now = self.now;
        let (mut found, mut ends) = (Vec::new(), Vec::new());
        let node = &mut self.slaves[slave];
        for (&container, it) in &mut node.containers {
            it.is_stray = match it.executor.as_deref_mut() {
                None => !node.disk.tasks.contains_key(&it.key),
                Some(process) => {
                    // The other end is gone.
                    process.session = None;
                    !node.disk.executors.contains_key(&process.key)
                }
            };
            if let Shim::Starting = it.shim {
                node.pids += 1;
                it.shim = match it.script.starts {
                    true => Shim::Watching { pid: node.pids },
                    false => Shim::Ended(FoundState::NeverRan),
                };
                if let (false, Some(meter)) = (it.script.starts, &mut self.meter) {
                    meter.on_container_ended(it.key.0, &it.resources);
                }
                let ended = ContainerStep::Ended(Box::new(it.script.exit.clone()));
                let life = Life(Node::Slave(slave), it.born);
                let runs = it.script.runs.filter(|_| it.script.starts);
                ends.extend(runs.map(|runs| (runs, Happening::Container(life, container, ended))));
            }
            let state = match &it.shim {
                Shim::Watching { pid } => FoundState::Running { pid: *pid },
                Shim::Ended(state) => state.clone(),
                Shim::Starting => continue,
            };
            found.push(FoundContainer {
                container,
                owner: it.owner(),
                age: now.since(it.asked),
                state,
            });
        }
        for (runs, end) in ends {
            self.after(runs, end);
        }
        let executors = self.slaves[slave].containers.iter();
        let executors = executors.filter(|(_, it)| it.executor.is_some() && it.runs());
        let executors: Vec<ContainerId> = executors.map(|(id, _)| *id).collect();
        for container in executors {
            self.dial_from_executor(slave, container);
        }
        found
    }

    /// The process dies. Its containers go on, but those that were to end with it.
    pub(super) fn crash_slave(&mut self, slave: usize, down: Duration) {
        let node = &mut self.slaves[slave];
        if node.core.take().is_none() {
            return;
        }
        node.crash = None;
        node.back_in = None;
        self.leave_containers(slave);
        let node = &mut self.slaves[slave];
        if let Some(meter) = &mut self.meter {
            meter.on_slave_down(&node.plan.resources);
        }
        node.is_connected = false;
        for (_, record) in node.journal.crash(&mut node.rng) {
            node.disk.apply(record);
        }
        let heard = self.checks.old_terms.highest(Client::Slave(slave));
        node.has_forgotten_term |= node.disk.epoch < heard;
        if let Some(link) = node.link.take() {
            self.network
                .die(link, End::Client, self.now, &mut self.queue);
        }
        self.trace.line(|| format!("slave {slave} dies"));
        self.after(down, Happening::Start(Node::Slave(slave)));
    }

    /// What the shims do that have lost their slave.
    fn leave_containers(&mut self, slave: usize) {
        let node = &mut self.slaves[slave];
        let tied = node.containers.iter().filter(|(_, it)| it.ends_with_slave);
        let tied: Vec<ContainerId> = tied.map(|(id, _)| *id).collect();
        for container in tied {
            self.end_container(slave, container, FoundState::EndedWithSlave);
        }
    }

    /// The machine restarts: nothing runs any more.
    pub(super) fn end_containers(&mut self, slave: usize) {
        let all: Vec<ContainerId> = self.slaves[slave].containers.keys().copied().collect();
        for container in all {
            self.end_container(slave, container, FoundState::Rebooted);
        }
    }

    /// Every shim of a slave is killed, and with it what it watched over.
    pub(super) fn kill_shims(&mut self, slave: usize) -> Result<(), Broken> {
        let node = &self.slaves[slave];
        let watching = |it: &&Container| matches!(it.shim, Shim::Watching { .. });
        let all = node.containers.iter().filter(|(_, it)| watching(it));
        let all: Vec<ContainerId> = all.map(|(id, _)| *id).collect();
        for container in all {
            self.end_container(slave, container, FoundState::Lost);
            self.feed_slave(slave, Event::ContainerLost { container })?;
        }
        Ok(())
    }

    /// It has ended so, if it had not; one whose task never ran is none any more.
    fn end_container(&mut self, slave: usize, container: ContainerId, state: FoundState) {
        let node = &mut self.slaves[slave];
        let Some(it) = node.containers.get_mut(&container) else {
            return;
        };
        if it.has_ended() {
            return;
        }
        if let Some(meter) = &mut self.meter {
            meter.on_container_ended(it.key.0, &it.resources);
        }
        let has_run = matches!(it.shim, Shim::Watching { .. });
        it.shim = Shim::Ended(if has_run { state } else { FoundState::NeverRan });
    }

    /// The machine loses its checkpoint as well.
    pub(super) fn wipe_slave(&mut self, slave: usize) {
        self.slaves[slave].disk = Checkpoint::default();
        self.slaves[slave].containers.clear();
        self.checks.volumes.on_disk_lost(slave);
        self.slaves[slave].has_forgotten_term = true;
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
        let is_welcome = matches!(message, MasterToSlave::Registered { .. });
        if let (MasterToSlave::Acknowledge { update_id, .. }, true) = (&message, self.plan.checks())
        {
            self.checks.kept.on_acknowledged(*update_id);
        }
        self.slaves[slave].has_obeyed = false;
        let event = Event::Master {
            connection,
            message,
        };
        self.feed_slave(slave, event)?;
        let (node, true) = (&self.slaves[slave], self.plan.checks()) else {
            return Ok(());
        };
        let (Some(core), Some(term)) = (&node.core, self.terms.get(&link)) else {
            return Ok(());
        };
        let welcomed = is_welcome && core.is_registered();
        let is_latest = *term == self.log.term();
        let client = Client::Slave(slave);
        let old_terms = &mut self.checks.old_terms;
        old_terms.on_heard(client, *term, welcomed, node.has_obeyed)?;
        self.slaves[slave].has_forgotten_term &= !(welcomed && is_latest);
        Ok(())
    }

    pub(super) fn tick_slave(&mut self, slave: usize) -> Result<(), Broken> {
        // Another one was set after it, for an earlier time.
        let now = self.now;
        if self.slaves[slave].tick.take_if(|at| *at <= now).is_none() {
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
            let disk = &mut self.slaves[slave].disk;
            if self.plan.checks() {
                let log = self.log.registry();
                self.checks.kept.check_record(disk, &record, log)?;
                self.checks.claims_kept.check_record(disk, &record)?;
                volumes::check_record(disk, &record)?;
                groups::check_record(disk, &record)?;
            }
            disk.apply(record);
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

    /// The data of a destroyed volume is gone.
    pub(super) fn on_volume_wiped(
        &mut self,
        slave: usize,
        directory: VolumeDirectory,
    ) -> Result<(), Broken> {
        self.feed_slave(slave, Event::VolumeWiped { directory })
    }

    pub(super) fn on_container(
        &mut self,
        slave: usize,
        born: u32,
        container: ContainerId,
        step: ContainerStep,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        // It may have ended meanwhile: killed, or by itself before the kill.
        let known = node.containers.get_mut(&container);
        let Some(known) = known.filter(|it| it.born == born && !it.has_ended()) else {
            return Ok(());
        };
        let event = match step {
            ContainerStep::Started | ContainerStep::NotStarted
                if !matches!(known.shim, Shim::Starting) =>
            {
                return Ok(());
            }
            ContainerStep::Started => {
                node.pids += 1;
                let pid = node.pids;
                known.shim = Shim::Watching { pid };
                if let Some(runs) = known.script.runs {
                    let ended = ContainerStep::Ended(Box::new(known.script.exit.clone()));
                    let life = Life(Node::Slave(slave), born);
                    self.after(runs, Happening::Container(life, container, ended));
                }
                // Some never look for their slave.
                let node = &mut self.slaves[slave];
                let is_executor = node.containers[&container].executor.is_some();
                if is_executor && !node.rng.percent(3) {
                    self.dial_from_executor(slave, container);
                }
                Event::ContainerStarted {
                    container,
                    pid,
                    image: None,
                }
            }
            ContainerStep::NotStarted => {
                self.end_container(slave, container, FoundState::NeverRan);
                self.slaves[slave].containers.remove(&container);
                let message = "the command is not there".to_owned();
                Event::ContainerNotStarted { container, message }
            }
            ContainerStep::Ended(exit) => {
                let exit = *exit;
                if known.executor.is_some() && !known.tasks().is_empty() {
                    self.meet("an executor ends with tasks");
                }
                self.end_container(slave, container, FoundState::Ended(exit.clone()));
                Event::ContainerEnded { container, exit }
            }
        };
        self.feed_slave(slave, event)
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
        let crash = self.slaves[slave]
            .crash
            .filter(|crash| is_at(crash.point, &all));
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

    pub(super) fn arm_slave(&mut self, slave: usize) {
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
                    }
                    | Record::UpdateHeard {
                        framework_id,
                        status,
                        ..
                    } if self.plan.checks() => {
                        let task = (*framework_id, status.task_id.clone());
                        let has_started = |other: &TaskKey| {
                            let mut all = node.containers.values();
                            all.any(|it| it.key == *other && !matches!(it.shim, Shim::Starting))
                        };
                        groups::check_made(&node.disk, &task, status, has_started)?;
                        self.checks.own_news.on_made(*framework_id, status);
                    }

                    Record::FrameworkShutDown { framework_id } => {
                        node.shut_down.insert(*framework_id);
                    }
                    _ => {}
                }
                node.has_obeyed |= matches!(
                    record,
                    Record::TaskAdded(_)
                        | Record::GroupAdded { .. }
                        | Record::TaskForgotten { .. }
                        | Record::UpdateAcknowledged { .. }
                        | Record::FrameworkShutDown { .. }
                        | Record::ClaimsChanged(_)
                );
                let ends_early = matches!(record, Record::GroupEnding { .. });
                if node.journal.append((id, record)) {
                    self.begin_checkpoint_write(slave);
                }
                if ends_early {
                    self.meet("a group ends early");
                }
            }
            Effect::Send {
                connection,
                message,
            } => {
                match &message {
                    SlaveToMaster::Update(update) if self.plan.checks() => {
                        durable::check_sent(&node.disk, update.framework_id, &update.status)?;
                    }
                    SlaveToMaster::ChangeApplied { number } if self.plan.checks() => {
                        durable::check_confirmed(&node.disk, *number)?;
                    }
                    SlaveToMaster::ReportClaims { claims, .. } if self.plan.checks() => {
                        durable::check_claims(&node.disk, claims)?;
                    }
                    _ => {}
                }
                let link = Link(connection.0);
                let message = Message::FromSlave(message);
                self.network
                    .send(link, Way::Up, message, self.now, &mut self.queue);
            }
            Effect::Reconnect { connection, leader } => {
                let named = leader.and_then(|name| master_named(&name, self.masters.len()));
                node.master = named.unwrap_or(node.master);
                let link = Link(connection.0);
                self.network
                    .close(link, End::Client, self.now, &mut self.queue);
                self.queue
                    .push(self.now, Happening::Lost(link, End::Client));
            }
            Effect::WipeVolume { directory } => {
                if self.plan.checks() {
                    self.checks
                        .volumes
                        .on_wiped(slave, &node.disk.claims, &directory)?;
                }
                let after = node
                    .rng
                    .skewed(Duration::from_millis(1), Duration::from_secs(5));
                self.after(after, Happening::Wiped(life, directory));
            }
            Effect::Probe { id, probe, timeout } => {
                let after = node.rng.skewed(Duration::from_millis(1), timeout);
                let found = found_by(&mut node.rng, &probe);
                self.after(after, Happening::Probed(life, id, found));
            }
            Effect::StartContainer {
                container,
                run,
                volumes,
                ends_with_slave,
                ..
            } => {
                let key = (run.framework.framework_id, run.task.task_id.clone());
                if self.plan.checks() {
                    durable::check_started(&node.disk, &key)?;
                    self.checks.volumes.on_mounted(
                        slave,
                        &node.disk.claims,
                        &run.task.resources,
                        &volumes,
                    )?;
                }
                let script = script_of(&self.plan, &self.owners, key.0, &run.task)
                    .unwrap_or_else(|| Script::of(&self.rng, &run.task));
                let resources = run.task.resources;
                self.begin_container(
                    slave,
                    container,
                    Container {
                        key,
                        executor: None,
                        allowed: resources.clone(),
                        resources,
                        script,
                        born: life.1,
                        asked: self.now,
                        ends_with_slave,
                        is_stray: false,
                        shim: Shim::Starting,
                    },
                )?;
            }
            Effect::StartExecutor {
                container,
                run,
                ends_with_slave,
                ..
            } => {
                let process = Box::new(Process::of(&run));
                if self.plan.checks() {
                    durable::check_executor_started(&node.disk, &process.key)?;
                }
                let name = TaskId::new(format!("executor:{}", process.key.1));
                let script = executors::script(&mut node.rng);
                let resources = run.executor.resources;
                self.begin_container(
                    slave,
                    container,
                    Container {
                        key: (process.key.0, name.expect("short ids")),
                        executor: Some(process),
                        allowed: resources.clone(),
                        resources,
                        script,
                        born: life.1,
                        asked: self.now,
                        ends_with_slave,
                        is_stray: false,
                        shim: Shim::Starting,
                    },
                )?;
            }
            Effect::ResizeContainer {
                container,
                resources,
            } => {
                if let Some(known) = node.containers.get_mut(&container) {
                    known.allowed = resources;
                }
                self.check_containers(slave)?;
            }
            Effect::TellExecutor { session, message } => {
                self.tell_executor(slave, session, message);
            }
            Effect::CloseSession { session } => self.close_session(slave, session),
            // Nothing is fetched here: the answer comes as it would.
            Effect::CancelStart { .. } => {}
            Effect::KillContainer { container, grace } => {
                node.has_obeyed = true;
                if let Some(known) = node.containers.get(&container) {
                    let (after, exit) = known.script.killed(grace);
                    let step = ContainerStep::Ended(Box::new(exit));
                    let life = Life(Node::Slave(slave), known.born);
                    self.after(after, Happening::Container(life, container, step));
                }
            }
            Effect::ForgetContainer { container } => {
                let forgotten = node.containers.remove(&container);
                let has_ended = forgotten.is_none_or(|it| it.has_ended());
                check("W12", has_ended, || {
                    format!("{container} is forgotten, and runs")
                })?;
            }
            Effect::FrameworkForgotten { .. } => {}
            Effect::Exit { why } => self.exit_slave(slave, why)?,
        }
        Ok(())
    }

    fn begin_container(
        &mut self,
        slave: usize,
        container: ContainerId,
        it: Container,
    ) -> Result<(), Broken> {
        let step = match it.script.starts {
            true => ContainerStep::Started,
            false => ContainerStep::NotStarted,
        };
        let life = Life(Node::Slave(slave), it.born);
        self.queue.push(
            self.now.after(it.script.start),
            Happening::Container(life, container, step),
        );
        if let Some(meter) = &mut self.meter {
            meter.on_container_started(it.key.0, &it.resources);
        }
        self.slaves[slave].containers.insert(container, it);
        self.check_containers(slave)
    }

    /// W7, of what runs.
    fn check_containers(&self, slave: usize) -> Result<(), Broken> {
        if !self.plan.checks() {
            return Ok(());
        }
        let node = &self.slaves[slave];
        let answered = node
            .containers
            .values()
            .filter(|it| !it.has_ended() && !it.is_stray)
            .filter(|it| !node.shut_down.contains(&it.key.0))
            .map(|it| &it.allowed);
        let total = node.disk.total(&node.plan.resources);
        let total = total.expect("claims are made of what there is");
        fits::check_containers(&total, answered)
    }

    fn exit_slave(
        &mut self,
        slave: usize,
        why: Option<meros_proto::refusal::Refusal>,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if let Some(why) = why {
            // Nobody gives a slave up for good here but the slave itself.
            return sent_away::check_slave(slave, &why);
        }
        let down = node.back_in.take().unwrap_or_default();
        node.crash = None;
        node.core = None;
        node.is_connected = false;
        // What it was asked to make durable is: its core waits for that before it goes.
        self.leave_containers(slave);
        let node = &mut self.slaves[slave];
        if let Some(meter) = &mut self.meter {
            meter.on_slave_down(&node.plan.resources);
        }
        if let Some(link) = node.link.take() {
            self.network
                .close(link, End::Client, self.now, &mut self.queue);
        }
        self.after(down, Happening::Start(Node::Slave(slave)));
        Ok(())
    }
}

/// What a probe finds is chance: most often that all is well, sometimes nothing at all.
fn found_by(rng: &mut Rng, probe: &Probe) -> Option<Found> {
    let status = match rng.below(10) {
        0 => return None,
        1..=2 => CheckStatus::none_of(probe),
        _ => CheckStatus::Tcp {
            succeeded: Some(true),
        },
    };
    let message = String::new();
    Some(Found { status, message })
}
