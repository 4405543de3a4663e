//! The registry: the configured truth, the same on every master (architecture decision 4).
//!
//! Invariants: M10 it is a function of the commands applied, in order; applying is total. M11 an
//! id is given out once. Absent: connections, tasks, time.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId};
use meros_proto::maintenance::Unavailability;
use meros_proto::minimum::Minimum;
use meros_proto::quota::Quota;
use meros_proto::resources::Scalar;
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveDescription, SlaveMode};
use meros_proto::state::{LeaseName, Numbered, SessionId, SpaceId, StateChange};
use meros_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::format::Format;
use crate::settings::ClusterSetting;
use crate::state::{Applied, State};

/// How long a slave is known as gone; then it is unknown (semantics K9).
pub const GONE_FOR: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The most slaves that are known as gone; the longest gone are forgotten (semantics K9).
pub const GONE_MAX: usize = 102_400;

/// Why a committed command changed nothing. Not an error: it no longer fits what was committed
/// before it, and every master finds the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// A second cluster cannot be formed in the first.
    #[error("the cluster is formed already")]
    FormedAlready,
    /// The id is not the next one.
    #[error("the id is not the next one to give out")]
    NotTheNextId,
    /// There is no such slave.
    #[error("the slave is not a member")]
    NoSuchSlave,
    /// There is no such framework.
    #[error("the framework is not known")]
    NoSuchFramework,
    /// It is as the command asks for.
    #[error("it is so already")]
    SoAlready,
}

/// A slave that is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaveRecord {
    /// The name in the certificate it was admitted with.
    pub principal: String,
    /// What it is and has.
    pub slave: SlaveDescription,
    /// Since when it is a member.
    pub admitted_at: Timestamp,
    /// Set while it is given up (semantics K4).
    pub unreachable_since: Option<Timestamp>,
    /// What operators have decided about it. Absent in snapshots of older versions, as the next.
    #[serde(default)]
    pub mode: SlaveMode,
    /// Since when.
    #[serde(default)]
    pub mode_since: Timestamp,
}

/// A framework that is not removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkRecord {
    /// The name in the certificate it was admitted with.
    pub principal: String,
    /// What it says of itself.
    pub framework: FrameworkDescription,
    /// Roles without offers, as of its last subscription (semantics N6).
    pub suppressed_roles: Vec<RoleName>,
    /// Since when it is known.
    pub admitted_at: Timestamp,
}

/// All that is replicated. The shell stores it as a snapshot and as the commands since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    cluster_id: Option<ClusterId>,
    slave_next: u32,
    framework_next: u32,
    slaves: BTreeMap<SlaveId, SlaveRecord>,
    frameworks: BTreeMap<FrameworkId, FrameworkRecord>,
    // Absent in snapshots of older versions.
    #[serde(default)]
    quotas: BTreeMap<RoleName, Quota>,
    #[serde(default)]
    weights: BTreeMap<RoleName, Scalar>,
    /// Slaves that were declared gone, and when; the latest only.
    #[serde(default)]
    gone: BTreeMap<SlaveId, Timestamp>,
    #[serde(default)]
    maintenance: BTreeMap<SlaveId, Unavailability>,
    #[serde(default)]
    state: State,
    #[serde(default)]
    minimums: BTreeMap<RoleName, Minimum>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    settings: BTreeMap<ClusterSetting, u64>,
}

impl Registry {
    /// Applies a committed command.
    ///
    /// # Errors
    /// The command no longer fits; the registry is unchanged.
    pub fn apply(&mut self, command: &Command) -> Result<(), NotApplied> {
        match command {
            Command::FormCluster { cluster_id } => {
                if self.cluster_id.is_some() {
                    return Err(NotApplied::FormedAlready);
                }
                self.cluster_id = Some(*cluster_id);
            }
            Command::AdmitSlave {
                slave_id,
                principal,
                slave,
                at,
            } => {
                self.slave_next = next_id(self.slave_next, slave_id.0)?;
                let record = SlaveRecord {
                    principal: principal.clone(),
                    slave: slave.clone(),
                    admitted_at: *at,
                    unreachable_since: None,
                    mode: SlaveMode::default(),
                    mode_since: Timestamp::default(),
                };
                self.slaves.insert(*slave_id, record);
            }
            Command::UpdateSlave { slave_id, slave } => {
                self.slave_mut(*slave_id)?.slave = slave.clone();
            }
            Command::MarkSlaveUnreachable { slave_id, at } => {
                let record = self.slave_mut(*slave_id)?;
                if record.unreachable_since.is_some() {
                    return Err(NotApplied::SoAlready);
                }
                record.unreachable_since = Some(*at);
            }
            Command::MarkSlaveReachable { slave_id } => {
                let record = self.slave_mut(*slave_id)?;
                record
                    .unreachable_since
                    .take()
                    .ok_or(NotApplied::SoAlready)?;
            }
            Command::RemoveSlave { slave_id, at: _ } => {
                self.slaves
                    .remove(slave_id)
                    .ok_or(NotApplied::NoSuchSlave)?;
                self.maintenance.remove(slave_id);
            }
            Command::AdmitFramework {
                framework_id,
                principal,
                framework,
                suppressed_roles,
                at,
            } => {
                self.framework_next = next_id(self.framework_next, framework_id.0)?;
                let record = FrameworkRecord {
                    principal: principal.clone(),
                    framework: framework.clone(),
                    suppressed_roles: suppressed_roles.clone(),
                    admitted_at: *at,
                };
                self.frameworks.insert(*framework_id, record);
            }
            Command::UpdateFramework {
                framework_id,
                framework,
                suppressed_roles,
            } => {
                let record = self
                    .frameworks
                    .get_mut(framework_id)
                    .ok_or(NotApplied::NoSuchFramework)?;
                record.framework = framework.clone();
                record.suppressed_roles.clone_from(suppressed_roles);
            }
            Command::RemoveFramework {
                framework_id,
                at: _,
            } => {
                self.frameworks
                    .remove(framework_id)
                    .ok_or(NotApplied::NoSuchFramework)?;
            }
            Command::SetQuotas { quotas } => {
                for (role, quota) in quotas {
                    if quota.is_empty() {
                        self.quotas.remove(role);
                    } else {
                        self.quotas.insert(role.clone(), quota.clone());
                    }
                }
            }
            Command::SetWeights { weights } => {
                for (role, weight) in weights {
                    if *weight == Scalar::ONE {
                        self.weights.remove(role);
                    } else {
                        self.weights.insert(role.clone(), *weight);
                    }
                }
            }
            Command::SetSlaveMode { slave_id, mode, at } => {
                let record = self.slave_mut(*slave_id)?;
                record.mode = *mode;
                record.mode_since = *at;
            }
            Command::MarkSlaveGone { slave_id, at } => {
                self.slaves
                    .remove(slave_id)
                    .ok_or(NotApplied::NoSuchSlave)?;
                self.maintenance.remove(slave_id);
                self.remember_gone(*slave_id, *at);
            }
            Command::SetMaintenance { windows } => {
                for (slave_id, window) in windows {
                    match window {
                        // One that has left meanwhile needs none.
                        Some(window) if self.slaves.contains_key(slave_id) => {
                            self.maintenance.insert(*slave_id, *window);
                        }
                        _ => {
                            self.maintenance.remove(slave_id);
                        }
                    }
                }
            }
            Command::ChangeState { space, by, change } => {
                self.change_state(space, *by, change);
            }
            Command::EndStateSession { space, session } => {
                self.end_state_session(space, *session);
            }
            Command::RaiseFormat { format } => {
                if *format <= self.format {
                    return Err(NotApplied::SoAlready);
                }
                self.format = *format;
            }
            Command::SetSettings { settings } => {
                for (setting, value) in settings {
                    match value {
                        Some(value) => drop(self.settings.insert(*setting, *value)),
                        None => drop(self.settings.remove(setting)),
                    }
                }
            }
            Command::SetMinimums { minimums } => {
                for (role, minimum) in minimums {
                    match minimum {
                        Some(minimum) => self.minimums.insert(role.clone(), minimum.clone()),
                        None => self.minimums.remove(role),
                    };
                }
            }
        }
        Ok(())
    }

    /// Applies a committed change of framework state; what comes of it is for the client.
    pub(crate) fn change_state(
        &mut self,
        space: &SpaceId,
        by: Option<Numbered>,
        change: &StateChange,
    ) -> Applied {
        self.state.apply(space, by, change)
    }

    /// Applies the end of a session; the leases that it was in are others' now.
    pub(crate) fn end_state_session(
        &mut self,
        space: &SpaceId,
        session: SessionId,
    ) -> Vec<LeaseName> {
        self.state.end_session(space, session)
    }

    /// What this registry may hold.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What operators have set for the cluster: milliseconds or numbers.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<ClusterSetting, u64> {
        &self.settings
    }

    /// Framework state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Keeps what is needed to tell a slave and its frameworks for a while that it is gone (semantics
    /// K9). Time comes with the commands, so that every master forgets the same.
    fn remember_gone(&mut self, slave_id: SlaveId, at: Timestamp) {
        self.gone.retain(|_, then| at.since(*then) < GONE_FOR);
        self.gone.insert(slave_id, at);
        if self.gone.len() > GONE_MAX
            && let Some((oldest, _)) = self.gone.iter().min_by_key(|(_, then)| **then)
        {
            let oldest = *oldest;
            self.gone.remove(&oldest);
        }
    }

    fn slave_mut(&mut self, slave_id: SlaveId) -> Result<&mut SlaveRecord, NotApplied> {
        self.slaves
            .get_mut(&slave_id)
            .ok_or(NotApplied::NoSuchSlave)
    }

    /// The cluster; none until its first command is applied.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// A member.
    #[must_use]
    pub fn slave(&self, slave_id: SlaveId) -> Option<&SlaveRecord> {
        self.slaves.get(&slave_id)
    }

    /// All members, by id.
    pub fn slaves(&self) -> impl Iterator<Item = (SlaveId, &SlaveRecord)> {
        self.slaves.iter().map(|(id, record)| (*id, record))
    }

    /// The slaves whose maintenance is planned, windows that are over included.
    #[must_use]
    pub fn maintenance(&self) -> &BTreeMap<SlaveId, Unavailability> {
        &self.maintenance
    }

    /// Whether a slave was declared gone not too long ago.
    #[must_use]
    pub fn is_gone_slave(&self, slave_id: SlaveId) -> bool {
        self.gone.contains_key(&slave_id)
    }

    /// A framework that is not removed.
    #[must_use]
    pub fn framework(&self, framework_id: FrameworkId) -> Option<&FrameworkRecord> {
        self.frameworks.get(&framework_id)
    }

    /// All frameworks, by id.
    pub fn frameworks(&self) -> impl Iterator<Item = (FrameworkId, &FrameworkRecord)> {
        self.frameworks.iter().map(|(id, record)| (*id, record))
    }

    /// The roles that have a quota, by name.
    #[must_use]
    pub fn quotas(&self) -> &BTreeMap<RoleName, Quota> {
        &self.quotas
    }

    /// The roles that have another weight than 1, by name.
    #[must_use]
    pub fn weights(&self) -> &BTreeMap<RoleName, Scalar> {
        &self.weights
    }

    /// The roles for which it is set what is worth an offer, by name.
    #[must_use]
    pub fn minimums(&self) -> &BTreeMap<RoleName, Minimum> {
        &self.minimums
    }

    /// Whether the framework was here once and has been removed (semantics N4). Ids are given out
    /// in order, so this needs no memory of the removed.
    #[must_use]
    pub fn is_removed_framework(&self, framework_id: FrameworkId) -> bool {
        framework_id.0 < self.framework_next && !self.frameworks.contains_key(&framework_id)
    }

    /// Leaves out so many ids, which may have been given out by masters that know more than this registry:
    /// for one that is restored from a copy.
    pub fn pass_over_ids(&mut self, count: u32) {
        self.slave_next = self.slave_next.saturating_add(count);
        self.framework_next = self.framework_next.saturating_add(count);
        self.state.pass_over(u64::from(count) << 32);
    }

    /// The id of the next slave.
    #[must_use]
    pub fn slave_next(&self) -> u32 {
        self.slave_next
    }

    /// The id of the next framework.
    #[must_use]
    pub fn framework_next(&self) -> u32 {
        self.framework_next
    }
}

/// Ids are given out without gaps, so that tables can be dense.
fn next_id(next: u32, given: u32) -> Result<u32, NotApplied> {
    if given != next {
        return Err(NotApplied::NotTheNextId);
    }
    next.checked_add(1).ok_or(NotApplied::NotTheNextId)
}
