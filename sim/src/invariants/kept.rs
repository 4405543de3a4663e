//! W12: what is checkpointed is not lost. An update leaves the disk of its slave only when it has
//! been acknowledged, or with its framework, or with the slave's id; and what belongs to a framework
//! goes only when the framework is gone from the log.

use std::collections::BTreeSet;

use meros_master_core::Registry;
use meros_proto::ids::UpdateId;
use meros_slave_core::{Checkpoint, Record};

use super::{Broken, check};

/// Which updates slaves were told to have been dealt with.
#[derive(Debug, Default)]
pub(crate) struct Kept(BTreeSet<UpdateId>);

impl Kept {
    /// An acknowledgement reaches the slave that made the update.
    pub(crate) fn on_acknowledged(&mut self, update: UpdateId) {
        self.0.insert(update);
    }

    /// A record is about to become durable.
    pub(crate) fn check_record(
        &self,
        disk: &Checkpoint,
        record: &Record,
        log: &Registry,
    ) -> Result<(), Broken> {
        match record {
            Record::UpdateAcknowledged { update_id, .. } => self.check_gone(*update_id),
            Record::TaskForgotten { task } => disk
                .updates
                .get(task)
                .into_iter()
                .flatten()
                .filter_map(|status| status.update_id)
                .try_for_each(|update| self.check_gone(update)),
            Record::FrameworkShutDown { framework_id } => {
                check("W12", log.framework(*framework_id).is_none(), || {
                    format!("{framework_id} is shut down, and nobody has removed it")
                })
            }
            _ => Ok(()),
        }
    }

    fn check_gone(&self, update: UpdateId) -> Result<(), Broken> {
        check("W12", self.0.contains(&update), || {
            format!("{update} leaves the disk and was never acknowledged")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use meros_master_core::Command;
    use meros_proto::framework::FrameworkDescription;
    use meros_proto::ids::{ClusterId, FrameworkId};
    use meros_proto::status::TaskState;
    use meros_proto::time::Timestamp;

    use super::super::example::{task_id, update};
    use super::*;

    #[test]
    fn an_update_that_vanishes_unacknowledged_is_rejected() {
        let mut checker = Kept::default();
        let log = Registry::default();
        let status = update(1, TaskState::Finished);
        let update_id = status.update_id.expect("set");
        let task = (FrameworkId(0), task_id());
        let mut disk = Checkpoint::default();
        disk.updates.insert(task.clone(), VecDeque::from([status]));
        let forgotten = Record::TaskForgotten { task: task.clone() };
        let acknowledged = Record::UpdateAcknowledged { task, update_id };
        for record in [&forgotten, &acknowledged] {
            let broken = checker.check_record(&disk, record, &log);
            assert_eq!(broken.expect_err("never acknowledged").id, "W12");
        }
        checker.on_acknowledged(update_id);
        for record in [&forgotten, &acknowledged] {
            assert_eq!(checker.check_record(&disk, record, &log), Ok(()));
        }
    }

    #[test]
    fn the_end_of_a_framework_that_is_in_the_log_is_rejected() {
        let mut log = Registry::default();
        let framework_id = FrameworkId(0);
        for command in [
            Command::FormCluster {
                cluster_id: ClusterId(1),
            },
            Command::AdmitFramework {
                framework_id,
                principal: "f".to_owned(),
                framework: FrameworkDescription::new("f", "*".parse().expect("a role")),
                suppressed_roles: Vec::new(),
                at: Timestamp(1),
            },
        ] {
            log.apply(&command).expect("it fits");
        }
        let record = Record::FrameworkShutDown { framework_id };
        let checker = Kept::default();
        let disk = Checkpoint::default();
        let broken = checker.check_record(&disk, &record, &log);
        assert_eq!(broken.expect_err("it is a member").id, "W12");
        let at = Timestamp(2);
        log.apply(&Command::RemoveFramework { framework_id, at })
            .expect("it is there");
        assert_eq!(checker.check_record(&disk, &record, &log), Ok(()));
    }
}
