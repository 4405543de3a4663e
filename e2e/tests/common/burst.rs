//! The framework of the crash tests, as the tests see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use meros_e2e::{LocalCluster, eventually};

const PATIENCE: Duration = Duration::from_secs(240);

/// The framework as a process of its own, so that it can be killed like one.
pub(crate) struct Burst {
    child: Child,
    dir: PathBuf,
}

#[allow(dead_code, reason = "each test program uses some")]
impl Burst {
    pub(crate) fn start(cluster: &LocalCluster, dir: &Path, tasks: usize) -> Self {
        let mut command = Command::new(Self::program());
        command
            .arg(cluster.address())
            .arg(cluster.identity("framework"))
            .arg(dir)
            .arg(tasks.to_string());
        Self::spawn(command, dir)
    }

    pub(crate) fn program() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_burst"))
    }

    /// With all arguments of the program.
    pub(crate) fn spawn(mut command: Command, dir: &Path) -> Self {
        Self {
            child: command.spawn().expect("cargo built it"),
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits for its end, as long as tasks go on finishing.
    pub(crate) fn finish(mut self) {
        let mut status = None;
        while status.is_none() {
            let before = self.finished();
            eventually("the tasks go on or have all ended", PATIENCE, || {
                status = self.child.try_wait().expect("it is our child");
                status.is_some() || self.finished() > before
            });
        }
        assert!(status.expect("just seen").success(), "the framework failed");
    }

    /// How many tasks are known to run or to have run.
    pub(crate) fn started(&self) -> usize {
        let lines = lines(&self.dir);
        let runs = lines.iter().filter_map(|line| line.strip_prefix("run "));
        runs.collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn finished(&self) -> usize {
        let journal = journal(&self.dir);
        journal.values().filter(|ends| is_finished(ends)).count()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The ends of each launch.
pub(crate) fn journal(dir: &Path) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(dir.join("journal")).unwrap_or_default();
    let mut tasks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["launch", id] => drop(tasks.entry((*id).to_owned()).or_default()),
            ["end", id, state, _] => {
                tasks
                    .entry((*id).to_owned())
                    .or_default()
                    .push((*state).to_owned());
            }
            _ => {}
        }
    }
    tasks
}

fn is_finished(ends: &[String]) -> bool {
    ends.first().is_some_and(|end| end == "TASK_FINISHED")
}

/// Each launch has exactly one end, and each task has finished in one of its launches. Which ends a launch
/// may have had depends on what was killed. Returns how many launches were in vain.
pub(crate) fn assert_each_ended_once(dir: &Path, tasks: usize, allowed: &[&str]) -> usize {
    let journal = journal(dir);
    for (id, ends) in &journal {
        assert_eq!(ends.len(), 1, "{id} ended as {ends:?}");
        assert!(
            allowed.contains(&ends[0].as_str()),
            "{id} ended as {}",
            ends[0]
        );
    }
    let finished = journal.iter().filter(|(_, ends)| is_finished(ends));
    let finished: BTreeSet<&str> = finished
        .map(|(id, _)| id.split_once('.').map_or(id.as_str(), |(task, _)| task))
        .collect();
    assert_eq!(finished.len(), tasks, "not every task finished");
    let in_vain = journal.len() - tasks;
    eprintln!("{tasks} tasks finished, {in_vain} launches were in vain");
    in_vain
}

fn lines(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("journal")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// That a task runs is told before its end, and not after it.
#[allow(dead_code, reason = "each test program uses some")]
pub(crate) fn assert_in_order(dir: &Path) {
    let (mut running, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for line in &lines(dir) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["run", id] => {
                assert!(!ended.contains(*id), "{id} runs after its end");
                running.insert((*id).to_owned());
            }
            ["end", id, "TASK_FINISHED", _] => {
                assert!(running.contains(*id), "{id} has ended and never ran");
                ended.insert((*id).to_owned());
            }
            _ => {}
        }
    }
}
