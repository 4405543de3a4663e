//! `instructions`: how many instructions the hottest functions of the allocator take, counted by valgrind's callgrind. The counts are the same in each run, so that commits can be compared
//! on a busy machine. Without valgrind nothing is counted, and that is said.
//!
//! Each is counted in a process of its own: this program, called with `--measure NAME SLAVES`.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use meros_benches::cluster::{Cluster, FOR_EVER};

/// So few that valgrind is done within seconds, and enough for orders to be deep.
const SLAVES: u32 = 2_000;
/// As a test it shows only that counts are the same each time.
const SLAVES_IN_TEST: u32 = 50;
const SLAVES_PER_FRAMEWORK: u32 = 5;

/// A name, what is counted per slave, and the function that is counted.
const MEASURED: [(&str, &str, &str); 5] = [
    ("round", "an offer of a round", "*measured_round*"),
    ("decline", "a decline with a filter", "*measured_declines*"),
    (
        "completion",
        "resources freed and offered again",
        "*measured_completions*",
    ),
    (
        "add",
        "a slave that comes, in use in part, and is offered",
        "*measured_additions*",
    ),
    (
        "update",
        "a slave that has more and is offered again",
        "*measured_updates*",
    ),
];

#[inline(never)]
fn measured_round(cluster: &mut Cluster) {
    cluster.plan();
}

#[inline(never)]
fn measured_declines(cluster: &mut Cluster) {
    cluster.give_back(Some(FOR_EVER));
}

#[inline(never)]
fn measured_completions(cluster: &mut Cluster) {
    let mut held = std::mem::take(&mut cluster.grants);
    for grant in &mut held {
        let resources = grant.resources.clone();
        cluster
            .allocator
            .release(grant.framework, &grant.role, grant.slave, resources);
        cluster.allocator.plan(&mut cluster.grants);
    }
}

#[inline(never)]
fn measured_additions(cluster: &mut Cluster, slaves: u32) {
    cluster.add_slaves_one_by_one(slaves);
}

#[inline(never)]
fn measured_updates(cluster: &mut Cluster, slaves: u32) {
    cluster.grow_slaves_one_by_one(slaves);
}

fn measure(name: &str, slaves: u32) {
    let mut cluster = Cluster::fragmented(slaves, slaves / SLAVES_PER_FRAMEWORK, 1_024);
    // The second round is like all later ones: what is remembered of the first is there.
    cluster.plan();
    cluster.give_back(None);
    match name {
        "round" => measured_round(&mut cluster),
        "decline" => {
            cluster.plan();
            measured_declines(&mut cluster);
            cluster.plan();
        }
        "completion" => {
            cluster.plan();
            measured_completions(&mut cluster);
        }
        "add" => {
            cluster = Cluster::empty(slaves / SLAVES_PER_FRAMEWORK);
            cluster.activate_all();
            measured_additions(&mut cluster, slaves);
        }
        "update" => {
            cluster = Cluster::full(slaves, slaves / SLAVES_PER_FRAMEWORK);
            measured_updates(&mut cluster, slaves);
        }
        other => panic!("{other} is not measured"),
    }
    let rounds = if name == "update" { 2 } else { 1 };
    assert_eq!(black_box(&cluster.grants).len(), (rounds * slaves) as usize);
}

/// The instructions of one function and all that it calls.
fn count(name: &str, function: &str, slaves: u32, folder: &Path) -> u64 {
    let out = folder.join(name);
    let program = std::env::current_exe().expect("a program knows itself");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={function}"))
        .arg(program)
        .args(["--measure", name, &slaves.to_string()])
        .output()
        .expect("valgrind was there a moment ago");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind failed: {said}");
    let counts = std::fs::read_to_string(&out).expect("callgrind wrote its counts");
    let totals = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let count = totals.and_then(|text| text.trim().parse().ok());
    count.expect("callgrind's file has the totals")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|it| it == "--measure") {
        let slaves = arguments[at + 2].parse().expect("a number of slaves");
        measure(&arguments[at + 1], slaves);
        return ExitCode::SUCCESS;
    }
    let is_there = Command::new("valgrind").arg("--version").output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        println!("instructions: skipped, because valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a folder for callgrind's files");
    let is_test = arguments.iter().any(|it| it == "--test");
    let (slaves, runs) = if is_test {
        (SLAVES_IN_TEST, 2)
    } else {
        (SLAVES, 1)
    };
    for (name, what, function) in MEASURED {
        let counts: Vec<u64> = (0..runs)
            .map(|_| count(name, function, slaves, folder.path()))
            .collect();
        assert!(
            counts.iter().all(|it| *it == counts[0]),
            "{name}: {counts:?}"
        );
        assert!(counts[0] > u64::from(slaves), "{name} was not counted");
        let frameworks = slaves / SLAVES_PER_FRAMEWORK;
        let each = counts[0] / u64::from(slaves);
        println!("allocator/instructions/{name}/{slaves}x{frameworks}: {each} for {what}");
    }
    ExitCode::SUCCESS
}
