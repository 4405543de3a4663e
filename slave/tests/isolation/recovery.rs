//! What a crashed slave left behind, and what it did not own.

use std::process::Child;

use meros_slave::container::FoundState;

use super::*;
use crate::world::{parent_of, take};

/// A slave of its own, instance "b", that has started its two containers; and their processes.
async fn start_slave(world: &World) -> (Child, Vec<i32>) {
    let dir = world.sandbox("crashing");
    fs::create_dir_all(&dir).unwrap();
    let mountinfo = world.mountinfo();
    let args = [
        "slave",
        &world.root_name(),
        dir.to_str().unwrap(),
        mountinfo.to_str().unwrap(),
    ];
    let argv = world.helper(&args);
    let slave = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid_files = [
        "one/main.pid",
        "one/daemon.pid",
        "two/main.pid",
        "two/daemon.pid",
    ];
    let pids = world.pids("crashing", &pid_files).await;
    (slave, pids)
}

fn crash_of(slave: &mut Child) {
    slave.kill().unwrap();
    slave.wait().unwrap();
}

pub(crate) async fn crash(world: &World) {
    let other = world.start_shell("other", STEADY, Limits::default()).await;
    let (mut slave, pids) = start_slave(world).await;
    assert!(
        matches!(world.reopen().unwrap_err(), OpenError::InUse { .. }),
        "a living slave was robbed"
    );
    assert!(
        pids.iter().all(|&pid| alive(pid)),
        "a living slave was harmed"
    );
    crash_of(&mut slave);
    // The shim kills all of it, also what has detached itself.
    eventually("what ends with the slave is dead", || {
        !alive(pids[2]) && !alive(pids[3])
    })
    .await;
    assert!(alive(pids[0]) && alive(pids[1]), "it was to go on");

    let (reopened, mut inventory) = world.reopen().unwrap();
    let two = take(&mut inventory, "two");
    assert!(matches!(two.state, FoundState::EndedWithSlave), "{two:?}");
    let one = take(&mut inventory, "one");
    assert_eq!(one.owner, "owner of one");
    assert_eq!((inventory.stray_groups, inventory.survivors), (0, 0));
    let FoundState::Running(one) = one.state else {
        panic!("not running: {one:?}");
    };
    assert_eq!(one.pid(), pids[0]);
    let one = reopened.adopt(*one).unwrap();
    assert!(alive(pids[0]) && alive(pids[1]), "adopted to death");
    // It can do what any container can.
    fs::write(world.sandbox("crashing").join("one/go"), "").unwrap();
    let report = one.wait().await;
    assert_eq!(report.status, ExitStatus::Exited(3));
    assert_eq!(report.usage.stdout.bytes, 11);
    eventually("all of them are dead", || {
        !pids.iter().any(|&pid| alive(pid))
    })
    .await;
    for id in ["one", "two"] {
        reopened.forget(id);
    }
    drop((one, reopened));
    // The supervisor holds it a moment longer than its report.
    eventually("its groups are removed", || {
        world.instance_groups("b").is_empty()
    })
    .await;
    let (reopened, inventory) = world.reopen().unwrap();
    assert!(inventory.containers.is_empty(), "{inventory:?}");
    drop(reopened);
    let before = count(&world.sandbox("other"));
    eventually("the other instance goes on", || {
        count(&world.sandbox("other")) > before
    })
    .await;
    drop(other);
}

pub(crate) async fn ended_meanwhile(world: &World) {
    let (mut slave, pids) = start_slave(world).await;
    crash_of(&mut slave);
    fs::write(world.sandbox("crashing").join("one/go"), "").unwrap();
    // Also what it has left behind: nobody is there to give it grace.
    eventually("all of them are dead", || {
        !pids.iter().any(|&pid| alive(pid))
    })
    .await;
    let (reopened, mut inventory) = world.reopen().unwrap();
    let one = take(&mut inventory, "one");
    let FoundState::Ended(report) = one.state else {
        panic!("not ended: {one:?}");
    };
    assert_eq!(
        (report.status, report.shim_lost),
        (ExitStatus::Exited(3), false)
    );
    let kept = fs::read_to_string(world.sandbox("crashing").join("one/stdout")).unwrap();
    assert_eq!(kept, "begun\nwent\n");
    drop(reopened);
    assert_eq!(world.instance_groups("b"), Vec::<String>::new());
    // Until it is forgotten it is found, with the same end.
    let (reopened, mut inventory) = world.reopen().unwrap();
    let one = take(&mut inventory, "one");
    assert!(
        matches!(one.state, FoundState::Ended(report) if report.status == ExitStatus::Exited(3))
    );
    reopened.forget("one");
    let (found, groups) = (inventory.containers.len(), inventory.stray_groups);
    assert_eq!(
        (found, groups),
        (1, 0),
        "two was not forgotten, one is not there any more"
    );
}

pub(crate) async fn shim_killed(world: &World) {
    let line = "sleep 1000 & echo $! > child.pid; echo $$ > main.pid; wait";
    let container = world.start_shell("victim", line, Limits::default()).await;
    let pids = world.pids("victim", &["main.pid", "child.pid"]).await;
    let shim = parent_of(container.pid());
    let name = fs::read_to_string(format!("/proc/{shim}/comm")).unwrap();
    assert_eq!(name.trim(), "meros-shim");
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), signal).unwrap();
    // Anything else it does not even notice.
    signal(nix::sys::signal::Signal::SIGTERM);
    signal(nix::sys::signal::Signal::SIGSEGV);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(alive(shim) && pids.iter().all(|&pid| alive(pid)));
    signal(nix::sys::signal::Signal::SIGKILL);
    let report = container.wait().await;
    assert!(report.shim_lost && !report.killed, "{report:?}");
    assert!(
        report.message().contains("meros-shim"),
        "{}",
        report.message()
    );
    eventually("all of them are dead", || {
        !pids.iter().any(|&pid| alive(pid))
    })
    .await;
}

/// docs/decisions/0013-shim.md
pub(crate) async fn shim_memory(world: &World) {
    let container = world
        .start_shell("small", "echo x; exec sleep 1000", Limits::default())
        .await;
    eventually("it has written", || world.output("small") == "x\n").await;
    let shim = parent_of(container.pid());
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    println!(
        "shim: {} KiB resident, {} KiB its share",
        kib("Rss:"),
        kib("Pss:")
    );
    assert!(kib("Rss:") <= 2 * KIB, "{rollup}");
    drop(container);
}

pub(crate) async fn foreign_root(world: &World) {
    let name = format!("{}/given", world.root_name());
    let given = world.make_groups(&name);
    let theirs = world.make_groups(&format!("{name}/theirs"));
    let root = CgroupRoot::new(&name, "b").unwrap();
    let open = || {
        let isolation = Isolation::detect_from(&root, &world.mountinfo());
        Containerizer::open(isolation, world.sandbox("given"), &Wanted::nothing())
    };
    let error = open().expect_err("there is a group of somebody else in it");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("theirs"), "{error}");
    theirs
        .iter()
        .for_each(|group| fs::remove_dir(group).unwrap());

    // Empty it may be used, and stays when we go; what we made in it does not.
    let (containers, _) = open().unwrap();
    assert!(given.iter().any(|group| group.join("b").is_dir()));
    drop(containers);
    for group in given {
        assert!(group.is_dir() && !group.join("b").exists());
    }
}
