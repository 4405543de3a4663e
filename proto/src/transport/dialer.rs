//! Keeps trying until a master answers.

use std::{io, ops::ControlFlow, time::Duration};

use rustls::crypto::SecureRandom;
use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Backoff, Client, ConnectError, Connection, Protocol, tls};

/// A connection that lived this long was worth having: 10 s. One that ends sooner does not reset the
/// backoff, or a master that accepts and at once closes would be dialed without pause.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Addresses of one host name that are dialed, at most.
const ADDRESSES_MAX: usize = 8;

/// Dials a list of masters in turn, with jittered exponential backoff (see [`Backoff`]) after each
/// round, until one answers. Keep it for as long as the connection is wanted, and dial again when the
/// connection ends.
#[derive(Debug)]
pub struct Dialer {
    client: Client,
    protocol: Protocol,
    hosts: Vec<String>,
    /// Index into `hosts` of the next one to try.
    next: usize,
    backoff: Backoff,
    connected_at: Option<Instant>,
    random: &'static dyn SecureRandom,
}

/// An attempt that failed, for people to see.
#[derive(Debug)]
pub struct FailedAttempt<'a> {
    /// Counted from 1 since the last stable connection.
    pub number: u32,
    /// The `host:port` that was dialed.
    pub host: &'a str,
    /// Why it failed.
    pub error: &'a ConnectError,
    /// When the next attempt follows; zero within a round over all hosts.
    pub retry_in: Duration,
}

impl Dialer {
    /// A dialer for these masters, each `host:port` with a name or an address. Names are resolved
    /// again for each attempt, since they may move.
    #[must_use]
    pub fn new(client: Client, protocol: Protocol, hosts: Vec<String>) -> Self {
        Self {
            client,
            protocol,
            hosts,
            next: 0,
            backoff: Backoff::default(),
            connected_at: None,
            random: tls::provider().secure_random,
        }
    }

    /// Other delays than the default ones.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Dials until a master answers: the one that answered last first, then the others in turn.
    ///
    /// `report` is told of each failed attempt and may break off, as a command-line tool does when
    /// the error is not [retryable](ConnectError::is_retryable). `None` when it did, when `shutdown`
    /// completed, or when there is no host to dial.
    pub async fn dial(
        &mut self,
        shutdown: impl Future<Output = ()>,
        report: impl FnMut(&FailedAttempt<'_>) -> ControlFlow<()>,
    ) -> Option<Connection> {
        tokio::select! {
            biased;
            () = shutdown => None,
            connection = self.keep_trying(report) => connection,
        }
    }

    async fn keep_trying(
        &mut self,
        mut report: impl FnMut(&FailedAttempt<'_>) -> ControlFlow<()>,
    ) -> Option<Connection> {
        if let Some(connected_at) = self.connected_at.take() {
            if connected_at.elapsed() >= STABLE_AFTER {
                self.backoff.reset();
            }
            // Also after a stable one: all the peers of a lost master are here at the same moment.
            sleep(self.delay()).await;
        }
        let mut number = 0;
        loop {
            let mut left = self.hosts.len();
            while left > 0 {
                left -= 1;
                let host = self.hosts[self.next].clone();
                let error = match self.attempt(&host).await {
                    Ok(connection) => {
                        self.connected_at = Some(Instant::now());
                        return Some(connection);
                    }
                    Err(error) => error,
                };
                self.next = (self.next + 1) % self.hosts.len();
                number += 1;
                let retry_in = if left == 0 {
                    self.delay()
                } else {
                    Duration::ZERO
                };
                tracing::debug!(number, host, %error, ?retry_in, "dialing failed");
                let failed = FailedAttempt {
                    number,
                    host: &host,
                    error: &error,
                    retry_in,
                };
                if report(&failed).is_break() {
                    return None;
                }
                sleep(retry_in).await;
            }
            if self.hosts.is_empty() {
                return None;
            }
        }
    }

    /// One host: all its addresses at once, and the first that answers. Tried in turn, a `localhost`
    /// that also means `::1` would cost a timeout each time.
    async fn attempt(&self, host: &str) -> Result<Connection, ConnectError> {
        let failed = |source| ConnectError::Resolve {
            host: host.to_owned(),
            source,
        };
        let mut attempts = JoinSet::new();
        for address in lookup_host(host).await.map_err(failed)?.take(ADDRESSES_MAX) {
            let (client, protocol) = (self.client.clone(), self.protocol);
            attempts.spawn(async move { client.connect(protocol, address).await });
        }
        let mut outcome = failed(io::ErrorKind::NotFound.into());
        let mut answered = false;
        while let Some(joined) = attempts.join_next().await {
            let Ok(attempt) = joined else { continue };
            // An address that answers says more than one that does not.
            match attempt {
                Ok(connection) => return Ok(connection),
                Err(ConnectError::NoAnswer { .. }) if answered => {}
                Err(error) => {
                    answered = !matches!(error, ConnectError::NoAnswer { .. });
                    outcome = error;
                }
            }
        }
        Err(outcome)
    }

    fn delay(&mut self) -> Duration {
        let mut bytes = [0; 8];
        // Without random numbers TLS would not work either; the middle of the step does meanwhile.
        let random = match self.random.fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => u64::MAX / 2,
        };
        self.backoff.next_delay(random)
    }
}
