//! Operations of an ACCEPT (semantics B4, D).

use meros_proto::ids::OperationId;
use meros_proto::offer::Operation;
use meros_proto::operation::{Change, ChangeKind, OperationState, ResourceOperation};
use meros_proto::resources::Scalar;
use meros_proto::status::{Reason, TaskState};

use crate::events::{operation_event, refused_task};
use crate::ids::Ids;
use crate::pb;
use crate::pb::offer::operation::Type;
use crate::pb::scheduler::Event;
use crate::refused::Refused;
use crate::resources::from_v1;
use crate::task;

/// What of an ACCEPT can be done, and what its framework is told of the rest: each task and each
/// operation is judged by itself (semantics D1).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operations {
    /// In order.
    pub possible: Vec<Operation>,
    /// TASK_ERROR for a task, OPERATION_ERROR for an operation with an id.
    pub told: Vec<Event>,
    /// Operations without an id that cannot be done: nothing tells of them but a log.
    pub dropped: Vec<Refused>,
}

/// Reads the operations of an ACCEPT.
#[must_use]
pub fn operations(from: &[pb::offer::Operation], ids: Ids) -> Operations {
    let mut out = Operations::default();
    for operation in from {
        match (
            operation.r#type(),
            &operation.launch,
            &operation.launch_group,
        ) {
            (Type::Launch, Some(launch), _) => out.launch(&launch.task_infos, ids),
            (Type::LaunchGroup, _, Some(group)) => out.launch_group(group, ids),
            _ => match change(operation) {
                Ok(operation) => out.possible.push(Operation::Change(Box::new(operation))),
                Err(refused) => out.refuse(operation, refused),
            },
        }
    }
    out
}

impl Operations {
    fn launch(&mut self, tasks: &[pb::TaskInfo], ids: Ids) {
        let mut possible = Vec::with_capacity(tasks.len());
        for info in tasks {
            match task::task(info, ids) {
                Ok(task) => possible.push(task),
                Err(refused) => {
                    let why = refused.to_string();
                    let event = refused_task(info, TaskState::Error, Reason::TaskInvalid, &why);
                    self.told.push(event);
                }
            }
        }
        self.possible.push(Operation::Launch(possible));
    }

    /// All of it or nothing (semantics D2).
    fn launch_group(&mut self, group: &pb::offer::operation::LaunchGroup, ids: Ids) {
        let (of, refused) = match task::group(group, ids) {
            Ok(group) => return self.possible.push(Operation::LaunchGroup(Box::new(group))),
            Err(refused) => refused,
        };
        let (state, reason) = (TaskState::Error, Reason::TaskGroupInvalid);
        for info in &group.task_group.tasks {
            let why = match &of {
                Some(id) if *id != info.task_id => {
                    format!("task {} of its group is refused: {refused}", id.value)
                }
                _ => refused.to_string(),
            };
            self.told.push(refused_task(info, state, reason, &why));
        }
    }

    fn refuse(&mut self, operation: &pb::offer::Operation, refused: Refused) {
        match &operation.id {
            Some(id) => {
                let why = refused.to_string();
                let id = id.value.clone();
                self.told
                    .push(operation_event(id, None, OperationState::Error, why));
            }
            None => self.dropped.push(refused),
        }
    }
}

/// A volume that is to grow; whether the two go together is for the core to say.
///
/// # Errors
/// One of the two cannot be read.
pub fn grow(volume: &pb::Resource, addition: &pb::Resource) -> Result<Change, Refused> {
    let mut pieces = from_v1("grow_volume.volume", std::slice::from_ref(volume))?;
    let addition = from_v1("grow_volume.addition", std::slice::from_ref(addition))?;
    pieces
        .checked_add_assign(&addition)
        .map_err(|error| Refused::invalid("grow_volume", error))?;
    Ok(Change::new(ChangeKind::Grow, pieces))
}

/// A volume that is to shrink by so much.
///
/// # Errors
/// One of the two cannot be read, or cannot be used for that.
pub fn shrink(volume: &pb::Resource, subtract: pb::value::Scalar) -> Result<Change, Refused> {
    let volume = from_v1("shrink_volume.volume", std::slice::from_ref(volume))?;
    let by = Scalar::from_f64(subtract.value)
        .map_err(|error| Refused::invalid("shrink_volume.subtract", error))?;
    let volume = volume.iter().next();
    let volume = volume.ok_or_else(|| Refused::invalid("shrink_volume.volume", "it is empty"))?;
    Change::shrink(volume, by).map_err(|error| Refused::invalid("shrink_volume", error))
}

/// An operation on resources.
fn change(from: &pb::offer::Operation) -> Result<ResourceOperation, Refused> {
    let change = match (from.r#type(), &from.grow_volume, &from.shrink_volume) {
        (Type::GrowVolume, Some(it), _) => grow(&it.volume, &it.addition)?,
        (Type::ShrinkVolume, _, Some(it)) => shrink(&it.volume, it.subtract)?,
        _ => change_of_list(from)?,
    };
    let operation_id = from.id.as_ref().map(operation_id).transpose()?;
    Ok(ResourceOperation {
        operation_id,
        change,
    })
}

/// One that names a list of resources.
fn change_of_list(from: &pb::offer::Operation) -> Result<Change, Refused> {
    let (kind, field, resources) = match (from.r#type(), from) {
        (Type::Reserve, it) => (
            ChangeKind::Reserve,
            "reserve.resources",
            it.reserve.as_ref().map(|it| &it.resources),
        ),
        (Type::Unreserve, it) => (
            ChangeKind::Unreserve,
            "unreserve.resources",
            it.unreserve.as_ref().map(|it| &it.resources),
        ),
        (Type::Create, it) => (
            ChangeKind::Create,
            "create.volumes",
            it.create.as_ref().map(|it| &it.volumes),
        ),
        (Type::Destroy, it) => (
            ChangeKind::Destroy,
            "destroy.volumes",
            it.destroy.as_ref().map(|it| &it.volumes),
        ),
        (Type::CreateDisk | Type::DestroyDisk, _) => {
            return Err(Refused::unsupported(
                "operation",
                "there are no storage plugins",
            ));
        }
        (
            Type::Launch
            | Type::LaunchGroup
            | Type::GrowVolume
            | Type::ShrinkVolume
            | Type::Unknown,
            _,
        ) => {
            return Err(Refused::invalid(
                "operation",
                "its type, or what its type names, is missing",
            ));
        }
    };
    let resources = resources.ok_or_else(|| Refused::invalid(field, "they are missing"))?;
    let source = from
        .reserve
        .as_ref()
        .is_some_and(|it| !it.source.is_empty());
    crate::refused::absent(
        source,
        "reserve.source",
        "unreserve first, then reserve: both in one ACCEPT, if you like",
    )?;
    Ok(Change::new(kind, from_v1(field, resources)?))
}

/// Reads an id.
///
/// # Errors
/// It is none.
pub(crate) fn operation_id(id: &pb::OperationId) -> Result<OperationId, Refused> {
    OperationId::new(&id.value).map_err(|error| Refused::invalid("operation_id", error))
}
