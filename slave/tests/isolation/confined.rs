//! What keeps a task apart beside control groups, as the task itself sees it.
//!
//! Where the host does not give a part (without root) a test says so and ends.

use meros_slave::container::{Container, Part, PartState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::world::parent_of;

/// Whether all of them are on here.
fn has(world: &World, parts: &[Part]) -> bool {
    let states = world.containers().parts();
    let missing = parts
        .iter()
        .find(|part| states.get(part) != Some(&PartState::On));
    if let Some(part) = missing {
        println!("skipped: {part} is {:?}", states.get(part));
    }
    missing.is_none()
}

/// Runs to its end, which must be a good one, and says what it wrote.
async fn said(world: &World, id: &str, line: &str) -> String {
    let container = world.start_shell(id, line, Limits::default()).await;
    let report = container.wait().await;
    let stderr = fs::read_to_string(world.sandbox(id).join("stderr")).unwrap();
    assert_eq!(report.status, ExitStatus::Exited(0), "{stderr}");
    world.output(id)
}

pub(crate) async fn view(world: &World) {
    if !has(world, &[Part::Pid, Part::Dev, Part::Paths, Part::Seccomp]) {
        return;
    }
    let neighbour = world
        .start_shell("neighbour", STEADY, Limits::default())
        .await;
    let above = world.sandbox("x").parent().unwrap().to_owned();
    let line = format!(
        "echo $$; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l; echo $(ls {}); echo $(ls /dev); \
         echo x > /dev/null; head -c 4 /dev/urandom | wc -c; echo y > /dev/shm/file && cat /dev/shm/file; \
         grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; ulimit -c; \
         for i in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do \
         [ ! -e $i ] || (echo x > $i) 2>&1 | grep -o 'Read-only'; done; \
         for i in $(grep -o ' /sys[^ ]*' /proc/mounts); do (: > $i/x) 2>/dev/null && echo written $i; done; \
         head -c 1 /proc/kcore | wc -c; mount -t tmpfs x /mnt 2>/dev/null || echo no mount; pwd",
        above.display()
    );
    let output = said(world, "seer", &line).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..2], ["2", "meros-init"], "{output}");
    assert!(lines[2].parse::<u32>().unwrap() <= 5, "{output}");
    assert_eq!(lines[3], "seer", "the neighbour is not to be seen");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd",
    ] {
        assert!(lines[4].split(' ').any(|name| name == device), "{output}");
    }
    assert!(
        !lines[4].contains("vda") && !lines[4].contains("mem"),
        "{output}"
    );
    assert_eq!(&lines[5..7], ["4", "y"]);
    // Of all that root could have: what a container runtime leaves, and no making of devices.
    let expected = ["CapBnd:00000000a00425fb", "NoNewPrivs:1", "Seccomp:2", "0"];
    let is_root = nix::unistd::geteuid().is_root();
    let effective = if is_root {
        "CapEff:00000000a00425fb"
    } else {
        "CapEff:0000000000000000"
    };
    assert_eq!(lines[7], effective);
    if is_root {
        assert_eq!(&lines[8..12], expected);
    }
    let rest = lines[12..].join(" ");
    let own = world.sandbox("seer").display().to_string();
    assert!(rest.starts_with("Read-only Read-only"), "{output}");
    assert!(rest.ends_with(&format!("0 no mount {own}")), "{output}");
    assert!(!rest.contains("written"), "{output}");
    drop(neighbour);
}

/// The first process of the namespace of a task, if it has one.
fn init_of(container: &Container) -> Option<i32> {
    let shim = parent_of(container.pid());
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let all = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    all.into_iter().find(|pid| *pid != container.pid())
}

pub(crate) async fn ends(world: &World) {
    if !has(world, &[Part::Pid]) {
        return;
    }
    // By a signal of its own, told as such and not as a number above 128.
    let report = world
        .start_shell("self", "kill -USR1 $$; sleep 1000", Limits::default())
        .await
        .wait()
        .await;
    assert_eq!(report.status, ExitStatus::Signaled(Signal::SIGUSR1 as i32));
    // SIGTERM ends what has not asked for anything else, at once and not after the grace.
    let plain = world
        .start(
            "plain",
            TaskCommand::Argv(vec!["sleep".into(), "1000".into()]),
            Limits::default(),
        )
        .await;
    let init = init_of(&plain).expect("a first process");
    plain.kill(Duration::from_secs(600));
    let report = tokio::time::timeout(Duration::from_secs(60), plain.wait()).await;
    let report = report.expect("well within its grace");
    assert_eq!(report.status, ExitStatus::Signaled(Signal::SIGTERM as i32));
    assert!(!alive(init));
    // What it leaves is reaped while it runs and killed when it ends. It begins when we know its first
    // process, which is gone with it. The shell lists the processes itself, so it starts none that count:
    // the first process, the shell and the daemon are left, and a zombie that nobody reaps is a fourth.
    let line = "until [ -e go ]; do sleep 0.02; done; \
        for i in 1 2 3; do (sleep 0.05 &) ; done; setsid sh -c 'trap \"\" TERM; exec sleep 1000' & \
        until set -- /proc/[0-9]*; [ $# -le 3 ] && ! grep -qs zombie /proc/[0-9]*/status; do sleep 0.02; done; \
        ! grep -l zombie /proc/[0-9]*/status; exit 5";
    let leaver = world.start_shell("leaver", line, Limits::default()).await;
    let init = init_of(&leaver).expect("a first process");
    fs::write(world.sandbox("leaver").join("go"), "").unwrap();
    let report = leaver.wait().await;
    assert_eq!(
        (report.status, report.survivors),
        (ExitStatus::Exited(5), 0)
    );
    assert!(!alive(init));
    assert_eq!(world.output("leaver"), "");
}

pub(crate) async fn shim_killed(world: &World) {
    if !has(world, &[Part::Pid]) {
        return;
    }
    let container = world
        .start_shell(
            "victim",
            "setsid sleep 1000 & sleep 1000",
            Limits::default(),
        )
        .await;
    let init = init_of(&container).expect("a first process");
    let shim = parent_of(container.pid());
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let report = container.wait().await;
    assert!(report.shim_lost, "{report:?}");
    eventually("the first process ends with its shim", || !alive(init)).await;
}

pub(crate) async fn frozen(world: &World) {
    if !has(world, &[Part::ReadOnly, Part::Net]) {
        return;
    }
    let line = "echo x > own && echo own; mkdir -p own.d && mv own own.d/; (echo x > /var/x) 2>&1 | grep -o Read-only; \
        (echo x > /etc/x) 2>&1 | grep -o Read-only; echo z > /dev/shm/z && echo shm; \
        cat /proc/net/dev | grep -c :; cat /sys/class/net/lo/operstate; \
        (echo > /dev/tcp/127.0.0.1/1) 2>/dev/null; exit 0";
    let output = said(world, "frozen", line).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        &lines[..5],
        ["own", "Read-only", "Read-only", "shm", "1"],
        "{output}"
    );
}

pub(crate) async fn landlocked(world: &World) {
    if !has(world, &[Part::Files, Part::Signals]) {
        return;
    }
    let neighbour = world
        .start_shell("neighbour", "sleep 1000", Limits::default())
        .await;
    let outside = world.sandbox("neighbour").join("stolen");
    let line = format!(
        "mkdir d; echo x > d/own; mv d/own own; cat own; (echo x > {0}) 2>&1 | grep -o denied; \
         kill -9 {1} 2>&1 | grep -o permitted; sleep 1000 & kill $!; wait $!; echo $?; cat {2}",
        "/var/lib/meros-test-x",
        neighbour.pid(),
        "/etc/hostname > /dev/null; exit 0",
    );
    let output = said(world, "locked", &line).await;
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    assert_eq!(lines, ["x", "denied", "permitted", "143"], "{output}");
    assert!(alive(neighbour.pid()) && !outside.exists());
}

pub(crate) async fn other_user(world: &World) {
    if nix::unistd::geteuid().is_root() {
        running::other_user(world).await;
    } else {
        println!("skipped: only root can run tasks of others");
    }
}
