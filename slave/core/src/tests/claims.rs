//! Reservations and volumes: carried out, kept, and told (semantics D3, D6, D7, K8, L5).

use meros_proto::operation::{Change, ChangeKind, OperationNumber};
use meros_proto::resources::Resources;

use super::*;

fn change(number: u64, kind: ChangeKind, resources: &str) -> MasterToSlave {
    MasterToSlave::ChangeResources {
        number: OperationNumber {
            epoch: Epoch(1),
            number,
        },
        change: Box::new(Change::new(kind, resources.parse().unwrap())),
    }
}

fn connected(connection: u64) -> Event {
    let connection = ConnectionId(connection);
    Event::Connected { connection }
}

/// A slave with a volume `db` of 100 on disk reserved for `web`.
fn with_volume() -> Slave {
    let mut slave = Slave::registered();
    let reserve = change(1, ChangeKind::Reserve, "disk(web, ):100");
    slave.hear(reserve, &["persist claims disk(web, ):100"]);
    let create = change(2, ChangeKind::Create, "disk(web, )[db:data]:100");
    slave.hear(create, &["persist claims disk(web, )[db:data]:100"]);
    slave.durable(&["send 1 applied 1", "send 1 applied 2"]);
    slave
}

fn with_task(resources: &str) -> RunTask {
    let mut run = run(1, "t");
    run.task.resources = resources.parse().unwrap();
    run.role = "web".parse().unwrap();
    run
}

#[test]
fn an_operation_is_confirmed_when_it_is_durable_and_survives_a_restart() {
    let mut slave = Slave::registered();
    let reserve = change(1, ChangeKind::Reserve, "cpus(web, ):1;disk(web, ):100");
    slave.hear(reserve, &["persist claims cpus(web, ):1;disk(web, ):100"]);
    slave.durable(&["send 1 applied 1"]);
    let total = "cpus:3;cpus(web, ):1;mem:4096;disk:900;disk(web, ):100;ports:[31000-32000]";
    let total: Resources = total.parse().unwrap();
    assert_eq!(*slave.core.total(), total);
    assert_eq!(*slave.core.free(), total);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    assert_eq!(*slave.core.total(), total);
    slave.on(
        connected(1),
        &[
            "send 1 claims cpus(web, ):1;disk(web, ):100 +1",
            "send 1 reregister S4",
        ],
    );
}

#[test]
fn a_crash_before_it_is_durable_undoes_it_and_nobody_was_told() {
    let mut slave = Slave::registered();
    let reserve = change(1, ChangeKind::Reserve, "cpus(web, ):1");
    slave.hear(reserve, &["persist claims cpus(web, ):1"]);
    let slave = slave.restarted();
    assert_eq!(*slave.core.total(), config().slave.resources);
}

#[test]
fn a_slave_registers_with_what_is_durable() {
    let mut slave = Slave::registered();
    let reserve = change(1, ChangeKind::Reserve, "cpus(web, ):1");
    slave.hear(reserve, &["persist claims cpus(web, ):1"]);
    let gone = Event::Disconnected {
        connection: ConnectionId(1),
    };
    slave.on(gone, &[]);
    slave.on(connected(2), &[]);
    slave.durable(&["send 2 claims cpus(web, ):1 +1", "send 2 reregister S4"]);
}

#[test]
fn an_operation_that_cannot_be_done_makes_the_slave_report_what_it_has() {
    let mut slave = Slave::running(run(1, "t"));
    for (number, kind, bad) in [
        (1, ChangeKind::Reserve, "cpus(web, ):4"),
        (2, ChangeKind::Unreserve, "cpus(web, ):1"),
        (3, ChangeKind::Destroy, "disk(web, )[db:data]:1"),
    ] {
        slave.hear(
            change(number, kind, bad),
            &["persist claims ", "reconnect 1"],
        );
        slave.on(connected(1), &[]);
        let decided: Vec<String> = (1..=number).map(|it| format!("-{it}")).collect();
        let claims = format!("send 1 claims  {}", decided.join(" "));
        slave.durable(&[
            &claims,
            "send 1 report F1/t RUNNING",
            "send 1 reregister S4",
        ]);
        slave.hear(registered(), &["send 1 term 1"]);
    }
    assert_eq!(slave.core.counters().changes_refused, 3);
    assert_eq!(*slave.core.total(), config().slave.resources);
}

#[test]
fn a_task_finds_its_volume_and_the_next_one_the_same_directory() {
    let mut slave = with_volume();
    let order = with_task("cpus:1;disk(web, )[db:data]:100");
    slave.hear(
        MasterToSlave::RunTask(Box::new(order.clone())),
        &["persist task F1/t"],
    );
    let mounted = slave.core.mounted(&order.task.resources);
    assert_eq!(mounted.len(), 1);
    assert_eq!(mounted[0].directory.as_str(), "db.1");
    assert_eq!(mounted[0].container_path, "data");
    slave.durable(&["start 1-1 F1/t"]);
    let destroy = change(3, ChangeKind::Destroy, "disk(web, )[db:data]:100");
    slave.hear(
        destroy,
        &["persist claims disk(web, )[db:data]:100", "reconnect 1"],
    );
    slave.durable(&[]);
    let slave = slave.restarted();
    assert_eq!(slave.core.mounted(&order.task.resources), mounted);
}

#[test]
fn a_destroyed_volume_is_wiped_when_that_is_durable_and_again_after_a_crash() {
    let mut slave = with_volume();
    let destroy = change(3, ChangeKind::Destroy, "disk(web, )[db:data]:100");
    slave.hear(destroy, &["persist claims disk(web, ):100"]);
    let create = change(4, ChangeKind::Create, "disk(web, )[db:data]:50");
    slave.hear(
        create,
        &["persist claims disk(web, ):50;disk(web, )[db:data]:50"],
    );
    slave.durable(&["send 1 applied 3", "wipe db.1", "send 1 applied 4"]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2", "wipe db.1"]);
    let volumes = slave.core.claims().volumes.values();
    let names: Vec<&str> = volumes.map(VolumeDirectory::as_str).collect();
    assert_eq!(names, ["db.2"], "never the name of another one");
    let directory = slave.core.claims().wiping.first().unwrap().clone();
    slave.on(
        Event::VolumeWiped { directory },
        &["persist claims disk(web, ):50;disk(web, )[db:data]:50"],
    );
    slave.durable(&[]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 3"]);
}

#[test]
fn a_volume_that_grows_and_shrinks_keeps_its_directory_over_a_restart() {
    // semantics: D7
    let mut slave = with_volume();
    slave.hear(
        change(3, ChangeKind::Reserve, "disk(web, ):50"),
        &["persist claims disk(web, ):50;disk(web, )[db:data]:100"],
    );
    slave.hear(
        change(
            4,
            ChangeKind::Grow,
            "disk(web, ):50;disk(web, )[db:data]:100",
        ),
        &["persist claims disk(web, )[db:data]:150"],
    );
    slave.durable(&["send 1 applied 3", "send 1 applied 4"]);
    let order = with_task("cpus:1;disk(web, )[db:data]:150");
    let mounted = slave.core.mounted(&order.task.resources);
    assert_eq!(mounted[0].directory.as_str(), "db.1");
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    slave.on(
        connected(1),
        &[
            "send 1 claims disk(web, )[db:data]:150 +1 +2 +3 +4",
            "send 1 reregister S4",
        ],
    );
    slave.durable(&[]);
    slave.hear(registered(), &["send 1 term 1"]);
    slave.hear(
        change(
            5,
            ChangeKind::Shrink,
            "disk(web, ):149;disk(web, )[db:data]:1",
        ),
        &["persist claims disk(web, ):149;disk(web, )[db:data]:1"],
    );
    let total =
        "cpus:4;mem:4096;disk:850;disk(web, ):149;disk(web, )[db:data]:1;ports:[31000-32000]";
    assert_eq!(*slave.core.total(), total.parse::<Resources>().unwrap());
    assert_eq!(slave.core.total(), slave.core.free());
    // Before it is durable nobody is told, and a crash undoes it as a whole.
    let slave = slave.restarted();
    let claims = slave.core.claims();
    assert_eq!(claims.resources.to_string(), "disk(web, )[db:data]:150");
    let names: Vec<&str> = claims
        .volumes
        .values()
        .map(VolumeDirectory::as_str)
        .collect();
    assert_eq!((names, claims.wiping.len()), (vec!["db.1"], 0));
}

#[test]
fn a_volume_that_a_task_uses_is_not_resized() {
    let has = "persist claims disk(web, ):50;disk(web, )[db:data]:100";
    for (kind, pieces) in [
        (ChangeKind::Grow, "disk(web, ):50;disk(web, )[db:data]:100"),
        (ChangeKind::Shrink, "disk(web, ):50;disk(web, )[db:data]:50"),
    ] {
        let mut slave = with_volume();
        slave.hear(change(3, ChangeKind::Reserve, "disk(web, ):50"), &[has]);
        slave.durable(&["send 1 applied 3"]);
        slave.start(with_task("cpus:1;disk(web, )[db:data]:100"));
        slave.hear(change(4, kind, pieces), &[has, "reconnect 1"]);
        let decided = slave.core.claims().decided.back();
        let why = decided.and_then(|it| it.refused.as_deref()).unwrap();
        assert!(why.contains("wanted"), "{why}");
    }
}

#[test]
fn a_volume_that_is_being_left_is_neither_given_out_nor_changed() {
    for (kind, changed) in [
        (ChangeKind::Destroy, "disk(web, )[db:data]:100"),
        (ChangeKind::Shrink, "disk(web, ):50;disk(web, )[db:data]:50"),
    ] {
        let mut slave = with_volume();
        let order = with_task("cpus:1;disk(web, )[db:data]:100");
        slave.start(order.clone());
        let framework_id = FrameworkId(1);
        slave.feed(Event::Master {
            connection: ConnectionId(1),
            message: MasterToSlave::ShutdownFramework { framework_id },
        });
        slave.expect(&["persist shutdown F1", "kill 1-1 3s"]);
        let mut other = order;
        other.framework.framework_id = FrameworkId(2);
        slave.hear(
            MasterToSlave::RunTask(Box::new(other)),
            &["persist update F2/t DROPPED #2"],
        );
        slave.hear(
            change(3, kind, changed),
            &["persist claims disk(web, )[db:data]:100", "reconnect 1"],
        );
    }
}

#[test]
fn claims_stay_when_the_id_is_given_up() {
    // semantics: K8
    let mut slave = with_volume();
    slave.disk.apply(Record::Left);
    let mut slave = slave.restarted();
    // Of what it has answered nobody wants to know any more.
    slave.expect(&[
        "persist incarnation 2",
        "persist claims disk(web, )[db:data]:100",
    ]);
    slave.on(connected(1), &[]);
    slave.durable(&["send 1 claims disk(web, )[db:data]:100 ", "send 1 register"]);
}

#[test]
fn claims_that_do_not_fit_what_is_declared_are_found_before_the_start() {
    let slave = with_volume();
    let declared: Resources = "cpus:4;disk:99".parse().unwrap();
    assert!(slave.disk.total(&declared).is_err());
    assert!(slave.disk.total(&config().slave.resources).is_ok());
}

#[test]
fn only_the_latest_answers_are_kept() {
    let mut slave = Slave::registered();
    for number in 0..meros_proto::operation::OPERATIONS_PENDING_MAX as u64 + 9 {
        let kind = match number % 2 {
            0 => ChangeKind::Reserve,
            _ => ChangeKind::Unreserve,
        };
        slave.feed(Event::Master {
            connection: ConnectionId(1),
            message: change(number, kind, "cpus(web, ):1"),
        });
    }
    let first = slave.core.claims().decided.front().unwrap();
    assert_eq!(first.number.number, 9);
}
