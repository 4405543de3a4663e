//! W17: nobody is sent away for good without reason. A slave that has an id is told to end by nobody,
//! and the session of a framework that did not leave ends only because the log says that it is removed.

use meros_master_core::Registry;
use meros_proto::ids::FrameworkId;
use meros_proto::refusal::Refusal;
use meros_sdk_core::EndReason;

use super::{Broken, check};

/// A slave ends, and nobody has stopped it.
pub(crate) fn check_slave(slave: usize, why: &Refusal) -> Result<(), Broken> {
    check("W17", false, || {
        format!("slave {slave} is told to end: {why}")
    })
}

/// The session of a framework ends.
pub(crate) fn check_session(
    log: &Registry,
    framework_id: Option<FrameworkId>,
    reason: &EndReason,
) -> Result<(), Broken> {
    let has_reason = match reason {
        EndReason::Left | EndReason::TornDown { .. } => true,
        EndReason::Refused(Refusal::FrameworkRemoved { .. }) => {
            framework_id.is_some_and(|id| log.is_removed_framework(id))
        }
        _ => false,
    };
    check("W17", has_reason, || {
        format!("the session of {framework_id:?} ends without reason: {reason:?}")
    })
}

#[cfg(test)]
mod tests {
    use meros_master_core::Command;
    use meros_proto::framework::FrameworkDescription;
    use meros_proto::ids::{ClusterId, SlaveId};
    use meros_proto::time::Timestamp;

    use super::*;

    const FRAMEWORK: FrameworkId = FrameworkId(0);

    #[test]
    fn a_slave_that_is_told_to_end_is_rejected() {
        let slave_id = SlaveId(0);
        let broken = check_slave(0, &Refusal::SlaveUnknown { slave_id });
        assert_eq!(broken.expect_err("it is a member").id, "W17");
    }

    #[test]
    fn a_session_that_ends_while_its_framework_is_in_the_log_is_rejected() {
        let mut log = Registry::default();
        let cluster_id = ClusterId(1);
        let at = Timestamp(1);
        for command in [
            Command::FormCluster { cluster_id },
            Command::AdmitFramework {
                framework_id: FRAMEWORK,
                principal: "f".to_owned(),
                framework: FrameworkDescription::new("f", "*".parse().expect("a role")),
                suppressed_roles: Vec::new(),
                at,
            },
        ] {
            log.apply(&command).expect("it fits");
        }
        let framework_id = FRAMEWORK;
        let removed = EndReason::Refused(Refusal::FrameworkRemoved { framework_id });
        let unknown = EndReason::Refused(Refusal::FrameworkUnknown { framework_id });
        let ends = |log: &Registry, why| check_session(log, Some(FRAMEWORK), why);
        assert_eq!(ends(&log, &removed).expect_err("it is not").id, "W17");
        assert!(ends(&log, &unknown).is_err());
        assert_eq!(ends(&log, &EndReason::Left), Ok(()));
        log.apply(&Command::RemoveFramework { framework_id, at })
            .expect("it is there");
        assert_eq!(ends(&log, &removed), Ok(()));
        assert!(ends(&log, &unknown).is_err(), "it was known once");
    }
}
