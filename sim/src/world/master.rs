//! The process of a master: its core, and the connections it has taken.

use std::collections::BTreeSet;
use std::time::Duration;

use meros_master_core::{Command, ConnectionId, Effect, Effects, Event, MasterCore, Registry};
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{Epoch, FrameworkId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::operation::ChangeKind;
use meros_proto::status::TaskStatus;
use meros_proto::time::Timestamp;

use super::network::{End, Link, Message, Way};
use super::standby::Standby;
use super::{Crash, Happening, Life, Node, World};
use crate::clock::Clock;
use crate::fault::Point;
use crate::invariants::{Broken, Publisher, Reading, durable, true_ends};
use crate::plan::{Client, FrameworkPlan};
use crate::prng::Rng;
use crate::scenario::Stopwatch;

/// The master's own invariants are checked after every so many of its events.
const CHECK_EVERY: u64 = 8;

#[derive(Debug)]
pub(super) struct MasterNode {
    pub(super) core: Option<Box<MasterCore>>,
    pub(super) life: u32,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    /// What it has applied of the log, and the number of the next command.
    pub(super) disk: Registry,
    pub(super) applied: u64,
    pub(super) is_catching_up: bool,
    /// The term that it takes itself for the leader of.
    pub(super) term: Option<Epoch>,
    /// Cut off from the other masters.
    pub(super) is_isolated: bool,
    pub(super) links: BTreeSet<Link>,
    pub(super) tick: Option<Timestamp>,
    pub(super) crash: Option<Crash>,
    pub(super) slow: Option<Duration>,
    events: u64,
    /// What readers of its changes know.
    pub(super) reading: Reading,
    /// What it knows of the tasks, as leader or from the leader.
    pub(super) standby: Standby,
}

impl MasterNode {
    pub(super) fn new(disk: Registry, standby: Standby, mut rng: Rng) -> Self {
        Self {
            core: None,
            life: 0,
            clock: Clock::draw(&mut rng),
            rng,
            disk,
            applied: 0,
            is_catching_up: false,
            term: None,
            is_isolated: false,
            links: BTreeSet::new(),
            tick: None,
            crash: None,
            slow: None,
            events: 0,
            reading: Reading::default(),
            standby,
        }
    }
}

impl World {
    pub(super) fn crash_master(&mut self, at: usize, down: Duration) {
        let node = &mut self.masters[at];
        if node.core.take().is_none() {
            return;
        }
        node.crash = None;
        node.term = None;
        node.standby.forget();
        for link in std::mem::take(&mut node.links) {
            self.network
                .die(link, End::Master, self.now, &mut self.queue);
        }
        self.trace.line(|| format!("master {at} dies"));
        if let Some(meter) = &mut self.meter {
            meter.on_master_down(self.now);
        }
        if self.log.leader() == Some(at) && self.masters.len() > 1 {
            let wait = self
                .rng
                .skewed(Duration::from_millis(50), Duration::from_secs(5));
            self.call_election(wait);
        }
        self.after(down, Happening::Start(Node::Master(at)));
    }

    pub(super) fn on_arrive(&mut self, link: Link) -> Result<(), Broken> {
        let (_, at) = self.network.dialled_by(link);
        let is_up = self.masters[at].core.is_some();
        let Some(client) = self.network.arrive(link, is_up, self.now, &mut self.queue) else {
            return Ok(());
        };
        let node = &mut self.masters[at];
        match node.term {
            Some(term) => {
                self.terms.insert(link, term);
            }
            // Some shells know who leads, others have their core close the connection.
            None if node.rng.percent(50) => {
                self.redirect(at, link);
                return Ok(());
            }
            None => {}
        }
        self.masters[at].links.insert(link);
        let connection = ConnectionId(link.0);
        self.feed_master(
            at,
            match client {
                Client::Slave(slave) => Event::SlaveConnected {
                    connection,
                    principal: format!("slave-{slave}"),
                },
                Client::Framework(framework) => Event::FrameworkConnected {
                    connection,
                    principal: format!("framework-{framework}"),
                },
            },
        )
    }

    pub(super) fn on_master_lost(&mut self, link: Link) -> Result<(), Broken> {
        let (_, at) = self.network.dialled_by(link);
        if !self.masters[at].links.remove(&link) {
            return Ok(());
        }
        let connection = ConnectionId(link.0);
        self.feed_master(at, Event::Disconnected { connection })
    }

    pub(super) fn on_from_slave(
        &mut self,
        link: Link,
        message: SlaveToMaster,
    ) -> Result<(), Broken> {
        let (_, at) = self.network.dialled_by(link);
        if !self.masters[at].links.contains(&link) {
            return Ok(());
        }
        let connection = ConnectionId(link.0);
        self.feed_master(
            at,
            Event::Slave {
                connection,
                message,
            },
        )
    }

    pub(super) fn on_from_framework(
        &mut self,
        link: Link,
        message: FrameworkToMaster,
    ) -> Result<(), Broken> {
        let (client, at) = self.network.dialled_by(link);
        if !self.masters[at].links.contains(&link) {
            return Ok(());
        }
        if self.plan.checks() {
            self.read_call(at, client, &message);
        }
        let connection = ConnectionId(link.0);
        let event = Event::Framework {
            connection,
            message,
        };
        let result = self.feed_master(at, event);
        let node = &mut self.masters[at];
        let now = node.clock.local(self.now);
        node.reading.refusals.on_answered(now);
        result
    }

    /// What frameworks decline and want again.
    fn read_call(&mut self, at: usize, client: Client, message: &FrameworkToMaster) {
        let node = &mut self.masters[at];
        let now = node.clock.local(self.now);
        match message {
            FrameworkToMaster::Decline { filters, .. }
            | FrameworkToMaster::Accept { filters, .. } => {
                node.reading.refusals.on_answer(now, filters.refuse);
            }
            FrameworkToMaster::Revive { .. } => {
                let of_it =
                    |(_, owner): &(&FrameworkId, &usize)| Client::Framework(**owner) == client;
                for (framework_id, _) in self.owners.iter().filter(of_it) {
                    node.reading.refusals.on_revive(*framework_id);
                }
            }
            _ => {}
        }
    }

    pub(super) fn tick_master(&mut self, at: usize) -> Result<(), Broken> {
        // Another one was set after it, for an earlier time.
        let now = self.now;
        if self.masters[at].tick.take_if(|due| *due <= now).is_none() {
            return Ok(());
        }
        self.feed_master(at, Event::Tick)
    }

    pub(super) fn on_log_written(&mut self, at: usize) -> Result<(), Broken> {
        if !self.may_commit(at) {
            return Ok(());
        }
        let (durable, goes_on) = self.log.written();
        if goes_on {
            self.begin_log_write(at);
        }
        let life = self.masters[at].life;
        for (proposal, command) in durable {
            // A crash in between leaves the rest to be applied in its next life.
            if self.lives(Life(Node::Master(at), life)) {
                self.apply(at, &command);
                let proposal = Some(proposal);
                self.feed_master(at, Event::Committed { proposal, command })?;
            }
        }
        self.tell_followers();
        let node = &self.masters[at];
        match &node.core {
            Some(core) if self.plan.checks() => {
                durable::check_registry(&node.disk, core.registry())
            }
            _ => Ok(()),
        }
    }

    /// A committed command becomes part of what a master has.
    pub(super) fn apply(&mut self, at: usize, command: &Command) {
        let node = &mut self.masters[at];
        // Commands that no longer fit are results, not failures.
        let _ = node.disk.apply(command);
        node.applied += 1;
    }

    fn begin_log_write(&mut self, at: usize) {
        let node = &mut self.masters[at];
        let most = self.plan.disk_max;
        let wait = node
            .slow
            .unwrap_or_else(|| node.rng.skewed(Duration::from_micros(50), most));
        let life = Life(Node::Master(at), node.life);
        self.after(wait, Happening::Written(life));
    }

    pub(super) fn feed_master(&mut self, at: usize, event: Event) -> Result<(), Broken> {
        let node = &mut self.masters[at];
        let Some(core) = node.core.as_deref_mut() else {
            return Ok(());
        };
        let now = node.clock.local(self.now);
        let mut effects = Effects::new();
        let watch = Stopwatch::start(self.meter.is_some());
        core.handle(event, now, &mut effects);
        let nanos = watch.nanos();
        // Looks at everything, which after every event would be most of the work.
        node.events += 1;
        if self.plan.checks() && node.events.is_multiple_of(CHECK_EVERY) {
            core.check_invariants().map_err(|violation| Broken {
                id: violation.id,
                what: violation.what,
            })?;
        }
        let all: Vec<Effect> = effects.drain().collect();
        let proposes = |it: &Effect| matches!(it, Effect::Propose { .. });
        let crash = node.crash.filter(|crash| match crash.point {
            Point::Any | Point::Acknowledgement => !all.is_empty(),
            Point::Durable => all.iter().any(proposes),
        });
        if let Some(meter) = &mut self.meter {
            meter.on_master_time(nanos, &all);
        }
        let carried = crash.map_or(all.len(), |crash| crash.effects);
        for effect in all.into_iter().take(carried) {
            self.carry_out_master(at, effect)?;
        }
        match crash {
            Some(crash) => self.crash_master(at, crash.down),
            None => {
                if self.plan.checks() {
                    self.check_published(at, now)?;
                }
                self.arm_master(at);
            }
        }
        Ok(())
    }

    fn check_published(&mut self, at: usize, now: Timestamp) -> Result<(), Broken> {
        let node = &mut self.masters[at];
        let held_max = self.plan.master.offer_timeout;
        node.reading.offers_end.check_oldest(now, held_max)?;
        let Some(core) = &node.core else {
            return Ok(());
        };
        node.reading.on_done(core.registry().quotas())?;
        let uncharged = core.counters().tasks_uncharged;
        // A slave that reports more than it has is the master's to bear, not to hide.
        match uncharged {
            0 => node.reading.fits.check_published(),
            _ => Ok(()),
        }
    }

    pub(super) fn arm_master(&mut self, at: usize) {
        let node = &mut self.masters[at];
        let Some(deadline) = node.core.as_ref().and_then(|core| core.next_deadline()) else {
            return;
        };
        let due = node.clock.when(deadline, self.now);
        if node.tick.is_none_or(|armed| due < armed) {
            node.tick = Some(due);
            let life = Life(Node::Master(at), node.life);
            self.queue.push(due, Happening::Tick(life));
        }
    }

    fn carry_out_master(&mut self, at: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Propose { proposal, command } => {
                let term = self.masters[at].term;
                if term != Some(self.log.term()) {
                    self.meet("a proposal of a deposed master");
                }
                if self.log.propose(at, term, proposal, command) {
                    self.begin_log_write(at);
                }
            }
            Effect::SendSlave {
                connection,
                message,
            } => {
                if self.plan.checks() {
                    self.check_to_slave(at, &message)?;
                }
                let launches = matches!(
                    message,
                    MasterToSlave::RunTask(_)
                        | MasterToSlave::RunInExecutor { .. }
                        | MasterToSlave::RunGroup(_)
                );
                if let Some(meter) = self.meter.as_mut().filter(|_| launches) {
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
                        durable::check_subscribed(&self.masters[at].disk, *framework_id)?;
                    }
                    if let Some(Client::Framework(owner)) = self.network.client(Link(connection.0))
                    {
                        self.owners.insert(*framework_id, owner);
                    }
                }
                if let (MasterToFramework::Update(status), true) = (&message, self.plan.checks()) {
                    self.check_answer(at, Link(connection.0), status)?;
                }
                self.send_down(connection, Message::ToFramework(message));
            }
            Effect::Close { connection, why: _ } => {
                self.network
                    .close(Link(connection.0), End::Master, self.now, &mut self.queue);
            }
            Effect::Reply { request, reply } => self.on_reply(at, request, &reply)?,
            Effect::Publish(event) => {
                self.stream(at, &event.change);
                if self.plan.checks() {
                    let node = &mut self.masters[at];
                    let core = node.core.as_ref().expect("it has just published this");
                    let publisher = Publisher {
                        now: node.clock.local(self.now),
                        quotas: core.registry().quotas(),
                        // At its bound the master forgets filters, and counts that.
                        keeps_filters: core.counters().filters_dropped == 0,
                        filters_replaced: core.counters().filters_replaced,
                        charges_all: core.counters().tasks_uncharged == 0,
                    };
                    node.reading.on_published(&event.change, &publisher)?;
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

    /// W15: for those to whom the leader may not say it lightly.
    fn check_answer(&self, at: usize, link: Link, status: &TaskStatus) -> Result<(), Broken> {
        let leads = self.masters[at].term == Some(self.log.term());
        let (Client::Framework(framework), _) = self.network.dialled_by(link) else {
            return Ok(());
        };
        let record = self.frameworks[framework]
            .framework_id
            .and_then(|id| Some((id, self.log.registry().framework(id)?)));
        let works = matches!(
            self.plan.frameworks[framework],
            FrameworkPlan::Workload(_) | FrameworkPlan::Guest(_)
        );
        let (true, true, Some((framework_id, record))) = (leads, works, record) else {
            return Ok(());
        };
        let description = &record.framework;
        if !description.can(FrameworkCapability::PartitionAware) || !description.checkpoint {
            return Ok(());
        }
        let running = self.slaves.iter().filter(|slave| {
            slave
                .identity()
                .is_some_and(|it| self.log.registry().slave(it.slave_id).is_some())
                && slave.answers_for(framework_id, &status.task_id)
        });
        true_ends::check_answer(status, running.count())
    }

    fn check_to_slave(&mut self, at: usize, message: &MasterToSlave) -> Result<(), Broken> {
        match message {
            MasterToSlave::ChangeResources { number, change } => {
                self.checks.claims_kept.on_ordered(*number, change);
                match change.kind {
                    ChangeKind::Grow => self.meet("a volume that grows"),
                    ChangeKind::Shrink => self.meet("a volume that shrinks"),
                    _ => {}
                }
                Ok(())
            }
            MasterToSlave::RunInExecutor { run, starts: true } => {
                self.masters[at].reading.refusals.on_executor_starts(run)
            }
            MasterToSlave::RunGroup(run) => {
                self.meet("a group of tasks");
                self.masters[at].reading.refusals.on_group_starts(run)
            }
            MasterToSlave::Registered { slave_id, .. } => {
                durable::check_registered(&self.masters[at].disk, *slave_id)
            }
            MasterToSlave::Acknowledge {
                framework_id,
                task_id,
                update_id,
            } => {
                let owner = self.owners.get(framework_id).copied();
                // Of a framework that is gone, and of tasks whose id was used again elsewhere, the
                // master itself is the end of the line.
                let is_gone = self.masters[at].disk.framework(*framework_id).is_none();
                let reuses_ids = owner.is_some_and(|at| self.plan.frameworks[at].reuses_ids());
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
