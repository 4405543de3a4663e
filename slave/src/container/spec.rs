//! What is asked for: one command, its sandbox and its limits. Checked before anything is created.

use std::collections::BTreeMap;
use std::path::PathBuf;

use meros_shim::{Account, Rootfs};

use super::error::StartError;

/// One CPU in millicpus; also the neutral point of both CPU weight scales below.
const CPU_MILLIS_PER_CPU: u64 = 1_000;
/// `cpu.shares` of a group that nobody configured (cgroup v1), so what one CPU is worth.
const SHARES_PER_CPU: u64 = 1_024;
/// The kernel clamps `cpu.shares` to this range; we do it ourselves so that what we read back is what we wrote.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
/// `cpu.weight` of a group that nobody configured (cgroup v2), so what one CPU is worth.
const WEIGHT_PER_CPU: u64 = 100;
const WEIGHT_MIN: u64 = 1;
const WEIGHT_MAX: u64 = 10_000;
/// The period of the CPU quota: the kernel's default. Longer periods freeze a throttled task for
/// longer, shorter ones cost more timer work.
pub(crate) const CFS_PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel accepts in any period: 1 ms.
const CFS_QUOTA_MIN_US: u64 = 1_000;
/// Below this not even `execve` of a small program succeeds, so lower limits are raised to it.
pub const MEMORY_FLOOR_BYTES: u64 = 4 << 20;
/// What one start may pass in argv and environment together; the kernel's own limit is near 2 MiB.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The longest container id: a file name may have 255 bytes.
pub const ID_BYTES_MAX: usize = 200;
/// `PATH` of a task whose environment names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskCommand {
    /// A line for `/bin/sh -c`. A command that the shell does not find ends with exit code 127,
    /// not with a [`StartError`]; [`ExitReport::message`](super::ExitReport::message) names it.
    Shell(String),
    /// A program, looked up in the task's `PATH` unless it has a `/`, and its arguments.
    Argv(Vec<String>),
}

impl TaskCommand {
    /// The argument vector that is executed.
    pub(crate) fn argv(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            Self::Argv(argv) => argv.clone(),
        }
    }

    /// How people refer to the command: the shell line or the program.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Shell(line) => line,
            Self::Argv(argv) => argv.first().map_or("", String::as_str),
        }
    }
}

/// What a container may use. A limit whose controller the host lacks is not enforced; the
/// [`IsolationReport`](super::IsolationReport) says so once, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Weight against other containers when CPUs are short, in millicpus (1000 = one CPU).
    /// Never stops anybody from using idle CPUs. 10 to 256,000 have their exact effect, values
    /// outside are clamped by the kernel's ranges.
    pub cpu_shares_millis: u64,
    /// Hard ceiling in millicpus, also when CPUs are idle; `None` is no ceiling. At least 10
    /// (the kernel's smallest quota is 1 ms in 100 ms); smaller values are raised to it.
    pub cpu_quota_millis: Option<u64>,
    /// Hard limit of memory, swap included where the kernel accounts it, in bytes. Values below
    /// [`MEMORY_FLOOR_BYTES`] are raised to it. `None` is no limit.
    pub memory_bytes: Option<u64>,
    /// Most bytes of disk that the sandbox takes, measured every
    /// [`DISK_WATCH_INTERVAL`](super::DISK_WATCH_INTERVAL); `None` is no limit.
    pub disk_bytes: Option<u64>,
    /// The most processes and threads at one time, the command itself included; at least 1.
    /// `None` is no limit.
    pub pids_max: Option<u64>,
}

impl Default for Limits {
    /// One CPU's weight and nothing else.
    fn default() -> Self {
        Self {
            cpu_shares_millis: CPU_MILLIS_PER_CPU,
            cpu_quota_millis: None,
            memory_bytes: None,
            disk_bytes: None,
            pids_max: None,
        }
    }
}

impl Limits {
    /// `cpu.shares` of cgroup v1: 1024 for each CPU, as Mesos and Docker do it.
    pub(crate) fn cpu_shares(&self) -> u64 {
        (self.cpu_shares_millis.saturating_mul(SHARES_PER_CPU) / CPU_MILLIS_PER_CPU)
            .clamp(SHARES_MIN, SHARES_MAX)
    }

    /// `cpu.weight` of cgroup v2: 100 for each CPU, so `weight = shares * 100 / 1024`.
    ///
    /// This is systemd's mapping (`cgroup_cpu_shares_to_weight`): it keeps the default of one
    /// scale on the default of the other and stays proportional. The older mapping of runc,
    /// `1 + (shares - 2) * 9999 / 262142`, puts one CPU at 39 and starves containers beside
    /// groups that have the default weight.
    pub(crate) fn cpu_weight(&self) -> u64 {
        (self.cpu_shares_millis.saturating_mul(WEIGHT_PER_CPU) / CPU_MILLIS_PER_CPU)
            .clamp(WEIGHT_MIN, WEIGHT_MAX)
    }

    /// The quota in microseconds for each [`CFS_PERIOD_US`].
    pub(crate) fn cfs_quota_us(&self) -> Option<u64> {
        let quota = |millis: u64| millis.saturating_mul(CFS_PERIOD_US) / CPU_MILLIS_PER_CPU;
        self.cpu_quota_millis
            .map(|millis| quota(millis).max(CFS_QUOTA_MIN_US))
    }
}

/// One container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Names the container and its cgroup; unique among the running ones. 1 to [`ID_BYTES_MAX`]
    /// of ASCII letters, digits, `-`, `_`, `.`, `:` and `@`, not starting with a dot.
    pub id: String,
    /// Whose it is, in words of the caller's; kept with the container and found again with it.
    pub owner: String,
    /// What to run.
    pub command: TaskCommand,
    /// The whole environment of the task: nothing is inherited. `PATH` is added if missing.
    pub env: BTreeMap<String, String>,
    /// Working directory unless an image says otherwise, absolute; holds `stdout` and `stderr`. Created if
    /// missing, never removed here.
    pub sandbox: PathBuf,
    /// What it may use.
    pub limits: Limits,
    /// Most bytes kept of standard output, `stdout` and `stdout.1` together. Older output goes first.
    pub stdout_bytes_max: u64,
    /// The same for standard error.
    pub stderr_bytes_max: u64,
    /// Files and folders that the task may use beside its sandbox, wherever they are: volumes.
    pub shown: Vec<PathBuf>,
    /// Account that the task runs as, which then owns the sandbox; `None` is our own.
    pub user: Option<String>,
    /// The file tree that it sees in place of the host's; `user` then says nothing.
    pub image: Option<ImageRoot>,
    /// Whether it is killed when the slave goes, however that happens.
    pub ends_with_slave: bool,
    /// Commands that [`Container::check`](super::Container::check) runs beside it, by name.
    pub checks: BTreeMap<String, CheckCommand>,
}

/// The file tree of a container that has an image, and who the container runs as in it. Needs the
/// [part](super::Part) `image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRoot {
    /// What it is made of, and where the command starts.
    pub rootfs: Rootfs,
    /// As the image knows users; owns the sandbox.
    pub account: Account,
}

/// A command that runs beside a container's own for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckCommand {
    /// What to run.
    pub command: TaskCommand,
    /// Added to the environment of the container.
    pub env: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Refuses what could not be started or would reach outside of the container's own names.
    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let invalid = |field, why| Err(StartError::InvalidSpec { field, why });
        if !is_safe_component(&self.id, ID_BYTES_MAX) {
            return invalid(
                "id",
                "must be 1 to 200 of a-z A-Z 0-9 - _ . : @ and not start with a dot",
            );
        }
        let argv = self.command.argv();
        let checks = self.checks.values();
        for argv in checks
            .clone()
            .map(|check| check.command.argv())
            .chain([argv.clone()])
        {
            if argv.first().is_none_or(String::is_empty) {
                return invalid("command", "must not be empty");
            }
            if argv.iter().any(|argument| argument.contains('\0')) {
                return invalid("command", "must not contain NUL");
            }
        }
        let env = self.env.iter().chain(checks.flat_map(|check| &check.env));
        for (name, value) in env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return invalid(
                    "env",
                    "names must not be empty or contain '='; nothing may contain NUL",
                );
            }
        }
        let env_bytes: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        let argv_bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
        if env_bytes + argv_bytes > COMMAND_BYTES_MAX {
            return invalid("command", "arguments and environment together exceed 1 MiB");
        }
        if !self.sandbox.is_absolute() {
            return invalid("sandbox", "must be an absolute path");
        }
        if self.limits.pids_max == Some(0) {
            return invalid("pids_max", "must be at least 1");
        }
        Ok(())
    }
}

/// Whether `name` is one path component that means nothing else anywhere: no separator, no `..`,
/// no control characters, no blanks that would break a line of `/proc`.
pub(crate) fn is_safe_component(name: &str, bytes_max: usize) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    !name.is_empty() && name.len() <= bytes_max && !name.starts_with('.') && name.bytes().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            id: "task-1".into(),
            owner: String::new(),
            command: TaskCommand::Argv(vec!["true".into()]),
            env: BTreeMap::new(),
            sandbox: "/sandbox".into(),
            limits: Limits::default(),
            stdout_bytes_max: 1 << 20,
            stderr_bytes_max: 1 << 20,
            shown: Vec::new(),
            user: None,
            image: None,
            ends_with_slave: false,
            checks: BTreeMap::new(),
        }
    }

    fn refused_field(change: impl FnOnce(&mut ContainerSpec)) -> &'static str {
        let mut spec = spec();
        change(&mut spec);
        match spec.validate() {
            Err(StartError::InvalidSpec { field, .. }) => field,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn ids_that_are_no_path_component_are_refused() {
        spec().validate().unwrap();
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            ".hidden",
            "a b",
            "a\nb",
            "ä",
            &"x".repeat(ID_BYTES_MAX + 1),
        ] {
            assert_eq!(refused_field(|spec| spec.id = id.into()), "id", "{id:?}");
        }
    }

    #[test]
    fn commands_that_cannot_be_executed_are_refused() {
        assert_eq!(
            refused_field(|spec| spec.command = TaskCommand::Argv(vec![])),
            "command"
        );
        assert_eq!(
            refused_field(|spec| spec.command = TaskCommand::Argv(vec![String::new()])),
            "command"
        );
        assert_eq!(
            refused_field(|spec| spec.command = TaskCommand::Shell("a\0b".into())),
            "command"
        );
        assert_eq!(
            refused_field(|spec| spec.command = TaskCommand::Shell("x".repeat(COMMAND_BYTES_MAX))),
            "command"
        );
        assert_eq!(
            refused_field(|spec| drop(spec.env.insert("A=B".into(), "c".into()))),
            "env"
        );
        assert_eq!(
            refused_field(|spec| drop(spec.env.insert(String::new(), "c".into()))),
            "env"
        );
        assert_eq!(
            refused_field(|spec| spec.sandbox = "relative".into()),
            "sandbox"
        );
        assert_eq!(
            refused_field(|spec| spec.limits.pids_max = Some(0)),
            "pids_max"
        );
    }

    #[test]
    fn one_cpu_is_the_kernels_default_on_both_weight_scales() {
        let cpus = |cpu_shares_millis| Limits {
            cpu_shares_millis,
            ..Limits::default()
        };
        let both = |millis| (cpus(millis).cpu_shares(), cpus(millis).cpu_weight());
        assert_eq!(both(1_000), (1_024, 100));
        assert_eq!(both(500), (512, 50));
        assert_eq!(both(0), (2, 1));
        assert_eq!(both(10), (10, 1));
        assert_eq!(both(u64::MAX), (262_144, 10_000));
    }

    #[test]
    fn quota_is_never_below_what_the_kernel_accepts() {
        let quota = |millis| {
            Limits {
                cpu_quota_millis: millis,
                ..Limits::default()
            }
            .cfs_quota_us()
        };
        assert_eq!(quota(None), None);
        assert_eq!(quota(Some(250)), Some(25_000));
        assert_eq!(quota(Some(2_500)), Some(250_000));
        assert_eq!(quota(Some(1)), Some(1_000));
    }
}
