//! Tasks that wait for an offer: in order of readiness, but one that fits nowhere holds up only those
//! that are like it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use meros_proto::resources::Resources;
use meros_proto::time::Timestamp;

/// A task that waits.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) resources: Arc<Resources>,
    pub(crate) models: Option<Arc<[String]>>,
    pub(crate) runs: Option<Duration>,
    pub(crate) fails: bool,
    pub(crate) start: Duration,
    pub(crate) ready: Timestamp,
    /// Its source, and its place in the list if it is one.
    pub(crate) source: usize,
    pub(crate) place: Option<u32>,
}

impl Pending {
    /// Whether it can run where there are GPUs of this model.
    pub(crate) fn suits(&self, model: Option<&str>) -> bool {
        let suits = |models: &Arc<[String]>| models.iter().any(|it| Some(it.as_str()) == model);
        self.models.as_ref().is_none_or(suits)
    }
}

/// Those that take the same and run in the same places.
#[derive(Debug)]
struct Alike {
    resources: Arc<Resources>,
    models: Option<Arc<[String]>>,
    tasks: VecDeque<Pending>,
}

/// Tasks that wait, by what they take. There are as many queues as a scenario has kinds of tasks.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    kinds: Vec<Alike>,
    len: usize,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        self.kinds.clear();
        self.len = 0;
    }

    pub(crate) fn push(&mut self, task: Pending) {
        let is_alike = |kind: &Alike| {
            Arc::ptr_eq(&kind.resources, &task.resources) && kind.models == task.models
        };
        let known = self.kinds.iter().position(is_alike);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push(Alike {
                resources: task.resources.clone(),
                models: task.models.clone(),
                tasks: VecDeque::new(),
            });
            self.kinds.len() - 1
        });
        self.len += 1;
        self.kinds[kind].tasks.push_back(task);
    }

    /// Takes out the one that has been ready for longest of those that fit, with what `fits` made of
    /// it. Kinds that do not fit are noted in `passed_over` and not tried again with it.
    pub(crate) fn take_first<T>(
        &mut self,
        mut fits: impl FnMut(&Pending) -> Option<T>,
        passed_over: &mut BTreeSet<usize>,
    ) -> Option<(Pending, T)> {
        loop {
            let heads = self.kinds.iter().enumerate();
            let heads = heads.filter(|(at, _)| !passed_over.contains(at));
            let ready = heads.filter_map(|(at, kind)| Some((kind.tasks.front()?.ready, at)));
            let (_, kind) = ready.min()?;
            let Some(made) = fits(&self.kinds[kind].tasks[0]) else {
                passed_over.insert(kind);
                continue;
            };
            let task = self.kinds[kind].tasks.pop_front();
            let task = task.expect("it was looked at");
            self.len -= 1;
            return Some((task, made));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(resources: &Arc<Resources>, ready: u64) -> Pending {
        Pending {
            resources: resources.clone(),
            models: None,
            runs: None,
            fails: false,
            start: Duration::ZERO,
            ready: Timestamp(ready),
            source: 0,
            place: None,
        }
    }

    #[test]
    fn those_that_fit_nowhere_hold_up_only_those_like_them() {
        let [huge, small] =
            ["cpus:1000", "cpus:1"].map(|text| Arc::new(text.parse().expect("fine")));
        let mut waiting = Waiting::default();
        (1..=100).for_each(|ready| waiting.push(task(&huge, ready)));
        waiting.push(task(&small, 101));
        waiting.push(task(&small, 102));
        let mut tried = 0;
        let mut passed_over = BTreeSet::new();
        let mut next = |waiting: &mut Waiting| {
            let fits = |task: &Pending| {
                tried += 1;
                Arc::ptr_eq(&task.resources, &small).then_some(())
            };
            let taken = waiting.take_first(fits, &mut passed_over);
            taken.map(|(task, ())| task.ready.0)
        };
        assert_eq!(next(&mut waiting), Some(101));
        assert_eq!(next(&mut waiting), Some(102));
        assert_eq!(next(&mut waiting), None);
        assert_eq!((waiting.len(), tried), (100, 3));
    }
}
