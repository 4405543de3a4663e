//! One kind of resource with all that keeps it apart from others.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Deserialize;

use super::{
    Kind, Reservation, ReservationError, ReservationKind, Reservations, ResourceName, Scalar,
    Value, Volume,
};
use crate::role::RoleName;

/// So much of something, possibly reserved, possibly a volume.
///
/// What one can rely on: values of the five well-known names have the kind that the name requires;
/// gpus are whole (semantics: D8); a volume is reserved disk and not revocable (D7); what is
/// reserved dynamically is not revocable; only a volume is shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    name: ResourceName,
    pub(super) value: Value,
    reservations: Reservations,
    volume: Option<Arc<Volume>>,
    revocable: bool,
    shared: bool,
}

/// Everything that a resource consists of, as it was read and not yet checked.
#[derive(Deserialize)]
pub(super) struct Parts {
    pub(super) name: ResourceName,
    pub(super) value: Value,
    pub(super) reservations: Reservations,
    pub(super) volume: Option<Volume>,
    pub(super) revocable: bool,
    pub(super) shared: bool,
}

impl TryFrom<Parts> for Resource {
    type Error = ResourceError;

    fn try_from(parts: Parts) -> Result<Self, ResourceError> {
        Self {
            name: parts.name,
            value: parts.value,
            reservations: parts.reservations,
            volume: parts.volume.map(Arc::new),
            revocable: parts.revocable,
            shared: parts.shared,
        }
        .check()
    }
}

/// Why there can be no such resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A well-known name with a value of another kind.
    #[error("`{name}` is of type {expected}, not {got}")]
    WrongKind {
        /// The well-known name.
        name: ResourceName,
        /// The kind that it requires.
        expected: Kind,
        /// The kind that was given.
        got: Kind,
    },
    /// A part of a graphics processor.
    #[error("gpus are whole, {got} is not")]
    FractionalGpus {
        /// What was given.
        got: Scalar,
    },
    /// A volume on something else than disk.
    #[error("a volume is made of disk, not of `{name}`")]
    VolumeNotOnDisk {
        /// What it was to be made of.
        name: ResourceName,
    },
    /// A volume that anybody could be offered next.
    #[error("a volume is made of reserved disk")]
    VolumeNotReserved,
    /// A volume, or a dynamic reservation, that could be taken away at any time.
    #[error("what is revocable cannot be a volume or reserved dynamically")]
    RevocablePromise,
    /// Sharing something else than a volume.
    #[error("only a volume can be shared")]
    SharedWithoutVolume,
    /// Reserving or unreserving under a volume, which belongs to the reservation.
    #[error("volume `{id}` must be destroyed before its reservation changes")]
    VolumeInTheWay {
        /// The persistence id.
        id: String,
    },
    /// The reservation cannot be added or taken away.
    #[error("the reservation of `{name}` cannot change")]
    Reservation {
        /// What it would be a reservation of.
        name: ResourceName,
        /// Why.
        source: ReservationError,
    },
}

impl Resource {
    /// An unreserved resource that is nobody's in particular. `value` may be empty.
    ///
    /// # Errors
    /// [`ResourceError::WrongKind`], [`ResourceError::FractionalGpus`].
    pub fn new(name: ResourceName, value: impl Into<Value>) -> Result<Self, ResourceError> {
        Self {
            name,
            value: value.into(),
            reservations: Reservations::new(),
            volume: None,
            revocable: false,
            shared: false,
        }
        .check()
    }

    /// The same with these reservations in place of what it had.
    ///
    /// # Errors
    /// [`ResourceError::VolumeNotReserved`], [`ResourceError::RevocablePromise`].
    pub fn with_reservations(mut self, reservations: Reservations) -> Result<Self, ResourceError> {
        self.reservations = reservations;
        self.check()
    }

    /// The same as a volume. Reserve first: only reserved disk can be one.
    ///
    /// # Errors
    /// [`ResourceError::VolumeNotOnDisk`], [`ResourceError::VolumeNotReserved`],
    /// [`ResourceError::RevocablePromise`].
    pub fn with_volume(mut self, volume: Volume) -> Result<Self, ResourceError> {
        self.volume = Some(Arc::new(volume));
        self.check()
    }

    /// The same as mere disk; itself if it is no volume.
    #[must_use]
    pub fn without_volume(mut self) -> Self {
        self.volume = None;
        self.shared = false;
        self
    }

    /// The same, to be taken away whenever its owner wants it back.
    ///
    /// # Errors
    /// [`ResourceError::RevocablePromise`].
    pub fn into_revocable(mut self) -> Result<Self, ResourceError> {
        self.revocable = true;
        self.check()
    }

    /// The same volume, for several tasks at a time.
    ///
    /// # Errors
    /// [`ResourceError::SharedWithoutVolume`].
    pub fn into_shared(mut self) -> Result<Self, ResourceError> {
        self.shared = true;
        self.check()
    }

    fn check(self) -> Result<Self, ResourceError> {
        let got = self.value.kind();
        if let Some(expected) = self.name.required_kind()
            && got != expected
        {
            return Err(ResourceError::WrongKind {
                name: self.name,
                expected,
                got,
            });
        }
        if let Value::Scalar(got) = self.value
            && self.name == ResourceName::GPUS
            && !got.is_whole()
        {
            return Err(ResourceError::FractionalGpus { got });
        }
        if self.volume.is_some() && self.name != ResourceName::DISK {
            return Err(ResourceError::VolumeNotOnDisk { name: self.name });
        }
        if self.volume.is_some() && self.reservations.is_empty() {
            return Err(ResourceError::VolumeNotReserved);
        }
        let reserved_at_run_time = self
            .reservations
            .top()
            .is_some_and(|top| top.kind() == ReservationKind::Dynamic);
        if self.revocable && (self.volume.is_some() || reserved_at_run_time) {
            return Err(ResourceError::RevocablePromise);
        }
        if self.shared && self.volume.is_none() {
            return Err(ResourceError::SharedWithoutVolume);
        }
        Ok(self)
    }

    /// The same with another amount of the same kind; itself if it is no scalar. A volume is
    /// indivisible: give it all or nothing.
    #[must_use]
    pub fn with_amount(&self, amount: Scalar) -> Self {
        match self.value {
            Value::Scalar(_) => self.with_value(Value::Scalar(amount)),
            Value::Ranges(_) | Value::Set(_) => self.clone(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// How much of it.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Whom it is kept for; empty if unreserved.
    #[must_use]
    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// The volume that this disk is, if it is one.
    #[must_use]
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_deref()
    }

    /// Whether it may be taken away at any time.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.revocable
    }

    /// Whether several tasks may use it at a time; true for volumes only.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether it is unreserved.
    #[must_use]
    pub fn is_unreserved(&self) -> bool {
        self.reservations.is_empty()
    }

    /// Whether its topmost reservation is for exactly `role`.
    #[must_use]
    pub fn is_reserved_for(&self, role: &RoleName) -> bool {
        self.reservations.role() == Some(role)
    }

    /// The same with one reservation more (semantics: D6).
    ///
    /// # Errors
    /// [`ResourceError::VolumeInTheWay`], [`ResourceError::Reservation`],
    /// [`ResourceError::RevocablePromise`].
    pub fn reserve(&self, reservation: &Reservation) -> Result<Self, ResourceError> {
        self.rereserve(|reservations| reservations.push(reservation.clone()))
    }

    /// The same without its topmost reservation (semantics: D6).
    ///
    /// # Errors
    /// [`ResourceError::VolumeInTheWay`], [`ResourceError::Reservation`].
    pub fn unreserve(&self) -> Result<Self, ResourceError> {
        self.rereserve(Reservations::pop)
    }

    fn rereserve(
        &self,
        change: impl FnOnce(&Reservations) -> Result<Reservations, ReservationError>,
    ) -> Result<Self, ResourceError> {
        if let Some(volume) = &self.volume {
            return Err(ResourceError::VolumeInTheWay {
                id: volume.id().to_owned(),
            });
        }
        let reservations =
            change(&self.reservations).map_err(|source| ResourceError::Reservation {
                name: self.name.clone(),
                source,
            })?;
        self.clone().with_reservations(reservations)
    }

    /// The order in which [`Resources`](super::Resources) keeps entries. Equal entries merge,
    /// except volumes, which are indivisible: for them equal means interchangeable.
    pub(super) fn cmp_identity(&self, other: &Resource) -> Ordering {
        self.name
            .cmp(&other.name)
            .then_with(|| self.value.kind().cmp(&other.value.kind()))
            .then_with(|| self.reservations.cmp(&other.reservations))
            .then_with(|| self.revocable.cmp(&other.revocable))
            .then_with(|| match (&self.volume, &other.volume) {
                (None, None) => Ordering::Equal,
                (mine, others) => mine
                    .cmp(others)
                    .then_with(|| self.shared.cmp(&other.shared))
                    .then_with(|| self.value.cmp(&other.value)),
            })
    }

    /// Whether [`Resource::cmp_identity`] is equal without looking at reservations and volumes,
    /// which most resources do not have.
    #[inline]
    pub(super) fn is_same_plain(&self, other: &Resource) -> bool {
        let is_plain =
            |resource: &Resource| resource.reservations.is_empty() && resource.volume.is_none();
        is_plain(self)
            && is_plain(other)
            && self.name == other.name
            && self.value.kind() == other.value.kind()
            && self.revocable == other.revocable
    }

    /// Whether a want for `want`, written without reservations, can be met from this.
    pub(super) fn can_serve(&self, want: &Resource) -> bool {
        self.name == want.name
            && self.value.kind() == want.value.kind()
            && self.revocable == want.revocable
            && self.volume.is_none()
    }

    /// The same with another amount; for amounts obtained from amounts of such resources, so that
    /// what holds for those holds for it.
    pub(super) fn with_value(&self, value: Value) -> Self {
        debug_assert_eq!(
            self.value.kind(),
            value.kind(),
            "the kind is part of the identity"
        );
        Self {
            value,
            ..self.clone()
        }
    }
}
