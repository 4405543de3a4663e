//! The checker is checked: a core broken by hand for each invariant.

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::slave::SlaveState;
use meros_proto::state::{SessionId, SpaceName, StateCall, StateChange};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::view::FrameworkState;

use meros_proto::time::Timestamp;

use super::world::{World, resources, role, secs, task_id};
use crate::offers::Outstanding;
use crate::timers::Timer;

#[track_caller]
fn broken(id: &str, break_it: impl FnOnce(&mut World)) {
    let (mut world, _, _) = World::with_a_running_task();
    world.pass(secs(60)); // a task of cpus:1 and an offer of the rest
    assert_eq!(world.core.check_invariants(), Ok(()));
    break_it(&mut world);
    let violation = world.core.check_invariants().expect_err("it was broken");
    assert_eq!(violation.id, id, "{violation}");
}

fn rogue_offer() -> Outstanding {
    Outstanding {
        framework: FrameworkId(0),
        slave: SlaveId(0),
        role: role("*"),
        resources: resources("cpus:1").into(),
        made_at: Timestamp(0),
    }
}

#[test]
fn a_resource_in_two_places_is_found() {
    broken("M1", |world| {
        world.core.offers.insert(rogue_offer());
    });
    broken("M1", |world| {
        let (role, cpus) = (role("*"), resources("cpus:1"));
        world
            .core
            .allocator
            .release(FrameworkId(0), &role, SlaveId(0), cpus);
    });
}

#[test]
fn a_session_that_nobody_will_end_is_found() {
    broken("M19", |world| {
        let f = world.connect_framework("framework");
        let space = SpaceName::new("s").expect("a name");
        let open = StateChange::Open {
            holder: String::new(),
            ttl: secs(5),
        };
        let message = FrameworkToMaster::State {
            request: 1,
            space,
            call: StateCall::Change {
                by: None,
                change: open,
            },
        };
        world.framework_says(f, message);
        assert_eq!(world.core.check_invariants(), Ok(()));
        world.core.timers.cancel(&Timer::Session(SessionId(1)));
    });
}

#[test]
fn an_ended_task_with_resources_is_found() {
    broken("M2", |world| {
        let slot = world
            .core
            .tasks
            .find(FrameworkId(0), &task_id("t"))
            .expect("it runs");
        world.core.tasks.get_mut(slot).expect("found").state = TaskState::Finished;
    });
}

#[test]
fn an_offer_without_a_deadline_is_found() {
    broken("M3", |world| {
        world.core.timers.cancel(&Timer::OfferExpiry(2))
    });
}

#[test]
fn a_timer_of_nothing_is_found() {
    broken("M4", |world| {
        let at = world.now;
        world.core.timers.arm(Timer::OfferExpiry(99), at);
    });
}

#[test]
fn a_connection_that_leads_nowhere_is_found() {
    broken("M4", |world| {
        world.core.connections.remove(crate::ConnectionId(1));
    });
}

#[test]
fn an_update_that_would_never_be_repeated_is_found() {
    broken("M5", |world| {
        let status = TaskStatus::new(task_id("x"), TaskState::Lost, Source::Master, world.now);
        let epoch = world.core.epoch.expect("it leads");
        world.core.updates.add(epoch, FrameworkId(0), status);
    });
}

#[test]
fn a_share_that_is_not_the_sum_is_found() {
    broken("M6", |world| {
        let charged = resources("cpus:1");
        // The same amount comes out of the cluster, but in another name.
        world
            .core
            .allocator
            .release(FrameworkId(0), &role("*"), SlaveId(0), charged.clone());
        let _ = world
            .core
            .allocator
            .charge(FrameworkId(1), &role("*"), SlaveId(0), &charged);
    });
}

#[test]
fn a_slave_that_nobody_watches_is_found() {
    broken("M7", |world| {
        world.core.timers.cancel(&Timer::Ping(SlaveId(0)))
    });
    broken("M7", |world| {
        world
            .core
            .slaves
            .set_state(SlaveId(0), SlaveState::Disconnected, world.now);
    });
}

#[test]
fn a_framework_away_without_a_deadline_is_found() {
    broken("M8", |world| {
        let f = FrameworkId(0);
        let row = world.core.frameworks.get_mut(f).expect("it is there");
        row.state = FrameworkState::Disconnected;
    });
}
