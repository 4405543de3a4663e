//! Reservations and volumes by frameworks and operators (semantics D3, D5 to D7, E5, E8, O2).

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, OperationId, SlaveId};
use meros_proto::message::master::{FrameworkToMaster, ReconcileOperation, SlaveToMaster};
use meros_proto::offer::{Filters, Operation};
use meros_proto::operation::{
    Change, ChangeKind, DecidedOperation, OPERATIONS_PENDING_MAX, OperationNumber,
    ResourceOperation,
};
use meros_proto::task::TaskDescription;
use meros_proto::view::ClusterChange;

use super::world::{CLUSTER, World, check, offer, resources, role, secs, slave, task};
use crate::event::{ConnectionId, OperatorCall};

const S0: SlaveId = SlaveId(0);

fn web() -> FrameworkDescription {
    FrameworkDescription::new("test", role("web"))
}

fn step(id: &str, kind: ChangeKind, text: &str) -> Operation {
    let operation_id = (!id.is_empty()).then(|| OperationId::new(id).expect("a good id"));
    Operation::Change(Box::new(ResourceOperation {
        operation_id,
        change: Change::new(kind, resources(text)),
    }))
}

fn launch(task: TaskDescription) -> Operation {
    Operation::Launch(vec![task])
}

fn number(number: u64) -> OperationNumber {
    let epoch = Epoch(1);
    OperationNumber { epoch, number }
}

/// An accept of the only offer, with its rest refused for long.
fn accept(world: &mut World, f: ConnectionId, operations: Vec<Operation>) -> Vec<String> {
    let offers = world.core.offers.iter().map(|(number, _)| offer(number));
    let message = FrameworkToMaster::Accept {
        offer_ids: offers.collect(),
        operations,
        filters: Filters { refuse: secs(60) },
    };
    world.framework_says(f, message)
}

fn total(world: &World) -> String {
    let total = world.core.allocator.total(S0);
    total.expect("it takes part").to_string()
}

fn applied(world: &mut World, s: ConnectionId, at: u64) -> Vec<String> {
    let number = number(at);
    world.slave_says(s, SlaveToMaster::ChangeApplied { number })
}

fn order(world: &mut World, kind: ChangeKind, text: &str) -> Vec<String> {
    let change = Box::new(Change::new(kind, resources(text)));
    world.operator(
        1,
        OperatorCall::ChangeResources {
            slave_id: S0,
            change,
        },
    )
}

#[test]
fn operations_of_one_accept_are_done_in_order_each_on_what_is_left() {
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024;disk:100");
    let f = world.framework(web());
    let uses = task("t", S0, "cpus(web, ):1;disk(web, )[db:data]:40");
    let lines = accept(
        &mut world,
        f,
        vec![
            step("r", ChangeKind::Reserve, "cpus(web, ):1;disk(web, ):60"),
            step("c", ChangeKind::Create, "disk(web, )[db:data]:40"),
            launch(uses),
            step("", ChangeKind::Unreserve, "disk(web, ):20"),
        ],
    );
    assert_eq!(
        lines,
        [
            "s1 reserve 1 cpus(web, ):1;disk(web, ):60",
            "s1 create 2 disk(web, )[db:data]:40",
            "s1 run F0 t cpus(web, ):1;disk(web, )[db:data]:40",
            "s1 unreserve 3 disk(web, ):20",
        ]
    );
    assert_eq!(
        total(&world),
        "cpus:3;cpus(web, ):1;mem:1024;disk:60;disk(web, )[db:data]:40"
    );
    let Some(ClusterChange::Slave(view)) = world
        .changes
        .iter()
        .rfind(|it| matches!(it, ClusterChange::Slave(_)))
    else {
        panic!("nothing was published");
    };
    assert_eq!(view.resources.to_string(), total(&world));
    assert_eq!(applied(&mut world, s, 1), ["f2 r OPERATION_FINISHED"]);
    assert_eq!(applied(&mut world, s, 2), ["f2 c OPERATION_FINISHED"]);
    assert_eq!(applied(&mut world, s, 3), [""; 0]);
    assert_eq!(applied(&mut world, s, 3), [""; 0], "twice");
    assert_eq!(world.core.counters().stale_operation_answers, 1);
}

#[test]
fn what_cannot_be_changed_is_refused_and_what_needed_it_is_an_error() {
    let cases = [
        ("cpus(web, ):5", "more than the offers have"),
        ("cpus(other,):1", "it is reserved for `other`"),
        ("cpus(web,somebody):1", "`somebody` is not the name"),
        ("cpus:1", "it is not reserved"),
    ];
    for (text, why) in cases {
        let mut world = World::new();
        world.slave("cpus:4;mem:1024;disk:100");
        let f = world.framework(web());
        let operations = vec![
            step("r", ChangeKind::Reserve, text),
            launch(task("t", S0, "cpus(web, ):1")),
        ];
        let lines = accept(&mut world, f, operations);
        assert_eq!(lines[0], "f2 r OPERATION_ERROR", "{text}");
        let [reason] = &world.reasons[..] else {
            panic!("{text}: {:?}", world.reasons);
        };
        assert!(reason.contains(why), "{text}: {reason}");
        assert!(lines[1].starts_with("f2 t TASK_ERROR"), "{lines:?}");
        assert_eq!(total(&world), "cpus:4;mem:1024;disk:100");
    }
    let mut world = World::new();
    world.slave("cpus:4;mem:1024;disk:100");
    let f = world.framework(web());
    let nameless = vec![step("", ChangeKind::Reserve, "cpus(web, ):5")];
    assert_eq!(
        accept(&mut world, f, nameless),
        ["f2 refused Accept invalid"]
    );
}

#[test]
fn a_volume_is_unique_in_its_role_and_only_its_own_role_changes_it() {
    // semantics: D6, D7
    let mut world = World::new();
    world.slave("cpus:4;mem:1024;disk(web):100");
    let f = world.framework(web());
    let create = |path: &str| {
        let text = format!("disk(web)[db:{path}]:10");
        step("c", ChangeKind::Create, &text)
    };
    let lines = accept(&mut world, f, vec![create("a"), create("b")]);
    assert_eq!(
        lines,
        ["s1 create 1 disk(web)[db:a]:10", "f2 c OPERATION_ERROR"]
    );
    let lines = order(&mut world, ChangeKind::Create, "disk(web)[db:c]:10");
    assert_eq!(lines, ["reply 1 invalid"]);
    let lines = order(&mut world, ChangeKind::Unreserve, "disk(web):10");
    assert_eq!(lines, ["reply 1 invalid"], "it is static");
}

/// A slave with a volume `db` of 40 and 20 of disk like it, and 10 that is reserved otherwise.
fn with_db(world: &mut World) -> (ConnectionId, ConnectionId) {
    let s = world.slave("cpus:4;mem:1024;disk:100");
    let f = world.framework(web());
    for text in ["disk(web, ):60", "disk(web, ,k=v):10"] {
        order(world, ChangeKind::Reserve, text);
    }
    order(world, ChangeKind::Create, "disk(web, )[db:data]:40");
    (s, f)
}

#[test]
fn a_volume_grows_is_used_and_shrinks_in_one_accept() {
    // semantics: D3, D7
    let mut world = World::new();
    let (s, f) = with_db(&mut world);
    let rest = "cpus:4;mem:1024;disk:30;disk(web, ,k=v):10";
    assert_eq!(
        total(&world),
        resources(&format!("{rest};disk(web, ):20;disk(web, )[db:data]:40")).to_string()
    );
    let lines = accept(
        &mut world,
        f,
        vec![
            step(
                "g",
                ChangeKind::Grow,
                "disk(web, )[db:data]:40;disk(web, ):20",
            ),
            step(
                "s",
                ChangeKind::Shrink,
                "disk(web, )[db:data]:55;disk(web, ):5",
            ),
            launch(task("t", S0, "cpus:1;disk(web, )[db:data]:55")),
            // It is in use now.
            step(
                "u",
                ChangeKind::Grow,
                "disk(web, )[db:data]:55;disk(web, ):5",
            ),
            step("v", ChangeKind::Unreserve, "disk(web, ):5"),
        ],
    );
    assert_eq!(
        lines,
        [
            "s1 grow 4 disk(web, ):20;disk(web, )[db:data]:40",
            "s1 shrink 5 disk(web, ):5;disk(web, )[db:data]:55",
            "s1 run F0 t cpus:1;disk(web, )[db:data]:55",
            "f2 u OPERATION_ERROR",
            "s1 unreserve 6 disk(web, ):5",
        ]
    );
    assert!(
        world
            .reasons
            .iter()
            .any(|why| why.contains("more than the offers have")),
        "{:?}",
        world.reasons
    );
    let after = "cpus:4;mem:1024;disk:35;disk(web, ,k=v):10;disk(web, )[db:data]:55";
    assert_eq!(total(&world), resources(after).to_string());
    for (at, told) in [
        (1, None),
        (2, None),
        (3, None),
        (4, Some("f2 g")),
        (5, Some("f2 s")),
    ] {
        let told = told.map(|told| format!("{told} OPERATION_FINISHED"));
        assert_eq!(applied(&mut world, s, at), Vec::from_iter(told), "{at}");
    }
    let lines = order(
        &mut world,
        ChangeKind::Shrink,
        "disk(web, )[db:data]:50;disk(web, ):5",
    );
    assert_eq!(lines, ["reply 1 not_enough"], "a task uses it");
}

#[test]
fn a_volume_that_cannot_be_resized_so_is_refused_and_stays_what_it_is() {
    // semantics: D7, O2
    for (kind, pieces, why) in [
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]:40;disk(web, ):21",
            "more than",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]:41;disk(web, ):1",
            "more than",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[log:data]:40;disk(web, ):1",
            "more than",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]:40;disk:1",
            "in the same way",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]:40;disk(web, ,k=v):1",
            "in the same way",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]:40",
            "in the same way",
        ),
        (
            ChangeKind::Grow,
            "disk(web, )[db:data]{SHA}:40;disk(web, ):1",
            "is shared",
        ),
        (
            ChangeKind::Grow,
            "disk(other,)[db:data]:40;disk(other,):1",
            "reserved for `other`",
        ),
        (
            ChangeKind::Shrink,
            "disk(web, )[db:data]:20;disk(web, ):19",
            "more than",
        ),
        (
            ChangeKind::Shrink,
            "disk(web, )[db:data]:0.5;disk(web, ):39.5",
            "keeps at least 1",
        ),
    ] {
        let mut world = World::new();
        let (_, f) = with_db(&mut world);
        let before = total(&world);
        let orders = order(&mut world, kind, pieces);
        let code = match why {
            "more than" | "reserved for `other`" => "reply 1 not_enough",
            _ => "reply 1 invalid",
        };
        assert_eq!(orders, [code], "{pieces}");
        let lines = accept(&mut world, f, vec![step("x", kind, pieces)]);
        assert_eq!(lines, ["f2 x OPERATION_ERROR"], "{pieces}");
        let said = world.reasons.last().expect("a reason");
        assert!(said.contains(why), "{pieces}: {said}");
        assert_eq!(total(&world), before, "{pieces}");
    }
}

#[test]
fn an_operator_resizes_a_volume_that_is_offered() {
    // semantics: E5, O2
    let mut world = World::new();
    let (_, _) = with_db(&mut world);
    let pieces = "disk(web, ):20;disk(web, )[db:data]:40";
    for (kind, has) in [
        (ChangeKind::Grow, "disk(web, )[db:data]:60"),
        (ChangeKind::Shrink, pieces),
    ] {
        let lines = order(&mut world, kind, pieces);
        assert!(lines[0].starts_with("f2 rescind"), "{lines:?}");
        assert!(lines.contains(&"reply 1 done".to_owned()), "{lines:?}");
        let all = world.core.allocator.total(S0).expect("it takes part");
        assert!(all.contains(&resources(has)), "{all}");
        let offered = lines.last().expect("it is offered again");
        assert!(offered.contains(has), "{lines:?}");
    }
}

#[test]
fn an_accept_of_void_offers_fails_as_a_whole() {
    // semantics: E6
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(web());
    let message = FrameworkToMaster::Accept {
        offer_ids: vec![offer(9)],
        operations: vec![
            step("r", ChangeKind::Reserve, "cpus(web, ):1"),
            step("", ChangeKind::Reserve, "cpus(web, ):1"),
        ],
        filters: Filters::default(),
    };
    let lines = world.framework_says(f, message);
    assert_eq!(lines, ["f2 r OPERATION_ERROR", "f2 refused Accept invalid"]);
}

#[test]
fn an_operator_takes_offers_back_and_is_refused_what_tasks_use() {
    // semantics: E5, O1, O2
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(web());
    accept(&mut world, f, vec![launch(task("t", S0, "cpus:3;mem:10"))]);
    world.pass(secs(61));
    let lines = order(&mut world, ChangeKind::Reserve, "cpus(web, ):2");
    assert_eq!(lines, ["reply 1 not_enough"]);
    assert_eq!(
        world.core.offers.iter().count(),
        1,
        "nothing was taken back"
    );
    let lines = order(&mut world, ChangeKind::Reserve, "cpus(web, ):1");
    assert!(lines[0].starts_with("f2 rescind"), "{lines:?}");
    assert_eq!(lines[1], "s1 reserve 1 cpus(web, ):1");
    assert_eq!(lines[2], "reply 1 done");
    assert!(
        lines[3].contains("cpus(web, ):1"),
        "it is offered: {lines:?}"
    );
    assert_eq!(total(&world), "cpus:3;cpus(web, ):1;mem:1024");
    let lines = order(&mut world, ChangeKind::Unreserve, "cpus(web, ):1");
    assert!(lines.contains(&"reply 1 done".to_owned()), "{lines:?}");
    assert_eq!(total(&world), "cpus:4;mem:1024");
    let nobody = OperatorCall::ChangeResources {
        slave_id: SlaveId(7),
        change: Box::new(Change::new(ChangeKind::Reserve, resources("cpus(web, ):1"))),
    };
    assert_eq!(world.operator(2, nobody), ["reply 2 no_such_slave"]);
}

/// A slave with an operation on its way whose connection breaks and that comes back with these.
fn back_with(claims: &str, decided: Vec<DecidedOperation>) -> (World, Vec<String>) {
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024");
    let f = world.framework(web());
    let operations = vec![
        step("r", ChangeKind::Reserve, "cpus(web, ):1"),
        launch(task("t", S0, "cpus(web, ):1")),
    ];
    accept(&mut world, f, operations);
    world.disconnect(s);
    let connection = world.connect_slave("slave");
    let claims = SlaveToMaster::ReportClaims {
        claims: resources(claims),
        decided,
    };
    assert_eq!(world.slave_says(connection, claims), [""; 0]);
    let message = SlaveToMaster::Reregister {
        slave_id: S0,
        cluster_id: CLUSTER,
        slave: slave("cpus:4;mem:1024"),
    };
    let lines = world.slave_says(connection, message);
    (world, lines)
}

#[test]
fn a_slave_that_comes_back_has_the_last_word() {
    let refused = |why: Option<&str>| {
        let refused = why.map(str::to_owned);
        vec![DecidedOperation {
            number: number(1),
            refused,
        }]
    };
    let (world, lines) = back_with("cpus(web, ):1", refused(None));
    assert!(lines.contains(&"f2 r OPERATION_FINISHED".to_owned()));
    assert!(lines.contains(&"s3 reconcile F0 t started=false".to_owned()));
    assert_eq!(total(&world), "cpus:3;cpus(web, ):1;mem:1024");
    for (decided, state) in [
        (refused(Some("no")), "f2 r OPERATION_FAILED"),
        (Vec::new(), "f2 r OPERATION_DROPPED"),
    ] {
        let (world, lines) = back_with("", decided);
        assert!(lines.contains(&state.to_owned()), "{lines:?}");
        // What it was launched on is not there, so it cannot be.
        let dropped = "f2 t TASK_DROPPED by Master on S0 ResourcesUnknown #m1";
        assert!(lines.contains(&dropped.to_owned()), "{lines:?}");
        assert_eq!(total(&world), "cpus:4;mem:1024");
        assert_eq!(world.core.counters().tasks_uncharged, 0);
    }
}

#[test]
fn a_new_leader_learns_claims_from_the_slave_and_from_nobody_else() {
    let (world, _) = back_with("cpus(web, ):1", Vec::new());
    let mut next = world.after_failover();
    let connection = next.connect_slave("slave");
    let claims = SlaveToMaster::ReportClaims {
        claims: resources("cpus(web, ):1"),
        decided: Vec::new(),
    };
    next.slave_says(connection, claims);
    let message = SlaveToMaster::Reregister {
        slave_id: S0,
        cluster_id: CLUSTER,
        slave: slave("cpus:4;mem:1024"),
    };
    let lines = next.slave_says(connection, message);
    assert!(lines[0].ends_with("registered S0"), "{lines:?}");
    assert_eq!(total(&next), "cpus:3;cpus(web, ):1;mem:1024");
}

#[test]
fn a_slave_that_claims_what_it_does_not_declare_is_refused() {
    for bad in ["cpus(web, ):5", "cpus(web):1", "cpus:1"] {
        let mut world = World::new();
        let connection = world.connect_slave("slave");
        let claims = SlaveToMaster::ReportClaims {
            claims: resources(bad),
            decided: Vec::new(),
        };
        world.slave_says(connection, claims);
        let slave = slave("cpus:4;mem:1024");
        let lines = world.slave_says(connection, SlaveToMaster::Register { slave });
        assert!(lines[0].contains("refused invalid"), "{bad}: {lines:?}");
    }
    let mut world = World::new();
    let connection = world.connect_slave("slave");
    let slave = slave("cpus(web, ):4");
    let lines = world.slave_says(connection, SlaveToMaster::Register { slave });
    assert!(lines[0].contains("refused invalid"), "{lines:?}");
}

#[test]
fn operations_that_a_slave_does_not_answer_are_bounded() {
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024");
    for at in 0..OPERATIONS_PENDING_MAX {
        let kind = match at % 2 {
            0 => ChangeKind::Reserve,
            _ => ChangeKind::Unreserve,
        };
        order(&mut world, kind, "cpus(web, ):1");
    }
    let one_more = order(&mut world, ChangeKind::Reserve, "cpus(web, ):1");
    assert_eq!(one_more, ["reply 1 over_limit"]);
    applied(&mut world, s, 1);
    let lines = order(&mut world, ChangeKind::Reserve, "cpus(web, ):1");
    assert!(lines.contains(&"reply 1 done".to_owned()), "{lines:?}");
}

#[test]
fn a_slave_is_drained_when_it_has_answered() {
    // semantics: K10
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024");
    order(&mut world, ChangeKind::Reserve, "cpus(web, ):1");
    let mode = meros_proto::slave::SlaveMode::Draining {
        grace: None,
        mark_gone: false,
    };
    let slave_id = S0;
    world.operator(2, OperatorCall::SetSlaveMode { slave_id, mode });
    let is_drained = |world: &World| world.core.slaves.get(S0).is_some_and(|it| it.is_drained);
    assert!(!is_drained(&world));
    applied(&mut world, s, 1);
    assert!(is_drained(&world));
}

fn ask(asked: &[(&str, Option<u32>)]) -> FrameworkToMaster {
    let operations = asked.iter().map(|(id, slave)| ReconcileOperation {
        operation_id: OperationId::new(*id).expect("a good id"),
        slave_id: slave.map(SlaveId),
    });
    FrameworkToMaster::ReconcileOperations {
        operations: operations.collect(),
    }
}

#[test]
fn how_an_operation_stands_is_told_to_who_asks() {
    // semantics: B14
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024");
    let f = world.framework(web());
    accept(
        &mut world,
        f,
        vec![step("r", ChangeKind::Reserve, "cpus(web, ):1")],
    );
    check(
        world.framework_says(f, ask(&[])),
        &["f2 r OPERATION_PENDING"],
    );
    check(
        world.framework_says(
            f,
            ask(&[("r", None), ("x", None), ("y", Some(0)), ("z", Some(9))]),
        ),
        &[
            "f2 r OPERATION_PENDING",
            "f2 x OPERATION_UNKNOWN",
            "f2 y OPERATION_UNKNOWN",
            "f2 z OPERATION_UNKNOWN",
        ],
    );
    check(applied(&mut world, s, 1), &["f2 r OPERATION_FINISHED"]);
    check(world.framework_says(f, ask(&[])), &[]);
    check(
        world.framework_says(f, ask(&[("r", Some(0))])),
        &["f2 r OPERATION_UNKNOWN"],
    );
    world.operator(1, OperatorCall::MarkSlaveGone { slave_id: S0 });
    let lines = world.framework_says(f, ask(&[("r", Some(0))]));
    check(lines, &["f2 r OPERATION_GONE_BY_OPERATOR"]);
}

#[test]
fn of_a_slave_that_a_deposed_leader_may_still_order_no_operation_is_called_unknown() {
    // semantics: B14
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let mut world = world.after_failover();
    let f = world.framework(web());
    let question = || ask(&[("r", Some(0))]);
    let recovering = &["f1 r OPERATION_RECOVERING"];
    check(world.framework_says(f, question()), recovering);
    // Welcome, but it has not said yet that it heard of it.
    let s = world.connect_slave("slave");
    world.slave_says(s, SlaveToMaster::ReportTasks { tasks: Vec::new() });
    let message = SlaveToMaster::Reregister {
        slave_id: S0,
        cluster_id: CLUSTER,
        slave: slave("cpus:4;mem:1024"),
    };
    world.slave_says(s, message);
    check(world.framework_says(f, question()), recovering);
    world.term_heard(s);
    let unknown = &["f1 r OPERATION_UNKNOWN"];
    check(world.framework_says(f, question()), unknown);
}
