//! Reservations: for whom a resource is kept, and who said so (semantics: D6).

use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounded_list;
use crate::labels::Labels;
use crate::role::RoleName;

/// Where a reservation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservationKind {
    /// From the configuration of the slave; lasts as long as that.
    Static,
    /// Made at run time by a framework or an operator, and can be taken back.
    Dynamic,
}

/// One reservation.
///
/// Two reservations that differ in anything, labels included, keep resources apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    kind: ReservationKind,
    role: RoleName,
    principal: Option<String>,
    labels: Labels,
}

/// Why a reservation, or a stack of them, is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationError {
    /// `*` is everybody, so nothing can be kept for it.
    #[error("nothing can be reserved for the role `*`")]
    AnyRole,
    /// A principal that is empty, too long, or has control characters.
    #[error("a principal has 1 to {max} bytes and no control characters", max = Reservation::PRINCIPAL_BYTES_MAX)]
    BadPrincipal,
    /// A static reservation with a principal or labels, which only someone at run time could give.
    #[error("a static reservation has neither principal nor labels")]
    StaticWithMaker,
    /// A static reservation on top of another: configuration comes first.
    #[error("a static reservation can only be the lowest one")]
    StaticOnTop,
    /// The role of a refinement is neither the role below it nor a part of it.
    #[error("role `{role}` is not `{below}` or a role below it")]
    NotARefinement {
        /// The role asked for.
        role: RoleName,
        /// The role that the resource is reserved for.
        below: RoleName,
    },
    /// More than [`Reservations::DEPTH_MAX`] on top of each other.
    #[error("at most {max} reservations lie on top of each other", max = Reservations::DEPTH_MAX)]
    TooDeep,
    /// Taking back a reservation from something unreserved.
    #[error("it is not reserved")]
    NotReserved,
    /// Taking back what the configuration of the slave says.
    #[error("it is reserved statically, by the configuration of the slave")]
    StaticStays,
}

impl Reservation {
    /// The longest principal, in bytes.
    pub const PRINCIPAL_BYTES_MAX: usize = 255;

    /// A reservation by the configuration of a slave.
    ///
    /// # Errors
    /// [`ReservationError::AnyRole`].
    pub fn fixed(role: RoleName) -> Result<Self, ReservationError> {
        Self::check(ReservationKind::Static, role, None, Labels::new())
    }

    /// A reservation made at run time, by `principal` if known.
    ///
    /// # Errors
    /// [`ReservationError::AnyRole`], [`ReservationError::BadPrincipal`].
    pub fn dynamic(
        role: RoleName,
        principal: Option<String>,
        labels: Labels,
    ) -> Result<Self, ReservationError> {
        Self::check(ReservationKind::Dynamic, role, principal, labels)
    }

    fn check(
        kind: ReservationKind,
        role: RoleName,
        principal: Option<String>,
        labels: Labels,
    ) -> Result<Self, ReservationError> {
        if role.is_any() {
            return Err(ReservationError::AnyRole);
        }
        if let Some(principal) = &principal
            && (principal.is_empty()
                || principal.len() > Self::PRINCIPAL_BYTES_MAX
                || principal.chars().any(char::is_control))
        {
            return Err(ReservationError::BadPrincipal);
        }
        if kind == ReservationKind::Static && (principal.is_some() || !labels.is_empty()) {
            return Err(ReservationError::StaticWithMaker);
        }
        Ok(Self {
            kind,
            role,
            principal,
            labels,
        })
    }

    /// Static or dynamic.
    #[must_use]
    pub fn kind(&self) -> ReservationKind {
        self.kind
    }

    /// For whom; never `*`.
    #[must_use]
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// Who made it, if that is known; never for a static one.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// What its maker noted; always empty for a static one.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// The reservations of a resource on top of each other, the lowest first; none if unreserved.
///
/// Each refines the one below: same role, or a role below it. Only the lowest may be static.
/// Cloning copies a reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservations(
    // `None` for the empty stack, so that unreserved resources neither allocate nor count
    // references. A stack in here is not empty. One word, since every entry of every sum has it.
    Option<Arc<Vec<Reservation>>>,
);

impl Reservations {
    /// The most reservations on top of each other: deeper than any tree of roles in use.
    pub const DEPTH_MAX: usize = 16;

    /// No reservation.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// The stack with `stack[0]` lowest.
    ///
    /// # Errors
    /// As [`Reservations::push`], for the first that cannot lie on those before it.
    pub fn from_stack(stack: Vec<Reservation>) -> Result<Self, ReservationError> {
        if stack.len() > Self::DEPTH_MAX {
            return Err(ReservationError::TooDeep);
        }
        for pair in stack.windows(2) {
            check_refinement(&pair[0], &pair[1])?;
        }
        Ok(Self((!stack.is_empty()).then(|| Arc::new(stack))))
    }

    /// This stack with exactly one reservation more.
    ///
    /// # Errors
    /// [`ReservationError::TooDeep`], [`ReservationError::StaticOnTop`],
    /// [`ReservationError::NotARefinement`].
    pub fn push(&self, reservation: Reservation) -> Result<Self, ReservationError> {
        let mut stack = self.as_slice().to_vec();
        stack.push(reservation);
        Self::from_stack(stack)
    }

    /// This stack without its topmost reservation.
    ///
    /// # Errors
    /// [`ReservationError::NotReserved`], [`ReservationError::StaticStays`].
    pub fn pop(&self) -> Result<Self, ReservationError> {
        let (top, below) = self
            .as_slice()
            .split_last()
            .ok_or(ReservationError::NotReserved)?;
        if top.kind == ReservationKind::Static {
            return Err(ReservationError::StaticStays);
        }
        Self::from_stack(below.to_vec())
    }

    /// Whether nothing is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The reservations, the lowest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Reservation] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The reservation that counts: the topmost one.
    #[must_use]
    pub fn top(&self) -> Option<&Reservation> {
        self.as_slice().last()
    }

    /// The role that it is reserved for.
    #[must_use]
    pub fn role(&self) -> Option<&RoleName> {
        self.top().map(Reservation::role)
    }

    /// Whether a framework in `role` may use it: unreserved, or reserved for `role` or for a role
    /// above it.
    #[must_use]
    pub fn allow(&self, role: &RoleName) -> bool {
        self.role()
            .is_none_or(|reserved| role == reserved || role.is_strict_subrole_of(reserved))
    }
}

fn check_refinement(below: &Reservation, upper: &Reservation) -> Result<(), ReservationError> {
    if upper.kind == ReservationKind::Static {
        return Err(ReservationError::StaticOnTop);
    }
    if upper.role != below.role && !upper.role.is_strict_subrole_of(&below.role) {
        return Err(ReservationError::NotARefinement {
            role: upper.role.clone(),
            below: below.role.clone(),
        });
    }
    Ok(())
}

impl Serialize for Reservation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Readable formats leave out what is not there; binary ones are positional.
        let complete = !serializer.is_human_readable();
        let mut out = serializer.serialize_struct("Reservation", 4)?;
        out.serialize_field("type", &self.kind)?;
        out.serialize_field("role", &self.role)?;
        if complete || self.principal.is_some() {
            out.serialize_field("principal", &self.principal)?;
        }
        if complete || !self.labels.is_empty() {
            out.serialize_field("labels", &self.labels)?;
        }
        out.end()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReservation {
    r#type: ReservationKind,
    role: RoleName,
    #[serde(default)]
    principal: Option<String>,
    #[serde(default)]
    labels: Labels,
}

impl<'de> Deserialize<'de> for Reservation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawReservation::deserialize(deserializer)?;
        Self::check(raw.r#type, raw.role, raw.principal, raw.labels).map_err(D::Error::custom)
    }
}

impl Serialize for Reservations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Reservations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stack = bounded_list::read(deserializer, Self::DEPTH_MAX, "reservations")?;
        Self::from_stack(stack).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dynamic(role: &str) -> Reservation {
        Reservation::dynamic(role.parse().unwrap(), Some("bob".into()), Labels::new()).unwrap()
    }

    fn fixed(role: &str) -> Reservation {
        Reservation::fixed(role.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_refinement_stays_within_the_role_below() {
        let stack = Reservations::new().push(fixed("a")).unwrap();
        let refined = stack
            .push(dynamic("a/b"))
            .unwrap()
            .push(dynamic("a/b"))
            .unwrap();
        assert_eq!(refined.role().unwrap().as_str(), "a/b");
        assert_eq!(refined.as_slice().len(), 3);
        for role in ["b", "ab", "a"] {
            assert!(
                matches!(
                    refined.push(dynamic(role)),
                    Err(ReservationError::NotARefinement { .. })
                ),
                "{role}"
            );
        }
        assert_eq!(
            refined.push(fixed("a/b")),
            Err(ReservationError::StaticOnTop)
        );
    }

    #[test]
    fn popping_undoes_pushing_and_stops_at_the_configuration() {
        let bottom = Reservations::new().push(fixed("a")).unwrap();
        assert_eq!(
            bottom.push(dynamic("a/b")).unwrap().pop(),
            Ok(bottom.clone())
        );
        assert_eq!(bottom.pop(), Err(ReservationError::StaticStays));
        assert_eq!(
            Reservations::new().pop(),
            Err(ReservationError::NotReserved)
        );
        let only = Reservations::new().push(dynamic("a")).unwrap();
        assert_eq!(only.pop(), Ok(Reservations::new()));
    }

    #[test]
    fn a_stack_has_a_depth_limit() {
        let full = Reservations::from_stack(vec![dynamic("a"); Reservations::DEPTH_MAX]).unwrap();
        assert_eq!(full.push(dynamic("a")), Err(ReservationError::TooDeep));
        let json = serde_json::to_string(&vec![dynamic("a"); Reservations::DEPTH_MAX + 1]).unwrap();
        assert!(serde_json::from_str::<Reservations>(&json).is_err());
    }

    #[test]
    fn reservations_without_sense_cannot_be_built_or_read() {
        assert_eq!(
            Reservation::fixed(RoleName::any()),
            Err(ReservationError::AnyRole)
        );
        for principal in ["", "a\n", &"x".repeat(256)] {
            assert_eq!(
                Reservation::dynamic("a".parse().unwrap(), Some(principal.into()), Labels::new()),
                Err(ReservationError::BadPrincipal)
            );
        }
        for json in [
            r#"{"type":"static","role":"a","principal":"bob"}"#,
            r#"{"type":"static","role":"*"}"#,
            r#"{"type":"static","role":"a b"}"#,
            r#"{"type":"static"}"#,
            r#"{"type":"static","role":"a","rôle":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Reservation>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_reservation_serves_its_role_and_the_roles_below_it() {
        let role = |text: &str| text.parse::<RoleName>().unwrap();
        let reserved = Reservations::new().push(fixed("a/b")).unwrap();
        assert!(reserved.allow(&role("a/b")) && reserved.allow(&role("a/b/c")));
        assert!(!reserved.allow(&role("a")) && !reserved.allow(&role("a/bc")));
        assert!(!reserved.allow(&RoleName::any()));
        assert!(Reservations::new().allow(&RoleName::any()));
    }
}
