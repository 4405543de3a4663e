//! Quotas and weights as operators set them (semantics E5, E8, E9, E10), and
//! hoarding.

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::quota::Quota;
use meros_proto::resources::Scalar;
use meros_proto::view::{ClusterChange, RoleView};
use meros_proto::why::WhyQuestion;

use super::world::{World, check, framework, resources, role, secs, task};
use crate::{Config, OperatorCall};

fn in_role(name: &str) -> FrameworkDescription {
    FrameworkDescription {
        roles: vec![role(name)],
        ..framework()
    }
}

fn quota(guarantees: &str, limits: &str) -> Quota {
    let map = |text: &str| {
        let all = resources(text);
        let names = all.iter().map(|it| it.name().clone());
        names
            .map(|name| (name.clone(), all.scalar(&name)))
            .collect()
    };
    Quota {
        guarantees: map(guarantees),
        limits: map(limits),
    }
}

fn set(quotas: &[(&str, Quota)], force: bool) -> OperatorCall {
    let quotas = quotas.iter();
    OperatorCall::SetQuotas {
        quotas: quotas.map(|(name, it)| (role(name), it.clone())).collect(),
        force,
    }
}

#[test]
fn a_quota_takes_offers_back_for_a_guarantee_and_never_tasks() {
    // semantics: E5, E8
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let f = world.framework(in_role("b"));
    check(
        world.accept(f, &[1], vec![task("t", SlaveId(0), "cpus:4")]),
        &["s1 run F0 t cpus:4"],
    );
    let call = set(&[("a", quota("cpus:4", ""))], false);
    check(
        world.operator(7, call),
        &["f3 rescind O1-2", "reply 7 done"],
    );
    assert_eq!(world.core.tasks.iter().count(), 1);
    let (_, lines) = world.subscribe(in_role("a"), Vec::new());
    assert!(
        lines.contains(&"f4 offers O1-3 S1 a cpus:4".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_limit_takes_offers_above_it_back_and_offers_up_to_it() {
    // semantics: E5, E8
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    world.framework(in_role("a"));
    let call = set(&[("a", quota("", "cpus:5"))], false);
    check(
        world.operator(1, call),
        &[
            "f3 rescind O1-2",
            "reply 1 done",
            "f3 offers O1-3 S1 a cpus:1",
        ],
    );
}

#[test]
fn an_empty_quota_takes_it_away() {
    // semantics: E8
    let mut world = World::new();
    world.slave("cpus:4");
    world.operator(1, set(&[("a", quota("", "cpus:1"))], false));
    world.framework(in_role("a"));
    check(
        world.operator(2, set(&[("a", Quota::default())], false)),
        &["reply 2 done", "f2 offers O1-2 S0 a cpus:3"],
    );
    assert!(world.core.registry().quotas().is_empty());
}

#[test]
fn readers_hear_what_is_configured_for_a_role_now_and_after_an_election() {
    let mut world = World::new();
    let published = |world: &World, from: usize| -> Vec<String> {
        let roles = world.changes[from..]
            .iter()
            .filter_map(|change| match change {
                ClusterChange::Role(view) => Some(view),
                _ => None,
            });
        let text = |view: &RoleView| {
            let limits = view.quota.limits.values();
            let limits: Vec<_> = limits.map(ToString::to_string).collect();
            format!("{} {} {limits:?}", view.role, view.weight)
        };
        roles.map(text).collect()
    };
    world.operator(1, set(&[("a", quota("", "cpus:1"))], false));
    world.operator(
        2,
        OperatorCall::SetWeights {
            weights: vec![(role("a"), Scalar::whole(2)), (role("b"), Scalar::whole(3))],
        },
    );
    let expected = [r#"a 1 ["1"]"#, r#"a 2 ["1"]"#, "b 3 []"];
    assert_eq!(published(&world, 0), expected);
    let mut next = world.after_failover();
    assert_eq!(published(&next, 0), expected[1..]);
    let from = next.changes.len();
    // To take away what nobody has is a mistake.
    check(
        next.operator(3, set(&[("b", Quota::default())], false)),
        &["reply 3 role_unknown"],
    );
    next.operator(4, set(&[("a", Quota::default())], false));
    assert_eq!(published(&next, from), ["a 2 []"]);
}

#[test]
fn what_cannot_be_a_quota_is_refused_and_nothing_changes() {
    // semantics: E8
    let (mut world, ..) = World::with_a_running_task();
    let good = || ("z", quota("", "cpus:1"));
    let cases = [
        vec![("a", quota("", "cpus:1")), ("a", quota("", "cpus:2"))],
        vec![("*", quota("", "cpus:1"))],
        vec![("a", quota("cpus:2", "cpus:1"))],
        vec![("a", quota("", "ports:[1-2]"))],
        // Below a role with a quota: neither more than it has, nor all its children together.
        vec![("a", quota("", "cpus:2")), ("a/b", quota("", "cpus:3"))],
        vec![
            ("a", quota("cpus:2", "")),
            ("a/b/c", quota("cpus:1", "")),
            ("a/d", quota("cpus:1.5", "")),
        ],
        // More than there is.
        vec![("a", quota("cpus:3", "")), ("b", quota("cpus:2", ""))],
    ];
    for mut quotas in cases {
        quotas.push(good());
        let lines = world.operator(3, set(&quotas, false));
        assert_eq!(lines, ["reply 3 invalid"], "{quotas:?}");
        assert!(world.core.registry().quotas().is_empty());
    }
    // Below what is in use: only if forced, and then nothing more is offered.
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(in_role("a"));
    world.accept(f, &[1], vec![task("t", SlaveId(0), "cpus:3")]);
    let low = || set(&[("a", quota("", "cpus:2"))], false);
    check(world.operator(4, low()), &["reply 4 invalid"]);
    let forced = set(&[("a", quota("", "cpus:2"))], true);
    let lines = world.operator(5, forced);
    assert!(lines.contains(&"reply 5 done".to_owned()), "{lines:?}");
    assert_eq!(world.core.tasks.iter().count(), 1, "tasks are never killed");
    let lines = world.pass(secs(30));
    assert!(
        !lines.iter().any(|line| line.contains("offers")),
        "{lines:?}"
    );
    check(
        world.operator(6, OperatorCall::Why(WhyQuestion::Framework(FrameworkId(0)))),
        &["reply 6 F0 a can=0 cannot=limit:1 left_out=0"],
    );
}

#[test]
fn weights_of_zero_or_beyond_reason_are_refused_and_others_are_live() {
    // semantics: E10. A weight that is not a number cannot even be written: it is a fixed point.
    assert!(Scalar::from_f64(f64::NAN).is_err());
    let mut world = World::new();
    let set = |weight| OperatorCall::SetWeights {
        weights: vec![(role("b"), weight)],
    };
    check(world.operator(1, set(Scalar::ZERO)), &["reply 1 invalid"]);
    check(
        world.operator(2, set(Scalar::whole(1_000_001))),
        &["reply 2 invalid"],
    );
    let twice = OperatorCall::SetWeights {
        weights: vec![(role("b"), Scalar::ONE), (role("b"), Scalar::ONE)],
    };
    check(world.operator(3, twice), &["reply 3 invalid"]);
    assert!(world.core.registry().weights().is_empty());
    check(world.operator(4, set(Scalar::whole(3))), &["reply 4 done"]);
    world.framework(in_role("a"));
    world.framework(in_role("b"));
    for _ in 0..8 {
        world.slave("cpus:1");
    }
    let of_b = world
        .core
        .offers
        .iter()
        .filter(|(_, it)| it.role == role("b"));
    assert_eq!(of_b.count(), 6);
}

#[test]
fn what_is_worth_an_offer_in_a_role_is_set_for_it_and_those_below() {
    // semantics: E2
    let mut world = World::new();
    let set = |minimums: &[(&str, Option<&str>)]| OperatorCall::SetMinimums {
        minimums: minimums
            .iter()
            .map(|(name, text)| (role(name), text.map(|text| text.parse().expect("amounts"))))
            .collect(),
    };
    let both = [("a", Some("cpus:3")), ("a/b/c", Some(""))];
    check(world.operator(1, set(&both)), &["reply 1 done"]);
    world.slave("cpus:2");
    world.slave("disk:5");
    world.framework(in_role("a/b"));
    let why = || OperatorCall::Why(WhyQuestion::Framework(FrameworkId(0)));
    check(
        world.operator(2, why()),
        &["reply 2 F0 a/b can=0 cannot=below_minimum:2 left_out=0"],
    );
    // The nearest role above says it, and a framework for itself in the end.
    world.framework(in_role("a/b/c"));
    assert_eq!(world.core.offers.of_framework(FrameworkId(1)).len(), 2);
    // A new leader knows it, and readers hear of it.
    let next = world.after_failover();
    let role_views = next.changes.iter().filter_map(|change| match change {
        ClusterChange::Role(view) => Some((view.role.as_str(), view.minimum.clone())),
        _ => None,
    });
    let expected = both.map(|(name, text)| (name, text.map(|text| text.parse().unwrap())));
    assert_eq!(role_views.collect::<Vec<_>>(), expected);
    // What is offered stays; what is taken away is as it was.
    check(
        world.operator(3, set(&[("a/b/c", None), ("a", None)])),
        &["reply 3 done"],
    );
    assert!(world.core.registry().minimums().is_empty());
    assert_eq!(world.core.offers.of_framework(FrameworkId(1)).len(), 2);
    world.slave("cpus:1");
    assert_eq!(world.core.offers.iter().count(), 3);
}

#[test]
fn minimums_that_cannot_be_set_are_refused_and_nothing_changes() {
    let mut world = World::new();
    let least = || Some("cpus:1".parse().expect("an amount"));
    let refused = [
        (vec![("a", least()), ("a", None)], "invalid"),
        (vec![("a", least()), ("b", None)], "role_unknown"),
    ];
    for (minimums, code) in refused {
        let minimums = minimums.into_iter().map(|(name, it)| (role(name), it));
        let minimums = minimums.collect();
        let lines = world.operator(1, OperatorCall::SetMinimums { minimums });
        assert_eq!(lines, [format!("reply 1 {code}")]);
        assert!(world.core.registry().minimums().is_empty());
    }
}

#[test]
fn with_a_quota_a_new_leader_offers_nothing_before_most_slaves_are_back() {
    // semantics: E9
    let mut world = World::new();
    for _ in 0..5 {
        world.slave("cpus:4");
    }
    world.framework(in_role("a"));
    world.operator(1, set(&[("a", quota("cpus:4", ""))], false));
    let mut next = world.after_failover();
    let mut described = in_role("a");
    described.framework_id = Some(FrameworkId(0));
    let f = next.framework(described);
    let offers = |next: &World| next.core.offers.of_framework(FrameworkId(0)).len();
    for number in 0..3 {
        next.reregister(SlaveId(number), "cpus:4", Vec::new());
        assert_eq!(offers(&next), 0, "after {number}");
    }
    next.reregister(SlaveId(3), "cpus:4", Vec::new());
    assert_eq!(offers(&next), 4, "four of five are enough");
    let _ = f;
    // Or when they have had their time.
    let mut other = world.after_failover();
    let mut described = in_role("a");
    described.framework_id = Some(FrameworkId(0));
    other.framework(described);
    let (s, _) = other.reregister(SlaveId(0), "cpus:4", Vec::new());
    for _ in 0..11 {
        other.pass(secs(60));
        other.slave_says(s, SlaveToMaster::Pong);
    }
    assert_eq!(offers(&other), 1);
}

#[test]
fn a_framework_that_hoards_leaves_offers_to_others() {
    let config = Config {
        offer_timeout: secs(300),
        ..super::world::config()
    };
    let mut world = World::with(config, crate::Registry::default());
    let slaves: Vec<_> = (0..40).map(|_| world.slave("cpus:4")).collect();
    world.framework(framework());
    // It keeps everything until time is up, and again.
    for _ in 0..30 {
        world.pass(secs(11));
        for slave in &slaves {
            world.slave_says(*slave, SlaveToMaster::Pong);
        }
    }
    let holding = &world
        .core
        .frameworks
        .get(FrameworkId(0))
        .expect("known")
        .holding;
    assert!(holding.is_hoarding(secs(60)), "{holding:?}");
    let of = |world: &World, id| world.core.offers.of_framework(FrameworkId(id)).len();
    assert_eq!(of(&world, 0), 40, "alone it may have them");
    let other = world.framework(framework());
    for _ in 0..28 {
        world.pass(secs(11));
        for slave in &slaves {
            world.slave_says(*slave, SlaveToMaster::Pong);
        }
    }
    // At the end of its time the hoarder gets sixteen back, and the other the rest.
    assert_eq!((of(&world, 0), of(&world, 1)), (16, 24));
    let _ = other;
}
