//! Containers of tasks: started, watched and killed on the runtime, one small task each.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_proto::check::Probe;
use meros_proto::fetch::FetchUri;
use meros_proto::ids::{ClusterId, SlaveId};
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, TaskExit};
use meros_proto::task::TaskLimits;
use meros_slave_core::{
    CheckPurpose, ContainerExit, ContainerId, Event, Limitation, MountedVolume, Owner, ProbeId,
    TaskKey, VolumeDirectory,
};
use meros_v1::ids::Ids;
use nix::unistd::{Gid, Uid, User, geteuid};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::inbox::{Inbox, Input};
use crate::container::{
    Adoptable, Container, ContainerSpec, Containerizer, ExitReport, ExitStatus, OomScope, Part,
    PartState, StartError,
};
use crate::executor::{Callers, Door, Sessions, Tokens};
use crate::fetch::{self, Cancel, Canceller, Destination, Fetcher, cancel};
use crate::image::{self, Hold, Images, Prepared};
use crate::output::{LiveOutput, Outputs};
use crate::plan::{
    TaskSettings, V1Access, container_spec, executor_place, executor_spec, limits_of,
};
use crate::probe::Prober;
use crate::sandbox::Sandboxes;
use crate::volumes::Volumes;

/// So often the data of a destroyed volume is tried to be removed: somebody may still write there.
const WIPE_ATTEMPTS: u32 = 10;
/// Between two attempts.
const WIPE_PAUSE: Duration = Duration::from_secs(2);

/// Of a task whose network a slave without root cannot enter.
const NO_WAY_IN: &str = "tasks have a network of their own here (isolation net), and this slave does not run \
                         as root, so it cannot connect to them: use a check by command";

/// What is counted of containers.
#[derive(Debug, Default)]
pub(crate) struct ContainerCounters {
    pub(crate) started: AtomicU64,
    pub(crate) start_failures: AtomicU64,
    pub(crate) oom_kills: AtomicU64,
    pub(crate) disk_kills: AtomicU64,
    /// Containers whose shim was killed or crashed.
    pub(crate) shims_lost: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) log_bytes_dropped: AtomicU64,
    /// Messages between executors and frameworks.
    pub(crate) messages_dropped: AtomicU64,
}

/// What each container's task needs.
#[derive(Debug)]
pub(crate) struct Supervision {
    pub(crate) containerizer: Containerizer,
    pub(crate) settings: TaskSettings,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) volumes: Volumes,
    pub(crate) prober: Prober,
    pub(crate) fetcher: Arc<Fetcher>,
    /// Or why there are none.
    pub(crate) images: Result<Arc<Images>, String>,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) counters: Arc<ContainerCounters>,
    pub(crate) inbox: Inbox,
    /// Connections of executors.
    pub(crate) sessions: Sessions,
    /// Where executors that speak v1 find this slave, and what proves who they are.
    pub(crate) agent: String,
    pub(crate) tokens: Arc<Tokens>,
    /// Told when a sandbox has become old.
    pub(crate) ended: Arc<Notify>,
}

/// What becomes of containers when the core has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It has not.
    Not,
    /// They go on; those that end with the slave are killed by their shims.
    Leave,
    /// They are killed without grace.
    Kill,
}

/// A container of an earlier slave that runs on.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) container: ContainerId,
    pub(crate) owner: Owner,
    pub(crate) log_bytes_max: u64,
    /// What its file tree is made of, if that is an image's.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) found: Adoptable,
}

/// The core thread's hold on its containers.
#[derive(Debug)]
pub(crate) struct Containers {
    supervision: Arc<Supervision>,
    runtime: Handle,
    running: BTreeMap<ContainerId, Arc<Container>>,
    /// Those whose files are being fetched, or may be. Dropped, they give up.
    starting: BTreeMap<ContainerId, Canceller>,
    /// Set when the core has ended.
    halt: watch::Sender<Halt>,
    /// Cloned into each container's task: when all are gone, so are the containers.
    alive: mpsc::Sender<()>,
}

impl Containers {
    /// Also returns what ends when this and all containers have ended.
    pub(crate) fn new(supervision: Supervision, runtime: Handle) -> (Self, mpsc::Receiver<()>) {
        let (alive, gone) = mpsc::channel(1);
        let containers = Self {
            supervision: Arc::new(supervision),
            runtime,
            running: BTreeMap::new(),
            starting: BTreeMap::new(),
            halt: watch::Sender::new(Halt::Not),
            alive,
        };
        (containers, gone)
    }

    pub(super) fn start(
        &mut self,
        container: ContainerId,
        slave_id: SlaveId,
        run: Box<RunTask>,
        volumes: Vec<MountedVolume>,
        ends_with_slave: bool,
    ) {
        let key = (run.framework.framework_id, run.task.task_id.clone());
        let (canceller, cancel) = cancel();
        self.starting.insert(container, canceller);
        let order = Order {
            slave_id,
            what: What::Task(run),
            volumes,
            ends_with_slave,
            cancel,
        };
        self.start_in(key, container, order);
    }

    pub(super) fn start_executor(
        &mut self,
        container: ContainerId,
        at: (ClusterId, SlaveId),
        run: Box<RunExecutor>,
        ends_with_slave: bool,
    ) {
        let (cluster_id, slave_id) = at;
        let key = (run.framework.framework_id, run.executor.executor_id.clone());
        let Some(key) = executor_place(&key) else {
            // The core takes no id that is so long.
            return warn!(%container, "an executor without a place for its sandbox");
        };
        let (canceller, cancel) = cancel();
        self.starting.insert(container, canceller);
        let order = Order {
            slave_id,
            what: What::Executor(run, cluster_id),
            volumes: Vec::new(),
            ends_with_slave,
            cancel,
        };
        self.start_in(key, container, order);
    }

    fn start_in(&self, key: TaskKey, container: ContainerId, order: Order) {
        let supervised = self.supervised(key, container);
        // From now on its output can be asked for.
        let output = self.supervision.outputs.begin(&supervised.key, container);
        self.runtime.spawn(supervised.run(order, output));
    }

    /// Gives a running container what it and its tasks may use.
    pub(super) fn resize(&self, container: ContainerId, resources: &Resources) {
        let Some(process) = self.running.get(&container).map(Arc::clone) else {
            return;
        };
        let limits = limits_of(resources, TaskLimits::default(), &self.supervision.settings);
        // Before the task is given: it would be killed for want of the memory that it brings.
        if let Err(error) = process.resize(&limits) {
            warn!(%container, %error, "failed to change the limits of an executor");
        }
    }

    /// Takes over what an earlier slave has started. Must be called in the runtime.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        let Inherited {
            container,
            owner,
            log_bytes_max,
            layers,
            found,
        } = inherited;
        let is_executor = matches!(owner, Owner::Executor(_));
        let Some(key) = place_of(&owner) else {
            return warn!(%container, "a container without a place for its sandbox");
        };
        let process = match self.supervision.containerizer.adopt(found) {
            Ok(process) => Arc::new(process),
            // The runtime shuts down; the next start finds it again.
            Err(error) => return warn!(%container, %error, "failed to take over a container"),
        };
        let holds = match &self.supervision.images {
            Ok(images) => images.inherit(&layers),
            Err(_) => Vec::new(),
        };
        let supervised = self.supervised(key, container);
        let outputs = &self.supervision.outputs;
        let output = outputs.resume(&supervised.key, container, log_bytes_max);
        output.attach(&process);
        self.running.insert(container, Arc::clone(&process));
        let sandbox = self.supervision.sandboxes.path(&supervised.key, container);
        let door = is_executor.then(|| Door::open(&sandbox, is_own(&sandbox)));
        let door = door.and_then(|door| {
            door.inspect_err(|error| {
                // It does not subscribe again then, and is ended when its time is over.
                warn!(%container, %error, "failed to open the socket of an executor");
            })
            .ok()
        });
        self.runtime
            .spawn(supervised.see_through(process, output, door, holds));
    }

    fn supervised(&self, key: TaskKey, container: ContainerId) -> Supervised {
        Supervised {
            key,
            container,
            shared: Arc::clone(&self.supervision),
            halt: self.halt.subscribe(),
            alive: self.alive.clone(),
        }
    }

    /// No later slave is to find it.
    pub(super) fn forget(&self, container: ContainerId) {
        let shared = Arc::clone(&self.supervision);
        let id = container.to_string();
        // At once: a task of the same name may come next.
        shared.containerizer.forget(&id);
        self.runtime
            .spawn_blocking(move || shared.containerizer.sweep(&id));
    }

    /// Removes the data of a destroyed volume. A failure is tried again, at last by the next start.
    pub(super) fn wipe(&self, directory: VolumeDirectory) {
        let shared = Arc::clone(&self.supervision);
        self.runtime.spawn(async move {
            for attempt in 1..=WIPE_ATTEMPTS {
                let (volumes, name) = (shared.volumes.clone(), directory.clone());
                match spawn_blocking(move || volumes.wipe(&name)).await {
                    Ok(Ok(())) => {
                        let wiped = Event::VolumeWiped { directory };
                        // Nobody is left to be told only when the slave goes.
                        let _ = shared.inbox.send(Input::Event(wiped)).await;
                        return;
                    }
                    Ok(Err(error)) => {
                        warn!(%directory, attempt, %error, "failed to wipe a destroyed volume");
                    }
                    Err(_) => return,
                }
                tokio::time::sleep(WIPE_PAUSE).await;
            }
        });
    }

    /// A message of an executor or for one found too many others waiting.
    pub(super) fn message_dropped(&self) {
        let counters = &self.supervision.counters;
        counters.messages_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn started(&mut self, container: ContainerId, process: Arc<Container>) {
        self.starting.remove(&container);
        self.running.insert(container, process);
    }

    /// One that runs.
    pub(super) fn process(&self, container: ContainerId) -> Option<Arc<Container>> {
        self.running.get(&container).map(Arc::clone)
    }

    pub(super) fn kill(&self, container: ContainerId, grace: Duration) {
        match self.running.get(&container) {
            Some(process) => process.kill(grace),
            // Its end is on its way to the core.
            None => debug!(%container, "kill of a container that has ended"),
        }
    }

    /// Tries it, and tells the core; for naught if the container ends first.
    pub(super) fn probe(&self, id: ProbeId, probe: Box<Probe>, limit: Duration) {
        let Some(process) = self.running.get(&id.container).map(Arc::clone) else {
            return debug!(container = %id.container, "probe of a container that has ended");
        };
        let shared = Arc::clone(&self.supervision);
        self.runtime.spawn(async move {
            let found = tokio::select! {
                found = shared.prober.probe(&process, id.purpose, &probe, limit) => found,
                _ = process.wait() => return,
            };
            let probed = Event::Probed { probe: id, found };
            // Nobody is left to be told only when the slave goes.
            let _ = shared.inbox.send(Input::Event(probed)).await;
        });
    }

    pub(super) fn ended(&mut self, container: ContainerId) {
        self.running.remove(&container);
        self.starting.remove(&container);
    }

    /// Gives up what is being fetched for it.
    pub(super) fn cancel(&self, container: ContainerId) {
        if let Some(canceller) = self.starting.get(&container) {
            canceller.cancel();
        }
    }

    /// The core has ended.
    pub(super) fn halt(&self, how: Halt) {
        self.halt.send_replace(how);
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        // Also when the core's thread panics: the next start takes them up.
        self.halt.send_if_modified(|halt| {
            let is_new = *halt == Halt::Not;
            if is_new {
                *halt = Halt::Leave;
            }
            is_new
        });
    }
}

/// Where the sandbox and the output of a container are kept.
pub(crate) fn place_of(owner: &Owner) -> Option<TaskKey> {
    match owner {
        Owner::Task(task) => Some(task.clone()),
        Owner::Executor(executor) => executor_place(executor),
    }
}

/// Whether a sandbox belongs to the user that the slave runs as.
fn is_own(sandbox: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::symlink_metadata(sandbox).map(|it| it.uid());
    owner.is_ok_and(|uid| uid == geteuid().as_raw())
}

/// What a container is for.
enum What {
    Task(Box<RunTask>),
    Executor(Box<RunExecutor>, ClusterId),
}

impl What {
    /// The files that it wants in its sandbox.
    fn uris(&self) -> Vec<FetchUri> {
        let command = match self {
            Self::Task(run) => run.task.command.as_ref(),
            Self::Executor(run, _) => run.executor.command.as_ref(),
        };
        command.map_or_else(Vec::new, |command| command.uris.clone())
    }
}

impl What {
    /// What it wants of its image, if it has one.
    fn in_image(&self) -> Option<image::Wanted> {
        let (command, framework) = match self {
            Self::Task(run) => (run.task.command.as_ref(), &run.framework),
            Self::Executor(run, _) => (run.executor.command.as_ref(), &run.framework),
        };
        image::Wanted::of(command, framework.user.as_ref())
    }
}

/// What is to run in a container.
struct Order {
    slave_id: SlaveId,
    what: What,
    volumes: Vec<MountedVolume>,
    ends_with_slave: bool,
    cancel: Cancel,
}

/// One container, from its sandbox to its end.
struct Supervised {
    key: TaskKey,
    container: ContainerId,
    shared: Arc<Supervision>,
    halt: watch::Receiver<Halt>,
    alive: mpsc::Sender<()>,
}

impl Supervised {
    async fn run(self, order: Order, output: Arc<LiveOutput>) {
        let container = self.container;
        match self.launch(order).await {
            Ok(Launched {
                process,
                door,
                image,
            }) => {
                self.shared.counters.started.fetch_add(1, Ordering::Relaxed);
                output.attach(&process);
                let (name, holds) = image.map(|it| (it.name, it.holds)).unzip();
                let started = Input::Started(container, Arc::clone(&process), name);
                // If the core is gone, what becomes of it is known already.
                let _ = self.shared.inbox.send(started).await;
                let holds = holds.unwrap_or_default();
                self.see_through(process, output, door, holds).await;
            }
            Err(message) => {
                self.shared
                    .counters
                    .start_failures
                    .fetch_add(1, Ordering::Relaxed);
                debug!(framework_id = %self.key.0, task_id = %self.key.1, error = message, "container not started");
                let event = Event::ContainerNotStarted { container, message };
                self.tell_end(event, &output).await;
            }
        }
    }

    /// From its start, or from ours, to its end.
    async fn see_through(
        mut self,
        process: Arc<Container>,
        output: Arc<LiveOutput>,
        door: Option<Door>,
        image: Vec<Hold>,
    ) {
        let container = self.container;
        let callers = Callers::new();
        let open = door.map(|door| {
            let sessions = self.shared.sessions.clone();
            let serve = door.serve(container, Arc::clone(&process), sessions, callers.clone());
            AbortOnDrop(tokio::spawn(serve))
        });
        let Some(report) = self.watch(&process).await else {
            return;
        };
        drop((open, image));
        // What it sent before its end is heard before its end.
        callers.dismiss().await;
        self.count(&report);
        let event = match exit_of(&report) {
            Some(exit) => Event::ContainerEnded { container, exit },
            None => Event::ContainerLost { container },
        };
        self.tell_end(event, &output).await;
    }

    async fn tell_end(self, event: Event, output: &Arc<LiveOutput>) {
        self.finish(output).await;
        // Nobody is left to be told only when the slave goes.
        let _ = self.shared.inbox.send(Input::Event(event)).await;
        drop(self.alive);
    }

    async fn launch(&self, order: Order) -> Result<Launched, String> {
        let Order {
            slave_id,
            what,
            volumes: mounted,
            ends_with_slave,
            cancel,
        } = order;
        if let What::Task(run) = &what {
            self.check_checks(run)?;
        }
        let (shared, key, container) = (Arc::clone(&self.shared), self.key.clone(), self.container);
        let shared_volumes = shared.volumes.clone();
        let made = spawn_blocking(move || shared.sandboxes.create(&key, container)).await;
        let sandbox = made
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot make the sandbox: {error}"))?;
        let settings = &self.shared.settings;
        let is_executor = matches!(what, What::Executor(..));
        let (uris, in_image) = (what.uris(), what.in_image());
        let mut spec = match what {
            What::Task(run) => container_spec(
                &run,
                slave_id,
                container,
                &sandbox,
                settings,
                ends_with_slave,
            )
            .ok_or_else(|| "the task has no command".to_owned())?,
            What::Executor(run, cluster_id) => executor_spec(
                &run,
                slave_id,
                container,
                &sandbox,
                settings,
                ends_with_slave,
                V1Access {
                    ids: Ids::new(cluster_id),
                    agent: &self.shared.agent,
                    token: self.shared.tokens.token(container),
                },
            ),
        };
        let image = match in_image {
            Some(wanted) => {
                let prepared = self.prepare_image(wanted, spec, &cancel).await?;
                spec = prepared.0;
                Some(prepared.1)
            }
            None => None,
        };
        let (owner, at) = (owner_of(&spec).await, sandbox.clone());
        let known = owner.as_ref().ok().copied().flatten();
        let volumes = shared_volumes;
        let put = spawn_blocking(move || volumes.mount(&mounted, &at, known)).await;
        spec.shown = put
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot put the volumes into the sandbox: {error}"))?;
        if !uris.is_empty() {
            // After the volumes: nothing that was fetched is to lead them astray.
            self.fetch(&uris, sandbox.clone(), owner?, &cancel).await?;
        }
        let is_own_user = spec.user.is_none() && spec.image.is_none();
        let door = is_executor.then(|| Door::open(&sandbox, is_own_user));
        let door = door
            .transpose()
            .map_err(|error| format!("cannot make the socket of the executor: {error}"))?;
        let started = self.shared.containerizer.start(spec).await;
        let process = started.map(Arc::new).map_err(|error| explain(&error))?;
        Ok(Launched {
            process,
            door,
            image,
        })
    }

    /// Brings its image, and makes it a container in that.
    async fn prepare_image(
        &self,
        wanted: image::Wanted,
        mut spec: ContainerSpec,
        cancel: &Cancel,
    ) -> Result<(ContainerSpec, Prepared), String> {
        let images = self.shared.images.as_ref().map_err(|why| {
            let why = image::Failure::Unavailable(why.clone());
            let reference = wanted.image().reference.chars().take(200).collect();
            image::ImageError { reference, why }.to_string()
        })?;
        let tell = self.teller();
        let prepared = images.prepare(wanted.image(), cancel, &tell).await;
        let prepared = prepared.map_err(|error| error.to_string())?;
        let furnished = spawn_blocking(move || {
            wanted.furnish(&mut spec, &prepared)?;
            Ok::<_, image::ImageError>((spec, prepared))
        });
        let furnished = furnished.await.map_err(|error| error.to_string())?;
        furnished.map_err(|error| error.to_string())
    }

    /// Tells how far its preparation is.
    fn teller(&self) -> impl Fn(String) + Send + Sync + 'static {
        let container = self.container;
        let inbox = self.shared.inbox.clone();
        move |message: String| {
            inbox.offer(Input::Event(Event::ContainerPreparing {
                container,
                message,
            }));
        }
    }

    /// A check that could never be passed is no reason to kill a task again and again.
    fn check_checks(&self, run: &RunTask) -> Result<(), String> {
        let parts = self.shared.containerizer.parts();
        let has_own_network = parts.get(&Part::Net) == Some(&PartState::On);
        if !has_own_network || geteuid().is_root() {
            return Ok(());
        }
        let checks = CheckPurpose::ALL.into_iter();
        let mut checks = checks.filter_map(|purpose| purpose.of(&run.task));
        match checks.find(|check| !matches!(check.probe, Probe::Command(_))) {
            Some(_) => Err(NO_WAY_IN.to_owned()),
            None => Ok(()),
        }
    }

    /// Brings its files into its sandbox and says how far that is.
    async fn fetch(
        &self,
        uris: &[FetchUri],
        sandbox: PathBuf,
        owner: Option<fetch::Owner>,
        cancel: &Cancel,
    ) -> Result<(), String> {
        let destination = Destination { sandbox, owner };
        let tell = self.teller();
        let fetched = self.shared.fetcher.fetch(uris, &destination, cancel, &tell);
        fetched.await.map_err(|error| error.to_string())
    }

    /// Until its end; none if it goes on without us.
    async fn watch(&mut self, process: &Container) -> Option<Arc<ExitReport>> {
        let how = tokio::select! {
            report = process.wait() => return Some(report),
            // Its sender gone means that the core is gone, too.
            how = self.halt.wait_for(|halt| *halt != Halt::Not) => how.map_or(Halt::Leave, |how| *how),
        };
        if how != Halt::Kill {
            process.leave();
            return None;
        }
        process.kill(Duration::ZERO);
        Some(process.wait().await)
    }

    /// Remembers the end beside the sandbox, so that its output can be read on.
    async fn finish(&self, output: &Arc<LiveOutput>) {
        let (shared, key, container) = (Arc::clone(&self.shared), self.key.clone(), self.container);
        let ended = output.ended();
        let written =
            spawn_blocking(move || shared.sandboxes.finish(&key, container, &ended)).await;
        if let Ok(Err(error)) = written {
            warn!(framework_id = %self.key.0, task_id = %self.key.1, %error, "the end of a sandbox is not recorded");
        }
        self.shared.outputs.end(&self.key, output);
        self.shared.ended.notify_one();
    }

    fn count(&self, report: &ExitReport) {
        let counters = &self.shared.counters;
        let usage = &report.usage;
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&counters.oom_kills, u64::from(report.oom.is_some()));
        add(&counters.disk_kills, u64::from(report.disk.is_some()));
        add(&counters.shims_lost, u64::from(report.shim_lost));
        add(&counters.log_bytes, usage.stdout.bytes + usage.stderr.bytes);
        add(
            &counters.log_bytes_dropped,
            usage.stdout.bytes_dropped + usage.stderr.bytes_dropped,
        );
    }
}

/// A container that runs, and what goes with it.
struct Launched {
    process: Arc<Container>,
    door: Option<Door>,
    image: Option<Prepared>,
}

/// Who will own the sandbox of a container, if not we.
async fn owner_of(spec: &ContainerSpec) -> Result<Option<fetch::Owner>, String> {
    if let Some(image) = &spec.image {
        let (uid, gid) = (image.account.uid, image.account.gid);
        return Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid))));
    }
    match spec.user.clone() {
        Some(name) => account(name).await.map(Some),
        None => Ok(None),
    }
}

/// Who will own the files of a task.
async fn account(name: String) -> Result<fetch::Owner, String> {
    let unknown = format!("unknown user {name:?}");
    let found = spawn_blocking(move || User::from_name(&name)).await;
    let user = found.ok().and_then(Result::ok).flatten();
    user.map(|user| (user.uid, user.gid)).ok_or(unknown)
}

/// A task that ends with its holder.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The error and its causes, for the framework.
fn explain(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// None if nobody knows.
pub(crate) fn exit_of(report: &ExitReport) -> Option<ContainerExit> {
    if report.shim_lost {
        return None;
    }
    let exit = match report.status {
        ExitStatus::Exited(code) => TaskExit::Code(code),
        ExitStatus::Signaled(number) => TaskExit::Signal(number),
    };
    let limitation = report
        .oom
        .as_ref()
        .filter(|oom| oom.scope == OomScope::Limit);
    let limitation = limitation.map(|oom| Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: oom.message.clone(),
    });
    let too_large = report.disk.as_ref().map(|disk| Limitation {
        reason: Reason::ContainerLimitationDisk,
        message: disk.message(),
    });
    let limitation = too_large.or(limitation);
    // The core has words for codes and signals; the containerizer knows these better.
    let has_more =
        report.oom.is_some() || report.disk.is_some() || matches!(exit, TaskExit::Code(126 | 127));
    let message = if has_more {
        report.message()
    } else {
        String::new()
    };
    Some(ContainerExit {
        exit,
        limitation,
        message,
    })
}
