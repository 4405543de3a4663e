//! Several changes under conditions.

use std::sync::Arc;

use meros_proto::state::{
    Changed, Condition, LeaseName, NameError, Revision, StateChange, StateEntry, StateKey,
    StateOperation, StateValue, Token,
};

use super::error::StateError;
use super::hold::Lease;
use super::session::Client;

/// Conditions and changes: if all conditions hold, all changes are made, else none. At most 64 of
/// each, and 512 KiB together; of several changes of a key the last counts.
#[derive(Debug)]
#[must_use = "nothing happens before it is committed"]
pub struct Transaction {
    client: Arc<Client>,
    conditions: Vec<Condition>,
    operations: Vec<StateOperation>,
    wrong: Option<NameError>,
}

impl Transaction {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            conditions: Vec::new(),
            operations: Vec::new(),
            wrong: None,
        }
    }

    /// Only if there is no such key.
    pub fn absent(self, key: &str) -> Self {
        self.when(key, Condition::Absent)
    }

    /// Only if the key is as it was read; none: not there.
    pub fn unchanged(self, key: &str, seen: Option<&StateEntry>) -> Self {
        match seen.map(|entry| entry.modified) {
            Some(modified) => self.when(key, |key| Condition::Revision { key, modified }),
            None => self.absent(key),
        }
    }

    /// Only if the key has this value.
    pub fn equals(self, key: &str, value: impl Into<StateValue>) -> Self {
        let value = value.into();
        self.when(key, |key| Condition::Value { key, value })
    }

    /// Only while this lease is held: what an instance does that has lost its lease without knowing
    /// has no effect.
    pub fn held(self, lease: &Lease) -> Self {
        self.held_by(lease.name().clone(), lease.token())
    }

    /// Only while the lease is held with this token, which another program may have passed on.
    pub fn held_by(mut self, lease: LeaseName, token: Token) -> Self {
        self.conditions.push(Condition::Holds { lease, token });
        self
    }

    /// Gives a key a value.
    pub fn set(self, key: &str, value: impl Into<StateValue>) -> Self {
        let value = value.into();
        self.then(key, |key| StateOperation::Set { key, value })
    }

    /// Removes a key, if it is there.
    pub fn delete(self, key: &str) -> Self {
        self.then(key, StateOperation::Delete)
    }

    /// Carries it out. It is durable on a majority of the masters when this returns.
    ///
    /// # Errors
    /// [`StateRefusal::Conflict`](super::StateRefusal::Conflict) or
    /// [`StaleToken`](super::StateRefusal::StaleToken) in [`StateError::Refused`] if a condition does
    /// not hold; others of [`StateError`].
    pub async fn commit(self) -> Result<Revision, StateError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong.into());
        }
        let change = StateChange::Commit {
            conditions: self.conditions,
            operations: self.operations,
        };
        match self.client.change(change).await?.0 {
            Changed::Done { revision } => Ok(revision),
            other => Err(super::error::unexpected(
                &meros_proto::state::StateAnswer::Changed(other),
            )),
        }
    }

    fn when(mut self, key: &str, condition: impl FnOnce(StateKey) -> Condition) -> Self {
        match StateKey::new(key) {
            Ok(key) => self.conditions.push(condition(key)),
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    fn then(mut self, key: &str, operation: impl FnOnce(StateKey) -> StateOperation) -> Self {
        match StateKey::new(key) {
            Ok(key) => self.operations.push(operation(key)),
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }
}
