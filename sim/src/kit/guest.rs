//! A framework under test, as the simulated datacenter sees it: what it is to be told next, and a
//! record of what it was told and has asked for. What it makes of news is asked outside.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_sdk_core::{Call, EndReason, News};

use crate::behaviour::{App, Believed};
use crate::fault::Memory;
use crate::prng::Rng;

/// A framework under test in the plan of a world.
#[derive(Debug, Clone)]
pub(crate) struct GuestPlan {
    pub(crate) framework: FrameworkDescription,
    pub(crate) suppressed_roles: Vec<RoleName>,
    pub(crate) wishes: Vec<OfferWishes>,
    /// The longest time that it takes for one piece of news.
    pub(crate) thinking_max: Duration,
    /// Whether a program that starts again is the same framework.
    pub(crate) keeps_id: bool,
    pub(crate) guest: Rc<RefCell<Guest>>,
}

impl GuestPlan {
    /// As it describes itself.
    pub(crate) fn describe(&self, framework_id: Option<FrameworkId>) -> FrameworkDescription {
        FrameworkDescription {
            framework_id,
            ..self.framework.clone()
        }
    }
}

/// A task that was launched.
#[derive(Debug, Clone)]
pub(crate) struct Launched {
    pub(crate) hostname: String,
    pub(crate) slave_id: Option<SlaveId>,
    /// As it was told last; staging before anything was.
    pub(crate) state: TaskState,
    /// Of an earlier life of the program, which this one was not told of: perhaps it never reached
    /// a master.
    pub(crate) is_past: bool,
}

/// What is known of a framework under test, through all its lives.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// News that it has to deal with now.
    told: VecDeque<News>,
    /// How often its program was started.
    pub(crate) lives: u32,
    pub(crate) is_subscribed: bool,
    pub(crate) tasks: BTreeMap<TaskId, Launched>,
    /// What it may use.
    pub(crate) offers: BTreeMap<OfferId, Offer>,
    /// Calls that were refused, by their names.
    pub(crate) refusals: Vec<(String, Refusal)>,
    pub(crate) ended: Option<EndReason>,
    /// Whether it has used the id of a task that had ended for another one.
    pub(crate) reuses_ids: bool,
}

impl Guest {
    pub(crate) fn take_told(&mut self) -> Option<News> {
        self.told.pop_front()
    }

    /// Tasks that this life has launched or was told of, and that have not ended.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&TaskId, &Launched)> {
        self.tasks
            .iter()
            .filter(|(_, task)| !task.state.is_terminal() && !task.is_past)
    }

    fn on_news(&mut self, news: &News) {
        match news {
            News::Subscribed { .. } => {
                self.offers.clear();
                self.is_subscribed = true;
            }
            News::Disconnected { .. } => {
                self.offers.clear();
                self.is_subscribed = false;
            }
            News::Offers(offers) => {
                let offers = offers.iter().map(|offer| (offer.offer_id, offer.clone()));
                self.offers.extend(offers);
            }
            News::Rescinded(offer_id) => {
                self.offers.remove(offer_id);
            }
            News::Update(status) => {
                let slave_id = status.slave_id;
                let task = self
                    .tasks
                    .entry(status.task_id.clone())
                    .or_insert(Launched {
                        hostname: String::new(),
                        slave_id,
                        state: status.state,
                        is_past: false,
                    });
                task.state = status.state;
                task.is_past = false;
                task.slave_id = slave_id.or(task.slave_id);
            }
            News::Refused { call, refusal } => {
                self.refusals.push((call.clone(), refusal.clone()));
            }
            News::Ended(reason) => {
                self.offers.clear();
                self.is_subscribed = false;
                self.ended = Some(reason.clone());
            }
            News::ConnectFailed { .. }
            | News::SlaveLost(_)
            | News::ExecutorEnded { .. }
            | News::ExecutorMessage { .. }
            | News::Operation(_) => {}
        }
    }

    /// It asks something of its driver. Returns the ids that it uses anew.
    pub(crate) fn on_call(&mut self, call: &Call) -> Vec<TaskId> {
        let mut reused = Vec::new();
        match call {
            Call::Accept {
                offer_ids,
                operations,
                ..
            } => {
                let first = offer_ids.first().and_then(|id| self.offers.get(id));
                let hostname = first.map_or_else(String::new, |offer| offer.hostname.clone());
                for operation in operations {
                    for task in operation.tasks() {
                        let known = self.tasks.get(&task.task_id);
                        // An id that is in use is refused, and its task goes on.
                        if known.is_some_and(|known| !known.state.is_terminal() && !known.is_past) {
                            continue;
                        }
                        let launched = Launched {
                            hostname: hostname.clone(),
                            slave_id: Some(task.slave_id),
                            state: TaskState::Staging,
                            is_past: false,
                        };
                        if self.tasks.insert(task.task_id.clone(), launched).is_some() {
                            self.reuses_ids = true;
                            reused.push(task.task_id.clone());
                        }
                    }
                }
                self.offers.retain(|id, _| !offer_ids.contains(id));
            }
            Call::Decline { offer_ids, .. } => {
                self.offers.retain(|id, _| !offer_ids.contains(id));
            }
            _ => {}
        }
        reused
    }
}

/// The program of a guest, to the world.
#[derive(Debug)]
pub(crate) struct GuestApp {
    guest: Rc<RefCell<Guest>>,
    thinking_max: Duration,
    keeps_id: bool,
    rng: Rng,
}

impl GuestApp {
    pub(crate) fn new(plan: &GuestPlan, rng: Rng) -> Self {
        Self {
            guest: Rc::clone(&plan.guest),
            thinking_max: plan.thinking_max,
            keeps_id: plan.keeps_id,
            rng,
        }
    }
}

impl App for GuestApp {
    fn restart(&mut self, _memory: Memory, _now: Timestamp) -> Vec<Call> {
        let mut guest = self.guest.borrow_mut();
        guest.told.clear();
        guest.offers.clear();
        guest.is_subscribed = false;
        guest.lives += 1;
        match self.keeps_id {
            true => guest
                .tasks
                .values_mut()
                .for_each(|task| task.is_past = true),
            false => guest.tasks.clear(),
        }
        Vec::new()
    }

    fn drain(&mut self, _now: Timestamp) {}

    fn has_launched_all(&self) -> bool {
        true
    }

    /// For the end of a judged run, which no guest takes part in.
    fn live(&self) -> Box<dyn Iterator<Item = (&TaskId, &Believed)> + '_> {
        Box::new(std::iter::empty())
    }

    fn next_wake(&self) -> Option<Timestamp> {
        None
    }

    fn thinking(&mut self) -> Duration {
        self.rng.duration(Duration::ZERO, self.thinking_max)
    }

    fn on_news(&mut self, news: News, _now: Timestamp) -> Vec<Call> {
        let mut guest = self.guest.borrow_mut();
        guest.on_news(&news);
        guest.told.push_back(news);
        Vec::new()
    }

    fn on_wake(&mut self, _now: Timestamp) -> Vec<Call> {
        Vec::new()
    }

    fn comes_back(&self, _reason: &EndReason) -> bool {
        false
    }
}
