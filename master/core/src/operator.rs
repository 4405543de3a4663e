//! What operators ask of the leading master.

use meros_proto::refusal::Refusal;

use crate::MasterCore;
use crate::clients::Asker;
use crate::effect::Answer;
use crate::event::{OperatorCall, RequestId};
use crate::frameworks::TEARDOWN_REQUESTS_MAX;
use crate::turn::Turn;

impl MasterCore {
    /// Answers with exactly one reply, now or when the registry has committed what was asked for.
    pub(crate) fn on_operator_call(
        &mut self,
        request: RequestId,
        call: OperatorCall,
        turn: &mut Turn<'_>,
    ) {
        let now = match call {
            _ if self.epoch.is_none() => Some(Err(Refusal::Recovering)),
            OperatorCall::KillTask {
                framework_id,
                task_id,
                grace,
            } => {
                let is_known = self.tasks.find(framework_id, &task_id).is_some();
                Some(if self.frameworks.get(framework_id).is_none() {
                    Err(Refusal::FrameworkUnknown { framework_id })
                } else if is_known {
                    self.on_kill(framework_id, &task_id, None, grace, turn);
                    Ok(Answer::Done)
                } else {
                    Err(Refusal::TaskUnknown { task_id })
                })
            }
            OperatorCall::Teardown { framework_id } => {
                match self.frameworks.get_mut(framework_id) {
                    None if self.registry.is_removed_framework(framework_id) => {
                        Some(Err(Refusal::FrameworkRemoved { framework_id }))
                    }
                    None => Some(Err(Refusal::FrameworkUnknown { framework_id })),
                    Some(row) if row.teardown_requests.len() >= TEARDOWN_REQUESTS_MAX => {
                        Some(Err(Refusal::OverLimit {
                            what: "the number of requests to tear this framework down".to_owned(),
                            limit: TEARDOWN_REQUESTS_MAX as u64,
                            advice: "wait for the end of the first".to_owned(),
                        }))
                    }
                    Some(row) => {
                        row.teardown_requests.push(request);
                        self.end_framework(framework_id, turn);
                        None
                    }
                }
            }
            OperatorCall::SetQuotas { quotas, force } => self
                .on_set_quotas(request, quotas, force, turn)
                .err()
                .map(Err),
            OperatorCall::SetWeights { weights } => {
                self.on_set_weights(request, weights, turn).err().map(Err)
            }
            OperatorCall::SetMinimums { minimums } => {
                self.on_set_minimums(request, minimums, turn).err().map(Err)
            }
            OperatorCall::SetSlaveMode { slave_id, mode } => self
                .on_set_slave_mode(request, slave_id, mode, turn)
                .err()
                .map(Err),
            OperatorCall::MarkSlaveGone { slave_id } => {
                self.on_mark_gone(request, slave_id, turn).err().map(Err)
            }
            OperatorCall::SetMaintenance { windows, replace } => self
                .on_set_maintenance(request, windows, replace, turn)
                .err()
                .map(Err),
            OperatorCall::StartMaintenance { slaves } => self
                .on_start_maintenance(request, &slaves, turn)
                .err()
                .map(Err),
            OperatorCall::StopMaintenance { slaves } => self
                .on_stop_maintenance(request, &slaves, turn)
                .err()
                .map(Err),
            OperatorCall::SetSettings { settings } => {
                self.on_set_settings(request, settings, turn).err().map(Err)
            }
            OperatorCall::ChangeResources { slave_id, change } => {
                let ordered = self.on_change_resources(slave_id, *change, turn);
                Some(ordered.map(|()| Answer::Done))
            }
            OperatorCall::Why(question) => {
                let why = self.on_why(&question, turn.now);
                Some(why.map(|why| Answer::Why(Box::new(why))))
            }
            OperatorCall::State { space, call } => {
                self.on_state_call(Asker::Operator(request), space, call, turn);
                None
            }
            OperatorCall::UpdateFramework {
                framework_id,
                framework,
                suppressed_roles,
                wishes,
            } => self
                .on_update_framework(
                    request,
                    framework_id,
                    *framework,
                    suppressed_roles,
                    wishes,
                    turn,
                )
                .err()
                .map(Err),
            OperatorCall::Spaces => Some(Ok(Answer::Spaces(self.registry.state().views()))),
        };
        if let Some(reply) = now {
            if let Err(refusal) = &reply {
                self.counters.refused(refusal.code());
            }
            turn.reply(request, reply);
        }
    }
}
