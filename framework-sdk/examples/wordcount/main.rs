//! Counts the words of source code on a cluster: one map task for each crate, then a reduce task
//! for each part of the words, then a last merge that is checked against a count in this process.
//!
//! Tasks run this same program again and share a scratch directory with it, so all slaves have to
//! be on this machine, as those of `meros dev` are. See `wordcount --help`.

mod count;
mod job;
mod progress;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use meros_sdk::{SessionConfig, parse_masters};

use crate::count::{Counts, part_path};
use crate::job::{Job, Outcome, PARTS, map_output, reduce_output};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HELP: &str = "\
Counts the words of source code on a Meros cluster on this machine, and checks the result.

Usage: wordcount [OPTIONS]

  --master LIST     masters as host:port,host:port     [env MEROS_MASTER, default 127.0.0.1:5050]
  --identity DIR    certificate of this framework      [env MEROS_IDENTITY]
  --input DIR       each directory in it is one task   [default: every crate of the cargo registry]
  --scratch DIR     where to make a directory for intermediate files   [default: the temporary one]
  --timeout SECS    give up after this long            [default 600]
  --json            print the result as JSON
  --help            print this";

struct Options {
    master: Option<String>,
    identity: Option<PathBuf>,
    input: Option<PathBuf>,
    scratch: PathBuf,
    timeout: Duration,
    json: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let pieces: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match pieces[..] {
        ["map", dir, out] => map(Path::new(dir), Path::new(out)).map(|()| true),
        ["reduce", scratch, part, crates] => {
            reduce(Path::new(scratch), part, crates).map(|()| true)
        }
        ["--help" | "-h"] => {
            println!("{HELP}");
            Ok(true)
        }
        _ => options(&pieces).and_then(|options| framework(&options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprint!("wordcount: {error}");
            let mut next = error.source();
            while let Some(cause) = next {
                eprint!(": {cause}");
                next = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn options(pieces: &[&str]) -> Result<Options> {
    let mut options = Options {
        master: None,
        identity: None,
        input: None,
        scratch: std::env::temp_dir(),
        timeout: Duration::from_secs(600),
        json: false,
    };
    let mut pieces = pieces.iter();
    while let Some(piece) = pieces.next() {
        if *piece == "--json" {
            options.json = true;
            continue;
        }
        let known = [
            "--master",
            "--identity",
            "--input",
            "--scratch",
            "--timeout",
        ];
        if !known.contains(piece) {
            return Err(format!("{piece:?} is not an option: see wordcount --help").into());
        }
        let value = pieces
            .next()
            .ok_or_else(|| format!("{piece} needs a value"))?;
        match *piece {
            "--master" => options.master = Some((*value).to_owned()),
            "--identity" => options.identity = Some(value.into()),
            "--input" => options.input = Some(value.into()),
            "--scratch" => options.scratch = value.into(),
            _ => options.timeout = Duration::from_secs(value.parse()?),
        }
    }
    Ok(options)
}

/// A map task: the words of one crate, split into parts.
fn map(dir: &Path, out: &Path) -> Result<()> {
    let mut counts = Counts::default();
    counts.add_dir(dir)?;
    Ok(counts.write_parts(out, PARTS)?)
}

/// A reduce task: the sum of one part of all map tasks.
fn reduce(scratch: &Path, part: &str, crates: &str) -> Result<()> {
    let (part, crates): (u32, usize) = (part.parse()?, crates.parse()?);
    let mut counts = Counts::default();
    for number in 0..crates {
        counts.add_file(&part_path(&map_output(scratch, number), part))?;
    }
    Ok(counts.write(&reduce_output(scratch, part))?)
}

/// The framework itself. True if all went well and the result is right.
fn framework(options: &Options) -> Result<bool> {
    let crates = crates(options.input.as_deref())?;
    let scratch = tempfile::Builder::new()
        .prefix("meros-wordcount-")
        .tempdir_in(&options.scratch)?;
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let mut job = Job::new(program, crates.clone(), scratch.path());
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            ended = run(options, &mut job) => ended,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                Err("interrupted: the cluster ends the tasks in half a minute".into())
            }
        }
    })?;
    if let Some(failure) = &job.outcome.failure {
        return Err(failure.clone().into());
    }
    let mut counts = Counts::default();
    for part in 0..PARTS {
        counts.add_file(&reduce_output(scratch.path(), part))?;
    }
    let mut alone = Counts::default();
    crates.iter().try_for_each(|dir| alone.add_dir(dir))?;
    let right = job.outcome.complete && counts == alone;
    report(options.json, &job.outcome, &counts, crates.len(), right)?;
    Ok(right)
}

async fn run(options: &Options, job: &mut Job) -> Result<()> {
    let mut config = match &options.identity {
        Some(identity) => SessionConfig::new("wordcount", Vec::new(), identity),
        None => SessionConfig::from_env("wordcount")?,
    };
    let masters = options
        .master
        .clone()
        .or_else(|| std::env::var("MEROS_MASTER").ok());
    config.masters = parse_masters(masters.as_deref().unwrap_or("127.0.0.1"))?;
    // Nobody comes back for the tasks of a word count that was killed.
    config.framework.failover_timeout = Duration::from_secs(30);
    match tokio::time::timeout(options.timeout, meros_sdk::run(config, job)).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Err(format!("not done after {:?}", options.timeout).into()),
    }
}

/// The directories to count, in a fixed order.
fn crates(input: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut crates = Vec::new();
    match input {
        Some(dir) => add_directories(dir, &mut crates)?,
        None => {
            let home = std::env::var_os("CARGO_HOME")
                .map(PathBuf::from)
                .or_else(|| {
                    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"))
                });
            let home = home.ok_or("neither CARGO_HOME nor HOME is set: give --input")?;
            let mut registries = Vec::new();
            add_directories(&home.join("registry/src"), &mut registries)?;
            registries
                .iter()
                .try_for_each(|dir| add_directories(dir, &mut crates))?;
        }
    }
    if crates.is_empty() {
        return Err("there is nothing to count: give --input a directory of directories".into());
    }
    crates.sort();
    Ok(crates)
}

fn add_directories(dir: &Path, to: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir)
        .map_err(|error| format!("failed to read the input {}: {error}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            to.push(std::path::absolute(path)?);
        }
    }
    Ok(())
}

fn report(
    json: bool,
    outcome: &Outcome,
    counts: &Counts,
    crates: usize,
    right: bool,
) -> Result<()> {
    let tasks = outcome.tasks_per_slave.values().sum::<u64>();
    let seconds = outcome.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 tasks")]
    let rate = tasks as f64 / seconds.max(1e-9);
    let top = counts.top(10);
    if json {
        let report = serde_json::json!({
            "crates": crates,
            "tasks": tasks,
            "repeated": outcome.repeated,
            "pauses": outcome.pauses.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
            "seconds": seconds,
            "tasks_per_second": rate,
            "tasks_per_slave": outcome.tasks_per_slave,
            "words": counts.total(),
            "distinct_words": counts.distinct(),
            "top": top,
            "right": right,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!(
        "\n{} words, {} of them distinct, in {crates} crates",
        counts.total(),
        counts.distinct()
    );
    for (word, count) in top {
        println!("{count:>10}  {word}");
    }
    println!("\ntasks per slave:");
    for (slave, tasks) in &outcome.tasks_per_slave {
        println!("{tasks:>10}  {slave}");
    }
    println!(
        "\n{tasks} tasks in {seconds:.1} s: {rate:.1} tasks/s, {} repeated",
        outcome.repeated
    );
    for pause in &outcome.pauses {
        println!("the leading master was lost: offers paused for {pause:.2?}");
    }
    let verdict = if right {
        "the same as"
    } else {
        "NOT THE SAME AS"
    };
    println!("the result is {verdict} that of a count in one process");
    Ok(())
}
