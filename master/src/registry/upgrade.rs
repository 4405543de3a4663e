//! Which formats the masters know, and when the cluster goes on to a newer one.
//!
//! Masters are replaced by a newer release one after the other, so what is replicated keeps the form that
//! all of them know. Each says what it knows at the beginning of each connection; once every member has
//! said that it knows a newer format, the leader raises the cluster's, by a command like any other.
//! From then on a release that does not know it is refused: it may not join, it is not started with data
//! that may hold what it cannot read, and one that runs nevertheless stops.
//!
//! Invariant: R5 no master stores or applies an entry behind one that raised the format beyond what it
//! knows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use meros_master_core::command::Command;
use meros_master_core::{Format, Registry};
use meros_proto::ids::ClusterId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::pace::Pace;
use super::serve::Service;
use super::types::{Batch, Body, MasterId, Reign};
use crate::exit::{Exit, ExitReason};

/// How often the leader looks whether the format may be raised.
const LOOK: Duration = Duration::from_secs(1);
/// How long raising it may take before it is tried again.
const RAISE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest name of a release that is kept, in characters.
const RELEASE_CHARS_MAX: usize = 64;

/// What a master says of itself at the beginning of a connection. Its form never changes: masters of all
/// releases understand it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Knows {
    /// The release, for people.
    pub(crate) release: String,
    /// The oldest format that it reads and writes.
    pub(crate) oldest: Format,
    /// The newest.
    pub(crate) newest: Format,
    /// How patient it is: what it promises to a leader.
    pub(crate) pace: Pace,
    /// The cluster that it is of; none if it is of none yet.
    pub(crate) cluster_id: Option<ClusterId>,
}

impl Knows {
    /// This release, at this pace.
    pub(crate) fn this(pace: Pace) -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            oldest: Format::OLDEST,
            newest: Format::NEWEST,
            pace,
            cluster_id: None,
        }
    }
}

/// What all masters know, as far as this one has heard, and what the cluster uses.
#[derive(Debug)]
pub(crate) struct Formats {
    ours: Knows,
    /// The cluster's, as of what is applied here.
    current: AtomicU32,
    cluster_id: Mutex<Option<ClusterId>>,
    theirs: Mutex<BTreeMap<MasterId, Knows>>,
    exit: Exit,
}

impl Formats {
    pub(super) fn new(ours: Knows, exit: Exit) -> Self {
        Self {
            ours,
            current: AtomicU32::new(Format::FIRST.0),
            cluster_id: Mutex::default(),
            theirs: Mutex::default(),
            exit,
        }
    }

    /// What this master knows.
    pub(super) fn ours(&self) -> &Knows {
        &self.ours
    }

    /// The same, as others are told.
    pub(super) fn said(&self) -> Knows {
        Knows {
            cluster_id: *self.cluster_id.lock(),
            ..self.ours.clone()
        }
    }

    /// What another one knows; none while there is no connection to it.
    pub(super) fn theirs(&self, master: MasterId) -> Option<Knows> {
        self.theirs.lock().get(&master).cloned()
    }

    /// What another one promises to a leader, at least.
    pub(super) fn pace_of(&self, master: MasterId) -> Pace {
        let theirs = self.theirs.lock();
        theirs
            .get(&master)
            .map(|knows| knows.pace)
            .unwrap_or_default()
    }

    /// The cluster's.
    pub(crate) fn current(&self) -> Format {
        Format(self.current.load(Ordering::Acquire))
    }

    /// The registry is this now, by what is applied.
    pub(super) fn follow(&self, registry: &Registry) {
        self.current.store(registry.format().0, Ordering::Release);
        *self.cluster_id.lock() = registry.cluster_id();
    }

    /// Another master has said what it knows.
    pub(super) fn heard(&self, master: MasterId, mut knows: Knows) {
        if let Some((end, _)) = knows.release.char_indices().nth(RELEASE_CHARS_MAX) {
            knows.release.truncate(end);
        }
        knows.pace = knows.pace.checked();
        self.theirs.lock().insert(master, knows);
    }

    /// The connection to it has ended: it may come back as another release.
    pub(super) fn lost(&self, master: MasterId) {
        self.theirs.lock().remove(&master);
    }

    /// The cluster uses this format, or is about to: a master that does not know it must stop.
    ///
    /// # Errors
    /// It does not; the process is ending.
    pub(super) fn expect(&self, format: Format) -> Result<(), ExitReason> {
        if format <= self.ours.newest {
            return Ok(());
        }
        let reason = ExitReason::TooOld {
            format: format.0,
            newest: self.ours.newest.0,
        };
        self.exit.end(reason.clone());
        Err(reason)
    }

    /// Why a master may not become a member; none if it may.
    pub(super) fn refuses(&self, knows: Option<&Knows>) -> Option<String> {
        let current = self.current();
        let (knows, ours) = (knows?, *self.cluster_id.lock());
        if let (Some(theirs), Some(ours)) = (knows.cluster_id, ours)
            && theirs != ours
        {
            // Its log is another one: it must not be taken for a shorter one of this cluster.
            return Some(format!(
                "its data directory is of cluster {theirs}, and this is cluster {ours} (wrong_cluster): name masters of its own cluster with --join, or give it an empty data directory"
            ));
        }
        if knows.newest < current {
            return Some(format!(
                "the cluster is of format {current}, and release {} knows up to {} (too_old): start it with the release of the other masters, see `meros masters list`",
                knows.release, knows.newest
            ));
        }
        (knows.oldest > current).then(|| {
            format!(
                "the cluster is of format {current}, and release {} knows from {} (too_new): bring all masters to a release in between first",
                knows.release, knows.oldest
            )
        })
    }

    /// The newest format that all of these know, and this master, too; none while not all have said.
    pub(super) fn common<'a>(&self, members: impl Iterator<Item = &'a MasterId>) -> Option<Format> {
        let theirs = self.theirs.lock();
        members
            .map(|id| theirs.get(id).map(|knows| knows.newest))
            .try_fold(self.ours.newest, |least, newest| Some(least.min(newest?)))
    }
}

impl Service {
    /// For as long as this master runs: while it leads it raises the format when all members know a newer
    /// one.
    pub(super) async fn keep_format(self) {
        loop {
            sleep(LOOK).await;
            if !self.leadership.is_acting() {
                continue;
            }
            let (members, _) = self.status.members();
            let others = members.keys().filter(|id| **id != self.master_id);
            match self.formats.common(others) {
                Some(format) if format > self.formats.current() => self.raise(format).await,
                _ => {}
            }
        }
    }

    async fn raise(&self, format: Format) {
        let batch = Batch {
            // Of no reign: it is true in each.
            reign: Reign {
                master: self.master_id,
                number: 0,
            },
            body: Body::Commands(vec![(0, Command::RaiseFormat { format })]),
            check: None,
        };
        match timeout(RAISE_TIMEOUT, self.raft.client_write(batch)).await {
            Ok(Ok(_)) => info!(
                %format,
                "all masters know a newer format: older releases can no longer be masters of this cluster"
            ),
            Ok(Err(error)) => debug!(%error, "the format was not raised"),
            Err(_) => debug!("the format was not raised in time"),
        }
    }
}
