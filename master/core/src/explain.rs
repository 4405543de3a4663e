//! Why somebody is offered nothing, and what has become of a task. The answers come from the decision
//! path and the tables themselves, so a projection cannot give them.
//!
//! Bounds: a question is answered for so many frameworks and roles that it takes
//! [`WHY_JUDGEMENTS_MAX`], the others are counted as left out; and questions wait until those before
//! have been paid for, at [`WHY_JUDGEMENTS_PER_SECOND`]. While nobody asks it costs nothing.

use std::time::Duration;

use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_proto::view::FrameworkState;
use meros_proto::why::{Why, WhyOffers, WhyQuestion, WhyReason, WhyRow, WhyTask};

use crate::MasterCore;
use crate::allocator::{Explanation, Reason};
use crate::tasks::Task;

/// Looks at one slave for one framework and role that one answer may take: some 0.1 s.
pub const WHY_JUDGEMENTS_MAX: usize = 200_000;
/// Looks that all answers together may take a second, so that the core has most of its time for its
/// work.
pub const WHY_JUDGEMENTS_PER_SECOND: usize = 400_000;
/// A question counts for at least so many looks: what it costs to take and to answer it.
const JUDGEMENTS_MIN: usize = 1_000;

impl MasterCore {
    /// Answers, or refuses: nothing of that name, or too soon after other questions.
    pub(crate) fn on_why(
        &mut self,
        question: &WhyQuestion,
        now: Timestamp,
    ) -> Result<Why, Refusal> {
        if let WhyQuestion::Task(framework_id, task_id) = question {
            return self.why_task(*framework_id, task_id).map(Why::Task);
        }
        self.check_paid(now)?;
        // A name that nobody has was looked for among all, too.
        self.charge_for(self.registry.frameworks().count(), now);
        let asked = self.asked_about(question)?;
        let slaves = match question {
            WhyQuestion::Slave(_) => 1,
            _ => self.slaves.len().max(1),
        };
        let most = (WHY_JUDGEMENTS_MAX / slaves).max(1);
        let looked_at = asked.len().min(most);
        // Those that are left out were gone through, too.
        self.charge_for((looked_at * slaves).max(asked.len()), now);
        let row = |(framework, role): &(FrameworkId, RoleName)| {
            let explanation = match question {
                WhyQuestion::Slave(slave) => self.allocator.explain_one(*framework, role, *slave),
                _ => self.allocator.explain_all(*framework, role),
            };
            self.row(*framework, role, &explanation)
        };
        Ok(Why::Offers(WhyOffers {
            rows: asked[..looked_at].iter().map(row).collect(),
            left_out: (asked.len() - looked_at) as u64,
        }))
    }

    /// The frameworks and roles that a question is about.
    fn asked_about(&self, question: &WhyQuestion) -> Result<Vec<(FrameworkId, RoleName)>, Refusal> {
        let all = || {
            let frameworks = self.registry.frameworks();
            frameworks.flat_map(|(id, record)| {
                let roles = record.framework.roles.iter();
                roles.map(move |role| (id, role.clone()))
            })
        };
        match question {
            WhyQuestion::Framework(framework_id) => {
                let framework_id = *framework_id;
                match self.registry.framework(framework_id) {
                    Some(record) => {
                        let roles = record.framework.roles.iter().cloned();
                        Ok(roles.map(|role| (framework_id, role)).collect())
                    }
                    None if self.registry.is_removed_framework(framework_id) => {
                        Err(Refusal::FrameworkRemoved { framework_id })
                    }
                    None => Err(Refusal::FrameworkUnknown { framework_id }),
                }
            }
            WhyQuestion::Role(asked) => {
                let found: Vec<_> = all().filter(|(_, role)| role == asked).collect();
                let is_configured = self.registry.quotas().contains_key(asked)
                    || self.registry.weights().contains_key(asked);
                if found.is_empty() && !is_configured {
                    return Err(Refusal::RoleUnknown {
                        role: asked.clone(),
                    });
                }
                Ok(found)
            }
            WhyQuestion::Slave(slave_id) if self.slaves.get(*slave_id).is_none() => {
                Err(Refusal::NoSuchSlave {
                    slave_id: *slave_id,
                })
            }
            WhyQuestion::Slave(_) | WhyQuestion::Task(..) => Ok(all().collect()),
        }
    }

    /// Refuses, before anything is looked up, while what was answered before is not paid for.
    fn check_paid(&self, now: Timestamp) -> Result<(), Refusal> {
        if now >= self.why_from {
            return Ok(());
        }
        Err(Refusal::OverLimit {
            what: "what questions may cost the master in a second".to_owned(),
            limit: WHY_JUDGEMENTS_PER_SECOND as u64,
            advice: "ask again in a second".to_owned(),
        })
    }

    /// Takes the time that an answer costs from what questions may take.
    fn charge_for(&mut self, judgements: usize, now: Timestamp) {
        let judgements = judgements.max(JUDGEMENTS_MIN) as u64;
        let micros = judgements * 1_000_000 / WHY_JUDGEMENTS_PER_SECOND as u64;
        self.why_from = now.after(Duration::from_micros(micros));
    }

    fn row(&self, framework: FrameworkId, role: &RoleName, found: &Explanation) -> WhyRow {
        let text = |reason: &Reason| match reason {
            Reason::Constraint { group, place } => {
                let text = self.constraint_text(framework, role, (*group, *place));
                text.map(|text| format!("its constraint does not hold: {text}"))
            }
            _ => None,
        };
        let reason = |(reason, slaves): (&Reason, &u32)| WhyReason {
            code: reason.code().to_owned(),
            text: text(reason).unwrap_or_else(|| reason.to_string()),
            advice: reason.advice(),
            slaves: u64::from(*slaves),
        };
        let mut reasons: Vec<WhyReason> = found.refused.iter().map(reason).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.slaves));
        let name = self.description(framework).map(|it| it.name.clone());
        WhyRow {
            framework_id: framework,
            name: name.unwrap_or_default(),
            role: role.clone(),
            holds: self.offers.of_framework(framework).len() as u64,
            offerable: u64::from(found.offerable),
            reasons,
            declined_until: found.filter_ends,
            smallest_change: found.smallest_change.as_ref().map(ToString::to_string),
        }
    }

    fn why_task(&self, framework_id: FrameworkId, task_id: &TaskId) -> Result<WhyTask, Refusal> {
        let slot = self.tasks.find(framework_id, task_id);
        let task = slot.and_then(|slot| self.tasks.get(slot));
        let task = task.ok_or_else(|| Refusal::TaskUnknown {
            task_id: task_id.clone(),
        })?;
        let mut because = Vec::new();
        let status = task.status.as_deref();
        if let Some(status) = status.filter(|status| !status.message.is_empty()) {
            because.push(status.message.clone());
        }
        because.extend(self.place_of(task));
        because.extend(self.waits_of(task));
        Ok(WhyTask {
            framework_id,
            task_id: task_id.clone(),
            slave_id: task.slave(),
            state: task.state,
            reason: status.and_then(|status| status.reason),
            because,
            advice: self.advice_for(task).to_owned(),
        })
    }

    /// How its slave stands, where that matters.
    fn place_of(&self, task: &Task) -> Option<String> {
        let slave_id = task.slave();
        let Some(slave) = self.slaves.get(slave_id) else {
            return Some(format!("its slave {slave_id} has left the cluster"));
        };
        if task.state.is_terminal() {
            return None;
        }
        let text = match slave.state() {
            SlaveState::Registered if task.status.is_none() => {
                format!("it was sent to slave {slave_id}, which has not said anything of it yet")
            }
            SlaveState::Registered => return None,
            SlaveState::Disconnected => {
                format!("the connection of its slave {slave_id} is broken; it may come back")
            }
            SlaveState::Recovered => {
                format!("its slave {slave_id} has not come back to this master yet")
            }
            SlaveState::Unreachable => format!("its slave {slave_id} does not answer"),
        };
        Some(text)
    }

    /// What has been asked of it or of its framework and is not answered.
    fn waits_of(&self, task: &Task) -> Vec<String> {
        let mut waits = Vec::new();
        if task.kill.is_some() && !task.state.is_terminal() {
            waits.push("a kill of it has been ordered".to_owned());
        }
        let is_told = self.updates.contains(task.framework(), task.id());
        if task.awaiting.is_some() || is_told {
            let state = self.frameworks.get(task.framework()).map(|it| it.state);
            let who = match state {
                Some(FrameworkState::Subscribed) => "its framework",
                _ => "its framework, which is away,",
            };
            waits.push(format!("{who} has not acknowledged its last update"));
        }
        waits
    }

    fn advice_for(&self, task: &Task) -> &'static str {
        let slave = self.slaves.get(task.slave()).map(|slave| slave.state());
        match (task.state, slave) {
            (state, _) if state.is_terminal() => {
                "nothing: it stays here until its framework acknowledges its end"
            }
            (TaskState::Unreachable, _) => {
                "bring the slave back, or declare it gone if it never will be"
            }
            (_, Some(SlaveState::Registered)) if task.kill.is_some() => {
                "wait for the grace of the kill to pass"
            }
            (TaskState::Staging | TaskState::Starting, Some(SlaveState::Registered)) => {
                "wait; the log of the slave tells how far it is"
            }
            (_, Some(SlaveState::Registered)) => "nothing: it runs",
            _ => "wait for the slave: it comes back, or is given up when its time is over",
        }
    }
}
