//! `meros-sim`: `meros sim` for those who work on Meros, without the rest of it.

use std::process::ExitCode;

use clap::Parser;
use meros_sim::command::Command;

/// The simulated datacenter; the same as `meros sim`.
#[derive(Debug, Parser)]
#[command(name = "meros-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
