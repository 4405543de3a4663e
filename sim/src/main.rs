//! `meros-sim check [--start S] [--seeds N]` and `meros-sim replay SEED`, until `meros sim` has them.

use std::process::ExitCode;
use std::time::Instant;

use meros_sim::{Bounds, check, replay};

const USAGE: &str =
    "usage: meros-sim check [--start S] [--seeds N] [--failures N] | meros-sim replay SEED";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// True if nothing is broken.
fn run(arguments: &[String]) -> Result<bool, String> {
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["check", options @ ..] => run_check(options),
        ["replay", seed] => {
            let outcome = replay(number(seed)?, &Bounds::default(), usize::MAX);
            outcome.lines.iter().for_each(|line| println!("{line}"));
            println!(
                "{} things happened in {:?}, hash {:016x}",
                outcome.steps, outcome.elapsed, outcome.hash
            );
            match &outcome.broken {
                Some(broken) => println!("{broken}"),
                None => println!("nothing is broken"),
            }
            Ok(outcome.broken.is_none())
        }
        _ => Err("what is to be done?".to_owned()),
    }
}

fn run_check(options: &[&str]) -> Result<bool, String> {
    let (mut start, mut seeds, mut failures) = (0, 200, 5);
    for pair in options.chunks(2) {
        match pair {
            ["--start", value] => start = number(value)?,
            ["--seeds", value] => seeds = number(value)?,
            ["--failures", value] => failures = number(value)?,
            _ => return Err(format!("{} is not an option with a value", pair.join(" "))),
        }
    }
    let failures = usize::try_from(failures).map_err(|error| error.to_string())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast it is, for people; no run depends on it"
    )]
    let began = Instant::now();
    let report = check(start, seeds, &Bounds::default(), failures, |outcome| {
        if let Some(broken) = &outcome.broken {
            eprintln!("seed {}: {broken}", outcome.seed);
        }
    });
    report
        .failures
        .iter()
        .for_each(|failure| println!("{failure}\n"));
    println!(
        "{} seeds from {start}, {} broken; {} things happened in {:.1} virtual hours, {:.1} s",
        report.seeds,
        report.failures.len(),
        report.steps,
        report.elapsed.as_secs_f64() / 3_600.0,
        began.elapsed().as_secs_f64(),
    );
    Ok(report.failures.is_empty())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is not a number: {error}"))
}
