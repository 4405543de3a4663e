//! What this member knows of the others, for those who only look: reads, metrics, redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meros_master_core::Format;
use openraft::RaftMetrics;
use serde::Serialize;
use tokio::sync::watch;

use super::leadership::Leadership;
#[cfg(test)]
use super::pace::Pace;
use super::types::{MasterId, Member};
use super::upgrade::Formats;
#[cfg(test)]
use super::upgrade::Knows;
#[cfg(test)]
use crate::exit::Exit;

/// A window on openraft's state. Cheap to clone; looking never waits.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    raft: watch::Receiver<RaftMetrics<MasterId, Member>>,
    formats: Arc<Formats>,
    leadership: Arc<Leadership>,
}

/// A member of the cluster, as `GET /api/v1/masters` tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MemberView {
    /// Its number, in hexadecimal digits.
    master_id: String,
    /// Its name and address.
    #[serde(flatten)]
    member: Member,
    /// `leader`, `voter`, or `learner` while it has no vote yet.
    role: &'static str,
    /// How many entries it is behind, if this master leads and so knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    /// Its release, while there is a connection to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    /// The newest format that it knows, while there is a connection to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_format: Option<Format>,
    /// The format that the cluster uses, the same in all rows.
    format: Format,
}

/// The numbers of the replicated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The term.
    pub(crate) term: u64,
    /// The last entry that is written here.
    pub(crate) last: u64,
    /// The last entry that is applied here.
    pub(crate) applied: u64,
    /// The entry up to which there is a snapshot.
    pub(crate) snapshot: u64,
    /// Members that have a vote.
    pub(crate) voters: u64,
    /// What the cluster uses, as of what is applied here.
    pub(crate) format: Format,
}

impl Status {
    pub(super) fn new(
        raft: watch::Receiver<RaftMetrics<MasterId, Member>>,
        formats: Arc<Formats>,
        leadership: Arc<Leadership>,
    ) -> Self {
        Self {
            raft,
            formats,
            leadership,
        }
    }

    /// Of a member that knows nobody.
    #[cfg(test)]
    pub(crate) fn unknown() -> Self {
        let raft = watch::channel(RaftMetrics::new_initial(MasterId(0))).1;
        Self::new(
            raft,
            Arc::new(Formats::new(Knows::this(Pace::default()), Exit::new())),
            Arc::new(Leadership::new(MasterId(0))),
        )
    }

    /// The leader, as far as is known here; it may be gone.
    pub(crate) fn leader(&self) -> Option<(MasterId, Member)> {
        let now = self.raft.borrow();
        let leader = now.current_leader?;
        let member = now.membership_config.membership().get_node(&leader)?;
        Some((leader, member.clone()))
    }

    /// Whether this master leads and waits for the others to answer: another one may have been elected.
    pub(crate) fn is_waiting(&self) -> bool {
        self.leadership.is_waiting()
    }

    /// The leader, if it is another master.
    pub(crate) fn other_leader(&self) -> Option<Member> {
        let ours = self.raft.borrow().id;
        let (id, member) = self.leader()?;
        (id != ours).then_some(member)
    }

    /// Whether this member has the only vote.
    pub(crate) fn is_alone(&self) -> bool {
        let now = self.raft.borrow();
        let mut voters = now.membership_config.voter_ids();
        voters.next() == Some(now.id) && voters.next().is_none()
    }

    /// All members by number, and which of them have a vote.
    pub(crate) fn members(&self) -> (BTreeMap<MasterId, Member>, Vec<MasterId>) {
        let now = self.raft.borrow();
        let members = now.membership_config.membership();
        let all = members.nodes().map(|(id, member)| (*id, member.clone()));
        (all.collect(), members.voter_ids().collect())
    }

    /// The name of a member.
    pub(super) fn name_of(&self, master_id: MasterId) -> Option<String> {
        let now = self.raft.borrow();
        let member = now.membership_config.membership().get_node(&master_id);
        member.map(|member| member.name.clone())
    }

    /// The members that have a vote: each of these sets must have a majority.
    pub(super) fn voters(&self) -> Vec<BTreeSet<MasterId>> {
        let now = self.raft.borrow();
        let members = now.membership_config.membership();
        members.get_joint_config().clone()
    }

    /// All members, for people.
    pub(crate) fn views(&self) -> Vec<MemberView> {
        let (members, voters) = self.members();
        let now = self.raft.borrow();
        let last = now.last_log_index.unwrap_or_default();
        let lag = |id: &MasterId| {
            let reached = now.replication.as_ref()?.get(id)?;
            Some(last.saturating_sub(reached.map_or(0, |id| id.index)))
        };
        let view = |(id, member): (MasterId, Member)| {
            let knows = match id == now.id {
                true => Some(self.formats.ours().clone()),
                false => self.formats.theirs(id),
            };
            MemberView {
                master_id: id.to_string(),
                member,
                role: match now.current_leader == Some(id) {
                    true => "leader",
                    false if voters.contains(&id) => "voter",
                    false => "learner",
                },
                lag: lag(&id),
                newest_format: knows.as_ref().map(|knows| knows.newest),
                release: knows.map(|knows| knows.release),
                format: self.formats.current(),
            }
        };
        members.into_iter().map(view).collect()
    }

    /// How far the log is.
    pub(crate) fn progress(&self) -> Progress {
        let now = self.raft.borrow();
        Progress {
            term: now.current_term,
            last: now.last_log_index.unwrap_or_default(),
            applied: now.last_applied.map_or(0, |id| id.index),
            snapshot: now.snapshot.map_or(0, |id| id.index),
            voters: u64::try_from(now.membership_config.voter_ids().count()).unwrap_or(u64::MAX),
            format: self.formats.current(),
        }
    }
}
