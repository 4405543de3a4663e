//! Executors: their life, their tasks', and what restarts make of both (semantics M, L2, L3).

use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::ExecutorId;
use meros_proto::message::executor::{ExecutorToSlave, ExecutorUpdate};
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};

use super::*;

mod property;
mod sessions;

const E: &str = "e";

fn executor() -> ExecutorDescription {
    let command = Command::shell("exec ./executor");
    let resources = "cpus:0.5;mem:32".parse().unwrap();
    ExecutorDescription::new(ExecutorId::new(E).unwrap(), command, resources)
}

fn run_in(task: &str) -> RunTask {
    let mut run = run(1, task);
    run.task.command = None;
    run.task.executor = Some(executor());
    run
}

fn order(task: &str, starts: bool) -> MasterToSlave {
    let run = Box::new(run_in(task));
    MasterToSlave::RunInExecutor { run, starts }
}

fn said(session: u64, message: ExecutorToSlave) -> Event {
    Event::Executor {
        session: SessionId(session),
        container: container(1),
        message: Box::new(message),
    }
}

fn subscribe(session: u64, tasks: &[&str]) -> Event {
    let tasks = tasks.iter().map(|it| (TaskId::new(it).unwrap(), None));
    let tasks = tasks.collect();
    let message = ExecutorToSlave::Subscribe {
        framework_id: FrameworkId(1),
        executor_id: ExecutorId::new(E).unwrap(),
        made: 1_000,
        tasks,
    };
    said(session, message)
}

fn update(session: u64, number: u64, task: &str, state: TaskState) -> Event {
    let task_id = TaskId::new(task).unwrap();
    let status = TaskStatus::new(task_id, state, Source::Executor, Timestamp(1));
    said(
        session,
        ExecutorToSlave::Update(ExecutorUpdate { number, status }),
    )
}

fn started() -> Event {
    Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    }
}

fn ended(how: TaskExit) -> Event {
    Event::ContainerEnded {
        container: container(1),
        exit: exit(how),
    }
}

fn kill(task: &str) -> MasterToSlave {
    MasterToSlave::KillTask {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(task).unwrap(),
        grace: None,
    }
}

fn shutdown() -> MasterToSlave {
    MasterToSlave::ShutdownExecutor {
        framework_id: FrameworkId(1),
        executor_id: ExecutorId::new(E).unwrap(),
    }
}

/// The newest update on its way to the disk.
fn newest(slave: &Slave) -> TaskStatus {
    let updates = slave.writing.iter().filter_map(|(_, record)| match record {
        Record::UpdateMade { status, .. } | Record::UpdateHeard { status, .. } => Some(status),
        _ => None,
    });
    let newest = updates.max_by_key(|status| status.update_id).unwrap();
    newest.as_ref().clone()
}

impl Slave {
    /// With an executor that was started for the task `t`.
    fn with_executor() -> Self {
        let mut slave = Self::registered();
        slave.hear(
            order("t", true),
            &["persist executor F1/e", "persist task F1/t"],
        );
        slave.durable(&["start executor 1-1 F1/e"]);
        slave.on(started(), &[]);
        slave
    }

    /// With an executor that is being started for the task `t`, and wants files.
    fn with_executor_fetching() -> Self {
        let mut slave = Self::registered();
        let mut run = Box::new(run_in("t"));
        let executor = run.task.executor.as_mut();
        if let Some(command) = executor.and_then(|executor| executor.command.as_mut()) {
            command.uris = vec![meros_proto::fetch::FetchUri::new("http://h/f")];
        }
        slave.hear(
            MasterToSlave::RunInExecutor { run, starts: true },
            &["persist executor F1/e", "persist task F1/t"],
        );
        slave.durable(&["start executor 1-1 F1/e"]);
        slave
    }

    /// With an executor that runs the task `t`, as its framework knows.
    fn executing() -> Self {
        let mut slave = Self::with_executor();
        slave.on(
            subscribe(1, &[]),
            &[
                "tell 1 subscribed",
                "resize 1-1 cpus:1.5;mem:96",
                "tell 1 launch t",
            ],
        );
        slave.on(
            update(1, 1, "t", TaskState::Running),
            &["persist heard F1/e 1 t RUNNING #1"],
        );
        slave.durable(&[
            "send 1 update F1/t RUNNING #1 latest RUNNING",
            "tell 1 acknowledged 1",
        ]);
        slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
        slave.durable(&[]);
        slave
    }

    /// The same disk, another life, and the container of the executor.
    fn restarted_with_executor(mut self, state: FoundState) -> Self {
        self.expect(&[]);
        let found = FoundContainer {
            container: container(1),
            owner: Owner::Executor((FrameworkId(1), ExecutorId::new(E).unwrap())),
            age: Duration::from_secs(5),
            state,
        };
        Self::finding(config(), std::mem::take(&mut self.disk), vec![found])
    }
}

#[test]
fn an_executor_is_started_once_given_its_tasks_and_heard() {
    // semantics: M1, M2
    let mut slave = Slave::with_executor();
    slave.hear(order("u", false), &["persist task F1/u"]);
    slave.durable(&[]);
    slave.on(
        subscribe(1, &[]),
        &[
            "tell 1 subscribed",
            // Once for both.
            "resize 1-1 cpus:2.5;mem:160",
            "tell 1 launch t",
            "tell 1 launch u",
        ],
    );
    slave.on(
        update(1, 1, "t", TaskState::Running),
        &["persist heard F1/e 1 t RUNNING #1"],
    );
    let running = newest(&slave);
    assert_eq!(
        (running.slave_id, running.source, running.executor_id),
        (
            Some(SLAVE),
            Source::Executor,
            Some(ExecutorId::new(E).unwrap())
        )
    );
    slave.durable(&[
        "send 1 update F1/t RUNNING #1 latest RUNNING",
        "tell 1 acknowledged 1",
    ]);
    slave.on(
        update(1, 2, "t", TaskState::Finished),
        &[
            "resize 1-1 cpus:1.5;mem:96",
            "persist heard F1/e 2 t FINISHED #2",
        ],
    );
    slave.durable(&["tell 1 acknowledged 2"]);
    slave.acknowledge(
        "t",
        1,
        &[
            "persist acknowledged F1/t #1",
            "send 1 update F1/t FINISHED #2 latest FINISHED",
        ],
    );
    slave.acknowledge("t", 2, &["persist forgotten F1/t"]);
    // Its end ends what it runs.
    slave.on(
        ended(TaskExit::Code(3)),
        &[
            "close 1",
            "persist update F1/u FAILED #3",
            "persist executor ended F1/e",
            "send 1 executor ended F1/e",
        ],
    );
    let failed = newest(&slave);
    assert_eq!(failed.reason, Some(Reason::ExecutorTerminated));
    assert_eq!(
        failed.message,
        "its executor e ended before it: exited with code 3"
    );
    assert!(slave.forgotten.is_empty(), "S18: not before it is durable");
    slave.durable(&["send 1 update F1/u FAILED #3 latest FAILED"]);
    assert_eq!(slave.forgotten, [container(1)]);
    assert_eq!(*slave.core.free(), config().slave.resources);
}

#[test]
fn an_executor_that_never_subscribes_fails_its_tasks() {
    // semantics: M4
    let mut slave = Slave::with_executor();
    slave.after(Duration::from_secs(59), &[]);
    slave.after(Duration::from_secs(1), &["kill 1-1 5s"]);
    slave.hear(order("u", false), &["persist update F1/u DROPPED #1"]);
    assert_eq!(newest(&slave).reason, Some(Reason::ExecutorTerminated));
    slave.on(
        ended(TaskExit::Signal(15)),
        &[
            "persist update F1/t FAILED #2",
            "persist executor ended F1/e",
            "send 1 executor ended F1/e",
        ],
    );
    let reason = newest(&slave).reason;
    assert_eq!(reason, Some(Reason::ExecutorRegistrationTimeout));
}

#[test]
fn an_executor_that_does_not_start_fails_its_tasks_with_the_reason() {
    // semantics: G2
    let mut slave = Slave::registered();
    slave.hear(
        order("t", true),
        &["persist executor F1/e", "persist task F1/t"],
    );
    slave.durable(&["start executor 1-1 F1/e"]);
    let message = "command not found".to_owned();
    let event = Event::ContainerNotStarted {
        container: container(1),
        message,
    };
    slave.on(
        event,
        &[
            "persist update F1/t FAILED #1",
            "persist executor ended F1/e",
            "send 1 executor ended F1/e",
        ],
    );
    assert_eq!(newest(&slave).reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(*slave.core.free(), config().slave.resources);
}

#[test]
fn an_executor_that_nobody_needs_any_more_is_not_fetched_for() {
    let mut slave = Slave::with_executor_fetching();
    let preparing = Event::ContainerPreparing {
        container: container(1),
        message: "1 of 2 files".to_owned(),
    };
    slave.on(preparing, &[]);
    slave.hear(kill("t"), &["persist update F1/t KILLED #1", "cancel 1-1"]);
    let event = Event::ContainerNotStarted {
        container: container(1),
        message: "cancelled".to_owned(),
    };
    slave.on(
        event,
        &["persist executor ended F1/e", "send 1 executor ended F1/e"],
    );
    assert_eq!(*slave.core.free(), config().slave.resources);
    assert_eq!(slave.core.counters().container_events_ignored, 0);
}

#[test]
fn what_the_master_has_charged_in_vain_it_is_told() {
    let mut slave = Slave::registered();
    // It had ended, and the word of it was on its way.
    slave.hear(order("t", false), &["persist update F1/t DROPPED #1"]);
    assert_eq!(newest(&slave).reason, Some(Reason::ExecutorTerminated));
    let mut big = run_in("u");
    big.task.resources = "cpus:4".parse().unwrap();
    let order = MasterToSlave::RunInExecutor {
        run: Box::new(big),
        starts: true,
    };
    slave.hear(
        order,
        &[
            "persist update F1/u DROPPED #2",
            "send 1 executor ended F1/e",
        ],
    );
    assert_eq!(newest(&slave).reason, Some(Reason::ResourcesUnknown));
}

#[test]
fn another_executor_of_the_same_id_is_refused() {
    let mut slave = Slave::executing();
    let mut other = run_in("u");
    other.task.executor.as_mut().unwrap().command = Some(Command::shell("other"));
    let order = MasterToSlave::RunInExecutor {
        run: Box::new(other),
        starts: false,
    };
    slave.hear(order, &["persist update F1/u DROPPED #2"]);
    assert_eq!(newest(&slave).reason, Some(Reason::TaskInvalid));
}

#[test]
fn a_kill_is_the_executors_business_and_is_asked_for_again() {
    // semantics: M5
    let mut slave = Slave::executing();
    slave.hear(kill("t"), &["tell 1 kill t 3s"]);
    slave.hear(kill("t"), &[]);
    slave.on(
        Event::ExecutorDisconnected {
            session: SessionId(1),
        },
        &[],
    );
    slave.on(
        subscribe(2, &[]),
        &["tell 2 subscribed", "tell 2 kill t 3s"],
    );
    slave.on(
        update(2, 2, "t", TaskState::Killed),
        &[
            "resize 1-1 cpus:0.5;mem:32",
            "persist heard F1/e 2 t KILLED #2",
        ],
    );
}

#[test]
fn an_executor_whose_tasks_were_killed_before_it_came_is_not_needed() {
    // semantics: G2
    let mut slave = Slave::with_executor();
    slave.hear(kill("t"), &["persist update F1/t KILLED #1", "kill 1-1 5s"]);
    assert_eq!(newest(&slave).reason, Some(Reason::TaskKilledDuringLaunch));
}

#[test]
fn a_launch_that_was_lost_with_its_connection_is_repeated() {
    let mut slave = Slave::with_executor();
    slave.on(
        subscribe(1, &[]),
        &[
            "tell 1 subscribed",
            "resize 1-1 cpus:1.5;mem:96",
            "tell 1 launch t",
        ],
    );
    // The new connection comes before the end of the old one.
    slave.on(
        subscribe(2, &[]),
        &[
            "close 1",
            "tell 2 subscribed",
            "resize 1-1 cpus:1.5;mem:96",
            "tell 2 launch t",
        ],
    );
    slave.on(
        Event::ExecutorDisconnected {
            session: SessionId(1),
        },
        &[],
    );
    slave.on(subscribe(3, &["t"]), &["close 2", "tell 3 subscribed"]);
    slave.on(update(2, 1, "t", TaskState::Running), &["close 2"]);
}

#[test]
fn a_stranger_is_refused() {
    let mut slave = Slave::with_executor();
    let stranger = Event::Executor {
        session: SessionId(7),
        container: container(9),
        message: Box::new(ExecutorToSlave::Subscribe {
            framework_id: FrameworkId(1),
            executor_id: ExecutorId::new(E).unwrap(),
            made: 0,
            tasks: Vec::new(),
        }),
    };
    slave.on(stranger, &["tell 7 refused invalid", "close 7"]);
}

#[test]
fn who_subscribes_twice_on_one_connection_has_to_make_another() {
    let mut slave = Slave::executing();
    slave.on(subscribe(1, &[]), &["close 1"]);
    slave.on(subscribe(2, &[]), &["tell 2 subscribed"]);
}

#[test]
fn another_process_in_the_same_container_is_ended_since_what_the_first_one_ran_is_lost() {
    let mut slave = Slave::executing();
    let session = SessionId(1);
    slave.on(Event::ExecutorDisconnected { session }, &[]);
    let anew = ExecutorToSlave::Subscribe {
        framework_id: FrameworkId(1),
        executor_id: ExecutorId::new(E).unwrap(),
        made: 0,
        tasks: Vec::new(),
    };
    let told = ["tell 2 subscribed", "tell 2 shutdown 0ns"];
    slave.on(said(2, anew), &told);
}

#[test]
fn a_task_that_its_executor_calls_gone_has_failed() {
    let mut slave = Slave::executing();
    slave.feed(update(1, 2, "t", TaskState::Gone));
    let told = newest(&slave);
    assert_eq!(told.state, TaskState::Failed);
    assert_eq!(told.message, "its executor called it TASK_GONE");
}

#[test]
fn a_name_that_was_used_before_is_not_taken_for_the_task_that_has_it_now() {
    let mut slave = Slave::with_executor();
    // The executor has ended another `t`, which the slave has heard of; this one was lost on its way.
    let task = TaskId::new("t").unwrap();
    let message = ExecutorToSlave::Subscribe {
        framework_id: FrameworkId(1),
        executor_id: ExecutorId::new(E).unwrap(),
        made: 1,
        tasks: vec![(task, Some(0))],
    };
    slave.on(
        said(1, message),
        &[
            "tell 1 subscribed",
            "resize 1-1 cpus:1.5;mem:96",
            "tell 1 launch t",
        ],
    );
}

#[test]
fn a_shutdown_has_its_grace_and_then_ends_everything() {
    // semantics: B10, M4
    let mut slave = Slave::executing();
    slave.hear(shutdown(), &["tell 1 shutdown 5s"]);
    slave.hear(shutdown(), &[]);
    slave.after(Duration::from_secs(5), &["kill 1-1 0ns"]);
    slave.on(
        ended(TaskExit::Signal(9)),
        &[
            "close 1",
            "persist update F1/t FAILED #2",
            "persist executor ended F1/e",
            "send 1 executor ended F1/e",
        ],
    );
    let failed = newest(&slave);
    assert_eq!(failed.reason, Some(Reason::ExecutorTerminated));
    assert_eq!(failed.message, "its executor e was shut down on request");
}

#[test]
fn messages_pass_both_ways() {
    // semantics: B15
    let mut slave = Slave::executing();
    let message = MasterToSlave::ExecutorMessage {
        framework_id: FrameworkId(1),
        executor_id: ExecutorId::new(E).unwrap(),
        data: "hi".into(),
    };
    slave.hear(message, &[r#"tell 1 message b"hi""#]);
    let message = ExecutorToSlave::Message("ho".into());
    slave.on(said(1, message), &[r#"send 1 message of F1/e b"ho""#]);
}

#[test]
fn a_framework_that_is_gone_takes_its_executor_with_it() {
    // semantics: N3
    let mut slave = Slave::executing();
    let gone = MasterToSlave::ShutdownFramework {
        framework_id: FrameworkId(1),
    };
    slave.hear(gone, &["persist shutdown F1", "tell 1 shutdown 5s"]);
    assert_eq!(*slave.core.free(), config().slave.resources);
    slave.durable(&[]);
    slave.on(ended(TaskExit::Code(0)), &["close 1", "forgotten F1"]);
    assert_eq!(slave.forgotten, [container(1)]);
}

#[test]
fn an_executor_outlives_the_slave_and_no_update_is_lost_or_repeated() {
    // semantics: L2, M3
    let mut slave = Slave::executing();
    // Durable, but the executor was not told when the slave was killed; the framework was.
    slave.on(
        update(1, 2, "t", TaskState::Running),
        &["persist heard F1/e 2 t RUNNING #2"],
    );
    slave.durable(&[
        "send 1 update F1/t RUNNING #2 latest RUNNING",
        "tell 1 acknowledged 2",
    ]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    slave.durable(&[]);
    let mut slave = slave.restarted_with_executor(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2"]);
    let connected = Event::Connected {
        connection: ConnectionId(1),
    };
    slave.on(
        connected,
        &[
            "send 1 executors F1/e",
            "send 1 report F1/t RUNNING",
            "send 1 reregister S4",
        ],
    );
    slave.hear(registered(), &["send 1 term 1"]);
    slave.durable(&[]);
    // A new slave does not know how much of the disk it may use by now.
    let told = ["tell 1 subscribed", "resize 1-1 cpus:1.5;mem:96"];
    slave.on(subscribe(1, &[]), &told);
    slave.on(
        update(1, 2, "t", TaskState::Running),
        &["tell 1 acknowledged 2"],
    );
    slave.on(
        update(1, 3, "t", TaskState::Finished),
        &[
            "resize 1-1 cpus:0.5;mem:32",
            "persist heard F1/e 3 t FINISHED #1",
        ],
    );
    slave.after(Duration::from_secs(60), &[]);
}

#[test]
fn a_task_that_the_executor_was_not_given_before_a_restart_is_dropped() {
    // semantics: L3
    let mut slave = Slave::with_executor();
    slave.expect(&[]);
    let mut slave = slave.restarted_with_executor(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2"]);
    slave.on(
        subscribe(1, &[]),
        &[
            "tell 1 subscribed",
            "persist update F1/t DROPPED #1",
            "resize 1-1 cpus:0.5;mem:32",
        ],
    );
    assert_eq!(newest(&slave).reason, Some(Reason::SlaveRestarted));
}

#[test]
fn an_executor_that_does_not_come_back_is_killed_and_its_tasks_are_gone() {
    // semantics: L2, G2
    let slave = Slave::executing();
    let mut slave = slave.restarted_with_executor(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2"]);
    slave.after(Duration::from_secs(15), &["kill 1-1 5s"]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t GONE #1", "persist executor ended F1/e"],
    );
    let reason = newest(&slave).reason;
    assert_eq!(reason, Some(Reason::ExecutorReregistrationTimeout));
}

#[test]
fn an_executor_that_ended_while_there_was_no_slave_ends_its_tasks() {
    let slave = Slave::executing();
    let state = FoundState::Ended(exit(TaskExit::Code(1)));
    let mut slave = slave.restarted_with_executor(state);
    slave.expect(&[
        "persist incarnation 2",
        "persist update F1/t FAILED #1",
        "persist executor ended F1/e",
    ]);
    assert_eq!(newest(&slave).reason, Some(Reason::ExecutorTerminated));
    assert!(slave.forgotten.is_empty());
    slave.durable(&[]);
    assert_eq!(slave.forgotten, [container(1)]);
    assert!(slave.disk.executors.is_empty());
}

#[test]
fn an_executor_of_nobody_is_killed() {
    let mut slave = Slave::registered();
    slave.expect(&[]);
    let mut slave = slave.restarted_with_executor(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2", "kill 1-1 0ns"]);
    slave.on(ended(TaskExit::Signal(9)), &[]);
    assert_eq!(slave.forgotten, [container(1)]);
}
