//! People who come into a container: who may, how many, and a line in the log for each.
//!
//! ```text
//! HTTP upgrade ─► TLS, an operator's certificate ─► Start ─► [`session`] ─► its end
//! ```
//! Bounds: [`HANDSHAKES_MAX`] on their way in, [`SESSIONS_MAX`] at work, those of one container besides. Invariant S34: nothing of a session outlives it.

mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meros_proto::message::exec::{ExecEnd, FromExec, StartExec, ToExec};
use meros_proto::transport::{PeerIdentity, PeerRole, TunnelAcceptor};
use meros_slave_core::TaskKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::container::{Container, ExecError, ExecSpec};
use crate::shell::inbox::{Inbox, Input};
use crate::shell::running::TaskContainer;
use session::{Wire, WireError};

/// Those who shake hands, have not said what they want, wait for its start or hear why there is none.
const HANDSHAKES_MAX: usize = 16;
/// Sessions of one slave.
const SESSIONS_MAX: usize = 64;
/// For each step until the command is known.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the core may take to find the task.
const CORE_PATIENCE: Duration = Duration::from_secs(5);
/// Of a command in the log.
const LOGGED_BYTES_MAX: usize = 2 << 10;
/// Words of a command, and variables.
const WORDS_MAX: usize = 4 << 10;

/// What is counted of sessions.
#[derive(Debug, Default)]
pub(crate) struct ExecCounters {
    pub(crate) open: AtomicU64,
    pub(crate) started: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Execs {
    acceptor: TunnelAcceptor,
    inbox: Inbox,
    handshakes: Arc<Semaphore>,
    sessions: Semaphore,
    counters: Arc<ExecCounters>,
}

impl Execs {
    pub(crate) fn new(acceptor: TunnelAcceptor, inbox: Inbox, counters: Arc<ExecCounters>) -> Self {
        Self {
            acceptor,
            inbox,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            sessions: Semaphore::new(SESSIONS_MAX),
            counters,
        }
    }

    /// A place to shake hands in, if there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handshakes).try_acquire_owned().ok()
    }

    /// Serves who has come in by HTTP, to the end.
    pub(crate) async fn serve(self: Arc<Self>, upgrading: OnUpgrade, place: OwnedSemaphorePermit) {
        let came_in = async {
            let upgraded = upgrading.await.map_err(std::io::Error::other)?;
            self.acceptor.accept(TokioIo::new(upgraded)).await
        };
        let (stream, peer) = match timeout(HANDSHAKE_TIMEOUT, came_in).await {
            Ok(Ok(come)) => come,
            Ok(Err(error)) => return debug!(%error, "somebody without a certificate at the door"),
            Err(_) => return debug!("somebody who does not shake hands at the door"),
        };
        let mut wire = Wire::new(stream);
        let start = match timeout(HANDSHAKE_TIMEOUT, wire.next()).await {
            Ok(Ok(ToExec::Start(start))) => *start,
            Ok(Ok(_) | Err(WireError::BadFrame)) => {
                return warn!(who = %peer, "exec: bytes that make no sense");
            }
            Ok(Err(WireError::Gone)) | Err(_) => return debug!(who = %peer, "exec: nothing said"),
        };
        self.admit(wire, &peer, start, place).await;
    }

    /// `handshake` is given back when the command runs, or when it was said why it does not.
    async fn admit<S>(
        &self,
        mut wire: Wire<S>,
        peer: &PeerIdentity,
        start: StartExec,
        handshake: OwnedSemaphorePermit,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let key = (start.framework_id, start.task_id.clone());
        let command = printed(&start.argv);
        let refused = match self.begin(peer, &start, &key).await {
            Ok((_place, process, exec, streams)) => {
                drop(handshake);
                let tty = start.terminal.is_some();
                info!(who = %peer, framework_id = %key.0, task_id = %key.1, container_id = process.id(), command, tty, "exec began");
                let _open = Counted::new(&self.counters);
                let began = Instant::now();
                let end = session::run(wire, exec, streams, start.stdin).await;
                let seconds = began.elapsed().as_secs();
                info!(who = %peer, framework_id = %key.0, task_id = %key.1, container_id = process.id(), command, seconds, ?end, "exec ended");
                return;
            }
            Err(refused) => refused,
        };
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let Refused { code, message, end } = refused;
        warn!(who = %peer, framework_id = %key.0, task_id = %key.1, command, code, why = message, "exec refused");
        let told = match end {
            Some(exit_code) => FromExec::Ended(ExecEnd::NotStarted { exit_code, message }),
            None => FromExec::Refused {
                code: code.to_owned(),
                message,
            },
        };
        // One that does not hear it has gone.
        let _ = timeout(HANDSHAKE_TIMEOUT, wire.say_last(&told)).await;
    }

    async fn begin(
        &self,
        peer: &PeerIdentity,
        start: &StartExec,
        key: &TaskKey,
    ) -> Result<Begun<'_>, Refused> {
        if peer.role() != PeerRole::Operator {
            let message = format!(
                "{peer} may not run commands in containers: it takes a certificate of an operator \
                 (`meros ca issue --role operator`)"
            );
            return Err(Refused::new("exec_not_allowed", message));
        }
        check(start)?;
        let place = self.sessions.try_acquire().map_err(|_| {
            let message = format!(
                "{SESSIONS_MAX} commands run in containers of this slave already: end one, or try again later"
            );
            Refused::new("exec_busy", message)
        })?;
        let process = self.find(key).await?;
        let spec = ExecSpec {
            argv: start.argv.clone(),
            env: start.env.clone(),
            terminal: start.terminal.map(|size| (size.rows, size.columns)),
        };
        let (exec, streams) = process.exec(spec).await?;
        Ok((place, process, exec, streams))
    }

    async fn find(&self, key: &TaskKey) -> Result<Arc<Container>, Refused> {
        let ask = |reply| Input::ContainerOf(key.clone(), reply);
        let asked = self.inbox.ask(ask, CORE_PATIENCE).await;
        let found = asked.map_err(|_| {
            Refused::new("unavailable", "the slave is stopping or too busy to answer")
        })?;
        let (task, framework) = (&key.1, &key.0);
        match found {
            TaskContainer::Running(process) => Ok(process),
            TaskContainer::NotRunning(state) => {
                let message = format!("task {task} does not run: it is {state}");
                Err(Refused::new("task_not_running", message))
            }
            TaskContainer::Unknown => {
                let message = format!(
                    "no task {task} of framework {framework} is on this slave: it has ended, or never ran here"
                );
                Err(Refused::new("task_unknown", message))
            }
        }
    }
}

type Begun<'a> = (
    tokio::sync::SemaphorePermit<'a>,
    Arc<Container>,
    crate::container::Exec,
    crate::container::ExecStreams,
);

/// What is asked for in a way that no task could be.
fn check(start: &StartExec) -> Result<(), Refused> {
    let has_nul = |text: &String| text.contains('\0');
    let is_bad_name = |name: &String| name.is_empty() || name.contains(['=', '\0']);
    let why = if start.argv.first().is_none_or(String::is_empty) {
        "there is no command"
    } else if start.argv.len() + start.env.len() > WORDS_MAX {
        "the command has too many words"
    } else if start.argv.iter().chain(start.env.values()).any(has_nul) {
        "a word of the command has a byte of zero"
    } else if start.env.keys().any(is_bad_name) {
        "a variable has a name that is none"
    } else {
        return Ok(());
    };
    Err(Refused::new("invalid", why))
}

/// For the log: words that a shell would read the same, cut where they are too long.
fn printed(argv: &[String]) -> String {
    let mut text = String::new();
    for word in argv {
        if !text.is_empty() {
            text.push(' ');
        }
        let is_plain = !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c));
        match is_plain {
            true => text.push_str(word),
            false => text.push_str(&format!("{word:?}")),
        }
        if text.len() > LOGGED_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LOGGED_BYTES_MAX));
            text.push('…');
            break;
        }
    }
    text
}

/// Why somebody does not come in.
#[derive(Debug)]
struct Refused {
    code: &'static str,
    message: String,
    /// The exit code of a command that was not executed.
    end: Option<i32>,
}

impl Refused {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            end: None,
        }
    }
}

impl From<ExecError> for Refused {
    fn from(error: ExecError) -> Self {
        Self {
            end: match &error {
                ExecError::NotStarted { exit_code, .. } => Some(*exit_code),
                _ => None,
            },
            ..Self::new(error.code(), error.to_string())
        }
    }
}

/// One that is counted as open while it lives.
struct Counted<'a>(&'a ExecCounters);

impl<'a> Counted<'a> {
    fn new(counters: &'a ExecCounters) -> Self {
        counters.started.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meros_proto::ids::{FrameworkId, TaskId};

    use super::*;

    fn start(argv: &[&str], env: &[(&str, &str)]) -> StartExec {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        StartExec {
            framework_id: FrameworkId(1),
            task_id: TaskId::new("t").unwrap(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: env.iter().map(pair).collect::<BTreeMap<_, _>>(),
            stdin: false,
            terminal: None,
        }
    }

    #[test]
    fn what_could_not_be_executed_by_anybody_is_refused() {
        assert!(check(&start(&["ls", ""], &[("TERM", "")])).is_ok());
        for (argv, env) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["a\0b"], &[]),
            (&["a"], &[("", "b")]),
            (&["a"], &[("b=c", "d")]),
            (&["a"], &[("b", "\0")]),
        ] {
            assert_eq!(check(&start(argv, env)).unwrap_err().code, "invalid");
        }
        let many = vec!["a"; WORDS_MAX + 1];
        assert!(check(&start(&many, &[])).is_err());
    }

    #[test]
    fn a_line_of_the_log_is_one_line_and_bounded() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let line = printed(&words(&["sh", "-c", "a\nb", ""]));
        assert_eq!(line, r#"sh -c "a\nb" """#);
        let long = printed(&words(&["é".repeat(LOGGED_BYTES_MAX).as_str()]));
        assert!(long.len() <= LOGGED_BYTES_MAX + 3 && long.ends_with('…'));
    }
}
