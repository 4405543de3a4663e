//! Group commit: one thread owns the store, takes all proposals that wait, makes them durable with
//! one sync, and reports them in order.
//!
//! An `fdatasync` takes milliseconds, so the more is proposed at once, the less each costs. A
//! proposal is never refused: when [`PROPOSALS_MAX`] wait, the core waits.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::{self, Receiver, Sender};
use meros_master_core::command::Command;
use meros_master_core::event::ProposalId;

use super::{AppendError, Store};
use crate::exit::{Exit, ExitReason, chain};
use crate::metrics::Metrics;

/// Proposals that wait for the disk. One sync takes them all, so more room would only mean more
/// waiting.
pub const PROPOSALS_MAX: usize = 1_024;

/// The most that one write holds: bounds its memory, not its duration.
pub const GROUP_MAX: usize = 1_024;

/// Proposals that may be on their way at the same time: waiting and being written. Whoever receives
/// the reports keeps room for that many, so that the store never waits for the core while the core
/// waits for the store.
pub const IN_FLIGHT_MAX: usize = PROPOSALS_MAX + GROUP_MAX;

/// A command on its way into the registry.
#[derive(Debug)]
pub struct Proposal {
    /// The core's number for it.
    pub id: ProposalId,
    /// The command.
    pub command: Command,
    /// When it was proposed.
    pub at: Instant,
}

/// Starts the thread. `report` is called for each durable command, in order. The thread ends when
/// nobody proposes any more and all is durable and reported, or ends the process when the store
/// fails: what it has not reported then is promised to nobody.
///
/// # Errors
/// The operating system gives no thread.
pub(crate) fn start(
    store: Store,
    metrics: Arc<Metrics>,
    exit: &Exit,
    report: impl FnMut(ProposalId, Command) + Send + 'static,
) -> std::io::Result<(Sender<Proposal>, JoinHandle<()>)> {
    let (sender, receiver) = channel::bounded(PROPOSALS_MAX);
    let thread = exit.spawn_thread("registry", move || {
        let failed = run(store, &receiver, &metrics, report).err()?;
        Some(ExitReason::StoreFailed {
            cause: chain(&failed),
        })
    })?;
    Ok((sender, thread))
}

pub(super) fn run(
    mut store: Store,
    proposals: &Receiver<Proposal>,
    metrics: &Metrics,
    mut report: impl FnMut(ProposalId, Command),
) -> Result<(), AppendError> {
    let mut waiting = Vec::new();
    let mut commands = Vec::new();
    while let Ok(first) = proposals.recv() {
        for proposal in std::iter::once(first).chain(proposals.try_iter().take(GROUP_MAX - 1)) {
            waiting.push((proposal.id, proposal.at));
            commands.push(proposal.command);
        }
        store.append(&commands)?;
        metrics.committed(waiting.iter().map(|(_, at)| at.elapsed()));
        for ((id, _), command) in waiting.drain(..).zip(commands.drain(..)) {
            report(id, command);
        }
        store.compact_if_due()?;
    }
    Ok(())
}
