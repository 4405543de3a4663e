//! A framework for crash tests: runs many short tasks and writes down what becomes of each.
//!
//! `burst MASTERS IDENTITY DIR TASKS [SECONDS]` launches tasks `t-0` … and exits 0 when each has ended. Its
//! journal `DIR/journal` survives kill -9 of the process: a line `launch ID` before a task is
//! launched, a line `run ID` for each news that it runs, a line `end ID STATE UPDATE_ID` before its end is
//! acknowledged. Started again with
//! the same folder it takes up where it was killed.

use std::collections::{BTreeMap, BTreeSet};
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

struct Journal {
    file: File,
    launched: BTreeSet<String>,
    ended: BTreeMap<String, String>,
}

impl Journal {
    fn open(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut launched = BTreeSet::new();
        let mut ended = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["launch", id] => drop(launched.insert((*id).to_owned())),
                ["end", id, state, update] => {
                    ended.insert((*id).to_owned(), format!("{state} {update}"));
                }
                // The last line may be cut off by kill -9.
                _ => {}
            }
        }
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            file,
            launched,
            ended,
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
    let argv = match seconds {
        Some(seconds) => vec!["sleep".to_owned(), seconds.clone()],
        None => vec!["true".to_owned()],
    };
    match run(masters, identity, Path::new(dir), tasks, &argv).await {
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
    argv: &[String],
) -> Result<(), Box<dyn std::error::Error>> {
    let mut journal = Journal::open(&dir.join("journal"))?;
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
                    accept(&offer, tasks, argv, &mut journal, &handle)?;
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
        if journal.ended.len() == tasks {
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
    tasks: usize,
    argv: &[String],
    journal: &mut Journal,
    handle: &Handle,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut placement = Placement::on(offer);
    let mut ids = Vec::new();
    let waiting = (0..tasks).map(|n| format!("t-{n}"));
    for id in waiting
        .filter(|id| !journal.launched.contains(id))
        .take(BATCH_MAX)
    {
        let task = Task::new(&id)
            .argv(argv.iter().cloned())
            .cpus(0.1)
            .mem(16.0);
        if placement.place(&task).is_err() {
            break;
        }
        ids.push(id);
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
