//! Slaves without a machine: the slave's own core on a real connection, its checkpoint and its containers
//! made up. A task runs for as long as the whole load says, and succeeds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveDescription;
use meros_proto::status::TaskExit;
use meros_proto::time::Timestamp;
use meros_proto::transport::{
    Client, CloseCode, Connection, MasterNews, Masters, Protocol, Sender,
};
use meros_slave_core::{
    Checkpoint, Config, ConnectionId, ContainerExit, ContainerId, Effect, Effects, Event, RecordId,
    SlaveCore,
};

/// Messages that may wait to be written, as of a real slave.
const SEND_QUEUE: usize = 4_096;
/// Messages handed to the core in one go.
const BATCH_MAX: usize = 256;

/// What all slaves of a load share.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) started: Instant,
    pub(crate) masters: Vec<String>,
    pub(crate) resources: Resources,
    /// How long tasks run.
    pub(crate) task_time: Duration,
    pub(crate) counts: Counts,
    /// By slave id: when a task has ended there last that nobody has been offered the resources of yet, in
    /// microseconds after the start, or 0.
    pub(crate) freed_at: Vec<AtomicU64>,
}

/// What has happened on all slaves.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) registered: AtomicU64,
    pub(crate) started: AtomicU64,
    pub(crate) ended: AtomicU64,
}

impl Ground {
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// One slave.
pub(crate) struct Emulated {
    ground: Arc<Ground>,
    core: SlaveCore,
    effects: Effects,
    /// The way out, while there is one.
    link: Option<(ConnectionId, Sender<SlaveToMaster>)>,
    /// Containers by the time of their end; all run equally long, so they end in order.
    running: VecDeque<(Instant, ContainerId)>,
    pids: u32,
    /// It has asked for another connection.
    wants_another: bool,
    was_registered: bool,
}

impl Emulated {
    pub(crate) fn new(ground: Arc<Ground>, number: usize) -> Self {
        let slave = SlaveDescription {
            hostname: format!("emulated-{number}"),
            http_address: String::new(),
            resources: ground.resources.clone(),
            attributes: Default::default(),
            capabilities: Vec::new(),
            version: "emulated".to_owned(),
        };
        let mut effects = Effects::new();
        let config = Config::new(slave);
        let core = SlaveCore::new(
            config,
            Checkpoint::default(),
            Vec::new(),
            now(),
            &mut effects,
        );
        let mut emulated = Self {
            ground,
            core,
            effects,
            link: None,
            running: VecDeque::new(),
            pids: 1,
            wants_another: false,
            was_registered: false,
        };
        emulated.carry_out();
        emulated
    }

    /// Until its task is aborted.
    pub(crate) async fn run(mut self, client: Client) {
        let hosts = self.ground.masters.clone();
        let mut masters = Masters::new(&client, Protocol::Slave, &hosts);
        let mut number = 0;
        let mut next = None;
        loop {
            let connection = match next.take() {
                Some(connection) => connection,
                None => self.leader(&mut masters).await,
            };
            number += 1;
            next = self
                .serve(ConnectionId(number), connection, &mut masters)
                .await;
        }
    }

    /// Tasks run on meanwhile.
    async fn leader(&mut self, masters: &mut Masters) -> Connection {
        loop {
            tokio::select! {
                news = masters.next() => if let MasterNews::Leads(connection) = news {
                    return connection;
                },
                () = sleep_until(self.due()) => self.on_due(),
            }
        }
    }

    async fn serve(
        &mut self,
        id: ConnectionId,
        connection: Connection,
        masters: &mut Masters,
    ) -> Option<Connection> {
        let (sender, mut receiver) = connection.split::<SlaveToMaster, MasterToSlave>(SEND_QUEUE);
        self.link = Some((id, sender.clone()));
        self.wants_another = false;
        self.handle(Event::Connected { connection: id });
        let mut batch = Vec::new();
        let mut other = None;
        while !self.wants_another {
            tokio::select! {
                received = receiver.recv_batch(&mut batch, BATCH_MAX) => {
                    for message in batch.drain(..) {
                        self.handle(Event::Master { connection: id, message });
                    }
                    if received.is_err() {
                        break;
                    }
                }
                news = masters.next() => if let MasterNews::Leads(connection) = news {
                    other = Some(connection);
                    break;
                },
                () = sleep_until(self.due()) => self.on_due(),
            }
        }
        self.link = None;
        sender.close(CloseCode::Done, "another master leads");
        self.handle(Event::Disconnected { connection: id });
        other
    }

    /// When something has to be done without being asked.
    fn due(&self) -> Option<Instant> {
        let of_core = self.core.next_deadline().map(|at| {
            let wait = at.since(now());
            Instant::now() + wait
        });
        let of_tasks = self.running.front().map(|(at, _)| *at);
        [of_core, of_tasks].into_iter().flatten().min()
    }

    fn on_due(&mut self) {
        let time = Instant::now();
        while let Some((_, container)) = self.running.pop_front_if(|(at, _)| *at <= time) {
            self.end(container, TaskExit::Code(0));
        }
        self.handle(Event::Tick);
    }

    fn end(&mut self, container: ContainerId, exit: TaskExit) {
        self.ground.counts.ended.fetch_add(1, Ordering::Relaxed);
        if let Some(identity) = self.core.identity()
            && let Some(freed_at) = self.ground.freed_at.get(identity.slave_id.0 as usize)
        {
            let time = self.ground.micros().max(1);
            // The first of those that are offered together counts.
            let _ = freed_at.compare_exchange(0, time, Ordering::Relaxed, Ordering::Relaxed);
        }
        let exit = ContainerExit {
            exit,
            limitation: None,
            message: String::new(),
        };
        self.handle(Event::ContainerEnded { container, exit });
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, now(), &mut self.effects);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        loop {
            let mut events: Vec<Event> = Vec::new();
            let mut durable: Option<RecordId> = None;
            for effect in self.effects.drain() {
                match effect {
                    Effect::Persist { id, .. } => durable = Some(id),
                    Effect::Send {
                        connection,
                        message,
                    } => {
                        let link = self.link.as_ref().filter(|(id, _)| *id == connection);
                        if let Some((_, sender)) = link
                            && sender.try_send(message).is_err()
                        {
                            self.wants_another = true;
                        }
                    }
                    Effect::Reconnect { .. } | Effect::Exit { .. } => self.wants_another = true,
                    Effect::StartContainer { container, .. } => {
                        self.ground.counts.started.fetch_add(1, Ordering::Relaxed);
                        self.pids += 1;
                        let pid = self.pids;
                        let end = Instant::now() + self.ground.task_time;
                        self.running.push_back((end, container));
                        events.push(Event::ContainerStarted {
                            container,
                            pid,
                            image: None,
                        });
                    }
                    Effect::KillContainer { container, .. } => {
                        let before = self.running.len();
                        self.running.retain(|(_, one)| *one != container);
                        if self.running.len() < before {
                            let exit = ContainerExit {
                                exit: TaskExit::Signal(15),
                                limitation: None,
                                message: String::new(),
                            };
                            events.push(Event::ContainerEnded { container, exit });
                        }
                    }
                    Effect::WipeVolume { directory } => {
                        events.push(Event::VolumeWiped { directory });
                    }
                    Effect::StartExecutor { container, .. } => {
                        let message = "an emulated slave runs no executors".to_owned();
                        events.push(Event::ContainerNotStarted { container, message });
                    }
                    Effect::FrameworkForgotten { .. }
                    | Effect::ForgetContainer { .. }
                    | Effect::CancelStart { .. }
                    | Effect::ResizeContainer { .. }
                    | Effect::TellExecutor { .. }
                    | Effect::CloseSession { .. } => {}
                    // What is emulated has no task that could be asked.
                    Effect::Probe { .. } => {}
                }
            }
            // What is made up is durable at once.
            events.extend(durable.map(|record| Event::Persisted { record }));
            let is_registered = self.core.is_registered();
            if is_registered != std::mem::replace(&mut self.was_registered, is_registered) {
                let registered = &self.ground.counts.registered;
                match is_registered {
                    true => registered.fetch_add(1, Ordering::Relaxed),
                    false => registered.fetch_sub(1, Ordering::Relaxed),
                };
            }
            if events.is_empty() {
                return;
            }
            for event in events {
                self.core.handle(event, now(), &mut self.effects);
            }
        }
    }
}

/// For ever without a time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::default().after(since_epoch.unwrap_or_default())
}
