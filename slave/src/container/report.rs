//! How a container ended and what it used.

use std::time::Duration;

pub use meros_shim::{ExitStatus, LogUsage};
use serde::{Deserialize, Serialize};

use super::disk::DiskReport;

/// Bytes of one MiB, the unit of memory in messages.
const MIB: u64 = 1 << 20;
/// How far below its limit a group may be when its own limit was the cause: the kernel charges in batches.
const LIMIT_SLACK_BYTES: u64 = MIB;

/// Who ran out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OomScope {
    /// The container reached its own limit.
    Limit,
    /// The host (or a group above us) was out of memory and the kernel chose this container.
    Host,
}

/// The kernel killed processes of the container for lack of memory, and the task did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomReport {
    /// Whose limit it was.
    pub scope: OomScope,
    /// The container's limit in bytes, if it had one.
    pub limit_bytes: Option<u64>,
    /// The most that the container used, in bytes, if the kernel tells.
    pub peak_bytes: Option<u64>,
    /// One sentence for people: what happened and what to do.
    pub message: String,
}

impl OomReport {
    /// Judges by the kernel's counters. A child that was killed while the task went on to
    /// succeed is no failure; it is still counted in [`Usage::oom_kills`].
    pub(crate) fn judge(status: ExitStatus, killed_by_us: bool, usage: &Usage) -> Option<Self> {
        let killed = match usage.oom_kills {
            Some(kills) => kills > 0,
            // Before 4.13 only the hits of the limit are counted, so the signal must tell the rest.
            None => {
                usage.memory_limit_hits > Some(0)
                    && status == ExitStatus::Signaled(9)
                    && !killed_by_us
            }
        };
        if !killed || status.is_success() {
            return None;
        }
        let (limit_bytes, peak_bytes) = (usage.memory_limit_bytes, usage.memory_peak_bytes);
        let reached = |limit: u64| {
            peak_bytes.is_none_or(|peak| peak.saturating_add(LIMIT_SLACK_BYTES) >= limit)
        };
        let mib = |bytes: Option<u64>| {
            bytes.map_or("unknown".into(), |bytes| {
                format!("{} MiB", bytes.div_ceil(MIB))
            })
        };
        let (scope, message) = if limit_bytes.is_some_and(reached) {
            let (limit, peak) = (mib(limit_bytes), mib(peak_bytes));
            (
                OomScope::Limit,
                format!("memory limit exceeded: limit {limit}, peak {peak}; raise mem of the task"),
            )
        } else {
            let peak = mib(peak_bytes);
            (
                OomScope::Host,
                format!("killed because the host ran out of memory: peak of the task {peak}"),
            )
        };
        Some(Self {
            scope,
            limit_bytes,
            peak_bytes,
            message,
        })
    }
}

/// What a container used, by the kernel's counters. `None` is not known on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// CPU time of all its processes.
    pub cpu_time: Option<Duration>,
    /// Of that, in their own code.
    pub cpu_user_time: Option<Duration>,
    /// Of that, in the kernel.
    pub cpu_system_time: Option<Duration>,
    /// Quota periods in which it ran.
    pub cpu_periods: Option<u64>,
    /// Quota periods in which it was stopped for the rest of the period.
    pub cpu_throttled_periods: Option<u64>,
    /// For how long it was stopped, summed over CPUs.
    pub cpu_throttled_time: Option<Duration>,
    /// Memory in use now, page cache included, in bytes.
    pub memory_bytes: Option<u64>,
    /// Of that, what is of no file: heaps and stacks.
    pub memory_anon_bytes: Option<u64>,
    /// Of that, the page cache.
    pub memory_file_bytes: Option<u64>,
    /// The most memory that was in use, in bytes; on v2 from kernel 5.19 on.
    pub memory_peak_bytes: Option<u64>,
    /// The limit in force, in bytes; `None` also if there is none.
    pub memory_limit_bytes: Option<u64>,
    /// How often the limit stopped an allocation. Reclaim may have helped, so this alone is no failure.
    pub memory_limit_hits: Option<u64>,
    /// Processes that the kernel killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// Processes and threads now, zombies that their parent has not reaped included.
    pub pids: Option<u64>,
    /// Forks that the pids limit refused.
    pub pids_refused: Option<u64>,
    /// Bytes read from disks; on v2 with its `io` controller.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to disks, when they get there; on v2 with its `io` controller.
    pub io_written_bytes: Option<u64>,
    /// For how long some process waited for a processor; on v2, where the kernel measures pressure.
    pub cpu_stalled: Option<Duration>,
    /// For how long some process waited for memory.
    pub memory_stalled: Option<Duration>,
    /// For how long some process waited for a disk.
    pub io_stalled: Option<Duration>,
    /// Standard output.
    pub stdout: LogUsage,
    /// Standard error.
    pub stderr: LogUsage,
}

/// The end of a container: its processes are dead and its cgroup is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How the command ended; by SIGKILL if nobody knows.
    pub status: ExitStatus,
    /// Nobody knows how the command ended: its shim was killed or crashed, and all of it was killed
    /// then.
    pub shim_lost: bool,
    /// Whether [`Container::kill`](super::Container::kill), or dropping the container, came first.
    pub killed: bool,
    /// Set if lack of memory made it fail.
    pub oom: Option<OomReport>,
    /// Set if it was killed because its sandbox took too much of the disk; none in reports of older
    /// slaves.
    #[serde(default)]
    pub disk: Option<DiskReport>,
    /// What it used, read when all processes were dead.
    pub usage: Usage,
    /// Processes that survived SIGKILL for a minute (a hung disk or driver), 0 but in that case.
    /// Their cgroup stays; the next start of the slave tries again.
    pub survivors: usize,
    /// The shell line or program, for messages.
    pub(crate) command: String,
}

impl ExitReport {
    /// One sentence for people.
    #[must_use]
    pub fn message(&self) -> String {
        match (&self.oom, self.status) {
            _ if self.disk.is_some() => self.disk.iter().map(DiskReport::message).collect(),
            (Some(oom), _) => oom.message.clone(),
            (None, _) if self.shim_lost => {
                "the process that watched over it (meros-shim) was killed or crashed, and the task \
                 was killed then"
                    .to_owned()
            }
            // By convention of shells; the command may also use these codes itself.
            (None, ExitStatus::Exited(127)) => {
                format!(
                    "exited with code 127: a command was not found, see stderr: {:?}",
                    self.command
                )
            }
            (None, ExitStatus::Exited(126)) => {
                format!(
                    "exited with code 126: a command is not executable, see stderr: {:?}",
                    self.command
                )
            }
            (None, status) => status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(oom_kills: u64, peak: u64) -> Usage {
        Usage {
            oom_kills: Some(oom_kills),
            memory_limit_bytes: Some(64 * MIB),
            memory_peak_bytes: Some(peak),
            ..Usage::default()
        }
    }

    #[test]
    fn an_oom_kill_at_the_limit_names_limit_and_peak() {
        let oom = OomReport::judge(ExitStatus::Signaled(9), false, &usage(1, 64 * MIB)).unwrap();
        assert_eq!(oom.scope, OomScope::Limit);
        assert_eq!(
            oom.message,
            "memory limit exceeded: limit 64 MiB, peak 64 MiB; raise mem of the task"
        );
    }

    #[test]
    fn an_oom_kill_far_below_the_limit_blames_the_host() {
        let oom = OomReport::judge(ExitStatus::Signaled(9), false, &usage(1, 3 * MIB)).unwrap();
        assert_eq!(oom.scope, OomScope::Host);
    }

    #[test]
    fn a_task_that_succeeds_although_a_child_was_killed_is_no_failure() {
        assert_eq!(
            OomReport::judge(ExitStatus::Exited(0), false, &usage(1, 64 * MIB)),
            None
        );
        assert!(OomReport::judge(ExitStatus::Exited(137), false, &usage(1, 64 * MIB)).is_some());
    }

    #[test]
    fn a_kernel_without_oom_counter_is_believed_only_with_the_signal() {
        let old = Usage {
            oom_kills: None,
            memory_limit_hits: Some(4),
            ..usage(0, 64 * MIB)
        };
        assert!(OomReport::judge(ExitStatus::Signaled(9), false, &old).is_some());
        assert_eq!(OomReport::judge(ExitStatus::Signaled(9), true, &old), None);
        assert_eq!(OomReport::judge(ExitStatus::Exited(1), false, &old), None);
        assert_eq!(
            OomReport::judge(ExitStatus::Signaled(9), false, &usage(0, 64 * MIB)),
            None
        );
    }

    #[test]
    fn a_command_not_found_by_the_shell_is_named() {
        let report = ExitReport {
            status: ExitStatus::Exited(127),
            shim_lost: false,
            killed: false,
            oom: None,
            disk: None,
            usage: Usage::default(),
            survivors: 0,
            command: "nosuch --flag".into(),
        };
        assert!(report.message().contains("nosuch --flag"));
        assert_eq!(ExitStatus::Signaled(15).to_string(), "killed by SIGTERM");
        assert_eq!(ExitStatus::Signaled(40).to_string(), "killed by signal 40");
    }
}
