//! How the container of one task behaves: fixed by the seed and the task's id, so that a fault does
//! not change it.

use std::time::Duration;

use meros_proto::status::{Reason, TaskExit};
use meros_proto::task::TaskDescription;
use meros_slave_core::{ContainerExit, Limitation};

use crate::prng::{Rng, micros};

/// Tasks whose id begins like this run until they are killed.
pub(crate) const SERVICE_PREFIX: &str = "svc-";

/// What becomes of a container.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// From the order to its first process, or to the news that there will be none.
    pub(crate) start: Duration,
    pub(crate) starts: bool,
    /// How long it runs if nobody stops it; None: for ever.
    pub(crate) runs: Option<Duration>,
    pub(crate) exit: ContainerExit,
    /// From SIGTERM to its end; None: it ignores it.
    pub(crate) yields: Option<Duration>,
}

impl Script {
    /// What the task says of itself in its `data`, else what chance says.
    pub(crate) fn of(seed: &Rng, task: &TaskDescription) -> Self {
        Self::decode(&task.data).unwrap_or_else(|| Self::draw(&seed.fork("scripts"), task))
    }

    /// The `data` of a task whose container takes `start` to start, runs for `runs` or until it is
    /// killed, and ends with this code.
    pub(crate) fn encode(start: Duration, runs: Option<Duration>, code: i32) -> Vec<u8> {
        let runs = runs.map_or(u64::MAX, micros);
        [micros(start).to_le_bytes(), runs.to_le_bytes()]
            .concat()
            .into_iter()
            .chain(code.to_le_bytes())
            .collect()
    }

    fn decode(data: &[u8]) -> Option<Self> {
        let (start, rest) = data.split_first_chunk::<8>()?;
        let (runs, rest) = rest.split_first_chunk::<8>()?;
        let (code, []) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let runs = u64::from_le_bytes(*runs);
        Some(Self {
            start: Duration::from_micros(u64::from_le_bytes(*start)),
            starts: true,
            runs: (runs != u64::MAX).then(|| Duration::from_micros(runs)),
            exit: ContainerExit {
                exit: TaskExit::Code(i32::from_le_bytes(*code)),
                limitation: None,
                message: String::new(),
            },
            yields: Some(Duration::from_millis(10)),
        })
    }

    fn draw(seed: &Rng, task: &TaskDescription) -> Self {
        let task = &task.task_id;
        let mut rng = seed.fork(task.as_str());
        let millis = Duration::from_millis;
        let is_service = task.as_str().starts_with(SERVICE_PREFIX);
        let runs = rng.skewed(millis(10), millis(60_000));
        let (exit, limitation) = match rng.below(20) {
            0..=14 => (TaskExit::Code(0), None),
            15..=16 => (TaskExit::Code(1), None),
            17 => (TaskExit::Signal(11), None),
            _ => {
                let message = "used more memory than its limit".to_owned();
                let reason = Reason::ContainerLimitationMemory;
                (TaskExit::Signal(9), Some(Limitation { reason, message }))
            }
        };
        Self {
            start: rng.skewed(millis(1), millis(2_000)),
            starts: !rng.percent(5),
            runs: (!is_service).then_some(runs),
            exit: ContainerExit {
                exit,
                limitation,
                message: String::new(),
            },
            yields: (!rng.percent(20)).then(|| rng.skewed(millis(1), millis(10_000))),
        }
    }

    /// From SIGTERM to its end with this grace, and how it ends.
    pub(crate) fn killed(&self, grace: Duration) -> (Duration, ContainerExit) {
        let (after, signal) = match self.yields {
            Some(after) if after <= grace => (after, 15),
            _ => (grace, 9),
        };
        let exit = ContainerExit {
            exit: TaskExit::Signal(signal),
            limitation: None,
            message: String::new(),
        };
        (after, exit)
    }
}
