//! What a slave and a task take in the master's core, in bytes that are asked of the system. The
//! bounds are well above what was measured: they are for whoever doubles it without noticing.
//! `cargo nextest run --release -p meros-benches --test memory --no-capture` prints the figures.

use std::time::Duration;

use meros_benches::cluster::parsed;
use meros_benches::counting::Counting;
use meros_master_core::allocator::Allocator;
use meros_master_core::{
    Command, Config, ConnectionId, Effect, Effects, Event, MasterCore, Registry,
};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, OfferId, SlaveId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::offer::{Filters, Operation};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;
use meros_proto::task::{Command as TaskCommand, TaskDescription};
use meros_proto::time::Timestamp;

#[global_allocator]
static MEMORY: Counting = Counting::new();

const SLAVES: u32 = 5_000;
const TASKS_PER_SLAVE: u32 = 10;
const SLAVE_BYTES_MAX: usize = 4_096;
const TASK_BYTES_MAX: usize = 1_024;
/// The allocator's part of it.
const ALLOCATOR_BYTES_MAX: usize = 2_048;

/// A core that leads a cluster of its own, and commits at once what it proposes.
struct Master {
    core: MasterCore,
    offers: Vec<(OfferId, SlaveId)>,
}

impl Master {
    fn new() -> Self {
        let config = Config {
            allocation_delay: Duration::ZERO,
            ..Config::default()
        };
        let mut master = Self {
            core: MasterCore::new(config, Registry::default(), Timestamp(1)),
            offers: Vec::new(),
        };
        let command = Command::FormCluster {
            cluster_id: ClusterId(7),
        };
        master.handle(Event::Committed {
            proposal: None,
            command,
        });
        master.handle(Event::Elected {
            epoch: Epoch(1),
            remembered: Vec::new(),
        });
        master
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Effects::new();
        self.core.handle(event, Timestamp(1_000), &mut effects);
        let effects: Vec<Effect> = effects.drain().collect();
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => self.handle(Event::Committed {
                    proposal: Some(proposal),
                    command,
                }),
                Effect::SendFramework {
                    message: MasterToFramework::Offers(offers),
                    ..
                } => {
                    let offers = offers.iter().map(|it| (it.offer_id, it.slave_id));
                    self.offers.extend(offers);
                }
                Effect::SendSlave { .. }
                | Effect::SendFramework { .. }
                | Effect::Close { .. }
                | Effect::Reply { .. }
                | Effect::Publish(_) => {}
            }
        }
    }

    fn add_slave(&mut self, number: u32) {
        let connection = ConnectionId(u64::from(number) + 2);
        self.handle(Event::SlaveConnected {
            connection,
            principal: format!("slave-{number}"),
        });
        let slave = SlaveDescription {
            hostname: format!("host-{number}.example.org"),
            http_address: format!("10.0.0.1:{}", 5_000 + number),
            resources: parsed("cpus:24;mem:65536;disk:409600;ports:[31000-32000]"),
            attributes: "rack:r17;zone:z2".parse().expect("well formed"),
            capabilities: Vec::new(),
            version: "0.1.0".to_owned(),
        };
        let message = SlaveToMaster::Register { slave };
        self.handle(Event::Slave {
            connection,
            message,
        });
    }
}

fn per(begin: usize, count: u32) -> usize {
    MEMORY.in_use().saturating_sub(begin) / count as usize
}

/// One test, because memory is counted for the whole process.
#[test]
fn a_slave_and_a_task_take_no_more_memory_than_they_may() {
    let total = parsed("cpus:24;mem:65536;disk:409600;ports:[31000-32000]");
    let begin = MEMORY.in_use();
    let mut allocator = Allocator::default();
    for number in 0..SLAVES {
        allocator.add_slave(SlaveId(number), &total);
    }
    let of_allocator = per(begin, SLAVES);
    drop(allocator);

    let mut master = Master::new();
    let begin = MEMORY.in_use();
    for number in 0..SLAVES {
        master.add_slave(number);
    }
    let of_slave = per(begin, SLAVES);

    // A framework takes all that is offered, until each slave has its tasks.
    let framework = ConnectionId(1);
    master.handle(Event::FrameworkConnected {
        connection: framework,
        principal: "framework".to_owned(),
    });
    let role = RoleName::any();
    let description = FrameworkDescription::new("memory", role);
    let begin = MEMORY.in_use();
    master.handle(Event::Framework {
        connection: framework,
        message: FrameworkToMaster::Subscribe {
            framework: description,
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        },
    });
    assert_eq!(master.offers.len(), SLAVES as usize);
    let of_offer = per(begin, SLAVES);
    let task = parsed("cpus:1;mem:512;disk:100");
    for (offer_id, slave) in std::mem::take(&mut master.offers) {
        let tasks = (0..TASKS_PER_SLAVE).map(|number| {
            let id = TaskId::new(format!("task-{}-{number}", slave.0)).expect("short");
            TaskDescription::command(id, slave, task.clone(), TaskCommand::shell("sleep 1000"))
        });
        let message = FrameworkToMaster::Accept {
            offer_ids: vec![offer_id],
            operations: vec![Operation::Launch(tasks.collect())],
            filters: Filters {
                refuse: Duration::from_secs(3_600),
            },
        };
        master.handle(Event::Framework {
            connection: framework,
            message,
        });
    }
    // What is left of each offer is declined, so that the offers are gone and filters are there.
    let of_task = per(begin, SLAVES * TASKS_PER_SLAVE);
    let launched = master.core.counters().tasks_launched;
    assert_eq!(launched, u64::from(SLAVES * TASKS_PER_SLAVE));
    println!(
        "a slave takes {of_slave} bytes, {of_allocator} of them in the allocator; an offer \
         {of_offer}; a task {of_task}, with a filter for each {TASKS_PER_SLAVE} tasks"
    );
    assert!(of_slave <= SLAVE_BYTES_MAX, "{of_slave} bytes a slave");
    assert!(
        of_allocator <= ALLOCATOR_BYTES_MAX,
        "{of_allocator} bytes in the allocator"
    );
    assert!(of_task <= TASK_BYTES_MAX, "{of_task} bytes a task");
}
