use super::*;

#[test]
fn two_hundred_seeds_break_nothing() {
    let report = check(0, 200, &Bounds::default(), 3, |_| {});
    if let Some(failure) = report.failures.first() {
        panic!("{failure}");
    }
    assert_eq!(report.seeds, 200);
    assert!(
        report.steps > 200_000,
        "only {} things happened",
        report.steps
    );
}

#[test]
fn a_seed_is_one_run() {
    // W11
    for seed in 0..10 {
        let [first, second] = [0, 1].map(|_| replay(seed, &Bounds::default(), 0));
        assert_eq!(first, second, "seed {seed}");
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
