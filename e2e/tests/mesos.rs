//! Clients of Mesos, unmodified, at work on a real cluster (issue 7). They come from public registries;
//! where they are not installed, the test says so and is over.

#[path = "common/python.rs"]
mod python;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually};
use meros_proto::view::{FrameworkRow, FrameworkState};
use python::python_with;
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

impl Client {
    fn start(program: &str, args: &[&str]) -> Self {
        let started = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .spawn();
        Self(started.expect("it was there a moment ago"))
    }

    /// What it says, line by line.
    fn lines(&mut self) -> std::io::Lines<BufReader<ChildStdout>> {
        BufReader::new(self.0.stdout.take().expect("piped")).lines()
    }

    /// Waits for its end, which has to be a good one; its last line is JSON.
    fn said(&mut self, lines: std::io::Lines<BufReader<ChildStdout>>) -> Value {
        eventually("the client has ended", PATIENCE, || {
            self.0.try_wait().expect("it is our child").is_some()
        });
        let status = self.0.wait().expect("it is our child");
        assert!(status.success(), "{status}; the client says why above");
        let last = lines.map_while(Result::ok).last().unwrap_or_default();
        serde_json::from_str(&last).expect("the client prints JSON")
    }
}

/// Whether Node finds this module: beside the scripts, or where `NODE_PATH` says.
fn node_has(module: &str) -> bool {
    let tried = Command::new("node")
        .args(["-e", &format!("require.resolve('{module}')")])
        .stderr(Stdio::null())
        .status();
    let has = tried.is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: node has no {module}; docs/mesos.md tells how to install it");
    }
    has
}

#[test]
fn pymesos_runs_a_hundred_tasks_on_three_slaves_and_fails_over() {
    let Some(python) = python_with("pymesos") else {
        return;
    };
    let cluster = LocalCluster::start(ClusterOptions::new("pymesos", 3));
    cluster.await_registered(3);
    let script = "clients/pymesos_tasks.py";
    let mut client = Client::start(&python, &[script, cluster.address(), "100"]);
    let lines = client.lines();
    let said = client.said(lines);
    assert_eq!(said["finished"], 100);
    assert_eq!(said["agents"], 3);
    assert_eq!(said["subscriptions"], 2);
    eventually("the framework is torn down", PATIENCE, || {
        let rows: Vec<FrameworkRow> = cluster.get("/api/v1/frameworks");
        rows.len() == 1 && rows[0].framework.state == FrameworkState::Completed
    });
}

#[test]
fn an_executor_made_with_pymesos_runs_a_hundred_tasks_and_outlives_a_slave() {
    let Some(python) = python_with("pymesos") else {
        return;
    };
    // semantics: M1 to M3, M6, L2
    let mut options = ClusterOptions::new("pyexec", 3);
    options.slave_args = vec!["--tasks-end-with-slave=false".to_owned()];
    let mut cluster = LocalCluster::start(options);
    let gate = cluster.dir().join("gate");
    let script = "clients/pymesos_executor.py";
    let args = [script, cluster.address(), "100", &gate.to_string_lossy()];
    let mut client = Client::start(&python, &args);
    let mut lines = client.lines();
    let first = lines.next().and_then(Result::ok);
    assert_eq!(first.as_deref(), Some("running"), "on each slave");
    // Its executor finds it again where it was.
    let slave = &mut cluster.slaves[0];
    let at = slave.listening().expect("it runs").http.to_string();
    slave.kill();
    slave.set_arg("http-listen", &at);
    slave.start();
    std::fs::write(&gate, "").expect("our folder");
    let said = client.said(lines);
    assert_eq!(said["finished"], 100);
    assert_eq!(said["agents"], 3);
    assert_eq!(said["subscriptions"], 2);
}

#[test]
fn mesoshttp_runs_a_hundred_tasks_and_fails_over_while_a_node_client_watches() {
    let Some(python) = python_with("mesoshttp.client") else {
        return;
    };
    let mut options = ClusterOptions::new("mesoshttp", 3);
    // It tells of an event when the next one begins.
    options.master_args = vec!["--heartbeat-interval=200ms".to_owned()];
    let cluster = LocalCluster::start(options);
    let watcher = node_has("@dcos/mesos-client").then(|| {
        let script = "clients/mesos_client_watch.js";
        let mut watcher = Client::start("node", &[script, cluster.address(), "mesoshttp"]);
        let mut lines = watcher.lines();
        let first = lines.next().and_then(Result::ok);
        assert_eq!(first.as_deref(), Some("subscribed"));
        (watcher, lines)
    });
    let script = "clients/mesoshttp_tasks.py";
    let mut client = Client::start(&python, &[script, cluster.address(), "100"]);
    let lines = client.lines();
    let said = client.said(lines);
    assert_eq!(said["finished"], 100);
    assert_eq!(said["agents"], 3);
    assert_eq!(said["subscriptions"], 2);
    if let Some((mut watcher, lines)) = watcher {
        let seen = watcher.said(lines);
        assert_eq!(seen["agents"], 3);
        assert_eq!(seen["added"], 100, "each was told: {seen}");
        assert_eq!(seen["finished"], 100, "each was told: {seen}");
        assert_eq!(seen["version"], "1.11.0");
    }
}

/// The tasks that have finished, by what a framework has printed.
fn finished(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().filter(|line| line.contains(": TASK_FINISHED"));
    let names = lines.filter_map(|line| line.split(':').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_same_framework_in_rust_in_python_and_with_curl_does_the_same() {
    let cluster = LocalCluster::start(ClusterOptions::new("hello", 1));
    let rust = meros_e2e::meros_program().with_file_name("examples/hello");
    let at = cluster.address();
    let own = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let examples = format!("{own}/../docs/examples");
    let has = |program: &str| {
        let tried = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let mut ran = 0;
    for (program, needs, args) in [
        (rust.display().to_string(), vec![], vec![]),
        (
            "python3".to_owned(),
            vec!["python3"],
            vec![format!("{examples}/hello.py"), at.to_owned()],
        ),
        (
            "bash".to_owned(),
            vec!["bash", "curl", "jq"],
            vec![format!("{examples}/hello.sh"), at.to_owned()],
        ),
    ] {
        let is_there = match needs.is_empty() {
            true => rust.is_file(),
            false => needs.iter().all(|it| has(it)),
        };
        if !is_there {
            eprintln!("skipped: {program} {args:?} needs {needs:?}, or to be built");
            continue;
        }
        let ended = Command::new(&program)
            .args(&args)
            .env("MEROS_MASTER", at)
            .env("MEROS_IDENTITY", cluster.identity("framework"))
            .output()
            .expect("it was there a moment ago");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{program}: {said}");
        let expected: Vec<String> = (0..5).map(|number| format!("hello-{number}")).collect();
        assert_eq!(finished(&ended.stdout), expected, "{program}");
        ran += 1;
        eventually("the framework is torn down", PATIENCE, || {
            let rows: Vec<FrameworkRow> = cluster.get("/api/v1/frameworks");
            let ended = rows
                .iter()
                .filter(|row| row.framework.state == FrameworkState::Completed);
            ended.count() == ran
        });
    }
    assert!(ran > 0, "none of them can be run here");
}
