//! Handing over: the leader lets a member of its choice be elected at once, so that nobody waits for
//! its lease to end.
//!
//! It stops to act first. Then, when the other one has all entries, it asks it to stand for election,
//! and votes for it. With three members that is the majority; with more, the rest votes when the
//! lease has ended, which is no later than if the leader had died.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use super::serve::Service;
use super::types::{MasterId, Member, Vote};
use super::wire::{Answer, Call};

/// How long the other one may take to have all entries. It is at most a few behind.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long its answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long its election may take: that of five members waits for the lease. Of the default one.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a leader still leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransferError {
    /// It does not.
    #[error("this master does not lead")]
    NotLeading,
    /// There is no member of that name.
    #[error("no master has that name: see `meros masters list`")]
    Unknown,
    /// There is no other one, or it has no vote.
    #[error("no other master can lead: see `meros masters list`")]
    Nobody,
    /// The other one was not elected.
    #[error("{name} was not elected ({why}): see its log, and try again or take another one")]
    Failed {
        /// Who.
        name: String,
        /// Why.
        why: String,
    },
}

/// While it lives, this master begins no reign and renews no lease.
struct Withheld<'a>(&'a Service);

impl<'a> Withheld<'a> {
    fn new(service: &'a Service) -> Self {
        service.leadership.withhold(true);
        Self(service)
    }
}

impl Drop for Withheld<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
        self.0.leadership.withhold(false);
    }
}

impl Service {
    /// Lets the member of this name lead, or the one that is best prepared, and tells who does. Nothing
    /// if that one leads already.
    ///
    /// # Errors
    /// [`TransferError`]; this master leads on, or whoever else is elected.
    pub(crate) async fn hand_over(&self, to: Option<&str>) -> Result<Member, TransferError> {
        let _one_at_a_time = self.changes.lock().await;
        if !self.leadership.is_acting() {
            return Err(TransferError::NotLeading);
        }
        let (target, member) = self.successor(to)?;
        if target == self.master_id {
            return Ok(member);
        }
        let failed = |why: &str| TransferError::Failed {
            name: member.name.clone(),
            why: why.to_owned(),
        };
        info!(to = member.name, "leadership is handed over");
        let _withheld = Withheld::new(self);
        if !self.leadership.rest().await {
            return Err(failed("this master does not stop to act"));
        }
        let wait = self.raft.wait(Some(CATCH_UP_TIMEOUT));
        let has_all = wait.metrics(
            |now| {
                let replicated = now.replication.as_ref();
                let reached = replicated.and_then(|to| to.get(&target).copied().flatten());
                reached.map(|id| id.index) >= now.last_log_index
            },
            "the next leader has all entries",
        );
        if has_all.await.is_err() {
            return Err(failed("it is behind"));
        }
        self.raft.runtime_config().heartbeat(false);
        let vote = self.raft.metrics().borrow().vote;
        let peer = self.network.peer(target, &member);
        match timeout(ANSWER_TIMEOUT, peer.ask(Call::TakeOver { vote })).await {
            Ok(Ok(Answer::TakesOver)) => {}
            Ok(Ok(Answer::Failed(why) | Answer::Refused(why))) => return Err(failed(&why)),
            Ok(Ok(_)) => return Err(failed("it does not know how to: it is of an older release")),
            Ok(Err(_)) | Err(_) => return Err(failed("it does not answer")),
        }
        let wait = self
            .raft
            .wait(Some(self.heard.pace().scaled(ELECTION_TIMEOUT)));
        let ours = self.master_id;
        let elected = wait.metrics(
            |now| now.current_leader.is_some_and(|leader| leader != ours),
            "another one leads",
        );
        match elected.await.ok().and_then(|_| self.status.leader()) {
            Some((_, leader)) => Ok(leader),
            None => {
                warn!(to = member.name, "leadership could not be handed over");
                Err(failed("the others do not vote for it"))
            }
        }
    }

    fn successor(&self, to: Option<&str>) -> Result<(MasterId, Member), TransferError> {
        let (members, voters) = self.status.members();
        if let Some(name) = to {
            let named = members.into_iter().find(|(_, member)| member.name == name);
            let named = named.ok_or(TransferError::Unknown)?;
            return match voters.contains(&named.0) {
                true => Ok(named),
                false => Err(TransferError::Nobody),
            };
        }
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        let others = voters.into_iter().filter(|id| *id != self.master_id);
        let reached = |id: &MasterId| now.replication.as_ref()?.get(id).copied().flatten();
        let best = others.max_by_key(reached).ok_or(TransferError::Nobody)?;
        let member = members.get(&best).ok_or(TransferError::Nobody)?;
        Ok((best, member.clone()))
    }

    /// The other side of it.
    pub(super) async fn take_over(&self, vote: Vote) -> Answer {
        let known = self.raft.metrics().borrow().vote;
        if known != vote {
            return Answer::Failed(format!("it knows of another leader ({known})"));
        }
        // Unlike for other elections it does not matter whether it has just started: if it has promised
        // its lease to anybody, then to this leader, or to one whose lease ended before this one's began.
        info!("this master is to lead");
        match self.raft.trigger().elect().await {
            Ok(()) => Answer::TakesOver,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }
}
