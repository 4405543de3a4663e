//! Parts of a sum: by reservation, by role, to fit a want; and moving parts between reservations.

use super::{
    Insufficient, Reservation, Resource, ResourceError, ResourceName, Resources, Shortfall,
    SumTooLarge, Value,
};
use crate::role::RoleName;

/// Why a part of a sum cannot be reserved or unreserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The part is not there.
    #[error(transparent)]
    Insufficient {
        /// What is missing.
        source: Insufficient,
    },
    /// The part is there, but its reservation cannot change so.
    #[error(transparent)]
    Resource {
        /// Why.
        source: ResourceError,
    },
    /// Cannot happen to what one slave has.
    #[error(transparent)]
    SumTooLarge {
        /// Where.
        source: SumTooLarge,
    },
}

/// One name both revocable and not (semantics: D8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is wanted both revocable and not revocable")]
pub struct RevocableMix {
    /// The name.
    pub name: ResourceName,
}

impl Resources {
    /// The part that is unreserved.
    #[must_use]
    pub fn unreserved(&self) -> Resources {
        self.filter(Resource::is_unreserved)
    }

    /// The part whose topmost reservation is for exactly `role`.
    #[must_use]
    pub fn reserved_for(&self, role: &RoleName) -> Resources {
        self.filter(|resource| resource.is_reserved_for(role))
    }

    /// The part that a framework in `role` may be offered: unreserved, or reserved for `role` or a
    /// role above it.
    #[must_use]
    pub fn allocatable_to(&self, role: &RoleName) -> Resources {
        self.filter(|resource| resource.reservations().allow(role))
    }

    /// The part that may be taken away at any time.
    #[must_use]
    pub fn revocable(&self) -> Resources {
        self.filter(Resource::is_revocable)
    }

    /// The part that stays until it is given back.
    #[must_use]
    pub fn non_revocable(&self) -> Resources {
        self.filter(|resource| !resource.is_revocable())
    }

    /// The same with exactly one reservation pushed onto each entry.
    ///
    /// # Errors
    /// The first entry that cannot be reserved so: [`Resource::reserve`].
    pub fn push_reservation(&self, reservation: &Reservation) -> Result<Resources, ConvertError> {
        self.convert(|resource| resource.reserve(reservation))
    }

    /// The same with the topmost reservation taken off each entry.
    ///
    /// # Errors
    /// The first entry that cannot be unreserved: [`Resource::unreserve`].
    pub fn pop_reservation(&self) -> Result<Resources, ConvertError> {
        self.convert(Resource::unreserve)
    }

    fn convert(
        &self,
        change: impl Fn(&Resource) -> Result<Resource, ResourceError>,
    ) -> Result<Resources, ConvertError> {
        let mut converted = Resources::new();
        for resource in self {
            let changed = change(resource).map_err(|source| ConvertError::Resource { source })?;
            converted
                .checked_add_assign(&changed.into())
                .map_err(|source| ConvertError::SumTooLarge { source })?;
        }
        Ok(converted)
    }

    /// The same total with `part` of it reserved once more (semantics: D6). Undone by
    /// [`Resources::unreserve`] of the reserved part.
    ///
    /// # Errors
    /// `part` is not there; it cannot be reserved so.
    pub fn reserve(
        &self,
        part: &Resources,
        reservation: &Reservation,
    ) -> Result<Resources, ConvertError> {
        self.replace(part, &part.push_reservation(reservation)?)
    }

    /// The same total with the topmost reservation of `part` taken back (semantics: D6). Whether
    /// it is in use is for the caller to know.
    ///
    /// # Errors
    /// `part`, which is given with its reservations, is not there; it cannot be unreserved.
    pub fn unreserve(&self, part: &Resources) -> Result<Resources, ConvertError> {
        self.replace(part, &part.pop_reservation()?)
    }

    /// The same with `by` in place of `part`.
    ///
    /// # Errors
    /// `part` is not there; the result is too large.
    pub fn replace(&self, part: &Resources, by: &Resources) -> Result<Resources, ConvertError> {
        let mut changed = self.clone();
        changed.replace_in_place(part, by)?;
        Ok(changed)
    }

    /// [`Resources::replace`] in place.
    ///
    /// # Errors
    /// The same; nothing has changed then.
    pub fn replace_in_place(
        &mut self,
        part: &Resources,
        by: &Resources,
    ) -> Result<(), ConvertError> {
        self.checked_sub_assign(part)
            .map_err(|source| ConvertError::Insufficient { source })?;
        self.checked_add_assign(by).map_err(|source| {
            self.checked_add_assign(part)
                .expect("it was there a moment ago");
            ConvertError::SumTooLarge { source }
        })
    }

    /// Concrete resources of this sum that meet `want`, or `None` if it does not fit.
    ///
    /// Entries of `want` with a reservation or a volume are meant exactly as written. Those without
    /// are met from whatever there is of that name, reserved first, then unreserved, revocable only
    /// if the want is; never from volumes. Pass what the role may use: roles are not looked at.
    #[must_use]
    pub fn take_fitting(&self, want: &Resources) -> Option<Resources> {
        self.fit(want).ok()
    }

    /// What keeps `want` from fitting, for people: `cpus: wanted 4, has 1.5; gpus: wanted 1, has 0`.
    /// Empty if and only if [`Resources::take_fitting`] succeeds.
    #[must_use]
    pub fn describe_shortfall(&self, want: &Resources) -> String {
        self.fit(want)
            .err()
            .map_or_else(String::new, |insufficient| insufficient.to_string())
    }

    /// [`Resources::take_fitting`] with the reason.
    ///
    /// # Errors
    /// Every entry of `want` that is not there or too little.
    pub fn fit(&self, want: &Resources) -> Result<Resources, Insufficient> {
        let is_exact =
            |resource: &Resource| !resource.is_unreserved() || resource.volume().is_some();
        let exact = want.filter(is_exact);
        let (mut rest, mut shortfalls) = match self.checked_sub(&exact) {
            Ok(rest) => (rest, Vec::new()),
            Err(insufficient) => (self.clone(), insufficient.shortfalls),
        };
        let mut taken = exact;
        for wanted in want.iter().filter(|resource| !is_exact(resource)) {
            match rest.serve(wanted) {
                Ok(served) => {
                    rest.checked_sub_assign(&served).expect("served from there");
                    taken
                        .checked_add_assign(&served)
                        .expect("at most what this sum holds");
                }
                Err(shortfall) => shortfalls.push(shortfall),
            }
        }
        if shortfalls.is_empty() {
            Ok(taken)
        } else {
            Err(Insufficient { shortfalls })
        }
    }

    /// Chooses entries, or parts of them, that together are `want`.
    fn serve(&self, want: &Resource) -> Result<Resources, Shortfall> {
        let mut missing = want.value.clone();
        let mut served = Resources::new();
        // Backwards, since the unreserved entry of a name is its first.
        for source in self
            .entries
            .iter()
            .rev()
            .filter(|entry| entry.can_serve(want))
        {
            let part = source.value.intersect(&missing);
            if part.is_empty() {
                continue;
            }
            missing = missing
                .checked_sub(&part)
                .expect("an intersection is contained");
            served.insert(&source.with_value(part), 0);
        }
        if missing.is_empty() {
            return Ok(served);
        }
        let sources = self
            .entries
            .iter()
            .filter(|entry| entry.can_serve(want))
            .map(Resource::value);
        // A sum that is too large cannot fall short of anything; the largest is as good then.
        let has = Value::sum(want.value.kind(), sources).unwrap_or_else(|| want.value.clone());
        Err(Shortfall::new(want, has))
    }

    /// Checks that no name is both revocable and not in all of `parts` together, such as a task and
    /// its executor (semantics: D8).
    ///
    /// # Errors
    /// The first such name in canonical order of the part that completes the mixture.
    pub fn check_revocable_mix<'a>(
        parts: impl IntoIterator<Item = &'a Resources>,
    ) -> Result<(), RevocableMix> {
        let mut seen: Vec<&Resource> = Vec::new();
        for resource in parts.into_iter().flatten() {
            match seen.iter().find(|other| other.name() == resource.name()) {
                Some(other) if other.is_revocable() != resource.is_revocable() => {
                    return Err(RevocableMix {
                        name: resource.name().clone(),
                    });
                }
                Some(_) => {}
                None => seen.push(resource),
            }
        }
        Ok(())
    }
}
