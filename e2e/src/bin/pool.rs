//! Tasks a second through one executor, which says of each at once that it runs and that it has finished: what a
//! task costs on its way from its framework to the slave, the disk and back, where no process is started for it.
//!
//! `MEROS_BIN=target/release/meros pool [TASKS]…`, by default 1000 and 5000. Each round is launched at once, in one
//! executor that is already there. The same program is the executor.

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use meros_e2e::{ClusterOptions, LocalCluster};
use meros_sdk::executor::{Executor, ExecutorHandle, run_executor};
use meros_sdk::{
    Command, Events, ExecutorDescription, ExecutorId, Filters, Handle, News, Offer, Operation,
    Placement, Session, SessionConfig, Task, TaskDescription, TaskId, TaskState,
};

/// Tasks in one accept: a message holds some thousands at most.
const BATCH: usize = 1_000;
/// For a whole round.
const PATIENCE: Duration = Duration::from_secs(120);

struct AtOnce;

impl Executor for AtOnce {
    fn launch(&mut self, task: TaskDescription, slave: &ExecutorHandle) {
        slave.running(task.task_id.clone());
        slave.finished(task.task_id);
    }

    fn kill(&mut self, task_id: TaskId, _grace: Duration, slave: &ExecutorHandle) {
        slave.killed(task_id);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os("MEROS_EXECUTOR_ID").is_some() {
        return Ok(run_executor(&mut AtOnce)?);
    }
    let rounds: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse())
        .collect::<Result<_, _>>()?;
    let rounds = match rounds.is_empty() {
        true => vec![1_000, 5_000],
        false => rounds,
    };
    let mut options = ClusterOptions::new("pool", 1);
    options.resources = "cpus:16;mem:65536";
    let cluster = LocalCluster::start(options);
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(run(&cluster, &rounds));
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

async fn run(cluster: &LocalCluster, rounds: &[usize]) -> Result<(), Box<dyn Error>> {
    let masters = meros_sdk::parse_masters(cluster.address())?;
    let config = SessionConfig::new("pool", masters, cluster.identity("framework"));
    let (mut events, handle) = Session::connect(config)?;
    let executor = ExecutorDescription::new(
        ExecutorId::new("pool")?,
        Command::argv([std::env::current_exe()?.display().to_string()]),
        "cpus:0.1;mem:64".parse()?,
    );
    let mut pool = Pool {
        executor,
        is_there: false,
        launched: 0,
    };
    pool.round(1, &mut events, &handle).await?;
    for &tasks in rounds {
        let took = pool.round(tasks, &mut events, &handle).await?;
        let rate = tasks as f64 / took.as_secs_f64();
        println!("{tasks} tasks at once in one executor: {took:.2?}, {rate:.0} tasks/s");
    }
    handle.teardown()?;
    while events.next().await.is_some() {}
    Ok(())
}

struct Pool {
    executor: ExecutorDescription,
    is_there: bool,
    launched: usize,
}

impl Pool {
    /// From the first launch until the last end is told.
    async fn round(
        &mut self,
        tasks: usize,
        events: &mut Events,
        handle: &Handle,
    ) -> Result<Duration, Box<dyn Error>> {
        let mut waiting: VecDeque<String> = (self.launched..self.launched + tasks)
            .map(|nth| format!("t-{nth}"))
            .collect();
        self.launched += tasks;
        let (mut open, mut from) = (tasks, None);
        handle.revive(Vec::new())?;
        while open > 0 {
            let news = tokio::time::timeout(PATIENCE, events.next()).await?;
            match news.ok_or("the session ended")? {
                News::Offers(offers) => {
                    for offer in &offers {
                        from.get_or_insert_with(Instant::now);
                        self.answer(offer, &mut waiting, handle)?;
                    }
                }
                News::Update(status) if status.state == TaskState::Finished => open -= 1,
                News::Update(status) if status.state.is_terminal() => {
                    return Err(format!("{}: {}", status.task_id, status.message).into());
                }
                News::Refused { call, refusal } => return Err(format!("{call}: {refusal}").into()),
                News::Ended(reason) => return Err(format!("ended: {reason:?}").into()),
                _ => {}
            }
        }
        Ok(from.ok_or("nothing was offered")?.elapsed())
    }

    fn answer(
        &mut self,
        offer: &Offer,
        waiting: &mut VecDeque<String>,
        handle: &Handle,
    ) -> Result<(), Box<dyn Error>> {
        let mut placement = Placement::on(offer);
        if self.is_there {
            placement.has_executor(self.executor.executor_id.clone());
        }
        for _ in 0..BATCH {
            let Some(id) = waiting.front() else { break };
            let task = Task::new(id).cpus(0.001).mem(1.0);
            if placement
                .place(&task.in_executor(self.executor.clone()))
                .is_err()
            {
                break;
            }
            waiting.pop_front();
            self.is_there = true;
        }
        let tasks = placement.into_tasks();
        let offers = vec![offer.offer_id];
        // While more waits, what is left comes back at once; else with the next round.
        let refuse = match waiting.is_empty() {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        let filters = Filters { refuse };
        match tasks.is_empty() {
            true => handle.decline(offers, filters)?,
            false => handle.accept(offers, vec![Operation::Launch(tasks)], filters)?,
        }
        Ok(())
    }
}
