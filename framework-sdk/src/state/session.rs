//! A client's session: numbers its changes, shows signs of life, and knows when it must take what it
//! holds for lost.

use std::time::Duration;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meros_proto::state::{
    Changed, Numbered, SessionId, StateAnswer, StateCall, StateChange, StateRefusal,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::{StateError, unexpected};
use super::link::{Asks, WeakAsks};

/// Signs of life in the time to live.
const SIGNS_PER_TTL: u32 = 4;

/// Asks the masters, and keeps one session with them.
#[derive(Debug)]
pub(super) struct Client {
    asks: Asks,
    holder: String,
    ttl: Duration,
    call_timeout: Duration,
    /// Locked while a change is on its way: a session makes one at a time.
    session: Mutex<Option<Session>>,
}

#[derive(Debug)]
struct Session {
    life: Arc<Life>,
    number: u64,
}

/// Whether a session lives, as far as its client may assume.
#[derive(Debug)]
pub(super) struct Life {
    session: SessionId,
    /// Nobody else holds what it holds before this.
    until: watch::Sender<Instant>,
    has_ended: AtomicBool,
}

impl Life {
    /// The session has shown a sign of life at `sent_at`. Less by what clocks may differ.
    fn until(sent_at: Instant, ttl: Duration) -> Instant {
        sent_at + ttl - ttl / 16
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.until.send_modify(|_| {});
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.has_ended.load(Ordering::Acquire) && Instant::now() < *self.until.borrow()
    }

    /// Waits until it must be taken for ended.
    pub(super) async fn ended(&self) {
        let mut until = self.until.subscribe();
        loop {
            let at = *until.borrow_and_update();
            if !self.is_alive() {
                return;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                // The sender is `self`.
                _ = until.changed() => {}
            }
        }
    }
}

impl Client {
    pub(super) fn new(asks: Asks, holder: String, ttl: Duration, call_timeout: Duration) -> Self {
        Self {
            asks,
            holder,
            ttl,
            call_timeout,
            session: Mutex::new(None),
        }
    }

    /// Asks, for at most the time of a call.
    pub(super) async fn ask(&self, call: StateCall) -> Result<StateAnswer, StateError> {
        match timeout(self.call_timeout, self.asks.ask(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(StateError::Unavailable {
                why: self.asks.trouble(),
            }),
        }
    }

    /// Asks, for as long as it takes.
    pub(super) async fn wait_for(&self, call: StateCall) -> Result<StateAnswer, StateError> {
        self.asks.ask(call).await
    }

    /// Makes a change, once, and tells in which life.
    pub(super) async fn change(
        &self,
        change: StateChange,
    ) -> Result<(Changed, Arc<Life>), StateError> {
        let mut guard = self.session.lock().await;
        let session = match guard.take() {
            Some(session) if session.life.is_alive() => session,
            _ => self.open().await?,
        };
        let session = guard.insert(session);
        let life = Arc::clone(&session.life);
        session.number += 1;
        let by = Numbered {
            session: life.session,
            number: session.number,
        };
        let is_about_lease = matches!(
            change,
            StateChange::Acquire { .. } | StateChange::Release { .. }
        );
        let call = StateCall::Change {
            by: Some(by),
            change,
        };
        match self.ask(call).await {
            Ok(StateAnswer::Changed(changed)) => Ok((changed, life)),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => {
                let has_ended = match &error {
                    StateError::Refused(refusal) => {
                        matches!(refusal, StateRefusal::SessionEnded { .. })
                    }
                    // It may hold something that nobody knows of: without signs of life that is free
                    // when the time to live is over.
                    _ => is_about_lease,
                };
                if has_ended {
                    life.end();
                    *guard = None;
                }
                Err(error)
            }
        }
    }

    /// Gives up something that was had in this life; nothing if it went with its session.
    pub(super) async fn change_in(
        &self,
        life: &Arc<Life>,
        change: StateChange,
    ) -> Result<(), StateError> {
        let is_its = |session: &Session| Arc::ptr_eq(&session.life, life);
        let is_open = self.session.lock().await.as_ref().is_some_and(is_its);
        if !is_open || !life.is_alive() {
            return Ok(());
        }
        match self.change(change).await {
            Ok(_) | Err(StateError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the session.
    pub(super) async fn close(&self) {
        let is_open = self.session.lock().await.is_some();
        if is_open {
            // Nobody is left to be told if it fails: the masters end it in time.
            let _ = self.change(StateChange::Close).await;
        }
        if let Some(session) = self.session.lock().await.take() {
            session.life.end();
        }
    }

    async fn open(&self) -> Result<Session, StateError> {
        let open = StateChange::Open {
            holder: self.holder.clone(),
            ttl: self.ttl,
        };
        let call = StateCall::Change {
            by: None,
            change: open,
        };
        let sent_at = Instant::now();
        let (session, ttl) = match self.ask(call).await? {
            StateAnswer::Changed(Changed::Opened { session, ttl }) => (session, ttl),
            other => return Err(unexpected(&other)),
        };
        let life = Arc::new(Life {
            session,
            until: watch::Sender::new(Life::until(sent_at, ttl)),
            has_ended: AtomicBool::new(false),
        });
        tokio::spawn(keep_alive(self.asks.downgrade(), Arc::clone(&life), ttl));
        Ok(Session { life, number: 0 })
    }
}

/// Shows signs of life until the session has ended or nobody needs it any more.
async fn keep_alive(asks: WeakAsks, life: Arc<Life>, ttl: Duration) {
    let step = ttl / SIGNS_PER_TTL;
    while life.is_alive() {
        sleep(step).await;
        let Some(asks) = asks.upgrade() else {
            return;
        };
        let sent_at = Instant::now();
        let session = life.session;
        // Asked again after a step: the answer to the last question counts from when it was sent.
        match timeout(step, asks.ask(StateCall::KeepAlive { session })).await {
            Ok(Ok(_)) => {
                let until = Life::until(sent_at, ttl);
                life.until.send_modify(|at| *at = until.max(*at));
            }
            Ok(Err(StateError::Refused(_) | StateError::Ended)) => return life.end(),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    life.end();
}
