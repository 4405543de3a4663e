//! A subscribed framework changes what it said of itself, without a new subscription (semantics B17).
//!
//! All or nothing: checked here, written to the registry, and in force when that is committed. Offers stay,
//! but for those of roles that it leaves; so do tasks, whatever their role.

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::FrameworkId;
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::view::OfferEnd;

use crate::MasterCore;
use crate::command::Command;
use crate::event::RequestId;
use crate::turn::Turn;
use crate::validate::check_framework;
use crate::wishes::{CheckedWishes, check_wishes};

/// What is in force when the registry has the rest.
#[derive(Debug)]
pub(crate) struct PendingUpdate {
    suppressed: Vec<RoleName>,
    wishes: CheckedWishes,
}

fn fixed(field: &str) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why: "it stays what it was when the framework first subscribed".to_owned(),
    }
}

impl MasterCore {
    /// The first that applies: not known, not subscribed, another subscription or change on its way,
    /// principal, user or checkpoint changed, a description or wish that is not valid.
    pub(crate) fn on_update_framework(
        &mut self,
        request: RequestId,
        framework_id: FrameworkId,
        framework: FrameworkDescription,
        suppressed_roles: Vec<RoleName>,
        wishes: Vec<OfferWishes>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let unknown = Refusal::FrameworkUnknown { framework_id };
        let (Some(record), Some(row)) = (
            self.registry.framework(framework_id),
            self.frameworks.get(framework_id),
        ) else {
            return Err(unknown);
        };
        if row.is_ending {
            return Err(Refusal::FrameworkRemoved { framework_id });
        }
        if row.connection.is_none() {
            return Err(Refusal::NotSubscribed);
        }
        if row.proposal.is_some() || row.claimant.is_some() {
            return Err(Refusal::OverLimit {
                what: "the number of changes of this framework in progress".to_owned(),
                limit: 1,
                advice: "try again in a moment".to_owned(),
            });
        }
        if framework.user != record.framework.user {
            return Err(fixed("user"));
        }
        if framework.checkpoint != record.framework.checkpoint {
            return Err(fixed("checkpoint"));
        }
        let framework = FrameworkDescription {
            framework_id: Some(framework_id),
            ..framework
        };
        check_framework(&framework, &suppressed_roles, &record.principal)?;
        let wishes = check_wishes(wishes, &framework)?;
        let framework = FrameworkDescription {
            principal: Some(record.principal.clone()),
            ..framework
        };
        let command = Command::UpdateFramework {
            framework_id,
            framework,
            suppressed_roles: suppressed_roles.clone(),
        };
        self.order_for_framework(request, framework_id, command, turn)?;
        if let Some(row) = self.frameworks.get_mut(framework_id) {
            row.update = Some(PendingUpdate {
                suppressed: suppressed_roles,
                wishes,
            });
        }
        Ok(())
    }

    /// The registry has what a framework says of itself now.
    pub(crate) fn on_framework_updated(&mut self, framework_id: FrameworkId, turn: &mut Turn<'_>) {
        if let Some(update) = self
            .frameworks
            .get_mut(framework_id)
            .and_then(|row| row.update.take())
        {
            self.put_in_force(framework_id, update, turn);
        }
        self.sync_roles(framework_id);
        self.advance_framework(framework_id, turn);
    }

    fn put_in_force(
        &mut self,
        framework_id: FrameworkId,
        update: PendingUpdate,
        turn: &mut Turn<'_>,
    ) {
        let roles = self.description(framework_id);
        let roles = roles.map(|it| it.roles.clone()).unwrap_or_default();
        let Some(row) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let suppressed = update.suppressed.into_iter().collect();
        let before = std::mem::replace(&mut row.suppressed, suppressed);
        let wanted: Vec<RoleName> = before.difference(&row.suppressed).cloned().collect();
        for role in &wanted {
            self.allocator.clear_filters(framework_id, Some(role));
        }
        for number in self.offers.of_framework(framework_id) {
            let offer = self.offers.get(number);
            if offer.is_some_and(|offer| !roles.contains(&offer.role)) {
                self.rescind(number, OfferEnd::Rescinded, turn);
            }
        }
        self.apply_wishes(framework_id, update.wishes);
        self.publish_framework(framework_id, turn);
    }
}
