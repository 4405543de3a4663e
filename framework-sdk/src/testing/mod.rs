//! Test a framework against a simulated datacenter: inside `#[test]`, in milliseconds.
//!
//! A [`Cluster`] runs your own [`Scheduler`](crate::Scheduler) values. Its masters, its slaves and
//! the driver beneath your scheduler are the production code, in virtual time and on one thread;
//! the network, the disks and the tasks around them are simulated. There is no network, no root
//! and no waiting: ten minutes of a cluster are over in a few milliseconds. The same seed gives the
//! same run, to the last message.
//!
//! It comes with the feature `test-kit`:
//!
//! ```toml
//! [dev-dependencies]
//! meros-sdk = { version = "0.1", features = ["test-kit"] }
//! ```
//!
//! # A test
//!
//! ```
//! use std::time::Duration;
//! use meros_sdk::testing::{Cluster, TaskRun};
//! use meros_sdk::{Actions, Offer, Placement, Scheduler, Task, TaskStatus};
//!
//! /// Keeps one server running, wherever there is room.
//! #[derive(Default)]
//! struct KeepOne {
//!     attempts: u32,
//!     running: Option<Task>,
//! }
//!
//! impl Scheduler for KeepOne {
//!     fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
//!         for offer in &offers {
//!             let mut placement = Placement::on(offer);
//!             if self.running.is_none() {
//!                 let task = Task::new(format!("server.{}", self.attempts)).cpus(1.0).mem(64.0);
//!                 if placement.place(&task).is_ok() {
//!                     self.attempts += 1;
//!                     self.running = Some(task);
//!                 }
//!             }
//!             actions.launch(placement);
//!         }
//!     }
//!
//!     fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
//!         let is_ours = |task: &Task| task.id() == status.task_id.as_str();
//!         if status.state.is_terminal() && self.running.as_ref().is_some_and(is_ours) {
//!             self.running = None;
//!             // What was declined while there was nothing to launch is wanted again.
//!             actions.revive(Vec::new());
//!         }
//!     }
//! }
//!
//! // With #[test] above it, in your crate.
//! fn a_server_that_dies_with_its_host_is_started_elsewhere() {
//!     let mut cluster = Cluster::builder()
//!         .masters(3)
//!         .slaves(2, "cpus:4;mem:1024")
//!         .tasks(|_task, _chance| TaskRun::forever())
//!         .start();
//!     let keeper = cluster.framework("keeper", KeepOne::default);
//!     cluster.run_until(Duration::from_secs(60), |cluster| cluster.running(keeper) == 1);
//!
//!     // The leading master dies: the server runs on, and is not started twice.
//!     cluster.kill_leader(Duration::from_secs(30));
//!     cluster.run_for(Duration::from_secs(60));
//!     assert_eq!(cluster[keeper].attempts, 1);
//!
//!     let host = cluster.task(keeper, "server.0").hostname;
//!     cluster.reboot_slave(&host, Duration::from_secs(120));
//!     cluster.run_until(Duration::from_secs(1_200), |cluster| {
//!         cluster.task_states(keeper).contains_key("server.1") && cluster.running(keeper) == 1
//!     });
//!     cluster.settle();
//! }
//! # a_server_that_dies_with_its_host_is_started_elsewhere();
//! ```
//!
//! A test that fails, by an `assert!` of its own or of the cluster's, prints what happened last: what
//! each framework was told, what it asked for, and the faults, each with its simulated time.
//!
//! # Time
//!
//! Nothing happens but in [`run_for`](Cluster::run_for), [`run_until`](Cluster::run_until) and what is
//! built on them. Between two of them the test looks at its scheduler (`cluster[keeper]`), changes it
//! (`&mut cluster[keeper]`), lets it [act](Cluster::act), and makes things go wrong. A scheduler must
//! not look at a real clock, at random numbers or at the order of a `HashMap`: then a seed is not one
//! run any more.
//!
//! # Faults
//!
//! By name: [`kill_leader`](Cluster::kill_leader), [`isolate_leader`](Cluster::isolate_leader),
//! [`cut_off`](Cluster::cut_off) and [`reconnect`](Cluster::reconnect) a slave,
//! [`kill_slave`](Cluster::kill_slave), [`reboot_slave`](Cluster::reboot_slave),
//! [`wipe_slave`](Cluster::wipe_slave), [`crash`](Cluster::crash) and [`restart`](Cluster::restart) the
//! program of a framework, [`disconnect`](Cluster::disconnect) it, [`set_latency`](Cluster::set_latency);
//! [`heal`](Cluster::heal) ends them all. At random, from the seed, of all kinds that the simulator
//! knows: [`run_with_faults`](Cluster::run_with_faults), over many [`seeds`]:
//!
//! ```
//! # use std::time::Duration;
//! # use meros_sdk::testing::{Cluster, seeds};
//! # use meros_sdk::{Actions, Offer, Placement, Scheduler, Task, TaskStatus};
//! # struct Patient;
//! # impl Scheduler for Patient {
//! #     fn offers(&mut self, _: Vec<Offer>, _: &mut Actions) {}
//! #     fn update(&mut self, _: TaskStatus, _: &mut Actions) {}
//! # }
//! for seed in seeds(0..5) {
//!     let mut cluster = Cluster::builder().seed(seed).masters(3).slaves(4, "cpus:4;mem:1024").start();
//!     let patient = cluster.framework("patient", || Patient);
//!     cluster.run_with_faults(Duration::from_secs(300));
//!     // The faults are over. What your framework is for must be reached now.
//!     cluster.run_until(Duration::from_secs(60), |cluster| cluster.is_subscribed(patient));
//!     cluster.settle();
//! }
//! ```
//!
//! # What is checked by itself
//!
//! The invariants of Meros (docs/INVARIANTS.md), after every event: each task at most one end in one
//! life of a program, updates in order, nothing lost that is on a disk, no resource in two places. One
//! that is broken fails the test and is reported as a bug of Meros. [`settle`](Cluster::settle) checks
//! that everybody is of one mind in the end: no task runs that its framework takes for ended, and none
//! is waited for that does not run. A scheduler that makes the cluster go round in circles is stopped.
//!
//! # What is not simulated
//!
//! What tasks do: they start, run, and end as [`Builder::tasks`] says; commands are not executed.
//! Programs with a loop of their own above [`Session`](crate::Session): put the policy into a
//! `Scheduler` and test that. Certificates and files.

mod builder;
mod cluster;
mod faults;
mod program;
mod seeds;

pub use builder::Builder;
pub use cluster::{Cluster, Framework};
pub use meros_sim::kit::{Chance, Load, SlaveView, TaskRun, TaskView};
pub use seeds::{SEED_VARIABLE, Seeds, seeds};

#[cfg(test)]
mod tests;
