//! Which parts of the confinement are on: what the administrator wants, and what the host gives. Invariant
//! S21: what is named is in force, or there is no slave.
//!
//! Nothing is asked of the host in words: a shim tries everything that is wanted, on a command that is
//! not there, and says at which part it failed. So what is shown as on has been in force once, in the
//! same order and by the same code as for a task.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use meros_shim::{Confinement, Failure, Frames, Part, Request, Rootfs, Told};
use nix::unistd::geteuid;

use super::error::OpenError;
use super::isolation::Facility;
use super::seccomp::default_filter;
use super::shim::{Folder, ShimProgram, first_word};

/// Most descriptors of one process of a task unless configured.
pub const TASK_OPEN_FILES_DEFAULT: u64 = 65_536;
/// How long a trial may take; it takes milliseconds.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// A command that is nowhere: a trial ends where it is not found.
const NO_COMMAND: &str = "/proc/self/meros-trial";
/// The sandbox quota, in options and reports.
const DISK: &str = "disk";
/// Stands for all parts that are not named.
const ALL: &str = "all";

/// Capabilities that a task of root keeps: what programs need that change users, files and low ports of
/// their own, and nothing of the machine. By number (capabilities(7)): chown, dac_override, fowner,
/// fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, audit_write, setfcap.
/// Container runtimes leave mknod, too; they have groups that keep a device from being opened.
const CAPABILITIES: [u32; 13] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31];

/// Devices that every task has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What a task can neither read nor write: of the machine's memory, keys, firmware, timing and hardware.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it can read only: the kernel's switches, and control groups, its own limits among them.
const READ_ONLY: [&str; 6] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/sys",
];

/// What an administrator says of the parts of isolation: `pid=on,seccomp=off`, a name alone is `on`.
/// Parts that are not named are on if the host gives them and they are on by default; `all=off` (or `on`)
/// is for all that are not named, but not for groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IsolationWishes {
    named: BTreeMap<String, bool>,
}

/// A part is not known, or said twice, or cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("isolation has {piece:?}: {why}")]
pub struct IsolationWishError {
    /// What was given.
    pub piece: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for IsolationWishes {
    type Err = IsolationWishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut named = BTreeMap::new();
        let pieces = text.split(',').map(str::trim);
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let wrong = |why: String| IsolationWishError {
                piece: piece.chars().take(64).collect(),
                why,
            };
            let (name, wish) = match piece.split_once('=') {
                None => (piece, true),
                Some((name, "on")) => (name, true),
                Some((name, "off")) => (name, false),
                Some(_) => return Err(wrong("a part is on or off".to_owned())),
            };
            let is_group = Facility::ALL.iter().any(|it| it.to_string() == name);
            let is_part =
                [ALL, DISK].contains(&name) || Part::ALL.iter().any(|it| it.name() == name);
            if !is_group && !is_part {
                return Err(wrong(format!("parts are {}", known().join(", "))));
            }
            if is_group && !wish {
                let why = "a control group cannot be off; name those that must be there";
                return Err(wrong(why.to_owned()));
            }
            if named.insert(name.to_owned(), wish).is_some() {
                return Err(wrong("it is named twice".to_owned()));
            }
        }
        Ok(Self { named })
    }
}

fn known() -> Vec<String> {
    let groups = Facility::ALL.iter().map(Facility::to_string);
    let parts = Part::ALL.iter().map(|part| part.name().to_owned());
    let others = [DISK, ALL].map(str::to_owned);
    parts.chain(groups).chain(others).collect()
}

impl fmt::Display for IsolationWishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, wish)) in self.named.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let wish = if *wish { "on" } else { "off" };
            write!(f, "{comma}{name}={wish}")?;
        }
        Ok(())
    }
}

impl IsolationWishes {
    /// None is on.
    #[must_use]
    pub fn none() -> Self {
        let named = [(ALL.to_owned(), false)].into();
        Self { named }
    }

    /// What is said of this one, if it is named.
    fn explicit(&self, name: &str) -> Option<bool> {
        self.named.get(name).copied()
    }

    fn wants(&self, name: &str, default: bool) -> bool {
        let said = self.explicit(name).or_else(|| self.explicit(ALL));
        said.unwrap_or(default)
    }

    /// Whether what a sandbox takes is measured and held to the task's `disk`.
    #[must_use]
    pub fn disk(&self) -> bool {
        self.wants(DISK, true)
    }

    /// The control groups that must be there.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Facility> {
        let all = Facility::ALL.into_iter();
        all.filter(|facility| self.explicit(&facility.to_string()) == Some(true))
    }
}

/// What is wanted for all tasks of a slave.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Which parts.
    pub wishes: IsolationWishes,
    /// Folders of the slave that no task is to see, its own sandbox and volumes excepted.
    pub hidden: Vec<PathBuf>,
    /// Files that no task is to read.
    pub masked: Vec<PathBuf>,
    /// Devices that tasks have beside the harmless ones.
    pub devices: Vec<PathBuf>,
    /// Most descriptors of one process; none is the slave's own limit.
    pub open_files_max: Option<u64>,
}

impl Wanted {
    /// Nothing but control groups.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            wishes: IsolationWishes::none(),
            ..Self::default()
        }
    }
}

/// How it is with one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartState {
    /// In force for every task.
    On,
    /// Not wanted; the reason if it is not the administrator's.
    Off(Option<String>),
    /// Wanted and not to be had: why, and what to do.
    Missing(String),
}

impl fmt::Display for PartState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off(_) => "off",
            Self::Missing(_) => "missing",
        })
    }
}

/// What every task of this slave is confined by.
#[derive(Debug, Clone)]
pub(crate) struct Confined {
    pub(crate) confinement: Confinement,
    pub(crate) states: BTreeMap<Part, PartState>,
}

/// Finds out what of `wanted` the host gives. `folders` is where containers have theirs; the trial has
/// one beside it. Blocks for some milliseconds.
///
/// # Errors
/// A part that is named is not to be had, or no shim can be started at all.
pub(crate) fn confine(
    wanted: &Wanted,
    program: &ShimProgram,
    folders: &Path,
) -> Result<Confined, OpenError> {
    let is_root = geteuid().is_root();
    let mut states = plan(wanted, is_root, folders)?;
    loop {
        let confinement = confinement(wanted, &states);
        if !confinement.parts.is_empty() {
            let failure = try_out(&confinement, program, folders)?;
            if failure.step != Failure::EXEC {
                let part = blame(&failure, &confinement).ok_or_else(|| OpenError::Trial {
                    step: failure.step.clone(),
                    source: io::Error::from_raw_os_error(failure.errno),
                })?;
                let reason = reason(part, &failure, is_root);
                lose(&wanted.wishes, &mut states, part, &reason, is_root)?;
                continue;
            }
        }
        if is_on(&states, Part::Image) {
            // Once more, in a tree that is not the host's.
            let mut with_image = confinement.clone();
            with_image.parts.insert(Part::Image);
            with_image.parts.remove(&Part::Files);
            with_image.rootfs = Some(trial_rootfs(folders));
            let failure = try_out(&with_image, program, folders)?;
            if failure.step != Failure::EXEC {
                let reason = reason(Part::Image, &failure, is_root);
                lose(&wanted.wishes, &mut states, Part::Image, &reason, is_root)?;
            }
        }
        return Ok(Confined {
            confinement,
            states,
        });
    }
}

/// Part by part, before anything is tried.
fn plan(
    wanted: &Wanted,
    is_root: bool,
    folders: &Path,
) -> Result<BTreeMap<Part, PartState>, OpenError> {
    let wishes = &wanted.wishes;
    let mut states = BTreeMap::new();
    for part in Part::ALL {
        let default = match part {
            Part::User => !is_root,
            Part::Net | Part::ReadOnly | Part::Files | Part::Signals => false,
            _ => true,
        };
        let state = match wishes.wants(part.name(), default) {
            true => PartState::On,
            false => PartState::Off(None),
        };
        states.insert(part, state);
    }
    for (part, covered) in [
        (Part::Tmp, ["/tmp", "/var/tmp"].as_slice()),
        (Part::Dev, &["/dev"]),
    ] {
        let above = covered.iter().find(|above| folders.starts_with(above));
        if let (Some(above), true) = (above, is_on(&states, part)) {
            let reason =
                format!("the data directory is below {above}: a task could not reach its sandbox");
            refuse_if_named(wishes, part, &format!("{reason}; move data_dir"))?;
            states.insert(part, PartState::Off(Some(reason)));
        }
    }
    if is_root && is_on(&states, Part::User) {
        let reason = "a slave of root makes no user namespaces: its tasks run as their own users";
        refuse_if_named(wishes, Part::User, reason)?;
        states.insert(Part::User, PartState::Off(Some(reason.to_owned())));
    }
    if !is_root && is_on(&states, Part::Image) {
        let reason = "the files of images belong to many users; run the slave as root";
        lose(wishes, &mut states, Part::Image, reason, is_root)?;
    }
    if is_on(&states, Part::Seccomp) && default_filter().is_none() {
        let reason = "no filter is known for this processor";
        lose(wishes, &mut states, Part::Seccomp, reason, is_root)?;
    }
    for part in Part::ALL {
        let missing = part.needs().filter(|needed| !is_on(&states, *needed));
        if let (Some(needed), true) = (missing, is_on(&states, part)) {
            let reason = format!("it needs {needed}, which is off");
            refuse_if_named(wishes, part, &reason)?;
            states.insert(part, PartState::Off(Some(reason)));
        }
    }
    let no_pid = !is_on(&states, Part::Pid);
    if no_pid && wishes.wants(Part::Signals.name(), true) {
        states.insert(Part::Signals, PartState::On);
    }
    Ok(states)
}

fn is_on(states: &BTreeMap<Part, PartState>, part: Part) -> bool {
    states.get(&part) == Some(&PartState::On)
}

fn refuse_if_named(wishes: &IsolationWishes, part: Part, reason: &str) -> Result<(), OpenError> {
    match wishes.explicit(part.name()) {
        Some(true) => Err(OpenError::IsolationMissing {
            part: part.name().to_owned(),
            reason: reason.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Goes on without a part and all that needs it; instead of a process namespace signals are restricted.
fn lose(
    wishes: &IsolationWishes,
    states: &mut BTreeMap<Part, PartState>,
    part: Part,
    reason: &str,
    is_root: bool,
) -> Result<(), OpenError> {
    let mut lost = vec![(part, reason.to_owned())];
    for other in Part::ALL {
        let needs = match part {
            // The rest of what takes privileges comes with the namespace.
            Part::User if !is_root => !matches!(
                other,
                Part::User | Part::Seccomp | Part::Files | Part::Signals
            ),
            _ => other.needs() == Some(part),
        };
        if needs && is_on(states, other) {
            lost.push((other, format!("it needs {part}: {reason}")));
        }
    }
    for (part, reason) in lost {
        refuse_if_named(wishes, part, &reason)?;
        states.insert(part, PartState::Missing(reason));
        if part == Part::Pid && wishes.wants(Part::Signals.name(), true) {
            states.insert(Part::Signals, PartState::On);
        }
    }
    Ok(())
}

fn confinement(wanted: &Wanted, states: &BTreeMap<Part, PartState>) -> Confinement {
    let parts: BTreeSet<Part> = Part::ALL
        .into_iter()
        // Of those tasks only that have one.
        .filter(|part| is_on(states, *part) && *part != Part::Image)
        .collect();
    let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
    let masked = paths(&MASKED).into_iter().chain(wanted.masked.clone());
    let harmless = DEVICES.iter().map(|name| Path::new("/dev").join(name));
    Confinement {
        parts,
        hidden: wanted.hidden.clone(),
        shown: Vec::new(),
        masked: masked.collect(),
        read_only: paths(&READ_ONLY),
        devices: harmless.chain(wanted.devices.clone()).collect(),
        capabilities: CAPABILITIES
            .into_iter()
            .fold(0, |bits, number| bits | 1 << number),
        open_files_max: wanted.open_files_max,
        rootfs: None,
    }
}

/// The sandbox of a trial has two of these in it.
const TRIAL_LAYERS: [&str; 2] = ["upper-layer", "lower-layer"];

fn trial_rootfs(folders: &Path) -> Rootfs {
    let trial = folders.with_extension("trial");
    Rootfs {
        layers: TRIAL_LAYERS.iter().map(|name| trial.join(name)).collect(),
        workdir: PathBuf::from("/"),
    }
}

/// Starts nothing in this confinement, and says what that failed of.
fn try_out(
    confinement: &Confinement,
    program: &ShimProgram,
    folders: &Path,
) -> Result<Failure, OpenError> {
    let failed = |source| OpenError::Trial {
        step: "start a shim".to_owned(),
        source,
    };
    let path = folders.with_extension("trial");
    let folder = Folder::new(path.clone());
    // Of a slave that died here.
    folder.remove().map_err(failed)?;
    let tried = || {
        let sandbox = path.join("sandbox");
        folder.create(&Request {
            owner: String::new(),
            boot_id: String::new(),
            command: NO_COMMAND.to_owned(),
            groups: Vec::new(),
            argv: vec![NO_COMMAND.to_owned()],
            env: BTreeMap::new(),
            sandbox: sandbox.clone(),
            account: None,
            stdout_bytes_max: 0,
            stderr_bytes_max: 0,
            disk_bytes: None,
            ends_with_slave: true,
            checks: BTreeMap::new(),
            confinement: confinement.clone(),
        })?;
        fs::create_dir(sandbox)?;
        for layer in TRIAL_LAYERS {
            fs::create_dir(path.join(layer))?;
        }
        let (mut child, mut stream) = program.start(&folder)?;
        let told = first_word(&mut stream, &mut Frames::default(), TRIAL_TIMEOUT);
        let _ = child.kill();
        let _ = child.wait();
        told
    };
    let told = tried();
    let _ = folder.remove();
    match told.map_err(failed)? {
        Some(Told::NotStarted(failure)) => Ok(failure),
        _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Whose fault it was. A task that dies without a word was killed by its filter.
fn blame(failure: &Failure, confinement: &Confinement) -> Option<Part> {
    let killed = failure.step == Failure::DIED && confinement.has(Part::Seccomp);
    failure.part.or(killed.then_some(Part::Seccomp))
}

fn reason(part: Part, failure: &Failure, is_root: bool) -> String {
    let said = match failure.errno {
        0 => "it failed".to_owned(),
        errno => io::Error::from_raw_os_error(errno).to_string(),
    };
    let advice = match part {
        Part::User => {
            "run the slave as root, or allow user namespaces (sysctl user.max_user_namespaces, \
             kernel.apparmor_restrict_unprivileged_userns)"
        }
        Part::Files | Part::Signals => {
            "the kernel needs Landlock (lsm=landlock,…), and Linux 6.12 or newer for signals"
        }
        Part::Seccomp => "the kernel needs CONFIG_SECCOMP_FILTER",
        Part::Image => {
            "the kernel needs overlayfs, and the data directory a file system that it can write to: ext4 and \
             xfs are, another overlayfs is not"
        }
        _ if is_root => "does the slave itself run in a container that forbids it?",
        _ => "run the slave as root",
    };
    format!("{}: {said}; {advice}", failure.step)
}

#[cfg(test)]
mod tests;
