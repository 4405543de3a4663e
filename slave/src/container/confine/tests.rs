use super::*;

fn wishes(text: &str) -> IsolationWishes {
    text.parse().unwrap()
}

fn wanted(text: &str) -> Wanted {
    Wanted {
        wishes: wishes(text),
        ..Wanted::default()
    }
}

fn on(states: &BTreeMap<Part, PartState>) -> Vec<&'static str> {
    let all = Part::ALL.into_iter();
    all.filter(|part| is_on(states, *part))
        .map(Part::name)
        .collect()
}

const DATA: &str = "/var/lib/meros/containers";

#[test]
fn what_is_said_of_parts_is_read_and_nonsense_is_refused() {
    let said = wishes(" pid=on, seccomp=off,net,,disk=off");
    assert_eq!(said.explicit("pid"), Some(true));
    assert_eq!(said.explicit("net"), Some(true));
    assert!(!said.wants("seccomp", true) && said.wants("mount", true));
    assert!(!said.disk() && wishes("").disk() && !wishes("all=off").disk());
    assert_eq!(
        wishes("memory").groups().collect::<Vec<_>>(),
        [Facility::Memory]
    );
    for bad in [
        "cake",
        "pid=maybe",
        "pid,pid=off",
        "memory=off",
        "=on",
        "pid=ON",
    ] {
        let error = bad.parse::<IsolationWishes>().unwrap_err();
        assert!(error.to_string().contains("isolation has"), "{error}");
    }
}

#[test]
fn root_has_all_but_a_network_a_frozen_root_and_landlock_by_default() {
    let states = plan(&wanted(""), true, Path::new(DATA)).unwrap();
    let expected = "pid mount ipc uts tmp dev paths capabilities seccomp image";
    assert_eq!(on(&states).join(" "), expected);
    let states = plan(&wanted("all=off,net"), true, Path::new(DATA)).unwrap();
    assert_eq!(on(&states), ["net"]);
}

#[test]
fn without_a_user_namespace_a_user_has_what_needs_no_privilege() {
    let mut states = plan(&wanted(""), false, Path::new(DATA)).unwrap();
    assert!(is_on(&states, Part::User));
    lose(&wishes(""), &mut states, Part::User, "forbidden", false).unwrap();
    assert_eq!(on(&states), ["seccomp", "landlock-signals"]);
    let PartState::Missing(reason) = &states[&Part::Dev] else {
        panic!("{states:?}");
    };
    assert_eq!(reason, "it needs user: forbidden");
}

#[test]
fn what_is_named_is_there_or_the_slave_does_not_start() {
    let mut states = plan(&wanted("dev"), true, Path::new(DATA)).unwrap();
    let lost = lose(&wishes("dev"), &mut states, Part::Mount, "no", true);
    let error = lost.unwrap_err();
    assert!(
        matches!(&error, OpenError::IsolationMissing { part, .. } if part == "dev"),
        "{error}"
    );
    let below_tmp = Path::new("/tmp/x/containers");
    assert!(plan(&wanted("tmp"), true, below_tmp).is_err());
    let states = plan(&wanted(""), true, below_tmp).unwrap();
    assert!(matches!(&states[&Part::Tmp], PartState::Off(Some(_))));
    let states = plan(&wanted(""), true, Path::new("/dev/shm/x/containers")).unwrap();
    assert!(is_on(&states, Part::Tmp) && !is_on(&states, Part::Dev));
    assert!(plan(&wanted("mount=off,pid=on"), true, Path::new(DATA)).is_err());
    assert!(plan(&wanted("user=on"), true, Path::new(DATA)).is_err());
}

#[test]
fn without_mounts_there_is_neither_a_process_namespace_nor_what_replaces_it_unless_wanted() {
    let states = plan(&wanted("mount=off"), true, Path::new(DATA)).unwrap();
    let expected = "ipc uts capabilities seccomp landlock-signals";
    assert_eq!(on(&states).join(" "), expected);
    let states = plan(
        &wanted("mount=off,landlock-signals=off"),
        true,
        Path::new(DATA),
    )
    .unwrap();
    assert!(!is_on(&states, Part::Signals));
}
