//! The containerizer: runs one command at a time in a sandbox directory under cgroups.
//!
//! ```no_run
//! # use meros_slave::container::*;
//! # async fn example(spec: ContainerSpec) -> Result<(), Box<dyn std::error::Error>> {
//! let isolation = Isolation::detect(&CgroupRoot::new(DEFAULT_CGROUP_NAME, "slave-5051")?);
//! for (facility, reason) in &isolation.report().missing {
//!     eprintln!("not isolated: {facility}: {reason}");
//! }
//! let folder = "/var/lib/meros/containers".into();
//! let (containers, inventory) = Containerizer::open(isolation, folder, &Wanted::default())?;
//! println!("{} containers of an earlier run", inventory.containers.len());
//! let container = containers.start(spec).await?;
//! println!("{}", container.wait().await.message());
//! # Ok(())
//! # }
//! ```
//!
//! What holds for every container:
//! - no code of the user runs before the limits are in force and the process is inside of them;
//! - its end is reported when every process of it is dead and its cgroup is gone, not before;
//! - its output never exceeds its bound and never makes it wait for a full log;
//! - it cannot gain privileges (`no_new_privs`), writes no core files, and its standard input is
//!   empty;
//! - what [runs beside it](Container::exec) is under its limits, and ends with it and with us;
//! - no group outside of `<mount>/<root>/<instance>` is touched on its behalf.
//!
//! When the slave goes, in whatever way, a container goes on under its shim (`meros-shim`, a process
//! of about a mebibyte), and the next [`Containerizer::open`] finds it, or how it ended. One that
//! [ends with its slave](ContainerSpec::ends_with_slave) is killed by its shim. If a shim is killed,
//! its container is killed and reported as [such](ExitReport::shim_lost).
//!
//! Kernel 5.3 or newer (pidfds). Absent: what a task is, retries, checkpoints, where the layers of images come from, networks.
#![forbid(unsafe_code)]

mod calls;
mod confine;
mod disk;
mod error;
mod exec;
#[cfg(test)]
mod fixture;
mod group;
mod isolation;
mod launch;
mod mounts;
mod ownership;
mod recover;
mod report;
mod seccomp;
mod shim;
mod spec;
mod supervise;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

pub use confine::{
    IsolationWishError, IsolationWishes, PartState, TASK_OPEN_FILES_DEFAULT, Wanted,
};
pub use disk::DiskReport;
pub use error::{CgroupRootError, OpenError, StartError};
pub use exec::{EXECS_MAX, Exec, ExecError, ExecInput, ExecOutput, ExecSpec, ExecStreams};
pub use isolation::{
    CgroupRoot, DEFAULT_CGROUP_NAME, Facility, HierarchyKind, Isolation, IsolationReport,
};
pub use meros_shim::{Account, CheckEnd, LOG_FLOOR_BYTES, Part, Rootfs};
pub use recover::{Found, FoundState, Inventory};
pub use report::{ExitReport, ExitStatus, LogUsage, OomReport, OomScope, Usage};
pub use spec::{
    COMMAND_BYTES_MAX, CheckCommand, ContainerSpec, DEFAULT_PATH, ID_BYTES_MAX, ImageRoot, Limits,
    MEMORY_FLOOR_BYTES, TaskCommand,
};
pub use supervise::{Adoptable, Container, DISK_WATCH_INTERVAL};

use confine::{Confined, confine};
use launch::{Launched, explain, full_name, launch};
use meros_shim::Told;
use recover::{boot_id, take_inventory};
use shim::{Folder, Heard, Shim, ShimProgram};
use supervise::Running;
use tree::Tree;

/// Starts waiting for the launcher thread; more callers wait in [`Containerizer::start`].
const JOBS_CAPACITY: usize = 64;
/// From the start of the shim to `execve`; milliseconds unless the host is overloaded.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what could not be started may take to die.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts containers, the only owner of one [`Isolation`]. Cheap to clone; the last clone that is
/// dropped, after the last container has ended, removes our groups.
#[derive(Debug, Clone)]
pub struct Containerizer {
    inner: Arc<Inner>,
}

/// What lives as long as any container.
#[derive(Debug)]
pub(crate) struct Inner {
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    folders: PathBuf,
    parts: BTreeMap<Part, PartState>,
    /// Below the thread, which uses it: fields are dropped in order.
    isolation: Arc<Isolation>,
}

#[derive(Debug)]
struct Job {
    spec: Arc<ContainerSpec>,
    /// Where the new pipes are registered.
    runtime: Handle,
    reply: oneshot::Sender<Result<Launched, StartError>>,
}

impl Containerizer {
    /// Takes possession of the groups of `isolation` and of `folders`, where each container has a
    /// folder as long as it is not [forgotten](Self::forget); finds out what of `wanted` tasks can be
    /// confined by; says what an earlier run has left there,
    /// kills and removes what belongs to nothing, and starts the launcher thread. Blocks, for
    /// milliseconds unless leftovers refuse to die. Groups of other instances are left alone.
    ///
    /// # Errors
    /// If the cgroup root belongs to somebody else, a living slave owns the same groups, the host does
    /// not give a part of isolation that is named, or refuses a lock, memory for the shim or a thread.
    pub fn open(
        mut isolation: Isolation,
        folders: PathBuf,
        wanted: &Wanted,
    ) -> Result<(Self, Inventory), OpenError> {
        isolation.lock()?;
        isolation.require(&wanted.wishes)?;
        let program = ShimProgram::load().map_err(|source| OpenError::Shim { source })?;
        let Confined {
            confinement,
            states: parts,
        } = confine(wanted, &program, &folders)?;
        let boot_id = boot_id();
        let inventory = take_inventory(&isolation, &folders, &boot_id);
        let isolation = Arc::new(isolation);
        let (jobs, mut received) = mpsc::channel::<Job>(JOBS_CAPACITY);
        let thread = thread::Builder::new().name("launcher".into()).spawn({
            let (isolation, folders) = (Arc::clone(&isolation), folders.clone());
            move || {
                while let Some(Job {
                    spec,
                    runtime,
                    reply,
                }) = received.blocking_recv()
                {
                    let _entered = runtime.enter();
                    let folder = Folder::new(folders.join(&spec.id));
                    let launched =
                        launch(&program, &isolation, &confinement, folder, &boot_id, &spec);
                    // Only a runtime that shuts down does not want the reply any more; then the next
                    // start finds it.
                    let _ = reply.send(launched);
                }
            }
        });
        let thread = thread.map_err(|source| OpenError::Thread { source })?;
        let inner = Inner {
            jobs: Some(jobs),
            thread: Some(thread),
            folders,
            parts,
            isolation,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            inventory,
        ))
    }

    /// What works on this host and what does not.
    #[must_use]
    pub fn report(&self) -> &IsolationReport {
        self.inner.isolation.report()
    }

    /// How it is with each part of the confinement beside control groups.
    #[must_use]
    pub fn parts(&self) -> &BTreeMap<Part, PartState> {
        &self.inner.parts
    }

    /// Starts a container. When this returns, the command itself is running, under its limits.
    /// Must be called in a tokio runtime. Dropping the returned future does not leave anything
    /// half-made: a container that nobody receives is killed.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left of the container then.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        spec.validate()?;
        let starting = tokio::spawn(Arc::clone(&self.inner).start(Arc::new(spec)));
        match starting.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StartError::ShuttingDown),
        }
    }
}

impl Containerizer {
    /// Takes a container over that an earlier run has started. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The runtime does not take the connection to its shim. The container is found again by the next
    /// start.
    pub fn adopt(&self, found: Adoptable) -> Result<Container, StartError> {
        let shim = Shim::adopted(found.stream, found.frames)
            .map_err(|source| StartError::Spawn { source })?;
        let running = Running {
            id: found.id,
            command: found.command,
            sandbox: found.sandbox,
            disk_bytes: found.disk_bytes,
            pid: found.pid,
            execs: found.execs,
            shim,
            folder: found.folder,
            group: found.group,
            tree: found.tree,
        };
        Ok(Container::supervise(running, Arc::clone(&self.inner)))
    }

    /// Forgets a container that has ended: when this returns, no later run finds it. What remains is
    /// [removed](Self::sweep) at leisure, or by the next start. Costs one removal of a file.
    pub fn forget(&self, id: &str) {
        if let Err(error) = self.folder(id).unname() {
            warn!(container_id = id, %error, "failed to forget a container");
        }
    }

    /// Removes the rest of a container that was forgotten. Blocks.
    pub fn sweep(&self, id: &str) {
        if let Err(error) = self.folder(id).remove() {
            warn!(container_id = id, %error, "failed to remove the folder of a container");
        }
    }

    fn folder(&self, id: &str) -> Folder {
        Folder::new(self.inner.folders.join(id))
    }
}

impl Inner {
    async fn start(self: Arc<Self>, spec: Arc<ContainerSpec>) -> Result<Container, StartError> {
        let (reply, launched) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(StartError::ShuttingDown)?;
        let job = Job {
            spec: Arc::clone(&spec),
            runtime: Handle::current(),
            reply,
        };
        jobs.send(job).await.map_err(|_| StartError::ShuttingDown)?;
        let mut launched = launched.await.map_err(|_| StartError::ShuttingDown)??;
        let error = match timeout(START_TIMEOUT, launched.shim.told()).await {
            Ok(Heard::Told(Told::Running {
                pid,
                shim,
                init,
                execs,
            })) => {
                let name = full_name(&self.isolation, &spec.id);
                let tree = Tree::new(&launched.group, shim, init, &name);
                let running = Running {
                    id: spec.id.clone(),
                    command: spec.command.name().to_owned(),
                    sandbox: spec.sandbox.clone(),
                    disk_bytes: spec.limits.disk_bytes,
                    pid,
                    execs,
                    shim: launched.shim,
                    folder: launched.folder,
                    group: launched.group,
                    tree,
                };
                return Ok(Container::supervise(running, self));
            }
            Ok(Heard::Told(Told::NotStarted(failure))) => explain(failure, &spec, &launched.group),
            Ok(
                Heard::Told(Told::Ended(_) | Told::Checked { .. } | Told::Executed { .. })
                | Heard::Lost,
            ) => StartError::Died {
                ended: "it was killed or crashed".to_owned(),
            },
            Err(_) => StartError::TimedOut {
                seconds: START_TIMEOUT.as_secs(),
            },
        };
        self.discard(launched, &spec.id).await;
        Err(error)
    }

    /// Leaves nothing of what could not be started.
    async fn discard(&self, launched: Launched, id: &str) {
        let Launched {
            shim,
            folder,
            group,
        } = launched;
        let name = full_name(&self.isolation, id);
        let trees = group.dirs().map(|dir| Tree::Group {
            dir: dir.to_owned(),
        });
        let mut trees: Vec<Tree> = trees.collect();
        if trees.is_empty() {
            trees.push(Tree::named(name));
        }
        let kill = move || {
            let left = trees
                .iter()
                .map(|tree| tree.kill_until_empty(DISCARD_TIMEOUT));
            left.max().unwrap_or(0)
        };
        let survivors = spawn_blocking(kill).await.unwrap_or(0);
        // An end that it tells is that of a task that was never seen.
        let _ = shim.finish().await;
        let remove = move || {
            // What is left then is left to the next start of the slave.
            let _ = group.remove_retrying(survivors);
            let _ = folder.remove();
        };
        let _ = spawn_blocking(remove).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Ends the thread, which must be gone before the isolation can remove its groups.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the launcher thread panicked");
        }
    }
}
