//! `meros state`: what frameworks keep with the masters, for operators.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use meros_proto::state::{
    Changed, Condition, KeyChange, LeaseView, Revision, SpaceName, SpaceView, StateAnswer,
    StateCall, StateChange, StateEntry, StateKey, StateOperation, StateValue,
};

use crate::client::{Client, ClusterArgs, escaped};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::table::{layout, printable, shortened};
use crate::output::{Output, print, print_one};

/// How long a watch goes on without a master that answers.
const WATCH_PATIENCE: Duration = Duration::from_secs(60);
/// Characters of a value in a table.
const VALUE_CHARS: usize = 60;

/// A space: whose, and which of theirs.
#[derive(Debug, Clone)]
pub(crate) struct Space(String);

/// `PRINCIPAL/NAME`.
fn parse_space(text: &str) -> Result<Space, String> {
    let (principal, name) = text
        .rsplit_once('/')
        .filter(|(principal, _)| !principal.is_empty())
        .ok_or_else(|| {
            format!(
                "{text:?} is no space: write PRINCIPAL/NAME, as `meros state spaces` shows them"
            )
        })?;
    SpaceName::new(name).map_err(|error| error.to_string())?;
    let path = format!("/api/v1/state/{}/{}", escaped(principal), escaped(name));
    Ok(Space(path))
}

/// Of which space.
#[derive(Debug, clap::Args)]
pub(crate) struct In {
    /// The space, as `meros state spaces` shows it
    #[arg(value_name = "PRINCIPAL/NAME", value_parser = parse_space)]
    space: Space,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `meros state …`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:\n  \
    meros state spaces\n  \
    meros state list batch/batch jobs/\n  \
    meros state set batch/batch paused true --if-absent\n  \
    meros state leases batch/batch")]
pub(crate) enum Command {
    /// List the spaces of all frameworks
    Spaces(list::Args),
    /// Print the value of a key. Exit code 1 if there is no such key
    Get {
        #[command(flatten)]
        at: In,
        /// The key
        key: StateKey,
        /// How to print: the bare value, or the key with its revisions
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Give a key a value. Durable when this ends
    Set {
        #[command(flatten)]
        at: In,
        /// The key
        key: StateKey,
        /// The value; `-` reads it from the standard input
        value: String,
        /// Only if there is no such key
        #[arg(long, conflicts_with = "if_revision")]
        if_absent: bool,
        /// Only if the key was last changed at this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Remove keys: all of them, or none. Those that are not there are no error
    Delete {
        #[command(flatten)]
        at: In,
        /// The keys
        #[arg(required = true)]
        keys: Vec<StateKey>,
    },
    /// List keys with their values
    List {
        #[command(flatten)]
        at: In,
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: String,
        /// How to print
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Print changes of keys as they happen, until Ctrl-C
    Watch {
        #[command(flatten)]
        at: In,
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: String,
        /// How to print; JSON is one document a line
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// List leases and semaphores: who holds them and who waits
    Leases {
        #[command(flatten)]
        at: In,
        /// How to print
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Remove all keys, leases and sessions of a space: whoever holds a lease loses it
    Clear {
        #[command(flatten)]
        at: In,
    },
}

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    match command {
        Command::Spaces(args) => spaces(args),
        Command::Get { at, key, output } => get(at, key, *output),
        Command::Set {
            at,
            key,
            value,
            if_absent,
            if_revision,
        } => {
            let condition = match if_revision {
                Some(revision) => Some(Condition::Revision {
                    key: key.clone(),
                    modified: Revision(*revision),
                }),
                None => if_absent.then(|| Condition::Absent(key.clone())),
            };
            let set = StateOperation::Set {
                key: key.clone(),
                value: read_value(value)?,
            };
            commit(at, condition, vec![set])
        }
        Command::Delete { at, keys } => {
            let deletes = keys.iter().cloned().map(StateOperation::Delete);
            commit(at, None, deletes.collect())
        }
        Command::List { at, prefix, output } => {
            let (entries, _) = list(&Client::new(&at.cluster), &at.space, prefix)?;
            print(*output, &entries, table)?;
            Ok(Exit::Success)
        }
        Command::Watch { at, prefix, output } => watch(at, prefix, *output),
        Command::Leases { at, output } => leases(at, *output),
        Command::Clear { at } => change(at, StateChange::Clear),
    }
}

fn ask(client: &Client, space: &Space, call: &StateCall) -> Result<StateAnswer, CliError> {
    client.order(&space.0, call)
}

fn unexpected() -> CliError {
    CliError::failure("the master answers another question: use the `meros` that came with it")
}

fn spaces(args: &list::Args) -> Result<Exit, CliError> {
    let rows: Vec<SpaceView> = Client::new(&args.cluster).get("/api/v1/state")?;
    print(args.output, &rows, |rows| {
        let line = |row: &SpaceView| {
            vec![
                row.space.to_string(),
                row.keys.to_string(),
                row.bytes.to_string(),
                row.sessions.to_string(),
                row.leases.to_string(),
            ]
        };
        layout(
            &["SPACE", "KEYS", "BYTES", "SESSIONS", "LEASES"],
            rows.iter().map(line).collect(),
            "no framework keeps state",
        )
    })?;
    Ok(Exit::Success)
}

fn get(at: &In, key: &StateKey, output: Output) -> Result<Exit, CliError> {
    let call = StateCall::Read {
        keys: vec![key.clone()],
    };
    let StateAnswer::Entries { entries, .. } = ask(&Client::new(&at.cluster), &at.space, &call)?
    else {
        return Err(unexpected());
    };
    let Some(entry) = entries.first() else {
        return Err(CliError::failure(printable(&format!(
            "there is no key {key}"
        ))));
    };
    if output == Output::Json {
        print_one(output, entry, |_| String::new())?;
        return Ok(Exit::Success);
    }
    // As it is, for programs: what a terminal makes of it is up to whoever asked for it.
    let mut out = std::io::stdout().lock();
    out.write_all(entry.value.bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failure(format!("cannot write the value: {error}")))?;
    Ok(Exit::Success)
}

/// No value is longer; one byte more shows that this one is.
fn read_value(value: &str) -> Result<StateValue, CliError> {
    if value != "-" {
        return Ok(value.into());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(StateValue::BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failure(format!("cannot read the value: {error}")))?;
    Ok(bytes.into())
}

fn commit(
    at: &In,
    condition: Option<Condition>,
    operations: Vec<StateOperation>,
) -> Result<Exit, CliError> {
    let commit = StateChange::Commit {
        conditions: condition.into_iter().collect(),
        operations,
    };
    change(at, commit)
}

fn change(at: &In, change: StateChange) -> Result<Exit, CliError> {
    let call = StateCall::Change { by: None, change };
    match ask(&Client::new(&at.cluster), &at.space, &call)? {
        StateAnswer::Changed(Changed::Done { revision }) => {
            println!("{revision}");
            Ok(Exit::Success)
        }
        _ => Err(unexpected()),
    }
}

/// All keys, and the revision to watch from.
fn list(
    client: &Client,
    space: &Space,
    prefix: &str,
) -> Result<(Vec<StateEntry>, Revision), CliError> {
    let mut all: Vec<StateEntry> = Vec::new();
    let mut since = None;
    loop {
        let call = StateCall::List {
            prefix: prefix.to_owned(),
            after: all.last().map(|entry| entry.key.clone()),
        };
        let StateAnswer::Entries {
            revision,
            mut entries,
            more,
        } = ask(client, space, &call)?
        else {
            return Err(unexpected());
        };
        let since = *since.get_or_insert(revision);
        let is_end = !more || entries.is_empty();
        all.append(&mut entries);
        if is_end {
            return Ok((all, since));
        }
    }
}

fn shown(value: &StateValue) -> String {
    match value.as_text() {
        Some(text) => shortened(text, VALUE_CHARS),
        None => format!("({} bytes)", value.len()),
    }
}

fn table(entries: &[StateEntry]) -> String {
    let line = |entry: &StateEntry| {
        vec![
            entry.key.to_string(),
            entry.modified.to_string(),
            shown(&entry.value),
        ]
    };
    layout(
        &["KEY", "REVISION", "VALUE"],
        entries.iter().map(line).collect(),
        "no keys",
    )
}

fn watch(at: &In, prefix: &str, output: Output) -> Result<Exit, CliError> {
    let client = Client::new(&at.cluster);
    let (entries, mut after) = list(&client, &at.space, prefix)?;
    for entry in entries {
        tell(&KeyChange::Set(entry), output)?;
    }
    let mut heard_at = Instant::now();
    loop {
        let call = StateCall::Watch {
            prefix: prefix.to_owned(),
            after,
        };
        match ask(&client, &at.space, &call) {
            Ok(StateAnswer::Changes { revision, changes }) => {
                heard_at = Instant::now();
                after = revision;
                for change in &changes {
                    tell(change, output)?;
                }
            }
            Ok(_) => return Err(unexpected()),
            // While another master is elected nobody answers.
            Err(error) if error.is_unreachable() && heard_at.elapsed() < WATCH_PATIENCE => {
                std::thread::sleep(Duration::from_millis(500));
            }
            Err(error) => return Err(error),
        }
    }
}

/// One change, a line.
fn tell(change: &KeyChange, output: Output) -> Result<(), CliError> {
    let line = match (output, change) {
        (Output::Json, change) => serde_json::to_string(change)
            .map_err(|error| CliError::failure(format!("cannot write JSON: {error}")))?,
        (Output::Table, KeyChange::Set(entry)) => {
            format!(
                "{} set {} {}",
                entry.modified,
                entry.key,
                shown(&entry.value)
            )
        }
        (Output::Table, KeyChange::Deleted { key, revision }) => {
            format!("{revision} deleted {key}")
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failure(format!("cannot write: {error}")))
}

fn leases(at: &In, output: Output) -> Result<Exit, CliError> {
    let StateAnswer::Leases(views) = ask(&Client::new(&at.cluster), &at.space, &StateCall::Leases)?
    else {
        return Err(unexpected());
    };
    print(output, &views, |views| {
        let rows = views.iter().flat_map(lease_rows);
        layout(
            &["LEASE", "PERMITS", "HOLDER", "STATE", "TOKEN", "SESSION"],
            rows.collect(),
            "no leases",
        )
    })?;
    Ok(Exit::Success)
}

fn lease_rows(view: &LeaseView) -> impl Iterator<Item = Vec<String>> {
    view.queue.iter().map(|hold| {
        let state = if hold.holds { "holds" } else { "waits" };
        vec![
            view.lease.to_string(),
            view.permits.to_string(),
            hold.holder.clone(),
            state.to_owned(),
            hold.token.to_string(),
            hold.session.to_string(),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::{Reply, Stub};

    #[test]
    fn a_space_is_a_principal_and_a_name() {
        let path = |text: &str| parse_space(text).map(|space| space.0);
        assert_eq!(path("web/main").as_deref(), Ok("/api/v1/state/web/main"));
        assert_eq!(path("a/b c/d").as_deref(), Ok("/api/v1/state/a%2Fb%20c/d"));
        for bad in ["", "web", "/main", "web/", "web/a b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_is_read_to_its_end_and_watched_from_its_beginning() {
        let mut pages = 0;
        let stub = Stub::start(move |path| {
            assert_eq!(path, "/api/v1/state/web/main");
            pages += 1;
            Some(Reply::ok(&match pages {
                1 => r#"{"entries": {"revision": 7, "more": true, "entries":
                    [{"key": "a", "value": "1", "created": 3, "modified": 4}]}}"#
                    .to_owned(),
                _ => r#"{"entries": {"revision": 9, "more": false, "entries":
                    [{"key": "b", "value": {"hex": "ff"}, "created": 3, "modified": 8}]}}"#
                    .to_owned(),
            }))
        });
        let space = parse_space("web/main").unwrap();
        let (entries, revision) = list(&stub.client(), &space, "").unwrap();
        assert_eq!(revision, Revision(7));
        assert_eq!(
            table(&entries),
            "KEY  REVISION  VALUE\na    4         1\nb    8         (1 bytes)"
        );
    }
}
