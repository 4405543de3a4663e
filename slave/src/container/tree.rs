//! All processes of one container, and the signals to them.
//!
//! With cgroups membership is the kernel's: no process can leave by detaching itself. Without,
//! the tree is read from `/proc`: all that descends from the shim, which is a subreaper, and
//! everything that carries the container's name in its environment. Only a process that clears its
//! environment *and* whose shim was killed escapes.
//!
//! A pid is only a number that the kernel may give to somebody else, so signals go to pidfds,
//! and only if the pid is still listed as ours after the pidfd was opened: had it been reused by
//! then, the list would name the new owner only if that is ours too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cgroups_rs::FreezerState;
use cgroups_rs::fs::freezer::FreezerController;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::group::{Group, processes};

/// Environment variable with the container's full name, `<cgroup root>/<instance>/<id>`.
pub(crate) const CONTAINER_VARIABLE: &str = "MEROS_CONTAINER";
/// pidfds open at one time while signalling a tree.
const PIDFD_BATCH: usize = 256;
/// Rounds of SIGTERM against processes that fork meanwhile. Whoever is missed meets SIGKILL later.
const TERMINATE_ROUNDS: usize = 5;
/// How long a v1 freezer may take before we kill unfrozen processes; the next round tries again.
const FREEZE_WAIT: Duration = Duration::from_millis(50);
/// Pause between two looks at a dying tree: the first and the longest.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(1);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(100);

/// How the processes of a container are found.
#[derive(Debug)]
pub(crate) enum Tree {
    /// By membership of a cgroup.
    Group { dir: PathBuf },
    /// Without cgroups. `leader` is the shim, which adopts whatever the task leaves: what descends from
    /// it is the task's, but for the `init` of its process namespace, which adopts in its place. If they
    /// are dead, only the name is left to go by.
    Processes {
        leader: Option<i32>,
        init: Option<i32>,
        name: String,
    },
}

impl Tree {
    /// The tree of a container that runs in `group`, or whose shim is `leader`.
    pub(crate) fn new(group: &Group, leader: i32, init: Option<i32>, name: &str) -> Self {
        match group.kill_place() {
            Some(place) => Self::Group {
                dir: place.dir.clone(),
            },
            None => Self::Processes {
                leader: Some(leader),
                init,
                name: name.into(),
            },
        }
    }

    /// What is known by its name only.
    pub(crate) fn named(name: String) -> Self {
        Self::Processes {
            leader: None,
            init: None,
            name,
        }
    }

    /// The living processes.
    pub(crate) fn members(&self) -> BTreeSet<i32> {
        match self {
            Self::Group { dir } => processes(dir),
            Self::Processes { leader, init, name } => {
                let mut members = guess_members(*leader, name);
                if let Some(init) = init {
                    members.remove(init);
                }
                members
            }
        }
    }

    /// Asks every process to end, each once.
    pub(crate) fn terminate(&self) {
        let mut asked = BTreeSet::new();
        for _ in 0..TERMINATE_ROUNDS {
            let known = asked.len();
            self.signal(Signal::TERM, &mut asked);
            if asked.len() == known {
                break;
            }
        }
    }

    /// Kills every process, again and again until none is left or `timeout` passes. Blocks.
    /// Returns how many survived.
    pub(crate) fn kill_until_empty(&self, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        let mut delay = RETRY_DELAY_MIN;
        loop {
            let left = self.members().len();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            self.kill();
            thread::sleep(delay);
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }

    /// One round of SIGKILL.
    fn kill(&self) {
        let Self::Group { dir } = self else {
            self.signal(Signal::KILL, &mut BTreeSet::new());
            return;
        };
        // The kernel kills the whole group at once, those just being forked included.
        if dir.join("cgroup.kill").exists() && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        if dir.join("freezer.state").exists() {
            // Frozen processes neither fork nor die, so the list is complete and stays true.
            let freezer = FreezerController::new(dir.clone(), PathBuf::new(), false);
            let deadline = Instant::now() + FREEZE_WAIT;
            while freezer.freeze().is_ok()
                && !matches!(freezer.state(), Ok(FreezerState::Frozen))
                && Instant::now() < deadline
            {
                thread::sleep(RETRY_DELAY_MIN);
            }
            self.signal(Signal::KILL, &mut BTreeSet::new());
            // Also if freezing failed: the task may have frozen itself. An error shows in the next round.
            let _ = freezer.thaw();
            return;
        }
        self.signal(Signal::KILL, &mut BTreeSet::new());
    }

    /// Sends a signal to one process, if it is a member.
    ///
    /// # Errors
    /// It has ended, or is not ours to signal.
    pub(crate) fn signal_one(&self, pid: i32, signal: Signal) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let pidfd = open(pid).ok_or_else(gone)?;
        if !self.members().contains(&pid) {
            return Err(gone());
        }
        pidfd_send_signal(&pidfd, signal).map_err(io::Error::from)
    }

    /// Sends a signal to each member that is not in `done` yet, and notes it there.
    fn signal(&self, signal: Signal, done: &mut BTreeSet<i32>) {
        let targets: Vec<i32> = self.members().difference(done).copied().collect();
        for batch in targets.chunks(PIDFD_BATCH) {
            let opened: Vec<(i32, OwnedFd)> = batch
                .iter()
                .filter_map(|&pid| Some((pid, open(pid)?)))
                .collect();
            let members = self.members();
            for (pid, pidfd) in opened.iter().filter(|(pid, _)| members.contains(pid)) {
                // Fails only if it has ended meanwhile, or is not ours to signal (setuid without
                // cgroups): then it is counted among the survivors.
                let _ = pidfd_send_signal(pidfd, signal);
                done.insert(*pid);
            }
        }
    }
}

fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// What `/proc/<pid>/stat` tells about descent.
#[derive(Debug, PartialEq, Eq)]
struct Descent {
    pid: i32,
    parent: i32,
}

fn guess_members(leader: Option<i32>, name: &str) -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let living = living_processes(Path::new("/proc"));
    let mut members: BTreeSet<i32> = living
        .iter()
        .filter(|process| Some(process.parent) == leader || carries_name(process.pid, name))
        .map(|process| process.pid)
        .collect();
    loop {
        let known = members.len();
        for process in &living {
            if members.contains(&process.parent) {
                members.insert(process.pid);
            }
        }
        if members.len() == known {
            break;
        }
    }
    members.remove(&own);
    members.remove(&1);
    if let Some(leader) = leader {
        members.remove(&leader);
    }
    members
}

fn living_processes(proc: &Path) -> Vec<Descent> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        parse_stat(
            pid,
            &fs::read(proc.join(pid.to_string()).join("stat")).ok()?,
        )
    })
    .collect()
}

/// `pid (name) state ppid …`; the name may contain anything, also blanks and `)`.
/// Zombies are dead, so they are left out.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Descent> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i32>().ok();
    let descent = Descent {
        pid,
        parent: number()?,
    };
    (!matches!(state, "Z" | "X" | "x")).then_some(descent)
}

fn carries_name(pid: i32, name: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marker = format!("{CONTAINER_VARIABLE}={name}");
    environment
        .split(|&byte| byte == 0)
        .any(|variable| variable == marker.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_confuse_its_descent() {
        let descent = parse_stat(7, b"7 (a) Z 1 (b)) S 3 4 5 0 -1").unwrap();
        assert_eq!(descent, Descent { pid: 7, parent: 3 });
    }

    #[test]
    fn zombies_and_garbage_are_no_processes() {
        assert_eq!(parse_stat(7, b"7 (a) Z 3 4 5 0"), None);
        for garbage in [
            &b""[..],
            b"7",
            b"7 (a)",
            b"7 (a) S",
            b"7 (a) S x y z",
            b") \xff",
        ] {
            assert_eq!(parse_stat(7, garbage), None);
        }
    }

    #[test]
    fn our_own_process_is_never_a_member() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = nix::unistd::getppid().as_raw();
        assert!(!guess_members(Some(own), "none/such").contains(&own));
        assert!(!guess_members(Some(parent), "none/such").contains(&own));
    }
}
