//! What an admin can set: [`RawConfig`] as it is written, [`Config`] once it has been checked.
//!
//! Flags, environment and file are one configuration: the flag `--data-dir`, the variable
//! `MEROS_DATA_DIR` and the key `data_dir` are the same option. [`RawConfig::or`] lays one source
//! over another.

mod shown;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use meros_proto::attribute::{Attributes, AttributesError};
use meros_proto::resources::{ParseResourcesError, Resources};
use meros_slave_core::{
    EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT, EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT,
};
use serde::Deserialize;

use crate::container::{
    CgroupRoot, CgroupRootError, DEFAULT_CGROUP_NAME, IsolationWishError, IsolationWishes,
    TASK_OPEN_FILES_DEFAULT,
};

/// The TCP port of slaves, for HTTP. Slaves dial their masters, so they have no QUIC port.
pub const PORT_DEFAULT: u16 = 5051;
/// The port of a master that is given without one.
const MASTER_PORT: u16 = 5050;
/// The most masters that are dialed.
pub const MASTERS_MAX: usize = 15;

/// The most processes and threads of one task.
pub const TASK_PIDS_DEFAULT: u64 = 4_096;
/// Beyond it the kernel's own limit is lower.
pub const TASK_PIDS_MAX: u64 = 4_194_304;

/// Less is not enough for a shell and its pipes.
pub const TASK_OPEN_FILES_MIN: u64 = 16;
/// The kernel's own bound unless an administrator has raised it.
pub const TASK_OPEN_FILES_MAX: u64 = 1_048_576;
/// More devices than any machine has of interest to tasks.
pub const TASK_DEVICES_MAX: usize = 64;

/// The most bytes kept of each of a task's two outputs.
pub const LOG_BYTES_DEFAULT: u64 = 64 << 20;
/// Less is not worth reading.
pub const LOG_BYTES_MIN: u64 = 4 << 10;
/// More is not a log.
pub const LOG_BYTES_MAX: u64 = 1 << 40;

/// The most folders of which tasks may have files.
pub const FETCH_FOLDERS_MAX: usize = 64;
/// Bytes of one file that is fetched for a task.
pub const FETCH_FILE_BYTES_DEFAULT: u64 = 4 << 30;
/// Bytes that are put into one sandbox, what is unpacked included.
pub const FETCH_TASK_BYTES_DEFAULT: u64 = 16 << 30;
/// Bytes of fetched files that are kept for other tasks, as Mesos does it (`fetcher_cache_size`).
pub const FETCH_CACHE_BYTES_DEFAULT: u64 = 2 << 30;
/// Less is not worth fetching.
pub const FETCH_BYTES_MIN: u64 = 1 << 10;
/// More than the disk of any slave.
pub const FETCH_BYTES_MAX: u64 = 1 << 50;
/// How long a transfer may bring almost nothing, as Mesos does it (`fetcher_stall_timeout`).
pub const FETCH_STALL_DEFAULT: Duration = Duration::from_secs(60);
/// A server may think for that long.
pub const FETCH_STALL_MIN: Duration = Duration::from_secs(1);
/// Tasks wait for the places of those that stand still.
pub const FETCH_STALL_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of one image: as much as of fetched files.
pub const IMAGE_BYTES_DEFAULT: u64 = 16 << 30;
/// Bytes of images that are kept: some dozens of the usual ones.
pub const IMAGE_STORE_BYTES_DEFAULT: u64 = 20 << 30;
/// The most registries without TLS.
pub const IMAGE_REGISTRIES_MAX: usize = 64;

/// How long tasks have to end when the slave is stopped.
pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Supervisors lose patience sooner.
pub const STOP_GRACE_MAX: Duration = Duration::from_secs(10 * 60);

/// What an executor's time to subscribe may be: at least a blink, and not so long that its tasks hang.
pub const EXECUTOR_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(60 * 60));

/// The options of a slave as flags, environment variables or a TOML file give them. What is absent
/// has a default. Durations are text such as `500ms`, `15s` or `10min`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Masters, as `host:port,…`; the port is 5050 where it is left out. Required. Name all of
    /// them: the slave finds the leader by itself
    #[arg(long, env = "MEROS_MASTERS", value_name = "ADDRESSES")]
    pub masters: Option<String>,

    /// Address and TCP port for HTTP: health, metrics, output of tasks. Default 127.0.0.1:5051;
    /// port 0 takes a free one. HTTP has no authentication yet: whoever reaches it can read the
    /// output of every task, and kill its container; to run commands in containers takes an operator's
    /// certificate
    #[arg(long, env = "MEROS_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// The name by which tasks and people reach this machine. Default: its host name
    #[arg(long, env = "MEROS_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,

    /// Directory of what the slave remembers and of the tasks' sandboxes. Required. Losing it makes
    /// this a new slave; one slave at a time
    #[arg(long, env = "MEROS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory with cert.pem, key.pem and ca.pem of this slave, made by `meros ca issue`. Required
    #[arg(long, env = "MEROS_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// What the slave has to offer, such as `cpus:4;mem:8192;ports:[31000-32000]`. Resources that
    /// are named replace those that are detected; the others are detected. More than the machine
    /// has is not refused
    #[arg(long, env = "MEROS_RESOURCES", value_name = "RESOURCES")]
    pub resources: Option<String>,

    /// What frameworks may know of this machine, such as `rack:r12;os:debian`. What isolation it
    /// has is added as `isolation/…`
    #[arg(long, env = "MEROS_ATTRIBUTES", value_name = "ATTRIBUTES")]
    pub attributes: Option<String>,

    /// The control group below which tasks run, in each hierarchy. Default meros. Below it each
    /// data directory has its own, so slaves of one machine may share this
    #[arg(long, env = "MEROS_CGROUP_ROOT", value_name = "NAME")]
    pub cgroup_root: Option<String>,

    /// Whether tasks are held to their cpus also while others are idle. Default false: they get
    /// at least their share. A task with a limit of its own is always held to that
    #[arg(long, env = "MEROS_CPU_QUOTA", value_name = "BOOL")]
    pub cpu_quota: Option<bool>,

    /// Most processes and threads of one task, 1 to 4194304. Default 4096. A task at its limit
    /// cannot fork
    #[arg(long, env = "MEROS_TASK_PIDS_MAX", value_name = "COUNT")]
    pub task_pids_max: Option<u64>,

    /// Parts of isolation that must be there (`pid` or `pid=on`: the slave does not start without) or
    /// are not wanted (`pid=off`), as `PART,PART=off,…`. Default: what the machine gives of user, pid,
    /// mount, ipc, uts, tmp, dev, paths, capabilities, seccomp, image, cpu, memory, pids, kill, disk; and not
    /// net, read-only, landlock-files. `all=off` is for all that are not named. See docs/isolation.md
    #[arg(long, env = "MEROS_ISOLATION", value_name = "PARTS")]
    pub isolation: Option<String>,

    /// Devices that tasks have beside null, zero, full, random, urandom, tty and terminals, as
    /// `/dev/fuse,/dev/kvm`; at most 64. Default none. Who has a disk here has all that is on it
    #[arg(long, env = "MEROS_TASK_DEVICES", value_name = "PATHS")]
    pub task_devices: Option<String>,

    /// Whether operators may run commands in containers with `meros exec`. Default true: who has an
    /// operator's certificate may do in each task what the task may. Each command is a line in the log
    #[arg(long, env = "MEROS_EXEC", value_name = "BOOL")]
    pub exec: Option<bool>,

    /// Most open files of one process of a task, 16 to 1048576. Default 65536; less if the slave's own
    /// limit is
    #[arg(long, env = "MEROS_TASK_OPEN_FILES_MAX", value_name = "COUNT")]
    pub task_open_files_max: Option<u64>,

    /// Most bytes kept of a task's standard output, and as many of its standard error, 4096 to 1
    /// TiB. Default 64 MiB. Older output goes first
    #[arg(long, env = "MEROS_LOG_BYTES_MAX", value_name = "BYTES")]
    pub log_bytes_max: Option<u64>,

    /// Folders of which tasks may have files by `file:` URIs, as `/srv/packages,/opt/models`; at most 64.
    /// Default none. Whoever may launch tasks can read all that is below, with the slave's rights
    #[arg(long, env = "MEROS_FETCH_FOLDERS", value_name = "PATHS")]
    pub fetch_folders: Option<String>,

    /// Most bytes of one file that is fetched for a task, 1024 to 1 PiB. Default 4 GiB. A larger one fails
    /// its task
    #[arg(long, env = "MEROS_FETCH_FILE_BYTES_MAX", value_name = "BYTES")]
    pub fetch_file_bytes_max: Option<u64>,

    /// Most bytes that are fetched and unpacked into one sandbox, 1024 to 1 PiB. Default 16 GiB. More
    /// fails the task
    #[arg(long, env = "MEROS_FETCH_TASK_BYTES_MAX", value_name = "BYTES")]
    pub fetch_task_bytes_max: Option<u64>,

    /// Most bytes of fetched files that are kept for other tasks, 0 to 1 PiB. Default 2 GiB; 0 keeps
    /// none. The least recently used go first; a start of the slave begins with none
    #[arg(long, env = "MEROS_FETCH_CACHE_BYTES_MAX", value_name = "BYTES")]
    pub fetch_cache_bytes_max: Option<u64>,

    /// After how long a transfer of less than 1 KiB a second is given up, 1s to 1h. Default 1min
    #[arg(long, env = "MEROS_FETCH_STALL_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub fetch_stall_timeout: Option<Duration>,

    /// File with certificates of authorities, as PEM, that are trusted for `https:` beside those of the
    /// system. Default none
    #[arg(long, env = "MEROS_FETCH_CA", value_name = "FILE")]
    pub fetch_ca: Option<PathBuf>,

    /// Most bytes of the layers of one image, as they come and as they are unpacked, 1024 to 1 PiB. Default
    /// 16 GiB. A larger one fails its task
    #[arg(long, env = "MEROS_IMAGE_BYTES_MAX", value_name = "BYTES")]
    pub image_bytes_max: Option<u64>,

    /// Most bytes of unpacked layers of images that are kept, 0 to 1 PiB. Default 20 GiB. Beyond it images
    /// that no container is made of go, the least recently used first; those in use stay whatever they take
    #[arg(long, env = "MEROS_IMAGE_STORE_BYTES_MAX", value_name = "BYTES")]
    pub image_store_bytes_max: Option<u64>,

    /// Registries that are spoken to without TLS, as `host:port,…`; at most 64. Default none but this
    /// machine's own addresses. Who is in between can put anything into an image that is named by a tag
    #[arg(long, env = "MEROS_IMAGE_INSECURE_REGISTRIES", value_name = "HOSTS")]
    pub image_insecure_registries: Option<String>,

    /// File with credentials for registries, as `docker login` writes it (`auths` only, no helpers).
    /// Default none. Whoever may launch tasks can run every image that they are good for
    #[arg(long, env = "MEROS_IMAGE_CREDENTIALS", value_name = "FILE")]
    pub image_credentials: Option<PathBuf>,

    /// Whether all tasks end when the slave stops, crashes or is killed. Default false: they run on,
    /// and the next start finds them; only tasks of frameworks without `checkpoint` end
    #[arg(long, env = "MEROS_TASKS_END_WITH_SLAVE", value_name = "BOOL")]
    pub tasks_end_with_slave: Option<bool>,

    /// How long tasks that end with the slave have to end when it is stopped, 0s to 10min. Default 10s.
    /// Make a supervisor wait longer than this
    #[arg(long, env = "MEROS_STOP_GRACE", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub stop_grace: Option<Duration>,

    /// How long an executor of a framework has to subscribe after its start, 1s to 1h. Default 1min. Then it
    /// is killed and its tasks fail: make it longer where executors take long to come up
    #[arg(long, env = "MEROS_EXECUTOR_REGISTRATION_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub executor_registration_timeout: Option<Duration>,

    /// How long an executor has to subscribe again after its connection broke or the slave was restarted,
    /// 1s to 1h. Default 15s. Then it is killed and its tasks are gone
    #[arg(long, env = "MEROS_EXECUTOR_REREGISTRATION_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub executor_reregistration_timeout: Option<Duration>,

    /// Whether executors that speak the v1 HTTP API have to prove with a token who they are. Default false,
    /// as in Mesos: not all of its libraries do. Set it where tasks of several owners share the slave
    #[arg(long, env = "MEROS_AUTHENTICATE_EXECUTORS", value_name = "BOOL")]
    pub authenticate_executors: Option<bool>,
}

fn duration_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!(
            "{text:?} is not a duration such as 500ms or 5min: {error}"
        ))
    })
}

impl RawConfig {
    /// This configuration, completed by a lower one: what is set here wins.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            masters: self.masters.or(lower.masters),
            http_listen: self.http_listen.or(lower.http_listen),
            hostname: self.hostname.or(lower.hostname),
            data_dir: self.data_dir.or(lower.data_dir),
            identity: self.identity.or(lower.identity),
            resources: self.resources.or(lower.resources),
            attributes: self.attributes.or(lower.attributes),
            cgroup_root: self.cgroup_root.or(lower.cgroup_root),
            cpu_quota: self.cpu_quota.or(lower.cpu_quota),
            task_pids_max: self.task_pids_max.or(lower.task_pids_max),
            isolation: self.isolation.or(lower.isolation),
            task_devices: self.task_devices.or(lower.task_devices),
            exec: self.exec.or(lower.exec),
            task_open_files_max: self.task_open_files_max.or(lower.task_open_files_max),
            log_bytes_max: self.log_bytes_max.or(lower.log_bytes_max),
            fetch_folders: self.fetch_folders.or(lower.fetch_folders),
            fetch_file_bytes_max: self.fetch_file_bytes_max.or(lower.fetch_file_bytes_max),
            fetch_task_bytes_max: self.fetch_task_bytes_max.or(lower.fetch_task_bytes_max),
            fetch_cache_bytes_max: self.fetch_cache_bytes_max.or(lower.fetch_cache_bytes_max),
            fetch_stall_timeout: self.fetch_stall_timeout.or(lower.fetch_stall_timeout),
            fetch_ca: self.fetch_ca.or(lower.fetch_ca),
            image_bytes_max: self.image_bytes_max.or(lower.image_bytes_max),
            image_store_bytes_max: self.image_store_bytes_max.or(lower.image_store_bytes_max),
            image_insecure_registries: self
                .image_insecure_registries
                .or(lower.image_insecure_registries),
            image_credentials: self.image_credentials.or(lower.image_credentials),
            tasks_end_with_slave: self.tasks_end_with_slave.or(lower.tasks_end_with_slave),
            stop_grace: self.stop_grace.or(lower.stop_grace),
            executor_registration_timeout: self
                .executor_registration_timeout
                .or(lower.executor_registration_timeout),
            executor_reregistration_timeout: self
                .executor_reregistration_timeout
                .or(lower.executor_reregistration_timeout),
            authenticate_executors: self.authenticate_executors.or(lower.authenticate_executors),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A required option is absent.
    #[error("{option} is not set: give --{}, {} or the key {option} in the configuration file", option.replace('_', "-"), variable(option))]
    Missing {
        /// The option, as the file spells it.
        option: &'static str,
    },
    /// A value is outside its range.
    #[error("{option} is {got}, which is outside {min} to {max}")]
    OutOfRange {
        /// The option, as the file spells it.
        option: &'static str,
        /// What was given.
        got: String,
        /// The least.
        min: String,
        /// The most.
        max: String,
    },
    /// An address of a master makes no sense.
    #[error(
        "masters contains {piece:?}, which is no `host:port`: give a list such as 10.0.0.1:5050,10.0.0.2:5050"
    )]
    Master {
        /// The piece.
        piece: String,
    },
    /// Too many masters.
    #[error("masters names {got} masters; at most {MASTERS_MAX} are dialed")]
    TooManyMasters {
        /// How many.
        got: usize,
    },
    /// The host name cannot be one.
    #[error("hostname {got:?} is not a host name: 1 to 253 letters, digits, '-', '.' and ':'")]
    Hostname {
        /// What was given.
        got: String,
    },
    /// The resources cannot be read.
    #[error("resources cannot be read")]
    Resources(#[source] ParseResourcesError),
    /// Something that is made at run time only.
    #[error(
        "resources cannot have {claims}: a slave declares static reservations such as `disk(web):64`; dynamic ones and volumes are made by frameworks and by `meros reserve`"
    )]
    ClaimedResources {
        /// What.
        claims: String,
    },
    /// The attributes cannot be read.
    #[error("attributes cannot be read")]
    Attributes(#[source] AttributesError),
    /// The name or value of an attribute has a character that is not printed.
    #[error(
        "attribute {name:?} has a control character in its name or value, which would reach terminals: remove it"
    )]
    AttributeControl {
        /// The attribute.
        name: String,
    },
    /// The control group's name cannot be one.
    #[error("cgroup_root cannot be used")]
    CgroupRoot(#[source] CgroupRootError),
    /// What is said of isolation makes no sense.
    #[error(transparent)]
    Isolation(#[from] IsolationWishError),
    /// A folder of which tasks may have files is none, or there are too many.
    #[error(
        "fetch_folders has {piece:?}: give up to {FETCH_FOLDERS_MAX} absolute paths without `..`, such as /srv/packages,/opt/models"
    )]
    FetchFolder {
        /// What was given.
        piece: String,
    },
    /// A registry is none, or there are too many.
    #[error(
        "image_insecure_registries has {piece:?}: give up to {IMAGE_REGISTRIES_MAX} hosts, such as registry.lan:5000"
    )]
    Registry {
        /// What was given.
        piece: String,
    },
    /// A device is none, or there are too many.
    #[error(
        "task_devices has {piece:?}: give up to {TASK_DEVICES_MAX} paths below /dev, such as /dev/fuse,/dev/kvm"
    )]
    Device {
        /// What was given.
        piece: String,
    },
}

fn variable(option: &str) -> String {
    format!("MEROS_{}", option.to_uppercase())
}

/// A checked configuration. Made by [`Config::check`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Masters as `host:port`, at least one.
    pub masters: Vec<String>,
    /// Where HTTP listens; port 0: any free one.
    pub http_listen: SocketAddr,
    /// The name of this machine; absent: ask the system.
    pub hostname: Option<String>,
    /// What is remembered, and the sandboxes.
    pub data_dir: PathBuf,
    /// The directory of the certificate.
    pub identity: PathBuf,
    /// Resources that are not to be detected.
    pub resources: Resources,
    /// What the admin says of this machine.
    pub attributes: Attributes,
    /// The control group below which tasks run.
    pub cgroup_root: String,
    /// Whether tasks are held to their cpus.
    pub cpu_quota: bool,
    /// Processes and threads of one task.
    pub task_pids_max: u64,
    /// Which parts of isolation must be there, and which are not wanted.
    pub isolation: IsolationWishes,
    /// Devices of tasks.
    pub task_devices: Vec<PathBuf>,
    /// Whether operators may run commands in containers.
    pub exec: bool,
    /// Open files of one process of a task.
    pub task_open_files_max: u64,
    /// Bytes kept of each output of a task.
    pub log_bytes_max: u64,
    /// Folders of which tasks may have files.
    pub fetch_folders: Vec<PathBuf>,
    /// Bytes of one file that is fetched.
    pub fetch_file_bytes_max: u64,
    /// Bytes that are fetched and unpacked into one sandbox.
    pub fetch_task_bytes_max: u64,
    /// Bytes of fetched files that are kept for other tasks.
    pub fetch_cache_bytes_max: u64,
    /// After how long a transfer that stands still is given up.
    pub fetch_stall_timeout: Duration,
    /// Authorities that are trusted for `https:` beside the system's.
    pub fetch_ca: Option<PathBuf>,
    /// Bytes of one image.
    pub image_bytes_max: u64,
    /// Bytes of images that are kept.
    pub image_store_bytes_max: u64,
    /// Registries without TLS.
    pub image_insecure_registries: Vec<String>,
    /// Credentials for registries.
    pub image_credentials: Option<PathBuf>,
    /// Whether no task outlives the slave.
    pub tasks_end_with_slave: bool,
    /// From SIGTERM to SIGKILL for tasks that end with the slave when it is stopped.
    pub stop_grace: Duration,
    /// How long an executor has to subscribe for the first time.
    pub executor_registration_timeout: Duration,
    /// How long an executor has to subscribe again.
    pub executor_reregistration_timeout: Duration,
    /// Whether executors that speak v1 need a token.
    pub authenticate_executors: bool,
}

impl Config {
    /// Fills in the defaults and checks ranges.
    ///
    /// # Errors
    /// The first option that is missing, malformed or out of range.
    pub fn check(raw: RawConfig) -> Result<Self, ConfigError> {
        let missing = |option| ConfigError::Missing { option };
        let cgroup_root = raw
            .cgroup_root
            .unwrap_or_else(|| DEFAULT_CGROUP_NAME.to_owned());
        CgroupRoot::new(&cgroup_root, "check").map_err(ConfigError::CgroupRoot)?;
        let stop_grace = raw.stop_grace.unwrap_or(STOP_GRACE_DEFAULT);
        if stop_grace > STOP_GRACE_MAX {
            let text = |duration| humantime::format_duration(duration).to_string();
            return Err(out_of_range(
                "stop_grace",
                text(stop_grace),
                text(Duration::ZERO),
                text(STOP_GRACE_MAX),
            ));
        }
        let stall = raw.fetch_stall_timeout.unwrap_or(FETCH_STALL_DEFAULT);
        if !(FETCH_STALL_MIN..=FETCH_STALL_MAX).contains(&stall) {
            let text = |duration| humantime::format_duration(duration).to_string();
            return Err(out_of_range(
                "fetch_stall_timeout",
                text(stall),
                text(FETCH_STALL_MIN),
                text(FETCH_STALL_MAX),
            ));
        }
        let resources = raw.resources.unwrap_or_default();
        let attributes = raw.attributes.unwrap_or_default();
        Ok(Self {
            masters: check_masters(&raw.masters.ok_or(missing("masters"))?)?,
            http_listen: raw
                .http_listen
                .unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT_DEFAULT)),
            hostname: raw.hostname.map(check_hostname).transpose()?,
            data_dir: raw.data_dir.ok_or(missing("data_dir"))?,
            identity: raw.identity.ok_or(missing("identity"))?,
            resources: check_resources(&resources)?,
            attributes: check_attributes(&attributes)?,
            cgroup_root,
            cpu_quota: raw.cpu_quota.unwrap_or(false),
            task_pids_max: check_number(
                "task_pids_max",
                raw.task_pids_max.unwrap_or(TASK_PIDS_DEFAULT),
                1,
                TASK_PIDS_MAX,
            )?,
            isolation: raw.isolation.unwrap_or_default().parse()?,
            task_devices: check_devices(&raw.task_devices.unwrap_or_default())?,
            exec: raw.exec.unwrap_or(true),
            task_open_files_max: check_number(
                "task_open_files_max",
                raw.task_open_files_max.unwrap_or(TASK_OPEN_FILES_DEFAULT),
                TASK_OPEN_FILES_MIN,
                TASK_OPEN_FILES_MAX,
            )?,
            log_bytes_max: check_number(
                "log_bytes_max",
                raw.log_bytes_max.unwrap_or(LOG_BYTES_DEFAULT),
                LOG_BYTES_MIN,
                LOG_BYTES_MAX,
            )?,
            fetch_folders: check_folders(&raw.fetch_folders.unwrap_or_default())?,
            fetch_file_bytes_max: check_number(
                "fetch_file_bytes_max",
                raw.fetch_file_bytes_max.unwrap_or(FETCH_FILE_BYTES_DEFAULT),
                FETCH_BYTES_MIN,
                FETCH_BYTES_MAX,
            )?,
            fetch_task_bytes_max: check_number(
                "fetch_task_bytes_max",
                raw.fetch_task_bytes_max.unwrap_or(FETCH_TASK_BYTES_DEFAULT),
                FETCH_BYTES_MIN,
                FETCH_BYTES_MAX,
            )?,
            fetch_cache_bytes_max: check_number(
                "fetch_cache_bytes_max",
                raw.fetch_cache_bytes_max
                    .unwrap_or(FETCH_CACHE_BYTES_DEFAULT),
                0,
                FETCH_BYTES_MAX,
            )?,
            fetch_stall_timeout: stall,
            fetch_ca: raw.fetch_ca,
            image_bytes_max: check_number(
                "image_bytes_max",
                raw.image_bytes_max.unwrap_or(IMAGE_BYTES_DEFAULT),
                FETCH_BYTES_MIN,
                FETCH_BYTES_MAX,
            )?,
            image_store_bytes_max: check_number(
                "image_store_bytes_max",
                raw.image_store_bytes_max
                    .unwrap_or(IMAGE_STORE_BYTES_DEFAULT),
                0,
                FETCH_BYTES_MAX,
            )?,
            image_insecure_registries: check_registries(
                &raw.image_insecure_registries.unwrap_or_default(),
            )?,
            image_credentials: raw.image_credentials,
            tasks_end_with_slave: raw.tasks_end_with_slave.unwrap_or(false),
            stop_grace,
            executor_registration_timeout: check_executor_timeout(
                "executor_registration_timeout",
                raw.executor_registration_timeout,
                EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT,
            )?,
            executor_reregistration_timeout: check_executor_timeout(
                "executor_reregistration_timeout",
                raw.executor_reregistration_timeout,
                EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT,
            )?,
            authenticate_executors: raw.authenticate_executors.unwrap_or(false),
        })
    }
}

fn check_folders(text: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let pieces = text.split(',').map(str::trim);
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    let is_folder = |piece: &str| {
        let mut parts = Path::new(piece).components();
        let is_absolute = parts.next() == Some(Component::RootDir);
        is_absolute && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    let bad = pieces.iter().find(|piece| !is_folder(piece));
    match bad.or(pieces.get(FETCH_FOLDERS_MAX)) {
        Some(piece) => Err(ConfigError::FetchFolder {
            piece: piece.chars().take(64).collect(),
        }),
        None => Ok(pieces.into_iter().map(PathBuf::from).collect()),
    }
}

fn check_registries(text: &str) -> Result<Vec<String>, ConfigError> {
    let pieces = text.split(',').map(str::trim);
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let bad = pieces.iter().find(|piece| !piece.bytes().all(in_host));
    match bad.or(pieces.get(IMAGE_REGISTRIES_MAX)) {
        Some(piece) => Err(ConfigError::Registry {
            piece: piece.chars().take(64).collect(),
        }),
        None => Ok(pieces.into_iter().map(str::to_ascii_lowercase).collect()),
    }
}

fn check_executor_timeout(
    option: &'static str,
    got: Option<Duration>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let (min, max) = EXECUTOR_TIMEOUT_RANGE;
    let got = got.unwrap_or(default);
    if (min..=max).contains(&got) {
        return Ok(got);
    }
    let text = |duration| humantime::format_duration(duration).to_string();
    Err(out_of_range(option, text(got), text(min), text(max)))
}

fn check_devices(text: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let pieces = text.split(',').map(str::trim);
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    let is_device = |piece: &str| {
        let path = Path::new(piece);
        let is_plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        is_plain && path.starts_with("/dev") && path != Path::new("/dev")
    };
    let bad = pieces.iter().find(|piece| !is_device(piece));
    match bad.or(pieces.get(TASK_DEVICES_MAX)) {
        Some(piece) => Err(ConfigError::Device {
            piece: piece.chars().take(64).collect(),
        }),
        None => Ok(pieces.into_iter().map(PathBuf::from).collect()),
    }
}

fn check_resources(text: &str) -> Result<Resources, ConfigError> {
    let resources: Resources = text.parse().map_err(ConfigError::Resources)?;
    let claims = resources.claims();
    match claims.is_empty() {
        true => Ok(resources),
        false => Err(ConfigError::ClaimedResources {
            claims: claims.to_string(),
        }),
    }
}

fn check_masters(text: &str) -> Result<Vec<String>, ConfigError> {
    let pieces = text
        .split(',')
        .map(str::trim)
        .filter(|piece| !piece.is_empty());
    let masters: Vec<String> = pieces.map(check_master).collect::<Result<_, _>>()?;
    match masters.len() {
        0 => Err(ConfigError::Missing { option: "masters" }),
        got if got > MASTERS_MAX => Err(ConfigError::TooManyMasters { got }),
        _ => Ok(masters),
    }
}

fn check_master(piece: &str) -> Result<String, ConfigError> {
    let wrong = || ConfigError::Master {
        piece: piece.chars().take(64).collect(),
    };
    if let Ok(address) = piece.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    let (host, port) = match piece.split_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (piece, MASTER_PORT),
    };
    if !is_hostname(host) || host.contains(':') || port == 0 {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

/// Here and not where attributes are read from the wire or the registry: those that a cluster holds
/// already stay readable.
fn check_attributes(text: &str) -> Result<Attributes, ConfigError> {
    let attributes: Attributes = text.parse().map_err(ConfigError::Attributes)?;
    let bad = attributes
        .iter()
        .find(|(name, value)| name.contains(char::is_control) || value.contains(char::is_control));
    match bad {
        Some((name, _)) => Err(ConfigError::AttributeControl {
            name: name.to_owned(),
        }),
        None => Ok(attributes),
    }
}

fn check_hostname(got: String) -> Result<String, ConfigError> {
    if is_hostname(&got) {
        Ok(got)
    } else {
        Err(ConfigError::Hostname { got })
    }
}

fn is_hostname(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(fits)
}

fn check_number(option: &'static str, got: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
    if (min..=max).contains(&got) {
        return Ok(got);
    }
    Err(out_of_range(
        option,
        got.to_string(),
        min.to_string(),
        max.to_string(),
    ))
}

fn out_of_range(option: &'static str, got: String, min: String, max: String) -> ConfigError {
    ConfigError::OutOfRange {
        option,
        got,
        min,
        max,
    }
}

#[cfg(test)]
mod tests;
