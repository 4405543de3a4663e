//! The messages that masters, slaves and frameworks exchange, mutated as they come from the wire.

use std::time::Duration;

use super::{OUTCOMES, storm};
use crate::{
    constraint::{OfferWishes, Subject},
    executor::ExecutorDescription,
    framework::FrameworkDescription,
    group::TaskGroup,
    ids::{ClusterId, Epoch, ExecutorId, FrameworkId, OperationId, SlaveId, TaskId, UpdateId},
    message::{
        executor::{ExecutorToSlave, ExecutorUpdate, SlaveToExecutor},
        framework::MasterToFramework,
        master::{
            FrameworkToMaster, ReconcileOperation, ReconcileTask, SlaveToMaster, StatusUpdate,
            TaskReport,
        },
        slave::{MasterToSlave, RunExecutor, RunGroup, RunTask, TaskFramework},
    },
    offer::{Filters, Operation},
    operation::{
        Change, ChangeKind, DecidedOperation, OperationNumber, OperationState, OperationStatus,
        ResourceOperation,
    },
    resources::Resources,
    role::RoleName,
    state::{
        Condition, Numbered, Revision, SessionId, SpaceName, StateAnswer, StateCall, StateChange,
        StateEntry, StateKey, StateOperation,
    },
    status::{Reason, Source, TaskExit, TaskState, TaskStatus},
    task::{Command, TaskDescription},
    time::Timestamp,
};

const ROUNDS: u32 = 100_000;

fn resources(text: &str) -> Resources {
    text.parse().unwrap()
}

fn role() -> RoleName {
    RoleName::new("eng/batch").unwrap()
}

fn task(name: &str) -> TaskDescription {
    let resources = "cpus:0.5;mem:64;ports:[31000-31002,31010-31010]"
        .parse()
        .unwrap();
    let command = Command::shell("exec true").env("PATH", "/bin");
    let mut task =
        TaskDescription::command(TaskId::new(name).unwrap(), SlaveId(17), resources, command);
    task.kill_grace = Some(Duration::from_millis(1_500));
    task.data = bytes::Bytes::from_static(b"opaque");
    task
}

fn status(name: &str) -> TaskStatus {
    let task_id = TaskId::new(name).unwrap();
    let mut status = TaskStatus::new(
        task_id,
        TaskState::Failed,
        Source::Slave,
        Timestamp(1_700_000_000_000),
    );
    status.slave_id = Some(SlaveId(17));
    status.reason = Some(Reason::ContainerLimitationMemory);
    status.message = "memory limit of 64 MiB exceeded".into();
    status.update_id = Some(UpdateId(7));
    status.limitation = Some("mem:64".parse().unwrap());
    status
}

fn for_framework() -> TaskFramework {
    TaskFramework {
        framework_id: FrameworkId(3),
        name: "wordcount".into(),
        user: None,
        checkpoint: true,
        capabilities: Vec::new(),
    }
}

fn executor() -> ExecutorDescription {
    let mut executor = ExecutorDescription::new(
        ExecutorId::new("pool").unwrap(),
        Command::argv(["/bin/pool", "-v"]),
        resources("cpus:0.1;mem:64"),
    );
    executor.shutdown_grace = Some(Duration::from_secs(7));
    executor.data = bytes::Bytes::from_static(b"config");
    executor
}

fn group() -> TaskGroup {
    let id = ExecutorId::new("pod").unwrap();
    TaskGroup {
        executor: ExecutorDescription::group(id, resources("mem:8")),
        tasks: vec![task("t-3"), task("t-4")],
    }
}

fn check<T>(messages: &[T], seed: u64)
where
    T: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug + PartialEq,
{
    for message in messages {
        assert_eq!(
            &super::decode::<T>(&super::frame_of(message)).unwrap(),
            message
        );
    }
    let seen = storm(messages, ROUNDS, seed);
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        OUTCOMES,
        "{seen:?}"
    );
}

#[test]
fn mutated_frames_of_slaves_end_in_a_message_or_an_error() {
    let update = StatusUpdate {
        framework_id: FrameworkId(3),
        status: status("t-1"),
        latest_state: TaskState::Failed,
    };
    let report = |name: &str| TaskReport {
        framework_id: FrameworkId(3),
        role: role(),
        task: task(name),
        state: TaskState::Running,
        status: Some(status(name)),
    };
    let tasks = vec![report("t-1"), report("t-2")];
    let executors = vec![RunExecutor {
        framework: for_framework(),
        role: role(),
        executor: executor(),
    }];
    check(
        &[
            SlaveToMaster::Update(update),
            SlaveToMaster::ReportTasks { tasks },
            SlaveToMaster::ReportExecutors { executors },
            SlaveToMaster::ExecutorEnded {
                framework_id: FrameworkId(3),
                executor_id: executor().executor_id,
                exit: Some(TaskExit::Signal(9)),
            },
            SlaveToMaster::ReportClaims {
                claims: resources("cpus(web,a,k=v):1;disk(web,)[db:data]:64"),
                decided: vec![DecidedOperation {
                    number: operation(),
                    refused: Some("no".to_owned()),
                }],
            },
        ],
        1,
    );
}

fn operation() -> OperationNumber {
    OperationNumber {
        epoch: Epoch(4),
        number: 7,
    }
}

fn change() -> Change {
    let volume = "disk(web)(web/ads,alice,k=v)[db:data]:64";
    Change::new(ChangeKind::Create, resources(volume))
}

#[test]
fn mutated_frames_of_frameworks_end_in_a_message_or_an_error() {
    let subscribe = FrameworkToMaster::Subscribe {
        framework: FrameworkDescription::new("wordcount", role()),
        suppressed_roles: vec![role()],
        wishes: vec![
            OfferWishes::for_role(role())
                .least(resources("cpus:4;gpus:1"))
                .group([
                    Subject::attribute("rack").matches("r[12]"),
                    Subject::Zone.exists(),
                ])
                .minimum([resources("mem:64")]),
        ],
    };
    let accept = FrameworkToMaster::Accept {
        offer_ids: Vec::new(),
        operations: vec![
            Operation::Change(Box::new(ResourceOperation {
                operation_id: Some(OperationId::new("op").unwrap()),
                change: change(),
            })),
            Operation::Launch(vec![task("t-1"), task("t-2")]),
            Operation::LaunchGroup(Box::new(group())),
        ],
        filters: Filters::default(),
    };
    let reconcile = FrameworkToMaster::Reconcile {
        tasks: vec![ReconcileTask {
            task_id: TaskId::new("t-1").unwrap(),
            slave_id: Some(SlaveId(2)),
        }],
    };
    let state = FrameworkToMaster::State {
        request: 7,
        space: SpaceName::new("main").unwrap(),
        call: StateCall::Change {
            by: Some(Numbered {
                session: SessionId(3),
                number: 4,
            }),
            change: StateChange::Commit {
                conditions: vec![Condition::Absent(StateKey::new("a").unwrap())],
                operations: vec![StateOperation::Set {
                    key: StateKey::new("a").unwrap(),
                    value: "1".into(),
                }],
            },
        },
    };
    let operations = FrameworkToMaster::ReconcileOperations {
        operations: vec![ReconcileOperation {
            operation_id: OperationId::new("op").unwrap(),
            slave_id: Some(SlaveId(2)),
        }],
    };
    check(&[subscribe, accept, reconcile, state, operations], 2);
}

#[test]
fn mutated_frames_of_executors_end_in_a_message_or_an_error() {
    let subscribe = ExecutorToSlave::Subscribe {
        framework_id: FrameworkId(3),
        executor_id: executor().executor_id,
        made: 9,
        tasks: vec![
            (TaskId::new("t-1").unwrap(), None),
            (TaskId::new("t-2").unwrap(), Some(8)),
        ],
    };
    let update = ExecutorToSlave::Update(ExecutorUpdate {
        number: 7,
        status: status("t-1"),
    });
    let message = ExecutorToSlave::Message("hello".into());
    check(&[subscribe, update, message], 5);
    let launch = SlaveToExecutor::Launch(Box::new(task("t-1")));
    let kill = SlaveToExecutor::Kill {
        task_id: TaskId::new("t-1").unwrap(),
        grace: Duration::from_secs(3),
    };
    check(&[launch, kill], 6);
}

#[test]
fn mutated_frames_of_masters_end_in_a_message_or_an_error() {
    let registered = MasterToSlave::Registered {
        slave_id: SlaveId(17),
        cluster_id: ClusterId(1),
        epoch: Epoch(4),
        ping_timeout: Duration::from_secs(75),
    };
    let run = RunTask {
        framework: for_framework(),
        role: role(),
        task: task("t-1"),
    };
    let mut in_executor = run.clone();
    in_executor.task.command = None;
    in_executor.task.executor = Some(executor());
    let in_executor = MasterToSlave::RunInExecutor {
        run: Box::new(in_executor),
        starts: true,
    };
    let ordered = MasterToSlave::ChangeResources {
        number: operation(),
        change: Box::new(change()),
    };
    check(
        &[
            registered,
            MasterToSlave::RunTask(Box::new(run)),
            ordered,
            in_executor,
            MasterToSlave::RunGroup(Box::new(RunGroup {
                framework: for_framework(),
                role: role(),
                group: group(),
            })),
        ],
        3,
    );
    let failure = MasterToFramework::Failure {
        slave_id: SlaveId(17),
    };
    let operation = MasterToFramework::Operation(OperationStatus {
        operation_id: OperationId::new("op").unwrap(),
        slave_id: Some(SlaveId(17)),
        state: OperationState::Failed,
        message: "no".to_owned(),
    });
    let state = MasterToFramework::State {
        request: 7,
        answer: Ok(StateAnswer::Entries {
            revision: Revision(9),
            entries: vec![StateEntry {
                key: StateKey::new("a").unwrap(),
                value: "1".into(),
                created: Revision(1),
                modified: Revision(2),
            }],
            more: false,
        }),
    };
    let update = MasterToFramework::Update(status("t-1"));
    check(&[failure, update, operation, state], 4);
}
