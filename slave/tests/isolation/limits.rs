//! Limits hold, the kernel counts, and neighbours notice nothing.

use super::*;

pub(crate) async fn memory_hog(world: &World) {
    let neighbour = world
        .start_shell("neighbour", STEADY, Limits::default())
        .await;
    eventually("the neighbour works", || {
        count(&world.sandbox("neighbour")) > 0
    })
    .await;

    let limits = Limits {
        memory_bytes: Some(32 * MIB),
        ..Limits::default()
    };
    let hog = world
        .start(
            "hog",
            TaskCommand::Argv(world.helper(&["hog", "256"])),
            limits,
        )
        .await;
    let report = hog.wait().await;

    assert_eq!(report.status, ExitStatus::Signaled(9));
    assert!(!report.killed, "it was the kernel, not us");
    assert!(report.usage.oom_kills >= Some(1), "{:?}", report.usage);
    let peak = report.usage.memory_peak_bytes.unwrap_or(32 * MIB);
    assert!((28 * MIB..=32 * MIB).contains(&peak), "peak {peak}");
    let oom = report.oom.as_ref().expect("a report of the oom kill");
    assert_eq!(
        (oom.scope, oom.limit_bytes),
        (OomScope::Limit, Some(32 * MIB))
    );
    assert!(
        report
            .message()
            .starts_with("memory limit exceeded: limit 32 MiB, peak 32 MiB"),
        "{}",
        report.message()
    );

    let before = count(&world.sandbox("neighbour"));
    eventually("the neighbour goes on", || {
        count(&world.sandbox("neighbour")) > before + 5
    })
    .await;
    assert_eq!(neighbour.stats().oom_kills, Some(0));
}

pub(crate) async fn oom_of_a_child(world: &World) {
    let hog = world.helper(&["hog", "256"]).join(" ");
    let line = format!("{hog}; echo child ended with $?; sleep 0.1; exit 0");
    let limits = Limits {
        memory_bytes: Some(32 * MIB),
        ..Limits::default()
    };
    let report = world
        .start_shell("parent", &line, limits)
        .await
        .wait()
        .await;
    assert_eq!(report.status, ExitStatus::Exited(0));
    assert_eq!(report.oom, None);
    assert!(report.usage.oom_kills >= Some(1), "{:?}", report.usage);
    assert!(
        world.output("parent").contains("child ended with 137"),
        "{}",
        world.output("parent")
    );
}

pub(crate) async fn smallest_memory(world: &World) {
    let limits = Limits {
        memory_bytes: Some(1),
        ..Limits::default()
    };
    let report = world
        .start("small", TaskCommand::Argv(vec!["true".into()]), limits)
        .await
        .wait()
        .await;
    assert_eq!(report.status, ExitStatus::Exited(0), "{report:?}");
    assert_eq!(report.usage.memory_limit_bytes, Some(4 * MIB));
}

/// Bounded in itself: at most 2^9 processes, each of which ends some time after the test. The first
/// one only watches, so that it does not end when a fork fails.
const BOMB: &str = "bomb() { if [ $1 -le 0 ]; then exec sleep 300; fi; \
    bomb $(($1-1)) & bomb $(($1-1)) & sleep 300; }; bomb 8 & exec sleep 300";

pub(crate) async fn fork_bomb(world: &World) {
    let neighbour = world
        .start_shell("neighbour", STEADY, Limits::default())
        .await;
    let limits = Limits {
        pids_max: Some(24),
        ..Limits::default()
    };
    let bomb = world.start_shell("bomb", BOMB, limits).await;
    let mut most = 0;
    eventually("the kernel refuses forks", || {
        most = most.max(bomb.stats().pids.expect("pids is available"));
        bomb.stats().pids_refused > Some(0)
    })
    .await;
    assert!(most <= 24, "{most} processes");
    let before = count(&world.sandbox("neighbour"));
    eventually("the neighbour goes on", || {
        count(&world.sandbox("neighbour")) > before + 5
    })
    .await;

    bomb.kill(Duration::ZERO);
    let report = bomb.wait().await;
    assert!(report.killed && report.survivors == 0, "{report:?}");
    assert!(
        !world
            .container_groups()
            .iter()
            .any(|group| group.ends_with("bomb"))
    );
    assert_eq!(neighbour.stats().pids_refused, Some(0));
}

pub(crate) async fn cpu_hog(world: &World) {
    let neighbour = world
        .start_shell("neighbour", STEADY, Limits::default())
        .await;
    // Two spinning processes share one quota of a fifth of a CPU.
    let limits = Limits {
        cpu_quota_millis: Some(200),
        ..Limits::default()
    };
    let started = Instant::now();
    let hog = world
        .start_shell("hog", "while :; do :; done & while :; do :; done", limits)
        .await;
    eventually("the kernel throttles", || {
        let stats = hog.stats();
        stats.cpu_throttled_periods >= Some(15)
            && stats.cpu_throttled_time > Some(Duration::from_millis(100))
    })
    .await;
    let before = count(&world.sandbox("neighbour"));
    eventually("the neighbour goes on", || {
        count(&world.sandbox("neighbour")) > before + 5
    })
    .await;
    // A machine that stands still may give it more at one time; the kernel takes that back later.
    eventually("it has its 0.20 CPUs and not much more", || {
        let used = hog.stats().cpu_time.expect("cpu usage is available");
        used.as_secs_f64() < 0.35 * started.elapsed().as_secs_f64()
    })
    .await;
    hog.kill(Duration::ZERO);
    let report = hog.wait().await;
    // No more than that: on a busy machine a hog may get less than its quota.
    assert!(
        report.usage.cpu_time > Some(Duration::from_millis(50)),
        "{:?}",
        report.usage
    );
    assert_eq!(neighbour.stats().cpu_throttled_periods, Some(0));
}

pub(crate) async fn cpu_shares(world: &World) {
    // Both on one CPU, where they and whatever else runs there compete; only their ratio is ours.
    let cpu = first_cpu();
    let spin = TaskCommand::Argv(
        ["taskset", "-c", &cpu, "sh", "-c", "while :; do :; done"]
            .map(String::from)
            .to_vec(),
    );
    let shares = |cpu_shares_millis| Limits {
        cpu_shares_millis,
        ..Limits::default()
    };
    let large = match world.try_start("large", spin.clone(), shares(2_000)).await {
        Err(StartError::CommandNotFound { .. }) => {
            return println!("skipped: no taskset on this host");
        }
        started => started.unwrap(),
    };
    let small = world.start("small", spin, shares(500)).await;
    let used = |container: &meros_slave::container::Container| {
        container.stats().cpu_time.unwrap_or_default()
    };
    let (large_before, small_before) = (used(&large), used(&small));
    // A machine that stands still between two looks distorts one ratio, and the less the longer it
    // is watched.
    let mut ratio = 0.0;
    eventually("the larger one gets four times as much", || {
        let (large, small) = (used(&large) - large_before, used(&small) - small_before);
        ratio = large.as_secs_f64() / small.as_secs_f64();
        large > Duration::from_secs(1) && (2.0..8.0).contains(&ratio)
    })
    .await;
    println!("ratio {ratio:.1}");
}

/// One that this process may use.
fn first_cpu() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("in every status").trim();
    list.split(['-', ',']).next().unwrap_or("0").to_owned()
}

pub(crate) async fn limits_before_command(world: &World) {
    // The command itself looks where it is and what holds there.
    let line = "cat /proc/self/cgroup; echo looked; sleep 1000";
    let limits = Limits {
        memory_bytes: Some(48 * MIB),
        pids_max: Some(7),
        ..Limits::default()
    };
    let container = world.start_shell("inside", line, limits).await;
    eventually("it has looked", || {
        world.output("inside").ends_with("looked\n")
    })
    .await;
    let own = format!("{}/a/inside", world.root_name());
    for controller in ["memory", "pids"] {
        let output = world.output("inside");
        let line = output
            .lines()
            .find(|line| line.contains(&format!(":{controller}:")) || line.starts_with("0::"));
        assert!(
            line.is_some_and(|line| line.ends_with(&own)),
            "{controller} in {output}"
        );
    }
    assert_eq!(container.stats().memory_limit_bytes, Some(48 * MIB));
    // Read by ourselves, not through the code under test.
    let limit = world.control_file("inside", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(limit.trim(), (48 * MIB).to_string());
    assert_eq!(world.control_file("inside", &["pids.max"]).trim(), "7");
}
