//! `meros`: the one binary. A datacenter on one machine (`meros dev`), its daemons
//! (`meros master`, `meros slave`), and everything an operator types.
//!
//! One file per subcommand; this one only wires them. Exit codes: [`exit::Exit`].

mod attach;
mod backup;
mod ca;
mod claims;
mod client;
mod config;
mod conform;
mod daemon;
mod dev;
mod exec;
mod exit;
mod kill;
mod list;
mod logs;
mod maintenance;
mod masters;
mod output;
mod roles;
mod run;
mod settings;
mod signal;
mod sim;
mod slaves;
mod state;
#[cfg(test)]
mod stub;
mod task;
mod top;
mod why;

use clap::{Parser, Subcommand};

// Known bugs are for the simulator's tests (docs/decisions/0009-mutants.md). Clippy looks at all
// features at once, and makes no program.
#[cfg(not(clippy))]
const _: () = assert!(
    !meros_proto::mutant::Mutant::COMPILED_IN,
    "meros is not built with the feature `mutants`"
);

/// A datacenter operating system kernel: masters share out the machines, frameworks decide what
/// to run on them.
#[derive(Debug, Parser)]
#[command(name = "meros", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a local datacenter: a master and some slaves, until Ctrl-C
    ///
    /// Options of the daemons are given as variables: MEROS_SORTER=random meros dev
    Dev(dev::Args),
    /// Run a master
    Master(daemon::MasterArgs),
    /// Run a slave
    Slave(daemon::SlaveArgs),
    /// Make the cluster's certificate authority, and certificates
    #[command(subcommand)]
    Ca(ca::Args),
    /// Run a command as a task, show its output, return its exit code
    Run(run::Args),
    /// List tasks
    Ps(list::PsArgs),
    /// The masters of the cluster
    #[command(subcommand)]
    Masters(masters::Command),
    /// Copy the registry, of which a cluster can be made again, into a file
    Backup(backup::BackupArgs),
    /// Make the data directory of a master from a backup, or from the last one that is left
    Restore(backup::RestoreArgs),
    /// List slaves, or take some out of service and back
    Slaves(slaves::Args),
    /// Keep a part of a slave for a role
    Reserve(claims::ReserveArgs),
    /// Take a reservation off again
    Unreserve(claims::ReserveArgs),
    /// Persistent volumes: list, create, grow, shrink, destroy
    #[command(subcommand)]
    Volumes(claims::VolumesCommand),
    /// When slaves will not be available, told to frameworks ahead
    #[command(subcommand)]
    Maintenance(maintenance::Command),
    /// List frameworks
    Frameworks(list::Args),
    /// List outstanding offers
    Offers(list::Args),
    /// List roles: what they are due and what they have
    Roles(list::Args),
    /// What roles are guaranteed and limited to
    #[command(subcommand)]
    Quota(roles::QuotaCommand),
    /// How much of what they compete for is due to roles
    #[command(subcommand)]
    Weights(roles::WeightsCommand),
    /// What is worth an offer in roles
    #[command(subcommand)]
    Minimums(roles::MinimumsCommand),
    /// Why nothing is offered to a framework, or what a task waits for
    #[command(subcommand)]
    Why(why::Command),
    /// What frameworks keep with the masters: keys, leases, semaphores
    #[command(subcommand)]
    State(state::Command),
    /// Show the options of the master with the values in force
    Settings(settings::Args),
    /// Show what a task wrote
    Logs(logs::Args),
    /// The files in the sandbox of a task: list, read, follow, download
    #[command(subcommand)]
    Task(task::Command),
    /// Run a command inside of a task's container
    ///
    /// With the limits, the user, the environment and the rights of the task. `meros exec -it TASK -- sh`
    /// is a shell there
    Exec(exec::Args),
    /// Show what a task writes, both outputs, until it ends; return its exit code
    Attach(attach::Args),
    /// Show what the container of a task uses: processor, memory, disk, processes, pressure
    Top(top::Args),
    /// Kill a task
    Kill(kill::Args),
    /// Find out whether a server speaks the Mesos v1 APIs as their clients expect
    ///
    /// Launches small tasks and reserves a little on a cluster with nobody else at work, and takes all
    /// of that back
    Conform(conform::Args),
    /// The simulated datacenter: seeds with faults, scenarios
    #[command(subcommand)]
    Sim(meros_sim::command::Command),
}

impl Command {
    /// Whether it may end in the middle of its output: nothing else depends on it.
    fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::Ps(_)
                | Self::Slaves(_)
                | Self::Frameworks(_)
                | Self::Offers(_)
                | Self::Roles(_)
                | Self::Why(_)
                | Self::State(
                    state::Command::Spaces(_)
                        | state::Command::Get { .. }
                        | state::Command::List { .. }
                        | state::Command::Watch { .. }
                        | state::Command::Leases { .. }
                )
                | Self::Settings(_)
                | Self::Logs(_)
                | Self::Attach(_)
                | Self::Top(_)
                | Self::Task(
                    task::Command::Files { .. }
                        | task::Command::Cat { .. }
                        | task::Command::Tail { .. }
                )
        )
    }
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    if cli.command.only_prints() {
        signal::restore_broken_pipe();
    }
    let ended = match cli.command {
        Command::Dev(args) => dev::run(&args),
        Command::Master(args) => daemon::master(args),
        Command::Slave(args) => daemon::slave(args),
        Command::Ca(args) => ca::run(&args),
        Command::Run(args) => run::run(args),
        Command::Ps(args) => list::tasks(&args),
        Command::Masters(command) => masters::run(&command),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::run_restore(&args),
        Command::Slaves(args) => slaves::run(&args),
        Command::Reserve(args) => claims::reserve(&args),
        Command::Unreserve(args) => claims::unreserve(&args),
        Command::Volumes(command) => claims::volumes(&command),
        Command::Maintenance(command) => maintenance::run(&command),
        Command::Frameworks(args) => list::frameworks(&args),
        Command::Offers(args) => list::offers(&args),
        Command::Roles(args) => roles::roles(&args),
        Command::Quota(command) => roles::quota(&command),
        Command::Weights(command) => roles::weights(&command),
        Command::Minimums(command) => roles::minimums(&command),
        Command::Why(command) => why::run(&command),
        Command::State(command) => state::run(&command),
        Command::Settings(args) => settings::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Task(command) => task::run(&command),
        Command::Exec(args) => exec::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Conform(args) => conform::run(&args),
        Command::Sim(command) => sim::run(&command),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("meros: {error}");
            error.exit().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_the_command_line_takes_does_not_contradict_itself() {
        Cli::command().debug_assert();
    }
}
