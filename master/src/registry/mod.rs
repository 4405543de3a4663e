//! The registry: what the cluster consists of, replicated among the masters by Raft.
//!
//! openraft agrees on the order of entries; here are its log and its state machine on RocksDB, its
//! network on QUIC, and what makes of an elected member the master that leads. A cluster of one is a
//! Raft of one: there is no other way. See docs/decisions/0010-raft.md.
//!
//! - `db`: the database, and what every open checks;
//! - `log`, `machine`, `snapshot`: the log, the registry, its snapshot;
//! - `backup`: the registry in a file, and back;
//! - `propose`: group commit;
//! - `leadership`: reigns and leases; `pace`: how long leases are; `candidacy`: when to stand for election;
//! - `peer`, `network`, `wire`: questions to other masters; `serve`: their questions; `join`: becoming
//!   a member; `members`: changes of the members; `transfer`: another leader by request;
//! - `upgrade`: which formats the members know.
//!
//! Promise: a command that was reported as committed is on the disks of more than half of the
//! members, and every later leader has it.

mod backup;
mod candidacy;
mod db;
mod error;
mod join;
pub(crate) mod leadership;
mod log;
pub(crate) mod machine;
mod members;
mod network;
mod pace;
mod peer;
pub(crate) mod propose;
mod serve;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod transfer;
mod types;
mod upgrade;
mod watermark;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use meros_master_core::command::Command;
use meros_proto::ids::ClusterId;
use meros_proto::transport::{Client, Connection};
use openraft::{Entry, EntryPayload, Membership, Raft, SnapshotPolicy};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use backup::RestoreError;
pub use error::{OpenStoreError, WriteError};
pub use join::JoinError;
pub(crate) use status::{MemberView, Status};
pub use types::{MasterId, Member};

use crate::exit::{Exit, ExitReason, chain};
use crate::metrics::Metrics;
pub(crate) use backup::Backup;
use candidacy::Heard;
pub(crate) use db::Opened;
use db::{Db, First};
use leadership::{Leadership, Watcher};
use log::Log;
use machine::{Machine, Report, SharedState};
pub(crate) use members::RemoveError;
use network::Network;
use pace::HEARTBEAT;
pub(crate) use pace::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, Pace};
pub(crate) use peer::connect;
use propose::{PROPOSALS_MAX, Proposal, Proposer};
pub(crate) use serve::Service;
pub(crate) use transfer::TransferError;
use types::{Batch, Body, Reign, Types, Vote, entry_id};
use upgrade::Formats;
pub(crate) use upgrade::Knows;

/// Entries after which a snapshot is made: replaying that many takes well under a second.
const SNAPSHOT_EVERY: u64 = 10_000;
/// Entries that are kept behind a snapshot, for followers that are a little behind.
const KEPT_BEHIND_SNAPSHOT: u64 = 1_000;
/// Entries in one message to a follower; their bytes are bounded, too.
const ENTRIES_PER_MESSAGE: u64 = 256;
/// Bytes in one piece of a snapshot.
const SNAPSHOT_PIECE_BYTES: u64 = 1 << 20;
/// How long the last piece of a snapshot may take: it is parsed and written then.
const SNAPSHOT_PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the database may take to be let go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a master finds in its data directory on its first start.
#[derive(Debug)]
pub(crate) enum Start {
    /// A cluster of which it is the only member.
    Form {
        /// Drawn at random.
        cluster_id: ClusterId,
        /// Itself.
        member: Member,
    },
    /// Nothing: it joins a cluster that exists.
    Join,
}

/// Opens the registry in `data_dir`, or begins one. Blocks.
///
/// # Errors
/// [`OpenStoreError`].
pub(crate) fn open(
    data_dir: &Path,
    authorities: &[&[u8]],
    new_id: MasterId,
    start: Start,
) -> Result<Opened, OpenStoreError> {
    let first: First = match start {
        Start::Form { cluster_id, member } => Box::new(move |db, batch| {
            // Entries as if they had been committed before the first term, and the vote of the only
            // member for itself: it leads at once.
            let members =
                Membership::new(vec![[new_id].into()], BTreeMap::from([(new_id, member)]));
            let form = Batch {
                reign: Reign {
                    master: new_id,
                    number: 0,
                },
                body: Body::Commands(vec![(0, Command::FormCluster { cluster_id })]),
                check: None,
            };
            let payloads = [
                EntryPayload::Membership(members),
                EntryPayload::Normal(form),
            ];
            for (index, payload) in (0..).zip(payloads) {
                let log_id = entry_id(0, MasterId::default(), index);
                db.put_entry(batch, Entry { log_id, payload })?;
            }
            Log::put_vote(db, batch, Vote::new_committed(1, new_id))
        }),
        Start::Join => Box::new(|_, _| Ok(())),
    };
    Db::open(data_dir, authorities, new_id, first)
}

/// What a member that does not run has in `data_dir`. Blocks.
///
/// # Errors
/// [`OpenStoreError`].
pub(crate) fn read_survivor(data_dir: &Path) -> Result<Backup, OpenStoreError> {
    Backup::of_survivor(&Db::open_existing(data_dir)?)
}

/// Everything that a member needs besides its database.
pub(crate) struct ReplicaParts {
    /// This master, as others reach it.
    pub(crate) member: Member,
    /// To reach others.
    pub(crate) client: Client,
    /// What this release knows.
    pub(crate) knows: Knows,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// To end the process.
    pub(crate) exit: Exit,
    /// Told of what this master may act on, in order. Must not wait.
    pub(crate) report: Box<dyn FnMut(Report) + Send + Sync>,
    /// Told when it may act no more. Must not wait.
    pub(crate) on_end: Box<dyn Fn() + Send + Sync>,
    /// Told where the members are, when that changes. Must not wait.
    pub(crate) on_members: Box<dyn Fn(Vec<String>) + Send + Sync>,
}

/// A running member.
pub(crate) struct Replica {
    /// This member.
    pub(crate) master_id: MasterId,
    /// This member, as others reach it.
    pub(crate) member: Member,
    raft: Raft<Types>,
    leadership: Arc<Leadership>,
    state: SharedState,
    service: Service,
    leads: watch::Receiver<bool>,
    runtime: Handle,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    closed: parking_lot::Mutex<Option<oneshot::Receiver<()>>>,
}

impl Replica {
    /// Starts a member, and gives the way for proposals. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The snapshot makes no sense, or the log cannot be read.
    pub(crate) async fn start(
        opened: Opened,
        parts: ReplicaParts,
    ) -> Result<(Self, mpsc::Sender<Proposal>), OpenStoreError> {
        let Opened {
            db,
            master_id,
            closed,
        } = opened;
        let pace = parts.knows.pace;
        let before = db.paced(pace)?;
        let leadership = Arc::new(Leadership::new(master_id));
        let formats = Arc::new(Formats::new(parts.knows, parts.exit.clone()));
        let machine = Machine::open(
            Arc::clone(&db),
            master_id,
            leadership.reign(),
            Arc::clone(&formats),
            parts.report,
            parts.exit.clone(),
        )?;
        let state = machine.state();
        let network = Network::new(parts.client, Arc::clone(&leadership), Arc::clone(&formats));
        let log = Log::new(Arc::clone(&db), Arc::clone(&formats));
        let path = db.path().to_owned();
        let unreadable = |error: openraft::error::Fatal<MasterId>| OpenStoreError::Corrupt {
            path: path.clone(),
            detail: error.to_string(),
        };
        let to_lower = (before > pace).then(|| Arc::downgrade(&db));
        drop(db);
        let raft = Raft::new(
            master_id,
            Arc::new(config(pace)),
            network.clone(),
            log,
            machine,
        )
        .await
        .map_err(&unreadable)?;
        // What is read of it below must be its own state, not that before its start.
        let running = raft.with_raft_state(|_| ()).await;
        running.map_err(unreadable)?;
        let (leads_sender, leads) = watch::channel(false);
        let exit = parts.exit.clone();
        let watcher = Watcher {
            raft: raft.clone(),
            leadership: Arc::clone(&leadership),
            pace,
            on_end: parts.on_end,
            leads: leads_sender,
            exit: parts.exit.clone(),
        };
        let proposer = Proposer {
            raft: raft.clone(),
            master_id,
            state: Arc::clone(&state),
            leadership: Arc::clone(&leadership),
            metrics: parts.metrics,
            exit: parts.exit,
        };
        let (proposals, receiver) = mpsc::channel(PROPOSALS_MAX);
        let service = Service {
            raft: raft.clone(),
            master_id,
            state: Arc::clone(&state),
            leadership: Arc::clone(&leadership),
            status: Status::new(
                raft.metrics(),
                Arc::clone(&formats),
                Arc::clone(&leadership),
            ),
            member: parts.member.clone(),
            network: network.clone(),
            heard: Arc::new(Heard::new(pace, before)),
            changes: Arc::default(),
            replaced: Arc::default(),
            formats,
        };
        let mut tasks = vec![
            tokio::spawn(guarded(exit.clone(), watcher.run())),
            tokio::spawn(guarded(exit.clone(), proposer.run(receiver))),
            tokio::spawn(guarded(exit.clone(), service.clone().stand_for_election())),
            tokio::spawn(guarded(exit.clone(), service.clone().keep_format())),
            tokio::spawn(keep_connected(raft.clone(), network, parts.on_members)),
        ];
        tasks.extend(to_lower.map(|db| tokio::spawn(lower_pace(db, before, pace, exit))));
        let replica = Self {
            master_id,
            member: parts.member,
            raft,
            leadership,
            state,
            service,
            leads,
            runtime: Handle::current(),
            tasks: parking_lot::Mutex::new(tasks),
            closed: parking_lot::Mutex::new(Some(closed)),
        };
        Ok((replica, proposals))
    }

    /// Who may act.
    pub(crate) fn leadership(&self) -> Arc<Leadership> {
        Arc::clone(&self.leadership)
    }

    /// What it knows of the others.
    pub(crate) fn status(&self) -> Status {
        self.service.status.clone()
    }

    /// What changes the members; only the leader can.
    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    /// Waits until this master leads; false once it never will.
    pub(crate) async fn leads(&self) -> bool {
        self.leads.clone().wait_for(|leads| *leads).await.is_ok()
    }

    /// The cluster, once it is known here.
    pub(crate) async fn cluster_id(&self) -> ClusterId {
        loop {
            if let Some(cluster_id) = self.state.lock().registry.cluster_id() {
                return cluster_id;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Becomes a member of the cluster of these masters. One that is a member already and has another
    /// address than before tells the others when they answer; that is not waited for.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(crate) async fn join(&self, client: &Client, masters: &[String]) -> Result<(), JoinError> {
        let knows = &self.service.formats.said();
        let (members, _) = self.status().members();
        let Some(known) = members.get(&self.master_id) else {
            join::join(client, knows, masters, self.master_id, &self.member).await?;
            return Ok(());
        };
        // Others know a member by its name, also from entries of long ago.
        if known.name != self.member.name {
            return Err(JoinError::OtherName {
                ours: known.name.clone(),
                certificate: self.member.name.clone(),
            });
        }
        let ours = self.state.lock().registry.cluster_id();
        if let Some(ours) = ours {
            join::expect_cluster(client, knows, masters, ours).await?;
        }
        if *known == self.member || members.len() == 1 {
            return Ok(());
        }
        let others = members.iter().filter(|(id, _)| **id != self.master_id);
        let others: Vec<String> = others
            .map(|(_, member)| member.address.clone())
            .chain(masters.iter().cloned())
            .collect();
        let (client, knows) = (client.clone(), knows.clone());
        let (master_id, member) = (self.master_id, self.member.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = join::join(&client, &knows, &others, master_id, &member).await {
                warn!(%error, "the others were not told where this master is now");
            }
        });
        self.tasks.lock().push(task);
        Ok(())
    }

    /// Answers another master until it has enough.
    pub(crate) async fn serve(&self, connection: Connection) {
        self.service.serve(connection).await;
    }

    /// Lets another master lead, if this one does and there is one. Bounded by a few seconds.
    pub(crate) async fn hand_over(&self) {
        match self.service.hand_over(None).await {
            Ok(leader) => info!(leader = leader.name, "leadership was handed over"),
            Err(TransferError::NotLeading | TransferError::Nobody) => {}
            Err(error) => warn!(%error, "another master will lead when the lease has ended"),
        }
    }

    /// Stops, and waits until the data directory is free.
    pub(crate) async fn shutdown(&self) {
        // It fails when a task of openraft has panicked, which has been logged.
        let _ = self.raft.shutdown().await;
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
        let closed = self.closed.lock().take();
        if let Some(closed) = closed
            && timeout(CLOSE_TIMEOUT, closed).await.is_err()
        {
            warn!("the database of the registry is still in use");
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Only then the data directory is let go. Nothing to do if it has been shut down.
        let raft = self.raft.clone();
        self.runtime
            .spawn(async move { drop(raft.shutdown().await) });
    }
}

/// Work that the master cannot do without: it ends the process if it panics.
async fn guarded(exit: Exit, work: impl Future<Output = ()>) {
    let _guard = exit.listener_guard("registry");
    work.await;
}

/// What the process before this one has promised holds no longer than its lease.
async fn lower_pace(db: Weak<Db>, before: Pace, pace: Pace, exit: Exit) {
    sleep(before.lease()).await;
    let Some(db) = db.upgrade() else { return };
    let lowered = spawn_blocking(move || db.put_pace(pace)).await;
    if let Err(error) = lowered.expect("writing does not panic") {
        let cause = chain(&error);
        exit.end(ExitReason::StoreFailed { cause });
    }
}

/// Until Raft stops.
async fn keep_connected(
    raft: Raft<Types>,
    network: Network,
    on_members: Box<dyn Fn(Vec<String>) + Send + Sync>,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let addresses: Vec<String> = {
            let now = metrics.borrow();
            let members = now.membership_config.nodes();
            members.map(|(_, member)| member.address.clone()).collect()
        };
        on_members(addresses);
        let members: BTreeMap<MasterId, Member> = {
            let now = metrics.borrow_and_update();
            let others = now
                .membership_config
                .nodes()
                .filter(|(id, _)| **id != now.id);
            others.map(|(id, member)| (*id, member.clone())).collect()
        };
        network.keep(&members);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn config(pace: Pace) -> openraft::Config {
    let millis = |duration: Duration| {
        u64::try_from(duration.as_millis()).expect("constants of less than a minute")
    };
    openraft::Config {
        cluster_name: "meros".to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(pace.election()),
        // Also what openraft takes for the lease of a leader.
        election_timeout_max: millis(pace.lease()),
        // See `candidacy`.
        enable_elect: false,
        install_snapshot_timeout: millis(SNAPSHOT_PIECE_TIMEOUT),
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT,
        // More than what is kept, or a snapshot would not make up for the distance.
        replication_lag_threshold: 2 * SNAPSHOT_EVERY,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        ..openraft::Config::default()
    }
}
