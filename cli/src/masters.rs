//! `meros masters`: who the masters are, and changes of that.

use crate::client::{Client, ClusterArgs, escaped};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::layout;

/// What `meros masters` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the masters: who leads, who votes, who is behind
    List(list::Args),
    /// Remove a master that is gone for good. If it leads, another one does first
    Remove {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Its name, as in the list
        name: String,
    },
    /// Let another master lead, such as before work on the machine of the one that does
    Transfer {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Its name, as in the list
        name: String,
    },
}

/// A member as a master tells of it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct MasterRow {
    master_id: String,
    name: String,
    address: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    let (cluster, name, order) = match command {
        Command::List(args) => return list(args),
        Command::Remove { cluster, name } => (cluster, name, "remove"),
        Command::Transfer { cluster, name } => (cluster, name, "lead"),
    };
    let path = format!("/api/v1/masters/{}/{order}", escaped(name));
    Client::new(cluster).post(&path)?;
    Ok(Exit::Success)
}

fn list(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<MasterRow> = Client::new(&args.cluster).list("/api/v1/masters")?;
    print(args.output, &rows, |rows| {
        let cells = rows.iter().map(|row| {
            vec![
                row.name.clone(),
                row.address.clone(),
                row.role.clone(),
                row.lag
                    .map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
                row.master_id.clone(),
            ]
        });
        layout(
            &["NAME", "ADDRESS", "ROLE", "BEHIND", "ID"],
            cells.collect(),
            "no masters",
        )
    })?;
    Ok(Exit::Success)
}
