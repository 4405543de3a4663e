//! The `meros` binary under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary: `MEROS_BIN`, or the one that cargo built beside this test.
///
/// # Panics
/// There is none; the message says how to build it.
#[must_use]
pub fn meros_program() -> PathBuf {
    if let Some(given) = std::env::var_os("MEROS_BIN") {
        return PathBuf::from(given);
    }
    let test = std::env::current_exe().expect("a test knows its own file");
    let beside = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("meros"))
        .find(|program| program.is_file());
    beside.expect("no `meros` binary beside the test: run `cargo build -p meros` first")
}

/// A finished run of `meros`.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = output.status.signal().map(|signal| 128 + signal);
        Self {
            code: output.status.code().or(signal).expect("it has ended"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A `meros` command with no configuration but what the test gives.
#[must_use]
pub fn meros() -> Command {
    bare(Command::new(meros_program()))
}

/// The same on a host of a [`Network`](crate::Network), named by its namespace. It has the pid of the
/// command that is started.
#[must_use]
pub fn meros_on(namespace: &str) -> Command {
    bare(program_on(namespace, &meros_program()))
}

/// Any program on such a host.
#[must_use]
pub fn program_on(namespace: &str, program: &Path) -> Command {
    // Not `ip netns exec`, which hides the control groups.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command.arg(program);
    command
}

fn bare(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEROS_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}
