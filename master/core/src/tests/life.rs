//! A whole life, message by message.

use meros_proto::ids::{SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::status::TaskState;
use meros_proto::view::ClusterChange;

use super::world::{World, check, framework, secs, slave, task};

#[test]
fn a_task_lives_from_registration_to_its_acknowledged_end() {
    let mut world = World::new();
    let s = world.connect_slave("slave");
    let register = SlaveToMaster::Register {
        slave: slave("cpus:4;mem:1024"),
    };
    check(world.slave_says(s, register), &["s1 registered S0"]);

    let f = world.connect_framework("framework");
    let subscribe = FrameworkToMaster::Subscribe {
        framework: framework(),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    check(
        world.framework_says(f, subscribe),
        &["f2 subscribed F0", "f2 offers O1-1 S0 * cpus:4;mem:1024"],
    );

    // The rest is declined for a while together with the accept.
    let accepted = world.accept(f, &[1], vec![task("t", SlaveId(0), "cpus:1;mem:128")]);
    check(accepted, &["s1 run F0 t cpus:1;mem:128"]);

    check(
        world.update(s, "t", TaskState::Running),
        &["f2 t TASK_RUNNING by Slave on S0 #1"],
    );
    check(world.acknowledge(f, "t", UpdateId(1)), &["s1 ack F0 t #1"]);

    // Its resources are free before the end is acknowledged (semantics: F8), and with them the
    // slave has more than what was refused (E3).
    check(
        world.update(s, "t", TaskState::Finished),
        &[
            "f2 t TASK_FINISHED by Slave on S0 #2",
            "f2 offers O1-2 S0 * cpus:4;mem:1024",
        ],
    );
    check(world.acknowledge(f, "t", UpdateId(2)), &["s1 ack F0 t #2"]);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        1
    );

    check(
        world.framework_says(f, FrameworkToMaster::Teardown),
        &["f2 error framework_removed", "close 2 framework_removed"],
    );
    check(world.pass(secs(15)), &["s1 ping registered=true"]);
    check(world.slave_says(s, SlaveToMaster::Pong), &[]);
}
