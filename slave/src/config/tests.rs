use super::*;

fn raw() -> RawConfig {
    RawConfig {
        masters: Some("127.0.0.1:5050".to_owned()),
        data_dir: Some("data".into()),
        identity: Some("identity".into()),
        ..RawConfig::default()
    }
}

fn refused(change: impl FnOnce(&mut RawConfig)) -> String {
    let mut raw = raw();
    change(&mut raw);
    Config::check(raw).expect_err("it is wrong").to_string()
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = Config::check(raw()).unwrap();
    assert_eq!(config.masters, ["127.0.0.1:5050"]);
    assert_eq!(config.http_listen, "127.0.0.1:5051".parse().unwrap());
    assert!(config.resources.is_empty());
    assert_eq!(config.cgroup_root, "meros");
    assert_eq!(
        (config.task_pids_max, config.log_bytes_max),
        (4_096, 64 << 20)
    );
    assert_eq!(config.stop_grace, Duration::from_secs(10));
}

#[test]
fn required_options_are_named_when_missing() {
    let text = refused(|raw| raw.data_dir = None);
    assert!(
        text.contains("--data-dir") && text.contains("MEROS_DATA_DIR"),
        "{text}"
    );
    assert!(refused(|raw| raw.masters = None).contains("--masters"));
    assert!(refused(|raw| raw.masters = Some(" , ".to_owned())).contains("--masters"));
    assert!(refused(|raw| raw.identity = None).contains("--identity"));
}

#[test]
fn masters_are_a_list_and_5050_is_their_port() {
    let masters = |text: &str| {
        Config::check(RawConfig {
            masters: Some(text.to_owned()),
            ..raw()
        })
        .map(|c| c.masters)
    };
    let expected = ["m1:5050", "10.0.0.2:7", "[::1]:5050"];
    assert_eq!(masters("m1, 10.0.0.2:7 ,[::1]:5050").unwrap(), expected);
    for bad in ["m1:x", "m1:99999", ":5050", "m1:0", "a b", "http://m1:5050"] {
        let error = masters(bad).expect_err(bad);
        assert_eq!(
            error,
            ConfigError::Master {
                piece: bad.to_owned()
            }
        );
    }
    let many = vec!["m"; 16].join(",");
    assert_eq!(masters(&many), Err(ConfigError::TooManyMasters { got: 16 }));
}

#[test]
fn values_out_of_range_are_named_with_their_range() {
    let text = refused(|raw| raw.task_pids_max = Some(0));
    assert_eq!(text, "task_pids_max is 0, which is outside 1 to 4194304");
    assert!(refused(|raw| raw.log_bytes_max = Some(1)).contains("log_bytes_max is 1"));
    let text = refused(|raw| raw.executor_registration_timeout = Some(Duration::ZERO));
    assert_eq!(
        text,
        "executor_registration_timeout is 0s, which is outside 1s to 1h"
    );
    let text = refused(|raw| raw.stop_grace = Some(Duration::from_secs(3_600)));
    assert_eq!(text, "stop_grace is 1h, which is outside 0s to 10m");
}

#[test]
fn typos_in_texts_are_refused() {
    assert!(refused(|raw| raw.resources = Some("cpus=4".to_owned())).contains("resources"));
    assert!(refused(|raw| raw.attributes = Some("rack".to_owned())).contains("attributes"));
    assert!(refused(|raw| raw.hostname = Some("a/b".to_owned())).contains("a/b"));
    assert!(refused(|raw| raw.cgroup_root = Some("../x".to_owned())).contains("cgroup_root"));
}

#[test]
fn attributes_that_a_terminal_would_obey_are_refused_by_name() {
    for (text, name) in [
        ("os:debian;rack:r\u{7}12", "rack"),
        ("a\u{1b}[2J:b", "a\\u{1b}[2J"),
        ("x:\u{9b}2J", "x"),
    ] {
        let error = refused(|raw| raw.attributes = Some(text.to_owned()));
        assert!(
            error.contains(&format!("attribute \"{name}\" has a control character")),
            "{error}"
        );
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    let fine = RawConfig {
        attributes: Some("όνομα:μέρος; rack : r 12 ".to_owned()),
        ..raw()
    };
    assert!(Config::check(fine).is_ok());
}

#[test]
fn a_flag_wins_over_the_file() {
    let flag = RawConfig {
        hostname: Some("flag".to_owned()),
        ..RawConfig::default()
    };
    let file = RawConfig {
        hostname: Some("file".to_owned()),
        ..raw()
    };
    let both = flag.or(file);
    assert_eq!(both.hostname.as_deref(), Some("flag"));
    assert_eq!(both.masters, raw().masters);
}

#[test]
fn an_unknown_key_or_a_wrong_duration_is_refused() {
    let parse = |text: &str| serde_json::from_str::<RawConfig>(text);
    assert!(
        parse(r#"{"stop_grace": "3s"}"#)
            .unwrap()
            .stop_grace
            .is_some()
    );
    assert!(parse(r#"{"stop_grace": "3 parsecs"}"#).is_err());
    assert!(parse(r#"{"stop_grave": "3s"}"#).is_err());
}

#[test]
fn isolation_and_devices_are_read_and_nonsense_is_refused() {
    let mut raw = raw();
    raw.isolation = Some("pid,seccomp=off".to_owned());
    raw.task_devices = Some("/dev/fuse, /dev/net/tun".to_owned());
    let config = Config::check(raw).unwrap();
    assert_eq!(config.isolation, "pid=on,seccomp=off".parse().unwrap());
    assert_eq!(config.task_devices.len(), 2);
    assert_eq!(config.task_open_files_max, 65_536);
    assert!(config.exec);
    let text = refused(|raw| raw.isolation = Some("pids,rockets".to_owned()));
    assert!(
        text.contains("rockets") && text.contains("seccomp"),
        "{text}"
    );
    for bad in ["/etc/passwd", "/dev", "/dev/../etc", "fuse"] {
        let text = refused(|raw| raw.task_devices = Some(bad.to_owned()));
        assert!(text.contains("/dev/kvm"), "{text}");
    }
    assert!(refused(|raw| raw.task_open_files_max = Some(3)).contains("16 to 1048576"));
}

#[test]
fn flags_have_the_names_of_the_keys() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        raw: RawConfig,
    }
    let args = [
        "slave",
        "--masters=m1",
        "--data-dir=d",
        "--identity=i",
        "--cpu-quota=true",
    ];
    let cli = <Cli as clap::Parser>::try_parse_from(args).unwrap();
    let config = Config::check(cli.raw).unwrap();
    assert_eq!(
        (config.masters, config.cpu_quota),
        (vec!["m1:5050".to_owned()], true)
    );
}

#[test]
fn what_is_fetched_has_bounds_and_folders_that_are_ones() {
    let config = Config::check(raw()).unwrap();
    assert!(config.fetch_folders.is_empty());
    assert_eq!(
        (config.fetch_file_bytes_max, config.fetch_task_bytes_max),
        (4 << 30, 16 << 30)
    );
    assert_eq!(config.fetch_cache_bytes_max, 2 << 30);
    assert_eq!(config.fetch_stall_timeout, Duration::from_secs(60));
    for bad in ["srv", "/srv/../etc", "/a,b"] {
        let text = refused(|raw| raw.fetch_folders = Some(bad.to_owned()));
        assert!(text.contains("fetch_folders"), "{text}");
    }
    for text in [
        refused(|raw| raw.fetch_file_bytes_max = Some(1)),
        refused(|raw| raw.fetch_task_bytes_max = Some(u64::MAX)),
        refused(|raw| raw.fetch_cache_bytes_max = Some(u64::MAX)),
        refused(|raw| raw.fetch_stall_timeout = Some(Duration::ZERO)),
    ] {
        assert!(text.contains("outside"), "{text}");
    }
}

#[test]
fn settings_are_shown_so_that_they_can_be_written_in_a_file_again() {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        _raw: RawConfig,
    }
    let config = Config::check(RawConfig {
        isolation: Some("pid,seccomp=off".to_owned()),
        attributes: Some("rack:r1".to_owned()),
        resources: Some("cpus:4;ports:[31000-31010]".to_owned()),
        ..raw()
    })
    .unwrap();
    let shown = config.settings();
    let value = |option: &str| {
        let found = shown.iter().find(|it| it.option == option);
        found.map(|it| it.value.as_str())
    };
    // Each option there is, and no other.
    let command = <Flags as clap::CommandFactory>::command();
    let options: Vec<&str> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    for option in &options {
        assert!(value(&option.replace('-', "_")).is_some(), "{option}");
    }
    assert_eq!(options.len(), shown.len());
    assert_eq!(value("isolation"), Some("pid=on,seccomp=off"));
    let text = [
        "masters",
        "isolation",
        "attributes",
        "resources",
        "stop_grace",
        "fetch_stall_timeout",
    ]
    .map(|option| format!("{option:?}: {:?}", value(option).unwrap()))
    .join(",");
    let read: RawConfig = serde_json::from_str(&format!("{{{text}}}")).unwrap();
    assert_eq!(Config::check(read.or(raw())).unwrap(), config);
}
