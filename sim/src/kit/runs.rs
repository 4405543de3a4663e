//! How the tasks of a framework under test behave.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use meros_proto::status::{Reason, TaskExit};
use meros_proto::task::TaskDescription;
use meros_slave_core::{ContainerExit, Limitation};

use crate::behaviour::script::Script;
use crate::prng::Rng;

/// From the order to the first process, unless something else is said: a container without an image.
const START_DEFAULT: Duration = Duration::from_millis(50);
/// From SIGTERM to the end, unless something else is said.
const YIELD_DEFAULT: Duration = Duration::from_millis(10);
const SIGKILL: i32 = 9;

/// What becomes of one task if nobody kills it and its slave stays.
///
/// ```
/// use std::time::Duration;
/// use meros_sim::kit::TaskRun;
/// let slow_and_stubborn = TaskRun::finishes_after(Duration::from_secs(600))
///     .starts_within(Duration::from_secs(30))
///     .ignores_sigterm();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRun {
    start: Duration,
    starts: bool,
    runs: Option<Duration>,
    exit: TaskExit,
    is_out_of_memory: bool,
    yields: Option<Duration>,
}

impl TaskRun {
    fn new(runs: Option<Duration>, exit: TaskExit) -> Self {
        Self {
            start: START_DEFAULT,
            starts: true,
            runs,
            exit,
            is_out_of_memory: false,
            yields: Some(YIELD_DEFAULT),
        }
    }

    /// Runs for so long and exits with 0: TASK_FINISHED.
    #[must_use]
    pub fn finishes_after(runs: Duration) -> Self {
        Self::new(Some(runs), TaskExit::Code(0))
    }

    /// Runs for so long and exits with this code: TASK_FAILED, unless it is 0.
    #[must_use]
    pub fn fails_after(runs: Duration, code: i32) -> Self {
        Self::new(Some(runs), TaskExit::Code(code))
    }

    /// Runs for so long and uses more memory than it may: TASK_FAILED, with the reason
    /// [`Reason::ContainerLimitationMemory`].
    #[must_use]
    pub fn out_of_memory_after(runs: Duration) -> Self {
        let run = Self::new(Some(runs), TaskExit::Signal(SIGKILL));
        Self {
            is_out_of_memory: true,
            ..run
        }
    }

    /// Runs until it is killed.
    #[must_use]
    pub fn forever() -> Self {
        Self::new(None, TaskExit::Code(0))
    }

    /// Never gets to its first process: TASK_FAILED.
    #[must_use]
    pub fn cannot_start() -> Self {
        Self {
            starts: false,
            ..Self::forever()
        }
    }

    /// From the order to the first process, or to the news that there is none. Default 50 ms.
    #[must_use]
    pub fn starts_within(self, start: Duration) -> Self {
        Self { start, ..self }
    }

    /// From SIGTERM to its end. Default 10 ms.
    #[must_use]
    pub fn yields_within(self, yields: Duration) -> Self {
        Self {
            yields: Some(yields),
            ..self
        }
    }

    /// It ends only with SIGKILL, after the grace of whoever kills it.
    #[must_use]
    pub fn ignores_sigterm(self) -> Self {
        Self {
            yields: None,
            ..self
        }
    }

    fn script(self) -> Script {
        let limitation = self.is_out_of_memory.then(|| Limitation {
            reason: Reason::ContainerLimitationMemory,
            message: "used more memory than its limit".to_owned(),
        });
        Script {
            start: self.start,
            starts: self.starts,
            runs: self.runs,
            exit: ContainerExit {
                exit: self.exit,
                limitation,
                message: String::new(),
            },
            yields: self.yields,
        }
    }
}

/// Chance that the seed fixes: the same draws for the same seed and the same task.
#[derive(Debug)]
pub struct Chance(Rng);

impl Chance {
    /// True in so many of a hundred cases.
    pub fn percent(&mut self, of_hundred: u64) -> bool {
        self.0.percent(of_hundred)
    }

    /// Evenly between both.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        self.0.duration(low, high)
    }

    /// From 0 up to but without `bound`; 0 if there is nothing below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

type RunOf = dyn Fn(&TaskDescription, &mut Chance) -> TaskRun;

/// How all tasks behave. Default: each finishes after one to ten seconds.
#[derive(Clone)]
pub struct TaskRuns(Rc<RunOf>);

impl TaskRuns {
    /// As this function says; it is asked once for each launch.
    pub fn new(run_of: impl Fn(&TaskDescription, &mut Chance) -> TaskRun + 'static) -> Self {
        Self(Rc::new(run_of))
    }

    pub(crate) fn script_of(&self, seed: u64, task: &TaskDescription) -> Script {
        let chance = Rng::new(seed).fork("tasks").fork(task.task_id.as_str());
        (self.0)(task, &mut Chance(chance)).script()
    }
}

impl Default for TaskRuns {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self::new(move |_, chance| TaskRun::finishes_after(chance.between(second, second * 10)))
    }
}

impl fmt::Debug for TaskRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskRuns")
    }
}
