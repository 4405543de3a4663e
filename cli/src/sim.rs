//! `meros sim`: the simulated datacenter. What it can do is in `meros_sim::command`, which the
//! binary `meros-sim` shares.

use meros_sim::command::Command;

use crate::exit::{CliError, Exit};

pub(crate) fn run(command: &Command) -> Result<Exit, CliError> {
    Ok(match command.run() {
        true => Exit::Success,
        false => Exit::Failure,
    })
}
