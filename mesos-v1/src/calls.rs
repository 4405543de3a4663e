//! Calls of frameworks (semantics B): what each asks of the master.

use meros_proto::ids::UpdateId;
use meros_proto::message::master::{FrameworkToMaster, ReconcileOperation, ReconcileTask};
use meros_proto::offer::{Filters, REFUSE_DEFAULT, REFUSE_MAX};
use std::time::Duration;

use crate::framework::read_roles;
use crate::ids::Ids;
use crate::operation::operation_id;
use crate::operation::operations;
use crate::pb;
use crate::pb::scheduler::call::Type;
use crate::pb::scheduler::{Call, Event};
use crate::refused::Refused;
use crate::task;

/// What a call comes to.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is taken apart at once"
)]
pub enum Request {
    /// For the master's core. Frameworks hear of what could not be read of it.
    Ask {
        /// What.
        message: FrameworkToMaster,
        /// What the framework is told at once.
        told: Vec<Event>,
        /// What was left out of it without a word to the framework.
        dropped: Vec<Refused>,
    },
    /// Nothing follows from it: the protocol says so, or what it answers to never occurs here.
    Nothing,
}

impl Request {
    fn ask(message: FrameworkToMaster) -> Self {
        Self::Ask {
            message,
            told: Vec::new(),
            dropped: Vec::new(),
        }
    }
}

/// Reads a call other than SUBSCRIBE and UPDATE_FRAMEWORK, for which see
/// [`subscription`](crate::framework::subscription) and [`update`](crate::framework::update).
///
/// # Errors
/// The call as a whole cannot be carried out.
pub fn request(call: &Call, ids: Ids) -> Result<Request, Refused> {
    let kind = call.r#type();
    let absent = || Refused::invalid(kind.as_str_name().to_lowercase(), "it is missing");
    Ok(match kind {
        Type::Unknown => return Err(Refused::invalid("type", "it is missing or not known")),
        Type::Subscribe => return Err(Refused::invalid("type", "SUBSCRIBE opens a stream")),
        Type::Teardown => Request::ask(FrameworkToMaster::Teardown),
        Type::Accept => accept(call.accept.as_ref().ok_or_else(absent)?, ids),
        Type::Decline => {
            let decline = call.decline.as_ref().ok_or_else(absent)?;
            Request::ask(FrameworkToMaster::Decline {
                offer_ids: offers(&decline.offer_ids, ids),
                filters: filters(decline.filters.as_ref()),
            })
        }
        // The roles of both calls are optional, and so are the messages that hold them.
        Type::Revive => {
            let roles = call.revive.as_ref().map(|it| it.roles.as_slice());
            let roles = read_roles("revive.roles", roles.unwrap_or_default())?;
            Request::ask(FrameworkToMaster::Revive { roles })
        }
        Type::Suppress => {
            let roles = call.suppress.as_ref().map(|it| it.roles.as_slice());
            let roles = read_roles("suppress.roles", roles.unwrap_or_default())?;
            Request::ask(FrameworkToMaster::Suppress { roles })
        }
        Type::Kill => {
            let kill = call.kill.as_ref().ok_or_else(absent)?;
            let grace = kill.kill_policy.as_ref().and_then(|it| it.grace_period);
            Request::ask(FrameworkToMaster::Kill {
                task_id: task::task_id(&kill.task_id)?,
                slave_id: kill.agent_id.as_ref().map(|id| ids.read_slave(id)),
                grace: match grace {
                    Some(it) => Some(task::duration("kill.kill_policy.grace_period", it)?),
                    None => None,
                },
            })
        }
        Type::Acknowledge => {
            let it = call.acknowledge.as_ref().ok_or_else(absent)?;
            let uuid: Result<[u8; 16], _> = it.uuid.as_ref().try_into();
            let uuid = uuid.map_err(|_| Refused::invalid("acknowledge.uuid", "it has 16 bytes"))?;
            Request::ask(FrameworkToMaster::Acknowledge {
                slave_id: Some(ids.read_slave(&it.agent_id)),
                task_id: task::task_id(&it.task_id)?,
                update_id: UpdateId(u128::from_be_bytes(uuid)),
            })
        }
        Type::Reconcile => {
            let reconcile = call.reconcile.as_ref().ok_or_else(absent)?;
            let questions = reconcile.tasks.iter().map(|it| {
                Ok(ReconcileTask {
                    task_id: task::task_id(&it.task_id)?,
                    slave_id: it.agent_id.as_ref().map(|id| ids.read_slave(id)),
                })
            });
            let tasks = questions.collect::<Result<_, Refused>>()?;
            Request::ask(FrameworkToMaster::Reconcile { tasks })
        }
        Type::ReconcileOperations => {
            let reconcile = call.reconcile_operations.as_ref().ok_or_else(absent)?;
            let questions = reconcile.operations.iter().map(|it| {
                Ok(ReconcileOperation {
                    operation_id: operation_id(&it.operation_id)?,
                    slave_id: it.agent_id.as_ref().map(|id| ids.read_slave(id)),
                })
            });
            let operations = questions.collect::<Result<_, Refused>>()?;
            Request::ask(FrameworkToMaster::ReconcileOperations { operations })
        }
        // No allocator looks at requests (semantics B16); Meros sends no inverse offers, and no
        // status of an operation with an id to be acknowledged.
        Type::Request
        | Type::AcceptInverseOffers
        | Type::DeclineInverseOffers
        | Type::AcknowledgeOperationStatus => Request::Nothing,
        // To an executor that is not there nothing is sent, and nobody hears of it (semantics B10, B15).
        Type::Shutdown => {
            let shutdown = call.shutdown.as_ref().ok_or_else(absent)?;
            Request::ask(FrameworkToMaster::ShutdownExecutor {
                slave_id: ids.read_slave(&shutdown.agent_id),
                executor_id: task::executor_id("shutdown.executor_id", &shutdown.executor_id)?,
            })
        }
        Type::Message => {
            let message = call.message.as_ref().ok_or_else(absent)?;
            Request::ask(FrameworkToMaster::ExecutorMessage {
                slave_id: ids.read_slave(&message.agent_id),
                executor_id: task::executor_id("message.executor_id", &message.executor_id)?,
                data: message.data.clone(),
            })
        }
        Type::UpdateFramework => {
            let why = "it is answered when it is done, not taken for later";
            return Err(Refused::invalid("type", why));
        }
    })
}

fn accept(accept: &pb::scheduler::call::Accept, ids: Ids) -> Request {
    let operations = operations(&accept.operations, ids);
    Request::Ask {
        message: FrameworkToMaster::Accept {
            offer_ids: offers(&accept.offer_ids, ids),
            operations: operations.possible,
            filters: filters(accept.filters.as_ref()),
        },
        told: operations.told,
        dropped: operations.dropped,
    }
}

fn offers(from: &[pb::OfferId], ids: Ids) -> Vec<meros_proto::ids::OfferId> {
    from.iter().map(|id| ids.read_offer(id)).collect()
}

/// What is no length of time is the default (semantics E3).
fn filters(from: Option<&pb::Filters>) -> Filters {
    let seconds = from.map_or(REFUSE_DEFAULT.as_secs_f64(), pb::Filters::refuse_seconds);
    let refuse = match seconds {
        seconds if seconds.is_nan() || seconds < 0.0 => REFUSE_DEFAULT,
        seconds => Duration::try_from_secs_f64(seconds).unwrap_or(REFUSE_MAX),
    };
    Filters {
        refuse: refuse.min(REFUSE_MAX),
    }
}
