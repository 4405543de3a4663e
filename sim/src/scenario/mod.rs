//! Scenarios: a datacenter and its load described in a file, run on the production cores in
//! virtual time, measured and reported.
//!
//! | files | what is done in them |
//! |---|---|
//! | `file`, `value` | what can be written, and errors with file, line and column |
//! | `arrivals`, `jobs` | frameworks with work that comes, waits, runs and ends |
//! | `trace` | work and machines from files of real clusters |
//! | `variant` | the same scenario with other values: comparisons and sweeps |
//! | `meter` | what is measured while it runs |
//! | `run` | one run, with progress |
//! | `report` | what was measured, as text, JSON and a page with plots |

mod amounts;
mod arrivals;
mod command;
mod file;
mod jobs;
mod meter;
mod plan;
mod record;
pub mod report;
mod roles;
mod run;
mod trace;
mod value;
mod variant;
mod waiting;

pub use command::RunArgs;
pub use file::{Scenario, ScenarioError};
pub use run::{Progress, RunError, RunOptions, run};
pub use trace::TraceError;
pub use variant::Variant;

pub(crate) use arrivals::{Arrivals, Runs};
pub(crate) use jobs::{Jobs, JobsPlan, OfferPolicy, WorkPlan};
pub(crate) use meter::{Meter, Stopwatch};
pub(crate) use record::Record;
