//! Every metric of the master: the only place that names them. OpenMetrics text, prefix
//! `meros_master_`.
//!
//! Counts are kept where things happen; what is a state (offers, tasks, memory) is looked up when
//! somebody asks.

mod frameworks;
mod roles;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use meros_daemon::http::HttpStats;
use meros_daemon::metrics::Out;
use meros_master_core::Counters;
use meros_master_core::state::Totals;
use meros_proto::status::TaskState;
use meros_proto::transport::ServerStats;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::projection::{Currency, Projection, ReadModel, RoleFilter};
use crate::registry::Status;
use crate::shell::inbox::Inbox;

const PREFIX: &str = "meros_master";

/// Roles and frameworks beyond so many have no metrics of their own: each makes a dozen time series.
const SHOWN_MAX: usize = 1_000;

/// The upper ends of the proposal latency's buckets, in seconds: an `fdatasync` takes milliseconds.
const PROPOSAL_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// A stable code of a refusal or error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Code {
    code: &'static str,
}

/// `slave`, `framework` or `master`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Peer {
    peer: &'static str,
}

/// What is counted where it happens.
#[derive(Debug)]
pub struct Metrics {
    core: Mutex<Counters>,
    state: Mutex<Totals>,
    transport: Mutex<ServerStats>,
    batches: Counter,
    commits: Counter,
    commands_committed: Counter,
    proposal_seconds: Histogram,
    connections: Family<Peer, Gauge>,
    connections_closed: Family<Code, Counter>,
    connections_cut: Family<Code, Counter>,
    connections_refused: Family<Code, Counter>,
    messages_undeliverable: Counter,
    executor_messages_dropped: Counter,
    messages_received: Family<Peer, Counter>,
    streams_ended: Counter,
    pub(crate) http: Arc<HttpStats>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            core: Mutex::default(),
            state: Mutex::default(),
            transport: Mutex::default(),
            batches: Counter::default(),
            commits: Counter::default(),
            commands_committed: Counter::default(),
            proposal_seconds: Histogram::new(PROPOSAL_BUCKETS),
            connections: Family::default(),
            connections_closed: Family::default(),
            connections_cut: Family::default(),
            connections_refused: Family::default(),
            messages_undeliverable: Counter::default(),
            executor_messages_dropped: Counter::default(),
            messages_received: Family::default(),
            streams_ended: Counter::default(),
            http: Arc::default(),
        }
    }
}

impl Metrics {
    /// The core has handled a batch of events; its counters are these now.
    pub(crate) fn handled(&self, counters: &Counters) {
        self.batches.inc();
        self.core.lock().clone_from(counters);
    }

    /// There is so much framework state now.
    pub(crate) fn state(&self, totals: Totals) {
        *self.state.lock() = totals;
    }

    /// The transport's counters are these now.
    pub(crate) fn transport(&self, stats: ServerStats) {
        *self.transport.lock() = stats;
    }

    /// One entry has committed proposals that were this old.
    pub(crate) fn committed(&self, ages: impl Iterator<Item = Duration>) {
        self.commits.inc();
        for age in ages {
            self.commands_committed.inc();
            self.proposal_seconds.observe(age.as_secs_f64());
        }
    }

    /// Entries of the registry, and the commands in them.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        (self.commits.get(), self.commands_committed.get())
    }

    /// A peer has been taken on.
    pub(crate) fn connected(&self, peer: &'static str) {
        self.connections.get_or_create(&Peer { peer }).inc();
    }

    /// It is gone; `code` says why.
    pub(crate) fn disconnected(&self, peer: &'static str, code: &'static str) {
        self.connections.get_or_create(&Peer { peer }).dec();
        self.connections_closed.get_or_create(&Code { code }).inc();
    }

    /// This side has closed a connection for this reason.
    pub(crate) fn cut(&self, code: &'static str) {
        self.connections_cut.get_or_create(&Code { code }).inc();
    }

    /// A connection was refused before the core heard of it.
    pub(crate) fn refused(&self, code: &'static str) {
        self.connections_refused.get_or_create(&Code { code }).inc();
    }

    /// A message for a connection that is closed or closing.
    pub(crate) fn undeliverable(&self) {
        self.messages_undeliverable.inc();
    }

    /// A message of a framework to an executor found too many others waiting.
    pub(crate) fn executor_message_dropped(&self) {
        self.executor_messages_dropped.inc();
    }

    /// The stream of a leader that was followed has ended.
    pub(crate) fn stream_ended(&self) {
        self.streams_ended.inc();
    }

    /// Messages have arrived.
    pub(crate) fn received(&self, peer: &'static str, count: usize) {
        self.messages_received
            .get_or_create(&Peer { peer })
            .inc_by(count as u64);
    }
}

/// All metrics, ready to be written out.
#[derive(Debug)]
pub(crate) struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Names everything.
    #[must_use]
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        projection: &Projection,
        inbox: &Inbox,
        status: &Status,
    ) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let m = metrics;
        registry.register("batches", "Batches of events handled", m.batches.clone());
        registry.register(
            "commits",
            "Entries of this master that were committed; each is a synced write of the registry",
            m.commits.clone(),
        );
        registry.register(
            "commands_committed",
            "Commands committed; with commits, how many share an entry",
            m.commands_committed.clone(),
        );
        registry.register_with_unit(
            "proposal",
            "From a proposal to its report as committed",
            Unit::Seconds,
            m.proposal_seconds.clone(),
        );
        registry.register("connections", "Peers connected now", m.connections.clone());
        registry.register(
            "connections_closed",
            "Connections ended, by how",
            m.connections_closed.clone(),
        );
        registry.register(
            "connections_cut",
            "Connections that this master closed, by why",
            m.connections_cut.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections refused before they counted as peers, by code",
            m.connections_refused.clone(),
        );
        registry.register(
            "messages_undeliverable",
            "Messages for connections that were closed or closing",
            m.messages_undeliverable.clone(),
        );
        registry.register(
            "executor_messages_dropped",
            "Messages of frameworks to executors dropped because too many others waited for the slave",
            m.executor_messages_dropped.clone(),
        );
        registry.register(
            "messages_received",
            "Messages received",
            m.messages_received.clone(),
        );
        registry.register(
            "leader_streams_ended",
            "Streams of a leader that ended while this master followed it",
            m.streams_ended.clone(),
        );
        registry.register_collector(Box::new(Lookup {
            metrics: Arc::clone(metrics),
            projection: projection.clone(),
            inbox: inbox.clone(),
            status: status.clone(),
        }));
        Self { registry }
    }

    /// The text of `GET /metrics`.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What is looked up when somebody asks.
#[derive(Debug)]
struct Lookup {
    metrics: Arc<Metrics>,
    projection: Projection,
    inbox: Inbox,
    status: Status,
}

impl Collector for Lookup {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut out = Out::new(&mut encoder);
        let counters = self.metrics.core.lock().clone();
        for (name, help, value) in counters.list() {
            out.counter(name, help.trim().trim_end_matches('.'), value)?;
        }
        let refusals = counters
            .refusals
            .iter()
            .map(|(code, count)| ([("code", *code)], *count));
        out.counters(
            "refusals",
            "Requests refused by the core, by code",
            refusals,
        )?;

        let state = *self.metrics.state.lock();
        out.gauge("state_spaces", "Spaces of framework state", state.spaces)?;
        out.gauge("state_keys", "Keys of framework state", state.keys)?;
        out.gauge(
            "state_bytes",
            "Bytes of framework state, of 33554432 at most",
            state.bytes,
        )?;
        out.gauge(
            "state_sessions",
            "Open sessions of framework state",
            state.sessions,
        )?;
        out.gauge("state_leases", "Leases that are held", state.leases)?;

        let transport = *self.metrics.transport.lock();
        let attempts = [
            ("accepted", transport.accepted),
            ("busy", transport.refused_busy),
            ("retry", transport.retried),
            ("handshake_failed", transport.failed_handshakes),
            ("not_allowed", transport.not_allowed),
            ("opening_failed", transport.failed_openings),
        ];
        out.counters(
            "connection_attempts",
            "Connections that peers asked for, by what became of them",
            attempts
                .into_iter()
                .map(|(result, count)| ([("result", result)], count)),
        )?;
        out.gauge(
            "peers_waiting",
            "Peers that are connected and wait until this master leads",
            transport.waiting,
        )?;

        let currency = self.projection.currency();
        let leading = u64::from(currency == Currency::Leading);
        // What the cluster is, one master says: sums over all masters must not count it thrice.
        let void = ReadModel::default();
        let guard = self.projection.read();
        let read = match currency {
            Currency::Leading => &*guard,
            _ => &void,
        };
        let epoch = read.master().map_or(0, |master| master.epoch.0);
        let offers = read.offers_count() as u64;
        let tasks = read.task_totals();
        let slaves = count(read.slave_views().map(|slave| slave.state.name()));
        let modes = count(read.slave_views().map(|slave| match slave.is_drained {
            true => "drained",
            false => slave.mode.name(),
        }));
        let frameworks = count(
            read.framework_views()
                .map(|framework| framework.state.name()),
        );
        let roles = read.roles(RoleFilter::Any, None, SHOWN_MAX);
        let of_frameworks = read.frameworks(None, SHOWN_MAX);
        let remembered = read.remembered_count() as u64;
        drop(guard);

        roles::encode(&mut out, &roles)?;
        frameworks::encode(&mut out, &of_frameworks)?;
        out.gauge("leading", "1 if this master leads", leading)?;
        out.gauge("epoch", "The epoch of the leading master", epoch)?;
        if let Currency::Behind(lag) = currency {
            out.gauges(
                "view_lag_seconds",
                "How far reads of this master, which follows, are behind the leader at most",
                [([("role", "follower")], lag.as_secs_f64())],
            )?;
        }
        let (followers, dropped) = self.projection.followers();
        out.gauge(
            "followers",
            "Masters that follow this one's events",
            followers as u64,
        )?;
        out.counter(
            "followers_dropped",
            "Masters that followed and were dropped, because they were too slow for the events",
            dropped,
        )?;
        out.gauge(
            "remembered_tasks",
            "Tasks that the leader before knew, on slaves that have not come back yet",
            remembered,
        )?;
        let progress = self.status.progress();
        out.gauge("raft_term", "The term of the replicated log", progress.term)?;
        out.gauge("raft_voters", "Masters that have a vote", progress.voters)?;
        out.gauge(
            "registry_format",
            "The format of the replicated registry, which all masters know",
            u64::from(progress.format.0),
        )?;
        out.gauge(
            "raft_last_index",
            "The last entry written here",
            progress.last,
        )?;
        let lag = progress.last.saturating_sub(progress.applied);
        out.gauge(
            "raft_applied_index",
            "The last entry applied here",
            progress.applied,
        )?;
        out.gauge(
            "raft_apply_lag",
            "Entries written here and not yet applied",
            lag,
        )?;
        out.gauge(
            "raft_snapshot_index",
            "The entry up to which there is a snapshot",
            progress.snapshot,
        )?;
        out.gauge("offers_outstanding", "Offers that frameworks hold", offers)?;
        let tasks = tasks
            .iter()
            .filter(|(state, _)| *state != TaskState::Unknown)
            .map(|(state, count)| ([("state", state.name())], count));
        out.gauges("tasks", "Tasks in the master's tables, by state", tasks)?;
        let by_state = |counts: Vec<(&'static str, u64)>| {
            counts
                .into_iter()
                .map(|(state, count)| ([("state", state)], count))
        };
        out.gauges("slaves", "Slaves, by state", by_state(slaves))?;
        let modes = modes
            .into_iter()
            .map(|(mode, count)| ([("mode", mode)], count));
        out.gauges(
            "slaves_by_mode",
            "Slaves, by what operators have decided about them",
            modes,
        )?;
        out.gauges("frameworks", "Frameworks, by state", by_state(frameworks))?;
        out.gauge(
            "inbox_messages",
            "Events that wait for the core",
            self.inbox.len() as u64,
        )?;
        out.counter(
            "read_model_waits",
            "Times the core waited because the read model was behind",
            self.projection.waits(),
        )?;
        out.process(&self.metrics.http)
    }
}

fn count(states: impl Iterator<Item = &'static str>) -> Vec<(&'static str, u64)> {
    let mut counts: Vec<(&'static str, u64)> = Vec::new();
    for state in states {
        match counts.iter_mut().find(|(name, _)| *name == state) {
            Some((_, count)) => *count += 1,
            None => counts.push((state, 1)),
        }
    }
    counts
}
