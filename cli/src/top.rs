//! `meros top TASK`: what the container of a task uses, again and again.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use meros_proto::ids::FrameworkId;
use serde::{Deserialize, Serialize};

use crate::client::{Client, ClusterArgs, escaped};
use crate::exit::{CliError, Exit};
use crate::logs::{find_task, slave_of};
use crate::output::Output;
use crate::output::table::layout;

/// Home, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What `meros top` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's id
    task: String,
    /// Its framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    /// Between two looks, from 100ms on
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// One table, of one interval; as JSON one look
    #[arg(long)]
    once: bool,
    /// For whom to print: JSON is the counters as the slave tells them, a line for each look
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// As slaves tell it. Times are microseconds, sizes bytes; none is not known there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Usage {
    framework_id: Option<FrameworkId>,
    task_id: String,
    container: String,
    at_us: u64,
    cpu_us: Option<u64>,
    cpu_throttled_us: Option<u64>,
    cpu_periods: Option<u64>,
    cpu_throttled_periods: Option<u64>,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    memory_limit_hits: Option<u64>,
    oom_kills: Option<u64>,
    pids: Option<u64>,
    pids_refused: Option<u64>,
    io_read_bytes: Option<u64>,
    io_written_bytes: Option<u64>,
    cpu_stalled_us: Option<u64>,
    memory_stalled_us: Option<u64>,
    io_stalled_us: Option<u64>,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    if args.interval < INTERVAL_MIN {
        return Err(CliError::usage(format!(
            "--interval is {:?}: it must be {INTERVAL_MIN:?} or longer",
            args.interval
        )));
    }
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    let slave = slave_of(&client, &task)?;
    let path = format!(
        "/api/v1/usage/{}/{}",
        task.framework_id,
        escaped(task.task_id.as_str())
    );
    let mut before: Usage = client.of_slave(&slave, &path)?;
    if args.output == Output::Json {
        loop {
            print_line(&before)?;
            if args.once {
                return Ok(Exit::Success);
            }
            std::thread::sleep(args.interval);
            before = client.of_slave(&slave, &path)?;
        }
    }
    let clear = if stdout().is_terminal() && !args.once {
        CLEAR
    } else {
        ""
    };
    loop {
        std::thread::sleep(args.interval);
        let now: Usage = client.of_slave(&slave, &path)?;
        println!("{clear}{}", table(&before, &now));
        if args.once {
            return Ok(Exit::Success);
        }
        before = now;
    }
}

fn print_line(usage: &Usage) -> Result<(), CliError> {
    let line = serde_json::to_string(usage)
        .map_err(|error| CliError::failure(format!("cannot write JSON: {error}")))?;
    let mut out = stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failure(format!("cannot write the output: {error}")))
}

/// What there is, what it was in this interval, and in all.
fn table(before: &Usage, now: &Usage) -> String {
    let passed = now.at_us.saturating_sub(before.at_us).max(1);
    let grown = |of: fn(&Usage) -> Option<u64>| {
        let (now, before) = (of(now)?, of(before)?);
        Some(now.saturating_sub(before))
    };
    // Hundredths, so that no number is rounded but here.
    let share = |of: fn(&Usage) -> Option<u64>| {
        let hundredths = u128::from(grown(of)?) * 10_000 / u128::from(passed);
        Some(format!("{}.{:02} %", hundredths / 100, hundredths % 100))
    };
    let rate = |of: fn(&Usage) -> Option<u64>| {
        let bytes = u128::from(grown(of)?) * 1_000_000 / u128::from(passed);
        Some(format!(
            "{}/s",
            size(u64::try_from(bytes).unwrap_or(u64::MAX))
        ))
    };
    let seconds = |micros: Option<u64>| {
        micros.map(|it| format!("{}.{:02} s", it / 1_000_000, it % 1_000_000 / 10_000))
    };
    let count = |number: Option<u64>| number.map(|it| it.to_string());
    let of_limit = now.memory_bytes.zip(now.memory_limit_bytes);
    let of_limit = of_limit.map(|(used, limit)| {
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        format!("{percent} % of {}", size(limit))
    });
    let rows = [
        ("cpu", share(|it| it.cpu_us), seconds(now.cpu_us)),
        (
            "cpu throttled",
            share(|it| it.cpu_throttled_us),
            seconds(now.cpu_throttled_us),
        ),
        (
            "cpu pressure",
            share(|it| it.cpu_stalled_us),
            seconds(now.cpu_stalled_us),
        ),
        ("memory", now.memory_bytes.map(size), of_limit),
        ("memory peak", now.memory_peak_bytes.map(size), None),
        (
            "memory pressure",
            share(|it| it.memory_stalled_us),
            seconds(now.memory_stalled_us),
        ),
        (
            "memory limit hits",
            count(grown(|it| it.memory_limit_hits)),
            count(now.memory_limit_hits),
        ),
        (
            "oom kills",
            count(grown(|it| it.oom_kills)),
            count(now.oom_kills),
        ),
        (
            "io read",
            rate(|it| it.io_read_bytes),
            now.io_read_bytes.map(size),
        ),
        (
            "io written",
            rate(|it| it.io_written_bytes),
            now.io_written_bytes.map(size),
        ),
        (
            "io pressure",
            share(|it| it.io_stalled_us),
            seconds(now.io_stalled_us),
        ),
        ("processes", count(now.pids), None),
        (
            "forks refused",
            count(grown(|it| it.pids_refused)),
            count(now.pids_refused),
        ),
        (
            "stdout",
            rate(|it| Some(it.stdout_bytes)),
            Some(size(now.stdout_bytes)),
        ),
        (
            "stderr",
            rate(|it| Some(it.stderr_bytes)),
            Some(size(now.stderr_bytes)),
        ),
    ];
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = rows.map(|(what, now, total)| vec![what.to_owned(), cell(now), cell(total)]);
    layout(&[now.task_id.as_str(), "NOW", "IN ALL"], rows.into(), "")
}

/// In the largest unit of which there is one, with one digit behind the point.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Reply, Stub};

    #[test]
    fn a_table_shows_shares_rates_and_what_is_not_known() {
        let before = Usage {
            task_id: "web.1".to_owned(),
            at_us: 5_000_000,
            cpu_us: Some(1_000_000),
            io_read_bytes: Some(0),
            oom_kills: Some(1),
            memory_bytes: Some(1 << 20),
            ..Usage::default()
        };
        let now = Usage {
            at_us: 7_000_000,
            cpu_us: Some(4_000_000),
            io_read_bytes: Some(3 << 20),
            oom_kills: Some(3),
            memory_bytes: Some(48 << 20),
            memory_limit_bytes: Some(64 << 20),
            ..before.clone()
        };
        let text = table(&before, &now);
        let row = |what: &str| {
            let line = text.lines().find(|line| line.starts_with(what)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(text.starts_with("web.1"), "{text}");
        assert_eq!(row("cpu "), "cpu 150.00 % 4.00 s");
        assert_eq!(row("memory "), "memory 48.0 MiB 75 % of 64.0 MiB");
        assert_eq!(row("io read"), "io read 1.5 MiB/s 3.0 MiB");
        assert_eq!(row("oom kills"), "oom kills 2 3");
        assert_eq!(row("io pressure"), "io pressure - -");
        // Counters of another container, perhaps: less than before is none.
        assert!(table(&now, &before).contains("0.00 %"));
    }

    #[test]
    fn what_a_newer_slave_tells_besides_is_no_error() {
        let slave = Stub::start(|path| {
            (path == "/u").then(|| Reply::ok(r#"{"at_us":7,"pids":2,"more":[1]}"#))
        });
        let address = slave.address.to_string();
        let usage: Usage = slave.client().of_slave(&address, "/u").unwrap();
        assert_eq!((usage.at_us, usage.pids, usage.cpu_us), (7, Some(2), None));
    }

    #[test]
    fn sizes_have_the_largest_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
