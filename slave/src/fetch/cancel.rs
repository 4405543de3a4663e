//! The wish that a fetch ends early, heard by what waits and by what blocks.

use tokio::sync::watch;

/// Wishes the end of a fetch, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Canceller(watch::Sender<bool>);

/// Hears of it.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(watch::Receiver<bool>);

pub(crate) fn cancel() -> (Canceller, Cancel) {
    let (sender, receiver) = watch::channel(false);
    (Canceller(sender), Cancel(receiver))
}

impl Canceller {
    pub(crate) fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// For loops that block.
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for it.
    pub(crate) async fn cancelled(&self) {
        // An error is a sender that is gone, which is the same wish.
        let _ = self.0.clone().wait_for(|is_cancelled| *is_cancelled).await;
    }
}
