//! W5: nothing is told, started or promised that a crash of the teller would make untrue: it is on
//! the teller's disk first.

use meros_master_core::{OperatorCall, Registry};
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::operation::OperationNumber;
use meros_proto::quota::Quota;
use meros_proto::resources::{Resources, Scalar};
use meros_proto::status::TaskStatus;
use meros_slave_core::{Checkpoint, ExecutorKey, TaskKey};

use super::{Broken, check};

/// The master welcomes a slave.
pub(crate) fn check_registered(disk: &Registry, slave_id: SlaveId) -> Result<(), Broken> {
    check("W5", disk.slave(slave_id).is_some(), || {
        format!("{slave_id} is welcomed and not in the log")
    })
}

/// The master welcomes a framework.
pub(crate) fn check_subscribed(disk: &Registry, framework_id: FrameworkId) -> Result<(), Broken> {
    check("W5", disk.framework(framework_id).is_some(), || {
        format!("{framework_id} is welcomed and not in the log")
    })
}

/// What the master's core holds and what is in its log.
pub(crate) fn check_registry(disk: &Registry, core: &Registry) -> Result<(), Broken> {
    check("W5", disk == core, || {
        "the core's registry is not the log's".to_owned()
    })
}

/// A master tells an operator that what was ordered is done.
pub(crate) fn check_ordered(disk: &Registry, call: &OperatorCall) -> Result<(), Broken> {
    let is_in_log = match call {
        OperatorCall::Teardown { framework_id } => disk.framework(*framework_id).is_none(),
        OperatorCall::SetQuotas { quotas, .. } => quotas.iter().all(|(role, quota)| {
            let none = Quota::default();
            disk.quotas().get(role).unwrap_or(&none) == quota
        }),
        OperatorCall::SetWeights { weights } => weights
            .iter()
            .all(|(role, weight)| disk.weights().get(role).unwrap_or(&Scalar::ONE) == weight),
        OperatorCall::SetMinimums { minimums } => minimums
            .iter()
            .all(|(role, minimum)| disk.minimums().get(role) == minimum.as_ref()),
        _ => true,
    };
    check("W5", is_in_log, || {
        format!("{call:?} is said to be done and is not in the log")
    })
}

/// A slave starts a container.
pub(crate) fn check_started(disk: &Checkpoint, task: &TaskKey) -> Result<(), Broken> {
    check("W5", disk.tasks.contains_key(task), || {
        format!("{task:?} is started and not in the checkpoint")
    })
}

/// A slave starts the container of an executor.
pub(crate) fn check_executor_started(
    disk: &Checkpoint,
    executor: &ExecutorKey,
) -> Result<(), Broken> {
    check("W5", disk.executors.contains_key(executor), || {
        format!("{executor:?} is started and not in the checkpoint")
    })
}

/// A slave sends an update.
pub(crate) fn check_sent(
    disk: &Checkpoint,
    framework_id: FrameworkId,
    status: &TaskStatus,
) -> Result<(), Broken> {
    let key = (framework_id, status.task_id.clone());
    let is_kept = disk
        .updates
        .get(&key)
        .is_some_and(|queue| queue.contains(status));
    check("W5", is_kept, || {
        format!(
            "{} of {key:?} is sent and not in the checkpoint",
            status.state
        )
    })
}

/// A slave says that an operation is done.
pub(crate) fn check_confirmed(disk: &Checkpoint, number: OperationNumber) -> Result<(), Broken> {
    let mut decided = disk.claims.decided.iter();
    let is_done = decided.any(|it| it.number == number && it.refused.is_none());
    check("W5", is_done, || {
        format!("{number:?} is said to be done and not in the checkpoint")
    })
}

/// A slave says what is reserved on it.
pub(crate) fn check_claims(disk: &Checkpoint, claims: &Resources) -> Result<(), Broken> {
    let kept = &disk.claims.resources;
    check("W5", kept == claims, || {
        format!("a slave says that {claims} is reserved, and in the checkpoint is {kept}")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use meros_master_core::Command;
    use meros_proto::status::TaskState;

    use super::super::example::{task_id, update};
    use super::*;

    #[test]
    fn an_order_that_is_not_in_the_log_is_not_done() {
        let role = || "web".parse().expect("a role");
        let quota = Quota {
            guarantees: Default::default(),
            limits: [("cpus".parse().expect("a name"), Scalar::ONE)].into(),
        };
        let quotas = vec![(role(), quota)];
        let weights = vec![(role(), Scalar::whole(3))];
        let minimums = vec![(role(), "cpus:1".parse().ok())];
        let force = true;
        let ordered = [
            OperatorCall::SetQuotas {
                quotas: quotas.clone(),
                force,
            },
            OperatorCall::SetWeights {
                weights: weights.clone(),
            },
            OperatorCall::SetMinimums {
                minimums: minimums.clone(),
            },
        ];
        let mut log = Registry::default();
        for call in &ordered {
            assert_eq!(check_ordered(&log, call).expect_err("not yet").id, "W5");
        }
        for command in [
            Command::SetQuotas { quotas },
            Command::SetWeights { weights },
            Command::SetMinimums { minimums },
        ] {
            log.apply(&command).expect("it fits");
        }
        for call in &ordered {
            assert_eq!(check_ordered(&log, call), Ok(()));
        }
    }

    #[test]
    fn an_operation_that_is_not_on_disk_is_not_done() {
        let number = OperationNumber {
            epoch: meros_proto::ids::Epoch(1),
            number: 7,
        };
        let mut disk = Checkpoint::default();
        assert_eq!(check_confirmed(&disk, number).expect_err("no").id, "W5");
        for (refused, is_done) in [(Some("why".to_owned()), false), (None, true)] {
            let decided = meros_proto::operation::DecidedOperation { number, refused };
            disk.claims.decided.push_back(decided);
            assert_eq!(check_confirmed(&disk, number).is_ok(), is_done);
        }
        let claims: Resources = "cpus(web,):1".parse().expect("well formed");
        assert_eq!(check_claims(&disk, &claims).expect_err("no").id, "W5");
        disk.claims.resources = claims.clone();
        assert_eq!(check_claims(&disk, &claims), Ok(()));
    }

    #[test]
    fn what_is_not_on_disk_is_rejected() {
        let registry = Registry::default();
        assert_eq!(
            check_registered(&registry, SlaveId(0))
                .expect_err("unknown")
                .id,
            "W5"
        );
        assert_eq!(
            check_subscribed(&registry, FrameworkId(0))
                .expect_err("unknown")
                .id,
            "W5"
        );
        let mut ahead = Registry::default();
        let cluster_id = meros_proto::ids::ClusterId(1);
        let command = Command::FormCluster { cluster_id };
        ahead.apply(&command).expect("the first command");
        assert!(check_registry(&registry, &ahead).is_err());

        let key = (FrameworkId(0), task_id());
        let mut checkpoint = Checkpoint::default();
        assert!(check_started(&checkpoint, &key).is_err());
        let status = update(1, TaskState::Running);
        assert!(check_sent(&checkpoint, FrameworkId(0), &status).is_err());
        checkpoint
            .updates
            .insert(key, VecDeque::from([status.clone()]));
        assert_eq!(check_sent(&checkpoint, FrameworkId(0), &status), Ok(()));
        let other = update(1, TaskState::Failed);
        assert!(
            check_sent(&checkpoint, FrameworkId(0), &other).is_err(),
            "other contents"
        );
    }
}
