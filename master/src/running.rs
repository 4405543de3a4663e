//! A running master: started, told to stop, waited for.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use meros_daemon::clock::Clock;
use meros_master_core::allocator::{self, Policy};
use meros_proto::ids::ClusterId;
use meros_proto::transport::{Client, ClientError, Identity, LoadError, PeerRole};
use tokio::sync::{Mutex, watch};
use tokio::task;
use tracing::{info, warn};

use crate::bind::{self, BindError, Bound};
use crate::config::{Config, Sorter};
use crate::endpoint::Endpoint;
use crate::events::Follower;
use crate::exit::{Exit, ExitReason};
use crate::http::{self, Api};
use crate::metrics::Metrics;
use crate::projection::Projection;
use crate::registry::{
    self, JoinError, Knows, MasterId, Member, OpenStoreError, Pace, Replica, ReplicaParts, Start,
};
use crate::shell::inbox::{self, Inbox, Input};
use crate::shell::{Shell, net};

/// How long HTTP requests at work may take once the master stops.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// How long the core may go on to wait for the registry once the master stops.
const CORE_GRACE: Duration = Duration::from_secs(2);

/// Why a master did not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate or key cannot be read.
    #[error("cannot load the identity in {}: make one with `meros ca issue`", path.display())]
    Identity {
        /// The directory.
        path: PathBuf,
        /// Which file, and what is wrong with it.
        source: LoadError,
    },
    /// The certificate is for something else.
    #[error("the certificate in {} is for a {role}, not for a master: make one with `meros ca issue`", path.display())]
    NotAMaster {
        /// The directory.
        path: PathBuf,
        /// What it is for.
        role: PeerRole,
    },
    /// The registry cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Other masters cannot be dialled.
    #[error("cannot set up QUIC to other masters")]
    Client(#[from] ClientError),
    /// The cluster does not take it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The system gives no thread or no random numbers, or a file cannot be written.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

fn system(action: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |source| StartError::System { action, source }
}

/// Starts a master on the current tokio runtime. When this returns it is a member of its cluster,
/// leads if it is the only one, listens, and has written `endpoint.json` into its data directory.
///
/// # Errors
/// [`StartError`].
///
/// # Panics
/// Outside a tokio runtime with its timer and network enabled.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let identity = load_identity(&config.identity)?;
    let client = Client::new(&identity)?;
    let name = identity.peer().name().to_owned();
    let opened = open_registry(&config, &identity).await?;
    let bound = bind::bind(&config, &identity).await?;
    let member = Member {
        name,
        address: advertised(&config, bound.quic),
    };
    let mut running = Running::assemble(&config, opened, bound, member, client.clone()).await?;
    if let Err(error) = running.replica.join(&client, &config.join).await {
        running.shutdown().await;
        return Err(error.into());
    }
    let cluster_id = running.replica.cluster_id().await;
    running.cluster_id = cluster_id;
    if running.replica.status().is_alone() {
        // It is led by nobody else, and whoever connects now need not come back for that.
        running.replica.leads().await;
    }
    running
        .endpoint()
        .write(&config.data_dir)
        .map_err(system("write endpoint.json"))?;
    info!(%cluster_id, quic = %running.quic_addr, http = %running.http_addr, "master listens");
    Ok(running)
}

/// Where others reach a master that listens here.
fn advertised(config: &Config, quic: SocketAddr) -> String {
    if let Some(address) = &config.advertise {
        return address.clone();
    }
    if !quic.ip().is_unspecified() {
        return quic.to_string();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| "localhost".to_owned(), |host| host.trim().to_owned());
    format!("{host}:{}", quic.port())
}

/// The address of the HTTP port as an address, for messages that have no room for a name: the one that
/// is advertised, or listened at, or loopback.
fn seen_from_outside(listens: SocketAddr, advertised: &str) -> SocketAddr {
    match advertised.parse::<SocketAddr>() {
        Ok(address) => SocketAddr::new(address.ip(), listens.port()),
        Err(_) if listens.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], listens.port()))
        }
        Err(_) => listens,
    }
}

pub(crate) fn load_identity(path: &Path) -> Result<Identity, StartError> {
    let identity = Identity::load(path).map_err(|source| StartError::Identity {
        path: path.to_owned(),
        source,
    })?;
    match identity.peer().role() {
        PeerRole::Master => Ok(identity),
        role => Err(StartError::NotAMaster {
            path: path.to_owned(),
            role,
        }),
    }
}

async fn open_registry(
    config: &Config,
    identity: &Identity,
) -> Result<registry::Opened, StartError> {
    let random = || draw().map_err(system("draw a random number"));
    let new_id = MasterId(u64::from_be_bytes(
        random()?[..8].try_into().expect("8 of 16 bytes"),
    ));
    let start = match config.join.is_empty() {
        true => Start::Form {
            cluster_id: ClusterId(u128::from_be_bytes(random()?)),
            member: Member {
                name: identity.peer().name().to_owned(),
                // Its port may not be known yet; others are told when there are some.
                address: advertised(config, config.listen),
            },
        },
        false => Start::Join,
    };
    let data_dir = config.data_dir.clone();
    let roots: Vec<Vec<u8>> = identity.roots().iter().map(|root| root.to_vec()).collect();
    let opened = task::spawn_blocking(move || {
        let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
        registry::open(&data_dir, &roots, new_id, start)
    });
    Ok(opened.await.expect("opening a registry does not panic")?)
}

pub(crate) fn draw() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A master at work. Dropping it stops it without waiting.
pub struct Running {
    /// Where slaves and frameworks connect (UDP).
    pub quic_addr: SocketAddr,
    /// Where HTTP is served (TCP), on the same port number.
    pub http_addr: SocketAddr,
    /// The cluster.
    pub cluster_id: ClusterId,
    replica: Arc<Replica>,
    exit: Exit,
    inbox: Inbox,
    stop: watch::Sender<bool>,
    data_dir: PathBuf,
    parts: Mutex<Parts>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("quic_addr", &self.quic_addr)
            .field("http_addr", &self.http_addr)
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

/// What has to end, in this order.
#[derive(Debug)]
struct Parts {
    threads: Vec<JoinHandle<()>>,
    net: Option<task::JoinHandle<()>>,
    follower: Option<task::JoinHandle<()>>,
    http: Option<task::JoinHandle<()>>,
}

impl Running {
    async fn assemble(
        config: &Config,
        opened: registry::Opened,
        bound: Bound,
        member: Member,
        client: Client,
    ) -> Result<Self, StartError> {
        let thread = system("start a thread");
        let exit = Exit::new();
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::start();
        let (inbox, outlet) = inbox::inbox();
        let (projection, publisher, read_model) = Projection::start(&exit).map_err(&thread)?;
        let (reports, follows, members) = (inbox.clone(), inbox.clone(), inbox.clone());
        let to_leader = client.clone();
        let advertised_address = member.address.clone();
        let parts = ReplicaParts {
            member,
            client,
            knows: Knows::this(Pace::new(config.lease)),
            metrics: Arc::clone(&metrics),
            exit: exit.clone(),
            // A core that has ended needs no reports.
            report: Box::new(move |report| {
                let _ = reports.report(Input::Registry(report));
            }),
            on_members: Box::new(move |addresses| {
                let _ = members.report(Input::Members(addresses));
            }),
            on_end: Box::new(move || {
                let _ = follows.report(Input::Follow);
            }),
        };
        let (replica, proposals) = Replica::start(opened, parts).await?;
        let replica = Arc::new(replica);
        let gate = bound.server.gate();
        // It opens when this master leads.
        gate.close();
        let shell = Shell {
            config: core_config(config),
            gate,
            replica: Arc::clone(&replica),
            outlet,
            proposals,
            publisher,
            clock,
            metrics: Arc::clone(&metrics),
        };
        let core = shell.start(&exit).map_err(&thread)?;

        let (stop, stopping) = watch::channel(false);
        let net = tokio::spawn(net::serve(
            bound.server,
            inbox.clone(),
            Arc::clone(&replica),
            projection.clone(),
            Arc::clone(&metrics),
            stopping.clone(),
        ));
        let follower = Follower {
            client: to_leader,
            status: replica.status(),
            projection: projection.clone(),
            metrics: Arc::clone(&metrics),
        };
        let follower = tokio::spawn(guarded(exit.clone(), follower.run(stopping.clone())));
        let api = Arc::new(Api {
            settings: config.settings(),
            heartbeat: config.heartbeat_interval,
            members: Some(replica.service()),
            address: seen_from_outside(bound.http, &advertised_address),
            ..Api::new(projection, inbox.clone(), metrics, replica.status())
        });
        let http = tokio::spawn(serve_http(bound.listener, api, stopping, exit.clone()));
        Ok(Self {
            quic_addr: bound.quic,
            http_addr: bound.http,
            // Told once it is known.
            cluster_id: ClusterId(0),
            replica,
            exit,
            inbox,
            stop,
            data_dir: config.data_dir.clone(),
            parts: Mutex::new(Parts {
                // The core first: the others end when it has.
                threads: vec![core, read_model],
                net: Some(net),
                follower: Some(follower),
                http: Some(http),
            }),
        })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            pid: std::process::id(),
            quic: self.quic_addr,
            http: self.http_addr,
            cluster_id: self.cluster_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Waits until the master has ended, by [`Running::shutdown`] or by itself, and everything of it
    /// is gone. May be cancelled and called again.
    pub async fn wait(&self) -> ExitReason {
        let reason = self.exit.asked().await;
        if reason == ExitReason::Stopped {
            self.replica.hand_over().await;
        }
        self.end_parts().await;
        if reason == ExitReason::Stopped
            && let Err(error) = std::fs::remove_file(Endpoint::path(&self.data_dir))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, "endpoint.json could not be removed");
        }
        reason
    }

    /// Stops: another master is to lead, peers are told and disconnected, what was proposed becomes durable, threads end. Takes
    /// some seconds at most. Tells the reason of the end, which may be an earlier one.
    pub async fn shutdown(&self) -> ExitReason {
        self.exit.end(ExitReason::Stopped);
        self.wait().await
    }

    async fn end_parts(&self) {
        let mut parts = self.parts.lock().await;
        self.order_stop();
        let threads = std::mem::take(&mut parts.threads);
        let joined = task::spawn_blocking(move || {
            for thread in threads {
                // A panic has given the reason of the end already.
                let _ = thread.join();
            }
        });
        // The core may wait for a registry that cannot commit: without its reign it need not.
        let leadership = self.replica.leadership();
        let impatience = tokio::spawn(async move {
            tokio::time::sleep(CORE_GRACE).await;
            leadership.abdicate();
        });
        // Threads end by what they own, so that a cancelled wait loses only the knowledge of it.
        let _ = joined.await;
        impatience.abort();
        self.replica.shutdown().await;
        if let Some(net) = &mut parts.net {
            let _ = net.await;
        }
        parts.net = None;
        if let Some(follower) = &mut parts.follower {
            let _ = follower.await;
        }
        parts.follower = None;
        if let Some(http) = &mut parts.http
            && tokio::time::timeout(HTTP_GRACE, &mut *http).await.is_err()
        {
            http.abort();
        }
        parts.http = None;
    }

    fn order_stop(&self) {
        // Fails only when the core has ended already.
        let _ = self.inbox.report(Input::Stop);
        self.stop.send_replace(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.exit.end(ExitReason::Stopped);
        self.order_stop();
    }
}

fn core_config(config: &Config) -> meros_master_core::Config {
    meros_master_core::Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        offer_timeout: config.offer_timeout,
        ping_interval: config.ping_interval,
        ping_misses_max: config.ping_misses_max,
        slave_reregister_timeout: config.slave_reregister_timeout,
        allocation_delay: config.allocation_delay,
        hoarding_after: config.hoarding_after,
        hoarding_offers: config.hoarding_offers,
        // Any seeds will do: each round has an order of its own, each turn a chance.
        policy: Policy {
            sorter: match config.sorter {
                Sorter::Drf => allocator::Sorter::DominantShare,
                Sorter::Random => allocator::Sorter::WeightedRandom { seed: 0 },
            },
            excluded_names: config.fair_share_excluded.clone(),
            minimum: config.min_allocatable.clone(),
            shuffle: Some(0),
        },
    }
}

/// Work that the master cannot do without: it ends the process if it panics.
async fn guarded(exit: Exit, work: impl Future<Output = ()>) {
    let _guard = exit.listener_guard("follower");
    work.await;
}

async fn serve_http(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    stopping: watch::Receiver<bool>,
    exit: Exit,
) {
    let _guard = exit.listener_guard("http");
    http::serve(listener, api, stopping).await;
}
