//! The shell around MasterCore: receives events, calls the core, carries out effects in order. It
//! decides nothing.
//!
//! One OS thread owns the core and all its tables (architecture decision 2). It waits for three things
//! only: input, the core's next deadline, and, when very many commands are proposed at once, the
//! disk.

pub(crate) mod inbox;
pub(crate) mod net;
mod outbox;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::Sender;
use meros_daemon::clock::Clock;
use meros_master_core::MasterCore;
use meros_master_core::effect::{Answer, Effect, Effects};
use meros_master_core::event::{Event, RequestId};
use meros_proto::ids::Epoch;
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;
use meros_proto::view::ClusterEvent;
use tokio::sync::oneshot;
use tracing::info_span;

use crate::exit::Exit;
use crate::metrics::Metrics;
use crate::projection::{ProjectionGone, Publisher};
use crate::store::commit::Proposal;
use inbox::{Input, Nothing, Outlet};
use outbox::Outbox;

/// Inputs taken from the queue at once. Their effects are carried out together: one look at the
/// clock, one batch of events for the read model.
const BATCH_MAX: usize = 256;

/// Effects after which a batch is cut short, so that one that fans out to very many does not pile
/// them all up.
const EFFECTS_MAX: usize = 8_192;

/// Everything the core's thread needs.
#[derive(Debug)]
pub(crate) struct Shell {
    /// The core, before its first event.
    pub(crate) core: MasterCore,
    /// What it will be elected with: the term of the store.
    pub(crate) epoch: Epoch,
    /// Where input comes from.
    pub(crate) outlet: Outlet,
    /// Where proposals go.
    pub(crate) proposals: Sender<Proposal>,
    /// Where changes for readers go.
    pub(crate) publisher: Publisher,
    /// The time.
    pub(crate) clock: Clock,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

impl Shell {
    /// Starts the thread. It ends when [`Input::Stop`] comes, or when another thread that it needs
    /// has ended, which then has given the reason.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(self, exit: &Exit) -> std::io::Result<JoinHandle<()>> {
        exit.spawn_thread("core", move || {
            let mut running = Loop::new(self);
            let Stop = running.run();
            running.outbox.close_all();
            None
        })
    }
}

struct Loop {
    shell: Shell,
    outbox: Outbox,
    effects: Effects,
    published: Vec<ClusterEvent>,
    /// Operators that wait, each for exactly one `Effect::Reply`.
    requests: BTreeMap<RequestId, oneshot::Sender<Result<Answer, Refusal>>>,
    request_next: u64,
}

/// The thread has to end.
struct Stop;

impl From<ProjectionGone> for Stop {
    fn from(ProjectionGone: ProjectionGone) -> Self {
        Self
    }
}

impl Loop {
    fn new(shell: Shell) -> Self {
        let outbox = Outbox::new(Arc::clone(&shell.metrics));
        Self {
            shell,
            outbox,
            effects: Effects::new(),
            published: Vec::new(),
            requests: BTreeMap::new(),
            request_next: 0,
        }
    }

    fn run(&mut self) -> Stop {
        let epoch = self.shell.epoch;
        self.handle(Event::Elected { epoch }, self.shell.clock.now());
        let mut inputs = Vec::with_capacity(BATCH_MAX);
        loop {
            if let Err(stop) = self.carry_out() {
                return stop;
            }
            self.shell.metrics.handled(self.shell.core.counters());
            let timeout = self
                .shell
                .core
                .next_deadline()
                .map(|at| self.shell.clock.until(at));
            let received = self.shell.outlet.receive(&mut inputs, BATCH_MAX, timeout);
            let now = self.shell.clock.now();
            match received {
                Ok(()) => {}
                Err(Nothing::Yet) => self.handle(Event::Tick, now),
                Err(Nothing::EverAgain) => return Stop,
            }
            for input in inputs.drain(..) {
                if let Err(stop) = self.take(input, now) {
                    return stop;
                }
            }
        }
    }

    fn take(&mut self, input: Input, now: Timestamp) -> Result<(), Stop> {
        let event = match input {
            Input::SlaveConnected(connection, principal, sender) => {
                self.outbox.add_slave(connection, sender);
                Event::SlaveConnected {
                    connection,
                    principal,
                }
            }
            Input::FrameworkConnected(connection, principal, sender) => {
                self.outbox.add_framework(connection, sender);
                Event::FrameworkConnected {
                    connection,
                    principal,
                }
            }
            Input::Operator(call, reply) => {
                let request = RequestId(self.request_next);
                self.request_next += 1;
                self.requests.insert(request, reply);
                Event::Operator { request, call }
            }
            Input::Event(event) => {
                if let Event::Disconnected { connection } = *event {
                    self.outbox.remove(connection);
                }
                *event
            }
            Input::Stop => return Err(Stop),
        };
        self.handle(event, now);
        if self.effects.len() >= EFFECTS_MAX {
            self.carry_out()?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event, now: Timestamp) {
        // Disabled unless somebody traces the core: a span for each event is not free.
        let _span =
            tracing::enabled!(tracing::Level::TRACE).then(|| info_span!("event", ?event).entered());
        self.shell.core.handle(event, now, &mut self.effects);
    }

    /// Carries out what the core asked for, in its order. Changes for readers go in one batch at the
    /// end: readers see them in order, and nobody else sees readers.
    fn carry_out(&mut self) -> Result<(), Stop> {
        for effect in self.effects.drain() {
            match effect {
                Effect::SendSlave {
                    connection,
                    message,
                } => {
                    self.outbox.send_slave(connection, message);
                }
                Effect::SendFramework {
                    connection,
                    message,
                } => {
                    self.outbox.send_framework(connection, message);
                }
                Effect::Close { connection, why } => self.outbox.close(connection, &why),
                Effect::Publish(event) => self.published.push(event),
                Effect::Propose { proposal, command } => {
                    let proposal = Proposal {
                        id: proposal,
                        command,
                        at: Instant::now(),
                    };
                    // Waits for the disk when very many are on their way. The store never waits for
                    // this thread (see `commit::IN_FLIGHT_MAX`), so the wait ends.
                    self.shell.proposals.send(proposal).map_err(|_| Stop)?;
                }
                Effect::Reply { request, reply } => {
                    if let Some(waiting) = self.requests.remove(&request) {
                        // Whoever asked may have given up waiting; the call was carried out.
                        let _ = waiting.send(reply);
                    }
                }
            }
        }
        self.shell
            .publisher
            .publish(std::mem::take(&mut self.published))?;
        Ok(())
    }
}
