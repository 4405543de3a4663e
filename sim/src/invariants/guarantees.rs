//! W20: guarantees are met when there is enough. After the faults, when a framework keeps all offers
//! there are and another role is then guaranteed a part, a framework of that role is soon offered all
//! of that part, and by its limit no more.

use meros_proto::quota::Quota;
use meros_proto::resources::Resources;

use super::{Broken, check};

/// What a framework in a role holds by offers some time after the role was guaranteed a part.
pub(crate) fn check_met(quota: &Quota, offered: &Resources) -> Result<(), Broken> {
    let short = quota
        .guarantees
        .iter()
        .find(|(name, guarantee)| offered.scalar(name) < **guarantee);
    check("W20", short.is_none(), || {
        let (name, guarantee) = short.expect("it is not none");
        format!("of {name} {guarantee} is guaranteed and free, and offered is {offered}")
    })?;
    let above = quota
        .limits
        .iter()
        .find(|(name, limit)| offered.scalar(name) > **limit);
    check("W20", above.is_none(), || {
        let (name, limit) = above.expect("it is not none");
        format!("of {name} {limit} is the limit, and offered is {offered}")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meros_proto::resources::{ResourceName, Scalar};

    use super::*;

    #[test]
    fn less_than_the_guarantee_and_more_than_the_limit_are_rejected() {
        let four = BTreeMap::from([(ResourceName::CPUS, Scalar::whole(4))]);
        let quota = Quota {
            guarantees: four.clone(),
            limits: four,
        };
        let offered = |cpus: &str| check_met(&quota, &cpus.parse().expect("resources"));
        assert_eq!(offered("cpus:4;mem:64"), Ok(()));
        for cpus in ["cpus:3.999", "mem:64", "cpus:4.001"] {
            assert_eq!(offered(cpus).expect_err(cpus).id, "W20");
        }
    }
}
