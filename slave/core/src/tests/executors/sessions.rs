//! What executors say again, and what they know better (semantics M3, R12).

use super::*;

/// News of the task `t` that was not acknowledged on an earlier connection.
fn resent(session: u64, updates: &[(u64, TaskState)]) -> Event {
    let update = |(number, state): &(u64, TaskState)| {
        let task_id = TaskId::new("t").unwrap();
        ExecutorUpdate {
            number: *number,
            status: TaskStatus::new(task_id, *state, Source::Executor, Timestamp(1)),
        }
    };
    Event::ExecutorResent {
        session: SessionId(session),
        updates: updates.iter().map(update).collect(),
    }
}

#[test]
fn what_an_executor_repeats_is_acknowledged_and_not_told_again() {
    // semantics: M3, R12
    let mut slave = Slave::executing();
    let running = || update(1, 1, "t", TaskState::Running);
    slave.on(running(), &["tell 1 acknowledged 1"]);
    slave.on(
        update(1, 2, "t", TaskState::Failed),
        &[
            "resize 1-1 cpus:0.5;mem:32",
            "persist heard F1/e 2 t FAILED #2",
        ],
    );
    // Not yet durable, so nothing is acknowledged.
    slave.on(update(1, 2, "t", TaskState::Failed), &[]);
    slave.on(update(1, 3, "t", TaskState::Finished), &[]);
    slave.durable(&[
        "send 1 update F1/t FAILED #2 latest FAILED",
        "tell 1 acknowledged 3",
    ]);
    slave.on(
        update(1, 4, "nobody", TaskState::Running),
        &["tell 1 acknowledged 4"],
    );
    assert_eq!(slave.core.counters().executor_updates_ignored, 4);
}

#[test]
fn what_an_executor_says_again_under_new_numbers_is_told_once() {
    // semantics: M3
    let mut slave = Slave::executing();
    slave.on(
        Event::ExecutorDisconnected {
            session: SessionId(1),
        },
        &[],
    );
    slave.on(subscribe(2, &["t"]), &["tell 2 subscribed"]);
    // RUNNING is known, so what came before it is, too.
    slave.on(
        resent(
            2,
            &[
                (2, TaskState::Starting),
                (3, TaskState::Running),
                (4, TaskState::Finished),
            ],
        ),
        &[
            "resize 1-1 cpus:0.5;mem:32",
            "persist heard F1/e 4 t FINISHED #2",
        ],
    );
    // Known, and not durable yet.
    slave.on(resent(2, &[(5, TaskState::Finished)]), &[]);
    slave.durable(&[
        "send 1 update F1/t FINISHED #2 latest FINISHED",
        "tell 2 acknowledged 5",
    ]);
    slave.on(
        resent(2, &[(6, TaskState::Running), (7, TaskState::Finished)]),
        &["tell 2 acknowledged 7"],
    );
    assert_eq!(slave.core.counters().executor_updates_ignored, 5);
    slave.on(resent(1, &[(8, TaskState::Finished)]), &["close 1"]);
}

/// News of the task `t` that has data.
fn dated(number: u64, at: Timestamp, data: &'static [u8]) -> ExecutorUpdate {
    let task_id = TaskId::new("t").unwrap();
    let mut status = TaskStatus::new(task_id, TaskState::Running, Source::Executor, at);
    status.data = data.into();
    ExecutorUpdate { number, status }
}

fn said(update: ExecutorUpdate) -> Event {
    Event::Executor {
        session: SessionId(1),
        container: container(1),
        message: Box::new(ExecutorToSlave::Update(update)),
    }
}

fn resubscribed(slave: &mut Slave) {
    let session = SessionId(1);
    slave.on(Event::ExecutorDisconnected { session }, &[]);
    slave.on(subscribe(2, &["t"]), &["tell 2 subscribed"]);
}

fn said_again(updates: Vec<ExecutorUpdate>) -> Event {
    let session = SessionId(2);
    Event::ExecutorResent { session, updates }
}

#[test]
fn what_its_framework_has_acknowledged_with_its_data_is_not_told_again_but_what_follows_is() {
    // semantics: M3
    let mut slave = Slave::executing();
    let (first, second) = (Timestamp(2), Timestamp(100_002));
    slave.on(
        said(dated(2, first, b"10 %")),
        &["persist heard F1/e 2 t RUNNING #2"],
    );
    slave.durable(&[
        "send 1 update F1/t RUNNING #2 latest RUNNING",
        "tell 1 acknowledged 2",
    ]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    resubscribed(&mut slave);
    slave.on(
        said_again(vec![dated(3, first, b"10 %"), dated(4, second, b"20 %")]),
        &["persist heard F1/e 4 t RUNNING #3"],
    );
}

#[test]
fn an_update_of_a_clock_that_is_ahead_is_told_once() {
    // semantics: M3
    let mut slave = Slave::executing();
    let at = Timestamp(slave.now.0 + 5_000);
    slave.on(
        said(dated(2, at, b"")),
        &["persist heard F1/e 2 t RUNNING #2"],
    );
    slave.durable(&[
        "send 1 update F1/t RUNNING #2 latest RUNNING",
        "tell 1 acknowledged 2",
    ]);
    // What was still to come has passed.
    slave.now = slave.now.after(Duration::from_millis(50));
    resubscribed(&mut slave);
    slave.on(
        said_again(vec![dated(3, at, b"")]),
        &["tell 2 acknowledged 3"],
    );
    assert_eq!(slave.core.counters().executor_updates_ignored, 1);
}

#[test]
fn what_an_executor_runs_and_nobody_knows_is_killed() {
    let mut slave = Slave::executing();
    slave.on(
        Event::ExecutorDisconnected {
            session: SessionId(1),
        },
        &[],
    );
    slave.on(
        subscribe(2, &["lost", "t"]),
        &["tell 2 subscribed", "tell 2 kill lost 3s"],
    );
}
