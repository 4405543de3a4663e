//! What has happened: a hash of all of it, and the last lines for people.

use std::collections::VecDeque;

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::TaskStatus;
use meros_proto::time::Timestamp;

use super::Happening;
use super::network::Message;
use crate::clock::elapsed;
use crate::plan::Client;
use crate::prng::{digest, mix};

const LINE_CHARS_MAX: usize = 400;

#[derive(Debug)]
pub(crate) struct Trace {
    steps: u64,
    hash: u64,
    now: Timestamp,
    /// How many of the last lines are kept.
    lines_max: usize,
    lines: VecDeque<String>,
    /// Whether what happens and what is delivered is left out of them.
    is_brief: bool,
}

impl Trace {
    pub(crate) fn new(lines_max: usize, is_brief: bool) -> Self {
        Self {
            steps: 0,
            hash: 0,
            now: Timestamp::default(),
            lines_max,
            lines: VecDeque::new(),
            is_brief,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    /// Nothing has happened until now.
    pub(crate) fn wait(&mut self, until: Timestamp) {
        self.now = until;
    }

    fn mix(&mut self, value: u64) {
        self.hash = mix(self.hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    /// Takes in that something happens; the how many-th.
    pub(crate) fn step(&mut self, at: Timestamp, what: &Happening) -> u64 {
        self.steps += 1;
        self.now = at;
        self.mix(at.0);
        let (kind, number) = match what {
            Happening::Arrive(link) => (1, link.0),
            Happening::Answer(link, stands) => (2, link.0 << 1 | u64::from(*stands)),
            Happening::Deliver(link, _) => (3, link.0),
            Happening::Lost(link, _) => (4, link.0),
            Happening::Idle(link, _) => (5, link.0),
            Happening::Dial(life) => (6, u64::from(life.1)),
            Happening::Tick(life) => (7, u64::from(life.1)),
            Happening::Written(life) => (8, u64::from(life.1)),
            Happening::Container(_, container, _) => (9, container.number),
            Happening::Executor(_, container, _) => (32, container.number),
            Happening::Wiped(life, _) => (29, u64::from(life.1)),
            Happening::Probed(_, probe, _) => (31, probe.number),
            Happening::Think(life) => (10, u64::from(life.1)),
            Happening::Wake(life) => (11, u64::from(life.1)),
            Happening::Start(_) => (12, 0),
            Happening::Elect(term) => (13, term.0),
            Happening::Fault(_) => (14, 0),
            Happening::Relief(_) => (15, 0),
            Happening::Heal => (16, 0),
            Happening::Drain => (17, 0),
            Happening::Operate => (18, 0),
            Happening::Watch => (19, 0),
            Happening::Judge => (20, 0),
            Happening::Sample => (21, 0),
            Happening::End => (22, 0),
            Happening::StepDown(life) => (23, u64::from(life.1)),
            Happening::Replicate(life) => (24, u64::from(life.1)),
            Happening::Sever(link) => (25, link.0),
            Happening::Stream(life) => (30, u64::from(life.1)),
        };
        self.mix(kind << 56 ^ number);
        // Deliveries have their own line, and the others say nothing.
        let is_silent = matches!(
            what,
            Happening::Deliver(..)
                | Happening::Tick(_)
                | Happening::Think(_)
                | Happening::Wake(_)
                | Happening::Written(_)
                | Happening::Watch
                | Happening::Operate
                | Happening::Sample
                | Happening::Replicate(_)
                | Happening::Stream(_)
        );
        if self.lines_max > 0 && !is_silent && !self.is_brief {
            self.line(|| format!("{what:?}"));
        }
        self.steps
    }

    /// Takes in what is delivered.
    pub(crate) fn message(&mut self, client: Client, message: &Message) {
        self.mix(weigh(message));
        // An idle cluster pings and passes offers to and fro.
        let is_idle = matches!(
            message,
            Message::ToSlave(MasterToSlave::Ping { registered: true })
                | Message::FromSlave(SlaveToMaster::Pong)
                | Message::ToFramework(MasterToFramework::Offers(_))
                | Message::FromFramework(FrameworkToMaster::Decline { .. })
        );
        if self.lines_max > 0 && !is_idle && !self.is_brief {
            self.line(|| format!("{client:?} {message:?}"));
        }
    }

    pub(crate) fn line(&mut self, text: impl FnOnce() -> String) {
        if self.lines_max == 0 {
            return;
        }
        let text = text();
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        let mut text: String = text.chars().take(LINE_CHARS_MAX).collect();
        text.insert_str(0, &format!("{:>12.6} s  ", elapsed(self.now).as_secs_f64()));
        self.lines.push_back(text);
    }
}

fn status(kind: u64, status: &TaskStatus) -> u64 {
    let update = status.update_id.map_or(0, |id| digest(&id.0.to_le_bytes()));
    let state = status.state.name().as_bytes();
    mix(kind ^ digest(status.task_id.as_str().as_bytes())) ^ update ^ digest(state)
}

/// The kind of a message and what tells it from others of its kind.
fn weigh(message: &Message) -> u64 {
    let text = |kind: u64, text: &str| mix(kind ^ digest(text.as_bytes()));
    match message {
        Message::EndUp => 1,
        Message::EndDown => 2,
        Message::FromSlave(message) => match message {
            SlaveToMaster::Register { .. } => 10,
            SlaveToMaster::ReportTasks { tasks } => mix(11 ^ count(tasks)),
            SlaveToMaster::Reregister { slave_id, .. } => mix(12 ^ u64::from(slave_id.0)),
            SlaveToMaster::Pong => 13,
            SlaveToMaster::Update(update) => status(14, &update.status),
            SlaveToMaster::Unregister => 15,
            SlaveToMaster::ReportClaims { decided, .. } => mix(16 ^ count(decided)),
            SlaveToMaster::ChangeApplied { number } => mix(17 ^ number.number),
            SlaveToMaster::TermHeard { epoch } => mix(18 ^ epoch.0),
            SlaveToMaster::ReportExecutors { executors } => mix(19 ^ count(executors)),
            SlaveToMaster::ExecutorEnded { executor_id, .. } => text(50, executor_id.as_str()),
            SlaveToMaster::ExecutorMessage { executor_id, .. } => text(51, executor_id.as_str()),
        },
        Message::FromFramework(message) => match message {
            FrameworkToMaster::Subscribe { .. } => 20,
            FrameworkToMaster::Teardown => 21,
            FrameworkToMaster::Accept { offer_ids, .. } => {
                mix(22 ^ offer_ids.first().map_or(0, |id| id.number))
            }
            FrameworkToMaster::Decline { offer_ids, .. } => {
                mix(23 ^ offer_ids.first().map_or(0, |id| id.number))
            }
            FrameworkToMaster::Revive { .. } => 24,
            FrameworkToMaster::Suppress { .. } => 25,
            FrameworkToMaster::Kill { task_id, .. } => text(26, task_id.as_str()),
            FrameworkToMaster::Acknowledge { task_id, .. } => text(27, task_id.as_str()),
            FrameworkToMaster::Reconcile { tasks } => mix(28 ^ count(tasks)),
            FrameworkToMaster::Wish { wishes } => mix(29 ^ count(wishes)),
            FrameworkToMaster::State { request, .. } => mix(47 ^ request),
            FrameworkToMaster::ReconcileOperations { operations } => mix(48 ^ count(operations)),
            FrameworkToMaster::ShutdownExecutor { executor_id, .. } => {
                text(52, executor_id.as_str())
            }
            FrameworkToMaster::ExecutorMessage { executor_id, .. } => {
                text(53, executor_id.as_str())
            }
        },
        Message::ToSlave(message) => match message {
            MasterToSlave::Registered { slave_id, .. } => mix(30 ^ u64::from(slave_id.0)),
            MasterToSlave::Refused { refusal, .. } => text(31, refusal.code()),
            MasterToSlave::Ping { .. } => 32,
            MasterToSlave::RunTask(run) => text(33, run.task.task_id.as_str()),
            MasterToSlave::KillTask { task_id, .. } => text(34, task_id.as_str()),
            MasterToSlave::Acknowledge { task_id, .. } => text(35, task_id.as_str()),
            MasterToSlave::ReconcileTasks { tasks } => mix(36 ^ count(tasks)),
            MasterToSlave::ShutdownFramework { framework_id } => {
                mix(37 ^ u64::from(framework_id.0))
            }
            MasterToSlave::ChangeResources { number, .. } => mix(38 ^ number.number),
            MasterToSlave::Masters { addresses } => mix(39 ^ count(addresses)),
            MasterToSlave::RunInExecutor { run, .. } => text(54, run.task.task_id.as_str()),
            MasterToSlave::RunGroup(run) => text(58, run.group.executor.executor_id.as_str()),
            MasterToSlave::ShutdownExecutor { executor_id, .. } => text(55, executor_id.as_str()),
            MasterToSlave::ExecutorMessage { executor_id, .. } => text(56, executor_id.as_str()),
        },
        Message::ToFramework(message) => match message {
            MasterToFramework::Subscribed { framework_id, .. } => {
                mix(40 ^ u64::from(framework_id.0))
            }
            MasterToFramework::Offers(offers) => offers.iter().fold(41, |sum, offer| {
                mix(sum ^ offer.offer_id.number ^ u64::from(offer.slave_id.0) << 32)
            }),
            MasterToFramework::Rescind { offer_id } => mix(42 ^ offer_id.number),
            MasterToFramework::Update(update) => status(43, update),
            MasterToFramework::Failure { slave_id } => mix(44 ^ u64::from(slave_id.0)),
            MasterToFramework::Refused { refusal, .. } => text(45, refusal.code()),
            MasterToFramework::Error { refusal, .. } => text(46, refusal.code()),
            MasterToFramework::Operation(status) => text(47, status.operation_id.as_str()),
            MasterToFramework::State { request, .. } => mix(48 ^ request),
            MasterToFramework::Masters { addresses } => mix(49 ^ count(addresses)),
            MasterToFramework::ExecutorEnded { executor_id, .. } => text(57, executor_id.as_str()),
            MasterToFramework::ExecutorMessage { executor_id, .. } => {
                text(58, executor_id.as_str())
            }
        },
    }
}

fn count<T>(list: &[T]) -> u64 {
    list.iter().map(|_| 1_u64).sum()
}
