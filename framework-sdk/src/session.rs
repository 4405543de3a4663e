//! The lower level: a stream of news, and a handle to act.

use std::time::Duration;

use bytes::Bytes;
use meros_proto::constraint::OfferWishes;
use meros_proto::ids::{ExecutorId, OfferId, SlaveId, TaskId};
use meros_proto::message::master::ReconcileTask;
use meros_proto::offer::{Filters, Operation};
use meros_proto::role::RoleName;
use meros_proto::status::TaskStatus;
use meros_sdk_core::{Call, Event, News};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Acknowledge, SessionConfig};
use crate::error::SetupError;
use crate::shell::Shell;

/// Calls that wait to be taken up before [`Handle`] answers [`CallError::Full`].
pub const CALL_QUEUE: usize = 4_096;

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// [`CALL_QUEUE`] calls wait already: try again in a moment, such as after
    /// [`yield_now`](tokio::task::yield_now). That helps whether or not [`Events::next`] is read meanwhile, unless a
    /// million news wait to be read.
    #[error("{CALL_QUEUE} calls wait already: try again in a moment")]
    Full,
    /// The session has ended; [`Events::next`] says why.
    #[error("the session has ended")]
    Ended,
}

/// The entry to the lower level.
#[derive(Debug, Clone, Copy)]
pub struct Session;

impl Session {
    /// Begins a session: from now on it connects, subscribes, and comes back by itself until it
    /// is ended by [`Handle::leave`], [`Handle::teardown`], a refusal that would come again, or
    /// by dropping [`Events`], which leaves. Must be called inside a tokio runtime.
    ///
    /// It returns before there is a connection: [`News::Subscribed`] or [`News::ConnectFailed`]
    /// come as news.
    ///
    /// # Errors
    /// The configuration, identity or state file cannot be used. Trying again cannot help.
    pub fn connect(config: SessionConfig) -> Result<(Events, Handle), SetupError> {
        let shell = Shell::open(&config)?;
        let (news_sender, news) = mpsc::channel(1);
        let (call_sender, calls) = mpsc::channel(CALL_QUEUE);
        let (ack_sender, acks) = mpsc::channel(CALL_QUEUE);
        let pump = Pump {
            shell,
            news: news_sender,
            calls,
            acks,
        };
        let task = tokio::spawn(pump.run());
        let handle = Handle {
            calls: call_sender,
            acks: ack_sender,
        };
        let events = Events {
            news,
            acks: handle.acks.clone(),
            acknowledge: config.acknowledge,
            due: None,
            task: Some(task),
        };
        Ok((events, handle))
    }
}

/// The news of a session, in order. Dropping it leaves: tasks stay for the failover timeout.
#[derive(Debug)]
pub struct Events {
    news: mpsc::Receiver<News>,
    acks: mpsc::Sender<Call>,
    acknowledge: Acknowledge,
    /// The acknowledgement of what was given out last.
    due: Option<Call>,
    task: Option<JoinHandle<()>>,
}

impl Events {
    /// Waits for news; `None` after [`News::Ended`]. With automatic acknowledgement it first
    /// acknowledges the update that it gave out last, because asking for more says that it was
    /// handled. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<News> {
        if let Some(due) = &self.due {
            // A closed queue means that the session has ended, which the news tell.
            let _ = self.acks.send(due.clone()).await;
            self.due = None;
        }
        let Some(news) = self.news.recv().await else {
            // What was sent last has reached the master, or had its time.
            if let Some(task) = &mut self.task {
                let _ = task.await;
                self.task = None;
            }
            return None;
        };
        if let (Acknowledge::Automatic, News::Update(status)) = (self.acknowledge, &news) {
            self.due = Some(acknowledgement(status));
        }
        Some(news)
    }
}

/// The call that acknowledges an update.
pub(crate) fn acknowledgement(status: &TaskStatus) -> Call {
    Call::Acknowledge {
        slave_id: status.slave_id,
        task_id: status.task_id.clone(),
        update_id: status.update_id,
    }
}

/// Acts for the framework. Cheap to clone; usable from any thread; never blocks.
///
/// A call that was taken is passed on in order. What becomes of it comes as news: a call cannot
/// fail halfway in silence, and each task of an accept gets exactly one terminal update.
#[derive(Debug, Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    acks: mpsc::Sender<Call>,
}

impl Handle {
    /// Uses offers, all of one slave and one role, each once (semantics B4). Operations are
    /// carried out in order; what is left is refused for the filters' time. If any of the offers
    /// is not valid any more, all tasks end as TASK_DROPPED (semantics E6).
    ///
    /// # Errors
    /// [`CallError`]; the offers are still held then.
    pub fn accept(
        &self,
        offer_ids: Vec<OfferId>,
        operations: Vec<Operation>,
        filters: Filters,
    ) -> Result<(), CallError> {
        self.call(Call::Accept {
            offer_ids,
            operations,
            filters,
        })
    }

    /// Gives offers back, and asks not to see what is in them for the filters' time.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn decline(&self, offer_ids: Vec<OfferId>, filters: Filters) -> Result<(), CallError> {
        self.call(Call::Decline { offer_ids, filters })
    }

    /// Kills a task, wherever it is; remembered until it has ended. `grace` replaces the task's
    /// own time between SIGTERM and SIGKILL; a repeat can only shorten it.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn kill(&self, task_id: TaskId, grace: Option<Duration>) -> Result<(), CallError> {
        self.call(Call::Kill { task_id, grace })
    }

    /// Asks for offers again: for suppressed roles, and for what was declined. Empty: all roles.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn revive(&self, roles: Vec<RoleName>) -> Result<(), CallError> {
        self.call(Call::Revive { roles })
    }

    /// Wants no offers for now. Empty: all roles.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn suppress(&self, roles: Vec<RoleName>) -> Result<(), CallError> {
        self.call(Call::Suppress { roles })
    }

    /// Wishes something else of the offers to come, in all roles: those that are not named wish
    /// nothing in particular. Offers that it holds stay. Wishes that break a rule (another's role, a
    /// pattern that is none, too many) are refused and change nothing.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn wish(&self, wishes: Vec<OfferWishes>) -> Result<(), CallError> {
        self.call(Call::Wish { wishes })
    }

    /// Acknowledges an update, with or without an update id. Only with [`Acknowledge::Manual`].
    ///
    /// # Errors
    /// [`CallError`].
    pub fn acknowledge(&self, status: &TaskStatus) -> Result<(), CallError> {
        let call = acknowledgement(status);
        self.acks.try_send(call).map_err(call_error)
    }

    /// Asks what became of tasks. Empty: of all live ones, and of those that only the master
    /// knows. Named ones are tracked from now on, so that a framework can hand in its own records
    /// after a restart. Answers that say nothing new are not delivered. The session does this by
    /// itself after each subscription and every 15 minutes.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn reconcile(&self, tasks: Vec<ReconcileTask>) -> Result<(), CallError> {
        self.call(Call::Reconcile { tasks })
    }

    /// Shuts an executor down: it is asked to end and, after its grace, killed. Tasks that it has then FAIL.
    /// Lost while this framework or the slave is disconnected: ask again.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn shutdown_executor(
        &self,
        slave_id: SlaveId,
        executor_id: ExecutorId,
    ) -> Result<(), CallError> {
        self.call(Call::ShutdownExecutor {
            slave_id,
            executor_id,
        })
    }

    /// Sends an executor a message of at most 1 MiB: best effort.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn message_executor(
        &self,
        slave_id: SlaveId,
        executor_id: ExecutorId,
        data: Bytes,
    ) -> Result<(), CallError> {
        self.call(Call::MessageExecutor {
            slave_id,
            executor_id,
            data,
        })
    }

    /// Ends the framework: its tasks are killed, its id is not used again.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn teardown(&self) -> Result<(), CallError> {
        self.call(Call::Teardown)
    }

    /// Ends the session; the framework and its tasks stay for its failover timeout.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn leave(&self) -> Result<(), CallError> {
        self.call(Call::Leave)
    }

    fn call(&self, call: Call) -> Result<(), CallError> {
        self.calls.try_send(call).map_err(call_error)
    }
}

fn call_error(error: mpsc::error::TrySendError<Call>) -> CallError {
    match error {
        mpsc::error::TrySendError::Full(_) => CallError::Full,
        mpsc::error::TrySendError::Closed(_) => CallError::Ended,
    }
}

/// The task of a session.
struct Pump {
    shell: Shell,
    news: mpsc::Sender<News>,
    calls: mpsc::Receiver<Call>,
    acks: mpsc::Receiver<Call>,
}

impl Pump {
    async fn run(mut self) {
        loop {
            let news = self.shell.news();
            let (has_news, is_full) = (!news.is_empty(), news.is_full());
            let takes_calls = !news.is_full_for_calls();
            let ended = self.shell.end().is_some();
            if ended && !has_news {
                break;
            }
            // Random choice among what is ready, so that no side can starve another.
            tokio::select! {
                permit = self.news.reserve(), if has_news => {
                    let Ok(permit) = permit else { break };
                    if let Some(news) = self.shell.pop_news() {
                        permit.send(news);
                    }
                }
                // Acknowledgements make no news: they may always come, or two full queues could
                // wait for each other.
                Some(call) = self.acks.recv(), if !ended => {
                    self.shell.feed(Event::Call(call)).await;
                }
                // A framework may answer all of a batch of offers before it reads more news.
                Some(call) = self.calls.recv(), if !ended && takes_calls => {
                    self.shell.feed(Event::Call(call)).await;
                }
                happened = self.shell.wait(), if !ended && !is_full => {
                    self.shell.take_in(happened).await;
                }
                () = self.news.closed() => break,
            }
        }
        // Whoever calls now is told that the session has ended.
        drop((self.news, self.calls, self.acks));
        self.shell.finish().await;
    }
}
