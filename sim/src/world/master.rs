//! The master's process: its core, its log, and the connections it has taken.

use std::collections::BTreeSet;
use std::time::Duration;

use meros_master_core::{
    Command, ConnectionId, Effect, Effects, Event, MasterCore, OperatorCall, ProposalId, Registry,
    RequestId,
};
use meros_proto::ids::{ClusterId, Epoch, FrameworkId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::time::Timestamp;

use super::network::{End, Link, Message, Way};
use super::{Crash, Happening, Life, Node, World};
use crate::clock::Clock;
use crate::invariants::{Broken, durable};
use crate::journal::Journal;
use crate::plan::{Client, FrameworkPlan};
use crate::prng::Rng;
use crate::scenario::Stopwatch;

/// The master's own invariants are checked after every so many of its events.
const CHECK_EVERY: u64 = 8;

#[derive(Debug)]
pub(super) struct MasterNode {
    pub(super) core: Option<Box<MasterCore>>,
    pub(super) life: u32,
    clock: Clock,
    rng: Rng,
    log: Registry,
    journal: Journal<(ProposalId, Command)>,
    links: BTreeSet<Link>,
    tick: Option<Timestamp>,
    pub(super) crash: Option<Crash>,
    pub(super) slow: Option<Duration>,
    requests: u64,
    events: u64,
    /// Which framework's process has subscribed under an id last.
    owners: std::collections::BTreeMap<FrameworkId, usize>,
}

impl MasterNode {
    pub(super) fn new(mut rng: Rng) -> Self {
        let mut log = Registry::default();
        let cluster_id = ClusterId(u128::from(rng.next()));
        log.apply(&Command::FormCluster { cluster_id })
            .expect("the first command of an empty log");
        Self {
            core: None,
            life: 0,
            clock: Clock::draw(&mut rng),
            rng,
            log,
            journal: Journal::new(),
            links: BTreeSet::new(),
            tick: None,
            crash: None,
            slow: None,
            requests: 0,
            events: 0,
            owners: std::collections::BTreeMap::new(),
        }
    }

    /// What is durable.
    pub(super) fn log(&self) -> &Registry {
        &self.log
    }
}

impl World {
    pub(super) fn start_master(&mut self) {
        let node = &mut self.master;
        if node.core.is_some() {
            return;
        }
        node.life += 1;
        if node.rng.percent(50) {
            node.clock = Clock::draw(&mut node.rng);
        }
        let now = node.clock.local(self.now);
        let core = MasterCore::new(self.plan.master.clone(), node.log.clone(), now);
        node.core = Some(Box::new(core));
        node.tick = None;
        let life = Life(Node::Master, node.life);
        // Until it is elected it follows, and refuses everybody.
        let wait = match node.rng.percent(50) {
            true => Duration::ZERO,
            false => node
                .rng
                .skewed(Duration::from_millis(1), Duration::from_secs(3)),
        };
        self.after(wait, Happening::Elect(life));
    }

    pub(super) fn elect(&mut self) -> Result<(), Broken> {
        let epoch = Epoch(u64::from(self.master.life));
        self.feed_master(Event::Elected { epoch })
    }

    pub(super) fn crash_master(&mut self, down: Duration) {
        if self.master.core.take().is_none() {
            return;
        }
        self.master.crash = None;
        for (_, command) in self.master.journal.crash(&mut self.master.rng) {
            // Commands that no longer fit are results, not failures.
            let _ = self.master.log.apply(&command);
        }
        for link in std::mem::take(&mut self.master.links) {
            self.network
                .die(link, End::Master, self.now, &mut self.queue);
        }
        self.trace.line(|| "the master dies".to_owned());
        if let Some(meter) = &mut self.meter {
            meter.on_master_down(self.now);
        }
        self.after(down, Happening::Start(Node::Master));
    }

    pub(super) fn on_arrive(&mut self, link: Link) -> Result<(), Broken> {
        let is_up = self.master.core.is_some();
        let Some(client) = self.network.arrive(link, is_up, self.now, &mut self.queue) else {
            return Ok(());
        };
        self.master.links.insert(link);
        let connection = ConnectionId(link.0);
        self.feed_master(match client {
            Client::Slave(slave) => Event::SlaveConnected {
                connection,
                principal: format!("slave-{slave}"),
            },
            Client::Framework(framework) => Event::FrameworkConnected {
                connection,
                principal: format!("framework-{framework}"),
            },
        })
    }

    pub(super) fn on_master_lost(&mut self, link: Link) -> Result<(), Broken> {
        if !self.master.links.remove(&link) {
            return Ok(());
        }
        let connection = ConnectionId(link.0);
        self.feed_master(Event::Disconnected { connection })
    }

    pub(super) fn on_from_slave(
        &mut self,
        link: Link,
        message: SlaveToMaster,
    ) -> Result<(), Broken> {
        let connection = ConnectionId(link.0);
        self.feed_master(Event::Slave {
            connection,
            message,
        })
    }

    pub(super) fn on_from_framework(
        &mut self,
        link: Link,
        message: FrameworkToMaster,
    ) -> Result<(), Broken> {
        let connection = ConnectionId(link.0);
        self.feed_master(Event::Framework {
            connection,
            message,
        })
    }

    pub(super) fn tick_master(&mut self) -> Result<(), Broken> {
        // Another one was set after it, for an earlier time.
        if self.master.tick.take_if(|at| *at == self.now).is_none() {
            return Ok(());
        }
        self.feed_master(Event::Tick)
    }

    /// An operator asks for the end of a framework.
    pub(super) fn tear_down(&mut self, framework_id: FrameworkId) -> Result<(), Broken> {
        self.master.requests += 1;
        let request = RequestId(self.master.requests);
        let call = OperatorCall::Teardown { framework_id };
        self.feed_master(Event::Operator { request, call })
    }

    pub(super) fn on_log_written(&mut self) -> Result<(), Broken> {
        let (durable, goes_on) = self.master.journal.written();
        if goes_on {
            self.begin_log_write();
        }
        for (_, command) in &durable {
            let _ = self.master.log.apply(command);
        }
        for (proposal, command) in durable {
            let proposal = Some(proposal);
            self.feed_master(Event::Committed { proposal, command })?;
        }
        match &self.master.core {
            Some(core) if self.plan.checks() => {
                durable::check_registry(&self.master.log, core.registry())
            }
            _ => Ok(()),
        }
    }

    fn begin_log_write(&mut self) {
        let node = &mut self.master;
        let most = self.plan.disk_max;
        let wait = node
            .slow
            .unwrap_or_else(|| node.rng.skewed(Duration::from_micros(50), most));
        let life = Life(Node::Master, node.life);
        self.after(wait, Happening::Written(life));
    }

    fn feed_master(&mut self, event: Event) -> Result<(), Broken> {
        let Some(core) = self.master.core.as_deref_mut() else {
            return Ok(());
        };
        let now = self.master.clock.local(self.now);
        let mut effects = Effects::new();
        let watch = Stopwatch::start(self.meter.is_some());
        core.handle(event, now, &mut effects);
        let nanos = watch.nanos();
        // Looks at everything, which after every event would be most of the work.
        self.master.events += 1;
        if self.plan.checks() && self.master.events.is_multiple_of(CHECK_EVERY) {
            core.check_invariants().map_err(|violation| Broken {
                id: violation.id,
                what: violation.what,
            })?;
        }
        let crash = self.master.crash.filter(|_| !effects.is_empty());
        let all: Vec<Effect> = effects.drain().collect();
        if let Some(meter) = &mut self.meter {
            meter.on_master_time(nanos, &all);
        }
        let carried = crash.map_or(all.len(), |crash| crash.effects);
        for effect in all.into_iter().take(carried) {
            self.carry_out_master(effect)?;
        }
        match crash {
            Some(crash) => self.crash_master(crash.down),
            None => {
                if self.plan.checks() {
                    self.check_published()?;
                }
                self.arm_master();
            }
        }
        Ok(())
    }

    fn check_published(&mut self) -> Result<(), Broken> {
        let core = self.master.core.as_ref();
        let uncharged = core.map_or(0, |core| core.counters().tasks_uncharged);
        // A slave that reports more than it has is the master's to bear, not to hide.
        match uncharged {
            0 => self.checks.fits.check_published(),
            _ => Ok(()),
        }
    }

    fn arm_master(&mut self) {
        let node = &mut self.master;
        let Some(deadline) = node.core.as_ref().and_then(|core| core.next_deadline()) else {
            return;
        };
        let at = node.clock.when(deadline, self.now);
        if node.tick.is_none_or(|armed| at < armed) {
            node.tick = Some(at);
            let life = Life(Node::Master, node.life);
            self.queue.push(at, Happening::Tick(life));
        }
    }

    fn carry_out_master(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Propose { proposal, command } => {
                if self.master.journal.append((proposal, command)) {
                    self.begin_log_write();
                }
            }
            Effect::SendSlave {
                connection,
                message,
            } => {
                if self.plan.checks() {
                    self.check_to_slave(&message)?;
                }
                if let (Some(meter), MasterToSlave::RunTask(_)) = (&mut self.meter, &message) {
                    meter.on_launch(self.now);
                }
                self.send_down(connection, Message::ToSlave(message));
            }
            Effect::SendFramework {
                connection,
                message,
            } => {
                if let MasterToFramework::Subscribed { framework_id, .. } = &message {
                    if self.plan.checks() {
                        durable::check_subscribed(&self.master.log, *framework_id)?;
                    }
                    if let Some(Client::Framework(at)) = self.network.client(Link(connection.0)) {
                        self.master.owners.insert(*framework_id, at);
                    }
                }
                self.send_down(connection, Message::ToFramework(message));
            }
            Effect::Close { connection, why: _ } => {
                self.network
                    .close(Link(connection.0), End::Master, self.now, &mut self.queue);
            }
            Effect::Reply { .. } => {}
            Effect::Publish(event) => {
                if self.plan.checks() {
                    self.checks.fits.on_published(&event.change);
                }
                if let Some(meter) = &mut self.meter {
                    meter.on_published(&event.change, self.now);
                }
            }
        }
        Ok(())
    }

    fn send_down(&mut self, connection: ConnectionId, message: Message) {
        let link = Link(connection.0);
        self.network
            .send(link, Way::Down, message, self.now, &mut self.queue);
    }

    fn check_to_slave(&mut self, message: &MasterToSlave) -> Result<(), Broken> {
        match message {
            MasterToSlave::Registered { slave_id, .. } => {
                durable::check_registered(&self.master.log, *slave_id)
            }
            MasterToSlave::Acknowledge {
                framework_id,
                task_id,
                update_id,
            } => {
                let owner = self.master.owners.get(framework_id).copied();
                // Of a framework that is gone, and of tasks whose id was used again elsewhere, the
                // master itself is the end of the line.
                let is_gone = self.master.log.framework(*framework_id).is_none();
                let reuses_ids = owner.is_some_and(|at| {
                    matches!(self.plan.frameworks[at], FrameworkPlan::Nonsense { .. })
                });
                match is_gone || reuses_ids {
                    true => Ok(()),
                    false => self
                        .checks
                        .acknowledged
                        .on_slave_told(owner, task_id, *update_id),
                }
            }
            _ => Ok(()),
        }
    }
}
