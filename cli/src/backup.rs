//! `meros backup` and `meros restore`: the registry in a file, and a cluster from one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use meros_master::restore::{Source, restore};

use crate::client::{Client, ClusterArgs};
use crate::exit::{CliError, Exit, chain};

/// What `meros backup` takes.
#[derive(Debug, clap::Args)]
#[group(id = "backup")]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The file to write; one that is there is replaced
    file: PathBuf,
}

/// What `meros restore` takes.
#[derive(Debug, clap::Args)]
#[group(id = "restore")]
pub(crate) struct RestoreArgs {
    /// A file that `meros backup` has written
    #[arg(
        required_unless_present = "force_single",
        conflicts_with = "force_single"
    )]
    file: Option<PathBuf>,
    /// Instead of a file: the data directory of a stopped master, when more than half of the masters are
    /// lost for good. What only they knew is lost; they must never be started again
    #[arg(long, value_name = "DIR")]
    force_single: Option<PathBuf>,
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The identity of the master that will use it
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// Where others will reach that master
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5050")]
    advertise: String,
}

pub(crate) fn backup(args: &BackupArgs) -> Result<Exit, CliError> {
    let bytes = Client::new(&args.cluster).bytes("/api/v1/backup")?;
    let failed =
        |error| CliError::failure(format!("cannot write {}: {error}", args.file.display()));
    write(&args.file, &bytes).map_err(failed)?;
    println!("{} bytes in {}", bytes.len(), args.file.display());
    Ok(Exit::Success)
}

/// All of it or nothing, durably, for the owner's eyes.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

pub(crate) fn run_restore(args: &RestoreArgs) -> Result<Exit, CliError> {
    let source = match (&args.file, &args.force_single) {
        (Some(file), _) => Source::Backup(file.clone()),
        (None, Some(dir)) => Source::Survivor(dir.clone()),
        (None, None) => return Err(CliError::usage("name a backup, or --force-single DIR")),
    };
    let restored = restore(&source, &args.data_dir, &args.identity, &args.advertise);
    let restored = restored.map_err(|error| CliError::failure(chain(&error)))?;
    println!(
        "cluster {} with {} slaves and {} frameworks in {}",
        restored.cluster_id,
        restored.slaves,
        restored.frameworks,
        args.data_dir.display()
    );
    println!("start a master on it; others join that one with empty data directories");
    let lost = match source {
        Source::Backup(_) => "what was decided since the backup is lost",
        Source::Survivor(_) => {
            "what the lost masters had decided without this one is lost, and what this one had heard last counts as decided"
        }
    };
    eprintln!(
        "meros: warning: {lost}. Never start an old master of this cluster again: there would be two clusters"
    );
    Ok(Exit::Success)
}
