//! A complete framework: runs five tasks, prints what it sees, and ends when all have finished. What
//! is lost with its slave, or on the way, is run again.
//!
//! `MEROS_MASTER=127.0.0.1:5050 MEROS_IDENTITY=<dir> cargo run -p meros-sdk --example hello`

use std::collections::BTreeSet;

use meros_sdk::{Actions, Offer, Placement, Scheduler, SessionConfig, Task, TaskState, TaskStatus};

struct Hello {
    /// Greetings that no task says yet.
    left: u32,
    launched: u32,
    running: BTreeSet<String>,
}

impl Hello {
    fn new(greetings: u32) -> Self {
        Self {
            left: greetings,
            launched: 0,
            running: BTreeSet::new(),
        }
    }
}

impl Scheduler for Hello {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        for offer in &offers {
            println!("{} offers {}", offer.hostname, offer.resources);
            let mut placement = Placement::on(offer);
            while self.left > 0 {
                let task = Task::new(format!("hello-{}", self.launched));
                let task = task.command("echo hello").cpus(0.1).mem(32.0);
                if placement.place(&task).is_err() {
                    break;
                }
                self.left -= 1;
                self.launched += 1;
                self.running.insert(task.id().to_owned());
            }
            actions.launch(placement);
        }
    }

    fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
        println!("{}: {} {}", status.task_id, status.state, status.message);
        let is_over = status.state.is_terminal() || status.state == TaskState::Unreachable;
        // One that was given up may come back.
        if !is_over || !self.running.remove(status.task_id.as_str()) {
            return;
        }
        use TaskState::{Error, Failed, Finished};
        if !matches!(status.state, Finished | Failed | Error) {
            // It was lost, or its slave is cut off, perhaps for ever: another task says it.
            self.left += 1;
            actions.kill(status.task_id, None);
            actions.revive(Vec::new());
        } else if self.left == 0 && self.running.is_empty() {
            actions.teardown();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = SessionConfig::from_env("hello")?;
    Ok(meros_sdk::run(config, &mut Hello::new(5)).await?)
}

#[cfg(test)]
mod tests;
