//! The driver's shell: waits for the world, feeds the driver, carries out its effects in order.
//!
//! It decides nothing but which address comes next; with several masters it is connected to all, and
//! uses the one that leads. One task owns it; [`Shell::wait`] can be
//! cancelled at any time, [`Shell::feed`] must not be.

use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meros_proto::ids::Epoch;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::is_list_of_masters;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;
use meros_proto::transport::{
    Anchor, Client, CloseCode, Connection, Dialer, FLUSH_TIMEOUT, Identity, MasterNews, Masters,
    Protocol, Receiver, Sender,
};
use meros_sdk_core::{Driver, DriverConfig, Effect, EndReason, Event, News, NewsQueue};
use tokio::time::{sleep_until, timeout};

use crate::config::{ConfigError, MASTERS_MAX, SessionConfig};
use crate::error::{SetupError, chain};
use crate::state_file::{self, SavedState};

/// Messages that may wait to be written: a burst of calls for one batch of offers.
const SEND_QUEUE: usize = 4_096;
/// Messages taken from the connection in one go.
const RECV_BATCH: usize = 256;
/// How long a master may leave our messages unread before we look for another one. Longer than
/// its own pauses, shorter than a person's patience.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, FailedDial>> + Send>>;

/// An attempt that failed.
pub(crate) struct FailedDial {
    why: String,
    /// Whether only a change of certificates or releases can help.
    hopeless: bool,
    /// Its place in the list of masters; none for one that another master named.
    host: Option<usize>,
}

enum Link {
    Closed,
    /// Until one of several masters leads.
    Waiting,
    Dialing(Dialing),
    Open {
        sender: Sender<FrameworkToMaster>,
        receiver: Receiver<MasterToFramework>,
        anchor: Anchor,
    },
    /// Given up; the driver has still to hear of it.
    Broken {
        why: String,
    },
}

/// What has happened outside.
pub(crate) enum Happened {
    Dialed(Result<Connection, FailedDial>),
    Messages(Vec<MasterToFramework>),
    Lost {
        why: String,
    },
    /// One of several masters leads, and `leader` is the way to it.
    LeaderFound,
    Due,
}

/// Driver, connection, clock.
pub(crate) struct Shell {
    driver: Driver,
    client: Client,
    hosts: Vec<String>,
    /// The one of `hosts` to dial next.
    next_host: usize,
    /// For each of `hosts`, whether its last attempt was hopeless.
    hopeless: Vec<bool>,
    /// Connections to all of `hosts` and to those that a leader has told, if there are several.
    masters: Option<Masters>,
    /// The way to a master that leads, until the driver asks for one.
    leader: Option<Connection>,
    link: Link,
    /// The connection that was closed last, which may still be flushing.
    closing: Option<Sender<FrameworkToMaster>>,
    news: NewsQueue,
    end: Option<EndReason>,
    state_file: Option<PathBuf>,
    /// What is in it.
    saved: Option<SavedState>,
    clock: Clock,
}

impl Shell {
    /// Must be called inside a tokio runtime.
    pub(crate) fn open(config: &SessionConfig) -> Result<Self, SetupError> {
        if config.masters.is_empty() {
            return Err(ConfigError::NoMaster.into());
        }
        if config.masters.len() > MASTERS_MAX {
            return Err(ConfigError::TooManyMasters {
                got: config.masters.len(),
            }
            .into());
        }
        let saved = config
            .state_file
            .as_deref()
            .map(state_file::load)
            .transpose()?
            .flatten();
        let identity = Identity::load(&config.identity).map_err(SetupError::Identity)?;
        let client = Client::new(&identity).map_err(SetupError::Client)?;
        let mut framework = config.framework.clone();
        framework.framework_id = framework
            .framework_id
            .or_else(|| saved.map(|state| state.framework_id));
        let clock = Clock::start();
        let driver_config = DriverConfig {
            framework,
            suppressed_roles: config.suppressed_roles.clone(),
            wishes: config.wishes.clone(),
            cluster_id: saved.map(|state| state.cluster_id),
            epoch: saved.map_or(Epoch(0), |state| state.epoch),
            // Keys of the standard library's hash maps: random for each process.
            seed: std::hash::RandomState::new().build_hasher().finish(),
        };
        let masters = (config.masters.len() > 1)
            .then(|| Masters::new(&client, Protocol::Framework, &config.masters));
        Ok(Self {
            driver: Driver::new(driver_config, clock.now()),
            client,
            masters,
            leader: None,
            hosts: config.masters.clone(),
            next_host: 0,
            hopeless: vec![false; config.masters.len()],
            link: Link::Closed,
            closing: None,
            news: NewsQueue::default(),
            end: None,
            state_file: config.state_file.clone(),
            saved,
            clock,
        })
    }

    /// The oldest news that the framework has not been told.
    pub(crate) fn pop_news(&mut self) -> Option<News> {
        self.news.pop()
    }

    /// The news that wait.
    pub(crate) fn news(&self) -> &NewsQueue {
        &self.news
    }

    /// Whether the session has ended, and why.
    pub(crate) fn end(&self) -> Option<&EndReason> {
        self.end.as_ref()
    }

    /// Waits until something happens outside. Cancelling it loses nothing.
    pub(crate) async fn wait(&mut self) -> Happened {
        let deadline = self.driver.next_deadline().map(|at| self.clock.instant(at));
        let due = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut due = std::pin::pin!(due);
        if let Some(leader) = self.leader.take_if(|_| matches!(self.link, Link::Waiting)) {
            return Happened::Dialed(Ok(leader));
        }
        loop {
            let news = tokio::select! {
                happened = self.link.next() => return happened,
                news = next_master(&mut self.masters) => news,
                () = &mut due => return Happened::Due,
            };
            if let Some(happened) = self.hear(news) {
                return happened;
            }
        }
    }

    /// Takes in what became known of one of several masters.
    fn hear(&mut self, news: MasterNews) -> Option<Happened> {
        let is_waiting = matches!(self.link, Link::Waiting);
        match news {
            MasterNews::Leads(connection) if is_waiting => Some(Happened::Dialed(Ok(connection))),
            MasterNews::Leads(connection) => {
                // Nobody is to take it for ours any more.
                if let Some(older) = self.leader.replace(connection) {
                    older.close(CloseCode::Done, "");
                }
                if matches!(self.link, Link::Closed) {
                    return Some(Happened::LeaderFound);
                }
                self.disconnect();
                let why = "another master leads".to_owned();
                Some(Happened::Lost { why })
            }
            MasterNews::Failed { host, error, .. } if is_waiting => {
                Some(Happened::Dialed(Err(FailedDial {
                    why: chain(&error),
                    hopeless: !error.is_retryable(),
                    host: self.hosts.iter().position(|one| *one == host),
                })))
            }
            MasterNews::Failed { .. } => None,
        }
    }

    /// Takes in what happened. Must not be cancelled.
    pub(crate) async fn take_in(&mut self, happened: Happened) {
        match happened {
            Happened::Due => self.feed(Event::Tick).await,
            Happened::Messages(messages) => {
                for message in messages {
                    // One of them may have ended the connection: what came after it is void.
                    if !matches!(self.link, Link::Open { .. }) {
                        break;
                    }
                    if let MasterToFramework::Masters { addresses } = &message {
                        self.learn(addresses);
                    }
                    self.feed(Event::Master(message)).await;
                }
            }
            Happened::Lost { why } => {
                self.link = Link::Closed;
                self.feed(Event::Disconnected { why }).await;
            }
            Happened::LeaderFound => {}
            Happened::Dialed(Ok(connection)) => {
                tracing::debug!(master = %connection.remote_address(), "connected to a master");
                let anchor = connection.anchor();
                let (sender, receiver) = connection.split(SEND_QUEUE);
                self.link = Link::Open {
                    sender,
                    receiver,
                    anchor,
                };
                self.hopeless.fill(false);
                self.feed(Event::Connected).await;
            }
            Happened::Dialed(Err(failed)) => {
                self.link = Link::Closed;
                if let Some(host) = failed.host {
                    self.hopeless[host] = failed.hopeless;
                    self.next_host = (host + 1) % self.hosts.len();
                }
                // One master with a wrong certificate must not end what the others could serve.
                let hopeless = self.hopeless.iter().all(|hopeless| *hopeless);
                self.feed(Event::ConnectFailed {
                    why: failed.why,
                    hopeless,
                })
                .await;
            }
        }
        if self.leader.is_some() {
            self.feed(Event::LeaderFound).await;
        }
    }

    /// The masters are these, says the one at the other end. With more than one, each has a connection.
    fn learn(&mut self, told: &[String]) {
        let Link::Open { anchor, .. } = &self.link else {
            return;
        };
        if !is_list_of_masters(told) || (self.masters.is_none() && told.len() == 1) {
            return;
        }
        tracing::debug!(masters = told.join(","), "the masters of the cluster");
        let masters = self.masters.get_or_insert_with(|| {
            Masters::holding(
                &self.client,
                Protocol::Framework,
                &self.hosts,
                anchor.clone(),
            )
        });
        masters.learn(told);
    }

    /// Feeds the driver and carries out what it decides, in order. Must not be cancelled.
    pub(crate) async fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.driver.handle(event, self.clock.now(), &mut effects);
        #[cfg(debug_assertions)]
        if self.driver.live_tasks() < 1_000 {
            self.driver.check_invariants();
        }
        for effect in effects {
            match effect {
                Effect::Send(message) => self.send(message).await,
                Effect::Deliver(news) => self.deliver(news).await,
                Effect::Connect { hint } => self.dial(hint),
                Effect::Disconnect => self.disconnect(),
            }
        }
    }

    async fn send(&mut self, message: FrameworkToMaster) {
        let Link::Open { sender, .. } = &self.link else {
            return;
        };
        match timeout(SEND_TIMEOUT, sender.send(message)).await {
            // Lost: reading says why, and what was in this message is reconciled.
            Ok(Ok(()) | Err(_)) => {}
            Err(_) => {
                sender.close(CloseCode::SlowReader, "the master does not read");
                let why = "the master did not read our messages".to_owned();
                self.link = Link::Broken { why };
            }
        }
    }

    async fn deliver(&mut self, news: News) {
        match &news {
            News::Subscribed {
                framework_id,
                cluster_id,
                again,
            } => {
                tracing::info!(%framework_id, again, "subscribed");
                let state = SavedState {
                    framework_id: *framework_id,
                    cluster_id: *cluster_id,
                    epoch: self.driver.epoch(),
                };
                if self.saved == Some(state) {
                    // A master has taken it back; nothing of that is new.
                } else if let Err(why) = save(self.state_file.clone(), state).await {
                    // Without it a restart would leave the tasks without their framework. The
                    // news must not be told: it promises that the id is kept.
                    return Box::pin(self.feed(Event::GiveUp { why })).await;
                } else {
                    self.saved = Some(state);
                }
            }
            News::Disconnected { why } => tracing::warn!(why, "disconnected"),
            News::ConnectFailed { why, attempts, .. } => {
                tracing::debug!(why, attempts, "no connection");
            }
            News::Ended(reason) => {
                tracing::info!(?reason, "session ended");
                self.forget(reason);
                self.end = Some(reason.clone());
            }
            _ => {}
        }
        self.news.push(news);
    }

    /// Removes the state file if its framework can never come back.
    fn forget(&self, reason: &EndReason) {
        let gone = matches!(
            reason,
            EndReason::TornDown { confirmed: true }
                | EndReason::Refused(Refusal::FrameworkRemoved { .. })
        );
        if let (true, Some(path)) = (gone, &self.state_file)
            && let Err(error) = state_file::remove(path)
        {
            tracing::warn!(
                error = chain(&error),
                "the state file of a removed framework stays"
            );
        }
    }

    fn dial(&mut self, hint: Option<String>) {
        if self.masters.is_some() {
            self.link = Link::Waiting;
            return;
        }
        let (address, host) = match hint {
            Some(hint) => (hint, None),
            None => (self.hosts[self.next_host].clone(), Some(self.next_host)),
        };
        let client = self.client.clone();
        self.link = Link::Dialing(Box::pin(dial_once(client, address, host)));
    }

    fn disconnect(&mut self) {
        if let Link::Open { sender, .. } = std::mem::replace(&mut self.link, Link::Closed) {
            sender.close(CloseCode::Done, "");
            self.closing = Some(sender);
        }
    }

    /// Lets what was sent last reach the master, for a bounded time.
    pub(crate) async fn finish(mut self) {
        self.disconnect();
        if let Some(sender) = self.closing.take() {
            // The time being over is an answer as good as any.
            let _ = timeout(FLUSH_TIMEOUT, sender.closed()).await;
        }
        self.client.close(Duration::from_millis(200)).await;
    }
}

impl Link {
    async fn next(&mut self) -> Happened {
        match self {
            Self::Closed | Self::Waiting => std::future::pending().await,
            Self::Dialing(dialing) => Happened::Dialed(dialing.await),
            Self::Open { receiver, .. } => {
                let mut messages = Vec::new();
                match receiver.recv_batch(&mut messages, RECV_BATCH).await {
                    Ok(()) => Happened::Messages(messages),
                    Err(error) => Happened::Lost { why: chain(&error) },
                }
            }
            Self::Broken { why } => Happened::Lost { why: why.clone() },
        }
    }
}

async fn next_master(masters: &mut Option<Masters>) -> MasterNews {
    match masters {
        Some(masters) => masters.next().await,
        None => std::future::pending().await,
    }
}

async fn save(path: Option<PathBuf>, state: SavedState) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let saved = tokio::task::spawn_blocking(move || state_file::save(&path, state)).await;
    match saved {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes one attempt: names are resolved, and each of their addresses is tried.
async fn dial_once(
    client: Client,
    address: String,
    host: Option<usize>,
) -> Result<Connection, FailedDial> {
    let mut failed = FailedDial {
        why: format!("no answer from {address}"),
        hopeless: false,
        host,
    };
    let mut dialer = Dialer::new(client, Protocol::Framework, vec![address]);
    let connection = dialer
        .dial(std::future::pending(), |attempt| {
            failed.why = chain(attempt.error);
            failed.hopeless = !attempt.error.is_retryable();
            // The backoff is the driver's.
            ControlFlow::Break(())
        })
        .await;
    connection.ok_or(failed)
}

/// The wall clock at the start, and the monotonic time since.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_at: Timestamp::default().after(since_epoch),
        }
    }

    fn now(self) -> Timestamp {
        self.started_at.after(self.started.elapsed())
    }

    fn instant(self, at: Timestamp) -> Instant {
        // Rounded up, or the timer fires just before its deadline and again.
        self.started + at.since(self.started_at) + Duration::from_micros(1)
    }
}
