//! A framework that brings its own executor: one process on a slave squares twenty numbers, each a task.
//!
//! The same program is both: with `MEROS_EXECUTOR_ID` in its environment it was started by a slave. The slave must
//! have it under the same path.
//!
//! ```text
//! MEROS_MASTER=127.0.0.1:5050 MEROS_IDENTITY=id/framework cargo run -p meros-sdk --example pool
//! ```

use std::error::Error;
use std::time::Duration;

use meros_sdk::executor::{Executor, ExecutorHandle, run_executor};
use meros_sdk::{
    Actions, Command, ExecutorDescription, ExecutorId, Offer, Placement, Scheduler, SessionConfig,
    Task, TaskDescription, TaskId, TaskState, TaskStatus,
};

const TASKS: u64 = 20;

/// On the slave: each task is a number.
struct Squares;

impl Executor for Squares {
    fn launch(&mut self, task: TaskDescription, slave: &ExecutorHandle) {
        let text = String::from_utf8_lossy(&task.data).into_owned();
        slave.running(task.task_id.clone());
        let number: Result<u64, _> = text.parse();
        match number.map(|number| number * number) {
            Ok(square) => {
                slave.update(TaskStatus {
                    data: square.to_string().into(),
                    ..slave.status(task.task_id, TaskState::Finished)
                });
            }
            Err(error) => {
                slave.failed(task.task_id, format!("{text:?} is no number: {error}"));
            }
        }
    }

    fn kill(&mut self, task_id: TaskId, _grace: Duration, slave: &ExecutorHandle) {
        slave.killed(task_id);
    }
}

/// Where the framework runs.
struct Pool {
    executor: ExecutorDescription,
    next: u64,
    ended: u64,
}

impl Scheduler for Pool {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        for offer in &offers {
            let mut placement = Placement::on(offer);
            while self.next < TASKS {
                let task = Task::new(format!("square-{}", self.next))
                    .cpus(0.01)
                    .mem(4.0)
                    .data(self.next.to_string())
                    .in_executor(self.executor.clone());
                if placement.place(&task).is_err() {
                    break;
                }
                self.next += 1;
            }
            actions.launch(placement);
        }
    }

    fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
        if status.state.is_terminal() {
            let said = String::from_utf8_lossy(&status.data).into_owned();
            println!(
                "{}: {} {said}{}",
                status.task_id, status.state, status.message
            );
            self.ended += 1;
        }
        if self.ended == TASKS {
            actions.teardown();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os("MEROS_EXECUTOR_ID").is_some() {
        return Ok(run_executor(&mut Squares)?);
    }
    let program = std::env::current_exe()?;
    let command = Command::argv([program.display().to_string()]);
    let resources = "cpus:0.1;mem:64".parse()?;
    let mut pool = Pool {
        executor: ExecutorDescription::new(ExecutorId::new("squares")?, command, resources),
        next: 0,
        ended: 0,
    };
    let config = SessionConfig::from_env("pool")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(meros_sdk::run(config, &mut pool))?;
    Ok(())
}
