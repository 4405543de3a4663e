//! What operators do to a cluster of real processes: quotas, weights, why, drain, gone.

use std::process::{Child, Stdio};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually, meros};
use serde_json::Value;

const SLOW: Duration = Duration::from_secs(60);

/// Two slaves, in the racks r1 and r2.
fn two_racks(name: &'static str) -> LocalCluster {
    let mut options = ClusterOptions::new(name, 1);
    options.slave_args = vec!["--attributes=rack:r1".to_owned()];
    let mut cluster = LocalCluster::start(options.clone());
    options.slave_args = vec!["--attributes=rack:r2".to_owned()];
    cluster.add_slave(&options);
    cluster.await_registered(2);
    cluster
}

fn json(cluster: &LocalCluster, args: &[&str]) -> Value {
    let ran = cluster.meros(&[args, &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("it prints JSON")
}

/// Done; what it said.
fn done(cluster: &LocalCluster, args: &[&str]) -> String {
    let ran = cluster.meros(args);
    assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
    ran.stdout + &ran.stderr
}

/// Refused; why.
fn refused(cluster: &LocalCluster, args: &[&str]) -> String {
    let ran = cluster.meros(args);
    assert_eq!(ran.code, 1, "meros {args:?}: {}", ran.stdout);
    ran.stderr
}

/// A `meros run` of a sleep that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(cluster: &LocalCluster, name: &str, args: &[&str]) -> Self {
        let child = meros()
            .env("MEROS_MASTER", cluster.address())
            .env("MEROS_IDENTITY", cluster.identity("operator"))
            .args(["run", "--name", name])
            .args(args)
            .args(["--", "sleep", "300"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary was found"))
    }

    fn await_end(&mut self) {
        eventually("the run ends", SLOW, || {
            self.0.try_wait().expect("it is our child").is_some()
        });
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn await_running(cluster: &LocalCluster, name: &str) -> Value {
    let mut found = Value::Null;
    eventually("the task runs", SLOW, || {
        let tasks = json(cluster, &["ps"]);
        let task = tasks.as_array().expect("a list").iter().find(|task| {
            task["task_id"] == format!("{name}.0000") && task["state"] == "TASK_RUNNING"
        });
        found = task.cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

/// The codes of the reasons why nothing is offered in a role.
fn reasons(cluster: &LocalCluster, role: &str) -> Vec<String> {
    let mut codes = Vec::new();
    // Who asks too soon is asked to wait.
    eventually("why is answered", SLOW, || {
        let ran = cluster.meros(&["why", "role", role, "-o", "json"]);
        if ran.stderr.contains("over_limit") {
            return false;
        }
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let why: Value = serde_json::from_str(&ran.stdout).expect("it prints JSON");
        let rows = why["rows"].as_array().expect("a list").iter();
        let all = rows.flat_map(|row| row["reasons"].as_array().expect("a list"));
        codes = all
            .map(|reason| reason["code"].as_str().expect("text").to_owned())
            .collect();
        true
    });
    codes
}

#[test]
fn how_resources_are_shared_is_set_at_start_and_shown() {
    let mut options = ClusterOptions::new("settings", 1);
    options.master_args = [
        "--min-allocatable=cpus:3",
        "--sorter=random",
        "--fair-share-excluded=gpus",
        "--hoarding-offers=2",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut cluster = LocalCluster::start(options);
    let settings = json(&cluster, &["settings"]);
    let value = |option: &str| {
        let mut rows = settings.as_array().expect("a list").iter();
        let row = rows.find(|row| row["option"] == option);
        row.expect("it is shown")["value"].clone()
    };
    assert_eq!(value("min_allocatable"), "cpus:3");
    assert_eq!(value("sorter"), "random");
    assert_eq!(value("fair_share_excluded"), "gpus");
    assert_eq!(value("hoarding_offers"), "2");
    assert_eq!(value("hoarding_after"), "1m");
    let text = done(&cluster, &["settings"]);
    assert!(
        text.contains("min_allocatable           cpus:3\n"),
        "{text}"
    );

    // The slave has four: while a task has two of them, the rest is not worth an offer.
    let _first = Sleeper::start(&cluster, "first", &["--cpus=2"]);
    await_running(&cluster, "first");
    let _second = Sleeper::start(&cluster, "second", &["--cpus=1"]);
    eventually("what is left is too little", SLOW, || {
        reasons(&cluster, "*").contains(&"below_minimum".to_owned())
    });
    // Unless its role says otherwise.
    done(&cluster, &["minimums", "set", "*=cpus:1"]);
    await_running(&cluster, "second");
    assert_eq!(
        json(&cluster, &["minimums", "list"])[0]["minimum"],
        "cpus:1"
    );
    done(&cluster, &["minimums", "remove", "*"]);
    let why = refused(&cluster, &["minimums", "remove", "*"]);
    assert!(why.contains("(role_unknown)"), "{why}");

    // For the cluster, whatever masters are started with.
    let set = ["settings", "set", "hoarding-offers=5", "offer_timeout=1min"];
    done(&cluster, &set);
    let why = refused(&cluster, &["settings", "set", "offer_timeout=1ms"]);
    assert!(why.contains("1000 to 3600000 ms"), "{why}");
    let why = refused(&cluster, &["settings", "set", "sorter=drf"]);
    assert!(
        why.contains("offer_timeout, slave_reregister_timeout"),
        "{why}"
    );
    cluster.master.kill();
    cluster.master.start();
    let shows = |line: &str| {
        let ran = cluster.meros(&["settings"]);
        ran.code == 0 && ran.stdout.contains(line)
    };
    eventually("what was set is in force", SLOW, || {
        shows("hoarding_offers           5 (set for the cluster)\n")
            && shows("offer_timeout             1m (set for the cluster)\n")
    });
    eventually("it leads again", SLOW, || {
        let unset = ["settings", "unset", "hoarding_offers"];
        cluster.meros(&unset).code == 0
    });
    assert!(shows("hoarding_offers           2\n"));
}

#[test]
fn what_daemons_log_is_changed_for_a_while() {
    let mut options = ClusterOptions::new("logging", 1);
    // Each ping is an event that the slave tells of when it tells everything.
    options.master_args = vec!["--ping-interval=500ms".to_owned()];
    let cluster = LocalCluster::start(options);
    let slave = cluster.slaves[0].listening().expect("it runs").http;
    let addresses = [cluster.address().to_owned(), slave.to_string()];
    let called = |address: &str, call: &str| {
        let request = ureq::post(format!("http://{address}/api/v1"))
            .header("Content-Type", "application/json");
        let mut answer = request.send(call).expect("it is done");
        answer.body_mut().read_to_string().expect("all of it")
    };
    assert!(!cluster.slaves[0].log().contains("TRACE"));
    let set = r#"{"type": "SET_LOGGING_LEVEL", "set_logging_level":
        {"level": 2, "duration": {"nanoseconds": 4000000000}}}"#;
    for address in &addresses {
        assert_eq!(called(address, set), "");
    }
    let log = || cluster.slaves[0].log();
    eventually("it says more", SLOW, || log().contains("TRACE meros_slave"));
    for address in &addresses {
        eventually("it is as before", SLOW, || {
            let told = called(address, r#"{"type": "GET_LOGGING_LEVEL"}"#);
            told.contains(r#""get_logging_level":{"level":0}"#)
        });
    }
}

#[test]
fn a_limit_holds_back_and_is_explained_and_outlives_the_master() {
    let mut cluster = two_racks("quota");
    // Memory without cpus is offered then, and declined: that the limit is why is told all the same.
    let limit = "cpus:1";
    let said = done(&cluster, &["quota", "set", "web", "--limit", limit]);
    assert!(said.contains("no framework is in web yet"), "{said}");
    let _first = Sleeper::start(&cluster, "first", &["--role=web", "--cpus=1"]);
    await_running(&cluster, "first");
    let _second = Sleeper::start(&cluster, "second", &["--role=web", "--cpus=1"]);
    eventually("the second is held back by the limit", SLOW, || {
        reasons(&cluster, "web").contains(&"limit".to_owned())
    });
    eventually("what it uses is listed", SLOW, || {
        let roles = json(&cluster, &["roles"]);
        let web = &roles.as_array().expect("a list")[0];
        web["role"] == "web" && web["used"]["cpus"] == 1
    });

    let why = refused(&cluster, &["quota", "set", "web", "--limit", "cpus:0.5"]);
    assert!(
        why.contains("uses 1 of `cpus`") && why.contains("(invalid)"),
        "{why}"
    );
    let why = refused(&cluster, &["quota", "remove", "nobody"]);
    assert!(why.contains("(role_unknown)"), "{why}");
    let why = refused(&cluster, &["weights", "set", "web=0"]);
    assert!(why.contains("from 0.001"), "{why}");
    let limit = "cpus:0.5;mem:64";
    done(
        &cluster,
        &["quota", "set", "web", "--limit", limit, "--force"],
    );
    done(&cluster, &["weights", "set", "web=3", "batch=0.5"]);
    done(&cluster, &["minimums", "set", "batch=cpus:4;mem:64|gpus:1"]);

    cluster.master.kill();
    cluster.master.start();
    cluster.await_registered(2);
    let quotas = json(&cluster, &["quota", "list"]);
    assert_eq!(quotas[0]["limits"]["cpus"], 0.5);
    assert_eq!(json(&cluster, &["weights", "list"])[0]["weight"], 0.5);
    let minimums = json(&cluster, &["minimums", "list"]);
    assert_eq!(minimums[0]["minimum"], "cpus:4;mem:64|gpus:1");
    eventually("the limit is in the metrics", SLOW, || {
        let limit = "meros_master_role_limit{role=\"web\",resource=\"cpus\"} 0.5";
        cluster.metrics().contains(limit)
    });
    // What was printed can be set again; then the limit goes, and the second gets its turn.
    let file = cluster.dir().join("quotas.json");
    let text = cluster.meros(&["quota", "list", "-o", "json"]).stdout;
    std::fs::write(&file, text).expect("the folder is ours");
    let file = file.display().to_string();
    done(&cluster, &["quota", "set", "--file", &file, "--force"]);
    done(&cluster, &["quota", "remove", "web"]);
    await_running(&cluster, "second");
    assert_eq!(json(&cluster, &["quota", "list"]), Value::Array(Vec::new()));
}

#[test]
fn machines_are_drained_come_back_and_are_declared_gone() {
    let mut cluster = two_racks("drain");
    let mut sleeper = Sleeper::start(&cluster, "sleeper", &["--where=rack=r2"]);
    let task = await_running(&cluster, "sleeper");
    assert_eq!(task["slave_id"], "S1", "wished for");
    let why = json(&cluster, &["why", "task", "sleeper.0000"]);
    assert_eq!(why["advice"], "nothing: it runs");

    done(&cluster, &["slaves", "drain", "S1", "--grace", "1s"]);
    sleeper.await_end();
    let row = |cluster: &LocalCluster| json(cluster, &["slaves"])[1].clone();
    eventually("the slave is drained", SLOW, || {
        row(&cluster)["is_drained"] == true
    });
    let ended = json(&cluster, &["why", "task", "sleeper.0000"]);
    assert_eq!(
        (&ended["state"], &ended["reason"]),
        (&"TASK_KILLED".into(), &"SLAVE_DRAINING".into())
    );
    // It stays so over a restart of both.
    cluster.slaves[1].stop();
    cluster.master.kill();
    cluster.master.start();
    cluster.slaves[1].start();
    cluster.await_registered(2);
    eventually("the slave is drained still", SLOW, || {
        row(&cluster)["is_drained"] == true
    });
    let _waits = Sleeper::start(&cluster, "waits", &["--role=late", "--where=rack=r2"]);
    eventually("the reason is the drain", SLOW, || {
        let ran = cluster.meros(&["why", "role", "late"]);
        ran.stdout.contains("draining or deactivated") && ran.stdout.contains("rack matches \"r2\"")
    });
    done(&cluster, &["slaves", "activate", "S1"]);
    await_running(&cluster, "waits");

    done(&cluster, &["slaves", "gone", "S1"]);
    let status = cluster.slaves[1].wait();
    assert_eq!(status.code(), Some(23), "{}", cluster.slaves[1].log());
    eventually("it is not listed any more", SLOW, || {
        json(&cluster, &["slaves"]).as_array().map(Vec::len) == Some(1)
    });
    let ended = json(&cluster, &["why", "task", "waits.0000"]);
    assert_eq!(ended["state"], "TASK_GONE_BY_OPERATOR");
    // It never comes back under that id.
    cluster.slaves[1].spawn();
    let status = cluster.slaves[1].wait();
    assert_eq!(status.code(), Some(23), "{}", cluster.slaves[1].log());
    let why = refused(&cluster, &["slaves", "activate", "S1"]);
    assert!(why.contains("(slave_gone)"), "{why}");
    let why = refused(&cluster, &["why", "slave", "nowhere"]);
    assert!(why.contains("no slave has the id or name nowhere"), "{why}");
}
