//! What the framework asks: passed on, remembered for the next subscription, or both.

use std::time::Duration;

use meros_proto::executor::EXECUTOR_MESSAGE_BYTES_MAX;
use meros_proto::ids::{SlaveId, TaskId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, ReconcileTask};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use crate::accept::Accept;
use crate::config::TEARDOWN_TIMEOUT;
use crate::{Call, Driver, Effect, EndReason, Link};

impl Driver {
    pub(crate) fn on_call(&mut self, call: Call, now: Timestamp, effects: &mut Vec<Effect>) {
        let subscribed = self.link == Link::Subscribed;
        match call {
            Call::Accept {
                offer_ids,
                operations,
                filters,
            } => {
                let accept = Accept {
                    offer_ids,
                    operations,
                    filters,
                };
                self.on_accept(accept, now, effects);
            }
            Call::Decline { offer_ids, filters } if subscribed => {
                self.decline(&offer_ids, filters, effects);
            }
            // Offers are void: there is nothing to give back.
            Call::Decline { .. } => self.counters.refused_calls += 1,
            Call::Revive { roles } => self.on_revive(roles, subscribed, effects),
            Call::Suppress { roles } => self.on_suppress(roles, subscribed, effects),
            Call::Wish { wishes } => {
                self.wishes.clone_from(&wishes);
                if subscribed {
                    effects.push(Effect::Send(FrameworkToMaster::Wish { wishes }));
                }
            }
            Call::Kill { task_id, grace } => self.on_kill(task_id, grace, effects),
            Call::Acknowledge {
                slave_id,
                task_id,
                update_id,
            } => {
                self.on_acknowledge(slave_id, task_id, update_id, effects);
            }
            Call::Reconcile { tasks } => self.on_reconcile(&tasks, now, effects),
            Call::ShutdownExecutor {
                slave_id,
                executor_id,
            } if subscribed => {
                effects.push(Effect::Send(FrameworkToMaster::ShutdownExecutor {
                    slave_id,
                    executor_id,
                }));
            }
            Call::MessageExecutor {
                slave_id,
                executor_id,
                data,
            } if subscribed && data.len() <= EXECUTOR_MESSAGE_BYTES_MAX => {
                effects.push(Effect::Send(FrameworkToMaster::ExecutorMessage {
                    slave_id,
                    executor_id,
                    data,
                }));
            }
            Call::ShutdownExecutor { .. } | Call::MessageExecutor { .. } => {
                self.counters.refused_calls += 1;
            }
            Call::Teardown => self.on_teardown(now, effects),
            Call::Leave => self.end(EndReason::Left, effects),
        }
    }

    fn on_revive(&mut self, roles: Vec<RoleName>, subscribed: bool, effects: &mut Vec<Effect>) {
        if roles.is_empty() {
            self.suppressed.clear();
        }
        for role in &roles {
            self.suppressed.remove(role);
        }
        // Sent even if nothing was suppressed: it also drops the decline filters.
        if subscribed {
            effects.push(Effect::Send(FrameworkToMaster::Revive { roles }));
        }
    }

    fn on_suppress(&mut self, roles: Vec<RoleName>, subscribed: bool, effects: &mut Vec<Effect>) {
        let named = if roles.is_empty() {
            &self.framework.roles
        } else {
            &roles
        };
        // A role it does not have would make the master refuse every later subscription.
        let named: Vec<_> = named
            .iter()
            .filter(|role| self.framework.roles.contains(role))
            .cloned()
            .collect();
        let before = self.suppressed.len();
        self.suppressed.extend(named);
        if subscribed && self.suppressed.len() > before {
            effects.push(Effect::Send(FrameworkToMaster::Suppress { roles }));
        }
    }

    fn on_kill(&mut self, task_id: TaskId, grace: Option<Duration>, effects: &mut Vec<Effect>) {
        if self.tasks.is_ended(&task_id) {
            return;
        }
        self.tasks.track(&task_id, None);
        let kill = self.tasks.kill(&task_id, grace);
        if self.link == Link::Subscribed {
            let slave_id = self.tasks.slave_of(&task_id);
            effects.push(Effect::Send(FrameworkToMaster::Kill {
                task_id,
                slave_id,
                grace: kill.grace,
            }));
        }
    }

    fn on_acknowledge(
        &mut self,
        slave_id: Option<SlaveId>,
        task_id: TaskId,
        update_id: Option<UpdateId>,
        effects: &mut Vec<Effect>,
    ) {
        let was_due = self.tasks.handled(&task_id, update_id);
        // While disconnected it is only noted: the update comes again and is answered then. For an
        // update without an id nobody waits but this driver.
        if let (true, Link::Subscribed, Some(update_id)) = (was_due, &self.link, update_id) {
            effects.push(Effect::Send(FrameworkToMaster::Acknowledge {
                slave_id,
                task_id: task_id.clone(),
                update_id,
            }));
        }
        if let (Some(late), Link::Subscribed) = (self.tasks.take_late(&task_id), &self.link) {
            effects.push(Effect::Send(FrameworkToMaster::Acknowledge {
                slave_id: late.slave_id,
                task_id,
                update_id: late.update_id,
            }));
        }
    }

    fn on_reconcile(&mut self, tasks: &[ReconcileTask], now: Timestamp, effects: &mut Vec<Effect>) {
        for task in tasks {
            self.tasks.track(&task.task_id, task.slave_id);
        }
        if self.link != Link::Subscribed {
            // A round over all live tasks begins with the subscription.
            self.resumes |= tasks.is_empty();
        } else if tasks.is_empty() {
            effects.push(Effect::Send(FrameworkToMaster::Reconcile {
                tasks: Vec::new(),
            }));
            self.reconciler.begin(self.tasks.live_ids(), now);
        } else {
            let live = tasks
                .iter()
                .map(|task| &task.task_id)
                .filter(|id| self.tasks.is_live(id));
            self.reconciler.begin(live, now);
        }
    }

    fn on_teardown(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.framework.framework_id.is_none() && !matches!(self.link, Link::Subscribing { .. }) {
            // No master has heard of it.
            return self.end(EndReason::TornDown { confirmed: true }, effects);
        }
        if self.teardown_until.is_none() {
            self.teardown_until = Some(now.after(TEARDOWN_TIMEOUT));
            if self.link == Link::Subscribed {
                effects.push(Effect::Send(FrameworkToMaster::Teardown));
            }
        }
    }
}
