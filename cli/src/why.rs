//! `meros why framework|role|slave|task NAME`: why nothing is offered, or what a task waits for.

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use meros_proto::view::{FrameworkRow, FrameworkState, SlaveRow};
use meros_proto::why::{WhyOffers, WhyRow, WhyTask};

use crate::client::{Client, escaped};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::table::{layout, printable, short};
use crate::output::{Output, print_one};

/// `meros why …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What keeps a framework from offers, by slave and reason, and the least that would help
    Framework {
        /// Its id, or its name
        framework: String,
        #[command(flatten)]
        list: list::Args,
    },
    /// The same for all frameworks in a role
    Role {
        /// The role
        role: RoleName,
        #[command(flatten)]
        list: list::Args,
    },
    /// What keeps frameworks from offers of a slave
    Slave {
        /// Its id, or its host name
        slave: String,
        #[command(flatten)]
        list: list::Args,
    },
    /// What a task waits for, or how it ended
    Task {
        /// Its id
        task: TaskId,
        /// Its framework, where several have a task of that id
        #[arg(long)]
        framework: Option<FrameworkId>,
        #[command(flatten)]
        list: list::Args,
    },
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Framework { framework, list } => {
            let client = Client::new(&list.cluster);
            let id = framework_id(&client, framework)?;
            offers(&client, &format!("framework={id}"), list.output)
        }
        Command::Role { role, list } => {
            let client = Client::new(&list.cluster);
            let role = escaped(role.as_str());
            offers(&client, &format!("role={role}"), list.output)
        }
        Command::Slave { slave, list } => {
            let client = Client::new(&list.cluster);
            let id = slave_id(&client, slave)?;
            offers(&client, &format!("slave={id}"), list.output)
        }
        Command::Task {
            task,
            framework,
            list,
        } => {
            let framework = framework.map_or_else(String::new, |id| format!("&framework={id}"));
            let path = format!("/api/v1/why?task={}{framework}", escaped(task.as_str()));
            let answer: WhyTask = Client::new(&list.cluster).get(&path)?;
            print_one(list.output, &answer, task_text)?;
            Ok(Exit::Success)
        }
    }
}

fn offers(client: &Client, query: &str, output: Output) -> Result<Exit, CliError> {
    let answer: WhyOffers = client.get(&format!("/api/v1/why?{query}"))?;
    print_one(output, &answer, |answer| offers_text(answer, list::now()))?;
    Ok(Exit::Success)
}

fn offers_text(answer: &WhyOffers, now: Timestamp) -> String {
    let mut blocks: Vec<String> = answer.rows.iter().map(|row| block(row, now)).collect();
    if blocks.is_empty() {
        blocks.push("no framework is in it".to_owned());
    }
    if answer.left_out > 0 {
        blocks.push(format!(
            "{} more frameworks and roles were not looked at; ask about them with `meros why framework`",
            answer.left_out
        ));
    }
    blocks.join("\n\n")
}

/// One framework in one role.
fn block(row: &WhyRow, now: Timestamp) -> String {
    let mut lines = vec![printable(&format!(
        "{} {} in role {}: {}",
        row.framework_id,
        row.name,
        row.role,
        match (row.offerable, row.holds) {
            (0, 0) => "nothing can be offered to it".to_owned(),
            (0, holds) => format!("holds {holds} offers, and nothing more can be offered to it"),
            (slaves, _) => format!("something of {slaves} slaves can be offered at its turn"),
        }
    ))];
    if !row.reasons.is_empty() {
        let reasons = row.reasons.iter().map(|reason| {
            vec![
                reason.slaves.to_string(),
                reason.text.clone(),
                reason.advice.clone(),
            ]
        });
        lines.push(layout(
            &["SLAVES", "FIRST REASON", "WHAT HELPS"],
            reasons.collect(),
            "",
        ));
    }
    if let Some(until) = row.declined_until {
        let left = short(until.since(now));
        lines.push(format!("the first decline ends in {left}"));
    }
    if let Some(change) = &row.smallest_change {
        lines.push(format!("least to do: {}", printable(change)));
    }
    lines.join("\n")
}

fn task_text(task: &WhyTask) -> String {
    let (id, framework, slave, state) =
        (&task.task_id, task.framework_id, task.slave_id, task.state);
    let mut lines = vec![format!("{id} of {framework} on {slave}: {state}")];
    lines.extend(
        task.because
            .iter()
            .map(|text| format!("  {}", printable(text))),
    );
    lines.push(format!("  what helps: {}", task.advice));
    lines.join("\n")
}

/// The id of a framework that is named by its id or its name.
fn framework_id(client: &Client, text: &str) -> Result<FrameworkId, CliError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let rows: Vec<FrameworkRow> = client.list("/api/v1/frameworks")?;
    let named = rows.iter().map(|row| &row.framework);
    let named = named.filter(|it| it.name == text && it.state != FrameworkState::Completed);
    one_of(text, "framework", named.map(|it| it.framework_id))
}

/// The id of a slave that is named by its id or its host name.
pub(crate) fn slave_id(client: &Client, text: &str) -> Result<SlaveId, CliError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let rows: Vec<SlaveRow> = client.list("/api/v1/slaves")?;
    let named = rows.iter().map(|row| &row.slave);
    let named = named.filter(|it| it.hostname == text);
    one_of(text, "slave", named.map(|it| it.slave_id))
}

fn one_of<Id: std::fmt::Display + Copy>(
    text: &str,
    what: &str,
    found: impl Iterator<Item = Id>,
) -> Result<Id, CliError> {
    let found: Vec<Id> = found.collect();
    match found.as_slice() {
        [id] => Ok(*id),
        [] => Err(CliError::failure(format!(
            "no {what} has the id or name {}; `meros {what}s` lists those that are there",
            printable(text)
        ))),
        several => {
            let ids: Vec<String> = several.iter().take(10).map(Id::to_string).collect();
            Err(CliError::failure(format!(
                "several {what}s are named {}: {}; say which by its id",
                printable(text),
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::why::WhyReason;

    use super::*;

    #[test]
    fn the_reasons_come_in_a_table_with_what_helps_least_below() {
        let row = WhyRow {
            framework_id: FrameworkId(3),
            name: "spa\x1brk".to_owned(),
            role: "batch".parse().unwrap(),
            holds: 0,
            offerable: 0,
            reasons: vec![WhyReason {
                code: "limit".to_owned(),
                text: "role batch is at its limit of cpus".to_owned(),
                advice: "raise the limit of cpus of role batch".to_owned(),
                slaves: 12,
            }],
            declined_until: Some(Timestamp(9_000_000)),
            smallest_change: Some("raise the limit of cpus of role batch by 2".to_owned()),
        };
        let answer = WhyOffers {
            rows: vec![row],
            left_out: 2,
        };
        assert_eq!(
            offers_text(&answer, Timestamp(4_000_000)),
            "F3 spa rk in role batch: nothing can be offered to it\n\
             SLAVES  FIRST REASON                        WHAT HELPS\n\
             12      role batch is at its limit of cpus  raise the limit of cpus of role batch\n\
             the first decline ends in 5s\n\
             least to do: raise the limit of cpus of role batch by 2\n\n\
             2 more frameworks and roles were not looked at; ask about them with `meros why framework`"
        );
    }

    #[test]
    fn a_name_that_is_nobodys_or_several_peoples_is_refused() {
        let none = one_of("x", "slave", std::iter::empty::<SlaveId>()).unwrap_err();
        assert!(none.to_string().contains("`meros slaves`"), "{none}");
        let two = one_of("x", "slave", [SlaveId(1), SlaveId(4)].into_iter()).unwrap_err();
        assert!(two.to_string().contains("S1, S4"), "{two}");
    }
}
