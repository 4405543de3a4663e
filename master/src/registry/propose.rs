//! Group commit: all proposals that wait become one entry of the log, with one sync on each master.
//!
//! An `fdatasync` takes milliseconds, so the more is proposed at once, the less each costs. A second
//! entry may be on its way while the followers write the first. A proposal is never refused: when
//! [`PROPOSALS_MAX`] wait, the core waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meros_master_core::command::Command;
use meros_master_core::event::ProposalId;
use meros_proto::codec::encode_record;
use openraft::Raft;
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResponse;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::error::WriteError;
use super::leadership::Leadership;
use super::machine::SharedState;
use super::types::{Batch, Body, MasterId, Member, Reign, Types};
use crate::exit::{Exit, ExitReason, chain};
use crate::metrics::Metrics;

/// Proposals that wait for the disk. One entry takes them all, so more room would only mean more
/// waiting.
pub(crate) const PROPOSALS_MAX: usize = 1_024;

/// The most that one entry holds, by number and by bytes: bounds its memory, not its duration.
pub(crate) const GROUP_MAX: usize = 1_024;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Gatherings on their way at once. The leader syncs one while the followers sync the one before;
/// more would only be smaller.
const PIPELINE_MAX: usize = 2;

/// How often to look whether the reign has ended, while nothing is committed.
const LOOK: Duration = Duration::from_millis(50);

/// A command on its way into the registry.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The reign that it is proposed in; void in any other.
    pub(crate) reign: u64,
    /// The core's number for it.
    pub(crate) id: ProposalId,
    /// The command.
    pub(crate) command: Command,
    /// When it was proposed.
    pub(crate) at: Instant,
}

type Outcome = Result<ClientWriteResponse<Types>, ClientWriteError<MasterId, Member>>;

/// Entries that are on their way.
#[derive(Debug)]
struct InFlight {
    reign: u64,
    proposed_at: Vec<Instant>,
    outcome: oneshot::Receiver<Outcome>,
}

/// The task that turns proposals into entries.
pub(crate) struct Proposer {
    pub(crate) raft: Raft<Types>,
    pub(crate) master_id: MasterId,
    pub(crate) state: SharedState,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) exit: Exit,
}

impl Proposer {
    /// Until nobody proposes any more, and all is committed or lost.
    pub(crate) async fn run(self, mut proposals: mpsc::Receiver<Proposal>) {
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let mut waiting = Vec::new();
        let mut is_open = true;
        while is_open || !in_flight.is_empty() {
            // Those of an ended reign are void, so that they need no room: the core must not wait for
            // entries that a deposed leader will never commit.
            let is_void = |oldest: &InFlight| !self.leadership.is_reign(oldest.reign);
            let has_room = in_flight.len() < PIPELINE_MAX || in_flight.front().is_some_and(is_void);
            let oldest = async {
                match in_flight.front_mut() {
                    Some(oldest) => (&mut oldest.outcome).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = oldest => {
                    let settled = in_flight.pop_front().expect("it was the front");
                    // An outcome that never comes means that Raft has stopped, and says why itself.
                    if let Ok(outcome) = outcome {
                        self.settle(&settled, outcome);
                    }
                }
                count = proposals.recv_many(&mut waiting, GROUP_MAX),
                    if is_open && has_room =>
                {
                    is_open = count > 0;
                    for group in self.group(std::mem::take(&mut waiting)) {
                        in_flight.extend(self.propose(group).await);
                    }
                }
                () = sleep(LOOK), if !has_room => {}
            }
        }
    }

    /// In order; each of one reign and of bounded size.
    fn group(&self, proposals: Vec<Proposal>) -> Vec<Vec<Proposal>> {
        let mut groups: Vec<Vec<Proposal>> = Vec::new();
        let mut bytes = 0;
        for proposal in proposals {
            let size = match encode_record(&proposal.command) {
                Ok(record) => record.len(),
                Err(error) => {
                    let cause = chain(&WriteError::from(error));
                    self.exit.end(ExitReason::StoreFailed { cause });
                    return Vec::new();
                }
            };
            bytes += size;
            match groups.last_mut() {
                Some(group) if bytes <= GROUP_BYTES_MAX && group[0].reign == proposal.reign => {
                    group.push(proposal);
                }
                _ => {
                    bytes = size;
                    groups.push(vec![proposal]);
                }
            }
        }
        groups
    }

    async fn propose(&self, group: Vec<Proposal>) -> Option<InFlight> {
        let reign = group[0].reign;
        if !self.leadership.is_reign(reign) {
            debug!(count = group.len(), "proposals of an ended reign are void");
            return None;
        }
        let proposed_at = group.iter().map(|proposal| proposal.at).collect();
        let commands = group
            .into_iter()
            .map(|proposal| (proposal.id.0, proposal.command));
        let batch = Batch {
            reign: Reign {
                master: self.master_id,
                number: reign,
            },
            body: Body::Commands(commands.collect()),
            check: self.state.lock().check(),
        };
        // An error means that Raft has stopped, and says why itself.
        let outcome = self.raft.client_write_ff(batch).await.ok()?;
        Some(InFlight {
            reign,
            proposed_at,
            outcome,
        })
    }

    fn settle(&self, settled: &InFlight, outcome: Outcome) {
        match outcome {
            Ok(_) => {
                let ages = settled.proposed_at.iter().map(Instant::elapsed);
                self.metrics.committed(ages);
            }
            Err(error) => {
                // Whether they are lost nobody knows, so this core must not go on waiting for them.
                warn!(%error, count = settled.proposed_at.len(), "proposals were not committed");
                self.leadership.end_reign(settled.reign);
            }
        }
    }
}
