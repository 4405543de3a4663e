//! The way to the masters: one connection to the one that leads, kept up by a task. What has not been
//! answered when it breaks is asked again on the next one, in the same order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::is_list_of_masters;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Refusal;
use meros_proto::state::{SpaceName, StateAnswer, StateCall};
use meros_proto::transport::{
    Anchor, Backoff, Client, CloseCode, Connection, Dialer, Identity, MasterNews, Masters,
    Protocol, Receiver, Sender,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::error::StateError;
use crate::config::{ConfigError, MASTERS_MAX};
use crate::error::{SetupError, chain};

/// Calls that wait for their answers; more wait to be asked.
const PENDING_MAX: usize = 1_024;
/// Messages taken from the connection in one go.
const RECV_BATCH: usize = 64;
/// Between attempts to reach the only master that is known: shorter than the shortest time to live.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);

type Answered = Result<StateAnswer, Refusal>;

#[derive(Debug)]
struct Asked {
    call: StateCall,
    answer: oneshot::Sender<Answered>,
}

/// Where calls go. The task ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Asks {
    sender: mpsc::Sender<Asked>,
    trouble: Arc<Mutex<String>>,
}

/// The same, without keeping the task alive.
#[derive(Debug, Clone)]
pub(super) struct WeakAsks {
    sender: mpsc::WeakSender<Asked>,
    trouble: Arc<Mutex<String>>,
}

impl Asks {
    /// Waits for the answer, over as many connections as it takes.
    pub(super) async fn ask(&self, call: StateCall) -> Result<StateAnswer, StateError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.sender.send(Asked { call, answer }).await;
        sent.map_err(|_| StateError::Ended)?;
        Ok(answered.await.map_err(|_| StateError::Ended)??)
    }

    /// Why there was no connection last.
    pub(super) fn trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    pub(super) fn downgrade(&self) -> WeakAsks {
        WeakAsks {
            sender: self.sender.downgrade(),
            trouble: Arc::clone(&self.trouble),
        }
    }
}

impl WeakAsks {
    pub(super) fn upgrade(&self) -> Option<Asks> {
        Some(Asks {
            sender: self.sender.upgrade()?,
            trouble: Arc::clone(&self.trouble),
        })
    }
}

/// Starts the task. Must be called inside a tokio runtime.
pub(super) fn start(
    masters: &[String],
    identity: &Path,
    space: SpaceName,
) -> Result<Asks, SetupError> {
    if masters.is_empty() {
        return Err(ConfigError::NoMaster.into());
    }
    if masters.len() > MASTERS_MAX {
        return Err(ConfigError::TooManyMasters { got: masters.len() }.into());
    }
    let identity = Identity::load(identity).map_err(SetupError::Identity)?;
    let client = Client::new(&identity).map_err(SetupError::Client)?;
    let (sender, asked) = mpsc::channel(PENDING_MAX);
    let trouble = Arc::new(Mutex::new("no master has answered yet".to_owned()));
    let link = Link {
        way: Way::new(client, masters.to_vec()),
        open: None,
        space,
        pending: BTreeMap::new(),
        request_last: 0,
        trouble: Arc::clone(&trouble),
    };
    tokio::spawn(link.run(asked));
    Ok(Asks { sender, trouble })
}

type Dialing = Pin<Box<dyn Future<Output = Option<Connection>> + Send>>;

/// How a master that leads is found.
enum Way {
    /// Connections to all of several: named at first, or told by a leader.
    Several(Masters),
    /// The only one that is named, or one that it has named.
    One {
        client: Client,
        hosts: Vec<String>,
        dialing: Option<Dialing>,
        /// Where the leader is said to be. From the wire: may be nonsense.
        hint: Option<String>,
    },
}

impl Way {
    fn new(client: Client, hosts: Vec<String>) -> Self {
        if hosts.len() > 1 {
            return Self::Several(Masters::new(&client, Protocol::Framework, &hosts));
        }
        Self::One {
            client,
            hosts,
            dialing: None,
            hint: None,
        }
    }

    /// The masters are these, says the one that this is the connection to.
    fn learn(&mut self, told: &[String], anchor: &Anchor) {
        if !is_list_of_masters(told) {
            return;
        }
        if let Self::One { client, hosts, .. } = self
            && told.len() > 1
        {
            let held = anchor.clone();
            let masters = Masters::holding(client, Protocol::Framework, hosts, held);
            *self = Self::Several(masters);
        }
        if let Self::Several(masters) = self {
            masters.learn(told);
        }
    }

    /// Waits for a master that leads. With several also while there is a connection: another one may
    /// lead now. Cancelling it loses nothing.
    async fn next(&mut self, is_open: bool, trouble: &Arc<Mutex<String>>) -> Connection {
        match self {
            Self::Several(masters) => loop {
                match masters.next().await {
                    MasterNews::Leads(connection) => return connection,
                    MasterNews::Failed { error, .. } => note(trouble, chain(&error)),
                }
            },
            Self::One { .. } if is_open => std::future::pending().await,
            Self::One {
                client,
                hosts,
                dialing,
                hint,
            } => loop {
                let dial = dialing.get_or_insert_with(|| {
                    let hosts = hint.take().into_iter().chain(hosts.clone()).collect();
                    Box::pin(dial(client.clone(), hosts, Arc::clone(trouble)))
                });
                let connection = dial.await;
                *dialing = None;
                if let Some(connection) = connection {
                    return connection;
                }
            },
        }
    }
}

async fn dial(
    client: Client,
    hosts: Vec<String>,
    trouble: Arc<Mutex<String>>,
) -> Option<Connection> {
    // A master that accepts and sends us away must not make us spin.
    sleep(BACKOFF_BASE).await;
    Dialer::new(client, Protocol::Framework, hosts)
        .with_backoff(Backoff::new(BACKOFF_BASE, BACKOFF_CAP))
        .dial(std::future::pending(), |attempt| {
            note(&trouble, chain(attempt.error));
            ControlFlow::Continue(())
        })
        .await
}

fn note(trouble: &Mutex<String>, why: String) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
}

struct Open {
    sender: Sender<FrameworkToMaster>,
    receiver: Receiver<MasterToFramework>,
    anchor: Anchor,
}

struct Link {
    way: Way,
    open: Option<Open>,
    space: SpaceName,
    pending: BTreeMap<u64, Asked>,
    request_last: u64,
    trouble: Arc<Mutex<String>>,
}

impl Link {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        let mut messages = Vec::new();
        loop {
            let is_open = self.open.is_some();
            let has_room = self.pending.len() < PENDING_MAX;
            let receive = async {
                match &mut self.open {
                    Some(open) => open.receiver.recv_batch(&mut messages, RECV_BATCH).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = receive => match received {
                    Ok(()) => messages.drain(..).for_each(|message| self.on_message(message)),
                    Err(error) => {
                        note(&self.trouble, chain(&error));
                        self.close();
                    }
                },
                connection = self.way.next(is_open, &self.trouble) => {
                    self.close();
                    self.on_connected(connection);
                }
                next = asked.recv(), if has_room => match next {
                    Some(asked) => self.on_asked(asked),
                    None => return self.close(),
                },
            }
        }
    }

    fn on_connected(&mut self, connection: Connection) {
        tracing::debug!(master = %connection.remote_address(), "framework state: connected");
        let anchor = connection.anchor();
        let (sender, receiver) = connection.split(2 * PENDING_MAX);
        self.open = Some(Open {
            sender,
            receiver,
            anchor,
        });
        // Whoever has given up must not have its change made later, after others of its own.
        self.pending.retain(|_, asked| !asked.answer.is_closed());
        let requests: Vec<u64> = self.pending.keys().copied().collect();
        for request in requests {
            self.send(request);
        }
    }

    fn on_asked(&mut self, asked: Asked) {
        self.request_last += 1;
        self.pending.insert(self.request_last, asked);
        self.send(self.request_last);
        // Watches that were given up are answered by and by; they need not be kept till then.
        if self.pending.len() == PENDING_MAX {
            self.pending.retain(|_, asked| !asked.answer.is_closed());
        }
    }

    fn send(&mut self, request: u64) {
        let (Some(open), Some(asked)) = (&self.open, self.pending.get(&request)) else {
            return;
        };
        let message = FrameworkToMaster::State {
            request,
            space: self.space.clone(),
            call: asked.call.clone(),
        };
        // A master that does not read is as good as none.
        if open.sender.try_send(message).is_err() {
            note(&self.trouble, "the master does not read".to_owned());
            self.close();
        }
    }

    fn on_message(&mut self, message: MasterToFramework) {
        match message {
            MasterToFramework::State { request, answer } => {
                // The next leader is asked again.
                let is_in_vain = matches!(
                    &answer,
                    Err(Refusal::NotLeading { .. } | Refusal::Recovering | Refusal::Stopping)
                );
                if !is_in_vain && let Some(asked) = self.pending.remove(&request) {
                    // Whoever asked may have given up waiting.
                    let _ = asked.answer.send(answer);
                }
            }
            MasterToFramework::Error { refusal, .. } => {
                note(&self.trouble, refusal.to_string());
                if let (Refusal::NotLeading { leader }, Way::One { hint, .. }) =
                    (refusal, &mut self.way)
                {
                    *hint = leader;
                }
                self.close();
            }
            MasterToFramework::Masters { addresses } => {
                if let Some(open) = &self.open {
                    self.way.learn(&addresses, &open.anchor);
                }
            }
            // Nothing else belongs here: nobody is subscribed.
            _ => {}
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.sender.close(CloseCode::Done, "");
        }
    }
}
