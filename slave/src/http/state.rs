//! `GET /state`, as the tools of Mesos read it of an agent, for one purpose above all: to find the
//! directory of a task's sandbox (semantics A10, R6, R14). What Meros does not know is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meros_daemon::http::ApiError;
use meros_proto::ids::{ExecutorId, FrameworkId};
use meros_v1::ids::Ids;
use meros_v1::state::{VERSION, resources};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Api, CORE_PATIENCE, ROWS_MAX, error};
use crate::shell::inbox::Input;
use crate::shell::snapshot::TaskRow;

pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in ["", "/slave(1)"] {
        for ending in ["", ".json", "/"] {
            router = router.route(&format!("{prefix}/state{ending}"), get(state));
        }
    }
    router
}

/// The executors of one framework.
#[derive(Default)]
struct Executors {
    live: Vec<Value>,
    /// Where those of the framework are among them.
    own: BTreeMap<ExecutorId, usize>,
    completed: Vec<Value>,
}

impl Executors {
    fn add(&mut self, ids: Ids, slave_id: String, row: &TaskRow) {
        let known = row.executor_id.as_ref().and_then(|id| self.own.get(id));
        let tasks = known.and_then(|at| self.live[*at]["tasks"].as_array_mut());
        if let Some(tasks) = tasks {
            return tasks.push(task(ids, slave_id, row));
        }
        let at = self.live.len();
        self.own.extend(row.executor_id.clone().map(|id| (id, at)));
        self.live.push(executor(ids, slave_id, row));
    }
}

async fn state(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let snapshot = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let snapshot = snapshot.map_err(|_| error::stopping())?;
    let rows = api
        .inbox
        .ask(|reply| Input::Tasks(ROWS_MAX, reply), CORE_PATIENCE);
    let mut rows = rows.await.map_err(|_| error::stopping())?;
    let files = api.files.clone();
    let kept = spawn_blocking(move || files.kept(ROWS_MAX)).await;
    let kept = kept.map_err(|_| error::stopping())?;
    let Some(identity) = snapshot.identity else {
        // No master has given it a name yet.
        return Ok(Json(json!({"version": VERSION, "frameworks": []})).into_response());
    };
    let ids = Ids::new(identity.cluster_id);
    let mut all: BTreeMap<FrameworkId, Executors> = BTreeMap::new();
    let mut live = Vec::new();
    for row in &mut rows {
        row.say_sandbox(|task, container| api.files.sandbox(task, container));
        live.extend(row.sandbox.clone());
        let executors = all.entry(row.framework_id).or_default();
        executors.add(ids, ids.slave(identity.slave_id).value, row);
    }
    for (task, path) in kept {
        if !live.contains(&path) {
            let executors = all.entry(task.0).or_default();
            executors.completed.push(json!({
                "id": task.1.as_str(),
                "container": container_of(&path),
                "directory": path,
                "tasks": [],
                "completed_tasks": [],
            }));
        }
    }
    let frameworks = all.into_iter().map(|(framework, executors)| {
        json!({
            "id": ids.framework(framework).value,
            "executors": executors.live,
            "completed_executors": executors.completed,
        })
    });
    let body = json!({
        "id": ids.slave(identity.slave_id).value,
        "version": VERSION,
        "meros_version": env!("CARGO_PKG_VERSION"),
        "frameworks": frameworks.collect::<Vec<Value>>(),
        "completed_frameworks": [],
    });
    Ok(Json(body).into_response())
}

/// A command task is its own executor.
fn executor_id(row: &TaskRow) -> &str {
    let own = row.executor_id.as_ref();
    own.map_or(row.task_id.as_str(), ExecutorId::as_str)
}

fn task(ids: Ids, slave_id: String, row: &TaskRow) -> Value {
    json!({
        "id": row.task_id.as_str(),
        "name": row.name,
        "framework_id": ids.framework(row.framework_id).value,
        "executor_id": executor_id(row),
        "slave_id": slave_id,
        "role": row.role.as_str(),
        "state": row.state,
        "resources": resources(&row.resources),
    })
}

/// The executor of a task, with it as its first.
fn executor(ids: Ids, slave_id: String, row: &TaskRow) -> Value {
    let task = task(ids, slave_id, row);
    json!({
        "id": executor_id(row),
        "name": row.name,
        "source": "",
        "container": row.container.as_deref().unwrap_or_default(),
        "directory": row.sandbox.as_deref().unwrap_or(Path::new("")),
        "resources": resources(&row.resources),
        "tasks": [task],
        "queued_tasks": [],
        "completed_tasks": [],
    })
}

fn container_of(sandbox: &Path) -> String {
    let name = sandbox.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
