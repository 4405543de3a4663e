//! A complete framework: runs five tasks, prints what it sees, and ends when all have finished.
//!
//! `MEROS_MASTER=127.0.0.1:5050 MEROS_IDENTITY=<dir> cargo run -p meros-sdk --example hello`

use meros_sdk::{Actions, Offer, Placement, Scheduler, SessionConfig, Task, TaskStatus};

struct Hello {
    launched: u32,
    ended: u32,
}

impl Scheduler for Hello {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        for offer in &offers {
            println!("{} offers {}", offer.hostname, offer.resources);
            let mut placement = Placement::on(offer);
            while self.launched < 5 {
                let task = Task::new(format!("hello-{}", self.launched));
                if placement
                    .place(&task.command("echo hello").cpus(0.1).mem(32.0))
                    .is_err()
                {
                    break;
                }
                self.launched += 1;
            }
            actions.launch(placement);
        }
    }

    fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
        println!("{}: {} {}", status.task_id, status.state, status.message);
        self.ended += u32::from(status.state.is_terminal());
        if self.ended == 5 {
            actions.teardown();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = SessionConfig::from_env("hello")?;
    Ok(meros_sdk::run(
        config,
        &mut Hello {
            launched: 0,
            ended: 0,
        },
    )
    .await?)
}
