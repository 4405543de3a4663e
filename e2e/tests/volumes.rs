//! Reservations and volumes with real processes: made and resized by a framework and by operators, kept
//! over kill -9 of slave and master, wiped when they are destroyed.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually, meros};
use meros_sdk::{
    Acknowledge, Events, Filters, Handle, News, Offer, OperationState, Resources, Scalar, Session,
    SessionConfig, Steps, Task, TaskState, Volume,
};
use serde_json::Value;
use tokio::runtime::Runtime;

const SLOW: Duration = Duration::from_secs(60);

/// A framework in the role `web` that does what the test says.
struct Framework {
    runtime: Runtime,
    events: Events,
    handle: Handle,
}

impl Framework {
    fn start(cluster: &LocalCluster) -> Self {
        let runtime = Runtime::new().expect("threads");
        let masters = meros_sdk::parse_masters(cluster.address()).expect("an address");
        let mut config = SessionConfig::new("volumes", masters, cluster.identity("framework"));
        config.framework.roles = vec!["web".parse().expect("a role")];
        config.acknowledge = Acknowledge::Manual;
        let _inside = runtime.enter();
        let (events, handle) = Session::connect(config).expect("a good identity");
        Self {
            runtime,
            events,
            handle,
        }
    }

    /// Deals with news: the first offer that `steps` has something for is used, and another one if that
    /// offer was not there any more, because a process has just been killed. Until each of these
    /// operations has finished and each of these tasks as well.
    fn carry_out<'a>(
        &mut self,
        mut steps: impl FnMut(&Offer) -> Option<Steps<'_>>,
        operations: &[&'a str],
        tasks: &[&'a str],
    ) {
        let mut waits: Vec<&str> = [operations, tasks].concat();
        let mut is_used = false;
        let mut last = String::new();
        let handle = &self.handle;
        let events = &mut self.events;
        let work = async {
            while !waits.is_empty() {
                match events.next().await.expect("the session goes on") {
                    News::Offers(offers) => {
                        for offer in offers {
                            let filters = Filters {
                                refuse: Duration::ZERO,
                            };
                            let offer_ids = vec![offer.offer_id];
                            let wanted = if is_used { None } else { steps(&offer) };
                            match wanted {
                                Some(steps) => {
                                    is_used = true;
                                    let operations = steps.into_operations();
                                    handle.accept(offer_ids, operations, filters)
                                }
                                None => handle.decline(
                                    offer_ids,
                                    Filters {
                                        refuse: Duration::from_millis(200),
                                    },
                                ),
                            }
                            .expect("it is connected");
                        }
                    }
                    News::Operation(status) => {
                        last = format!("{status:?}");
                        match status.state {
                            OperationState::Finished => {
                                waits.retain(|it| *it != status.operation_id.as_str());
                            }
                            OperationState::Error | OperationState::Dropped => is_used = false,
                            // The others are answers, and it asks nothing.
                            _ => panic!("{last}"),
                        }
                    }
                    News::Update(status) => {
                        handle.acknowledge(&status).expect("it is connected");
                        last = format!("{status:?}");
                        match status.state {
                            TaskState::Finished => {
                                waits.retain(|it| *it != status.task_id.as_str());
                            }
                            TaskState::Failed | TaskState::Error => panic!("{last}"),
                            TaskState::Dropped | TaskState::Lost | TaskState::Gone => {
                                is_used = false;
                            }
                            _ => {}
                        }
                    }
                    News::Refused { call, refusal } => panic!("{call}: {refusal}"),
                    _ => {}
                }
            }
        };
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(SLOW, work).await });
        ended.unwrap_or_else(|_| {
            panic!("still waiting for {operations:?} and {tasks:?}; the last was {last}")
        });
    }
}

fn volume_in(offer: &Offer) -> Option<Resources> {
    let volumes = offer.resources.filter(|it| it.volume().is_some());
    (!volumes.is_empty()).then_some(volumes)
}

fn resources(text: &str) -> Resources {
    text.parse().expect("written well here")
}

fn task(id: &str, line: &str) -> Task {
    Task::new(id).command(line).cpus(0.1).mem(32.0)
}

fn json(cluster: &LocalCluster, args: &[&str]) -> Value {
    let ran = cluster.meros(&[args, &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("it prints JSON")
}

fn no_volumes(cluster: &LocalCluster) -> bool {
    json(cluster, &["volumes", "list"]) == Value::Array(Vec::new())
}

fn done(cluster: &LocalCluster, args: &[&str]) -> String {
    let ran = cluster.meros(args);
    assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
    ran.stdout
}

fn refused(cluster: &LocalCluster, args: &[&str]) -> String {
    let ran = cluster.meros(args);
    assert_ne!(ran.code, 0, "meros {args:?}: {}", ran.stdout);
    ran.stderr
}

/// The directories of volumes on the first slave.
fn directories(cluster: &LocalCluster) -> Vec<PathBuf> {
    let found = std::fs::read_dir(cluster.slaves[0].data_dir().join("volumes"));
    let found = found.into_iter().flatten();
    found.map(|entry| entry.expect("readable").path()).collect()
}

fn restart_slave(cluster: &mut LocalCluster) {
    cluster.slaves[0].kill();
    cluster.slaves[0].start();
    cluster.await_registered(1);
}

/// Lets the volume grow and shrink; tasks find what was written before all that, also after kill -9.
fn resize(cluster: &mut LocalCluster, framework: &mut Framework) {
    let reads = |id: &str| task(id, "test \"$(cat data/rows)\" = written");
    framework.carry_out(
        |offer| {
            let volume = volume_in(offer)?;
            let mut steps = Steps::on(offer);
            let disk = steps.reserve(&resources("disk:50")).expect("it is there");
            steps.named("grow".parse().expect("an id"));
            let larger = steps.grow(&volume, &disk).expect("both are there");
            assert_eq!(larger, resources("disk(web,)[db:data]:150"));
            steps.place(&reads("larger").exactly(&larger)).ok()?;
            Some(steps)
        },
        &["grow"],
        &["larger"],
    );
    restart_slave(cluster);
    framework.carry_out(
        |offer| {
            let volume = volume_in(offer)?;
            assert_eq!(volume, resources("disk(web,)[db:data]:150"));
            let mut steps = Steps::on(offer);
            steps.named("shrink".parse().expect("an id"));
            let (smaller, disk) = steps.shrink(&volume, Scalar::whole(50)).expect("enough");
            steps.unreserve(&disk).expect("it is reserved");
            steps.place(&reads("smaller").exactly(&smaller)).ok()?;
            Some(steps)
        },
        &["shrink"],
        &["smaller"],
    );
    assert_eq!(directories(cluster).len(), 1, "the one that it always had");
}

#[test]
fn what_one_task_writes_the_next_reads_until_the_volume_is_destroyed() {
    let mut cluster = LocalCluster::start(ClusterOptions::new("volumes", 1));
    let mut framework = Framework::start(&cluster);
    framework.carry_out(
        |offer| {
            let mut steps = Steps::on(offer);
            steps.named("reserve".parse().expect("an id"));
            let disk = steps.reserve(&resources("disk:100")).expect("it is there");
            steps.named("create".parse().expect("an id"));
            let volume = Volume::new("db", "data").expect("well formed");
            let volume = steps.create(&disk, volume).expect("reserved disk");
            let writer = task("writer", "echo written > data/rows");
            steps.place(&writer.exactly(&volume)).expect("room");
            Some(steps)
        },
        &["reserve", "create"],
        &["writer"],
    );
    for id in ["reader", "again", "later"] {
        match id {
            "reader" => restart_slave(&mut cluster),
            "later" => {
                cluster.master.kill();
                cluster.master.start();
                cluster.await_registered(1);
            }
            _ => {}
        }
        framework.carry_out(
            |offer| {
                let volume = volume_in(offer)?;
                let mut steps = Steps::on(offer);
                let reader = task(id, "test \"$(cat data/rows)\" = written");
                steps.place(&reader.exactly(&volume)).ok()?;
                Some(steps)
            },
            &[],
            &[id],
        );
    }
    eventually("the volume is listed", SLOW, || {
        let volumes = json(&cluster, &["volumes", "list"]);
        volumes[0]["id"] == "db" && volumes[0]["role"] == "web"
    });
    assert_eq!(directories(&cluster).len(), 1);
    resize(&mut cluster, &mut framework);

    // Its successor of the same name finds nothing of it.
    framework.carry_out(
        |offer| {
            let volume = volume_in(offer)?;
            let mut steps = Steps::on(offer);
            steps.named("destroy".parse().expect("an id"));
            let disk = steps.destroy(&volume).expect("it is there");
            let volume = Volume::new("db", "data").expect("well formed");
            let volume = steps.create(&disk, volume).expect("reserved disk");
            let empty = task("empty", "test ! -e data/rows");
            steps.place(&empty.exactly(&volume)).ok()?;
            Some(steps)
        },
        &["destroy"],
        &["empty"],
    );
    framework.carry_out(
        |offer| {
            let volume = volume_in(offer)?;
            let mut steps = Steps::on(offer);
            let disk = steps.destroy(&volume).expect("it is there");
            steps.named("unreserve".parse().expect("an id"));
            steps.unreserve(&disk).expect("it is reserved");
            Some(steps)
        },
        &["unreserve"],
        &[],
    );
    eventually("the data is wiped", SLOW, || {
        directories(&cluster).is_empty()
    });
    restart_slave(&mut cluster);
    eventually("no volume is listed", SLOW, || no_volumes(&cluster));
    let declared = resources("cpus:4;mem:1024;disk:1024;ports:[31000-31099]");
    eventually("all is as declared", SLOW, || {
        let slave = &json(&cluster, &["slaves"])[0];
        let all = serde_json::from_value::<Resources>(slave["resources"].clone());
        all.expect("resources") == declared
    });
}

/// A `meros run` of a sleep that ends with the test.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn operators_reserve_and_give_back_and_make_and_destroy_volumes() {
    let mut cluster = LocalCluster::start(ClusterOptions::new("reserve", 1));
    let sleeper = meros()
        .env("MEROS_MASTER", cluster.address())
        .env("MEROS_IDENTITY", cluster.identity("operator"))
        .args(["run", "--name=busy", "--cpus=3", "--", "sleep", "300"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let sleeper = Sleeper(sleeper.expect("the binary was found"));
    eventually("the task runs", SLOW, || {
        json(&cluster, &["ps"])[0]["state"] == "TASK_RUNNING"
    });
    let bundle = "cpus:1;disk:100";
    let why = refused(&cluster, &["reserve", "S0", "cpus:2", "--role=web"]);
    assert!(
        why.contains("(not_enough)") && why.contains("wanted 2, has 1"),
        "{why}"
    );
    let said = done(&cluster, &["reserve", "S0", bundle, "--role=web"]);
    assert_eq!(said, "S0 cpus:1;disk:100 is reserved for web\n");
    let create = |id: &str, disk: &str| {
        let disk = format!("--disk={disk}");
        let args = [
            "volumes",
            "create",
            "S0",
            id,
            &disk,
            "--path=data",
            "--role=web",
        ];
        cluster.meros(&args)
    };
    assert_eq!(create("db", "60").code, 0);
    let twice = create("db", "10");
    assert!(twice.stderr.contains("exists twice"), "{}", twice.stderr);
    let too_large = create("log", "41");
    assert!(
        too_large.stderr.contains("(not_enough)"),
        "{}",
        too_large.stderr
    );
    let why = refused(&cluster, &["unreserve", "S0", bundle, "--role=web"]);
    assert!(why.contains("(not_enough)"), "a volume is on it: {why}");

    drop(sleeper);
    // Both die, and what was confirmed is there.
    eventually("the slave has answered", SLOW, || {
        cluster
            .metrics()
            .contains("meros_master_operations_finished_total 2")
    });
    cluster.master.kill();
    restart_both(&mut cluster);
    eventually("the volume is listed", SLOW, || {
        json(&cluster, &["volumes", "list"])[0]["disk"] == "60"
    });
    eventually("the reservation is shown", SLOW, || {
        done(&cluster, &["slaves"]).contains("web cpus:1;disk:40;disk:60")
    });

    let resized = |kind: &str, by: &str, becomes: &str| {
        let args = ["volumes", kind, "S0", "db", "--by", by];
        let said = done(&cluster, &args);
        assert_eq!(said, format!("S0 volume db {kind}s by {by}\n"));
        eventually("the volume has the size", SLOW, || {
            json(&cluster, &["volumes", "list"])[0]["disk"] == becomes
        });
    };
    resized("grow", "40", "100");
    resized("shrink", "99", "1");
    resized("grow", "0.5", "1.5");
    let why = refused(&cluster, &["volumes", "grow", "S0", "db", "--by=100"]);
    assert!(why.contains("(not_enough)"), "{why}");
    let why = refused(&cluster, &["volumes", "shrink", "S0", "db", "--by=1"]);
    assert!(why.contains("0.5 MiB would be left"), "{why}");

    done(&cluster, &["volumes", "destroy", "S0", "db"]);
    done(&cluster, &["unreserve", "S0", bundle, "--role=web"]);
    eventually("no volume is listed", SLOW, || no_volumes(&cluster));
    let why = refused(&cluster, &["volumes", "destroy", "S0", "db"]);
    assert!(why.contains("has no volume"), "{why}");
    let why = refused(&cluster, &["reserve", "S0", "cpus:1", "--role=*"]);
    assert!(
        why.contains("nothing can be reserved for the role `*`"),
        "{why}"
    );
}

fn restart_both(cluster: &mut LocalCluster) {
    cluster.slaves[0].kill();
    cluster.master.start();
    cluster.slaves[0].start();
    cluster.await_registered(1);
}
