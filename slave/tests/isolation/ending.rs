//! The end of a container is the end of every process of it.

use super::*;

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
    assert!(
        killed_at.elapsed() < Duration::from_secs(10),
        "took {:?}",
        killed_at.elapsed()
    );
    assert_eq!(
        (report.status, report.killed, report.survivors),
        (ExitStatus::Signaled(9), true, 0)
    );
    for pid in pids {
        assert!(!alive(pid), "process {pid} lives on");
    }
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
    assert!(killed_at.elapsed() < Duration::from_secs(10));
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
    let line = "setsid sh -c 'sleep 1000 & echo $! > daemon.pid'; sleep 1000 & echo $! > child.pid; exit 3";
    let container = world.start_shell("leaver", line, Limits::default()).await;
    let report = container.wait().await;
    assert_eq!(
        (report.status, report.killed),
        (ExitStatus::Exited(3), false)
    );
    for pid in world.pids("leaver", &["daemon.pid", "child.pid"]).await {
        assert!(!alive(pid), "process {pid} lives on");
    }
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

    let spec = world.spec(
        "unheld",
        TaskCommand::Shell("sleep 1000".into()),
        Limits::default(),
    );
    let abandoned =
        tokio::time::timeout(Duration::from_micros(1), world.containers().start(spec)).await;
    assert!(
        abandoned.is_err(),
        "the start was meant to be abandoned half-way"
    );
    let empty_for_a_while = || async {
        let until = Instant::now() + Duration::from_millis(300);
        while world.container_groups().is_empty() && own_children().is_empty() {
            if Instant::now() > until {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !empty_for_a_while().await {
        assert!(
            Instant::now() < deadline,
            "left: {:?} {:?}",
            world.container_groups(),
            own_children()
        );
    }
}
