//! The framework driver as a state machine: subscribe, acknowledge, reconcile, back off.
//!
//! [`Driver`] stands between a framework and the masters. It keeps the subscription up, drops
//! duplicates, finds out what became of every task after an interruption, and repeats kills.
//! The shell feeds it [`Event`]s and carries out its [`Effect`]s in order.
//!
//! Invariants: D1 a task is live or ended, never both; D2 a terminal status of a task is
//! delivered once; D3 an update is acknowledged only after it was delivered and handled; D4
//! before the subscription holds nothing but `Subscribe` is sent; D5 one round of reconciliation
//! at a time; D6 after a re-subscription every live task is asked about until there is an answer;
//! D7 nothing follows the end; D8 no master of an earlier term is followed, nor
//! believed when it sends the framework away for good.
//! Absent: clocks, sockets, offers (they are void as soon as the connection is).

mod accept;
mod backoff;
mod calls;
mod config;
mod effect;
mod event;
pub mod executor;
mod news;
mod reconcile;
mod tasks;

use std::collections::BTreeSet;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, ReconcileTask};
use meros_proto::mutant::Mutant;
use meros_proto::refusal::{Leadership, Refusal};
use meros_proto::role::RoleName;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::time::Timestamp;

use crate::backoff::Backoff;
pub use crate::config::*;
pub use crate::effect::{Effect, EndReason, News};
pub use crate::event::{Call, Event};
pub use crate::news::{CALL_NEWS_MAX, NEWS_QUEUE, NewsQueue};
use crate::reconcile::Reconciler;
use crate::tasks::{TaskTable, Verdict};

/// How the driver stands with the masters.
///
/// Transitions: `Waiting -> Connecting`; `Connecting -> Subscribing | Waiting`;
/// `Subscribing -> Subscribed | Waiting | Connecting` (redirected);
/// `Subscribed -> Waiting | Connecting` (redirected); all `-> Ended`, which is never left.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    /// Connects at this moment, to this address first.
    Waiting {
        until: Timestamp,
        hint: Option<String>,
    },
    /// An attempt is on its way.
    Connecting,
    /// Asked to be subscribed; gives up at this moment.
    Subscribing { deadline: Timestamp },
    /// The subscription holds.
    Subscribed,
    /// For good.
    Ended,
}

/// What a driver has met, counted from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Subscriptions that a master confirmed.
    pub subscriptions: u64,
    /// Attempts to reach or to subscribe to a master that failed.
    pub failed_attempts: u64,
    /// Updates that were dropped because they had been delivered before.
    pub duplicates: u64,
    /// Tasks that turned out to live after their end had been delivered; each was killed.
    pub resurrected: u64,
    /// Calls that could not be passed on, because there was no subscription or they broke a rule.
    pub refused_calls: u64,
    /// Messages of a master that do not belong where they came.
    pub out_of_place: u64,
}

/// The state machine. Feed it events in the order in which they happen.
#[derive(Debug, Clone)]
pub struct Driver {
    framework: FrameworkDescription,
    suppressed: BTreeSet<RoleName>,
    wishes: Vec<OfferWishes>,
    /// What the last subscription stated: wishes that the master has taken.
    wishes_held: Vec<OfferWishes>,
    cluster_id: Option<ClusterId>,
    /// The highest term heard of: an older leader is not followed (D8).
    epoch: Epoch,
    link: Link,
    retry: Backoff,
    redirects: u32,
    /// Whether tasks may exist that only the master knows: started with an id, and not asked yet.
    resumes: bool,
    tasks: TaskTable,
    reconciler: Reconciler,
    /// Set by a teardown: until when it is repeated.
    teardown_until: Option<Timestamp>,
    counters: Counters,
}

impl Driver {
    /// A driver that wants to connect at `now`: feed it [`Event::Tick`].
    #[must_use]
    pub fn new(config: DriverConfig, now: Timestamp) -> Self {
        Self {
            resumes: config.framework.framework_id.is_some(),
            framework: config.framework,
            suppressed: config.suppressed_roles.into_iter().collect(),
            wishes: config.wishes,
            wishes_held: Vec::new(),
            cluster_id: config.cluster_id,
            epoch: config.epoch,
            link: Link::Waiting {
                until: now,
                hint: None,
            },
            retry: Backoff::new(RETRY_MIN, RETRY_MAX, config.seed),
            redirects: 0,
            tasks: TaskTable::default(),
            reconciler: Reconciler::new(!config.seed),
            teardown_until: None,
            counters: Counters::default(),
        }
    }

    /// Takes in what has happened, and appends what is to be done about it, in order. Total:
    /// every event is legal at every time; those that do not fit change nothing.
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.link == Link::Ended {
            return; // D7
        }
        match event {
            Event::Connected => self.on_connected(now, effects),
            Event::ConnectFailed { why, hopeless } => {
                self.on_connect_failed(why, hopeless, now, effects);
            }
            Event::Disconnected { why } => self.on_disconnected(why, now, effects),
            Event::LeaderFound => self.on_leader_found(effects),
            Event::Master(message) => self.on_message(message, now, effects),
            Event::Call(call) => self.on_call(call, now, effects),
            Event::GiveUp { why } => self.end(EndReason::Failed { why }, effects),
            Event::Tick => self.on_tick(now, effects),
        }
        self.ask_next(now, effects);
    }

    /// When [`Event::Tick`] has something to do next; `None` once the session has ended, and
    /// while only the shell or the master can move things on.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let link = match self.link {
            Link::Waiting { until, .. } => Some(until),
            Link::Subscribing { deadline } => Some(deadline),
            Link::Connecting | Link::Subscribed => None,
            Link::Ended => return None,
        };
        [link, self.reconciler.next_deadline(), self.teardown_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// The framework's id, once it has one.
    #[must_use]
    pub fn framework_id(&self) -> Option<FrameworkId> {
        self.framework.framework_id
    }

    /// The highest term heard of. To be kept with the framework's id: a next life that does not know
    /// it would believe a master that was deposed in this one.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many tasks have been launched or heard of and have not ended.
    #[must_use]
    pub fn live_tasks(&self) -> usize {
        self.tasks.live_count()
    }

    /// Those tasks, and the slave of each, as far as it is known.
    pub fn live(&self) -> impl Iterator<Item = (&TaskId, Option<SlaveId>)> {
        self.tasks.live()
    }

    /// What was met so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Checks what must always hold between two events; for tests and simulation.
    ///
    /// # Panics
    /// An invariant is broken: a bug of this crate.
    pub fn check_invariants(&self) {
        self.tasks.check_invariants();
        self.reconciler.check_invariants();
        for task_id in self.reconciler.pending() {
            assert!(
                self.tasks.is_live(task_id),
                "{task_id}: asked about, but not live"
            );
        }
        if self.link != Link::Subscribed {
            assert_eq!(
                self.reconciler.next_deadline(),
                None,
                "D4 broken: asks unsubscribed"
            );
        }
    }

    // ---- the connection -----------------------------------------------------------------

    fn on_connected(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.link != Link::Connecting {
            return;
        }
        self.link = Link::Subscribing {
            deadline: now.after(SUBSCRIBE_TIMEOUT),
        };
        self.wishes_held.clone_from(&self.wishes);
        effects.push(Effect::Send(FrameworkToMaster::Subscribe {
            framework: self.framework.clone(),
            suppressed_roles: self.suppressed.iter().cloned().collect(),
            wishes: self.wishes.clone(),
        }));
    }

    fn on_connect_failed(
        &mut self,
        why: String,
        hopeless: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if self.link != Link::Connecting {
            return;
        }
        if hopeless {
            self.end(EndReason::Untrusted { why }, effects);
        } else {
            self.retry_later(why, None, now, effects);
        }
    }

    fn on_disconnected(&mut self, why: String, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Subscribed => self.interrupt(why, None, now, effects),
            Link::Subscribing { .. } | Link::Connecting => {
                self.retry_later(why, None, now, effects);
            }
            Link::Waiting { .. } | Link::Ended => {}
        }
    }

    fn on_leader_found(&mut self, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Waiting { .. }) {
            self.link = Link::Connecting;
            effects.push(Effect::Connect { hint: None });
        }
    }

    /// The subscription is lost; looks for the leader anew.
    fn interrupt(
        &mut self,
        why: String,
        hint: Option<String>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.reconciler.stop();
        let until = now.after(self.retry.next_delay());
        self.link = Link::Waiting { until, hint };
        effects.push(Effect::Deliver(News::Disconnected { why }));
    }

    /// An attempt failed; makes another one after a while.
    fn retry_later(
        &mut self,
        why: String,
        hint: Option<String>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.failed_attempts += 1;
        let retry_in = self.retry.next_delay();
        self.link = Link::Waiting {
            until: now.after(retry_in),
            hint,
        };
        let attempts = self.retry.attempts();
        effects.push(Effect::Deliver(News::ConnectFailed {
            why,
            attempts,
            retry_in,
        }));
    }

    fn end(&mut self, reason: EndReason, effects: &mut Vec<Effect>) {
        if matches!(
            self.link,
            Link::Subscribing { .. } | Link::Subscribed | Link::Connecting
        ) {
            effects.push(Effect::Disconnect);
        }
        self.reconciler.stop();
        self.link = Link::Ended;
        effects.push(Effect::Deliver(News::Ended(reason)));
    }

    fn on_tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.teardown_until.is_some_and(|until| until <= now) {
            return self.end(EndReason::TornDown { confirmed: false }, effects);
        }
        match &mut self.link {
            Link::Waiting { until, hint } if *until <= now => {
                let hint = hint.take();
                self.link = Link::Connecting;
                effects.push(Effect::Connect { hint });
            }
            Link::Subscribing { deadline } if *deadline <= now => {
                effects.push(Effect::Disconnect);
                let why = "the master did not answer the subscription in time".to_owned();
                self.retry_later(why, None, now, effects);
            }
            _ => {}
        }
        if self.reconciler.is_round_due(now) {
            // Also for what this driver does not know, or takes for ended: a master that was deposed
            // may have said so, and slaves may have been away when it was asked for last.
            effects.push(Effect::Send(FrameworkToMaster::Reconcile {
                tasks: Vec::new(),
            }));
            self.reconciler.begin(self.tasks.live_ids(), now);
        }
    }

    // ---- messages of the master ---------------------------------------------------------

    fn on_message(
        &mut self,
        message: MasterToFramework,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match (&self.link, message) {
            (
                Link::Subscribing { .. },
                MasterToFramework::Subscribed {
                    framework_id,
                    cluster_id,
                    epoch,
                },
            ) => self.on_subscribed(framework_id, cluster_id, epoch, now, effects),
            (
                Link::Subscribing { .. } | Link::Subscribed,
                MasterToFramework::Error { refusal, by },
            ) => self.on_error(refusal, by, now, effects),
            (Link::Subscribing { .. }, MasterToFramework::Refused { refusal, .. }) => {
                self.on_error(refusal, None, now, effects);
            }
            (Link::Subscribed, MasterToFramework::Offers(offers)) => {
                effects.push(Effect::Deliver(News::Offers(offers)));
            }
            (Link::Subscribed, MasterToFramework::Rescind { offer_id }) => {
                effects.push(Effect::Deliver(News::Rescinded(offer_id)));
            }
            (Link::Subscribed, MasterToFramework::Update(status)) => {
                self.on_update(status, now, effects);
            }
            (Link::Subscribed, MasterToFramework::Failure { slave_id }) => {
                effects.push(Effect::Deliver(News::SlaveLost(slave_id)));
            }
            (
                Link::Subscribed,
                MasterToFramework::ExecutorEnded {
                    slave_id,
                    executor_id,
                    exit,
                },
            ) => effects.push(Effect::Deliver(News::ExecutorEnded {
                slave_id,
                executor_id,
                exit,
            })),
            (
                Link::Subscribed,
                MasterToFramework::ExecutorMessage {
                    slave_id,
                    executor_id,
                    data,
                },
            ) => effects.push(Effect::Deliver(News::ExecutorMessage {
                slave_id,
                executor_id,
                data,
            })),
            (Link::Subscribed, MasterToFramework::Operation(status)) => {
                effects.push(Effect::Deliver(News::Operation(status)));
            }
            (Link::Subscribed, MasterToFramework::Refused { call, refusal }) => {
                // Which of its tasks an accept launched before it was refused, if any, the
                // master does not say: ask.
                if call == "Accept" {
                    self.reconciler.begin(self.tasks.live_ids(), now);
                }
                if call == "Wish" {
                    self.take_wishes_back(effects);
                }
                effects.push(Effect::Deliver(News::Refused { call, refusal }));
            }
            // For the shell, which has heard it.
            (_, MasterToFramework::Masters { .. }) => {}
            _ => self.counters.out_of_place += 1,
        }
    }

    /// Goes back to wishes that a master has taken: with others the next subscription would be
    /// refused, and that ends the session.
    fn take_wishes_back(&mut self, effects: &mut Vec<Effect>) {
        if self.wishes != self.wishes_held {
            self.wishes.clone_from(&self.wishes_held);
            effects.push(Effect::Send(FrameworkToMaster::Wish {
                wishes: self.wishes.clone(),
            }));
        }
    }

    fn on_subscribed(
        &mut self,
        framework_id: FrameworkId,
        cluster_id: ClusterId,
        epoch: Epoch,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(theirs) = self.cluster_id.filter(|known| *known != cluster_id) {
            let refusal = Refusal::Invalid {
                field: "cluster".to_owned(),
                why: format!(
                    "this is cluster {cluster_id}, but {framework_id} was given out by {theirs}: \
                     use the addresses of its own masters, or subscribe without an id"
                ),
            };
            return self.end(EndReason::Refused(refusal), effects);
        }
        if epoch < self.epoch && !Mutant::FollowDeposed.is_on() {
            // It does not know what became of our tasks since, and would take them for gone.
            effects.push(Effect::Disconnect);
            let why = format!(
                "the master leads term {epoch}, and {} has begun",
                self.epoch
            );
            return self.retry_later(why, None, now, effects);
        }
        self.epoch = epoch;
        let again = self.counters.subscriptions > 0;
        self.counters.subscriptions += 1;
        self.framework.framework_id = Some(framework_id);
        self.cluster_id = Some(cluster_id);
        self.link = Link::Subscribed;
        self.retry.reset();
        self.redirects = 0;
        if self.teardown_until.is_some() {
            effects.push(Effect::Send(FrameworkToMaster::Teardown));
            return;
        }
        effects.push(Effect::Deliver(News::Subscribed {
            framework_id,
            cluster_id,
            again,
        }));
        if self.wishes != self.wishes_held {
            // Said between the subscription and its answer.
            effects.push(Effect::Send(FrameworkToMaster::Wish {
                wishes: self.wishes.clone(),
            }));
        }
        let kills = self.tasks.kills();
        for (task_id, kill) in kills.filter(|_| !Mutant::ForgetKills.is_on()) {
            effects.push(Effect::Send(FrameworkToMaster::Kill {
                task_id: task_id.clone(),
                slave_id: self.tasks.slave_of(task_id),
                grace: kill.grace,
            }));
        }
        // H8: what only the master knows is asked for once, what we know until it is answered.
        if std::mem::take(&mut self.resumes) {
            effects.push(Effect::Send(FrameworkToMaster::Reconcile {
                tasks: Vec::new(),
            }));
        }
        if !Mutant::NeverReconcile.is_on() {
            self.reconciler.begin(self.tasks.live_ids(), now);
        }
    }

    /// The master ends the subscription.
    fn on_error(
        &mut self,
        refusal: Refusal,
        by: Option<Leadership>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        // D8: its successor may know what it does not; a master that leads nothing knows nothing for
        // sure.
        let is_deposed = by.is_none_or(|by| by.is_over(self.cluster_id, self.epoch));
        let is_believed = !is_deposed || Mutant::FollowDeposed.is_on();
        if !refusal.is_retryable() && is_believed {
            let removed = matches!(refusal, Refusal::FrameworkRemoved { .. });
            return self.end(
                match removed && self.teardown_until.is_some() {
                    true => EndReason::TornDown { confirmed: true },
                    false => EndReason::Refused(refusal),
                },
                effects,
            );
        }
        effects.push(Effect::Disconnect);
        let was_subscribed = self.link == Link::Subscribed;
        let why = refusal.to_string();
        let leader = match refusal {
            Refusal::NotLeading { leader } => leader,
            _ => None,
        };
        if was_subscribed {
            self.interrupt(why, leader.clone(), now, effects);
        } else if leader.is_none() || self.redirects >= REDIRECTS_MAX {
            return self.retry_later(why, leader, now, effects);
        }
        if leader.is_some() && self.redirects < REDIRECTS_MAX {
            self.redirects += 1;
            self.link = Link::Connecting;
            effects.push(Effect::Connect { hint: leader });
        }
    }

    fn on_update(&mut self, mut status: TaskStatus, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.tasks.is_announcement(&status, now) {
            return self.reconciler.ask_later(&status.task_id, now);
        }
        if status.state == TaskState::Unknown {
            status.state = self.tasks.end_of_unknown(&status.task_id);
            if status.message.is_empty() {
                status
                    .message
                    .push_str("the master knows neither the task nor its slave");
            }
        }
        self.reconciler.answered(&status.task_id);
        let verdict = self.tasks.observe(&status);
        match verdict {
            Verdict::Deliver => {}
            Verdict::Repeat | Verdict::Ignore => self.counters.duplicates += 1,
            Verdict::Kill => self.counters.resurrected += 1,
        }
        let is_early = Mutant::AcknowledgeOnDelivery.is_on() && verdict == Verdict::Deliver;
        let is_due = is_early || matches!(verdict, Verdict::Repeat | Verdict::Kill);
        if let (true, Some(update_id)) = (is_due, status.update_id) {
            effects.push(Effect::Send(FrameworkToMaster::Acknowledge {
                slave_id: status.slave_id,
                task_id: status.task_id.clone(),
                update_id,
            }));
        }
        if verdict == Verdict::Kill {
            effects.push(Effect::Send(FrameworkToMaster::Kill {
                task_id: status.task_id.clone(),
                slave_id: status.slave_id,
                grace: None,
            }));
        }
        if let Some(kill) = self.tasks.unheard_kill(&status) {
            effects.push(Effect::Send(FrameworkToMaster::Kill {
                task_id: status.task_id.clone(),
                slave_id: status.slave_id,
                grace: kill.grace,
            }));
        }
        if verdict == Verdict::Deliver {
            effects.push(Effect::Deliver(News::Update(status)));
        }
    }

    /// Sends the next message of the round of reconciliation, if it is time.
    fn ask_next(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(task_ids) = self.reconciler.next_chunk(now) {
            let tasks = task_ids
                .into_iter()
                .map(|task_id| ReconcileTask {
                    slave_id: self.tasks.slave_of(&task_id),
                    task_id,
                })
                .collect();
            effects.push(Effect::Send(FrameworkToMaster::Reconcile { tasks }));
        }
    }
}

#[cfg(test)]
mod tests;
