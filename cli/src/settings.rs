//! `meros settings`: the options of a master with the values in force; `set` and `unset` for the cluster.

use std::collections::BTreeMap;

use meros_proto::view::SettingView;
use serde::Serialize;

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::layout;

/// What `meros settings` takes.
#[derive(Debug, clap::Args)]
// What every list takes has the name `Args` as well, and clap wants each name once.
#[group(id = "settings")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    order: Option<Order>,
    #[command(flatten)]
    list: list::Args,
}

/// `meros settings …`.
#[derive(Debug, clap::Subcommand)]
enum Order {
    /// Set options for the whole cluster while it runs, whatever masters were started with: all or none
    ///
    /// These can be set: offer_timeout, slave_reregister_timeout, allocation_delay, hoarding_after,
    /// hoarding_offers. What has begun goes on as it was.
    #[command(after_help = "Example:\n  meros settings set offer_timeout=1min hoarding_offers=4")]
    Set {
        /// Options and their values
        #[arg(required = true, value_name = "OPTION=VALUE", value_parser = parse)]
        settings: Vec<(String, String)>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Let what masters were started with be in force again
    Unset {
        /// Options
        #[arg(required = true, value_name = "OPTION")]
        options: Vec<String>,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

fn parse(text: &str) -> Result<(String, String), String> {
    let (option, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not OPTION=VALUE"))?;
    Ok((option.trim().replace('-', "_"), value.trim().to_owned()))
}

/// The body of an order.
#[derive(Debug, Default, Serialize)]
struct Change {
    set: BTreeMap<String, String>,
    unset: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    let (cluster, change) = match &args.order {
        None => return show(&args.list),
        Some(Order::Set { settings, cluster }) => {
            let set: BTreeMap<String, String> = settings.iter().cloned().collect();
            if set.len() < settings.len() {
                return Err(CliError::failure("an option is given twice".to_owned()));
            }
            let unset = Vec::new();
            (cluster, Change { set, unset })
        }
        Some(Order::Unset { options, cluster }) => {
            let unset = options.iter().map(|option| option.replace('-', "_"));
            let unset = unset.collect();
            (
                cluster,
                Change {
                    set: BTreeMap::new(),
                    unset,
                },
            )
        }
    };
    let _: serde::de::IgnoredAny = Client::new(cluster).order("/api/v1/settings", &change)?;
    Ok(Exit::Success)
}

fn show(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<SettingView> = Client::new(&args.cluster).get("/api/v1/settings")?;
    print(args.output, &rows, |rows| {
        let line = |row: &SettingView| {
            let value = match row.of_cluster {
                true => format!("{} (set for the cluster)", row.value),
                false => row.value.clone(),
            };
            vec![row.option.clone(), value]
        };
        layout(
            &["OPTION", "VALUE"],
            rows.iter().map(line).collect(),
            "no options are known",
        )
    })?;
    Ok(Exit::Success)
}
