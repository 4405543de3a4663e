//! One running container: the handle that others hold and the task that sees it through.
//!
//! ```text
//! running ──command ends──────────────► SIGKILL to the rest ─► empty ─► shim gone ─► report ─► cgroup removed
//!    ├──kill(grace): SIGTERM to all ──► until empty or grace over ──┘
//!    └──leave: it goes on without us
//! ```
//! The report is written beside the shim's record before the counters go with the cgroup, so that a
//! slave that dies in between is followed by one that says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_shim::{CheckEnd, Exit, ExitStatus, Frames, Order, State, Told, read_state};
use rustix::process::Signal;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, warn};

use super::Inner;
use super::disk::{DiskReport, used_bytes};
use super::error::StartError;
use super::exec::{
    self, EXEC_ORDERS_CAPACITY, EXECS_MAX, Exec, ExecError, ExecOrder, ExecSpec, ExecStreams,
};
use super::group::Group;
use super::recover::REPORT;
use super::report::{ExitReport, LogUsage, OomReport, Usage};
use super::shim::{Folder, Heard, Shim};
use super::spec::Limits;
use super::tree::Tree;

/// How long a tree may survive SIGKILL (processes stuck in a driver) before we report without it.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest grace period; beyond it a time would overflow.
const GRACE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two looks at what a sandbox takes of the disk, once it has run for some time; as Mesos has it.
pub const DISK_WATCH_INTERVAL: Duration = Duration::from_secs(15);
/// So many sandboxes at a time are measured: a busy disk is not to become busier, nor one large sandbox
/// to hide all others.
static MEASURING: Semaphore = Semaphore::const_new(2);
/// Of a sandbox that may take as much of the disk as there is.
const NO_LIMIT: u64 = u64::MAX;
/// Checks that may wait to be ordered: one of each name.
const CHECKS_CAPACITY: usize = 4;
/// A shim that has not answered so long after the time of a check is busy with something else.
const CHECK_SLACK: Duration = Duration::from_secs(10);
/// Until a shim is told again that a command is to end.
const END_EXEC_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks at a tree that was asked to end: the first and the longest.
const POLL_DELAY_MIN: Duration = Duration::from_millis(2);
const POLL_DELAY_MAX: Duration = Duration::from_millis(100);

/// A container of an earlier slave that runs on.
#[derive(Debug)]
pub struct Adoptable {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) sandbox: PathBuf,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) pid: i32,
    pub(crate) execs: bool,
    pub(crate) stream: UnixStream,
    pub(crate) frames: Frames,
    pub(crate) folder: Folder,
    pub(crate) group: Group,
    pub(crate) tree: Tree,
}

impl Adoptable {
    /// Process id of the command.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

/// A task under its shim.
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) sandbox: PathBuf,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) pid: i32,
    /// Whether its shim runs commands beside it: one of an earlier release does not.
    pub(crate) execs: bool,
    pub(crate) shim: Shim,
    pub(crate) folder: Folder,
    pub(crate) group: Group,
    pub(crate) tree: Tree,
}

/// A running container. Dropping it kills it without grace, and [`wait`](Self::wait) is then
/// nobody's, so keep it until the report is there, or [`leave`](Self::leave) it.
#[derive(Debug)]
pub struct Container {
    id: String,
    pid: i32,
    tree: Arc<Tree>,
    shared: Arc<Shared>,
    orders: watch::Sender<Orders>,
    checks: mpsc::Sender<CheckOrder>,
    has_execs: bool,
    execs: mpsc::Sender<ExecOrder>,
    exec_places: Arc<Semaphore>,
    execs_ordered: AtomicU64,
    end: watch::Receiver<Option<Arc<ExitReport>>>,
}

/// A check to be run.
struct CheckOrder {
    check: String,
    time: Duration,
    reply: oneshot::Sender<(CheckEnd, String)>,
}

/// What is wanted of a container.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    /// When to send SIGKILL; `None` until the first kill.
    kill_at: Option<Instant>,
    leave: bool,
}

#[derive(Debug)]
struct Shared {
    group: Group,
    folder: Folder,
    /// What the shim counts; none if its file could not be opened.
    state: Option<File>,
    /// What the sandbox may take of the disk; [`NO_LIMIT`] if all of it.
    disk_bytes: AtomicU64,
    /// Our groups and our program are there as long as any container is watched.
    _inner: Arc<Inner>,
}

impl Container {
    /// Takes over a running task. Must be called in a tokio runtime.
    pub(crate) fn supervise(running: Running, inner: Arc<Inner>) -> Self {
        let Running {
            id,
            command,
            sandbox,
            disk_bytes,
            pid,
            execs: has_execs,
            shim,
            folder,
            group,
            tree,
        } = running;
        let shared = Arc::new(Shared {
            group,
            state: folder.state_file(),
            disk_bytes: AtomicU64::new(disk_bytes.unwrap_or(NO_LIMIT)),
            folder,
            _inner: inner,
        });
        let (orders, received) = watch::channel(Orders::default());
        let (report, end) = watch::channel(None);
        let (checks, ordered) = mpsc::channel(CHECKS_CAPACITY);
        let (execs, execs_ordered) = mpsc::channel(EXEC_ORDERS_CAPACITY);
        let tree = Arc::new(tree);
        let supervisor = Supervisor {
            id: id.clone(),
            command,
            sandbox,
            shim,
            tree: Arc::clone(&tree),
            shared: Arc::clone(&shared),
            orders: received,
            checks: ordered,
            checking: BTreeMap::new(),
            checks_ordered: 0,
            execs: execs_ordered,
            executing: BTreeMap::new(),
            to_end: BTreeSet::new(),
        };
        tokio::spawn(async move {
            if let Some(ended) = supervisor.run().await {
                report.send_replace(Some(Arc::new(ended)));
            }
        });
        Self {
            id,
            pid,
            tree,
            shared,
            orders,
            checks,
            has_execs,
            execs,
            exec_places: Arc::new(Semaphore::new(EXECS_MAX)),
            execs_ordered: AtomicU64::new(0),
            end,
        }
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

    /// Whether this process is one of the container's. Reads the list of them.
    #[must_use]
    pub fn has_process(&self, pid: i32) -> bool {
        pid == self.pid || self.tree.members().contains(&pid)
    }

    /// Gives it other limits while it runs. Memory and disk are never taken away: what was in use could kill
    /// it. Blocks a little.
    ///
    /// # Errors
    /// The kernel refuses them; some may be in force.
    pub fn resize(&self, limits: &Limits) -> Result<(), StartError> {
        self.shared.raise_disk(limits.disk_bytes);
        self.shared.group.resize(limits)
    }

    /// Sends SIGTERM to every process of the container and, after `grace`, SIGKILL to those that
    /// are left; without a grace SIGKILL alone. Returns at once; the end is reported by [`wait`](Self::wait).
    ///
    /// May be repeated: a later call can bring SIGKILL forward, never put it off (semantics: B9).
    pub fn kill(&self, grace: Duration) {
        let at = Instant::now() + grace.min(GRACE_MAX);
        self.orders.send_if_modified(|orders| {
            let sooner = orders.kill_at.is_none_or(|planned| at < planned);
            if sooner {
                orders.kill_at = Some(at);
            }
            sooner
        });
    }

    /// Sends a signal to its first process alone. Blocks a little.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.tree.signal_one(self.pid, signal)
    }

    /// Runs one of its [checks](super::ContainerSpec::checks) beside it, for so long at the most: under its
    /// limits, with its user, namespaces and rights. How it ended, and the beginning of what it wrote.
    /// None if the container ends, or its shim does not answer.
    pub async fn check(&self, name: &str, time: Duration) -> Option<(CheckEnd, String)> {
        let (reply, answer) = oneshot::channel();
        let check = name.to_owned();
        self.checks
            .try_send(CheckOrder { check, time, reply })
            .ok()?;
        timeout(time + CHECK_SLACK, answer).await.ok()?.ok()
    }

    /// Runs a command beside it, with its streams in our hands: under its limits, with its user, namespaces
    /// and rights. It is killed when the [`Exec`] is dropped, and when the container ends. Must be called in a
    /// tokio runtime; dropping the returned future leaves nothing behind.
    ///
    /// # Errors
    /// See [`ExecError`].
    pub async fn exec(&self, spec: ExecSpec) -> Result<(Exec, ExecStreams), ExecError> {
        if !self.has_execs {
            return Err(ExecError::Unsupported);
        }
        let place = Arc::clone(&self.exec_places).try_acquire_owned();
        let place = place.map_err(|_| ExecError::Busy)?;
        let number = self.execs_ordered.fetch_add(1, Ordering::Relaxed) + 1;
        let orders = self.execs.clone();
        exec::start(&self.shared.folder, number, spec, orders, place).await
    }

    /// Lets it go on without us: a later slave finds it, as [`FoundState`](super::FoundState). One that
    /// [ends with its slave](super::ContainerSpec::ends_with_slave) is killed by its shim. What is being
    /// ended already is ended.
    pub fn leave(&self) {
        self.orders.send_modify(|orders| orders.leave = true);
    }

    /// Waits for the end: all processes dead, all output written, the cgroup removed. May be
    /// called any number of times. Never returns for a container that was left.
    pub async fn wait(&self) -> Arc<ExitReport> {
        let mut end = self.end.clone();
        if let Ok(report) = end.wait_for(Option::is_some).await {
            return report.clone().expect("waited for it");
        }
        std::future::pending().await
    }

    /// What its standard output and standard error saw so far, in this order. Reads 64 bytes of a file.
    #[must_use]
    pub fn log_usage(&self) -> (LogUsage, LogUsage) {
        let State { stdout, stderr, .. } = self.shared.counted();
        (stdout, stderr)
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
    /// All is dead: what remains to be said and removed. Blocks.
    fn conclude(
        &self,
        id: &str,
        command: String,
        exit: Option<Exit>,
        killed: bool,
        disk: Option<DiskReport>,
        survivors: usize,
    ) -> ExitReport {
        let status = exit.map_or(ExitStatus::Signaled(9), |exit| exit.status);
        let usage = self.usage();
        let report = ExitReport {
            status,
            // A survivor has no end that anybody could know.
            shim_lost: exit.is_none() && survivors == 0,
            killed,
            disk,
            oom: exit.and_then(|_| OomReport::judge(status, killed, &usage)),
            usage,
            survivors,
            command,
        };
        let text = serde_json::to_vec(&report).expect("plain data, no maps with odd keys");
        if let Err(error) = self.folder.write(REPORT, &text) {
            // Only a slave that dies now would miss it, and would still have the shim's record.
            warn!(container_id = id, %error, "the end of a container is not recorded");
        }
        if survivors > 0 {
            error!(container_id = id, survivors, "processes survive SIGKILL");
        } else if let Err(error) = self.group.remove_retrying(survivors) {
            warn!(container_id = id, %error, "failed to remove cgroup");
        }
        report
    }

    /// What ended tasks left in the sandbox stays there, so that it may always have what it once might.
    fn raise_disk(&self, disk_bytes: Option<u64>) {
        let bytes = disk_bytes.unwrap_or(NO_LIMIT);
        self.disk_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    fn counted(&self) -> State {
        let state = self.state.as_ref().and_then(|file| read_state(file).ok());
        state.unwrap_or_default()
    }

    fn usage(&self) -> Usage {
        let State { stdout, stderr, .. } = self.counted();
        Usage {
            stdout,
            stderr,
            ..self.group.usage()
        }
    }
}

/// What the wait for the end of a command came to.
enum Outcome {
    Ended(Exit),
    /// The shim is gone.
    Lost,
    /// The time of SIGKILL has come.
    Overdue,
    /// It takes too much of the disk.
    TooLarge(DiskReport),
    Left,
}

/// Returns when a sandbox takes more than it may.
async fn watch_disk(sandbox: PathBuf, shared: Arc<Shared>) -> DiskReport {
    // A multitude that starts together is not to be measured together for ever; the first look comes
    // soon, for what fills a disk does so at once.
    let mut pause = DISK_WATCH_INTERVAL / 15;
    loop {
        sleep(pause).await;
        let limit_bytes = shared.disk_bytes.load(Ordering::Relaxed);
        if limit_bytes == NO_LIMIT {
            // Limits are never taken back, so it stays without.
            return std::future::pending().await;
        }
        let sandbox = sandbox.clone();
        let turn = MEASURING.acquire().await;
        let began = Instant::now();
        let used = spawn_blocking(move || used_bytes(&sandbox, limit_bytes));
        // An error is a runtime that shuts down.
        let used_bytes = used.await.unwrap_or(0);
        drop(turn);
        // It may have been given more meanwhile.
        let is_in_force = limit_bytes == shared.disk_bytes.load(Ordering::Relaxed);
        if used_bytes > limit_bytes && is_in_force {
            return DiskReport {
                limit_bytes,
                used_bytes,
            };
        }
        // Where there are many files or many tasks, looking takes a tenth of the time at the most.
        pause = (pause * 2)
            .min(DISK_WATCH_INTERVAL)
            .max(began.elapsed() * 9);
    }
}

struct Supervisor {
    id: String,
    command: String,
    sandbox: PathBuf,
    shim: Shim,
    tree: Arc<Tree>,
    shared: Arc<Shared>,
    orders: watch::Receiver<Orders>,
    checks: mpsc::Receiver<CheckOrder>,
    /// Who waits for an answer, by the number of the order.
    checking: BTreeMap<u64, oneshot::Sender<(CheckEnd, String)>>,
    checks_ordered: u64,
    execs: mpsc::Receiver<ExecOrder>,
    /// Who waits for the end of a command, by its number.
    executing: BTreeMap<u64, oneshot::Sender<ExitStatus>>,
    /// Commands whose end the shim had no room to hear of: it is told again.
    to_end: BTreeSet<u64>,
}

impl Supervisor {
    /// None if it was left.
    async fn run(mut self) -> Option<ExitReport> {
        let (outcome, killed) = self.until_ended_or_overdue().await;
        let mut disk = None;
        let exit = match outcome {
            Outcome::Left => {
                self.shim.leave();
                return None;
            }
            Outcome::Ended(exit) => Some(exit),
            Outcome::Lost => self.shared.folder.exit(),
            Outcome::Overdue => None,
            Outcome::TooLarge(report) => {
                disk = Some(report);
                None
            }
        };
        if killed {
            self.until_empty_or_deadline().await;
        }
        let tree = Arc::clone(&self.tree);
        // Only a runtime that shuts down refuses, and then nobody waits for the report.
        let survivors = spawn_blocking(move || tree.kill_until_empty(KILL_TIMEOUT)).await;
        let survivors = survivors.unwrap_or(0);
        let told = self.shim.finish().await;
        let exit = exit.or(told).or_else(|| self.shared.folder.exit());
        let (shared, id, command) = (self.shared, self.id, self.command);
        let conclude = move || shared.conclude(&id, command, exit, killed, disk, survivors);
        spawn_blocking(conclude).await.ok()
    }

    /// Until the command ends by itself or the time of SIGKILL has come. Also says whether a kill was
    /// asked for.
    async fn until_ended_or_overdue(&mut self) -> (Outcome, bool) {
        let mut asked = false;
        let mut watch = Box::pin(watch_disk(self.sandbox.clone(), Arc::clone(&self.shared)));
        loop {
            let Orders { kill_at, leave } = *self.orders.borrow_and_update();
            if leave && kill_at.is_none() {
                return (Outcome::Left, false);
            }
            if let Some(at) = kill_at.filter(|_| !asked) {
                asked = true;
                // Without a grace there is nothing that it could do about it.
                if at > Instant::now() {
                    self.terminate().await;
                }
            }
            tokio::select! {
                // The command's own end counts as such even if a kill comes at the same moment.
                biased;
                heard = self.shim.told() => match heard {
                    Heard::Told(Told::Ended(exit)) => return (Outcome::Ended(exit), kill_at.is_some()),
                    Heard::Told(Told::Checked { number, end, output }) => {
                        if let Some(reply) = self.checking.remove(&number) {
                            // Who does not wait any more does not want to know.
                            let _ = reply.send((end, output));
                        }
                    }
                    Heard::Told(Told::Executed { number, status }) => {
                        if let Some(end) = self.executing.remove(&number) {
                            let _ = end.send(status);
                        }
                    }
                    Heard::Told(_) => {}
                    Heard::Lost => return (Outcome::Lost, kill_at.is_some()),
                },
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => return (Outcome::Overdue, true),
                report = &mut watch => return (Outcome::TooLarge(report), kill_at.is_some()),
                changed = self.orders.changed() => if changed.is_err() { return (Outcome::Overdue, true) },
                Some(order) = self.checks.recv() => self.order_check(order),
                Some(order) = self.execs.recv() => self.order_exec(order),
                () = sleep(END_EXEC_PAUSE), if !self.to_end.is_empty() => self.end_execs(),
            }
        }
    }

    fn order_check(&mut self, order: CheckOrder) {
        let CheckOrder { check, time, reply } = order;
        self.checks_ordered += 1;
        let number = self.checks_ordered;
        let timeout_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let order = Order::Check {
            number,
            check,
            timeout_ms,
        };
        self.checking.retain(|_, reply| !reply.is_closed());
        if self.shim.order(&order).is_ok() {
            self.checking.insert(number, reply);
        }
    }

    /// A shim that is stopped or very slow may have no room for an order: a command is not started then, a
    /// signal is lost, and an end waits.
    fn order_exec(&mut self, order: ExecOrder) {
        let (number, order, end) = order.into_parts();
        if matches!(order, Order::EndExec { .. }) {
            self.executing.remove(&number);
            self.to_end.insert(number);
            return self.end_execs();
        }
        if self.shim.order(&order).is_ok()
            && let Some(end) = end
        {
            self.executing.insert(number, end);
        }
    }

    fn end_execs(&mut self) {
        let shim = &mut self.shim;
        self.to_end
            .retain(|&number| shim.order(&Order::EndExec { number }).is_err());
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
            let deadline = self.orders.borrow_and_update().kill_at;
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
                changed = self.orders.changed() => if changed.is_err() { return },
            }
            delay = (delay * 2).min(POLL_DELAY_MAX);
        }
    }
}
