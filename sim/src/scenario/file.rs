//! The scenario file: what can be written in it. `plan.rs` makes a world of it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use meros_proto::role::RoleName;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::value::{Amount, Count, Name, Part, Positive, Text, Time};

/// A scenario larger than this is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("failed to read the scenario {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is not allowed.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What, and what is allowed.
        what: String,
    },
}

/// A scenario as it was read.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) file: File,
}

/// An error at a place in a text.
#[derive(Debug)]
pub(crate) struct Misplaced {
    pub(crate) span: Range<usize>,
    pub(crate) what: String,
}

impl Misplaced {
    pub(crate) fn at<T>(place: &Spanned<T>, what: impl Into<String>) -> Self {
        Self {
            span: place.span(),
            what: what.into(),
        }
    }
}

impl Scenario {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is not allowed.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let failed = |source| ScenarioError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            let what = format!("{bytes} bytes are too many: at most {FILE_BYTES_MAX} are allowed");
            return Err(failed(std::io::Error::other(what)));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(path, text)
    }

    /// Checks a text; `path` is for errors.
    ///
    /// # Errors
    /// Something in it is not allowed.
    pub fn parse(path: &Path, text: String) -> Result<Self, ScenarioError> {
        let located = |error: Misplaced| locate(path, &text, &error);
        let file: File = toml::from_str(&text).map_err(|error| {
            located(Misplaced {
                span: error.span().unwrap_or_default(),
                what: error.message().to_owned(),
            })
        })?;
        file.check().map_err(located)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            text,
        })
    }
}

/// Line and column of a place.
pub(crate) fn locate(path: &Path, text: &str, error: &Misplaced) -> ScenarioError {
    let before = text.get(..error.span.start).unwrap_or(text);
    let last = before.rsplit('\n').next().unwrap_or_default();
    ScenarioError::Invalid {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: last.chars().count() + 1,
        what: error.what.clone(),
    }
}

/// All of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// For people.
    pub(crate) title: String,
    /// What chance begins with. Default 1.
    #[serde(default = "default_seed")]
    pub(crate) seed: u64,
    /// How much time passes in it.
    pub(crate) duration: Spanned<Time>,
    #[serde(default)]
    pub(crate) report: ReportPart,
    #[serde(default)]
    pub(crate) master: MasterPart,
    #[serde(default)]
    pub(crate) network: NetworkPart,
    /// By the name of their shape.
    pub(crate) slaves: BTreeMap<Name, SlavesPart>,
    /// By the name of their group.
    pub(crate) frameworks: BTreeMap<Name, FrameworksPart>,
    #[serde(default)]
    pub(crate) faults: Vec<FaultPart>,
    /// The same with one value changed, again and again.
    pub(crate) sweep: Option<SweepPart>,
    /// The same with some values changed, beside the scenario itself.
    #[serde(default)]
    pub(crate) compare: Vec<ComparePart>,
}

/// The same with one value changed, again and again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepPart {
    /// Where the value stands, as `frameworks.web.decision`.
    pub(crate) of: Spanned<String>,
    pub(crate) values: Vec<Value>,
}

/// The same with some values changed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComparePart {
    /// For people.
    pub(crate) name: String,
    /// By where they stand.
    pub(crate) set: Spanned<BTreeMap<String, Value>>,
}

fn default_seed() -> u64 {
    1
}

/// What is reported.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportPart {
    /// Between two points of what changes over time. Default: a 240th of the duration.
    pub(crate) every: Option<Spanned<Time>>,
}

/// Settings of the master that are not the default ones.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MasterPart {
    pub(crate) offer_timeout: Option<Time>,
    pub(crate) ping_interval: Option<Time>,
    pub(crate) ping_misses_max: Option<Count<1, 1_000>>,
    pub(crate) slave_reregister_timeout: Option<Time>,
    pub(crate) allocation_delay: Option<Time>,
}

/// The network between the cores.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkPart {
    /// Default 200 us.
    pub(crate) latency_min: Option<Time>,
    /// Default 2 ms, or `latency_min` if that is more.
    pub(crate) latency_max: Option<Time>,
    /// After so much silence an end takes a connection for dead. Default 5 s.
    pub(crate) idle_timeout: Option<Time>,
}

/// Slaves of one shape.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlavesPart {
    /// Needed, as `resources` is, unless they come from a file.
    pub(crate) count: Option<Count<1, 100_000>>,
    pub(crate) resources: Option<Amount>,
    /// Only this role and those below it may use them.
    pub(crate) reserved_for: Option<Spanned<Text<RoleName>>>,
    /// A file with the machines of an `openb` trace.
    pub(crate) openb: Option<Spanned<String>>,
    #[serde(default = "no_attributes")]
    pub(crate) attributes: Spanned<BTreeMap<String, String>>,
}

fn no_attributes() -> Spanned<BTreeMap<String, String>> {
    Spanned::new(0..0, BTreeMap::new())
}

/// How frameworks of a group behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Behaviour {
    /// Runs what comes, and is done with it.
    Batch,
    /// Keeps what it runs running.
    Service,
    /// Keeps every offer until it is taken back.
    Hoarder,
    /// Thinks for long before each decision.
    SlowDecider,
}

/// Frameworks of one group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrameworksPart {
    /// So many alike. Default 1.
    pub(crate) count: Option<Count<1, 10_000>>,
    /// Default `*`, everybody's.
    pub(crate) role: Option<Text<RoleName>>,
    /// Of the role, from 0.001. Default 1; the same in all groups of the role.
    pub(crate) weight: Option<Spanned<Positive>>,
    /// Of the role, said in one of its groups.
    pub(crate) quota: Option<Spanned<QuotaPart>>,
    pub(crate) behaviour: Spanned<Behaviour>,
    /// From having work and offers to the accept. Default none.
    pub(crate) decision: Option<Spanned<Time>>,
    #[serde(default)]
    pub(crate) offers: OffersPart,
    pub(crate) work: Vec<WorkPart>,
}

/// What a role is promised, and the most that it may have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaPart {
    /// Kept for it. Default nothing.
    pub(crate) guarantee: Option<Amount>,
    /// Not exceeded. Default no limit.
    pub(crate) limit: Option<Amount>,
}

/// The decline policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OffersPart {
    /// How long an offer that is of no use now is kept. Default: not at all.
    pub(crate) hold: Option<Spanned<Time>>,
    /// For how long it declines. Default 5 s.
    pub(crate) refuse: Option<Time>,
    /// Whether it asks for silence while it has nothing to run. Default no.
    #[serde(default)]
    pub(crate) suppress: bool,
    /// The most tasks in one accept. Default 1,000.
    pub(crate) tasks_per_offer: Option<Count<1, 1_000>>,
}

/// Work of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkPart {
    pub(crate) arrivals: Spanned<ArrivalsPart>,
    /// What each task takes. Needed, as `runs` is, unless the tasks come from a trace.
    pub(crate) task: Option<Amount>,
    pub(crate) runs: Option<Spanned<RunsPart>>,
    /// Of all tasks this part fails. Default none.
    #[serde(default)]
    pub(crate) fails: Part,
    /// From the order to the first process of a task. Default 50 ms.
    pub(crate) start: Option<Time>,
}

/// When tasks become ready.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ArrivalsPart {
    /// So many a second on average, for each framework of the group.
    Poisson(Positive),
    /// So many at once, again and again.
    Bursts(BurstsPart),
    /// So many at the beginning.
    Start(Count<1, 1_000_000>),
    /// As in a file, shared out among the frameworks of the group.
    Trace(TracePart),
}

/// What a file with tasks looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TraceFormat {
    Alibaba,
    Openb,
    Swf,
}

/// Tasks from a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracePart {
    pub(crate) format: TraceFormat,
    /// Below the folder of traces.
    pub(crate) file: String,
    /// All times are divided by this. Default 1.
    pub(crate) speed: Option<Positive>,
    /// This part of the jobs, drawn by chance. Default all.
    pub(crate) sample: Option<Part>,
}

/// Run times from a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PhillyPart {
    /// Below the folder of traces.
    pub(crate) file: String,
    /// All times are divided by this. Default 1.
    pub(crate) speed: Option<Positive>,
}

/// So many at once, again and again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BurstsPart {
    pub(crate) every: Time,
    pub(crate) count: Count<1, 1_000_000>,
    /// When the first ones come. Default: at the beginning.
    pub(crate) first: Option<Time>,
}

/// How long tasks run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunsPart {
    /// Until they are killed.
    Forever,
    Fixed(Time),
    Uniform(UniformPart),
    Exponential(ExponentialPart),
    Pareto(ParetoPart),
    Lognormal(LognormalPart),
    /// One of those in a `philly` file, each as likely.
    Philly(PhillyPart),
}

/// Evenly between both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UniformPart {
    pub(crate) min: Time,
    pub(crate) max: Time,
}

/// Without a memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExponentialPart {
    pub(crate) mean: Time,
}

/// Heavy-tailed between both ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParetoPart {
    pub(crate) alpha: Positive,
    pub(crate) min: Time,
    pub(crate) max: Time,
}

/// The logarithm is normally distributed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LognormalPart {
    pub(crate) median: Time,
    pub(crate) sigma: Positive,
}

/// Something goes wrong at a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultPart {
    pub(crate) at: Spanned<Time>,
    pub(crate) what: Spanned<TroublePart>,
}

/// What goes wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TroublePart {
    /// The leading master dies.
    LeaderFailover(FailoverPart),
    /// Slaves die with their tasks.
    SlavesLost(LostPart),
}

/// The leading master dies.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailoverPart {
    /// Until another one can be elected.
    pub(crate) down: Time,
}

/// Slaves die with their tasks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LostPart {
    /// This part of them, drawn by chance.
    pub(crate) part: Part,
    /// Of this shape. Default: of all shapes.
    pub(crate) shape: Option<Name>,
    /// After this they come back, empty. Default: never.
    pub(crate) back_after: Option<Time>,
}

#[cfg(test)]
mod tests;
