//! Random events, nonsense included.

use meros_proto::check::{Check, HealthCheck};
use meros_proto::executor::ExecutorDescription;
use meros_proto::fetch::FetchUri;
use meros_proto::group::TaskGroup;
use meros_proto::ids::ExecutorId;
use meros_proto::message::slave::{ReconcileOnSlave, RunGroup};
use meros_proto::operation::{Change, ChangeKind, OperationNumber};
use meros_proto::status::TaskState;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What may happen next; resolved against the slave as it is then.
#[derive(Debug, Clone)]
enum Step {
    Connect(u64),
    Disconnect(u64),
    Welcome {
        connection: u64,
        epoch: u64,
        cluster: u128,
    },
    Ping {
        connection: u64,
        registered: bool,
    },
    Refuse {
        connection: u64,
        which: u8,
    },
    Run {
        connection: u64,
        framework: u32,
        task: u8,
        cpus: u8,
        killing: bool,
        limit: bool,
        checked: bool,
    },
    /// Of the tasks whose bits are set.
    RunGroup {
        framework: u32,
        tasks: u8,
        fetches: bool,
    },
    ShutdownGroup {
        framework: u32,
    },
    Kill {
        framework: u32,
        task: u8,
        grace: Option<u16>,
    },
    Shutdown {
        framework: u32,
    },
    Reconcile {
        framework: u32,
        task: u8,
        started: bool,
    },
    /// Of the update in flight, or of another one.
    Acknowledge {
        framework: u32,
        task: u8,
        number: Option<u64>,
    },
    /// Of the records under way.
    Durable {
        how_many: u8,
    },
    Started {
        nth: u64,
    },
    Preparing {
        nth: u64,
    },
    NotStarted {
        nth: u64,
    },
    Ended {
        nth: u64,
        exit: i8,
    },
    /// Of the probes that have not answered, or one that nobody asked for.
    Probed {
        nth: usize,
        passed: Option<bool>,
    },
    Change {
        connection: u64,
        kind: u8,
        what: u8,
    },
    Wiped {
        nth: usize,
    },
    Stop {
        leave: bool,
    },
    Wait {
        millis: u32,
    },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let connection = || 0_u64..4;
    let framework = || 0_u32..3;
    let task = || 0_u8..5;
    prop_oneof![
        2 => connection().prop_map(Step::Connect),
        1 => connection().prop_map(Step::Disconnect),
        4 => (connection(), 0_u64..3, prop::sample::select(vec![7_u128, 7, 7, 7, 7, 8]))
            .prop_map(|(connection, epoch, cluster)| Step::Welcome { connection, epoch, cluster }),
        2 => (connection(), prop::bool::weighted(0.8))
            .prop_map(|(connection, registered)| Step::Ping { connection, registered }),
        1 => (connection(), 0_u8..4)
            .prop_map(|(connection, which)| Step::Refuse { connection, which }),
        8 => (connection(), framework(), task(), 0_u8..6, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(connection, framework, task, cpus, killing, limit, checked)| {
                Step::Run { connection, framework, task, cpus, killing, limit, checked }
            }
        ),
        4 => (framework(), 0_u8..32, any::<bool>())
            .prop_map(|(framework, tasks, fetches)| Step::RunGroup { framework, tasks, fetches }),
        1 => framework().prop_map(|framework| Step::ShutdownGroup { framework }),
        4 => (framework(), task(), prop::option::of(any::<u16>()))
            .prop_map(|(framework, task, grace)| Step::Kill { framework, task, grace }),
        1 => framework().prop_map(|framework| Step::Shutdown { framework }),
        2 => (framework(), task(), any::<bool>())
            .prop_map(|(framework, task, started)| Step::Reconcile { framework, task, started }),
        8 => (framework(), task(), prop::option::weighted(0.2, 0_u64..20))
            .prop_map(|(framework, task, number)| Step::Acknowledge { framework, task, number }),
        12 => (0_u8..8).prop_map(|how_many| Step::Durable { how_many }),
        6 => (0_u64..12).prop_map(|nth| Step::Started { nth }),
        3 => (0_u64..12).prop_map(|nth| Step::Preparing { nth }),
        1 => (0_u64..12).prop_map(|nth| Step::NotStarted { nth }),
        6 => (0_u64..12, any::<i8>()).prop_map(|(nth, exit)| Step::Ended { nth, exit }),
        8 => (0_usize..6, prop::option::weighted(0.9, prop::bool::weighted(0.4)))
            .prop_map(|(nth, passed)| Step::Probed { nth, passed }),
        8 => (connection(), 0_u8..6, 0_u8..4)
            .prop_map(|(connection, kind, what)| Step::Change { connection, kind, what }),
        2 => (0_usize..3).prop_map(|nth| Step::Wiped { nth }),
        1 => prop::bool::weighted(0.3).prop_map(|leave| Step::Stop { leave }),
        3 => (0_u32..100_000).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Crash),
    ]
}

/// A slave with the little world around it.
struct World {
    core: SlaveCore,
    now: Timestamp,
    disk: Checkpoint,
    writing: Vec<(RecordId, Record)>,
    connection: u64,
    /// Containers that were asked for and have not ended, and whether they have started.
    containers: Vec<(ContainerId, bool)>,
    /// Whose container it is that is not forgotten.
    folders: BTreeMap<ContainerId, TaskKey>,
    exited: bool,
    log: Vec<String>,
    /// Updates whose record was seen before they were sent, and tasks likewise.
    promised: BTreeSet<UpdateId>,
    tasks_written: BTreeSet<TaskKey>,
    /// Probes that have not answered.
    probing: Vec<ProbeId>,
    /// Directories that are being removed.
    wiping: Vec<VolumeDirectory>,
    changes: u64,
}

impl World {
    fn new() -> Self {
        let mut effects = Effects::new();
        let now = Timestamp(1);
        let core = SlaveCore::new(
            config(),
            Checkpoint::default(),
            Vec::new(),
            now,
            &mut effects,
        );
        let mut world = Self {
            core,
            now,
            disk: Checkpoint::default(),
            writing: Vec::new(),
            connection: 0,
            containers: Vec::new(),
            folders: BTreeMap::new(),
            exited: false,
            log: Vec::new(),
            promised: BTreeSet::new(),
            tasks_written: BTreeSet::new(),
            probing: Vec::new(),
            wiping: Vec::new(),
            changes: 0,
        };
        world.carry_out(effects);
        world
    }

    fn carry_out(&mut self, mut effects: Effects) {
        for effect in effects.drain() {
            self.log.push(line(&effect));
            match effect {
                Effect::Persist { id, record } => self.writing.push((id, record)),
                Effect::StartContainer { container, run, .. } => {
                    let key = (run.framework.framework_id, run.task.task_id);
                    assert!(
                        self.tasks_written.contains(&key),
                        "S8: started before it was durable"
                    );
                    self.containers.push((container, false));
                    self.folders.insert(container, key);
                }
                Effect::CancelStart { container } => {
                    assert!(
                        self.containers.contains(&(container, false)),
                        "cancels what has answered"
                    );
                }
                Effect::KillContainer { container, .. } => {
                    assert!(
                        self.containers.contains(&(container, true)),
                        "kills what does not run"
                    );
                }
                Effect::Send {
                    message: SlaveToMaster::Update(update),
                    ..
                } => {
                    let id = update.status.update_id.expect("slaves' updates have ids");
                    assert!(
                        self.promised.contains(&id),
                        "S8: sent before it was durable"
                    );
                }
                Effect::Send {
                    message: SlaveToMaster::ChangeApplied { number },
                    ..
                } => {
                    let mut decided = self.disk.claims.decided.iter();
                    let is_durable = decided.any(|it| it.number == number);
                    assert!(is_durable, "S8: confirmed before it was durable");
                }
                Effect::Send {
                    message: SlaveToMaster::ReportClaims { claims, .. },
                    ..
                } => assert_eq!(claims, self.disk.claims.resources, "S8: not durable"),
                Effect::ForgetContainer { container } => {
                    let mut known = self.containers.iter();
                    assert!(known.all(|it| it.0 != container), "forgets what runs");
                    self.folders.remove(&container);
                }
                Effect::Probe { id, .. } => {
                    let runs = self.containers.contains(&(id.container, true));
                    assert!(runs, "probes what does not run");
                    self.probing.push(id);
                }
                Effect::WipeVolume { directory } => {
                    let mut volumes = self.disk.claims.volumes.values();
                    assert!(volumes.all(|it| *it != directory), "S17: it exists");
                    self.wiping.push(directory);
                }
                Effect::Exit { .. } => self.exited = true,
                Effect::Send { .. }
                | Effect::Reconnect { .. }
                | Effect::FrameworkForgotten { .. } => {}
                Effect::StartExecutor { .. }
                | Effect::ResizeContainer { .. }
                | Effect::TellExecutor { .. }
                | Effect::CloseSession { .. } => unreachable!("tasks here are commands"),
            }
        }
        self.core.check_invariants();
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Effects::new();
        self.core.handle(event, self.now, &mut effects);
        self.carry_out(effects);
    }

    fn hear(&mut self, connection: u64, message: MasterToSlave) {
        // 0 stands for whatever is the newest connection.
        let connection = ConnectionId(if connection == 0 {
            self.connection
        } else {
            connection
        });
        self.feed(Event::Master {
            connection,
            message,
        });
    }

    fn make_durable(&mut self, how_many: usize) {
        let how_many = how_many.min(self.writing.len());
        let mut last = None;
        for (id, record) in self.writing.drain(..how_many) {
            match &record {
                Record::UpdateMade { status, .. } => {
                    self.promised
                        .insert(status.update_id.expect("made with an id"));
                }
                Record::TaskAdded(run) => {
                    self.tasks_written
                        .insert((run.framework.framework_id, run.task.task_id.clone()));
                }
                Record::GroupAdded { tasks, .. } => {
                    let tasks = tasks.iter();
                    self.tasks_written.extend(
                        tasks.map(|run| (run.framework.framework_id, run.task.task_id.clone())),
                    );
                }
                _ => {}
            }
            self.disk.apply(record);
            last = Some(id);
        }
        if let Some(record) = last {
            self.feed(Event::Persisted { record });
        }
    }

    fn restart(&mut self) {
        self.writing.clear();
        self.wiping.clear();
        self.probing.clear();
        self.exited = false;
        let mut effects = Effects::new();
        let found = self.found();
        self.core = SlaveCore::new(config(), self.disk.clone(), found, self.now, &mut effects);
        self.log.push("-- restart".to_owned());
        self.carry_out(effects);
    }

    /// What has become of the containers meanwhile; their numbers decide.
    fn found(&mut self) -> Vec<FoundContainer> {
        let mut found = Vec::new();
        for (container, task) in self.folders.clone() {
            let at = self.containers.iter().position(|it| it.0 == container);
            let state = match (at, container.number % 6) {
                (Some(at), 0..=2) => {
                    self.containers[at].1 = true;
                    FoundState::Running { pid: 5 }
                }
                (Some(at), _) if !self.containers[at].1 => FoundState::NeverRan,
                (_, 3) => FoundState::Lost,
                (_, 4) => FoundState::Rebooted,
                _ => FoundState::Ended(exit(TaskExit::Code(0))),
            };
            if !matches!(state, FoundState::Running { .. }) {
                self.containers.retain(|it| it.0 != container);
            }
            let age = Duration::from_secs(1);
            found.push(FoundContainer {
                container,
                owner: Owner::Task(task),
                age,
                state,
            });
        }
        found
    }

    fn step(&mut self, step: Step) {
        if self.exited {
            self.restart();
        }
        let task_id = |task: u8| TaskId::new(format!("t{task}")).unwrap();
        match step {
            Step::Connect(connection) => {
                self.connection = self.connection.max(connection) + 1;
                self.feed(Event::Connected {
                    connection: ConnectionId(self.connection),
                });
            }
            Step::Disconnect(back) => {
                let connection = ConnectionId(self.connection.saturating_sub(back));
                self.feed(Event::Disconnected { connection });
            }
            Step::Welcome {
                connection,
                epoch,
                cluster,
            } => self.hear(
                connection.saturating_sub(2),
                MasterToSlave::Registered {
                    slave_id: SLAVE,
                    cluster_id: ClusterId(cluster),
                    epoch: Epoch(epoch / 2),
                    ping_timeout: Duration::from_secs(epoch * 40),
                },
            ),
            Step::Ping {
                connection,
                registered,
            } => {
                self.hear(
                    connection.saturating_sub(2),
                    MasterToSlave::Ping { registered },
                );
            }
            Step::Refuse { connection, which } => {
                let refusal = match which {
                    0 => Refusal::SlaveUnknown { slave_id: SLAVE },
                    1 => Refusal::NotLeading { leader: None },
                    2 => Refusal::Recovering,
                    _ => Refusal::TooSlow,
                };
                self.hear(connection, refused(refusal));
            }
            Step::Run {
                connection,
                framework,
                task,
                cpus,
                killing: kills,
                limit,
                checked,
            } => {
                let mut run = run(framework, task_id(task).as_str());
                run.task.resources = format!("cpus:{cpus};ports:[31000-31010]").parse().unwrap();
                run.task.max_completion_time = limit.then_some(Duration::from_secs(20));
                if checked {
                    let check = Check::tcp(80).delay(Duration::from_secs(1));
                    let health = HealthCheck::new(check.clone().timeout(Duration::from_secs(5)));
                    run.task.health_check = Some(health.consecutive_failures(2));
                    run.task.check = limit.then_some(check);
                }
                if limit && let Some(command) = &mut run.task.command {
                    command.uris.push(FetchUri::new("http://a/b"));
                }
                let run = if kills { killing(run) } else { run };
                self.hear(
                    connection.saturating_sub(2),
                    MasterToSlave::RunTask(Box::new(run)),
                );
            }
            Step::RunGroup {
                framework,
                tasks,
                fetches,
            } => {
                let like = run(framework, "t0");
                let members = (0..5).filter(|bit| tasks & (1 << bit) != 0);
                let members = members.map(|task| {
                    let mut task = run(framework, task_id(task).as_str()).task;
                    task.resources = "cpus:0.5".parse().unwrap();
                    if fetches && let Some(command) = &mut task.command {
                        command.uris.push(FetchUri::new("http://a/b"));
                    }
                    task
                });
                let group_id = ExecutorId::new("g").unwrap();
                let resources = "mem:32".parse().unwrap();
                let order = RunGroup {
                    framework: like.framework,
                    role: like.role,
                    group: TaskGroup {
                        executor: ExecutorDescription::group(group_id, resources),
                        tasks: members.collect(),
                    },
                };
                self.hear(0, MasterToSlave::RunGroup(Box::new(order)));
            }
            Step::ShutdownGroup { framework } => {
                let framework_id = FrameworkId(framework);
                let executor_id = ExecutorId::new("g").unwrap();
                let message = MasterToSlave::ShutdownExecutor {
                    framework_id,
                    executor_id,
                };
                self.hear(0, message);
            }
            Step::Kill {
                framework,
                task,
                grace,
            } => {
                let grace = grace.map(|grace| Duration::from_millis(grace.into()));
                let framework_id = FrameworkId(framework);
                let task_id = task_id(task);
                self.hear(
                    0,
                    MasterToSlave::KillTask {
                        framework_id,
                        task_id,
                        grace,
                    },
                );
            }
            Step::Change {
                connection,
                kind,
                what,
            } => {
                self.changes += 1;
                let number = OperationNumber {
                    epoch: Epoch(1),
                    number: self.changes,
                };
                let change = Box::new(change(kind, what));
                let message = MasterToSlave::ChangeResources { number, change };
                self.hear(connection.saturating_sub(2), message);
            }
            Step::Probed { nth, passed } => {
                let unknown = ProbeId {
                    container: self.container(0, |_| true),
                    purpose: CheckPurpose::Health,
                    number: 1_000_000,
                };
                let probe = match nth < self.probing.len() {
                    true => self.probing.remove(nth),
                    false => unknown,
                };
                let found = passed.map(checks::tcp);
                self.feed(Event::Probed { probe, found });
            }
            Step::Wiped { nth } => {
                if nth < self.wiping.len() {
                    let directory = self.wiping.remove(nth);
                    self.feed(Event::VolumeWiped { directory });
                }
            }
            Step::Shutdown { framework } => {
                let framework_id = FrameworkId(framework);
                self.hear(0, MasterToSlave::ShutdownFramework { framework_id });
            }
            Step::Reconcile {
                framework,
                task,
                started,
            } => {
                let framework_id = FrameworkId(framework);
                let task = ReconcileOnSlave {
                    framework_id,
                    task_id: task_id(task),
                    started,
                };
                self.hear(0, MasterToSlave::ReconcileTasks { tasks: vec![task] });
            }
            Step::Acknowledge {
                framework,
                task,
                number,
            } => {
                let key = (FrameworkId(framework), task_id(task));
                let head = self
                    .core
                    .streams
                    .get(&key)
                    .and_then(|s| s.statuses().next());
                let update_id = match (number, head) {
                    (None, Some(status)) => status.update_id.expect("made with an id"),
                    (number, _) => UpdateId::by_slave(SLAVE, 1, number.unwrap_or(3)),
                };
                let (framework_id, task_id) = key;
                self.hear(
                    0,
                    MasterToSlave::Acknowledge {
                        framework_id,
                        task_id,
                        update_id,
                    },
                );
            }
            Step::Durable { how_many } => self.make_durable(how_many.into()),
            Step::Started { nth } => {
                let container = self.container(nth, |started| !started);
                if let Some(at) = self.containers.iter().position(|c| c.0 == container) {
                    self.containers[at].1 = true;
                }
                self.feed(Event::ContainerStarted {
                    container,
                    pid: 5,
                    image: None,
                });
            }
            Step::Preparing { nth } => {
                let container = self.container(nth, |started| !started);
                let message = "a part of it".to_owned();
                self.feed(Event::ContainerPreparing { container, message });
            }
            Step::NotStarted { nth } => {
                let container = self.container(nth, |started| !started);
                self.containers.retain(|c| c.0 != container);
                self.folders.remove(&container);
                let message = "no".to_owned();
                self.feed(Event::ContainerNotStarted { container, message });
            }
            Step::Ended { nth, exit: code } => {
                let container = self.container(nth, |started| started);
                self.containers.retain(|c| c.0 != container);
                let code = i32::from(code);
                let how = if code < 0 {
                    TaskExit::Signal(-code)
                } else {
                    TaskExit::Code(code)
                };
                self.feed(Event::ContainerEnded {
                    container,
                    exit: exit(how),
                });
            }
            Step::Stop { leave } => {
                let grace = Duration::from_secs(5);
                self.feed(if leave {
                    Event::Leave { grace }
                } else {
                    Event::Stop { grace }
                });
            }
            Step::Wait { millis } => {
                self.now = self.now.after(Duration::from_millis(millis.into()));
                self.feed(Event::Tick);
                assert!(
                    self.core.next_deadline().is_none_or(|at| at > self.now),
                    "something due was left"
                );
            }
            Step::Crash => self.restart(),
        }
    }

    /// One of the containers in question, or sometimes one that nobody knows.
    fn container(&self, nth: u64, which: impl Fn(bool) -> bool) -> ContainerId {
        let known: Vec<ContainerId> = self
            .containers
            .iter()
            .filter(|(_, started)| which(*started))
            .map(|c| c.0)
            .collect();
        let nth = usize::try_from(nth).unwrap();
        match known.get(nth % (known.len() + 1)) {
            Some(container) => *container,
            None => ContainerId {
                incarnation: self.core.incarnation(),
                number: 1_000_000,
            },
        }
    }
}

fn change(kind: u8, what: u8) -> Change {
    let bundle = [
        "cpus(web,):1;disk(web,):100",
        "disk(web,):50",
        "mem(a,):64",
        "disk(web,):1000",
    ];
    let volume = [
        "disk(web,)[a:a]:50",
        "disk(web,)[b:b]:100",
        "disk(web,)[a:b]:10",
        "disk(a,)[a:a]:10",
    ];
    let pieces = [
        "disk(web,)[a:a]:50;disk(web,):50",
        "disk(web,)[b:b]:100;disk(web,):10",
        "disk(web,)[a:a]:25;disk(web,):25",
        "disk(a,)[a:a]:10;disk(web,):1",
    ];
    let what = usize::from(what);
    let (kind, text) = match kind {
        0 => (ChangeKind::Reserve, bundle[what]),
        1 => (ChangeKind::Unreserve, bundle[what]),
        2 => (ChangeKind::Create, volume[what]),
        3 => (ChangeKind::Destroy, volume[what]),
        4 => (ChangeKind::Grow, pieces[what]),
        _ => (ChangeKind::Shrink, pieces[what]),
    };
    Change::new(kind, text.parse().unwrap())
}

fn play(steps: &[Step]) -> World {
    let mut world = World::new();
    steps.iter().cloned().for_each(|step| world.step(step));
    world
}

/// What a core holds, in the form of a checkpoint.
fn remembered(core: &SlaveCore) -> Checkpoint {
    let updates = core.streams.iter();
    let updates = updates.map(|(key, stream)| (key.clone(), stream.statuses().cloned().collect()));
    let kept = core.tasks.iter().filter(|(_, task)| !task.abandoned);
    Checkpoint {
        identity: core.identity,
        incarnation: core.incarnation,
        // Of no term without an id: it may join another cluster.
        epoch: core.identity.map(|_| core.epoch).unwrap_or_default(),
        tasks: kept
            .map(|(key, task)| {
                let (run, mut reached) = (task.run.clone(), task.state);
                if reached == TaskState::Starting {
                    reached = TaskState::Staging;
                }
                (key.clone(), CheckpointedTask { run, reached })
            })
            .collect(),
        executors: core
            .executors
            .iter()
            .filter(|(_, executor)| !executor.abandoned)
            .map(|(key, executor)| {
                let (run, heard) = (executor.run.clone(), executor.heard);
                (key.clone(), CheckpointedExecutor { run, heard })
            })
            .chain(core.groups.iter().map(|(key, group)| {
                let heard = if group.is_ending { GROUP_IS_ENDING } else { 0 };
                let run = group.run.clone();
                (key.clone(), CheckpointedExecutor { run, heard })
            }))
            .collect(),
        updates: updates.collect(),
        claims: core.claims.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_event_and_the_same_events_have_the_same_effects(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let world = play(&steps);
        prop_assert_eq!(world.log, play(&steps).log);
    }

    #[test]
    fn what_is_on_disk_is_what_the_slave_holds(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = play(&steps);
        while !world.writing.is_empty() {
            world.make_durable(usize::MAX);
        }
        let mut held = remembered(&world.core);
        // How far an ended task had come is no longer held in memory, and no longer matters.
        for (key, task) in &mut held.tasks {
            if task.reached.is_terminal() {
                task.reached = world.disk.tasks.get(key).map_or(task.reached, |it| it.reached);
            }
        }
        // The term becomes durable before the id; without one it says nothing to the next life.
        let mut disk = world.disk;
        if disk.identity.is_none() {
            disk.epoch = Epoch::default();
            // The next life forgets them first of all.
            disk.claims.decided.clear();
            held.claims.decided.clear();
        }
        prop_assert_eq!(held, disk);
    }

    #[test]
    fn replay_never_panics_whatever_the_order(
        steps in prop::collection::vec(step(), 1..100),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let mut records: Vec<Record> = Vec::new();
        let mut world = World::new();
        for step in steps {
            world.step(step);
            records.extend(world.writing.iter().map(|(_, record)| record.clone()));
        }
        let shuffled = picks.iter().filter(|_| !records.is_empty());
        let checkpoint: Checkpoint = shuffled.map(|pick| pick.get(&records).clone()).collect();
        let mut effects = Effects::new();
        let core = SlaveCore::new(config(), checkpoint, Vec::new(), Timestamp(5), &mut effects);
        drop(core);
    }
}
