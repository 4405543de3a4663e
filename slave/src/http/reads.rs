//! What the tools of Mesos read of an agent beside its state and its files: `/version`, `/flags` and
//! `/metrics/snapshot` (semantics A10, R3, R6), which the operator API tells, too.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use meros_daemon::http::ApiError;
use meros_proto::resources::ResourceName;
use meros_proto::view::SettingView;
use meros_v1::state::VERSION;
use serde_json::{Map, Value, json};

use super::{Api, CORE_PATIENCE, error};
use crate::shell::inbox::Input;

pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in ["", "/slave(1)"] {
        for ending in ["", ".json", "/"] {
            let at = |name: &str| format!("{prefix}/{name}{ending}");
            router = router
                .route(&at("version"), get(version))
                .route(&at("flags"), get(flags));
        }
        router = router.route(&format!("{prefix}/metrics/snapshot"), get(metrics));
    }
    router
}

async fn version() -> Json<Value> {
    Json(json!({"version": VERSION, "meros_version": env!("CARGO_PKG_VERSION")}))
}

async fn flags(State(api): State<Arc<Api>>) -> Json<Value> {
    let flag = |it: &SettingView| (it.option.clone(), json!(it.value));
    let flags: Map<String, Value> = api.site.settings.iter().map(flag).collect();
    Json(json!({"flags": flags}))
}

async fn metrics(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    snapshot(&api).await.map(|all| Json(Value::Object(all)))
}

/// The metrics that dashboards look for, under the names they know. Ours are at `/metrics`.
pub(super) async fn snapshot(api: &Api) -> Result<Map<String, Value>, ApiError> {
    let now = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let now = now.map_err(|_| error::stopping())?;
    let here = api.inbox.ask(|reply| Input::Pick(0, reply), CORE_PATIENCE);
    let here = here.await.map_err(|_| error::stopping())?;
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(format!("slave/{name}"), value);
    put("registered", u64::from(now.registered).into());
    for state in ["staging", "starting", "running", "killing"] {
        let name = format!("TASK_{}", state.to_uppercase());
        let count = now.tasks.get(name.as_str()).copied().unwrap_or_default();
        put(&format!("tasks_{state}"), count.into());
    }
    for (how, count) in [
        ("finished", now.counters.tasks_finished),
        ("failed", now.counters.tasks_failed),
        ("killed", now.counters.tasks_killed),
        ("lost", now.counters.tasks_lost),
    ] {
        put(&format!("tasks_{how}"), count.into());
    }
    put("executors_running", now.executors.into());
    for (name, resource) in [
        ("cpus", ResourceName::CPUS),
        ("mem", ResourceName::MEM),
        ("disk", ResourceName::DISK),
    ] {
        let total = here.total.scalar(&resource);
        let used = total.saturating_sub(here.free.scalar(&resource)).as_f64();
        let total = total.as_f64();
        let share = if total > 0.0 { used / total } else { 0.0 };
        put(&format!("{name}_total"), json!(total));
        put(&format!("{name}_used"), json!(used));
        put(&format!("{name}_percent"), json!(share));
    }
    Ok(out)
}
