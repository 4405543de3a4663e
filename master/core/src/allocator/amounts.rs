//! Scalars by the number of their name: what shares, limits and guarantees are counted in.

use std::collections::BTreeMap;

use meros_proto::resources::{Resource, ResourceName, Value};

/// The most names of scalars that count towards shares and quota; resources with further names are
/// offered all the same. Slaves choose names, so there must be a bound.
pub const SCALAR_NAMES_MAX: usize = 1_024;

const WELL_KNOWN: [ResourceName; 4] = [
    ResourceName::CPUS,
    ResourceName::MEM,
    ResourceName::DISK,
    ResourceName::GPUS,
];

/// Numbers of names; those that Meros knows have the first ones.
#[derive(Debug, Default)]
pub(super) struct Names {
    others: BTreeMap<ResourceName, usize>,
}

impl Names {
    /// The number of a name, if it has one.
    #[inline]
    pub(super) fn find(&self, name: &ResourceName) -> Option<usize> {
        match name.as_str() {
            "cpus" => Some(0),
            "mem" => Some(1),
            "disk" => Some(2),
            "gpus" => Some(3),
            _ => self.others.get(name).copied(),
        }
    }

    /// The number of a name, given now if need be; none beyond [`SCALAR_NAMES_MAX`].
    pub(super) fn number(&mut self, name: &ResourceName) -> Option<usize> {
        self.find(name).or_else(|| {
            let next = WELL_KNOWN.len() + self.others.len();
            (next < SCALAR_NAMES_MAX).then(|| {
                self.others.insert(name.clone(), next);
                next
            })
        })
    }

    /// The name with a number.
    pub(super) fn name(&self, number: usize) -> Option<&ResourceName> {
        WELL_KNOWN.get(number).or_else(|| {
            self.others
                .iter()
                .find_map(|(name, it)| (*it == number).then_some(name))
        })
    }

    /// The scalars among some resources. Copies of a shared volume count each.
    pub(super) fn amounts<'a>(
        &mut self,
        resources: impl IntoIterator<Item = &'a Resource>,
    ) -> Amounts {
        let mut amounts = Amounts::default();
        for resource in resources {
            if let Value::Scalar(scalar) = resource.value()
                && let Some(number) = self.number(resource.name())
            {
                amounts.add(number, scalar.thousandths());
            }
        }
        amounts
    }
}

/// Thousandths by the number of a name. What was never added is zero.
///
/// Sums cannot overflow: no slave declares more than `Scalar::DECLARED_MAX` of a name, and of the
/// most slaves that there can be the sum fits.
#[derive(Debug, Clone, Default)]
pub(super) struct Amounts {
    known: [i64; WELL_KNOWN.len()],
    others: Vec<i64>,
}

impl PartialEq for Amounts {
    fn eq(&self, other: &Self) -> bool {
        let len = self.others.len().max(other.others.len());
        let of = |it: &Self, at: usize| it.others.get(at).copied().unwrap_or(0);
        self.known == other.known && (0..len).all(|at| of(self, at) == of(other, at))
    }
}

impl Amounts {
    pub(super) fn get(&self, number: usize) -> i64 {
        match number.checked_sub(WELL_KNOWN.len()) {
            None => self.known[number],
            Some(at) => self.others.get(at).copied().unwrap_or(0),
        }
    }

    pub(super) fn add(&mut self, number: usize, amount: i64) {
        let mine = self.at(number);
        *mine = mine.saturating_add(amount);
    }

    pub(super) fn set(&mut self, number: usize, amount: i64) {
        *self.at(number) = amount;
    }

    fn at(&mut self, number: usize) -> &mut i64 {
        let Some(at) = number.checked_sub(WELL_KNOWN.len()) else {
            return &mut self.known[number];
        };
        if at >= self.others.len() {
            self.others.resize(at + 1, 0);
        }
        &mut self.others[at]
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (mine, more) in self.known.iter_mut().zip(&other.known) {
            *mine = mine.saturating_add(*more);
        }
        for (at, more) in other.others.iter().enumerate() {
            self.add(WELL_KNOWN.len() + at, *more);
        }
    }

    pub(super) fn sub_all(&mut self, other: &Self) {
        for (mine, less) in self.known.iter_mut().zip(&other.known) {
            *mine = mine.saturating_sub(*less);
        }
        for (at, less) in other.others.iter().enumerate() {
            self.add(WELL_KNOWN.len() + at, -less);
        }
    }

    /// Adds, or takes away.
    pub(super) fn change(&mut self, other: &Self, is_more: bool) {
        if is_more {
            self.add_all(other);
        } else {
            self.sub_all(other);
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.known == [0; WELL_KNOWN.len()] && self.others.iter().all(|amount| *amount == 0)
    }

    /// Numbers and amounts, zeros included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, i64)> {
        self.known.iter().chain(&self.others).copied().enumerate()
    }

    pub(super) fn len(&self) -> usize {
        WELL_KNOWN.len() + self.others.len()
    }
}
