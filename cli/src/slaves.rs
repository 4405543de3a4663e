//! `meros slaves`, and what operators decide about slaves: `drain`, `deactivate`, `activate`, `gone`.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::ids::SlaveId;
use meros_proto::resources::{ResourceName, Resources};
use meros_proto::role::RoleName;
use meros_proto::view::{SlaveRow, SlaveView};

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::{age, layout, shortened};
use crate::why::slave_id;

/// What `meros slaves` takes.
#[derive(Debug, clap::Args)]
// What every list takes has the name `Args` as well, and clap wants each name once.
#[group(id = "slaves")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: list::Args,
}

/// `meros slaves …`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Kill the tasks of slaves and offer nothing of them; `activate` calls it off
    ///
    /// A slave is drained once all its tasks have ended and their frameworks have acknowledged that.
    /// It stays so, over restarts of masters and of itself, until it is activated.
    Drain {
        #[command(flatten)]
        which: Which,
        /// From SIGTERM to SIGKILL, such as 5min, at most 1h; by default each task's own
        #[arg(long, value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        /// Declare them gone once they are drained
        #[arg(long)]
        mark_gone: bool,
    },
    /// Offer nothing of slaves; their tasks go on
    Deactivate {
        #[command(flatten)]
        which: Which,
    },
    /// Offer what is free on slaves again
    Activate {
        #[command(flatten)]
        which: Which,
    },
    /// Declare slaves gone: they never come back, their tasks end as TASK_GONE_BY_OPERATOR
    ///
    /// For machines that are lost for good. A slave that still runs is told and ends with its tasks.
    Gone {
        #[command(flatten)]
        which: Which,
    },
}

/// Which slaves.
#[derive(Debug, clap::Args)]
struct Which {
    /// Slaves, by id or host name
    #[arg(required = true, value_name = "SLAVE")]
    slaves: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    match &args.command {
        None => print_list(&args.list),
        Some(Command::Drain {
            which,
            grace,
            mark_gone,
        }) => {
            let grace = grace.map(|grace| format!("grace={}ms", grace.as_millis()));
            let mark_gone = mark_gone.then(|| "mark_gone=true".to_owned());
            let query: Vec<String> = grace.into_iter().chain(mark_gone).collect();
            let order = format!("drain?{}", query.join("&"));
            let what = "is draining; `meros slaves` shows when it is drained";
            each(which, order.trim_end_matches('?'), what)
        }
        Some(Command::Deactivate { which }) => each(which, "deactivate", "is deactivated"),
        Some(Command::Activate { which }) => each(which, "activate", "is active"),
        Some(Command::Gone { which }) => each(which, "gone", "is gone"),
    }
}

/// Gives an order for each slave; none if one of them is not known.
fn each(which: &Which, order: &str, what: &str) -> Result<Exit, CliError> {
    let client = Client::new(&which.cluster);
    let ids = which.slaves.iter().map(|name| slave_id(&client, name));
    let ids: Vec<SlaveId> = ids.collect::<Result<_, _>>()?;
    for id in ids {
        client.post(&format!("/api/v1/slaves/{id}/{order}"))?;
        println!("{id} {what}");
    }
    Ok(Exit::Success)
}

fn print_list(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<SlaveRow> = Client::new(&args.cluster).list("/api/v1/slaves")?;
    let now = list::now();
    print(args.output, &rows, |rows| {
        let line = |row: &SlaveRow| {
            let slave = &row.slave;
            vec![
                slave.slave_id.to_string(),
                slave.hostname.clone(),
                slave.state.name().to_owned(),
                age(slave.state_since, now),
                mode(slave).to_owned(),
                share(&row.used, &slave.resources, &ResourceName::CPUS),
                share(&row.used, &slave.resources, &ResourceName::MEM),
                row.tasks.to_string(),
                reserved(&slave.resources),
                shortened(&slave.attributes.to_string(), 60),
            ]
        };
        layout(
            &[
                "SLAVE",
                "HOST",
                "STATE",
                "SINCE",
                "MODE",
                "CPUS",
                "MEM",
                "TASKS",
                "RESERVED",
                "ATTRIBUTES",
            ],
            rows.iter().map(line).collect(),
            "no slaves; start one with `meros slave`",
        )
    })?;
    Ok(Exit::Success)
}

fn mode(slave: &SlaveView) -> &'static str {
    match slave.is_drained {
        true => "drained",
        false => slave.mode.name(),
    }
}

/// What is reserved on it, by role, such as `web cpus:2;disk:64`; volumes are disk here.
fn reserved(resources: &Resources) -> String {
    let mut by_role: BTreeMap<&RoleName, Vec<String>> = BTreeMap::new();
    for resource in resources {
        if let Some(role) = resource.reservations().role() {
            let amount = format!("{}:{}", resource.name(), resource.value());
            by_role.entry(role).or_default().push(amount);
        }
    }
    let roles = by_role.iter();
    let roles = roles.map(|(role, amounts)| format!("{role} {}", amounts.join(";")));
    match by_role.is_empty() {
        true => "-".to_owned(),
        false => shortened(&roles.collect::<Vec<_>>().join(", "), 48),
    }
}

/// `3.5/8`: what is taken of what there is.
fn share(used: &Resources, total: &Resources, name: &ResourceName) -> String {
    format!("{}/{}", used.scalar(name), total.scalar(name))
}
