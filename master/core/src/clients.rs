//! Clients of framework state: calls are answered, watches wait, sessions live as long as their
//! clients show signs of life.
//!
//! Time is kept by the leader alone and in memory: a sign of life costs no write. When a session's
//! time is over the leader proposes its end; a new leader gives every session its whole time again.
//! A client counts from when it *sent* the last sign of life that was answered, so it takes its
//! session for ended before anybody else can.
//!
//! Reads are answered from what is committed. That is linearizable: the shell looks at the lease after
//! this, so whoever may send an answer led when it was made, and had applied all that was answered.
//!
//! Invariant: M19 each session that is open has a deadline or is being ended, and each watch has one.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::message::framework::MasterToFramework;
use meros_proto::refusal::Refusal;
use meros_proto::state::{
    Changed, LeaseName, Numbered, READ_MAX, Revision, SessionId, SpaceId, SpaceName, StateAnswer,
    StateBound, StateCall, StateChange, StateKey, StateRefusal,
};

use crate::MasterCore;
use crate::command::Command;
use crate::effect::Answer;
use crate::event::{ConnectionId, ProposalId, RequestId};
use crate::timers::Timer;
use crate::turn::Turn;

/// A watch is answered after this long, even if nothing has changed: shorter than an HTTP request may
/// take.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The most watches that wait at a time.
pub const WATCHES_MAX: usize = 8_192;
/// The most of one principal: each of its changes looks at all of them.
pub const WATCHES_PER_PRINCIPAL_MAX: usize = 512;
/// The most changes that are being committed at a time; a client has one at a time.
pub const CHANGES_IN_FLIGHT_MAX: usize = 512;
/// The most of one principal, so that others get their turn.
pub const CHANGES_PER_PRINCIPAL_MAX: usize = 128;

/// Who is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Framework {
        connection: ConnectionId,
        /// The client's number for its call.
        request: u64,
    },
    Operator(RequestId),
}

/// A watch that has nothing to tell yet.
#[derive(Debug)]
struct Watch {
    asker: Asker,
    space: SpaceName,
    what: Watched,
}

#[derive(Debug)]
enum Watched {
    Keys {
        prefix: String,
        after: Revision,
    },
    Lease {
        lease: LeaseName,
        revision: Revision,
    },
}

/// An open session.
#[derive(Debug)]
struct Session {
    space: SpaceId,
    /// Its end is proposed.
    is_ending: bool,
}

/// All that wait, and all that live.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    in_flight: BTreeMap<ProposalId, (Asker, String)>,
    /// By principal and number.
    watches: BTreeMap<String, BTreeMap<u64, Watch>>,
    /// The principal of each watch.
    principals: BTreeMap<u64, String>,
    watch_last: u64,
    sessions: BTreeMap<SessionId, Session>,
}

impl Clients {
    /// Whether a timer is of something.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether a timer is of something.
    pub(crate) fn has_watch(&self, number: u64) -> bool {
        self.principals.contains_key(&number)
    }

    /// The sessions and whether each is being ended, and the numbers of all watches.
    pub(crate) fn all(
        &self,
    ) -> (
        impl Iterator<Item = (SessionId, &SpaceId, bool)>,
        impl Iterator<Item = u64>,
    ) {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|(id, it)| (*id, &it.space, it.is_ending));
        let watches = self.watches.values().flat_map(|it| it.keys().copied());
        (sessions, watches)
    }
}

fn busy(what: &str, limit: usize) -> Refusal {
    Refusal::OverLimit {
        what: what.to_owned(),
        limit: limit as u64,
        advice: "try again in a moment".to_owned(),
    }
}

impl MasterCore {
    /// Answers, now or when it is committed or something changes.
    pub(crate) fn on_state_call(
        &mut self,
        asker: Asker,
        space: SpaceId,
        call: StateCall,
        turn: &mut Turn<'_>,
    ) {
        let state = self.registry.state();
        let is_read = !matches!(call, StateCall::KeepAlive { .. } | StateCall::Change { .. });
        self.counters.state_reads += u64::from(is_read);
        let answer = match call {
            StateCall::Read { keys } if keys.len() > READ_MAX => {
                Err(Refusal::State(StateRefusal::OverLimit {
                    bound: StateBound::Operations,
                    limit: READ_MAX as u64,
                }))
            }
            StateCall::Read { keys } => Ok(state.read(&space, &keys)),
            StateCall::List { prefix, after } => Ok(state.list(&space, &prefix, after.as_ref())),
            StateCall::Lease { lease } => Ok(StateAnswer::Lease(state.lease(&space, &lease))),
            StateCall::Leases => Ok(StateAnswer::Leases(state.leases(&space))),
            StateCall::Watch { prefix, after } => {
                if prefix.len() > StateKey::BYTES_MAX {
                    Err(Refusal::Invalid {
                        field: "prefix".to_owned(),
                        why: format!("no key is longer than {} bytes", StateKey::BYTES_MAX),
                    })
                } else {
                    let what = Watched::Keys { prefix, after };
                    return self.watch(asker, space, what, turn);
                }
            }
            StateCall::WatchLease { lease, revision } => {
                let what = Watched::Lease { lease, revision };
                return self.watch(asker, space, what, turn);
            }
            StateCall::KeepAlive { session } => self.on_keep_alive(&space, session, turn),
            StateCall::Change { by, change } => {
                match self.propose_change(asker, space, by, change, turn) {
                    Ok(()) => return,
                    Err(refusal) => Err(refusal),
                }
            }
        };
        self.answer_state(asker, answer, turn);
    }

    fn answer_state(
        &mut self,
        asker: Asker,
        answer: Result<StateAnswer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = &answer {
            self.counters.refused(refusal.code());
        }
        match asker {
            Asker::Operator(request) => turn.reply(request, answer.map(Answer::State)),
            Asker::Framework {
                connection,
                request,
            } => {
                let message = MasterToFramework::State { request, answer };
                // One that has gone meanwhile asks again on its next connection.
                if self.connections.get(connection).is_some() {
                    turn.send_framework(connection, message);
                }
            }
        }
    }

    // ---- changes ------------------------------------------------------------------------

    fn propose_change(
        &mut self,
        asker: Asker,
        space: SpaceId,
        by: Option<Numbered>,
        change: StateChange,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let in_flight = &self.clients.in_flight;
        if in_flight.len() >= CHANGES_IN_FLIGHT_MAX {
            return Err(busy(
                "the number of changes on their way",
                CHANGES_IN_FLIGHT_MAX,
            ));
        }
        let ours = in_flight.values().filter(|(_, it)| *it == space.principal);
        if ours.count() >= CHANGES_PER_PRINCIPAL_MAX {
            return Err(busy(
                "the number of changes of one principal on their way",
                CHANGES_PER_PRINCIPAL_MAX,
            ));
        }
        // What cannot come true needs no entry in the log.
        if let Some(Numbered { session, .. }) = by
            && self.registry.state().session_ttl(&space, session).is_none()
        {
            return Err(Refusal::State(StateRefusal::SessionEnded { session }));
        }
        let principal = space.principal.clone();
        let command = Command::ChangeState { space, by, change };
        let proposal = self.propose(command, turn);
        self.clients.in_flight.insert(proposal, (asker, principal));
        Ok(())
    }

    pub(crate) fn on_state_changed(
        &mut self,
        proposal: Option<ProposalId>,
        space: &SpaceId,
        by: Option<Numbered>,
        change: &StateChange,
        turn: &mut Turn<'_>,
    ) {
        let applied = self.registry.change_state(space, by, change);
        match &applied.outcome {
            Ok(changed) => {
                self.counters.state_changes += 1;
                self.follow_sessions(space, by, change, *changed, turn);
            }
            Err(_) => self.counters.state_changes_refused += 1,
        }
        let asker = proposal.and_then(|proposal| self.clients.in_flight.remove(&proposal));
        if let Some((asker, _)) = asker {
            let answer = applied.outcome.map(StateAnswer::Changed);
            self.answer_state(asker, answer.map_err(Refusal::State), turn);
        }
        let is_touched = |key: &str| match change {
            StateChange::Commit { operations, .. } => operations
                .iter()
                .any(|it| it.key().as_str().starts_with(key)),
            StateChange::Clear => true,
            _ => false,
        };
        self.wake(space, is_touched, &applied.leases, turn);
    }

    // ---- sessions -----------------------------------------------------------------------

    /// A new leader gives every session its whole time.
    pub(crate) fn take_over_sessions(&mut self, turn: &mut Turn<'_>) {
        for (space, session, ttl) in self.registry.state().sessions() {
            self.timers
                .arm(Timer::Session(session), turn.now.after(ttl));
            let row = Session {
                space,
                is_ending: false,
            };
            self.clients.sessions.insert(session, row);
        }
    }

    fn follow_sessions(
        &mut self,
        space: &SpaceId,
        by: Option<Numbered>,
        change: &StateChange,
        changed: Changed,
        turn: &mut Turn<'_>,
    ) {
        match (change, changed) {
            // That of an answer given again may have ended.
            (StateChange::Open { .. }, Changed::Opened { session, ttl })
                if self.registry.state().session_ttl(space, session).is_some() =>
            {
                self.timers
                    .arm(Timer::Session(session), turn.now.after(ttl));
                let row = Session {
                    space: space.clone(),
                    is_ending: false,
                };
                self.clients.sessions.insert(session, row);
            }
            (StateChange::Close, _) => {
                if let Some(Numbered { session, .. }) = by {
                    self.forget_session(session);
                }
            }
            (StateChange::Clear, _) => {
                let rows = self.clients.sessions.iter();
                let gone = rows.filter(|(_, row)| row.space == *space);
                let gone: Vec<SessionId> = gone.map(|(session, _)| *session).collect();
                gone.into_iter()
                    .for_each(|session| self.forget_session(session));
            }
            _ => {}
        }
    }

    fn forget_session(&mut self, session: SessionId) {
        self.clients.sessions.remove(&session);
        self.timers.cancel(&Timer::Session(session));
    }

    fn on_keep_alive(
        &mut self,
        space: &SpaceId,
        session: SessionId,
        turn: &mut Turn<'_>,
    ) -> Result<StateAnswer, Refusal> {
        self.counters.state_keep_alives += 1;
        let ended = Refusal::State(StateRefusal::SessionEnded { session });
        let row = self.clients.sessions.get(&session);
        let is_alive = row.is_some_and(|row| row.space == *space && !row.is_ending);
        let ttl = self.registry.state().session_ttl(space, session);
        let ttl = ttl.filter(|_| is_alive).ok_or(ended)?;
        self.timers
            .arm(Timer::Session(session), turn.now.after(ttl));
        Ok(StateAnswer::Alive)
    }

    pub(crate) fn on_state_session_due(&mut self, session: SessionId, turn: &mut Turn<'_>) {
        let Some(row) = self.clients.sessions.get_mut(&session) else {
            return;
        };
        row.is_ending = true;
        let space = row.space.clone();
        self.counters.state_sessions_expired += 1;
        self.propose(Command::EndStateSession { space, session }, turn);
    }

    pub(crate) fn on_state_session_ended(
        &mut self,
        space: &SpaceId,
        session: SessionId,
        turn: &mut Turn<'_>,
    ) {
        let leases = self.registry.end_state_session(space, session);
        self.forget_session(session);
        self.wake(space, |_| false, &leases, turn);
    }

    // ---- watches ------------------------------------------------------------------------

    fn watch(&mut self, asker: Asker, space: SpaceId, what: Watched, turn: &mut Turn<'_>) {
        if let Some(answer) = self.look(&space, &what) {
            return self.answer_state(asker, answer, turn);
        }
        let clients = &mut self.clients;
        let ours = clients
            .watches
            .get(&space.principal)
            .map_or(0, BTreeMap::len);
        let refusal = if clients.principals.len() >= WATCHES_MAX {
            Some(busy("the number of watches", WATCHES_MAX))
        } else if ours >= WATCHES_PER_PRINCIPAL_MAX {
            let what = "the number of watches of one principal";
            Some(busy(what, WATCHES_PER_PRINCIPAL_MAX))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.answer_state(asker, Err(refusal), turn);
        }
        clients.watch_last += 1;
        let number = clients.watch_last;
        let watch = Watch {
            asker,
            space: space.name,
            what,
        };
        clients.principals.insert(number, space.principal.clone());
        clients
            .watches
            .entry(space.principal)
            .or_default()
            .insert(number, watch);
        self.timers
            .arm(Timer::Watch(number), turn.now.after(WATCH_TIMEOUT));
    }

    /// What there is to tell, if there is something.
    fn look(&self, space: &SpaceId, what: &Watched) -> Option<Result<StateAnswer, Refusal>> {
        let state = self.registry.state();
        match what {
            Watched::Keys { prefix, after } => state
                .changes(space, prefix, *after)
                .map_err(Refusal::State)
                .transpose(),
            Watched::Lease { lease, revision } => {
                let view = state.lease(space, lease);
                (view.revision != *revision).then_some(Ok(StateAnswer::Lease(view)))
            }
        }
    }

    /// Tells those who watch what has changed.
    fn wake(
        &mut self,
        space: &SpaceId,
        is_touched: impl Fn(&str) -> bool,
        leases: &[LeaseName],
        turn: &mut Turn<'_>,
    ) {
        let Some(watches) = self.clients.watches.get(&space.principal) else {
            return;
        };
        let is_meant = |watch: &Watch| {
            watch.space == space.name
                && match &watch.what {
                    Watched::Keys { prefix, .. } => is_touched(prefix),
                    Watched::Lease { lease, .. } => leases.contains(lease),
                }
        };
        let meant = watches.iter().filter(|(_, watch)| is_meant(watch));
        let told: Vec<_> = meant
            .filter_map(|(number, watch)| Some((*number, self.look(space, &watch.what)?)))
            .collect();
        for (number, answer) in told {
            if let Some((_, watch)) = self.take_watch(number) {
                self.answer_state(watch.asker, answer, turn);
            }
        }
    }

    fn take_watch(&mut self, number: u64) -> Option<(SpaceId, Watch)> {
        let principal = self.clients.principals.remove(&number)?;
        self.timers.cancel(&Timer::Watch(number));
        let watches = self.clients.watches.get_mut(&principal)?;
        let watch = watches.remove(&number)?;
        if watches.is_empty() {
            self.clients.watches.remove(&principal);
        }
        let space = SpaceId {
            principal,
            name: watch.space.clone(),
        };
        Some((space, watch))
    }

    pub(crate) fn on_watch_due(&mut self, number: u64, turn: &mut Turn<'_>) {
        let Some((space, watch)) = self.take_watch(number) else {
            return;
        };
        let state = self.registry.state();
        let answer = self.look(&space, &watch.what);
        let answer = answer.unwrap_or_else(|| match &watch.what {
            Watched::Keys { .. } => Ok(StateAnswer::Changes {
                revision: state.revision(),
                changes: Vec::new(),
            }),
            Watched::Lease { lease, .. } => Ok(StateAnswer::Lease(state.lease(&space, lease))),
        });
        self.answer_state(watch.asker, answer, turn);
    }

    /// Nobody waits on a connection that has ended.
    pub(crate) fn forget_watches(&mut self, connection: ConnectionId) {
        let Some(row) = self.connections.get(connection) else {
            return;
        };
        let watches = self.clients.watches.get(&row.principal);
        let is_its = |watch: &Watch| matches!(watch.asker, Asker::Framework { connection: it, .. } if it == connection);
        let numbers: Vec<u64> = watches
            .into_iter()
            .flatten()
            .filter(|(_, watch)| is_its(watch))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.take_watch(number);
        }
    }
}
