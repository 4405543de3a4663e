//! Quotas, weights and minimums of roles: checked, replicated, and then enforced (semantics E2, E8, E9,
//! E10).
//!
//! Enforcing takes offers back, never tasks.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::FrameworkId;
use meros_proto::minimum::Minimum;
use meros_proto::mutant::Mutant;
use meros_proto::quota::{QUOTA_NAMES_MAX, Quota};
use meros_proto::refusal::Refusal;
use meros_proto::resources::{Kind, ResourceName, Scalar};
use meros_proto::role::RoleName;
use meros_proto::view::{ClusterChange, OfferEnd, RoleView};
use tracing::info;

use crate::MasterCore;
use crate::command::Command;
use crate::effect::Answer;
use crate::event::RequestId;
use crate::timers::Timer;
use crate::turn::Turn;

/// The most roles with a quota, with a weight, and with a minimum; one more is refused.
pub const CONFIGURED_ROLES_MAX: usize = 10_000;
/// The heaviest weight.
pub const WEIGHT_MAX: Scalar = Scalar::whole(1_000_000);
/// The most orders of operators that are being committed; one more is refused.
const ORDERS_MAX: usize = 64;

fn invalid(field: &str, why: String) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why,
    }
}

fn check_roles_once<'a>(
    field: &str,
    roles: impl Iterator<Item = &'a RoleName>,
) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for role in roles {
        if !seen.insert(role) {
            return Err(invalid(field, format!("role `{role}` is named twice")));
        }
    }
    Ok(())
}

fn check_count(what: &str, count: usize) -> Result<(), Refusal> {
    if count > CONFIGURED_ROLES_MAX {
        return Err(Refusal::OverLimit {
            what: format!("the number of roles with {what}"),
            limit: CONFIGURED_ROLES_MAX as u64,
            advice: "take it away from roles that do not need it".to_owned(),
        });
    }
    Ok(())
}

/// Checks one quota by itself.
fn check_quota(role: &RoleName, quota: &Quota) -> Result<(), Refusal> {
    if role.is_any() {
        return Err(invalid(
            "role",
            "`*` is everybody; give the quota to a role".to_owned(),
        ));
    }
    if quota.guarantees.len() > QUOTA_NAMES_MAX || quota.limits.len() > QUOTA_NAMES_MAX {
        let why = format!("role `{role}` has more than {QUOTA_NAMES_MAX} names");
        return Err(invalid("quota", why));
    }
    let names = quota.guarantees.keys().chain(quota.limits.keys());
    let is_scalar =
        |name: &&ResourceName| !matches!(name.required_kind(), Some(Kind::Ranges | Kind::Set));
    if let Some(name) = names.into_iter().find(|name| !is_scalar(name)) {
        let why = format!("`{name}` of role `{role}` is no amount; only amounts have a quota");
        return Err(invalid("quota", why));
    }
    for (name, guarantee) in &quota.guarantees {
        if let Some(limit) = quota.limits.get(name).filter(|limit| *limit < guarantee) {
            let why = format!(
                "of `{name}` role `{role}` is guaranteed {guarantee} and limited to {limit}"
            );
            return Err(invalid("quota", why));
        }
    }
    Ok(())
}

/// Checks that roles below others keep within what those have.
fn check_tree(quotas: &BTreeMap<RoleName, Quota>) -> Result<(), Refusal> {
    let mut below: BTreeMap<(&RoleName, &ResourceName), Scalar> = BTreeMap::new();
    for (role, quota) in quotas {
        // The nearest role above that has a quota.
        let mut above = role.as_str();
        let parent = loop {
            let Some((rest, _)) = above.rsplit_once('/') else {
                break None;
            };
            above = rest;
            let found = quotas.iter().find(|(name, _)| name.as_str() == above);
            if found.is_some() {
                break found;
            }
        };
        let Some((parent, of_parent)) = parent else {
            continue;
        };
        for (name, limit) in &quota.limits {
            if let Some(most) = of_parent.limits.get(name).filter(|most| *most < limit) {
                let why = format!(
                    "of `{name}` role `{role}` may have {limit}, but `{parent}` only {most}"
                );
                return Err(invalid("limits", why));
            }
        }
        for (name, guarantee) in &quota.guarantees {
            let sum = below.entry((parent, name)).or_default();
            *sum = sum.saturating_add(*guarantee);
            let most = of_parent.guarantees.get(name).copied();
            if most.unwrap_or(Scalar::ZERO) < *sum {
                let why = format!(
                    "of `{name}` the roles below `{parent}` are guaranteed {sum}, itself only {}",
                    most.unwrap_or(Scalar::ZERO)
                );
                return Err(invalid("guarantees", why));
            }
        }
    }
    Ok(())
}

impl MasterCore {
    /// Sets quotas of several roles, all or none (semantics E8).
    pub(crate) fn on_set_quotas(
        &mut self,
        request: RequestId,
        quotas: Vec<(RoleName, Quota)>,
        force: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_quotas(&quotas, force)?;
        self.order(request, Command::SetQuotas { quotas }, turn)
    }

    /// Sets weights of several roles, all or none (semantics E10).
    pub(crate) fn on_set_weights(
        &mut self,
        request: RequestId,
        weights: Vec<(RoleName, Scalar)>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        check_roles_once("weights", weights.iter().map(|(role, _)| role))?;
        let bad = |(_, weight): &&(RoleName, Scalar)| weight.is_zero() || *weight > WEIGHT_MAX;
        if let Some((role, weight)) = weights.iter().find(bad) {
            let why = format!(
                "that of role `{role}` is {weight}; a weight is from 0.001 to {WEIGHT_MAX}"
            );
            return Err(invalid("weight", why));
        }
        let known = self.registry.weights();
        let new = weights.iter().filter(|(role, _)| !known.contains_key(role));
        check_count("a weight", known.len() + new.count())?;
        self.order(request, Command::SetWeights { weights }, turn)
    }

    /// Sets what is worth an offer in several roles, all or none (semantics E2).
    pub(crate) fn on_set_minimums(
        &mut self,
        request: RequestId,
        minimums: Vec<(RoleName, Option<Minimum>)>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        check_roles_once("minimums", minimums.iter().map(|(role, _)| role))?;
        let known = self.registry.minimums();
        let new = minimums
            .iter()
            .filter(|(role, _)| !known.contains_key(role));
        if let Some((role, _)) = new.clone().find(|(_, minimum)| minimum.is_none()) {
            return Err(Refusal::RoleUnknown { role: role.clone() });
        }
        check_count("a minimum", known.len() + new.count())?;
        self.order(request, Command::SetMinimums { minimums }, turn)
    }

    pub(crate) fn order(
        &mut self,
        request: RequestId,
        command: Command,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_order()?;
        let proposal = self.propose(command, turn);
        self.orders.insert(proposal, request);
        Ok(())
    }

    /// An order that is a command about a framework that is known.
    pub(crate) fn order_for_framework(
        &mut self,
        request: RequestId,
        framework_id: FrameworkId,
        command: Command,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_order()?;
        self.propose_for_framework(framework_id, command, turn);
        let row = self.frameworks.get(framework_id);
        if let Some(proposal) = row.and_then(|row| row.proposal) {
            self.orders.insert(proposal, request);
        }
        Ok(())
    }

    pub(crate) fn check_order(&self) -> Result<(), Refusal> {
        if self.orders.len() >= ORDERS_MAX {
            return Err(Refusal::OverLimit {
                what: "the number of orders in progress".to_owned(),
                limit: ORDERS_MAX as u64,
                advice: "try again in a moment".to_owned(),
            });
        }
        Ok(())
    }

    /// The first that applies: a role twice, a bad quota or none to take away, too many, one that does not fit the roles
    /// above, guarantees above what there is, limits below what is in use.
    fn check_quotas(&self, quotas: &[(RoleName, Quota)], force: bool) -> Result<(), Refusal> {
        check_roles_once("quotas", quotas.iter().map(|(role, _)| role))?;
        for (role, quota) in quotas {
            check_quota(role, quota)?;
            if quota.is_empty() && !self.registry.quotas().contains_key(role) {
                return Err(Refusal::RoleUnknown { role: role.clone() });
            }
        }
        let mut all = self.registry.quotas().clone();
        for (role, quota) in quotas {
            if quota.is_empty() {
                all.remove(role);
            } else {
                all.insert(role.clone(), quota.clone());
            }
        }
        check_count("a quota", all.len())?;
        check_tree(&all)?;
        if force {
            return Ok(());
        }
        let mut guaranteed: BTreeMap<&ResourceName, Scalar> = BTreeMap::new();
        let is_below_another = |role: &RoleName| all.keys().any(|it| role.is_strict_subrole_of(it));
        for (_, quota) in all.iter().filter(|(role, _)| !is_below_another(role)) {
            for (name, guarantee) in &quota.guarantees {
                let sum = guaranteed.entry(name).or_default();
                *sum = sum.saturating_add(*guarantee);
            }
        }
        for (name, sum) in guaranteed {
            let capacity = self.allocator.capacity(name);
            if sum > capacity {
                let why = format!(
                    "all roles together are guaranteed {sum} of `{name}`, and there are {capacity}; force it if more slaves will come"
                );
                return Err(invalid("guarantees", why));
            }
        }
        for (role, quota) in quotas {
            for (name, limit) in &quota.limits {
                // Offers do not count: they are taken back.
                let in_use = self.in_use(role, name);
                if in_use > *limit {
                    let why = format!(
                        "role `{role}` uses {in_use} of `{name}`, above {limit}; force it to get nothing more until it uses less"
                    );
                    return Err(invalid("limits", why));
                }
            }
        }
        Ok(())
    }

    /// What counts against a quota, without offers.
    fn in_use(&self, role: &RoleName, name: &ResourceName) -> Scalar {
        let of_role = self
            .offers
            .iter()
            .filter(|(_, offer)| offer.role == *role || offer.role.is_strict_subrole_of(role));
        let offered = of_role
            .flat_map(|(_, offer)| offer.resources.iter())
            .filter(|it| it.name() == name && it.is_unreserved() && !it.is_revocable())
            .fold(Scalar::ZERO, |sum, it| match it.value() {
                meros_proto::resources::Value::Scalar(scalar) => sum.saturating_add(*scalar),
                _ => sum,
            });
        self.allocator.consumed(role, name).saturating_sub(offered)
    }

    /// Answers the operator whose order has been committed.
    pub(crate) fn answer_order(&mut self, request: Option<RequestId>, turn: &mut Turn<'_>) {
        if let Some(request) = request {
            turn.reply(request, Ok(Answer::Done));
        }
    }

    pub(crate) fn on_quotas_set(&mut self, quotas: &[(RoleName, Quota)], turn: &mut Turn<'_>) {
        for (role, quota) in quotas {
            info!(%role, "quota set");
            self.allocator.set_quota(role, quota);
        }
        for (role, _) in quotas {
            self.rescind_while(
                turn,
                |core| core.allocator.is_above_limit(role),
                |_, of_offer| of_offer == role || of_offer.is_strict_subrole_of(role),
            );
        }
        self.rescind_while(
            turn,
            |core| core.allocator.is_short_of_guarantees() && !Mutant::KeepGuaranteed.is_on(),
            |core, of_offer| !core.allocator.is_owed(of_offer),
        );
        for (role, _) in quotas {
            self.publish_role(role, turn);
        }
    }

    pub(crate) fn on_weights_set(&mut self, weights: &[(RoleName, Scalar)], turn: &mut Turn<'_>) {
        for (role, weight) in weights {
            info!(%role, %weight, "weight set");
            self.allocator.set_weight(role, *weight);
            self.publish_role(role, turn);
        }
    }

    /// What is offered already stays: it was worth an offer then.
    pub(crate) fn on_minimums_set(
        &mut self,
        minimums: &[(RoleName, Option<Minimum>)],
        turn: &mut Turn<'_>,
    ) {
        for (role, minimum) in minimums {
            info!(%role, minimum = minimum.as_ref().map(ToString::to_string), "minimum set");
            self.allocator.set_minimum(role, minimum.clone());
            self.publish_role(role, turn);
        }
    }

    fn publish_role(&mut self, role: &RoleName, turn: &mut Turn<'_>) {
        let (quotas, weights) = (self.registry.quotas(), self.registry.weights());
        let view = RoleView {
            role: role.clone(),
            weight: weights.get(role).copied().unwrap_or(Scalar::ONE),
            quota: quotas.get(role).cloned().unwrap_or_default(),
            minimum: self.registry.minimums().get(role).cloned(),
        };
        self.publisher.publish(ClusterChange::Role(view), turn);
    }

    /// Takes offers back, the newest first, while it is needed (semantics E5).
    fn rescind_while(
        &mut self,
        turn: &mut Turn<'_>,
        is_needed: impl Fn(&Self) -> bool,
        may_go: impl Fn(&Self, &RoleName) -> bool,
    ) {
        if !is_needed(self) {
            return;
        }
        let mut numbers: Vec<u64> = self.offers.iter().map(|(number, _)| number).collect();
        while let Some(number) = numbers.pop() {
            if !is_needed(self) {
                return;
            }
            let of_offer = self.offers.get(number).map(|offer| offer.role.clone());
            if of_offer.is_some_and(|role| may_go(self, &role)) {
                self.rescind(number, OfferEnd::Rescinded, turn);
            }
        }
    }

    /// What is configured for roles, for a leader that has just been elected.
    pub(crate) fn take_over_roles(&mut self, turn: &mut Turn<'_>) {
        let mut configured = BTreeSet::new();
        for (role, weight) in self.registry.weights() {
            self.allocator.set_weight(role, *weight);
            configured.insert(role.clone());
        }
        let quotas = self.registry.quotas().iter();
        for (role, quota) in quotas.filter(|_| !Mutant::ForgetQuotas.is_on()) {
            self.allocator.set_quota(role, quota);
            configured.insert(role.clone());
        }
        for (role, minimum) in self.registry.minimums() {
            self.allocator.set_minimum(role, Some(minimum.clone()));
            configured.insert(role.clone());
        }
        for role in &configured {
            self.publish_role(role, turn);
        }
        // What is free cannot be told from what is guaranteed before most slaves are back with
        // their tasks (semantics E9).
        let known = self.slaves.recovered();
        if !self.registry.quotas().is_empty() && known > 0 {
            self.waits_for_slaves = Some(known);
            let at = turn.now.after(self.config.slave_reregister_timeout);
            self.timers.arm(Timer::OffersResume, at);
        }
    }

    /// Whether no offers are made yet after an election (semantics E9): with a quota, until four
    /// of five slaves are back, or have had their time to come back.
    pub(crate) fn is_waiting_for_slaves(&mut self) -> bool {
        let Some(known) = self.waits_for_slaves else {
            return false;
        };
        if self.slaves.recovered() * 5 > known {
            return true;
        }
        self.waits_for_slaves = None;
        self.timers.cancel(&Timer::OffersResume);
        false
    }
}
