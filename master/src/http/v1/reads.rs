//! What the tools of Mesos read: `/state` and its parts, with and without `/master` (semantics A10, R3,
//! R5, R6, R14). From the read model only.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::refusal::Refusal;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::{
    ExecutorView, FrameworkRow, FrameworkState, MasterView, OfferView, RoleRow, SettingView,
    SlaveRow, TaskRow, TaskView,
};
use meros_v1::ids::Ids;
use meros_v1::pb;
use meros_v1::state::{self, Parts, VERSION};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Api;
use crate::projection::{ReadModel, RoleFilter, TaskFilter};

/// Rows of each kind in one answer; those beyond are left out. A task takes about 1 KiB, and the
/// answers that wait for their readers are bounded all together.
pub(super) const ROWS_MAX: usize = 100_000;

/// Tasks in an answer to `/tasks` if the client does not say.
const TASKS_DEFAULT: usize = 100;

/// A Mesos master that has just begun to lead knows no tasks of slaves that have not come back, and v1 has
/// no word for those that are only remembered.
fn confirmed(rows: Vec<TaskRow>) -> Vec<Arc<TaskView>> {
    let confirmed = rows.into_iter().filter(|row| !row.remembered);
    confirmed.map(|row| row.task).collect()
}

/// What one answer is made of, picked under one lock.
pub(super) struct Picked {
    pub(super) master: MasterView,
    pub(super) ids: Ids,
    pub(super) slaves: Vec<SlaveRow>,
    pub(super) frameworks: Vec<FrameworkRow>,
    pub(super) tasks: Vec<Arc<TaskView>>,
    pub(super) offers: Vec<Arc<OfferView>>,
    pub(super) executors: Vec<Arc<ExecutorView>>,
}

impl Picked {
    pub(super) fn all(model: &ReadModel) -> Option<Self> {
        let master = model.master()?.clone();
        Some(Self {
            ids: Ids::new(master.cluster_id),
            master,
            slaves: model.slaves(None, ROWS_MAX).rows,
            frameworks: model.frameworks(None, ROWS_MAX).rows,
            tasks: confirmed(model.tasks(&TaskFilter::default(), None, ROWS_MAX).rows),
            offers: model.offers(None, None, ROWS_MAX).rows,
            executors: model.executors().take(ROWS_MAX).cloned().collect(),
        })
    }

    fn slaves(&self) -> Vec<Value> {
        let known = self.slaves.iter().filter(|row| !is_recovered(row));
        known.map(|row| state::slave(self.ids, row)).collect()
    }

    fn recovered_slaves(&self) -> Vec<Value> {
        let away = self.slaves.iter().filter(|row| is_recovered(row));
        away.map(|row| state::slave(self.ids, row)).collect()
    }

    /// Those that are there, and those that have ended.
    fn frameworks(&self) -> (Vec<Value>, Vec<Value>) {
        let mut tasks: BTreeMap<FrameworkId, Vec<&TaskView>> = BTreeMap::new();
        for task in &self.tasks {
            tasks.entry(task.framework_id).or_default().push(task);
        }
        let mut offers: BTreeMap<FrameworkId, Vec<&OfferView>> = BTreeMap::new();
        for offer in &self.offers {
            offers.entry(offer.framework_id).or_default().push(offer);
        }
        let mut executors: BTreeMap<FrameworkId, Vec<&ExecutorView>> = BTreeMap::new();
        for executor in &self.executors {
            let of_framework = executors.entry(executor.framework_id).or_default();
            of_framework.push(executor);
        }
        let (mut live, mut completed) = (Vec::new(), Vec::new());
        for row in &self.frameworks {
            let id = row.framework.framework_id;
            let tasks = tasks.remove(&id).unwrap_or_default();
            let offers = offers.remove(&id).unwrap_or_default();
            let parts = Parts {
                tasks,
                offers,
                executors: executors.remove(&id).unwrap_or_default(),
            };
            let shown = state::framework(self.ids, row, parts);
            match row.framework.state {
                FrameworkState::Completed => completed.push(shown),
                _ => live.push(shown),
            }
        }
        (live, completed)
    }

    /// Tasks by state, of each framework or on each slave, for `/state-summary`.
    fn counts<K: Ord>(&self, key: impl Fn(&TaskView) -> K) -> BTreeMap<K, BTreeMap<&str, u64>> {
        let mut counts: BTreeMap<K, BTreeMap<&str, u64>> = BTreeMap::new();
        for task in &self.tasks {
            let of_key = counts.entry(key(task)).or_default();
            *of_key.entry(task.state.name()).or_default() += 1;
        }
        counts
    }
}

fn is_recovered(row: &SlaveRow) -> bool {
    row.slave.state == SlaveState::Recovered
}

/// Makes an answer away from the threads that serve the network.
async fn answer(
    api: Arc<Api>,
    make: impl FnOnce(&Api, Picked) -> Value + Send + 'static,
) -> Result<Response, ApiError> {
    let made = tokio::task::spawn_blocking(move || {
        let picked = Picked::all(&api.projection.read()).ok_or(Refusal::Recovering)?;
        Ok::<_, ApiError>(make(&api, picked))
    });
    let value = made
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(value).into_response())
}

pub(super) async fn slaves(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    answer(api, |_, picked| {
        json!({"slaves": picked.slaves(), "recovered_slaves": picked.recovered_slaves()})
    })
    .await
}

pub(super) async fn frameworks(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    answer(api, |_, picked| {
        let (frameworks, completed) = picked.frameworks();
        json!({"frameworks": frameworks, "completed_frameworks": completed,
            "unregistered_frameworks": []})
    })
    .await
}

pub(super) async fn whole(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    answer(api, |api, picked| {
        let (frameworks, completed) = picked.frameworks();
        let in_state = |state: SlaveState| {
            picked
                .slaves
                .iter()
                .filter(|row| row.slave.state == state)
                .count()
        };
        let address = api.address;
        json!({
            "version": VERSION,
            "meros_version": picked.master.version,
            "id": picked.master.cluster_id.to_string(),
            "cluster": picked.master.cluster_id.to_string(),
            "pid": format!("master@{address}"),
            "hostname": address.ip().to_string(),
            "leader": format!("master@{address}"),
            "leader_info": leader_info(api),
            "elected_time": picked.master.elected_at.as_secs_f64(),
            "start_time": picked.master.elected_at.as_secs_f64(),
            "activated_slaves": in_state(SlaveState::Registered),
            "deactivated_slaves": in_state(SlaveState::Disconnected),
            "unreachable_slaves": in_state(SlaveState::Unreachable),
            "flags": flags_of(api),
            "slaves": picked.slaves(),
            "recovered_slaves": picked.recovered_slaves(),
            "frameworks": frameworks,
            "completed_frameworks": completed,
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        })
    })
    .await
}

fn leader_info(api: &Api) -> Value {
    let pb::MasterInfo {
        id,
        pid,
        port,
        hostname,
        ..
    } = super::stream::master_info(api);
    json!({"id": id, "pid": pid, "port": port, "hostname": hostname})
}

/// Numbers of tasks instead of tasks.
pub(super) async fn summary(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    answer(api, |api, picked| {
        let by_slave = picked.counts(|task| task.slave_id);
        let by_framework = picked.counts(|task| task.framework_id);
        let with = |mut row: Value, counts: Option<&BTreeMap<&str, u64>>| {
            for list in [
                "tasks",
                "unreachable_tasks",
                "completed_tasks",
                "offers",
                "executors",
            ] {
                if let Some(row) = row.as_object_mut() {
                    row.remove(list);
                }
            }
            for state in TaskState::ALL {
                let count = counts.and_then(|counts| counts.get(state.name()));
                row[state.name()] = json!(count.copied().unwrap_or_default());
            }
            row
        };
        let slaves: Vec<Value> = picked
            .slaves
            .iter()
            .map(|row| {
                with(
                    state::slave(picked.ids, row),
                    by_slave.get(&row.slave.slave_id),
                )
            })
            .collect();
        let frameworks: Vec<Value> = picked
            .frameworks
            .iter()
            .filter(|row| row.framework.state != FrameworkState::Completed)
            .map(|row| {
                let shown = state::framework(picked.ids, row, Parts::default());
                with(shown, by_framework.get(&row.framework.framework_id))
            })
            .collect();
        json!({"hostname": api.address.ip().to_string(), "slaves": slaves, "frameworks": frameworks,
            "cluster": picked.master.cluster_id.to_string()})
    })
    .await
}

#[derive(Debug, Deserialize)]
pub(super) struct TasksQuery {
    limit: Option<usize>,
    offset: Option<usize>,
    order: Option<String>,
    framework_id: Option<String>,
    task_id: Option<String>,
}

/// The newest first, unless `order=asc`.
pub(super) async fn tasks(
    State(api): State<Arc<Api>>,
    query: Result<Query<TasksQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let made = tokio::task::spawn_blocking(move || {
        let (ids, mut rows) = {
            let model = api.projection.read();
            let master = model.master().ok_or(Refusal::Recovering)?;
            let ids = Ids::new(master.cluster_id);
            let filter = match filter(ids, &query) {
                Some(filter) => filter,
                None => return Ok(json!({"tasks": []})),
            };
            (ids, confirmed(model.tasks(&filter, None, ROWS_MAX).rows))
        };
        match query.order.as_deref() {
            Some("asc") => rows.sort_by_key(|task| task.launched_at),
            _ => rows.sort_by_key(|task| std::cmp::Reverse(task.launched_at)),
        }
        let rows = rows.iter().skip(query.offset.unwrap_or_default());
        let rows = rows.take(query.limit.unwrap_or(TASKS_DEFAULT).min(ROWS_MAX));
        let tasks: Vec<Value> = rows.map(|task| state::task(ids, task)).collect();
        Ok::<_, ApiError>(json!({"tasks": tasks}))
    });
    let value = made
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(value).into_response())
}

/// None if nothing can match.
fn filter(ids: Ids, query: &TasksQuery) -> Option<TaskFilter> {
    let framework = match &query.framework_id {
        Some(value) => Some(ids.read_framework(&pb::FrameworkId {
            value: value.clone(),
        })?),
        None => None,
    };
    let task = match &query.task_id {
        Some(value) => Some(TaskId::new(value).ok()?),
        None => None,
    };
    Some(TaskFilter {
        framework,
        task,
        state: None,
    })
}

pub(super) async fn roles(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let made = tokio::task::spawn_blocking(move || {
        let (ids, rows, frameworks) = {
            let model = api.projection.read();
            let master = model.master().ok_or(Refusal::Recovering)?;
            let rows: Vec<RoleRow> = model.roles(RoleFilter::Any, None, ROWS_MAX).rows;
            let frameworks = frameworks_of_roles(&model);
            (Ids::new(master.cluster_id), rows, frameworks)
        };
        let roles: Vec<Value> = rows
            .iter()
            .map(|row| {
                let frameworks = frameworks.get(row.role.as_str());
                state::role(ids, row, frameworks.map_or(&[][..], Vec::as_slice))
            })
            .collect();
        Ok::<_, ApiError>(json!({"roles": roles}))
    });
    let value = made
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(value).into_response())
}

/// Who is in which role, completed ones not.
pub(super) fn frameworks_of_roles(model: &ReadModel) -> BTreeMap<String, Vec<FrameworkId>> {
    let mut of_roles: BTreeMap<String, Vec<FrameworkId>> = BTreeMap::new();
    let live = model
        .framework_views()
        .filter(|view| view.state != FrameworkState::Completed);
    for view in live {
        for role in &view.roles {
            let members = of_roles.entry(role.as_str().to_owned()).or_default();
            members.push(view.framework_id);
        }
    }
    of_roles
}

/// Any master answers for itself.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": VERSION, "meros_version": env!("CARGO_PKG_VERSION")}))
}

/// The settings in force; any master answers for itself.
pub(super) async fn flags(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({"flags": flags_of(&api)}))
}

fn flags_of(api: &Api) -> serde_json::Map<String, Value> {
    let flag = |it: &SettingView| (it.option.clone(), json!(it.value));
    api.settings.iter().map(flag).collect()
}

/// 307 to the base address of the leader, maybe this one (semantics R5).
pub(super) async fn redirect(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let leads = api.projection.is_leading();
    let location = match (leads, api.status.other_leader()) {
        (true, _) => format!("//{}", api.address),
        (false, Some(leader)) => format!("//{}", leader.address),
        (false, None) => return Err(Refusal::Recovering.into()),
    };
    let location = HeaderValue::from_str(&location)
        .map_err(|error| ApiError::internal(format!("no address of the leader: {error}")))?;
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
}

/// The metrics that dashboards look for, under the names they know. Ours are at `/metrics`.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(Value::Object(snapshot(&api)))
}

/// The same, for the operator API.
pub(super) fn snapshot(api: &Api) -> serde_json::Map<String, Value> {
    let model = api.projection.read();
    let mut out = serde_json::Map::new();
    let mut put = |name: &str, value: u64| out.insert(name.to_owned(), json!(value));
    put("master/elected", model.master().is_some().into());
    for (state, count) in model.task_totals().iter() {
        let name = state.name().to_lowercase();
        let name = name.strip_prefix("task_").unwrap_or(&name);
        put(&format!("master/tasks_{name}"), count);
    }
    let slaves = |state: SlaveState| {
        let count = model
            .slave_views()
            .filter(|view| view.state == state)
            .count();
        u64::try_from(count).unwrap_or(u64::MAX)
    };
    put("master/slaves_active", slaves(SlaveState::Registered));
    put("master/slaves_connected", slaves(SlaveState::Registered));
    put(
        "master/slaves_disconnected",
        slaves(SlaveState::Disconnected),
    );
    put("master/slaves_unreachable", slaves(SlaveState::Unreachable));
    let frameworks = |state: FrameworkState| {
        let count = model
            .framework_views()
            .filter(|view| view.state == state)
            .count();
        u64::try_from(count).unwrap_or(u64::MAX)
    };
    put(
        "master/frameworks_active",
        frameworks(FrameworkState::Subscribed),
    );
    put(
        "master/frameworks_connected",
        frameworks(FrameworkState::Subscribed),
    );
    put(
        "master/frameworks_disconnected",
        frameworks(FrameworkState::Disconnected),
    );
    put(
        "master/outstanding_offers",
        u64::try_from(model.offers_count()).unwrap_or(u64::MAX),
    );
    out
}
