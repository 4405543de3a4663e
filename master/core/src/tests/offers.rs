//! Offers: who gets which, for how long, and what ends them (semantics B, E).

use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::SlaveId;
use meros_proto::message::master::{CALL_ITEMS_MAX, FrameworkToMaster, SlaveToMaster};
use meros_proto::offer::Filters;
use meros_proto::status::TaskState;

use super::world::{World, check, config, framework, offer, role, secs, task};
use crate::{Config, Registry};

fn in_role(name: &str) -> FrameworkDescription {
    FrameworkDescription {
        roles: vec![role(name)],
        ..framework()
    }
}

#[test]
fn an_offer_held_too_long_is_rescinded_and_the_next_framework_gets_it() {
    // semantics: E4, Q6
    let mut world = World::new();
    let s = world.slave("cpus:4");
    world.framework(framework());
    for _ in 0..4 {
        world.pass(secs(60));
        world.slave_says(s, SlaveToMaster::Pong);
    }
    world.framework(framework());
    world.pass(secs(59));
    let lines = world.pass(secs(1));
    assert!(lines.contains(&"f2 rescind O1-1".to_owned()), "{lines:?}");
    assert_eq!(world.core.counters().offers_timed_out, 1);
}

#[test]
fn declined_resources_are_not_offered_again_before_the_filter_expires() {
    // semantics: E3, B5
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    check(world.decline(f, &[1], secs(5)), &[]);
    check(world.pass(Duration::from_millis(4_999)), &[]);
    check(
        world.pass(Duration::from_millis(1)),
        &["f2 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn more_than_was_declined_is_offered_at_once() {
    // semantics: E3
    let (mut world, s, f) = World::with_a_running_task();
    let rest = world.pass(secs(60));
    assert_eq!(
        rest.last().map(String::as_str),
        Some("f2 offers O1-2 S0 * cpus:3;mem:1024")
    );
    check(world.decline(f, &[2], secs(3_600)), &[]);
    check(
        world.update(s, "t", TaskState::Finished),
        &[
            "f2 t TASK_FINISHED by Slave on S0 #2",
            "f2 offers O1-3 S0 * cpus:4;mem:1024",
        ],
    );
}

#[test]
fn a_decline_hides_nothing_from_others() {
    // semantics: E3
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    world.framework(framework());
    check(
        world.decline(f, &[1], secs(5)),
        &["f3 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn a_decline_without_a_filter_brings_the_offer_back() {
    // semantics: E3
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    check(
        world.decline(f, &[1], Duration::ZERO),
        &["f2 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn those_who_decline_are_not_asked_again_and_again_until_others_have_been() {
    // semantics: E3, MESOS-3202
    let mut world = World::new();
    let s = world.slave("cpus:4");
    let all: Vec<_> = (0..10).map(|_| world.framework(framework())).collect();
    let holder = |world: &World| {
        let offer = world.core.offers.iter().next();
        offer.map(|(number, it)| (number, it.framework.0 as usize))
    };
    // Each takes a second: with five seconds alone it would go round for ever.
    let mut declines = 0;
    while let Some((number, framework)) = holder(&world) {
        world.pass(secs(1));
        world.slave_says(s, SlaveToMaster::Pong);
        world.decline(all[framework], &[number], secs(5));
        declines += 1;
        assert!(declines < 40, "it goes round for ever");
    }
    assert!(declines >= 10, "each is asked: {declines}");
    assert!(world.core.counters().declines_prolonged > 0);
    // Somebody new is asked at once, and so is who revives.
    let new = world.framework(framework());
    assert_eq!(holder(&world).map(|it| it.1), Some(10));
    let (number, _) = holder(&world).expect("just seen");
    world.decline(new, &[number], secs(3_600));
    let message = FrameworkToMaster::Revive { roles: Vec::new() };
    world.framework_says(all[3], message);
    assert_eq!(holder(&world).map(|it| it.1), Some(3));
}

#[test]
fn a_decline_for_ever_ends_after_a_year() {
    // semantics: E3
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    world.decline(f, &[1], Duration::MAX);
    let far = world.core.allocator.next_expiry().expect("a filter");
    assert_eq!(far.since(world.now), secs(365 * 24 * 60 * 60));
}

#[test]
fn revive_drops_the_filters_and_suppress_stops_the_offers() {
    // semantics: B7, B8
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    world.decline(f, &[1], secs(3_600));
    let revive = FrameworkToMaster::Revive { roles: Vec::new() };
    check(
        world.framework_says(f, revive.clone()),
        &["f2 offers O1-2 S0 * cpus:4"],
    );
    let suppress = FrameworkToMaster::Suppress { roles: Vec::new() };
    check(world.framework_says(f, suppress), &[]);
    check(world.decline(f, &[2], Duration::ZERO), &[]);
    check(
        world.framework_says(f, revive),
        &["f2 offers O1-3 S0 * cpus:4"],
    );
    let foreign = FrameworkToMaster::Revive {
        roles: vec![role("other")],
    };
    check(
        world.framework_says(f, foreign),
        &["f2 refused Revive invalid"],
    );
}

#[test]
fn an_unknown_offer_in_a_decline_is_ignored() {
    // semantics: E6
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    let other = world.framework(framework());
    check(world.decline(other, &[1, 77], Duration::ZERO), &[]);
    check(
        world.decline(f, &[77, 1, 1], secs(5)),
        &["f3 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn a_list_that_is_too_long_is_refused() {
    let mut world = World::new();
    let f = world.framework(framework());
    let filters = Filters::default();
    let offer_ids = vec![offer(1); CALL_ITEMS_MAX + 1];
    let decline = FrameworkToMaster::Decline { offer_ids, filters };
    check(
        world.framework_says(f, decline),
        &["f1 refused Decline over_limit"],
    );
}

#[test]
fn the_framework_with_the_smallest_dominant_share_is_next() {
    // semantics: E10
    let mut world = World::new();
    let a = world.framework(framework());
    world.framework(framework());
    world.slave("cpus:4;mem:1024"); // to F0, whose share is now all
    check(
        world.accept(a, &[1], vec![task("t", SlaveId(0), "cpus:4;mem:1024")]),
        &["s3 run F0 t cpus:4;mem:1024"],
    );
    let s = world.connect_slave("slave");
    let register = SlaveToMaster::Register {
        slave: super::world::slave("cpus:1;mem:4096"),
    };
    check(
        world.slave_says(s, register),
        &["s4 registered S1", "f2 offers O1-2 S1 * cpus:1;mem:4096"],
    );
}

#[test]
fn roles_share_before_their_frameworks_do() {
    // semantics: E10
    let mut world = World::new();
    world.framework(in_role("a"));
    world.framework(in_role("a"));
    world.framework(in_role("b"));
    for _ in 0..4 {
        world.slave("cpus:1;mem:64");
    }
    let of = |role: &str| {
        world
            .core
            .offers
            .iter()
            .filter(|(_, it)| it.role.as_str() == role)
            .count()
    };
    assert_eq!((of("a"), of("b")), (2, 2));
}

#[test]
fn reserved_resources_go_to_their_role_and_those_below_it_only() {
    // semantics: D6
    let mut world = World::new();
    world.framework(in_role("b"));
    world.slave("cpus(a):4;cpus:1");
    check(
        world.subscribe(in_role("a/c"), Vec::new()).1,
        &["f3 subscribed F1", "f3 offers O1-2 S0 a/c cpus(a):4"],
    );
    assert_eq!(world.core.counters().offers_made, 2);
}

#[test]
fn too_little_to_run_anything_is_not_offered() {
    // semantics: E2
    let mut world = World::new();
    world.framework(framework());
    world.slave("cpus:0.009;mem:31;disk:1000");
    assert_eq!(world.core.counters().offers_made, 0);
    world.slave("mem:32");
    world.slave("cpus:0.01");
    assert_eq!(world.core.counters().offers_made, 2);
}

#[test]
fn a_used_offer_cannot_be_used_again_and_its_task_is_dropped() {
    // semantics: B4, E6
    let (mut world, _, f) = World::with_a_running_task();
    check(
        world.accept(f, &[1], vec![task("u", SlaveId(0), "cpus:1")]),
        &["f2 u TASK_DROPPED by Master on S0 InvalidOffers #m1"],
    );
}

#[test]
fn one_invalid_offer_fails_the_whole_accept_and_the_valid_ones_are_taken_back() {
    // semantics: E6
    let mut world = World::new();
    let f = world.framework(framework());
    world.slave("cpus:4");
    world.slave("cpus:8");
    check(
        world.accept(f, &[1, 2], vec![task("t", SlaveId(0), "cpus:1")]),
        &[
            "f1 t TASK_DROPPED by Master on S0 InvalidOffers #m1",
            "f1 offers O1-3 S0 * cpus:4 O1-4 S1 * cpus:8",
        ],
    );
    let twice = world.accept(f, &[3, 3], vec![task("t2", SlaveId(0), "cpus:1")]);
    assert_eq!(
        twice[0],
        "f1 t2 TASK_DROPPED by Master on S0 InvalidOffers #m2"
    );
    let none = world.accept(f, &[], vec![task("t3", SlaveId(0), "cpus:1")]);
    check(
        none,
        &["f1 t3 TASK_DROPPED by Master on S0 InvalidOffers #m3"],
    );
    assert_eq!(world.core.counters().accepts_invalid, 3);
}

#[test]
fn an_offer_of_another_framework_or_another_term_is_invalid_and_stays_where_it_is() {
    // semantics: E6
    let mut world = World::new();
    world.slave("cpus:4");
    world.framework(framework());
    let other = world.framework(framework());
    check(
        world.accept(other, &[1], vec![task("t", SlaveId(0), "cpus:1")]),
        &["f3 t TASK_DROPPED by Master on S0 InvalidOffers #m1"],
    );
    assert_eq!(world.core.offers.iter().count(), 1);
}

#[test]
fn several_offers_of_one_slave_are_used_together() {
    // semantics: B4
    let (mut world, s, f) = World::with_a_running_task();
    world.pass(secs(60)); // O1-2: cpus:3
    world.update(s, "t", TaskState::Finished); // O1-3: cpus:1
    check(
        world.accept(f, &[3, 2], vec![task("u", SlaveId(0), "cpus:4;mem:1024")]),
        &["s1 run F0 u cpus:4;mem:1024"],
    );
}

#[test]
fn an_accept_without_operations_is_a_decline() {
    // semantics: B4
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    check(world.accept(f, &[1], Vec::new()), &[]);
    check(
        world
            .pass(secs(60))
            .into_iter()
            .filter(|it| it.starts_with('f'))
            .collect(),
        &["f2 offers O1-2 S0 * cpus:4"],
    );
}

#[test]
fn offers_are_gathered_for_the_allocation_delay_and_an_idle_core_waits_for_nothing() {
    let config = Config {
        allocation_delay: Duration::from_millis(2),
        ..config()
    };
    let mut world = World::with(config, Registry::default());
    assert_eq!(world.core.next_deadline(), None);
    world.framework(framework());
    assert_eq!(world.core.next_deadline(), None, "nothing is free");
    world.slave("cpus:4");
    world.slave("cpus:4");
    assert_eq!(
        world.core.next_deadline(),
        Some(world.now.after(Duration::from_millis(2)))
    );
    check(
        world.pass(Duration::from_millis(2)),
        &["f1 offers O1-1 S0 * cpus:4 O1-2 S1 * cpus:4"],
    );
    let ping = world.core.next_deadline().expect("a ping");
    assert!(ping.since(world.now) > secs(14), "only pings are left");
}

#[test]
fn many_offers_come_in_messages_that_fit_a_frame() {
    let mut world = World::new();
    for _ in 0..300 {
        world.slave("cpus:1");
    }
    let (_, lines) = world.subscribe(framework(), Vec::new());
    let sizes: Vec<usize> = lines[1..]
        .iter()
        .map(|line| line.matches(" O1-").count())
        .collect();
    assert_eq!(sizes, [256, 44]);
}
