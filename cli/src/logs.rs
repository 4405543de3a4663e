//! `meros logs [-f] TASK`: what a task wrote, read from its slave.

use std::io::Write;
use std::time::{Duration, Instant};

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::view::{SlaveRow, TaskView};

use crate::client::{Client, ClusterArgs, LogRange, escaped};
use crate::exit::{CliError, Exit};

/// How long one request waits on the slave for new output.
pub(crate) const FOLLOW_WAIT: Duration = Duration::from_secs(5);

/// How a follower waits for a slave that does not answer: it may be restarting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Before the second attempt; doubled after each.
    pub(crate) delay_min: Duration,
    /// The longest between two attempts.
    pub(crate) delay_max: Duration,
    /// From the first failure in a row to giving up.
    pub(crate) total: Duration,
}

impl Patience {
    /// A restart takes seconds; a slave that is away for a minute is soon unreachable to its master,
    /// too.
    pub(crate) const FOLLOWER: Self = Self {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(2),
        total: Duration::from_secs(60),
    };
}

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

/// What of a task is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream<'a> {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file in its sandbox.
    File(&'a str),
}

/// Where the output of a task is read.
pub(crate) struct LogSource<'a> {
    pub(crate) client: &'a Client,
    pub(crate) slave_id: SlaveId,
    /// The slave's HTTP endpoint, as far as known.
    pub(crate) slave: &'a str,
    pub(crate) framework: FrameworkId,
    pub(crate) task: &'a str,
    pub(crate) stream: Stream<'a>,
}

impl LogSource<'_> {
    fn path(&self) -> String {
        let (framework, task) = (self.framework, escaped(self.task));
        let log = |stream: &str| format!("/api/v1/logs/{framework}/{task}/{stream}");
        match self.stream {
            Stream::Stdout => log("stdout"),
            Stream::Stderr => log("stderr"),
            Stream::File(path) => {
                format!(
                    "/api/v1/files/{framework}/{task}/read?path={}",
                    escaped(path)
                )
            }
        }
    }

    /// Hands on all that is there, and with `follow` what is still to come, piece by piece. A
    /// follower bears with a slave that is away for a while, and finds it at its new address.
    ///
    /// # Errors
    /// The slave does not answer, or `sink` fails.
    pub(crate) fn copy(
        &self,
        follow: Option<Patience>,
        sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), CliError> {
        self.copy_from(0, follow, sink)
    }

    /// The same from an offset on.
    ///
    /// # Errors
    /// As of [`LogSource::copy`].
    pub(crate) fn copy_from(
        &self,
        mut offset: u64,
        follow: Option<Patience>,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), CliError> {
        let path = self.path();
        let wait = follow.map_or(Duration::ZERO, |_| FOLLOW_WAIT);
        let mut slave = self.slave.to_owned();
        let mut outage: Option<Outage> = None;
        loop {
            let range = LogRange::From { offset, wait };
            let piece = match (self.client.log(&slave, &path, &range), follow) {
                (Ok(piece), _) => piece,
                (Err(error), Some(patience)) if error.is_unreachable() => {
                    outage = Some(Outage::after(outage, patience, error)?);
                    // Without an answer the old address is as good as any.
                    if let Ok(Some(now)) = address_of(self.client, self.slave_id) {
                        slave = now;
                    }
                    continue;
                }
                (Err(error), _) => return Err(error),
            };
            outage = None;
            if piece.offset > offset {
                let lost = piece.offset - offset;
                eprintln!("meros: the first {lost} bytes here are no longer kept");
            }
            offset = piece.offset + piece.bytes.len() as u64;
            write(&mut sink, &piece.bytes)?;
            if piece.complete || (piece.bytes.is_empty() && follow.is_none()) {
                return Ok(());
            }
        }
    }

    /// Hands on the last so many bytes, and says where they end.
    ///
    /// # Errors
    /// As of [`LogSource::copy`].
    pub(crate) fn copy_tail(
        &self,
        bytes: u64,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<u64, CliError> {
        let piece = self
            .client
            .log(self.slave, &self.path(), &LogRange::Tail(bytes))?;
        write(&mut sink, &piece.bytes)?;
        Ok(piece.offset + piece.bytes.len() as u64)
    }
}

/// A slave that has not answered since a while.
struct Outage {
    since: Instant,
    delay: Duration,
}

impl Outage {
    /// Waits before the next attempt, after this one failed with `error`.
    ///
    /// # Errors
    /// The same error, when it has lasted too long.
    fn after(before: Option<Self>, patience: Patience, error: CliError) -> Result<Self, CliError> {
        let outage = before.map_or_else(
            || Self {
                since: Instant::now(),
                delay: patience.delay_min,
            },
            |it| Self {
                delay: (it.delay * 2).min(patience.delay_max),
                ..it
            },
        );
        if outage.since.elapsed() + outage.delay > patience.total {
            return Err(error);
        }
        std::thread::sleep(outage.delay);
        Ok(outage)
    }
}

/// Where a slave answers HTTP now, if the master knows.
fn address_of(client: &Client, slave: SlaveId) -> Result<Option<String>, CliError> {
    let slaves: Vec<SlaveRow> = client.list("/api/v1/slaves")?;
    Ok(slaves
        .into_iter()
        .find(|row| row.slave.slave_id == slave)
        .map(|row| row.slave.http_address)
        .filter(|address| !address.is_empty()))
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
    let mut found: Vec<TaskView> = client.list(&format!("/api/v1/tasks?task={}", escaped(task)))?;
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

/// Where the slave of a task answers HTTP.
///
/// # Errors
/// It does not, or the master does not know where.
pub(crate) fn slave_of(client: &Client, task: &TaskView) -> Result<String, CliError> {
    address_of(client, task.slave_id)?.ok_or_else(|| {
        CliError::failure(format!(
            "slave {} has no HTTP address to read from",
            task.slave_id
        ))
    })
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    let slave = slave_of(&client, &task)?;
    let source = LogSource {
        client: &client,
        slave_id: task.slave_id,
        slave: &slave,
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
        Some(bytes) => drop(source.copy_tail(bytes, sink)?),
        None => source.copy(args.follow.then_some(Patience::FOLLOWER), sink)?,
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use meros_proto::attribute::Attributes;
    use meros_proto::resources::Resources;
    use meros_proto::slave::SlaveState;
    use meros_proto::time::Timestamp;
    use meros_proto::view::SlaveView;

    use super::*;
    use crate::stub::{Reply, Stub};

    const QUICK: Patience = Patience {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(4),
        total: Duration::from_millis(300),
    };

    /// For those who find what they look for.
    const LONG: Patience = Patience {
        total: Duration::from_secs(60),
        ..QUICK
    };

    fn piece(offset: u64, complete: bool, body: &str) -> Reply {
        Reply {
            headers: vec![
                ("x-meros-offset", offset.to_string()),
                ("x-meros-complete", complete.to_string()),
            ],
            ..Reply::ok(body)
        }
    }

    fn copied(
        master: &Stub,
        slave: &str,
        follow: Option<Patience>,
    ) -> (Result<(), CliError>, String) {
        let mut text = Vec::new();
        let client = master.client();
        let source = LogSource {
            client: &client,
            slave_id: SlaveId(7),
            slave,
            framework: FrameworkId(1),
            task: "t",
            stream: Stream::Stdout,
        };
        let result = source.copy(follow, |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        });
        (result, String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_follower_reads_on_where_it_was_when_the_slave_is_back_at_another_address() {
        let back = Stub::start({
            let mut away = 3;
            move |path| {
                assert!(path.contains("offset=3&"), "{path}");
                away -= 1;
                match away {
                    2 => None,
                    1 => Some(Reply {
                        status: 503,
                        ..Reply::ok(r#"{"code":"stopping","message":"it is starting"}"#)
                    }),
                    _ => Some(piece(3, true, "def")),
                }
            }
        });
        let before = Stub::start({
            let mut asked = 0;
            move |_| {
                asked += 1;
                (asked == 1).then(|| piece(0, false, "abc"))
            }
        });
        let row = SlaveRow {
            slave: SlaveView {
                slave_id: SlaveId(7),
                hostname: "h".to_owned(),
                http_address: back.address.to_string(),
                state: SlaveState::Registered,
                state_since: Timestamp(0),
                mode: Default::default(),
                mode_since: Default::default(),
                is_drained: false,
                unavailability: None,
                resources: Resources::new(),
                attributes: Attributes::default(),
                version: String::new(),
            },
            used: Resources::new(),
            offered: Resources::new(),
            tasks: 0,
        };
        let rows = serde_json::to_string(&[row]).unwrap();
        let master = Stub::start(move |path| {
            assert_eq!(path, "/api/v1/slaves");
            Some(Reply::ok(&rows))
        });
        let (result, text) = copied(&master, &before.address.to_string(), Some(LONG));
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(text, "abcdef");
    }

    #[test]
    fn a_follower_gives_up_after_its_patience_and_others_at_once() {
        let nobody = Stub::start(|_| None);
        let began = Instant::now();
        let (result, text) = copied(&nobody, &nobody.address.to_string(), Some(QUICK));
        assert!(result.unwrap_err().is_unreachable());
        assert_eq!(text, "");
        assert!(began.elapsed() >= QUICK.total / 2, "it did not wait");

        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let slave = Stub::start({
            let asked = std::sync::Arc::clone(&asked);
            move |_| {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                None
            }
        });
        let (result, _) = copied(&nobody, &slave.address.to_string(), None);
        assert!(result.is_err());
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
        // An output that nobody knows does not come back.
        let unknown = Stub::start(|_| {
            Some(Reply {
                status: 404,
                ..Reply::ok(r#"{"code":"output_unknown","message":"no output of t is kept"}"#)
            })
        });
        let (result, _) = copied(&nobody, &unknown.address.to_string(), Some(LONG));
        assert!(result.unwrap_err().to_string().contains("output_unknown"));
    }
}
