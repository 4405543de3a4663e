//! `GET` and `POST /api/v1/settings`: what masters were started with, and what operators have set for the
//! cluster instead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::ClusterSetting;
use meros_master_core::event::OperatorCall;
use meros_proto::view::SettingView;
use serde::Deserialize;
use tracing::info;

use super::Api;
use super::orders::{json, order};

/// Each master answers with its own, leading or not; what is set for the cluster, as far as it knows.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<SettingView>> {
    let mut rows = api.settings.clone();
    let set = api.members.as_ref().map(|members| members.settings());
    for (setting, value) in set.unwrap_or_default() {
        let name = setting.name();
        for row in rows.iter_mut().filter(|row| row.option == name) {
            row.value = shown(setting, value);
            row.of_cluster = true;
        }
    }
    Json(rows)
}

fn shown(setting: ClusterSetting, value: u64) -> String {
    match setting.is_time() {
        true => humantime::format_duration(Duration::from_millis(value)).to_string(),
        false => value.to_string(),
    }
}

/// A change, all of it or nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// By name: a time such as `1min`, or a number.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Names of those that are to be again what masters were started with.
    #[serde(default)]
    unset: Vec<String>,
}

/// Only the leader carries it out. Durable and in force when it answers.
pub(super) async fn set(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, ApiError> {
    let change: Change = json(&body)?;
    let mut settings = Vec::new();
    for (name, text) in &change.set {
        let setting = named(name)?;
        settings.push((setting, Some(value(setting, text)?)));
    }
    for name in &change.unset {
        settings.push((named(name)?, None));
    }
    info!(?settings, "operator changes settings of the cluster");
    order(&api, OperatorCall::SetSettings { settings }).await
}

fn named(name: &str) -> Result<ClusterSetting, ApiError> {
    ClusterSetting::named(name).ok_or_else(|| {
        let known: Vec<&str> = ClusterSetting::ALL.map(ClusterSetting::name).to_vec();
        ApiError::invalid(format!(
            "{name:?} cannot be set for the cluster; these can: {}",
            known.join(", ")
        ))
    })
}

fn value(setting: ClusterSetting, text: &str) -> Result<u64, ApiError> {
    let name = setting.name();
    if setting.is_time() {
        let time = humantime::parse_duration(text).map_err(|error| {
            ApiError::invalid(format!(
                "{name} is {text:?}, not a duration such as 1min: {error}"
            ))
        })?;
        return Ok(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    text.parse()
        .map_err(|_| ApiError::invalid(format!("{name} is {text:?}, not a number")))
}
