use super::super::fixture::{Host, read};
use super::*;

fn reason(isolation: &Isolation, facility: Facility) -> &str {
    let missing = &isolation.report().missing;
    &missing
        .iter()
        .find(|(missing, _)| *missing == facility)
        .unwrap_or_else(|| panic!("{missing:?}"))
        .1
}

fn all_of_v1(host: Host) -> Host {
    host.v1("cpu,cpuacct", &[])
        .v1("memory", &[])
        .v1("pids", &[])
        .v1("freezer", &[])
}

#[test]
fn a_v1_host_has_each_facility_in_its_own_hierarchy() {
    let host = all_of_v1(Host::new());
    let isolation = host.detect();
    assert_eq!(isolation.report().hierarchy, HierarchyKind::V1);
    assert!(isolation.report().is_complete());
    assert_eq!(
        isolation.report().attribute(),
        "v1:cpu+cpu-usage+memory+pids+kill"
    );
    for (facility, mount) in [
        (Facility::Cpu, "cpu,cpuacct"),
        (Facility::CpuUsage, "cpu,cpuacct"),
        (Facility::Memory, "memory"),
        (Facility::Pids, "pids"),
        (Facility::Kill, "freezer"),
    ] {
        let dir = host.path(mount).join("meros/a");
        assert_eq!(
            isolation.place(facility),
            Some(&Place {
                version: Version::V1,
                dir
            })
        );
    }
    assert_eq!(isolation.dirs().len(), 4);
}

#[test]
fn a_hybrid_host_limits_in_v1_and_kills_in_v2() {
    let host = all_of_v1(Host::new()).v2("hugetlb", &[("cgroup.kill", "")]);
    let isolation = host.detect();
    assert_eq!(isolation.report().hierarchy, HierarchyKind::Hybrid);
    assert!(isolation.report().is_complete());
    assert_eq!(
        isolation.place(Facility::Memory).unwrap().version,
        Version::V1
    );
    let dir = host.path("unified/meros/a");
    assert_eq!(
        isolation.place(Facility::Kill),
        Some(&Place {
            version: Version::V2,
            dir
        })
    );
    assert_eq!(read(&host.path("unified/cgroup.subtree_control")), "");
}

#[test]
fn a_hybrid_host_without_cgroup_kill_uses_the_freezer() {
    let host = all_of_v1(Host::new()).v2("", &[]);
    let dir = host.path("freezer/meros/a");
    assert_eq!(
        host.detect().place(Facility::Kill),
        Some(&Place {
            version: Version::V1,
            dir
        })
    );
}

#[test]
fn controllers_that_v1_lacks_are_taken_from_v2() {
    let host = Host::new()
        .v1("cpu", &[])
        .v2("memory pids", &[("cgroup.kill", "")]);
    let isolation = host.detect();
    assert!(isolation.report().is_complete(), "{:?}", isolation.report());
    let version = |facility| isolation.place(facility).unwrap().version;
    assert_eq!(version(Facility::Cpu), Version::V1);
    assert_eq!(version(Facility::CpuUsage), Version::V2);
    assert_eq!(version(Facility::Memory), Version::V2);
}

#[test]
fn on_v2_controllers_are_enabled_on_the_whole_way_down() {
    let host = Host::new().v2("cpuset cpu io memory pids", &[("cgroup.kill", "")]);
    let isolation = host.detect();
    assert_eq!(isolation.report().hierarchy, HierarchyKind::V2);
    assert!(isolation.report().is_complete(), "{:?}", isolation.report());
    for group in ["unified", "unified/meros", "unified/meros/a"] {
        assert_eq!(
            read(&host.path(group).join("cgroup.subtree_control")),
            "+cpu+memory+pids",
            "{group}"
        );
    }
    assert_eq!(
        isolation.dirs(),
        BTreeSet::from([host.path("unified/meros/a")])
    );
}

#[test]
fn on_v2_controllers_that_are_enabled_already_are_not_written_again() {
    let host = Host::new().v2("cpu memory pids", &[("cgroup.kill", "")]);
    fs::write(
        host.path("unified/cgroup.subtree_control"),
        "cpu memory pids\n",
    )
    .unwrap();
    let _isolation = host.detect();
    assert_eq!(
        read(&host.path("unified/cgroup.subtree_control")),
        "cpu memory pids\n"
    );
}

#[test]
fn a_controller_that_the_kernel_lacks_is_missing_with_advice() {
    let host = Host::new().v2("cpu pids", &[("cgroup.kill", "")]);
    let isolation = host.detect();
    assert_eq!(isolation.report().attribute(), "v2:cpu+cpu-usage+pids+kill");
    assert!(reason(&isolation, Facility::Memory).contains("cgroup_enable=memory"));
}

#[test]
fn a_controller_that_may_not_be_enabled_is_missing_and_the_rest_works() {
    let host = Host::new().v2("cpu memory pids", &[("cgroup.kill", "")]);
    let control = host.path("unified/meros/cgroup.subtree_control");
    fs::remove_file(&control).unwrap();
    let isolation = host.detect();
    assert_eq!(isolation.report().attribute(), "v2:cpu-usage+kill");
    assert!(reason(&isolation, Facility::Pids).contains(&control.display().to_string()));
}

#[test]
fn hierarchies_that_cannot_be_used_are_named() {
    let host = Host::new().unusable_v1("memory").v1("pids", &[]);
    let isolation = host.detect();
    assert_eq!(isolation.report().attribute(), "v1:pids+kill");
    assert!(reason(&isolation, Facility::Memory).contains("memory/meros is not usable"));
    assert!(reason(&isolation, Facility::Cpu).contains("mount cgroup2"));
    // Without freezer and cgroup.kill any group still tells who belongs to the container.
    assert_eq!(
        isolation.place(Facility::Kill).unwrap().dir,
        host.path("pids/meros/a")
    );
}

#[test]
fn a_host_without_cgroups_isolates_nothing_and_says_so() {
    let isolation = Host::new().detect();
    assert_eq!(isolation.report().hierarchy, HierarchyKind::None);
    assert_eq!(isolation.report().attribute(), "none");
    assert_eq!(isolation.report().missing.len(), Facility::ALL.len());
    let root = CgroupRoot::new("meros", "a").unwrap();
    let unreadable = Isolation::detect_from(&root, Path::new("/nonexistent/mountinfo"));
    assert_eq!(unreadable.report(), isolation.report());
}

#[test]
fn a_root_that_leads_elsewhere_is_refused() {
    for (name, instance) in [
        ("", "a"),
        ("/", "a"),
        ("/meros", "a"),
        ("meros/", "a"),
        ("../x", "a"),
        ("a/../b", "a"),
        ("a//b", "a"),
        ("1/2/3/4/5/6/7/8/9", "a"),
        ("meros", ""),
        ("meros", ".."),
        ("meros", "a/b"),
        ("meros", "a b"),
    ] {
        assert!(
            CgroupRoot::new(name, instance).is_err(),
            "{name:?} {instance:?}"
        );
    }
    assert_eq!(
        CgroupRoot::new("system.slice/meros.service", "a")
            .unwrap()
            .label(),
        "system.slice/meros.service/a"
    );
}

#[test]
fn groups_in_use_by_a_living_slave_are_not_taken() {
    let host = all_of_v1(Host::new());
    let mut first = host.detect();
    first.lock().unwrap();
    let mut second = host.detect();
    assert!(matches!(second.lock(), Err(OpenError::InUse { .. })));
    drop(first);
    second.lock().unwrap();
}

#[test]
fn a_root_of_somebody_else_is_refused_and_left_as_it_was() {
    let host = Host::new().v2("cpu memory pids", &[("cgroup.kill", "")]);
    let stranger = host.path("unified/meros/b");
    fs::create_dir(&stranger).unwrap();
    let before = read(&host.path("unified/cgroup.subtree_control"));
    let mut isolation = host.detect();
    assert_eq!(isolation.report().attribute(), "none");
    assert!(reason(&isolation, Facility::Memory).contains("not ours"));
    let error = isolation.lock().expect_err("it is not ours");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("--cgroup-root"), "{error}");
    drop(isolation);
    assert!(stranger.is_dir());
    assert_eq!(read(&host.path("unified/cgroup.subtree_control")), before);
}
