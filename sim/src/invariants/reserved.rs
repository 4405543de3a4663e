//! W21: what is reserved for a role is offered to that role and those below it only, and only they
//! run tasks on it (semantics D6).

use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::view::ClusterChange;

use super::{Broken, check};

pub(crate) fn check_published(change: &ClusterChange) -> Result<(), Broken> {
    match change {
        ClusterChange::OfferMade(offer) => check_holder(&offer.role, &offer.resources),
        ClusterChange::TaskAdded(task) => check_holder(&task.role, &task.resources),
        _ => Ok(()),
    }
}

fn check_holder(role: &RoleName, held: &Resources) -> Result<(), Broken> {
    let foreign = held.iter().find(|it| !it.reservations().allow(role));
    check("W21", foreign.is_none(), || {
        format!("role {role} gets {foreign:?}, which is reserved for another")
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::FrameworkId;

    use super::super::example::{offer_view, task_view};
    use super::*;

    #[test]
    fn what_is_reserved_for_another_role_is_rejected() {
        let offered = |role, resources| {
            check_published(&ClusterChange::OfferMade(offer_view(1, role, resources)))
        };
        assert_eq!(offered("web", "cpus:1;cpus(web):2"), Ok(()));
        assert_eq!(offered("web/ads", "cpus(web):2"), Ok(()));
        for role in ["*", "batch"] {
            let broken = offered(role, "cpus:1;cpus(web):2");
            assert_eq!(broken.expect_err("of web").id, "W21");
        }
        let mut task = task_view(FrameworkId(0));
        task.resources = "cpus(web):1".parse().expect("resources");
        assert!(check_published(&ClusterChange::TaskAdded(task)).is_err());
    }
}
