//! Leases that are held, and what they are held for.

use std::sync::Arc;

use meros_proto::state::{
    Changed, HoldView, LeaseName, LeaseView, Revision, StateAnswer, StateCall, StateChange,
    StateRefusal, Token,
};

use super::detached;
use super::error::{StateError, unexpected};
use super::session::{Client, Life};

/// A lease that several may hold at a time; with one permit, one.
#[derive(Debug, Clone)]
pub struct Semaphore {
    client: Arc<Client>,
    lease: LeaseName,
    permits: u32,
}

impl Semaphore {
    pub(super) fn new(client: Arc<Client>, lease: LeaseName, permits: u32) -> Self {
        Self {
            client,
            lease,
            permits,
        }
    }

    /// Waits for a permit: those who ask first have it first. One program may hold several.
    /// Cancelling it leaves the queue. A program of which no master has heard for too long loses its
    /// place, and queues anew.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn acquire(&self) -> Result<Lease, StateError> {
        loop {
            // What a session that has ended has queued for is not there, so nothing is held twice.
            let mut lease = match self.queue(true).await {
                Err(StateError::Refused(StateRefusal::SessionEnded { .. })) => continue,
                queued => queued?,
            };
            match lease.await_turn().await {
                Err(StateError::Lost) => {}
                waited => return waited.map(|()| lease),
            }
        }
    }

    /// A permit if there is a free one; else none.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn try_acquire(&self) -> Result<Option<Lease>, StateError> {
        loop {
            return match self.queue(false).await {
                Ok(lease) => Ok(Some(lease)),
                Err(StateError::Refused(StateRefusal::LeaseHeld { .. })) => Ok(None),
                // As above.
                Err(StateError::Refused(StateRefusal::SessionEnded { .. })) => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Who holds it and who waits.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn view(&self) -> Result<LeaseView, StateError> {
        let lease = self.lease.clone();
        match self.client.ask(StateCall::Lease { lease }).await? {
            StateAnswer::Lease(view) => Ok(view),
            other => Err(unexpected(&other)),
        }
    }

    /// The same as soon as it is not as of this revision any more. May come without a change, too.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn changed(&self, since: Revision) -> Result<LeaseView, StateError> {
        watch_lease(&self.client, &self.lease, since).await
    }

    /// Whoever waits for this may go away: then the place in the queue is given up.
    async fn queue(&self, wait: bool) -> Result<Lease, StateError> {
        let (client, name) = (Arc::clone(&self.client), self.lease.clone());
        let change = StateChange::Acquire {
            lease: name.clone(),
            permits: self.permits,
            wait,
        };
        let queued = async move {
            match client.change(change).await? {
                (Changed::Queued { token, holds }, life) => Ok(Lease {
                    client,
                    name,
                    token,
                    life,
                    holds,
                    is_released: false,
                }),
                (other, _) => Err(unexpected(&StateAnswer::Changed(other))),
            }
        };
        detached(queued).await
    }
}

async fn watch_lease(
    client: &Client,
    lease: &LeaseName,
    revision: Revision,
) -> Result<LeaseView, StateError> {
    let call = StateCall::WatchLease {
        lease: lease.clone(),
        revision,
    };
    match client.wait_for(call).await? {
        StateAnswer::Lease(view) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

/// An election: whoever holds the lease leads.
#[derive(Debug, Clone)]
pub struct Election {
    semaphore: Semaphore,
}

impl Election {
    pub(super) fn new(semaphore: Semaphore) -> Self {
        Self { semaphore }
    }

    /// Waits until this program leads, for as long as it [holds](Lease::is_held) what this returns.
    /// Candidates lead in the order in which they came.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn campaign(&self) -> Result<Lease, StateError> {
        self.semaphore.acquire().await
    }

    /// Who leads, with the fencing token; none if nobody does.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn leader(&self) -> Result<Option<HoldView>, StateError> {
        Ok(self.semaphore.view().await?.holders().next().cloned())
    }

    /// Waits until another one than the one with this token leads, or nobody if there was one.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn next_leader(
        &self,
        present: Option<Token>,
    ) -> Result<Option<HoldView>, StateError> {
        let mut view = self.semaphore.view().await?;
        loop {
            let leader = view.holders().next();
            if leader.map(|hold| hold.token) != present {
                return Ok(leader.cloned());
            }
            view = self.semaphore.changed(view.revision).await?;
        }
    }
}

/// A lease that is held. Dropping it gives it up, without waiting until the masters know.
#[derive(Debug)]
pub struct Lease {
    client: Arc<Client>,
    name: LeaseName,
    token: Token,
    life: Arc<Life>,
    holds: bool,
    is_released: bool,
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &LeaseName {
        &self.name
    }

    /// The fencing token: higher than that of every holder before. What is asked for with a lower token
    /// than has been seen is to be refused.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether it is held as far as is known: nobody else holds it at the moment of this call.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.holds && self.life.is_alive()
    }

    /// Waits until it is not held any more.
    pub async fn lost(&self) {
        self.life.ended().await;
    }

    /// Gives it up, and waits until the masters know, so that the next one in the queue holds it. Done,
    /// too, if it was lost before.
    ///
    /// # Errors
    /// [`StateError::Unavailable`]: others get it at the latest when the time to live is over.
    pub async fn release(mut self) -> Result<(), StateError> {
        self.is_released = true;
        let (client, life) = (Arc::clone(&self.client), Arc::clone(&self.life));
        let freeing = self.freeing();
        detached(async move { client.change_in(&life, freeing).await }).await
    }

    fn freeing(&self) -> StateChange {
        StateChange::Release {
            lease: self.name.clone(),
            token: self.token,
        }
    }

    async fn await_turn(&mut self) -> Result<(), StateError> {
        let mut revision = Revision(0);
        while !self.holds {
            let view = tokio::select! {
                view = watch_lease(&self.client, &self.name, revision) => view?,
                () = self.life.ended() => return Err(StateError::Lost),
            };
            let ours = view.queue.iter().find(|hold| hold.token == self.token);
            self.holds = ours.ok_or(StateError::Lost)?.holds;
            revision = view.revision;
        }
        match self.life.is_alive() {
            true => Ok(()),
            false => Err(StateError::Lost),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_released || !self.life.is_alive() {
            return;
        }
        // Outside a runtime nothing can be sent any more: the time to live frees it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, life) = (Arc::clone(&self.client), Arc::clone(&self.life));
            let freeing = self.freeing();
            // If it fails, the time to live frees it.
            runtime.spawn(async move { drop(client.change_in(&life, freeing).await) });
        }
    }
}
