//! The framework: hands out map tasks, then reduce tasks, and repeats what failed.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meros_sdk::{
    Actions, FrameworkId, Offer, Placement, Scheduler, SlaveId, Task, TaskState, TaskStatus,
};

use crate::progress::Progress;

/// Into how many parts words are split, and so how many reduce tasks there are.
pub(crate) const PARTS: u32 = 4;
/// How often a piece of work is tried before the job is given up.
const ATTEMPTS_MAX: u32 = 3;
/// How long no master may be found before the job is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One piece of work.
#[derive(Debug, Clone)]
enum Work {
    /// Count the words of one crate.
    Map { number: usize },
    /// Add up one part of all map tasks.
    Reduce { part: u32 },
}

/// A word count in progress.
pub(crate) struct Job {
    /// This very program: tasks run it again, in another mode.
    program: String,
    crates: Vec<PathBuf>,
    scratch: PathBuf,
    /// With how many attempts each had so far.
    todo: VecDeque<(Work, u32)>,
    running: BTreeMap<String, (Work, u32)>,
    left_to_map: usize,
    left_to_reduce: u32,
    hosts: BTreeMap<SlaveId, String>,
    no_master_since: Option<Instant>,
    first_offer: Option<Instant>,
    last_offer: Option<Instant>,
    /// Since when there are no offers, because the master is gone.
    paused_since: Option<Instant>,
    progress: Progress,
    /// What became of it.
    pub(crate) outcome: Outcome,
}

/// What became of a job.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Tasks that finished on each slave, named by id and host.
    pub(crate) tasks_per_slave: BTreeMap<String, u64>,
    /// Tasks that ended in any other way and were repeated.
    pub(crate) repeated: u64,
    /// Each time that the master was gone: from the last offer before to the first one after.
    pub(crate) pauses: Vec<Duration>,
    /// From the first offer to the last end.
    pub(crate) took: Duration,
    /// Why it was given up, if it was.
    pub(crate) failure: Option<String>,
    /// Whether all of it was done.
    pub(crate) complete: bool,
}

impl Job {
    /// A job over these crates, each a directory.
    pub(crate) fn new(program: String, crates: Vec<PathBuf>, scratch: &Path) -> Self {
        Self {
            program,
            scratch: scratch.to_owned(),
            todo: (0..crates.len())
                .map(|number| (Work::Map { number }, 0))
                .collect(),
            running: BTreeMap::new(),
            left_to_map: crates.len(),
            left_to_reduce: PARTS,
            hosts: BTreeMap::new(),
            no_master_since: None,
            first_offer: None,
            last_offer: None,
            paused_since: None,
            progress: Progress::new(crates.len() as u64 + u64::from(PARTS)),
            outcome: Outcome::default(),
            crates,
        }
    }

    fn task(&self, work: &Work, attempt: u32) -> Task {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        match work {
            Work::Map { number } => {
                let dir = &self.crates[*number];
                let name = dir.file_name().unwrap_or_default().to_string_lossy();
                let out = map_output(&self.scratch, *number);
                Task::new(format!("map-{number:04}.{attempt}"))
                    .name(format!("map {name}"))
                    .argv([
                        self.program.clone(),
                        "map".to_owned(),
                        path(dir),
                        path(&out),
                    ])
                    .cpus(0.1)
                    .mem(64.0)
            }
            Work::Reduce { part } => Task::new(format!("reduce-{part}.{attempt}"))
                .argv([
                    self.program.clone(),
                    "reduce".to_owned(),
                    path(&self.scratch),
                    part.to_string(),
                    self.crates.len().to_string(),
                ])
                .cpus(0.2)
                .mem(256.0),
        }
    }

    /// Puts the next piece of work on an offer. False if there is none, or no room for it.
    fn place_next(&mut self, placement: &mut Placement<'_>) -> bool {
        let Some((work, attempt)) = self.todo.front().cloned() else {
            return false;
        };
        let task = self.task(&work, attempt);
        match placement.place(&task) {
            Ok(()) => {
                self.todo.pop_front();
                self.running.insert(task.id().to_owned(), (work, attempt));
                true
            }
            Err(error) => {
                if !error.is_no_room() {
                    self.outcome.failure = Some(format!("{}: {error}", task.id()));
                }
                false
            }
        }
    }

    fn finished(&mut self, work: &Work, status: &TaskStatus, actions: &mut Actions) {
        let host = status.slave_id.map_or_else(String::new, |slave_id| {
            let host = self.hosts.get(&slave_id).map_or("", String::as_str);
            format!("{slave_id} ({host})")
        });
        *self.outcome.tasks_per_slave.entry(host).or_default() += 1;
        self.progress.one_more();
        match work {
            Work::Map { .. } => {
                self.left_to_map -= 1;
                if self.left_to_map == 0 {
                    self.todo
                        .extend((0..PARTS).map(|part| (Work::Reduce { part }, 0)));
                    // What was declined for want of work is wanted again.
                    actions.revive(Vec::new());
                }
            }
            Work::Reduce { .. } => {
                self.left_to_reduce -= 1;
                self.outcome.complete = self.left_to_reduce == 0;
            }
        }
    }

    fn failed(&mut self, work: Work, attempt: u32, status: &TaskStatus, actions: &mut Actions) {
        let what = format!("{} is {}: {}", status.task_id, status.state, status.message);
        self.progress.say(&what);
        if attempt + 1 < ATTEMPTS_MAX {
            self.outcome.repeated += 1;
            self.todo.push_back((work, attempt + 1));
            actions.revive(Vec::new());
        } else {
            self.outcome.failure = Some(format!("given up after {ATTEMPTS_MAX} attempts: {what}"));
        }
    }

    /// Ends the framework once there is nothing more to do.
    fn end_if_over(&mut self, actions: &mut Actions) {
        if self.outcome.complete || self.outcome.failure.is_some() {
            self.outcome.took = self.first_offer.map(|at| at.elapsed()).unwrap_or_default();
            self.progress.end();
            actions.teardown();
        }
    }
}

impl Scheduler for Job {
    fn subscribed(&mut self, framework_id: FrameworkId, again: bool, _: &mut Actions) {
        self.no_master_since = None;
        if !again {
            self.progress.say(&format!("subscribed as {framework_id}"));
        }
    }

    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        let now = Instant::now();
        self.first_offer.get_or_insert(now);
        self.last_offer = Some(now);
        if let Some(since) = self.paused_since.take() {
            self.outcome.pauses.push(now - since);
        }
        for offer in &offers {
            self.hosts.insert(offer.slave_id, offer.hostname.clone());
        }
        // One task on each in turn, so that all slaves get their share.
        let mut open: VecDeque<Placement<'_>> = offers.iter().map(Placement::on).collect();
        while let Some(mut placement) = open.pop_front() {
            if self.place_next(&mut placement) {
                open.push_back(placement);
            } else {
                actions.launch(placement);
            }
        }
        self.end_if_over(actions);
    }

    fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
        let is_lost = status.state == TaskState::Unreachable;
        if !status.state.is_terminal() && !is_lost {
            return;
        }
        // Not ours if it is of an attempt that was given up.
        let Some((work, attempt)) = self.running.remove(status.task_id.as_str()) else {
            return;
        };
        if status.state == TaskState::Finished {
            self.finished(&work, &status, actions);
        } else {
            if is_lost {
                // Its slave may come back, or never.
                actions.kill(status.task_id.clone(), None);
            }
            self.failed(work, attempt, &status, actions);
        }
        self.end_if_over(actions);
    }

    fn disconnected(&mut self, why: &str, _: &mut Actions) {
        self.progress.say(&format!("disconnected: {why}"));
        self.paused_since = self.paused_since.or(self.last_offer);
    }

    fn connect_failed(&mut self, why: &str, retry_in: Duration, actions: &mut Actions) {
        self.progress
            .say(&format!("no master: {why}; next attempt in {retry_in:.1?}"));
        let since = *self.no_master_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            self.outcome.failure = Some(format!("no master within {PATIENCE:?}: {why}"));
            actions.leave();
        }
    }
}

/// Where a map task leaves its counts; each part in a file of its own.
pub(crate) fn map_output(scratch: &Path, number: usize) -> PathBuf {
    scratch.join(format!("map-{number:04}"))
}

/// Where a reduce task leaves its sum.
pub(crate) fn reduce_output(scratch: &Path, part: u32) -> PathBuf {
    scratch.join(format!("reduce-{part}"))
}

#[cfg(test)]
mod tests {
    use meros_sdk::EndReason;
    use meros_sdk::testing::{Builder, Cluster, Framework, TaskRun, seeds};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3_600);
    const CRATES: usize = 20;

    fn job() -> Job {
        let crates = (0..CRATES).map(|number| format!("/crates/c{number}").into());
        Job::new(
            "wordcount".to_owned(),
            crates.collect(),
            Path::new("/scratch"),
        )
    }

    fn cluster() -> Builder {
        Cluster::builder().masters(3).slaves(3, "cpus:1;mem:1024")
    }

    fn has_ended(cluster: &Cluster, job: Framework<Job>) -> bool {
        cluster.ended(job) == Some(EndReason::TornDown { confirmed: true })
    }

    #[test]
    fn reduce_tasks_start_when_all_map_tasks_have_finished() {
        let mut cluster = cluster().start();
        let job = cluster.framework("wordcount", job);
        let reduces = |cluster: &Cluster| {
            let ids = cluster.task_states(job).into_keys();
            ids.filter(|id| id.starts_with("reduce-")).count()
        };
        cluster.run_until(HOUR, |cluster| reduces(cluster) > 0);
        assert_eq!(cluster.count(job, TaskState::Finished), CRATES);
        cluster.run_until(HOUR, |cluster| has_ended(cluster, job));
        let outcome = &cluster[job].outcome;
        assert!(outcome.complete && outcome.failure.is_none(), "{outcome:?}");
        assert_eq!((reduces(&cluster), outcome.repeated), (4, 0));
        assert_eq!(
            outcome.tasks_per_slave.len(),
            3,
            "all slaves have their share"
        );
    }

    #[test]
    fn what_fails_is_tried_again_and_given_up_in_the_end() {
        let first_fails = |id: &str| id.ends_with(".0");
        let mut cluster = cluster()
            .tasks(move |task, _| match first_fails(task.task_id.as_str()) {
                true => TaskRun::fails_after(SECOND, 1),
                false => TaskRun::finishes_after(SECOND),
            })
            .start();
        let patient = cluster.framework("wordcount", job);
        cluster.run_until(HOUR, |cluster| has_ended(cluster, patient));
        assert!(cluster[patient].outcome.complete);
        assert_eq!(cluster[patient].outcome.repeated, CRATES as u64 + 4);

        let mut cluster = self::cluster()
            .tasks(|_, _| TaskRun::fails_after(SECOND, 1))
            .start();
        let vain = cluster.framework("wordcount", job);
        cluster.run_until(HOUR, |cluster| has_ended(cluster, vain));
        let failure = cluster[vain].outcome.failure.as_deref().unwrap_or_default();
        assert!(
            failure.starts_with("given up after 3 attempts"),
            "{failure}"
        );
    }

    #[test]
    fn a_failover_and_a_slave_that_is_cut_off_are_survived() {
        for seed in seeds(0..10) {
            let mut cluster = cluster().seed(seed).start();
            let job = cluster.framework("wordcount", job);
            cluster.run_until(HOUR, |cluster| cluster.running(job) > 5);
            cluster.cut_off("host1");
            cluster.kill_leader(HOUR);
            cluster.run_until(HOUR, |cluster| has_ended(cluster, job));
            assert!(cluster[job].outcome.complete, "{:?}", cluster[job].outcome);
        }
    }
}
