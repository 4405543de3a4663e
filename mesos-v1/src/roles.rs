//! What operators set for roles, from v1 (semantics E8, E10, O1).

use std::collections::BTreeMap;

use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;

use crate::pb::quota::{QuotaConfig, QuotaRequest};
use crate::{Refused, pb};

/// Reads the name of a role.
///
/// # Errors
/// It is none.
pub fn role(field: &str, name: &str) -> Result<RoleName, Refused> {
    RoleName::new(name).map_err(|error| Refused::invalid(field, error))
}

fn amount(field: &str, value: f64) -> Result<Scalar, Refused> {
    Scalar::from_f64(value).map_err(|error| Refused::invalid(field, error))
}

/// Reads weights.
///
/// # Errors
/// A role or a weight is none.
pub fn weights(infos: &[pb::WeightInfo]) -> Result<Vec<(RoleName, Scalar)>, Refused> {
    let one = |info: &pb::WeightInfo| {
        let role = role("weight_infos.role", info.role())?;
        Ok((role, amount("weight_infos.weight", info.weight)?))
    };
    infos.iter().map(one).collect()
}

/// Reads the quota of a role.
///
/// # Errors
/// The role, or the name or amount of a resource is none.
pub fn quota(config: &QuotaConfig) -> Result<(RoleName, Quota), Refused> {
    let amounts = |amounts: &BTreeMap<String, pb::value::Scalar>| {
        let read = amounts.iter().map(|(name, value)| {
            let name = ResourceName::new(name)
                .map_err(|error| Refused::invalid("quota_configs", error))?;
            Ok::<_, Refused>((name, amount("quota_configs", value.value)?))
        });
        read.collect::<Result<BTreeMap<_, _>, _>>()
    };
    let quota = Quota {
        guarantees: amounts(&config.guarantees)?,
        limits: amounts(&config.limits)?,
    };
    Ok((role("quota_configs.role", &config.role)?, quota))
}

/// Reads a quota of the older form: what is guaranteed is the limit, too.
///
/// # Errors
/// The role is none, or what is guaranteed is nothing, is named twice, or is anything else than amounts.
pub fn quota_request(request: &QuotaRequest) -> Result<(RoleName, Quota), Refused> {
    let role = role("quota_request.role", request.role())?;
    if request.guarantee.is_empty() {
        let why = "it needs an amount";
        return Err(Refused::invalid("quota_request.guarantee", why));
    }
    let mut amounts = BTreeMap::new();
    for resource in &request.guarantee {
        let field = format!(
            "quota_request.guarantee.{}",
            crate::resources::shortened(&resource.name)
        );
        let Some(value) = &resource.scalar else {
            return Err(Refused::invalid(field, "it must be a scalar"));
        };
        let is_special = resource.disk.is_some()
            || resource.revocable.is_some()
            || resource.reservation.is_some()
            || !resource.reservations.is_empty()
            || !matches!(resource.role(), "" | "*");
        if is_special {
            let why = "a quota is of amounts, not of what is reserved, revocable or a volume";
            return Err(Refused::invalid(field, why));
        }
        let name =
            ResourceName::new(&resource.name).map_err(|error| Refused::invalid(&field, error))?;
        if amounts.insert(name, amount(&field, value.value)?).is_some() {
            return Err(Refused::invalid(field, "it is named twice"));
        }
    }
    let quota = Quota {
        guarantees: amounts.clone(),
        limits: amounts,
    };
    Ok((role, quota))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Media, decode};

    fn read(json: &str) -> Result<(RoleName, Quota), Refused> {
        let request = decode(Media::Json, json.as_bytes()).expect("a request");
        quota_request(&request)
    }

    #[test]
    fn a_quota_of_the_older_form_is_guarantee_and_limit() {
        let request = r#"{"role": "web", "guarantee": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}, "role": "*"}]}"#;
        let (role, quota) = read(request).expect("a quota");
        assert_eq!(role.as_str(), "web");
        assert_eq!(quota.guarantees, quota.limits);
        let cpus = &quota.limits[&ResourceName::new("cpus").expect("a name")];
        assert_eq!(cpus.as_f64(), 1.5);
        assert_eq!(quota.limits.len(), 2);
    }

    #[test]
    fn what_is_no_quota_of_the_older_form_is_refused_by_name() {
        let cpus = r#"{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}"#;
        let ports = r#"{"name": "ports", "type": "RANGES", "ranges": {"range": []}}"#;
        let reserved = r#"{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": "a"}"#;
        for (role, guarantee, why) in [
            ("a/", cpus.to_owned(), "quota_request.role"),
            ("a", String::new(), "it needs an amount"),
            ("a", ports.to_owned(), "guarantee.ports"),
            ("a", reserved.to_owned(), "what is reserved"),
            ("a", format!("{cpus},{cpus}"), "twice"),
        ] {
            let json = format!(r#"{{"role": "{role}", "guarantee": [{guarantee}]}}"#);
            let refused = read(&json).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
