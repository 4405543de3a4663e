//! Starting a slave: everything that can fail before there is one, and putting the parts together.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meros_daemon::clock::Clock;
use meros_proto::resources::{ConvertError, Resources};
use meros_proto::slave::{SlaveCapability, SlaveDescription};
use meros_proto::transport::{Client, ClientError, Identity, LoadError, TlsError, TunnelAcceptor};
use meros_slave_core::{Effects, Event, FoundContainer, SlaveCore};
use meros_v1::agent;
use nix::unistd::{User, geteuid};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use crate::Running;
use crate::checkpoint::writer::Writer;
use crate::checkpoint::{DataDirLock, LockError, OpenStoreError, Recovered, Store};
use crate::config::Config;
use crate::container::{
    CgroupRoot, CgroupRootError, Containerizer, DEFAULT_PATH, Found, FoundState, Inventory,
    Isolation, IsolationReport, OpenError, Part, PartState, Wanted,
};
use crate::detect::{self, DetectError};
use crate::endpoint::Endpoint;
use crate::exec::Execs;
use crate::executor::{Sessions, Tokens};
use crate::exit::ExitReason;
use crate::fetch::{FetchSettings, Fetcher, OpenFetcherError, trust};
use crate::files::Files;
use crate::http::{self, Api, Executors, Site};
use crate::image::{ImageSettings, Images};
use crate::metrics::{IsolationRow, Metrics};
use crate::output::{Outputs, file_bytes_max};
use crate::plan::{TaskSettings, parse_owner};
use crate::probe::Prober;
use crate::sandbox::{Ended, FREE_PERCENT_MIN, KEPT_AT_LEAST, Limits, Sandboxes, parse_container};
use crate::shell::containers::{
    ContainerCounters, Containers, Inherited, Supervision, exit_of, place_of,
};
use crate::shell::inbox::{Inbox, Input, inbox};
use crate::shell::net::{LeaderHint, Link, LinkCounters};
use crate::shell::{Shell, ShellEnd};
use crate::volumes::Volumes;

/// In the directory of a certificate.
const KEY_FILE: &str = "key.pem";
/// Between two looks for old sandboxes when no task ends.
const COLLECT_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks when tasks end one after the other.
const COLLECT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Why a slave did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be made.
    #[error("cannot use data directory {}: check who owns it", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key that executors' tokens are made with cannot be read or made.
    #[error("cannot use executors.key in {}", path.display())]
    ExecutorKey {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works in it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The certificate cannot be used.
    #[error("cannot use the identity; make one with `meros ca issue`")]
    Identity(#[source] LoadError),
    /// No connection can be made with it.
    #[error("cannot prepare connections to masters")]
    Client(#[source] ClientError),
    /// Operators could not come into containers with it.
    #[error("cannot prepare the way into containers")]
    Tunnel(#[source] TlsError),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] OpenStoreError),
    /// The slave declares less than what was reserved on it.
    #[error(
        "the slave declares {declared}, but {claims} is reserved on it or a volume: declare at least that, or start it as before and unreserve"
    )]
    Claims {
        /// What is declared now.
        declared: String,
        /// What was reserved or made a volume at run time.
        claims: String,
        /// What is missing.
        source: ConvertError,
    },
    /// The machine cannot be looked at.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The control group's name cannot be used.
    #[error("cgroup_root cannot be used")]
    CgroupRoot(#[source] CgroupRootError),
    /// The control groups cannot be taken.
    #[error("cannot prepare containers")]
    Containers(#[source] OpenError),
    /// The TCP port cannot be had.
    #[error(
        "cannot listen for HTTP on {address}: choose another --http-listen, or stop what listens there (`ss -ltnp` names it)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The host name cannot be found out.
    #[error("cannot find out the host name: give --hostname")]
    Hostname(#[source] io::Error),
    /// Files cannot be fetched for tasks.
    #[error("cannot prepare to fetch files")]
    Fetcher(#[source] OpenFetcherError),
    /// The images of an earlier run cannot be read.
    #[error("cannot use the images in {}: check who owns it, or remove it", path.display())]
    Images {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The endpoint file cannot be written.
    #[error("cannot write {}", path.display())]
    Endpoint {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start thread {name:?}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime is shutting down.
    #[error("interrupted while starting")]
    Interrupted,
}

/// What is there before the first event.
struct Ground {
    lock: DataDirLock,
    store: Store,
    checkpoint_path: PathBuf,
    recovered: Recovered,
    containerizer: Containerizer,
    inherited: Vec<Found>,
    sandboxes: Sandboxes,
    volumes: Volumes,
    fetcher: Arc<Fetcher>,
    /// Or why there are none.
    images: Result<Arc<Images>, String>,
}

/// Starts a slave in the current tokio runtime.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let identity = Identity::load(&config.identity).map_err(StartError::Identity)?;
    let client = Client::new(&identity).map_err(StartError::Client)?;
    let acceptor = match config.exec {
        true => Some(TunnelAcceptor::new(&identity).map_err(StartError::Tunnel)?),
        false => None,
    };
    let listener = TcpListener::bind(config.http_listen)
        .await
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
    let (listener, http_addr) = listener.map_err(|source| StartError::Listen {
        address: config.http_listen,
        source,
    })?;
    let prepared = spawn_blocking({
        let config = config.clone();
        move || prepare(&config)
    });
    let ground = prepared.await.map_err(|_| StartError::Interrupted)??;
    let report = ground.containerizer.report().clone();
    warn_of_missing(&report, ground.containerizer.parts());
    let claims = &ground.recovered.checkpoint.claims.resources;
    let description = describe(&config, &report, http_addr, claims)?;
    info!(
        resources = %description.resources,
        attributes = %description.attributes,
        http = %http_addr,
        "slave starts"
    );
    assemble(
        config,
        ground,
        description,
        client,
        acceptor,
        listener,
        http_addr,
    )
}

/// Everything on disk and in the kernel. Blocks.
fn prepare(config: &Config) -> Result<Ground, StartError> {
    let failed = |source| StartError::DataDir {
        path: config.data_dir.clone(),
        source,
    };
    // Tasks of other users pass through to their sandboxes.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&config.data_dir)
        .map_err(failed)?;
    let data_dir = std::fs::canonicalize(&config.data_dir).map_err(failed)?;
    let lock = DataDirLock::acquire(&data_dir)?;
    let root = CgroupRoot::new(&config.cgroup_root, &instance(&data_dir))
        .map_err(StartError::CgroupRoot)?;
    let isolation = Isolation::detect(&root);
    let folders = data_dir.join("containers");
    let (containerizer, inventory) =
        Containerizer::open(isolation, folders, &wanted(config, &data_dir))
            .map_err(StartError::Containers)?;
    let Inventory {
        containers: inherited,
        stray_groups,
        killed,
        survivors,
    } = inventory;
    if stray_groups + killed + survivors > 0 {
        warn!(
            stray_groups,
            killed, survivors, "cleaned up what a crashed run had left"
        );
    }
    let checkpoint_path = data_dir.join("checkpoint");
    let (store, recovered) = Store::open(&checkpoint_path)?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&checkpoint_path, private).map_err(failed)?;
    if recovered.damaged > 0 {
        warn!(
            values = recovered.damaged,
            "parts of the checkpoint were damaged; their tasks are lost"
        );
    }
    let sandboxes = Sandboxes::below(data_dir.join("sandboxes"));
    let fetcher = Fetcher::open(fetch_settings(config), data_dir.join("fetch"))
        .map_err(StartError::Fetcher)?;
    let images = open_images(config, &containerizer, data_dir.join("images"))?;
    Ok(Ground {
        lock,
        store,
        checkpoint_path,
        recovered,
        containerizer,
        inherited,
        sandboxes,
        volumes: Volumes::below(data_dir.join("volumes")),
        fetcher: Arc::new(fetcher),
        images,
    })
}

/// None, with the reason, if tasks have the slave's own tree only.
fn open_images(
    config: &Config,
    containerizer: &Containerizer,
    root: PathBuf,
) -> Result<Result<Arc<Images>, String>, StartError> {
    match containerizer.parts().get(&Part::Image) {
        Some(PartState::On) => {}
        Some(PartState::Missing(reason) | PartState::Off(Some(reason))) => {
            return Ok(Err(reason.clone()));
        }
        Some(PartState::Off(None)) | None => {
            let reason = "its --isolation says image=off";
            return Ok(Err(reason.to_owned()));
        }
    }
    let tls = trust(config.fetch_ca.as_deref()).map_err(StartError::Fetcher)?;
    let settings = ImageSettings {
        folders: config.fetch_folders.clone(),
        image_bytes_max: config.image_bytes_max,
        store_bytes_max: config.image_store_bytes_max,
        insecure: config.image_insecure_registries.clone(),
        credentials: config.image_credentials.clone(),
        stall: config.fetch_stall_timeout,
    };
    let images = Images::open(root.clone(), settings, Arc::new(tls));
    let images = images.map_err(|source| StartError::Images { path: root, source })?;
    Ok(Ok(Arc::new(images)))
}

fn fetch_settings(config: &Config) -> FetchSettings {
    FetchSettings {
        folders: config.fetch_folders.clone(),
        file_bytes_max: config.fetch_file_bytes_max,
        task_bytes_max: config.fetch_task_bytes_max,
        cache_bytes_max: config.fetch_cache_bytes_max,
        stall: config.fetch_stall_timeout,
        ca: config.fetch_ca.clone(),
    }
}

/// What tasks are to be confined by. The key of the slave's certificate is hidden wherever it is.
fn wanted(config: &Config, data_dir: &Path) -> Wanted {
    let identity = std::fs::canonicalize(&config.identity);
    let key = identity
        .unwrap_or_else(|_| config.identity.clone())
        .join(KEY_FILE);
    Wanted {
        wishes: config.isolation.clone(),
        hidden: vec![data_dir.to_owned()],
        masked: vec![key],
        devices: config.task_devices.clone(),
        open_files_max: Some(config.task_open_files_max),
    }
}

/// One name for each data directory of this machine, the same at each start: FNV-1a of its path.
fn instance(data_dir: &Path) -> String {
    let bytes = data_dir.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("slave-{hash:016x}")
}

fn warn_of_missing(report: &IsolationReport, parts: &BTreeMap<Part, PartState>) {
    for (facility, reason) in &report.missing {
        warn!(%facility, reason, "isolation is missing: tasks run without it");
    }
    for (part, state) in parts {
        match state {
            PartState::Missing(reason) => {
                warn!(%part, reason, "isolation is missing: tasks run without it");
            }
            PartState::Off(Some(reason)) => info!(%part, reason, "isolation is off"),
            PartState::On | PartState::Off(None) => {}
        }
    }
    let on = parts.iter().filter(|(_, state)| **state == PartState::On);
    let on: Vec<&str> = on.map(|(part, _)| part.name()).collect();
    info!(cgroups = %report.attribute(), parts = on.join("+"), "isolation of tasks");
}

/// For people and tools, by name.
fn isolation_rows(containerizer: &Containerizer, disk: bool) -> Vec<IsolationRow> {
    let row = |part: &str, state: PartState| IsolationRow {
        part: part.to_owned(),
        state: state.to_string(),
        reason: match state {
            PartState::On => None,
            PartState::Off(reason) => reason,
            PartState::Missing(reason) => Some(reason),
        },
    };
    let report = containerizer.report();
    let groups = report.available.iter().map(|it| (it, PartState::On));
    let missing = report.missing.iter();
    let missing = missing.map(|(it, reason)| (it, PartState::Missing(reason.clone())));
    let mut rows: Vec<IsolationRow> = groups
        .chain(missing)
        .map(|(facility, state)| row(&facility.to_string(), state))
        .collect();
    let parts = containerizer.parts().iter();
    rows.extend(parts.map(|(part, state)| row(part.name(), state.clone())));
    let disk = if disk {
        PartState::On
    } else {
        PartState::Off(None)
    };
    rows.push(row("disk", disk));
    rows.sort_by(|one, other| one.part.cmp(&other.part));
    rows
}

fn describe(
    config: &Config,
    report: &IsolationReport,
    http_addr: SocketAddr,
    claims: &Resources,
) -> Result<SlaveDescription, StartError> {
    let hostname = match &config.hostname {
        Some(hostname) => hostname.clone(),
        None => nix::unistd::gethostname()
            .map_err(|errno| StartError::Hostname(errno.into()))?
            .to_string_lossy()
            .into_owned(),
    };
    let http_address = if http_addr.ip().is_unspecified() {
        format!("{hostname}:{}", http_addr.port())
    } else {
        http_addr.to_string()
    };
    Ok(SlaveDescription {
        hostname,
        http_address,
        resources: detect::resources(&config.resources, claims, &config.data_dir)?,
        attributes: detect::attributes(&config.attributes, report),
        capabilities: vec![SlaveCapability::CustomExecutors],
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn assemble(
    config: Config,
    ground: Ground,
    description: SlaveDescription,
    client: Client,
    acceptor: Option<TunnelAcceptor>,
    listener: TcpListener,
    http_addr: SocketAddr,
) -> Result<Running, StartError> {
    let Ground {
        lock,
        store,
        checkpoint_path,
        recovered,
        containerizer,
        inherited,
        sandboxes,
        volumes,
        fetcher,
        images,
    } = ground;
    let clock = Clock::start();
    let fits = recovered.checkpoint.total(&description.resources);
    fits.map_err(|source| StartError::Claims {
        declared: description.resources.to_string(),
        claims: recovered.checkpoint.claims.resources.to_string(),
        source,
    })?;
    let mut effects = Effects::new();
    let site = Site {
        hostname: description.hostname.clone(),
        http_address: description.http_address.clone(),
        attributes: description.attributes.clone(),
        settings: config.settings(),
    };
    let http_address = description.http_address.clone();
    let agent = agent::info(
        &description.hostname,
        &http_address,
        &description.resources,
        &description.attributes,
    );
    let tokens = Tokens::open(&config.data_dir).map_err(|source| StartError::ExecutorKey {
        path: config.data_dir.clone(),
        source,
    })?;
    let tokens = Arc::new(tokens);
    let mut core_config = meros_slave_core::Config::new(description);
    core_config.tasks_end_with_slave = config.tasks_end_with_slave;
    core_config.executor_registration_timeout = config.executor_registration_timeout;
    core_config.executor_reregistration_timeout = config.executor_reregistration_timeout;
    let (found, running) = sort_out(inherited, &containerizer, &sandboxes);
    let core = SlaveCore::new(
        core_config,
        recovered.checkpoint,
        found,
        clock.now(),
        &mut effects,
    );
    let writer = Writer::start(store, checkpoint_path).map_err(|source| StartError::Thread {
        name: "checkpoint",
        source,
    })?;
    let (inbox, outlet) = inbox();
    let outputs = Arc::new(Outputs::new(sandboxes.clone(), config.log_bytes_max));
    let isolation = isolation_rows(&containerizer, config.isolation.disk());
    let counters = Arc::<ContainerCounters>::default();
    let ended = Arc::<Notify>::default();
    let sessions = Sessions::new(inbox.clone());
    let supervision = Supervision {
        containerizer,
        settings: task_settings(&config),
        sandboxes: sandboxes.clone(),
        volumes,
        prober: Prober::new(),
        fetcher: Arc::clone(&fetcher),
        images: images.clone(),
        outputs: Arc::clone(&outputs),
        counters: Arc::clone(&counters),
        inbox: inbox.clone(),
        sessions: sessions.clone(),
        agent: http_address,
        tokens: Arc::clone(&tokens),
        ended: Arc::clone(&ended),
    };
    let (mut containers, containers_gone) = Containers::new(supervision, Handle::current());
    // Before the first effect, which may be about one of them.
    running.into_iter().for_each(|it| containers.inherit(it));
    if let Ok(images) = &images {
        // Now that it is known what is in use.
        let images = Arc::clone(images);
        drop(spawn_blocking(move || images.collect()));
    }
    let hint = LeaderHint::default();
    let link_counters = Arc::<LinkCounters>::default();
    let progress = Arc::clone(&writer.progress);
    let metrics = Arc::new(Metrics::new(
        counters,
        Arc::clone(&link_counters),
        progress,
        inbox.clone(),
        isolation,
        fetcher,
        images,
    ));
    let (stop, stopped) = watch::channel(false);
    let endpoint = Endpoint::write(&config.data_dir, http_addr)?;

    let shell = Shell::new(
        core,
        effects,
        clock,
        outlet,
        writer,
        containers,
        hint.clone(),
    );
    let core_ended = run_core(shell)?;
    let link = Link {
        client: client.clone(),
        masters: config.masters.clone(),
        hint,
        inbox: inbox.clone(),
        counters: link_counters,
        stop: stopped.clone(),
    };
    tokio::spawn(link.run());
    let execs = acceptor.map(|acceptor| {
        let counters = Arc::clone(&metrics.execs);
        Arc::new(Execs::new(acceptor, inbox.clone(), counters))
    });
    let api = Api::new(
        inbox.clone(),
        Arc::clone(&outputs),
        Files::new(sandboxes.clone()),
        Arc::clone(&metrics),
        Executors::new(sessions, tokens, config.authenticate_executors, agent),
        site,
        stopped.clone(),
    );
    let api = Arc::new(api.with_execs(execs));
    let http = tokio::spawn(http::serve(listener, api, stopped.clone()));
    tokio::spawn(collect_sandboxes(
        sandboxes, outputs, ended, metrics, stopped,
    ));
    let ended = watch_over(Parts {
        core_ended,
        inbox: inbox.clone(),
        http,
        containers_gone,
        stop,
        client,
        _endpoint: endpoint,
        _lock: lock,
    });
    Ok(Running::new(http_addr, inbox, config.stop_grace, ended))
}

/// What the core is told of the containers that were found, and those that run.
fn sort_out(
    inherited: Vec<Found>,
    containerizer: &Containerizer,
    sandboxes: &Sandboxes,
) -> (Vec<FoundContainer>, Vec<Inherited>) {
    let (mut all, mut running) = (Vec::new(), Vec::new());
    for found in inherited {
        let Found {
            id,
            owner,
            age,
            log_bytes_max,
            layers,
            state,
        } = found;
        let known = parse_owner(&owner);
        let place = known.as_ref().and_then(place_of);
        let (Some(container), Some(owner), Some(place)) = (parse_container(&id), known, place)
        else {
            warn!(container_id = id, owner, "a container of nobody is killed");
            if let FoundState::Running(found) = state {
                // Killed when dropped.
                drop(containerizer.adopt(*found));
            }
            containerizer.forget(&id);
            continue;
        };
        let state = match state {
            FoundState::Running(found) => {
                let pid = u32::try_from(found.pid()).unwrap_or(0);
                running.push(Inherited {
                    container,
                    owner: owner.clone(),
                    log_bytes_max,
                    layers,
                    found: *found,
                });
                meros_slave_core::FoundState::Running { pid }
            }
            FoundState::Ended(report) => {
                let ended = Ended {
                    stdout_rotations: report.usage.stdout.rotations(),
                    stderr_rotations: report.usage.stderr.rotations(),
                    file_bytes_max: file_bytes_max(log_bytes_max),
                };
                if let Err(error) = sandboxes.finish(&place, container, &ended) {
                    warn!(%container, %error, "the end of a sandbox is not recorded");
                }
                exit_of(&report).map_or(meros_slave_core::FoundState::Lost, |exit| {
                    meros_slave_core::FoundState::Ended(exit)
                })
            }
            FoundState::EndedWithSlave => meros_slave_core::FoundState::EndedWithSlave,
            FoundState::NeverRan => meros_slave_core::FoundState::NeverRan,
            FoundState::Rebooted => meros_slave_core::FoundState::Rebooted,
        };
        all.push(FoundContainer {
            container,
            owner,
            age,
            state,
        });
    }
    (all, running)
}

fn task_settings(config: &Config) -> TaskSettings {
    TaskSettings {
        path: std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned()),
        own_user: User::from_uid(geteuid())
            .ok()
            .flatten()
            .map(|user| user.name),
        cpu_quota: config.cpu_quota,
        pids_max: config.task_pids_max,
        disk_quota: config.isolation.disk(),
        log_bytes_max: config.log_bytes_max,
        executor_reregistration_timeout: config.executor_reregistration_timeout,
    }
}

fn run_core(shell: Shell) -> Result<oneshot::Receiver<ShellEnd>, StartError> {
    let (ended, end) = oneshot::channel();
    // Dropped without a word when the thread panics.
    let body = move || drop(ended.send(shell.run()));
    std::thread::Builder::new()
        .name("core".into())
        .spawn(body)
        .map_err(|source| StartError::Thread {
            name: "core",
            source,
        })?;
    Ok(end)
}

/// Removes old sandboxes now and then, soon after tasks have ended.
async fn collect_sandboxes(
    sandboxes: Sandboxes,
    outputs: Arc<Outputs>,
    ended: Arc<Notify>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut was_short = false;
    loop {
        let (sandboxes, outputs) = (sandboxes.clone(), Arc::clone(&outputs));
        let collect =
            move || sandboxes.collect(|| outputs.live_dirs(), Limits::default(), SystemTime::now());
        let Ok(collected) = spawn_blocking(collect).await else {
            return;
        };
        metrics.collected(collected);
        if collected.is_disk_short && !was_short {
            tracing::warn!(
                free_percent_min = FREE_PERCENT_MIN,
                kept = ?KEPT_AT_LEAST,
                "the disk of the data directory is almost full: what ended tasks wrote is kept for \
                 a minute only until there is room again",
            );
        }
        was_short = collected.is_disk_short;
        let pause = async {
            tokio::time::sleep(COLLECT_INTERVAL_MIN).await;
            let _ = tokio::time::timeout(COLLECT_INTERVAL, ended.notified()).await;
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = pause => {}
        }
    }
}

/// What lives until the slave has ended.
struct Parts {
    core_ended: oneshot::Receiver<ShellEnd>,
    inbox: Inbox,
    http: JoinHandle<()>,
    containers_gone: mpsc::Receiver<()>,
    stop: watch::Sender<bool>,
    client: Client,
    // Removed, then unlocked, in this order.
    _endpoint: Endpoint,
    _lock: DataDirLock,
}

/// How long the end may take beside the kills of containers: masters are told, requests finished.
const CLOSE_GRACE: Duration = Duration::from_secs(3);
/// Containers that do not die of SIGKILL (a hung disk) are not waited for longer.
const CONTAINERS_GRACE: Duration = Duration::from_secs(70);

/// Waits for the end of the core, then ends everything else, and says why.
fn watch_over(mut parts: Parts) -> watch::Receiver<Option<ExitReason>> {
    let (tell, ended) = watch::channel(None);
    tokio::spawn(async move {
        let first = tokio::select! {
            end = &mut parts.core_ended => Ok(end),
            end = &mut parts.http => Err(listener_failure(end)),
        };
        let (end, listener_failed) = match first {
            Ok(end) => (end, None),
            Err(reason) => {
                // If the core is gone, too, the next line knows.
                let stop = Event::Stop {
                    grace: Duration::ZERO,
                };
                let _ = parts.inbox.send(Input::Event(stop)).await;
                ((&mut parts.core_ended).await, Some(reason))
            }
        };
        let (reason, link) = match end {
            Ok(ShellEnd { reason, link }) => (reason, link),
            Err(_) => (ExitReason::Panicked { thread: "core" }, None),
        };
        let reason = listener_failed.unwrap_or(reason);
        if let Some(link) = link {
            // The last updates are on their way; the time for them is over by itself.
            let _ = tokio::time::timeout(CLOSE_GRACE, link.closed()).await;
        }
        parts.stop.send_replace(true);
        if tokio::time::timeout(CONTAINERS_GRACE, parts.containers_gone.recv())
            .await
            .is_err()
        {
            warn!("containers do not end; the next start tries again");
        }
        parts.client.close(CLOSE_GRACE).await;
        if !parts.http.is_finished()
            && tokio::time::timeout(CLOSE_GRACE, &mut parts.http)
                .await
                .is_err()
        {
            parts.http.abort();
        }
        info!(%reason, "slave has ended");
        drop(parts);
        tell.send_replace(Some(reason));
    });
    ended
}

fn listener_failure(end: Result<(), tokio::task::JoinError>) -> ExitReason {
    let cause = match end {
        Ok(()) => "it stopped".to_owned(),
        Err(error) => error.to_string(),
    };
    ExitReason::ListenerFailed { cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_data_directory_has_its_own_group_and_always_the_same() {
        let one = instance(Path::new("/var/lib/meros/a"));
        assert_eq!(one, instance(Path::new("/var/lib/meros/a")));
        assert_ne!(one, instance(Path::new("/var/lib/meros/b")));
        assert!(CgroupRoot::new("meros", &one).is_ok());
    }
}
