//! Framework state: spaces of keys, sessions and leases, a part of the registry
//! (docs/decisions/0012-framework-state.md).
//!
//! Invariants: M16 a change is carried out whole or not at all, and a numbered one once; M17 at most as
//! many hold a lease as it has permits, and tokens grow from holder to holder; M18 everything is
//! within its bound. Absent: time (who keeps time proposes that a session ends), waiting, connections.

mod lease;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::state::{
    Changed, LeaseName, LeaseView, Numbered, Revision, SessionId, SpaceId, SpaceName, SpaceView,
    StateAnswer, StateBound, StateChange, StateKey, StateRefusal,
};
use serde::{Deserialize, Serialize};

use space::{Space, over};

/// The most spaces of one principal: a framework needs one, a program with several some more.
pub const SPACES_PER_PRINCIPAL_MAX: usize = 4;
/// The most spaces of a cluster.
pub const SPACES_MAX: usize = 1_024;
/// The most keys of a space.
pub const KEYS_MAX: usize = 4_096;
/// The most bytes of a space: those of its keys and values, and [`KEY_OVERHEAD_BYTES`] for each key.
pub const SPACE_BYTES_MAX: u64 = 2 << 20;
/// What a key takes beside its bytes.
pub const KEY_OVERHEAD_BYTES: u64 = 64;
/// The most bytes of all spaces together. All of it is in each master's memory and in each snapshot,
/// and is hashed each 256 entries of the log.
pub const STATE_BYTES_MAX: u64 = 32 << 20;
/// The most bytes of the keys and values of one transaction, conditions included.
pub const TRANSACTION_BYTES_MAX: usize = 512 << 10;
/// The most sessions of a space.
pub const SESSIONS_PER_SPACE_MAX: usize = 256;
/// The most sessions of a cluster: the leader keeps a deadline for each.
pub const SESSIONS_MAX: usize = 4_096;
/// The most holders and waiters of all leases of a space together.
pub const HOLDS_PER_SPACE_MAX: usize = 1_024;
/// The longest name of a holder, in bytes.
pub const HOLDER_BYTES_MAX: usize = 256;
/// Deleted keys that a space remembers, for those who watch it; and the bytes of them.
pub const DELETED_KEYS_MAX: usize = 256;
/// See [`DELETED_KEYS_MAX`].
pub const DELETED_BYTES_MAX: usize = 16 << 10;

/// What carrying out a change has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer. That of the first time, if the change was sent again.
    pub outcome: Result<Changed, StateRefusal>,
    /// Leases whose queue has changed.
    pub leases: Vec<LeaseName>,
}

/// All spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last change.
    revision: Revision,
    /// Of spaces that are not there, deletions up to here are forgotten.
    forgotten: Revision,
    spaces: BTreeMap<String, BTreeMap<SpaceName, Space>>,
}

/// Counts of all spaces together, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Spaces.
    pub spaces: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes that count towards [`STATE_BYTES_MAX`].
    pub bytes: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Leases that are held.
    pub leases: u64,
}

impl State {
    /// Carries out a committed change. Total: what cannot be done is an answer.
    pub fn apply(&mut self, id: &SpaceId, by: Option<Numbered>, change: &StateChange) -> Applied {
        let mut leases = Vec::new();
        let outcome = match self.repeated(id, by) {
            Some(outcome) => outcome,
            None => {
                let outcome = self.change(id, by, change, &mut leases);
                self.remember(id, by, &outcome);
                outcome
            }
        };
        self.drop_if_empty(id);
        Applied { outcome, leases }
    }

    /// Ends a session whose time is over; nothing if it has ended.
    pub fn end_session(&mut self, id: &SpaceId, session: SessionId) -> Vec<LeaseName> {
        let mut leases = Vec::new();
        let revision = self.next();
        let ended = self
            .space_mut(id)
            .is_some_and(|space| space.close(session, revision, &mut leases));
        if ended {
            self.revision = revision;
        }
        self.drop_if_empty(id);
        leases
    }

    /// For a state that is restored from a copy: leaves out so many revisions, which may have been
    /// tokens, ends all sessions, whose clients know of later changes, and lets watchers list anew.
    pub(crate) fn pass_over(&mut self, revisions: u64) {
        self.revision.0 = self.revision.0.saturating_add(revisions);
        self.forgotten = self.revision;
        for spaces in self.spaces.values_mut() {
            for space in spaces.values_mut() {
                space.restart(self.forgotten);
            }
            spaces.retain(|_, space| !space.is_empty());
        }
        self.spaces.retain(|_, spaces| !spaces.is_empty());
    }

    /// The answer to a numbered change that is not to be carried out (again).
    fn repeated(
        &self,
        id: &SpaceId,
        by: Option<Numbered>,
    ) -> Option<Result<Changed, StateRefusal>> {
        let Numbered { session, number } = by?;
        let Some(last) = self.space(id).and_then(|space| space.session(session)) else {
            return Some(Err(StateRefusal::SessionEnded { session }));
        };
        let (last, outcome) = last.last()?;
        match number.cmp(&last) {
            std::cmp::Ordering::Less => Some(Err(StateRefusal::Outdated { number })),
            std::cmp::Ordering::Equal => Some(outcome.clone()),
            std::cmp::Ordering::Greater => None,
        }
    }

    fn remember(
        &mut self,
        id: &SpaceId,
        by: Option<Numbered>,
        outcome: &Result<Changed, StateRefusal>,
    ) {
        if let Some(Numbered { session, number }) = by
            && let Some(space) = self.space_mut(id)
        {
            space.remember(session, number, outcome.clone());
        }
    }

    fn change(
        &mut self,
        id: &SpaceId,
        by: Option<Numbered>,
        change: &StateChange,
        leases: &mut Vec<LeaseName>,
    ) -> Result<Changed, StateRefusal> {
        let revision = self.next();
        let session = by.map(|by| by.session);
        let changed = match change {
            StateChange::Open { holder, ttl } => {
                if self.totals().sessions >= SESSIONS_MAX as u64 {
                    return over(StateBound::AllSessions, SESSIONS_MAX);
                }
                self.space_or_new(id)?.open(holder, *ttl, revision)?
            }
            StateChange::Close => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                let space = self
                    .space_mut(id)
                    .ok_or(StateRefusal::SessionEnded { session })?;
                space.close(session, revision, leases);
                Changed::Done { revision }
            }
            StateChange::Commit {
                conditions,
                operations,
            } => {
                let room = STATE_BYTES_MAX.saturating_sub(self.totals().bytes);
                let present = self.revision;
                let space = self.space_or_new(id)?;
                let has_changed = space.commit(conditions, operations, room, revision)?;
                if !has_changed {
                    return Ok(Changed::Done { revision: present });
                }
                Changed::Done { revision }
            }
            StateChange::Acquire {
                lease,
                permits,
                wait,
            } => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                let space = self
                    .space_mut(id)
                    .ok_or(StateRefusal::SessionEnded { session })?;
                let queued = space.acquire(session, lease, *permits, *wait, revision)?;
                leases.push(lease.clone());
                queued
            }
            StateChange::Release { lease, token } => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                let space = self
                    .space_mut(id)
                    .ok_or(StateRefusal::SessionEnded { session })?;
                space.release(session, lease, *token, revision)?;
                leases.push(lease.clone());
                Changed::Done { revision }
            }
            StateChange::Clear => {
                if let Some(spaces) = self.spaces.get_mut(&id.principal)
                    && let Some(space) = spaces.remove(&id.name)
                {
                    leases.extend(space.leases().map(|view| view.lease));
                    if spaces.is_empty() {
                        self.spaces.remove(&id.principal);
                    }
                    self.forgotten = revision;
                }
                Changed::Done { revision }
            }
        };
        self.revision = revision;
        Ok(changed)
    }

    fn next(&self) -> Revision {
        // 2^64 changes take longer than any cluster lives.
        Revision(self.revision.0.saturating_add(1))
    }

    fn space(&self, id: &SpaceId) -> Option<&Space> {
        self.spaces.get(&id.principal)?.get(&id.name)
    }

    fn space_mut(&mut self, id: &SpaceId) -> Option<&mut Space> {
        self.spaces.get_mut(&id.principal)?.get_mut(&id.name)
    }

    fn space_or_new(&mut self, id: &SpaceId) -> Result<&mut Space, StateRefusal> {
        if self.space(id).is_none() {
            let of_principal = self.spaces.get(&id.principal);
            if of_principal.is_some_and(|spaces| spaces.len() >= SPACES_PER_PRINCIPAL_MAX) {
                return over(StateBound::Spaces, SPACES_PER_PRINCIPAL_MAX);
            }
            if self.spaces.values().map(BTreeMap::len).sum::<usize>() >= SPACES_MAX {
                return over(StateBound::AllSpaces, SPACES_MAX);
            }
        }
        let forgotten = self.forgotten;
        let spaces = self.spaces.entry(id.principal.clone()).or_default();
        let space = spaces.entry(id.name.clone());
        Ok(space.or_insert_with(|| Space::new(forgotten)))
    }

    /// A space without anything in it takes no room.
    fn drop_if_empty(&mut self, id: &SpaceId) {
        let Some(spaces) = self.spaces.get_mut(&id.principal) else {
            return;
        };
        if let Some(space) = spaces.get(&id.name)
            && space.is_empty()
        {
            // Nothing is forgotten with one that never held anything.
            if space.has_forgotten_or_deleted() {
                self.forgotten = self.revision;
            }
            spaces.remove(&id.name);
        }
        if spaces.is_empty() {
            self.spaces.remove(&id.principal);
        }
    }

    // ---- reads --------------------------------------------------------------------------

    /// The last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Some keys.
    #[must_use]
    pub fn read(&self, id: &SpaceId, keys: &[StateKey]) -> StateAnswer {
        let entries = self.space(id).map(|space| space.read(keys));
        StateAnswer::Entries {
            revision: self.revision,
            entries: entries.unwrap_or_default(),
            more: false,
        }
    }

    /// Keys that begin with `prefix`, after `after`.
    #[must_use]
    pub fn list(&self, id: &SpaceId, prefix: &str, after: Option<&StateKey>) -> StateAnswer {
        let listed = self.space(id).map(|space| space.list(prefix, after));
        let (entries, more) = listed.unwrap_or_default();
        StateAnswer::Entries {
            revision: self.revision,
            entries,
            more,
        }
    }

    /// What has become of keys that begin with `prefix` after a revision; none while nothing has.
    ///
    /// # Errors
    /// [`StateRefusal::Compacted`].
    pub fn changes(
        &self,
        id: &SpaceId,
        prefix: &str,
        after: Revision,
    ) -> Result<Option<StateAnswer>, StateRefusal> {
        let space = self.space(id);
        let forgotten = space.map_or(self.forgotten, Space::forgotten);
        // A revision that is still to come is one of another cluster, or of a lost one.
        if after < forgotten || after > self.revision {
            return Err(StateRefusal::Compacted {
                revision: self.revision,
            });
        }
        let found = space.map(|space| space.changes(prefix, after));
        let (changes, cut_at) = found.unwrap_or_default();
        Ok((!changes.is_empty()).then(|| StateAnswer::Changes {
            revision: cut_at.unwrap_or(self.revision),
            changes,
        }))
    }

    /// A lease; without holders if there is none of this name.
    #[must_use]
    pub fn lease(&self, id: &SpaceId, lease: &LeaseName) -> LeaseView {
        let view = self.space(id).and_then(|space| space.lease(lease));
        view.unwrap_or_else(|| LeaseView {
            lease: lease.clone(),
            permits: 0,
            revision: Revision(0),
            queue: Vec::new(),
        })
    }

    /// All leases of a space, by name.
    #[must_use]
    pub fn leases(&self, id: &SpaceId) -> Vec<LeaseView> {
        let views = self.space(id).map(|space| space.leases().collect());
        views.unwrap_or_default()
    }

    /// The time to live of a session that is open.
    #[must_use]
    pub fn session_ttl(&self, id: &SpaceId, session: SessionId) -> Option<Duration> {
        Some(self.space(id)?.session(session)?.ttl())
    }

    /// All open sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SpaceId, SessionId, Duration)> {
        self.iter().flat_map(|(id, space)| {
            let sessions = space.sessions();
            sessions.map(move |(session, row)| (id.clone(), session, row.ttl()))
        })
    }

    /// All spaces, for operators.
    #[must_use]
    pub fn views(&self) -> Vec<SpaceView> {
        let view = |(space, row): (SpaceId, &Space)| {
            let totals = row.totals();
            SpaceView {
                space,
                keys: totals.keys,
                bytes: totals.bytes,
                sessions: totals.sessions,
                leases: totals.leases,
            }
        };
        self.iter().map(view).collect()
    }

    /// Counts of all together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (_, space) in self.iter() {
            let of_space = space.totals();
            totals.spaces += 1;
            totals.keys += of_space.keys;
            totals.bytes += of_space.bytes;
            totals.sessions += of_space.sessions;
            totals.leases += of_space.leases;
        }
        totals
    }

    fn iter(&self) -> impl Iterator<Item = (SpaceId, &Space)> {
        self.spaces.iter().flat_map(|(principal, spaces)| {
            spaces.iter().map(|(name, space)| {
                let id = SpaceId {
                    principal: principal.clone(),
                    name: name.clone(),
                };
                (id, space)
            })
        })
    }

    /// M17, M18: for tests.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let totals = self.totals();
        if totals.bytes > STATE_BYTES_MAX || totals.sessions > SESSIONS_MAX as u64 {
            return Err(format!("{totals:?} is over a bound"));
        }
        for (id, space) in self.iter() {
            space
                .check(self.revision)
                .map_err(|why| format!("{id}: {why}"))?;
        }
        Ok(())
    }
}
