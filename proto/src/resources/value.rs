//! How much of a resource: a scalar, ranges, or a set.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Ranges, Scalar, Set};

/// An amount of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A divisible amount.
    Scalar(Scalar),
    /// Certain numbers.
    Ranges(Ranges),
    /// Certain words.
    Set(Set),
}

/// Which of the three forms a [`Value`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Value::Scalar`].
    Scalar,
    /// [`Value::Ranges`].
    Ranges,
    /// [`Value::Set`].
    Set,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Scalar => "scalar",
            Kind::Ranges => "ranges",
            Kind::Set => "set",
        })
    }
}

impl Value {
    /// Which form this value has.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Value::Scalar(_) => Kind::Scalar,
            Value::Ranges(_) => Kind::Ranges,
            Value::Set(_) => Kind::Set,
        }
    }

    /// Nothing, in the form `kind`.
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Scalar => Value::Scalar(Scalar::ZERO),
            Kind::Ranges => Value::Ranges(Ranges::new()),
            Kind::Set => Value::Set(Set::new()),
        }
    }

    /// Whether this is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Scalar(amount) => amount.is_zero(),
            Value::Ranges(ranges) => ranges.is_empty(),
            Value::Set(set) => set.is_empty(),
        }
    }

    /// Whether all of `other` is in here; never between different forms.
    #[must_use]
    pub fn contains(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(wanted)) => mine >= wanted,
            (Value::Ranges(mine), Value::Ranges(wanted)) => mine.contains(wanted),
            (Value::Set(mine), Value::Set(wanted)) => mine.contains(wanted),
            _ => false,
        }
    }

    /// The sum of scalars, the union of ranges and sets; `None` if a sum is above [`Scalar::MAX`]
    /// or the forms differ.
    #[must_use]
    pub fn checked_add(&self, other: &Value) -> Option<Value> {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => a.checked_add(*b).map(Value::Scalar),
            (Value::Ranges(a), Value::Ranges(b)) => Some(Value::Ranges(a.union(b))),
            (Value::Set(a), Value::Set(b)) => Some(Value::Set(a.union(b))),
            _ => None,
        }
    }

    /// The sum of `values`, which are all of kind `kind`, as if added one after the other, but in
    /// time that grows with their size and not with its square. `None` above [`Scalar::MAX`].
    pub(super) fn sum<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>) -> Option<Value> {
        let mut amount = Scalar::ZERO;
        let mut intervals = Vec::new();
        let mut sets = Vec::new();
        for value in values {
            match value {
                Value::Scalar(more) => amount = amount.checked_add(*more)?,
                Value::Ranges(more) => intervals.extend(more.iter()),
                Value::Set(more) => sets.push(more),
            }
        }
        Some(match kind {
            Kind::Scalar => Value::Scalar(amount),
            Kind::Ranges => Value::Ranges(Ranges::from_intervals(intervals)),
            Kind::Set => Value::Set(Set::union_of(sets)),
        })
    }

    /// What is left without `other`; `None` unless [`Value::contains`] holds.
    #[must_use]
    pub fn checked_sub(&self, other: &Value) -> Option<Value> {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => a.checked_sub(*b).map(Value::Scalar),
            (Value::Ranges(a), Value::Ranges(b)) => {
                a.contains(b).then(|| Value::Ranges(a.subtract(b)))
            }
            (Value::Set(a), Value::Set(b)) => a.contains(b).then(|| Value::Set(a.subtract(b))),
            _ => None,
        }
    }

    /// The most that is in both; nothing (in the form of `self`) if the forms differ.
    #[must_use]
    pub fn intersect(&self, other: &Value) -> Value {
        match (self, other) {
            (Value::Scalar(a), Value::Scalar(b)) => Value::Scalar(*a.min(b)),
            (Value::Ranges(a), Value::Ranges(b)) => Value::Ranges(a.intersect(b)),
            (Value::Set(a), Value::Set(b)) => Value::Set(a.intersect(b)),
            _ => Value::empty(self.kind()),
        }
    }
}

impl fmt::Display for Value {
    /// `1.5`, `[31000-32000]`, or `{a,b}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Scalar(amount) => amount.fmt(f),
            Value::Ranges(ranges) => ranges.fmt(f),
            Value::Set(set) => set.fmt(f),
        }
    }
}

impl From<Scalar> for Value {
    fn from(amount: Scalar) -> Self {
        Value::Scalar(amount)
    }
}

impl From<Ranges> for Value {
    fn from(ranges: Ranges) -> Self {
        Value::Ranges(ranges)
    }
}

impl From<Set> for Value {
    fn from(set: Set) -> Self {
        Value::Set(set)
    }
}
