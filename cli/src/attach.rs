//! `meros attach TASK`: what a task writes, both outputs as they come, until it ends; and its exit code.
//!
//! Tasks have no input: theirs is empty from the start. `meros exec -i` is for commands that have one.

use std::io::{Write, stderr, stdout};
use std::time::{Duration, Instant};

use meros_proto::ids::FrameworkId;
use meros_proto::view::TaskView;

use crate::client::{Client, ClusterArgs, LOG_PIECE_BYTES};
use crate::exit::{CliError, Exit};
use crate::logs::{LogSource, Patience, Stream, find_task, slave_of};
use crate::run::code_of;

/// Of each output that was written before, unless told otherwise.
const TAIL_BYTES: u64 = 4_096;
/// How long the master may take to hear of an end that the slave knows of.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two questions for it.
const END_POLL: Duration = Duration::from_millis(100);

/// What `meros attach` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's id
    task: String,
    /// Its framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    /// How much of each output that was written before, at most 1 MiB
    #[arg(long, value_name = "BYTES", default_value_t = TAIL_BYTES, value_parser = clap::value_parser!(u64).range(0..=LOG_PIECE_BYTES))]
    tail: u64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    let slave = slave_of(&client, &task)?;
    let follow = |stream: Stream<'_>| {
        let source = LogSource {
            client: &client,
            slave_id: task.slave_id,
            slave: &slave,
            framework: task.framework_id,
            task: task.task_id.as_str(),
            stream,
        };
        let sink = |bytes: &[u8]| match stream {
            Stream::Stderr => stderr().lock().write_all(bytes),
            Stream::Stdout | Stream::File(_) => {
                let mut out = stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
        };
        let end = source.copy_tail(args.tail, sink)?;
        source.copy_from(end, Some(Patience::FOLLOWER), sink)
    };
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| follow(Stream::Stderr));
        follow(Stream::Stdout)?;
        let joined = errors.join();
        joined.unwrap_or_else(|_| Err(CliError::failure("the standard error was lost")))
    })?;
    let ended = await_end(&client, &task)?;
    // One that nobody has made a status of did not end well.
    Ok(Exit::Code(ended.status.as_ref().map_or(1, code_of)))
}

/// The outputs have ended, so the task has.
fn await_end(client: &Client, task: &TaskView) -> Result<TaskView, CliError> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let now = find_task(client, task.task_id.as_str(), Some(task.framework_id))?;
        if now.state.is_terminal() {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(CliError::failure(format!(
                "task {} has ended, but the master has not heard of it yet: it is {} there",
                task.task_id, now.state
            )));
        }
        std::thread::sleep(END_POLL);
    }
}
