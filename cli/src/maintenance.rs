//! `meros maintenance set|list|cancel`: when slaves will not be available, told to frameworks ahead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meros_proto::ids::SlaveId;
use meros_proto::time::Timestamp;
use meros_proto::view::SlaveRow;
use serde::Serialize;

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::layout;
use crate::why::slave_id;

/// `meros maintenance …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the slaves whose maintenance is planned
    List(list::Args),
    /// Plan when slaves will not be available: for all that are named, or for none
    ///
    /// Frameworks hear of it in each offer, and can keep long tasks elsewhere. Nothing else happens by
    /// itself: `meros slaves drain` empties a slave when the time has come.
    #[command(
        after_help = "Example:\n  meros maintenance set m3.example m4.example --start 2h --duration 30min"
    )]
    Set {
        /// Slaves, by id or host name
        #[arg(required = true, value_name = "SLAVE")]
        slaves: Vec<String>,
        /// From when: a time such as 2030-01-31T22:00:00Z, or in how long, such as 2h
        #[arg(long, value_parser = parse_start)]
        start: Start,
        /// For how long, such as 30min; for good if not given
        #[arg(long, value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Call the maintenance of slaves off
    Cancel {
        /// Slaves, by id or host name
        #[arg(required_unless_present = "all", value_name = "SLAVE")]
        slaves: Vec<String>,
        /// Of all slaves
        #[arg(long, conflicts_with = "slaves")]
        all: bool,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// When a window begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    At(SystemTime),
    In(Duration),
}

fn parse_start(text: &str) -> Result<Start, String> {
    let at = humantime::parse_rfc3339_weak(text).map(Start::At);
    let either = at.or_else(|_| humantime::parse_duration(text).map(Start::In));
    either.map_err(|_| {
        "write a time such as 2030-01-31T22:00:00Z, or in how long, such as 2h".to_owned()
    })
}

#[derive(Debug, Default, Serialize)]
struct Plan {
    windows: Vec<Window>,
    cancel: Vec<SlaveId>,
    replace: bool,
}

#[derive(Debug, Serialize)]
struct Window {
    slaves: Vec<SlaveId>,
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
}

/// A planned maintenance, as `meros maintenance list -o json` prints it.
#[derive(Debug, Serialize)]
struct Planned {
    slave_id: SlaveId,
    hostname: String,
    start: String,
    duration: Option<String>,
    is_over: bool,
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::List(args) => print_list(args),
        Command::Set {
            slaves,
            start,
            duration,
            cluster,
        } => {
            let client = Client::new(cluster);
            let start = match start {
                Start::At(at) => *at,
                Start::In(after) => SystemTime::now() + *after,
            };
            let window = Window {
                slaves: ids(&client, slaves)?,
                start: humantime::format_rfc3339_seconds(start).to_string(),
                duration: duration.map(|it| humantime::format_duration(it).to_string()),
            };
            println!("planned from {}", window.start);
            let plan = Plan {
                windows: vec![window],
                ..Plan::default()
            };
            send(&client, &plan)
        }
        Command::Cancel {
            slaves,
            all,
            cluster,
        } => {
            let client = Client::new(cluster);
            let plan = Plan {
                cancel: ids(&client, slaves)?,
                replace: *all,
                ..Plan::default()
            };
            send(&client, &plan)
        }
    }
}

fn send(client: &Client, plan: &Plan) -> Result<Exit, CliError> {
    let _: serde::de::IgnoredAny = client.order("/api/v1/maintenance", plan)?;
    println!("frameworks hear of it with their next offers");
    Ok(Exit::Success)
}

fn ids(client: &Client, names: &[String]) -> Result<Vec<SlaveId>, CliError> {
    names.iter().map(|name| slave_id(client, name)).collect()
}

fn print_list(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<SlaveRow> = Client::new(&args.cluster).list("/api/v1/slaves")?;
    let now = list::now();
    let planned = |row: SlaveRow| {
        let window = row.slave.unavailability?;
        Some(Planned {
            slave_id: row.slave.slave_id,
            hostname: row.slave.hostname,
            start: time(window.start),
            duration: window
                .duration
                .map(|it| humantime::format_duration(it).to_string()),
            is_over: window.is_over(now),
        })
    };
    let planned: Vec<Planned> = rows.into_iter().filter_map(planned).collect();
    print(args.output, &planned, |planned| {
        let line = |it: &Planned| {
            let duration = match (&it.duration, it.is_over) {
                (None, _) => "for good".to_owned(),
                (Some(duration), false) => duration.clone(),
                (Some(duration), true) => format!("{duration}, over"),
            };
            vec![
                it.slave_id.to_string(),
                it.hostname.clone(),
                it.start.clone(),
                duration,
            ]
        };
        layout(
            &["SLAVE", "HOST", "FROM", "FOR"],
            planned.iter().map(line).collect(),
            "no maintenance is planned",
        )
    })?;
    Ok(Exit::Success)
}

/// As RFC 3339 has it; times beyond what it can write end there.
fn time(at: Timestamp) -> String {
    /// The end of the year 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = at.since(Timestamp::default()).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_at_a_time_or_in_a_while() {
        let at = UNIX_EPOCH + Duration::from_secs(1_896_127_200);
        assert_eq!(parse_start("2030-01-31T22:00:00Z"), Ok(Start::At(at)));
        assert_eq!(parse_start("2h"), Ok(Start::In(Duration::from_secs(7_200))));
        assert!(parse_start("tomorrow").unwrap_err().contains("2030-01-31"));
        let start = Timestamp(1_896_127_200_000_000);
        assert_eq!(time(start), "2030-01-31T22:00:00Z");
        assert_eq!(time(Timestamp(u64::MAX)), "9999-12-31T23:59:59Z");
    }
}
