//! A second allocator, as simple as the rules: no order is kept, nothing is counted twice, every
//! round looks at every slave and everybody. The fast one must decide exactly the same.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::quota::Quota;
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use super::super::order::visiting_place;
use super::super::{Abilities, Grant, Minimum};

type Who = (FrameworkId, RoleName);
type Sums = BTreeMap<ResourceName, i64>;
/// Full, share, grants, name, framework.
type Place = (bool, u64, u64, String, u32);

struct Slave {
    total: Resources,
    free: Resources,
    is_here: bool,
    is_excluded: bool,
}

#[derive(Default)]
pub(super) struct Naive {
    slaves: BTreeMap<SlaveId, Slave>,
    active: BTreeSet<Who>,
    held: Vec<(Who, SlaveId, Resources)>,
    grants: BTreeMap<Who, u64>,
    filters: Vec<(Who, SlaveId, Resources, Timestamp)>,
    weights: BTreeMap<RoleName, Scalar>,
    quotas: BTreeMap<RoleName, Quota>,
    minimums: BTreeMap<RoleName, Minimum>,
    /// What frameworks ask for themselves.
    own_minimums: BTreeMap<Who, Minimum>,
    abilities: BTreeMap<FrameworkId, Abilities>,
    measured: Sums,
    shuffle: Option<u64>,
    rounds: u64,
}

fn amount(resource: &Resource) -> i64 {
    match resource.value() {
        Value::Scalar(scalar) => scalar.thousandths(),
        Value::Ranges(_) | Value::Set(_) => 0,
    }
}

fn sum<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Sums {
    let mut sums = Sums::new();
    for resource in resources {
        *sums.entry(resource.name().clone()).or_default() += amount(resource);
    }
    sums
}

fn is_within(role: &RoleName, above: &RoleName) -> bool {
    role == above || role.is_strict_subrole_of(above)
}

fn is_reserved_within(resource: &Resource, role: &RoleName) -> bool {
    let reserved = resource.reservations().role();
    reserved.is_some_and(|reserved| is_within(reserved, role))
}

/// `a`, `a/b`, `a/b/c` for `a/b/c`.
fn path(role: &RoleName) -> Vec<RoleName> {
    let parts: Vec<&str> = role.as_str().split('/').collect();
    let above = (1..=parts.len()).map(|len| parts[..len].join("/"));
    above.map(|name| RoleName::new(&name).unwrap()).collect()
}

impl Naive {
    pub(super) fn new(shuffle: Option<u64>) -> Self {
        Self {
            shuffle,
            ..Self::default()
        }
    }

    pub(super) fn add_slave(&mut self, slave: SlaveId, total: &Resources) {
        let is_excluded = self.slaves.get(&slave).is_some_and(|row| row.is_excluded);
        let row = Slave {
            total: total.clone(),
            free: total.clone(),
            is_here: true,
            is_excluded,
        };
        self.slaves.insert(slave, row);
        self.measure();
    }

    pub(super) fn remove_slave(&mut self, slave: SlaveId) {
        self.slaves.remove(&slave);
        self.measure();
    }

    /// Shares are measured in totals that are remembered until proportions move by one percent.
    fn measure(&mut self) {
        let now = sum(self.slaves.values().flat_map(|row| &row.total));
        let names: BTreeSet<&ResourceName> = now.keys().chain(self.measured.keys()).collect();
        let of = |sums: &Sums, name| sums.get(name).copied().unwrap_or(0) as f64;
        let growth: Vec<f64> = names
            .into_iter()
            .filter(|name| of(&now, name) + of(&self.measured, name) > 0.0)
            .map(|name| of(&now, name) / of(&self.measured, name))
            .collect();
        let low = growth.iter().copied().fold(f64::INFINITY, f64::min);
        let high = growth.iter().copied().fold(0.0, f64::max);
        if high > low * 1.01 || low == 0.0 || high.is_infinite() {
            self.measured = now;
        }
    }

    pub(super) fn set_here(&mut self, slave: SlaveId, is_here: bool) {
        if let Some(row) = self.slaves.get_mut(&slave) {
            row.is_here = is_here;
        }
    }

    pub(super) fn set_excluded(&mut self, slave: SlaveId, is_excluded: bool) {
        if let Some(row) = self.slaves.get_mut(&slave) {
            row.is_excluded = is_excluded;
        }
    }

    pub(super) fn set_active(&mut self, who: &Who, is_active: bool) {
        if is_active {
            self.active.insert(who.clone());
        } else {
            self.active.remove(who);
        }
        self.forget();
    }

    pub(super) fn set_abilities(&mut self, framework: FrameworkId, abilities: Abilities) {
        self.abilities.insert(framework, abilities);
    }

    pub(super) fn set_weight(&mut self, role: &RoleName, weight: Scalar) {
        self.weights.insert(role.clone(), weight);
    }

    pub(super) fn set_quota(&mut self, role: &RoleName, quota: &Quota) {
        if quota.is_empty() {
            self.quotas.remove(role);
        } else {
            self.quotas.insert(role.clone(), quota.clone());
        }
    }

    pub(super) fn set_minimum(&mut self, role: &RoleName, minimum: Option<Minimum>) {
        match minimum {
            Some(minimum) => self.minimums.insert(role.clone(), minimum),
            None => self.minimums.remove(role),
        };
    }

    pub(super) fn set_own_minimum(&mut self, who: &Who, minimum: Option<Minimum>) {
        match minimum {
            Some(minimum) => self.own_minimums.insert(who.clone(), minimum),
            None => self.own_minimums.remove(who),
        };
        self.forget();
    }

    /// Its own, or that of its role, or of the next one above it that has one, or else the master's.
    fn minimum_of(&self, who: &Who) -> Minimum {
        let of_roles = path(&who.1);
        let mut of_roles = of_roles.iter().rev();
        let own = self.own_minimums.get(who);
        own.or_else(|| of_roles.find_map(|it| self.minimums.get(it)))
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn charge(&mut self, who: &Who, slave: SlaveId, resources: &Resources) -> bool {
        let Some(row) = self.slaves.get_mut(&slave) else {
            return false;
        };
        let is_free = row.free.checked_sub_assign(resources).is_ok();
        if is_free {
            self.held.push((who.clone(), slave, resources.clone()));
        }
        is_free
    }

    pub(super) fn release(&mut self, who: &Who, slave: SlaveId, resources: &Resources) {
        let held =
            |it: &(Who, SlaveId, Resources)| it.0 == *who && it.1 == slave && it.2 == *resources;
        let at = self.held.iter().position(held).expect("it was held");
        self.held.remove(at);
        if let Some(row) = self.slaves.get_mut(&slave) {
            row.free.checked_add_assign(resources).unwrap();
        }
        self.forget();
    }

    pub(super) fn filter(
        &mut self,
        who: &Who,
        slave: SlaveId,
        refused: &Resources,
        until: Timestamp,
    ) {
        self.filters
            .push((who.clone(), slave, refused.clone(), until));
    }

    pub(super) fn clear_filters(&mut self, framework: FrameworkId, role: Option<&RoleName>) {
        self.filters
            .retain(|(who, ..)| who.0 != framework || role.is_some_and(|role| *role != who.1));
        self.forget();
    }

    pub(super) fn clear_slave_filters(&mut self, slave: SlaveId) {
        self.filters.retain(|filter| filter.1 != slave);
        self.forget();
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        self.filters.retain(|filter| filter.3 > now);
        self.forget();
    }

    /// Who wants nothing, holds nothing and hides nothing is forgotten, with his count.
    fn forget(&mut self) {
        let (active, held, filters) = (&self.active, &self.held, &self.filters);
        let own_minimums = &self.own_minimums;
        self.grants.retain(|who, _| {
            active.contains(who)
                || own_minimums.contains_key(who)
                || held.iter().any(|it| it.0 == *who)
                || filters.iter().any(|it| it.0 == *who)
        });
    }

    /// What counts against the quota of a role.
    pub(super) fn consumed(&self, role: &RoleName, name: &ResourceName) -> i64 {
        let reserved = self.slaves.values().flat_map(|row| &row.total);
        let reserved = reserved.filter(|it| is_reserved_within(it, role));
        let held = self.held.iter().filter(|it| is_within(&it.0.1, role));
        let held = held
            .flat_map(|it| &it.2)
            .filter(|it| !is_reserved_within(it, role));
        let counted = reserved.chain(held).filter(|it| !it.is_revocable());
        sum(counted).get(name).copied().unwrap_or(0)
    }

    fn room(&self, role: &RoleName) -> Sums {
        let limits = self.quotas.get(role).map(|it| &it.limits);
        let room = |(name, limit): (&ResourceName, &Scalar)| {
            let left = limit.thousandths() - self.consumed(role, name);
            (name.clone(), left.max(0))
        };
        limits.into_iter().flatten().map(room).collect()
    }

    fn unmet(&self, role: &RoleName) -> Sums {
        let guarantees = self.quotas.get(role).map(|it| &it.guarantees);
        let missing = |(name, guarantee): (&ResourceName, &Scalar)| {
            let missing = guarantee.thousandths() - self.consumed(role, name);
            (missing > 0).then(|| (name.clone(), missing))
        };
        guarantees
            .into_iter()
            .flatten()
            .filter_map(missing)
            .collect()
    }

    /// What is still due to a role and those below it: for each name its own or theirs together,
    /// whatever is more.
    fn required(&self, role: Option<&RoleName>) -> Sums {
        let below = |it: &RoleName| match role {
            Some(role) => it.is_strict_subrole_of(role),
            None => true,
        };
        let depth = role.map_or(0, |role| path(role).len());
        let mut children: BTreeSet<RoleName> = BTreeSet::new();
        for quota in self.quotas.keys().filter(|it| below(it)) {
            children.insert(path(quota)[depth].clone());
        }
        let mut required = Sums::new();
        for child in &children {
            for (name, amount) in self.required(Some(child)) {
                *required.entry(name).or_default() += amount;
            }
        }
        for (name, missing) in role.map(|role| self.unmet(role)).unwrap_or_default() {
            let entry = required.entry(name).or_default();
            *entry = missing.max(*entry);
        }
        required
    }

    fn available(&self) -> Sums {
        let rows = self.slaves.values();
        let offered = rows.filter(|row| row.is_here && !row.is_excluded);
        let free = offered.flat_map(|row| &row.free);
        sum(free.filter(|it| it.is_unreserved() && !it.is_revocable()))
    }

    fn is_full(&self, role: &RoleName) -> bool {
        let room = self.room(role);
        let is_out_of_reach = |least: &Resources| {
            least
                .iter()
                .any(|it| room.get(it.name()).is_some_and(|room| *room < amount(it)))
        };
        Minimum::default().any_of.iter().all(is_out_of_reach)
    }

    fn share(&self, of: impl Fn(&Who) -> bool) -> f64 {
        let held = self.held.iter().filter(|it| of(&it.0));
        let mut share = 0.0;
        for (name, amount) in sum(held.flat_map(|it| &it.2)) {
            let total = self.measured.get(&name).copied().unwrap_or(0);
            if total > 0 {
                share = f64::max(share, amount as f64 * (1.0 / total as f64));
            }
        }
        share
    }

    fn count(&self, of: impl Fn(&Who) -> bool) -> u64 {
        let counts = self.grants.iter().filter(|(who, _)| of(who));
        counts.map(|(_, count)| count).sum()
    }

    fn place_of_role(&self, role: &RoleName) -> Place {
        let weight = self.weights.get(role).map_or(1.0, |it| it.as_f64());
        let below = |who: &Who| is_within(&who.1, role);
        let share = (self.share(below) / weight).to_bits();
        let name = role.to_string();
        (self.is_full(role), share, self.count(below), name, 0)
    }

    /// From the top: each role on the way, then its own frameworks together, then the framework.
    fn places(&self, who: &Who) -> Vec<Place> {
        let roles = path(&who.1);
        let mut places: Vec<Place> = roles.iter().map(|it| self.place_of_role(it)).collect();
        let own = |it: &Who| it.1 == who.1;
        let share = self.share(own).to_bits();
        places.push((false, share, self.count(own), who.1.to_string(), 0));
        let it = |it: &Who| it == who;
        let share = self.share(it).to_bits();
        places.push((false, share, self.count(it), String::new(), who.0.0));
        places
    }

    /// Goes through all slaves again until nobody gets anything.
    pub(super) fn plan(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.rounds += 1;
        loop {
            let more = self.pass();
            if more.is_empty() {
                return grants;
            }
            grants.extend(more);
        }
    }

    fn pass(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        let mut slaves: Vec<SlaveId> = self.slaves.keys().copied().collect();
        if let Some(seed) = self.shuffle {
            slaves.sort_by_key(|slave| visiting_place(seed, self.rounds, slave.0));
        }
        for slave in slaves {
            while let Some((who, resources)) = self.choose(slave) {
                let row = self.slaves.get_mut(&slave).unwrap();
                row.free.checked_sub_assign(&resources).unwrap();
                *self.grants.entry(who.clone()).or_default() += 1;
                self.held.push((who.clone(), slave, resources.clone()));
                grants.push(Grant {
                    framework: who.0,
                    role: who.1,
                    slave,
                    resources: resources.into(),
                });
            }
        }
        grants
    }

    fn choose(&self, slave: SlaveId) -> Option<(Who, Resources)> {
        let mut everybody: Vec<&Who> = self.active.iter().collect();
        everybody.sort_by_cached_key(|who| self.places(who));
        let mut owed: BTreeSet<RoleName> = everybody.iter().flat_map(|who| path(&who.1)).collect();
        owed.retain(|role| !self.unmet(role).is_empty());
        let mut owed: Vec<RoleName> = owed.into_iter().collect();
        owed.sort_by_cached_key(|role| self.place_of_role(role));
        for role in &owed {
            for who in everybody.iter().filter(|who| is_within(&who.1, role)) {
                if let Some(portion) = self.portion(slave, who, Some(role)) {
                    return Some(((*who).clone(), portion));
                }
            }
        }
        everybody
            .into_iter()
            .find_map(|who| Some((who.clone(), self.portion(slave, who, None)?)))
    }

    /// Whether something of a slave can be offered to somebody.
    pub(super) fn can_offer(&self, slave: SlaveId, who: &Who) -> bool {
        if !self.active.contains(who) {
            return false;
        }
        let owed = path(&who.1).into_iter();
        let mut owed = owed.filter(|role| !self.unmet(role).is_empty());
        owed.any(|role| self.portion(slave, who, Some(&role)).is_some())
            || self.portion(slave, who, None).is_some()
    }

    fn portion(&self, slave: SlaveId, who: &Who, owed: Option<&RoleName>) -> Option<Resources> {
        let row = self.slaves.get(&slave)?;
        let abilities = self.abilities.get(&who.0).copied().unwrap_or_default();
        let has_gpus = !row.total.scalar(&ResourceName::GPUS).is_zero();
        if !row.is_here || row.is_excluded || (has_gpus && !abilities.gpus) {
            return None;
        }
        let stripped = row.free.filter(|it| {
            it.reservations().allow(&who.1) && (!it.is_revocable() || abilities.revocable)
        });
        let portion = self.capped(&stripped, who, owed)?;
        // Nothing is no offer, even to those to whom everything is worth one.
        if portion.is_empty() {
            return None;
        }
        let is_hidden = |filter: &(Who, SlaveId, Resources, Timestamp)| {
            filter.0 == *who && filter.1 == slave && filter.2.contains(&portion)
        };
        let enough = |minimum: &Minimum, sum: &Resources| minimum.is_met_by(sum);
        let masters = Minimum::default();
        if portion != stripped && !enough(&masters, &portion) && enough(&masters, &stripped) {
            return None;
        }
        let enough = enough(&self.minimum_of(who), &portion);
        (enough && !self.filters.iter().any(is_hidden)).then_some(portion)
    }

    /// No more than limits leave, and nothing that guarantees of others need.
    fn capped(&self, all: &Resources, who: &Who, owed: Option<&RoleName>) -> Option<Resources> {
        // What each rule leaves of each name; a role's rule is about what is not reserved in it.
        let mut rules: Vec<(Option<RoleName>, Sums)> = Vec::new();
        for role in path(&who.1) {
            let mut room = self.room(&role);
            if self.quotas.contains_key(&role) && self.is_full(&role) {
                room = all.iter().map(|it| (it.name().clone(), 0)).collect();
            }
            rules.push((Some(role), room));
        }
        let mut spare = Sums::new();
        let available = self.available();
        for (name, required) in self.required(None) {
            let available = available.get(&name).copied().unwrap_or(0);
            if required > 0 {
                spare.insert(name, (available - required).max(0));
            }
        }
        if let Some(owed) = owed {
            let unmet = self.unmet(owed);
            for name in self.quotas[owed].guarantees.keys() {
                spare.insert(name.clone(), unmet.get(name).copied().unwrap_or(0));
            }
        }
        rules.push((None, spare));
        let mut part = Resources::new();
        let mut is_cut = false;
        for resource in all {
            if resource.is_revocable() || !matches!(resource.value(), Value::Scalar(_)) {
                part.checked_add_assign(&resource.clone().into()).unwrap();
                continue;
            }
            let concerns = |rule: &Option<RoleName>| match rule {
                Some(role) => !is_reserved_within(resource, role),
                None => resource.is_unreserved(),
            };
            let mut allowed = amount(resource);
            for (_, left) in rules.iter().filter(|(rule, _)| concerns(rule)) {
                allowed = allowed.min(left.get(resource.name()).copied().unwrap_or(i64::MAX));
            }
            is_cut |= allowed < amount(resource);
            if *resource.name() == ResourceName::GPUS {
                allowed = allowed / 1_000 * 1_000;
            }
            for (_, left) in rules.iter_mut().filter(|(rule, _)| concerns(rule)) {
                if let Some(left) = left.get_mut(resource.name()) {
                    *left -= allowed;
                }
            }
            let scalar = Scalar::from_thousandths(allowed).unwrap();
            part.checked_add_assign(&resource.with_amount(scalar).into())
                .unwrap();
        }
        let has_scalars = part.iter().any(|it| matches!(it.value(), Value::Scalar(_)));
        (!is_cut || has_scalars).then_some(part)
    }

    /// Everything that was given out, and what is left, is all there is (M1).
    pub(super) fn is_all_there(&self) -> bool {
        self.slaves.iter().all(|(slave, row)| {
            let mut all = row.free.clone();
            for (_, _, resources) in self.held.iter().filter(|it| it.1 == *slave) {
                all.checked_add_assign(resources).unwrap();
            }
            all == row.total
        })
    }

    pub(super) fn quotas(&self) -> &BTreeMap<RoleName, Quota> {
        &self.quotas
    }

    pub(super) fn free(&self, slave: SlaveId) -> Option<&Resources> {
        self.slaves.get(&slave).map(|row| &row.free)
    }
}
