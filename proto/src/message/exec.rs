//! What somebody who wants into a container and its slave say to each other, inside of a tunnel in an
//! upgraded HTTP connection (docs/decisions/0020-into-containers.md).
//!
//! One ordered stream each way, in frames of the codec. The client speaks first: `Start`. Nothing is
//! repeated: when the connection ends, so does the command.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{FrameworkId, TaskId};

/// Where a slave takes sessions.
pub const EXEC_PATH: &str = "/api/v1/exec";
/// What the HTTP connection is upgraded to. The number is the generation of the messages below.
pub const EXEC_UPGRADE: &str = "meros-exec/1";
/// The most bytes of input or output in one message.
pub const EXEC_CHUNK_BYTES_MAX: usize = 16 << 10;
/// The most bytes of input that may be on the way: those that were sent and are not
/// [taken](FromExec::StdinTaken). A client that sends more is cut off.
pub const EXEC_STDIN_WINDOW_BYTES: u32 = 64 << 10;
/// So often each side says something.
pub const EXEC_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A side that has said nothing for so long is gone.
pub const EXEC_SILENCE_MAX: Duration = Duration::from_secs(40);

/// A command to be run beside a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartExec {
    /// Whose task.
    pub framework_id: FrameworkId,
    /// Beside which task.
    pub task_id: TaskId,
    /// What is executed, its name first; looked up in the task's `PATH` unless it has a `/`.
    pub argv: Vec<String>,
    /// Added to the environment of the task.
    pub env: BTreeMap<String, String>,
    /// Whether it has an input; else its standard input is empty.
    pub stdin: bool,
    /// The size of its terminal, if it is to have one: then all its output is standard output.
    pub terminal: Option<WindowSize>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToExec {
    /// The first message. Answer: `Started` or `Refused`.
    Start(Box<StartExec>),
    /// Input, within the window.
    Stdin(Bytes),
    /// There is no more input.
    StdinEnd,
    /// The terminal has another size.
    Resize(WindowSize),
    /// Send this signal to the command, and to those that it has started in its process group.
    Signal(i32),
    /// Nothing: the client lives.
    Alive,
}

/// From the slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromExec {
    /// The command runs.
    Started,
    /// It does not. The last message.
    Refused {
        /// Stable, lower case.
        code: String,
        /// For people: why, and what to do.
        message: String,
    },
    /// What it wrote to its standard output or terminal.
    Stdout(Bytes),
    /// What it wrote to its standard error.
    Stderr(Bytes),
    /// It has taken so many bytes of input: there is room for as many.
    StdinTaken(u32),
    /// It is over. The last message.
    Ended(ExecEnd),
    /// Nothing: the slave lives.
    Alive,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEnd {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It could not be executed.
    NotStarted {
        /// As shells have it: 127 if there is no such program, 126 if it cannot be executed, 125 if it could
        /// not be put beside the task.
        exit_code: i32,
        /// For people.
        message: String,
    },
    /// The slave has ended it.
    Cut {
        /// Stable, lower case.
        code: String,
        /// For people.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{FrameBuffer, encode};

    fn any_message() -> impl Strategy<Value = ToExec> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let size = || {
            (any::<u16>(), any::<u16>()).prop_map(|(rows, columns)| WindowSize { rows, columns })
        };
        let start = (
            any::<u32>(),
            prop::collection::vec(".{0,20}", 0..4),
            any::<bool>(),
            prop::option::of(size()),
        );
        let start = start.prop_map(|(framework, argv, stdin, terminal)| {
            ToExec::Start(Box::new(StartExec {
                framework_id: FrameworkId(framework),
                task_id: TaskId::new("t").expect("an id"),
                argv,
                env: BTreeMap::new(),
                stdin,
                terminal,
            }))
        });
        prop_oneof![
            start,
            bytes().prop_map(ToExec::Stdin),
            Just(ToExec::StdinEnd),
            size().prop_map(ToExec::Resize),
            any::<i32>().prop_map(ToExec::Signal),
            Just(ToExec::Alive),
        ]
    }

    proptest! {
        #[test]
        fn messages_are_found_however_they_are_cut(
            messages in prop::collection::vec(any_message(), 1..8),
            cut in 1_usize..64,
        ) {
            let mut bytes = BytesMut::new();
            for message in &messages {
                encode(message, &mut bytes).unwrap();
            }
            let mut frames = FrameBuffer::new();
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(piece);
                while let Some(message) = frames.next_frame::<ToExec>().unwrap() {
                    found.push(message);
                }
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn any_bytes_end_in_a_message_an_error_or_a_wait(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut frames = FrameBuffer::new();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_frame::<ToExec>() {}
            let mut frames = FrameBuffer::new();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_frame::<FromExec>() {}
        }
    }
}
