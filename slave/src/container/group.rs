//! The cgroup of one container: a directory of the same name in each hierarchy in use.
//!
//! Limits are written through the controllers of cgroups-rs. Counters are read here: cgroups-rs
//! reports an unreadable counter as 0, has no OOM counter for v2, and parses with `unwrap`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::error::Error as CgroupError;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::error::StartError;
use super::isolation::{Facility, Isolation, Place, Version};
use super::report::Usage;
use super::spec::{CFS_PERIOD_US, Limits, MEMORY_FLOOR_BYTES};

/// How deep a task may nest groups inside of its own before we stop looking.
const DEPTH_MAX: usize = 16;
/// How long the kernel may call the group of dead processes busy.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What `cpuacct.stat` of v1 counts in: the tick that the kernel shows to programs, whatever its own is.
const TICK_MS: u64 = 10;
/// Pause between two attempts: the first and the longest.
const REMOVE_DELAY_MIN: Duration = Duration::from_millis(1);
const REMOVE_DELAY_MAX: Duration = Duration::from_millis(50);

/// The groups of one container. Has no `Drop`: removal must wait for the processes, see
/// [`remove`](Self::remove).
#[derive(Debug)]
pub(crate) struct Group {
    cpu: Option<Place>,
    cpu_usage: Option<Place>,
    memory: Option<Place>,
    pids: Option<Place>,
    kill: Option<Place>,
    /// The distinct directories of all of them.
    dirs: BTreeSet<PathBuf>,
}

impl Group {
    /// The groups that a container of this name has, whether they exist or not.
    pub(crate) fn named(isolation: &Isolation, id: &str) -> Self {
        let place = |facility| {
            isolation.place(facility).map(|place| Place {
                version: place.version,
                dir: place.dir.join(id),
            })
        };
        Self {
            cpu: place(Facility::Cpu),
            cpu_usage: place(Facility::CpuUsage),
            memory: place(Facility::Memory),
            pids: place(Facility::Pids),
            kill: place(Facility::Kill),
            dirs: isolation.dirs().iter().map(|dir| dir.join(id)).collect(),
        }
    }

    /// Creates the groups and sets the limits; on error nothing is left.
    pub(crate) fn create(
        isolation: &Isolation,
        id: &str,
        limits: &Limits,
    ) -> Result<Self, StartError> {
        let group = Self::named(isolation, id);
        let mut created: Vec<&Path> = Vec::new();
        let result = group
            .create_dirs(id, &mut created)
            .and_then(|()| group.set_limits(limits));
        match result {
            Ok(()) => Ok(group),
            Err(error) => {
                for dir in created {
                    // Nothing ever ran in it, so this cannot be busy.
                    let _ = fs::remove_dir(dir);
                }
                Err(error)
            }
        }
    }

    fn create_dirs<'a>(&'a self, id: &str, created: &mut Vec<&'a Path>) -> Result<(), StartError> {
        for path in &self.dirs {
            match fs::create_dir(path) {
                Ok(()) => created.push(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(StartError::IdInUse { id: id.into() });
                }
                Err(source) => {
                    return Err(StartError::CreateGroup {
                        path: path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn set_limits(&self, limits: &Limits) -> Result<(), StartError> {
        if let Some(place) = &self.cpu {
            set_cpu(place, limits)?;
        }
        if let (Some(place), Some(bytes)) = (&self.memory, limits.memory_bytes) {
            set_memory(place, bytes.max(MEMORY_FLOOR_BYTES))?;
        }
        if let (Some(place), Some(count)) = (&self.pids, limits.pids_max) {
            let pids = PidController::new(
                place.dir.clone(),
                PathBuf::new(),
                place.version == Version::V2,
            );
            set("pids_max", count, |count| {
                pids.set_pid_max(MaxValue::Value(count))
            })?;
        }
        Ok(())
    }

    /// Other limits for a group with processes in it. Memory only grows.
    pub(crate) fn resize(&self, limits: &Limits) -> Result<(), StartError> {
        if let Some(place) = &self.cpu {
            set_cpu(place, limits)?;
        }
        let (Some(place), Some(bytes)) = (&self.memory, limits.memory_bytes) else {
            return Ok(());
        };
        let file = match place.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        // A limit that is no number is none.
        if number(place, file).is_none_or(|now| bytes <= now) {
            return Ok(());
        }
        if place.version == Version::V1 {
            // Where memory and swap are limited together, that limit is never the smaller one.
            let together = place.dir.join("memory.memsw.limit_in_bytes");
            if together.exists() {
                let memory = MemController::new(place.dir.clone(), PathBuf::new(), false);
                set("memory_bytes with swap", bytes, |bytes| {
                    memory.set_memswap_limit(bytes)
                })?;
            }
        }
        set_memory(place, bytes)
    }

    /// The files that a process writes "0" to in order to enter the container. The one by which
    /// it can be killed comes first.
    pub(crate) fn procs_files(&self) -> Vec<PathBuf> {
        let first = self.kill.iter().map(|place| &place.dir);
        let rest = self
            .dirs
            .iter()
            .filter(|dir| self.kill.as_ref().is_none_or(|place| place.dir != **dir));
        first
            .chain(rest)
            .map(|dir| dir.join("cgroup.procs"))
            .collect()
    }

    /// The place by which the processes are known and killed; `None` without any cgroup.
    pub(crate) fn kill_place(&self) -> Option<&Place> {
        self.kill.as_ref()
    }

    /// Its directory in each hierarchy.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// Reads the kernel's counters. What cannot be read is `None`.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        if let Some(place) = &self.cpu_usage {
            usage.cpu_time = match place.version {
                Version::V1 => number(place, "cpuacct.usage").map(Duration::from_nanos),
                Version::V2 => keyed(place, "cpu.stat", "usage_usec").map(Duration::from_micros),
            };
            (usage.cpu_user_time, usage.cpu_system_time) = match place.version {
                Version::V1 => {
                    let ticks = |key| {
                        let ticks = keyed(place, "cpuacct.stat", key)?;
                        Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
                    };
                    (ticks("user"), ticks("system"))
                }
                Version::V2 => {
                    let micros = |key| keyed(place, "cpu.stat", key).map(Duration::from_micros);
                    (micros("user_usec"), micros("system_usec"))
                }
            };
        }
        if let Some(place) = &self.cpu {
            usage.cpu_periods = keyed(place, "cpu.stat", "nr_periods");
            usage.cpu_throttled_periods = keyed(place, "cpu.stat", "nr_throttled");
            usage.cpu_throttled_time = match place.version {
                Version::V1 => keyed(place, "cpu.stat", "throttled_time").map(Duration::from_nanos),
                Version::V2 => {
                    keyed(place, "cpu.stat", "throttled_usec").map(Duration::from_micros)
                }
            };
        }
        if let Some(place) = &self.memory {
            let (current, peak, limit, events, limit_hits) = match place.version {
                Version::V1 => (
                    "memory.usage_in_bytes",
                    "memory.max_usage_in_bytes",
                    "memory.limit_in_bytes",
                    "memory.oom_control",
                    number(place, "memory.failcnt"),
                ),
                Version::V2 => {
                    let hits = keyed(place, "memory.events", "max");
                    (
                        "memory.current",
                        "memory.peak",
                        "memory.max",
                        "memory.events",
                        hits,
                    )
                }
            };
            usage.memory_bytes = number(place, current);
            let (anon, file) = match place.version {
                Version::V1 => ("total_rss", "total_cache"),
                Version::V2 => ("anon", "file"),
            };
            usage.memory_anon_bytes = keyed(place, "memory.stat", anon);
            usage.memory_file_bytes = keyed(place, "memory.stat", file);
            usage.memory_peak_bytes = number(place, peak);
            // Without a limit v1 has a number near 2^63 and v2 the word "max".
            usage.memory_limit_bytes = number(place, limit).filter(|&bytes| bytes < 1 << 62);
            usage.oom_kills = keyed(place, events, "oom_kill");
            usage.memory_limit_hits = limit_hits;
        }
        if let Some(place) = &self.pids {
            usage.pids = number(place, "pids.current");
            usage.pids_refused = keyed(place, "pids.events", "max");
        }
        let places = [&self.cpu_usage, &self.memory, &self.pids, &self.kill];
        let mut places = places.into_iter().flatten();
        if let Some(place) = places.find(|place| place.version == Version::V2) {
            usage.io_read_bytes = summed(place, "io.stat", "rbytes=");
            usage.io_written_bytes = summed(place, "io.stat", "wbytes=");
            usage.cpu_stalled = stalled(place, "cpu.pressure");
            usage.memory_stalled = stalled(place, "memory.pressure");
            usage.io_stalled = stalled(place, "io.pressure");
        }
        usage
    }

    /// Removes the groups, those that the task nested in them included. Gone already counts as
    /// removed; all hierarchies are tried.
    ///
    /// # Errors
    /// The last failure: busy while a process of it is still alive, or just dead.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for dir in &self.dirs {
            result = remove_tree(dir, DEPTH_MAX).and(result);
        }
        result
    }

    /// Like [`remove`](Self::remove), but again while the kernel calls the group busy, as it does
    /// for a moment after its last process died; at once if there are `survivors`. Blocks.
    pub(crate) fn remove_retrying(&self, survivors: usize) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut delay = REMOVE_DELAY_MIN;
        loop {
            match self.remove() {
                Err(_) if survivors == 0 && Instant::now() < deadline => thread::sleep(delay),
                result => return result,
            }
            delay = (delay * 2).min(REMOVE_DELAY_MAX);
        }
    }
}

fn set_cpu(place: &Place, limits: &Limits) -> Result<(), StartError> {
    let is_v2 = place.version == Version::V2;
    let cpu = CpuController::new(place.dir.clone(), PathBuf::new(), is_v2);
    let shares = if is_v2 {
        limits.cpu_weight()
    } else {
        limits.cpu_shares()
    };
    let set_shares = |_: i64| cpu.set_shares(shares);
    set("cpu_shares", shares, set_shares)?;
    if let Some(quota) = limits.cfs_quota_us() {
        // v2 has both in one file, and the period is a default that could have been changed.
        let set_quota = |quota| match is_v2 {
            true => cpu.set_cfs_quota_and_period(Some(quota), Some(CFS_PERIOD_US)),
            false => cpu
                .set_cfs_period(CFS_PERIOD_US)
                .and_then(|()| cpu.set_cfs_quota(quota)),
        };
        set("cpu_quota", quota, set_quota)?;
    }
    Ok(())
}

fn set_memory(place: &Place, bytes: u64) -> Result<(), StartError> {
    let is_v2 = place.version == Version::V2;
    let memory = MemController::new(place.dir.clone(), PathBuf::new(), is_v2);
    set("memory_bytes", bytes, |bytes| memory.set_limit(bytes))?;
    // v1 limits memory and swap together, v2 swap alone. The file is absent if the kernel does
    // not account swap, and then there is nothing that we could limit.
    let (file, swap_bytes) = if is_v2 {
        ("memory.swap.max", 0)
    } else {
        ("memory.memsw.limit_in_bytes", bytes)
    };
    if place.dir.join(file).exists() {
        set("memory_bytes with swap", swap_bytes, |bytes| {
            memory.set_memswap_limit(bytes)
        })?;
    }
    Ok(())
}

fn set(
    limit: &'static str,
    value: u64,
    write: impl FnOnce(i64) -> Result<(), CgroupError>,
) -> Result<(), StartError> {
    let clamped = i64::try_from(value).unwrap_or(i64::MAX);
    write(clamped).map_err(|source| StartError::SetLimit {
        limit,
        value,
        source,
    })
}

/// A control file with one number.
fn number(place: &Place, file: &str) -> Option<u64> {
    fs::read_to_string(place.dir.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// One number of a control file with lines of `key number`.
fn keyed(place: &Place, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(place.dir.join(file)).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// The sum over the lines of a control file of the number behind a key, as `8:0 rbytes=1 wbytes=2`.
fn summed(place: &Place, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(place.dir.join(file)).ok()?;
    let words = text.split_ascii_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    Some(numbers.fold(0, u64::saturating_add))
}

/// How long some process has waited, of a file as `some avg10=0.00 avg60=0.00 avg300=0.00 total=5`.
fn stalled(place: &Place, file: &str) -> Option<Duration> {
    let text = fs::read_to_string(place.dir.join(file)).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let mut words = some.split_ascii_whitespace();
    let total = words.find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// The processes of a group and of the groups nested in it. Gone or unreadable groups have none.
pub(crate) fn processes(dir: &Path) -> BTreeSet<i32> {
    fn collect(dir: &Path, depth: usize, found: &mut BTreeSet<i32>) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|&pid| pid > 0),
        );
        if depth > 0 {
            subgroups(dir).for_each(|child| collect(&child, depth - 1, found));
        }
    }
    let mut found = BTreeSet::new();
    collect(dir, DEPTH_MAX, &mut found);
    found
}

/// The groups directly below `dir`.
pub(crate) fn subgroups(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn remove_tree(dir: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) if depth > 0 && subgroups(dir).next().is_some() => {
            for child in subgroups(dir) {
                remove_tree(&child, depth - 1)?;
            }
            fs::remove_dir(dir)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
