//! When this member stands for election: when it has heard no leader for [`LEASE`], and so have as many
//! others as would have to vote for it.
//!
//! openraft would stand whenever it hears no leader, and each time in a higher term, which deposes a
//! leader that works: a member that has just started and is not reached yet, or one that hears nobody
//! while others hear it, would do that again and again. So its own timer is off, and here others are
//! asked first. That changes nothing on any of them, so it may be asked soon and often.
//!
//! Invariant: R2 whoever has answered a leader does not vote for itself for [`LEASE`] either.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::ServerState;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::leadership::{ELECTION_MIN, LEASE};
use super::serve::Service;
use super::types::{EntryId, MasterId};
use super::wire::{Answer, Call};

/// How often to look whether a leader is missing.
const LOOK: Duration = Duration::from_millis(20);
/// How long after the lease nobody stands or lets another one stand: openraft counts from when it has
/// dealt with a message, which is a little after it was heard.
const MARGIN: Duration = Duration::from_millis(20);
/// Each waits up to so long, at random, before it asks, so that mostly one asks alone.
const JITTER: Duration = Duration::from_millis(100);
/// How long others may take to say what they think of it.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);

/// What this member has heard of leaders and candidates.
#[derive(Debug)]
pub(crate) struct Heard {
    times: Mutex<Times>,
    /// Held while a leader is being answered; an election is begun between two answers.
    answering: RwLock<()>,
    /// How often others were asked.
    asked: AtomicU64,
}

#[derive(Debug)]
struct Times {
    /// When a leader was last heard, or this process began: before that it may have heard one, too.
    leader: Instant,
    /// When a candidate was voted for.
    candidate: Option<Instant>,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self {
            times: Mutex::new(Times {
                leader: Instant::now(),
                candidate: None,
            }),
            answering: RwLock::default(),
            asked: AtomicU64::new(0),
        }
    }

    /// A leader says something. To be held until it has its answer.
    pub(super) async fn leader(&self) -> RwLockReadGuard<'_, ()> {
        let answering = self.answering.read().await;
        self.times.lock().leader = Instant::now();
        answering
    }

    /// This member has voted for another one.
    pub(super) fn voted(&self) {
        self.times.lock().candidate = Some(Instant::now());
    }

    /// Whether there may be a leader, so long after its lease, or soon will be.
    fn is_led(&self, patience: Duration) -> bool {
        let times = self.times.lock();
        let is_being_elected = |at: Instant| at.elapsed() < ELECTION_MIN;
        times.leader.elapsed() < LEASE + patience || times.candidate.is_some_and(is_being_elected)
    }

    /// What is left of this time since a leader was heard.
    fn left(&self, of: Duration) -> Duration {
        of.saturating_sub(self.times.lock().leader.elapsed())
    }

    /// How often others were asked.
    #[cfg(test)]
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Service {
    /// Stands for election whenever that may help. Until Raft stops.
    pub(super) async fn stand_for_election(self) {
        let mut patience = MARGIN + up_to(JITTER);
        loop {
            sleep(self.heard.left(LEASE + patience).max(LOOK)).await;
            if self.raft.metrics().has_changed().is_err() {
                return;
            }
            if !self.may_stand() {
                sleep(JITTER).await;
                continue;
            }
            if self.heard.is_led(patience) {
                continue;
            }
            patience = MARGIN + up_to(JITTER);
            if !self.would_win().await {
                sleep(up_to(JITTER)).await;
                continue;
            }
            // What a leader has been answered meanwhile counts, and one that is being answered, too.
            let alone = self.heard.answering.try_write();
            if alone.is_err() || self.heard.is_led(MARGIN) {
                continue;
            }
            info!("no leader is heard: this master stands for election");
            // Raft takes up one after the other what it is asked for.
            // An error means that it has stopped.
            let _ = self.raft.trigger().elect().await;
            drop(alone);
            sleep(ELECTION_MIN + up_to(JITTER)).await;
        }
    }

    fn may_stand(&self) -> bool {
        let metrics = self.raft.metrics();
        let now = metrics.borrow();
        let members = now.membership_config.membership();
        now.state != ServerState::Leader && members.voter_ids().any(|id| id == self.master_id)
    }

    /// Whether a majority says so.
    async fn would_win(&self) -> bool {
        self.heard.asked.fetch_add(1, Ordering::Relaxed);
        let last = self.last_entry();
        let (members, _) = self.status.members();
        let voters = self.status.voters();
        let mut asked = JoinSet::new();
        for id in voters.iter().flatten().collect::<BTreeSet<_>>() {
            let Some(member) = members.get(id).filter(|_| *id != self.master_id) else {
                continue;
            };
            let (id, peer) = (*id, self.network.peer(*id, member));
            let candidate = self.master_id;
            asked.spawn(async move {
                let call = Call::MayStand { candidate, last };
                let answer = timeout(ANSWER_TIMEOUT, peer.ask(call)).await;
                matches!(answer, Ok(Ok(Answer::MayStand(true)))).then_some(id)
            });
        }
        let mut willing = BTreeSet::from([self.master_id]);
        loop {
            let has_majority =
                |set: &BTreeSet<MasterId>| set.intersection(&willing).count() > set.len() / 2;
            if voters.iter().all(has_majority) {
                return true;
            }
            match asked.join_next().await {
                Some(answer) => willing.extend(answer.ok().flatten()),
                None => {
                    debug!(?willing, "too few would vote for this master");
                    return false;
                }
            }
        }
    }

    /// What this member thinks of an election of another one, whose log ends with this entry.
    pub(super) fn may_other_stand(&self, candidate: MasterId, last: Option<EntryId>) -> bool {
        !self.leadership.is_acting()
            && !self.heard.is_led(MARGIN)
            && self.may_lead(candidate)
            && last >= self.last_entry()
    }

    fn last_entry(&self) -> Option<EntryId> {
        self.raft.data_metrics().borrow().last_log
    }
}

/// A random duration up to this.
fn up_to(most: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    // Keys of the standard library's hash maps: different each time.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.max(1))
}
