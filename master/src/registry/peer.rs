//! The way to another master: one connection that is kept up, and the questions on it.
//!
//! openraft gives up a question after its time and asks again, so a question is never repeated here.
//! A connection on which questions stay unanswered is given up, too: a master that was killed and
//! started again does not know it any more, and QUIC alone would notice that late.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meros_proto::transport::{Client, ConnectError, Connection, Protocol, Receiver, Sender};
use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::pace::Pace;
use super::types::{MasterId, Member};
use super::upgrade::Formats;
use super::wire::{Answer, Call, Request, Response};

/// Questions that may wait to be written. openraft has a handful on their way at a time.
const SEND_QUEUE: usize = 64;
/// After this long with a question and without any answer the connection is given up. Of the default lease.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// The same once the other side has dialled us, as one does that has been started again.
const DOUBTFUL_MAX: Duration = Duration::from_millis(300);
/// How often silence is looked at.
const LOOK_AT_SILENCE: Duration = Duration::from_millis(100);
/// Between attempts to connect: doubled from the first to the last.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// How long one attempt may take. A handshake takes milliseconds; on a busy machine, many.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look whether a connection has been made, by whoever waits for it.
const LOOK: Duration = Duration::from_millis(5);

/// A member as others reach it. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Who and where it was when this was made; a member that moves gets another.
    pub(crate) member: Member,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Link {
    to: MasterId,
    open: Mutex<Option<Sender<Request>>>,
    number_next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    /// Since when it is doubtful whether the other side still knows the connection; until it answers.
    doubtful_since: Mutex<Option<Instant>>,
}

impl Peer {
    /// Begins to connect. Must be called inside a tokio runtime.
    pub(crate) fn new(client: Client, formats: Arc<Formats>, to: MasterId, member: Member) -> Self {
        let link = Arc::new(Link::new(to));
        let task = keep_up(client, formats, member.clone(), Arc::clone(&link));
        Self {
            member,
            link,
            task: tokio::spawn(task),
        }
    }

    /// Waits until there is a connection, at most for so long.
    pub(crate) async fn connected(&self, patience: Duration) {
        let asked = Instant::now();
        while self.link.open.lock().is_none() && asked.elapsed() < patience {
            sleep(LOOK).await;
        }
    }

    /// The other side has just dialled us, so it may not know this connection any more.
    pub(crate) fn doubt(&self) {
        let mut since = self.link.doubtful_since.lock();
        since.get_or_insert_with(Instant::now);
    }

    /// Asks and waits for the answer. Cancelling it forgets the question.
    ///
    /// # Errors
    /// There is no connection now, or it has ended.
    pub(crate) async fn ask(&self, call: Call) -> io::Result<Answer> {
        self.link.ask(call).await
    }
}

impl Link {
    fn new(to: MasterId) -> Self {
        Self {
            to,
            open: Mutex::default(),
            number_next: AtomicU64::new(0),
            waiting: Mutex::default(),
            doubtful_since: Mutex::default(),
        }
    }

    async fn ask(&self, call: Call) -> io::Result<Answer> {
        let number = self.number_next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let question = Question { link: self, number };
        {
            let open = self.open.lock();
            let open = open
                .as_ref()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "not connected"))?;
            self.waiting.lock().insert(number, sender);
            let request = Request {
                number,
                to: Some(self.to),
                call,
            };
            open.try_send(request)
                .map_err(|_| io::Error::other("too many questions are on their way"))?;
        }
        let answer = answer.await;
        drop(question);
        answer.map_err(|_| io::Error::new(io::ErrorKind::ConnectionReset, "connection ended"))
    }

    /// Whether questions have stayed without an answer for too long.
    fn is_given_up(&self, heard: Instant, pace: Pace) -> bool {
        let doubted = *self.doubtful_since.lock();
        let is_doubted =
            doubted.is_some_and(|since| since.max(heard).elapsed() >= pace.scaled(DOUBTFUL_MAX));
        is_doubted || heard.elapsed() >= pace.scaled(SILENT_MAX)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forgets a question whose asker has gone.
struct Question<'a> {
    link: &'a Link,
    number: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.link.waiting.lock().remove(&self.number);
    }
}

/// Ends when it is aborted.
async fn keep_up(client: Client, formats: Arc<Formats>, member: Member, link: Arc<Link>) {
    let Member { name, address } = member;
    let (mut wait, mut is_told) = (REDIAL_MIN, false);
    loop {
        match connect(&client, Protocol::Raft, &address).await {
            // Whoever is there has got its address, not its place.
            Ok(connection) if connection.peer().name() != name => {
                if !std::mem::replace(&mut is_told, true) {
                    let found = connection.peer().name();
                    warn!(
                        address,
                        found,
                        expected = name,
                        "another master has this address"
                    );
                }
                wait = REDIAL_MAX.min(wait * 2);
            }
            Ok(connection) => {
                let (sender, receiver) = connection.split(SEND_QUEUE);
                info!(address, "connected to another master");
                is_told = false;
                wait = REDIAL_MIN;
                link.doubtful_since.lock().take();
                *link.open.lock() = Some(sender);
                tokio::select! {
                    () = pass_on(receiver, &link, &address, formats.ours().pace) => {}
                    () = introduce(&link, &formats) => {}
                }
                link.open.lock().take();
                formats.lost(link.to);
                // Those that wait hear that there will be no answer.
                link.waiting.lock().clear();
            }
            Err(_) => wait = REDIAL_MAX.min(wait * 2),
        }
        sleep(wait).await;
    }
}

/// Says what this master knows, and hears what the other one does. Ends only if this one must stop.
async fn introduce(link: &Link, formats: &Formats) {
    let asked = link.ask(Call::Formats(formats.said())).await;
    if let Ok(Answer::Formats { knows, current }) = asked {
        formats.heard(link.to, knows);
        if formats.expect(current).is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// One attempt, at the first address that the name has.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn dial(
    client: &Client,
    address: &str,
) -> Result<(Sender<Request>, Receiver<Response>), ConnectError> {
    let connection = connect(client, Protocol::Raft, address).await?;
    Ok(connection.split(SEND_QUEUE))
}

/// The same for any protocol between masters.
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn connect(
    client: &Client,
    protocol: Protocol,
    address: &str,
) -> Result<Connection, ConnectError> {
    let unknown = |source| ConnectError::Resolve {
        host: address.to_owned(),
        source,
    };
    let found = timeout(CONNECT_TIMEOUT, lookup_host(address)).await;
    let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = found.map_err(unknown)?.next();
    let address = found.ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
    let connection = timeout(CONNECT_TIMEOUT, client.connect(protocol, address)).await;
    connection.unwrap_or(Err(ConnectError::NoAnswer { address }))
}

/// Until the connection ends or nothing is answered on it.
async fn pass_on(mut receiver: Receiver<Response>, link: &Link, address: &str, pace: Pace) {
    let mut heard = Instant::now();
    loop {
        match timeout(LOOK_AT_SILENCE, receiver.recv()).await {
            Ok(Ok(Response { number, answer })) => {
                heard = Instant::now();
                link.doubtful_since.lock().take();
                if let Some(waiting) = link.waiting.lock().remove(&number) {
                    // Whoever asked may have gone meanwhile.
                    let _ = waiting.send(answer);
                }
            }
            Ok(Err(error)) => return info!(address, %error, "connection to another master ended"),
            Err(_) if link.waiting.lock().is_empty() => heard = Instant::now(),
            Err(_) if link.is_given_up(heard, pace) => {
                return info!(address, "another master does not answer, dialling again");
            }
            Err(_) => {}
        }
    }
}
