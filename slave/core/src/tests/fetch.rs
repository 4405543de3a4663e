//! Tasks whose files are fetched, or whose image is brought, before they start.

use meros_proto::fetch::FetchUri;
use meros_proto::image::Image;
use meros_proto::status::{Reason, TaskState, TaskStatus};

use super::*;

fn fetching() -> RunTask {
    let mut run = run(1, "t");
    let command = run.task.command.take().unwrap();
    run.task.command = Some(command.fetch(FetchUri::new("http://a/b")));
    run
}

fn preparing(message: &str) -> Event {
    Event::ContainerPreparing {
        container: container(1),
        message: message.to_owned(),
    }
}

fn not_started(message: &str) -> Event {
    Event::ContainerNotStarted {
        container: container(1),
        message: message.to_owned(),
    }
}

fn started() -> Event {
    Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    }
}

fn kill() -> MasterToSlave {
    MasterToSlave::KillTask {
        framework_id: FrameworkId(1),
        task_id: TaskId::new("t").unwrap(),
        grace: None,
    }
}

/// The update on its way to the disk.
fn written(slave: &Slave) -> TaskStatus {
    let mut updates = slave.writing.iter().filter_map(|(_, record)| match record {
        Record::UpdateMade { status, .. } => Some(status.as_ref().clone()),
        _ => None,
    });
    updates.next_back().expect("an update is being written")
}

/// A slave that is asked to start `F1/t`.
fn starting() -> Slave {
    let mut slave = Slave::registered();
    slave.hear(
        MasterToSlave::RunTask(Box::new(fetching())),
        &["persist task F1/t"],
    );
    slave.durable(&["start 1-1 F1/t"]);
    slave
}

#[test]
fn how_far_it_is_is_told_at_once_and_then_only_now_and_then() {
    let mut slave = starting();
    slave.on(preparing("0 of 9"), &["persist update F1/t STARTING #1"]);
    assert_eq!(written(&slave).message, "0 of 9");
    slave.durable(&["send 1 update F1/t STARTING #1 latest STARTING"]);
    // Nobody has heard the first yet.
    slave.after(PROGRESS_INTERVAL, &[]);
    slave.on(preparing("1 of 9"), &[]);
    slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
    slave.durable(&[]);
    slave.on(preparing("2 of 9"), &["persist update F1/t STARTING #2"]);
    slave.durable(&["send 1 update F1/t STARTING #2 latest STARTING"]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    slave.durable(&[]);
    // A moment ago.
    slave.on(preparing("3 of 9"), &[]);
    slave.on(started(), &["persist update F1/t RUNNING #3"]);
    slave.durable(&["send 1 update F1/t RUNNING #3 latest RUNNING"]);
    slave.on(preparing("9 of 9"), &[]);
}

#[test]
fn a_long_word_of_progress_is_cut() {
    let mut slave = starting();
    slave.on(
        preparing(&"ü".repeat(10_000)),
        &["persist update F1/t STARTING #1"],
    );
    assert!(written(&slave).message.len() <= 1_024);
}

#[test]
fn a_kill_stops_the_fetch_and_the_task_was_never_seen_running() {
    let mut slave = starting();
    slave.on(preparing("half"), &["persist update F1/t STARTING #1"]);
    slave.hear(kill(), &["cancel 1-1"]);
    slave.on(preparing("more"), &[]);
    slave.on(
        not_started("fetch_cancelled"),
        &["persist update F1/t KILLED #2"],
    );
    let killed = written(&slave);
    assert_eq!(killed.reason, Some(Reason::TaskKilledDuringLaunch));
    assert_eq!(*slave.core.free(), config().slave.resources);
}

#[test]
fn a_kill_that_comes_when_all_is_fetched_kills_the_container() {
    let mut slave = starting();
    slave.hear(kill(), &["cancel 1-1"]);
    slave.on(started(), &["kill 1-1 3s"]);
    let ended = Event::ContainerEnded {
        container: container(1),
        exit: exit(TaskExit::Signal(15)),
    };
    slave.on(ended, &["persist update F1/t KILLED #1"]);
    assert_eq!(written(&slave).reason, Some(Reason::TaskKilledDuringLaunch));
}

#[test]
fn what_cannot_be_fetched_fails_its_task_with_the_reason() {
    let mut slave = starting();
    slave.on(preparing("half"), &["persist update F1/t STARTING #1"]);
    let why = "fetch_digest: http://a/b: its digest is another";
    slave.on(not_started(why), &["persist update F1/t FAILED #2"]);
    let failed = written(&slave);
    assert_eq!(failed.reason, Some(Reason::ContainerLaunchFailed));
    assert_eq!(failed.message, why);
}

#[test]
fn a_slave_that_stops_does_not_wait_for_a_fetch() {
    let mut slave = starting();
    let grace = Duration::from_secs(5);
    slave.on(Event::Stop { grace }, &["cancel 1-1"]);
    slave.on(
        not_started("fetch_cancelled"),
        &["persist update F1/t KILLED #1"],
    );
    slave.durable(&["send 1 update F1/t KILLED #1 latest KILLED", "exit"]);
}

#[test]
fn a_crash_during_a_fetch_drops_the_task() {
    // semantics: L3
    let mut slave = starting();
    slave.on(preparing("half"), &["persist update F1/t STARTING #1"]);
    slave.durable(&["send 1 update F1/t STARTING #1 latest STARTING"]);
    slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
    slave.durable(&[]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2", "persist update F1/t DROPPED #1"]);
    let dropped = written(&slave);
    assert_eq!(dropped.state, TaskState::Dropped);
    assert_eq!(dropped.reason, Some(Reason::SlaveRestarted));
}

#[test]
fn an_image_is_waited_for_like_files_and_a_running_task_says_which_it_is() {
    let in_image = || {
        let mut run = run(1, "t");
        let command = run.task.command.take().unwrap();
        run.task.command = Some(command.image(Image::new("a:latest")));
        MasterToSlave::RunTask(Box::new(run))
    };
    let mut slave = Slave::registered();
    slave.hear(in_image(), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    let started = Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: Some("a@sha256:00".to_owned()),
    };
    slave.on(started, &["persist update F1/t RUNNING #1"]);
    assert_eq!(written(&slave).message, "image a@sha256:00");

    let mut slave = Slave::registered();
    slave.hear(in_image(), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    slave.hear(kill(), &["cancel 1-1"]);
    slave.on(
        not_started("image_cancelled"),
        &["persist update F1/t KILLED #1"],
    );
    assert_eq!(written(&slave).reason, Some(Reason::TaskKilledDuringLaunch));
}
