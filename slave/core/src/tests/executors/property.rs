//! An executor in any order of events: each of its tasks ends once.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What may happen to a slave with one executor.
#[derive(Debug, Clone, Copy)]
enum Step {
    Launch(u8),
    Durable,
    Started,
    Subscribe,
    Update(u8, TaskState),
    Disconnect,
    Kill(u8),
    Shutdown,
    Ended,
    Wait,
    Crash,
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    let states = prop_oneof![
        Just(TaskState::Starting),
        Just(TaskState::Running),
        Just(TaskState::Killing),
        Just(TaskState::Finished),
        Just(TaskState::Failed),
        Just(TaskState::Staging),
    ];
    prop_oneof![
        4 => (0..4_u8).prop_map(Step::Launch),
        8 => Just(Step::Durable),
        4 => Just(Step::Started),
        4 => Just(Step::Subscribe),
        8 => (0..4_u8, states).prop_map(|(task, state)| Step::Update(task, state)),
        1 => Just(Step::Disconnect),
        2 => (0..4_u8).prop_map(Step::Kill),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Ended),
        1 => Just(Step::Wait),
        1 => Just(Step::Crash),
        6 => Just(Step::Acknowledge),
    ]
}

/// The world of the property: what master, framework and shell would know.
struct Run {
    slave: Slave,
    /// The container of the executor, and whether it runs.
    container: Option<(ContainerId, bool)>,
    /// Whether the master has it in its books.
    charged: bool,
    session: u64,
    said: u64,
    /// Ends that the framework has heard of, and by which update.
    ends: BTreeSet<(TaskId, UpdateId)>,
    launched: u32,
}

impl Run {
    fn new() -> Self {
        Self {
            slave: Slave::registered(),
            container: None,
            charged: false,
            session: 0,
            said: 0,
            ends: BTreeSet::new(),
            launched: 0,
        }
    }

    fn read(&mut self) {
        for line in std::mem::take(&mut self.slave.unread) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["start", "executor", id, _] => {
                    let (incarnation, number) = id.split_once('-').unwrap();
                    let container = ContainerId {
                        incarnation: incarnation.parse().unwrap(),
                        number: number.parse().unwrap(),
                    };
                    assert!(self.container.is_none(), "X1: two at one time");
                    self.container = Some((container, false));
                }
                ["send", _, "executor", "ended", _] => {
                    assert!(self.container.is_none(), "told before its end");
                    self.charged = false;
                }
                ["tell", _, "acknowledged", number] => {
                    let number: u64 = number.parse().unwrap();
                    let mut waits = self.slave.writing.iter();
                    let is_early = |record: &Record| matches!(record, Record::UpdateHeard { number: one, .. } if *one <= number);
                    assert!(
                        !waits.any(|(_, it)| is_early(it)),
                        "X2: {number} is not durable"
                    );
                }
                _ => {}
            }
        }
    }

    fn feed(&mut self, event: Event) {
        self.slave.feed(event);
        self.read();
    }

    fn hear(&mut self, message: MasterToSlave) {
        let connection = ConnectionId(1);
        self.feed(Event::Master {
            connection,
            message,
        });
    }

    fn say(&mut self, message: ExecutorToSlave) {
        if let Some((container, true)) = self.container {
            let session = SessionId(self.session);
            self.feed(Event::Executor {
                session,
                container,
                message: Box::new(message),
            });
        }
    }

    fn durable(&mut self) {
        let writing = std::mem::take(&mut self.slave.writing);
        let Some(record) = writing.last().map(|(id, _)| *id) else {
            return;
        };
        for (_, record) in writing {
            self.slave.disk.apply(record);
        }
        self.feed(Event::Persisted { record });
    }

    fn end(&mut self) {
        if let Some((container, true)) = self.container.take_if(|it| it.1) {
            let exit = exit(TaskExit::Code(0));
            self.feed(Event::ContainerEnded { container, exit });
        }
    }

    /// The framework acknowledges the first update that the disk knows.
    fn acknowledge(&mut self) {
        let updates = &self.slave.disk.updates;
        let head = updates.first_key_value().and_then(|(_, all)| all.front());
        let Some(status) = head.cloned() else { return };
        let update_id = status.update_id.unwrap();
        if status.state.is_terminal() {
            self.ends.insert((status.task_id.clone(), update_id));
        }
        self.hear(MasterToSlave::Acknowledge {
            framework_id: FrameworkId(1),
            task_id: status.task_id,
            update_id,
        });
    }

    fn crash(&mut self) {
        // What was not durable is lost, orders included.
        let found = self.container.map(|(container, runs)| FoundContainer {
            container,
            owner: Owner::Executor((FrameworkId(1), ExecutorId::new(E).unwrap())),
            age: Duration::from_secs(1),
            state: match runs {
                true => FoundState::Running { pid: 1 },
                false => FoundState::NeverRan,
            },
        });
        self.container.take_if(|it| !it.1);
        let disk = std::mem::take(&mut self.slave.disk);
        self.slave = Slave::finding(config(), disk, found.into_iter().collect());
        self.charged = false;
        self.read();
        self.feed(Event::Connected {
            connection: ConnectionId(1),
        });
        self.hear(registered());
        self.durable();
        self.charged = self.slave.core.executors().next().is_some();
    }

    /// A task that is here whose name begins like this.
    fn known(&self, name: &str) -> Option<TaskId> {
        let prefix = format!("{name}.");
        let mut known = self.slave.core.tasks().map(|it| it.task_id.clone());
        known.find(|it| it.as_str().starts_with(&prefix))
    }

    fn take(&mut self, step: Step) {
        let name = |task: u8| format!("t{task}");
        match step {
            Step::Launch(task) => {
                // The framework gives each task a new name.
                self.launched += 1;
                let task = format!("t{task}.{}", self.launched);
                let starts = !std::mem::replace(&mut self.charged, true);
                self.hear(order(&task, starts));
            }
            Step::Durable => self.durable(),
            Step::Started => {
                if let Some((container, false)) = self.container {
                    self.container = Some((container, true));
                    self.feed(Event::ContainerStarted {
                        container,
                        pid: 1,
                        image: None,
                    });
                }
            }
            Step::Subscribe => {
                self.session += 1;
                self.say(ExecutorToSlave::Subscribe {
                    framework_id: FrameworkId(1),
                    executor_id: ExecutorId::new(E).unwrap(),
                    made: self.said,
                    tasks: Vec::new(),
                });
            }
            Step::Update(task, state) => {
                let Some(task_id) = self.known(&name(task)) else {
                    return;
                };
                self.said += 1;
                let number = self.said;
                let status = TaskStatus::new(task_id, state, Source::Executor, Timestamp(1));
                self.say(ExecutorToSlave::Update(ExecutorUpdate { number, status }));
            }
            Step::Disconnect => {
                let session = SessionId(self.session);
                self.feed(Event::ExecutorDisconnected { session });
            }
            Step::Kill(task) => {
                if let Some(id) = self.known(&name(task)) {
                    self.hear(kill(id.as_str()));
                }
            }
            Step::Shutdown => self.hear(shutdown()),
            Step::Ended => self.end(),
            Step::Wait => {
                self.slave.now = self.slave.now.after(Duration::from_secs(20));
                self.hear(MasterToSlave::Ping { registered: true });
                self.feed(Event::Tick);
            }
            Step::Crash => self.crash(),
            Step::Acknowledge => self.acknowledge(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// X1, X2 and all others after each step; and in the end each task has ended once, nothing is taken,
    /// and nothing is remembered.
    #[test]
    fn executors_come_and_go_and_each_task_ends_once(steps in vec(step(), 0..120)) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
        }
        // Everything comes to its end.
        for _ in 0..200 {
            for step in [Step::Started, Step::Shutdown, Step::Ended, Step::Durable, Step::Acknowledge] {
                run.take(step);
            }
        }
        prop_assert_eq!(run.slave.core.free(), &config().slave.resources);
        prop_assert_eq!(run.slave.core.executors().count(), 0);
        prop_assert_eq!(run.slave.core.tasks().count(), 0);
        prop_assert!(run.slave.disk.executors.is_empty() && run.slave.disk.tasks.is_empty());
        let ended: BTreeSet<&TaskId> = run.ends.iter().map(|(task, _)| task).collect();
        prop_assert_eq!(ended.len(), run.ends.len(), "a task ended twice");
    }
}
