//! Children: reaped, and killed to the last.
//!
//! The shim is a subreaper, so whatever a task starts, however it detaches itself, becomes a child of
//! the shim when its own parent ends: killing children until there are none kills all.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::files::ExitStatus;

/// How long a tree may survive SIGKILL (processes stuck in a driver) before the shim gives up.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two rounds: the first and the longest.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// So often a namespace is looked at that dies by itself, some 10 ms.
const NAMESPACE_ROUNDS: u32 = 6;

/// What reaping has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// How the first process ended, if it was among them.
    pub(crate) main: Option<ExitStatus>,
    /// No child is left.
    pub(crate) is_childless: bool,
}

/// Reaps all children that have ended, and says so of each that is not the first process.
pub(crate) fn reap(main: Pid, mut other: impl FnMut(Pid, ExitStatus)) -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitStatus::Signaled(signal as i32)),
            Ok(WaitStatus::StillAlive) => return reaped,
            Err(Errno::ECHILD) => {
                reaped.is_childless = true;
                return reaped;
            }
            // Stopped ones are not asked for; a signal is blocked, so nothing interrupts.
            Ok(_) | Err(_) => continue,
        };
        match status.0 == main {
            true => reaped.main = Some(status.1),
            false => other(status.0, status.1),
        }
    }
}

/// Kills every process that descends from us, and reaps them. Blocks. Returns how the first process
/// ended, if it had not been reaped before.
pub(crate) fn kill_all(groups: &[PathBuf], main: Pid, init: Option<Pid>) -> Option<ExitStatus> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut pause = PAUSE_MIN;
    let mut ended = None;
    if let Some(init) = init {
        // Ours to reap, and the kernel kills all others of the namespace with it.
        let _ = kill(init, Signal::SIGKILL);
    }
    for round in 0_u32.. {
        // First of all: most often nobody is left, and a look at all processes costs milliseconds.
        let reaped = reap(main, |_, _| {});
        ended = reaped.main.or(ended);
        if reaped.is_childless || Instant::now() >= deadline {
            break;
        }
        if init.is_none() || round >= NAMESPACE_ROUNDS {
            kill_groups(groups);
            for child in children(Path::new("/proc"), getpid()) {
                // Ours to reap, so its number is still its own. Fails only if it is dead already.
                let _ = kill(child, Signal::SIGKILL);
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    ended
}

/// Where the kernel kills a whole group at once, those just being forked included.
fn kill_groups(groups: &[PathBuf]) {
    for procs in groups {
        let file = procs.with_file_name("cgroup.kill");
        if file.exists() {
            // An error leaves it to the signals.
            let _ = fs::write(file, "1");
        }
    }
}

fn children(proc: &Path, parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read(proc.join(pid.to_string()).join("stat")).unwrap_or_default();
        parent_of(&stat) == Some(parent.as_raw())
    };
    pids.filter(is_child).map(Pid::from_raw).collect()
}

/// `pid (name) state ppid …`; the name may contain anything, also blanks and `)`.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_of(b"7 (a) Z 1 (b)) S 3 4 5 0 -1"), Some(3));
        for garbage in [
            &b""[..],
            b"7",
            b"7 (a)",
            b"7 (a) S",
            b") \xff",
            b"7 (a) S x",
        ] {
            assert_eq!(parent_of(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn our_own_children_are_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(children(Path::new("/proc"), getpid()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
