//! W6: a framework is told of its own offers, and of tasks that it has named itself; an update says
//! what the slave said, about the task that the slave said it of.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::{FrameworkId, TaskId, UpdateId};
use meros_proto::offer::Offer;
use meros_proto::status::TaskStatus;

use super::{Broken, check};

/// Who has named what.
#[derive(Debug, Default)]
pub(crate) struct OwnNews {
    /// By the process that is the framework.
    named: BTreeSet<(usize, TaskId)>,
    /// Updates as slaves made them.
    made: BTreeMap<UpdateId, (FrameworkId, TaskId)>,
}

impl OwnNews {
    /// A framework names a task, to launch, kill or ask about it.
    pub(crate) fn on_named(&mut self, framework: usize, task: &TaskId) {
        self.named.insert((framework, task.clone()));
    }

    /// A slave makes an update.
    pub(crate) fn on_made(&mut self, framework_id: FrameworkId, status: &TaskStatus) {
        let what = (framework_id, status.task_id.clone());
        self.made.extend(status.update_id.map(|id| (id, what)));
    }

    /// Offers reach a framework.
    pub(crate) fn on_offers(
        &self,
        framework_id: Option<FrameworkId>,
        offers: &[Offer],
    ) -> Result<(), Broken> {
        let foreign = offers
            .iter()
            .find(|offer| Some(offer.framework_id) != framework_id);
        check("W6", foreign.is_none(), || {
            format!("{framework_id:?} is offered {foreign:?}")
        })
    }

    /// News of a task reaches a framework.
    pub(crate) fn on_update(
        &self,
        framework: usize,
        framework_id: Option<FrameworkId>,
        status: &TaskStatus,
    ) -> Result<(), Broken> {
        let key = framework_id.map(|id| (id, status.task_id.clone()));
        let is_named = self.named.contains(&(framework, status.task_id.clone()));
        check("W6", is_named, || {
            format!(
                "{framework_id:?} is told of {}, which it never named",
                status.task_id
            )
        })?;
        let Some(id) = status.update_id.filter(|id| !id.is_by_master()) else {
            return Ok(());
        };
        let made = self.made.get(&id);
        check("W6", made == key.as_ref(), || {
            format!("{key:?} is told {id}, which a slave made about {made:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{Epoch, OfferId, SlaveId};
    use meros_proto::status::TaskState;

    use super::super::example::{task_id, update};
    use super::*;

    const OWNER: FrameworkId = FrameworkId(0);
    const OTHER: FrameworkId = FrameworkId(1);

    #[test]
    fn news_of_a_foreign_task_is_rejected() {
        let mut checker = OwnNews::default();
        let status = update(1, TaskState::Running);
        checker.on_named(0, &task_id());
        checker.on_made(OWNER, &status);
        assert_eq!(checker.on_update(0, Some(OWNER), &status), Ok(()));
        assert_eq!(
            checker
                .on_update(1, Some(OTHER), &status)
                .expect_err("foreign")
                .id,
            "W6"
        );
        // It has a task of that name itself, but the update is about the other one.
        checker.on_named(1, &task_id());
        assert!(checker.on_update(1, Some(OTHER), &status).is_err());
        assert!(
            checker
                .on_update(0, Some(OWNER), &update(2, TaskState::Failed))
                .is_err(),
            "never made"
        );
    }

    #[test]
    fn an_offer_for_another_framework_is_rejected() {
        let offer = Offer {
            offer_id: OfferId {
                epoch: Epoch(1),
                number: 1,
            },
            framework_id: OTHER,
            slave_id: SlaveId(0),
            hostname: String::new(),
            http_address: String::new(),
            role: "*".parse().expect("a role"),
            resources: Default::default(),
            attributes: Default::default(),
            unavailability: None,
        };
        let checker = OwnNews::default();
        let offers = std::slice::from_ref(&offer);
        assert_eq!(checker.on_offers(Some(OTHER), offers), Ok(()));
        assert_eq!(
            checker
                .on_offers(Some(OWNER), offers)
                .expect_err("foreign")
                .id,
            "W6"
        );
    }
}
