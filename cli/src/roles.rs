//! `meros roles`, `meros quota …`, `meros weights …`, `meros minimums …`: who is due what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use meros_proto::minimum::Minimum;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
use meros_proto::view::RoleRow;
use serde::{Deserialize, Serialize};

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::{layout, shortened};

/// `meros quota …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum QuotaCommand {
    /// List roles that have a quota
    List(list::Args),
    /// Set the quota of a role, or of several at once from a file: all of them, or none
    ///
    /// It replaces the quota that the role had: what is not named is neither guaranteed nor limited
    /// any more. It counts for the role and all roles below it. Offers above a limit are taken back,
    /// tasks are never killed.
    #[command(after_help = "Examples:\n  \
        meros quota set web --guarantee 'cpus:8;mem:16384' --limit 'cpus:32;gpus:0'\n  \
        meros quota list -o json > quotas.json; $EDITOR quotas.json; meros quota set --file quotas.json")]
    Set(QuotaSet),
    /// Take the quotas of roles away: nothing is guaranteed to them or limited any more
    Remove(QuotaRemove),
}

/// What `meros quota set` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct QuotaSet {
    /// The role
    #[arg(required_unless_present = "file")]
    role: Option<RoleName>,
    /// What is kept for the role, such as `cpus:8;mem:16384`
    #[arg(long, value_name = "RESOURCES", value_parser = parse_amounts)]
    guarantee: Option<Amounts>,
    /// What the role is not offered more than, such as `cpus:32;gpus:0`
    #[arg(long, value_name = "RESOURCES", value_parser = parse_amounts)]
    limit: Option<Amounts>,
    /// JSON as `meros quota list -o json` prints it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["role", "guarantee", "limit"])]
    file: Option<PathBuf>,
    /// Even if more is guaranteed than there is, or more is in use than the limit
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What `meros quota remove` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct QuotaRemove {
    /// The roles: all of them, or none
    #[arg(required = true)]
    roles: Vec<RoleName>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `meros weights …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum WeightsCommand {
    /// List roles that have another weight than 1
    List(list::Args),
    /// Set the weights of roles: all of them, or none
    ///
    /// A role with weight 2 is due twice as much as a sibling with weight 1 of what both want. From
    /// 0.001 to 1000000; 1 is what a role has otherwise.
    #[command(after_help = "Example:\n  meros weights set web=3 batch=1")]
    Set(WeightsSet),
}

/// What `meros weights set` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct WeightsSet {
    /// Roles and their weights
    #[arg(required = true, value_name = "ROLE=WEIGHT", value_parser = parse_weight)]
    weights: Vec<RoleWeight>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `meros minimums …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum MinimumsCommand {
    /// List roles for which it is set what is worth an offer
    List(list::Args),
    /// Set what is worth an offer in roles: all of them, or none
    ///
    /// What is less than all alternatives is not offered in the role and those below it, unless a
    /// framework says otherwise for itself. Offers that are out stay. An empty text: everything is
    /// worth an offer.
    #[command(
        after_help = "Example:\n  meros minimums set 'web=cpus:1;mem:1024' 'batch=cpus:4|gpus:1' volumes="
    )]
    Set(MinimumsSet),
    /// Take the minimums of roles away: that of the role above, or of the master, counts again
    Remove(MinimumsRemove),
}

/// What `meros minimums set` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct MinimumsSet {
    /// Roles and what is worth an offer in them
    #[arg(required = true, value_name = "ROLE=MINIMUM", value_parser = parse_minimum)]
    minimums: Vec<RoleMinimum>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What `meros minimums remove` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct MinimumsRemove {
    /// The roles: all of them, or none
    #[arg(required = true)]
    roles: Vec<RoleName>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Scalars by name.
type Amounts = BTreeMap<ResourceName, Scalar>;

/// Not read as resources: an amount of zero is none of those, but a limit that means something.
fn parse_amounts(text: &str) -> Result<Amounts, String> {
    let mut amounts = Amounts::new();
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let (name, amount) = part
            .split_once(':')
            .ok_or_else(|| format!("{part:?} is no amount: write such as cpus:8;mem:1024"))?;
        let name: ResourceName = name.trim().parse().map_err(|error| format!("{error}"))?;
        let amount = amount
            .trim()
            .parse()
            .map_err(|error| format!("{name}: {error}"))?;
        if amounts.insert(name.clone(), amount).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(amounts)
}

#[derive(Debug, Clone, Serialize)]
struct RoleWeight {
    role: RoleName,
    weight: Scalar,
}

fn parse_weight(text: &str) -> Result<RoleWeight, String> {
    let (role, weight) = text
        .rsplit_once('=')
        .ok_or_else(|| "write ROLE=WEIGHT, such as web=2".to_owned())?;
    Ok(RoleWeight {
        role: role.parse().map_err(|error| format!("{error}"))?,
        weight: weight
            .parse()
            .map_err(|error| format!("weight {weight:?}: {error}"))?,
    })
}

#[derive(Debug, Clone, Serialize)]
struct RoleMinimum {
    role: RoleName,
    minimum: Option<Minimum>,
}

fn parse_minimum(text: &str) -> Result<RoleMinimum, String> {
    let (role, minimum) = text
        .split_once('=')
        .ok_or_else(|| "write ROLE=MINIMUM, such as 'web=cpus:1;mem:1024'".to_owned())?;
    let minimum = minimum
        .parse()
        .map_err(|error| format!("minimum {minimum:?}: {error}"))?;
    Ok(RoleMinimum {
        role: role.parse().map_err(|error| format!("{error}"))?,
        minimum: Some(minimum),
    })
}

#[derive(Debug, Serialize)]
struct Quotas {
    quotas: Vec<RoleQuota>,
    force: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct RoleQuota {
    role: RoleName,
    guarantees: Amounts,
    limits: Amounts,
}

/// An entry of a file: a quota, or a whole row of `meros quota list -o json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the rest of a row is allowed and not used")]
struct FileEntry {
    role: RoleName,
    #[serde(default)]
    guarantees: Amounts,
    #[serde(default)]
    limits: Amounts,
    weight: Option<Scalar>,
    minimum: Option<Minimum>,
    frameworks: Option<u64>,
    tasks: Option<u64>,
    offers: Option<u64>,
    used: Option<Amounts>,
    offered: Option<Amounts>,
    reserved: Option<Amounts>,
    counted: Option<Amounts>,
}

#[derive(Debug, Serialize)]
struct Weights<'a> {
    weights: &'a [RoleWeight],
}

#[derive(Debug, Serialize)]
struct Minimums<'a> {
    minimums: &'a [RoleMinimum],
}

#[derive(Debug, Deserialize)]
struct Done {
    roles_without_frameworks: Vec<RoleName>,
}

pub(crate) fn roles(args: &list::Args) -> Result<Exit, CliError> {
    let nothing = "no roles: none is configured, and no framework has subscribed";
    list_roles(args, "/api/v1/roles", nothing)
}

pub(crate) fn quota(command: &QuotaCommand) -> Result<Exit, CliError> {
    match command {
        QuotaCommand::List(args) => list_roles(
            args,
            "/api/v1/quotas",
            "no role has a quota; `meros quota set` gives one",
        ),
        QuotaCommand::Set(args) => set_quota(args),
        QuotaCommand::Remove(args) => {
            let quotas = args.roles.iter().map(|role| RoleQuota {
                role: role.clone(),
                ..RoleQuota::default()
            });
            let order = Quotas {
                quotas: quotas.collect(),
                force: false,
            };
            let _: Done = Client::new(&args.cluster).order("/api/v1/quotas", &order)?;
            println!("removed: {}", names(&args.roles));
            Ok(Exit::Success)
        }
    }
}

fn set_quota(args: &QuotaSet) -> Result<Exit, CliError> {
    let quotas = match (&args.file, &args.role) {
        (Some(file), _) => read_quotas(file)?,
        (None, Some(role)) => {
            let quota = RoleQuota {
                role: role.clone(),
                guarantees: args.guarantee.clone().unwrap_or_default(),
                limits: args.limit.clone().unwrap_or_default(),
            };
            if quota.guarantees.is_empty() && quota.limits.is_empty() {
                return Err(CliError::usage(
                    "nothing is guaranteed or limited: give --guarantee or --limit, or take the \
                     quota away with `meros quota remove`",
                ));
            }
            vec![quota]
        }
        (None, None) => unreachable!("clap requires one of them"),
    };
    let roles: Vec<RoleName> = quotas.iter().map(|quota| quota.role.clone()).collect();
    let order = Quotas {
        quotas,
        force: args.force,
    };
    let done: Done = Client::new(&args.cluster).order("/api/v1/quotas", &order)?;
    println!("set: {}", names(&roles));
    done.warn();
    Ok(Exit::Success)
}

fn read_quotas(file: &Path) -> Result<Vec<RoleQuota>, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::usage(format!("{} cannot be read: {error}", file.display())))?;
    let entries: Vec<FileEntry> = serde_json::from_str(&text).map_err(|error| {
        CliError::usage(format!("{} is no list of quotas: {error}", file.display()))
    })?;
    let quota = |entry: FileEntry| RoleQuota {
        role: entry.role,
        guarantees: entry.guarantees,
        limits: entry.limits,
    };
    Ok(entries.into_iter().map(quota).collect())
}

pub(crate) fn weights(command: &WeightsCommand) -> Result<Exit, CliError> {
    match command {
        WeightsCommand::List(args) => list_roles(
            args,
            "/api/v1/weights",
            "every role has weight 1; `meros weights set` changes that",
        ),
        WeightsCommand::Set(args) => {
            let order = Weights {
                weights: &args.weights,
            };
            let done: Done = Client::new(&args.cluster).order("/api/v1/weights", &order)?;
            let roles: Vec<RoleName> = args.weights.iter().map(|it| it.role.clone()).collect();
            println!("set: {}", names(&roles));
            done.warn();
            Ok(Exit::Success)
        }
    }
}

pub(crate) fn minimums(command: &MinimumsCommand) -> Result<Exit, CliError> {
    match command {
        MinimumsCommand::List(args) => list_roles(
            args,
            "/api/v1/minimums",
            "for every role the minimum of the masters counts, which `meros settings` shows; \
             `meros minimums set` changes that",
        ),
        MinimumsCommand::Set(args) => {
            let done = order_minimums(&args.cluster, &args.minimums)?;
            let roles: Vec<RoleName> = args.minimums.iter().map(|it| it.role.clone()).collect();
            println!("set: {}", names(&roles));
            done.warn();
            Ok(Exit::Success)
        }
        MinimumsCommand::Remove(args) => {
            let none = |role: &RoleName| RoleMinimum {
                role: role.clone(),
                minimum: None,
            };
            let minimums: Vec<RoleMinimum> = args.roles.iter().map(none).collect();
            order_minimums(&args.cluster, &minimums)?;
            println!("removed: {}", names(&args.roles));
            Ok(Exit::Success)
        }
    }
}

fn order_minimums(cluster: &ClusterArgs, minimums: &[RoleMinimum]) -> Result<Done, CliError> {
    Client::new(cluster).order("/api/v1/minimums", &Minimums { minimums })
}

impl Done {
    /// A role that nobody is in may be one that nobody will ever be in.
    fn warn(&self) {
        if !self.roles_without_frameworks.is_empty() {
            eprintln!(
                "meros: no framework is in {} yet; `meros roles` lists the roles that there are",
                names(&self.roles_without_frameworks)
            );
        }
    }
}

fn names(roles: &[RoleName]) -> String {
    let names: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
    names.join(", ")
}

fn list_roles(args: &list::Args, path: &str, nothing: &str) -> Result<Exit, CliError> {
    let rows: Vec<RoleRow> = Client::new(&args.cluster).list(path)?;
    print(args.output, &rows, |rows| {
        let headings = [
            "ROLE",
            "WEIGHT",
            "FRAMEWORKS",
            "TASKS",
            "OFFERS",
            "GUARANTEED",
            "LIMIT",
            "MINIMUM",
            "COUNTED",
            "USED",
            "OFFERED",
        ];
        layout(&headings, rows.iter().map(line).collect(), nothing)
    })?;
    Ok(Exit::Success)
}

fn line(row: &RoleRow) -> Vec<String> {
    vec![
        row.role.to_string(),
        row.weight.to_string(),
        row.frameworks.to_string(),
        row.tasks.to_string(),
        row.offers.to_string(),
        amounts(&row.guarantees),
        amounts(&row.limits),
        minimum(row.minimum.as_ref()),
        amounts(&row.counted),
        amounts(&row.used),
        amounts(&row.offered),
    ]
}

/// `cpus:4;mem:1024`, or a dash.
fn amounts(amounts: &Amounts) -> String {
    if amounts.is_empty() {
        return "-".to_owned();
    }
    let each: Vec<String> = amounts
        .iter()
        .map(|(name, amount)| format!("{name}:{amount}"))
        .collect();
    shortened(&each.join(";"), 60)
}

/// `cpus:4|gpus:1`, a dash for that of the master, or that everything is worth an offer.
fn minimum(minimum: Option<&Minimum>) -> String {
    match minimum {
        None => "-".to_owned(),
        Some(minimum) if minimum.any_of.is_empty() => "none".to_owned(),
        Some(minimum) => shortened(&minimum.to_string(), 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_resources_are() {
        let read = parse_amounts("cpus:1.5;mem:1024;gpus:0").unwrap();
        assert_eq!(amounts(&read), "cpus:1.5;mem:1024;gpus:0");
        assert_eq!(amounts(&Amounts::new()), "-");
        for text in [
            "cpus",
            "ports:[1-2]",
            "cpus(web):2",
            "cpus:-1",
            "cpus:NaN",
            "cpus:1;cpus:2",
        ] {
            assert!(parse_amounts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn weights_name_a_role_and_a_number() {
        let web = parse_weight("eng/web=2.5").unwrap();
        assert_eq!(
            (web.role.as_str(), web.weight.to_string()),
            ("eng/web", "2.5".to_owned())
        );
        for text in ["web", "web=", "=2", "web=NaN", "web=-1", "a b=1"] {
            assert!(parse_weight(text).is_err(), "{text}");
        }
    }

    #[test]
    fn minimums_name_a_role_and_amounts() {
        let web = parse_minimum("eng/web=cpus:1;mem:64|gpus:1").unwrap();
        assert_eq!(web.role.as_str(), "eng/web");
        assert_eq!(minimum(web.minimum.as_ref()), "cpus:1;mem:64|gpus:1");
        let any = parse_minimum("web=").unwrap();
        assert_eq!(minimum(any.minimum.as_ref()), "none");
        assert_eq!(minimum(None), "-");
        for text in [
            "web",
            "=cpus:1",
            "web=cpus",
            "web=ports:[1-2]",
            "a b=cpus:1",
        ] {
            assert!(parse_minimum(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_that_was_printed_can_be_edited_and_set() {
        let row = RoleRow {
            role: "web".parse().unwrap(),
            weight: Scalar::ONE,
            guarantees: parse_amounts("cpus:2").unwrap(),
            limits: Amounts::new(),
            minimum: "cpus:1|mem:64".parse().ok(),
            frameworks: 1,
            tasks: 2,
            offers: 3,
            used: Amounts::new(),
            offered: Amounts::new(),
            reserved: Amounts::new(),
            counted: Amounts::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quotas.json");
        std::fs::write(&file, serde_json::to_string(&[&row]).unwrap()).unwrap();
        let quota = RoleQuota {
            role: row.role.clone(),
            guarantees: row.guarantees.clone(),
            limits: Amounts::new(),
        };
        assert_eq!(read_quotas(&file).unwrap(), [quota]);
        std::fs::write(&file, r#"[{"role":"web","limit":{"cpus":1}}]"#).unwrap();
        let error = read_quotas(&file).unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }
}
