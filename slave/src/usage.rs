//! What containers use, for `/metrics`: a row of numbers for each, of so many at the most.
//!
//! Each row is a dozen files of the kernel and as many time series, so there is a bound: those of tasks with the
//! smallest ids first, then those of executors; the same ones as long as they run. How many are left out is told.

use std::time::Duration;

use meros_daemon::metrics::Out;

use crate::container::Usage;
use crate::shell::running::{Owner, RunningContainers};

/// Containers that have rows; all others are counted.
pub(crate) const ROWS_MAX: usize = 256;

/// What some containers use.
#[derive(Debug, Default)]
pub(crate) struct Usages {
    rows: Vec<(Labels, Usage)>,
    others: u64,
}

type Labels = [(&'static str, String); 2];
/// A metric: its name, what it says, and where it is found.
type Column<T> = (&'static str, &'static str, fn(&Usage) -> Option<T>);

impl Usages {
    /// Asks the kernel. Blocks.
    pub(crate) fn of(containers: &RunningContainers) -> Self {
        let rows = containers.some.iter().map(|it| {
            let owner = match &it.owner {
                Owner::Task(task) => task.to_string(),
                Owner::Executor(executor) => format!("executor:{executor}"),
            };
            let framework = it.framework_id.to_string();
            let labels = [("framework", framework), ("task", owner)];
            (labels, it.process.stats())
        });
        Self {
            rows: rows.collect(),
            others: containers.others,
        }
    }

    /// Writes all of it.
    pub(crate) fn encode(&self, out: &mut Out<'_, '_>) -> std::fmt::Result {
        let seconds: [Column<Duration>; 5] = [
            (
                "container_cpu_seconds",
                "Processor time of a container that runs",
                |it| it.cpu_time,
            ),
            (
                "container_cpu_throttled_seconds",
                "For how long a container was stopped because it had used its quota, summed over processors",
                |it| it.cpu_throttled_time,
            ),
            (
                "container_cpu_stalled_seconds",
                "For how long some process of a container waited for a processor (pressure)",
                |it| it.cpu_stalled,
            ),
            (
                "container_memory_stalled_seconds",
                "For how long some process of a container waited for memory (pressure)",
                |it| it.memory_stalled,
            ),
            (
                "container_io_stalled_seconds",
                "For how long some process of a container waited for a disk (pressure)",
                |it| it.io_stalled,
            ),
        ];
        for (name, help, of) in seconds {
            out.seconds(name, help, self.each(of))?;
        }
        let counts: [Column<u64>; 5] = [
            (
                "container_oom_kills",
                "Processes of a container that the kernel killed for lack of memory",
                |it| it.oom_kills,
            ),
            (
                "container_memory_limit_hits",
                "Allocations of a container that its limit stopped at first",
                |it| it.memory_limit_hits,
            ),
            (
                "container_forks_refused",
                "Forks of a container that its limit of processes refused",
                |it| it.pids_refused,
            ),
            (
                "container_io_read_bytes",
                "Bytes that a container has read from disks",
                |it| it.io_read_bytes,
            ),
            (
                "container_io_written_bytes",
                "Bytes that a container has written to disks",
                |it| it.io_written_bytes,
            ),
        ];
        for (name, help, of) in counts {
            out.counters(name, help, self.each(of))?;
        }
        let gauges: [Column<u64>; 3] = [
            (
                "container_memory_bytes",
                "Memory of a container, page cache included",
                |it| it.memory_bytes,
            ),
            (
                "container_memory_limit_bytes",
                "The most memory that a container may have",
                |it| it.memory_limit_bytes,
            ),
            (
                "container_pids",
                "Processes and threads of a container",
                |it| it.pids,
            ),
        ];
        for (name, help, of) in gauges {
            out.gauges(name, help, self.each(of))?;
        }
        out.gauge(
            "containers_untold",
            "Containers that run and are not among those with metrics of their own",
            self.others,
        )
    }

    /// Of those of which it is known.
    fn each<T>(&self, of: fn(&Usage) -> Option<T>) -> impl Iterator<Item = (Labels, T)> {
        let known = self.rows.iter();
        known.filter_map(move |(labels, usage)| Some((labels.clone(), of(usage)?)))
    }
}
