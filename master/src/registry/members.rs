//! Changes of the members: who joins, who is removed, and who takes whose place.
//!
//! Only the leader makes them, one at a time. A master becomes a member because it asks for that with a
//! certificate of the cluster; it gets the registry before it gets a vote.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::info;

use super::serve::Service;
use super::transfer::TransferError;
use super::types::{MasterId, Member};
use super::upgrade::Knows;
use super::wire::Answer;

/// The most members of a cluster: each write waits for more than half of them.
pub(crate) const MEMBERS_MAX: usize = 9;
/// How long a new member may take to receive the registry.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// All of a join together: a member more must also agree that it is one.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an operator's word that a member has lost its disk counts. It is said again while it is
/// waited for.
const REPLACED_FOR: Duration = Duration::from_secs(60);
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
    /// It leads, so it has what it needs.
    #[error(
        "it leads, so it has not lost its disk: let another one lead first with `meros masters transfer`"
    )]
    Leads,
    /// The others did not agree.
    #[error("it may not have been removed: {0}")]
    Failed(String),
}

/// The members that have lost their disk, and since when an operator says so. Known to the leader only:
/// what is not remembered is said again.
#[derive(Debug, Default)]
pub(crate) struct Replaced(Mutex<BTreeMap<MasterId, Instant>>);

impl Replaced {
    /// Also forgets those that are no members any more.
    fn add(&self, master_id: MasterId, members: &BTreeMap<MasterId, Member>) {
        let mut replaced = self.0.lock();
        replaced.retain(|id, _| members.contains_key(id));
        replaced.insert(master_id, Instant::now());
    }

    fn contains(&self, master_id: MasterId) -> bool {
        let said_at = self.0.lock().get(&master_id).copied();
        said_at.is_some_and(|at| at.elapsed() < REPLACED_FOR)
    }
}

impl Service {
    /// Makes a master a member, or writes down where a member is now.
    pub(super) async fn join(
        &self,
        master_id: MasterId,
        member: Member,
        knows: Option<&Knows>,
    ) -> Answer {
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
        if let Some(why) = self.formats.refuses(knows) {
            return Answer::Refused(why);
        }
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
        let replaces = match same_name {
            Some((other, _)) if self.replaced.contains(*other) => Some(*other),
            Some((other, _)) => {
                return Err(Answer::Refused(format!(
                    "there is a member {} already, master {other} (name_taken): if it has lost its disk, run `meros masters replace {}` and start this one again",
                    member.name, member.name
                )));
            }
            None => None,
        };
        let is_one_more = replaces.is_none() && !members.contains_key(&master_id);
        if is_one_more && members.len() >= MEMBERS_MAX {
            return Err(Answer::Refused(format!(
                "a cluster has at most {MEMBERS_MAX} masters (too_many_masters)"
            )));
        }
        if members.get(&master_id) != Some(&member) {
            // Seen for oneself: under a wrong address it would be lost, and so would be whoever is there.
            self.network.visit(master_id, &member).await?;
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
        let change = match replaces {
            None => ChangeMembers::AddVoterIds([master_id].into()),
            // At once, so that there is never one less.
            Some(other) => {
                let kept = voters.into_iter().filter(|id| *id != other);
                ChangeMembers::ReplaceAllVoters(kept.chain([master_id]).collect())
            }
        };
        let changed = self.raft.change_membership(change, false).await;
        changed.map_err(|error| Answer::Failed(error.to_string()))?;
        info!(master = member.name, %master_id, "master has joined");
        Ok(())
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

    /// Lets a master without its disk take the place of the member of this name, when it joins.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub(crate) fn replace(&self, name: &str) -> Result<(), RemoveError> {
        let (members, _) = self.status.members();
        let found = members.iter().find(|(_, member)| member.name == name);
        match found {
            None => Err(RemoveError::Unknown),
            Some((id, _)) if *id == self.master_id => Err(RemoveError::Leads),
            Some((id, _)) => {
                self.replaced.add(*id, &members);
                Ok(())
            }
        }
    }
}
