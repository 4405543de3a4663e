//! Frameworks that change what they said of themselves (semantics B17).

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::FrameworkId;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::role::RoleName;
use meros_proto::view::{ClusterChange, FrameworkView};

use super::world::{World, check, framework, role, secs, task};
use crate::OperatorCall;

const F0: FrameworkId = FrameworkId(0);

fn in_roles(names: &[&str]) -> FrameworkDescription {
    FrameworkDescription {
        roles: names.iter().map(|name| role(name)).collect(),
        ..framework()
    }
}

fn update(world: &mut World, to: FrameworkDescription, suppressed: &[&str]) -> Vec<String> {
    let roles = suppressed.iter().map(|name| role(name));
    let call = OperatorCall::UpdateFramework {
        framework_id: F0,
        framework: Box::new(to),
        suppressed_roles: roles.collect(),
        wishes: Vec::new(),
    };
    world.operator(1, call)
}

fn shown(world: &World) -> &FrameworkView {
    let last = world.changes.iter().rev().find_map(|change| match change {
        ClusterChange::Framework(view) => Some(view),
        _ => None,
    });
    last.expect("it subscribed")
}

#[test]
fn roles_come_and_go_while_offers_of_others_and_tasks_stay() {
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let (f, _) = world.subscribe(in_roles(&["a", "b"]), Vec::new());
    let roles = |world: &World| -> Vec<RoleName> {
        let offers = world.core.offers.iter();
        offers.map(|(_, offer)| offer.role.clone()).collect()
    };
    let (mut of_a, mut of_b) = (None, None);
    for (number, offer) in world.core.offers.iter() {
        match offer.role.as_str() {
            "a" => of_a = Some((number, offer.slave)),
            _ => of_b = Some((number, offer.slave)),
        }
    }
    let (Some((a, slave)), Some((b, _))) = (of_a, of_b) else {
        panic!("one offer for each role: {:?}", roles(&world));
    };
    world.accept(f, &[a], vec![task("t", slave, "cpus:4")]);
    let lines = update(&mut world, in_roles(&["b", "c"]), &[]);
    check(lines, &["reply 1 done"]);
    assert_eq!(roles(&world), [role("b")], "that of a role which stays");
    assert_eq!(shown(&world).roles, [role("b"), role("c")]);
    let lines = update(&mut world, in_roles(&["c"]), &[]);
    assert_eq!(
        lines[..2],
        [format!("f3 rescind O1-{b}"), "reply 1 done".to_owned()]
    );
    assert_eq!(
        world.core.tasks.iter().count(),
        1,
        "in a role that it has left"
    );
    assert!(
        lines[2].starts_with("f3 offers") && lines[2].contains(" c "),
        "{lines:?}"
    );
}

#[test]
fn suppressed_roles_keep_their_offers_and_those_that_are_wanted_again_lose_their_filters() {
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    check(update(&mut world, framework(), &["*"]), &["reply 1 done"]);
    assert_eq!(world.core.offers.iter().count(), 1);
    assert_eq!(shown(&world).suppressed_roles, [role("*")]);
    check(world.decline(f, &[1], secs(3_600)), &[]);
    check(
        update(&mut world, framework(), &[]),
        &["reply 1 done", "f2 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn what_cannot_change_is_refused_and_then_nothing_has() {
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    for to in [
        FrameworkDescription {
            user: Some("somebody".to_owned()),
            ..framework()
        },
        FrameworkDescription {
            checkpoint: !framework().checkpoint,
            ..framework()
        },
        FrameworkDescription {
            principal: Some("somebody".to_owned()),
            ..framework()
        },
        in_roles(&[]),
    ] {
        check(update(&mut world, to, &[]), &["reply 1 invalid"]);
    }
    check(
        update(&mut world, framework(), &["other"]),
        &["reply 1 invalid"],
    );
    assert_eq!(shown(&world).roles, framework().roles);
    world.commits = false;
    let renamed = FrameworkDescription {
        name: "renamed".to_owned(),
        ..framework()
    };
    let lines = update(&mut world, renamed.clone(), &[]);
    assert!(lines[0].starts_with("propose"), "{lines:?}");
    check(
        update(&mut world, renamed.clone(), &[]),
        &["reply 1 over_limit"],
    );
    assert_eq!(
        shown(&world).name,
        framework().name,
        "not before it is committed"
    );
    check(world.commit_next(), &["reply 1 done"]);
    assert_eq!(shown(&world).name, "renamed");
    world.commits = true;
    world.disconnect(f);
    check(
        update(&mut world, renamed, &[]),
        &["reply 1 not_subscribed"],
    );
}

#[test]
fn one_that_is_removed_meanwhile_is_removed_and_the_update_is_answered() {
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    world.commits = false;
    let renamed = FrameworkDescription {
        name: "renamed".to_owned(),
        ..framework()
    };
    update(&mut world, renamed, &[]);
    check(world.framework_says(f, FrameworkToMaster::Teardown), &[]);
    let lines = world.commit_next();
    assert!(lines.contains(&"reply 1 done".to_owned()), "{lines:?}");
    world.commit_next();
    assert!(world.core.frameworks.get(F0).is_none());
}
