//! Connections to all masters, so that a change of leader needs no handshake.
//!
//! Those to masters that do not lead are ready and quiet: such a master answers their opening only when
//! it leads. So whoever waits here hears of a new leader at once, also when the one before has died
//! without a word.
//!
//! Which masters there are may change: a leader tells it, and those that it names are dialled besides
//! those that were given. A master is known by the name in its certificate, so one that goes by
//! several addresses has one connection; another address is tried when that has ended.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::{
    Anchor, Backoff, Client, CloseCode, ConnectError, Connection, Disconnect, Protocol,
    STABLE_AFTER, tls,
};

/// The longest step between attempts to reach one master. Shorter than a [`Dialer`](super::Dialer)'s,
/// because a master that has come back may be the one that is missing for a leader.
const BACKOFF_CAP: Duration = Duration::from_secs(2);
/// The same for a master that has said it is busy: it is alive, and has more to do the sooner everybody comes again.
const BUSY_CAP: Duration = super::BACKOFF_CAP;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// So many times longer is the step of one who is connected to the leader, and only wants to be ready for the next: a
/// master that is dead, or has come back, is not dialled by ten thousand slaves within two seconds.
const UNHURRIED: u32 = 8;

/// What has become known of a master.
#[derive(Debug)]
pub enum MasterNews {
    /// It leads, and is connected. Whoever led before does not, or will soon find out.
    Leads(Connection),
    /// It cannot be reached, or does not take us. It is tried again.
    Failed {
        /// Its address, as it was given or told.
        host: String,
        /// Failures in a row, from 1.
        number: u32,
        /// Why.
        error: ConnectError,
    },
}

/// Connections to a list of masters, each kept up by a task. Dropping it closes those that were not
/// given out.
#[derive(Debug)]
pub struct Masters {
    client: Client,
    protocol: Protocol,
    /// These are dialled whatever a leader says.
    given: Vec<String>,
    dialled: BTreeMap<String, AbortHandle>,
    held: Arc<Held>,
    sender: mpsc::Sender<MasterNews>,
    news: mpsc::Receiver<MasterNews>,
    tasks: JoinSet<()>,
}

impl Masters {
    /// Begins to dial all of them, each `host:port` with a name or an address. Must be called inside a
    /// tokio runtime.
    #[must_use]
    pub fn new(client: &Client, protocol: Protocol, hosts: &[String]) -> Self {
        let mut masters = Self::idle(client, protocol, hosts);
        masters.dial(&[]);
        masters
    }

    /// The same for one who is connected already, to one that is known for leading.
    #[must_use]
    pub fn holding(client: &Client, protocol: Protocol, hosts: &[String], anchor: Anchor) -> Self {
        let mut masters = Self::idle(client, protocol, hosts);
        masters.held.led_by(&anchor.quic);
        masters.hold(anchor);
        masters.dial(&[]);
        masters
    }

    fn idle(client: &Client, protocol: Protocol, hosts: &[String]) -> Self {
        // A task waits while its news are not taken.
        let (sender, news) = mpsc::channel(1);
        Self {
            client: client.clone(),
            protocol,
            given: hosts.to_vec(),
            dialled: BTreeMap::new(),
            held: Arc::default(),
            sender,
            news,
            tasks: JoinSet::new(),
        }
    }

    /// There is a connection to a master that was made elsewhere: no other one to that master is wanted
    /// for as long as it lasts.
    pub fn hold(&self, anchor: Anchor) {
        // That there is another one already is all the same.
        let _ = self.held.try_hold(&anchor);
    }

    /// The masters are these, says one of them: they are dialled besides those that were given, and
    /// others no more. Connections that were given out stay.
    pub fn learn(&mut self, told: &[String]) {
        self.dial(told);
    }

    fn dial(&mut self, told: &[String]) {
        let is_wanted = |host: &String| self.given.contains(host) || told.contains(host);
        self.dialled.retain(|host, task| {
            let is_wanted = is_wanted(host);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for host in self.given.iter().chain(told) {
            if self.dialled.contains_key(host) {
                continue;
            }
            let master = Master {
                client: self.client.clone(),
                protocol: self.protocol,
                host: host.clone(),
                held: Arc::clone(&self.held),
                news: self.sender.clone(),
                backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            };
            let task = self.tasks.spawn(master.keep_up());
            self.dialled.insert(host.clone(), task);
        }
        // Those that were aborted.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits for news. Cancelling it loses nothing. For ever if there are no masters.
    pub async fn next(&mut self) -> MasterNews {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

/// Which masters there is a connection to.
#[derive(Debug, Default)]
struct Held(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    by_name: BTreeMap<String, quinn::Connection>,
    /// To the one that was the last to lead.
    leader: Option<quinn::Connection>,
}

impl Held {
    /// Makes this the connection to its master.
    ///
    /// # Errors
    /// There is one.
    fn try_hold(&self, anchor: &Anchor) -> Result<(), quinn::Connection> {
        let held = &mut self.connections().by_name;
        let other = held.get(&anchor.name);
        match other.filter(|other| other.close_reason().is_none()) {
            Some(other) => Err(other.clone()),
            None => {
                held.retain(|_, quic| quic.close_reason().is_none());
                held.insert(anchor.name.clone(), anchor.quic.clone());
                Ok(())
            }
        }
    }

    fn led_by(&self, quic: &quinn::Connection) {
        self.connections().leader = Some(quic.clone());
    }

    /// None if it is lost.
    fn leader(&self) -> Option<quinn::Connection> {
        let leader = &mut self.connections().leader;
        leader.take_if(|quic| quic.close_reason().is_some());
        leader.clone()
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        // A panic elsewhere leaves it as good as it was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has not been given out yet. Others know it, so it must be closed by name.
struct Ready(Option<quinn::Connection>);

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(quic) = &self.0 {
            quic.close(CloseCode::Done.to_wire(), b"");
        }
    }
}

/// What an attempt to reach a master has led to.
enum Reached {
    /// It leads.
    Leads(Connection),
    /// There is another connection to it: this one.
    Otherwise(quinn::Connection),
}

struct Master {
    client: Client,
    protocol: Protocol,
    host: String,
    held: Arc<Held>,
    news: mpsc::Sender<MasterNews>,
    backoff: Backoff,
}

impl Master {
    async fn keep_up(mut self) {
        let mut failures = 0;
        while self.once(&mut failures).await.is_continue() {
            self.pause().await;
        }
    }

    /// Between two attempts.
    async fn pause(&mut self) {
        let step = self.delay();
        let Some(leader) = self.held.leader() else {
            return sleep(step).await;
        };
        tokio::select! {
            () = sleep(step * UNHURRIED) => {}
            // This may be the one that is missing for a leader.
            _ = leader.closed() => {
                self.backoff.reset();
                sleep(self.delay()).await;
            }
        }
    }

    /// One connection, to its end.
    async fn once(&mut self, failures: &mut u32) -> ControlFlow<()> {
        let began = Instant::now();
        let connected = self.connect(failures).await;
        let (news, ended) = match connected {
            Ok(Reached::Leads(connection)) => {
                let quic = connection.quic.clone();
                (Some(MasterNews::Leads(connection)), Some(quic))
            }
            Ok(Reached::Otherwise(quic)) => (None, Some(quic)),
            Err(error) => {
                *failures += 1;
                self.backoff.limit(step_max(&error));
                let news = MasterNews::Failed {
                    host: self.host.clone(),
                    number: *failures,
                    error,
                };
                (Some(news), None)
            }
        };
        if let Some(news) = news {
            let mut ready = Ready(ended.clone());
            if self.news.send(news).await.is_err() {
                return ControlFlow::Break(());
            }
            ready.0 = None;
        }
        if let Some(quic) = ended {
            quic.closed().await;
        }
        if began.elapsed() >= STABLE_AFTER {
            self.backoff.reset();
        }
        ControlFlow::Continue(())
    }

    async fn connect(&self, failures: &mut u32) -> Result<Reached, ConnectError> {
        let failed = |source| ConnectError::Resolve {
            host: self.host.clone(),
            source,
        };
        let mut error = failed(std::io::ErrorKind::NotFound.into());
        for address in lookup_host(&self.host).await.map_err(failed)? {
            let known = match self.client.meet(self.protocol, address).await {
                Ok(known) => known,
                Err(why) => {
                    error = why;
                    continue;
                }
            };
            *failures = 0;
            let anchor = Anchor {
                name: known.peer.name().to_owned(),
                quic: known.quic.clone(),
            };
            if let Err(other) = self.held.try_hold(&anchor) {
                known
                    .quic
                    .close(CloseCode::Done.to_wire(), b"known already");
                return Ok(Reached::Otherwise(other));
            }
            let mut ready = Ready(Some(known.quic.clone()));
            match known.open(self.protocol, true).await {
                Ok(connection) => {
                    ready.0 = None;
                    self.held.led_by(&connection.quic);
                    return Ok(Reached::Leads(connection));
                }
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    fn delay(&mut self) -> Duration {
        let mut bytes = [0; 8];
        // Without random numbers TLS would not work either; the middle of the step does meanwhile.
        let random = match tls::provider().secure_random.fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => u64::MAX / 2,
        };
        self.backoff.next_delay(random)
    }
}

/// Between attempts, after one that ended so.
fn step_max(error: &ConnectError) -> Duration {
    match error {
        ConnectError::Ended {
            source: Disconnect::Busy,
            ..
        } => BUSY_CAP,
        _ => BACKOFF_CAP,
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerRole;
    use super::super::tests::{client_of, cluster, pair, server_of, soon};
    use super::*;

    #[test]
    fn one_that_is_busy_is_left_alone_for_longer_than_one_that_is_dead() {
        let address = ([127, 0, 0, 1], 5050).into();
        let busy = ConnectError::Ended {
            address,
            source: Disconnect::Busy,
        };
        let dead = ConnectError::NoAnswer { address };
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        let mut longest = |error| {
            backoff.limit(step_max(error));
            let nanos = step_max(error).as_nanos();
            (0..40)
                .map(|_| backoff.next_delay(u64::try_from(nanos).unwrap()))
                .last()
        };
        assert_eq!(longest(&busy), Some(BUSY_CAP));
        assert_eq!(longest(&dead), Some(BACKOFF_CAP));
        const { assert!(BUSY_CAP.as_secs() > BACKOFF_CAP.as_secs()) };
    }

    #[tokio::test]
    async fn who_has_a_leader_dials_others_seldom_and_at_once_when_it_is_lost() {
        let ca = cluster();
        let (mut server, address) = server_of(&ca);
        let client = client_of(&ca, PeerRole::Slave, "s1");
        let (leader, _at_leader) = pair(&mut server, &client, address).await;
        let held = Arc::<Held>::default();
        held.led_by(&leader.quic);
        let mut master = Master {
            client,
            protocol: Protocol::Slave,
            host: address.to_string(),
            held: Arc::clone(&held),
            news: mpsc::channel(1).0,
            backoff: Backoff::new(BACKOFF_BASE, Duration::from_hours(1_000)),
        };
        for _ in 0..40 {
            master.delay();
        }
        {
            let mut pause = std::pin::pin!(master.pause());
            let early = tokio::time::timeout(Duration::from_millis(50), &mut pause).await;
            assert!(early.is_err(), "it waits for weeks");
            leader.quic.close(CloseCode::Done.to_wire(), b"");
            soon(pause).await;
        }
        assert!(held.leader().is_none());
        assert_eq!(master.backoff.attempts(), 1);
    }
}
