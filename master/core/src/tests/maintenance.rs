//! The maintenance schedule (semantics C2, E5, K11).

use meros_proto::ids::SlaveId;
use meros_proto::maintenance::{MAINTENANCE_MAX, Unavailability};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::slave::SlaveMode;
use meros_proto::time::Timestamp;

use super::world::{World, check, framework, secs};
use crate::{Effect, Effects, Event, OperatorCall};

const S0: SlaveId = SlaveId(0);

fn window(start: Timestamp, seconds: u64) -> Unavailability {
    Unavailability {
        start,
        duration: Some(secs(seconds)),
    }
}

fn plan(slave_id: SlaveId, window: Option<Unavailability>) -> OperatorCall {
    OperatorCall::SetMaintenance {
        windows: vec![(slave_id, window)],
        replace: false,
    }
}

/// What the offers of the next round say.
fn told(world: &mut World) -> Vec<(SlaveId, Option<Unavailability>)> {
    let connection = world.connect_framework("framework");
    let event = Event::Framework {
        connection,
        message: FrameworkToMaster::Subscribe {
            framework: framework(),
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        },
    };
    let mut effects = Effects::new();
    world.core.handle(event, world.now, &mut effects);
    let mut command = None;
    for effect in effects.drain() {
        if let Effect::Propose {
            proposal,
            command: it,
        } = effect
        {
            command = Some((proposal, it));
        }
    }
    let (proposal, command) = command.expect("its admission");
    let event = Event::Committed {
        proposal: Some(proposal),
        command,
    };
    world.core.handle(event, world.now, &mut effects);
    let mut told = Vec::new();
    for effect in effects.drain() {
        if let Effect::SendFramework {
            message: MasterToFramework::Offers(offers),
            ..
        } = effect
        {
            told.extend(offers.iter().map(|it| (it.slave_id, it.unavailability)));
        }
    }
    told
}

#[test]
fn offers_say_when_their_slave_will_not_be_available() {
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let planned = window(world.now.after(secs(60)), 60);
    check(
        world.operator(1, plan(S0, Some(planned))),
        &["reply 1 done"],
    );
    let expected = [(S0, Some(planned)), (SlaveId(1), None)];
    assert_eq!(told(&mut world), expected);
}

#[test]
fn a_window_that_is_over_is_not_told_any_more() {
    let mut world = World::new();
    world.slave("cpus:4");
    let planned = window(world.now.after(secs(1)), 5);
    world.operator(1, plan(S0, Some(planned)));
    world.pass(secs(7));
    assert_eq!(told(&mut world), [(S0, None)]);
}

#[test]
fn offers_are_made_anew_when_the_plan_changes_also_for_the_next_leader() {
    // semantics: E5, J1
    let mut world = World::new();
    world.slave("cpus:4");
    world.framework(framework());
    let planned = window(world.now.after(secs(60)), 60);
    check(
        world.operator(1, plan(S0, Some(planned))),
        &[
            "f2 rescind O1-1",
            "reply 1 done",
            "f2 offers O1-2 S0 * cpus:4",
        ],
    );
    let next = world.after_failover();
    assert_eq!(next.core.registry().maintenance().get(&S0), Some(&planned));
    let replace = OperatorCall::SetMaintenance {
        windows: Vec::new(),
        replace: true,
    };
    check(
        world.operator(2, replace),
        &[
            "f2 rescind O1-2",
            "reply 2 done",
            "f2 offers O1-3 S0 * cpus:4",
        ],
    );
    assert!(world.core.registry().maintenance().is_empty());
}

#[test]
fn what_cannot_be_a_plan_is_refused_and_nothing_changes() {
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let good = (S0, Some(window(world.now.after(secs(60)), 60)));
    let past = window(Timestamp(5), 0);
    let long = Unavailability {
        duration: Some(MAINTENANCE_MAX + secs(1)),
        ..good.1.expect("written above")
    };
    let other = SlaveId(1);
    for (windows, code) in [
        (vec![good, good], "invalid"),
        (vec![good, (SlaveId(9), good.1)], "no_such_slave"),
        (vec![good, (other, Some(past))], "invalid"),
        (vec![good, (other, Some(long))], "invalid"),
        (vec![good, (other, None)], "invalid"),
    ] {
        let call = OperatorCall::SetMaintenance {
            windows,
            replace: false,
        };
        check(world.operator(1, call), &[&format!("reply 1 {code}")]);
        assert!(world.core.registry().maintenance().is_empty());
    }
}

fn begin(slaves: &[SlaveId]) -> OperatorCall {
    OperatorCall::StartMaintenance {
        slaves: slaves.iter().copied().collect(),
    }
}

fn end(slaves: &[SlaveId]) -> OperatorCall {
    OperatorCall::StopMaintenance {
        slaves: slaves.iter().copied().collect(),
    }
}

fn is_draining(world: &World, slave_id: SlaveId) -> bool {
    let record = world.core.registry().slave(slave_id);
    let mode = record.expect("a member").mode;
    matches!(mode, SlaveMode::Draining { .. })
}

#[test]
fn maintenance_begins_with_a_drain_and_ends_with_its_window() {
    // semantics: K11
    let s1 = SlaveId(1);
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let planned = window(world.now.after(secs(60)), 60);
    world.operator(1, plan(S0, Some(planned)));
    // None or all: the other one is not planned.
    check(world.operator(2, begin(&[S0, s1])), &["reply 2 invalid"]);
    assert!(!is_draining(&world, S0));
    check(
        world.operator(3, begin(&[SlaveId(9)])),
        &["reply 3 no_such_slave"],
    );
    check(world.operator(4, end(&[S0])), &["reply 4 invalid"]);
    check(world.operator(5, begin(&[S0])), &["reply 5 done"]);
    assert!(is_draining(&world, S0) && !is_draining(&world, s1));
    check(world.operator(6, begin(&[S0])), &["reply 6 invalid"]);

    // What a change of leader has cut short is done by the same call again.
    world.operator(7, plan(s1, Some(planned)));
    check(world.operator(8, begin(&[S0, s1])), &["reply 8 done"]);
    assert!(is_draining(&world, S0) && is_draining(&world, s1));
    check(world.operator(9, end(&[S0])), &["reply 9 done"]);
    assert!(!is_draining(&world, S0) && is_draining(&world, s1));
    let left: Vec<_> = world.core.registry().maintenance().keys().collect();
    assert_eq!(left, [&s1]);
    check(world.operator(10, end(&[S0, s1])), &["reply 10 invalid"]);
    check(world.operator(11, end(&[s1])), &["reply 11 done"]);
    assert_eq!(told(&mut world).len(), 2, "both are offered again");
}

#[test]
fn a_plan_that_is_sent_again_may_have_a_window_that_is_over() {
    let mut world = World::new();
    world.slave("cpus:4");
    world.slave("cpus:4");
    let over = window(world.now.after(secs(1)), 5);
    world.operator(1, plan(S0, Some(over)));
    world.pass(secs(7));
    let ahead = window(world.now.after(secs(60)), 60);
    let again = |over| OperatorCall::SetMaintenance {
        windows: vec![(S0, Some(over)), (SlaveId(1), Some(ahead))],
        replace: true,
    };
    check(world.operator(2, again(over)), &["reply 2 done"]);
    assert_eq!(world.core.registry().maintenance().len(), 2);
    let other = window(over.start, 4);
    check(world.operator(3, again(other)), &["reply 3 invalid"]);
}

#[test]
fn the_slaves_of_one_call_are_bounded() {
    let mut world = World::new();
    let many: Vec<SlaveId> = (0..1_001).map(SlaveId).collect();
    check(world.operator(1, begin(&many)), &["reply 1 over_limit"]);
    check(world.operator(2, end(&many)), &["reply 2 over_limit"]);
}
