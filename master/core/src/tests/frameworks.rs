//! Frameworks subscribe, go away, come back and end (semantics B, N).

use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::status::TaskState;
use meros_proto::view::{ClusterChange, FrameworkState};

use super::world::{World, check, framework, report, role, secs, task};
use crate::OperatorCall;

fn again() -> FrameworkDescription {
    FrameworkDescription {
        framework_id: Some(FrameworkId(0)),
        ..framework()
    }
}

fn last_view(world: &World) -> meros_proto::view::FrameworkView {
    let view = |change: &ClusterChange| match change {
        ClusterChange::Framework(view) => Some(view.clone()),
        _ => None,
    };
    world
        .changes
        .iter()
        .rev()
        .find_map(view)
        .expect("a framework was published")
}

#[test]
fn nobody_is_subscribed_before_the_registry_has_it() {
    let mut world = World::new();
    world.commits = false;
    let (_, lines) = world.subscribe(framework(), Vec::new());
    check(lines, &["propose AdmitFramework"]);
    check(world.commit_next(), &["f1 subscribed F0"]);
}

#[test]
fn a_framework_that_is_gone_before_its_admission_is_removed_again() {
    let mut world = World::new();
    world.commits = false;
    let (f, _) = world.subscribe(framework(), Vec::new());
    world.disconnect(f);
    check(world.commit_next(), &["propose RemoveFramework"]);
    check(world.commit_next(), &[]);
    assert_eq!(world.core.registry().frameworks().count(), 0);
}

#[test]
fn a_framework_that_returns_in_time_finds_its_tasks() {
    // semantics: N1, N2, E7
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(secs(60));
    check(world.disconnect(f), &[]); // its offer goes back without a word
    assert_eq!(last_view(&world).state, FrameworkState::Disconnected);
    world.pass(secs(10));
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &["f3 subscribed F0", "f3 offers O1-3 S0 * cpus:3;mem:1024"],
    );
    assert_eq!(last_view(&world).state, FrameworkState::Subscribed);
}

#[test]
fn a_framework_that_stays_away_too_long_is_removed_with_its_tasks() {
    // semantics: N1, N3
    let description = FrameworkDescription {
        failover_timeout: secs(30),
        ..framework()
    };
    let (mut world, _, f) = World::with_a_running_task_of(description);
    world.disconnect(f);
    world.pass(secs(29));
    check(
        world.pass(secs(1)),
        &["s1 ping registered=true", "s1 shutdown F0"],
    );
    assert_eq!(last_view(&world).state, FrameworkState::Completed);
    // semantics: N4, for ever and after a failover too
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &["f3 error framework_removed", "close 3 framework_removed"],
    );
    let mut world = world.after_failover();
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &["f1 error framework_removed", "close 1 framework_removed"],
    );
}

#[test]
fn without_a_failover_timeout_a_framework_ends_with_its_connection() {
    // semantics: N1
    let description = FrameworkDescription {
        failover_timeout: Duration::ZERO,
        ..framework()
    };
    let (mut world, _, f) = World::with_a_running_task_of(description);
    world.disconnect(f);
    check(world.pass(Duration::ZERO), &["s1 shutdown F0"]);
}

#[test]
fn mesos_4659_the_failover_timeout_survives_the_master() {
    // semantics: J3, Q1
    let description = FrameworkDescription {
        failover_timeout: secs(30),
        ..framework()
    };
    let (world, _, _) = World::with_a_running_task_of(description);
    let mut world = world.after_failover();
    assert_eq!(last_view(&world).state, FrameworkState::Recovered);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    let lines = world.pass(secs(30));
    assert!(lines.contains(&"s1 shutdown F0".to_owned()), "{lines:?}");
}

#[test]
fn mesos_1719_a_new_master_knows_its_frameworks() {
    // semantics: N5, Q1
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_failover();
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(lines, &["f1 subscribed F0"]);
}

#[test]
fn a_newer_subscription_supersedes_the_older_connection() {
    // semantics: A8, N2
    let (mut world, _, f) = World::with_a_running_task();
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &[
            "f2 error superseded",
            "close 2 superseded",
            "f3 subscribed F0",
            "f3 offers O1-2 S0 * cpus:3;mem:1024",
        ],
    );
    check(world.disconnect(f), &[]);
    check(world.framework_says(f, FrameworkToMaster::Teardown), &[]);
    assert_eq!(last_view(&world).state, FrameworkState::Subscribed);
}

#[test]
fn a_subscription_that_a_dead_process_sent_comes_too_late() {
    // semantics: A8
    let (mut world, _, _) = World::with_a_running_task();
    let late = world.connect_framework("framework");
    world.subscribe(again(), Vec::new());
    let message = FrameworkToMaster::Subscribe {
        framework: again(),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    let lines = world.framework_says(late, message);
    check(lines, &["f3 error outdated", "close 3 outdated"]);
    assert_eq!(last_view(&world).state, FrameworkState::Subscribed);
}

#[test]
fn a_subscription_that_comes_too_late_does_not_end_one_that_is_being_committed() {
    // semantics: A8
    let (mut world, _, _) = World::with_a_running_task();
    let late = world.connect_framework("framework");
    world.commits = false;
    let renamed = FrameworkDescription {
        name: "renamed".to_owned(),
        ..again()
    };
    world.subscribe(renamed, Vec::new());
    let message = FrameworkToMaster::Subscribe {
        framework: again(),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    let lines = world.framework_says(late, message);
    check(lines, &["f3 error outdated", "close 3 outdated"]);
}

#[test]
fn teardown_kills_the_tasks_and_tells_nobody_but_the_slaves() {
    // semantics: B3, N3
    let (mut world, _, f) = World::with_a_running_task();
    check(
        world.framework_says(f, FrameworkToMaster::Teardown),
        &[
            "s1 shutdown F0",
            "f2 error framework_removed",
            "close 2 framework_removed",
        ],
    );
    let killed = |change: &ClusterChange| {
        matches!(
            change,
            ClusterChange::TaskChanged {
                state: TaskState::Killed,
                ..
            }
        )
    };
    assert_eq!(
        (world.count(killed), last_view(&world).state),
        (1, FrameworkState::Completed)
    );
}

#[test]
fn a_framework_that_is_not_what_it_says_is_refused_with_a_code() {
    // semantics: B1, B2
    let mut world = World::new();
    world.framework(framework());
    let refused = |world: &mut World, description, code: &str| {
        let (connection, lines) = world.subscribe(description, Vec::new());
        let number = connection.0;
        check(
            lines,
            &[
                &format!("f{number} error {code}"),
                &format!("close {number} {code}"),
            ],
        );
    };
    let with_id = |id| FrameworkDescription {
        framework_id: Some(FrameworkId(id)),
        ..framework()
    };
    refused(&mut world, with_id(9), "framework_unknown");
    let principal = Some("root".to_owned());
    refused(
        &mut world,
        FrameworkDescription {
            principal,
            ..framework()
        },
        "invalid",
    );
    refused(
        &mut world,
        FrameworkDescription {
            roles: Vec::new(),
            ..framework()
        },
        "invalid",
    );
    let roles = vec![role("a"), role("a")];
    refused(
        &mut world,
        FrameworkDescription {
            roles,
            ..framework()
        },
        "invalid",
    );
    let name = String::new();
    refused(
        &mut world,
        FrameworkDescription {
            name,
            ..framework()
        },
        "invalid",
    );
    let failover_timeout = Duration::MAX;
    refused(
        &mut world,
        FrameworkDescription {
            failover_timeout,
            ..framework()
        },
        "invalid",
    );
    let (_, lines) = world.subscribe(framework(), vec![role("not-mine")]);
    check(lines, &["f8 error invalid", "close 8 invalid"]);

    let f = world.connect_framework("another");
    let subscribe = FrameworkToMaster::Subscribe {
        framework: with_id(0),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    check(
        world.framework_says(f, subscribe),
        &["f9 error not_yours", "close 9 not_yours"],
    );
}

#[test]
fn calls_without_a_subscription_are_refused_and_the_connection_stays() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    check(world.kill(f, "t"), &["f1 refused Kill not_subscribed"]);
    let subscribe = FrameworkToMaster::Subscribe {
        framework: framework(),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    check(
        world.framework_says(f, subscribe.clone()),
        &["f1 subscribed F0"],
    );
    check(
        world.framework_says(f, subscribe),
        &["f1 refused Subscribe already_subscribed"],
    );
}

#[test]
fn user_and_checkpoint_cannot_be_changed_and_the_rest_can() {
    // semantics: B2, B17
    let (mut world, _, _) = World::with_a_running_task();
    world.commits = false;
    let changed = FrameworkDescription {
        checkpoint: false,
        user: Some("root".to_owned()),
        name: "renamed".to_owned(),
        ..again()
    };
    let (_, lines) = world.subscribe(changed, Vec::new());
    check(lines, &["propose UpdateFramework"]);
    world.commit_next();
    let record = world
        .core
        .registry()
        .framework(FrameworkId(0))
        .expect("it is there");
    assert_eq!(
        (record.framework.checkpoint, &record.framework.user),
        (true, &None)
    );
    assert_eq!(last_view(&world).name, "renamed");
}

#[test]
fn suppressed_roles_are_those_of_the_subscription() {
    // semantics: N6
    let mut world = World::new();
    world.slave("cpus:4");
    let (f, lines) = world.subscribe(framework(), vec![role("*")]);
    check(lines, &["f2 subscribed F0"]);
    world.disconnect(f);
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(lines, &["f3 subscribed F0", "f3 offers O1-1 S0 * cpus:4"]);
}

#[test]
fn a_role_that_a_framework_gave_up_gets_no_offers() {
    // semantics: B17
    let mut world = World::new();
    world.slave("cpus(a):4;mem:64");
    let both = FrameworkDescription {
        roles: vec![role("a"), role("b")],
        ..framework()
    };
    let f = world.framework(both);
    world.disconnect(f);
    let one = FrameworkDescription {
        roles: vec![role("b")],
        ..again()
    };
    let (_, lines) = world.subscribe(one, Vec::new());
    check(lines, &["f3 subscribed F0", "f3 offers O1-2 S0 b mem:64"]);
}

#[test]
fn an_operator_ends_a_framework_and_hears_when_it_is_done() {
    let (mut world, _, _) = World::with_a_running_task();
    world.commits = false;
    let framework_id = FrameworkId(0);
    let call = OperatorCall::Teardown { framework_id };
    check(
        world.operator(1, call.clone()),
        &["propose RemoveFramework"],
    );
    check(world.operator(2, call.clone()), &[]);
    check(
        world.commit_next(),
        &[
            "s1 shutdown F0",
            "f2 error framework_removed",
            "close 2 framework_removed",
            "reply 1 done",
            "reply 2 done",
        ],
    );
    check(world.operator(3, call), &["reply 3 framework_removed"]);
    let call = OperatorCall::Teardown {
        framework_id: FrameworkId(7),
    };
    check(world.operator(4, call), &["reply 4 framework_unknown"]);
}

#[test]
fn an_operator_kills_a_task_as_its_framework_would() {
    let (mut world, _, _) = World::with_a_running_task();
    let kill = |framework, name| OperatorCall::KillTask {
        framework_id: FrameworkId(framework),
        task_id: super::world::task_id(name),
        grace: Some(secs(1)),
    };
    check(
        world.operator(1, kill(0, "t")),
        &["s1 kill F0 t grace=1s", "reply 1 done"],
    );
    check(
        world.operator(2, kill(0, "none")),
        &["reply 2 task_unknown"],
    );
    check(
        world.operator(3, kill(5, "t")),
        &["reply 3 framework_unknown"],
    );
}

#[test]
fn a_framework_that_ends_while_it_comes_back_is_told() {
    let (mut world, _, f) = World::with_a_running_task();
    world.commits = false;
    check(
        world.framework_says(f, FrameworkToMaster::Teardown),
        &["propose RemoveFramework"],
    );
    // Not before it is committed: this master may have been deposed.
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(lines, &[]);
    let accepted = world.accept(f, &[], vec![task("u", SlaveId(0), "cpus:1")]);
    check(
        accepted,
        &["f2 u TASK_DROPPED by Master on S0 InvalidOffers #m1"],
    );
    check(
        world.commit_next(),
        &[
            "s1 shutdown F0",
            "f2 error framework_removed",
            "close 2 framework_removed",
            "f3 error framework_removed",
            "close 3 framework_removed",
        ],
    );
}
