//! Containers of tasks: started, watched and killed on the runtime, one small task each.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_proto::ids::SlaveId;
use meros_proto::message::slave::RunTask;
use meros_proto::status::{Reason, TaskExit};
use meros_slave_core::{
    ContainerExit, ContainerId, Event, Limitation, MountedVolume, TaskKey, VolumeDirectory,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::inbox::{Inbox, Input};
use crate::container::{Container, Containerizer, ExitReport, ExitStatus, OomScope, StartError};
use crate::output::{LiveOutput, Outputs};
use crate::plan::{TaskSettings, container_spec};
use crate::sandbox::Sandboxes;
use crate::volumes::Volumes;

/// So often the data of a destroyed volume is tried to be removed: somebody may still write there.
const WIPE_ATTEMPTS: u32 = 10;
/// Between two attempts.
const WIPE_PAUSE: Duration = Duration::from_secs(2);

/// What is counted of containers.
#[derive(Debug, Default)]
pub(crate) struct ContainerCounters {
    pub(crate) started: AtomicU64,
    pub(crate) start_failures: AtomicU64,
    pub(crate) oom_kills: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) log_bytes_dropped: AtomicU64,
}

/// What each container's task needs.
#[derive(Debug)]
pub(crate) struct Supervision {
    pub(crate) containerizer: Containerizer,
    pub(crate) settings: TaskSettings,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) volumes: Volumes,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) counters: Arc<ContainerCounters>,
    pub(crate) inbox: Inbox,
    /// Told when a sandbox has become old.
    pub(crate) ended: Arc<Notify>,
}

/// The core thread's hold on its containers.
#[derive(Debug)]
pub(crate) struct Containers {
    supervision: Arc<Supervision>,
    runtime: Handle,
    running: BTreeMap<ContainerId, Arc<Container>>,
    /// Set to end them all at once.
    halt: watch::Sender<bool>,
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
            halt: watch::Sender::new(false),
            alive,
        };
        (containers, gone)
    }

    pub(super) fn start(
        &self,
        container: ContainerId,
        slave_id: SlaveId,
        run: Box<RunTask>,
        volumes: Vec<MountedVolume>,
    ) {
        let supervised = Supervised {
            key: (run.framework.framework_id, run.task.task_id.clone()),
            container,
            shared: Arc::clone(&self.supervision),
            halt: self.halt.subscribe(),
            alive: self.alive.clone(),
        };
        // From now on its output can be asked for.
        let output = self.supervision.outputs.begin(&supervised.key, container);
        self.runtime
            .spawn(supervised.run(slave_id, run, volumes, output));
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

    pub(super) fn started(&mut self, container: ContainerId, process: Arc<Container>) {
        self.running.insert(container, process);
    }

    pub(super) fn kill(&self, container: ContainerId, grace: Duration) {
        match self.running.get(&container) {
            Some(process) => process.kill(grace),
            // Its end is on its way to the core.
            None => debug!(%container, "kill of a container that has ended"),
        }
    }

    pub(super) fn ended(&mut self, container: ContainerId) {
        self.running.remove(&container);
    }

    /// Ends all of them without grace.
    pub(super) fn halt(&self) {
        self.halt.send_replace(true);
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        // Also when the core's thread panics.
        self.halt();
    }
}

/// One container, from its sandbox to its end.
struct Supervised {
    key: TaskKey,
    container: ContainerId,
    shared: Arc<Supervision>,
    halt: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
}

impl Supervised {
    async fn run(
        mut self,
        slave_id: SlaveId,
        run: Box<RunTask>,
        volumes: Vec<MountedVolume>,
        output: Arc<LiveOutput>,
    ) {
        let container = self.container;
        let event = match self.launch(slave_id, &run, volumes).await {
            Ok(process) => {
                drop(run);
                self.shared.counters.started.fetch_add(1, Ordering::Relaxed);
                output.attach(&process);
                let told = self
                    .shared
                    .inbox
                    .send(Input::Started(container, Arc::clone(&process)))
                    .await;
                if told.is_err() {
                    process.kill(Duration::ZERO);
                }
                let report = self.watch(&process).await;
                self.count(&report);
                Event::ContainerEnded {
                    container,
                    exit: exit_of(&report),
                }
            }
            Err(message) => {
                self.shared
                    .counters
                    .start_failures
                    .fetch_add(1, Ordering::Relaxed);
                debug!(framework_id = %self.key.0, task_id = %self.key.1, error = message, "container not started");
                Event::ContainerNotStarted { container, message }
            }
        };
        self.finish(&output).await;
        // Nobody is left to be told only when the slave goes.
        let _ = self.shared.inbox.send(Input::Event(event)).await;
        drop(self.alive);
    }

    async fn launch(
        &self,
        slave_id: SlaveId,
        run: &RunTask,
        mounted: Vec<MountedVolume>,
    ) -> Result<Arc<Container>, String> {
        let (shared, key, container) = (Arc::clone(&self.shared), self.key.clone(), self.container);
        let shared_volumes = shared.volumes.clone();
        let made = spawn_blocking(move || shared.sandboxes.create(&key, container)).await;
        let sandbox = made
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot make the sandbox: {error}"))?;
        let settings = &self.shared.settings;
        let spec = container_spec(run, slave_id, container, &sandbox, settings)
            .ok_or_else(|| "the task has no command".to_owned())?;
        let (volumes, user) = (shared_volumes, spec.user.clone());
        let put = spawn_blocking(move || volumes.mount(&mounted, &sandbox, user.as_deref())).await;
        put.map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot put the volumes into the sandbox: {error}"))?;
        let started = self.shared.containerizer.start(spec).await;
        started.map(Arc::new).map_err(|error| explain(&error))
    }

    /// Until its end; ends it when the slave goes.
    async fn watch(&mut self, process: &Container) -> Arc<ExitReport> {
        tokio::select! {
            report = process.wait() => return report,
            // Its sender gone means that the slave is going, too.
            _ = self.halt.wait_for(|halt| *halt) => {}
        }
        process.kill(Duration::ZERO);
        process.wait().await
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
        add(&counters.log_bytes, usage.stdout.bytes + usage.stderr.bytes);
        add(
            &counters.log_bytes_dropped,
            usage.stdout.bytes_dropped + usage.stderr.bytes_dropped,
        );
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

fn exit_of(report: &ExitReport) -> ContainerExit {
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
    // The core has words for codes and signals; the containerizer knows these better.
    let has_more = report.oom.is_some() || matches!(exit, TaskExit::Code(126 | 127));
    let message = if has_more {
        report.message()
    } else {
        String::new()
    };
    ContainerExit {
        exit,
        limitation,
        message,
    }
}
