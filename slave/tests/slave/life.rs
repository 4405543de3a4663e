//! What a slave is for.

use std::collections::BTreeMap;

use meros_proto::ids::{FrameworkId, TaskId, UpdateId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Reason, TaskExit, TaskState};
use meros_proto::task::Command;
use meros_slave::ExitReason;

use crate::world::*;

pub(crate) fn whole_life(world: &mut World) {
    let slave = world.start();
    world.runtime.block_on(async {
        let master = &mut world.master;
        master.accept().await;
        let SlaveToMaster::Register { slave: description } = master.hear().await else {
            panic!("a slave without an id registers");
        };
        assert_eq!(description.hostname, "test-host");
        assert_eq!(description.http_address, slave.http_addr().to_string());
        assert!(description.attributes.value("isolation/memory").is_some());
        master.welcome().await;
        master
            .say(order("t", Command::shell("echo hello; echo oh no >&2")))
            .await;
        let running = master.update().await;
        assert_eq!(running.status.state, TaskState::Running);
        // Not before the first is acknowledged.
        master.acknowledge(&running).await;
        let finished = master.acknowledged().await;
        assert_eq!(
            finished.status.state,
            TaskState::Finished,
            "{:?}",
            finished.status
        );
        assert_eq!(finished.status.exit, Some(TaskExit::Code(0)));
        assert!(finished.status.update_id > running.status.update_id);
        master.say(MasterToSlave::Ping { registered: true }).await;
        assert_eq!(master.hear().await, SlaveToMaster::Pong);
    });
    let sandbox = world.data_dir().join("sandboxes/F1/t/1-1");
    assert_eq!(
        std::fs::read_to_string(sandbox.join("stdout")).unwrap(),
        "hello\n"
    );
    let stderr = get(&slave, "/api/v1/logs/F1/t/stderr");
    assert_eq!((stderr.status, stderr.text().as_str()), (200, "oh no\n"));
    assert_eq!(stderr.header("x-meros-complete"), "true");
    let health = get(&slave, "/health");
    assert_eq!(health.status, 200, "{}", health.text());
    let metrics = get(&slave, "/metrics").text();
    for line in [
        "meros_slave_registered 1",
        "meros_slave_container_starts_total 1",
        "meros_slave_tasks_ended_total{how=\"finished\"} 1",
        "meros_slave_updates_acknowledged_total 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let endpoint = std::fs::read_to_string(world.data_dir().join("endpoint.json")).unwrap();
    assert!(
        endpoint.contains(&slave.http_addr().to_string()),
        "{endpoint}"
    );
    world.stop(&slave);
    assert!(!world.data_dir().join("endpoint.json").exists());
}

pub(crate) fn memory_hog(world: &mut World) {
    let slave = world.start();
    world.runtime.block_on(async {
        let master = &mut world.master;
        master.accept().await;
        let SlaveToMaster::Register { slave: description } = master.hear().await else {
            panic!("a slave without an id registers");
        };
        master.welcome().await;
        if description.attributes.value("isolation/memory") == Some("none") {
            eprintln!("skipped: there is no memory control group for us here");
            return;
        }
        // A line without an end, which tail keeps: four times what the task may use, so that it
        // ends by itself where nobody stops it.
        let hog = Command::shell("head -c 268435456 /dev/zero | tail > /dev/null");
        master.say(order("t", hog)).await;
        let running = master.acknowledged().await;
        assert_eq!(running.status.limitation, None);
        let failed = master.acknowledged().await.status;
        assert_eq!(failed.state, TaskState::Failed, "{failed:?}");
        assert_eq!(failed.reason, Some(Reason::ContainerLimitationMemory));
        assert_eq!(failed.limitation, Some("mem:64".parse().unwrap()));
    });
    world.stop(&slave);
}

pub(crate) fn environment(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let command = Command::shell("env | sort; pwd").env("MINE", "yes");
        master.say(order("t", command)).await;
        master.acknowledged().await;
        master.acknowledged().await;
    });
    let text = get(&slave, "/api/v1/logs/F1/t/stdout").text();
    let sandbox = std::fs::canonicalize(world.data_dir())
        .unwrap()
        .join("sandboxes/F1/t/1-1");
    let sandbox = sandbox.display();
    for line in [
        "MEROS_TASK_ID=t".to_owned(),
        "MEROS_FRAMEWORK_ID=F1".to_owned(),
        "MEROS_SLAVE_ID=S0".to_owned(),
        "MINE=yes".to_owned(),
        format!("MEROS_SANDBOX={sandbox}"),
        format!("HOME={sandbox}"),
        sandbox.to_string(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    // The test runner's own variables are the slave's, not the task's.
    assert!(
        !text.contains("CARGO") && !text.contains("NEXTEST"),
        "{text}"
    );
    world.stop(&slave);
}

pub(crate) fn kill(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        master
            .say(order("t", Command::argv(["sleep", "1000"])))
            .await;
        master.acknowledged().await;
        let (framework_id, task_id) = (FrameworkId(1), TaskId::new("t").unwrap());
        master
            .say(MasterToSlave::KillTask {
                framework_id,
                task_id,
                grace: None,
            })
            .await;
        let killed = master.acknowledged().await;
        assert_eq!(killed.status.state, TaskState::Killed);
        assert_eq!(killed.status.exit, Some(TaskExit::Signal(15)));
    });
    world.stop(&slave);
}

pub(crate) fn no_such_command(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        master
            .say(order("t", Command::argv(["no-such-command", "x"])))
            .await;
        let failed = master.acknowledged().await;
        assert_eq!(failed.status.state, TaskState::Failed);
        assert_eq!(failed.status.reason, Some(Reason::ContainerLaunchFailed));
        assert!(
            failed.status.message.contains("no-such-command"),
            "{}",
            failed.status.message
        );
    });
    // Its output is empty and complete, so that nobody waits for it.
    let output = get(&slave, "/api/v1/logs/F1/t/stdout?wait=10000");
    assert_eq!(
        (output.status, output.header("x-meros-complete")),
        (200, "true")
    );
    world.stop(&slave);
}

pub(crate) fn follow(world: &mut World) {
    let slave = world.registered();
    let gate = world.dir.path().join("gate");
    let line = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.01; done; echo two",
        gate.display()
    );
    world.runtime.block_on(async {
        world.master.say(order("t", Command::shell(line))).await;
        world.master.acknowledged().await;
    });
    let mut text = String::new();
    while !text.ends_with("one\n") {
        let path = format!("/api/v1/logs/F1/t/stdout?offset={}&wait=5000", text.len());
        let piece = get(&slave, &path);
        assert_eq!(
            (piece.status, piece.header("x-meros-complete")),
            (200, "false")
        );
        text += &piece.text();
    }
    std::fs::write(&gate, "").unwrap();
    loop {
        let path = format!("/api/v1/logs/F1/t/stdout?offset={}&wait=5000", text.len());
        let piece = get(&slave, &path);
        assert_eq!(piece.header("x-meros-offset"), text.len().to_string());
        text += &piece.text();
        if piece.header("x-meros-complete") == "true" {
            break;
        }
    }
    assert_eq!(text, "one\ntwo\n");
    let tail = get(&slave, "/api/v1/logs/F1/t/stdout?tail=4");
    assert_eq!(
        (tail.text().as_str(), tail.header("x-meros-offset")),
        ("two\n", "4")
    );
    world.stop(&slave);
}

/// The only master that it was given is silent, as one that was killed.
pub(crate) fn other_masters(world: &mut World) {
    let (mut second, gate) = world.follower("master-2");
    let slave = world.registered();
    let addresses = [world.master.address, second.address];
    let addresses = addresses.map(|address| address.to_string()).to_vec();
    world.runtime.block_on(async {
        let nonsense = vec![String::new()];
        world
            .master
            .say(MasterToSlave::Masters {
                addresses: nonsense,
            })
            .await;
        world.master.say(MasterToSlave::Masters { addresses }).await;
        world.master.follow();
        gate.open();
        second.accept().await;
        loop {
            match second.hear().await {
                SlaveToMaster::Reregister { slave_id, .. } => {
                    assert_eq!(slave_id, SLAVE);
                    break;
                }
                SlaveToMaster::ReportTasks { .. } | SlaveToMaster::ReportClaims { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        second.welcome().await;
    });
    world.stop(&slave);
}

pub(crate) fn restart(world: &mut World) {
    let slave = world.registered();
    let (mut running, mut finished) = (UpdateId(0), UpdateId(0));
    world.runtime.block_on(async {
        let master = &mut world.master;
        master.say(order("done", Command::argv(["true"]))).await;
        running = master.update().await.status.update_id.unwrap();
    });
    eventually("it has ended", || {
        get(&slave, "/metrics")
            .text()
            .contains("tasks_ended_total{how=\"finished\"} 1")
    });
    world.stop(&slave);
    let slave = world.start();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let SlaveToMaster::ReportTasks { tasks } = master.accept_and_hear().await else {
            panic!("it says what it has first");
        };
        assert_eq!((tasks.len(), tasks[0].state), (1, TaskState::Finished));
        let SlaveToMaster::Reregister {
            slave_id,
            cluster_id,
            ..
        } = master.hear().await
        else {
            panic!("a slave with an id re-registers");
        };
        assert_eq!((slave_id, cluster_id), (SLAVE, CLUSTER));
        master.welcome().await;
        let update = master.acknowledged().await;
        assert_eq!(update.status.update_id, Some(running));
        assert_eq!(update.latest_state, TaskState::Finished);
        let update = master.acknowledged().await;
        assert_eq!(update.status.state, TaskState::Finished);
        finished = update.status.update_id.unwrap();
    });
    assert!(finished > running);
    world.stop(&slave);
}

pub(crate) fn outlive(world: &mut World) {
    // semantics: L2
    let mut config = world.config();
    config.tasks_end_with_slave = false;
    let slave = world.try_start(config.clone()).expect("the slave starts");
    let gate = world.dir.path().join("gate");
    let line = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.01; done; echo two; exit 7",
        gate.display()
    );
    world.runtime.block_on(async {
        let master = &mut world.master;
        master.accept().await;
        assert!(matches!(
            master.hear().await,
            SlaveToMaster::Register { .. }
        ));
        master.welcome().await;
        master.say(order("t", Command::shell(line))).await;
        assert_eq!(master.acknowledged().await.status.state, TaskState::Running);
    });
    // As the machine has it: the task itself is number 2 of its own.
    let pid = pid_of(&slave, "t").expect("it runs");
    world.stop(&slave);
    let is_alive = || std::path::Path::new("/proc").join(pid.to_string()).exists();
    assert!(is_alive(), "it was to go on");

    let slave = world.try_start(config).expect("the slave starts");
    world.runtime.block_on(async {
        let master = &mut world.master;
        let SlaveToMaster::ReportTasks { tasks } = master.accept_and_hear().await else {
            panic!("it says what it has first");
        };
        assert_eq!((tasks.len(), tasks[0].state), (1, TaskState::Running));
        assert!(matches!(
            master.hear().await,
            SlaveToMaster::Reregister { .. }
        ));
        master.welcome().await;
    });
    assert!(is_alive(), "it was to go on");
    assert_eq!(pid_of(&slave, "t"), Some(pid));
    std::fs::write(&gate, "").unwrap();
    world.runtime.block_on(async {
        // Its first update comes again if the slave was stopped before it read our acknowledgement.
        let mut update = world.master.acknowledged().await;
        while update.status.state == TaskState::Running {
            update = world.master.acknowledged().await;
        }
        assert_eq!(update.status.state, TaskState::Failed);
        assert_eq!(update.status.exit, Some(TaskExit::Code(7)));
    });
    let log = get(&slave, "/api/v1/logs/F1/t/stdout");
    assert_eq!(log.text(), "one\ntwo\n");
    let folders = world.data_dir().join("containers");
    eventually("its folder is removed", || {
        std::fs::read_dir(&folders).unwrap().next().is_none()
    });
    world.stop(&slave);
}

pub(crate) fn stop(world: &mut World) {
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        // It ignores what asks it nicely, so the grace of the stop is used up.
        let mut config_grace =
            Command::shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done");
        config_grace.environment.clear();
        master.say(order("t", config_grace)).await;
        master.acknowledged().await;
    });
    // Running is told when the shell is, which has not reached its trap then.
    let deadline = std::time::Instant::now() + PATIENCE;
    while get(&slave, "/api/v1/logs/F1/t/stdout").text() != "deaf\n" {
        assert!(std::time::Instant::now() < deadline, "it is not deaf");
    }
    runtime.block_on(async {
        let began = std::time::Instant::now();
        let hear = async {
            let killed = master.update().await;
            assert_eq!(killed.status.state, TaskState::Killed);
            assert_eq!(killed.status.reason, Some(Reason::SlaveDraining));
        };
        let (reason, ()) = tokio::join!(slave.shutdown(), hear);
        assert_eq!(reason, ExitReason::Stopped);
        assert!(
            began.elapsed() >= std::time::Duration::from_secs(2),
            "no grace was given"
        );
    });
}

pub(crate) fn leave(world: &mut World) {
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        master
            .say(order("t", Command::argv(["sleep", "1000"])))
            .await;
        master.acknowledged().await;
        let hear = async {
            let killed = master.acknowledged().await;
            assert_eq!(killed.status.state, TaskState::Killed);
            assert_eq!(master.hear().await, SlaveToMaster::Unregister);
        };
        let (reason, ()) = tokio::join!(slave.leave(), hear);
        assert_eq!(reason, ExitReason::Stopped);
    });
    let slave = world.registered();
    world.stop(&slave);
}

pub(crate) fn many(world: &mut World) {
    const TASKS: usize = 300;
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    let mut ends: BTreeMap<TaskId, Vec<TaskState>> = BTreeMap::new();
    runtime.block_on(async {
        let mut launched = 0;
        let mut over = 0;
        while over < TASKS {
            // As many as its resources allow at a time.
            while launched < TASKS && launched - over < 60 {
                master
                    .say(order(&format!("t{launched}"), Command::argv(["true"])))
                    .await;
                launched += 1;
            }
            let update = master.acknowledged().await;
            let state = update.status.state;
            over += usize::from(state.is_terminal());
            ends.entry(update.status.task_id.clone())
                .or_default()
                .push(state);
        }
    });
    assert_eq!(ends.len(), TASKS);
    for (task, states) in ends {
        assert_eq!(states, [TaskState::Running, TaskState::Finished], "{task}");
    }
    let metrics = get(&slave, "/metrics").text();
    let value = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("meros_slave_{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN)
    };
    // Five records each, and far fewer syncs.
    let syncs = value("checkpoint_syncs_total");
    eprintln!(
        "{TASKS} tasks, {syncs} syncs, {} MiB resident",
        value("resident_bytes") / 1048576.0
    );
    assert!(syncs < 5.0 * TASKS as f64, "{syncs} syncs");
    world.stop(&slave);
}
