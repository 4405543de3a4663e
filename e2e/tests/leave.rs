//! A machine that is given away: its slave is told to leave for good (semantics: K8).

use std::process::{Child, Stdio};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually, meros};
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::SlaveRow;
use nix::sys::signal::Signal;

/// A command that does not outlive a failed test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const SLOW: Duration = Duration::from_secs(60);

#[test]
fn a_slave_that_is_told_to_leave_ends_its_tasks_and_comes_back_as_a_new_one() {
    let options = ClusterOptions::new("leave", 1);
    let mut cluster = LocalCluster::start(options);
    let slaves = |cluster: &LocalCluster| cluster.get::<Vec<SlaveRow>>("/api/v1/slaves");
    let first = slaves(&cluster)[0].slave.slave_id;
    let mut sleeper = Killed(
        meros()
            .env("MEROS_MASTER", cluster.address())
            .env("MEROS_IDENTITY", cluster.identity("operator"))
            .args(["run", "--name", "sleeper", "--", "sleep", "300"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was found"),
    );
    eventually("the sleeper runs", SLOW, || {
        let tasks = cluster.tasks();
        tasks.len() == 1 && tasks[0].state == TaskState::Running
    });
    assert_ne!(cluster.cgroups.groups().len(), 0, "a task has groups");

    cluster.slaves[0].signal(Signal::SIGUSR1);
    let status = cluster.slaves[0].wait();
    assert_eq!(status.code(), Some(0), "{}", cluster.slaves[0].log());
    // Nobody waits for the slave: the task has its end already, and `meros run` tells it.
    assert_ne!(sleeper.0.wait().expect("it is our child").code(), Some(0));
    eventually("the task is listed with its end", SLOW, || {
        let task = cluster.tasks().pop();
        task.is_some_and(|task| task.state == TaskState::Killed)
    });
    assert_eq!(cluster.cgroups.groups(), Vec::<std::path::PathBuf>::new());
    let registered = |row: &SlaveRow| row.slave.state == SlaveState::Registered;
    // The master may still be writing down that it has left.
    eventually("the slave has left", SLOW, || {
        !slaves(&cluster).iter().any(registered)
    });

    cluster.slaves[0].start();
    cluster.await_registered(1);
    let rows = slaves(&cluster);
    let again = rows
        .iter()
        .find(|row| registered(row))
        .expect("just waited");
    assert_ne!(again.slave.slave_id, first, "the id was given up for good");
    assert_eq!(cluster.meros(&["run", "--", "true"]).code, 0);
}
