//! What is typed: `meros sim …`, and `meros-sim …`, which is the same without the rest of Meros and
//! so compiles in a minute (no rocksdb).

use std::time::{Duration, Instant};

use clap::{Subcommand, value_parser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::scenario::RunArgs;
use crate::{Bounds, Report, check, replay};

/// The most seeds of one run: half a year of them, on one core.
const SEEDS_MAX: u64 = 1_000_000_000;
/// Failures beyond this tell nothing new.
const FAILURES_MAX: u64 = 10_000;

/// The simulated datacenter: the real master, slaves and driver in virtual time.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run seeds with faults, and demand that everything comes to its end afterwards
    Check(CheckArgs),
    /// Run one seed again, and show what happens
    Replay(ReplayArgs),
    /// Run a scenario, and report what it shows
    Run(RunArgs),
}

/// `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// How many seeds to run
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = value_parser!(u64).range(..=u64::MAX - SEEDS_MAX))]
    start: u64,
    /// Stop after so many that break something
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u64).range(1..=FAILURES_MAX))]
    failures: u64,
}

/// `replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// As printed by `check`
    seed: u64,
    /// Show only so many of the last lines
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl Command {
    /// Does it; prints what it finds to stdout, and progress to a terminal at stderr. True if nothing
    /// is broken.
    #[must_use]
    pub fn run(&self) -> bool {
        match self {
            Self::Check(args) => run_check(args),
            Self::Replay(args) => run_replay(args),
            Self::Run(args) => args
                .run()
                .inspect_err(|why| eprintln!("error: {why}"))
                .is_ok(),
        }
    }
}

fn run_check(args: &CheckArgs) -> bool {
    // Hidden unless stderr is a terminal.
    let bar = ProgressBar::with_draw_target(Some(args.seeds), ProgressDrawTarget::stderr());
    let style = "{elapsed_precise} {bar:30} {pos}/{len} seeds  {per_sec}  {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("a well-formed template"));
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast it is, for people; no run depends on it"
    )]
    let began = Instant::now();
    let mut broken = 0_u64;
    let failures = usize::try_from(args.failures).expect("a small bound");
    let report = check(
        args.start,
        args.seeds,
        &Bounds::default(),
        failures,
        |outcome| {
            bar.inc(1);
            if let Some(what) = &outcome.broken {
                broken += 1;
                bar.set_message(format!("{broken} broken"));
                bar.suspend(|| println!("seed {}: {what}", outcome.seed));
            }
        },
    );
    bar.finish_and_clear();
    for failure in &report.failures {
        println!("\n{failure}");
    }
    println!("{}", summary(&report, args.start, began.elapsed()));
    report.failures.is_empty()
}

fn summary(report: &Report, start: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let [seeds, steps] = [report.seeds, report.steps].map(|count| count as f64 / seconds);
    format!(
        "{} seeds from {start}, {} broken; {} things happened in {:.1} virtual hours; \
         {seconds:.1} s, {seeds:.0} seeds/s, {steps:.0} things/s",
        report.seeds,
        report.failures.len(),
        report.steps,
        report.elapsed.as_secs_f64() / 3_600.0,
    )
}

fn run_replay(args: &ReplayArgs) -> bool {
    let outcome = replay(
        args.seed,
        &Bounds::default(),
        args.last.unwrap_or(usize::MAX),
    );
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "{} things happened in {:.0} virtual seconds, hash {:016x}",
        outcome.steps,
        outcome.elapsed.as_secs_f64(),
        outcome.hash
    );
    match &outcome.broken {
        Some(broken) => println!("{broken}"),
        None => println!("nothing is broken"),
    }
    outcome.broken.is_none()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("meros-sim").chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(typed.command)
    }

    #[test]
    fn absurd_numbers_and_unknown_options_are_refused_by_name() {
        for (line, names) in [
            ("check --seeds 0", "--seeds"),
            ("check --seeds 99999999999", "--seeds"),
            ("check --seeds many", "--seeds"),
            ("check --start 18446744073709551615", "--start"),
            ("check --failures 0", "--failures"),
            ("check --sides 3", "--sides"),
            ("replay", "<SEED>"),
            ("replay x", "<SEED>"),
            ("repeat 3", "repeat"),
            ("run", "<FILE>"),
            ("run a.toml --scale 0", "--scale"),
            ("run a.toml --scale NaN", "--scale"),
            ("run a.toml --scale 1e9", "--scale"),
            ("run a.toml --output xml", "--output"),
            ("run a.toml --seed=-1", "--seed"),
            ("run a.toml --sead 1", "--sead"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(names), "{line}: {error}");
        }
    }

    #[test]
    fn a_scenario_that_is_not_there_fails_and_writes_no_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("page.html");
        let line = format!("run /nowhere/s.toml --html {}", page.display());
        assert!(!parse(&line).expect("fine").run());
        assert!(!page.exists());
    }

    #[test]
    fn a_scenario_is_run_and_its_page_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("page.html");
        let own = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let file = format!("{own}/../scenarios/hoarder.toml");
        let line = format!(
            "run {file} --scale 0.02 --output json --html {}",
            page.display()
        );
        assert!(parse(&line).expect("fine").run());
        let page = std::fs::read_to_string(page).expect("written");
        assert!(page.contains("a framework that hoards offers"));
        assert!(page.contains("<h2>Comparison</h2>"));
    }

    #[test]
    fn a_check_that_finds_nothing_succeeds_and_a_replay_shows_the_same_run() {
        assert!(parse("check --seeds 2 --start 7").expect("fine").run());
        assert!(parse("replay 7 --last 3").expect("fine").run());
    }
}
