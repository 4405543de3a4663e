//! W4: a slave is told that an update was dealt with only if its framework has said so, or is gone;
//! a driver says so only of what its framework has dealt with (D3 from outside).

use std::collections::BTreeSet;

use meros_proto::ids::{TaskId, UpdateId};

use super::{Broken, check};

/// Who has dealt with what.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// By the frameworks themselves, above the driver.
    handled: BTreeSet<(usize, UpdateId)>,
    ends_handled: BTreeSet<(usize, TaskId)>,
    /// On its way to the master.
    said: BTreeSet<(usize, TaskId, UpdateId)>,
}

impl Acknowledged {
    /// A framework has taken in what it was told.
    pub(crate) fn on_handled(
        &mut self,
        framework: usize,
        task: &TaskId,
        update: Option<UpdateId>,
        is_end: bool,
    ) {
        self.handled
            .extend(update.map(|update| (framework, update)));
        if is_end {
            self.ends_handled.insert((framework, task.clone()));
        }
    }

    /// A framework acknowledges.
    pub(crate) fn on_said(
        &mut self,
        framework: usize,
        has_driver: bool,
        task: &TaskId,
        update: UpdateId,
    ) -> Result<(), Broken> {
        self.said.insert((framework, task.clone(), update));
        let is_handled = !has_driver
            || self.handled.contains(&(framework, update))
            || self.ends_handled.contains(&(framework, task.clone()));
        check("W4", is_handled, || {
            format!("framework {framework} has not dealt with {update} of {task}, but says so")
        })
    }

    /// The master tells a slave that `framework` has dealt with an update.
    pub(crate) fn on_slave_told(
        &self,
        framework: Option<usize>,
        task: &TaskId,
        update: UpdateId,
    ) -> Result<(), Broken> {
        let is_said = framework
            .is_some_and(|framework| self.said.contains(&(framework, task.clone(), update)));
        check("W4", is_said, || {
            format!("a slave is told that {framework:?} has dealt with {update} of {task}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::task_id;
    use super::*;

    #[test]
    fn an_acknowledgement_that_nobody_gave_is_rejected() {
        let mut checker = Acknowledged::default();
        let (task, update) = (task_id(), UpdateId(1));
        let invented = checker.on_slave_told(Some(0), &task, update);
        assert_eq!(invented.expect_err("nobody said so").id, "W4");
        assert_eq!(checker.on_said(0, false, &task, update), Ok(()));
        assert_eq!(checker.on_slave_told(Some(0), &task, update), Ok(()));
        assert!(
            checker.on_slave_told(Some(1), &task, update).is_err(),
            "another's"
        );
    }

    #[test]
    fn a_driver_that_answers_before_its_framework_is_rejected() {
        let mut checker = Acknowledged::default();
        let (task, update) = (task_id(), UpdateId(1));
        let early = checker.on_said(0, true, &task, update);
        assert_eq!(early.expect_err("not handled yet").id, "W4");
        checker.on_handled(0, &task, Some(update), false);
        assert_eq!(checker.on_said(0, true, &task, update), Ok(()));
        assert!(
            checker.on_said(1, true, &task, update).is_err(),
            "another's"
        );
    }
}
