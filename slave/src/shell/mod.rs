//! The shell: one thread that owns the core, and what carries out its effects.
//!
//! The thread takes what has gathered in the inbox, lets the core handle it, and carries the effects
//! out in their order. It never waits for the network or for containers; it waits for the disk when
//! thousands of records are on their way there.
//!
//! Absent: decisions. What a task's fate is, the core says.

pub(crate) mod containers;
pub(crate) mod inbox;
pub(crate) mod net;
pub(crate) mod running;
pub(crate) mod snapshot;

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam::channel::{self, RecvError};
use meros_daemon::clock::Clock;
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::time::Timestamp;
use meros_proto::transport::{CloseCode, Sender, TrySendError};
use meros_slave_core::{ConnectionId, Effect, Effects, Event, RecordId, SessionId, SlaveCore};
use tracing::{debug, info, warn};

use crate::checkpoint::writer::Writer;
use crate::executor::{Outbox, Push};
use crate::exit::ExitReason;
use containers::{Containers, Halt};
use inbox::{ExecutorFound, Input, Outlet};
use net::LeaderHint;
use running::{RunningContainers, TaskContainer};
use snapshot::{ExecutorRow, Picked, Snapshot, TaskRow};

/// Inputs handled before their effects are carried out.
const BATCH_MAX: usize = 256;
/// The thread looks at the clock at least this often; a machine that was suspended notices.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A message between an executor and its framework is dropped when so many of any kind wait before it. It may
/// have 1 MiB, so that 16 MiB of them wait in one queue at the most, where thousands of small ones have room.
const BEST_EFFORT_WAITING_MAX: usize = 16;

/// What the thread of the core owns.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) core: SlaveCore,
    /// What the core wanted when it was made.
    pub(crate) effects: Effects,
    pub(crate) clock: Clock,
    pub(crate) outlet: Outlet,
    pub(crate) writer: Writer,
    pub(crate) containers: Containers,
    pub(crate) hint: LeaderHint,
    link: Option<(ConnectionId, Sender<SlaveToMaster>)>,
    /// Connections of executors.
    sessions: BTreeMap<SessionId, Outbox>,
    persisted: RecordId,
}

/// What is left when the thread has ended.
#[derive(Debug)]
pub(crate) struct ShellEnd {
    /// Why it has.
    pub(crate) reason: ExitReason,
    /// A connection that still delivers the last words.
    pub(crate) link: Option<Sender<SlaveToMaster>>,
}

/// What wakes the thread.
enum Wake {
    Input(Input),
    Durable,
    Failed(ExitReason),
    Due,
}

impl Shell {
    pub(crate) fn new(
        core: SlaveCore,
        effects: Effects,
        clock: Clock,
        outlet: Outlet,
        writer: Writer,
        containers: Containers,
        hint: LeaderHint,
    ) -> Self {
        let persisted = RecordId(0);
        Self {
            core,
            effects,
            clock,
            outlet,
            writer,
            containers,
            hint,
            link: None,
            sessions: BTreeMap::new(),
            persisted,
        }
    }

    /// Runs until the core wants to exit or cannot go on. Everything that was to be made durable is,
    /// if the disk allows it.
    pub(crate) fn run(mut self) -> ShellEnd {
        let reason = self.serve();
        let link = self.link.take().map(|(_, sender)| sender);
        if let Some(sender) = &link {
            sender.close(CloseCode::ShuttingDown, "slave is stopping");
        }
        // Of a slave that no master wants nothing may go on.
        let refused = matches!(reason, ExitReason::Refused { .. });
        self.containers
            .halt(if refused { Halt::Kill } else { Halt::Leave });
        // Without its queue the thread writes what is left and ends.
        let Writer { thread, failed, .. } = { self.writer };
        let reason = match thread.join() {
            Ok(()) => failed.try_recv().unwrap_or(reason),
            Err(_) => ExitReason::Panicked {
                thread: "checkpoint",
            },
        };
        ShellEnd { reason, link }
    }

    fn serve(&mut self) -> ExitReason {
        loop {
            if let Some(reason) = self.carry_out() {
                return reason;
            }
            match self.sleep() {
                Wake::Input(input) => {
                    let now = self.clock.now();
                    self.take(input, now);
                    let mut taken = 1;
                    while taken < BATCH_MAX
                        && let Ok(input) = self.outlet.receiver.try_recv()
                    {
                        self.take(input, now);
                        taken += 1;
                    }
                    self.outlet.taken(taken);
                }
                Wake::Failed(reason) => return reason,
                Wake::Durable | Wake::Due => {}
            }
            let now = self.clock.now();
            let durable = self.writer.progress.durable();
            if durable > self.persisted {
                self.persisted = durable;
                self.handle(Event::Persisted { record: durable }, now);
            }
            if self.core.next_deadline().is_some_and(|at| at <= now) {
                self.handle(Event::Tick, now);
            }
        }
    }

    fn sleep(&self) -> Wake {
        let until = self
            .core
            .next_deadline()
            .map_or(IDLE_MAX, |at| self.clock.until(at));
        let panicked = Wake::Failed(ExitReason::Panicked {
            thread: "checkpoint",
        });
        channel::select! {
            recv(self.outlet.receiver) -> input => match input {
                Ok(input) => Wake::Input(input),
                // Every sender is gone, so nobody can stop us any more.
                Err(RecvError) => Wake::Failed(ExitReason::Stopped),
            },
            recv(self.writer.woken) -> word => word.map_or(panicked, |()| Wake::Durable),
            recv(self.writer.failed) -> reason => reason.map_or(panicked, Wake::Failed),
            default(until.min(IDLE_MAX)) => Wake::Due,
        }
    }

    fn take(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Connected(connection, sender) => {
                self.link = Some((connection, sender));
                self.handle(Event::Connected { connection }, now);
            }
            Input::Started(container, process, image) => {
                let pid = u32::try_from(process.pid()).unwrap_or(0);
                self.containers.started(container, process);
                let started = Event::ContainerStarted {
                    container,
                    pid,
                    image,
                };
                self.handle(started, now);
            }
            Input::ExecutorConnected(session, outbox) => {
                self.sessions.insert(session, outbox);
            }
            Input::Event(event) => {
                match &event {
                    Event::ExecutorDisconnected { session } => {
                        self.sessions.remove(session);
                    }
                    Event::Disconnected { connection } => self.unlink(*connection),
                    Event::ContainerEnded { container, .. }
                    | Event::ContainerNotStarted { container, .. }
                    | Event::ContainerLost { container } => {
                        self.containers.ended(*container);
                    }
                    _ => {}
                }
                self.handle(event, now);
            }
            // Whoever asked may have given up.
            Input::Snapshot(reply) => drop(reply.send(Snapshot::of(&self.core))),
            Input::Executors(most, reply) => {
                let all = self.core.executors().take(most);
                drop(reply.send(all.map(ExecutorRow::from).collect()));
            }
            Input::Pick(most, reply) => drop(reply.send(Picked::of(&self.core, most))),
            Input::Executor(key, reply) => {
                let found = self.core.executor(&key);
                let found = found.map(|(container, run)| ExecutorFound {
                    container,
                    run: Box::new(run.clone()),
                    is_running: self.core.is_executor_running(&key),
                });
                drop(reply.send(found));
            }
            Input::ExecutorOf(task, reply) => drop(reply.send(self.core.executor_of(&task))),
            Input::Containers(most, reply) => {
                let running = RunningContainers::of(&self.core, &self.containers, most);
                drop(reply.send(running));
            }
            Input::Container(id, reply) => drop(reply.send(self.containers.process(id))),
            Input::ContainerOf(task, reply) => {
                let found = TaskContainer::of(&self.core, &self.containers, &task);
                drop(reply.send(found));
            }
            Input::Tasks(most, reply) => {
                drop(reply.send(self.core.tasks().take(most).map(TaskRow::from).collect()));
            }
        }
    }

    fn handle(&mut self, event: Event, now: Timestamp) {
        tracing::trace!(?event, "event");
        self.core.handle(event, now, &mut self.effects);
    }

    /// Carries out what the core asked for, in its order; a reason ends the thread.
    fn carry_out(&mut self) -> Option<ExitReason> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain() {
            match effect {
                Effect::Persist { id, record } => {
                    if self.writer.write(id, record).is_err() {
                        let reason = self.writer.failed.recv();
                        return Some(reason.unwrap_or(ExitReason::Panicked {
                            thread: "checkpoint",
                        }));
                    }
                }
                Effect::Send {
                    connection,
                    message,
                } => self.send(connection, message),
                Effect::Reconnect { connection, leader } => {
                    if let Some(leader) = leader {
                        self.hint.set(leader);
                    }
                    self.close(connection, CloseCode::Done, "looking for another master");
                }
                Effect::StartContainer {
                    container,
                    slave_id,
                    run,
                    volumes,
                    ends_with_slave,
                } => {
                    let containers = &mut self.containers;
                    containers.start(container, slave_id, run, volumes, ends_with_slave);
                }
                Effect::CancelStart { container } => self.containers.cancel(container),
                Effect::StartExecutor {
                    container,
                    slave_id,
                    run,
                    ends_with_slave,
                } => {
                    let Some(identity) = self.core.identity() else {
                        // Without an id there is no task (S2).
                        continue;
                    };
                    let at = (identity.cluster_id, slave_id);
                    let containers = &mut self.containers;
                    containers.start_executor(container, at, run, ends_with_slave);
                }
                Effect::ResizeContainer {
                    container,
                    resources,
                } => self.containers.resize(container, &resources),
                Effect::TellExecutor { session, message } => self.tell(session, message),
                // What was sent before is written; then the connection ends.
                Effect::CloseSession { session } => drop(self.sessions.remove(&session)),
                Effect::KillContainer { container, grace } => {
                    self.containers.kill(container, grace)
                }
                Effect::Probe { id, probe, timeout } => self.containers.probe(id, probe, timeout),
                Effect::ForgetContainer { container } => self.containers.forget(container),
                Effect::WipeVolume { directory } => self.containers.wipe(directory),
                Effect::FrameworkForgotten { framework_id } => {
                    debug!(%framework_id, "nothing is left of a framework");
                }
                Effect::Exit { why: None } => return Some(ExitReason::Stopped),
                Effect::Exit { why: Some(why) } => return Some(ExitReason::Refused { why }),
            }
        }
        self.effects = effects;
        None
    }

    fn send(&mut self, connection: ConnectionId, message: SlaveToMaster) {
        let Some((_, sender)) = self.link.as_ref().filter(|(id, _)| *id == connection) else {
            // Its end is on its way to the core.
            return;
        };
        let is_best_effort = matches!(message, SlaveToMaster::ExecutorMessage { .. });
        if is_best_effort && sender.waiting() >= BEST_EFFORT_WAITING_MAX {
            return self.containers.message_dropped();
        }
        match sender.try_send(message) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                // What follows must not overtake what is lost: all of it goes again on the next
                // connection.
                warn!("master does not read, looking for it anew");
                self.close(
                    connection,
                    CloseCode::SlowReader,
                    "messages were not read in time",
                );
            }
        }
    }

    fn tell(&mut self, session: SessionId, message: SlaveToExecutor) {
        let Some(outbox) = self.sessions.get(&session) else {
            // Its end is on its way to the core.
            return;
        };
        match outbox.push(message) {
            Push::Waits => {}
            Push::Dropped => self.containers.message_dropped(),
            Push::Full => {
                // What follows must not overtake what is lost: all that matters is told again on the next.
                warn!(
                    session = session.0,
                    "executor does not read, its connection is closed"
                );
                self.sessions.remove(&session);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, code: CloseCode, reason: &str) {
        if let Some((_, sender)) = self.link.take_if(|(id, _)| *id == connection) {
            info!(connection = connection.0, reason, "leaving a master");
            sender.close(code, reason);
        }
    }

    fn unlink(&mut self, connection: ConnectionId) {
        self.link.take_if(|(id, _)| *id == connection);
    }
}
