//! `meros logs [-f] TASK`: what a task wrote, read from its slave.

use std::io::Write;
use std::time::Duration;

use meros_proto::ids::FrameworkId;
use meros_proto::view::{SlaveRow, TaskView};

use crate::client::{Client, ClusterArgs, LogRange, escaped};
use crate::exit::{CliError, Exit};

/// How long one request waits on the slave for new output.
pub(crate) const FOLLOW_WAIT: Duration = Duration::from_secs(5);

/// What `meros logs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's id
    task: String,
    /// Its framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    /// Go on until the task ends
    #[arg(long, short)]
    follow: bool,
    /// What it wrote to standard error instead
    #[arg(long)]
    stderr: bool,
    /// Only the last so many bytes
    #[arg(long, value_name = "BYTES", conflicts_with = "follow")]
    tail: Option<u64>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// One of a task's two outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where the output of a task is read.
pub(crate) struct LogSource<'a> {
    pub(crate) client: &'a Client,
    /// The slave's HTTP endpoint.
    pub(crate) slave: &'a str,
    pub(crate) framework: FrameworkId,
    pub(crate) task: &'a str,
    pub(crate) stream: Stream,
}

impl LogSource<'_> {
    fn path(&self) -> String {
        let (framework, task, stream) = (self.framework, escaped(self.task), self.stream.name());
        format!("/api/v1/logs/{framework}/{task}/{stream}")
    }

    /// Hands on all that is there, and with `follow` what is still to come, piece by piece.
    ///
    /// # Errors
    /// The slave does not answer, or `sink` fails.
    pub(crate) fn copy(
        &self,
        follow: bool,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), CliError> {
        let path = self.path();
        let wait = if follow { FOLLOW_WAIT } else { Duration::ZERO };
        let mut offset = 0;
        loop {
            let piece = self
                .client
                .log(self.slave, &path, &LogRange::From { offset, wait })?;
            if piece.offset > offset {
                let lost = piece.offset - offset;
                eprintln!("meros: the first {lost} bytes here are no longer kept");
            }
            offset = piece.offset + piece.bytes.len() as u64;
            write(&mut sink, &piece.bytes)?;
            if piece.complete || (piece.bytes.is_empty() && !follow) {
                return Ok(());
            }
        }
    }

    fn copy_tail(
        &self,
        bytes: u64,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), CliError> {
        let piece = self
            .client
            .log(self.slave, &self.path(), &LogRange::Tail(bytes))?;
        write(&mut sink, &piece.bytes)
    }
}

fn write(
    sink: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
    bytes: &[u8],
) -> Result<(), CliError> {
    sink(bytes).map_err(|error| CliError::failure(format!("cannot write the output: {error}")))
}

/// Finds a task by its id; among several of that id the one that still runs, else the newest.
///
/// # Errors
/// There is none, or live ones of several frameworks.
pub(crate) fn find_task(
    client: &Client,
    task: &str,
    framework: Option<FrameworkId>,
) -> Result<TaskView, CliError> {
    let mut found: Vec<TaskView> = client.get(&format!("/api/v1/tasks?task={}", escaped(task)))?;
    found.retain(|one| framework.is_none_or(|framework| one.framework_id == framework));
    let live: Vec<&TaskView> = found
        .iter()
        .filter(|one| !one.state.is_terminal())
        .collect();
    match live.as_slice() {
        [one] => return Ok((*one).clone()),
        [] => {}
        several => {
            let frameworks: Vec<String> = several
                .iter()
                .map(|one| one.framework_id.to_string())
                .collect();
            return Err(CliError::usage(format!(
                "several frameworks have a task {task:?}: say which with --framework ({})",
                frameworks.join(", ")
            )));
        }
    }
    found
        .into_iter()
        .max_by_key(|one| one.launched_at)
        .ok_or_else(|| {
            CliError::failure(format!(
                "no task {task:?} is known; `meros ps --all` lists those that are"
            ))
        })
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    let slaves: Vec<SlaveRow> = client.get("/api/v1/slaves")?;
    let slave = slaves
        .iter()
        .find(|row| row.slave.slave_id == task.slave_id)
        .map(|row| row.slave.http_address.as_str())
        .filter(|address| !address.is_empty())
        .ok_or_else(|| {
            CliError::failure(format!(
                "slave {} has no HTTP address to read the output from",
                task.slave_id
            ))
        })?;
    let source = LogSource {
        client: &client,
        slave,
        framework: task.framework_id,
        task: task.task_id.as_str(),
        stream: if args.stderr {
            Stream::Stderr
        } else {
            Stream::Stdout
        },
    };
    let mut out = std::io::stdout().lock();
    let sink = |bytes: &[u8]| out.write_all(bytes).and_then(|()| out.flush());
    match args.tail {
        Some(bytes) => source.copy_tail(bytes, sink)?,
        None => source.copy(args.follow, sink)?,
    }
    Ok(Exit::Success)
}
