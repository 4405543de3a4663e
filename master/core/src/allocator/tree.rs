//! The tree of roles, and the frameworks in them: what each holds, and who is next.
//!
//! A node is a role; its leaves are the frameworks in exactly that role. Among siblings compete the
//! subroles of a node, and its own frameworks together as one more with weight 1.
//!
//! Invariants: M6 what a leaf, a node and a quota count is the sum of what was charged and
//! reserved. An order has exactly the nodes with an active leaf below them, the active leaves, and
//! the guarantees not met of such nodes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use meros_proto::ids::FrameworkId;
use meros_proto::minimum::Minimum;
use meros_proto::role::RoleName;
use smallvec::SmallVec;

use super::amounts::{Amounts, Charge};
use super::order::{Key, Order, Standing};
use super::ranking::Ranking;
use crate::numbered::Numbered;

pub(super) type LeafSlot = u32;
pub(super) type NodeSlot = u32;

/// Above all roles; itself no role.
pub(super) const ROOT: NodeSlot = 0;

/// A framework in a role.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) framework: FrameworkId,
    pub(super) node: NodeSlot,
    pub(super) is_active: bool,
    standing: Standing,
    key: Key,
}

impl Leaf {
    pub(super) fn held(&self) -> &Amounts {
        &self.standing.held
    }
}

/// What a role is guaranteed and limited to, by the numbers of names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct QuotaRow {
    pub(super) guarantees: Vec<(usize, i64)>,
    pub(super) limits: Vec<(usize, i64)>,
}

/// A role.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: RoleName,
    pub(super) depth: u32,
    pub(super) parent: NodeSlot,
    /// Nodes directly below, and leaves: it stays while there are any.
    children: u32,
    leaves: u32,
    /// Active leaves in it and below.
    active: u32,
    standing: Standing,
    weight: f64,
    key: Key,
    /// Its subroles with active leaves.
    order: Ranking<(Key, RoleName, NodeSlot)>,
    /// Its own frameworks, as one competitor among its subroles, and among themselves.
    own: Standing,
    own_key: Key,
    own_order: Ranking<(Key, FrameworkId, LeafSlot)>,
    pub(super) quota: Option<Box<QuotaRow>>,
    /// What is worth an offer in it and below, in place of what its parent or the master says.
    minimum: Option<Box<Minimum>>,
    /// What its leaves and those below hold that is not reserved for it or below it.
    taken: Amounts,
    /// What is reserved for it and below on all slaves, held or not.
    reserved: Amounts,
    /// What is still due to it or to roles below it, and the latter alone.
    required: Amounts,
    required_below: Amounts,
    is_unmet: bool,
}

impl Node {
    fn new(name: RoleName, depth: u32, parent: NodeSlot, weight: f64) -> Self {
        Self {
            name,
            depth,
            parent,
            children: 0,
            leaves: 0,
            active: 0,
            standing: Standing::default(),
            weight,
            key: Key::default(),
            order: Ranking::default(),
            own: Standing::default(),
            own_key: Key::default(),
            own_order: Ranking::default(),
            quota: None,
            minimum: None,
            taken: Amounts::default(),
            reserved: Amounts::default(),
            required: Amounts::default(),
            required_below: Amounts::default(),
            is_unmet: false,
        }
    }

    /// What counts against its quota (semantics E8): what is held, and all reservations.
    pub(super) fn consumed(&self, number: usize) -> i64 {
        self.taken
            .get(number)
            .saturating_add(self.reserved.get(number))
    }

    /// Its guarantees that are not met: name and what is missing.
    pub(super) fn unmet(&self) -> impl Iterator<Item = (usize, i64)> {
        let guarantees = self.quota.as_deref().map_or(&[][..], |it| &it.guarantees);
        guarantees.iter().filter_map(|(number, guarantee)| {
            let missing = guarantee.saturating_sub(self.consumed(*number));
            (missing > 0).then_some((*number, missing))
        })
    }

    /// What its limits leave: name and amount, below zero where it has more than that.
    pub(super) fn left(&self) -> impl Iterator<Item = (usize, i64)> {
        let limits = self.quota.as_deref().map_or(&[][..], |it| &it.limits);
        limits
            .iter()
            .map(|(number, limit)| (*number, limit.saturating_sub(self.consumed(*number))))
    }

    /// Whether it has more than a limit allows.
    pub(super) fn is_above_limit(&self) -> bool {
        let limits = self.quota.as_deref().map_or(&[][..], |it| &it.limits);
        let is_above = |(number, limit): &(usize, i64)| self.consumed(*number) > *limit;
        limits.iter().any(is_above)
    }

    /// Whether its limits leave less than the least that is worth an offer.
    pub(super) fn is_full(&self, minimum: &[Amounts]) -> bool {
        self.quota.is_some() && is_full(|| self.left(), minimum)
    }
}

/// Whether what limits leave is less than the least that is worth an offer.
pub(super) fn is_full<I: Iterator<Item = (usize, i64)>>(
    left: impl Fn() -> I,
    minimum: &[Amounts],
) -> bool {
    let is_out_of_reach =
        |least: &Amounts| left().any(|(number, left)| left.max(0) < least.get(number));
    !minimum.is_empty() && minimum.iter().all(is_out_of_reach)
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) order: Order,
    nodes: Vec<Option<Box<Node>>>,
    free_nodes: Vec<NodeSlot>,
    by_name: BTreeMap<RoleName, NodeSlot>,
    leaves: Vec<Option<Box<Leaf>>>,
    free_leaves: Vec<LeafSlot>,
    by_framework: Numbered<Vec<LeafSlot>>,
    weights: BTreeMap<RoleName, f64>,
    /// Roles with active leaves whose guarantees are not met.
    unmet: Ranking<(Key, RoleName, NodeSlot)>,
    quotas: u32,
    minimums: u32,
    /// The least amounts that are worth an offer, any one of them.
    pub(super) minimum: Vec<Amounts>,
}

impl Tree {
    pub(super) fn new(order: Order, minimum: Vec<Amounts>) -> Self {
        let root = Node::new(RoleName::any(), 0, ROOT, 1.0);
        Self {
            order,
            nodes: vec![Some(Box::new(root))],
            free_nodes: Vec::new(),
            by_name: BTreeMap::new(),
            leaves: Vec::new(),
            free_leaves: Vec::new(),
            by_framework: Numbered::default(),
            weights: BTreeMap::new(),
            unmet: Ranking::default(),
            quotas: 0,
            minimums: 0,
            minimum,
        }
    }

    pub(super) fn node(&self, slot: NodeSlot) -> &Node {
        self.nodes[slot as usize]
            .as_deref()
            .expect("slots in use only")
    }

    fn node_mut(&mut self, slot: NodeSlot) -> &mut Node {
        self.nodes[slot as usize]
            .as_deref_mut()
            .expect("slots in use only")
    }

    pub(super) fn leaf(&self, slot: LeafSlot) -> &Leaf {
        self.leaves[slot as usize]
            .as_deref()
            .expect("slots in use only")
    }

    fn leaf_mut(&mut self, slot: LeafSlot) -> &mut Leaf {
        self.leaves[slot as usize]
            .as_deref_mut()
            .expect("slots in use only")
    }

    /// Whose a leaf is, if it is in use.
    pub(super) fn framework_of(&self, slot: LeafSlot) -> Option<FrameworkId> {
        Some(self.leaves.get(slot as usize)?.as_deref()?.framework)
    }

    /// How many leaves are active.
    pub(super) fn active(&self) -> usize {
        self.node(ROOT).active as usize
    }

    pub(super) fn has_quota(&self) -> bool {
        self.quotas > 0
    }

    /// Whether no role that wants something can have anything that is not reserved: those that are
    /// full come last.
    pub(super) fn is_everybody_full(&self) -> bool {
        let first = self.node(ROOT).order.first();
        self.unmet.is_empty() && first.is_some_and(|(key, ..)| key.is_full())
    }

    /// Whether so much is worth an offer.
    pub(super) fn is_worth(&self, amounts: &Amounts) -> bool {
        self.minimum.is_empty() || self.minimum.iter().any(|least| amounts.covers(least))
    }

    /// Whether the role of a leaf or one above it has a quota.
    pub(super) fn has_quota_above(&self, leaf: LeafSlot) -> bool {
        let node = self.leaf(leaf).node;
        self.has_quota() && self.path(node).any(|node| node.quota.is_some())
    }

    /// What is still due to guarantees, all roles together.
    pub(super) fn required_below(&self) -> &Amounts {
        &self.node(ROOT).required_below
    }

    pub(super) fn find_node(&self, role: &RoleName) -> Option<NodeSlot> {
        self.by_name.get(role).copied()
    }

    /// The node of a role, or of the nearest role above it that is known.
    pub(super) fn nearest_node(&self, role: &RoleName) -> NodeSlot {
        let mut role = role.clone();
        loop {
            if let Some(found) = self.find_node(&role) {
                return found;
            }
            let Some((above, _)) = role.as_str().rsplit_once('/') else {
                return ROOT;
            };
            role = RoleName::new(above).expect("a part of the path of a role is a role");
        }
    }

    /// The roles of a framework that are known here.
    pub(super) fn leaves_of(&self, framework: FrameworkId) -> &[LeafSlot] {
        self.by_framework
            .get(framework.0)
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn find_leaf(&self, framework: FrameworkId, role: &RoleName) -> Option<LeafSlot> {
        let leaves = self.leaves_of(framework).iter().copied();
        leaves
            .into_iter()
            .find(|leaf| self.node(self.leaf(*leaf).node).name == *role)
    }

    /// The node of a role, made with those above it if need be.
    fn make_node(&mut self, role: &RoleName) -> NodeSlot {
        if let Some(found) = self.find_node(role) {
            return found;
        }
        let parent = match role.as_str().rsplit_once('/') {
            None => ROOT,
            Some((above, _)) => {
                let above = RoleName::new(above).expect("a part of the path of a role is a role");
                self.make_node(&above)
            }
        };
        let weight = self.weights.get(role).copied().unwrap_or(1.0);
        let depth = self.node(parent).depth + 1;
        let node = Some(Box::new(Node::new(role.clone(), depth, parent, weight)));
        let slot = match self.free_nodes.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("roles are bounded")
            }
        };
        self.node_mut(parent).children += 1;
        self.by_name.insert(role.clone(), slot);
        self.rekey(slot);
        slot
    }

    /// Forgets a node, and those above it, while nothing is known of them.
    fn drop_node(&mut self, mut slot: NodeSlot) {
        while slot != ROOT {
            let node = self.node(slot);
            let is_configured = node.quota.is_some() || node.minimum.is_some();
            if node.children + node.leaves > 0 || is_configured || !node.reserved.is_zero() {
                return;
            }
            let (name, parent) = (node.name.clone(), node.parent);
            self.by_name.remove(&name);
            self.nodes[slot as usize] = None;
            self.free_nodes.push(slot);
            self.node_mut(parent).children -= 1;
            slot = parent;
        }
    }

    /// The leaf of a framework in a role, made if need be.
    pub(super) fn make_leaf(&mut self, framework: FrameworkId, role: &RoleName) -> LeafSlot {
        if let Some(found) = self.find_leaf(framework, role) {
            return found;
        }
        let node = self.make_node(role);
        self.node_mut(node).leaves += 1;
        let standing = Standing::default();
        let key = self.order.key(&standing, 1.0, false);
        let leaf = Some(Box::new(Leaf {
            framework,
            node,
            is_active: false,
            standing,
            key,
        }));
        let slot = match self.free_leaves.pop() {
            Some(slot) => {
                self.leaves[slot as usize] = leaf;
                slot
            }
            None => {
                self.leaves.push(leaf);
                u32::try_from(self.leaves.len() - 1)
                    .expect("frameworks and their roles are bounded")
            }
        };
        match self.by_framework.get_mut(framework.0) {
            Some(leaves) => leaves.push(slot),
            None => {
                self.by_framework.insert(framework.0, vec![slot]);
            }
        }
        slot
    }

    /// Forgets a leaf that is not active and holds nothing; the caller knows that it has no filter.
    /// Whether it is gone.
    pub(super) fn drop_leaf(&mut self, slot: LeafSlot) -> bool {
        let leaf = self.leaf(slot);
        if leaf.is_active || !leaf.standing.held.is_zero() {
            return false;
        }
        let (framework, node, count) = (leaf.framework, leaf.node, leaf.standing.count);
        self.leaves[slot as usize] = None;
        self.free_leaves.push(slot);
        if let Some(leaves) = self.by_framework.get_mut(framework.0) {
            leaves.retain(|it| *it != slot);
            if leaves.is_empty() {
                self.by_framework.remove(framework.0);
            }
        }
        self.node_mut(node).leaves -= 1;
        if count > 0 {
            // Nodes count the grants of the leaves that they have.
            self.node_mut(node).own.count -= count;
            self.rekey_own(node);
            let mut at = node;
            while at != ROOT {
                self.node_mut(at).standing.count -= count;
                self.rekey(at);
                at = self.node(at).parent;
            }
        }
        self.drop_node(node);
        true
    }

    /// A leaf competes, or does not.
    pub(super) fn set_active(&mut self, slot: LeafSlot, is_active: bool) {
        if std::mem::replace(&mut self.leaf_mut(slot).is_active, is_active) == is_active {
            return;
        }
        let (framework, node) = (self.leaf(slot).framework, self.leaf(slot).node);
        if is_active {
            let first = self.node(node).own_order.first().map(|(key, ..)| *key);
            let leaf = self.leaves[slot as usize].as_deref_mut().expect("in use");
            self.order.enter(&mut leaf.standing, 1.0, first);
            leaf.key = self.order.key(&leaf.standing, 1.0, false);
        }
        let entry = (self.leaf(slot).key, framework, slot);
        let own_order = &mut self.node_mut(node).own_order;
        if is_active {
            own_order.insert(entry);
        } else {
            own_order.remove(&entry);
        }
        self.rekey_own(node);
        let mut at = node;
        while at != ROOT {
            let parent = self.node(at).parent;
            let before = self.node(at).active;
            if is_active && before == 0 {
                let first = self.node(parent).order.first().map(|(key, ..)| *key);
                let node = self.nodes[at as usize].as_deref_mut().expect("in use");
                self.order.enter(&mut node.standing, node.weight, first);
                self.rekey(at);
            }
            let node = self.node_mut(at);
            node.active = if is_active { before + 1 } else { before - 1 };
            let entry = (node.key, node.name.clone(), at);
            match (before, self.node(at).active) {
                (0, _) => {
                    self.node_mut(parent).order.insert(entry);
                }
                (_, 0) => {
                    self.node_mut(parent).order.remove(&entry);
                }
                _ => {}
            }
            self.note_unmet(at);
            at = parent;
        }
        let root = self.node_mut(ROOT);
        root.active = if is_active {
            root.active + 1
        } else {
            root.active - 1
        };
    }

    /// Computes the place of a node anew.
    fn rekey(&mut self, slot: NodeSlot) {
        if slot == ROOT {
            return;
        }
        let node = self.node(slot);
        let key = self
            .order
            .key(&node.standing, node.weight, node.is_full(&self.minimum));
        if key == node.key {
            return;
        }
        let (before, parent) = (node.key, node.parent);
        let (is_ordered, is_unmet) = (node.active > 0, node.is_unmet);
        let name = node.name.clone();
        self.node_mut(slot).key = key;
        if is_ordered {
            let (old, new) = ((before, name.clone(), slot), (key, name, slot));
            if is_unmet {
                self.unmet.replace(&old, new.clone());
            }
            self.node_mut(parent).order.replace(&old, new);
        }
    }

    fn rekey_own(&mut self, slot: NodeSlot) {
        let key = self.order.key(&self.node(slot).own, 1.0, false);
        self.node_mut(slot).own_key = key;
    }

    fn rekey_leaf(&mut self, slot: LeafSlot) {
        let leaf = self.leaf(slot);
        let key = self.order.key(&leaf.standing, 1.0, false);
        let (before, framework, node, is_active) =
            (leaf.key, leaf.framework, leaf.node, leaf.is_active);
        if key == before {
            return;
        }
        self.leaf_mut(slot).key = key;
        if is_active {
            let order = &mut self.node_mut(node).own_order;
            order.remove(&(before, framework, slot));
            order.insert((key, framework, slot));
        }
    }

    /// A leaf holds more: by a grant, or because it is known to.
    pub(super) fn charge(&mut self, slot: LeafSlot, charge: &Charge, is_grant: bool) {
        self.change(slot, charge, true, is_grant);
    }

    /// A leaf holds less.
    pub(super) fn discharge(&mut self, slot: LeafSlot, charge: &Charge) {
        self.change(slot, charge, false, false);
    }

    fn change(&mut self, slot: LeafSlot, charge: &Charge, is_more: bool, is_grant: bool) {
        let node = self.leaf(slot).node;
        {
            let leaf = self.leaves[slot as usize].as_deref_mut().expect("in use");
            charge.change_all(&mut leaf.standing.held, is_more);
            let own = self.nodes[node as usize].as_deref_mut().expect("in use");
            charge.change_all(&mut own.own.held, is_more);
            if is_grant {
                self.order.granted(&mut leaf.standing, 1.0);
                self.order.granted(&mut own.own, 1.0);
            }
        }
        self.rekey_leaf(slot);
        self.rekey_own(node);
        let mut at = node;
        while at != ROOT {
            let node = self.nodes[at as usize].as_deref_mut().expect("in use");
            charge.change_all(&mut node.standing.held, is_more);
            for taken in charge.taken_at(node.depth) {
                node.taken.change(taken, is_more);
            }
            if is_grant {
                self.order.granted(&mut node.standing, node.weight);
            }
            self.settle(at);
            at = self.node(at).parent;
        }
    }

    /// What follows for a node when what it holds, or what is reserved, has changed.
    fn settle(&mut self, slot: NodeSlot) {
        if self.quotas > 0 {
            self.require(slot);
            self.note_unmet(slot);
        }
        self.rekey(slot);
    }

    /// More or less is reserved for a role on the slaves.
    pub(super) fn reserve(&mut self, role: &RoleName, amounts: &Amounts, is_more: bool) {
        let node = self.make_node(role);
        let mut at = node;
        while at != ROOT {
            self.node_mut(at).reserved.change(amounts, is_more);
            self.settle(at);
            at = self.node(at).parent;
        }
        self.drop_node(node);
    }

    /// Computes what is still due to a node and tells the one above.
    fn require(&mut self, slot: NodeSlot) {
        let node = self.node(slot);
        if node.quota.is_none() && node.required_below.is_zero() && node.required.is_zero() {
            return;
        }
        let mut required = node.required_below.clone();
        for (number, missing) in node.unmet() {
            required.set(number, missing.max(required.get(number)));
        }
        let mut growth = required.clone();
        growth.sub_all(&node.required);
        let parent = node.parent;
        self.node_mut(slot).required = required;
        self.node_mut(parent).required_below.add_all(&growth);
    }

    /// Keeps the order of those whose guarantees are not met.
    fn note_unmet(&mut self, slot: NodeSlot) {
        if self.quotas == 0 {
            return;
        }
        let node = self.node(slot);
        let is_unmet = node.active > 0 && node.unmet().next().is_some();
        if is_unmet == node.is_unmet {
            return;
        }
        let entry = (node.key, node.name.clone(), slot);
        self.node_mut(slot).is_unmet = is_unmet;
        if is_unmet {
            self.unmet.insert(entry);
        } else {
            self.unmet.remove(&entry);
        }
    }

    /// Sets or takes away what a role is guaranteed and limited to.
    pub(super) fn set_quota(&mut self, role: &RoleName, quota: Option<QuotaRow>) {
        let slot = self.make_node(role);
        let had = self.node(slot).quota.is_some();
        self.quotas = self.quotas + u32::from(quota.is_some()) - u32::from(had);
        // Out of the order of the unmet first: with no quota left it is not kept.
        let node = self.node_mut(slot);
        if std::mem::take(&mut node.is_unmet) {
            let entry = (node.key, node.name.clone(), slot);
            self.unmet.remove(&entry);
        }
        self.node_mut(slot).quota = quota.map(Box::new);
        let mut at = slot;
        while at != ROOT {
            self.require(at);
            at = self.node(at).parent;
        }
        self.note_unmet(slot);
        self.rekey(slot);
        self.drop_node(slot);
    }

    /// Sets the weight of a role; 1 is what it has otherwise.
    pub(super) fn set_weight(&mut self, role: &RoleName, weight: f64) {
        if weight == 1.0 {
            self.weights.remove(role);
        } else {
            self.weights.insert(role.clone(), weight);
        }
        if let Some(slot) = self.find_node(role) {
            self.node_mut(slot).weight = weight;
            self.rekey(slot);
        }
    }

    /// Sets what is worth an offer in a role and below it; none takes that away.
    pub(super) fn set_minimum(&mut self, role: &RoleName, minimum: Option<Minimum>) {
        let slot = self.make_node(role);
        self.minimums += u32::from(minimum.is_some());
        let before = std::mem::replace(&mut self.node_mut(slot).minimum, minimum.map(Box::new));
        self.minimums -= u32::from(before.is_some());
        self.drop_node(slot);
    }

    /// What is worth an offer in a role, and the role that says so: itself or the next above it. None
    /// if the master's minimum is all there is.
    pub(super) fn minimum_of(&self, slot: NodeSlot) -> Option<(NodeSlot, &Minimum)> {
        if self.minimums == 0 {
            return None;
        }
        let mut at = slot;
        while at != ROOT {
            let node = self.node(at);
            if let Some(minimum) = node.minimum.as_deref() {
                return Some((at, minimum));
            }
            at = node.parent;
        }
        None
    }

    /// Computes all places anew: the proportions of the cluster have changed, or the minimum.
    pub(super) fn rebuild(&mut self) {
        for leaf in self.leaves.iter_mut().flatten() {
            leaf.key = self.order.key(&leaf.standing, 1.0, false);
        }
        for node in self.nodes.iter_mut().skip(1).flatten() {
            let is_full = node.is_full(&self.minimum);
            node.key = self.order.key(&node.standing, node.weight, is_full);
            node.own_key = self.order.key(&node.own, 1.0, false);
        }
        for slot in 0..self.nodes.len() {
            let Some(node) = self.nodes[slot].as_deref_mut() else {
                continue;
            };
            let mut own = std::mem::take(&mut node.own_order);
            let mut order = std::mem::take(&mut node.order);
            own.change_all(|(key, _, leaf)| *key = self.leaf(*leaf).key);
            order.change_all(|(key, _, child)| *key = self.node(*child).key);
            let node = self.nodes[slot].as_deref_mut().expect("taken from it");
            (node.own_order, node.order) = (own, order);
        }
        let mut unmet = std::mem::take(&mut self.unmet);
        unmet.change_all(|(key, _, node)| *key = self.node(*node).key);
        self.unmet = unmet;
    }

    /// Asks the active leaves below a node in order, until one answers. Those below roles that are
    /// full are asked only if `asks_full`.
    pub(super) fn find<T>(
        &self,
        slot: NodeSlot,
        asks_full: bool,
        ask: &mut impl FnMut(LeafSlot) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(slot);
        let mut own = Some(&node.own_order).filter(|order| !order.is_empty());
        for (key, _, child) in node.order.iter() {
            if key.is_full() && !asks_full {
                break;
            }
            // At a tie its own frameworks come first: its name is the shorter one.
            if let Some(order) = own.take_if(|_| node.own_key <= *key)
                && let Some(found) = order.iter().find_map(|(.., leaf)| ask(*leaf))
            {
                return Some(found);
            }
            if let Some(found) = self.find(*child, asks_full, ask) {
                return Some(found);
            }
        }
        own?.iter().find_map(|(.., leaf)| ask(*leaf))
    }

    /// The same for the leaves of these roles and those below them alone.
    pub(super) fn find_in<T>(
        &self,
        slot: NodeSlot,
        targets: &[NodeSlot],
        ask: &mut impl FnMut(LeafSlot) -> Option<T>,
    ) -> Option<T> {
        if targets.contains(&slot) {
            return self.find(slot, true, ask);
        }
        let mut next: SmallVec<[NodeSlot; 4]> = SmallVec::new();
        for target in targets {
            let mut at = *target;
            while at != ROOT && self.node(at).parent != slot {
                at = self.node(at).parent;
            }
            if at != ROOT && !next.contains(&at) && self.node(at).active > 0 {
                next.push(at);
            }
        }
        next.sort_unstable_by(|a, b| {
            let (a, b) = (self.node(*a), self.node(*b));
            (a.key, &a.name).cmp(&(b.key, &b.name))
        });
        next.into_iter()
            .find_map(|child| self.find_in(child, targets, ask))
    }

    /// Roles whose guarantees are not met, the first in turn first.
    pub(super) fn unmet(&self) -> impl Iterator<Item = NodeSlot> {
        self.unmet.iter().map(|(.., slot)| *slot)
    }

    /// The roles from that of a leaf to the top.
    pub(super) fn path(&self, slot: NodeSlot) -> impl Iterator<Item = &Node> {
        let mut at = slot;
        std::iter::from_fn(move || {
            (at != ROOT).then(|| {
                let node = self.node(at);
                at = node.parent;
                node
            })
        })
    }

    /// Which of two active leaves is asked first by [`Self::find`].
    pub(super) fn cmp(&self, one: LeafSlot, other: LeafSlot) -> Ordering {
        let (one, other) = (self.leaf(one), self.leaf(other));
        if one.node == other.node {
            return (one.key, one.framework).cmp(&(other.key, other.framework));
        }
        // Climbs to where both paths meet, and compares there.
        let (mut a, mut b) = (one.node, other.node);
        let (mut below_a, mut below_b) = (None, None);
        while a != b {
            if self.node(a).depth >= self.node(b).depth {
                below_a = Some(a);
                a = self.node(a).parent;
            } else {
                below_b = Some(b);
                b = self.node(b).parent;
            }
        }
        let meeting = self.node(a);
        let place = |below: Option<NodeSlot>| match below {
            Some(below) => {
                let node = self.node(below);
                (node.key, &node.name)
            }
            None => (meeting.own_key, &meeting.name),
        };
        place(below_a).cmp(&place(below_b))
    }

    /// Whether all orders and sums are what they were made from.
    pub(super) fn is_consistent(&self) -> bool {
        let mut active = vec![0u32; self.nodes.len()];
        let mut leaves = vec![0u32; self.nodes.len()];
        let mut held: Vec<Amounts> = vec![Amounts::default(); self.nodes.len()];
        for (slot, leaf) in (0u32..).zip(&self.leaves) {
            let Some(leaf) = leaf.as_deref() else {
                continue;
            };
            let entry = (leaf.key, leaf.framework, slot);
            if leaf.key != self.order.key(&leaf.standing, 1.0, false)
                || self.node(leaf.node).own_order.contains(&entry) != leaf.is_active
                || !self.leaves_of(leaf.framework).contains(&slot)
            {
                return false;
            }
            leaves[leaf.node as usize] += 1;
            let mut at = leaf.node;
            loop {
                active[at as usize] += u32::from(leaf.is_active);
                held[at as usize].add_all(&leaf.standing.held);
                if at == ROOT {
                    break;
                }
                at = self.node(at).parent;
            }
        }
        let nodes = (0u32..).zip(&self.nodes).skip(1);
        let nodes = nodes.filter_map(|(slot, node)| Some((slot, node.as_deref()?)));
        let mut all_is_well = self.node(ROOT).active == active[0];
        let (mut unmet, mut minimums) = (0, 0);
        for (slot, node) in nodes {
            minimums += u32::from(node.minimum.is_some());
            let at = slot as usize;
            let entry = (node.key, node.name.clone(), slot);
            let is_unmet = node.active > 0 && node.unmet().next().is_some();
            unmet += usize::from(is_unmet);
            all_is_well &= node.active == active[at]
                && node.leaves == leaves[at]
                && node.standing.held == held[at]
                && node.key
                    == self
                        .order
                        .key(&node.standing, node.weight, node.is_full(&self.minimum))
                && self.node(node.parent).order.contains(&entry) == (node.active > 0)
                && is_unmet == node.is_unmet
                && self.unmet.contains(&entry) == is_unmet;
        }
        all_is_well && unmet == self.unmet.len() && minimums == self.minimums
    }
}
