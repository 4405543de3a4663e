//! Write a Meros framework: the Scheduler trait and the session beneath it.
//!
//! A framework receives *offers*, resources of one slave for one of its roles, and answers with
//! tasks to launch there, or declines. What becomes of each task comes as *updates*. This crate
//! keeps the subscription up, finds the leading master, acknowledges updates, drops duplicates,
//! and finds out what became of every task after an interruption. What is left to write is the
//! policy.
//!
//! # A framework
//!
//! ```no_run
//! use meros_sdk::{Actions, Offer, Placement, Scheduler, SessionConfig, Task, TaskStatus};
//!
//! /// Runs one task and leaves.
//! struct Once {
//!     launched: bool,
//! }
//!
//! impl Scheduler for Once {
//!     fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
//!         for offer in &offers {
//!             let mut placement = Placement::on(offer);
//!             let task = Task::new("once").command("date").cpus(0.1).mem(32.0);
//!             if !self.launched && placement.place(&task).is_ok() {
//!                 self.launched = true;
//!             }
//!             actions.launch(placement);
//!         }
//!     }
//!
//!     fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
//!         println!("{} is {}", status.task_id, status.state);
//!         if status.state.is_terminal() {
//!             actions.teardown();
//!         }
//!     }
//! }
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! // MEROS_MASTER=127.0.0.1:5050 MEROS_IDENTITY=/etc/meros/framework
//! let config = SessionConfig::from_env("once")?;
//! meros_sdk::run(config, &mut Once { launched: false }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run -p meros-sdk --example hello` is a complete one; `wordcount` runs hundreds of tasks
//! and checks their work.
//!
//! # Offers worth having
//!
//! A scheduler that can use certain slaves only, or needs much of one slave, says so, and is not
//! offered the rest: nothing to decline, and the others get it at once. `meros why framework` shows
//! which constraint keeps it from which slaves.
//!
//! ```no_run
//! use meros_sdk::{OfferWishes, SessionConfig, Subject};
//!
//! # fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = SessionConfig::from_env("training")?;
//! config.framework.roles = vec!["eng/ml".parse()?];
//! config.wishes = vec![
//!     // Four cpus and a gpu on one slave, in a rack r1 or r2 outside the zone b.
//!     OfferWishes::for_role("eng/ml".parse()?)
//!         .least("cpus:4;gpus:1".parse()?)
//!         .group([Subject::attribute("rack").matches("r[12]"), Subject::Zone.not_equals("b")]),
//! ];
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Each launched task has exactly one update with a [terminal](TaskState::is_terminal) state**,
//!   its last. This holds when the connection breaks between an accept and the master, when a
//!   master is replaced, and when slaves repeat themselves. A launch that got lost ends as
//!   `TASK_DROPPED` or `TASK_GONE`; `TASK_UNKNOWN` is never seen. A task that turns out to live
//!   after its end was told (its slave came back from the dead) is killed. The last 65,536 ends
//!   are remembered for this.
//! - **An update is acknowledged after it was handled**, so one that a crash cut off comes again.
//!   A program that keeps its own records writes them before it asks for more.
//! - **Offers are void after a disconnect**; tasks launched on one then end as `TASK_DROPPED`.
//! - **An offer that is taken back before it was told is not told at all**, so that a slow framework is
//!   not buried under offers that come and go.
//! - **Kills are remembered** until the task has ended; so are suppressed roles.
//! - **Nothing grows without bound**: a framework that does not read its news makes the session
//!   stop reading from the master, which in time cuts it off; it then comes back.
//!
//! # Restarting the program
//!
//! With [`SessionConfig::state_file`] the next start of the program is the same framework: its
//! tasks went on meanwhile (for at most [`FrameworkDescription::failover_timeout`], a week by
//! default), and an update comes for each, known to the program or not. A program that knows its
//! tasks hands them to [`Actions::reconcile`] in [`Scheduler::subscribed`], to hear also of those
//! that nobody knows any more. [`Actions::teardown`] ends the framework and its tasks for good;
//! a program that just exits leaves them running.
//!
//! # Several instances
//!
//! The module [`state`] keeps keys, leases and elections with the masters: one instance leads, others
//! stand by and take over, without a database of their own.
//!
//! # Ends
//!
//! [`run`] returns when the framework leaves or is torn down; with an error when trying again
//! cannot help: certificates that are not trusted, an id of a removed framework, a newer session
//! of the same framework ([`Refusal::Superseded`]). Everything else is retried for ever, with a
//! jittered delay of up to 15 s, and told to [`Scheduler::connect_failed`].
//!
//! # Tests
//!
//! With the feature `test-kit`, the module `testing` runs a [`Scheduler`] against a simulated
//! datacenter, inside `#[test]`, in milliseconds: masters die, slaves are cut off, and the same seed
//! is the same run.
//!
//! # Executors
//!
//! A framework may bring a program of its own that runs several of its tasks on a slave: see
//! [`executor`].
//!
//! # The lower level
//!
//! [`Session::connect`] gives a stream of [`News`] and a clonable [`Handle`], for programs that
//! have a loop of their own.

mod config;
mod error;
pub mod executor;
mod group;
mod scheduler;
mod session;
mod shell;
pub mod state;
mod state_file;
mod steps;
mod task;
#[cfg(feature = "test-kit")]
pub mod testing;

pub use config::{
    Acknowledge, ConfigError, IDLE_REFUSE_DEFAULT, MASTER_PORT_DEFAULT, MASTERS_MAX, SessionConfig,
    parse_masters,
};
pub use error::{SessionError, SetupError};
pub use group::Group;
pub use meros_proto::attribute::Attributes;
pub use meros_proto::check::{Check, CheckStatus, HealthCheck, HttpProbe, Probe};
pub use meros_proto::constraint::{Constraint, OfferConstraints, OfferWishes, Predicate, Subject};
pub use meros_proto::executor::ExecutorDescription;
pub use meros_proto::fetch::{FetchUri, Sha256};
pub use meros_proto::framework::{FrameworkCapability, FrameworkDescription};
pub use meros_proto::group::TaskGroup;
pub use meros_proto::ids::{
    ClusterId, ExecutorId, FrameworkId, OfferId, OperationId, ParseIdError, SlaveId, TaskId,
    UpdateId,
};
pub use meros_proto::image::Image;
pub use meros_proto::labels::{Label, Labels};
pub use meros_proto::message::master::ReconcileTask;
pub use meros_proto::offer::{Filters, Offer, Operation};
pub use meros_proto::operation::{
    Change, ChangeKind, OperationState, OperationStatus, ResourceOperation,
};
pub use meros_proto::refusal::Refusal;
pub use meros_proto::resources::{
    ParseResourcesError, Reservation, Resource, ResourceName, Resources, Scalar, Volume,
};
pub use meros_proto::role::RoleName;
pub use meros_proto::status::{Reason, Source, TaskExit, TaskState, TaskStatus};
pub use meros_proto::task::{Command, Execute, TaskDescription, TaskLimits};
pub use meros_proto::time::Timestamp;
pub use meros_sdk_core::{EndReason, NEWS_QUEUE, News};
pub use scheduler::{Actions, Scheduler, run};
pub use session::{CALL_QUEUE, CallError, Events, Handle, Session};
pub use state_file::StateFileError;
pub use steps::{StepError, Steps};
pub use task::{PlaceError, Placement, Task, fit};
