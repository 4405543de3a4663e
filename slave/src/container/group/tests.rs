use super::super::fixture::{Host, read};
use super::*;

const V2_FILES: &[(&str, &str)] = &[
    ("cpu.weight", "100\n"),
    ("cpu.max", "max 100000\n"),
    ("memory.max", "max\n"),
    ("memory.swap.max", "max\n"),
    ("pids.max", "max\n"),
];

fn limits() -> Limits {
    Limits {
        cpu_shares_millis: 2_000,
        cpu_quota_millis: Some(500),
        memory_bytes: Some(64 << 20),
        disk_bytes: None,
        pids_max: Some(32),
    }
}

fn v2_host() -> Host {
    Host::new().v2("cpu memory pids", &[("cgroup.kill", "")])
}

#[test]
fn limits_of_v2_go_to_its_files_in_its_units() {
    let host = v2_host();
    let isolation = host.detect();
    host.group("unified/meros/a/task", V2_FILES);
    Group::named(&isolation, "task")
        .set_limits(&limits())
        .unwrap();
    let written = |file: &str| read(&host.path("unified/meros/a/task").join(file));
    assert_eq!(written("cpu.weight"), "200");
    assert_eq!(written("cpu.max"), "50000 100000");
    assert_eq!(written("memory.max"), "67108864");
    assert_eq!(written("memory.swap.max"), "0");
    assert_eq!(written("pids.max"), "32");
}

#[test]
fn limits_of_v1_go_to_its_files_in_its_units() {
    let host = Host::new().v1("cpu", &[]).v1("memory", &[]);
    let isolation = host.detect();
    host.group("cpu/meros/a/task", &[]);
    host.group(
        "memory/meros/a/task",
        &[("memory.memsw.limit_in_bytes", "")],
    );
    let small = Limits {
        memory_bytes: Some(1),
        ..limits()
    };
    Group::named(&isolation, "task").set_limits(&small).unwrap();
    let written = |file: &str| read(&host.path(file));
    assert_eq!(written("cpu/meros/a/task/cpu.shares"), "2048");
    assert_eq!(written("cpu/meros/a/task/cpu.cfs_period_us"), "100000");
    assert_eq!(written("cpu/meros/a/task/cpu.cfs_quota_us"), "50000");
    assert_eq!(
        written("memory/meros/a/task/memory.limit_in_bytes"),
        MEMORY_FLOOR_BYTES.to_string()
    );
    assert_eq!(
        written("memory/meros/a/task/memory.memsw.limit_in_bytes"),
        MEMORY_FLOOR_BYTES.to_string()
    );
}

#[test]
fn a_limit_that_is_not_taken_is_an_error_and_leaves_no_group() {
    let host = v2_host();
    let isolation = host.detect();
    // The fixture's kernel makes no files in new groups, so there is no cpu.max to change.
    match Group::create(&isolation, "task", &limits()) {
        Err(StartError::SetLimit {
            limit: "cpu_quota",
            value: 50_000,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    host.group("unified/meros/a/used", &[]);
    assert!(matches!(
        Group::create(&isolation, "used", &limits()),
        Err(StartError::IdInUse { .. })
    ));
}

#[test]
fn counters_of_v2_are_read_in_its_units() {
    let host = v2_host();
    let isolation = host.detect();
    host.group(
        "unified/meros/a/task",
        &[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1\nnr_periods 7\nnr_throttled 3\nthrottled_usec 250\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            ("pids.current", "5\n"),
            ("pids.events", "max 9\n"),
            (
                "io.stat",
                "8:0 rbytes=4096 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=2 wbytes=x\n7:0\n",
            ),
            (
                "cpu.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=70\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
            ),
            ("memory.pressure", "full avg10=0.00 total=3\n"),
        ],
    );
    let usage = Group::named(&isolation, "task").usage();
    assert_eq!(usage.cpu_time, Some(Duration::from_micros(1_500)));
    assert_eq!(
        (usage.cpu_periods, usage.cpu_throttled_periods),
        (Some(7), Some(3))
    );
    assert_eq!(usage.cpu_throttled_time, Some(Duration::from_micros(250)));
    assert_eq!(
        (usage.memory_bytes, usage.memory_peak_bytes),
        (Some(4_096), Some(8_192))
    );
    assert_eq!(
        (usage.memory_limit_bytes, usage.memory_limit_hits),
        (None, Some(12))
    );
    assert_eq!(usage.oom_kills, Some(1));
    assert_eq!((usage.pids, usage.pids_refused), (Some(5), Some(9)));
    assert_eq!(
        (usage.io_read_bytes, usage.io_written_bytes),
        (Some(4_098), Some(1))
    );
    assert_eq!(usage.cpu_stalled, Some(Duration::from_micros(70)));
    assert_eq!((usage.memory_stalled, usage.io_stalled), (None, None));
}

#[test]
fn counters_that_cannot_be_read_are_unknown_not_zero() {
    let host = v2_host();
    let isolation = host.detect();
    assert_eq!(Group::named(&isolation, "gone").usage(), Usage::default());
    host.group(
        "unified/meros/a/odd",
        &[
            ("memory.events", "oom_killer 3\noom_kill x\n"),
            ("pids.current", "-1"),
        ],
    );
    let usage = Group::named(&isolation, "odd").usage();
    assert_eq!((usage.oom_kills, usage.pids), (None, None));
}

#[test]
fn processes_of_nested_groups_belong_to_the_container() {
    let host = v2_host();
    host.group("unified/meros/a/task", &[("cgroup.procs", "0\n12\n")]);
    host.group(
        "unified/meros/a/task/inner/deep",
        &[("cgroup.procs", "99\n12\nx\n")],
    );
    assert_eq!(
        processes(&host.path("unified/meros/a/task")),
        BTreeSet::from([12, 99])
    );
    assert_eq!(processes(&host.path("nowhere")), BTreeSet::new());
}
