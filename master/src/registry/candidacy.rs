//! When this member stands for election: when it has heard no leader for its lease, and so have as many
//! others as would have to vote for it.
//!
//! openraft would stand whenever it hears no leader, and each time in a higher term, which deposes a
//! leader that works: a member that has just started and is not reached yet, or one that hears nobody
//! while others hear it, would do that again and again. So its own timer is off, and here others are
//! asked first. That changes nothing on any of them, so it may be asked soon and often.
//!
//! Invariant: R2 whoever has answered a leader does not vote for itself for its lease either.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::ServerState;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::pace::Pace;
use super::serve::Service;
use super::types::{EntryId, MasterId};
use super::wire::{Answer, Call};

/// How often to look whether a leader is missing.
const LOOK: Duration = Duration::from_millis(20);
/// How long after the lease nobody stands or lets another one stand: openraft counts from when it has
/// dealt with a message, which is a little after it was heard.
const MARGIN: Duration = Duration::from_millis(20);
/// Each waits up to so long, at random, before it asks, so that mostly one asks alone. Of the default lease.
const JITTER: Duration = Duration::from_millis(100);
/// How long others may take to say what they think of it. Of the default lease.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);

/// What this member has heard of leaders and candidates.
#[derive(Debug)]
pub(crate) struct Heard {
    pace: Pace,
    /// Until then what the process before this one has promised may hold.
    bound_until: Instant,
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
    /// `before`: the pace of the process before this one.
    pub(super) fn new(pace: Pace, before: Pace) -> Self {
        let now = Instant::now();
        Self {
            pace,
            bound_until: now + before.max(pace).lease(),
            times: Mutex::new(Times {
                leader: now,
                candidate: None,
            }),
            answering: RwLock::default(),
            asked: AtomicU64::new(0),
        }
    }

    /// How patient this member is.
    pub(super) fn pace(&self) -> Pace {
        self.pace
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
        let is_being_elected = |at: Instant| at.elapsed() < self.pace.election();
        self.is_bound_from_before()
            || times.leader.elapsed() < self.pace.lease() + patience
            || times.candidate.is_some_and(is_being_elected)
    }

    /// What is left until nobody is led any more, and this patience.
    fn left(&self, patience: Duration) -> Duration {
        let ends = self.times.lock().leader + self.pace.lease();
        let ends = ends.max(self.bound_until) + patience;
        ends.saturating_duration_since(Instant::now())
    }

    /// Whether a process before this one may have promised something that still holds.
    pub(super) fn is_bound_from_before(&self) -> bool {
        Instant::now() < self.bound_until
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
        let pace = self.heard.pace;
        let jitter = pace.scaled(JITTER);
        let mut patience = MARGIN + up_to(jitter);
        loop {
            sleep(self.heard.left(patience).max(LOOK)).await;
            if self.raft.metrics().has_changed().is_err() {
                return;
            }
            if !self.may_stand() {
                sleep(jitter).await;
                continue;
            }
            if self.heard.is_led(patience) {
                continue;
            }
            patience = MARGIN + up_to(jitter);
            if !self.would_win().await {
                sleep(up_to(jitter)).await;
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
            sleep(pace.election() + up_to(jitter)).await;
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
        let patience = self.heard.pace.scaled(ANSWER_TIMEOUT);
        let mut asked = JoinSet::new();
        for id in voters.iter().flatten().collect::<BTreeSet<_>>() {
            let Some(member) = members.get(id).filter(|_| *id != self.master_id) else {
                continue;
            };
            let (id, peer) = (*id, self.network.peer(*id, member));
            let candidate = self.master_id;
            asked.spawn(async move {
                let call = Call::MayStand { candidate, last };
                let answer = timeout(patience, peer.ask(call)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_more_patient_process_has_promised_holds_for_the_next() {
        let (short, long) = (Pace::default(), Pace::new(Duration::from_secs(20)));
        for (pace, before, bound) in [
            (short, short, short),
            (short, long, long),
            (long, short, long),
        ] {
            let began = Instant::now();
            let heard = Heard::new(pace, before);
            assert!(heard.bound_until >= began + bound.lease());
            assert!(heard.bound_until <= Instant::now() + bound.lease());
            assert!(heard.is_bound_from_before() && heard.is_led(Duration::ZERO));
            assert!(heard.left(MARGIN) > bound.lease() / 2);
        }
    }
}
