//! Slaves that operators take out (semantics K7, K9, K10, H5, Q7).

use meros_proto::ids::{FrameworkId, SlaveId, UpdateId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::slave::SlaveMode;
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, SlaveView};

use super::world::{CLUSTER, World, check, framework, report, secs, slave, task};
use crate::registry::GONE_FOR;
use crate::{Command, Event, OperatorCall, Registry};

const S0: SlaveId = SlaveId(0);

fn set(mode: SlaveMode) -> OperatorCall {
    OperatorCall::SetSlaveMode { slave_id: S0, mode }
}

fn drain(mark_gone: bool) -> OperatorCall {
    set(SlaveMode::Draining {
        grace: Some(secs(9)),
        mark_gone,
    })
}

fn view(world: &World) -> &SlaveView {
    let views = world.changes.iter().rev().find_map(|change| match change {
        ClusterChange::Slave(view) => Some(view),
        _ => None,
    });
    views.expect("a slave was published")
}

#[test]
fn a_deactivated_slave_is_not_offered_and_its_tasks_go_on() {
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    world.accept(f, &[1], vec![task("t", S0, "cpus:1")]);
    world.pass(secs(61));
    check(
        world.operator(1, set(SlaveMode::Deactivated)),
        &["f2 rescind O1-2", "reply 1 done"],
    );
    assert_eq!(view(&world).mode, SlaveMode::Deactivated);
    check(world.pass(secs(10)), &[]);
    assert_eq!(world.core.tasks.iter().count(), 1);
    check(
        world.operator(2, set(SlaveMode::Active)),
        &["reply 2 done", "f2 offers O1-3 S0 * cpus:3"],
    );
}

#[test]
fn a_draining_slave_kills_its_tasks_and_is_drained_once_all_is_acknowledged() {
    // semantics: K10, G2
    let (mut world, s, f) = World::with_a_running_task();
    check(
        world.operator(1, drain(false)),
        &["s1 kill F0 t grace=9s", "reply 1 done"],
    );
    assert!(!view(&world).is_drained);
    check(
        world.update(s, "t", TaskState::Killed),
        &["f2 t TASK_KILLED by Slave on S0 SlaveDraining #2"],
    );
    assert!(!view(&world).is_drained, "its framework may not know yet");
    check(world.acknowledge(f, "t", UpdateId(2)), &["s1 ack F0 t #2"]);
    assert!(view(&world).is_drained);
    check(world.pass(secs(10)), &[]);
    check(
        world.operator(2, set(SlaveMode::Active)),
        &["reply 2 done", "f2 offers O1-2 S0 * cpus:4;mem:1024"],
    );
    assert!(!view(&world).is_drained);
}

#[test]
fn a_drain_goes_on_after_a_failover_and_after_the_slave_was_away() {
    // semantics: J1, K10
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    check(world.operator(1, drain(false)), &["reply 1 done"]);
    let mut next = world.after_failover();
    assert!(!view(&next).is_drained, "nobody knows what runs there yet");
    let reported = report(FrameworkId(0), "t", S0, TaskState::Running);
    let (s, lines) = next.reregister(S0, "cpus:4;mem:1024", vec![reported]);
    let kill = format!("s{} kill F0 t grace=9s", s.0);
    assert!(lines.contains(&kill), "{lines:?}");
    next.update(s, "t", TaskState::Killed);
    // Its framework is away: the end waits for it, and so does the drain.
    assert!(!view(&next).is_drained);
    let (s, lines) = world.reregister(
        S0,
        "cpus:4;mem:1024",
        vec![report(FrameworkId(0), "t", S0, TaskState::Running)],
    );
    let kill = format!("s{} kill F0 t grace=9s", s.0);
    assert!(lines.contains(&kill), "{lines:?}");
}

#[test]
fn a_drain_that_is_called_off_kills_nothing_more() {
    // semantics: Q7
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    world.operator(1, drain(false));
    world.operator(2, set(SlaveMode::Active));
    let (_, lines) = world.reregister(
        S0,
        "cpus:4;mem:1024",
        vec![report(FrameworkId(0), "t", S0, TaskState::Running)],
    );
    assert!(!lines.iter().any(|line| line.contains("kill")), "{lines:?}");
}

#[test]
fn a_kill_by_the_framework_is_not_taken_for_the_drain() {
    let (mut world, s, f) = World::with_a_running_task();
    world.kill(f, "t");
    world.operator(1, drain(false));
    let lines = world.update(s, "t", TaskState::Killed);
    check(lines, &["f2 t TASK_KILLED by Slave on S0 #2"]);
}

#[test]
fn a_slave_that_is_gone_is_told_so_and_never_comes_back() {
    // semantics: K7, H5
    let (mut world, _, f) = World::with_a_running_task();
    let gone = || OperatorCall::MarkSlaveGone { slave_id: S0 };
    check(
        world.operator(1, gone()),
        &[
            "f2 t TASK_GONE_BY_OPERATOR by Master on S0 SlaveRemovedByOperator #m1",
            "f2 failure S0",
            "reply 1 done",
            "s1 refused slave_gone",
            "close 1 slave_gone",
        ],
    );
    assert!(world.core.slaves.get(S0).is_none());
    let again = |world: &mut World| {
        let connection = world.connect_slave("slave");
        let message = SlaveToMaster::Reregister {
            slave_id: S0,
            cluster_id: CLUSTER,
            slave: slave("cpus:4"),
        };
        let lines = world.slave_says(connection, message);
        lines[0].clone()
    };
    assert!(again(&mut world).ends_with("refused slave_gone"));
    check(
        world.reconcile(f, &[("u", Some(0))]),
        &["f2 u TASK_GONE_BY_OPERATOR by Master on S0 Reconciliation"],
    );
    check(world.operator(2, gone()), &["reply 2 slave_gone"]);
    check(world.operator(3, drain(false)), &["reply 3 slave_gone"]);
    let mut next = world.after_failover();
    assert!(again(&mut next).ends_with("refused slave_gone"));
    let nobody = OperatorCall::MarkSlaveGone {
        slave_id: SlaveId(9),
    };
    check(next.operator(4, nobody), &["reply 4 no_such_slave"]);
}

#[test]
fn who_waits_for_a_slave_to_be_gone_is_answered_when_another_commit_came_first() {
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    world.commits = false;
    check(world.pass(secs(90)), &["propose MarkSlaveUnreachable"]);
    let slave_id = S0;
    check(
        world.operator(1, OperatorCall::MarkSlaveGone { slave_id }),
        &[],
    );
    // Of the leader before: ours changes nothing after it.
    let at = Timestamp(1);
    let command = Command::MarkSlaveUnreachable { slave_id, at };
    world.committed.push(command.clone());
    let proposal = None;
    world.handle(Event::Committed { proposal, command });
    check(world.commit_next(), &["propose MarkSlaveGone"]);
    let lines = world.commit_next();
    assert!(lines.contains(&"reply 1 done".to_owned()), "{lines:?}");
}

#[test]
fn a_drain_may_end_in_being_gone() {
    // semantics: K10
    let (mut world, s, f) = World::with_a_running_task();
    world.operator(1, drain(true));
    world.update(s, "t", TaskState::Killed);
    let lines = world.acknowledge(f, "t", UpdateId(2));
    assert!(
        lines.contains(&"s1 refused slave_gone".to_owned()),
        "{lines:?}"
    );
    assert!(world.core.registry().is_gone_slave(S0));
}

#[test]
fn a_grace_beyond_reason_is_refused() {
    let mut world = World::new();
    world.slave("cpus:1");
    let mode = SlaveMode::Draining {
        grace: Some(secs(3_601)),
        mark_gone: false,
    };
    check(world.operator(1, set(mode)), &["reply 1 invalid"]);
}

#[test]
fn what_was_gone_is_forgotten_after_two_weeks() {
    // semantics: K9
    let mut registry = Registry::default();
    let mut apply = |command: Command| registry.apply(&command).expect("it fits");
    apply(Command::FormCluster {
        cluster_id: CLUSTER,
    });
    let at = Timestamp(1);
    for number in 0..2 {
        apply(Command::AdmitSlave {
            slave_id: SlaveId(number),
            principal: "slave".to_owned(),
            slave: slave("cpus:1"),
            at,
        });
    }
    apply(Command::MarkSlaveGone { slave_id: S0, at });
    apply(Command::MarkSlaveGone {
        slave_id: SlaveId(1),
        at: at.after(GONE_FOR),
    });
    assert!(!registry.is_gone_slave(S0) && registry.is_gone_slave(SlaveId(1)));
}
