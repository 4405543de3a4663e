//! A framework as the allocator sees it, apart from what it holds.

use meros_proto::ids::FrameworkId;
use meros_proto::role::RoleName;

use super::tree::LeafSlot;
use super::{Allocator, Constraints, Minimum};

/// What a framework can do with; the rest is not offered to it (semantics E2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Slaves with graphics processors, which others had better leave alone.
    pub gpus: bool,
    /// Resources that may be taken away at any time.
    pub revocable: bool,
    /// Volumes that others use as well.
    pub shared: bool,
    /// Reservations on top of reservations.
    pub refined: bool,
}

impl Default for Abilities {
    /// Everything that needs no care: gpus and refined reservations.
    fn default() -> Self {
        Self {
            gpus: true,
            revocable: false,
            shared: false,
            refined: true,
        }
    }
}

/// What a framework wants in one role.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The least that is worth an offer, in place of the master's.
    pub minimum: Option<Minimum>,
    /// The slaves that will do.
    pub constraints: Option<Constraints>,
}

#[derive(Debug)]
pub(super) struct Framework {
    pub(super) abilities: Abilities,
    /// Offers that it has not answered.
    pub(super) outstanding: u32,
    /// The most of them, while others could use what it holds.
    pub(super) outstanding_max: u32,
}

static UNKNOWN: Framework = Framework {
    abilities: Abilities {
        gpus: true,
        revocable: false,
        shared: false,
        refined: true,
    },
    outstanding: 0,
    outstanding_max: u32::MAX,
};

impl Framework {
    pub(super) fn is_at_its_limit(&self) -> bool {
        self.outstanding >= self.outstanding_max
    }

    /// How many offers it must answer before it gets another.
    pub(super) fn above_its_limit(&self) -> u32 {
        (self.outstanding + 1).saturating_sub(self.outstanding_max)
    }
}

impl Allocator {
    pub(super) fn framework(&self, framework: FrameworkId) -> &Framework {
        self.frameworks.get(framework.0).unwrap_or(&UNKNOWN)
    }

    /// What a framework wants in the role of one of its leaves.
    pub(super) fn wishes_of(&self, leaf: LeafSlot) -> Option<&Wishes> {
        self.wishes.get(leaf)
    }

    pub(super) fn framework_mut(&mut self, framework: FrameworkId) -> &mut Framework {
        if self.frameworks.get(framework.0).is_none() {
            let row = Framework {
                abilities: Abilities::default(),
                outstanding: 0,
                outstanding_max: u32::MAX,
            };
            self.frameworks.insert(framework.0, row);
        }
        self.frameworks
            .get_mut(framework.0)
            .expect("inserted above")
    }

    /// What a framework can do with.
    pub fn set_abilities(&mut self, framework: FrameworkId, abilities: Abilities) {
        let row = self.framework_mut(framework);
        if std::mem::replace(&mut row.abilities, abilities) != abilities {
            self.touch_all();
        }
    }

    /// What a framework wants in a role; `None` for nothing in particular.
    pub fn set_wishes(&mut self, framework: FrameworkId, role: &RoleName, wishes: Option<Wishes>) {
        let leaf = self.tree.make_leaf(framework, role);
        match wishes {
            Some(wishes) => {
                self.wishes.insert(leaf, wishes);
            }
            None => {
                self.wishes.remove(leaf);
            }
        }
        self.forget_leaf(leaf);
        self.touch_all();
    }

    /// The most offers that a framework may have unanswered while others could use them;
    /// `u32::MAX` for no limit.
    pub fn set_outstanding_max(&mut self, framework: FrameworkId, most: u32) {
        let row = self.framework_mut(framework);
        let was_at_its_limit = row.is_at_its_limit();
        row.outstanding_max = most;
        if was_at_its_limit {
            self.touch_all();
        }
    }

    /// One of its offers has been answered or taken back.
    pub fn offer_ended(&mut self, framework: FrameworkId) {
        let row = self.framework_mut(framework);
        let was_at_its_limit = row.is_at_its_limit();
        row.outstanding = row.outstanding.saturating_sub(1);
        if was_at_its_limit {
            self.touch_all();
        }
    }

    /// A framework is gone, with all its wishes.
    pub fn remove_framework(&mut self, framework: FrameworkId) {
        self.frameworks.remove(framework.0);
        let leaves = self.tree.leaves_of(framework).to_vec();
        for leaf in leaves {
            self.filters.clear_leaf(framework, leaf);
            self.wishes.remove(leaf);
            self.forget_leaf(leaf);
        }
    }
}
