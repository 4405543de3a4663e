//! Masters whose network is cut and whose disks stall or are full: what is acknowledged stays, and the
//! majority goes on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meros_e2e::meros::program_on;
use meros_e2e::{ClusterOptions, LocalCluster, Network, eventually};
use serde_json::Value;
use tempfile::TempDir;

#[path = "common/burst.rs"]
mod burst;
#[path = "common/hosts.rs"]
mod hosts;

use burst::{Burst, assert_each_ended_once};
use hosts::{Hosts, agent, get, leads};

const PATIENCE: Duration = Duration::from_secs(120);
/// More than what ends while the network is cut, and a little more: 40 a second.
const TASKS: usize = 700;
/// What shows that the cluster goes on.
const PROGRESS: usize = 40;

/// Whether an order was acknowledged by this very master.
fn acknowledges(address: &str, weight: u32) -> bool {
    let order = serde_json::json!({"weights": [{"role": "cut", "weight": weight}]});
    let answer = agent()
        .post(format!("http://{address}/api/v1/weights"))
        .send_json(order);
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// The framework of the crash tests on one of the hosts.
fn burst_on(hosts: &Hosts, host: usize, dir: &Path) -> Burst {
    let mut command = program_on(&hosts.network.name(host), Burst::program());
    command
        .arg(hosts.addresses.join(","))
        .arg(hosts.identity("framework"))
        .arg(dir)
        .arg(TASKS.to_string())
        .arg("0.5");
    Burst::spawn(command, dir)
}

#[test]
fn a_network_that_is_cut_in_any_way_stops_a_minority_only_and_loses_nothing() {
    let Some(network) = Network::new(5) else {
        return;
    };
    let hosts = Hosts::start(network, 3..5);
    let (all, dir) = ([0, 1, 2], TempDir::new().expect("a temp folder"));
    hosts.await_leader(&all);
    let burst = burst_on(&hosts, 3, dir.path());
    let progress = |what: &str| {
        let before = burst.finished();
        eventually(what, PATIENCE, || {
            burst.finished() >= TASKS.min(before + PROGRESS)
        });
    };
    progress("tasks end");

    // The leader alone with the framework and a slave.
    let leader = hosts.await_leader(&all);
    let others: Vec<usize> = all.into_iter().filter(|at| *at != leader).collect();
    hosts.network.isolate(&[leader, 3]);
    let old = &hosts.addresses[leader];
    eventually("its lease ends", PATIENCE, || !leads(old));
    assert!(!acknowledges(old, 7), "it cannot have asked a majority");
    let next = hosts.await_leader(&others);
    eventually("the majority takes orders", PATIENCE, || {
        acknowledges(&hosts.addresses[next], 2) || !leads(&hosts.addresses[next])
    });
    hosts.network.heal();
    progress("the framework has found the next leader");

    // One that follows, alone.
    let leader = hosts.await_leader(&all);
    let follower = (leader + 1) % 3;
    hosts.network.isolate(&[follower]);
    progress("two masters go on");
    hosts.network.heal();
    progress("they go on when the third is back");

    // One that does not hear the leader, but is heard by everybody.
    let leader = hosts.await_leader(&all);
    hosts.network.cut(leader, (leader + 1) % 3);
    progress("they go on with one that hears nothing from the leader");
    hosts.network.heal();

    // A leader that nobody hears, though it hears all.
    let leader = hosts.await_leader(&all);
    for host in (0..5).filter(|host| *host != leader) {
        hosts.network.cut(leader, host);
    }
    let others: Vec<usize> = all.into_iter().filter(|at| *at != leader).collect();
    hosts.await_leader(&others);
    progress("another one leads");
    hosts.network.heal();

    burst.finish();
    let allowed = ["TASK_FINISHED", "TASK_UNKNOWN", "TASK_GONE", "TASK_DROPPED"];
    assert_each_ended_once(dir.path(), TASKS, &allowed);
    eventually("all agree on who leads", PATIENCE, || {
        let leaders = hosts.addresses.iter().map(|address| {
            let rows: Vec<Value> = get(address, "/api/v1/masters")?;
            let mut rows = rows.into_iter();
            rows.find(|row| row["role"] == "leader")
                .map(|row| row["name"].to_string())
        });
        let leaders: Option<Vec<String>> = leaders.collect();
        leaders.is_some_and(|leaders| leaders.windows(2).all(|pair| pair[0] == pair[1]))
    });
}

/// A file system of its own, which can be full and can stand still.
struct Disk {
    dir: TempDir,
    at: std::path::PathBuf,
}

impl Disk {
    /// Over an empty folder; none if this process may not, and says why.
    fn mount(at: &Path, mebibytes: u64) -> Option<Self> {
        let dir = TempDir::new().expect("a temp folder");
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).expect("our folder");
        file.set_len(mebibytes << 20).expect("it is sparse");
        let made = run(&format!("mkfs.ext4 -q -m 0 {}", image.display())).and_then(|()| {
            run(&format!(
                "mount -o loop {} {}",
                image.display(),
                at.display()
            ))
        });
        match made {
            Ok(()) => Some(Self {
                dir,
                at: at.to_owned(),
            }),
            Err(why) => {
                eprintln!("skipped: no file system can be made and mounted here: {why}");
                None
            }
        }
    }

    fn freeze(&self) {
        run(&format!("fsfreeze -f {}", self.at.display())).expect("it is ours");
    }

    fn thaw(&self) {
        run(&format!("fsfreeze -u {}", self.at.display())).expect("it is frozen");
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.at.join("filler")).expect("room for a name");
        let block = vec![0_u8; 4_096];
        while file.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.at.join("filler")).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be frozen if the test has failed, and what works in it could not be ended.
        let _ = run(&format!("fsfreeze -u {}", self.at.display()));
        let _ = run(&format!("umount -l {}", self.at.display()));
        let _ = self.dir.path();
    }
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().expect("a program"))
        .args(words)
        .output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("our folder");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy_dir(&from, &to),
            false => drop(std::fs::copy(&from, &to).expect("room for it")),
        }
    }
}

/// Sets a weight by way of whoever leads, which takes a majority.
fn order(cluster: &LocalCluster, weight: u32) -> bool {
    let weight = format!("disk={weight}");
    cluster.meros(&["weights", "set", &weight]).code == 0
}

fn lead(cluster: &LocalCluster, at: usize, name: &str) {
    eventually("it leads", PATIENCE, || {
        // It may be refused while it is behind.
        cluster.leader() == Some(at)
            || cluster.meros(&["masters", "transfer", name]).code == 0
                && cluster.leader() == Some(at)
    });
}

#[test]
fn one_of_three_masters_may_have_a_disk_that_stalls_or_is_full() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: a disk that stalls needs root");
        return;
    }
    let mut options = ClusterOptions::new("disk", 1);
    options.masters = 3;
    let mut cluster = LocalCluster::start(options);
    let (at, name) = (1, "master-2");
    // Its data directory moves to a disk of its own.
    cluster.master_at(at).kill();
    let data_dir = cluster.master_at(at).data_dir().to_owned();
    let moved = cluster.dir().join("moved");
    std::fs::rename(&data_dir, &moved).expect("the same folder");
    std::fs::create_dir(&data_dir).expect("our folder");
    let Some(disk) = Disk::mount(&data_dir, 96) else {
        return;
    };
    copy_dir(&moved, &data_dir);
    cluster.master_at(at).start();
    lead(&cluster, at, name);

    disk.freeze();
    // It notices when it has to write.
    let address = cluster.address_of(at).to_owned();
    assert!(!acknowledges(&address, 3), "it cannot have written that");
    eventually("another one leads", PATIENCE, || {
        cluster.leader().is_some_and(|leader| leader != at)
    });
    eventually("orders are taken", PATIENCE, || order(&cluster, 2));
    disk.thaw();
    lead(&cluster, at, name);
    eventually("orders are taken", PATIENCE, || order(&cluster, 3));

    disk.fill();
    // RocksDB asks for room some megabytes ahead, so there is some for the first orders.
    let mut weight = 1;
    eventually("the master ends", PATIENCE, || {
        weight += 1;
        let weight = |role| serde_json::json!({"role": format!("{role:0>60}"), "weight": weight});
        let order = serde_json::json!({"weights": (0..200).map(weight).collect::<Vec<_>>()});
        let leader = cluster.leader().unwrap_or(at);
        let address = cluster.address_of(leader);
        // It is refused or broken off once there is none.
        let _ = agent()
            .post(format!("http://{address}/api/v1/weights"))
            .send_json(order);
        cluster.master_at(at).exited().is_some()
    });
    assert_eq!(cluster.master_at(at).wait().code(), Some(20));
    eventually("another one leads", PATIENCE, || cluster.leader().is_some());
    eventually("orders are taken", PATIENCE, || order(&cluster, 4));
    disk.empty();
    cluster.master_at(at).start();
    lead(&cluster, at, name);
    eventually("orders are taken", PATIENCE, || order(&cluster, 5));
    cluster.await_registered(1);
    cluster.master_at(at).kill();
}
