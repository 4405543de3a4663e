//! Three masters, and kill -9 of the one that leads, again and again under load: no task is lost, run
//! twice or ended twice, and offers flow again soon.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use meros_e2e::{ClusterOptions, LocalCluster, eventually, meros};
use meros_proto::status::TaskState;
use meros_proto::view::TaskView;
use serde_json::Value;

#[path = "common/burst.rs"]
mod burst;

use burst::{Burst, assert_each_ended_once, assert_in_order};

const TASKS: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(420);
const SLAVES: usize = 4;

fn cluster(name: &'static str) -> LocalCluster {
    let mut options = ClusterOptions::new(name, SLAVES);
    options.masters = 3;
    options.resources = "cpus:8;mem:2048;disk:1024;ports:[31000-31099]";
    LocalCluster::start(options)
}

fn await_leader(cluster: &LocalCluster) -> usize {
    let mut leader = None;
    eventually("a master leads", PATIENCE, || {
        leader = cluster.leader();
        leader.is_some()
    });
    leader.expect("just found")
}

/// Whether this master leads and a framework has used an offer of it.
fn offers_flow(cluster: &LocalCluster, at: usize) -> bool {
    let metrics = cluster.try_metrics_of(at).unwrap_or_default();
    let value = |name: &str| {
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    value("meros_master_leading ") == Some(1)
        && value("meros_master_offers_accepted_total ") > Some(0)
}

#[test]
fn leaders_killed_one_after_the_other_lose_and_repeat_nothing() {
    let rounds = std::env::var("MEROS_FAILOVERS").map_or(3, |rounds| {
        rounds.parse().expect("MEROS_FAILOVERS is a number")
    });
    let mut cluster = cluster("failover");
    let dir = tempfile::tempdir().expect("a temp folder");
    let tasks = TASKS / 3 * rounds;
    let burst = Burst::start(&cluster, dir.path(), tasks);
    let mut pauses = Vec::new();
    for round in 1..=rounds {
        eventually("some tasks have ended", PATIENCE, || {
            burst.finished() >= (2 * round - 1) * tasks / (2 * rounds + 1)
        });
        let leader = await_leader(&cluster);
        let killed_at = Instant::now();
        cluster.master_at(leader).kill();
        eventually("offers flow again", PATIENCE, || {
            burst.finished() == tasks || (0..3).any(|at| at != leader && offers_flow(&cluster, at))
        });
        pauses.push(killed_at.elapsed());
        cluster.master_at(leader).start();
    }
    burst.finish();
    pauses.sort();
    eprintln!(
        "{rounds} leaders killed: offers flowed again after {:.2?} (median), {:.2?} (longest)",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    // A launch on its way to the killed master is dropped or unknown to its successor.
    let allowed = ["TASK_FINISHED", "TASK_UNKNOWN", "TASK_GONE", "TASK_DROPPED"];
    let in_vain = assert_each_ended_once(dir.path(), tasks, &allowed);
    // What fits on the slaves at once is what a kill can cost at most.
    assert!(in_vain <= rounds * SLAVES * 80);
    cluster.await_registered(SLAVES);
}

#[test]
fn tasks_end_while_no_master_runs_and_their_frameworks_hear_of_it_in_order() {
    // A minute where it is measured; here long enough for the tasks to end.
    let down = std::env::var("MEROS_DOWN_SECONDS").map_or(4, |seconds| {
        seconds.parse().expect("MEROS_DOWN_SECONDS is a number")
    });
    let mut options = ClusterOptions::new("all-down", 2);
    options.masters = 3;
    options.resources = "cpus:4;mem:2048;disk:1024";
    // Nobody else leads while the launches are on their way, which could cost some.
    options.master_args = vec!["--lease=5s".to_owned()];
    let mut cluster = LocalCluster::start(options);
    let dir = tempfile::tempdir().expect("a temp folder");
    let tasks = 40;
    let mut command = Command::new(Burst::program());
    command.args([
        cluster.address(),
        &cluster.identity("framework").display().to_string(),
    ]);
    command.args([&dir.path().display().to_string(), &tasks.to_string(), "3"]);
    let burst = Burst::spawn(command, dir.path());
    eventually("all tasks run", PATIENCE, || burst.started() == tasks);
    for at in 0..3 {
        cluster.master_at(at).kill();
    }
    let before = burst.finished();
    std::thread::sleep(Duration::from_secs(down));
    for at in 0..3 {
        cluster.master_at(at).start();
    }
    burst.finish();
    eprintln!("of {tasks} tasks {before} had ended before the masters were gone for {down} s");
    assert_eq!(
        assert_each_ended_once(dir.path(), tasks, &["TASK_FINISHED"]),
        0
    );
    assert_in_order(dir.path());
}

/// Sets the weight of a role of its own to 1, 2, 3 and so on, until it is told to stop; tells the last
/// that was acknowledged, and the last that was tried.
fn set_weights(
    address: &str,
    role: &str,
    stop: &AtomicBool,
    acknowledged: &AtomicU32,
) -> (u32, u32) {
    let (mut last, mut tried) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        tried += 1;
        let weight = format!("{role}={tried}");
        let mut command = meros();
        let done = command.args(["weights", "set", &weight, "--master", address]);
        if done.output().expect("it starts").status.success() {
            last = tried;
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    (last, tried)
}

#[test]
fn orders_that_were_acknowledged_outlive_their_leaders_and_none_comes_back_later() {
    let mut cluster = cluster("orders");
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU32::new(0));
    let address = cluster.address().to_owned();
    let roles = ["web", "batch", "cron"];
    let ends = std::thread::scope(|scope| {
        let clients = roles.map(|role| {
            let (address, stop, acknowledged) = (&address, &stop, &acknowledged);
            scope.spawn(move || set_weights(address, role, stop, acknowledged))
        });
        for _ in 0..3 {
            let before = acknowledged.load(Ordering::Relaxed);
            eventually("orders are acknowledged", PATIENCE, || {
                acknowledged.load(Ordering::Relaxed) >= before + 20
            });
            let leader = await_leader(&cluster);
            cluster.master_at(leader).kill();
            await_leader(&cluster);
            cluster.master_at(leader).start();
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().expect("no panic"))
    });
    // What is read may be a little behind what was acknowledged.
    let weight = |role: &str| {
        let rows: Vec<Value> = cluster.try_get("/api/v1/weights").unwrap_or_default();
        let row = rows.iter().find(|row| row["role"] == role);
        row.and_then(|row| row["weight"].as_f64()).unwrap_or(0.0)
    };
    for (role, (last, tried)) in roles.iter().zip(ends) {
        eventually("the last order is in force", PATIENCE, || {
            weight(role) >= f64::from(last)
        });
        let found = weight(role);
        assert!(
            found <= f64::from(tried),
            "{role} is {found}, {tried} was the last"
        );
    }
}

#[test]
fn masters_that_follow_answer_readers_and_send_writers_to_the_leader() {
    let cluster = cluster("follow");
    await_leader(&cluster);
    eventually("three masters are known", PATIENCE, || {
        let masters = cluster.try_get::<Vec<Value>>("/api/v1/masters");
        masters.is_some_and(|masters| masters.len() == 3)
    });
    // On a machine that stands still another one may come to lead meanwhile: then they are asked anew.
    eventually("all others send to the leader", PATIENCE, || {
        let leader = await_leader(&cluster);
        let said: Vec<_> = (0..3)
            .filter(|at| *at != leader)
            .flat_map(|at| asked(&cluster, at))
            .collect();
        let sent_on = [READ, ORDER].map(|path| {
            let location = format!("//{}{path}", cluster.address_of(leader));
            (307_u16, Some(location))
        });
        let of_each = [(200, None), (200, None)].into_iter().chain(sent_on);
        said.into_iter().eq(of_each.clone().chain(of_each))
    });
}

const READ: &str = "/api/v1/slaves?limit=2";
const ORDER: &str = "/api/v1/frameworks/F7/teardown";

/// What a master says to a look at its health, a read, a read of the leader's answer and an order: status and
/// where to go.
fn asked(cluster: &LocalCluster, at: usize) -> Vec<(u16, Option<String>)> {
    let agent = ureq::Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .build()
        .new_agent();
    let base = format!("http://{}", cluster.address_of(at));
    let answers = [
        agent.get(format!("{base}/health")).call(),
        agent.get(format!("{base}{READ}")).call(),
        agent
            .get(format!("{base}{READ}"))
            .header("x-meros-read", "leader")
            .call(),
        agent.post(format!("{base}{ORDER}")).send_empty(),
    ];
    let said = answers.into_iter().map(|answer| {
        let answer = answer.expect("it answers");
        let location = answer.headers().get("location");
        let location = location.map(|location| location.to_str().expect("text").to_owned());
        (answer.status().as_u16(), location)
    });
    said.collect()
}

#[test]
fn a_leader_without_the_others_leads_no_more_until_they_are_back() {
    let mut cluster = cluster("alone");
    let leader = await_leader(&cluster);
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    for at in &others {
        cluster.master_at(*at).kill();
    }
    eventually("its lease ends", Duration::from_secs(30), || {
        cluster.leader().is_none()
    });
    for at in &others {
        cluster.master_at(*at).start();
    }
    await_leader(&cluster);
    cluster.await_registered(SLAVES);
}

/// A command that does not outlive a failed test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A task of a framework of its own, which writes its pid and runs until it is told to end.
struct Lasting {
    run: Killed,
    pid_file: PathBuf,
    go: PathBuf,
}

impl Lasting {
    fn start(cluster: &LocalCluster, name: &str, code: i32) -> Self {
        let file = |what| cluster.dir().join(format!("{name}.{what}"));
        let (pid_file, go) = (file("pid"), file("go"));
        let script = format!(
            "echo $$ > {}; while [ ! -e {} ]; do sleep 0.1; done; exit {code}",
            pid_file.display(),
            go.display()
        );
        let run = meros()
            .env("MEROS_MASTER", cluster.address())
            .env("MEROS_IDENTITY", cluster.identity("framework"))
            .args(["run", "--name", name, "--", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self {
            run: Killed(run.expect("the binary was found")),
            pid_file,
            go,
        }
    }

    /// Its pid, once it is written whole.
    fn pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(&self.pid_file).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    }

    fn is_alive(&self) -> bool {
        let pid = self.pid().expect("it has begun");
        Path::new(&format!("/proc/{pid}")).exists()
    }

    fn end(&self) {
        std::fs::write(&self.go, "").expect("our folder");
    }

    /// What its framework is told, and returns as its own.
    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the end of the task is told", PATIENCE, || {
            status = self.run.0.try_wait().expect("it is our child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

#[test]
fn tasks_run_on_while_all_their_masters_are_lost_and_restored_from_a_backup() {
    let mut options = ClusterOptions::new("restore", 1);
    // Its tasks say their numbers as the machine has them.
    options.slave_args = vec!["--isolation=pid=off".to_owned()];
    options.masters = 3;
    // Nobody else leads while the launches are on their way, which could cost one.
    options.master_args = vec!["--lease=5s".to_owned()];
    let mut cluster = LocalCluster::start(options);
    let mut lasting = Lasting::start(&cluster, "lasting", 7);
    let mut brief = Lasting::start(&cluster, "brief", 5);
    let running = |cluster: &LocalCluster, name: &str| {
        let tasks: Option<Vec<TaskView>> = cluster.try_get("/api/v1/tasks");
        let mut tasks = tasks.unwrap_or_default().into_iter();
        tasks.find(|task| task.state == TaskState::Running && task.name == name)
    };
    let mut before = None;
    eventually("the tasks run", PATIENCE, || {
        before = running(&cluster, "lasting");
        before.is_some()
            && running(&cluster, "brief").is_some()
            && lasting.pid().is_some()
            && brief.pid().is_some()
    });
    let (before, pid) = (before.expect("just found"), lasting.pid());
    let file = cluster.dir().join("registry.json").display().to_string();
    eventually("there is a backup", PATIENCE, || {
        cluster.meros(&["backup", &file]).code == 0
    });

    for at in 0..3 {
        cluster.master_at(at).kill();
        std::fs::remove_dir_all(cluster.master_at(at).data_dir()).expect("it was there");
    }
    // One ends while there is no master to be told.
    brief.end();
    eventually("it ends", PATIENCE, || !brief.is_alive());
    let data_dir = cluster.master.data_dir().display().to_string();
    let identity = cluster.identity("master").display().to_string();
    let restore = ["--data-dir", &data_dir, "--identity", &identity];
    let advertise = ["--advertise", cluster.address_of(0)];
    let ran = cluster.meros(&[&["restore", &file], &restore[..], &advertise].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("warning"), "{}", ran.stderr);
    cluster.master.start();

    let mut after = None;
    eventually("the task is known again", PATIENCE, || {
        after = running(&cluster, "lasting");
        after.is_some()
    });
    let after = after.expect("just found");
    assert_eq!(
        (&after.task_id, after.slave_id, after.framework_id),
        (&before.task_id, before.slave_id, before.framework_id)
    );
    assert_eq!(brief.code(), Some(5));
    assert!(lasting.is_alive());
    // The others come back with empty data directories, while it runs.
    for at in 1..3 {
        cluster.master_at(at).start();
    }
    eventually("all masters vote", PATIENCE, || {
        let masters: Vec<Value> = cluster.try_get("/api/v1/masters").unwrap_or_default();
        let votes = |row: &&Value| row["role"] == "leader" || row["role"] == "voter";
        masters.iter().filter(votes).count() == 3
    });
    assert!(lasting.is_alive());
    assert_eq!(lasting.pid(), pid, "it was started again");
    lasting.end();
    assert_eq!(lasting.code(), Some(7));
}
