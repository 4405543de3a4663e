//! The one thing that Rust cannot check here: a fork.
//!
//! Not `std::process::Command`, which would start a second copy of a program that is there already;
//! a fork of one mebibyte costs a fifth of a millisecond.
#![expect(
    unsafe_code,
    reason = "fork(2) has no safe wrapper; the proof is below"
)]

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};

/// Forks a process that has one thread. The child may do whatever the parent may.
///
/// # Errors
/// What the kernel says; `EDEADLK` if there is more than one thread.
pub(crate) fn fork_alone() -> nix::Result<ForkResult> {
    if !is_alone() {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: fork is unsafe because the child of a process with several threads has only the one that
    // forked: locks of the others stay locked, and data that they were changing stays half changed, so
    // that only async-signal-safe functions may be called. We have just seen that there is one thread,
    // nothing here can start another meanwhile, and signal handlers are not installed (signals are
    // blocked and read from a descriptor). So no lock is held and no data is half changed but by our
    // own stack frames, all of which exist in the child as well.
    unsafe { fork() }
}

/// Whether this process has one thread, by the kernel's own count.
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_forked() {
        // The test harness has at least one more: this test's own.
        assert_eq!(fork_alone().unwrap_err(), Errno::EDEADLK);
    }
}
