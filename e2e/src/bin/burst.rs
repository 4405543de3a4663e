//! A framework for crash tests: runs many short tasks and writes down what becomes of each.
//!
//! `burst MASTERS IDENTITY DIR TASKS [SECONDS]` launches tasks `t-0` … and exits 0 when each has finished. One
//! that ends in another way is launched again, as a batch scheduler does: `t-0` is followed by `t-0.1`.
//! With SECONDS, a task writes its name to `DIR/ran` and sleeps. The journal `DIR/journal` survives kill -9 of
//! the process: a line `launch ID` before a task is launched, a line `run ID` for each news that it runs, a
//! line `end ID STATE UPDATE_ID` before its end is acknowledged. Started again with the same folder it takes
//! up where it was killed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use meros_proto::ids::TaskId;
use meros_proto::message::master::ReconcileTask;
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::status::{TaskState, TaskStatus};
use meros_sdk::{Acknowledge, Handle, News, Placement, Session, SessionConfig, Task};

/// The most tasks in one accept, so that all slaves take part.
const BATCH_MAX: usize = 40;
/// Launches of one task, after which something is wrong: more than any test kills anything.
const ATTEMPTS_MAX: usize = 300;

struct Journal {
    file: File,
    launched: BTreeSet<String>,
    ended: BTreeMap<String, String>,
    /// Names still to be launched, the first of a task and those after an end that was no success.
    waiting: VecDeque<String>,
    /// Tasks that are not finished.
    open: usize,
}

/// What a task is called when it is launched once more.
fn again(id: &str) -> Option<String> {
    let (task, attempt) = id.split_once('.').unwrap_or((id, "0"));
    let next = attempt.parse::<usize>().ok()? + 1;
    (next < ATTEMPTS_MAX).then(|| format!("{task}.{next}"))
}

impl Journal {
    fn open(path: &Path, tasks: usize) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut launched = BTreeSet::new();
        let mut ended = BTreeMap::new();
        let mut names: BTreeSet<String> = (0..tasks).map(|n| format!("t-{n}")).collect();
        let mut open = tasks;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["launch", id] => drop(launched.insert((*id).to_owned())),
                ["end", id, state, update] => {
                    if !ended.contains_key(*id) {
                        match *state {
                            "TASK_FINISHED" => open -= 1,
                            _ => names.extend(again(id)),
                        }
                    }
                    ended.insert((*id).to_owned(), format!("{state} {update}"));
                }
                // The last line may be cut off by kill -9.
                _ => {}
            }
        }
        let file = File::options().create(true).append(true).open(path)?;
        let waiting = names.difference(&launched).cloned().collect();
        Ok(Self {
            file,
            launched,
            ended,
            waiting,
            open,
        })
    }

    fn launch(&mut self, ids: &[String]) -> std::io::Result<()> {
        let lines: String = ids.iter().map(|id| format!("launch {id}\n")).collect();
        self.launched.extend(ids.iter().cloned());
        self.file.write_all(lines.as_bytes())
    }

    fn runs(&mut self, status: &TaskStatus) -> std::io::Result<()> {
        writeln!(self.file, "run {}", status.task_id)
    }

    fn end(&mut self, status: &TaskStatus) -> std::io::Result<()> {
        let id = status.task_id.to_string();
        let update = status
            .update_id
            .map_or_else(|| "none".to_owned(), |id| id.to_string());
        let known = self
            .ended
            .insert(id.clone(), format!("{} {update}", status.state));
        if known.as_deref() == Some(&format!("{} {update}", status.state)) {
            return Ok(());
        }
        if known.is_none() {
            match status.state {
                TaskState::Finished => self.open -= 1,
                _ => self.waiting.extend(again(&id)),
            }
        }
        // Also a second, different end is written: the test looks for it.
        writeln!(self.file, "end {id} {} {update}", status.state)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (args, seconds) = match args.as_slice() {
        [args @ .., seconds] if args.len() == 4 => (args, Some(seconds)),
        args => (args, None),
    };
    let [masters, identity, dir, tasks] = args else {
        eprintln!("usage: burst MASTERS IDENTITY DIR TASKS [SECONDS]");
        return ExitCode::from(2);
    };
    let tasks = tasks.parse().expect("TASKS is a number");
    let dir = Path::new(dir);
    let argv = |id: &str| match seconds {
        Some(seconds) => {
            let script = "echo $0 >> $1/ran; exec sleep $2";
            let dir = dir.display().to_string();
            ["sh", "-c", script, id, &dir, seconds]
                .map(str::to_owned)
                .to_vec()
        }
        None => vec!["true".to_owned()],
    };
    match run(masters, identity, dir, tasks, &argv).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("burst: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(
    masters: &str,
    identity: &str,
    dir: &Path,
    tasks: usize,
    argv: &dyn Fn(&str) -> Vec<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut journal = Journal::open(&dir.join("journal"), tasks)?;
    let mut config = SessionConfig::new("burst", meros_sdk::parse_masters(masters)?, identity);
    config.state_file = Some(dir.join("framework"));
    config.acknowledge = Acknowledge::Manual;
    config.framework.failover_timeout = Duration::from_secs(300);
    let (mut events, handle) = Session::connect(config)?;
    while let Some(news) = events.next().await {
        match news {
            News::Subscribed { .. } => reconcile(&journal, &handle)?,
            News::Offers(offers) => {
                for offer in offers {
                    accept(&offer, argv, &mut journal, &handle)?;
                }
            }
            News::Update(status) => {
                if status.state == TaskState::Running && status.update_id.is_some() {
                    journal.runs(&status)?;
                }
                if status.state.is_terminal() || status.state == TaskState::Unknown {
                    journal.end(&status)?;
                }
                handle.acknowledge(&status)?;
            }
            News::Ended(reason) => return Err(format!("ended: {reason:?}").into()),
            _ => {}
        }
        if journal.open == 0 {
            handle.teardown()?;
            while events.next().await.is_some() {}
            return Ok(());
        }
    }
    Err("the session ended".into())
}

/// What was launched and has no end yet may have been lost on the way: ask.
fn reconcile(journal: &Journal, handle: &Handle) -> Result<(), Box<dyn std::error::Error>> {
    let open = journal
        .launched
        .iter()
        .filter(|id| !journal.ended.contains_key(*id));
    let open: Vec<ReconcileTask> = open
        .map(|id| {
            TaskId::new(id).map(|task_id| ReconcileTask {
                task_id,
                slave_id: None,
            })
        })
        .collect::<Result<_, _>>()?;
    if !open.is_empty() {
        handle.reconcile(open)?;
    }
    Ok(())
}

fn accept(
    offer: &Offer,
    argv: &dyn Fn(&str) -> Vec<String>,
    journal: &mut Journal,
    handle: &Handle,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut placement = Placement::on(offer);
    let mut ids = Vec::new();
    while let Some(id) = journal.waiting.front().filter(|_| ids.len() < BATCH_MAX) {
        let task = Task::new(id).argv(argv(id)).cpus(0.1).mem(16.0);
        if placement.place(&task).is_err() {
            break;
        }
        ids.extend(journal.waiting.pop_front());
    }
    let offer_ids = vec![offer.offer_id];
    if ids.is_empty() {
        handle.decline(
            offer_ids,
            Filters {
                refuse: Duration::from_secs(5),
            },
        )?;
        return Ok(());
    }
    journal.launch(&ids)?;
    // What is left of the offer comes back at once, for the next batch.
    let filters = Filters {
        refuse: Duration::ZERO,
    };
    handle.accept(
        offer_ids,
        vec![Operation::Launch(placement.into_tasks())],
        filters,
    )?;
    Ok(())
}
