//! The shell around MasterCore: receives events, calls the core, carries out effects in order. It
//! decides nothing.
//!
//! There is a core only while this master leads; each reign has a core of its own, with the registry
//! as it was applied when the reign began. What a core wanted after its lease ended is not carried out.
//!
//! One OS thread owns the core and all its tables (architecture decision 2). It waits for three things
//! only: input, the core's next deadline, and, when very many commands are proposed at once, the
//! disk.

pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod net;
mod outbox;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use meros_daemon::clock::Clock;
use meros_master_core::effect::{Answer, Effect, Effects};
use meros_master_core::event::{Event, ProposalId, RequestId};
use meros_master_core::{Config, MasterCore};
use meros_proto::refusal::Refusal;
use meros_proto::state::Revision;
use meros_proto::time::Timestamp;
use meros_proto::transport::Gate;
use meros_proto::view::ClusterEvent;
use tokio::sync::{mpsc, oneshot};
use tracing::info_span;

use crate::exit::Exit;
use crate::metrics::Metrics;
use crate::projection::{ProjectionGone, Publisher};
use crate::registry::Replica;
use crate::registry::leadership::Leadership;
use crate::registry::machine::Report;
use crate::registry::propose::Proposal;
use inbox::{Input, Nothing, Outlet};
use outbox::Outbox;

/// Inputs taken from the queue at once. Their effects are carried out together: one look at the
/// clock, one batch of events for the read model.
const BATCH_MAX: usize = 256;

/// Effects after which a batch is cut short, so that one that fans out to very many does not pile
/// them all up.
const EFFECTS_MAX: usize = 8_192;

/// Everything the core's thread needs.
pub(crate) struct Shell {
    /// How the cores are configured.
    pub(crate) config: Config,
    /// Who may act, and who leads if not this master.
    pub(crate) replica: Arc<Replica>,
    /// Closed to those who would rather wait while this master does not lead.
    pub(crate) gate: Gate,
    /// Where input comes from.
    pub(crate) outlet: Outlet,
    /// Where proposals go.
    pub(crate) proposals: mpsc::Sender<Proposal>,
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
    leadership: Arc<Leadership>,
    reign: Option<Reign>,
    outbox: Outbox,
    effects: Effects,
    published: Vec<ClusterEvent>,
    /// Operators that wait, each for exactly one `Effect::Reply`.
    requests: BTreeMap<RequestId, oneshot::Sender<Result<Answer, Refusal>>>,
    request_next: u64,
    /// The revision of framework state whose totals are shown.
    state_at: Revision,
}

/// A core at work, and the number of the reign it is for.
struct Reign {
    number: u64,
    core: Box<MasterCore>,
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
        let leadership = shell.replica.leadership();
        Self {
            shell,
            leadership,
            reign: None,
            outbox,
            effects: Effects::new(),
            published: Vec::new(),
            requests: BTreeMap::new(),
            request_next: 0,
            state_at: Revision::default(),
        }
    }

    fn run(&mut self) -> Stop {
        let mut inputs = Vec::with_capacity(BATCH_MAX);
        loop {
            if let Err(stop) = self.carry_out() {
                return stop;
            }
            let mut timeout = None;
            if let Some(Reign { core, .. }) = &self.reign {
                self.shell.metrics.handled(core.counters());
                let state = core.registry().state();
                if self.state_at != state.revision() {
                    self.state_at = state.revision();
                    self.shell.metrics.state(state.totals());
                }
                timeout = core.next_deadline().map(|at| self.shell.clock.until(at));
            }
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
                if self.reign.is_none() {
                    self.outbox.redirect(connection, &self.not_leading());
                    return Ok(());
                }
                Event::SlaveConnected {
                    connection,
                    principal,
                }
            }
            Input::FrameworkConnected(connection, principal, link) => {
                self.outbox.add_framework(connection, link);
                if self.reign.is_none() {
                    self.outbox.redirect(connection, &self.not_leading());
                    return Ok(());
                }
                Event::FrameworkConnected {
                    connection,
                    principal,
                }
            }
            Input::Operator(_, reply) if self.reign.is_none() => {
                // Whoever asked may have given up waiting.
                let _ = reply.send(Err(self.not_leading()));
                return Ok(());
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
            Input::Registry(report) => match self.take_report(report, now)? {
                Some(event) => event,
                None => return Ok(()),
            },
            Input::Follow => return self.follow(),
            Input::Members(addresses) => {
                self.outbox.tell_masters(addresses);
                return Ok(());
            }
            Input::Stop => return Err(Stop),
        };
        self.handle(event, now);
        if self.effects.len() >= EFFECTS_MAX {
            self.carry_out()?;
        }
        Ok(())
    }

    fn take_report(&mut self, report: Report, now: Timestamp) -> Result<Option<Event>, Stop> {
        match report {
            Report::Lead {
                reign,
                epoch,
                registry,
            } => {
                self.follow()?;
                // It may have ended before it reached us.
                if !self.leadership.is_reign(reign) {
                    return Ok(None);
                }
                let remembered = self.shell.publisher.lead()?;
                let config = self.shell.config.clone();
                self.leadership.set_core(true);
                self.reign = Some(Reign {
                    number: reign,
                    core: Box::new(MasterCore::new(config, *registry, now)),
                });
                self.shell.gate.open();
                Ok(Some(Event::Elected { epoch, remembered }))
            }
            Report::Committed {
                reign,
                proposal,
                command,
            } => {
                let ours = self.reign.as_ref().is_some_and(|ours| ours.number == reign);
                Ok(ours.then_some(Event::Committed {
                    proposal: proposal.map(ProposalId),
                    command: *command,
                }))
            }
        }
    }

    fn not_leading(&self) -> Refusal {
        let leader = self.shell.replica.status().other_leader();
        Refusal::NotLeading {
            leader: leader.map(|member| member.address),
        }
    }

    /// Forgets the core, with all that it still wanted: the next leader begins from what is replicated
    /// and from what slaves and frameworks tell it.
    fn follow(&mut self) -> Result<(), Stop> {
        if self.reign.take().is_none() {
            return Ok(());
        }
        self.leadership.set_core(false);
        self.shell.gate.close();
        drop(self.effects.drain());
        self.published.clear();
        let why = self.not_leading();
        self.outbox.redirect_all(&why);
        for (_, waiting) in std::mem::take(&mut self.requests) {
            // Whoever asked may have given up waiting.
            let _ = waiting.send(Err(why.clone()));
        }
        Ok(self.shell.publisher.rest()?)
    }

    fn handle(&mut self, event: Event, now: Timestamp) {
        let Some(Reign { core, .. }) = &mut self.reign else {
            return;
        };
        // Disabled unless somebody traces the core: a span for each event is not free.
        let _span =
            tracing::enabled!(tracing::Level::TRACE).then(|| info_span!("event", ?event).entered());
        core.handle(event, now, &mut self.effects);
    }

    /// Carries out what the core asked for, in its order. Changes for readers go in one batch at the
    /// end: readers see them in order, and nobody else sees readers.
    fn carry_out(&mut self) -> Result<(), Stop> {
        let Some(Reign { number, .. }) = self.reign else {
            return Ok(());
        };
        let mut may_act = self.leadership.await_lease(number);
        for effect in self.effects.drain() {
            if !may_act {
                break;
            }
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
                        reign: number,
                        id: proposal,
                        command,
                        at: Instant::now(),
                    };
                    // Waits for the disks when very many are on their way. The registry never waits
                    // for this thread, so the wait ends.
                    let sent = self.shell.proposals.blocking_send(proposal);
                    sent.map_err(|_| Stop)?;
                    // Long enough, perhaps, for the lease to end.
                    may_act = self.leadership.await_lease(number);
                }
                Effect::Reply { request, reply } => {
                    if let Some(waiting) = self.requests.remove(&request) {
                        // Whoever asked may have given up waiting; the call was carried out.
                        let _ = waiting.send(reply);
                    }
                }
            }
        }
        if !may_act {
            self.leadership.end_reign(number);
            return self.follow();
        }
        self.shell
            .publisher
            .publish(std::mem::take(&mut self.published))?;
        Ok(())
    }
}
