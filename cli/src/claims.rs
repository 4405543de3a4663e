//! `meros reserve`, `meros unreserve`, `meros volumes …`: what is kept for roles on a slave.

use meros_proto::ids::SlaveId;
use meros_proto::labels::{Label, Labels};
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::resources::{
    Reservation, Reservations, Resource, ResourceName, Resources, Scalar, Volume,
};
use meros_proto::role::RoleName;
use meros_proto::view::SlaveRow;
use serde::Serialize;

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit};
use crate::list;
use crate::output::print;
use crate::output::table::layout;
use crate::why::slave_id;

/// What `meros reserve` and `meros unreserve` take.
///
/// Offers that hold the resources are taken back; what tasks use cannot change.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    meros reserve S0 'cpus:2;mem:1024' --role web\n  \
    meros unreserve S0 'cpus:2;mem:1024' --role web")]
pub(crate) struct ReserveArgs {
    /// The slave, by id or host name
    slave: String,
    /// What, such as `cpus:2;mem:1024`; resources that are reserved already are written with their
    /// reservations, such as `cpus(web):2`
    resources: Resources,
    /// For which role; it and those below it are offered the resources then, and nobody else
    #[arg(long)]
    role: RoleName,
    /// Noted with the reservation: `key=value` or `key`; may be given several times
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    label: Vec<Label>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `meros volumes …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum VolumesCommand {
    /// List persistent volumes
    List(list::Args),
    /// Make disk that is reserved for a role a volume, whose data outlives tasks
    #[command(after_help = "Example:\n  \
        meros reserve S0 disk:1024 --role web\n  \
        meros volumes create S0 db --disk 1024 --path data --role web")]
    Create(CreateArgs),
    /// Add reserved disk to a volume that no task uses; its data stays
    #[command(after_help = "Example:\n  \
        meros reserve S0 disk:512 --role web\n  \
        meros volumes grow S0 db --by 512")]
    Grow(ResizeArgs),
    /// Take disk from a volume that no task uses; the disk stays reserved, and all data is kept
    Shrink(ResizeArgs),
    /// Destroy a volume that no task uses: its data is wiped
    Destroy(DestroyArgs),
}

/// What `meros volumes create` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The slave, by id or host name
    slave: String,
    /// The volume's id, unique in its role on this slave
    id: String,
    /// How much disk it takes, in MiB: all of it must be reserved alike
    #[arg(long, value_name = "MIB")]
    disk: Scalar,
    /// Where tasks find it, relative to their sandboxes
    #[arg(long)]
    path: String,
    /// The role that the disk is reserved for
    #[arg(long)]
    role: RoleName,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Which volume.
#[derive(Debug, clap::Args)]
struct VolumeArgs {
    /// The slave, by id or host name
    slave: String,
    /// The volume's id
    id: String,
    /// Its role, if several roles have a volume with this id
    #[arg(long)]
    role: Option<RoleName>,
}

/// What `meros volumes destroy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct DestroyArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What `meros volumes grow` and `meros volumes shrink` take.
#[derive(Debug, clap::Args)]
pub(crate) struct ResizeArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    /// By how much, in MiB. To grow, it is taken of disk that is reserved as the volume is; a volume that
    /// shrinks keeps at least 1
    #[arg(long, value_name = "MIB")]
    by: Scalar,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Serialize)]
struct Order<'a> {
    resources: &'a Resources,
}

/// A volume, as `meros volumes list` shows it.
#[derive(Debug, Serialize)]
struct VolumeRow {
    slave_id: SlaveId,
    hostname: String,
    id: String,
    role: RoleName,
    disk: String,
    path: String,
    in_use: bool,
}

fn parse_label(text: &str) -> Result<Label, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    Label::new(key, value).map_err(|error| error.to_string())
}

pub(crate) fn reserve(args: &ReserveArgs) -> Result<Exit, CliError> {
    change_reservation(args, ChangeKind::Reserve, "is reserved for")
}

pub(crate) fn unreserve(args: &ReserveArgs) -> Result<Exit, CliError> {
    change_reservation(args, ChangeKind::Unreserve, "is no longer reserved for")
}

fn change_reservation(args: &ReserveArgs, kind: ChangeKind, what: &str) -> Result<Exit, CliError> {
    let usage = |error: &dyn std::error::Error| CliError::usage(error.to_string());
    let labels = Labels::from_list(args.label.clone()).map_err(|error| usage(&error))?;
    let reservation = Reservation::dynamic(args.role.clone(), None, labels);
    let reservation = reservation.map_err(|error| usage(&error))?;
    let reserved = args.resources.push_reservation(&reservation);
    let reserved =
        reserved.map_err(|error| usage(std::error::Error::source(&error).unwrap_or(&error)))?;
    let client = Client::new(&args.cluster);
    let id = slave_id(&client, &args.slave)?;
    order(&client, id, kind, &reserved)?;
    println!("{id} {} {what} {}", args.resources, args.role);
    Ok(Exit::Success)
}

fn order(
    client: &Client,
    slave: SlaveId,
    kind: ChangeKind,
    resources: &Resources,
) -> Result<(), CliError> {
    let path = format!("/api/v1/slaves/{slave}/resources/{kind}");
    let _: serde_json::Value = client.order(&path, &Order { resources })?;
    Ok(())
}

pub(crate) fn volumes(command: &VolumesCommand) -> Result<Exit, CliError> {
    match command {
        VolumesCommand::List(args) => list_volumes(args),
        VolumesCommand::Create(args) => create(args),
        VolumesCommand::Grow(args) => resize(args, ChangeKind::Grow),
        VolumesCommand::Shrink(args) => resize(args, ChangeKind::Shrink),
        VolumesCommand::Destroy(args) => destroy(args),
    }
}

fn rows_of(slaves: &[SlaveRow]) -> Vec<VolumeRow> {
    let volumes = slaves.iter().flat_map(|row| {
        let volumes = row.slave.resources.iter();
        volumes.filter_map(move |resource| {
            let volume = resource.volume()?;
            Some(VolumeRow {
                slave_id: row.slave.slave_id,
                hostname: row.slave.hostname.clone(),
                id: volume.id().to_owned(),
                role: resource.reservations().role()?.clone(),
                disk: resource.value().to_string(),
                path: volume.container_path().to_owned(),
                in_use: row.used.contains(&resource.clone().into()),
            })
        })
    });
    volumes.collect()
}

fn list_volumes(args: &list::Args) -> Result<Exit, CliError> {
    let slaves: Vec<SlaveRow> = Client::new(&args.cluster).list("/api/v1/slaves")?;
    print(args.output, &rows_of(&slaves), |rows| {
        let line = |row: &VolumeRow| {
            vec![
                row.slave_id.to_string(),
                row.hostname.clone(),
                row.id.clone(),
                row.role.to_string(),
                row.disk.clone(),
                row.path.clone(),
                if row.in_use { "yes" } else { "no" }.to_owned(),
            ]
        };
        layout(
            &["SLAVE", "HOST", "VOLUME", "ROLE", "DISK", "PATH", "IN USE"],
            rows.iter().map(line).collect(),
            "no volumes; frameworks and `meros volumes create` make them",
        )
    })?;
    Ok(Exit::Success)
}

fn create(args: &CreateArgs) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let id = slave_id(&client, &args.slave)?;
    let volume = Volume::new(&args.id, &args.path);
    let volume = volume.map_err(|error| CliError::usage(error.to_string()))?;
    let slave = slave(&client, id)?;
    let is_enough = |it: &&Resource| {
        *it.name() == ResourceName::DISK && it.is_reserved_for(&args.role) && it.volume().is_none()
    };
    let mut disks = slave.slave.resources.iter().filter(is_enough);
    let disk = disks.find(|it| it.value().contains(&args.disk.into()));
    let below = match disk {
        Some(disk) => disk.reservations().clone(),
        // The master says what is missing.
        None => unlabelled(&args.role)?,
    };
    let disk = Resource::new(ResourceName::DISK, args.disk);
    let volume = disk
        .and_then(|disk| disk.with_reservations(below))
        .and_then(|disk| disk.with_volume(volume))
        .map_err(|error| CliError::usage(error.to_string()))?;
    order(&client, id, ChangeKind::Create, &volume.into())?;
    println!("{id} volume {} is made for {}", args.id, args.role);
    Ok(Exit::Success)
}

fn unlabelled(role: &RoleName) -> Result<Reservations, CliError> {
    Reservation::dynamic(role.clone(), None, Labels::new())
        .and_then(|reservation| Reservations::new().push(reservation))
        .map_err(|error| CliError::usage(error.to_string()))
}

fn destroy(args: &DestroyArgs) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let (slave, volume) = find(&client, &args.volume)?;
    order(&client, slave, ChangeKind::Destroy, &volume.into())?;
    println!("{slave} volume {} is destroyed", args.volume.id);
    Ok(Exit::Success)
}

fn resize(args: &ResizeArgs, kind: ChangeKind) -> Result<Exit, CliError> {
    let client = Client::new(&args.cluster);
    let (slave, volume) = find(&client, &args.volume)?;
    let change = match kind {
        ChangeKind::Shrink => Change::shrink(&volume, args.by),
        _ => Change::grow(&volume, args.by),
    };
    let change = change.map_err(|error| CliError::usage(error.to_string()))?;
    order(&client, slave, kind, &change.resources)?;
    let verb = match kind {
        ChangeKind::Shrink => "shrinks",
        _ => "grows",
    };
    println!("{slave} volume {} {verb} by {}", args.volume.id, args.by);
    Ok(Exit::Success)
}

/// The volume, as its slave has it now.
fn find(client: &Client, args: &VolumeArgs) -> Result<(SlaveId, Resource), CliError> {
    let id = slave_id(client, &args.slave)?;
    let slave = slave(client, id)?;
    let is_it = |it: &&Resource| {
        let of_role = |role| it.is_reserved_for(role);
        it.volume().is_some_and(|volume| volume.id() == args.id)
            && args.role.as_ref().is_none_or(of_role)
    };
    let found: Vec<&Resource> = slave.slave.resources.iter().filter(is_it).collect();
    match found[..] {
        [volume] => Ok((id, volume.clone())),
        [] => {
            let hint = "`meros volumes list` shows those that are there";
            let why = format!("{id} has no volume {:?}: {hint}", args.id);
            Err(CliError::usage(why))
        }
        _ => Err(CliError::usage(format!(
            "several roles have a volume {:?} on {id}: say which with --role",
            args.id
        ))),
    }
}

fn slave(client: &Client, id: SlaveId) -> Result<SlaveRow, CliError> {
    let slaves: Vec<SlaveRow> = client.list("/api/v1/slaves")?;
    let found = slaves.into_iter().find(|row| row.slave.slave_id == id);
    found.ok_or_else(|| CliError::usage(format!("{id} has just left the cluster")))
}
