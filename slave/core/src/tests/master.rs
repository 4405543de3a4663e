//! Registration, pings, refusals, update delivery.

use meros_proto::message::slave::ReconcileOnSlave;

use super::*;

fn connected(connection: u64) -> Event {
    Event::Connected {
        connection: ConnectionId(connection),
    }
}

fn disconnected(connection: u64) -> Event {
    Event::Disconnected {
        connection: ConnectionId(connection),
    }
}

#[test]
fn a_slave_without_an_id_registers_on_each_connection_until_it_has_one() {
    let mut slave = Slave::new();
    slave.on(connected(1), &["send 1 register"]);
    slave.on(disconnected(1), &[]);
    slave.on(connected(2), &["send 2 register"]);
    slave.on(
        Event::Master {
            connection: ConnectionId(2),
            message: registered(),
        },
        &["persist term 1", "persist identity S4"],
    );
    slave.durable(&["send 2 term 1"]);
    slave.on(disconnected(2), &[]);
    slave.on(connected(3), &["send 3 reregister S4"]);
}

#[test]
fn an_unanswered_registration_is_taken_elsewhere() {
    let mut slave = Slave::new();
    slave.on(connected(1), &["send 1 register"]);
    slave.after(REGISTER_TIMEOUT - Duration::from_micros(1), &[]);
    slave.after(Duration::from_micros(1), &["reconnect 1"]);
    assert_eq!(slave.core.next_deadline(), None);
}

#[test]
fn a_slave_that_hears_no_ping_looks_for_a_master_anew() {
    // semantics: K2
    let mut slave = Slave::registered();
    slave.after(PING_TIMEOUT / 2, &[]);
    slave.hear(MasterToSlave::Ping { registered: true }, &["send 1 pong"]);
    slave.after(PING_TIMEOUT / 2, &[]);
    slave.after(PING_TIMEOUT / 2, &["reconnect 1"]);
    slave.on(disconnected(1), &[]);
    slave.on(connected(2), &["send 2 reregister S4"]);
}

#[test]
fn a_ping_that_says_not_registered_is_answered_by_a_registration() {
    // semantics: K2
    let mut slave = Slave::running(run(1, "t"));
    let lines = [
        "send 1 pong",
        "send 1 report F1/t RUNNING",
        "send 1 reregister S4",
    ];
    slave.hear(MasterToSlave::Ping { registered: false }, &lines);
    // Asked once, not once for each ping.
    slave.hear(MasterToSlave::Ping { registered: false }, &["send 1 pong"]);
}

#[test]
fn a_report_says_all_tasks_before_the_reregistration() {
    // semantics: K5, K6
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.hear(
        MasterToSlave::RunTask(Box::new(run(2, "u"))),
        &["persist task F2/u"],
    );
    slave.on(disconnected(1), &[]);
    slave.on(
        connected(2),
        &[
            "send 2 report F1/t RUNNING, F2/u STAGING",
            "send 2 reregister S4",
        ],
    );
}

#[test]
fn a_long_report_is_sent_in_parts() {
    let mut slave = Slave::registered();
    for n in 0..600 {
        let mut run = run(1, &format!("t{n:03}"));
        run.task.resources = "mem:1".parse().unwrap();
        slave.feed(Event::Master {
            connection: ConnectionId(1),
            message: MasterToSlave::RunTask(Box::new(run)),
        });
    }
    let mut effects = Effects::new();
    slave.core.handle(connected(2), slave.now, &mut effects);
    let sizes: Vec<usize> = effects
        .drain()
        .filter_map(|effect| match effect {
            Effect::Send {
                message: SlaveToMaster::ReportTasks { tasks },
                ..
            } => Some(tasks.len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [256, 256, 88]);
}

#[test]
fn a_master_that_does_not_lead_says_where_to_go() {
    let mut slave = Slave::registered();
    let refusal = Refusal::NotLeading {
        leader: Some("10.0.0.2:5050".to_owned()),
    };
    slave.hear(refused(refusal), &["reconnect 1 to 10.0.0.2:5050"]);
    for refusal in [Refusal::Recovering, Refusal::Stopping, Refusal::TooSlow] {
        let mut slave = Slave::registered();
        slave.hear(refused(refusal), &["reconnect 1"]);
    }
}

#[test]
fn a_refusal_that_no_retry_can_cure_ends_the_slave() {
    let other = ClusterId(8);
    for refusal in [
        Refusal::WrongCluster {
            ours: other,
            theirs: CLUSTER,
        },
        Refusal::SlaveUnknown { slave_id: SLAVE },
        Refusal::NotYours {
            what: "slave S4".to_owned(),
        },
    ] {
        let mut slave = Slave::registered();
        let line = format!("exit {}", refusal.code());
        slave.hear(refused(refusal), &[&line]);
    }
}

#[test]
fn a_deposed_master_ends_no_slave() {
    // It has not heard of a slave that its successor admitted.
    let registered_by_3 = || {
        let mut slave = Slave::new();
        slave.on(connected(1), &["send 1 register"]);
        let welcome = MasterToSlave::Registered {
            slave_id: SLAVE,
            cluster_id: CLUSTER,
            epoch: Epoch(3),
            ping_timeout: PING_TIMEOUT,
        };
        slave.hear(welcome, &["persist term 3", "persist identity S4"]);
        slave
    };
    let unknown = || Refusal::SlaveUnknown { slave_id: SLAVE };
    let of_none = MasterToSlave::Refused {
        refusal: unknown(),
        by: None,
    };
    registered_by_3().hear(of_none, &["reconnect 1"]);
    registered_by_3().hear(refused_by(2, unknown()), &["reconnect 1"]);
    registered_by_3().hear(refused_by(3, unknown()), &["exit slave_unknown"]);
    // Also in its next life, whatever of the first was durable.
    let mut first = registered_by_3();
    for records in 0..=2 {
        let mut disk = first.disk.clone();
        for (_, record) in first.writing.iter().take(records) {
            disk.apply(record.clone());
        }
        let is_known = disk.identity.is_some();
        assert!(!is_known || disk.epoch == Epoch(3));
        let mut second = Slave::with(config(), disk);
        second.expect(&["persist incarnation 2"]);
        if is_known {
            second.on(connected(1), &["send 1 reregister S4"]);
            second.hear(refused_by(2, unknown()), &["reconnect 1"]);
        } else {
            // Of which cluster the term is, nobody could tell.
            second.on(connected(1), &["send 1 register"]);
            second.hear(registered(), &["persist term 1", "persist identity S4"]);
        }
    }
    first.durable(&["send 1 term 3"]);
}

#[test]
fn a_master_of_another_cluster_is_not_obeyed() {
    let mut slave = Slave::registered();
    slave.on(disconnected(1), &[]);
    slave.on(connected(2), &["send 2 reregister S4"]);
    let message = MasterToSlave::Registered {
        slave_id: SLAVE,
        cluster_id: ClusterId(8),
        epoch: Epoch(9),
        ping_timeout: PING_TIMEOUT,
    };
    slave.on(
        Event::Master {
            connection: ConnectionId(2),
            message,
        },
        &["exit wrong_cluster"],
    );
}

#[test]
fn a_deposed_leader_is_not_obeyed() {
    let mut slave = Slave::registered();
    slave.on(disconnected(1), &[]);
    slave.on(connected(2), &["send 2 reregister S4"]);
    let message = MasterToSlave::Registered {
        slave_id: SLAVE,
        cluster_id: CLUSTER,
        epoch: Epoch(0),
        ping_timeout: PING_TIMEOUT,
    };
    slave.on(
        Event::Master {
            connection: ConnectionId(2),
            message,
        },
        &["reconnect 2"],
    );
}

#[test]
fn a_leader_that_was_deposed_in_an_earlier_life_is_not_obeyed_either() {
    let mut first = Slave::registered();
    first.on(disconnected(1), &[]);
    let welcome = |epoch| MasterToSlave::Registered {
        slave_id: SLAVE,
        cluster_id: CLUSTER,
        epoch: Epoch(epoch),
        ping_timeout: PING_TIMEOUT,
    };
    let hear = |slave: &mut Slave, connection, epoch, lines: &[&str]| {
        slave.on(connected(connection), &["send 2 reregister S4"]);
        let connection = ConnectionId(connection);
        let message = welcome(epoch);
        slave.on(
            Event::Master {
                connection,
                message,
            },
            lines,
        );
    };
    hear(&mut first, 2, 3, &["persist term 3"]);
    // Until then its next life might obey another.
    first.durable(&["send 2 term 3"]);
    let mut second = Slave::with(config(), first.disk);
    second.expect(&["persist incarnation 2"]);
    hear(&mut second, 2, 2, &["reconnect 2"]);
    hear(&mut second, 2, 3, &["send 2 term 3"]);
}

#[test]
fn orders_of_an_old_connection_or_before_registration_are_ignored() {
    let mut slave = Slave::registered();
    let order = || MasterToSlave::RunTask(Box::new(run(1, "t")));
    slave.on(disconnected(1), &[]);
    slave.on(connected(2), &["send 2 reregister S4"]);
    slave.hear(order(), &[]);
    slave.on(
        Event::Master {
            connection: ConnectionId(2),
            message: order(),
        },
        &[],
    );
    assert_eq!(slave.core.counters().messages_ignored, 2);
}

#[test]
fn an_update_is_sent_only_when_it_is_durable() {
    // semantics: I1
    let mut slave = Slave::registered();
    slave.hear(
        MasterToSlave::RunTask(Box::new(run(1, "t"))),
        &["persist task F1/t"],
    );
    slave.durable(&["start 1-1 F1/t"]);
    let started = Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    };
    slave.on(started, &["persist update F1/t RUNNING #1"]);
    slave.after(Duration::from_secs(60), &[]);
    slave.durable(&["send 1 update F1/t RUNNING #1 latest RUNNING"]);
}

#[test]
fn only_the_head_of_a_tasks_updates_is_in_flight() {
    // semantics: I1
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    let ended = Event::ContainerEnded {
        container: container(1),
        exit: exit(TaskExit::Code(0)),
    };
    slave.on(ended, &["persist update F1/t FINISHED #2"]);
    slave.durable(&[]);
    let lines = [
        "persist acknowledged F1/t #1",
        "send 1 update F1/t FINISHED #2 latest FINISHED",
    ];
    slave.acknowledge("t", 1, &lines);
    slave.acknowledge("t", 2, &["persist forgotten F1/t"]);
    assert_eq!(slave.core.tasks().count(), 0);
}

#[test]
fn an_acknowledgement_of_anything_but_the_head_changes_nothing() {
    // semantics: I3
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.acknowledge("t", 2, &[]);
    slave.acknowledge("unknown", 1, &[]);
    slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
    slave.acknowledge("t", 1, &[]);
    assert_eq!(slave.core.counters().stale_acknowledgements, 3);
}

#[test]
fn an_unacknowledged_update_is_sent_again_with_the_latest_state() {
    // semantics: I1, I4
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.after(
        Duration::from_secs(10),
        &["send 1 update F1/t RUNNING #1 latest RUNNING"],
    );
    let ended = Event::ContainerEnded {
        container: container(1),
        exit: exit(TaskExit::Code(3)),
    };
    slave.on(ended, &["persist update F1/t FAILED #2"]);
    // Not durable yet, so not to be promised.
    slave.after(
        Duration::from_secs(20),
        &["send 1 update F1/t RUNNING #1 latest RUNNING"],
    );
    slave.durable(&[]);
    slave.after(Duration::from_secs(39), &[]);
    slave.hear(MasterToSlave::Ping { registered: true }, &["send 1 pong"]);
    slave.after(
        Duration::from_secs(1),
        &["send 1 update F1/t RUNNING #1 latest FAILED"],
    );
    assert_eq!(slave.core.counters().updates_retried, 3);
}

#[test]
fn updates_go_out_at_once_to_a_new_master() {
    // semantics: I1
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.on(disconnected(1), &[]);
    slave.after(Duration::from_secs(3_600), &[]);
    slave.on(
        connected(2),
        &["send 2 report F1/t RUNNING", "send 2 reregister S4"],
    );
    let welcome = Event::Master {
        connection: ConnectionId(2),
        message: registered(),
    };
    let lines = [
        "send 2 term 1",
        "send 2 update F1/t RUNNING #1 latest RUNNING",
    ];
    slave.on(welcome, &lines);
    slave.after(
        Duration::from_secs(10),
        &["send 2 update F1/t RUNNING #1 latest RUNNING"],
    );
}

#[test]
fn many_updates_go_out_in_steps_after_a_registration() {
    let mut slave = Slave::registered();
    let tasks = (0..1_000).map(|n| ReconcileOnSlave {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(format!("t{n:04}")).unwrap(),
        started: false,
    });
    let message = MasterToSlave::ReconcileTasks {
        tasks: tasks.collect(),
    };
    slave.feed(Event::Master {
        connection: ConnectionId(1),
        message,
    });
    let record = slave.writing.last().unwrap().0;
    slave.feed(Event::Persisted { record });
    let at_once = |slave: &mut Slave, event: Event| {
        let mut effects = Effects::new();
        slave.core.handle(event, slave.now, &mut effects);
        slave.core.check_invariants();
        effects.drain().count()
    };
    let welcome = Event::Master {
        connection: ConnectionId(1),
        message: registered(),
    };
    // And the term.
    assert_eq!(at_once(&mut slave, welcome), 257);
    for expected in [256, 256, 232, 0] {
        slave.now = slave.now.after(Duration::from_millis(10));
        assert_eq!(at_once(&mut slave, Event::Tick), expected);
    }
}

#[test]
fn an_unknown_task_is_gone_if_it_had_started_and_dropped_if_not() {
    // semantics: K6
    let mut slave = Slave::running(run(1, "t"));
    let ask = |task: &str, started| ReconcileOnSlave {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(task).unwrap(),
        started,
    };
    let tasks = vec![ask("a", true), ask("b", false), ask("t", true)];
    let lines = [
        "persist update F1/a GONE #2",
        "persist update F1/b DROPPED #3",
    ];
    slave.hear(
        MasterToSlave::ReconcileTasks {
            tasks: tasks.clone(),
        },
        &lines,
    );
    // Asked again, it does not say it twice.
    slave.hear(MasterToSlave::ReconcileTasks { tasks }, &[]);
    slave.durable(&[
        "send 1 update F1/a GONE #2 latest GONE",
        "send 1 update F1/b DROPPED #3 latest DROPPED",
    ]);
    slave.acknowledge("a", 2, &["persist forgotten F1/a"]);
    let kill = |task: &str| MasterToSlave::KillTask {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(task).unwrap(),
        grace: None,
    };
    slave.hear(kill("c"), &["persist update F1/c DROPPED #4"]);
    slave.hear(kill("b"), &[]);
}

#[test]
fn questions_beyond_the_bound_go_unanswered_and_are_counted() {
    let mut slave = Slave::registered();
    let tasks = (0..=PHANTOM_TASKS_MAX).map(|n| ReconcileOnSlave {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(format!("t{n}")).unwrap(),
        started: false,
    });
    let message = MasterToSlave::ReconcileTasks {
        tasks: tasks.collect(),
    };
    slave.feed(Event::Master {
        connection: ConnectionId(1),
        message,
    });
    assert_eq!(slave.core.updates_pending(), PHANTOM_TASKS_MAX);
    assert_eq!(slave.core.counters().unanswered, 1);
}
