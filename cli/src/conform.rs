//! `meros conform URL`: whether a server speaks the Mesos v1 APIs as their clients expect.

use std::io::Write;
use std::time::Duration;

use meros_conform::{Case, Outcome, Target, cases};
use serde::Serialize;

use crate::exit::{CliError, Exit};
use crate::output::table::printable;
use crate::output::{Output, print};

/// What `meros conform` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The leading master, such as http://127.0.0.1:5050
    url: String,
    /// A master that follows, which has to send clients to the leader; without it A6 is not tried
    #[arg(long, value_name = "HOST:PORT")]
    follower: Option<String>,
    /// Only cases whose ids begin with one of these, such as A5,B17
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    only: Vec<String>,
    /// The user of the tasks that are launched; by default whoever the agent runs as
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// How long to wait for each answer and event; longer than a heartbeat, or A7 is not tried
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
    /// A line for each case, or a JSON document of all
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// One case with what came of it.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    says: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Ends with 0 if no case has failed, whatever the server does not offer.
pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let mut target = Target::new(&args.url).map_err(CliError::usage)?;
    target.follower.clone_from(&args.follower);
    target.user.clone_from(&args.user);
    target.patience = args.patience;
    let wanted: Vec<&Case> = cases().filter(|case| is_wanted(args, case)).collect();
    if wanted.is_empty() {
        let why = "no case has such an id: leave --only out to see all";
        return Err(CliError::usage(why));
    }
    target
        .reach()
        .map_err(|error| CliError::unreachable(format!("{}: {error}", args.url)))?;
    let mut rows = Vec::with_capacity(wanted.len());
    for case in wanted {
        let row = Row {
            id: case.id,
            says: case.says,
            outcome: case.run(&target),
        };
        if args.output == Output::Table {
            println!("{}", line(&row));
            // Some cases take seconds: each is to be seen when it is over.
            let _ = std::io::stdout().flush();
        }
        rows.push(row);
    }
    print(args.output, &rows, summary)?;
    let has_failed = |row: &Row| matches!(row.outcome, Outcome::Failed(_));
    Ok(match rows.iter().any(has_failed) {
        true => Exit::Failure,
        false => Exit::Success,
    })
}

fn is_wanted(args: &Args, case: &Case) -> bool {
    args.only.is_empty() || args.only.iter().any(|id| case.id.starts_with(id.as_str()))
}

fn line(row: &Row) -> String {
    let line = format!("{:<11}  {:<26}  {}", row.outcome.name(), row.id, row.says);
    match row.outcome.why() {
        None => line,
        // From a server that may be anything.
        Some(why) => format!("{line}\n{:13}{}", "", printable(why)),
    }
}

fn summary(rows: &[Row]) -> String {
    let count = |name: &str| rows.iter().filter(|row| row.outcome.name() == name).count();
    let parts = ["passed", "failed", "not offered", "not tried"];
    let parts: Vec<String> = parts
        .iter()
        .map(|name| format!("{} {name}", count(name)))
        .collect();
    format!("{} cases: {}", rows.len(), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Outcome) -> Row<'static> {
        Row {
            id: "A1",
            says: "it is so",
            outcome,
        }
    }

    #[test]
    fn a_line_says_what_came_of_a_case_and_the_last_one_counts() {
        let failed = row(Outcome::Failed("it \x1b[2Jis not".to_owned()));
        assert_eq!(
            line(&failed),
            "failed       A1                          it is so\n             it  [2Jis not"
        );
        let rows = [failed, row(Outcome::Passed)];
        assert_eq!(
            summary(&rows),
            "2 cases: 1 passed, 1 failed, 0 not offered, 0 not tried"
        );
    }

    #[test]
    fn rows_are_json_with_the_outcome_by_name() {
        let json = serde_json::to_value(row(Outcome::NotOffered("501".to_owned()))).unwrap();
        let expected = serde_json::json!({"id": "A1", "says": "it is so",
            "outcome": "not_offered", "why": "501"});
        assert_eq!(json, expected);
    }
}
