//! Why somebody is offered nothing, for operators. Asked of the core by the thread that owns it:
//! the answers come from the decision path itself, so a projection cannot give them.

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::role::RoleName;

use crate::MasterCore;
use crate::allocator::{Explanation, Reason};
use crate::holding::Holding;

impl MasterCore {
    /// For each role of a framework what keeps it from offers, over all slaves. Empty if it is not
    /// known. Takes a time in proportion to the number of slaves.
    #[must_use]
    pub fn explain_framework(&self, framework: FrameworkId) -> Vec<(RoleName, Explanation)> {
        let roles = self.description(framework).map(|it| it.roles.as_slice());
        let explain = |role: &RoleName| {
            let explanation = self.allocator.explain_all(framework, role);
            (role.clone(), explanation)
        };
        roles.unwrap_or_default().iter().map(explain).collect()
    }

    /// The same for all frameworks in a role, those in roles below it not among them.
    #[must_use]
    pub fn explain_role(&self, role: &RoleName) -> Vec<(FrameworkId, Explanation)> {
        let in_role = self
            .registry
            .frameworks()
            .filter(|(_, record)| record.framework.roles.contains(role));
        in_role
            .map(|(framework, _)| (framework, self.allocator.explain_all(framework, role)))
            .collect()
    }

    /// For each framework and role whether something of a slave can be offered to it at its turn,
    /// or the first reason why not.
    #[must_use]
    pub fn explain_slave(
        &self,
        slave: SlaveId,
    ) -> Vec<(FrameworkId, RoleName, Result<(), Reason>)> {
        let mut answers = Vec::new();
        for (framework, record) in self.registry.frameworks() {
            for role in &record.framework.roles {
                let answer = self.allocator.explain(framework, role, slave);
                let answer = answer.map_err(|(reason, _)| reason);
                answers.push((framework, role.clone(), answer));
            }
        }
        answers
    }

    /// How a framework treats its offers; none if it is not known.
    #[must_use]
    pub fn holding(&self, framework: FrameworkId) -> Option<Holding> {
        self.frameworks.get(framework).map(|row| row.holding)
    }
}
