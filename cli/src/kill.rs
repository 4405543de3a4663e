//! `meros kill TASK`.

use std::time::Duration;

use meros_proto::ids::FrameworkId;

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::logs::find_task;

/// What `meros kill` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's id
    task: String,
    /// Its framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    /// From SIGTERM to SIGKILL, such as 10s; by default the task's own
    #[arg(long, value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    if task.state.is_terminal() {
        return Err(CliError::failure(format!(
            "task {} has ended: {}",
            task.task_id, task.state
        )));
    }
    let grace = args.grace.map_or_else(String::new, |grace| {
        format!("?grace={}ms", grace.as_millis())
    });
    let (framework, id) = (task.framework_id, &task.task_id);
    client.post(&format!(
        "/api/v1/tasks/{framework}/{}/kill{grace}",
        crate::client::escaped(id.as_str())
    ))?;
    println!("kill of {id} is on its way; `meros ps` shows when it has ended");
    Ok(Exit::Success)
}
