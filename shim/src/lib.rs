//! The parent of one task: starts it, reads its output, remembers its end, and is alive when the
//! slave is not.
//!
//! A slave makes a folder for a container, puts a [`Request`] and a listening socket there, starts
//! this program with the socket as standard input and the folder as working directory, and connects.
//! A slave that is started later connects to the same socket. What is in the folder outlives all:
//!
//! | file | written by | says |
//! |---|---|---|
//! | [`REQUEST`] | slave, before the start | what to run, and for whom |
//! | [`SOCKET`] | slave | where the shim answers |
//! | [`STATE`] | shim | the process ids, and how much output there was ([`State`]) |
//! | [`EXIT`] | shim, before it tells | how the task ended ([`Exit`]) |
//! | [`exec_socket`] | slave, for a moment | where it gets the ends of a command beside the task |
//!
//! ```text
//! start ─► task runs ─► task ended, EXIT written, told ─► Finish: rest killed, output drained ─► gone
//!              │                                     └── no slave: the same without being told
//!              └── slave lost, and the task ends with it: all killed ─┘
//! ```
//!
//! Bounds: one slave at a time (the newest), [`FRAME_BYTES_MAX`] of a frame, one buffer for both
//! outputs. Bytes that are no [`Order`] end the connection, not the shim. Only `SIGKILL` and
//! `SIGSTOP` reach it.
//!
//! While the task runs the slave may order commands of the request to be run beside it for a moment
//! ([`Order::Check`]), and any other command with its input and output in the slave's hands
//! ([`Order::Exec`]); those end with the slave.
//!
//! What keeps a task apart is data of the request ([`Confinement`]), except for the system call filter:
//! that is the standard output that the shim is started with ([`FILTER_BYTES_MAX`]), the same for all.
//!
//! Absent: control groups (their limits, counters and removal are the slave's), grace, reports.

mod beside;
mod confine;
mod exec;
mod files;
mod fork;
mod frames;
mod init;
mod logs;
mod network;
mod reap;
mod request;
mod rights;
mod rootfs;
mod serve;
mod task;
mod view;

pub use beside::CHECK_OUTPUT_BYTES_MAX;
pub use confine::{Confinement, Part, Rootfs};
pub use exec::{EXECS_MAX, exec_socket};
pub use files::{EXIT, Exit, ExitStatus, REQUEST, SOCKET, STATE, State, read_exit, read_state};
pub use frames::{BadFrame, CheckEnd, ExecCommand, FRAME_BYTES_MAX, Frames, Order, Told, frame};
pub use logs::{LOG_FLOOR_BYTES, LogUsage};
pub use request::{Account, CheckCommand, Failure, REQUEST_BYTES_MAX, Request};
pub use rights::FILTER_BYTES_MAX;
pub use view::mount_path;

/// Does it all. For the program `meros-shim`, called before anything else: the process must have
/// one thread. Never fails aloud: what goes wrong is told to the slave.
pub fn run() {
    serve::run();
}
