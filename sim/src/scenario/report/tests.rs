//! What reports say of runs whose numbers are known.

use super::*;
use crate::scenario::Scenario;
use crate::scenario::run::{RunOptions, run};

/// One slave of 10 cpus, one task of 4 cpus from the beginning to the end.
const SMALL: &str = r#"
title = "one task"
duration = "10m"
[slaves.one]
count = 1
resources = "cpus:10;mem:1000"
[frameworks.web]
behaviour = "service"
[[frameworks.web.work]]
arrivals.start = 1
task = "cpus:4;mem:100"
runs = "forever"
"#;

fn report(text: &str) -> Report {
    let scenario = Scenario::parse("small.toml".as_ref(), text.to_owned()).expect("it is allowed");
    let variants = scenario.variants().expect("it is allowed");
    run(&variants[0], &RunOptions::default(), |_| {}).expect("nothing is broken")
}

#[test]
fn a_service_uses_what_it_asked_for_from_beginning_to_end() {
    let report = report(SMALL);
    let cpus = &report.resources[0];
    assert_eq!((cpus.name.as_str(), cpus.total), ("cpus", 10.0));
    assert!((cpus.used_max - 0.4).abs() < 1e-9);
    // It comes a few seconds after the beginning, of 240 samples at most two miss it.
    assert!((0.39..=0.4).contains(&cpus.used_mean), "{}", cpus.used_mean);
    assert!((0.39..=0.4).contains(&report.total.share_mean));
    let web = report.group("web").expect("it is there");
    assert_eq!((web.submitted, web.started, web.live), (1, 1, 1));
    let wait = web.wait.expect("one ran");
    assert!(wait.p50 > 0.0 && wait.max < 15.0, "{wait:?}");
}

#[test]
fn the_same_seed_gives_the_same_report_but_for_the_wall_clock() {
    let [mut first, mut second] = [(); 2].map(|()| report(SMALL).json());
    for report in [&mut first, &mut second] {
        let wall = report.as_object_mut().expect("an object").remove("wall");
        assert!(wall.is_some());
    }
    assert_eq!(first, second);
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_shows_every_chart() {
    let page = page(&[report(SMALL)], "");
    for text in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(!page.contains("NaN"));
}

#[test]
fn waits_are_counted_by_rank() {
    let record = Record {
        waits: (1..=100).rev().map(|s| s * 1_000_000).collect(),
        ..Record::default()
    };
    let waits = Waits::new(&record).expect("there are some");
    let found = [waits.mean, waits.p50, waits.p90, waits.p99, waits.max];
    assert_eq!(found, [50.5, 50.0, 90.0, 99.0, 100.0]);
    assert!(Waits::new(&Record::default()).is_none());
}
