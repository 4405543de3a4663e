//! Decline filters: what a framework does not want to be offered again for a while (semantics E3).
//!
//! Frameworks that decline the same on a slave share a *shape*: the refused resources, and the set
//! of leaves that refused them. So a visit of the slave compares resources once per shape and
//! then passes over leaves a word at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::time::Timestamp;
use smallvec::SmallVec;

use super::bits::Bits;
use super::tree::LeafSlot;
use super::wheel::Wheel;

/// The most filters of one framework. A decline beyond it hides nothing, and is counted.
pub const FILTERS_PER_FRAMEWORK_MAX: usize = 200_000;
/// The most filters for one framework, role and slave; the one that ends first makes room.
pub const FILTERS_PER_KEY_MAX: usize = 8;
/// Ends of filters that are gone are forgotten when they are more than the live ones and this.
const STALE_ENDS_MAX: usize = 1_024;

/// Resources of one slave, and who refused them until when.
#[derive(Debug)]
struct Shape {
    refused: Arc<Resources>,
    leaves: Bits,
    ends: BTreeMap<LeafSlot, Timestamp>,
}

impl Shape {
    fn hides(&self, offered: &Resources) -> bool {
        std::ptr::eq(&*self.refused, offered) || self.refused.contains(offered)
    }
}

#[derive(Debug, Default)]
struct OfLeaf {
    slaves: Bits,
    len: usize,
}

/// All filters.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// By slave; one shape nearly always.
    slaves: Vec<SmallVec<[Shape; 1]>>,
    leaves: Vec<OfLeaf>,
    frameworks: BTreeMap<FrameworkId, usize>,
    /// Filters by their end. One that is gone before stays here: when its time comes, whatever of
    /// its leaf on its slave has ended goes, and that is right whoever the leaf is by then.
    ends: Wheel<(LeafSlot, u32)>,
    live: usize,
    /// How many have made room.
    pub(super) replaced: u64,
}

impl Filters {
    /// Hides `refused` and less; false if the framework has too many filters.
    pub(super) fn add(
        &mut self,
        (framework, leaf): (FrameworkId, LeafSlot),
        slave: SlaveId,
        refused: &Arc<Resources>,
        until: Timestamp,
    ) -> bool {
        if self
            .until(leaf, slave, refused)
            .is_some_and(|end| end >= until)
        {
            return true;
        }
        if self.len_of(framework) >= FILTERS_PER_FRAMEWORK_MAX {
            return false;
        }
        if self.has(leaf, slave) {
            // What the new one hides for longer needs no filter of its own.
            self.remove_if(framework, leaf, slave, |old, end| {
                end <= until && refused.contains(old)
            });
            self.make_room(framework, leaf, slave);
        }
        let at = slave.0 as usize;
        if at >= self.slaves.len() {
            self.slaves.resize_with(at + 1, SmallVec::new);
        }
        let shapes = &mut self.slaves[at];
        // Nearly always it is the very sum that was offered and refused before.
        let is_same =
            |shape: &Shape| Arc::ptr_eq(&shape.refused, refused) || shape.refused == *refused;
        let shape = match shapes.iter().position(is_same) {
            Some(found) => &mut shapes[found],
            None => {
                shapes.push(Shape {
                    refused: refused.clone(),
                    leaves: Bits::default(),
                    ends: BTreeMap::new(),
                });
                shapes.last_mut().expect("just pushed")
            }
        };
        shape.leaves.insert(leaf);
        shape.ends.insert(leaf, until);
        let of_leaf = self.of_leaf(leaf);
        of_leaf.slaves.insert(slave.0);
        of_leaf.len += 1;
        *self.frameworks.entry(framework).or_default() += 1;
        self.live += 1;
        self.ends.add(until, (leaf, slave.0));
        self.forget_stale_ends();
        true
    }

    fn of_leaf(&mut self, leaf: LeafSlot) -> &mut OfLeaf {
        let at = leaf as usize;
        if at >= self.leaves.len() {
            self.leaves.resize_with(at + 1, OfLeaf::default);
        }
        &mut self.leaves[at]
    }

    /// Takes out the one that ends first if there are as many as there may be.
    fn make_room(&mut self, framework: FrameworkId, leaf: LeafSlot, slave: SlaveId) {
        let ends = self
            .shapes(slave)
            .iter()
            .filter_map(|shape| shape.ends.get(&leaf));
        if ends.clone().count() >= FILTERS_PER_KEY_MAX
            && let Some(first) = ends.min().copied()
        {
            self.replaced += 1;
            let mut is_done = false;
            self.remove_if(framework, leaf, slave, |_, end| {
                let goes = !is_done && end == first;
                is_done |= goes;
                goes
            });
        }
    }

    /// Whether a leaf has any filter on a slave.
    pub(super) fn has(&self, leaf: LeafSlot, slave: SlaveId) -> bool {
        self.leaves
            .get(leaf as usize)
            .is_some_and(|of_leaf| of_leaf.slaves.contains(slave.0))
    }

    fn shapes(&self, slave: SlaveId) -> &[Shape] {
        self.slaves
            .get(slave.0 as usize)
            .map_or(&[], SmallVec::as_slice)
    }

    /// Until when an offer of `offered` to a leaf is hidden; none if it is not.
    pub(super) fn until(
        &self,
        leaf: LeafSlot,
        slave: SlaveId,
        offered: &Resources,
    ) -> Option<Timestamp> {
        let hiding = self
            .shapes(slave)
            .iter()
            .filter(|shape| shape.leaves.contains(leaf) && shape.hides(offered));
        hiding
            .filter_map(|shape| shape.ends.get(&leaf))
            .max()
            .copied()
    }

    /// What a leaf has refused that hides an offer of `offered`.
    pub(super) fn hiding(
        &self,
        leaf: LeafSlot,
        slave: SlaveId,
        offered: &Resources,
    ) -> Option<&Resources> {
        let hides = |shape: &&Shape| shape.leaves.contains(leaf) && shape.hides(offered);
        let found = self.shapes(slave).iter().find(hides);
        found.map(|shape| &*shape.refused)
    }

    /// The leaves that want no part of `free`, so that no visit asks them; none if there are none.
    pub(super) fn hidden<'a>(
        &'a self,
        slave: SlaveId,
        free: &Resources,
        scratch: &'a mut Bits,
    ) -> Option<&'a Bits> {
        let mut hiding = self.shapes(slave).iter().filter(|shape| shape.hides(free));
        let first = hiding.next()?;
        let Some(second) = hiding.next() else {
            return Some(&first.leaves);
        };
        scratch.clear();
        for shape in [first, second].into_iter().chain(hiding) {
            scratch.insert_all(&shape.leaves);
        }
        Some(scratch)
    }

    /// How many filters a framework has.
    pub(super) fn len_of(&self, framework: FrameworkId) -> usize {
        self.frameworks.get(&framework).copied().unwrap_or(0)
    }

    /// Whether a leaf has no filter.
    pub(super) fn is_free_of(&self, leaf: LeafSlot) -> bool {
        self.leaves
            .get(leaf as usize)
            .is_none_or(|of_leaf| of_leaf.len == 0)
    }

    /// Takes out those of a leaf on a slave for which `goes` holds.
    fn remove_if(
        &mut self,
        framework: FrameworkId,
        leaf: LeafSlot,
        slave: SlaveId,
        mut goes: impl FnMut(&Resources, Timestamp) -> bool,
    ) {
        let Some(shapes) = self.slaves.get_mut(slave.0 as usize) else {
            return;
        };
        let (mut removed, mut left) = (0, 0);
        shapes.retain_mut(|shape| {
            let Some(end) = shape.ends.get(&leaf) else {
                return true;
            };
            if goes(&shape.refused, *end) {
                shape.ends.remove(&leaf);
                shape.leaves.remove(leaf);
                removed += 1;
            } else {
                left += 1;
            }
            !shape.ends.is_empty()
        });
        self.live -= removed;
        let of_leaf = self.of_leaf(leaf);
        of_leaf.len -= removed;
        if left == 0 {
            of_leaf.slaves.remove(slave.0);
        }
        if let Some(len) = self.frameworks.get_mut(&framework) {
            *len -= removed;
            if *len == 0 {
                self.frameworks.remove(&framework);
            }
        }
    }

    /// Ends the filters that are due; `framework_of` knows whose a leaf is, `touched` hears of
    /// each slave and leaf that had one.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        framework_of: impl Fn(LeafSlot) -> Option<FrameworkId>,
        mut touched: impl FnMut(LeafSlot, SlaveId),
    ) {
        let mut due = Vec::new();
        self.ends.take_due(now, |ended| due.push(ended));
        for (leaf, slave) in due {
            let slave = SlaveId(slave);
            if let Some(framework) = framework_of(leaf)
                && self.has(leaf, slave)
            {
                self.remove_if(framework, leaf, slave, |_, end| end <= now);
                touched(leaf, slave);
            }
        }
        self.forget_stale_ends();
    }

    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.ends.first()
    }

    /// Drops those of a leaf.
    pub(super) fn clear_leaf(&mut self, framework: FrameworkId, leaf: LeafSlot) {
        if self.is_free_of(leaf) {
            return;
        }
        let slaves = std::mem::take(&mut self.of_leaf(leaf).slaves);
        for slave in slaves.iter() {
            self.remove_if(framework, leaf, SlaveId(slave), |_, _| true);
        }
        self.forget_stale_ends();
    }

    /// Drops those for a slave, because it is gone or is another now.
    pub(super) fn clear_slave(
        &mut self,
        slave: SlaveId,
        framework_of: impl Fn(LeafSlot) -> Option<FrameworkId>,
    ) -> Vec<LeafSlot> {
        let Some(shapes) = self.slaves.get_mut(slave.0 as usize) else {
            return Vec::new();
        };
        let mut leaves = Vec::new();
        for shape in std::mem::take(shapes) {
            for leaf in shape.ends.into_keys() {
                self.live -= 1;
                let of_leaf = self.of_leaf(leaf);
                of_leaf.len -= 1;
                of_leaf.slaves.remove(slave.0);
                if let Some(framework) = framework_of(leaf)
                    && let Some(len) = self.frameworks.get_mut(&framework)
                {
                    *len -= 1;
                    if *len == 0 {
                        self.frameworks.remove(&framework);
                    }
                }
                leaves.push(leaf);
            }
        }
        self.forget_stale_ends();
        leaves
    }

    fn forget_stale_ends(&mut self) {
        let listed = self.ends.len();
        let are_few = listed <= 2 * self.live + STALE_ENDS_MAX;
        if listed == 0 || (are_few && self.live > 0) {
            return;
        }
        self.ends.clear();
        for (slave, shapes) in (0u32..).zip(&self.slaves) {
            for shape in shapes {
                for (leaf, end) in &shape.ends {
                    self.ends.add(*end, (*leaf, slave));
                }
            }
        }
    }

    /// Whether counts and indexes agree with the filters.
    pub(super) fn is_consistent(
        &self,
        framework_of: impl Fn(LeafSlot) -> Option<FrameworkId>,
    ) -> bool {
        let mut frameworks: BTreeMap<FrameworkId, usize> = BTreeMap::new();
        let mut live = 0;
        let ends: BTreeSet<_> = self.ends.iter().collect();
        for (slave, shapes) in (0u32..).zip(&self.slaves) {
            for shape in shapes {
                let is_listed = |(leaf, end): (&LeafSlot, &Timestamp)| {
                    let is_listed = ends.contains(&(*end, (*leaf, slave)));
                    is_listed && shape.leaves.contains(*leaf) && self.has(*leaf, SlaveId(slave))
                };
                if shape.ends.is_empty()
                    || shape.leaves.len() != shape.ends.len()
                    || !shape.ends.iter().all(is_listed)
                {
                    return false;
                }
                live += shape.ends.len();
                for leaf in shape.ends.keys() {
                    let Some(framework) = framework_of(*leaf) else {
                        return false;
                    };
                    *frameworks.entry(framework).or_default() += 1;
                }
            }
        }
        let of_leaves: usize = self.leaves.iter().map(|it| it.len).sum();
        (live, of_leaves) == (self.live, self.live)
            && frameworks == self.frameworks
            && self
                .leaves
                .iter()
                .all(|it| (it.len == 0) == it.slaves.is_empty())
    }
}
