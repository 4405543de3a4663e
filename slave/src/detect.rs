//! What this machine has to offer, and what isolation it gives.
//!
//! Like Mesos we leave headroom for the system: 1 GiB of memory and 5 GiB of disk, or half of what
//! there is on small machines. Disk is what is free below the data directory when the slave starts,
//! in whole GiB, because files of others take what they take.

use std::io;
use std::path::{Path, PathBuf};

use meros_proto::attribute::{ATTRIBUTES_MAX, Attributes};
use meros_proto::resources::{Resource, Resources, Value};
use nix::sys::statvfs::statvfs;

use crate::container::{Facility, IsolationReport};

/// Memory left to the system where there is twice as much, in MiB.
const MEM_HEADROOM_MIB: u64 = 1_024;
/// Disk left to the system where there is twice as much, in MiB.
const DISK_HEADROOM_MIB: u64 = 5 * 1_024;
/// Offered to tasks unless the configuration says otherwise; below the kernel's own range for
/// outgoing connections.
const PORTS: &str = "[31000-32000]";

/// What a machine has for tasks, headroom already taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that this process may use: online, in its affinity, within its own cgroup's quota.
    pub cpus: u64,
    /// Memory for tasks, in MiB.
    pub mem_mib: u64,
    /// Disk for tasks, in MiB.
    pub disk_mib: u64,
}

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The system does not say how many CPUs there are.
    #[error("cannot count the cpus: give cpus in --resources")]
    Cpus(#[source] io::Error),
    /// The system does not say how much memory there is.
    #[error("cannot read the memory size from {}: give mem in --resources", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system does not say how much is free.
    #[error("cannot ask for the free space at {}: give disk in --resources", path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Looks at this machine; `data_dir`, or the nearest existing directory above it, says which disk.
///
/// # Errors
/// [`DetectError`], naming what to configure instead.
pub fn machine(data_dir: &Path) -> Result<Machine, DetectError> {
    let cpus = std::thread::available_parallelism().map_err(DetectError::Cpus)?;
    Ok(Machine {
        cpus: cpus.get() as u64,
        mem_mib: headroom(memory_mib(Path::new("/proc/meminfo"))?, MEM_HEADROOM_MIB),
        disk_mib: whole_gib(headroom(free_mib(data_dir)?, DISK_HEADROOM_MIB)),
    })
}

/// What the slave declares: what is configured, and what is detected for the names that are not, at
/// least what is `claimed` of them already: volumes are full of data, and what they take is not free.
///
/// # Errors
/// As [`machine`], if something has to be detected.
pub fn resources(
    configured: &Resources,
    claimed: &Resources,
    data_dir: &Path,
) -> Result<Resources, DetectError> {
    let is_configured = |name: &str| configured.iter().any(|it| it.name().as_str() == name);
    let mut all = configured.clone();
    if ["cpus", "mem", "disk"]
        .iter()
        .any(|name| !is_configured(name))
    {
        let machine = machine(data_dir)?;
        for (name, amount) in [
            ("cpus", machine.cpus),
            ("mem", machine.mem_mib),
            ("disk", machine.disk_mib),
        ] {
            if !is_configured(name) {
                let claimed = claimed.iter().filter(|it| it.name().as_str() == name);
                let claimed = claimed.filter_map(|it| match it.value() {
                    Value::Scalar(scalar) => u64::try_from(scalar.thousandths()).ok(),
                    Value::Ranges(_) | Value::Set(_) => None,
                });
                let amount = amount.max(claimed.sum::<u64>().div_ceil(1_000));
                add(&mut all, &format!("{name}:{amount}"));
            }
        }
    }
    if !is_configured("ports") {
        add(&mut all, &format!("ports:{PORTS}"));
    }
    Ok(all)
}

fn add(all: &mut Resources, text: &str) {
    let more: Resources = text
        .parse()
        .expect("written by us in the notation of resources");
    let more: Vec<Resource> = more.iter().cloned().collect();
    for resource in more {
        all.checked_add_assign(&resource.into())
            .expect("the only one of its name, and of a machine's size");
    }
}

/// What the configuration says, and `isolation/cpu`, `…/memory`, `…/pids` and `…/kill`: `cgroup-v1`,
/// `cgroup-v2`, `cgroup-hybrid` or `none` (for `kill`: `process-group`, which a task can escape
/// from). What is configured under these names is kept.
#[must_use]
pub fn attributes(configured: &Attributes, isolation: &IsolationReport) -> Attributes {
    let mut all = configured.clone();
    let facilities = [
        Facility::Cpu,
        Facility::Memory,
        Facility::Pids,
        Facility::Kill,
    ];
    for facility in facilities {
        let name = format!("isolation/{facility}");
        let is_full = all.iter().count() >= ATTRIBUTES_MAX;
        if all.value(&name).is_none() && !is_full {
            let word = match facility {
                _ if isolation.available.contains(&facility) => {
                    format!("cgroup-{}", isolation.hierarchy)
                }
                Facility::Kill => "process-group".to_owned(),
                _ => "none".to_owned(),
            };
            all.set(&name, &word);
        }
    }
    all
}

fn headroom(has: u64, leave: u64) -> u64 {
    if has > 2 * leave {
        has - leave
    } else {
        has / 2
    }
}

/// In whole GiB, so that a slave does not describe itself anew at every start.
fn whole_gib(mib: u64) -> u64 {
    if mib >= 1_024 {
        mib / 1_024 * 1_024
    } else {
        mib
    }
}

fn memory_mib(meminfo: &Path) -> Result<u64, DetectError> {
    let failed = |source| DetectError::Memory {
        path: meminfo.to_owned(),
        source,
    };
    let text = std::fs::read_to_string(meminfo).map_err(failed)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib / 1_024)
        .ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

/// Space that an ordinary user may still take.
pub(crate) fn free_mib(dir: &Path) -> Result<u64, DetectError> {
    let failed = |source| DetectError::Disk {
        path: dir.to_owned(),
        source,
    };
    let absolute = std::path::absolute(dir).map_err(failed)?;
    let existing = absolute
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    let stat = statvfs(existing).map_err(|errno| failed(errno.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_to_offer() {
        let machine = machine(Path::new("not/yet/there")).unwrap();
        assert!(machine.cpus > 0 && machine.mem_mib > 0, "{machine:?}");
    }

    #[test]
    fn headroom_is_left_and_small_machines_keep_half() {
        assert_eq!(headroom(16_384, 1_024), 15_360);
        assert_eq!(headroom(2_048, 1_024), 1_024);
        assert_eq!(headroom(512, 1_024), 256);
        assert_eq!(whole_gib(1_500), 1_024);
        assert_eq!(whole_gib(900), 900);
    }

    #[test]
    fn named_resources_replace_detected_ones_and_the_rest_is_detected() {
        let here = Path::new("/");
        let configured: Resources = "cpus:0.5;gpus:2;cpus(ads):1".parse().unwrap();
        let all = resources(&configured, &Resources::new(), here).unwrap();
        let detected = resources(&Resources::new(), &Resources::new(), here).unwrap();
        let text = all.to_string();
        assert!(
            text.contains("cpus:0.5") && text.contains("cpus(ads):1"),
            "{text}"
        );
        assert!(
            text.contains("gpus:2") && text.contains("ports:[31000-32000]"),
            "{text}"
        );
        let mem = meros_proto::resources::ResourceName::MEM;
        assert_eq!(all.scalar(&mem), detected.scalar(&mem));
    }

    #[test]
    fn a_machine_is_not_looked_at_when_all_is_configured() {
        let configured: Resources = "cpus:1;mem:1;disk:1;ports:[1-2]".parse().unwrap();
        assert_eq!(
            resources(&configured, &Resources::new(), Path::new("/")).unwrap(),
            configured
        );
    }

    #[test]
    fn isolation_is_told_and_what_is_configured_stays() {
        let report = IsolationReport {
            hierarchy: crate::container::HierarchyKind::V1,
            available: vec![Facility::Cpu, Facility::Memory],
            missing: Vec::new(),
        };
        let configured = "rack:r1;isolation/cpu:none".parse().unwrap();
        let text = attributes(&configured, &report).to_string();
        let expected = "isolation/cpu:none;isolation/kill:process-group;\
            isolation/memory:cgroup-v1;isolation/pids:none;rack:r1";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_strange_meminfo_is_an_error_that_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "MemTotal: lots\n").unwrap();
        let error = memory_mib(file.path()).expect_err("no number");
        assert!(error.to_string().contains("--resources"));
        std::fs::write(file.path(), "MemFree: 1 kB\nMemTotal:       2097152 kB\n").unwrap();
        assert_eq!(memory_mib(file.path()).unwrap(), 2_048);
    }
}
