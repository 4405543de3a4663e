//! What a crashed slave left behind, and what it did not own.

use super::*;

pub(crate) async fn leftovers(world: &World) {
    let other = world.start_shell("other", STEADY, Limits::default()).await;
    // A slave of its own, instance "b", that starts two containers and then dies.
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
    let mut slave = Command::new(&argv[0])
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

    let root = CgroupRoot::new(&world.root_name(), "b").unwrap();
    let open = || Containerizer::open(Isolation::detect_from(&root, &mountinfo), world.launcher());
    assert!(
        matches!(open().unwrap_err(), OpenError::InUse { .. }),
        "a living slave was robbed"
    );
    assert!(
        pids.iter().all(|&pid| alive(pid)),
        "a living slave was harmed"
    );

    slave.kill().unwrap();
    slave.wait().unwrap();
    eventually("the commands die with the slave", || {
        !alive(pids[0]) && !alive(pids[2])
    })
    .await;
    assert!(
        alive(pids[1]) && alive(pids[3]),
        "nothing is left to clean up"
    );

    let (reopened, leftovers) = open().unwrap();
    assert_eq!(
        (
            leftovers.containers,
            leftovers.processes,
            leftovers.survivors
        ),
        (2, 2, 0)
    );
    // A process that leaves its group dies a moment later.
    eventually("all of them are dead", || {
        !pids.iter().any(|&pid| alive(pid))
    })
    .await;
    drop(reopened);
    assert_eq!(world.instance_groups("b"), Vec::<String>::new());
    let before = count(&world.sandbox("other"));
    eventually("the other instance goes on", || {
        count(&world.sandbox("other")) > before
    })
    .await;
    drop(other);
}

pub(crate) async fn foreign_root(world: &World) {
    let name = format!("{}/given", world.root_name());
    let given = world.make_groups(&name);
    let theirs = world.make_groups(&format!("{name}/theirs"));
    let root = CgroupRoot::new(&name, "b").unwrap();
    let open = || {
        let isolation = Isolation::detect_from(&root, &world.mountinfo());
        Containerizer::open(isolation, world.launcher())
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
