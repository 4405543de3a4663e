//! Connections to all masters, so that a change of leader needs no handshake.
//!
//! Those to masters that do not lead are ready and quiet: such a master answers their opening only when
//! it leads. So whoever waits here hears of a new leader at once, also when the one before has died
//! without a word.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Backoff, Client, ConnectError, Connection, Protocol, STABLE_AFTER, tls};

/// The longest step between attempts to reach one master. Shorter than a [`Dialer`](super::Dialer)'s,
/// because a master that has come back may be the one that is missing for a leader.
const BACKOFF_CAP: Duration = Duration::from_secs(2);
const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// What has become known of a master.
#[derive(Debug)]
pub enum MasterNews {
    /// It leads, and is connected. Whoever led before does not, or will soon find out.
    Leads(Connection),
    /// It cannot be reached, or does not take us. It is tried again.
    Failed {
        /// Its place in the list.
        host: usize,
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
    news: mpsc::Receiver<MasterNews>,
    _tasks: JoinSet<()>,
}

impl Masters {
    /// Begins to dial all of them, each `host:port` with a name or an address. Must be called inside a
    /// tokio runtime.
    #[must_use]
    pub fn new(client: &Client, protocol: Protocol, hosts: &[String]) -> Self {
        // A task waits while its news are not taken.
        let (sender, news) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        for (number, host) in hosts.iter().enumerate() {
            let master = Master {
                client: client.clone(),
                protocol,
                number,
                host: host.clone(),
                news: sender.clone(),
                backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            };
            tasks.spawn(master.keep_up());
        }
        Self {
            news,
            _tasks: tasks,
        }
    }

    /// Waits for news. Cancelling it loses nothing. For ever if there are no masters.
    pub async fn next(&mut self) -> MasterNews {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

struct Master {
    client: Client,
    protocol: Protocol,
    number: usize,
    host: String,
    news: mpsc::Sender<MasterNews>,
    backoff: Backoff,
}

impl Master {
    async fn keep_up(mut self) {
        let mut failures = 0;
        while self.once(&mut failures).await.is_continue() {
            sleep(self.delay()).await;
        }
    }

    /// One connection, to its end.
    async fn once(&mut self, failures: &mut u32) -> ControlFlow<()> {
        let began = Instant::now();
        let connected = self.connect(failures).await;
        let (news, ended) = match connected {
            Ok(connection) => {
                let quic = connection.quic.clone();
                (MasterNews::Leads(connection), Some(quic))
            }
            Err(error) => {
                *failures += 1;
                let news = MasterNews::Failed {
                    host: self.number,
                    number: *failures,
                    error,
                };
                (news, None)
            }
        };
        if self.news.send(news).await.is_err() {
            return ControlFlow::Break(());
        }
        if let Some(quic) = ended {
            quic.closed().await;
        }
        if began.elapsed() >= STABLE_AFTER {
            self.backoff.reset();
        }
        ControlFlow::Continue(())
    }

    async fn connect(&self, failures: &mut u32) -> Result<Connection, ConnectError> {
        let failed = |source| ConnectError::Resolve {
            host: self.host.clone(),
            source,
        };
        let mut error = failed(std::io::ErrorKind::NotFound.into());
        for address in lookup_host(&self.host).await.map_err(failed)? {
            let attempt = self
                .client
                .connect_when_leading(self.protocol, address, || *failures = 0);
            match attempt.await {
                Ok(connection) => return Ok(connection),
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
