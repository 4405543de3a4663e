//! W8: offers never leak. When everything has ended and all others have left, one framework that
//! wants everything is offered all that the slaves have.

use std::collections::BTreeMap;

use meros_proto::ids::SlaveId;
use meros_proto::resources::Resources;

use super::{Broken, check};

/// `has` is what the slaves have, `offered` what the last framework holds.
pub(crate) fn check_returned(
    has: &BTreeMap<SlaveId, Resources>,
    offered: &BTreeMap<SlaveId, Resources>,
) -> Result<(), Broken> {
    check("W8", has == offered, || {
        let show = |sums: &BTreeMap<SlaveId, Resources>| {
            let sums = sums.iter().map(|(slave, sum)| format!("{slave} {sum}"));
            sums.collect::<Vec<_>>().join(", ")
        };
        format!(
            "the slaves have {}; offered are {}",
            show(has),
            show(offered)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_everything_is_rejected() {
        let sums = |cpus: &[&str]| -> BTreeMap<SlaveId, Resources> {
            let resources = cpus.iter().map(|text| text.parse().expect("resources"));
            (0..).map(SlaveId).zip(resources).collect()
        };
        let has = sums(&["cpus:4", "cpus:2"]);
        assert_eq!(check_returned(&has, &has), Ok(()));
        assert_eq!(
            check_returned(&has, &sums(&["cpus:4"]))
                .expect_err("a slave")
                .id,
            "W8"
        );
        assert!(
            check_returned(&has, &sums(&["cpus:4", "cpus:1"])).is_err(),
            "a part"
        );
    }
}
