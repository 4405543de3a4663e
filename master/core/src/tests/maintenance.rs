//! The maintenance schedule (semantics C2, E5, K11).

use meros_proto::ids::SlaveId;
use meros_proto::maintenance::{MAINTENANCE_MAX, Unavailability};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
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
