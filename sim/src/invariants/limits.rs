//! W19: by an offer no role gets above a limit of its own or of a role above it. Against a limit
//! counts what the role and those below it hold, by offers, tasks and executors, and all that is reserved for
//! them (semantics E8).

use std::collections::BTreeMap;

use meros_proto::quota::Quota;
use meros_proto::resources::{Resource, ResourceName, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::view::OfferView;

use super::fits::Fits;
use super::{Broken, check};

type Quotas = BTreeMap<RoleName, Quota>;

/// An offer has been made, and is among what is published. `before` and `now` are the quotas before
/// and after the event in which it was: when these differ, either may have been in force.
pub(crate) fn check_offer(
    fits: &Fits,
    [before, now]: [&Quotas; 2],
    offer: &OfferView,
) -> Result<(), Broken> {
    let Some(above) = above(fits, now, offer) else {
        return Ok(());
    };
    check(
        "W19",
        before != now && self::above(fits, before, offer).is_none(),
        || above,
    )
}

/// By which limit this offer is too much.
fn above(fits: &Fits, quotas: &Quotas, offer: &OfferView) -> Option<String> {
    let of_offer = quotas
        .iter()
        .filter(|(role, _)| is_within(&offer.role, role));
    for (role, quota) in of_offer {
        for (name, limit) in &quota.limits {
            let of_it = offer.resources.iter().map(|it| taken(it, name, role));
            if of_it.sum::<i64>() == 0 {
                continue;
            }
            let held = fits.held().filter(|(holder, _)| is_within(holder, role));
            let held = held.flat_map(|(_, resources)| resources);
            let held: i64 = held.map(|it| taken(it, name, role)).sum();
            let all = fits.taking_part().flatten();
            let reserved: i64 = all.map(|it| reserved(it, name, role)).sum();
            if held + reserved > limit.thousandths() {
                let (id, of) = (offer.offer_id, &offer.resources);
                return Some(format!(
                    "with {id} ({of}) role {role} has {} thousandths of {name}, and its limit is {limit}",
                    held + reserved
                ));
            }
        }
    }
    None
}

fn is_within(role: &RoleName, above: &RoleName) -> bool {
    role == above || role.is_strict_subrole_of(above)
}

fn amount(resource: &Resource, name: &ResourceName) -> i64 {
    match resource.value() {
        Value::Scalar(scalar)
            if resource.name() == name && !resource.is_revocable() && !resource.is_shared() =>
        {
            Scalar::thousandths(*scalar)
        }
        _ => 0,
    }
}

/// What counts because it is held: all but what counts as reserved.
fn taken(resource: &Resource, name: &ResourceName, role: &RoleName) -> i64 {
    match resource.reservations().role() {
        Some(owner) if is_within(owner, role) => 0,
        _ => amount(resource, name),
    }
}

/// What counts because it is reserved for a role or one below it, held or not.
fn reserved(resource: &Resource, name: &ResourceName, role: &RoleName) -> i64 {
    match resource.reservations().role() {
        Some(owner) if is_within(owner, role) => amount(resource, name),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{FrameworkId, SlaveId};
    use meros_proto::view::ClusterChange;

    use super::super::example::{offer_view, slave_view, task_view};
    use super::*;

    fn limited(role: &str, cpus: i64) -> Quotas {
        let limit = Scalar::from_thousandths(cpus * 1_000).expect("positive");
        let quota = Quota {
            guarantees: BTreeMap::new(),
            limits: BTreeMap::from([(ResourceName::CPUS, limit)]),
        };
        BTreeMap::from([(role.parse().expect("a role"), quota)])
    }

    /// A slave with two cpus reserved for `web`, a task of `web/ads` with one, an offer for `web`.
    fn offered(resources: &str, quotas: [&Quotas; 2]) -> Result<(), Broken> {
        let mut fits = Fits::default();
        let slave = slave_view(SlaveId(0), "cpus:9;cpus(web):2");
        fits.on_published(&ClusterChange::Slave(slave));
        let mut task = task_view(FrameworkId(0));
        task.role = "web/ads".parse().expect("a role");
        fits.on_published(&ClusterChange::TaskAdded(task));
        let offer = offer_view(1, "web", resources);
        fits.on_published(&ClusterChange::OfferMade(offer.clone()));
        check_offer(&fits, quotas, &offer)
    }

    #[test]
    fn an_offer_above_a_limit_is_rejected() {
        let limited_to = |cpus| limited("web", cpus);
        let offer = |resources, limit| offered(resources, [&limited_to(limit); 2]);
        // Two that are reserved, one of the task, and the offer's.
        assert_eq!(offer("cpus:2", 5), Ok(()));
        assert_eq!(offer("cpus:2.001", 5).expect_err("above").id, "W19");
        assert_eq!(offer("cpus(web):2", 3), Ok(()), "it counts anyway");
        assert_eq!(offer("mem:64", 1), Ok(()), "of that there is no limit");
        assert_eq!(offered("cpus:9", [&limited("batch", 1); 2]), Ok(()));
    }

    #[test]
    fn while_a_limit_changes_either_is_right() {
        let [low, high] = [limited("web", 4), limited("web", 9)];
        assert_eq!(offered("cpus:2", [&low, &high]), Ok(()));
        assert_eq!(offered("cpus:2", [&high, &low]), Ok(()));
        assert!(offered("cpus:2", [&low, &low]).is_err());
    }
}
