//! A slave as the allocator sees it.

use std::borrow::Cow;
use std::sync::Arc;

use meros_proto::resources::{Resource, ResourceName, Resources, SumTooLarge};

use super::amounts::{Charge, Names};
use super::constraints::Profile;

/// Why a whole slave is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// It is not connected.
    Away,
    /// An operator has taken it out: deactivated, draining, or down for maintenance.
    ByOperator,
}

/// What kind of sum is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    /// All is unreserved, not revocable and not shared: there is nothing that somebody may not have.
    Plain,
    Mixed,
}

impl Kind {
    fn of(resources: &Resources) -> Self {
        let is_plain = |it: &Resource| it.is_unreserved() && !it.is_revocable() && !it.is_shared();
        match resources.iter().all(is_plain) {
            _ if resources.is_empty() => Self::Nothing,
            true => Self::Plain,
            false => Self::Mixed,
        }
    }
}

/// What a visit needs first: the sums themselves are looked at only if they are not plain.
#[derive(Debug)]
pub(super) struct Slave {
    pub(super) total: Arc<Resources>,
    /// An offer of all of it, a decline and its filter have the same sum: none is ever copied.
    pub(super) free: Arc<Resources>,
    /// What is free, in amounts.
    pub(super) charge: Charge,
    pub(super) kind: Kind,
    pub(super) is_here: bool,
    pub(super) is_excluded: bool,
    pub(super) has_gpus: bool,
    pub(super) profile: Profile,
}

impl Slave {
    pub(super) fn new(
        total: Arc<Resources>,
        profile: Profile,
        is_excluded: bool,
        names: &Names,
    ) -> Self {
        Self {
            charge: Charge::of(&total, names),
            kind: Kind::of(&total),
            has_gpus: !total.scalar(&ResourceName::GPUS).is_zero(),
            free: total.clone(),
            total,
            is_here: true,
            is_excluded,
            profile,
        }
    }

    pub(super) fn exclusion(&self) -> Option<Exclusion> {
        match (self.is_here, self.is_excluded) {
            (false, _) => Some(Exclusion::Away),
            (true, true) => Some(Exclusion::ByOperator),
            (true, false) => None,
        }
    }

    /// Whether what is remembered of what is free is so.
    pub(super) fn is_consistent(&self, names: &Names) -> bool {
        self.charge == Charge::of(&self.free, names) && self.kind == Kind::of(&self.free)
    }

    pub(super) fn has_free(&self) -> bool {
        self.kind != Kind::Nothing
    }

    /// Whether there is nothing to forbid in what is free.
    pub(super) fn is_plain(&self) -> bool {
        self.kind == Kind::Plain
    }

    /// Whether anybody could have something of what is free: shared volumes alone are no use.
    pub(super) fn has_exclusive(&self) -> bool {
        match self.kind {
            Kind::Nothing => false,
            Kind::Plain => true,
            Kind::Mixed => self.free.iter().any(|it| !it.is_shared()),
        }
    }

    /// Changes what is free.
    pub(super) fn change_free<E>(
        &mut self,
        names: &Names,
        change: impl FnOnce(&mut Resources) -> Result<(), E>,
    ) -> Result<(), E> {
        let free = Arc::make_mut(&mut self.free);
        change(free)?;
        self.charge = Charge::of(free, names);
        self.kind = Kind::of(free);
        Ok(())
    }

    /// More is free, which is that in amounts.
    pub(super) fn grow(
        &mut self,
        more: &Resources,
        charge: Charge,
        names: &Names,
    ) -> Result<(), SumTooLarge> {
        if self.has_free() {
            return self.change_free(names, |free| free.checked_add_assign(more));
        }
        self.charge = charge;
        self.kind = Kind::of(more);
        self.free = Arc::new(more.clone());
        Ok(())
    }

    /// Gives back what was taken.
    pub(super) fn put_back(&mut self, resources: Arc<Resources>, charge: &Charge, names: &Names) {
        if !self.has_free() && !resources.iter().any(|it| it.is_shared()) {
            self.charge = charge.clone();
            self.kind = Kind::of(&resources);
            self.free = resources;
            return;
        }
        let exclusive = exclusive(&resources);
        self.change_free(names, |free| free.checked_add_assign(&exclusive))
            .expect("what was taken from free fits back into it (M1)");
    }

    /// Takes all that is free, except that shared volumes stay; and what that is in amounts.
    pub(super) fn take_all(
        &mut self,
        nothing: &Arc<Resources>,
        names: &Names,
    ) -> (Arc<Resources>, Charge) {
        let charge = std::mem::take(&mut self.charge);
        if self.is_plain() || !self.free.iter().any(|it| it.is_shared()) {
            self.kind = Kind::Nothing;
            let all = std::mem::replace(&mut self.free, nothing.clone());
            return (all, charge);
        }
        let shared = Arc::new(self.free.filter(|it| it.is_shared()));
        self.charge = Charge::of(&shared, names);
        self.kind = Kind::of(&shared);
        (std::mem::replace(&mut self.free, shared), charge)
    }

    /// Takes a part, except that shared volumes stay; and what that is in amounts.
    pub(super) fn take_part(
        &mut self,
        part: Arc<Resources>,
        names: &Names,
    ) -> (Arc<Resources>, Charge) {
        let less = exclusive(&part);
        self.change_free(names, |free| free.checked_sub_assign(&less))
            .expect("a part of what is free");
        let charge = Charge::of(&part, names);
        (part, charge)
    }
}

/// All but shared volumes, which nobody has to himself.
pub(super) fn exclusive(resources: &Resources) -> Cow<'_, Resources> {
    match resources.iter().any(|it| it.is_shared()) {
        true => Cow::Owned(resources.filter(|it| !it.is_shared())),
        false => Cow::Borrowed(resources),
    }
}
