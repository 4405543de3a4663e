//! `GET /api/v1/why?framework=F0`, `?role=a/b`, `?slave=S0` or `?task=ID[&framework=F0]`: the one
//! read that enters the core, because only the decision path can answer it. The core bounds what
//! that costs; beyond it the answer is 429.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_master_core::effect::Answer;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::view::TaskView;
use meros_proto::why::{Why, WhyQuestion, WhyTask};
use serde::Deserialize;

use super::Api;
use super::orders::ordered;
use super::reads::query;
use crate::projection::{ReadModel, TaskFilter};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    framework: Option<FrameworkId>,
    role: Option<RoleName>,
    slave: Option<SlaveId>,
    task: Option<TaskId>,
}

pub(super) async fn why(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    let question = match query(&uri)? {
        WhyQuery {
            framework: Some(framework),
            role: None,
            slave: None,
            task: None,
        } => WhyQuestion::Framework(framework),
        WhyQuery {
            framework: None,
            role: Some(role),
            slave: None,
            task: None,
        } => WhyQuestion::Role(role),
        WhyQuery {
            framework: None,
            role: None,
            slave: Some(slave),
            task: None,
        } => WhyQuestion::Slave(slave),
        WhyQuery {
            framework,
            role: None,
            slave: None,
            task: Some(task),
        } => return why_task(&api, framework, task).await,
        _ => {
            return Err(ApiError::invalid(
                "ask about one thing: framework=F0, role=NAME, slave=S0, or task=ID, which may \
                 have its framework beside it",
            ));
        }
    };
    respond(ordered(&api, OperatorCall::Why(question)).await?)
}

fn respond(answer: Answer) -> Result<Response, ApiError> {
    let Answer::Why(why) = answer else {
        return Err(ApiError::internal("a question was taken for an order"));
    };
    Ok(match *why {
        Why::Offers(offers) => Json(offers).into_response(),
        Why::Task(task) => Json(task).into_response(),
    })
}

async fn why_task(
    api: &Api,
    framework: Option<FrameworkId>,
    task_id: TaskId,
) -> Result<Response, ApiError> {
    let found = find(&api.projection.read(), framework, &task_id)?;
    let asked = WhyQuestion::Task(found.framework_id, task_id);
    match ordered(api, OperatorCall::Why(asked)).await {
        Ok(answer) => respond(answer),
        // The core forgets a task when its end is acknowledged; readers remember it for a while.
        Err(error) if error.code() == "task_unknown" => Ok(Json(ended(&found)).into_response()),
        Err(error) => Err(error),
    }
}

/// The task of that id: one that lives before one that has ended, the newest of those.
fn find(
    model: &ReadModel,
    framework: Option<FrameworkId>,
    task_id: &TaskId,
) -> Result<Arc<TaskView>, ApiError> {
    let filter = TaskFilter {
        framework,
        task: Some(task_id.clone()),
        state: None,
    };
    let rows = model.tasks(&filter, None, usize::MAX).rows;
    let live = rows
        .iter()
        .filter(|row| !row.task.state.is_terminal())
        .count();
    let of_others = rows
        .iter()
        .any(|row| row.task.framework_id != rows[0].task.framework_id);
    if live > 1 || (live == 0 && of_others) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "ambiguous",
            format!("several frameworks have a task {task_id}: say which framework"),
        ));
    }
    let first_live = rows.iter().find(|row| !row.task.state.is_terminal());
    let found = first_live.or_else(|| rows.first());
    let found = found.map(|row| Arc::clone(&row.task));
    found.ok_or_else(|| {
        Refusal::TaskUnknown {
            task_id: task_id.clone(),
        }
        .into()
    })
}

/// What is to be said of a task that is over and done with.
fn ended(task: &TaskView) -> WhyTask {
    let status = task.status.as_ref();
    let message = status.map(|status| status.message.clone());
    WhyTask {
        framework_id: task.framework_id,
        task_id: task.task_id.clone(),
        slave_id: task.slave_id,
        state: task.state,
        reason: status.and_then(|status| status.reason),
        because: message
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect(),
        advice: "nothing: it has ended, and its framework has acknowledged that".to_owned(),
    }
}
