//! Clients of Mesos, unmodified, at work on a real cluster (issue 7). They come from public registries;
//! where they are not installed, the test says so and is over.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually};
use meros_proto::view::{FrameworkRow, FrameworkState};
use serde_json::Value;

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// A client that does not outlive a failed test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The Python that has this module: `MEROS_TEST_PYTHON`, else `python3`.
fn python_with(module: &str) -> Option<String> {
    let python = std::env::var("MEROS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let tried = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .stderr(Stdio::null())
        .status();
    let has = tried.is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: {python} has no {module}; docs/mesos.md tells how to install it");
    }
    has.then_some(python)
}

#[test]
fn pymesos_runs_a_hundred_tasks_on_three_slaves_and_fails_over() {
    let Some(python) = python_with("pymesos") else {
        return;
    };
    let cluster = LocalCluster::start(ClusterOptions::new("pymesos", 3));
    cluster.await_registered(3);
    let child = Command::new(python)
        .args(["clients/pymesos_tasks.py", cluster.address(), "100"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was there a moment ago");
    let mut client = Client(child);
    eventually("the client has ended", PATIENCE, || {
        client.0.try_wait().expect("it is our child").is_some()
    });
    let status = client.0.wait().expect("it is our child");
    assert!(status.success(), "{status}; the client says why above");
    let said = client.0.stdout.take().expect("piped");
    let said: Value = serde_json::from_reader(said).expect("the client prints JSON");
    assert_eq!(said["finished"], 100);
    assert_eq!(said["agents"], 3);
    assert_eq!(said["subscriptions"], 2);
    eventually("the framework is torn down", PATIENCE, || {
        let rows: Vec<FrameworkRow> = cluster.get("/api/v1/frameworks");
        rows.len() == 1 && rows[0].framework.state == FrameworkState::Completed
    });
}
