//! The same in lists, without bounds: what framework state means.

use std::time::Duration;

use meros_proto::state::{
    Changed, Condition, HoldView, KeyChange, LeaseName, LeaseView, Numbered, Revision, SessionId,
    SpaceId, StateAnswer, StateChange, StateEntry, StateKey, StateOperation, StateRefusal, Token,
};

type Outcome = Result<Changed, StateRefusal>;

struct Session {
    space: SpaceId,
    id: SessionId,
    holder: String,
    answers: Vec<(u64, Outcome)>,
}

struct Hold {
    space: SpaceId,
    lease: LeaseName,
    permits: u32,
    session: SessionId,
    token: Token,
}

/// All that ever was, in the order in which it was.
#[derive(Default)]
pub(super) struct Naive {
    revision: u64,
    entries: Vec<(SpaceId, StateEntry)>,
    /// Every change of a key, and whether it is there since.
    history: Vec<(SpaceId, u64, StateKey, bool)>,
    sessions: Vec<Session>,
    holds: Vec<Hold>,
    /// When the queue of a lease last changed.
    touched: Vec<(SpaceId, LeaseName, u64)>,
}

impl Naive {
    pub(super) fn apply(
        &mut self,
        id: &SpaceId,
        by: Option<Numbered>,
        change: &StateChange,
    ) -> Outcome {
        let session = by.map(|by| by.session);
        if let Some(Numbered { session, number }) = by {
            let of = self
                .sessions
                .iter()
                .find(|it| it.id == session && it.space == *id);
            let Some(of) = of else {
                return Err(StateRefusal::SessionEnded { session });
            };
            if let Some((last, outcome)) = of.answers.last() {
                if *last == number {
                    return outcome.clone();
                }
                if *last > number {
                    return Err(StateRefusal::Outdated { number });
                }
            }
        }
        let outcome = self.change(id, session, change);
        if let Some(Numbered { session, number }) = by
            && let Some(of) = self.sessions.iter_mut().find(|it| it.id == session)
        {
            of.answers.push((number, outcome.clone()));
        }
        outcome
    }

    fn change(
        &mut self,
        id: &SpaceId,
        session: Option<SessionId>,
        change: &StateChange,
    ) -> Outcome {
        let next = self.revision + 1;
        let done = Ok(Changed::Done {
            revision: Revision(next),
        });
        match change {
            StateChange::Open { holder, ttl } => {
                self.revision = next;
                self.sessions.push(Session {
                    space: id.clone(),
                    id: SessionId(next),
                    holder: holder.clone(),
                    answers: Vec::new(),
                });
                Ok(Changed::Opened {
                    session: SessionId(next),
                    ttl: Duration::max(*ttl, meros_proto::state::TTL_MIN),
                })
            }
            StateChange::Close => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                self.end_session(id, session);
                done
            }
            StateChange::Commit {
                conditions,
                operations,
            } => {
                for (place, condition) in (0..).zip(conditions) {
                    self.check(id, place, condition)?;
                }
                let mut has_changed = false;
                for (at, operation) in operations.iter().enumerate() {
                    let key = operation.key();
                    let is_last = operations[at + 1..].iter().all(|later| later.key() != key);
                    if is_last {
                        has_changed |= self.operate(id, operation, next);
                    }
                }
                if has_changed {
                    self.revision = next;
                }
                Ok(Changed::Done {
                    revision: Revision(self.revision),
                })
            }
            StateChange::Acquire {
                lease,
                permits,
                wait,
            } => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                let permits = (*permits).max(1);
                let queue: Vec<&Hold> = self.queue(id, lease).collect();
                if let Some(first) = queue.first() {
                    if first.permits != permits {
                        return Err(StateRefusal::PermitsDiffer {
                            lease: lease.clone(),
                            permits: first.permits,
                        });
                    }
                    if !wait && queue.len() >= permits as usize {
                        return Err(StateRefusal::LeaseHeld {
                            lease: lease.clone(),
                        });
                    }
                }
                let holds = queue.len() < permits as usize;
                self.revision = next;
                self.touched.push((id.clone(), lease.clone(), next));
                self.holds.push(Hold {
                    space: id.clone(),
                    lease: lease.clone(),
                    permits,
                    session,
                    token: Token(next),
                });
                Ok(Changed::Queued {
                    token: Token(next),
                    holds,
                })
            }
            StateChange::Release { lease, token } => {
                let session = session.ok_or(StateRefusal::NoSession)?;
                let is_it = |hold: &Hold| {
                    hold.space == *id
                        && hold.lease == *lease
                        && hold.token == *token
                        && hold.session == session
                };
                if !self.holds.iter().any(is_it) {
                    return Err(StateRefusal::StaleToken {
                        lease: lease.clone(),
                        token: *token,
                    });
                }
                self.holds.retain(|hold| !is_it(hold));
                self.revision = next;
                self.touched.push((id.clone(), lease.clone(), next));
                done
            }
            StateChange::Clear => {
                let keys: Vec<StateKey> = self.of(id).map(|it| it.key.clone()).collect();
                for key in keys {
                    self.operate(id, &StateOperation::Delete(key), next);
                }
                self.sessions.retain(|it| it.space != *id);
                self.holds.retain(|it| it.space != *id);
                self.revision = next;
                done
            }
        }
    }

    pub(super) fn end_session(&mut self, id: &SpaceId, session: SessionId) {
        let is_it = |it: &Session| it.space == *id && it.id == session;
        if !self.sessions.iter().any(is_it) {
            return;
        }
        self.sessions.retain(|it| !is_it(it));
        self.revision += 1;
        for hold in self.holds.iter().filter(|it| it.session == session) {
            let row = (id.clone(), hold.lease.clone(), self.revision);
            self.touched.push(row);
        }
        self.holds.retain(|it| it.session != session);
    }

    fn check(&self, id: &SpaceId, place: u32, condition: &Condition) -> Result<(), StateRefusal> {
        let find = |key: &StateKey| self.of(id).find(|it| it.key == *key);
        let is_so = match condition {
            Condition::Absent(key) => find(key).is_none(),
            Condition::Revision { key, modified } => {
                find(key).is_some_and(|it| it.modified == *modified)
            }
            Condition::Value { key, value } => find(key).is_some_and(|it| it.value == *value),
            Condition::Holds { lease, token } => {
                let mut queue = self.queue(id, lease);
                let place = queue.position(|it| it.token == *token);
                let permits = self.queue(id, lease).next().map_or(0, |it| it.permits);
                if place.is_none_or(|place| place >= permits as usize) {
                    return Err(StateRefusal::StaleToken {
                        lease: lease.clone(),
                        token: *token,
                    });
                }
                true
            }
        };
        is_so
            .then_some(())
            .ok_or(StateRefusal::Conflict { condition: place })
    }

    fn operate(&mut self, id: &SpaceId, operation: &StateOperation, at: u64) -> bool {
        let key = operation.key();
        let place = self
            .entries
            .iter()
            .position(|(space, it)| space == id && it.key == *key);
        let old = place.map(|place| self.entries.remove(place).1);
        let is_set = match operation {
            StateOperation::Set { value, .. } => {
                let entry = StateEntry {
                    key: key.clone(),
                    value: value.clone(),
                    created: old.as_ref().map_or(Revision(at), |old| old.created),
                    modified: Revision(at),
                };
                self.entries.push((id.clone(), entry));
                true
            }
            StateOperation::Delete(_) if old.is_none() => return false,
            StateOperation::Delete(_) => false,
        };
        self.history.push((id.clone(), at, key.clone(), is_set));
        true
    }

    fn of<'a>(&'a self, id: &'a SpaceId) -> impl Iterator<Item = &'a StateEntry> {
        self.entries
            .iter()
            .filter(move |(space, _)| space == id)
            .map(|(_, entry)| entry)
    }

    fn queue<'a>(
        &'a self,
        id: &'a SpaceId,
        lease: &'a LeaseName,
    ) -> impl Iterator<Item = &'a Hold> {
        self.holds
            .iter()
            .filter(move |it| it.space == *id && it.lease == *lease)
    }

    pub(super) fn list(&self, id: &SpaceId, prefix: &str) -> (Revision, Vec<StateEntry>) {
        let mut entries: Vec<StateEntry> = self
            .of(id)
            .filter(|it| it.key.as_str().starts_with(prefix))
            .cloned()
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        (Revision(self.revision), entries)
    }

    pub(super) fn leases(&self, id: &SpaceId) -> Vec<LeaseView> {
        let mut names: Vec<&LeaseName> = self
            .holds
            .iter()
            .filter(|it| it.space == *id)
            .map(|it| &it.lease)
            .collect();
        names.sort();
        names.dedup();
        let holder = |session: SessionId| {
            let of = self.sessions.iter().find(|it| it.id == session);
            of.map(|it| it.holder.clone()).unwrap_or_default()
        };
        let view = |name: &LeaseName| {
            let permits = self.queue(id, name).next().map_or(0, |it| it.permits);
            let queue = self.queue(id, name).enumerate();
            let touched = self.touched.iter().rev();
            let mut touched = touched.filter(|(space, lease, _)| space == id && lease == name);
            LeaseView {
                lease: name.clone(),
                permits,
                revision: Revision(touched.next().map_or(0, |row| row.2)),
                queue: queue
                    .map(|(place, hold)| HoldView {
                        token: hold.token,
                        session: hold.session,
                        holder: holder(hold.session),
                        holds: place < permits as usize,
                    })
                    .collect(),
            }
        };
        names.into_iter().map(view).collect()
    }

    /// What a watcher is told must be the last that has become of each key since.
    pub(super) fn check_changes(
        &self,
        id: &SpaceId,
        after: Revision,
        told: Result<Option<StateAnswer>, StateRefusal>,
    ) {
        let changes = match told {
            Err(StateRefusal::Compacted { revision }) => {
                assert_eq!(revision, Revision(self.revision));
                return;
            }
            Ok(Some(StateAnswer::Changes { revision, changes })) => {
                assert_eq!(revision, Revision(self.revision), "it fits one page");
                assert!(changes.is_sorted_by_key(KeyChange::revision));
                changes
            }
            Ok(None) => Vec::new(),
            other => panic!("{other:?}"),
        };
        let since = self
            .history
            .iter()
            .filter(|(space, at, _, _)| space == id && *at > after.0);
        let mut keys: Vec<&StateKey> = since.clone().map(|row| &row.2).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let last = since
                .clone()
                .rfind(|row| row.2 == *key)
                .expect("it is in it");
            let told = changes.iter().rfind(|it| it.key() == key);
            let told = told.unwrap_or_else(|| panic!("{key} is not told after {after}"));
            assert_eq!(told.revision(), Revision(last.1));
            match told {
                KeyChange::Set(entry) => {
                    assert_eq!(self.of(id).find(|it| it.key == *key), Some(entry))
                }
                KeyChange::Deleted { .. } => assert!(!last.3, "{key} is there"),
            }
        }
    }
}
