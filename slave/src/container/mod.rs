//! The containerizer: runs one command at a time in a sandbox directory under cgroups.
//!
//! ```no_run
//! # use meros_slave::container::*;
//! # async fn example(spec: ContainerSpec) -> Result<(), Box<dyn std::error::Error>> {
//! let isolation = Isolation::detect(&CgroupRoot::new(DEFAULT_CGROUP_NAME, "slave-5051")?);
//! for (facility, reason) in &isolation.report().missing {
//!     eprintln!("not isolated: {facility}: {reason}");
//! }
//! let (containers, leftovers) = Containerizer::open(isolation, Launcher::default())?;
//! println!("cleaned up {} containers of a crashed run", leftovers.containers);
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
//! - no group outside of `<mount>/<root>/<instance>` is touched on its behalf.
//!
//! When the slave dies without cleaning up, the kernel kills each command (`PDEATHSIG`). It does
//! not kill the command's children; with cgroups the next [`Containerizer::open`] does, without
//! cgroups they stay.
//!
//! Kernel 5.3 or newer (pidfds). Absent: what a task is, retries, checkpoints, images, networks.
#![forbid(unsafe_code)]

mod error;
#[cfg(test)]
mod fixture;
mod group;
mod init;
mod isolation;
mod launch;
mod logs;
mod main_process;
mod mounts;
mod ownership;
mod report;
mod spec;
mod supervise;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

pub use error::{CgroupRootError, OpenError, StartError};
pub use init::container_init;
pub use isolation::{
    CgroupRoot, DEFAULT_CGROUP_NAME, Facility, HierarchyKind, Isolation, IsolationReport,
};
pub use launch::Launcher;
pub use report::{ExitReport, ExitStatus, LogUsage, OomReport, OomScope, Usage};
pub use spec::{
    COMMAND_BYTES_MAX, ContainerSpec, DEFAULT_PATH, ID_BYTES_MAX, LOG_FLOOR_BYTES, Limits,
    MEMORY_FLOOR_BYTES, TaskCommand,
};
pub use supervise::Container;

use group::{Group, subgroups};
use launch::{Launched, await_task, launch};
use tree::Tree;

/// Starts waiting for the launcher thread; more callers wait in [`Containerizer::start`].
const JOBS_CAPACITY: usize = 64;
/// From the start of the launcher to `execve`; milliseconds unless the host is overloaded.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one leftover container may take to die before it is left for the next start.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a crashed run had left below our cgroup root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Containers whose cgroups were found.
    pub containers: usize,
    /// Processes that were alive in them and are dead now.
    pub processes: usize,
    /// Processes that survived SIGKILL; their cgroups are still there.
    pub survivors: usize,
}

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
    /// Takes possession of the groups of `isolation`, kills and removes what a crashed run left
    /// in them, and starts the launcher thread. Blocks, for milliseconds unless leftovers refuse
    /// to die. Groups of other instances are left alone.
    ///
    /// # Errors
    /// If the cgroup root belongs to somebody else, a living slave owns the same groups, or the host refuses a lock or a thread.
    pub fn open(
        mut isolation: Isolation,
        launcher: Launcher,
    ) -> Result<(Self, Leftovers), OpenError> {
        isolation.lock()?;
        let leftovers = remove_leftovers(&isolation);
        let isolation = Arc::new(isolation);
        let (jobs, mut received) = mpsc::channel::<Job>(JOBS_CAPACITY);
        let thread = thread::Builder::new().name("launcher".into()).spawn({
            let isolation = Arc::clone(&isolation);
            move || {
                while let Some(Job {
                    spec,
                    runtime,
                    reply,
                }) = received.blocking_recv()
                {
                    let _entered = runtime.enter();
                    // Only a runtime that shuts down does not want the reply any more.
                    if let Err(Ok(launched)) = reply.send(launch(&launcher, &isolation, &spec)) {
                        launched.abandon();
                    }
                }
            }
        });
        let thread = thread.map_err(|source| OpenError::Thread { source })?;
        let inner = Inner {
            jobs: Some(jobs),
            thread: Some(thread),
            isolation,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            leftovers,
        ))
    }

    /// What works on this host and what does not.
    #[must_use]
    pub fn report(&self) -> &IsolationReport {
        self.inner.isolation.report()
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
        let launched = launched.await.map_err(|_| StartError::ShuttingDown)??;
        let command = spec.command.name().to_owned();
        let (container, channel) =
            Container::supervise(launched, spec.id.clone(), command, Arc::clone(&self));
        let started = tokio::time::timeout(START_TIMEOUT, await_task(channel, &spec)).await;
        let error = match started {
            Ok(Ok(())) => return Ok(container),
            Ok(Err(error)) => error,
            Err(_) => StartError::TimedOut {
                seconds: START_TIMEOUT.as_secs(),
            },
        };
        container.kill(Duration::ZERO);
        let report = container.wait().await;
        match error {
            StartError::LauncherDied { .. } => Err(StartError::LauncherDied {
                ended: report.message(),
            }),
            error => Err(error),
        }
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

/// Kills and removes every container below our own instance.
fn remove_leftovers(isolation: &Isolation) -> Leftovers {
    let directories = isolation
        .dirs()
        .into_iter()
        .flat_map(|dir| subgroups(&dir).collect::<Vec<_>>());
    let names = directories.filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
    let names: BTreeSet<String> = names.filter(|name| name != isolation::SUPERVISOR).collect();
    let mut leftovers = Leftovers::default();
    for name in names {
        let group = Group::named(isolation, &name);
        // The groups of one container hold the same processes, unless the run crashed while one
        // of them was entering: so each group is emptied.
        let trees: Vec<Tree> = group
            .dirs()
            .map(|dir| Tree::Group {
                dir: dir.to_owned(),
            })
            .collect();
        let alive: BTreeSet<i32> = trees.iter().flat_map(Tree::members).collect();
        let survivors = trees
            .iter()
            .map(|tree| tree.kill_until_empty(LEFTOVER_TIMEOUT))
            .max()
            .unwrap_or(0);
        leftovers.containers += 1;
        leftovers.survivors += survivors;
        leftovers.processes += alive.len().saturating_sub(survivors);
        if let Err(error) = group.remove_retrying(survivors) {
            warn!(container_id = name, survivors, %error, "failed to remove a leftover cgroup");
        }
    }
    leftovers
}
