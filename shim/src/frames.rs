//! What shim and slave say to each other: a line of JSON each.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{Exit, ExitStatus};
use crate::request::Failure;

/// The longest line, its end included. The longest that is ever said is a [`Failure`] with a path.
pub const FRAME_BYTES_MAX: usize = 16 << 10;

/// From the shim. A slave that connects hears everything from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The task runs.
    Running {
        /// Its first process, as the shim sees it.
        pid: i32,
        /// The shim itself.
        shim: i32,
        /// The first process of the task's own process namespace, which is ours; none without one.
        #[serde(default)]
        init: Option<i32>,
        /// Whether it knows [`Order::Exec`]. One of an earlier release does not say, and would take the
        /// order for a slave that has lost its mind.
        #[serde(default)]
        execs: bool,
    },
    /// There will be no task. The shim ends.
    NotStarted(Failure),
    /// The first process has ended, and that is written down.
    Ended(Exit),
    /// A check that was ordered is over. Said once, to whoever is there then.
    Checked {
        /// The number of the order.
        number: u64,
        /// How it ended.
        end: CheckEnd,
        /// The beginning of what it wrote, or why it could not be started.
        output: String,
    },
    /// A command that was ordered has ended, or could not be started. Said once, to the slave that has
    /// ordered it.
    Executed {
        /// The number of the order.
        number: u64,
        /// How it ended.
        status: ExitStatus,
    },
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckEnd {
    /// By itself, with this code: 127 if its program was not found, 126 if that cannot be executed, 125 if
    /// it could not be put beside the task.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was killed, because its time was over.
    TimedOut,
}

/// From the slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Kill what is left, write the last of the output, and end. The end of the connection says that
    /// it is done.
    Finish,
    /// Run a check of the request beside the task. Answer: [`Told::Checked`]. One of the same name that
    /// still runs is killed, and not told.
    Check {
        /// To know the answer by.
        number: u64,
        /// Its name in the request.
        check: String,
        /// How long it may take.
        timeout_ms: u64,
    },
    /// Run a command beside the task whose input and output the slave has: it listens at
    /// [`exec_socket`](crate::exec_socket) of the container's folder. Answer: [`Told::Executed`]. Only for a
    /// shim that has said that it `execs`.
    Exec {
        /// To know the answer by.
        number: u64,
        /// What is to run.
        command: ExecCommand,
    },
    /// Signal such a command and its process group.
    SignalExec {
        /// The number of its order.
        number: u64,
        /// Which signal.
        signal: i32,
    },
    /// Kill such a command and what is left of its session. There is no answer.
    EndExec {
        /// The number of its order.
        number: u64,
    },
}

/// What runs beside the task, as if the task had started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCommand {
    /// What is executed, its name first; looked up in `PATH` unless it has a `/`.
    pub argv: Vec<String>,
    /// Added to the environment of the task.
    pub env: BTreeMap<String, String>,
    /// Whether it has a terminal, else three pipes.
    pub has_terminal: bool,
}

/// One line.
#[must_use]
pub fn frame(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("plain data, no maps with odd keys");
    line.push(b'\n');
    line
}

/// Bytes from a peer, cut into messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

/// The peer does not speak our language: a line that is too long or no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame;

impl Frames {
    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`BadFrame`]: nothing more can be understood.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, BadFrame> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return match self.bytes.len() < FRAME_BYTES_MAX {
                true => Ok(None),
                false => Err(BadFrame),
            };
        };
        let message = serde_json::from_slice(&self.bytes[..end]).map_err(|_| BadFrame);
        self.bytes.drain(..=end);
        message.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let exit = Exit {
            status: ExitStatus::Exited(3),
            with_slave: false,
        };
        let all = [
            Told::Running {
                pid: 7,
                shim: 6,
                init: Some(5),
                execs: true,
            },
            Told::NotStarted(Failure {
                step: "enter \n \"x\"".to_owned(),
                errno: 2,
                part: Some(crate::Part::Net),
            }),
            Told::Ended(exit),
            Told::Checked {
                number: 3,
                end: CheckEnd::TimedOut,
                output: "\u{fffd}\n\"".to_owned(),
            },
            Told::Executed {
                number: 4,
                status: ExitStatus::Signaled(9),
            },
        ];
        let bytes: Vec<u8> = all.iter().flat_map(frame).collect();
        for cut in 1..bytes.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                while let Some(told) = frames.message::<Told>().unwrap() {
                    found.push(told);
                }
            }
            assert_eq!(found, all);
        }
    }

    #[test]
    fn a_shim_of_an_earlier_release_runs_no_commands() {
        let mut frames = Frames::default();
        frames.push(b"{\"Running\":{\"pid\":7,\"shim\":6}}\n");
        let told = Told::Running {
            pid: 7,
            shim: 6,
            init: None,
            execs: false,
        };
        assert_eq!(frames.message(), Ok(Some(told)));
    }

    #[test]
    fn garbage_ends_in_an_error_and_takes_no_memory() {
        for garbage in [&b"\n"[..], b"{\n", b"\"Start\"\n", b"\xff\xfe\n", b"[[[[\n"] {
            let mut frames = Frames::default();
            frames.push(garbage);
            assert_eq!(frames.message::<Order>(), Err(BadFrame), "{garbage:?}");
        }
        let mut frames = Frames::default();
        frames.push(&vec![b'['; FRAME_BYTES_MAX]);
        assert_eq!(frames.message::<Order>(), Err(BadFrame));
        let deep = [vec![b'['; FRAME_BYTES_MAX / 2], vec![b'\n']].concat();
        let mut frames = Frames::default();
        frames.push(&deep);
        assert_eq!(frames.message::<Order>(), Err(BadFrame));
    }
}
