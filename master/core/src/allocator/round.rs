//! A round: who gets what is free on the slaves where something has changed (semantics E1).

use meros_proto::ids::SlaveId;
use meros_proto::resources::Resources;

use super::bits::Bits;
use super::judge::{Case, First, Portion, Stage};
use super::order::visiting_place;
use super::slaves::Slave;
use super::tree::{LeafSlot, NodeSlot, ROOT};
use super::{Allocator, Grant};

impl Allocator {
    /// One round: grants what is free on the slaves where something has changed, and adds it to
    /// `grants`.
    pub fn plan(&mut self, grants: &mut Vec<Grant>) {
        self.rounds += 1;
        if !self.is_dirty() {
            return;
        }
        if self.tree.order.refresh() {
            self.tree.rebuild();
        }
        loop {
            let before = grants.len();
            self.pass(grants);
            // What a grant does for one guarantee may leave more to those held back for it.
            if grants.len() == before || self.held_back.is_empty() {
                return;
            }
            self.touch_held_back(true);
        }
    }

    /// Visits the slaves where something has changed.
    fn pass(&mut self, grants: &mut Vec<Grant>) {
        let mut visits = std::mem::take(&mut self.visits);
        self.dirty.drain_into(&mut visits);
        if self.tree.is_everybody_full() {
            let (mixed, held_back) = (&self.mixed, &mut self.held_back);
            visits.retain(|slave| {
                let is_mixed = mixed.contains(*slave);
                if !is_mixed {
                    held_back.insert(*slave);
                }
                is_mixed
            });
        }
        if let Some(seed) = self.shuffle
            && visits.len() > 1
        {
            let mut places = std::mem::take(&mut self.places);
            let place = |slave: &u32| (visiting_place(seed, self.rounds, *slave), *slave);
            places.extend(visits.iter().map(place));
            places.sort_unstable();
            visits.clear();
            visits.extend(places.drain(..).map(|(_, slave)| slave));
            self.places = places;
        }
        for slave in visits.drain(..) {
            self.visit(SlaveId(slave), grants);
        }
        // The room is kept.
        self.visits = visits;
    }

    /// Grants what is free on a slave.
    fn visit(&mut self, slave: SlaveId, grants: &mut Vec<Grant>) {
        let granted = grants.len();
        while let Some((leaf, portion)) = self.choose(slave) {
            let row = self.slaves.get_mut(slave.0).expect("chosen on it");
            let (resources, charge) = match portion {
                Portion::All => row.take_all(&self.nothing, &self.names),
                Portion::Part(part) => row.take_part(part, &self.names),
            };
            let is_done = !row.has_exclusive();
            self.available.sub_all(&charge.plain);
            self.tree.charge(leaf, &charge, true);
            let (framework, node) = {
                let leaf = self.tree.leaf(leaf);
                (leaf.framework, leaf.node)
            };
            self.framework_mut(framework).outstanding += 1;
            grants.push(Grant {
                framework,
                role: self.tree.node(node).name.clone(),
                slave,
                resources,
            });
            if is_done {
                break;
            }
        }
        if grants.len() > granted {
            self.note_free(slave);
        }
    }

    /// The first in turn to whom something of a slave can be offered, and what.
    fn choose(&mut self, slave: SlaveId) -> Option<(LeafSlot, Portion)> {
        let mut scratch = std::mem::take(&mut self.hidden);
        let mut candidates = std::mem::take(&mut self.candidates);
        let chosen = self.slaves.get(slave.0).and_then(|row| {
            if row.exclusion().is_some() || !row.has_free() {
                return None;
            }
            let hidden = self.filters.hidden(slave, &row.free, &mut scratch);
            self.choose_unhidden((slave, row), hidden, &mut candidates)
        });
        self.hidden = scratch;
        self.candidates = candidates;
        if chosen.is_none() && self.tree.has_quota() && self.with_free.contains(slave.0) {
            self.held_back.insert(slave.0);
        }
        chosen
    }

    fn choose_unhidden(
        &self,
        (slave, row): (SlaveId, &Slave),
        hidden: Option<&Bits>,
        candidates: &mut Vec<LeafSlot>,
    ) -> Option<(LeafSlot, Portion)> {
        let mut ask = |leaf: LeafSlot| {
            if hidden.is_some_and(|hidden| hidden.contains(leaf)) {
                return None;
            }
            let case = Case {
                slave,
                row,
                candidate: self.candidate(leaf),
                stage: Stage::Share,
                relief: None,
            };
            Some((leaf, self.judge(case, &mut First).ok()?))
        };
        let (active, hidden_len) = (self.active.len(), hidden.map_or(0, Bits::len));
        // To put a few into order is cheaper than to walk past all others. That there are many
        // needs no counting.
        let are_few = |wanted: usize| wanted * wanted * 2 < active;
        let mut wanted = active.saturating_sub(hidden_len);
        if let Some(hidden) = hidden
            && are_few(wanted)
        {
            wanted = self.active.count_without(hidden);
        }
        if wanted == 0 {
            return None;
        }
        if let Some(found) = self.choose_guaranteed((slave, row), hidden) {
            return Some(found);
        }
        if let Some(hidden) = hidden
            && are_few(wanted)
        {
            candidates.clear();
            candidates.extend(self.active.iter_without(hidden));
            candidates.sort_unstable_by(|a, b| self.tree.cmp(*a, *b));
            return candidates.iter().find_map(|leaf| ask(*leaf));
        }
        // Roles that are full can have what is reserved for them, and what is revocable.
        if row.is_plain() || row.free.iter().any(|it| it.is_unreserved()) {
            return self.tree.find(ROOT, !row.is_plain(), &mut ask);
        }
        let targets = self.reserved_roles(&row.free);
        self.tree.find_in(ROOT, &targets, &mut ask)
    }

    /// The first role in turn whose guarantee is not met and can be served from a slave.
    fn choose_guaranteed(
        &self,
        (slave, row): (SlaveId, &Slave),
        hidden: Option<&Bits>,
    ) -> Option<(LeafSlot, Portion)> {
        self.tree.unmet().find_map(|node| {
            self.tree.find(node, true, &mut |leaf| {
                if hidden.is_some_and(|hidden| hidden.contains(leaf)) {
                    return None;
                }
                let case = Case {
                    slave,
                    row,
                    candidate: self.candidate(leaf),
                    stage: Stage::Guarantee(node),
                    relief: None,
                };
                Some((leaf, self.judge(case, &mut First).ok()?))
            })
        })
    }

    /// The roles that parts of a sum are reserved for.
    fn reserved_roles(&self, free: &Resources) -> Vec<NodeSlot> {
        let roles = free.iter().filter_map(|it| it.reservations().role());
        let mut nodes: Vec<NodeSlot> = roles.filter_map(|role| self.tree.find_node(role)).collect();
        nodes.dedup();
        nodes
    }
}
