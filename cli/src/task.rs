//! `meros task files|cat|tail|download`: what is in the sandbox of a task, read from its slave.

use std::io::Write;
use std::path::{Path, PathBuf};

use meros_proto::ids::FrameworkId;
use meros_proto::view::TaskView;
use serde::{Deserialize, Serialize};

use crate::client::{Client, ClusterArgs, LOG_PIECE_BYTES, escaped};
use crate::exit::{CliError, Exit};
use crate::logs::{LogSource, Patience, Stream, find_task, slave_of};
use crate::output::table::{layout, printable};
use crate::output::{Output, print};

/// Of a file whose end is shown, unless told otherwise.
const TAIL_BYTES: u64 = 4_096;

/// `meros task …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List a folder of a task's sandbox
    Files {
        #[command(flatten)]
        which: Which,
        /// The folder, below the sandbox; by default the sandbox
        #[arg(default_value = "")]
        path: String,
        /// For whom to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print a file of a task's sandbox
    Cat {
        #[command(flatten)]
        which: Which,
        /// The file, below the sandbox
        path: String,
    },
    /// Print the end of a file of a task's sandbox
    Tail {
        #[command(flatten)]
        which: Which,
        /// The file, below the sandbox
        #[arg(default_value = "stdout")]
        path: String,
        /// Go on until the task ends
        #[arg(long, short)]
        follow: bool,
        /// How much of it, at most 1 MiB
        #[arg(long, short = 'c', value_name = "BYTES", default_value_t = TAIL_BYTES, value_parser = clap::value_parser!(u64).range(0..=LOG_PIECE_BYTES))]
        bytes: u64,
    },
    /// Copy a file of a task's sandbox to this machine
    Download {
        #[command(flatten)]
        which: Which,
        /// The file, below the sandbox
        path: String,
        /// Where to; by default its name, here. An existing file is left alone
        #[arg(long, short)]
        to: Option<PathBuf>,
    },
}

/// Of which task.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The task's id
    task: String,
    /// Its framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Something in a folder, as slaves tell it.
#[derive(Debug, Serialize, Deserialize)]
struct FileRow {
    name: String,
    kind: String,
    mode: String,
    size: u64,
    modified: i64,
    links: u64,
    uid: u32,
    gid: u32,
}

/// A task that was found, and its slave.
struct Found {
    client: Client,
    task: TaskView,
    slave: String,
}

impl Found {
    fn find(which: &Which) -> Result<Self, CliError> {
        let client = Client::new(&which.cluster);
        let task = find_task(&client, &which.task, which.framework)?;
        let slave = slave_of(&client, &task)?;
        Ok(Self {
            client,
            task,
            slave,
        })
    }

    fn file<'a>(&'a self, path: &'a str) -> LogSource<'a> {
        LogSource {
            client: &self.client,
            slave_id: self.task.slave_id,
            slave: &self.slave,
            framework: self.task.framework_id,
            task: self.task.task_id.as_str(),
            stream: Stream::File(path),
        }
    }

    fn url(&self, what: &str, path: &str) -> String {
        let (framework, task) = (self.task.framework_id, escaped(self.task.task_id.as_str()));
        format!(
            "/api/v1/files/{framework}/{task}/{what}?path={}",
            escaped(path)
        )
    }
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Files {
            which,
            path,
            output,
        } => files(which, path, *output),
        Command::Cat { which, path } => {
            let found = Found::find(which)?;
            found.file(path).copy(None, to_stdout)?;
            Ok(Exit::Success)
        }
        Command::Tail {
            which,
            path,
            follow,
            bytes,
        } => {
            let found = Found::find(which)?;
            let file = found.file(path);
            let end = file.copy_tail(*bytes, to_stdout)?;
            if *follow {
                file.copy_from(end, Some(Patience::FOLLOWER), to_stdout)?;
            }
            Ok(Exit::Success)
        }
        Command::Download { which, path, to } => download(which, path, to.as_deref()),
    }
}

fn to_stdout(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

fn files(which: &Which, path: &str, output: Output) -> Result<Exit, CliError> {
    let found = Found::find(which)?;
    let url = found.url("browse", path);
    let rows: Vec<FileRow> = found.client.of_slave(&found.slave, &url)?;
    print(output, &rows, |rows| {
        let cells = |row: &FileRow| {
            let ending = if row.kind == "folder" { "/" } else { "" };
            vec![
                row.mode.clone(),
                row.size.to_string(),
                changed(row.modified),
                format!("{}{ending}", printable(&row.name)),
            ]
        };
        let headings = ["MODE", "BYTES", "CHANGED", "NAME"];
        layout(
            &headings,
            rows.iter().map(cells).collect(),
            "The folder is empty.",
        )
    })?;
    Ok(Exit::Success)
}

fn changed(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |at| at.to_string())
}

fn download(which: &Which, path: &str, to: Option<&Path>) -> Result<Exit, CliError> {
    let found = Found::find(which)?;
    let name = Path::new(path).file_name();
    let to = match (to, name) {
        (Some(to), _) => to.to_owned(),
        (None, Some(name)) => PathBuf::from(name),
        (None, None) => return Err(CliError::usage(format!("{path:?} is no file: name one"))),
    };
    let failed = |error: std::io::Error| {
        CliError::failure(format!("cannot write {}: {error}", to.display()))
    };
    let mut file = std::fs::File::create_new(&to).map_err(failed)?;
    let url = found.url("download", path);
    let copied = found.client.download(&found.slave, &url, &mut file);
    match copied {
        Ok(bytes) => {
            println!("{bytes} bytes in {}", to.display());
            Ok(Exit::Success)
        }
        Err(error) => {
            // What was not copied whole is worth nothing.
            let _ = std::fs::remove_file(&to);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::SlaveId;

    use super::*;
    use crate::stub::{Reply, Stub};

    #[test]
    fn the_path_of_a_file_survives_a_url_and_is_read_on_where_it_ended() {
        let slave = Stub::start(|path| {
            let piece = |offset: &str, complete: &str, body: &str| Reply {
                headers: vec![
                    ("x-meros-offset", offset.to_owned()),
                    ("x-meros-complete", complete.to_owned()),
                ],
                ..Reply::ok(body)
            };
            let query = path.strip_prefix("/api/v1/files/F1/t/read?path=a%20b%2Fc&")?;
            match query {
                "tail=3" => Some(piece("4", "false", "efg")),
                query if query.starts_with("offset=7&") => Some(piece("7", "true", "hi")),
                _ => None,
            }
        });
        let client = slave.client();
        let address = slave.address.to_string();
        let file = LogSource {
            client: &client,
            slave_id: SlaveId(1),
            slave: &address,
            framework: FrameworkId(1),
            task: "t",
            stream: Stream::File("a b/c"),
        };
        let mut text = Vec::new();
        let mut sink = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        let end = file.copy_tail(3, &mut sink).unwrap();
        file.copy_from(end, Some(Patience::FOLLOWER), &mut sink)
            .unwrap();
        assert_eq!(text, b"efghi");
    }
}
