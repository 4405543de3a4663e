//! The scalars that are measured, as plain numbers.

use std::ops::{AddAssign, SubAssign};

use meros_proto::resources::{ResourceName, Resources};

/// The names of what is measured, in the order of [`Amounts`].
pub(crate) const NAMES: [&str; KINDS] = ["cpus", "mem", "disk", "gpus"];
/// The place of GPUs among them.
pub(crate) const GPUS: usize = 3;
/// How many they are.
pub(crate) const KINDS: usize = 4;

/// So many thousandths of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts(pub(crate) [i64; KINDS]);

impl Amounts {
    /// The scalars of these resources.
    pub(crate) fn of(resources: &Resources) -> Self {
        let mut amounts = Self::default();
        for resource in resources.iter() {
            let name = resource.name();
            let kind = match () {
                () if *name == ResourceName::CPUS => 0,
                () if *name == ResourceName::MEM => 1,
                () if *name == ResourceName::DISK => 2,
                () if name.as_str() == NAMES[GPUS] => GPUS,
                () => continue,
            };
            amounts.0[kind] = resources.scalar(name).thousandths();
        }
        amounts
    }

    /// The largest part that this is of `total`, from 0 to 1: the dominant share.
    pub(crate) fn dominant_share(&self, total: &Self) -> f64 {
        let shares = self.0.iter().zip(&total.0);
        shares
            .filter(|(_, total)| **total > 0)
            .map(|(mine, total)| ratio(*mine, *total))
            .fold(0.0, f64::max)
    }
}

/// `part` of `whole`, which is positive.
pub(crate) fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

impl AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl SubAssign for Amounts {
    fn sub_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine -= theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dominant_share_is_the_largest_of_what_there_is() {
        let of = |text: &str| Amounts::of(&text.parse().expect("resources"));
        let total = of("cpus:10;mem:1000;ports:[1-9]");
        let mut held = of("cpus:1;mem:300;gpus:5");
        assert!((held.dominant_share(&total) - 0.3).abs() < 1e-9);
        held -= of("mem:300");
        assert!((held.dominant_share(&total) - 0.1).abs() < 1e-9);
    }
}
