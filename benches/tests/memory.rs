//! What a slave and a task take in the master's core, in bytes that are asked of the system. The
//! bounds are well above what was measured: they are for whoever doubles it without noticing.
//! `cargo nextest run --release -p meros-benches --test memory --no-capture` prints the figures.

use std::time::Duration;

use meros_benches::cluster::parsed;
use meros_benches::counting::Counting;
use meros_benches::leader::Leader;
use meros_master_core::allocator::{Allocator, Grant};
use meros_master_core::{Config, ConnectionId, Effect, Event};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::{Filters, Operation};
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
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

/// Roles with a quota and a framework each, and as many slaves: Apache Mesos takes 5.4 GB for that.
const QUOTAS: u32 = 3_000;
const QUOTAS_BYTES_MAX: usize = 100_000_000;

/// An allocator in which every role has a quota, after a round.
fn with_quotas() -> (Allocator, Vec<Grant>) {
    let mut allocator = Allocator::default();
    let amounts = || {
        let amounts = [(ResourceName::CPUS, 1), (ResourceName::MEM, 1_024)];
        amounts.map(|(name, amount)| (name, Scalar::whole(amount)))
    };
    let quota = Quota {
        guarantees: amounts().into(),
        limits: amounts().into(),
    };
    let total = parsed("cpus:2;mem:2048;disk:2048");
    for number in 0..QUOTAS {
        let role = RoleName::new(&format!("role{number}")).expect("a good role");
        allocator.set_quota(&role, &quota);
        allocator.set_active(FrameworkId(number), &role, true);
        allocator.add_slave(SlaveId(number), &total);
    }
    let mut grants = Vec::new();
    allocator.plan(&mut grants);
    (allocator, grants)
}

/// A leader, and the offers that it has made.
struct Master {
    leader: Leader,
    offers: Vec<(OfferId, SlaveId)>,
}

const NOW: Timestamp = Timestamp(1_000);

impl Master {
    fn new() -> Self {
        let config = Config {
            allocation_delay: Duration::ZERO,
            ..Config::default()
        };
        Self {
            leader: Leader::new(config, NOW),
            offers: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        for effect in self.leader.handle(event, NOW) {
            if let Effect::SendFramework {
                message: MasterToFramework::Offers(offers),
                ..
            } = effect
            {
                let offers = offers.iter().map(|it| (it.offer_id, it.slave_id));
                self.offers.extend(offers);
            }
        }
    }

    fn add_slave(&mut self, number: u32) {
        let connection = ConnectionId(u64::from(number) + 2);
        let resources = parsed("cpus:24;mem:65536;disk:409600;ports:[31000-32000]");
        let attributes = "rack:r17;zone:z2";
        let place = (connection, number as usize);
        self.leader.add_slave(place, resources, attributes, NOW);
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
    let begin = MEMORY.in_use();
    let quotas = with_quotas();
    assert!(quotas.1.len() >= QUOTAS as usize);
    let of_quotas = per(begin, 1);
    drop(quotas);

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
    let launched = master.leader.core.counters().tasks_launched;
    assert_eq!(launched, u64::from(SLAVES * TASKS_PER_SLAVE));
    println!(
        "a slave takes {of_slave} bytes, {of_allocator} of them in the allocator; an offer \
         {of_offer}; a task {of_task}, with a filter for each {TASKS_PER_SLAVE} tasks; {QUOTAS} \
         quotas and as many slaves {of_quotas}"
    );
    assert!(
        of_quotas <= QUOTAS_BYTES_MAX,
        "{of_quotas} bytes for quotas"
    );
    assert!(of_slave <= SLAVE_BYTES_MAX, "{of_slave} bytes a slave");
    assert!(
        of_allocator <= ALLOCATOR_BYTES_MAX,
        "{of_allocator} bytes in the allocator"
    );
    assert!(of_task <= TASK_BYTES_MAX, "{of_task} bytes a task");
}
