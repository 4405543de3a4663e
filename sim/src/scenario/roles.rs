//! Weights and quotas of roles: as the groups of frameworks in them say.

use std::collections::{BTreeMap, BTreeSet};

use meros_master_core::Command;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use toml::Spanned;

use super::file::{FrameworksPart, Misplaced};
use super::value::{Amount, Name};

/// The role of a group; everybody's if it says nothing.
pub(crate) fn role_of(part: &FrameworksPart) -> RoleName {
    let everybodys = || "*".parse().expect("everybody's role");
    part.role
        .as_ref()
        .map_or_else(everybodys, |it| it.0.clone())
}

/// The commands that set what the groups say of their roles.
pub(crate) fn configured(
    groups: &BTreeMap<Name, FrameworksPart>,
) -> Result<Vec<Command>, Misplaced> {
    let mut weights: BTreeMap<RoleName, Scalar> = BTreeMap::new();
    let mut quotas: BTreeMap<RoleName, Quota> = BTreeMap::new();
    for part in groups.values() {
        let role = role_of(part);
        if let Some(weight) = &part.weight {
            let scalar = Scalar::from_f64(weight.get_ref().0).ok();
            let Some(scalar) = scalar.filter(|scalar| !scalar.is_zero()) else {
                return Err(Misplaced::at(weight, "a weight is at least 0.001"));
            };
            let known = weights.insert(role.clone(), scalar);
            if known.is_some_and(|known| known != scalar) {
                let what = format!("another group says another weight of the role {role}");
                return Err(Misplaced::at(weight, what));
            }
        }
        if let Some(quota) = &part.quota {
            let of_role = check_quota(&role, quota)?;
            if quotas.insert(role.clone(), of_role).is_some() {
                let what = format!("another group says the quota of the role {role} already");
                return Err(Misplaced::at(quota, what));
            }
        }
    }
    let mut commands = Vec::new();
    if !weights.is_empty() {
        let weights = weights.into_iter().collect();
        commands.push(Command::SetWeights { weights });
    }
    if !quotas.is_empty() {
        let quotas = quotas.into_iter().collect();
        commands.push(Command::SetQuotas { quotas });
    }
    Ok(commands)
}

/// As the master would: everybody has no quota, and a guarantee is within the limit.
fn check_quota(
    role: &RoleName,
    part: &Spanned<super::file::QuotaPart>,
) -> Result<Quota, Misplaced> {
    let refuse = |what: String| Err(Misplaced::at(part, what));
    if role.is_any() {
        return refuse("`*` is everybody's: give the group a role of its own".to_owned());
    }
    let amounts = |amount: &Option<Amount>| {
        let amount = amount.as_ref();
        amount.map_or(Some(BTreeMap::new()), |amount| scalars(&amount.0))
    };
    let quota = part.get_ref();
    let (Some(guarantees), Some(limits)) = (amounts(&quota.guarantee), amounts(&quota.limit))
    else {
        return refuse("a quota is of plain amounts, as \"cpus:100;mem:200000\"".to_owned());
    };
    let names: BTreeSet<&ResourceName> = guarantees.keys().collect();
    for name in names {
        let (guarantee, limit) = (guarantees[name], limits.get(name));
        if limit.is_some_and(|limit| *limit < guarantee) {
            return refuse(format!("more of {name} is guaranteed than allowed"));
        }
    }
    Ok(Quota { guarantees, limits })
}

/// The amounts, if they are all plain ones.
fn scalars(resources: &Resources) -> Option<BTreeMap<ResourceName, Scalar>> {
    let scalar = |resource: &meros_proto::resources::Resource| match resource.value() {
        Value::Scalar(scalar) => Some((resource.name().clone(), *scalar)),
        _ => None,
    };
    resources.iter().map(scalar).collect()
}
