//! `cargo xtask test`: everything that must pass. Reads only; `cargo xtask fix` writes.

use std::num::NonZeroUsize;
use std::thread;

use crate::step::{self, Step};

/// As many tests at a time as .config/nextest.toml says, which knows no formula.
const THREADS: usize = 4;

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Full,
    /// What a change breaks most often: format, clippy, tests.
    Quick,
}

/// What runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// A process and a time limit for each test (.config/nextest.toml).
    Nextest,
    /// What every machine with cargo has. To compile nextest would double the time of a first
    /// run, so it is used when it is there and not asked for.
    CargoTest,
}

impl Runner {
    /// Nextest, if it is installed and as new as its configuration asks.
    pub(crate) fn detect() -> Self {
        let version = step::cargo()
            .args(["nextest", "show-config", "version"])
            .current_dir(step::root())
            .output();
        match version {
            Ok(output) if output.status.success() => Self::Nextest,
            _ => Self::CargoTest,
        }
    }
}

/// The steps of a run, in order.
///
/// Dependencies are compiled once for all of them: each command selects the whole workspace, so
/// that features unify alike, and stays in the dev profile. `build` names the examples because
/// without a target of that kind cargo leaves the features of dev-dependencies out and compiles
/// several crates again. The benchmarks run once to see that they work; how fast they are is for
/// their own profile, in a run of their own.
pub(crate) fn steps(scope: Scope, runner: Runner) -> Vec<Step> {
    let clippy = "cargo clippy --locked --workspace --all-targets --all-features -- -D warnings";
    let tests = match runner {
        Runner::Nextest => "cargo nextest run --locked --workspace",
        Runner::CargoTest => {
            "cargo test --locked --workspace --no-fail-fast --lib --bins --tests --examples"
        }
    };
    let mutants = match runner {
        Runner::Nextest => {
            "cargo nextest run --locked --workspace --features meros-sim/mutants --test mutants"
        }
        Runner::CargoTest => {
            "cargo test --locked --workspace --features meros-sim/mutants --test mutants"
        }
    };
    let mut tests = Step::new("tests", tests);
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if cores > THREADS {
        tests = tests.with("NEXTEST_TEST_THREADS", cores.to_string());
    }
    let mut steps = vec![
        Step::new("format", "cargo fmt --all --check"),
        Step::new("clippy", clippy),
        // The end-to-end tests start the real `meros`, which lies beside them in the target folder.
        Step::new(
            "build",
            "cargo build --locked --workspace --bins --examples",
        )
        .gating(),
        tests,
        // Known bugs in the cores are found. Of this one test, so that the feature reaches no `meros`;
        // in the workspace, so that dependencies keep the features with which they are compiled.
        Step::new("mutants", mutants),
    ];
    if scope == Scope::Full {
        steps.extend([
            Step::new("doc tests", "cargo test --locked --workspace --doc"),
            // With what is documented for tests of frameworks, which no program has.
            Step::new(
                "documentation",
                "cargo doc --locked --workspace --no-deps --features meros-sdk/test-kit",
            )
            .with("RUSTDOCFLAGS", "-D warnings"),
            Step::new(
                "benchmarks",
                "cargo bench --locked --workspace --profile dev --bench * -- --test",
            ),
            Step::new("tidy", "cargo xtask tidy"),
        ]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_is_the_start_of_a_full_one() {
        for runner in [Runner::Nextest, Runner::CargoTest] {
            let names = |scope| {
                steps(scope, runner)
                    .iter()
                    .map(|step| step.name)
                    .collect::<Vec<_>>()
            };
            let (quick, full) = (names(Scope::Quick), names(Scope::Full));
            assert!(
                full.starts_with(&quick) && full.len() > quick.len(),
                "{quick:?} {full:?}"
            );
        }
    }

    #[test]
    fn the_binary_is_built_before_the_tests_that_start_it() {
        let steps = steps(Scope::Quick, Runner::CargoTest);
        let place = |name| steps.iter().position(|step| step.name == name).unwrap();
        assert!(place("build") < place("tests") && steps[place("build")].gates);
    }

    #[test]
    fn no_step_of_the_test_run_writes_to_the_sources() {
        for step in steps(Scope::Full, Runner::Nextest) {
            let shown = step.to_string();
            assert!(!shown.contains("--fix"), "{shown}");
            assert!(
                !shown.contains("cargo fmt") || shown.contains("--check"),
                "{shown}"
            );
        }
    }
}
