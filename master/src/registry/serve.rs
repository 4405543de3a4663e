//! The answering side of `meros-raft/1`: what other masters ask of this one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meros_proto::transport::{CloseCode, Connection, RecvError};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::InstallSnapshotRequest;
use openraft::{ChangeMembers, Raft};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::leadership::{LEASE, Leadership};
use super::machine::{SNAPSHOT_BYTES_MAX, SharedState};
use super::network::Network;
use super::status::Status;
use super::transfer::TransferError;
use super::types::{MasterId, Member, Types};
use super::wire::{Answer, Call, Request, Response};
use crate::config::is_address;

/// Questions of one master at work at a time. openraft has a handful on their way.
const AT_WORK_MAX: usize = 16;
/// Answers that may wait to be written.
const SEND_QUEUE: usize = 64;
/// The most members of a cluster: each write waits for more than half of them.
pub(crate) const MEMBERS_MAX: usize = 9;
/// How long a new member may take to receive the registry.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// All of a join together: a member more must also agree that it is one.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a member less may take.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a member was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoveError {
    /// There is none of that name.
    #[error("no master has that name: see `meros masters list`")]
    Unknown,
    /// There would be none left.
    #[error("it is the only master")]
    Alone,
    /// It led, and now this one does.
    #[error("it led until now; now {} does", .0.name)]
    HandedOver(Member),
    /// The others did not agree.
    #[error("it may not have been removed: {0}")]
    Failed(String),
}

/// What answers.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) raft: Raft<Types>,
    pub(crate) master_id: MasterId,
    pub(crate) state: SharedState,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) status: Status,
    /// The way to the others.
    pub(crate) network: Network,
    /// This master, as others reach it.
    pub(crate) member: Member,
    pub(crate) started: Instant,
    /// One change of members at a time.
    pub(crate) changes: Arc<tokio::sync::Mutex<()>>,
}

impl Service {
    /// Answers until the other side has enough.
    pub(crate) async fn serve(&self, connection: Connection) {
        let name = connection.peer().name().to_owned();
        let (sender, mut receiver) = connection.split::<Response, Request>(SEND_QUEUE);
        let places = Arc::new(Semaphore::new(AT_WORK_MAX));
        loop {
            let request = match receiver.recv().await {
                Ok(request) => request,
                Err(RecvError::BadFrame(error)) => {
                    return warn!(master = name, code = error.code(), %error, "bad frame of a master");
                }
                Err(RecvError::Closed(why)) => return debug!(master = name, %why, "master left"),
            };
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            let (service, sender, name) = (self.clone(), sender.clone(), name.clone());
            tokio::spawn(async move {
                let number = request.number;
                let answer = service.answer(&name, request).await;
                if sender.try_send(Response { number, answer }).is_err() {
                    sender.close(CloseCode::SlowReader, "answers are not read");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, name: &str, request: Request) -> Answer {
        if request.to.is_some_and(|to| to != self.master_id) {
            return Answer::Refused(format!("this is master {}", self.master_id));
        }
        match request.call {
            Call::Append(request) => match self.raft.append_entries(request).await {
                Ok(answer) => Answer::Append(answer),
                Err(error) => Answer::Failed(error.to_string()),
            },
            // One that has just started does not know whom it may have promised its lease to.
            Call::Vote(_) if self.started.elapsed() < LEASE => {
                Answer::Failed("started too recently to vote".to_owned())
            }
            // openraft lets a leader vote for another one, and would tell us only then.
            Call::Vote(_) if self.leadership.is_acting() => {
                Answer::Failed("this master leads".to_owned())
            }
            // One that was removed may not have heard of it, and would depose leader after leader.
            Call::Vote(request) if !self.may_lead(request.vote.leader_id.node_id) => {
                Answer::Refused("no member of this cluster".to_owned())
            }
            // Whoever votes does not act, also when a late answer renews a lease that had ended.
            Call::Vote(_) if !self.leadership.rest().await => {
                Answer::Failed("this master has just led".to_owned())
            }
            Call::Vote(request) => match self.raft.vote(request).await {
                Ok(answer) => Answer::Vote(answer),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Call::TakeOver { vote } => self.take_over(vote).await,
            Call::Snapshot(request) => self.install(request).await,
            Call::Join { member, .. } if member.name != name => Answer::Refused(format!(
                "the certificate is for {name}, not for {}",
                member.name
            )),
            Call::Join { member, .. } if !is_address(&member.address) => {
                Answer::Refused("its address is not HOST:PORT".to_owned())
            }
            Call::Join { master_id, member } => {
                match timeout(JOIN_TIMEOUT, self.join(master_id, member)).await {
                    Ok(answer) => answer,
                    Err(_) => Answer::Failed("it takes longer: ask again".to_owned()),
                }
            }
        }
    }

    async fn install(&self, request: InstallSnapshotRequest<Types>) -> Answer {
        if request.offset >= SNAPSHOT_BYTES_MAX {
            return Answer::Refused(format!("snapshots have at most {SNAPSHOT_BYTES_MAX} bytes"));
        }
        match self.raft.install_snapshot(request).await {
            Ok(answer) => Answer::Snapshot(answer),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Answer::SnapshotMismatch(mismatch)
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// Makes a master a member, or writes down where a member is now.
    async fn join(&self, master_id: MasterId, member: Member) -> Answer {
        let _one_at_a_time = self.changes.lock().await;
        match self.status.leader() {
            Some((leader, _)) if leader == self.master_id => {}
            other => {
                return Answer::NotLeading {
                    leader: other.map(|(_, member)| member.address),
                };
            }
        }
        let Some(cluster_id) = self.state.lock().registry.cluster_id() else {
            return Answer::Failed("the cluster is being formed".to_owned());
        };
        // Its own address may have changed while it was alone.
        if let Err(answer) = self.put(self.master_id, self.member.clone()).await {
            return answer;
        }
        if let Err(answer) = self.admit(master_id, member).await {
            return answer;
        }
        Answer::Joined { cluster_id }
    }

    async fn admit(&self, master_id: MasterId, member: Member) -> Result<(), Answer> {
        let (members, voters) = self.status.members();
        let same_name = members
            .iter()
            .find(|(id, other)| other.name == member.name && **id != master_id);
        if let Some((other, _)) = same_name {
            return Err(Answer::Refused(format!(
                "there is a member {} already (master {other}): if it has lost its disk, remove it first with `meros masters remove {}`",
                member.name, member.name
            )));
        }
        if !members.contains_key(&master_id) && members.len() >= MEMBERS_MAX {
            return Err(Answer::Refused(format!(
                "a cluster has at most {MEMBERS_MAX} masters"
            )));
        }
        self.put(master_id, member.clone()).await?;
        if voters.contains(&master_id) {
            return Ok(());
        }
        info!(master = member.name, %master_id, address = member.address, "a master joins");
        // It has what there is before its vote is needed for anything. That it was merely added says
        // nothing: with a wrong address it would stop the cluster.
        let added = self
            .raft
            .add_learner(master_id, member.clone(), false)
            .await;
        let added = added.map_err(|error| Answer::Failed(error.to_string()))?;
        let wait = self.raft.wait(Some(CATCH_UP_TIMEOUT));
        let has_all = wait.metrics(
            |now| {
                let replicated = now.replication.as_ref();
                let reached = replicated.and_then(|to| to.get(&master_id).copied().flatten());
                reached >= Some(added.log_id)
            },
            "a new member has the registry",
        );
        if has_all.await.is_err() {
            let forget = ChangeMembers::RemoveNodes([master_id].into());
            // If it stays, it is a member without a vote, which harms nobody.
            let _ = self.raft.change_membership(forget, true).await;
            return Err(Answer::Failed(format!(
                "the leader does not reach {} at {}, or it takes too long",
                member.name, member.address
            )));
        }
        let voter = ChangeMembers::AddVoterIds([master_id].into());
        let changed = self.raft.change_membership(voter, false).await;
        changed.map_err(|error| Answer::Failed(error.to_string()))?;
        info!(master = member.name, %master_id, "master has joined");
        Ok(())
    }

    fn may_lead(&self, candidate: MasterId) -> bool {
        let (members, _) = self.status.members();
        members.is_empty() || members.contains_key(&candidate)
    }

    /// Takes a member out. Its data directory is of no use any more. If that is this one, another one is
    /// to lead first, and to be asked then.
    ///
    /// # Errors
    /// [`RemoveError`]; no member has changed, except after `Failed`, which may take effect later.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), RemoveError> {
        if name == self.member.name {
            // Who was removed could not tell the others so.
            return Err(match self.hand_over(None).await {
                Ok(leader) => RemoveError::HandedOver(leader),
                Err(TransferError::Nobody) => RemoveError::Alone,
                Err(error) => RemoveError::Failed(error.to_string()),
            });
        }
        let _one_at_a_time = self.changes.lock().await;
        let (members, voters) = self.status.members();
        let found = members.iter().find(|(_, member)| member.name == name);
        let Some((&master_id, _)) = found else {
            return Err(RemoveError::Unknown);
        };
        let change = match voters.contains(&master_id) {
            true => ChangeMembers::RemoveVoters([master_id].into()),
            false => ChangeMembers::RemoveNodes([master_id].into()),
        };
        info!(master = name, %master_id, "a master is removed");
        match timeout(REMOVE_TIMEOUT, self.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(RemoveError::Failed(error.to_string())),
            Err(_) => Err(RemoveError::Failed("the others do not answer".to_owned())),
        }
    }

    /// Writes down where a member is; nothing if it is there already, or is no member.
    async fn put(&self, master_id: MasterId, member: Member) -> Result<(), Answer> {
        let (members, _) = self.status.members();
        if members.get(&master_id).is_none_or(|known| *known == member) {
            return Ok(());
        }
        let nodes = ChangeMembers::SetNodes([(master_id, member)].into());
        let changed = self.raft.change_membership(nodes, true).await;
        changed.map_err(|error| Answer::Failed(error.to_string()))?;
        Ok(())
    }
}
