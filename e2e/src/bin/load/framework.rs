//! A framework that launches whatever fits, up to a rate, and counts what becomes of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::status::TaskState;
use meros_sdk::{
    Acknowledge, CallError, Events, Handle, News, Placement, Session, SessionConfig, Task,
};

use crate::emulated::Ground;

/// Samples that are kept.
const WAITS_MAX: usize = 4_000_000;

/// What has become known to all frameworks.
#[derive(Debug, Default)]
pub(crate) struct Launches {
    /// Ends that were told and acknowledged.
    pub(crate) finished: AtomicU64,
    /// Those of them that no slave has said: the task is lost, or cut off.
    pub(crate) not_finished: AtomicU64,
    /// The highest of an offer.
    pub(crate) epoch: AtomicU64,
    /// From the end of a task to the offer of its slave, in microseconds.
    waits: Mutex<Vec<u64>>,
}

impl Launches {
    pub(crate) fn clear(&self) {
        self.finished.store(0, Ordering::Relaxed);
        self.take_waits();
    }

    pub(crate) fn take_waits(&self) -> Vec<u64> {
        std::mem::take(&mut *self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn waited(&self, micros: u64) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() < WAITS_MAX {
            waits.push(micros);
        }
    }
}

/// One framework.
pub(crate) struct Launcher {
    pub(crate) number: usize,
    pub(crate) masters: Vec<String>,
    pub(crate) identity: PathBuf,
    pub(crate) state_file: PathBuf,
    /// Of a task.
    pub(crate) cpus: u64,
    /// Launches a second at most; 0: any.
    pub(crate) rate: u64,
    pub(crate) ground: Arc<Ground>,
    pub(crate) launches: Arc<Launches>,
}

impl Launcher {
    /// Until its task is aborted.
    pub(crate) async fn run(self) {
        let name = format!("load-{}", self.number);
        let mut config = SessionConfig::new(&name, self.masters.clone(), &self.identity);
        config.state_file = Some(self.state_file.clone());
        config.acknowledge = Acknowledge::Manual;
        config.framework.failover_timeout = Duration::from_secs(3_600);
        let (events, handle) = Session::connect(config).expect("a good configuration");
        self.serve(events, handle).await;
    }

    async fn serve(self, mut events: Events, handle: Handle) {
        let began = Instant::now();
        let mut launched = 0;
        while let Some(news) = events.next().await {
            match news {
                News::Offers(offers) => {
                    for offer in offers {
                        self.note(&offer);
                        launched += self.accept(&offer, &handle, began, launched).await;
                    }
                }
                News::Update(status) => {
                    if status.state.is_terminal() {
                        self.launches.finished.fetch_add(1, Ordering::Relaxed);
                    }
                    let is_ours = matches!(
                        status.state,
                        TaskState::Starting | TaskState::Running | TaskState::Finished
                    );
                    self.launches
                        .not_finished
                        .fetch_add(u64::from(!is_ours), Ordering::Relaxed);
                    while handle.acknowledge(&status) == Err(CallError::Full) {
                        tokio::task::yield_now().await;
                    }
                }
                News::Ended(reason) => panic!("framework {} ended: {reason:?}", self.number),
                _ => {}
            }
        }
    }

    /// What is measured of an offer.
    fn note(&self, offer: &Offer) {
        let epoch = &self.launches.epoch;
        epoch.fetch_max(offer.offer_id.epoch.0, Ordering::Relaxed);
        let Some(freed_at) = self.ground.freed_at.get(offer.slave_id.0 as usize) else {
            return;
        };
        let at = freed_at.swap(0, Ordering::Relaxed);
        if at > 0 {
            self.launches
                .waited(self.ground.micros().saturating_sub(at));
        }
    }

    /// How many were launched.
    async fn accept(&self, offer: &Offer, handle: &Handle, began: Instant, launched: u64) -> u64 {
        let room = match self.rate {
            0 => u64::MAX,
            rate => {
                let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                (millis.saturating_mul(rate) / 1_000).saturating_sub(launched)
            }
        };
        let mut placement = Placement::on(offer);
        let mut placed = 0;
        let cpus = self.cpus as f64;
        while placed < room {
            let task = Task::new(format!("t-{}", launched + placed))
                .argv(["true"])
                .cpus(cpus)
                .mem(16.0);
            if placement.place(&task).is_err() {
                break;
            }
            placed += 1;
        }
        // Nothing is to be kept from us: what is left comes back as soon as there is more.
        let refuse = match self.rate {
            0 => Duration::ZERO,
            _ => Duration::from_millis(100),
        };
        let tasks = placement.into_tasks();
        loop {
            let offer_ids = vec![offer.offer_id];
            let filters = Filters { refuse };
            let called = match tasks.is_empty() {
                true => handle.decline(offer_ids, filters),
                false => {
                    let launch = Operation::Launch(tasks.clone());
                    handle.accept(offer_ids, vec![launch], filters)
                }
            };
            match called {
                Err(CallError::Full) => tokio::task::yield_now().await,
                _ => return placed,
            }
        }
    }
}
