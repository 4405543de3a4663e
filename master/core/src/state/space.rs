//! One space: its keys, the sessions of its clients, and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use meros_proto::state::{
    Changed, Condition, HoldView, KeyChange, LIST_BYTES_MAX, LIST_MAX, LeaseName, LeaseView,
    OPERATIONS_MAX, PERMITS_MAX, Revision, SessionId, StateBound, StateEntry, StateKey,
    StateOperation, StateRefusal, StateValue, TTL_MAX, TTL_MIN, Token,
};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::{
    DELETED_BYTES_MAX, DELETED_KEYS_MAX, HOLDER_BYTES_MAX, HOLDS_PER_SPACE_MAX, KEY_OVERHEAD_BYTES,
    KEYS_MAX, SESSIONS_PER_SPACE_MAX, SPACE_BYTES_MAX, TRANSACTION_BYTES_MAX, Totals,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    value: StateValue,
    created: Revision,
    modified: Revision,
}

/// A client that has shown signs of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    holder: String,
    ttl: Duration,
    /// The number of its last change, and what that was answered.
    last: Option<(u64, Result<Changed, StateRefusal>)>,
}

impl Session {
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn last(&self) -> Option<(u64, &Result<Changed, StateRefusal>)> {
        self.last
            .as_ref()
            .map(|(number, outcome)| (*number, outcome))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Space {
    keys: BTreeMap<StateKey, Value>,
    /// Of keys and values, and [`KEY_OVERHEAD_BYTES`] each.
    bytes: u64,
    /// The latest deletions, for watchers.
    deleted: BTreeSet<(Revision, StateKey)>,
    /// Deletions up to here may not be in `deleted`.
    forgotten: Revision,
    sessions: BTreeMap<SessionId, Session>,
    leases: BTreeMap<LeaseName, Lease>,
}

/// The refusal of what would be over a bound.
pub(super) fn over<T>(bound: StateBound, limit: usize) -> Result<T, StateRefusal> {
    Err(StateRefusal::OverLimit {
        bound,
        limit: limit as u64,
    })
}

fn cost(key: &StateKey, value: &StateValue) -> u64 {
    (key.as_str().len() + value.len()) as u64 + KEY_OVERHEAD_BYTES
}

impl Space {
    pub(super) fn new(forgotten: Revision) -> Self {
        Self {
            forgotten,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.sessions.is_empty() && self.leases.is_empty()
    }

    pub(super) fn has_forgotten_or_deleted(&self) -> bool {
        self.forgotten > Revision(0) || !self.deleted.is_empty()
    }

    pub(super) fn forgotten(&self) -> Revision {
        self.forgotten
    }

    /// Keeps the keys only.
    pub(super) fn restart(&mut self, forgotten: Revision) {
        self.sessions.clear();
        self.leases.clear();
        self.deleted.clear();
        self.forgotten = forgotten;
    }

    // ---- sessions -----------------------------------------------------------------------

    pub(super) fn session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    pub(super) fn open(
        &mut self,
        holder: &str,
        ttl: Duration,
        revision: Revision,
    ) -> Result<Changed, StateRefusal> {
        if holder.len() > HOLDER_BYTES_MAX {
            return over(StateBound::HolderBytes, HOLDER_BYTES_MAX);
        }
        if self.sessions.len() >= SESSIONS_PER_SPACE_MAX {
            return over(StateBound::Sessions, SESSIONS_PER_SPACE_MAX);
        }
        let session = SessionId(revision.0);
        let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
        let row = Session {
            holder: holder.to_owned(),
            ttl,
            last: None,
        };
        self.sessions.insert(session, row);
        Ok(Changed::Opened { session, ttl })
    }

    /// Ends a session and frees what it holds. Whether it was open.
    pub(super) fn close(
        &mut self,
        session: SessionId,
        revision: Revision,
        changed: &mut Vec<LeaseName>,
    ) -> bool {
        for (name, lease) in &mut self.leases {
            if lease.remove(session, None, revision) {
                changed.push(name.clone());
            }
        }
        self.leases.retain(|_, lease| !lease.queue.is_empty());
        self.sessions.remove(&session).is_some()
    }

    pub(super) fn remember(
        &mut self,
        session: SessionId,
        number: u64,
        outcome: Result<Changed, StateRefusal>,
    ) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.last = Some((number, outcome));
        }
    }

    // ---- transactions -------------------------------------------------------------------

    /// Carries out a transaction whole, or not at all. Whether anything has changed.
    pub(super) fn commit(
        &mut self,
        conditions: &[Condition],
        operations: &[StateOperation],
        room: u64,
        revision: Revision,
    ) -> Result<bool, StateRefusal> {
        check_size(conditions, operations)?;
        for (place, condition) in (0..).zip(conditions) {
            self.check_condition(place, condition)?;
        }
        // What counts of several operations on one key is the last.
        let last: BTreeMap<&StateKey, Option<&StateValue>> = operations
            .iter()
            .map(|operation| match operation {
                StateOperation::Set { key, value } => (key, Some(value)),
                StateOperation::Delete(key) => (key, None),
            })
            .collect();
        self.check_room(&last, room)?;
        let mut has_changed = false;
        for (key, value) in last {
            has_changed |= match value {
                Some(value) => {
                    self.set(key, value, revision);
                    true
                }
                None => self.delete(key, revision),
            };
        }
        Ok(has_changed)
    }

    fn check_condition(&self, place: u32, condition: &Condition) -> Result<(), StateRefusal> {
        let holds = match condition {
            Condition::Absent(key) => !self.keys.contains_key(key),
            Condition::Revision { key, modified } => {
                self.keys.get(key).map(|it| it.modified) == Some(*modified)
            }
            Condition::Value { key, value } => {
                self.keys.get(key).map(|it| &it.value) == Some(value)
            }
            Condition::Holds { lease, token } => {
                let held = self.leases.get(lease).is_some_and(|it| it.holds(*token));
                if !held {
                    return Err(StateRefusal::StaleToken {
                        lease: lease.clone(),
                        token: *token,
                    });
                }
                true
            }
        };
        match holds {
            true => Ok(()),
            false => Err(StateRefusal::Conflict { condition: place }),
        }
    }

    fn check_room(
        &self,
        last: &BTreeMap<&StateKey, Option<&StateValue>>,
        room: u64,
    ) -> Result<(), StateRefusal> {
        let (mut added, mut freed) = (0, 0);
        let (mut keys_added, mut keys_freed) = (0, 0);
        for (key, value) in last {
            if let Some(old) = self.keys.get(*key) {
                freed += cost(key, &old.value);
                keys_freed += 1;
            }
            if let Some(value) = value {
                added += cost(key, value);
                keys_added += 1;
            }
        }
        // Whoever is over a bound already may still delete.
        let grows = added > freed;
        if self.keys.len() + keys_added > KEYS_MAX + keys_freed && keys_added > keys_freed {
            return over(StateBound::Keys, KEYS_MAX);
        }
        if grows && self.bytes + added > SPACE_BYTES_MAX + freed {
            return Err(StateRefusal::OverLimit {
                bound: StateBound::SpaceBytes,
                limit: SPACE_BYTES_MAX,
            });
        }
        if grows && added - freed > room {
            return Err(StateRefusal::OverLimit {
                bound: StateBound::Bytes,
                limit: super::STATE_BYTES_MAX,
            });
        }
        Ok(())
    }

    fn set(&mut self, key: &StateKey, value: &StateValue, revision: Revision) {
        self.bytes += cost(key, value);
        match self.keys.get_mut(key) {
            Some(old) => {
                self.bytes -= cost(key, &old.value);
                old.value = value.clone();
                old.modified = revision;
            }
            None => {
                let new = Value {
                    value: value.clone(),
                    created: revision,
                    modified: revision,
                };
                self.keys.insert(key.clone(), new);
            }
        }
    }

    fn delete(&mut self, key: &StateKey, revision: Revision) -> bool {
        let Some((key, old)) = self.keys.remove_entry(key) else {
            return false;
        };
        self.bytes -= cost(&key, &old.value);
        self.deleted.insert((revision, key));
        while self.deleted.len() > DELETED_KEYS_MAX || self.deleted_bytes() > DELETED_BYTES_MAX {
            let (forgotten, _) = self.deleted.pop_first().expect("there are too many");
            self.forgotten = forgotten;
        }
        true
    }

    fn deleted_bytes(&self) -> usize {
        self.deleted.iter().map(|(_, key)| key.as_str().len()).sum()
    }

    // ---- leases -------------------------------------------------------------------------

    pub(super) fn acquire(
        &mut self,
        session: SessionId,
        name: &LeaseName,
        permits: u32,
        wait: bool,
        revision: Revision,
    ) -> Result<Changed, StateRefusal> {
        let permits = permits.max(1);
        if permits > PERMITS_MAX {
            return over(StateBound::Permits, PERMITS_MAX as usize);
        }
        if !self.sessions.contains_key(&session) {
            return Err(StateRefusal::SessionEnded { session });
        }
        if let Some(lease) = self.leases.get(name) {
            if lease.permits != permits {
                return Err(StateRefusal::PermitsDiffer {
                    lease: name.clone(),
                    permits: lease.permits,
                });
            }
            if !wait && !lease.has_free() {
                return Err(StateRefusal::LeaseHeld {
                    lease: name.clone(),
                });
            }
        }
        if self.holds() >= HOLDS_PER_SPACE_MAX {
            return over(StateBound::Holds, HOLDS_PER_SPACE_MAX);
        }
        let token = Token(revision.0);
        let lease = self.leases.entry(name.clone());
        let lease = lease.or_insert_with(|| Lease::new(permits));
        lease.push(token, session, revision);
        Ok(Changed::Queued {
            token,
            holds: lease.holds(token),
        })
    }

    pub(super) fn release(
        &mut self,
        session: SessionId,
        name: &LeaseName,
        token: Token,
        revision: Revision,
    ) -> Result<(), StateRefusal> {
        let lease = self.leases.get_mut(name);
        if !lease.is_some_and(|lease| lease.remove(session, Some(token), revision)) {
            return Err(StateRefusal::StaleToken {
                lease: name.clone(),
                token,
            });
        }
        self.leases.retain(|_, lease| !lease.queue.is_empty());
        Ok(())
    }

    fn holds(&self) -> usize {
        self.leases.values().map(|lease| lease.queue.len()).sum()
    }

    pub(super) fn lease(&self, name: &LeaseName) -> Option<LeaseView> {
        let lease = self.leases.get(name)?;
        Some(self.view(name, lease))
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = LeaseView> {
        self.leases
            .iter()
            .map(|(name, lease)| self.view(name, lease))
    }

    fn view(&self, name: &LeaseName, lease: &Lease) -> LeaseView {
        let hold = |(place, (token, session)): (usize, (&Token, &SessionId))| {
            let holder = self.sessions.get(session).map(|it| it.holder.clone());
            HoldView {
                token: *token,
                session: *session,
                holder: holder.unwrap_or_default(),
                holds: place < lease.permits as usize,
            }
        };
        LeaseView {
            lease: name.clone(),
            permits: lease.permits,
            revision: lease.modified,
            queue: lease.queue.iter().enumerate().map(hold).collect(),
        }
    }

    // ---- reads --------------------------------------------------------------------------

    pub(super) fn read(&self, keys: &[StateKey]) -> Vec<StateEntry> {
        let found = keys.iter().filter_map(|key| self.keys.get_key_value(key));
        found.map(entry).collect()
    }

    /// A page, and whether there are more.
    pub(super) fn list(&self, prefix: &str, after: Option<&StateKey>) -> (Vec<StateEntry>, bool) {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut rows = self.keys.range::<str, _>((from, Bound::Unbounded));
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, value) in rows.by_ref() {
            if !key.as_str().starts_with(prefix) {
                break;
            }
            if entries.len() == LIST_MAX || bytes >= LIST_BYTES_MAX {
                return (entries, true);
            }
            bytes += key.as_str().len() + value.value.len();
            entries.push(entry((key, value)));
        }
        (entries, false)
    }

    /// What has become of keys since a revision, in the order of revisions; and the revision to go on
    /// from if that is not all.
    pub(super) fn changes(
        &self,
        prefix: &str,
        after: Revision,
    ) -> (Vec<KeyChange>, Option<Revision>) {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.keys.range::<str, _>(from);
        let keys = keys
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(_, value)| value.modified > after);
        let deleted = self
            .deleted
            .iter()
            .filter(|(revision, key)| *revision > after && key.as_str().starts_with(prefix));
        let mut found: Vec<KeyChange> = deleted
            .map(|(revision, key)| KeyChange::Deleted {
                key: key.clone(),
                revision: *revision,
            })
            .chain(keys.map(|row| KeyChange::Set(entry(row))))
            .collect();
        found.sort_by(|a, b| (a.revision(), a.key()).cmp(&(b.revision(), b.key())));
        let mut bytes = 0;
        for at in 1..found.len() {
            if let KeyChange::Set(entry) = &found[at - 1] {
                bytes += entry.key.as_str().len() + entry.value.len();
            }
            // What one transaction has changed stays together.
            let is_between = found[at].revision() > found[at - 1].revision();
            if is_between && (at >= LIST_MAX || bytes >= LIST_BYTES_MAX) {
                found.truncate(at);
                let cut_at = found[at - 1].revision();
                return (found, Some(cut_at));
            }
        }
        (found, None)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            spaces: 1,
            keys: self.keys.len() as u64,
            bytes: self.bytes,
            sessions: self.sessions.len() as u64,
            leases: self.leases.len() as u64,
        }
    }

    pub(super) fn check(&self, present: Revision) -> Result<(), String> {
        let check = |is_so: bool, what: &str| match is_so {
            true => Ok(()),
            false => Err(what.to_owned()),
        };
        let keys = self.keys.iter();
        let bytes: u64 = keys.map(|(key, value)| cost(key, &value.value)).sum();
        check(bytes == self.bytes, "the count of bytes is off")?;
        check(!self.is_empty(), "an empty space is kept")?;
        check(
            self.keys.len() <= KEYS_MAX
                && self.bytes <= SPACE_BYTES_MAX
                && self.sessions.len() <= SESSIONS_PER_SPACE_MAX
                && self.holds() <= HOLDS_PER_SPACE_MAX
                && self.deleted.len() <= DELETED_KEYS_MAX,
            "over a bound",
        )?;
        for (name, lease) in &self.leases {
            let holding = lease.queue.keys().filter(|it| lease.holds(**it)).count();
            let due = lease.queue.len().min(lease.permits as usize);
            check(
                holding == due && due > 0,
                &format!("{name}: {holding} hold it"),
            )?;
            let all_open = lease
                .queue
                .values()
                .all(|it| self.sessions.contains_key(it));
            check(
                all_open,
                &format!("{name}: held by a session that has ended"),
            )?;
            check(lease.modified <= present, "a lease from the future")?;
        }
        let latest = self.keys.values().map(|it| it.modified).max();
        check(
            latest.is_none_or(|it| it <= present),
            "a key from the future",
        )
    }
}

fn entry((key, value): (&StateKey, &Value)) -> StateEntry {
    StateEntry {
        key: key.clone(),
        value: value.value.clone(),
        created: value.created,
        modified: value.modified,
    }
}

fn check_size(conditions: &[Condition], operations: &[StateOperation]) -> Result<(), StateRefusal> {
    if conditions.len() > OPERATIONS_MAX || operations.len() > OPERATIONS_MAX {
        return over(StateBound::Operations, OPERATIONS_MAX);
    }
    let mut bytes = 0;
    let compared = conditions.iter().filter_map(|condition| match condition {
        Condition::Value { value, .. } => Some(value),
        _ => None,
    });
    let set = operations.iter().filter_map(|operation| match operation {
        StateOperation::Set { value, .. } => Some(value),
        StateOperation::Delete(_) => None,
    });
    for value in compared.chain(set) {
        if value.len() > StateValue::BYTES_MAX {
            return over(StateBound::ValueBytes, StateValue::BYTES_MAX);
        }
        bytes += value.len();
    }
    // Keys are small: 128 of them at 512 bytes are 64 KiB.
    match bytes <= TRANSACTION_BYTES_MAX {
        true => Ok(()),
        false => over(StateBound::TransactionBytes, TRANSACTION_BYTES_MAX),
    }
}
