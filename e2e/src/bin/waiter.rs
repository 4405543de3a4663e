//! An executor for the tests: each task waits until there is a file in the sandbox, which its `data` names.
//!
//! In its sandbox, `launched` gets a line for each task that it is given, `ended` one for each that is over.
//! The last update of each task carries its process id. Every message is sent back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use meros_sdk::executor::{Executor, ExecutorHandle, run_executor};
use meros_sdk::{TaskDescription, TaskId, TaskState, TaskStatus};

/// Between two looks for the file.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Waiter {
    killed: Arc<(Mutex<BTreeSet<TaskId>>, Condvar)>,
}

impl Executor for Waiter {
    fn launch(&mut self, task: TaskDescription, slave: &ExecutorHandle) {
        note("launched", &task.task_id);
        let (slave, killed) = (slave.clone(), Arc::clone(&self.killed));
        std::thread::spawn(move || {
            let id = task.task_id;
            slave.running(id.clone());
            let state = wait(&killed, &id, &String::from_utf8_lossy(&task.data));
            slave.update(TaskStatus {
                data: std::process::id().to_string().into(),
                ..slave.status(id.clone(), state)
            });
            note("ended", &id);
        });
    }

    fn kill(&mut self, task_id: TaskId, _grace: Duration, _slave: &ExecutorHandle) {
        let (list, changed) = &*self.killed;
        list.lock().expect("nobody panics").insert(task_id);
        changed.notify_all();
    }

    fn message(&mut self, data: bytes::Bytes, slave: &ExecutorHandle) {
        slave.send(data);
    }
}

/// Until the file is there, or the task is killed.
fn wait(killed: &(Mutex<BTreeSet<TaskId>>, Condvar), id: &TaskId, file: &str) -> TaskState {
    let (list, changed) = killed;
    let mut list = list.lock().expect("nobody panics");
    loop {
        if list.contains(id) {
            return TaskState::Killed;
        }
        if Path::new(file).exists() {
            return TaskState::Finished;
        }
        let waited = changed.wait_timeout(list, LOOK_EVERY);
        (list, _) = waited.expect("nobody panics");
    }
}

fn note(name: &str, task_id: &TaskId) {
    let file = File::options().create(true).append(true).open(name);
    let mut file = file.expect("the sandbox is its working directory");
    file.write_all(format!("{task_id}\n").as_bytes())
        .expect("the sandbox has room");
}

fn main() {
    if let Err(error) = run_executor(&mut Waiter::default()) {
        eprintln!("executor cannot go on: {error}");
        std::process::exit(1);
    }
}
