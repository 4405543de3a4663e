//! Who leads, and for how long that is certain.
//!
//! openraft tells that this master was elected. It leads from the moment when an entry that says so,
//! proposed in its own term, has been applied here: then all that was committed before is applied, too.
//! The index of that entry is the epoch of its reign, and so higher than that of any reign before.
//!
//! It stops when another one is elected, or when its *lease* ends: followers that have answered a
//! message of the leader elect nobody else for their [`Pace::lease`] from when they received it, so a leader
//! that counts their [`Pace::lease_of_leader`] from when it sent the message has stopped before. A process that
//! was stopped between looking at the lease and sending is caught by the epoch, which slaves and
//! frameworks compare.
//!
//! A leader without a lease does nothing that leaves, and waits for [`Pace::patience`]. If a majority answers in
//! the same term meanwhile, then nobody else was elected: its reign goes on, and ten thousand slaves need not
//! connect again because followers were slow for a moment. Each term has reigns of its own.
//!
//! Invariants: R2 at any time at most one master acts; R3 epochs grow from reign to reign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::pace::{LEASE_MAX, Pace};
use super::types::{Batch, Body, MasterId, Reign, Types, Vote};
use crate::exit::{Exit, ExitReason, chain};

/// How often the lease is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(50);
/// How often while it is waited for.
const SOON: Duration = Duration::from_millis(5);
/// Between attempts to begin a reign.
const AGAIN: Duration = Duration::from_millis(50);
/// How long the core may take to end when its reign has.
const REST_MAX: Duration = Duration::from_millis(500);
/// How long the entry that begins a reign may take.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the threads of this master share of it.
#[derive(Debug)]
pub(crate) struct Leadership {
    master_id: MasterId,
    /// The number of the reign; 0: this master does not lead.
    reign: Arc<AtomicU64>,
    ended: Notify,
    /// Whether there is a core, which acts.
    has_core: AtomicBool,
    /// Whether no reign may begin, because another master is to be elected.
    is_withheld: AtomicBool,
    started: Instant,
    /// Until when the lease lasts, in microseconds after `started`; 0: it has none.
    lease_until: AtomicU64,
    acks: Mutex<Acks>,
}

/// Until when others have promised to elect nobody else, in the present term.
#[derive(Debug, Default)]
struct Acks {
    vote: Option<Vote>,
    /// Each of these sets must have a majority.
    voters: Vec<BTreeSet<MasterId>>,
    until: BTreeMap<MasterId, Instant>,
}

impl Leadership {
    pub(crate) fn new(master_id: MasterId) -> Self {
        Self {
            master_id,
            reign: Arc::default(),
            ended: Notify::new(),
            has_core: AtomicBool::new(false),
            is_withheld: AtomicBool::new(false),
            started: Instant::now(),
            lease_until: AtomicU64::new(0),
            acks: Mutex::default(),
        }
    }

    /// The number of the reign, for those who only compare it.
    pub(crate) fn reign(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.reign)
    }

    /// Whether this reign goes on, as far as is known.
    pub(crate) fn is_reign(&self, reign: u64) -> bool {
        reign != 0 && self.reign.load(Ordering::Acquire) == reign
    }

    /// Whether this master may act in this reign now. Cheap: looked at before each batch of effects.
    pub(crate) fn may_act(&self, reign: u64) -> bool {
        self.is_reign(reign) && self.has_lease()
    }

    /// The same, after waiting until the lease is back or the reign has ended. The watcher ends the reign when
    /// that takes too long.
    pub(crate) fn await_lease(&self, reign: u64) -> bool {
        while !self.may_act(reign) {
            if !self.is_reign(reign) {
                return false;
            }
            std::thread::sleep(SOON);
        }
        true
    }

    /// Whether there is a reign, and no lease.
    pub(crate) fn is_waiting(&self) -> bool {
        self.reign.load(Ordering::Acquire) != 0 && !self.has_lease()
    }

    /// Whether this master may be acting, so that it must not help another one to be elected.
    pub(crate) fn is_acting(&self) -> bool {
        self.may_act(self.reign.load(Ordering::Acquire))
    }

    /// Ends whatever reign there is.
    pub(crate) fn abdicate(&self) {
        self.end_reign(self.reign.load(Ordering::Acquire));
    }

    /// The core's thread says whether it has a core.
    pub(crate) fn set_core(&self, has_core: bool) {
        self.has_core.store(has_core, Ordering::Release);
    }

    /// Ends whatever reign there is, and waits until nothing is carried out any more. False if that
    /// takes too long.
    pub(crate) async fn rest(&self) -> bool {
        self.abdicate();
        let asked = Instant::now();
        while self.has_core.load(Ordering::Acquire) {
            if asked.elapsed() >= REST_MAX {
                return false;
            }
            sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Lets no reign begin, until it is told otherwise.
    pub(crate) fn withhold(&self, is_withheld: bool) {
        self.is_withheld.store(is_withheld, Ordering::Release);
    }

    /// Ends a reign; nothing if it has ended already.
    pub(crate) fn end_reign(&self, reign: u64) {
        let ended = self
            .reign
            .compare_exchange(reign, 0, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() && reign != 0 {
            self.ended.notify_one();
        }
    }

    /// Another member, of this pace, has answered a message that was sent at this time, in the term of this
    /// vote.
    pub(crate) fn acknowledged(&self, by: MasterId, vote: Vote, sent_at: Instant, pace: Pace) {
        let mut acks = self.acks.lock();
        // The first answers in a term may come before openraft has told us of it.
        if acks.vote.is_none_or(|known| vote > known) {
            self.begin_term(&mut acks, vote);
        }
        if acks.vote != Some(vote) {
            return;
        }
        let until = sent_at + pace.lease_of_leader();
        let latest = acks.until.entry(by).or_insert(until);
        *latest = (*latest).max(until);
        self.renew(&acks);
    }

    /// This master leads in the term of `vote`, with these voters.
    fn lead(&self, vote: Vote, voters: &[BTreeSet<MasterId>]) {
        let mut acks = self.acks.lock();
        if acks.vote != Some(vote) {
            self.begin_term(&mut acks, vote);
        }
        if acks.voters != voters {
            acks.voters = voters.to_vec();
        }
        self.renew(&acks);
    }

    /// A reign of an earlier term has ended: in between another master may have led.
    fn begin_term(&self, acks: &mut Acks, vote: Vote) {
        self.abdicate();
        acks.until.clear();
        acks.vote = Some(vote);
    }

    fn follow(&self) {
        self.abdicate();
        *self.acks.lock() = Acks::default();
        self.lease_until.store(0, Ordering::Release);
    }

    fn renew(&self, acks: &Acks) {
        let is_alone = |voters: &BTreeSet<MasterId>| voters.iter().eq([&self.master_id]);
        let heard = acks.voters.iter().map(|voters| self.heard(voters, acks));
        let until = match heard.min().flatten() {
            Some(_) if acks.voters.iter().all(is_alone) => Duration::MAX,
            Some(until) => until.saturating_duration_since(self.started),
            None => Duration::ZERO,
        };
        let micros = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.lease_until.store(micros, Ordering::Release);
    }

    /// The latest time until which a majority of these elects nobody else.
    fn heard(&self, voters: &BTreeSet<MasterId>, acks: &Acks) -> Option<Instant> {
        // It does not elect another one while it leads.
        let ours = Instant::now() + LEASE_MAX;
        let time_of = |voter: &MasterId| match *voter == self.master_id {
            true => Some(ours),
            false => acks.until.get(voter).copied(),
        };
        let mut times: Vec<Option<Instant>> = voters.iter().map(time_of).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(voters.len() / 2).copied().flatten()
    }

    fn has_lease(&self) -> bool {
        let until = self.lease_until.load(Ordering::Acquire);
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        now < until
    }
}

/// The task that watches openraft, and begins and ends reigns.
pub(crate) struct Watcher {
    pub(crate) raft: Raft<Types>,
    pub(crate) leadership: Arc<Leadership>,
    /// Of this master.
    pub(crate) pace: Pace,
    /// Told when a reign has ended.
    pub(crate) on_end: Box<dyn Fn() + Send + Sync>,
    /// Whether this master leads.
    pub(crate) leads: watch::Sender<bool>,
    pub(crate) exit: Exit,
}

impl Watcher {
    /// Until Raft stops; ends the process if that was not asked for.
    pub(crate) async fn run(self) {
        loop {
            let Some((vote, voters)) = self.elected().await else {
                return;
            };
            self.leadership.lead(vote, &voters);
            let is_withheld = self.leadership.is_withheld.load(Ordering::Acquire);
            if is_withheld || !self.leadership.has_lease() {
                // Its first message to the others is on its way.
                sleep(SOON).await;
                continue;
            }
            if let Some(reign) = self.begin().await {
                self.leads.send_replace(true);
                self.watch(reign).await;
                self.leads.send_replace(false);
                self.leadership.end_reign(reign);
                info!("this master no longer leads");
                (self.on_end)();
            } else {
                sleep(AGAIN).await;
            }
        }
    }

    /// Waits until this master is elected; none once Raft has stopped.
    async fn elected(&self) -> Option<(Vote, Vec<BTreeSet<MasterId>>)> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if let Err(fatal) = &now.running_state {
                    if !matches!(fatal, openraft::error::Fatal::Stopped) {
                        let cause = chain(fatal);
                        self.exit.end(ExitReason::StoreFailed { cause });
                    }
                    return None;
                }
                if now.state == ServerState::Leader {
                    let voters = now
                        .membership_config
                        .membership()
                        .get_joint_config()
                        .clone();
                    return Some((now.vote, voters));
                }
            }
            self.leadership.follow();
            if metrics.changed().await.is_err() {
                // It has said nothing, so it has panicked.
                self.exit.end(ExitReason::Panicked { thread: "raft" });
                return None;
            }
        }
    }

    /// Proposes the entry that begins a reign.
    async fn begin(&self) -> Option<u64> {
        let number = draw();
        self.leadership.reign.store(number, Ordering::Release);
        let batch = Batch {
            reign: Reign {
                master: self.leadership.master_id,
                number,
            },
            body: Body::Lead,
            check: None,
        };
        let written = timeout(BEGIN_TIMEOUT, self.raft.client_write(batch)).await;
        match written {
            Ok(Ok(written)) => {
                info!(
                    epoch = written.log_id.index,
                    term = written.log_id.leader_id.term,
                    "this master leads"
                );
                return Some(number);
            }
            Ok(Err(error)) => debug!(%error, "a reign could not begin"),
            Err(_) => warn!("a reign could not begin in time: the others do not answer"),
        }
        self.leadership.end_reign(number);
        // It may have begun for the core nevertheless, if the answer came too late.
        (self.on_end)();
        None
    }

    /// Waits until the reign has to end.
    async fn watch(&self, reign: u64) {
        let mut metrics = self.raft.metrics();
        let mut lapsed = None;
        while self.leadership.is_reign(reign) {
            if self.leadership.has_lease() {
                if lapsed.take().is_some() {
                    info!("the others answer again: this master goes on leading");
                }
            } else {
                let since = *lapsed.get_or_insert_with(|| {
                    info!("too few of the others answer: this master waits for them");
                    Instant::now()
                });
                if since.elapsed() >= self.pace.patience() {
                    return;
                }
            }
            {
                let now = metrics.borrow_and_update();
                if now.state != ServerState::Leader {
                    return;
                }
                let members = now.membership_config.membership();
                self.leadership.lead(now.vote, members.get_joint_config());
            }
            tokio::select! {
                // Looked at again: it may have been another reign that has ended.
                () = self.leadership.ended.notified() => {}
                changed = metrics.changed() => if changed.is_err() { return },
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// A number that this process and those before it have not used.
fn draw() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Keys of the standard library's hash maps: random for each process, different each time.
    std::hash::RandomState::new().build_hasher().finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MasterId = MasterId(1);

    fn voters(ids: &[u64]) -> BTreeSet<MasterId> {
        ids.iter().copied().map(MasterId).collect()
    }

    fn leading(sets: &[BTreeSet<MasterId>]) -> (Leadership, Vote) {
        let leadership = Leadership::new(ME);
        let vote = Vote::new_committed(3, ME);
        leadership.lead(vote, sets);
        (leadership, vote)
    }

    #[test]
    fn a_lease_is_counted_from_what_a_majority_has_answered() {
        let (leadership, vote) = leading(&[voters(&[1, 2, 3, 4, 5])]);
        assert!(!leadership.has_lease(), "nobody has answered yet");
        let (now, pace) = (Instant::now(), Pace::default());
        let lease = pace.lease_of_leader();
        let acknowledged = |by, at| leadership.acknowledged(MasterId(by), vote, at, pace);
        acknowledged(2, now);
        assert!(!leadership.has_lease(), "two of five");
        acknowledged(3, now - lease);
        assert!(!leadership.has_lease(), "the third answered too long ago");
        acknowledged(4, now);
        assert!(leadership.has_lease());
        acknowledged(4, now - lease);
        assert!(leadership.has_lease(), "a late answer takes nothing away");
        std::thread::sleep(lease);
        assert!(!leadership.has_lease(), "it ends by itself");
    }

    #[test]
    fn of_each_member_is_counted_what_that_one_has_promised() {
        let (leadership, vote) = leading(&[voters(&[1, 2, 3, 4, 5])]);
        let (short, long) = (Pace::default(), Pace::new(Duration::from_secs(20)));
        let at = Instant::now() - short.lease();
        let acknowledged = |by, pace| leadership.acknowledged(MasterId(by), vote, at, pace);
        acknowledged(2, long);
        acknowledged(3, short);
        acknowledged(4, short);
        assert!(!leadership.has_lease(), "of three others one is left");
        acknowledged(5, long);
        assert!(leadership.has_lease());
    }

    #[test]
    fn answers_of_another_term_and_strangers_do_not_count() {
        let (leadership, vote) = leading(&[voters(&[1, 2, 3])]);
        let now = Instant::now();
        let pace = Pace::default();
        leadership.acknowledged(MasterId(2), Vote::new_committed(2, ME), now, pace);
        leadership.acknowledged(MasterId(9), vote, now, pace);
        assert!(!leadership.has_lease());
        leadership.acknowledged(MasterId(2), vote, now, pace);
        assert!(leadership.has_lease());
        leadership.lead(Vote::new_committed(5, ME), &[voters(&[1, 2, 3])]);
        assert!(
            !leadership.has_lease(),
            "in a new term all must answer anew"
        );
    }

    #[test]
    fn a_lease_that_comes_back_in_the_same_term_is_waited_for() {
        let (leadership, vote) = leading(&[voters(&[1, 2, 3])]);
        leadership.reign.store(7, Ordering::Release);
        assert!(!leadership.may_act(7), "nobody has answered");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| leadership.await_lease(7));
            std::thread::sleep(SOON * 3);
            assert!(!waits.is_finished());
            leadership.acknowledged(MasterId(2), vote, Instant::now(), Pace::default());
            assert!(
                waits.join().expect("it does not panic"),
                "the reign goes on"
            );
        });
        assert!(leadership.may_act(7));
        leadership.end_reign(7);
        assert!(!leadership.await_lease(7), "of a reign that has ended");
    }

    #[test]
    fn a_reign_does_not_outlive_its_term() {
        // R2: between two terms of one master another one may have led.
        let next = Vote::new_committed(4, ME);
        let (leadership, _) = leading(&[voters(&[1, 2, 3])]);
        leadership.reign.store(7, Ordering::Release);
        leadership.acknowledged(MasterId(2), next, Instant::now(), Pace::default());
        assert!(
            leadership.has_lease() && !leadership.is_reign(7),
            "told by an answer"
        );
        leadership.reign.store(8, Ordering::Release);
        leadership.lead(next, &[voters(&[1, 2, 3])]);
        assert!(leadership.is_reign(8), "it is of that term");
        leadership.lead(Vote::new_committed(6, ME), &[voters(&[1, 2, 3])]);
        assert!(!leadership.is_reign(8), "told by openraft");
    }

    #[test]
    fn while_members_change_both_majorities_must_answer() {
        let (leadership, vote) = leading(&[voters(&[1]), voters(&[1, 2, 3])]);
        assert!(!leadership.has_lease());
        leadership.acknowledged(MasterId(3), vote, Instant::now(), Pace::default());
        assert!(leadership.has_lease());
    }

    #[test]
    fn one_that_is_alone_has_a_lease_without_an_end_and_acts_only_in_its_reign() {
        let (leadership, _) = leading(&[voters(&[1])]);
        assert!(leadership.has_lease());
        assert!(!leadership.may_act(0));
        leadership.reign.store(7, Ordering::Release);
        assert!(leadership.may_act(7) && !leadership.may_act(6));
        leadership.end_reign(6);
        assert!(leadership.may_act(7));
        leadership.end_reign(7);
        assert!(!leadership.may_act(7));
    }
}
