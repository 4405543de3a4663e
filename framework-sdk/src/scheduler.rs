//! The upper level: a trait with one method per news, and a loop that runs it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use meros_proto::constraint::OfferWishes;
use meros_proto::ids::{ExecutorId, FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::message::master::ReconcileTask;
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::operation::{OperationState, OperationStatus};
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::status::{TaskExit, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_sdk_core::{Call, Event, News};

use crate::config::{Acknowledge, SessionConfig};
use crate::error::{SessionError, outcome};
use crate::session::acknowledgement;
use crate::shell::Shell;
use crate::steps::Steps;
use crate::task::Placement;

/// A framework's policy: what to do about each piece of news.
///
/// Methods are called one at a time, in the order of the news, on the task that awaits [`run`].
/// They must not block for long: while one runs, nothing is sent and nothing is read. What they
/// want done they say through [`Actions`]; it is carried out, in order, after they return.
pub trait Scheduler {
    /// The subscription holds. `again` tells a re-subscription, after which offers held before
    /// are void; tasks are as they were, and the SDK finds out what became of each.
    fn subscribed(&mut self, framework_id: FrameworkId, again: bool, actions: &mut Actions) {
        let _ = (framework_id, again, actions);
    }

    /// Resources to use. Each offer that is neither launched on, nor declined, nor
    /// [held](Actions::hold), is declined when this returns: for
    /// [five seconds](meros_proto::offer::REFUSE_DEFAULT) if other offers of the batch were used,
    /// else for [`SessionConfig::idle_refuse`]. So a scheduler that has new work later calls
    /// [`Actions::revive`].
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions);

    /// News of a task. Each launched task has exactly one with a
    /// [terminal](meros_proto::status::TaskState::is_terminal) state, its last, however often the
    /// connection breaks.
    fn update(&mut self, status: TaskStatus, actions: &mut Actions);

    /// An offer that was held is no longer valid.
    fn rescinded(&mut self, offer_id: OfferId, actions: &mut Actions) {
        let _ = (offer_id, actions);
    }

    /// A slave was lost. What becomes of each task there follows as updates.
    fn slave_lost(&mut self, slave_id: SlaveId, actions: &mut Actions) {
        let _ = (slave_id, actions);
    }

    /// The subscription is interrupted; all offers are void. The SDK comes back by itself, tasks
    /// run on meanwhile.
    fn disconnected(&mut self, why: &str, actions: &mut Actions) {
        let _ = (why, actions);
    }

    /// What became of an operation on resources that was given an id ([`Steps::named`]). Said once:
    /// after an interruption look at the offers.
    ///
    /// [`Steps::named`]: crate::Steps::named
    fn operation(&mut self, status: OperationStatus, actions: &mut Actions) {
        if status.state != OperationState::Finished {
            tracing::warn!(operation_id = %status.operation_id, state = %status.state, why = status.message, "operation not done");
        }
        let _ = actions;
    }

    /// An executor has ended; the ends of its tasks come as updates. Said once: after an interruption only
    /// the updates come.
    fn executor_ended(
        &mut self,
        slave_id: SlaveId,
        executor_id: ExecutorId,
        exit: Option<TaskExit>,
        actions: &mut Actions,
    ) {
        let _ = (slave_id, executor_id, exit, actions);
    }

    /// A message of an executor: best effort, so that what must arrive is better sent as `data` of an
    /// update.
    fn executor_message(
        &mut self,
        slave_id: SlaveId,
        executor_id: ExecutorId,
        data: Bytes,
        actions: &mut Actions,
    ) {
        let _ = (slave_id, executor_id, data, actions);
    }

    /// An attempt to reach a master failed; the next one is made after `retry_in`. A program that
    /// does not want to wait calls [`Actions::leave`].
    fn connect_failed(&mut self, why: &str, retry_in: Duration, actions: &mut Actions) {
        let _ = (why, retry_in, actions);
    }

    /// A call was refused; the subscription goes on. Tasks of a refused accept have their own
    /// updates.
    fn refused(&mut self, call: &str, refusal: Refusal, actions: &mut Actions) {
        tracing::warn!(call, code = refusal.code(), error = %refusal, "call refused");
        let _ = actions;
    }
}

/// What a scheduler wants done. Carried out in order after its method has returned.
#[derive(Debug, Default)]
pub struct Actions {
    calls: Vec<Call>,
    /// Offers of this batch that nobody has decided on.
    undecided: BTreeSet<OfferId>,
    used: bool,
}

impl Actions {
    /// Launches what was placed on an offer; an empty placement is left to be declined.
    pub fn launch(&mut self, placement: Placement<'_>) {
        if !placement.is_empty() {
            let offer_id = placement.offer().offer_id;
            self.launch_tasks(vec![offer_id], placement.into_tasks());
        }
    }

    /// Launches tasks on offers, all of one slave and one role.
    pub fn launch_tasks(&mut self, offer_ids: Vec<OfferId>, tasks: Vec<TaskDescription>) {
        self.accept(
            offer_ids,
            vec![Operation::Launch(tasks)],
            Filters::default(),
        );
    }

    /// Uses offers, all of one slave and one role, each once (semantics B4). What is left is
    /// refused for the filters' time.
    pub fn accept(
        &mut self,
        offer_ids: Vec<OfferId>,
        operations: Vec<Operation>,
        filters: Filters,
    ) {
        for offer_id in &offer_ids {
            self.undecided.remove(offer_id);
        }
        self.used = true;
        self.calls.push(Call::Accept {
            offer_ids,
            operations,
            filters,
        });
    }

    /// Reserves, makes, resizes and destroys volumes, and launches, step by step on one offer; without
    /// steps it is left to be declined.
    pub fn carry_out(&mut self, steps: Steps<'_>) {
        let offer_id = steps.offer().offer_id;
        let operations = steps.into_operations();
        if !operations.is_empty() {
            self.accept(vec![offer_id], operations, Filters::default());
        }
    }

    /// Gives an offer back, and asks not to see what is in it for a time, at most a year; zero is
    /// allowed.
    pub fn decline(&mut self, offer_id: OfferId, refuse: Duration) {
        self.undecided.remove(&offer_id);
        let filters = Filters { refuse };
        self.calls.push(Call::Decline {
            offer_ids: vec![offer_id],
            filters,
        });
    }

    /// Keeps an offer for later. It is void after a disconnect, when it is rescinded, or when the
    /// master's time for offers is over; until then nobody else can use what is in it.
    pub fn hold(&mut self, offer_id: OfferId) {
        self.undecided.remove(&offer_id);
    }

    /// Kills a task; see [`Handle::kill`](crate::Handle::kill).
    pub fn kill(&mut self, task_id: TaskId, grace: Option<Duration>) {
        self.calls.push(Call::Kill { task_id, grace });
    }

    /// Shuts an executor down: it is asked to end and, after its grace, killed. Tasks that it has then FAIL.
    /// Lost while this framework or the slave is disconnected: ask again.
    pub fn shutdown_executor(&mut self, slave_id: SlaveId, executor_id: ExecutorId) {
        self.calls.push(Call::ShutdownExecutor {
            slave_id,
            executor_id,
        });
    }

    /// Sends an executor a message of at most 1 MiB: best effort.
    pub fn message_executor(&mut self, slave_id: SlaveId, executor_id: ExecutorId, data: Bytes) {
        self.calls.push(Call::MessageExecutor {
            slave_id,
            executor_id,
            data,
        });
    }

    /// Asks for offers again, also for what was declined. Empty: all roles.
    pub fn revive(&mut self, roles: Vec<RoleName>) {
        self.calls.push(Call::Revive { roles });
    }

    /// Wants no offers for now. Empty: all roles.
    pub fn suppress(&mut self, roles: Vec<RoleName>) {
        self.calls.push(Call::Suppress { roles });
    }

    /// Wishes something else of the offers to come; see [`Handle::wish`](crate::Handle::wish).
    pub fn wish(&mut self, wishes: Vec<OfferWishes>) {
        self.calls.push(Call::Wish { wishes });
    }

    /// Acknowledges an update, with or without an update id; only with [`Acknowledge::Manual`].
    pub fn acknowledge(&mut self, status: &TaskStatus) {
        self.calls.push(acknowledgement(status));
    }

    /// Asks what became of tasks; see [`Handle::reconcile`](crate::Handle::reconcile).
    pub fn reconcile(&mut self, tasks: Vec<ReconcileTask>) {
        self.calls.push(Call::Reconcile { tasks });
    }

    /// Ends the framework: its tasks are killed, its id is not used again. [`run`] returns.
    pub fn teardown(&mut self) {
        self.calls.push(Call::Teardown);
    }

    /// Ends the session; the framework and its tasks stay for its failover timeout. [`run`]
    /// returns.
    pub fn leave(&mut self) {
        self.calls.push(Call::Leave);
    }

    /// The calls in order, with a decline of what nobody decided on.
    pub(crate) fn into_calls(mut self, idle_refuse: Duration) -> Vec<Call> {
        if !self.undecided.is_empty() {
            let filters = if self.used {
                Filters::default()
            } else {
                Filters {
                    refuse: idle_refuse,
                }
            };
            let offer_ids = self.undecided.into_iter().collect();
            self.calls.push(Call::Decline { offer_ids, filters });
        }
        self.calls
    }
}

/// Runs a framework until it leaves, is torn down, or cannot go on. Must be called inside a tokio
/// runtime. Dropping the future ends the session as a crash would: tasks stay for the failover
/// timeout.
///
/// # Errors
/// [`SessionError`]: the session could not begin, or ended without having been asked to. A lost
/// connection is no error: it comes back.
pub async fn run(
    config: SessionConfig,
    scheduler: &mut (impl Scheduler + ?Sized),
) -> Result<(), SessionError> {
    let mut shell = Shell::open(&config)?;
    loop {
        while let Some(news) = shell.pop_news() {
            for call in react(scheduler, news, &config) {
                shell.feed(Event::Call(call)).await;
            }
        }
        if let Some(reason) = shell.end().cloned() {
            shell.finish().await;
            return outcome(reason);
        }
        let happened = shell.wait().await;
        shell.take_in(happened).await;
    }
}

/// Tells a scheduler, and returns what follows from it: its calls in order, then the
/// acknowledgement of an update, which goes out after what was made of it.
pub(crate) fn react(
    scheduler: &mut (impl Scheduler + ?Sized),
    news: News,
    config: &SessionConfig,
) -> Vec<Call> {
    let acknowledge = match (config.acknowledge, &news) {
        (Acknowledge::Automatic, News::Update(status)) => Some(acknowledgement(status)),
        _ => None,
    };
    let mut actions = Actions::default();
    tell(scheduler, news, &mut actions);
    let mut calls = actions.into_calls(config.idle_refuse);
    calls.extend(acknowledge);
    calls
}

fn tell(scheduler: &mut (impl Scheduler + ?Sized), news: News, actions: &mut Actions) {
    match news {
        News::Subscribed {
            framework_id,
            again,
            ..
        } => {
            scheduler.subscribed(framework_id, again, actions);
        }
        News::ConnectFailed { why, retry_in, .. } => {
            scheduler.connect_failed(&why, retry_in, actions);
        }
        News::Disconnected { why } => scheduler.disconnected(&why, actions),
        News::Offers(offers) => {
            actions.undecided = offers.iter().map(|offer| offer.offer_id).collect();
            scheduler.offers(offers, actions);
        }
        News::Rescinded(offer_id) => scheduler.rescinded(offer_id, actions),
        News::Update(status) => scheduler.update(status, actions),
        News::SlaveLost(slave_id) => scheduler.slave_lost(slave_id, actions),
        News::Refused { call, refusal } => scheduler.refused(&call, refusal, actions),
        News::Operation(status) => scheduler.operation(status, actions),
        News::ExecutorEnded {
            slave_id,
            executor_id,
            exit,
        } => scheduler.executor_ended(slave_id, executor_id, exit, actions),
        News::ExecutorMessage {
            slave_id,
            executor_id,
            data,
        } => scheduler.executor_message(slave_id, executor_id, data, actions),
        News::Ended(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::Epoch;
    use meros_proto::offer::REFUSE_DEFAULT;

    use super::*;

    fn offer_id(number: u64) -> OfferId {
        OfferId {
            epoch: Epoch(1),
            number,
        }
    }

    fn batch(numbers: &[u64]) -> Actions {
        let undecided = numbers.iter().map(|number| offer_id(*number)).collect();
        Actions {
            undecided,
            ..Actions::default()
        }
    }

    fn declined(numbers: &[u64], refuse: Duration) -> Call {
        let offer_ids = numbers.iter().map(|number| offer_id(*number)).collect();
        Call::Decline {
            offer_ids,
            filters: Filters { refuse },
        }
    }

    const IDLE: Duration = Duration::from_secs(77);

    #[test]
    fn what_an_idle_scheduler_does_not_use_is_declined_for_long() {
        // semantics: Q6
        assert_eq!(batch(&[1, 2]).into_calls(IDLE), [declined(&[1, 2], IDLE)]);
        assert_eq!(batch(&[]).into_calls(IDLE), []);
    }

    #[test]
    fn what_a_busy_scheduler_does_not_use_comes_again_soon() {
        let mut actions = batch(&[1, 2, 3, 4]);
        actions.launch_tasks(vec![offer_id(2)], Vec::new());
        actions.hold(offer_id(3));
        actions.decline(offer_id(4), Duration::ZERO);
        let calls = actions.into_calls(IDLE);
        assert!(
            matches!(&calls[0], Call::Accept { offer_ids, .. } if offer_ids[..] == [offer_id(2)])
        );
        assert_eq!(
            calls[1..],
            [
                declined(&[4], Duration::ZERO),
                declined(&[1], REFUSE_DEFAULT)
            ]
        );
    }
}
