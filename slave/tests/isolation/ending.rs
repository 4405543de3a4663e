//! The end of a container is the end of every process of it.

use super::*;

/// A process that leaves its group dies a moment later.
async fn are_dead(pids: &[i32]) {
    eventually("its processes are dead", || {
        !pids.iter().any(|&pid| alive(pid))
    })
    .await;
}

/// Ignores SIGTERM, as do its child and a daemon that has detached itself.
const STUBBORN: &str = "trap '' TERM; echo $$ > main.pid; sleep 1000 & echo $! > child.pid; \
    setsid sh -c 'sleep 1000 & echo $! > daemon.pid' & \
    while :; do sleep 0.05; done";

pub(crate) async fn kill_tree(world: &World) {
    let bystander = world
        .start_shell("bystander", STEADY, Limits::default())
        .await;
    let container = world
        .start_shell("stubborn", STUBBORN, Limits::default())
        .await;
    let pids = world
        .pids("stubborn", &["main.pid", "child.pid", "daemon.pid"])
        .await;
    let killed_at = Instant::now();
    container.kill(Duration::from_millis(300));
    let report = container.wait().await;
    assert!(
        killed_at.elapsed() >= Duration::from_millis(300),
        "the grace was not given"
    );
    assert_eq!(
        (report.status, report.killed, report.survivors),
        (ExitStatus::Signaled(9), true, 0)
    );
    are_dead(&pids).await;
    let before = count(&world.sandbox("bystander"));
    eventually("the bystander lives on", || {
        count(&world.sandbox("bystander")) > before
    })
    .await;
    drop(bystander);
}

pub(crate) async fn kill_gracefully(world: &World) {
    let line = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done";
    let container = world.start_shell("polite", line, Limits::default()).await;
    eventually("it is up", || world.output("polite").contains("up")).await;
    container.kill(Duration::from_secs(60));
    let report = container.wait().await;
    assert_eq!(
        (report.status, report.killed),
        (ExitStatus::Exited(7), true)
    );
    assert_eq!(world.output("polite"), "up\nbye\n");
}

pub(crate) async fn kill_twice(world: &World) {
    let container = world
        .start_shell("stubborn", STUBBORN, Limits::default())
        .await;
    world.pids("stubborn", &["main.pid"]).await;
    let killed_at = Instant::now();
    container.kill(Duration::from_secs(60));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), container.wait())
            .await
            .is_err(),
        "grace was not given"
    );
    container.kill(Duration::from_millis(100));
    container.kill(Duration::from_secs(60));
    assert_eq!(container.wait().await.status, ExitStatus::Signaled(9));
    assert!(
        killed_at.elapsed() < Duration::from_secs(60),
        "the later grace, the longer one, was given"
    );
}

pub(crate) async fn kill_shell_with_children(world: &World) {
    // The shell ends at once; its child needs some of the grace to finish its work.
    let line =
        "(trap 'sleep 0.3; echo saved; exit 0' TERM; echo up; while :; do sleep 0.02; done) & wait";
    let container = world.start_shell("server", line, Limits::default()).await;
    eventually("it is up", || world.output("server").contains("up")).await;
    container.kill(Duration::from_secs(60));
    let report = container.wait().await;
    assert_eq!(report.status, ExitStatus::Signaled(15));
    assert_eq!(world.output("server"), "up\nsaved\n");
}

pub(crate) async fn stragglers(world: &World) {
    // While a program is being started it has no environment, by which alone a daemon is known
    // without cgroups: the command ends when it has one.
    let line = "setsid sh -c 'sleep 1000 & echo $! > daemon.pid'; sleep 1000 & echo $! > child.pid; \
        until tr '\\0' ' ' < /proc/$(cat daemon.pid)/cmdline | grep -q '^sleep'; do sleep 0.01; done; \
        exit 3";
    let container = world.start_shell("leaver", line, Limits::default()).await;
    let report = container.wait().await;
    assert_eq!(
        (report.status, report.killed),
        (ExitStatus::Exited(3), false)
    );
    are_dead(&world.pids("leaver", &["daemon.pid", "child.pid"]).await).await;
}

pub(crate) async fn dropped(world: &World) {
    let container = world
        .start_shell("held", "echo $$ > main.pid; sleep 1000", Limits::default())
        .await;
    let pid = world.pids("held", &["main.pid"]).await[0];
    drop(container);
    eventually("it is killed", || {
        !alive(pid) && world.container_groups().is_empty()
    })
    .await;

    // Asked once and dropped: some of these starts are abandoned half-way, however fast they are.
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    eventually("nothing is at work", || tasks() == 0).await;
    let mut abandoned = 0;
    for number in 0..5 {
        let spec = world.spec(
            &format!("unheld-{number}"),
            TaskCommand::Shell("sleep 1000".into()),
            Limits::default(),
        );
        tokio::select! {
            biased;
            started = world.containers().start(spec) => drop(started),
            () = std::future::ready(()) => abandoned += 1,
        }
    }
    assert!(abandoned > 0, "no start was abandoned half-way");
    // Each start goes on in a task of its own, and so does the end of what it has started.
    eventually("nothing is left of them", || {
        tasks() == 0 && world.container_groups().is_empty() && own_children().is_empty()
    })
    .await;
}
