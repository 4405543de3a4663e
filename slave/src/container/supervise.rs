//! One running container: the handle that others hold and the task that sees it through.
//!
//! ```text
//! running ──command ends──────────────► SIGKILL to the rest ─► empty ─► cgroup removed ─► report
//!    └──kill(grace): SIGTERM to all ──► until empty or grace over ──┘
//! ```
//! The command is reaped last, so its process id cannot be given to somebody else before.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, warn};

use super::Inner;
use super::group::Group;
use super::launch::{Launched, Spawned};
use super::logs::{self, LogCounters};
use super::main_process::MainProcess;
use super::report::{ExitReport, LogUsage, OomReport, Usage};
use super::tree::Tree;

/// How long a tree may survive SIGKILL (processes stuck in a driver) before we report without it.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a pipe may stay open after its writers are dead. Only a process that escaped the
/// tree (without cgroups) can hold it; for all others this is what a slow disk may take to write
/// the last of the output.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest grace period; beyond it a time would overflow.
const GRACE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Pause between two looks at a tree that was asked to end: the first and the longest.
const POLL_DELAY_MIN: Duration = Duration::from_millis(2);
const POLL_DELAY_MAX: Duration = Duration::from_millis(100);

/// A running container. Dropping it kills it without grace, and [`wait`](Self::wait) is then
/// nobody's, so keep it until the report is there.
#[derive(Debug)]
pub struct Container {
    id: String,
    pid: i32,
    shared: Arc<Shared>,
    /// When to send SIGKILL; `None` until the first kill.
    stop: watch::Sender<Option<Instant>>,
    end: watch::Receiver<Option<Arc<ExitReport>>>,
}

#[derive(Debug)]
struct Shared {
    group: Group,
    stdout: Arc<LogCounters>,
    stderr: Arc<LogCounters>,
    /// Keeps the launcher thread alive, and with it the task (see [`launch`](super::launch)).
    _inner: Arc<Inner>,
}

impl Container {
    /// Takes over a launched process; also returns the channel on which the launcher answers.
    /// Must be called in a tokio runtime.
    pub(crate) fn supervise(
        launched: Launched,
        id: String,
        command: String,
        inner: Arc<Inner>,
    ) -> (Self, UnixStream) {
        let Launched {
            process,
            stdout_log,
            stderr_log,
            group,
            tree,
        } = launched;
        let Spawned {
            main,
            exited,
            channel,
            stdout: stdout_pipe,
            stderr: stderr_pipe,
        } = process;
        let pid = main.pid();
        let (stdout, stderr) = (stdout_log.counters(), stderr_log.counters());
        let shared = Arc::new(Shared {
            group,
            stdout,
            stderr,
            _inner: inner,
        });
        let (stop, stop_requests) = watch::channel(None);
        let (report, end) = watch::channel(None);
        let supervisor = Supervisor {
            id: id.clone(),
            command,
            main,
            exited,
            tree: Arc::new(tree),
            shared: Arc::clone(&shared),
            stop: stop_requests,
            logs: [
                tokio::spawn(logs::copy(stdout_pipe, stdout_log)),
                tokio::spawn(logs::copy(stderr_pipe, stderr_log)),
            ],
        };
        tokio::spawn(async move {
            let ended = supervisor.run().await;
            report.send_replace(Some(Arc::new(ended)));
        });
        (
            Self {
                id,
                pid,
                shared,
                stop,
                end,
            },
            channel,
        )
    }

    /// The id it was started with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Process id of the command. Somebody else's once [`wait`](Self::wait) has returned.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends SIGTERM to every process of the container and, after `grace`, SIGKILL to those that
    /// are left. Returns at once; the end is reported by [`wait`](Self::wait).
    ///
    /// May be repeated: a later call can bring SIGKILL forward, never put it off (semantics: B9).
    pub fn kill(&self, grace: Duration) {
        let at = Instant::now() + grace.min(GRACE_MAX);
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|planned| at < planned);
            if sooner {
                *stop = Some(at);
            }
            sooner
        });
    }

    /// Waits for the end: all processes dead, all output written, the cgroup removed. May be
    /// called any number of times.
    pub async fn wait(&self) -> Arc<ExitReport> {
        let mut end = self.end.clone();
        let report = end
            .wait_for(Option::is_some)
            .await
            .expect("the supervisor reports before it ends");
        report.clone().expect("waited for it")
    }

    /// What its standard output and standard error saw so far, in this order. Costs a few loads, so
    /// it may be asked for at any rate.
    #[must_use]
    pub fn log_usage(&self) -> (LogUsage, LogUsage) {
        (self.shared.stdout.usage(), self.shared.stderr.usage())
    }

    /// What it uses now, or used in total once it has ended. Reads a dozen small files of the kernel.
    #[must_use]
    pub fn stats(&self) -> Usage {
        match &*self.end.borrow() {
            Some(report) => report.usage.clone(),
            None => self.shared.usage(),
        }
    }
}

impl Shared {
    fn usage(&self) -> Usage {
        Usage {
            stdout: self.stdout.usage(),
            stderr: self.stderr.usage(),
            ..self.group.usage()
        }
    }
}

struct Supervisor {
    id: String,
    command: String,
    main: MainProcess,
    exited: AsyncFd<OwnedFd>,
    tree: Arc<Tree>,
    shared: Arc<Shared>,
    stop: watch::Receiver<Option<Instant>>,
    logs: [JoinHandle<()>; 2],
}

impl Supervisor {
    async fn run(mut self) -> ExitReport {
        let killed = self.until_exit_or_deadline().await;
        if killed {
            self.until_empty_or_deadline().await;
        }
        // By itself it is dead by now. After a failed start it may not have entered the tree yet.
        self.main.kill();
        let (tree, shared) = (Arc::clone(&self.tree), Arc::clone(&self.shared));
        let finish = move || {
            let survivors = tree.kill_until_empty(KILL_TIMEOUT);
            let usage = shared.group.usage();
            (survivors, usage, shared.group.remove_retrying(survivors))
        };
        // Only a runtime that shuts down refuses, and then nobody waits for the report.
        let (survivors, usage, removed) = spawn_blocking(finish)
            .await
            .unwrap_or_else(|_| (0, Usage::default(), Ok(())));
        if survivors > 0 {
            error!(container_id = %self.id, survivors, "processes survive SIGKILL");
        } else if let Err(error) = removed {
            warn!(container_id = %self.id, %error, "failed to remove cgroup");
        }
        if survivors == 0 {
            // Out of the tree a moment before it can be reaped. An error is a runtime that shuts down.
            let _ = self.exited.readable().await;
        }
        let status = self.main.reap();
        for log in &mut self.logs {
            if timeout(DRAIN_TIMEOUT, &mut *log).await.is_err() {
                log.abort();
            }
        }
        let usage = Usage {
            stdout: self.shared.stdout.usage(),
            stderr: self.shared.stderr.usage(),
            ..usage
        };
        let oom = OomReport::judge(status, killed, &usage);
        ExitReport {
            status,
            killed,
            oom,
            usage,
            survivors,
            command: self.command,
        }
    }

    /// Until the command ends by itself or the time of SIGKILL has come. Returns whether a kill
    /// was asked for.
    async fn until_exit_or_deadline(&mut self) -> bool {
        let mut asked = false;
        loop {
            let deadline = *self.stop.borrow_and_update();
            if deadline.is_some() && !asked {
                asked = true;
                self.terminate().await;
            }
            tokio::select! {
                // The command's own end counts as such even if a kill comes at the same moment.
                biased;
                _ = self.exited.readable() => return deadline.is_some(),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return true,
                changed = self.stop.changed() => if changed.is_err() { return true },
            }
        }
    }

    async fn terminate(&self) {
        let tree = Arc::clone(&self.tree);
        // An error is a runtime that shuts down; SIGKILL follows in any case.
        let _ = spawn_blocking(move || tree.terminate()).await;
    }

    /// After the command has ended the others still have what is left of their grace: they were
    /// asked to end, too, and a shell often ends before its children.
    async fn until_empty_or_deadline(&mut self) {
        let mut delay = POLL_DELAY_MIN;
        loop {
            let deadline = *self.stop.borrow_and_update();
            let tree = Arc::clone(&self.tree);
            let is_empty = spawn_blocking(move || tree.members().is_empty())
                .await
                .unwrap_or(true);
            let Some(deadline) =
                deadline.filter(|deadline| !is_empty && *deadline > Instant::now())
            else {
                return;
            };
            tokio::select! {
                () = sleep(delay) => {}
                () = sleep_until(deadline) => {}
                changed = self.stop.changed() => if changed.is_err() { return },
            }
            delay = (delay * 2).min(POLL_DELAY_MAX);
        }
    }
}
