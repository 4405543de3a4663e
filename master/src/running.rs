//! A running master: started, told to stop, waited for.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use meros_daemon::clock::Clock;
use meros_master_core::MasterCore;
use meros_master_core::Registry;
use meros_master_core::allocator::{self, Policy};
use meros_master_core::event::Event;
use meros_proto::ids::ClusterId;
use meros_proto::transport::{Identity, LoadError, PeerRole};
use tokio::sync::{Mutex, watch};
use tokio::task;
use tracing::{info, warn};

use crate::bind::{self, BindError, Bound};
use crate::config::{Config, Sorter};
use crate::endpoint::Endpoint;
use crate::exit::{Exit, ExitReason};
use crate::http::{self, Api};
use crate::metrics::Metrics;
use crate::projection::Projection;
use crate::shell::inbox::{self, Inbox, Input};
use crate::shell::{Shell, net};
use crate::store::{OpenStoreError, Store, commit};

/// How long HTTP requests at work may take once the master stops.
const HTTP_GRACE: Duration = Duration::from_secs(2);

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

/// Starts a master on the current tokio runtime. When this returns it listens, and has written
/// `endpoint.json` into its data directory.
///
/// # Errors
/// [`StartError`].
///
/// # Panics
/// Outside a tokio runtime with its timer and network enabled.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let identity = load_identity(&config)?;
    let (store, registry) = open_store(&config, &identity).await?;
    let bound = bind::bind(&config, &identity).await?;
    let cluster_id = registry
        .cluster_id()
        .expect("the store forms a cluster in an empty registry");
    let running = Running::assemble(&config, store, registry, bound, cluster_id)?;
    running
        .endpoint()
        .write(&config.data_dir)
        .map_err(system("write endpoint.json"))?;
    info!(%cluster_id, quic = %running.quic_addr, http = %running.http_addr, "master listens");
    Ok(running)
}

fn load_identity(config: &Config) -> Result<Identity, StartError> {
    let path = &config.identity;
    let identity = Identity::load(path).map_err(|source| StartError::Identity {
        path: path.clone(),
        source,
    })?;
    match identity.peer().role() {
        PeerRole::Master => Ok(identity),
        role => Err(StartError::NotAMaster {
            path: path.clone(),
            role,
        }),
    }
}

async fn open_store(config: &Config, identity: &Identity) -> Result<(Store, Registry), StartError> {
    let new_cluster = draw_cluster_id().map_err(system("draw a random number"))?;
    let data_dir = config.data_dir.clone();
    let roots: Vec<Vec<u8>> = identity.roots().iter().map(|root| root.to_vec()).collect();
    let opened = task::spawn_blocking(move || {
        let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
        Store::open(&data_dir, &roots, new_cluster)
    });
    let (store, registry) = opened.await.expect("opening a store does not panic")?;
    info!(
        term = store.term().0,
        entries = store.last_index(),
        slaves = registry.slaves().count(),
        frameworks = registry.frameworks().count(),
        "registry opened"
    );
    Ok((store, registry))
}

fn draw_cluster_id() -> std::io::Result<ClusterId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(ClusterId(u128::from_be_bytes(bytes)))
}

/// A master at work. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Running {
    /// Where slaves and frameworks connect (UDP).
    pub quic_addr: SocketAddr,
    /// Where HTTP is served (TCP), on the same port number.
    pub http_addr: SocketAddr,
    /// The cluster.
    pub cluster_id: ClusterId,
    exit: Exit,
    inbox: Inbox,
    stop: watch::Sender<bool>,
    data_dir: PathBuf,
    parts: Mutex<Parts>,
}

/// What has to end, in this order.
#[derive(Debug)]
struct Parts {
    threads: Vec<JoinHandle<()>>,
    net: Option<task::JoinHandle<()>>,
    http: Option<task::JoinHandle<()>>,
}

impl Running {
    fn assemble(
        config: &Config,
        store: Store,
        registry: Registry,
        bound: Bound,
        cluster_id: ClusterId,
    ) -> Result<Self, StartError> {
        let thread = system("start a thread");
        let exit = Exit::new();
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::start();
        // Besides what is on its way from the store, room for the order to stop.
        let (inbox, outlet) = inbox::inbox(commit::IN_FLIGHT_MAX + 1);
        let (projection, publisher, read_model) = Projection::start(&exit).map_err(&thread)?;

        let epoch = store.term();
        let reports = inbox.clone();
        let (proposals, committer) = commit::start(
            store,
            Arc::clone(&metrics),
            &exit,
            move |proposal, command| {
                let event = Event::Committed {
                    proposal: Some(proposal),
                    command,
                };
                // A core that has ended needs no reports.
                let _ = reports.report(Input::Event(Box::new(event)));
            },
        )
        .map_err(&thread)?;
        let core = MasterCore::new(core_config(config), registry, clock.now());
        let shell = Shell {
            core,
            epoch,
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
            Arc::clone(&metrics),
            stopping.clone(),
        ));
        let api = Arc::new(Api {
            settings: config.settings(),
            ..Api::new(projection, inbox.clone(), metrics)
        });
        let http = tokio::spawn(serve_http(bound.listener, api, stopping, exit.clone()));
        Ok(Self {
            quic_addr: bound.quic,
            http_addr: bound.http,
            cluster_id,
            exit,
            inbox,
            stop,
            data_dir: config.data_dir.clone(),
            parts: Mutex::new(Parts {
                // The core first: the others end when it has.
                threads: vec![core, committer, read_model],
                net: Some(net),
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
        self.end_parts().await;
        if reason == ExitReason::Stopped
            && let Err(error) = std::fs::remove_file(Endpoint::path(&self.data_dir))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, "endpoint.json could not be removed");
        }
        reason
    }

    /// Stops: peers are told and disconnected, what was proposed becomes durable, threads end. Takes
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
        // Threads end by what they own, so that a cancelled wait loses only the knowledge of it.
        let _ = joined.await;
        if let Some(net) = &mut parts.net {
            let _ = net.await;
        }
        parts.net = None;
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

async fn serve_http(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    stopping: watch::Receiver<bool>,
    exit: Exit,
) {
    let _guard = exit.listener_guard("http");
    http::serve(listener, api, stopping).await;
}
