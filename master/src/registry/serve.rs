//! The answering side of `meros-raft/1`: what other masters ask of this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use meros_master_core::ClusterSetting;
use meros_proto::transport::{CloseCode, Connection, RecvError};
use openraft::Raft;
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest};
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::backup::Backup;
use super::candidacy::Heard;
use super::leadership::Leadership;
use super::machine::{SNAPSHOT_BYTES_MAX, SharedState};
use super::members::{JOIN_TIMEOUT, Replaced};
use super::network::Network;
use super::status::Status;
use super::types::{MasterId, Member, Types, Vote};
use super::upgrade::{Formats, Knows};
use super::wire::{Answer, Call, Request, Response};
use crate::config::is_address;

/// Questions of one master at work at a time. openraft has a handful on their way.
const AT_WORK_MAX: usize = 16;
/// Answers that may wait to be written.
const SEND_QUEUE: usize = 64;

/// Who asks.
struct Asker {
    /// The name in its certificate.
    name: String,
    /// What it has said that it knows.
    knows: Option<Arc<Knows>>,
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
    /// Of leaders and candidates.
    pub(crate) heard: Arc<Heard>,
    /// One change of members at a time.
    pub(crate) changes: Arc<tokio::sync::Mutex<()>>,
    /// Members that have lost their disk, by an operator's word.
    pub(crate) replaced: Arc<Replaced>,
    /// What the masters know.
    pub(crate) formats: Arc<Formats>,
}

impl Service {
    /// Answers until the other side has enough.
    pub(crate) async fn serve(&self, connection: Connection) {
        let name = connection.peer().name().to_owned();
        let (members, _) = self.status.members();
        for (id, _) in members.iter().filter(|(_, member)| member.name == name) {
            self.network.dialled_by(*id);
        }
        let (sender, mut receiver) = connection.split::<Response, Request>(SEND_QUEUE);
        let places = Arc::new(Semaphore::new(AT_WORK_MAX));
        let mut knows: Option<Arc<Knows>> = None;
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
            if let Call::Formats(said) = &request.call {
                knows = Some(Arc::new(said.clone()));
            }
            let (service, sender) = (self.clone(), sender.clone());
            let asker = Asker {
                name: name.clone(),
                knows: knows.clone(),
            };
            tokio::spawn(async move {
                let number = request.number;
                let answer = service.answer(asker, request).await;
                if sender.try_send(Response { number, answer }).is_err() {
                    sender.close(CloseCode::SlowReader, "answers are not read");
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, asker: Asker, request: Request) -> Answer {
        if request.to.is_some_and(|to| to != self.master_id) {
            return Answer::Refused(format!("this is master {}", self.master_id));
        }
        if let Some(why) = self.is_another(speaker(&request.call), &asker.name) {
            return Answer::Refused(why);
        }
        match request.call {
            Call::Append(request) if !self.is_newest(request.vote) => {
                // Of a leader that does not lead any more: it is not heard, but told so.
                self.append(request).await
            }
            Call::Append(request) => {
                let _answering = self.heard.leader().await;
                self.append(request).await
            }
            // One that has just started does not know whom it may have promised its lease to.
            Call::Vote(_) if self.heard.is_bound_from_before() => {
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
                Ok(answer) => {
                    if answer.vote_granted {
                        self.heard.voted();
                    }
                    Answer::Vote(answer)
                }
                Err(error) => Answer::Failed(error.to_string()),
            },
            Call::MayStand { candidate, last } => {
                Answer::MayStand(self.may_other_stand(candidate, last))
            }
            Call::Cluster => Answer::Cluster {
                cluster_id: self.state.lock().registry.cluster_id(),
            },
            Call::TakeOver { vote } => self.take_over(vote).await,
            Call::Snapshot(request) => self.install(request).await,
            Call::Formats(_) => Answer::Formats {
                knows: self.formats.said(),
                current: self.formats.current(),
            },
            Call::Join { member, .. } if member.name != asker.name => Answer::Refused(format!(
                "the certificate is for {}, not for {} (wrong_name)",
                asker.name, member.name
            )),
            Call::Join { member, .. } if !is_address(&member.address) => {
                Answer::Refused("its address is not HOST:PORT (wrong_address)".to_owned())
            }
            Call::Join { master_id, member } => {
                let joining = self.join(master_id, member, asker.knows.as_deref());
                match timeout(JOIN_TIMEOUT, joining).await {
                    Ok(answer) => answer,
                    Err(_) => Answer::Failed("it takes longer: ask again".to_owned()),
                }
            }
        }
    }

    /// Whether a member of another name than the asker's is meant to have said it. One that is not known here
    /// may have become a member since.
    fn is_another(&self, speaker: Option<MasterId>, name: &str) -> Option<String> {
        let speaker = speaker?;
        let known = self.status.name_of(speaker)?;
        (known != name).then(|| {
            format!("master {speaker} is {known}, and the certificate is for {name} (wrong_name)")
        })
    }

    fn is_newest(&self, vote: Vote) -> bool {
        vote >= self.raft.metrics().borrow().vote
    }

    async fn append(&self, request: AppendEntriesRequest<Types>) -> Answer {
        match self.raft.append_entries(request).await {
            Ok(answer) => Answer::Append(answer),
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    async fn install(&self, request: InstallSnapshotRequest<Types>) -> Answer {
        if request.offset >= SNAPSHOT_BYTES_MAX {
            return Answer::Refused(format!("snapshots have at most {SNAPSHOT_BYTES_MAX} bytes"));
        }
        let _answering = self.heard.leader().await;
        match self.raft.install_snapshot(request).await {
            Ok(answer) => Answer::Snapshot(answer),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Answer::SnapshotMismatch(mismatch)
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// A copy of what is applied here, as JSON.
    ///
    /// # Errors
    /// It has no form in JSON, which would be a bug.
    pub(crate) async fn backup(&self) -> serde_json::Result<Vec<u8>> {
        let backup = Backup::of(&self.state.lock());
        let encoded = task::spawn_blocking(move || serde_json::to_vec(&backup)).await;
        encoded.expect("encoding does not panic")
    }

    /// What operators have set for the cluster, as of what is applied here.
    pub(crate) fn settings(&self) -> BTreeMap<ClusterSetting, u64> {
        self.state.lock().registry.settings().clone()
    }

    pub(super) fn may_lead(&self, candidate: MasterId) -> bool {
        let (members, _) = self.status.members();
        members.is_empty() || members.contains_key(&candidate)
    }
}

/// Who must have asked, by what is asked.
fn speaker(call: &Call) -> Option<MasterId> {
    match call {
        Call::Append(request) => Some(request.vote.leader_id.node_id),
        Call::Vote(request) => Some(request.vote.leader_id.node_id),
        Call::Snapshot(request) => Some(request.vote.leader_id.node_id),
        Call::TakeOver { vote } => Some(vote.leader_id.node_id),
        Call::MayStand { candidate, .. } => Some(*candidate),
        Call::Join { master_id, .. } => Some(*master_id),
        Call::Cluster | Call::Formats(_) => None,
    }
}
