//! A framework that launches whatever fits, up to a rate, and counts what becomes of it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meros_proto::ids::{TaskId, UpdateId};
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::status::{TaskState, TaskStatus};
use meros_sdk::{
    Acknowledge, CallError, Events, Handle, News, Placement, Session, SessionConfig, Task,
};

use crate::emulated::Ground;

/// How often it asks, at the end, for tasks that have none.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);
/// Refuses an offer when there is nothing to launch.
const IDLE_FOR: Duration = Duration::from_millis(100);
/// Samples that are kept.
const WAITS_MAX: usize = 4_000_000;

/// What has become known to all frameworks.
#[derive(Debug, Default)]
pub(crate) struct Launches {
    /// Ends that were told and acknowledged.
    pub(crate) finished: AtomicU64,
    /// Tasks that were launched, and of them those that have finished, once.
    pub(crate) launched: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    /// Tasks whose end was told in another way, by how.
    others: Mutex<BTreeMap<String, u64>>,
    /// Second, different ends of tasks.
    pub(crate) ended_again: AtomicU64,
    /// Nothing more is launched.
    pub(crate) is_over: AtomicBool,
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

    /// Ends that are no success, by how and how many.
    pub(crate) fn others(&self) -> BTreeMap<String, u64> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.clone()
    }

    /// Tasks whose end is not known.
    pub(crate) fn open(&self) -> u64 {
        let ended: u64 = self.others().values().sum();
        let finished = self.succeeded.load(Ordering::Relaxed);
        let launched = self.launched.load(Ordering::Relaxed);
        launched.saturating_sub(finished + ended)
    }

    fn other(&self, how: String) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        *others.entry(how).or_default() += 1;
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
        let mut ends = HashMap::new();
        let mut look = tokio::time::interval(RECONCILE_EVERY);
        loop {
            let news = tokio::select! {
                news = events.next() => match news {
                    Some(news) => news,
                    None => return,
                },
                _ = look.tick() => {
                    if self.launches.is_over.load(Ordering::Relaxed) {
                        // It says what it has no answer for again, since slaves may have been away.
                        let _ = handle.reconcile(Vec::new());
                    }
                    continue;
                }
            };
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
                    self.end(&status, &mut ends);
                    while handle.acknowledge(&status) == Err(CallError::Full) {
                        tokio::task::yield_now().await;
                    }
                }
                News::Ended(reason) => panic!("framework {} ended: {reason:?}", self.number),
                _ => {}
            }
        }
    }

    /// Whether each task has one end.
    fn end(&self, status: &TaskStatus, ends: &mut HashMap<TaskId, Option<UpdateId>>) {
        if !status.state.is_terminal() && status.state != TaskState::Unknown {
            return;
        }
        match ends.entry(status.task_id.clone()) {
            // Told until it is acknowledged.
            Entry::Occupied(known) if *known.get() == status.update_id => {}
            Entry::Occupied(_) => {
                self.launches.ended_again.fetch_add(1, Ordering::Relaxed);
            }
            Entry::Vacant(first) => {
                first.insert(status.update_id);
                match status.state {
                    TaskState::Finished => {
                        let finished = &self.launches.succeeded;
                        finished.fetch_add(1, Ordering::Relaxed);
                    }
                    state => self.launches.other(format!("{state}, {:?}", status.reason)),
                }
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
            _ if self.launches.is_over.load(Ordering::Relaxed) => 0,
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
            0 if room > 0 => Duration::ZERO,
            _ => IDLE_FOR,
        };
        let tasks = placement.into_tasks();
        self.launches.launched.fetch_add(placed, Ordering::Relaxed);
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
