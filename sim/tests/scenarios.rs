//! The scenarios of this project, scaled down: each shows what it says that it shows.
//!
//! The traces in `tests/traces` are made up; they have the names and the form of the real ones.

use std::path::PathBuf;
use std::time::Duration;

use meros_sim::scenario::report::{FrameworksReport, Report, differences, page};
use meros_sim::scenario::{RunOptions, Scenario, run};

/// Where this package is now: its programs may have been built elsewhere.
fn own_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
}

fn folder() -> PathBuf {
    own_folder().join("../scenarios")
}

/// All runs of a scenario, at this scale.
fn runs(file: &str, scale: f64) -> Vec<Report> {
    some_runs(file, scale, |_| true)
}

/// Those of its runs that are wanted, by their places.
fn some_runs(file: &str, scale: f64, wants: impl Fn(usize) -> bool) -> Vec<Report> {
    let scenario = Scenario::read(&folder().join(file)).expect("it is allowed");
    let options = RunOptions {
        scale,
        traces: Some(own_folder().join("tests/traces")),
        ..RunOptions::default()
    };
    let variants = scenario.variants().expect("they are allowed");
    let wanted = variants.iter().enumerate().filter(|(at, _)| wants(*at));
    let run = |(_, variant)| run(variant, &options, |_| {}).expect("nothing is broken");
    wanted.map(run).collect()
}

fn group<'r>(report: &'r Report, name: &str) -> &'r FrameworksReport {
    let found = report.frameworks.iter().find(|group| group.name == name);
    found.expect("the group is in the scenario")
}

fn p99(report: &Report, name: &str) -> f64 {
    group(report, name).wait.expect("some ran").p99
}

fn cpus_used(report: &Report) -> f64 {
    report.resources[0].used_mean
}

#[test]
fn every_scenario_of_the_folder_is_allowed_and_says_what_it_shows() {
    let files = std::fs::read_dir(folder()).expect("the folder");
    let mut count = 0;
    for file in files {
        let path = file.expect("an entry").path();
        let scenario = Scenario::read(&path).unwrap_or_else(|error| panic!("{error}"));
        scenario
            .variants()
            .unwrap_or_else(|error| panic!("{error}"));
        let text = std::fs::read_to_string(&path).expect("it was read");
        assert!(text.starts_with("# "), "{} says nothing", path.display());
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn sharing_uses_more_of_the_machines_than_a_quarter_each() {
    let reports = runs("nsdi11-sharing.toml", 0.25);
    let [shared, quarters] = &reports[..] else {
        panic!("a pair");
    };
    assert!(cpus_used(shared) > 1.3 * cpus_used(quarters));
    let [shared, quarters] = [shared, quarters].map(|it| group(it, "large-jobs").finished);
    assert!(2 * shared > 3 * quarters, "{shared} and {quarters}");
    let text = differences(&reports);
    assert!(text.contains("large-jobs: finished"), "{text}");
    assert!(page(&reports, &text).contains("Comparison"));
}

#[test]
fn what_a_hoarder_keeps_is_lost_to_others_until_it_is_taken_back() {
    let reports = runs("hoarder.toml", 0.2);
    let [long, short] = &reports[..] else {
        panic!("a pair");
    };
    assert!(group(long, "hoarder").rescinded > 0);
    assert!(p99(long, "worker") > 5.0 * p99(short, "worker"));
}

#[test]
fn shares_follow_weights_and_stop_at_limits() {
    let reports = runs("weights.toml", 0.4);
    let [equal, heavier, limited] = &reports[..] else {
        panic!("three runs");
    };
    let share = |report, name| group(report, name).share_mean;
    let ratio = share(equal, "ads") / share(equal, "index");
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
    let ratio = share(heavier, "ads") / share(heavier, "index");
    assert!((2.6..3.3).contains(&ratio), "{ratio}");
    // 80 of 320 cpus, and never more.
    let most = limited
        .series
        .frameworks
        .iter()
        .find(|it| it.name == "reports");
    let most = most
        .expect("it is there")
        .share
        .iter()
        .copied()
        .fold(0.0, f64::max);
    assert!((0.2..=0.25).contains(&most), "{most}");
}

#[test]
fn a_failover_loses_no_task_and_all_slaves_come_back() {
    let reports = runs("failover-10k.toml", 0.02);
    let report = &reports[0];
    assert_eq!(report.failovers.len(), 1);
    let failover = &report.failovers[0];
    assert_eq!(failover.slaves, 200);
    assert!(failover.led_after.expect("led") >= 1.0);
    // The silence that a slave notices, and the time between two attempts to find a master.
    assert!(failover.slaves_back_after.expect("back") < 15.0);
    assert!(failover.launched_after.expect("launched") < 30.0);
    let services = group(report, "service");
    assert_eq!(
        (services.lost, services.failed, services.finished),
        (0, 0, 0)
    );
    assert_eq!(services.live, 2_000);
    assert_eq!(group(report, "batch").lost, 0);
}

#[test]
fn a_slow_decider_keeps_a_quick_one_waiting() {
    let reports = some_runs("omega-slow-decider.toml", 0.2, |at| at == 0 || at == 5);
    let [first, last] = &reports[..] else {
        panic!("a sweep");
    };
    assert_eq!((first.step, last.step), (Some(0.1), Some(180.0)));
    assert!(p99(last, "quick") > 4.0 * p99(first, "quick"));
    let rows = differences(&reports).lines().count();
    assert_eq!(rows, 1 + 2 * reports.len());
}

#[test]
fn the_load_of_the_scale_scenario_is_launched_as_it_comes() {
    let report = &runs("scale-10k.toml", 0.01)[0];
    // A hundredth of 360,000.
    assert!((3_400..3_800).contains(&report.total.launched));
    assert_eq!((report.total.lost, report.total.pending), (0, 0));
    assert!(report.total.wait.expect("some ran").p50 < 1.0);
}

#[test]
fn real_traces_run_to_their_end() {
    let alibaba = &runs("alibaba.toml", 1.0)[0];
    assert!(alibaba.total.finished > 0);
    assert_eq!((alibaba.total.lost, alibaba.total.pending), (0, 0));

    let openb = &runs("openb.toml", 1.0)[0];
    assert_eq!(openb.slaves, 12);
    let gpus = openb.resources.iter().find(|it| it.name == "gpus");
    assert!(gpus.expect("there are some").used_max > 0.3);
    assert_eq!(openb.total.submitted, 200);

    let swf = &runs("swf-nasa.toml", 1.0)[0];
    assert!(group(swf, "nasa").finished > 500);
    assert!(group(swf, "philly").finished > 500);
}

#[test]
fn invariants_hold_in_a_scenario_that_is_checked_after_every_event() {
    let scenario = Scenario::read(&folder().join("failover-10k.toml")).expect("it is allowed");
    let options = RunOptions {
        scale: 0.002,
        checks: true,
        ..RunOptions::default()
    };
    let variants = scenario.variants().expect("allowed");
    let mut last = Duration::ZERO;
    let report = run(&variants[0], &options, |progress| {
        assert!(progress.simulated >= last && progress.simulated <= progress.duration);
        last = progress.simulated;
    });
    assert_eq!(report.expect("nothing is broken").failovers.len(), 1);
}
