use std::ops::Range;

use super::*;

/// Runs each seed twice: nothing is broken, and the same happens (W11).
fn are_quiet(seeds: Range<u64>) {
    let bounds = Bounds::default();
    let mut steps = 0;
    for seed in seeds {
        let [first, second] = [0, 1].map(|_| replay(seed, &bounds, 0));
        assert_eq!(first, second, "seed {seed} is not one run");
        if first.broken.is_some() {
            let report = check(seed, 1, &bounds, 1, |_| {});
            panic!("{}", report.failures[0]);
        }
        steps += first.steps;
    }
    assert!(steps > 100_000, "only {steps} things happened");
}

/// Several tests, so that each core of the machine runs some.
macro_rules! seeds {
    ($($name:ident: $seeds:expr,)+) => {
        $(#[test]
        fn $name() {
            are_quiet($seeds);
        })+
    };
}

seeds! {
    seeds_0_to_99_break_nothing: 0..100,
    seeds_100_to_199_break_nothing: 100..200,
    seeds_200_to_299_break_nothing: 200..300,
    seeds_300_to_399_break_nothing: 300..400,
    seeds_400_to_499_break_nothing: 400..500,
    seeds_500_to_599_break_nothing: 500..600,
}

#[test]
fn every_kind_of_fault_and_the_rare_events_are_met() {
    let report = check(0, 100, &Bounds::default(), 1, |_| {});
    // It would stop there, and have met too little.
    if let Some(failure) = report.failures.first() {
        panic!("{failure}");
    }
    for what in [
        "a client is told who leads",
        "a clock jumps",
        "a connection breaks",
        "a framework crashes",
        "a host reboots",
        "a host reboots with an empty disk",
        "a master crashes",
        "a master is cut off from the others",
        "a message overtaken by a later connection's",
        "a partition",
        "a partition in one direction",
        "a process stands still",
        "a quota is set",
        "a proposal of a deposed master",
        "a slave crashes",
        "a slave is stopped",
        "a slave leaves",
        "a slow disk",
        "a weight is set",
        "a minimum is set",
        "an order that is carried out",
        "an order that is refused",
        "a volume that grows",
        "a volume that shrinks",
        "a group ends early",
        "a group of tasks",
        "an executor ends with tasks",
        "an executor loses its connection",
        "an executor repeats what it said",
        "an executor runs two tasks at once",
        "an update that comes twice",
        "the leader is deposed",
        "two masters lead at once",
    ] {
        assert!(report.met.contains_key(what), "{what}: {:?}", report.met);
    }
}

#[test]
fn other_seeds_are_other_runs() {
    let bounds = Bounds::default();
    assert_ne!(replay(1, &bounds, 0).hash, replay(2, &bounds, 0).hash);
}

#[test]
fn seeds_that_once_found_something_are_quiet() {
    let listed = include_str!("../../../docs/seeds.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    for line in listed {
        let seed = line
            .split_whitespace()
            .next()
            .expect("a line begins with its seed");
        let seed = seed.parse().expect("a number");
        let outcome = replay(seed, &Bounds::default(), 0);
        assert_eq!(outcome.broken, None, "{line}");
    }
}
