//! What was reserved or made a volume here at run time (semantics D3, D6, D7).
//!
//! The slave is the one that knows: it writes a change down before it says that it is done, and tells
//! each master what it holds when it registers. Volumes have directories with names that are never
//! used again, so a volume that is made under the name of a destroyed one finds nothing of it.
//!
//! Invariants: S16 what the slave has is what is declared with its claims; S17 each volume has its
//! directory, and what is wiped is no volume's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use meros_proto::message::master::SlaveToMaster;
use meros_proto::mutant::Mutant;
use meros_proto::operation::{
    Change, ChangeKind, DecidedOperation, OPERATIONS_PENDING_MAX, OperationNumber, Parts,
};
use meros_proto::resources::{Resource, Resources};
use meros_proto::role::RoleName;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::registration::Link;
use crate::{Awaiting, Effect, Effects, Record, SlaveCore};

/// The most directories that wait to be wiped; beyond it no volume is destroyed. As many as there can
/// be volumes.
pub const WIPING_MAX: usize = Resources::CLAIMS_MAX;
/// Of a persistence id so much is in the name of its directory, for people.
const DIRECTORY_ID_CHARS: usize = 64;

/// Of why an operation was refused so much is kept, in characters: up to
/// [`OPERATIONS_PENDING_MAX`] answers go to the master in one frame.
const REFUSED_CHARS_MAX: usize = 512;

/// A volume on one slave: the role that it is reserved for, and its persistence id.
pub type VolumeKey = (RoleName, String);

/// The directory of a volume, below the folder of all volumes: a file name of letters, digits and
/// `._-`, never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeDirectory(String);

impl VolumeDirectory {
    /// The `number`-th of this slave, for a volume with this id.
    fn new(id: &str, number: u64) -> Self {
        let plain = |c: char| match c.is_ascii_alphanumeric() || "._-".contains(c) {
            true => c,
            false => '_',
        };
        let id: String = id.chars().take(DIRECTORY_ID_CHARS).map(plain).collect();
        Self(format!("{id}.{number}"))
    }

    /// The file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A volume in the sandbox of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// Where its data is.
    pub directory: VolumeDirectory,
    /// Where the task finds it, relative to its sandbox, without `..`; beside those of its other
    /// volumes.
    pub container_path: String,
}

/// What is remembered of claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What is reserved dynamically, and volumes.
    pub resources: Resources,
    /// The directory of each volume.
    pub volumes: BTreeMap<VolumeKey, VolumeDirectory>,
    /// Directories of volumes that were destroyed and may still be there.
    pub wiping: BTreeSet<VolumeDirectory>,
    /// How many volumes there ever were.
    pub volumes_made: u64,
    /// The latest operations, for a master that has not heard.
    pub decided: VecDeque<DecidedOperation>,
}

impl Claims {
    /// A new one, with nothing in it.
    fn give_directory(&mut self, volume: VolumeKey) {
        self.volumes_made += 1;
        let directory = VolumeDirectory::new(&volume.1, self.volumes_made);
        self.volumes.insert(volume, directory);
    }

    fn note(&mut self, number: OperationNumber, refused: Option<String>) {
        let refused = refused.map(|why| why.chars().take(REFUSED_CHARS_MAX).collect());
        self.decided.push_back(DecidedOperation { number, refused });
        if self.decided.len() > OPERATIONS_PENDING_MAX {
            self.decided.pop_front();
        }
    }
}

impl SlaveCore {
    /// Carries out an operation, or reports to the master anew: it believed something to be here
    /// that is not.
    pub(crate) fn on_change(
        &mut self,
        link: Link,
        number: OperationNumber,
        change: &Change,
        effects: &mut Effects,
    ) {
        if self.going.is_some() {
            // With its next registration the master hears that it was not done.
            self.counters.messages_ignored += 1;
            return;
        }
        match self.apply_change(change) {
            Ok(wiped) => {
                info!(kind = %change.kind, resources = %change.resources, "resources changed");
                self.counters.changes_applied += 1;
                self.claims.note(number, None);
                let awaiting = Awaiting::Change { number, wiped };
                self.claims_record = self.persist_for(self.claims_changed(), awaiting, effects);
                if Mutant::ConfirmBeforePersist.is_on() {
                    self.confirm(number, effects);
                }
            }
            Err(why) => {
                warn!(kind = %change.kind, resources = %change.resources, why, "an operation cannot be done");
                self.counters.changes_refused += 1;
                self.claims.note(number, Some(why));
                self.claims_record = self.persist(self.claims_changed(), effects);
                self.leave_master(link, None, effects);
            }
        }
    }

    /// Changes what the slave has; the directories that are no volume's any more, or why nothing has
    /// changed.
    fn apply_change(&mut self, change: &Change) -> Result<Vec<VolumeDirectory>, String> {
        let Parts { from, to } = change.parts().map_err(|error| error.to_string())?;
        let changed = |sum: &Resources| {
            let changed = sum.replace(&from, &to);
            changed.map_err(|error| error.to_string())
        };
        let (free, total) = (changed(&self.free)?, changed(&self.total)?);
        total.check_claims().map_err(|error| error.to_string())?;
        let volumes = change.resources.iter().filter_map(key_of);
        if change.kind == ChangeKind::Destroy
            && self.claims.wiping.len() + volumes.clone().count() > WIPING_MAX
        {
            return Err("too many volumes are being wiped".to_owned());
        }
        if change.kind != ChangeKind::Create
            && let Some((_, id)) = volumes.clone().find(|key| self.is_being_left(key))
        {
            return Err(format!(
                "volume {id} is used by a task that is being killed"
            ));
        }
        self.free = free;
        self.claims.resources = total.claims();
        self.total = total;
        let mut wiped = Vec::new();
        for key in volumes {
            match change.kind {
                ChangeKind::Create => self.claims.give_directory(key),
                ChangeKind::Destroy => {
                    let directory = self.claims.volumes.remove(&key);
                    let directory = directory.expect("S17: each volume has its directory");
                    self.claims.wiping.insert(directory.clone());
                    wiped.push(directory);
                }
                // With its directory a volume keeps its data.
                ChangeKind::Grow | ChangeKind::Shrink => {
                    if Mutant::MoveResized.is_on() {
                        self.claims.give_directory(key);
                    }
                }
                ChangeKind::Reserve | ChangeKind::Unreserve => {}
            }
        }
        Ok(wiped)
    }

    /// Whether a volume that is free is in the hands of a task whose framework is gone.
    pub(crate) fn is_being_left(&self, volume: &VolumeKey) -> bool {
        let abandoned = self.tasks.values().filter(|task| task.abandoned);
        let mut held = abandoned.flat_map(|task| task.run.task.resources.iter());
        held.any(|it| key_of(it).as_ref() == Some(volume))
    }

    /// An operation is durable: it may be told, and data that nobody can find any more may go.
    pub(crate) fn on_change_durable(
        &mut self,
        number: OperationNumber,
        wiped: Vec<VolumeDirectory>,
        effects: &mut Effects,
    ) {
        if !Mutant::ConfirmBeforePersist.is_on() {
            self.confirm(number, effects);
        }
        for directory in wiped {
            effects.push(Effect::WipeVolume { directory });
        }
    }

    fn confirm(&self, number: OperationNumber, effects: &mut Effects) {
        // To a master that is not there any more it is said with the next registration.
        if let Some(link) = self.link.filter(Link::is_registered) {
            effects.push(Effect::Send {
                connection: link.connection,
                message: SlaveToMaster::ChangeApplied { number },
            });
        }
    }

    pub(crate) fn on_volume_wiped(&mut self, directory: &VolumeDirectory, effects: &mut Effects) {
        if self.claims.wiping.remove(directory) {
            self.counters.volumes_wiped += 1;
            self.claims_record = self.persist(self.claims_changed(), effects);
        }
    }

    /// It has no id any more: whoever it registers with next has ordered nothing of what it has
    /// answered, and may count orders of its own by the same numbers.
    pub(crate) fn forget_answers(&mut self, effects: &mut Effects) {
        if !self.claims.decided.is_empty() {
            self.claims.decided.clear();
            self.claims_record = self.persist(self.claims_changed(), effects);
        }
    }

    fn claims_changed(&self) -> Record {
        Record::ClaimsChanged(Box::new(self.claims.clone()))
    }

    /// What is claimed, and what became of operations, said before a registration. Nothing if there is
    /// neither.
    pub(crate) fn report_claims(&self) -> Option<SlaveToMaster> {
        let claims = &self.claims;
        (!claims.resources.is_empty() || !claims.decided.is_empty()).then(|| {
            SlaveToMaster::ReportClaims {
                claims: claims.resources.clone(),
                decided: claims.decided.iter().cloned().collect(),
            }
        })
    }

    /// The volumes of a task that is about to start.
    pub(crate) fn mounted(&self, resources: &Resources) -> Vec<MountedVolume> {
        let volumes = resources.iter().filter_map(|resource| {
            let container_path = resource.volume()?.container_path().to_owned();
            let directory = self.claims.volumes.get(&key_of(resource)?);
            let directory = directory.expect("S17: each volume has its directory");
            Some(MountedVolume {
                directory: directory.clone(),
                container_path,
            })
        });
        volumes.collect()
    }
}

/// The key of a volume.
pub(crate) fn key_of(resource: &Resource) -> Option<VolumeKey> {
    let id = resource.volume()?.id().to_owned();
    Some((resource.reservations().role()?.clone(), id))
}
