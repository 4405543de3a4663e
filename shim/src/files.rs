//! What a shim leaves in the folder of its container.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::logs::LogUsage;

/// The request; see [`Request`](crate::Request).
pub const REQUEST: &str = "request.json";
/// Where the shim answers.
pub const SOCKET: &str = "socket";
/// Process ids and counters of the output; see [`State`].
pub const STATE: &str = "state";
/// How the task ended; see [`Exit`]. Appears as a whole or not at all.
pub const EXIT: &str = "exit.json";
const EXIT_NEW: &str = "exit.new";

/// A record of an end is a few dozen bytes.
const EXIT_BYTES_MAX: u64 = 4 << 10;
/// Three numbers for each output behind the two process ids.
const NUMBERS: usize = 8;
const STATE_BYTES: usize = NUMBERS * size_of::<u64>();

/// How a first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// With this exit code, 0 to 255.
    Exited(i32),
    /// By this signal number.
    Signaled(i32),
}

impl ExitStatus {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// The end of a task, as its parent saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How its first process ended.
    pub status: ExitStatus,
    /// It was killed because its slave was lost and it was to end with it.
    pub with_slave: bool,
}

/// What is known of a task that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Its first process.
    pub pid: i32,
    /// Its parent.
    pub shim: i32,
    /// Its standard output.
    pub stdout: LogUsage,
    /// Its standard error.
    pub stderr: LogUsage,
}

impl State {
    fn encode(&self) -> [u8; STATE_BYTES] {
        let number = |pid: i32| u64::try_from(pid).unwrap_or(0);
        let of = |log: &LogUsage| [log.bytes, log.bytes_dropped, log.steps];
        let mut bytes = [0; STATE_BYTES];
        let numbers = [number(self.pid), number(self.shim)]
            .into_iter()
            .chain(of(&self.stdout))
            .chain(of(&self.stderr));
        for (place, number) in bytes.chunks_exact_mut(size_of::<u64>()).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; STATE_BYTES]) -> Self {
        let mut numbers = [0; NUMBERS];
        let (places, _) = bytes.as_chunks();
        for (number, place) in numbers.iter_mut().zip(places) {
            *number = u64::from_le_bytes(*place);
        }
        let pid = |number: u64| i32::try_from(number).unwrap_or(0);
        let log = |at: usize| LogUsage {
            bytes: numbers[at],
            bytes_dropped: numbers[at + 1],
            steps: numbers[at + 2],
        };
        Self {
            pid: pid(numbers[0]),
            shim: pid(numbers[1]),
            stdout: log(2),
            stderr: log(5),
        }
    }
}

/// Makes the file of the state, or opens the one that is there.
pub(crate) fn create_state() -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(STATE)
}

pub(crate) fn write_state(file: &File, state: &State) -> io::Result<()> {
    file.write_all_at(&state.encode(), 0)
}

/// Reads the state from its file.
///
/// # Errors
/// It cannot be read, or is not whole.
pub fn read_state(file: &File) -> io::Result<State> {
    let mut bytes = [0; STATE_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(State::decode(&bytes))
}

/// Writes the end down. `is_synced`: also for the case that the machine goes down.
pub(crate) fn write_exit(exit: &Exit, is_synced: bool) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(EXIT_NEW)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    if is_synced {
        file.sync_all()?;
    }
    fs::rename(EXIT_NEW, EXIT)?;
    if is_synced {
        File::open(".")?.sync_all()?;
    }
    Ok(())
}

/// Reads how the task of this folder ended; none if it has not, or nobody saw it.
#[must_use]
pub fn read_exit(folder: &Path) -> Option<Exit> {
    let mut bytes = Vec::new();
    let file = File::open(folder.join(EXIT)).ok()?;
    file.take(EXIT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_half_of_one_is_none() {
        let log = |bytes| LogUsage {
            bytes,
            bytes_dropped: bytes + 1,
            steps: bytes + 2,
        };
        let state = State {
            pid: 7,
            shim: 6,
            stdout: log(10),
            stderr: log(u64::MAX - 9),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        write_state(&file, &state).unwrap();
        assert_eq!(read_state(&file).unwrap(), state);
        file.set_len(STATE_BYTES as u64 - 1).unwrap();
        read_state(&file).unwrap_err();
        assert_eq!(State::decode(&[0xff; STATE_BYTES]).pid, 0);
    }

    #[test]
    fn an_end_that_makes_no_sense_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(dir.path()), None);
        for garbage in ["", "{", "{\"status\":{\"Exited\":\"x\"}}", "[]"] {
            fs::write(dir.path().join(EXIT), garbage).unwrap();
            assert_eq!(read_exit(dir.path()), None, "{garbage}");
        }
    }
}
