//! `meros ps|frameworks|offers`: what the leading master knows, as a table or JSON.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use meros_proto::resources::{ResourceName, Resources};
use meros_proto::time::Timestamp;
use meros_proto::view::{FrameworkRow, OfferView, TaskRow};

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::output::table::{age, layout, short, shortened};
use crate::output::{Output, print};

/// What every list takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What `meros ps` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: Args,
    /// Show tasks that have ended, too
    #[arg(long, short)]
    all: bool,
}

pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default().after(since_epoch)
}

fn scalar(resources: &Resources, name: &ResourceName) -> String {
    resources.scalar(name).to_string()
}

/// `25%`, or a dash while there is nothing to count.
fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{}%", part.saturating_mul(100) / whole),
    }
}

/// A task that ends while the pages are read is in two of them: the later one is right.
fn newest_of_each(mut rows: Vec<TaskRow>) -> Vec<TaskRow> {
    let mut seen = BTreeSet::new();
    rows.reverse();
    rows.retain(|TaskRow { task, .. }| {
        seen.insert((task.framework_id, task.task_id.clone(), task.launched_at))
    });
    rows.reverse();
    rows
}

pub(crate) fn tasks(args: &PsArgs) -> Result<Exit, CliError> {
    let path = match args.all {
        true => "/api/v1/tasks",
        false => "/api/v1/tasks?state=active",
    };
    let rows = newest_of_each(Client::new(&args.list.cluster).list(path)?);
    let now = now();
    print(args.list.output, &rows, |rows| {
        let line = |row: &TaskRow| {
            let task = &row.task;
            let state = task.state.name().trim_start_matches("TASK_");
            let message = task
                .status
                .as_ref()
                .map_or("", |status| status.message.as_str());
            vec![
                task.task_id.to_string(),
                task.framework_id.to_string(),
                task.slave_id.to_string(),
                // That of its framework, or its group.
                match &task.executor_id {
                    Some(id) => shortened(id.as_str(), 32),
                    None => "-".to_owned(),
                },
                match row.remembered {
                    // Its slave has not come back to the new leader.
                    true => format!("{state}?"),
                    false => state.to_owned(),
                },
                scalar(&task.resources, &ResourceName::CPUS),
                scalar(&task.resources, &ResourceName::MEM),
                age(task.launched_at, now),
                shortened(message, 48),
            ]
        };
        layout(
            &[
                "TASK",
                "FRAMEWORK",
                "SLAVE",
                "EXECUTOR",
                "STATE",
                "CPUS",
                "MEM",
                "AGE",
                "MESSAGE",
            ],
            rows.iter().map(line).collect(),
            "no tasks are running; --all shows those that have ended",
        )
    })?;
    Ok(Exit::Success)
}

pub(crate) fn frameworks(args: &Args) -> Result<Exit, CliError> {
    let rows: Vec<FrameworkRow> = Client::new(&args.cluster).list("/api/v1/frameworks")?;
    let now = now();
    print(args.output, &rows, |rows| {
        let line = |row: &FrameworkRow| {
            let framework = &row.framework;
            let roles: Vec<String> = framework.roles.iter().map(ToString::to_string).collect();
            vec![
                framework.framework_id.to_string(),
                shortened(&framework.name, 32),
                framework.principal.clone(),
                shortened(&roles.join(","), 32),
                framework.state.name().to_owned(),
                age(framework.state_since, now),
                row.tasks.to_string(),
                row.offers.to_string(),
                short(row.offers_held_mean),
                percent(row.offers_unused, row.offers_ended),
                framework
                    .offers_max
                    .map_or_else(|| "-".to_owned(), |most| most.to_string()),
                scalar(&row.used, &ResourceName::CPUS),
                scalar(&row.used, &ResourceName::MEM),
            ]
        };
        let headings = [
            "FRAMEWORK",
            "NAME",
            "PRINCIPAL",
            "ROLES",
            "STATE",
            "SINCE",
            "TASKS",
            "OFFERS",
            "HELD",
            "UNUSED",
            "AT MOST",
            "CPUS",
            "MEM",
        ];
        layout(
            &headings,
            rows.iter().map(line).collect(),
            "no frameworks have subscribed yet",
        )
    })?;
    Ok(Exit::Success)
}

pub(crate) fn offers(args: &Args) -> Result<Exit, CliError> {
    let rows: Vec<OfferView> = Client::new(&args.cluster).list("/api/v1/offers")?;
    let now = now();
    print(args.output, &rows, |rows| {
        let line = |offer: &OfferView| {
            vec![
                offer.offer_id.to_string(),
                offer.framework_id.to_string(),
                offer.slave_id.to_string(),
                offer.role.to_string(),
                age(offer.made_at, now),
                shortened(&offer.resources.to_string(), 80),
            ]
        };
        layout(
            &["OFFER", "FRAMEWORK", "SLAVE", "ROLE", "AGE", "RESOURCES"],
            rows.iter().map(line).collect(),
            "no offers are outstanding",
        )
    })?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
    use meros_proto::status::TaskState;
    use meros_proto::view::TaskView;

    use super::*;

    fn task(id: &str, state: TaskState, launched_at: u64) -> TaskRow {
        let task = TaskView {
            task_id: TaskId::new(id).unwrap(),
            name: String::new(),
            framework_id: FrameworkId(0),
            slave_id: SlaveId(0),
            role: "*".parse().unwrap(),
            resources: Resources::new(),
            state,
            status: None,
            launched_at: Timestamp(launched_at),
            labels: Default::default(),
            executor_id: None,
        };
        TaskRow {
            task: task.into(),
            remembered: false,
        }
    }

    #[test]
    fn a_task_that_ends_between_two_pages_is_shown_once_as_ended() {
        let running = task("a", TaskState::Running, 1);
        let other = task("b", TaskState::Running, 1);
        let ended = task("a", TaskState::Finished, 1);
        // An earlier task of that id is another task.
        let earlier = task("a", TaskState::Failed, 0);
        let rows = newest_of_each(vec![running, other.clone(), ended.clone(), earlier.clone()]);
        assert_eq!(rows, [other, ended, earlier]);
    }
}
