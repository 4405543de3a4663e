//! The thread that keeps the read model: whose events it takes, and who hears of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};
use meros_proto::view::{ClusterChange, ClusterEvent, TaskView};

use super::{LEADING, ReadModel, Row, Shared};

/// Something to be done about the read model.
#[derive(Debug)]
pub(super) enum Step {
    /// This master's core has published these.
    Own(Vec<ClusterEvent>),
    /// This master begins to lead, and wants to know the tasks.
    Lead(Sender<Vec<Arc<TaskView>>>),
    /// It does not lead any more.
    Rest,
    /// The leader has sent these.
    Followed(Vec<Followed>),
    /// A subscriber wants to know when it has all that was published before.
    Mark { subscriber: u64, number: u64 },
    /// There is nothing more to come.
    End,
}

/// A piece of the leader's stream.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "events are nearly all of it: a box each would cost an allocation for each"
)]
pub(crate) enum Followed {
    /// All there is follows, in rows.
    Begin,
    /// See there.
    Row(Row),
    /// Those were all rows: events from the one after this number on follow.
    Complete(u64),
    /// The next event.
    Event(ClusterEvent),
    /// All that the leader had published at this time, by our clock, has been sent.
    AsOf(u64),
}

/// Whose events the model is made of.
#[derive(Debug)]
enum Source {
    /// Nobody's any more.
    Nobody,
    /// This master's core.
    Own,
    /// The leader's, but not all rows have come yet. What was known before is read meanwhile.
    Coming(Box<ReadModel>),
    /// The leader's.
    Leader,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    source: Source,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            source: Source::Nobody,
        }
    }

    pub(super) fn run(mut self, steps: &Receiver<Step>) {
        for step in steps {
            match step {
                Step::Own(batch) => self.on_own(batch),
                Step::Lead(answer) => {
                    self.source = Source::Own;
                    // Whoever asked waits, unless its thread has died.
                    let _ = answer.send(self.shared.model.read().tasks_known());
                }
                Step::Rest => self.on_rest(),
                Step::Followed(pieces) => self.on_followed(pieces),
                Step::Mark { subscriber, number } => {
                    self.shared.subscribers.lock().mark(subscriber, number);
                }
                Step::End => {
                    self.shared.history.end();
                    return self.shared.subscribers.lock().clear();
                }
            }
        }
    }

    fn on_own(&mut self, batch: Vec<ClusterEvent>) {
        self.source = Source::Own;
        let mut model = self.shared.model.write();
        let mut subscribers = self.shared.subscribers.lock();
        let history = &self.shared.history;
        if subscribers.len() == 0 && !history.is_kept() {
            batch.into_iter().for_each(|event| model.apply(event));
        } else {
            let batch: Arc<[ClusterEvent]> = batch.into();
            let mut before = Vec::with_capacity(batch.len());
            for event in batch.iter() {
                before.push(model.has_subject_of(&event.change));
                model.apply(event.clone());
            }
            subscribers.tell(&batch);
            if let (true, Some(place)) = (history.is_kept(), model.place()) {
                // What came before another term is void.
                let is_first =
                    |event: &ClusterEvent| matches!(event.change, ClusterChange::Elected(_));
                let batch = match batch.iter().rposition(is_first) {
                    Some(from @ 1..) => batch[from..].into(),
                    _ => batch,
                };
                let before = before.split_off(before.len() - batch.len());
                history.tell(place.epoch, &batch, before);
            }
        }
        self.current_as_of(LEADING);
    }

    fn on_rest(&mut self) {
        self.source = Source::Nobody;
        // Nobody begins to follow or to watch meanwhile, and waits for ever.
        let _model = self.shared.model.write();
        self.shared.subscribers.lock().clear();
        self.shared.history.end();
        let as_of = &self.shared.current_as_of;
        if as_of.load(Ordering::Acquire) == LEADING {
            let now = self.shared.started.elapsed().as_micros();
            self.current_as_of(u64::try_from(now).map_or(LEADING - 1, |it| it + 1));
        }
    }

    fn on_followed(&mut self, pieces: Vec<Followed>) {
        // What the leader before sent may come after this one has begun to lead.
        if matches!(self.source, Source::Own) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Taken once for all events of a batch; rows need it only when they are complete.
        let mut model = None;
        for piece in pieces {
            match (piece, &mut self.source) {
                (Followed::Begin, _) => self.source = Source::Coming(Box::default()),
                (Followed::Row(row), Source::Coming(coming)) => coming.put(row),
                (Followed::Complete(sequence), Source::Coming(coming)) => {
                    coming.complete(sequence);
                    let whole = std::mem::take(&mut **coming);
                    **model.get_or_insert_with(|| shared.model.write()) = whole;
                    self.source = Source::Leader;
                }
                (Followed::Event(event), Source::Leader) => {
                    model
                        .get_or_insert_with(|| shared.model.write())
                        .apply(event);
                }
                (Followed::AsOf(at), Source::Leader) => self.current_as_of(at),
                // Of a stream that was ended meanwhile.
                _ => {}
            }
        }
    }

    fn current_as_of(&self, at: u64) {
        self.shared.current_as_of.store(at, Ordering::Release);
    }
}
