//! `meros ca init|issue`: the cluster's certificate authority, and certificates.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use meros_proto::transport::{ClusterCa, PeerRole};

use crate::exit::{CliError, Exit, chain};

/// Make the cluster's certificate authority, and certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Args {
    /// Make a certificate authority in an empty folder; keep its key to yourself
    Init {
        /// Where to; gets ca.pem and ca-key.pem
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The cluster's name, for people
        #[arg(long, default_value = "meros")]
        name: String,
    },
    /// Issue a certificate; copy the folder to the machine that uses it
    Issue {
        /// The authority's folder
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// What the holder may be
        #[arg(long)]
        role: Role,
        /// Who the holder is: the principal that the cluster knows it by
        #[arg(long)]
        name: String,
        /// Host names and addresses the holder is reached by, if clients are to check them
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Where to; gets cert.pem, key.pem and ca.pem
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// What the holder of a certificate may be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// A master.
    Master,
    /// A slave.
    Slave,
    /// A framework.
    Framework,
    /// An operator: may run one-off tasks with `meros run`.
    Operator,
}

impl From<Role> for PeerRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Master => Self::Master,
            Role::Slave => Self::Slave,
            Role::Framework => Self::Framework,
            Role::Operator => Self::Operator,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    match args {
        Args::Init { dir, name } => {
            create(name, dir)?;
            println!("certificate authority of {name} in {}", dir.display());
            println!(
                "next: meros ca issue --ca {} --role master --name m1 --out m1",
                dir.display()
            );
        }
        Args::Issue {
            ca,
            role,
            name,
            hosts,
            out,
        } => {
            issue(&load(ca)?, (*role).into(), name, hosts, out)?;
            println!("certificate of {name} in {}", out.display());
        }
    }
    Ok(Exit::Success)
}

fn failed(error: impl std::error::Error) -> CliError {
    CliError::failure(chain(&error))
}

/// Makes a certificate authority.
///
/// # Errors
/// The name is not good, or the folder has one.
pub(crate) fn create(name: &str, dir: &Path) -> Result<ClusterCa, CliError> {
    let ca = ClusterCa::create(name).map_err(failed)?;
    ca.save(dir).map_err(failed)?;
    Ok(ca)
}

/// Reads a certificate authority.
///
/// # Errors
/// There is none, or it is damaged.
pub(crate) fn load(dir: &Path) -> Result<ClusterCa, CliError> {
    ClusterCa::load(dir).map_err(failed)
}

/// Issues a certificate into a folder.
///
/// # Errors
/// The name is not good, or the folder has one.
pub(crate) fn issue(
    ca: &ClusterCa,
    role: PeerRole,
    name: &str,
    hosts: &[String],
    out: &Path,
) -> Result<(), CliError> {
    ca.issue(role, name, hosts)
        .map_err(failed)?
        .save(out)
        .map_err(failed)
}
