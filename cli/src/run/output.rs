//! The output of running tasks, brought here while it is written.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::logs::{LogSource, Patience, Stream};

/// Beyond so many instances nobody reads along, and each takes two threads.
const FOLLOWED_MAX: u32 = 32;
/// How long to wait for the rest of the output once all tasks have ended.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a task runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its slave.
    pub(crate) slave_id: SlaveId,
    /// The HTTP address of its slave; may be empty.
    pub(crate) slave: String,
    /// Its framework.
    pub(crate) framework_id: FrameworkId,
}

/// Follows the output of tasks.
pub(crate) struct Outputs {
    client: Arc<Client>,
    /// With several instances each line bears its task's id.
    prefixed: bool,
    enabled: bool,
    followed: BTreeSet<TaskId>,
    running: JoinSet<()>,
    reader_left: Arc<Notify>,
}

impl Outputs {
    /// For so many instances.
    pub(crate) fn new(client: Client, instances: u32) -> Self {
        let enabled = instances <= FOLLOWED_MAX;
        if !enabled {
            eprintln!("meros: the output of {instances} tasks is not shown: see `meros logs TASK`");
        }
        Self {
            client: Arc::new(client),
            prefixed: instances > 1,
            enabled,
            followed: BTreeSet::new(),
            running: JoinSet::new(),
            reader_left: Arc::new(Notify::new()),
        }
    }

    /// Follows a task from the start of its output, once.
    pub(crate) fn follow(&mut self, task: &TaskId, place: &Place) {
        if !self.enabled || place.slave.is_empty() || !self.followed.insert(task.clone()) {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (client, task, place) = (Arc::clone(&self.client), task.clone(), place.clone());
            let prefix = self.prefixed.then(|| format!("[{task}] "));
            let reader_left = Arc::clone(&self.reader_left);
            self.running.spawn_blocking(move || {
                let source = LogSource {
                    client: &client,
                    slave_id: place.slave_id,
                    slave: &place.slave,
                    framework: place.framework_id,
                    task: task.as_str(),
                    stream,
                };
                let mut lines = Lines {
                    prefix,
                    rest: Vec::new(),
                };
                let copied = source.copy(Some(Patience::FOLLOWER), |bytes| {
                    lines.write(stream, bytes).inspect_err(|error| {
                        if error.kind() == std::io::ErrorKind::BrokenPipe {
                            reader_left.notify_one();
                        }
                    })
                });
                let copied = copied.and_then(|()| {
                    lines
                        .end(stream)
                        .map_err(|error| crate::exit::CliError::failure(error.to_string()))
                });
                if let Err(error) = copied {
                    eprintln!("meros: the output of {task} cannot be shown: {error}");
                }
            });
        }
    }

    /// Waits until nobody reads our own output any more, as in `meros run -- yes | head`.
    pub(crate) async fn reader_left(&self) {
        self.reader_left.notified().await;
    }

    /// Waits until all is shown that the tasks wrote.
    pub(crate) async fn finish(&mut self) {
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH_TIMEOUT, all).await.is_err() {
            eprintln!("meros: some output did not arrive; see `meros logs`");
        }
    }
}

/// Passes bytes on as they are, or line by line with a prefix.
struct Lines {
    prefix: Option<String>,
    rest: Vec<u8>,
}

/// A line longer than this is broken, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

impl Lines {
    fn write(&mut self, stream: Stream<'_>, bytes: &[u8]) -> std::io::Result<()> {
        let Some(prefix) = &self.prefix else {
            return emit(stream, bytes);
        };
        self.rest.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut from = 0;
        while let Some(length) = line_length(&self.rest[from..]) {
            out.extend_from_slice(prefix.as_bytes());
            let line = &self.rest[from..from + length];
            out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            out.push(b'\n');
            from += length;
        }
        self.rest.drain(..from);
        emit(stream, &out)
    }

    fn end(&mut self, stream: Stream<'_>) -> std::io::Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            self.write(stream, b"\n")
        }
    }
}

/// The length of the first complete line, its end included.
fn line_length(bytes: &[u8]) -> Option<usize> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => Some(at + 1),
        None if bytes.len() >= LINE_BYTES_MAX => Some(LINE_BYTES_MAX),
        None => None,
    }
}

fn emit(stream: Stream<'_>, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        Stream::Stdout | Stream::File(_) => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => std::io::stderr().lock().write_all(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_or_at_the_bound() {
        assert_eq!(line_length(b"ab\ncd\n"), Some(3));
        assert_eq!(line_length(b"ab"), None);
        assert_eq!(
            line_length(&vec![b'x'; LINE_BYTES_MAX + 5]),
            Some(LINE_BYTES_MAX)
        );
    }
}
