//! The driver against a model of a master, over a wire that breaks and loses what is on it.
//!
//! Whatever happens, once things have healed: D2 every launched task was told to have ended,
//! exactly once; D3 the master never got an acknowledgement of an update whose news (or whose
//! task's end) the framework had not handled; D4 nothing precedes a subscription; D6 no task is
//! forgotten; and the same events have the same effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::{Filters, Operation};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, Driver, DriverConfig, Effect, Event, News};
use proptest::collection::vec;
use proptest::prelude::*;

const SLAVE: SlaveId = SlaveId(1);

/// What the world may do next; numbers pick among what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The connection breaks after this many messages each way have arrived.
    Break(u8, u8),
    MasterReads(u8),
    DriverReads(u8),
    Launch(u8),
    /// A task moves on: started, ended, or ended twice.
    Progress(u8, u8),
    /// The framework handles what was delivered to it, up to this many.
    Handle(u8),
    Kill(u8),
    /// Unacknowledged updates are sent again.
    Resend,
    /// The slave is away: its tasks are not known, and questions stay unanswered (H2).
    SlaveAway(bool),
    /// The master refuses the next accept as a whole.
    RefuseAccept,
    /// The master stops leading.
    Abdicate,
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Break(a % 6, b % 6)),
        6 => (1..6_u8).prop_map(Step::MasterReads),
        6 => (1..6_u8).prop_map(Step::DriverReads),
        3 => (1..4_u8).prop_map(Step::Launch),
        5 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Progress(a, b)),
        5 => (1..6_u8).prop_map(Step::Handle),
        1 => any::<u8>().prop_map(Step::Kill),
        1 => Just(Step::Resend),
        1 => any::<bool>().prop_map(Step::SlaveAway),
        1 => Just(Step::RefuseAccept),
        1 => Just(Step::Abdicate),
        3 => any::<u16>().prop_map(Step::Wait),
    ];
    vec(step, 0..200)
}

/// A task on the model's only slave.
struct Task {
    /// Updates not acknowledged yet; only the head is on its way (semantics I1).
    updates: VecDeque<TaskStatus>,
    /// The state that was sent last (semantics H1).
    told: TaskState,
    ended: bool,
}

#[derive(Default)]
struct Master {
    tasks: BTreeMap<TaskId, Task>,
    subscribed: bool,
    slave_away: bool,
    refuse_accept: bool,
    made: u64,
}

/// Driver, framework, wire and master.
struct World {
    driver: Driver,
    now: Timestamp,
    connected: bool,
    to_master: VecDeque<FrameworkToMaster>,
    to_driver: VecDeque<MasterToFramework>,
    master: Master,
    /// Delivered, not handled.
    inbox: VecDeque<TaskStatus>,
    launched: Vec<TaskId>,
    killed: BTreeSet<TaskId>,
    ends: BTreeMap<TaskId, u32>,
    delivered: BTreeSet<UpdateId>,
    handled: BTreeSet<UpdateId>,
    handled_ends: BTreeSet<TaskId>,
    log: Vec<Effect>,
}

impl World {
    fn new() -> Self {
        let role = "*".parse().expect("a role");
        let config = DriverConfig {
            framework: FrameworkDescription::new("model", role),
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
            cluster_id: None,
            epoch: Epoch(0),
            seed: 42,
        };
        let now = Timestamp(0);
        Self {
            driver: Driver::new(config, now),
            now,
            connected: false,
            to_master: VecDeque::new(),
            to_driver: VecDeque::new(),
            master: Master::default(),
            inbox: VecDeque::new(),
            launched: Vec::new(),
            killed: BTreeSet::new(),
            ends: BTreeMap::new(),
            delivered: BTreeSet::new(),
            handled: BTreeSet::new(),
            handled_ends: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    /// Feeds the driver, and carries out its effects.
    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.driver.handle(event, self.now, &mut effects);
        self.driver.check_invariants();
        self.log.extend(effects.iter().cloned());
        for effect in effects {
            match effect {
                Effect::Connect { .. } => {
                    self.connected = true;
                    self.feed(Event::Connected);
                }
                Effect::Disconnect => self.cut(),
                Effect::Send(message) => {
                    assert!(self.connected, "sent without a connection: {message:?}");
                    self.to_master.push_back(message);
                }
                Effect::Deliver(News::Update(status)) => {
                    let fresh = status.update_id.is_none_or(|id| self.delivered.insert(id));
                    assert!(fresh, "delivered twice: {status:?}");
                    if status.state.is_terminal() {
                        *self.ends.entry(status.task_id.clone()).or_default() += 1;
                    }
                    self.inbox.push_back(status);
                }
                Effect::Deliver(News::Ended(why)) => panic!("ended: {why:?}"),
                Effect::Deliver(_) => {}
            }
        }
    }

    /// The connection is gone, with what is on it.
    fn cut(&mut self) {
        self.connected = false;
        self.to_master.clear();
        self.to_driver.clear();
        self.master.subscribed = false;
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Break(up, down) if self.connected => {
                (0..up).for_each(|_| self.master_reads());
                (0..down).for_each(|_| self.driver_reads());
                if self.connected {
                    self.cut();
                    self.feed(Event::Disconnected {
                        why: "cut".to_owned(),
                    });
                }
            }
            Step::Break(..) => {}
            Step::MasterReads(count) => (0..count).for_each(|_| self.master_reads()),
            Step::DriverReads(count) => (0..count).for_each(|_| self.driver_reads()),
            Step::Launch(count) => self.launch(count),
            Step::Progress(which, how) => self.progress(which, how),
            Step::Handle(count) => (0..count).for_each(|_| self.handle_one()),
            Step::Kill(which) => self.kill(which),
            Step::Resend => self.resend(),
            Step::SlaveAway(away) => {
                self.master.slave_away = away;
                if !away {
                    self.resend();
                }
            }
            Step::RefuseAccept => self.master.refuse_accept = true,
            Step::Abdicate if self.master.subscribed => {
                let refusal = Refusal::NotLeading { leader: None };
                let by = None;
                self.to_driver
                    .push_back(MasterToFramework::Error { refusal, by });
                self.master.subscribed = false;
            }
            Step::Abdicate => {}
            Step::Wait(millis) => {
                self.now = self.now.after(Duration::from_millis(u64::from(millis)));
                self.feed(Event::Tick);
            }
        }
    }

    fn driver_reads(&mut self) {
        if let Some(message) = self.to_driver.pop_front() {
            self.feed(Event::Master(message));
        }
    }

    fn launch(&mut self, count: u8) {
        let mut tasks = Vec::new();
        for _ in 0..count {
            let task_id = TaskId::new(format!("t{}", self.launched.len())).expect("an id");
            self.launched.push(task_id.clone());
            let resources: Resources = "cpus:1".parse().expect("resources");
            tasks.push(TaskDescription::command(
                task_id,
                SLAVE,
                resources,
                Command::shell("true"),
            ));
        }
        self.feed(Event::Call(Call::Accept {
            offer_ids: vec![OfferId {
                epoch: Epoch(1),
                number: 1,
            }],
            operations: vec![Operation::Launch(tasks)],
            filters: Filters::default(),
        }));
    }

    fn handle_one(&mut self) {
        let Some(status) = self.inbox.pop_front() else {
            return;
        };
        if status.state.is_terminal() {
            self.handled_ends.insert(status.task_id.clone());
        }
        self.handled.extend(status.update_id);
        let TaskStatus {
            slave_id,
            task_id,
            update_id,
            ..
        } = status;
        self.feed(Event::Call(Call::Acknowledge {
            slave_id,
            task_id,
            update_id,
        }));
    }

    fn kill(&mut self, which: u8) {
        if !self.launched.is_empty() {
            let task_id = self.launched[usize::from(which) % self.launched.len()].clone();
            self.killed.insert(task_id.clone());
            self.feed(Event::Call(Call::Kill {
                task_id,
                grace: None,
            }));
        }
    }

    // ---- the model of the master ----

    fn progress(&mut self, which: u8, how: u8) {
        let live: Vec<_> = self.live_on_master();
        if live.is_empty() || self.master.slave_away {
            return;
        }
        let task_id = live[usize::from(which) % live.len()].clone();
        match how % 4 {
            0 => self.append(&task_id, TaskState::Running),
            1 => self.append(&task_id, TaskState::Finished),
            2 => self.append(&task_id, TaskState::Failed),
            _ => {
                // Executors do that (semantics R12).
                self.append(&task_id, TaskState::Failed);
                self.append(&task_id, TaskState::Finished);
            }
        }
    }

    fn live_on_master(&self) -> Vec<TaskId> {
        let tasks = self.master.tasks.iter();
        tasks
            .filter(|(_, task)| !task.ended)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// The slave makes an update.
    fn append(&mut self, task_id: &TaskId, state: TaskState) {
        self.master.made += 1;
        let mut status = TaskStatus::new(task_id.clone(), state, Source::Slave, self.now);
        status.slave_id = Some(SLAVE);
        status.update_id = Some(UpdateId::by_slave(SLAVE, 1, self.master.made));
        let task = self.master.tasks.get_mut(task_id).expect("a known task");
        task.ended |= state.is_terminal();
        task.updates.push_back(status);
        if task.updates.len() == 1 {
            self.send_head(task_id);
        }
    }

    fn send_head(&mut self, task_id: &TaskId) {
        if !self.master.subscribed || self.master.slave_away {
            return;
        }
        let Some(task) = self.master.tasks.get_mut(task_id) else {
            return;
        };
        if let Some(head) = task.updates.front() {
            task.told = head.state;
            self.to_driver
                .push_back(MasterToFramework::Update(head.clone()));
        }
    }

    fn resend(&mut self) {
        let ids: Vec<_> = self.master.tasks.keys().cloned().collect();
        ids.iter().for_each(|id| self.send_head(id));
    }

    fn answer(&mut self, task_id: &TaskId, state: TaskState) {
        let mut status = TaskStatus::new(task_id.clone(), state, Source::Master, self.now);
        status.reason = Some(Reason::Reconciliation);
        self.to_driver.push_back(MasterToFramework::Update(status));
    }

    fn reconcile(&mut self, task_id: &TaskId) {
        if self.master.slave_away {
            return; // H2
        }
        let state = self.master.tasks.get(task_id).map(|task| task.told);
        // H1, H3 and H6
        let unknown = if self.now.0.is_multiple_of(2) {
            TaskState::Unknown
        } else {
            TaskState::Gone
        };
        self.answer(task_id, state.unwrap_or(unknown));
    }

    fn master_reads(&mut self) {
        let Some(message) = self.to_master.pop_front() else {
            return;
        };
        if let FrameworkToMaster::Subscribe { .. } = message {
            self.master.subscribed = true;
            self.to_driver.push_back(MasterToFramework::Subscribed {
                framework_id: FrameworkId(1),
                cluster_id: ClusterId(1),
                epoch: Epoch(1),
            });
            return self.resend();
        }
        if !self.master.subscribed {
            return; // It has stepped down.
        }
        match message {
            FrameworkToMaster::Accept { operations, .. } => self.accepted(operations),
            FrameworkToMaster::Acknowledge {
                task_id, update_id, ..
            } => {
                let handled =
                    self.handled.contains(&update_id) || self.handled_ends.contains(&task_id);
                assert!(handled, "D3 broken: {task_id} {update_id} was not handled");
                self.acknowledged(&task_id, update_id);
            }
            FrameworkToMaster::Kill { task_id, .. } => {
                match self.master.tasks.get(&task_id).map(|task| task.ended) {
                    Some(false) => self.append(&task_id, TaskState::Killed),
                    Some(true) => {}
                    None => self.reconcile(&task_id),
                }
            }
            FrameworkToMaster::Reconcile { tasks } => {
                let mut asked: Vec<TaskId> = tasks.into_iter().map(|it| it.task_id).collect();
                if asked.is_empty() {
                    asked.extend(self.master.tasks.keys().cloned());
                }
                asked.iter().for_each(|task_id| self.reconcile(task_id));
            }
            other => panic!("not expected: {other:?}"),
        }
    }

    fn accepted(&mut self, operations: Vec<Operation>) {
        let Some(Operation::Launch(tasks)) = operations.into_iter().next() else {
            panic!("a launch");
        };
        if std::mem::take(&mut self.master.refuse_accept) {
            let refusal = Refusal::OverLimit {
                what: "tasks".to_owned(),
                limit: 0,
                advice: "wait".to_owned(),
            };
            let call = "Accept".to_owned();
            self.to_driver
                .push_back(MasterToFramework::Refused { call, refusal });
            return;
        }
        for task in tasks {
            let fresh = Task {
                updates: VecDeque::new(),
                told: TaskState::Staging,
                ended: false,
            };
            assert!(
                self.master.tasks.insert(task.task_id, fresh).is_none(),
                "launched twice"
            );
        }
    }

    fn acknowledged(&mut self, task_id: &TaskId, update_id: UpdateId) {
        let Some(task) = self.master.tasks.get_mut(task_id) else {
            return;
        };
        if task.updates.front().and_then(|head| head.update_id) != Some(update_id) {
            return;
        }
        task.updates.pop_front();
        if task.ended && task.updates.is_empty() {
            self.master.tasks.remove(task_id);
        } else {
            self.send_head(task_id);
        }
    }

    /// Faults end; everything must come to its end in bounded time.
    fn heal(&mut self) {
        self.master.slave_away = false;
        self.master.refuse_accept = false;
        for _ in 0..400 {
            for _ in 0..50 {
                self.master_reads();
                self.driver_reads();
                self.handle_one();
            }
            // What the framework wanted dead ends by its kill, and by nothing else.
            for task_id in self.live_on_master() {
                if !self.killed.contains(&task_id) {
                    self.append(&task_id, TaskState::Finished);
                }
            }
            self.resend();
            self.now = self.now.after(Duration::from_secs(1));
            self.feed(Event::Tick);
        }
    }
}

fn play(steps: &[Step]) -> World {
    let mut world = World::new();
    world.feed(Event::Tick);
    steps.iter().for_each(|step| world.run(*step));
    world.heal();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_launched_task_is_told_to_have_ended_exactly_once(steps in steps()) {
        let world = play(&steps);
        prop_assert_eq!(world.driver.live_tasks(), 0);
        for task_id in &world.launched {
            prop_assert_eq!(world.ends.get(task_id), Some(&1), "{}", task_id);
        }
        prop_assert_eq!(world.ends.len(), world.launched.len());
        prop_assert!(world.master.tasks.is_empty(), "an end was never acknowledged");
    }

    #[test]
    fn the_same_events_have_the_same_effects(steps in steps()) {
        prop_assert_eq!(play(&steps).log, play(&steps).log);
    }
}

#[test]
fn the_model_meets_what_it_is_meant_to_meet() {
    // Guards the property above against a model in which nothing happens.
    use Step::{Break, DriverReads, Handle, Launch, MasterReads, Progress, Resend};
    let world = play(&[
        MasterReads(1),
        DriverReads(1),
        Launch(3),
        MasterReads(1),
        Launch(2),
        Progress(0, 0),
        Progress(1, 3),
        DriverReads(2),
        Resend,
        DriverReads(2),
        Handle(1),
        // The second launch and the acknowledgement are lost.
        Break(0, 0),
        Launch(1),
    ]);
    assert_eq!((world.launched.len(), world.ends.len()), (6, 6));
    assert!(
        world.driver.counters().duplicates >= 2,
        "{:?}",
        world.driver.counters()
    );
    assert_eq!(world.driver.counters().subscriptions, 2);
    let dropped = |effect: &&Effect| {
        matches!(effect, Effect::Deliver(News::Update(s))
            if matches!(s.state, TaskState::Dropped | TaskState::Gone))
    };
    assert_eq!(world.log.iter().filter(dropped).count(), 3);
}
