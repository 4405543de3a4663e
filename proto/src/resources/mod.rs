//! The resource algebra: what slaves have, offers promise and tasks use.
//!
//! [`Resources`] is a canonical sum of [`Resource`]s, so that equal contents are equal values. All
//! arithmetic is on integers and checked: nothing is ever negative, rounded twice, or lost.
//! Scalars, ranges and sets, reservations and volumes follow semantics D6 to D8.
//!
//! Absent: fairness, offers and slaves. The allocator has a denser form of its own.

use std::cmp::Ordering;

use smallvec::SmallVec;

mod claims;
mod declare;
mod name;
mod ranges;
mod reservation;
mod resource;
mod scalar;
mod select;
mod set;
mod text;
mod value;
mod volume;
mod wire;

pub use claims::{ClaimsError, VolumePathsClash};
pub use declare::DeclareError;
pub use name::{ResourceName, ResourceNameError};
pub use ranges::{Interval, IntervalError, Ranges};
pub use reservation::{Reservation, ReservationError, ReservationKind, Reservations};
pub use resource::{Resource, ResourceError};
pub use scalar::{Scalar, ScalarError};
pub use select::{ConvertError, RevocableMix};
pub use set::{Set, SetError};
pub use text::{InvalidPiece, ParseResourcesError};
pub use value::{Kind, Value};
pub use volume::{Volume, VolumeError};

use resource::Resource as Entry;

/// A sum of resources, in canonical form: sorted, merged where nothing keeps entries apart, without
/// empty entries.
///
/// Volumes are indivisible and never merge; adding the same one twice gives two copies, which is
/// what sums over slaves and over users of a shared volume need.
///
/// Ranges and sets add as unions. So `(a - b) + b == a` always, and `(a + b) - b == a` whenever `a`
/// and `b` have no number and no word in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    // Four: cpus, mem, disk and ports are what a typical slave has, without an allocation.
    entries: SmallVec<[Entry; 4]>,
}

/// A sum went above [`Scalar::MAX`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum of `{name}` is too large")]
pub struct SumTooLarge {
    /// What there is too much of.
    pub name: ResourceName,
}

/// Something that was wanted and is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: wanted {wanted}, has {has}")]
pub struct Shortfall {
    /// Which resource, in the notation of resource texts: `cpus`, `cpus(ads)`.
    pub what: String,
    /// What was wanted.
    pub wanted: Value,
    /// What there is.
    pub has: Value,
}

/// Not all that was wanted is there; displays as the shortfalls, separated by `; `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", join(shortfalls))]
pub struct Insufficient {
    /// One per resource that is missing or too little; never empty.
    pub shortfalls: Vec<Shortfall>,
}

fn join(shortfalls: &[Shortfall]) -> String {
    let texts: Vec<String> = shortfalls.iter().map(Shortfall::to_string).collect();
    texts.join("; ")
}

impl Shortfall {
    fn new(want: &Resource, has: Value) -> Self {
        Self {
            what: text::Head(want).to_string(),
            wanted: want.value.clone(),
            has,
        }
    }
}

impl Resources {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in canonical order: cpus, mem, disk, gpus, ports, other names by alphabet; of one
    /// name the unreserved part first. No entry is empty.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.entries.iter()
    }

    /// All of the scalar `name`: reserved or not, revocable or not, volumes included, a shared
    /// volume once. Zero if there is none. At most [`Scalar::MAX`].
    #[must_use]
    #[inline]
    pub fn scalar(&self, name: &ResourceName) -> Scalar {
        let entries = self.entries.as_slice();
        let of_name = |entry: &Resource| entry.name() == name;
        let Some(first) = entries.iter().position(of_name) else {
            return Scalar::ZERO;
        };
        // Those of one name lie next to each other, nearly always one.
        match (&entries[first].value, entries.get(first + 1)) {
            (Value::Scalar(amount), next) if !next.is_some_and(of_name) => *amount,
            _ => Self::sum_of_first(&entries[first..]),
        }
    }

    /// All of the scalar that comes first.
    fn sum_of_first(entries: &[Resource]) -> Scalar {
        let mut total = Scalar::ZERO;
        let mut previous: Option<&Resource> = None;
        let of_name = |entry: &&Resource| entry.name() == entries[0].name();
        for entry in entries.iter().take_while(of_name) {
            // Copies of a shared volume lie next to each other.
            let is_copy = entry.is_shared() && previous == Some(entry);
            if let (Value::Scalar(amount), false) = (&entry.value, is_copy) {
                total = total.saturating_add(*amount);
            }
            previous = Some(entry);
        }
        total
    }

    /// All numbers of the ranges `name`, whoever they are reserved for.
    #[must_use]
    pub fn ranges(&self, name: &ResourceName) -> Ranges {
        self.entries
            .iter()
            .filter(|entry| entry.name() == name)
            .fold(Ranges::new(), |all, entry| match &entry.value {
                Value::Ranges(ranges) => all.union(ranges),
                Value::Scalar(_) | Value::Set(_) => all,
            })
    }

    /// All ports, whoever they are reserved for.
    #[must_use]
    pub fn ports(&self) -> Ranges {
        self.ranges(&ResourceName::PORTS)
    }

    /// Whether all of `other` is in here, with the same reservations.
    #[must_use]
    pub fn contains(&self, other: &Resources) -> bool {
        if self.has_in_place(other, |mine, wanted| mine >= wanted) {
            return true;
        }
        let mut at = 0;
        other
            .entries
            .iter()
            .all(|wanted| match self.find(wanted, at) {
                Ok(found) => {
                    // The next one wanted is not before this one, and never the same copy of a volume.
                    at = found + 1;
                    self.entries[found].value.contains(&wanted.value)
                }
                Err(_) => false,
            })
    }

    /// The sum.
    ///
    /// # Errors
    /// A scalar would be above [`Scalar::MAX`].
    pub fn checked_add(&self, other: &Resources) -> Result<Resources, SumTooLarge> {
        let mut sum = self.clone();
        sum.checked_add_assign(other)?;
        Ok(sum)
    }

    /// Adds in place; without allocation if every entry of `other` finds a scalar to add to.
    ///
    /// # Errors
    /// A scalar would be above [`Scalar::MAX`]; nothing has changed then.
    pub fn checked_add_assign(&mut self, other: &Resources) -> Result<(), SumTooLarge> {
        if self.has_in_place(other, |mine, more| mine.checked_add(more).is_some()) {
            self.change_in_place(other, Scalar::saturating_add);
            return Ok(());
        }
        let mut at = 0;
        for added in &other.entries {
            match self.find(added, at) {
                Ok(found) => {
                    at = found + 1;
                    if let (Value::Scalar(mine), Value::Scalar(more)) =
                        (&self.entries[found].value, &added.value)
                        && added.volume().is_none()
                        && mine.checked_add(*more).is_none()
                    {
                        return Err(SumTooLarge {
                            name: added.name().clone(),
                        });
                    }
                }
                Err(place) => at = place,
            }
        }
        let mut at = 0;
        for added in &other.entries {
            at = self.insert(added, at);
        }
        Ok(())
    }

    /// Adds one entry whose sum is known to fit, at or after position `at`; tells where it went.
    fn insert(&mut self, added: &Resource, at: usize) -> usize {
        match self.find(added, at) {
            Ok(found) if added.volume().is_none() => {
                let mine = &mut self.entries[found].value;
                if let (Value::Scalar(mine), Value::Scalar(more)) = (&mut *mine, &added.value) {
                    *mine = mine.saturating_add(*more);
                } else {
                    *mine = mine
                        .checked_add(&added.value)
                        .expect("of one kind, and unions always fit");
                }
                found
            }
            Ok(place) | Err(place) => {
                self.entries.insert(place, added.clone());
                place
            }
        }
    }

    /// What is left without `other`.
    ///
    /// # Errors
    /// What `other` has and this has not.
    pub fn checked_sub(&self, other: &Resources) -> Result<Resources, Insufficient> {
        let mut rest = self.clone();
        rest.checked_sub_assign(other)?;
        Ok(rest)
    }

    /// Takes away in place; scalars without allocation.
    ///
    /// # Errors
    /// What `other` has and this has not; nothing has changed then.
    pub fn checked_sub_assign(&mut self, other: &Resources) -> Result<(), Insufficient> {
        // Something must be left of each: what is used up goes out.
        if self.has_in_place(other, |mine, less| mine > less) {
            self.change_in_place(other, Scalar::saturating_sub);
            return Ok(());
        }
        if !self.contains(other) {
            return Err(Insufficient {
                shortfalls: self.missing(other),
            });
        }
        let mut at = 0;
        for taken in &other.entries {
            let found = self.find(taken, at).expect("contained, as checked above");
            at = found;
            if taken.volume().is_some() {
                self.entries.remove(found);
                continue;
            }
            let mine = &mut self.entries[found].value;
            if let (Value::Scalar(mine), Value::Scalar(less)) = (&mut *mine, &taken.value) {
                *mine = mine.saturating_sub(*less);
            } else {
                *mine = mine
                    .checked_sub(&taken.value)
                    .expect("contained, as checked above");
            }
            if mine.is_empty() {
                self.entries.remove(found);
            }
        }
        Ok(())
    }

    /// Whether `other` has plain scalars only, each in the very place where this has the same, and for
    /// each `fits` holds: nearly always so, and then nothing needs to be searched.
    fn has_in_place(&self, other: &Resources, fits: impl Fn(Scalar, Scalar) -> bool) -> bool {
        let mut both = self.entries.iter().zip(&other.entries);
        let fits = |(mine, its): (&Entry, &Entry)| match (&mine.value, &its.value) {
            (Value::Scalar(amount), Value::Scalar(by)) => {
                mine.is_same_plain(its) && fits(*amount, *by)
            }
            _ => false,
        };
        other.entries.len() <= self.entries.len() && both.all(fits)
    }

    fn change_in_place(&mut self, other: &Resources, change: impl Fn(Scalar, Scalar) -> Scalar) {
        for (mine, its) in self.entries.iter_mut().zip(&other.entries) {
            if let (Value::Scalar(amount), Value::Scalar(by)) = (&mut mine.value, &its.value) {
                *amount = change(*amount, *by);
            }
        }
    }

    /// What of `other` is not in here, entry by entry.
    fn missing(&self, other: &Resources) -> Vec<Shortfall> {
        let mut at = 0;
        let mut missing = Vec::new();
        for wanted in &other.entries {
            let has = match self.find(wanted, at) {
                Ok(found) => {
                    at = found + 1;
                    self.entries[found].value.clone()
                }
                Err(place) => {
                    at = place;
                    Value::empty(wanted.value.kind())
                }
            };
            if !has.contains(&wanted.value) {
                missing.push(Shortfall::new(wanted, has));
            }
        }
        missing
    }

    /// Where the entry with this identity is at or after position `at`, or where it belongs.
    #[inline]
    fn find(&self, wanted: &Resource, at: usize) -> Result<usize, usize> {
        // Callers walk in order and sums are alike, so nearly always it is the next one.
        match self.entries.get(at) {
            Some(entry) if entry.is_same_plain(wanted) => Ok(at),
            _ => self.search(wanted, at),
        }
    }

    fn search(&self, wanted: &Resource, at: usize) -> Result<usize, usize> {
        let rest = &self.entries[at..];
        // A few steps are cheaper than halving, and most sums are short.
        const STEPS: usize = 8;
        for (offset, entry) in rest.iter().take(STEPS).enumerate() {
            match entry.cmp_identity(wanted) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(at + offset),
                Ordering::Greater => return Err(at + offset),
            }
        }
        rest.binary_search_by(|entry| entry.cmp_identity(wanted))
            .map(|found| at + first_equal(rest, found))
            .map_err(|place| at + place)
    }

    /// The entries for which `keep` holds; what is left of a canonical sum is canonical.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Resources {
        Resources {
            entries: self
                .entries
                .iter()
                .filter(|entry| keep(entry))
                .cloned()
                .collect(),
        }
    }
}

/// The first of the entries that are interchangeable with the one at `found`: copies of a volume.
fn first_equal(entries: &[Resource], found: usize) -> usize {
    let copies = entries[..found].iter().rev();
    found
        - copies
            .take_while(|entry| entry.cmp_identity(&entries[found]).is_eq())
            .count()
}

impl From<Resource> for Resources {
    fn from(resource: Resource) -> Self {
        let mut entries = SmallVec::new();
        if !resource.value.is_empty() {
            entries.push(resource);
        }
        Self { entries }
    }
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = std::slice::Iter<'a, Resource>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
