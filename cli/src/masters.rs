//! `meros masters`: who the masters are, and changes of that.

use std::time::{Duration, Instant};

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
    /// Wait until a master has joined, and show how far it is
    Add {
        #[command(flatten)]
        wait: Wait,
        /// The name in its certificate
        name: String,
    },
    /// Put a master in the place of another one, of any name, or of itself if it has lost its disk
    Replace {
        #[command(flatten)]
        wait: Wait,
        /// The one that goes, as in the list
        old: String,
        /// The name in the certificate of the one that comes [default: the same, with an empty data
        /// directory]
        new: Option<String>,
    },
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

/// How long to wait for a master, and whom to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How long to wait for it
    #[arg(long, default_value = "10min", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A member as a master tells of it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct MasterRow {
    master_id: String,
    name: String,
    address: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest_format: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    let (cluster, name, order) = match command {
        Command::List(args) => return list(args),
        Command::Add { wait, name } => return add(wait, name),
        Command::Replace { wait, old, new } => return replace(wait, old, new.as_deref()),
        Command::Remove { cluster, name } => (cluster, name, "remove"),
        Command::Transfer { cluster, name } => (cluster, name, "lead"),
    };
    let path = format!("/api/v1/masters/{}/{order}", escaped(name));
    Client::new(cluster).post(&path)?;
    Ok(Exit::Success)
}

/// How often to look how far a master is.
const LOOK: Duration = Duration::from_millis(500);

impl MasterRow {
    fn votes(&self) -> bool {
        self.role != "learner"
    }

    /// What the cluster uses, and what this master could.
    fn formats(&self) -> String {
        match (self.format, self.newest_format) {
            (Some(format), Some(newest)) if newest > format => format!("{format} of {newest}"),
            (Some(format), Some(_)) => format.to_string(),
            _ => "-".to_owned(),
        }
    }
}

fn members(client: &Client) -> Result<Vec<MasterRow>, CliError> {
    client.list("/api/v1/masters")
}

fn add(wait: &Wait, name: &str) -> Result<Exit, CliError> {
    let client = Client::new(&wait.cluster);
    let rows = members(&client)?;
    if rows.iter().any(|row| row.name == name && row.votes()) {
        return Err(CliError::failure(format!(
            "{name} is a master of this cluster already (name_taken): see `meros masters list`"
        )));
    }
    say_how_to_start(&rows, name);
    Newcomer::new(&client, name, None).wait(wait.timeout, || Ok(()))?;
    println!("{name} has joined");
    Ok(Exit::Success)
}

fn replace(wait: &Wait, old: &str, new: Option<&str>) -> Result<Exit, CliError> {
    let client = Client::new(&wait.cluster);
    let rows = members(&client)?;
    let Some(known) = rows.iter().find(|row| row.name == old) else {
        return Err(CliError::failure(format!(
            "no master is called {old} (master_unknown): see `meros masters list`"
        )));
    };
    match new.filter(|new| *new != old) {
        Some(new) => {
            if !rows.iter().any(|row| row.name == new && row.votes()) {
                say_how_to_start(&rows, new);
            }
            Newcomer::new(&client, new, None).wait(wait.timeout, || Ok(()))?;
            println!("{new} has joined");
            client.post(&format!("/api/v1/masters/{}/remove", escaped(old)))?;
            println!("{old} is removed");
        }
        None => {
            let order = format!("/api/v1/masters/{}/replace", escaped(old));
            // Refusals are said before anybody starts anything.
            client.post(&order)?;
            say_how_to_start(&rows, old);
            let newcomer = Newcomer::new(&client, old, Some(&known.master_id));
            newcomer.wait(wait.timeout, || client.post(&order))?;
            println!("{old} has joined as a new member");
        }
    }
    Ok(Exit::Success)
}

fn say_how_to_start(rows: &[MasterRow], name: &str) {
    let others = rows.iter().filter(|row| row.name != name);
    let addresses: Vec<&str> = others.map(|row| row.address.as_str()).collect();
    eprintln!(
        "meros: start {name}, with its certificate and an empty data directory: meros master --join {} …",
        addresses.join(",")
    );
}

/// A master that is to become a member.
struct Newcomer<'a> {
    client: &'a Client,
    name: &'a str,
    /// The id that a member of this name has until then.
    old_id: Option<&'a str>,
    said: String,
}

impl<'a> Newcomer<'a> {
    fn new(client: &'a Client, name: &'a str, old_id: Option<&'a str>) -> Self {
        Self {
            client,
            name,
            old_id,
            said: String::new(),
        }
    }

    /// Says how far it is until it votes. `nudge` is called each time that it does not; its errors, like
    /// those of reading, pass while masters change.
    fn wait(
        mut self,
        patience: Duration,
        nudge: impl Fn() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let began = Instant::now();
        loop {
            match members(self.client) {
                Ok(rows) => match rows.iter().find(|row| self.is(row)) {
                    Some(row) if row.votes() => return Ok(()),
                    Some(row) => self.say(match row.lag {
                        Some(lag) => format!("{} is {lag} entries behind", self.name),
                        None => format!("{} receives the registry", self.name),
                    }),
                    None => self.say(format!("waiting for {}", self.name)),
                },
                Err(error) => self.say(error.to_string()),
            }
            if let Err(error) = nudge() {
                self.say(error.to_string());
            }
            if began.elapsed() >= patience {
                return Err(CliError::failure(format!(
                    "{} has not joined in time; see its log. No master was removed",
                    self.name
                )));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn is(&self, row: &MasterRow) -> bool {
        row.name == self.name && self.old_id != Some(row.master_id.as_str())
    }

    fn say(&mut self, what: String) {
        if self.said != what {
            eprintln!("meros: {what}");
            self.said = what;
        }
    }
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
                row.release.clone().unwrap_or_else(|| "-".to_owned()),
                row.formats(),
            ]
        });
        layout(
            &[
                "NAME", "ADDRESS", "ROLE", "BEHIND", "ID", "RELEASE", "FORMAT",
            ],
            cells.collect(),
            "no masters",
        )
    })?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::client::Masters;
    use crate::stub::{Reply, Stub};

    /// A cluster that says what it is in turn, and what it was asked for; the last answer stays.
    fn cluster(answers: &[&str]) -> (Wait, Arc<Mutex<Vec<String>>>) {
        let mut answers: Vec<String> = answers.iter().rev().map(|one| (*one).to_owned()).collect();
        let orders = Arc::<Mutex<Vec<String>>>::default();
        let asked = Arc::clone(&orders);
        let stub = Stub::start(move |path| {
            if path != "/api/v1/masters" {
                asked.lock().expect("no panic").push(path.to_owned());
                return Some(Reply::ok("{}"));
            }
            let answer = match answers.len() {
                1 => answers[0].clone(),
                _ => answers.pop()?,
            };
            Some(Reply::ok(&answer))
        });
        let wait = Wait {
            cluster: ClusterArgs {
                master: Some(Masters::told(&stub.address.to_string())),
            },
            timeout: Duration::from_secs(60),
        };
        (wait, orders)
    }

    fn rows(members: &[(&str, &str, &str)]) -> String {
        let row = |(name, id, role): &(&str, &str, &str)| {
            format!(
                r#"{{"name":"{name}","master_id":"{id}","role":"{role}","address":"{name}:5050"}}"#
            )
        };
        let rows: Vec<String> = members.iter().map(row).collect();
        format!("[{}]", rows.join(","))
    }

    #[test]
    fn the_old_master_is_removed_once_the_new_one_votes() {
        let alone = rows(&[("m1", "a", "leader")]);
        let learns = rows(&[("m1", "a", "leader"), ("m2", "b", "learner")]);
        let votes = rows(&[("m1", "a", "leader"), ("m2", "b", "voter")]);
        let (wait, orders) = cluster(&[&alone, &alone, &learns, &votes]);
        replace(&wait, "m1", Some("m2")).expect("it joins");
        let orders = orders.lock().expect("no panic");
        assert_eq!(*orders, ["/api/v1/masters/m1/remove"]);
    }

    #[test]
    fn a_master_without_its_disk_takes_its_own_place() {
        let before = rows(&[("m1", "a", "leader"), ("m2", "b", "voter")]);
        let after = rows(&[("m1", "a", "leader"), ("m2", "c", "voter")]);
        let (wait, orders) = cluster(&[&before, &before, &after]);
        replace(&wait, "m2", None).expect("it joins");
        let orders = orders.lock().expect("no panic");
        assert!(
            orders
                .iter()
                .all(|order| order == "/api/v1/masters/m2/replace")
        );
        assert_eq!(orders.len(), 2, "said again while it is waited for");
    }

    #[test]
    fn who_is_there_is_not_added_and_who_is_not_is_not_replaced() {
        let (wait, _) = cluster(&[&rows(&[("m1", "a", "leader")])]);
        let error = add(&wait, "m1").expect_err("it is there").to_string();
        assert!(error.contains("name_taken"), "{error}");
        let error = replace(&wait, "m9", None).expect_err("it is not there");
        assert!(error.to_string().contains("master_unknown"), "{error}");
    }

    #[test]
    fn who_never_joins_is_given_up_and_nobody_is_removed() {
        let (mut wait, orders) = cluster(&[&rows(&[("m1", "a", "leader")])]);
        wait.timeout = Duration::ZERO;
        assert!(replace(&wait, "m1", Some("m2")).is_err());
        assert!(orders.lock().expect("no panic").is_empty());
    }
}
