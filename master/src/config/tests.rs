//! What is taken, what is refused, and in which words.

use clap::{CommandFactory, FromArgMatches, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    raw: RawConfig,
}

fn required() -> RawConfig {
    RawConfig {
        data_dir: Some("data".into()),
        identity: Some("identity".into()),
        ..RawConfig::default()
    }
}

fn parse(flags: &[&str]) -> Result<RawConfig, clap::Error> {
    let flags = std::iter::once("master").chain(flags.iter().copied());
    let matches = Flags::command().try_get_matches_from(flags)?;
    Flags::from_arg_matches(&matches).map(|flags| flags.raw)
}

#[test]
fn only_the_two_directories_must_be_given() {
    let config = Config::check(required()).expect("complete");
    assert_eq!(config.listen.port(), PORT_DEFAULT);
    assert!(
        config.http_address.is_loopback(),
        "HTTP has no authentication"
    );
    assert_eq!(config.offer_timeout, Duration::from_secs(300));

    let error = Config::check(RawConfig {
        identity: None,
        ..required()
    })
    .expect_err("incomplete");
    assert_eq!(
        error.to_string(),
        "identity is not set: give --identity, MEROS_IDENTITY or the key identity in the configuration file"
    );
}

#[test]
fn each_range_is_checked_and_named() {
    let second = Some(Duration::from_secs(1));
    let day = Some(Duration::from_secs(86_401));
    let none = Some(Duration::ZERO);
    let cases = [
        (
            "offer_timeout",
            RawConfig {
                offer_timeout: none,
                ..required()
            },
        ),
        (
            "offer_timeout",
            RawConfig {
                offer_timeout: day,
                ..required()
            },
        ),
        (
            "ping_interval",
            RawConfig {
                ping_interval: none,
                ..required()
            },
        ),
        (
            "ping_misses_max",
            RawConfig {
                ping_misses_max: Some(0),
                ..required()
            },
        ),
        (
            "ping_misses_max",
            RawConfig {
                ping_misses_max: Some(101),
                ..required()
            },
        ),
        (
            "slave_reregister_timeout",
            RawConfig {
                slave_reregister_timeout: day,
                ..required()
            },
        ),
        (
            "allocation_delay",
            RawConfig {
                allocation_delay: day,
                ..required()
            },
        ),
        (
            "hoarding_after",
            RawConfig {
                hoarding_after: day,
                ..required()
            },
        ),
        (
            "hoarding_offers",
            RawConfig {
                hoarding_offers: Some(0),
                ..required()
            },
        ),
        (
            "fair_share_excluded",
            RawConfig {
                fair_share_excluded: Some(vec![ResourceName::GPUS; 65]),
                ..required()
            },
        ),
        (
            "lease",
            RawConfig {
                lease: none,
                ..required()
            },
        ),
        (
            "lease",
            RawConfig {
                lease: day,
                ..required()
            },
        ),
        (
            "heartbeat_interval",
            RawConfig {
                heartbeat_interval: none,
                ..required()
            },
        ),
        (
            "heartbeat_interval",
            RawConfig {
                heartbeat_interval: day,
                ..required()
            },
        ),
        (
            "connections_max",
            RawConfig {
                connections_max: Some(0),
                ..required()
            },
        ),
    ];
    for (name, raw) in cases {
        match Config::check(raw) {
            Err(ConfigError::OutOfRange { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let edges = RawConfig {
        offer_timeout: second,
        slave_reregister_timeout: second,
        allocation_delay: none,
        hoarding_after: none,
        fair_share_excluded: Some(vec![ResourceName::GPUS; 64]),
        ..required()
    };
    assert!(
        Config::check(edges).is_ok(),
        "the ends of a range belong to it"
    );
}

#[test]
fn one_port_number_serves_both_and_two_are_refused() {
    let with = |listen: &str, http: &str| {
        Config::check(RawConfig {
            listen: Some(listen.parse().expect("an address")),
            http_listen: Some(http.parse().expect("an address")),
            ..required()
        })
    };
    assert!(with("0.0.0.0:7000", "0.0.0.0:7000").is_ok());
    assert!(with("0.0.0.0:0", "127.0.0.1:0").is_ok());
    assert_eq!(
        with("0.0.0.0:7000", "127.0.0.1:8080"),
        Err(ConfigError::PortsDiffer {
            http: 8080,
            quic: 7000
        })
    );
}

#[test]
fn flags_win_over_a_file_and_durations_are_text() {
    let flags = parse(&["--offer-timeout", "2min", "--data-dir", "a"]).expect("good flags");
    let file = RawConfig {
        offer_timeout: Some(Duration::from_secs(7)),
        ping_interval: Some(Duration::from_millis(1_500)),
        ..required()
    };
    let both = flags.or(file);
    assert_eq!(both.offer_timeout, Some(Duration::from_secs(120)));
    assert_eq!(both.ping_interval, Some(Duration::from_millis(1_500)));
    assert_eq!(both.data_dir, Some("a".into()));

    for bad in [
        ["--offer-timeout", "5"],
        ["--ping-misses-max", "-1"],
        ["--listen", "5050"],
    ] {
        assert!(parse(&bad).is_err(), "{bad:?} was taken");
    }
}

#[test]
fn a_file_may_hold_the_same_options_and_no_others() {
    let read = |text: &str| serde_json::from_str::<RawConfig>(text);
    let raw = read(r#"{"listen": "127.0.0.1:0", "offer_timeout": "90s"}"#).expect("good file");
    assert_eq!(raw.offer_timeout, Some(Duration::from_secs(90)));

    let unknown = read(r#"{"offer_timeuot": "90s"}"#).expect_err("a typo");
    assert!(unknown.to_string().contains("offer_timeuot"), "{unknown}");
    let bare = read(r#"{"offer_timeout": "90"}"#).expect_err("no unit");
    assert!(bare.to_string().contains("500ms"), "{bare}");
}

#[test]
fn what_is_set_for_the_cluster_has_the_bounds_of_the_option() {
    use meros_master_core::ClusterSetting;
    for setting in ClusterSetting::ALL {
        let with = |value: u64| {
            let text = match setting.is_time() {
                true => format!("--{}={value}ms", setting.name().replace('_', "-")),
                false => format!("--{}={value}", setting.name().replace('_', "-")),
            };
            let flags = parse(&[&text]).expect("an option of this name");
            Config::check(flags.or(required()))
        };
        let range = setting.range();
        assert!(with(*range.start()).is_ok() && with(*range.end()).is_ok());
        assert!(with(range.end() + 1).is_err(), "{setting:?}");
        let below = range.start().checked_sub(1);
        assert!(
            below.is_none_or(|value| with(value).is_err()),
            "{setting:?}"
        );
        let shown = Config::check(required()).expect("complete").settings();
        assert!(shown.iter().any(|row| row.option == setting.name()));
    }
}

#[test]
fn how_resources_are_shared_is_set_by_flags_and_files_alike() {
    let flags = parse(&[
        "--min-allocatable=cpus:2;mem:64|gpus:1",
        "--sorter=random",
        "--fair-share-excluded=gpus,licences",
        "--hoarding-after=0s",
        "--hoarding-offers=3",
    ]);
    let flags = flags.expect("good flags");
    let file = r#"{"min_allocatable": "cpus:2;mem:64|gpus:1", "sorter": "random",
        "fair_share_excluded": ["gpus", "licences"], "hoarding_after": "0s", "hoarding_offers": 3}"#;
    let file: RawConfig = serde_json::from_str(file).expect("good file");
    assert_eq!(flags, file);
    let config = Config::check(flags.or(required())).expect("complete");
    assert_eq!(config.sorter, Sorter::Random);

    let none = parse(&["--min-allocatable="]).expect("everything is worth an offer");
    assert_eq!(none.min_allocatable.map(|it| it.any_of.len()), Some(0));
    for (bad, why) in [
        ("--min-allocatable=cpus:1|ports:[1-2]", "ports:[1-2]"),
        ("--sorter=fair", "drf, random"),
        ("--fair-share-excluded=a b", "letters, digits"),
        ("--hoarding-offers=-1", "-1"),
    ] {
        let error = parse(&[bad]).expect_err(bad).to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
    let bad = serde_json::from_str::<RawConfig>(r#"{"min_allocatable": "much"}"#);
    let error = bad.expect_err("no amount").to_string();
    assert!(error.contains("much"), "{error}");
}

#[test]
fn settings_are_shown_so_that_they_can_be_written_in_a_file_again() {
    let config = Config::check(required()).expect("complete");
    let shown = config.settings();
    let value = |option: &str| {
        let found = shown.iter().find(|it| it.option == option);
        found.map(|it| it.value.as_str())
    };
    assert_eq!(value("min_allocatable"), Some("cpus:0.01|mem:32"));
    assert_eq!(value("offer_timeout"), Some("5m"));
    // Each option there is, and no other.
    let command = Flags::command();
    let options = command.get_arguments().filter_map(clap::Arg::get_long);
    for option in options {
        assert!(value(&option.replace('-', "_")).is_some(), "{option}");
    }
    let text = ["offer_timeout", "sorter", "min_allocatable"]
        .map(|option| format!("{option:?}: {:?}", value(option).expect("shown")))
        .join(",");
    let read: RawConfig = serde_json::from_str(&format!("{{{text}}}")).expect("as it is shown");
    let again = Config::check(read.or(required())).expect("complete");
    assert_eq!(again, config);
}

#[test]
fn other_masters_are_a_list_of_addresses() {
    let raw = parse(&[
        "--join",
        "m1:5050,[::1]:5051",
        "--advertise",
        "m3.example:5050",
    ]);
    let raw = raw.expect("good flags");
    let config = Config::check(raw.or(required())).expect("good addresses");
    assert_eq!(config.join, ["m1:5050", "[::1]:5051"]);
    assert_eq!(config.advertise.as_deref(), Some("m3.example:5050"));
    assert!(Config::check(required()).expect("complete").join.is_empty());

    let long = format!("{}:1", "a".repeat(300));
    for bad in ["m1", "m1:", ":5050", "m1:x", "m1:70000", &long] {
        let error = Config::check(RawConfig {
            join: Some(vec![bad.to_owned()]),
            ..required()
        })
        .expect_err(bad);
        assert!(error.to_string().starts_with("join is "), "{error}");
        let error = Config::check(RawConfig {
            advertise: Some(bad.to_owned()),
            ..required()
        })
        .expect_err(bad);
        assert!(error.to_string().starts_with("advertise is "), "{error}");
    }
}
