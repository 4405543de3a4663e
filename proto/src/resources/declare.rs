//! Making a sum out of what a configuration, a command line or a stranger lists.

use std::collections::BTreeMap;

use super::{Kind, Resource, ResourceName, Resources, Scalar, Value};
use crate::role::RoleName;

/// Why a list of resources cannot be what one slave has, an offer promises or a task wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// More entries than [`Resources::ENTRIES_MAX`].
    #[error("there are at most {max} resources, these are {got}", max = Resources::ENTRIES_MAX)]
    TooMany {
        /// How many were listed.
        got: usize,
    },
    /// One name with values of two kinds.
    #[error("`{name}` is of type {first} and of type {second} at the same time")]
    KindsDiffer {
        /// The name.
        name: ResourceName,
        /// One kind.
        first: Kind,
        /// The other.
        second: Kind,
    },
    /// All scalars of one name together are above [`Scalar::DECLARED_MAX`].
    #[error(
        "more `{name}` than the {} that one slave can have",
        Scalar::DECLARED_MAX
    )]
    TooMuch {
        /// The name.
        name: ResourceName,
    },
    /// A number or word that belongs to two reservations at a time.
    #[error("a part of `{name}` is listed under two different reservations")]
    Overlap {
        /// The name.
        name: ResourceName,
    },
    /// Two volumes with one id in one role (semantics: D7).
    #[error("volume `{id}` exists twice in role `{role}`")]
    DuplicateVolume {
        /// The persistence id.
        id: String,
        /// The role that it is reserved for.
        role: RoleName,
    },
}

impl Resources {
    /// The most entries that are read from outside: a slave with a thousand volumes.
    pub const ENTRIES_MAX: usize = 1_024;

    /// The sum of `list`, checked as what one slave can have. Everything that is read from text,
    /// JSON or frames goes through here; sums over slaves need not fit.
    ///
    /// Order does not matter, entries without difference merge (scalars add up, ranges and sets
    /// unite), empty ones are dropped.
    ///
    /// # Errors
    /// The first that applies: too many entries, then in canonical order of the names two kinds, too
    /// much, an overlap; then a duplicate volume.
    pub fn declare(mut list: Vec<Resource>) -> Result<Resources, DeclareError> {
        if list.len() > Self::ENTRIES_MAX {
            return Err(DeclareError::TooMany { got: list.len() });
        }
        list.retain(|resource| !resource.value.is_empty());
        list.sort_by(Resource::cmp_identity);
        let mut sum = Resources::new();
        for same in list.chunk_by(|a, b| a.volume().is_none() && a.cmp_identity(b).is_eq()) {
            let value = sum_values(same)?;
            sum.entries.push(same[0].with_value(value));
        }
        for same_name in sum.entries.chunk_by(|a, b| a.name() == b.name()) {
            check_name(same_name)?;
        }
        check_volumes(&sum)?;
        Ok(sum)
    }
}

/// The sum of the values of `entries`, which have one name and one kind and are not none.
fn sum_values(entries: &[Resource]) -> Result<Value, DeclareError> {
    Value::sum(entries[0].value.kind(), entries.iter().map(Resource::value)).ok_or_else(|| {
        DeclareError::TooMuch {
            name: entries[0].name().clone(),
        }
    })
}

/// Checks all entries of one name together.
fn check_name(entries: &[Resource]) -> Result<(), DeclareError> {
    let name = || entries[0].name().clone();
    // Entries of one name are sorted by kind.
    let (first, second) = (
        entries[0].value.kind(),
        entries[entries.len() - 1].value.kind(),
    );
    if first != second {
        return Err(DeclareError::KindsDiffer {
            name: name(),
            first,
            second,
        });
    }
    let parts = entries.iter().map(|entry| match &entry.value {
        Value::Scalar(_) => 0,
        Value::Ranges(ranges) => ranges.len(),
        Value::Set(set) => set.len() as u64,
    });
    let parts = parts.fold(0, u64::saturating_add);
    let overlap = match sum_values(entries)? {
        Value::Scalar(amount) if amount > Scalar::DECLARED_MAX => {
            return Err(DeclareError::TooMuch { name: name() });
        }
        Value::Scalar(_) => false,
        Value::Ranges(ranges) => ranges.len() != parts,
        Value::Set(set) => set.len() as u64 != parts,
    };
    if overlap {
        Err(DeclareError::Overlap { name: name() })
    } else {
        Ok(())
    }
}

pub(super) fn check_volumes(sum: &Resources) -> Result<(), DeclareError> {
    let mut seen: BTreeMap<(&RoleName, &str), &Resource> = BTreeMap::new();
    for resource in sum {
        let (Some(role), Some(volume)) = (resource.reservations().role(), resource.volume()) else {
            continue;
        };
        // A shared volume is listed once for each of its users.
        if let Some(other) = seen.insert((role, volume.id()), resource)
            && !(resource.is_shared() && other == resource)
        {
            return Err(DeclareError::DuplicateVolume {
                id: volume.id().to_owned(),
                role: role.clone(),
            });
        }
    }
    Ok(())
}
