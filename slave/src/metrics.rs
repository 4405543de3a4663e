//! Every metric of the slave: the only place that names them. OpenMetrics text, prefix
//! `meros_slave_`.
//!
//! Counts are kept where things happen and looked up when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use meros_daemon::http::HttpStats;
use meros_daemon::metrics::Out;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::checkpoint::writer::Progress;
use crate::exec::ExecCounters;
use crate::fetch::Fetcher;
use crate::image::Images;
use crate::sandbox::Collected;
use crate::shell::containers::ContainerCounters;
use crate::shell::inbox::Inbox;
use crate::shell::net::LinkCounters;
use crate::shell::snapshot::Snapshot;
use crate::usage::Usages;

const PREFIX: &str = "meros_slave";

/// How it is with one part of isolation; also a row of `/api/v1/isolation`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct IsolationRow {
    /// As the option names it.
    pub(crate) part: String,
    /// `on`, `off` or `missing`.
    pub(crate) state: String,
    /// Why it is not on, if it is not the administrator's wish.
    pub(crate) reason: Option<String>,
}

/// Where the counts are.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) containers: Arc<ContainerCounters>,
    pub(crate) link: Arc<LinkCounters>,
    pub(crate) checkpoint: Arc<Progress>,
    pub(crate) inbox: Inbox,
    /// How tasks are kept apart; the same as long as the slave runs.
    pub(crate) isolation: Vec<IsolationRow>,
    pub(crate) fetcher: Arc<Fetcher>,
    /// Or why there are none.
    pub(crate) images: Result<Arc<Images>, String>,
    pub(crate) execs: Arc<ExecCounters>,
    sandboxes_removed: AtomicU64,
    sandboxes_kept: AtomicU64,
    sandboxes_disk_short: AtomicBool,
    pub(crate) http: Arc<HttpStats>,
}

impl Metrics {
    pub(crate) fn new(
        containers: Arc<ContainerCounters>,
        link: Arc<LinkCounters>,
        checkpoint: Arc<Progress>,
        inbox: Inbox,
        isolation: Vec<IsolationRow>,
        fetcher: Arc<Fetcher>,
        images: Result<Arc<Images>, String>,
    ) -> Self {
        Self {
            containers,
            link,
            checkpoint,
            inbox,
            isolation,
            fetcher,
            images,
            execs: Arc::default(),
            sandboxes_removed: AtomicU64::new(0),
            sandboxes_kept: AtomicU64::new(0),
            sandboxes_disk_short: AtomicBool::new(false),
            http: Arc::default(),
        }
    }

    /// Old sandboxes have been removed.
    pub(crate) fn collected(&self, collected: Collected) {
        self.sandboxes_removed
            .fetch_add(collected.removed as u64, Ordering::Relaxed);
        let left = collected.kept + collected.failed;
        self.sandboxes_kept.store(left as u64, Ordering::Relaxed);
        self.sandboxes_disk_short
            .store(collected.is_disk_short, Ordering::Relaxed);
    }

    /// The text of `GET /metrics`.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(crate) fn text(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        usages: Usages,
    ) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        let lookup = Lookup {
            metrics: Arc::clone(self),
            snapshot: snapshot.clone(),
            usages,
        };
        registry.register_collector(Box::new(lookup));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// All metrics at one moment.
#[derive(Debug)]
struct Lookup {
    metrics: Arc<Metrics>,
    snapshot: Snapshot,
    usages: Usages,
}

impl Collector for Lookup {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out::new(&mut encoder);
        self.encode_core(&mut out)?;
        self.usages.encode(&mut out)?;
        self.encode_shell(&mut out)
    }
}

impl Lookup {
    fn encode_core(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let Snapshot {
            registered,
            counters,
            tasks,
            updates_pending,
            executors,
            executors_subscribed,
            ..
        } = &self.snapshot;
        out.gauge(
            "registered",
            "1 if a master takes this slave as registered",
            u64::from(*registered),
        )?;
        let tasks = tasks
            .iter()
            .map(|(state, count)| ([("state", *state)], *count));
        out.gauges("tasks", "Tasks on this slave, by state", tasks)?;
        out.gauge(
            "updates_pending",
            "Status updates that are not acknowledged",
            *updates_pending,
        )?;
        out.gauge("executors", "Executors of frameworks", *executors)?;
        out.gauge(
            "executors_subscribed",
            "Executors of frameworks that are connected",
            *executors_subscribed,
        )?;
        let ended = [
            ("finished", counters.tasks_finished),
            ("failed", counters.tasks_failed),
            ("killed", counters.tasks_killed),
            ("lost", counters.tasks_lost),
        ];
        let ended = ended.map(|(how, count)| ([("how", how)], count));
        out.counters("tasks_ended", "Tasks ended, by how", ended)?;
        let counts = [
            (
                "tasks_accepted",
                "Tasks accepted from masters",
                counters.tasks_accepted,
            ),
            (
                "tasks_refused",
                "Tasks dropped: over a bound or over the resources",
                counters.tasks_refused,
            ),
            (
                "tasks_duplicate",
                "Orders to run a task that is here already",
                counters.duplicate_tasks,
            ),
            (
                "executors_started",
                "Executors accepted with their first task",
                counters.executors_started,
            ),
            (
                "groups_accepted",
                "Groups of tasks accepted",
                counters.groups_accepted,
            ),
            (
                "groups_ended_early",
                "Groups that were ended because one of their tasks did not finish well",
                counters.groups_ended_early,
            ),
            (
                "executors_timed_out",
                "Executors that did not subscribe in time, at first or again",
                counters.executors_timed_out,
            ),
            (
                "executor_subscriptions",
                "Subscriptions of executors",
                counters.executor_subscriptions,
            ),
            (
                "executor_updates_ignored",
                "Updates of executors that were repeated, too many or too late",
                counters.executor_updates_ignored,
            ),
            (
                "executor_messages_ignored",
                "Messages of and for executors that nobody takes",
                counters.executor_messages_ignored,
            ),
            ("updates_made", "Status updates made", counters.updates_made),
            (
                "updates_sent",
                "Status updates sent, repeats included",
                counters.updates_sent,
            ),
            (
                "updates_retried",
                "Status updates sent again for want of an acknowledgement",
                counters.updates_retried,
            ),
            (
                "updates_acknowledged",
                "Status updates acknowledged",
                counters.updates_acknowledged,
            ),
            (
                "acknowledgements_stale",
                "Acknowledgements of something else than what is in flight",
                counters.stale_acknowledgements,
            ),
            (
                "questions_unanswered",
                "Questions about unknown tasks left open at the bound",
                counters.unanswered,
            ),
            (
                "messages_ignored",
                "Messages of masters that no longer or do not yet count",
                counters.messages_ignored,
            ),
            (
                "container_events_ignored",
                "News of containers that are not known",
                counters.container_events_ignored,
            ),
            (
                "probes",
                "Probes asked for by checks of tasks",
                counters.probes,
            ),
            (
                "probes_failed",
                "Probes that found a check not passed",
                counters.probes_failed,
            ),
            (
                "probes_untried",
                "Probes that were not tried: too many at one time, or the slave could not",
                counters.probes_untried,
            ),
            (
                "probes_overdue",
                "Probes that did not answer in time, the wait for a place included",
                counters.probes_overdue,
            ),
            (
                "tasks_unhealthy",
                "Tasks killed because they failed their health check",
                counters.tasks_unhealthy,
            ),
            (
                "operations_applied",
                "Reservations and volumes made or undone",
                counters.changes_applied,
            ),
            (
                "operations_refused",
                "Operations on resources that could not be done here",
                counters.changes_refused,
            ),
            (
                "volumes_wiped",
                "Destroyed volumes of which nothing is left",
                counters.volumes_wiped,
            ),
            (
                "registrations",
                "Times that a master welcomed this slave",
                counters.registrations,
            ),
            (
                "reconnects",
                "Times that this slave left a master: silence, a refusal, an older leader",
                counters.reconnects,
            ),
        ];
        counts
            .into_iter()
            .try_for_each(|(name, help, value)| out.counter(name, help, value))
    }

    fn encode_shell(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let Metrics {
            containers,
            link,
            checkpoint,
            inbox,
            isolation,
            fetcher,
            images,
            execs,
            sandboxes_removed,
            sandboxes_kept,
            sandboxes_disk_short,
            http,
        } = &*self.metrics;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = [
            (
                "container_starts",
                "Containers started",
                read(&containers.started),
            ),
            (
                "container_start_failures",
                "Containers that could not be started",
                read(&containers.start_failures),
            ),
            (
                "oom_kills",
                "Tasks that failed for lack of memory",
                read(&containers.oom_kills),
            ),
            (
                "disk_kills",
                "Tasks that failed because their sandbox took too much of the disk",
                read(&containers.disk_kills),
            ),
            (
                "shims_lost",
                "Tasks that failed because their shim was killed or crashed",
                read(&containers.shims_lost),
            ),
            (
                "log_bytes",
                "Bytes written by tasks that have ended",
                read(&containers.log_bytes),
            ),
            (
                "log_bytes_dropped",
                "Of these, bytes that could not be stored",
                read(&containers.log_bytes_dropped),
            ),
            (
                "executor_messages_dropped",
                "Messages between executors and frameworks dropped because too many others waited",
                read(&containers.messages_dropped),
            ),
            (
                "checkpoint_syncs",
                "Synced writes of the checkpoint",
                checkpoint.syncs(),
            ),
            (
                "checkpoint_failures",
                "Writes of the checkpoint that failed and were tried again",
                checkpoint.failures(),
            ),
            ("connections", "Connections to masters", link.connections()),
            (
                "connection_attempts_failed",
                "Attempts to connect that failed",
                link.attempts_failed(),
            ),
            (
                "bad_frames",
                "Connections ended by bytes that were no message",
                link.bad_frames(),
            ),
            (
                "fetch_files",
                "Files fetched into sandboxes",
                read(&fetcher.counters.files),
            ),
            (
                "fetch_bytes",
                "Bytes fetched, without what was in the cache",
                read(&fetcher.counters.bytes),
            ),
            (
                "fetch_cache_hits",
                "Files that were in the cache",
                read(&fetcher.counters.cache_hits),
            ),
            (
                "fetch_failures",
                "Tasks that failed because a file could not be fetched",
                read(&fetcher.counters.failures),
            ),
            (
                "execs",
                "Commands that operators have run in containers",
                read(&execs.started),
            ),
            (
                "execs_refused",
                "Commands of operators that were not run: no permission, no such task, too many",
                read(&execs.refused),
            ),
            (
                "sandboxes_removed",
                "Sandboxes of ended tasks removed",
                read(sandboxes_removed),
            ),
        ];
        counts
            .into_iter()
            .try_for_each(|(name, help, value)| out.counter(name, help, value))?;
        let isolation = isolation
            .iter()
            .map(|row| ([("part", row.part.as_str())], u64::from(row.state == "on")));
        out.gauges(
            "isolation",
            "1 if a part of isolation is in force for every task",
            isolation,
        )?;
        let (cache_bytes, cache_files) = fetcher.cached();
        out.gauge(
            "fetch_cache_bytes",
            "Bytes of fetched files that are kept for other tasks",
            cache_bytes,
        )?;
        out.gauge(
            "fetch_cache_files",
            "Fetched files that are kept for other tasks",
            cache_files,
        )?;
        if let Ok(images) = images {
            encode_images(images, out)?;
        }
        out.gauge(
            "execs_open",
            "Commands of operators that run in containers",
            read(&execs.open),
        )?;
        out.gauge(
            "sandboxes",
            "Sandboxes of ended tasks that are kept",
            read(sandboxes_kept),
        )?;
        out.gauge(
            "sandboxes_disk_short",
            "1 while less than a tenth of the disk is free and ended tasks' sandboxes are kept for a minute only",
            u64::from(sandboxes_disk_short.load(Ordering::Relaxed)),
        )?;
        out.gauge(
            "inbox_messages",
            "Inputs that wait for the core",
            inbox.len() as u64,
        )?;
        out.process(http)
    }
}

/// Of a slave that can run images.
fn encode_images(images: &Images, out: &mut Out<'_, '_>) -> fmt::Result {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (counters, kept) = (&images.counters, images.kept());
    let counts = [
        ("image_pulls", "Images brought", read(&counters.pulls)),
        (
            "image_hits",
            "Images that were here when a task wanted them",
            read(&counters.hits),
        ),
        (
            "image_failures",
            "Tasks that failed because their image could not be had",
            read(&counters.failures),
        ),
        (
            "image_bytes",
            "Bytes of layers that came from registries, compressed",
            read(&counters.bytes),
        ),
        (
            "image_layers_unpacked",
            "Layers unpacked",
            read(&counters.layers),
        ),
        (
            "image_damaged",
            "Images and layers on disk that were not what they should be, and were dropped",
            kept.damaged,
        ),
        (
            "image_collected_bytes",
            "Bytes of layers removed to make room",
            kept.collected_bytes,
        ),
    ];
    counts
        .into_iter()
        .try_for_each(|(name, help, value)| out.counter(name, help, value))?;
    out.gauge(
        "image_store_bytes",
        "Bytes of unpacked layers on disk",
        kept.bytes,
    )?;
    out.gauge("image_store_layers", "Unpacked layers on disk", kept.layers)?;
    out.gauge("images", "Images on disk", kept.images)
}
