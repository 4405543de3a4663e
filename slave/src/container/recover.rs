//! What an earlier slave has left: containers that run on, that ended meanwhile, and rests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use meros_shim::{Exit, ExitStatus, Frames, REQUEST, Request, Told, read_state};
use tracing::warn;

use super::group::{Group, subgroups};
use super::isolation::{Isolation, SUPERVISOR};
use super::launch::full_name;
use super::report::{ExitReport, OomReport, Usage};
use super::shim::{Folder, first_word};
use super::supervise::Adoptable;
use super::tree::Tree;

/// The report of an end, as we have made it.
pub(crate) const REPORT: &str = "report.json";
/// How long a shim may take to answer. It does at once unless it is just starting its task.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one dead container may take to be gone before it is left for the next start.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A container of an earlier slave.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Whose it is: [`ContainerSpec::owner`](super::ContainerSpec::owner).
    pub owner: String,
    /// How long ago it was asked for, by the wall clock.
    pub age: Duration,
    /// Most bytes that were to be kept of each of its outputs.
    pub log_bytes_max: u64,
    /// What its file tree is made of, if that is not the host's.
    pub layers: Vec<PathBuf>,
    /// What has become of it.
    pub state: FoundState,
}

/// What has become of a container while there was no slave.
#[derive(Debug)]
pub enum FoundState {
    /// It runs: [`Containerizer::adopt`](super::Containerizer::adopt) it.
    Running(Box<Adoptable>),
    /// It has ended. Nothing of it is left but its folder.
    Ended(Box<ExitReport>),
    /// It was killed because it was to end with its slave.
    EndedWithSlave,
    /// Its command never ran.
    NeverRan,
    /// The machine was started anew meanwhile.
    Rebooted,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Containers with a folder.
    pub containers: Vec<Found>,
    /// Control groups that belonged to nothing, and were removed.
    pub stray_groups: usize,
    /// Processes that were alive and should not have been, and were killed.
    pub killed: usize,
    /// Processes that survived SIGKILL; their groups are still there.
    pub survivors: usize,
}

/// Which start of the machine this is; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Looks at every folder and every group. Blocks.
pub(crate) fn take_inventory(isolation: &Isolation, folders: &Path, boot_id: &str) -> Inventory {
    let mut inventory = Inventory::default();
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(folders).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        let folder = Folder::new(entry.path());
        if let Some(found) = examine(isolation, &id, folder, boot_id, &mut inventory) {
            known.insert(id);
            inventory.containers.push(found);
        }
    }
    let dirs = isolation.dirs();
    let groups = dirs.iter().flat_map(|dir| subgroups(dir));
    let names = groups.filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
    let strays: BTreeSet<String> = names
        .filter(|name| name != SUPERVISOR && !known.contains(name))
        .collect();
    for id in strays {
        inventory.stray_groups += 1;
        clear(isolation, &id, None, &mut inventory);
    }
    inventory
}

/// None if it was never a container: the slave died while it made the folder.
fn examine(
    isolation: &Isolation,
    id: &str,
    folder: Folder,
    boot_id: &str,
    inventory: &mut Inventory,
) -> Option<Found> {
    let Some(request) = folder.read::<Request>(REQUEST) else {
        if let Err(error) = folder.remove() {
            warn!(container_id = id, %error, "failed to remove the folder of a container");
        }
        return None;
    };
    let asked = fs::metadata(folder.path().join(REQUEST)).and_then(|file| file.modified());
    let age = asked
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    let is_of_this_boot = request.boot_id == boot_id;
    let state = match is_of_this_boot
        .then(|| meet(isolation, id, &folder, &request))
        .flatten()
    {
        Some(adoptable) => FoundState::Running(Box::new(adoptable)),
        None => bury(isolation, id, &folder, &request, is_of_this_boot, inventory),
    };
    Some(Found {
        id: id.to_owned(),
        owner: request.owner,
        age: age.unwrap_or_default(),
        log_bytes_max: request.stdout_bytes_max,
        layers: request
            .confinement
            .rootfs
            .map_or_else(Vec::new, |it| it.layers),
        state,
    })
}

/// Asks the shim, if there is one and it has a task.
fn meet(isolation: &Isolation, id: &str, folder: &Folder, request: &Request) -> Option<Adoptable> {
    let mut stream = folder.connect().ok()?;
    let mut frames = Frames::default();
    match first_word(&mut stream, &mut frames, ANSWER_TIMEOUT) {
        Ok(Some(Told::Running {
            pid,
            shim,
            init,
            execs,
        })) => {
            let group = Group::named(isolation, id);
            let tree = Tree::new(&group, shim, init, &full_name(isolation, id));
            Some(Adoptable {
                id: id.to_owned(),
                command: request.command.clone(),
                sandbox: request.sandbox.clone(),
                disk_bytes: request.disk_bytes,
                pid,
                execs,
                stream,
                frames,
                folder: folder.clone(),
                group,
                tree,
            })
        }
        // It has just ended, or has no task and ends.
        Ok(_) => None,
        Err(error) => {
            warn!(container_id = id, %error, "a shim does not answer");
            None
        }
    }
}

/// Clears away a container without a shim, and says how it ended.
fn bury(
    isolation: &Isolation,
    id: &str,
    folder: &Folder,
    request: &Request,
    is_of_this_boot: bool,
    inventory: &mut Inventory,
) -> FoundState {
    let state = folder.state_file().and_then(|file| read_state(&file).ok());
    let usage = clear(isolation, id, state.map(|state| state.shim), inventory);
    if let Some(report) = folder.read::<ExitReport>(REPORT) {
        return FoundState::Ended(Box::new(report));
    }
    let exit = match (folder.exit(), state) {
        (
            Some(Exit {
                with_slave: true, ..
            }),
            _,
        ) => return FoundState::EndedWithSlave,
        (Some(exit), _) => Some(exit),
        (None, None) => return FoundState::NeverRan,
        (None, Some(_)) if !is_of_this_boot => return FoundState::Rebooted,
        (None, Some(_)) => None,
    };
    let status = exit.map_or(ExitStatus::Signaled(9), |exit| exit.status);
    let logs = state.unwrap_or_default();
    let usage = Usage {
        stdout: logs.stdout,
        stderr: logs.stderr,
        ..usage
    };
    FoundState::Ended(Box::new(ExitReport {
        status,
        shim_lost: exit.is_none(),
        killed: false,
        disk: None,
        oom: exit.and_then(|_| OomReport::judge(status, false, &usage)),
        usage,
        survivors: 0,
        command: request.command.clone(),
    }))
}

/// Kills what is in the groups of a container and removes them; says what it had used.
fn clear(isolation: &Isolation, id: &str, shim: Option<i32>, inventory: &mut Inventory) -> Usage {
    let group = Group::named(isolation, id);
    // The groups of one container hold the same processes, unless the run crashed while one
    // of them was entering: so each group is emptied.
    let mut trees: Vec<Tree> = group
        .dirs()
        .map(|dir| Tree::Group {
            dir: dir.to_owned(),
        })
        .collect();
    if trees.is_empty() && shim.is_some() {
        // The shim is dead and its number may be anybody's, so only the name is asked.
        let name = full_name(isolation, id);
        trees.push(Tree::named(name));
    }
    let alive: BTreeSet<i32> = trees.iter().flat_map(Tree::members).collect();
    let survivors = trees
        .iter()
        .map(|tree| tree.kill_until_empty(KILL_TIMEOUT))
        .max();
    let survivors = survivors.unwrap_or(0);
    inventory.killed += alive.len().saturating_sub(survivors);
    inventory.survivors += survivors;
    let usage = group.usage();
    if let Err(error) = group.remove_retrying(survivors) {
        warn!(container_id = id, survivors, %error, "failed to remove a leftover cgroup");
    }
    usage
}
