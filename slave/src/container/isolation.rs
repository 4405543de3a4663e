//! What this host can isolate, and the groups that we own to do it.
//!
//! Three kinds of hosts: *v1* has one hierarchy for each controller, *v2* one for all, *hybrid*
//! has v1 hierarchies and an (often empty) v2 hierarchy beside them. There is no switch for the
//! kind: each [`Facility`] is placed where it is found, so any mixture works. On a hybrid host
//! the v2 hierarchy has no controllers but still has `cgroup.kill`, the only race-free way to
//! kill a tree, so it is used for that.
//!
//! We own `<mount>/<name>/<instance>` in each hierarchy and everything below it. A `<name>` that
//! belongs to somebody else (see [`ownership`](super::ownership)) is refused, and only what we made
//! is removed. Other groups are never written to, with one exception on v2: controllers are enabled in `subtree_control` of
//! the groups that lead to ours, which the kernel demands and which takes nothing from others.
//!
//! Only the controllers of cgroups-rs are used, not its `Hierarchy` and `Cgroup`: those know one
//! fixed mount point, ignore errors of `subtree_control` and of memory limits, and leave the
//! other hierarchies alone when the removal of one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::confine::IsolationWishes;
use super::error::{CgroupRootError, OpenError};
use super::mounts::{CgroupMount, parse_mountinfo};
use super::ownership;
use super::spec::is_safe_component;

/// Name of our group below each hierarchy unless configured.
pub const DEFAULT_CGROUP_NAME: &str = "meros";
/// The most path components of a cgroup root; the kernel has no limit worth reaching.
const ROOT_DEPTH_MAX: usize = 8;
/// Rounds against another slave that removes our common root at the same moment as we enter it.
const CREATE_ATTEMPTS: usize = 8;
/// Where we move ourselves if we live in the very group that we were delegated (v2).
pub(crate) const SUPERVISOR: &str = "supervisor";

/// Where our groups live below each hierarchy: `<mount>/<name>/<instance>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupRoot {
    name: String,
    instance: String,
}

impl CgroupRoot {
    /// `name` is a relative path, by default [`DEFAULT_CGROUP_NAME`]; a delegated group such as
    /// `system.slice/meros.service` works too. `instance` is one component, different for each
    /// slave on this host.
    ///
    /// # Errors
    /// If a part is empty, too long, or not a plain name.
    pub fn new(name: &str, instance: &str) -> Result<Self, CgroupRootError> {
        let components: Vec<_> = name.split('/').collect();
        let safe = components
            .iter()
            .all(|component| is_safe_component(component, 64));
        if !safe || components.len() > ROOT_DEPTH_MAX {
            return Err(CgroupRootError {
                field: "name",
                value: name.into(),
            });
        }
        if !is_safe_component(instance, 64) {
            return Err(CgroupRootError {
                field: "instance",
                value: instance.into(),
            });
        }
        Ok(Self {
            name: name.into(),
            instance: instance.into(),
        })
    }

    fn components(&self) -> impl Iterator<Item = &str> {
        self.name.split('/').chain([self.instance.as_str()])
    }

    /// Marks the processes of this instance, see [`tree`](super::tree).
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.name, self.instance)
    }
}

/// Which hierarchies the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HierarchyKind {
    /// No cgroup file system is mounted.
    None,
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all controllers.
    V2,
    /// v1 hierarchies and a v2 hierarchy beside them.
    Hybrid,
}

impl fmt::Display for HierarchyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// One thing that cgroups do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facility {
    /// CPU weights and quotas.
    Cpu,
    /// CPU time used; no limit depends on it.
    CpuUsage,
    /// The hard memory limit.
    Memory,
    /// The limit of processes and threads.
    Pids,
    /// Knowing and killing every process of a task, also those that detached themselves.
    Kill,
}

impl Facility {
    pub(crate) const ALL: [Self; 5] = [
        Self::Cpu,
        Self::CpuUsage,
        Self::Memory,
        Self::Pids,
        Self::Kill,
    ];

    /// The v1 controller that provides it.
    fn v1_controller(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuUsage => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Kill => "freezer",
        }
    }

    /// The v2 controller that provides it; `None` is part of every v2 group.
    fn v2_controller(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Memory => Some("memory"),
            Self::Pids => Some("pids"),
            Self::CpuUsage | Self::Kill => None,
        }
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::CpuUsage => "cpu-usage",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Kill => "kill",
        })
    }
}

/// What a host isolates and what it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationReport {
    /// Which hierarchies are mounted.
    pub hierarchy: HierarchyKind,
    /// What works.
    pub available: Vec<Facility>,
    /// What does not, each with the reason and what to do, for people.
    pub missing: Vec<(Facility, String)>,
}

impl IsolationReport {
    /// Short form for a slave attribute: the hierarchy and what works, `hybrid:cpu+memory+pids`.
    #[must_use]
    pub fn attribute(&self) -> String {
        let available: Vec<_> = self.available.iter().map(Facility::to_string).collect();
        if available.is_empty() {
            "none".into()
        } else {
            format!("{}:{}", self.hierarchy, available.join("+"))
        }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where a facility is: our instance group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) dir: PathBuf,
}

/// The host's isolation and our groups in it. Dropping it removes the groups that we made, if they
/// are empty.
#[derive(Debug)]
pub struct Isolation {
    root: CgroupRoot,
    places: BTreeMap<Facility, Place>,
    report: IsolationReport,
    /// A root that is not ours, and why: nothing can be opened then.
    foreign: Option<(PathBuf, String)>,
    /// Held while we own the groups; the kernel lets go of them when we die in whatever way.
    locks: Vec<File>,
}

impl Isolation {
    /// Looks at this host and creates our groups where possible. Never fails: what is not
    /// possible is in the [report](Self::report), with the reason.
    #[must_use]
    pub fn detect(root: &CgroupRoot) -> Self {
        Self::detect_from(root, Path::new("/proc/self/mountinfo"))
    }

    /// Like [`detect`](Self::detect) with the mounts listed in another file, for tests and for
    /// slaves that are to use only some of the hierarchies.
    #[must_use]
    pub fn detect_from(root: &CgroupRoot, mountinfo: &Path) -> Self {
        let mounts = fs::read(mountinfo)
            .map(|text| parse_mountinfo(&text))
            .unwrap_or_default();
        let has_v2 = mounts
            .iter()
            .any(|mount| matches!(mount, CgroupMount::V2 { .. }));
        let has_v1 = Facility::ALL
            .iter()
            .any(|facility| v1_mount(&mounts, *facility).is_some());
        let hierarchy = match (has_v1, has_v2) {
            (false, false) => HierarchyKind::None,
            (true, false) => HierarchyKind::V1,
            (false, true) => HierarchyKind::V2,
            (true, true) => HierarchyKind::Hybrid,
        };
        let mut v1_groups = BTreeMap::new();
        let mut v2_group = None;
        let mut places = BTreeMap::new();
        let mut report = IsolationReport {
            hierarchy,
            available: Vec::new(),
            missing: Vec::new(),
        };
        let foreign = mounts.iter().find_map(|mount| {
            let (CgroupMount::V1 { path, .. } | CgroupMount::V2 { path }) = mount;
            let path = path.join(&root.name);
            ownership::in_foreign_use(&path).map(|why| (path, why))
        });
        for facility in Facility::ALL {
            if let Some((path, why)) = &foreign {
                let reason = format!("{} is not ours, {why}", path.display());
                report.missing.push((facility, reason));
                continue;
            }
            let v2 = || V2Mount::find(&mounts);
            let placed = match (facility, v1_mount(&mounts, facility)) {
                // Race-free kill beats the freezer wherever the v2 hierarchy can be used.
                (Facility::Kill, v1) => place_in_v2(v2(), root, &mut v2_group, facility)
                    .or_else(|reason| {
                        v1.map_or(Err(reason), |mount| {
                            place_in_v1(mount, root, &mut v1_groups)
                        })
                    })
                    .or_else(|reason| places.values().next().cloned().ok_or(reason)),
                (_, Some(mount)) => place_in_v1(mount, root, &mut v1_groups),
                (_, None) => place_in_v2(v2(), root, &mut v2_group, facility),
            };
            match placed {
                Ok(place) => {
                    report.available.push(facility);
                    places.insert(facility, place);
                }
                Err(reason) => report.missing.push((facility, reason)),
            }
        }
        Self {
            root: root.clone(),
            places,
            report,
            foreign,
            locks: Vec::new(),
        }
    }

    /// What works and what does not.
    #[must_use]
    pub fn report(&self) -> &IsolationReport {
        &self.report
    }

    pub(crate) fn root(&self) -> &CgroupRoot {
        &self.root
    }

    pub(crate) fn place(&self, facility: Facility) -> Option<&Place> {
        self.places.get(&facility)
    }

    /// Our instance groups, one for each hierarchy in use.
    pub(crate) fn dirs(&self) -> BTreeSet<PathBuf> {
        self.places
            .values()
            .map(|place| place.dir.clone())
            .collect()
    }

    /// That the groups are there which an administrator has named.
    pub(crate) fn require(&self, wishes: &IsolationWishes) -> Result<(), OpenError> {
        for facility in wishes.groups() {
            let mut missing = self.report.missing.iter();
            if let Some((_, reason)) = missing.find(|(it, _)| *it == facility) {
                return Err(OpenError::IsolationMissing {
                    part: facility.to_string(),
                    reason: reason.clone(),
                });
            }
        }
        Ok(())
    }

    /// Locks our groups, so that no other slave of the same name cleans up under us. Fails if the
    /// root belongs to somebody else.
    pub(crate) fn lock(&mut self) -> Result<(), OpenError> {
        if let Some((path, why)) = &self.foreign {
            return Err(OpenError::Foreign {
                path: path.clone(),
                why: why.clone(),
            });
        }
        let mut locks = Vec::new();
        for path in self.dirs() {
            let lock = File::open(&path).map_err(|source| OpenError::Lock {
                path: path.clone(),
                source,
            })?;
            match lock.try_lock() {
                Ok(()) => locks.push(lock),
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
                Err(TryLockError::Error(source)) => return Err(OpenError::Lock { path, source }),
            }
        }
        self.locks = locks;
        Ok(())
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        // Not ours if another slave has locked them, even while it has no container.
        if self.locks.is_empty() && self.lock().is_err() {
            return;
        }
        let depth = self.root.components().count();
        for dir in self.dirs() {
            // Upwards while empty and made by us: stops where other slaves or their tasks live, and
            // at what was there before us.
            for group in dir.ancestors().take(depth) {
                if !ownership::remove_group(group) {
                    break;
                }
            }
        }
    }
}

fn v1_mount(mounts: &[CgroupMount], facility: Facility) -> Option<&Path> {
    mounts.iter().find_map(|mount| match mount {
        CgroupMount::V1 { path, controllers } => controllers
            .iter()
            .any(|name| name == facility.v1_controller())
            .then_some(path.as_path()),
        CgroupMount::V2 { .. } => None,
    })
}

fn place_in_v1(
    mount: &Path,
    root: &CgroupRoot,
    groups: &mut BTreeMap<PathBuf, Result<PathBuf, String>>,
) -> Result<Place, String> {
    // cpu and cpuacct are often one mount: make its group once and give both the same answer.
    let group = groups
        .entry(mount.to_owned())
        .or_insert_with(|| create_group(mount, root, |_| ()));
    group.clone().map(|dir| Place {
        version: Version::V1,
        dir,
    })
}

/// The unified hierarchy and the controllers that are not bound to a v1 hierarchy.
struct V2Mount<'a> {
    path: &'a Path,
    controllers: BTreeSet<String>,
}

impl<'a> V2Mount<'a> {
    fn find(mounts: &'a [CgroupMount]) -> Option<Self> {
        mounts.iter().find_map(|mount| match mount {
            CgroupMount::V2 { path } => Some(Self {
                path,
                controllers: words(&path.join("cgroup.controllers")),
            }),
            CgroupMount::V1 { .. } => None,
        })
    }
}

/// Our group in the unified hierarchy, and why a controller could not be enabled on the way to it.
struct V2Group {
    dir: Result<PathBuf, String>,
    refused: BTreeMap<&'static str, String>,
}

fn place_in_v2(
    mount: Option<V2Mount<'_>>,
    root: &CgroupRoot,
    group: &mut Option<V2Group>,
    facility: Facility,
) -> Result<Place, String> {
    let controller = facility.v2_controller();
    let Some(mount) = mount else {
        let name = facility.v1_controller();
        return Err(format!(
            "no mounted cgroup hierarchy has the {name} controller: mount cgroup2 at /sys/fs/cgroup"
        ));
    };
    if let Some(name) = controller.filter(|name| !mount.controllers.contains(*name)) {
        let path = mount.path.display();
        return Err(format!(
            "the kernel offers no {name} controller in {path}: enable it (cgroup_enable={name})"
        ));
    }
    let group = group.get_or_insert_with(|| create_v2_group(&mount, root));
    let dir = group.dir.clone()?;
    if let Some(reason) = controller.and_then(|name| group.refused.get(name)) {
        return Err(reason.clone());
    }
    if facility == Facility::Kill && !dir.join("cgroup.kill").exists() {
        return Err(format!(
            "{} has no cgroup.kill: kernel 5.14 or newer has it",
            dir.display()
        ));
    }
    Ok(Place {
        version: Version::V2,
        dir,
    })
}

fn create_v2_group(mount: &V2Mount<'_>, root: &CgroupRoot) -> V2Group {
    let mut refused = BTreeMap::new();
    let own_depth = mount.path.components().count() + root.name.split('/').count();
    let dir = create_group(mount.path, root, |group| {
        let is_own = group.components().count() >= own_depth;
        for name in Facility::ALL
            .iter()
            .filter_map(|facility| facility.v2_controller())
        {
            if mount.controllers.contains(name)
                && let Err(error) = enable_controller(group, name, is_own)
            {
                let path = group.join("cgroup.subtree_control");
                refused
                    .entry(name)
                    .or_insert_with(|| refusal(&path, &error));
            }
        }
    });
    V2Group { dir, refused }
}

/// Makes `controller` available to the children of `group`.
fn enable_controller(group: &Path, controller: &str, is_own: bool) -> io::Result<()> {
    let control = group.join("cgroup.subtree_control");
    if words(&control).contains(controller) {
        return Ok(());
    }
    let enable = || write_control(&control, &format!("+{controller}"));
    match enable() {
        // "No internal processes": a group with processes cannot have controlled children. In a
        // group delegated to us the only process may be ourselves, and then we step aside.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && is_own => {
            step_aside(group).and_then(|()| enable())
        }
        result => result,
    }
}

/// Moves our own process, if it is alone in `group`, to a child of it.
fn step_aside(group: &Path) -> io::Result<()> {
    let own = BTreeSet::from([std::process::id().to_string()]);
    if words(&group.join("cgroup.procs")) != own {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let child = group.join(SUPERVISOR);
    ownership::create_group(&child)?;
    write_control(&child.join("cgroup.procs"), "0")
}

/// Unlike `fs::write` it does not make a file that the kernel did not.
fn write_control(path: &Path, text: &str) -> io::Result<()> {
    File::options()
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Creates `<mount>/<name>/<instance>`, calling `prepare` on each group before its child is made,
/// and on the last one. The mount itself must exist.
fn create_group(
    mount: &Path,
    root: &CgroupRoot,
    mut prepare: impl FnMut(&Path),
) -> Result<PathBuf, String> {
    // The error `None` means: another slave has just removed an empty parent, start over.
    let mut create = || {
        let mut group = mount.to_owned();
        for component in root.components() {
            prepare(&group);
            group.push(component);
            ownership::create_group(&group).map_err(|error| {
                let vanished = error.kind() == io::ErrorKind::NotFound && mount.is_dir();
                (!vanished).then(|| refusal(&group, &error))
            })?;
        }
        prepare(&group);
        let procs = group.join("cgroup.procs");
        File::options()
            .write(true)
            .open(&procs)
            .map_err(|error| Some(refusal(&procs, &error)))?;
        Ok(group)
    };
    for _ in 0..CREATE_ATTEMPTS {
        match create() {
            Ok(group) => return Ok(group),
            Err(Some(reason)) => return Err(reason),
            Err(None) => {}
        }
    }
    Err(format!(
        "{} keeps disappearing: another slave removes it",
        mount.join(&root.name).display()
    ))
}

/// The reason for people: what failed and what to do about it.
fn refusal(path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": run as root, or have the group delegated to this user (systemd: Delegate=yes)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": the hierarchy is mounted read-only, mount it writable"
        }
        io::ErrorKind::ResourceBusy => {
            ": the group has processes of its own, configure another cgroup root"
        }
        _ => "",
    };
    format!("{} is not usable ({error}){advice}", path.display())
}

/// The blank-separated words of a control file; empty if it cannot be read.
fn words(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
