//! Framework state: what a scheduler keeps with the masters, so that it needs no database of its own
//! to be highly available.
//!
//! A [`State`] is a *space* of keys and leases, named after the framework unless said otherwise, for
//! all programs with the same certificate: a standby reaches it before it subscribes, a restarted
//! scheduler finds what it left. It survives masters, schedulers and the framework itself.
//!
//! # One leads, the others stand by
//!
//! ```no_run
//! use meros_sdk::state::State;
//! use meros_sdk::{Scheduler, SessionConfig};
//!
//! # async fn program(scheduler: &mut impl Scheduler) -> Result<(), Box<dyn std::error::Error>> {
//! let config = SessionConfig::from_env("batch")?;
//! let state = State::connect(&config)?;
//! // Waits here while another instance leads, and goes on when it has ended or lost its lease.
//! let lease = state.election("leader")?.campaign().await?;
//! // The id of the framework and whatever else the last leader knew.
//! let config = match state.get("framework-id").await? {
//!     Some(id) => {
//!         let id = id.value.as_text().unwrap_or_default().parse()?;
//!         let mut config = config;
//!         config.framework.framework_id = Some(id);
//!         config
//!     }
//!     None => config,
//! };
//! tokio::select! {
//!     ended = meros_sdk::run(config, scheduler) => ended?,
//!     () = lease.lost() => return Err("another instance leads now".into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Writes that cannot go wrong in a failover
//!
//! ```no_run
//! # use meros_sdk::state::{Lease, State, StateError};
//! # async fn program(state: State, lease: Lease) -> Result<(), StateError> {
//! // Only if nobody has changed it since it was read, and only while this instance leads.
//! let counter = state.get("jobs/next").await?;
//! let next: u64 = match &counter {
//!     Some(entry) => entry.value.as_text().and_then(|text| text.parse().ok()).unwrap_or(0),
//!     None => 0,
//! };
//! state
//!     .transaction()
//!     .held(&lease)
//!     .unchanged("jobs/next", counter.as_ref())
//!     .set("jobs/next", (next + 1).to_string())
//!     .set(&format!("jobs/{next}"), "queued")
//!     .commit()
//!     .await?;
//! // Jobs, and from then on what becomes of them.
//! let (jobs, revision) = state.list("jobs/").await?;
//! println!("{} jobs", jobs.len());
//! let mut watch = state.watch("jobs/", revision);
//! for change in watch.next().await? {
//!     println!("{} has changed", change.key());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Reads and writes are linearizable**: whoever reads after a write was answered sees it, on
//!   whichever master, over failovers too.
//! - **A change is carried out at most once**, however often the connection breaks: the SDK numbers
//!   changes and asks again under the same number. One that fails as [`StateError::Unavailable`] may
//!   have been carried out or not.
//! - **Of an exclusive lease there is one holder at a time.** A holder that loses touch with the masters
//!   takes its lease for lost before they give it to another: [`Lease::is_held`], [`Lease::lost`]. A
//!   program that was stopped meanwhile may act late, so what must not happen twice is fenced by the
//!   lease's [token](Lease::token): [`Transaction::held`] here, a comparison of tokens elsewhere.
//! - **A watcher is told the latest of each key in the order of changes**, not every value in between,
//!   or that deletions have been [forgotten](meros_proto::state::StateRefusal::Compacted): then it
//!   lists anew.
//!
//! # Bounds
//!
//! Keys up to 512 bytes, values up to 64 KiB, 4,096 keys and 2 MiB a space, 64 operations and 512 KiB
//! a transaction, four spaces a principal. What is over one is refused with the code `over_limit`.
//!
//! # Tests
//!
//! The test kit simulates offers and tasks, not this: a test of a program that uses it starts
//! `meros dev --temporary`.

mod error;
mod hold;
mod link;
mod session;
mod transaction;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use meros_proto::state::{
    HoldView, KeyChange, LeaseName, LeaseView, NameError, Revision, StateEntry, StateKey,
    StateRefusal, StateValue, Token,
};
use meros_proto::state::{SpaceName, StateAnswer, StateCall, TTL_MAX, TTL_MIN};

pub use error::StateError;
pub use hold::{Election, Lease, Semaphore};
pub use transaction::Transaction;

use crate::config::SessionConfig;
use crate::error::SetupError;
use session::Client;

/// The time to live of a client of which no master has heard: what it holds is given to others then.
/// Longer, and a crash is noticed later; shorter, and a pause of the program loses its leases.
pub const TTL_DEFAULT: Duration = Duration::from_secs(15);
/// How long a call waits for a master that answers.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How a [`State`] is reached.
#[derive(Debug, Clone)]
pub struct StateConfig {
    /// Masters as `host:port`.
    pub masters: Vec<String>,
    /// The directory with `cert.pem`, `key.pem` and `ca.pem`: spaces belong to the name in it.
    pub identity: std::path::PathBuf,
    /// Which space: 1 to 128 bytes without white space and slashes.
    pub space: String,
    /// Who this is, as others see it who wait for the same lease: at most 256 bytes. Default: the
    /// framework's name and the process id.
    pub holder: String,
    /// How long what it holds stays its own without a sign of life, from 2 s to 1 h. Default:
    /// [`TTL_DEFAULT`].
    pub ttl: Duration,
    /// How long a call waits for a master that answers. Default: [`CALL_TIMEOUT_DEFAULT`].
    pub call_timeout: Duration,
}

impl StateConfig {
    /// The space of a framework: named after it, blanks and slashes as `-`.
    #[must_use]
    pub fn of(session: &SessionConfig) -> Self {
        let name = &session.framework.name;
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        Self {
            masters: session.masters.clone(),
            identity: session.identity.clone(),
            space: name.replace(is_odd, "-"),
            holder: format!("{name}:{}", std::process::id()),
            ttl: TTL_DEFAULT,
            call_timeout: CALL_TIMEOUT_DEFAULT,
        }
    }
}

/// A space of keys and leases. Cheap to clone; usable from any task.
///
/// It has a connection of its own, kept up in the background. Changes by one `State` and its clones
/// are made one after the other, each durable on a majority of masters; connect several for more at a
/// time. Dropping the last clone, and all leases, disconnects; what is still held is free after the
/// time to live.
#[derive(Debug, Clone)]
pub struct State {
    client: Arc<Client>,
}

impl State {
    /// The space of this framework; see [`StateConfig::of`]. Returns before there is a connection.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The configuration or identity cannot be used. Trying again cannot help.
    pub fn connect(session: &SessionConfig) -> Result<Self, SetupError> {
        Self::open(&StateConfig::of(session))
    }

    /// Any space. Returns before there is a connection. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As of [`State::connect`].
    pub fn open(config: &StateConfig) -> Result<Self, SetupError> {
        let space = SpaceName::new(&config.space).map_err(SetupError::Space)?;
        let asks = link::start(&config.masters, &config.identity, space)?;
        let client = Client::new(
            asks,
            config.holder.clone(),
            config.ttl.clamp(TTL_MIN, TTL_MAX),
            config.call_timeout,
        );
        Ok(Self {
            client: Arc::new(client),
        })
    }

    /// A key's value and revisions; none if there is no such key.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn get(&self, key: &str) -> Result<Option<StateEntry>, StateError> {
        Ok(self.get_many(&[key]).await?.pop())
    }

    /// Several keys as of one moment, without those that are not there. At most 64.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<StateEntry>, StateError> {
        let keys = keys.iter().map(|key| StateKey::new(key));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match self.client.ask(StateCall::Read { keys }).await? {
            StateAnswer::Entries { entries, .. } => Ok(entries),
            other => Err(error::unexpected(&other)),
        }
    }

    /// All keys that begin with a text, in their order, and the revision from which to
    /// [watch](State::watch) them. A list of more than 1,000 keys or 1 MiB is read in pieces: what
    /// changes meanwhile may be in it or not, and is told by the watch.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn list(&self, prefix: &str) -> Result<(Vec<StateEntry>, Revision), StateError> {
        let mut all: Vec<StateEntry> = Vec::new();
        let mut since = None;
        loop {
            let call = StateCall::List {
                prefix: prefix.to_owned(),
                after: all.last().map(|entry| entry.key.clone()),
            };
            match self.client.ask(call).await? {
                StateAnswer::Entries {
                    revision,
                    mut entries,
                    more,
                } => {
                    let since = *since.get_or_insert(revision);
                    let is_end = !more || entries.is_empty();
                    all.append(&mut entries);
                    if is_end {
                        return Ok((all, since));
                    }
                }
                other => return Err(error::unexpected(&other)),
            }
        }
    }

    /// Gives a key a value, whatever it had.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn set(
        &self,
        key: &str,
        value: impl Into<StateValue>,
    ) -> Result<Revision, StateError> {
        self.transaction().set(key, value).commit().await
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn delete(&self, key: &str) -> Result<Revision, StateError> {
        self.transaction().delete(key).commit().await
    }

    /// Gives a key a value if it is as it was read: `seen` is what [`State::get`] has answered, none
    /// if there was no such key.
    ///
    /// # Errors
    /// [`StateRefusal::Conflict`] in [`StateError::Refused`] if it has changed; others of
    /// [`StateError`].
    pub async fn compare_and_set(
        &self,
        key: &str,
        seen: Option<&StateEntry>,
        value: impl Into<StateValue>,
    ) -> Result<Revision, StateError> {
        let transaction = self.transaction().unchanged(key, seen);
        transaction.set(key, value).commit().await
    }

    /// Several changes under conditions: all or none.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.client))
    }

    /// What becomes of keys that begin with a text, after a revision.
    #[must_use]
    pub fn watch(&self, prefix: &str, after: Revision) -> Watch {
        Watch {
            client: Arc::clone(&self.client),
            prefix: prefix.to_owned(),
            after,
        }
    }

    /// An exclusive lease: waits until it is free. Cancelling it leaves the queue.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn acquire(&self, lease: &str) -> Result<Lease, StateError> {
        self.semaphore(lease, 1)?.acquire().await
    }

    /// An exclusive lease if nobody holds it; else none.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn try_acquire(&self, lease: &str) -> Result<Option<Lease>, StateError> {
        self.semaphore(lease, 1)?.try_acquire().await
    }

    /// A lease that as many may hold at a time as it has permits, from 1 to 1,000,000; all who use it
    /// must say the same.
    ///
    /// # Errors
    /// The name is none.
    pub fn semaphore(&self, lease: &str, permits: u32) -> Result<Semaphore, NameError> {
        let name = LeaseName::new(lease)?;
        Ok(Semaphore::new(Arc::clone(&self.client), name, permits))
    }

    /// An election: an exclusive lease whose holder leads.
    ///
    /// # Errors
    /// The name is none.
    pub fn election(&self, lease: &str) -> Result<Election, NameError> {
        Ok(Election::new(self.semaphore(lease, 1)?))
    }

    /// Gives up all that is held through this `State` and its clones, and tells the masters so.
    /// Without it others wait for the time to live.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

/// What becomes of some keys.
#[derive(Debug)]
pub struct Watch {
    client: Arc<Client>,
    prefix: String,
    after: Revision,
}

impl Watch {
    /// Waits for changes: the latest of each key since the last ones, in the order of revisions, at
    /// least one. Waits as long as no master answers, too. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`StateRefusal::Compacted`] in [`StateError::Refused`] if deletions have been forgotten
    /// since: list anew. Others of [`StateError`].
    pub async fn next(&mut self) -> Result<Vec<KeyChange>, StateError> {
        loop {
            let call = StateCall::Watch {
                prefix: self.prefix.clone(),
                after: self.after,
            };
            match self.client.wait_for(call).await? {
                StateAnswer::Changes { revision, changes } => {
                    self.after = revision;
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
                other => return Err(error::unexpected(&other)),
            }
        }
    }

    /// Up to which revision changes have been told.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.after
    }
}

/// Something that must go on whether or not whoever waits for it does.
fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StateError>> + Send + 'static,
) -> impl Future<Output = Result<T, StateError>> {
    let task = tokio::spawn(work);
    async move {
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StateError::Ended),
            },
        }
    }
}
