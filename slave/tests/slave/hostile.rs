//! A catalogue of hostile tasks, all at once in one slave: each is contained, ends with the right reason
//! or lives until it is killed, the kernel's counters say so, and a neighbour notices nothing.
//!
//! Root only: without, what a host gives differs too much to say what must hold.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::resources::Scalar;
use meros_proto::status::{Reason, TaskExit, TaskState, TaskStatus};
use meros_proto::task::Command;
use meros_slave::Running;
use serde_json::Value;

use crate::world::*;

/// Hostile tasks that go on until they are killed.
const ENDLESS: [&str; 4] = ["neighbour", "forks", "cpus", "deaf"];
const TASK_PIDS: u64 = 48;
const TASK_OPEN_FILES: u64 = 64;
const LOG_BYTES: u64 = 64 << 10;

/// Prints a line for each thing that should not have worked, then `tried`. `$1` is the neighbour's pid on
/// the host, `$2` the slave's data directory, `$3` its identity, `$4` the first disk of the machine.
const ESCAPES: &str = r#"
    may() { what=$1; shift; ("$@") >out 2>&1 && echo "ESCAPED by $what"; }
    may mount mount -t tmpfs none .
    may remount mount -o remount,rw /sys
    may bind mount --bind / .
    may unmount umount -l /proc
    may unshare unshare -m true
    may user unshare -U true
    may nsenter nsenter -t 1 -m true
    may root ls /proc/1/root/
    may node mknod disk b $(stat -c '0x%t 0x%T' "$4" | tr ' ' '\n' | head -1) 0
    may char mknod memory c 1 1
    may disk head -c 1 "$4"
    may memory head -c 1 /dev/mem
    may kernel sh -c 'test $(head -c 64 /proc/kcore | wc -c) -gt 0'
    may module sh -c 'command -v insmod && echo x > x.ko && ! insmod x.ko 2>&1 | grep -iE "permitted|denied"'
    may switch sh -c ': >> /proc/sys/kernel/core_pattern'
    may sysrq sh -c ': >> /proc/sysrq-trigger'
    may host hostname escaped
    may clock date -s "$(date)"
    may groups sh -c 'for i in $(find /sys/fs/cgroup -name cgroup.procs 2>/dev/null | head -50); do echo $$ > $i && exit 0; done 2>/dev/null; exit 1'
    may limits sh -c 'for i in $(find /sys/fs/cgroup -name pids.max -o -name memory.limit_in_bytes 2>/dev/null | head -50); do : >> $i && exit 0; done 2>/dev/null; exit 1'
    may signal kill -0 "$1"
    may proc ls "/proc/$1"
    may environ cat "/proc/$1/environ"
    may trace sh -c 'command -v strace && strace -o /dev/null -p '"$1"' 2>&1 | grep attached'
    may neighbours ls "$2/sandboxes/F1/neighbour"
    may checkpoint ls "$2/checkpoint"
    may containers ls "$2/containers"
    may plant sh -c ": > '$2/planted'"
    may key sh -c "test -s '$3/key.pem'"
    may raise sh -c 'ulimit -n 100000'
    may core sh -c 'ulimit -c 1'
    echo tried
"#;

fn command(line: &str) -> Command {
    Command::shell(line)
}

/// Task, resources, what it does.
fn catalogue(dir: &Path) -> Vec<(&'static str, &'static str, Command)> {
    let setuid = dir.join("id");
    vec![
        (
            "memory",
            "cpus:0.1;mem:64",
            command("head -c 268435456 /dev/zero | tail > /dev/null"),
        ),
        (
            "shm",
            "cpus:0.1;mem:64",
            // Memory that belongs to no process. What is written there counts all the same.
            command("head -c 268435456 /dev/zero > /dev/shm/file || exit 3"),
        ),
        (
            "disk",
            "cpus:0.1;mem:64;disk:8",
            command("while :; do head -c 4000000 /dev/zero >> file; sleep 0.1; done"),
        ),
        (
            "forks",
            "cpus:0.1;mem:64",
            command("sh -c 'for i in $(seq 500); do sleep 1000 & done'; exec sleep 1000"),
        ),
        ("cpus", "cpus:0.1;mem:64", command("while :; do :; done")),
        (
            "logs",
            "cpus:0.1;mem:64",
            command("yes 0123456789 | head -c 20000000; echo end"),
        ),
        (
            "files",
            "cpus:0.1;mem:64",
            command("ulimit -n; tee $(seq -f f%g 200) < /dev/null"),
        ),
        (
            "deaf",
            "cpus:0.1;mem:64",
            command(
                "trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM; (setsid sleep 1000 &)' &); \
                 echo deaf; while :; do sleep 0.1; done",
            ),
        ),
        (
            "setuid",
            "cpus:0.1;mem:64",
            Command {
                user: Some("nobody".to_owned()),
                ..command(&format!("{} -u; id -u", setuid.display()))
            },
        ),
    ]
}

fn order_of(task: &str, resources: &str, command: Command) -> MasterToSlave {
    let MasterToSlave::RunTask(mut run) = order(task, command) else {
        unreachable!("that is what it is");
    };
    run.task.resources = resources.parse().unwrap();
    if task == "cpus" {
        run.task.limits.cpus = Some("0.1".parse::<Scalar>().unwrap());
    }
    MasterToSlave::RunTask(run)
}

/// Each task's last status, when all of `tasks` have ended.
async fn ends(master: &mut Master, mut tasks: Vec<&str>) -> BTreeMap<String, TaskStatus> {
    let mut ends = BTreeMap::new();
    while !tasks.is_empty() {
        let status = master.acknowledged().await.status;
        if status.state.is_terminal() {
            let id = status.task_id.to_string();
            tasks.retain(|task| *task != id);
            ends.insert(id, status);
        }
    }
    ends
}

fn log(slave: &Running, task: &str, stream: &str) -> String {
    get(slave, &format!("/api/v1/logs/F1/{task}/{stream}")).text()
}

/// The largest number that a control file of this slave's containers has behind this key.
fn witness(cgroup_root: &str, file: &str, key: &str) -> u64 {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let roots = mounts
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| Path::new(mount).join(cgroup_root));
    // The root, the slave's group, its containers: those above count what is below together.
    let containers = roots
        .flat_map(|root| folders(&root))
        .flat_map(|slave| folders(&slave));
    let texts = containers.map(|folder| fs::read_to_string(folder.join(file)).unwrap_or_default());
    let numbers = |text: String| {
        let found = text.lines().filter_map(|line| line.strip_prefix(key));
        found.filter_map(|rest| rest.trim().parse().ok()).max()
    };
    texts.filter_map(numbers).max().unwrap_or(0)
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// The first block device of the machine, if it has any.
fn some_disk() -> String {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut paths = disks.map(|disk| Path::new("/dev").join(disk.file_name()));
    let disk = paths.find(|path| path.exists());
    disk.map_or("/dev/no-disk".to_owned(), |disk| disk.display().to_string())
}

pub(crate) fn catalogue_of_tasks(world: &mut World) {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can give every kind of isolation");
    }
    let dir = world.dir.path().to_owned();
    // The way to the program that nobody executes; what is secret has modes of its own.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let id = ["/usr/bin/id", "/bin/id"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    fs::copy(id.expect("every system has it"), dir.join("id")).unwrap();
    fs::set_permissions(dir.join("id"), fs::Permissions::from_mode(0o4755)).unwrap();

    let mut config = world.config();
    config.task_pids_max = TASK_PIDS;
    config.task_open_files_max = TASK_OPEN_FILES;
    config.log_bytes_max = LOG_BYTES;
    let cgroup_root = config.cgroup_root.clone();
    let slave = world.registered_as(config);
    let rows: Value = serde_json::from_str(&get(&slave, "/api/v1/isolation").text()).unwrap();
    let state = |part: &str| {
        let row = rows
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["part"] == part);
        row.unwrap()["state"].as_str().unwrap().to_owned()
    };
    let needed = [
        "memory", "pids", "cpu", "kill", "pid", "paths", "dev", "seccomp",
    ];
    if let Some(part) = needed.iter().find(|part| state(part) != "on") {
        world.stop(&slave);
        return eprintln!("skipped: no {part} here: {rows}");
    }

    let steady = command("i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done");
    world.runtime.block_on(async {
        let master = &mut world.master;
        master
            .say(order_of("neighbour", "cpus:1;mem:64", steady))
            .await;
        assert_eq!(master.acknowledged().await.status.state, TaskState::Running);
    });
    let count = || log(&slave, "neighbour", "stdout").lines().count();
    let neighbour = pid_of(&slave, "neighbour").expect("it runs");
    let data_dir = world.data_dir().canonicalize().unwrap();
    let identity = world.dir.path().join("identity").canonicalize().unwrap();
    let escapes = Command::argv([
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        ESCAPES.to_owned(),
        "sh".to_owned(),
        neighbour.to_string(),
        data_dir.display().to_string(),
        identity.display().to_string(),
        some_disk(),
    ]);
    let mut all = catalogue(&dir);
    all.push(("escapes", "cpus:0.1;mem:64", escapes));
    let ending: Vec<&str> = all
        .iter()
        .map(|(task, ..)| *task)
        .filter(|task| !ENDLESS.contains(task))
        .collect();
    let ended = world.runtime.block_on(async {
        let master = &mut world.master;
        for (task, resources, command) in all {
            master.say(order_of(task, resources, command)).await;
        }
        ends(master, ending).await
    });

    for (task, reason) in [
        ("memory", Reason::ContainerLimitationMemory),
        ("shm", Reason::ContainerLimitationMemory),
        ("disk", Reason::ContainerLimitationDisk),
    ] {
        let status = &ended[task];
        assert_eq!(status.state, TaskState::Failed, "{status:?}");
        assert_eq!(status.reason, Some(reason), "{status:?}");
    }
    assert_eq!(ended["disk"].limitation, Some("disk:8".parse().unwrap()));
    assert!(
        ended["disk"].message.contains("limit 8 MiB"),
        "{}",
        ended["disk"].message
    );

    assert_eq!(ended["logs"].state, TaskState::Finished);
    assert!(log(&slave, "logs", "stdout").ends_with("end\n"));
    let kept = ["stdout", "stdout.1"].map(|name| {
        let sandbox = data_dir.join("sandboxes/F1/logs");
        // The record of how it ended lies beside its folder.
        let container = fs::read_dir(sandbox)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.is_dir())
            .expect("its folder is kept");
        fs::metadata(container.join(name)).map_or(0, |found| found.len())
    });
    let kept_bytes = kept.iter().sum::<u64>();
    assert!((1..=LOG_BYTES).contains(&kept_bytes), "{kept:?}");

    assert_eq!(
        ended["files"].exit,
        Some(TaskExit::Code(1)),
        "{:?}",
        ended["files"]
    );
    assert_eq!(log(&slave, "files", "stdout"), "64\n");
    assert!(log(&slave, "files", "stderr").contains("Too many open files"));

    let users = log(&slave, "setuid", "stdout");
    assert_eq!(users, "65534\n65534\n", "{:?}", ended["setuid"]);
    let escaped = log(&slave, "escapes", "stdout");
    assert_eq!(escaped, "tried\n", "{}", log(&slave, "escapes", "stderr"));

    // Those that go on are stopped at their limits, by the kernel's own count.
    eventually("forks are refused", || {
        witness(&cgroup_root, "pids.events", "max ") > 0
    });
    assert!(witness(&cgroup_root, "pids.current", "") <= TASK_PIDS);
    eventually("cpus are taken away", || {
        witness(&cgroup_root, "cpu.stat", "nr_throttled ") > 5
    });
    eventually("the deaf one is deaf", || {
        log(&slave, "deaf", "stdout") == "deaf\n"
    });
    let before = count();
    eventually("the neighbour goes on", || count() > before + 5);

    let killed = world.runtime.block_on(async {
        let master = &mut world.master;
        for task in ENDLESS {
            let kill = MasterToSlave::KillTask {
                framework_id: FrameworkId(1),
                task_id: TaskId::new(task).unwrap(),
                grace: Some(Duration::from_millis(200)),
            };
            master.say(kill).await;
        }
        ends(master, ENDLESS.to_vec()).await
    });
    assert!(
        killed
            .values()
            .all(|status| status.state == TaskState::Killed),
        "{killed:?}"
    );
    assert_eq!(killed["deaf"].exit, Some(TaskExit::Signal(9)));
    assert_eq!(witness(&cgroup_root, "pids.current", ""), 0);
    let metrics = get(&slave, "/metrics").text();
    for line in [
        "meros_slave_oom_kills_total 2",
        "meros_slave_disk_kills_total 1",
        "meros_slave_isolation{part=\"pid\"} 1",
        "meros_slave_isolation{part=\"net\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    world.stop(&slave);
}

pub(crate) fn not_to_be_had(world: &mut World) {
    let mut config = world.config();
    // The sandbox would be hidden by it.
    config.isolation = "tmp".parse().unwrap();
    let error = world
        .try_start(config)
        .expect_err("it is asked for by name");
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        text.contains("isolation_missing: tmp") && text.contains("data_dir"),
        "{text}"
    );
}
