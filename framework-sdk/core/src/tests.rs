//! Scripts: events in, exact effects out.

use std::time::Duration;

use meros_proto::executor::ExecutorDescription;
use meros_proto::group::TaskGroup;
use meros_proto::ids::{Epoch, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::offer::{Filters, Operation};
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, Source};
use meros_proto::task::{Command, TaskDescription};

use super::*;

mod link;
mod tasks;

const FRAMEWORK: FrameworkId = FrameworkId(3);
const CLUSTER: ClusterId = ClusterId(77);

/// A driver, its clock, and what it did last.
struct Script {
    driver: Driver,
    now: Timestamp,
}

impl Script {
    fn with(change: impl FnOnce(&mut DriverConfig)) -> Self {
        let role = "*".parse().expect("a role");
        let mut config = DriverConfig {
            framework: FrameworkDescription::new("test", role),
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
            cluster_id: None,
            epoch: Epoch(0),
            seed: 1,
        };
        change(&mut config);
        let now = Timestamp(1_000_000);
        Self {
            driver: Driver::new(config, now),
            now,
        }
    }

    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A driver that has just been subscribed.
    fn subscribed() -> Self {
        let mut script = Self::new();
        script.connect();
        script.on_message(welcome());
        script
    }

    #[must_use]
    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.driver.handle(event, self.now, &mut effects);
        self.driver.check_invariants();
        effects
    }

    fn call(&mut self, call: Call) -> Vec<Effect> {
        self.on(Event::Call(call))
    }

    fn on_message(&mut self, message: MasterToFramework) -> Vec<Effect> {
        self.on(Event::Master(message))
    }

    /// Goes on to the next deadline.
    fn tick(&mut self) -> Vec<Effect> {
        let deadline = self.driver.next_deadline().expect("something is due");
        self.now = self.now.max(deadline);
        self.on(Event::Tick)
    }

    fn wait(&mut self, duration: Duration) -> Vec<Effect> {
        self.now = self.now.after(duration);
        self.on(Event::Tick)
    }

    fn connect(&mut self) -> Vec<Effect> {
        assert!(matches!(self.tick()[..], [Effect::Connect { .. }]));
        self.on(Event::Connected)
    }

    fn break_off(&mut self) {
        let effects = self.on(Event::Disconnected {
            why: "cut".to_owned(),
        });
        assert_eq!(
            effects,
            [Effect::Deliver(News::Disconnected {
                why: "cut".to_owned()
            })]
        );
    }

    /// Comes back; what follows the subscription.
    fn resubscribe(&mut self) -> Vec<Effect> {
        self.connect();
        let mut effects = self.on_message(welcome());
        let news = News::Subscribed {
            framework_id: FRAMEWORK,
            cluster_id: CLUSTER,
            again: true,
        };
        assert_eq!(effects.remove(0), Effect::Deliver(news));
        effects
    }

    fn launch(&mut self, names: &[&str]) {
        let effects = self.call(accept(names));
        assert!(
            matches!(
                effects[..],
                [Effect::Send(FrameworkToMaster::Accept { .. })]
            ),
            "{effects:?}"
        );
    }

    /// Hands in an update and handles it, as a framework does.
    fn settle(&mut self, status: TaskStatus) {
        let update_id = status.update_id.expect("a reliable one");
        let delivered = self.on_message(MasterToFramework::Update(status.clone()));
        assert_eq!(delivered, [Effect::Deliver(News::Update(status.clone()))]);
        assert_eq!(
            self.call(acknowledge(&status)),
            [acknowledged(&status, update_id)]
        );
    }
}

fn welcome() -> MasterToFramework {
    MasterToFramework::Subscribed {
        framework_id: FRAMEWORK,
        cluster_id: CLUSTER,
        epoch: Epoch(1),
    }
}

/// The leader of term 1 ends the subscription.
fn error(refusal: Refusal) -> MasterToFramework {
    error_of(1, refusal)
}

fn error_of(term: u64, refusal: Refusal) -> MasterToFramework {
    let by = Some(Leadership {
        cluster_id: CLUSTER,
        epoch: Epoch(term),
    });
    MasterToFramework::Error { refusal, by }
}

fn id(name: &str) -> TaskId {
    TaskId::new(name).expect("a task id")
}

fn offer_id(number: u64) -> OfferId {
    OfferId {
        epoch: Epoch(1),
        number,
    }
}

fn task(name: &str) -> TaskDescription {
    let resources: Resources = "cpus:1".parse().expect("resources");
    TaskDescription::command(id(name), SlaveId(5), resources, Command::shell("true"))
}

fn accept(names: &[&str]) -> Call {
    Call::Accept {
        offer_ids: vec![offer_id(1)],
        operations: vec![Operation::Launch(
            names.iter().map(|name| task(name)).collect(),
        )],
        filters: Filters::default(),
    }
}

/// The `number`-th update that the slave made.
fn update(name: &str, state: TaskState, number: u64) -> TaskStatus {
    let mut status = TaskStatus::new(id(name), state, Source::Slave, Timestamp(5));
    status.slave_id = Some(SlaveId(5));
    status.update_id = Some(UpdateId::by_slave(SlaveId(5), 1, number));
    status
}

/// An answer to a reconciliation.
fn answer(name: &str, state: TaskState) -> TaskStatus {
    let mut status = TaskStatus::new(id(name), state, Source::Master, Timestamp(5));
    status.reason = Some(Reason::Reconciliation);
    status
}

fn acknowledge(status: &TaskStatus) -> Call {
    Call::Acknowledge {
        slave_id: status.slave_id,
        task_id: status.task_id.clone(),
        update_id: status.update_id,
    }
}

fn acknowledged(status: &TaskStatus, update_id: UpdateId) -> Effect {
    Effect::Send(FrameworkToMaster::Acknowledge {
        slave_id: status.slave_id,
        task_id: status.task_id.clone(),
        update_id,
    })
}

fn asked(names: &[&str], slave_id: Option<SlaveId>) -> Effect {
    let tasks = names
        .iter()
        .map(|name| ReconcileTask {
            task_id: id(name),
            slave_id,
        })
        .collect();
    Effect::Send(FrameworkToMaster::Reconcile { tasks })
}

fn kill(name: &str, slave_id: Option<SlaveId>, grace: Option<Duration>) -> Effect {
    Effect::Send(FrameworkToMaster::Kill {
        task_id: id(name),
        slave_id,
        grace,
    })
}

#[track_caller]
fn the_status(effects: &[Effect]) -> &TaskStatus {
    match effects {
        [Effect::Deliver(News::Update(status))] => status,
        other => panic!("expected one status, got {other:?}"),
    }
}
