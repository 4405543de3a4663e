//! POST: quotas, weights and minimums of roles, several in one order, all or none (semantics E2, E8, E10).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::minimum::Minimum;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::Api;
use super::orders::{json, ordered};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quotas {
    quotas: Vec<RoleQuota>,
    #[serde(default)]
    force: bool,
}

/// The whole quota of a role: what is not named in it is not guaranteed or limited any more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleQuota {
    role: RoleName,
    #[serde(default)]
    guarantees: BTreeMap<ResourceName, Scalar>,
    #[serde(default)]
    limits: BTreeMap<ResourceName, Scalar>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    weights: Vec<RoleWeight>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleWeight {
    role: RoleName,
    weight: Scalar,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Minimums {
    minimums: Vec<RoleMinimum>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleMinimum {
    role: RoleName,
    /// As `cpus:0.01|mem:32`; null takes away what was set.
    #[serde(deserialize_with = "Option::deserialize")]
    minimum: Option<Minimum>,
}

/// What an operator should know of an order that was carried out.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    /// Roles in it that no framework is in, nor in a role below: maybe misspelt.
    roles_without_frameworks: Vec<RoleName>,
}

impl Done {
    fn of(api: &Api, mut roles: Vec<RoleName>) -> Json<Self> {
        let model = api.projection.read();
        roles.retain(|role| !model.has_framework_in(role));
        Json(Self {
            roles_without_frameworks: roles,
        })
    }
}

/// `POST /api/v1/quotas`: the quotas are durable and enforced when this answers.
pub(super) async fn set_quotas(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<Done>, ApiError> {
    let Quotas { quotas, force } = json(&body)?;
    let roles = quotas.iter().map(|it| it.role.clone()).collect();
    info!(roles = quotas.len(), force, "operator sets quotas");
    let quota = |it: RoleQuota| {
        let quota = Quota {
            guarantees: it.guarantees,
            limits: it.limits,
        };
        (it.role, quota)
    };
    let quotas = quotas.into_iter().map(quota).collect();
    ordered(&api, OperatorCall::SetQuotas { quotas, force }).await?;
    Ok(Done::of(&api, roles))
}

/// `POST /api/v1/weights`: the weights are durable and in use when this answers.
pub(super) async fn set_weights(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<Done>, ApiError> {
    let Weights { weights } = json(&body)?;
    let roles = weights.iter().map(|it| it.role.clone()).collect();
    info!(roles = weights.len(), "operator sets weights");
    let weights = weights.into_iter().map(|it| (it.role, it.weight));
    let weights = weights.collect();
    ordered(&api, OperatorCall::SetWeights { weights }).await?;
    Ok(Done::of(&api, roles))
}

/// `POST /api/v1/minimums`: the minimums are durable and in use when this answers.
pub(super) async fn set_minimums(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<Done>, ApiError> {
    let Minimums { minimums } = json(&body)?;
    let roles = minimums.iter().map(|it| it.role.clone()).collect();
    info!(roles = minimums.len(), "operator sets minimums");
    let minimums = minimums.into_iter().map(|it| (it.role, it.minimum));
    let minimums = minimums.collect();
    ordered(&api, OperatorCall::SetMinimums { minimums }).await?;
    Ok(Done::of(&api, roles))
}
