//! Why a master ends: one reason, one exit code, decided once.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tracing::{error, info};

use crate::registry::MasterId;

/// Why a master has ended. The codes are stable: supervisors decide by them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// It was asked to. Exit code 0.
    #[error("stopped as asked")]
    Stopped,
    /// The registry could not be written: a full or failing disk. Exit code 20. What was
    /// acknowledged before is safe; what was not has been promised to nobody.
    #[error(
        "registry could not be written: {cause}; free some space or replace the disk, then start again: nothing that was acknowledged is lost"
    )]
    StoreFailed {
        /// What the store said.
        cause: String,
    },
    /// This master's registry is not what the leader's is. Exit code 24: somebody must look before it
    /// is started again.
    #[error(
        "the registry differs from that of master {leader}: after entry {index} its hash is {ours:016x} here and {theirs:016x} there, which is a bug or broken memory; keep the data directories of both and report it; if the others agree with each other, remove this master from the cluster and let it join again with an empty data directory"
    )]
    RegistryDiverged {
        /// After which entry.
        index: u64,
        /// The hash here.
        ours: u64,
        /// The leader's.
        theirs: u64,
        /// Who that is.
        leader: MasterId,
    },
    /// The other masters have gone on to a format that this release does not know. Exit code 25.
    #[error(
        "the cluster is of format {format}, and this release knows up to {newest} (too_old): start this master with the release of the others, see `meros masters list`; its data directory is as it was"
    )]
    TooOld {
        /// The cluster's.
        format: u32,
        /// The newest that this release knows.
        newest: u32,
    },
    /// A thread of ours panicked; the log has its message. Exit code 21. Going on without it could
    /// only do harm.
    #[error(
        "thread {thread:?} panicked: this is a bug, please report it with the log; a restart recovers everything that was acknowledged"
    )]
    Panicked {
        /// The name of the thread.
        thread: &'static str,
    },
    /// A listener ended by itself. Exit code 22.
    #[error("{listener} listener ended: {cause}")]
    ListenerFailed {
        /// Such as `http`.
        listener: &'static str,
        /// What it said.
        cause: String,
    },
}

impl ExitReason {
    /// The code that the process returns.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::StoreFailed { .. } => 20,
            Self::Panicked { .. } => 21,
            Self::ListenerFailed { .. } => 22,
            Self::RegistryDiverged { .. } => 24,
            Self::TooOld { .. } => 25,
        }
    }
}

impl From<&ExitReason> for ExitCode {
    fn from(reason: &ExitReason) -> Self {
        Self::from(reason.code())
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Where whoever must end the process says why. The first reason stands. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    reason: Arc<watch::Sender<Option<ExitReason>>>,
}

impl Exit {
    pub(crate) fn new() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Asks for the end.
    pub(crate) fn end(&self, why: ExitReason) {
        let said = why.clone();
        let is_first = self.reason.send_if_modified(|reason| {
            let is_first = reason.is_none();
            reason.get_or_insert(why);
            is_first
        });
        // Only then: the reason must be known also where the log cannot be written.
        match said {
            _ if !is_first => {}
            ExitReason::Stopped => info!("stopping"),
            why => error!(code = why.code(), %why, "stopping"),
        }
    }

    /// Waits until somebody has asked for the end.
    pub(crate) async fn asked(&self) -> ExitReason {
        let mut reason = self.reason.subscribe();
        let found = reason
            .wait_for(Option::is_some)
            .await
            .expect("the sender is held by self");
        found.clone().expect("waited for")
    }

    /// Kept by a listener, which ends the process if it panics.
    pub(crate) fn listener_guard(&self, listener: &'static str) -> ListenerGuard {
        ListenerGuard {
            listener,
            exit: self.clone(),
        }
    }

    /// Starts one of the threads that the master cannot do without. It ends the process by returning
    /// a reason, or by a panic.
    pub(crate) fn spawn_thread(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Option<ExitReason> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let guard = PanicGuard {
            thread: name,
            exit: self.clone(),
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Moved in, so that it is dropped when `work` unwinds.
                let guard = guard;
                if let Some(reason) = work() {
                    guard.exit.end(reason);
                }
            })
    }
}

struct PanicGuard {
    thread: &'static str,
    exit: Exit,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.exit.end(ExitReason::Panicked {
                thread: self.thread,
            });
        }
    }
}

/// See [`Exit::listener_guard`].
pub(crate) struct ListenerGuard {
    listener: &'static str,
    exit: Exit,
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.exit.end(ExitReason::ListenerFailed {
                listener: self.listener,
                cause: "it panicked; the log has its message".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands_and_a_panic_is_one() {
        let exit = Exit::new();
        let thread = exit.spawn_thread("core", || panic!("on purpose")).unwrap();
        assert!(thread.join().is_err());
        exit.end(ExitReason::Stopped);
        assert_eq!(exit.asked().await, ExitReason::Panicked { thread: "core" });
    }

    #[tokio::test]
    async fn a_listener_that_panics_is_a_reason_and_one_that_ends_is_none() {
        let exit = Exit::new();
        drop(exit.listener_guard("quic"));
        let guard = exit.listener_guard("http");
        let listener = tokio::spawn(async move {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(listener.await.is_err());
        assert!(matches!(
            exit.asked().await,
            ExitReason::ListenerFailed {
                listener: "http",
                ..
            }
        ));
    }

    #[test]
    fn each_reason_has_a_code_of_its_own() {
        let cause = String::new;
        let reasons = [
            ExitReason::Stopped,
            ExitReason::StoreFailed { cause: cause() },
            ExitReason::Panicked { thread: "core" },
            ExitReason::ListenerFailed {
                listener: "http",
                cause: cause(),
            },
            ExitReason::RegistryDiverged {
                index: 0,
                ours: 1,
                theirs: 2,
                leader: MasterId(3),
            },
            ExitReason::TooOld {
                format: 3,
                newest: 2,
            },
        ];
        let codes: std::collections::BTreeSet<u8> = reasons.iter().map(ExitReason::code).collect();
        assert_eq!(codes.len(), reasons.len());
        assert_eq!(reasons[0].code(), 0);
    }
}
