//! Scalars by the number of their name: what shares, limits and guarantees are counted in.

use std::collections::BTreeMap;

use meros_proto::resources::{Resource, ResourceName, Resources, Value};
use meros_proto::role::RoleName;

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
        match name.well_known() {
            // Ports have a number beyond those of scalars, and are none.
            Some(number) => (number < WELL_KNOWN.len()).then_some(number),
            None => self.others.get(name).copied(),
        }
    }

    /// The number of a name, given now if need be; none beyond [`SCALAR_NAMES_MAX`].
    pub(super) fn number(&mut self, name: &ResourceName) -> Option<usize> {
        if name.well_known().is_some() {
            return self.find(name);
        }
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

impl Eq for Amounts {}

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

    /// Whether it has at least as much of everything.
    pub(super) fn covers(&self, least: &Self) -> bool {
        let known = self.known.iter().zip(&least.known);
        known.fold(true, |all, (mine, least)| all & (mine >= least))
            && (0..least.others.len()).all(|at| {
                let number = WELL_KNOWN.len() + at;
                self.get(number) >= least.get(number)
            })
    }
}

/// Scalars that are charged or given back, by what matters for accounts. Shared volumes are nobody's
/// and not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// What is neither reserved nor revocable: all, nearly always.
    pub(super) plain: Amounts,
    /// The rest, by the depth of the role that it is reserved for; none if it is revocable, which
    /// counts against no quota.
    rest: Vec<(Option<u32>, Amounts)>,
}

impl Charge {
    /// What it is of names that have a number: those of all that slaves have.
    pub(super) fn of(resources: &Resources, names: &Names) -> Self {
        let mut charge = Self::default();
        for resource in resources {
            let Value::Scalar(scalar) = resource.value() else {
                continue;
            };
            let Some(number) = names
                .find(resource.name())
                .filter(|_| !resource.is_shared())
            else {
                continue;
            };
            let amounts = match (resource.is_revocable(), resource.reservations().role()) {
                (false, None) => &mut charge.plain,
                (true, _) => charge.at(None),
                (false, Some(role)) => charge.at(Some(depth_of(role))),
            };
            amounts.add(number, scalar.thousandths());
        }
        charge
    }

    fn at(&mut self, depth: Option<u32>) -> &mut Amounts {
        let at = match self.rest.iter().position(|(it, _)| *it == depth) {
            Some(at) => at,
            None => {
                self.rest.push((depth, Amounts::default()));
                self.rest.len() - 1
            }
        };
        &mut self.rest[at].1
    }

    /// Adds all of it to what somebody holds, or takes it away.
    pub(super) fn change_all(&self, held: &mut Amounts, is_more: bool) {
        held.change(&self.plain, is_more);
        for (_, amounts) in &self.rest {
            held.change(amounts, is_more);
        }
    }

    /// What a role at this depth takes of what is not reserved for it or below it.
    pub(super) fn taken_at(&self, depth: u32) -> impl Iterator<Item = &Amounts> {
        let is_taken = move |(reserved_at, _): &&(Option<u32>, Amounts)| {
            reserved_at.is_some_and(|reserved_at| reserved_at < depth)
        };
        let rest = self.rest.iter().filter(is_taken);
        std::iter::once(&self.plain).chain(rest.map(|(_, amounts)| amounts))
    }
}

/// 1 for `a`, 2 for `a/b`.
pub(super) fn depth_of(role: &RoleName) -> u32 {
    let slashes = role.as_str().bytes().filter(|byte| *byte == b'/').count();
    1 + u32::try_from(slashes).expect("roles are short")
}
