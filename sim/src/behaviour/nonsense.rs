//! A framework that speaks the protocol without the driver, and badly: foreign and used ids, offers
//! used twice, absurd tasks, acknowledgements of nothing and none where one is due.

use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, FrameworkId, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, ReconcileTask};
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::task::{Command, TaskDescription};

use crate::prng::Rng;

/// What it is best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Any message at any time.
    Anything,
    /// Takes all offers and does nothing with them.
    Hoards,
    /// Declines every offer the moment it comes, and wants it back at once.
    Declines,
    /// Launches tasks and never acknowledges anything.
    Unthankful,
    /// Uses every offer at once, for tasks with the ids of others that live.
    Reuses,
}

/// What it has seen, to use it wrongly.
#[derive(Debug)]
pub(crate) struct Nonsense {
    every: Duration,
    manner: Manner,
    /// Offers that it may still decline at once, until it wakes again: two of its kind would pass
    /// one to and fro for ever.
    fury: u32,
    name: String,
    rng: Rng,
    framework_id: Option<FrameworkId>,
    is_removed: bool,
    offers: Vec<Offer>,
    updates: Vec<(TaskId, UpdateId)>,
}

const KEPT_MAX: usize = 32;
const FURY_MAX: u32 = 20;

impl Nonsense {
    pub(crate) fn new(every: Duration, manner: Manner, name: String, rng: Rng) -> Self {
        Self {
            every,
            manner,
            fury: 0,
            name,
            rng,
            framework_id: None,
            is_removed: false,
            offers: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Until its next message.
    pub(crate) fn wait(&mut self) -> Duration {
        self.rng.duration(Duration::ZERO, self.every * 2)
    }

    /// The first message on a connection; now and then not the one that belongs there.
    pub(crate) fn first(&mut self) -> FrameworkToMaster {
        match self.rng.percent(90) {
            true => self.subscribe(),
            false => self.message(),
        }
    }

    fn subscribe(&mut self) -> FrameworkToMaster {
        if std::mem::take(&mut self.is_removed) {
            self.framework_id = None;
        }
        let mut framework = FrameworkDescription::new(self.name.clone(), self.role());
        framework.framework_id = match self.rng.below(10) {
            0 => Some(FrameworkId(self.number(20))),
            1 => Some(FrameworkId(u32::MAX)),
            2 => None,
            _ => self.framework_id,
        };
        match self.rng.below(12) {
            0 => framework.roles.clear(),
            1 => framework.principal = Some("somebody-else".to_owned()),
            2 => framework.name.clear(),
            3 => framework.failover_timeout = Duration::MAX,
            4 => framework.failover_timeout = Duration::ZERO,
            _ => {}
        }
        FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// Takes in a message; what it says at once.
    pub(crate) fn on_message(&mut self, message: MasterToFramework) -> Option<FrameworkToMaster> {
        let mut answer = None;
        match message {
            MasterToFramework::Subscribed { framework_id, .. } => {
                self.framework_id = Some(framework_id);
            }
            MasterToFramework::Offers(offers)
                if self.manner == Manner::Declines && self.fury > 0 =>
            {
                self.fury -= 1;
                answer = Some(FrameworkToMaster::Decline {
                    offer_ids: offers.iter().map(|offer| offer.offer_id).collect(),
                    filters: Filters {
                        refuse: Duration::ZERO,
                    },
                });
            }
            MasterToFramework::Offers(offers) if self.manner == Manner::Reuses && self.fury > 0 => {
                self.fury -= 1;
                answer = offers.first().map(|offer| self.launch_again(offer));
                self.offers.extend(offers);
            }
            MasterToFramework::Offers(offers) => self.offers.extend(offers),
            MasterToFramework::Update(status) => {
                self.updates
                    .extend(status.update_id.map(|id| (status.task_id, id)));
            }
            MasterToFramework::Error {
                refusal: Refusal::NotLeading { .. },
                ..
            } => {}
            MasterToFramework::Error { .. } => self.is_removed = true,
            _ => {}
        }
        let offers = self.offers.len().saturating_sub(KEPT_MAX);
        self.offers.drain(..offers);
        let updates = self.updates.len().saturating_sub(KEPT_MAX);
        self.updates.drain(..updates);
        answer
    }

    /// Any message at all.
    pub(crate) fn message(&mut self) -> FrameworkToMaster {
        self.fury = FURY_MAX;
        let drawn = match self.manner {
            Manner::Anything => self.rng.below(40),
            // Speaks now and then, so that it is known to be there.
            Manner::Hoards | Manner::Declines | Manner::Reuses => 24 + self.rng.below(3),
            Manner::Unthankful => self.rng.below(31),
        };
        match drawn {
            0 => self.subscribe(),
            1 if self.rng.percent(20) => FrameworkToMaster::Teardown,
            1..=19 => FrameworkToMaster::Accept {
                offer_ids: self.offer_ids(),
                operations: self.operations(),
                filters: self.filters(),
            },
            20..=23 => FrameworkToMaster::Decline {
                offer_ids: self.offer_ids(),
                filters: self.filters(),
            },
            24..=25 => FrameworkToMaster::Revive {
                roles: self.roles(),
            },
            26 => FrameworkToMaster::Suppress {
                roles: self.roles(),
            },
            27..=30 => FrameworkToMaster::Kill {
                task_id: self.task_id(),
                slave_id: self.some_slave(),
                grace: *self
                    .rng
                    .pick(&[None, Some(Duration::ZERO), Some(Duration::MAX)]),
            },
            31..=35 => {
                let (task_id, update_id) = match self.updates.is_empty() || self.rng.percent(20) {
                    true => (self.task_id(), UpdateId(u128::from(self.rng.next()))),
                    false => self.rng.pick(&self.updates).clone(),
                };
                FrameworkToMaster::Acknowledge {
                    slave_id: self.some_slave(),
                    task_id,
                    update_id,
                }
            }
            _ => {
                let count = self.rng.below(4);
                let tasks = (0..count)
                    .map(|_| ReconcileTask {
                        task_id: self.task_id(),
                        slave_id: self.some_slave(),
                    })
                    .collect();
                FrameworkToMaster::Reconcile { tasks }
            }
        }
    }

    /// A task that lives until it is killed, with one of three ids.
    fn launch_again(&mut self, offer: &Offer) -> FrameworkToMaster {
        let task_id = format!("svc-r{}", self.rng.below(3));
        let task_id = TaskId::new(task_id).expect("letters and digits");
        let resources = "cpus:0.1;mem:32".parse().expect("resources");
        let command = Command::shell("true");
        let task = TaskDescription::command(task_id, offer.slave_id, resources, command);
        FrameworkToMaster::Accept {
            offer_ids: vec![offer.offer_id],
            operations: vec![Operation::Launch(vec![task])],
            filters: Filters::default(),
        }
    }

    fn number(&mut self, bound: u64) -> u32 {
        u32::try_from(self.rng.below(bound)).expect("a small bound")
    }

    fn role(&mut self) -> RoleName {
        self.rng
            .pick(&["*", "web", "batch"])
            .parse()
            .expect("a role")
    }

    fn roles(&mut self) -> Vec<RoleName> {
        (0..self.rng.below(3)).map(|_| self.role()).collect()
    }

    /// Few different ones, so that they are used again and again.
    fn task_id(&mut self) -> TaskId {
        let number = self.rng.below(30);
        let prefix = *self.rng.pick(&["", "", "svc-"]);
        TaskId::new(format!("{prefix}n{number}")).expect("letters and digits")
    }

    fn some_slave(&mut self) -> Option<SlaveId> {
        let drawn = *self
            .rng
            .pick(&[None, Some(0), Some(1), Some(2), Some(u32::MAX)]);
        drawn.map(SlaveId)
    }

    fn filters(&mut self) -> Filters {
        let refuse = match self.rng.below(4) {
            0 => Duration::MAX,
            _ => Duration::from_millis(self.rng.between(500, 60_000)),
        };
        Filters { refuse }
    }

    fn offer_ids(&mut self) -> Vec<OfferId> {
        (0..self.rng.below(3))
            .map(|_| match self.offers.is_empty() || self.rng.percent(15) {
                true => OfferId {
                    epoch: Epoch(self.rng.below(5)),
                    number: self.rng.below(200),
                },
                false => self.rng.pick(&self.offers).offer_id,
            })
            .collect()
    }

    fn operations(&mut self) -> Vec<Operation> {
        (0..self.rng.below(3))
            .map(|_| {
                let count = self.rng.below(4);
                Operation::Launch((0..count).map(|_| self.task()).collect())
            })
            .collect()
    }

    fn task(&mut self) -> TaskDescription {
        let offer = match self.offers.is_empty() {
            true => None,
            false => Some(self.rng.pick(&self.offers).clone()),
        };
        let slave_id = match self.rng.percent(80) {
            true => offer.as_ref().map_or(SlaveId(0), |offer| offer.slave_id),
            false => SlaveId(self.number(9)),
        };
        let resources = match self.rng.below(8) {
            0 => Resources::new(),
            1 => "cpus:1000000000;mem:1".parse().expect("resources"),
            2 => "cpus:0.001".parse().expect("resources"),
            3 => "gold:{a,b};ports:[0-65535]".parse().expect("resources"),
            4 => offer.map(|offer| offer.resources).unwrap_or_default(),
            _ => "cpus:0.5;mem:64".parse().expect("resources"),
        };
        let mut task =
            TaskDescription::command(self.task_id(), slave_id, resources, Command::shell("true"));
        match self.rng.below(12) {
            0 => task.command = None,
            1 => task.kill_grace = Some(Duration::MAX),
            2 => task.max_completion_time = Some(Duration::ZERO),
            3 => task.max_completion_time = Some(Duration::from_secs(3)),
            4 => task.name = "x".repeat(10_000),
            _ => {}
        }
        task
    }
}
