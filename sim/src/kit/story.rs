//! What frameworks under test are told and ask for, and what goes wrong, a line each, for people.

use std::time::Duration;

use meros_proto::offer::{Offer, Operation};
use meros_proto::role::RoleName;
use meros_proto::status::TaskStatus;
use meros_sdk_core::{Call, News};

use super::faults::UNTIL_SAID;
use super::views::hostname;
use crate::fault::{Process, Trouble};
use crate::plan::Client;

/// Offers and tasks in one line; the rest is counted.
const LISTED_MAX: usize = 5;

/// What a framework is told.
pub(super) fn of_news(name: &str, news: &News) -> String {
    let what = match news {
        News::Subscribed {
            framework_id,
            again: false,
            ..
        } => format!("it is subscribed as {framework_id}"),
        News::Subscribed { framework_id, .. } => {
            format!("it is subscribed again as {framework_id}")
        }
        News::ConnectFailed { why, retry_in, .. } => {
            format!("no master answers: {why}; it tries again in {retry_in:.1?}")
        }
        News::Disconnected { why } => format!("it is disconnected: {why}"),
        News::Offers(offers) => {
            let offer = |offer: &Offer| {
                format!("{} {} {}", offer.offer_id, offer.hostname, offer.resources)
            };
            format!("offers: {}", list(offers, offer))
        }
        News::Rescinded(offer_id) => format!("offer {offer_id} is rescinded"),
        News::Update(status) => of_status(status),
        News::SlaveLost(slave_id) => format!("slave {slave_id} is lost"),
        News::Refused { call, refusal } => format!("its {call} is refused: {refusal}"),
        News::Operation(status) => {
            let why = match status.message.is_empty() {
                true => String::new(),
                false => format!(": {}", status.message),
            };
            format!("{} is {}{why}", status.operation_id, status.state)
        }
        News::ExecutorEnded {
            slave_id,
            executor_id,
            ..
        } => format!("its executor {executor_id} on {slave_id} has ended"),
        News::ExecutorMessage {
            slave_id,
            executor_id,
            ..
        } => format!("its executor {executor_id} on {slave_id} sends a message"),
        News::Ended(reason) => format!("its session has ended: {reason:?}"),
    };
    format!("{name} is told: {what}")
}

fn of_status(status: &TaskStatus) -> String {
    let mut text = format!("{} is {}", status.task_id, status.state);
    if let Some(slave_id) = status.slave_id {
        text.push_str(&format!(" on {slave_id}"));
    }
    if let Some(reason) = status.reason {
        text.push_str(&format!(" ({reason:?})"));
    }
    if !status.message.is_empty() {
        text.push_str(": ");
        text.push_str(&status.message);
    }
    text
}

/// What a framework asks for; nothing for acknowledgements, which follow every update.
pub(super) fn of_call(name: &str, call: &Call) -> Option<String> {
    let roles = |roles: &[RoleName]| match roles.is_empty() {
        true => "all roles".to_owned(),
        false => list(roles, ToString::to_string),
    };
    let what = match call {
        Call::Accept {
            offer_ids,
            operations,
            ..
        } => {
            let steps: Vec<String> = operations
                .iter()
                .flat_map(|operation| match operation {
                    Operation::Launch(_) | Operation::LaunchGroup(_) => operation
                        .tasks()
                        .iter()
                        .map(|task| format!("{} ({})", task.task_id, task.resources))
                        .collect(),
                    Operation::Change(operation) => {
                        let change = &operation.change;
                        vec![format!("{} {}", change.kind, change.resources)]
                    }
                })
                .collect();
            let offers = list(offer_ids, ToString::to_string);
            format!("accepts {offers}: {}", list(&steps, Clone::clone))
        }
        Call::Decline { offer_ids, filters } => {
            let offers = list(offer_ids, ToString::to_string);
            format!("declines {offers} for {:?}", filters.refuse)
        }
        Call::Revive { roles: named } => format!("revives {}", roles(named)),
        Call::Suppress { roles: named } => format!("suppresses {}", roles(named)),
        Call::Wish { wishes } => format!("wishes {wishes:?}"),
        Call::Kill { task_id, .. } => format!("kills {task_id}"),
        Call::Acknowledge { .. } => return None,
        Call::Reconcile { tasks } => match tasks.is_empty() {
            true => "asks about all tasks".to_owned(),
            false => format!(
                "asks about {}",
                list(tasks, |task| task.task_id.to_string())
            ),
        },
        Call::ShutdownExecutor {
            slave_id,
            executor_id,
        } => format!("shuts its executor {executor_id} on {slave_id} down"),
        Call::MessageExecutor {
            slave_id,
            executor_id,
            ..
        } => format!("sends its executor {executor_id} on {slave_id} a message"),
        Call::Teardown => "tears itself down".to_owned(),
        Call::Leave => "leaves".to_owned(),
    };
    Some(format!("{name} {what}"))
}

/// What goes wrong; `name` names frameworks.
pub(crate) fn of_trouble(what: &Trouble, name: impl Fn(usize) -> String) -> String {
    let lasting = |time: &Duration| match *time == UNTIL_SAID {
        true => String::new(),
        false => format!(" for {time:.1?}"),
    };
    let master = |master: &Option<usize>| match master {
        Some(at) => format!("master-{at}"),
        None => "the leading master".to_owned(),
    };
    let client = |client: &Client| match client {
        Client::Slave(slave) => hostname(*slave),
        Client::Framework(at) => name(*at),
    };
    let process = |process: &Process| match process {
        Process::Leader => "the leading master".to_owned(),
        Process::Slave(slave) => hostname(*slave),
        Process::Framework(at) => name(*at),
    };
    let text = match what {
        Trouble::CrashMaster {
            master: at, down, ..
        } => format!("{} dies soon{}", master(at), lasting(down)),
        Trouble::CrashSlave { slave, down, .. } => {
            format!("{} dies soon{}", hostname(*slave), lasting(down))
        }
        Trouble::CrashFramework {
            framework, down, ..
        } => format!("{} crashes soon{}", name(*framework), lasting(down)),
        Trouble::StopSlave { slave, down } => {
            format!("{} is stopped{}", hostname(*slave), lasting(down))
        }
        Trouble::LeaveSlave { slave, .. } => {
            format!(
                "{} leaves, and comes back as another slave",
                hostname(*slave)
            )
        }
        Trouble::RebootSlave {
            slave,
            down,
            is_wiped,
        } => {
            let how = if *is_wiped { " with an empty disk" } else { "" };
            format!("{} reboots{how}{}", hostname(*slave), lasting(down))
        }
        Trouble::Isolate { master: at, lasts } => format!(
            "{} is cut off from the other masters{}",
            master(at),
            lasting(lasts)
        ),
        Trouble::Pause {
            process: who,
            lasts,
        } => format!("{} stands still{}", process(who), lasting(lasts)),
        Trouble::StepClock { process: who, by } => {
            format!("the clock of {} jumps ahead by {by:.1?}", process(who))
        }
        Trouble::KillMaster { down } => format!("the leading master dies{}", lasting(down)),
        Trouble::KillSlaves { slaves, down } => {
            let slaves = list(slaves, |slave| hostname(*slave));
            format!("dead{}: {slaves}", lasting(down))
        }
        Trouble::KillShims { slave } => {
            format!("all shims of {} are killed", hostname(*slave))
        }
        Trouble::Break(who) => format!("the connection of {} breaks", client(who)),
        Trouble::Partition {
            client: who,
            master: at,
            up,
            down,
            lasts,
        } => {
            let from = at.map_or_else(String::new, |at| format!(" from master-{at}"));
            let way = match (up, down) {
                (true, false) => ", its messages get lost",
                (false, true) => ", messages to it get lost",
                _ => "",
            };
            format!("{} is cut off{from}{way}{}", client(who), lasting(lasts))
        }
        Trouble::SlowDisk { slave, each, lasts } => {
            let whose = slave.map_or_else(|| "the masters".to_owned(), hostname);
            format!("writes of {whose} take {each:.1?}{}", lasting(lasts))
        }
        other => other.kind().to_owned(),
    };
    format!("fault: {text}")
}

fn list<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = all
        .iter()
        .take(LISTED_MAX)
        .map(show)
        .collect::<Vec<_>>()
        .join(", ");
    if all.is_empty() {
        text.push_str("nothing");
    }
    if let Some(more) = all.len().checked_sub(LISTED_MAX + 1) {
        text.push_str(&format!(" and {} more", more + 1));
    }
    text
}
