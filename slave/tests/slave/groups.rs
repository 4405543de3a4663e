//! Groups of tasks as real processes: all start or none, and the first that fails takes the others along.

use meros_proto::executor::ExecutorDescription;
use meros_proto::group::TaskGroup;
use meros_proto::ids::ExecutorId;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::{MasterToSlave, RunGroup};
use meros_proto::status::{Reason, TaskStatus};
use meros_proto::task::Command;

use crate::world::{World, eventually, get, order, pid_of};

fn group(tasks: &[(&str, Command)]) -> MasterToSlave {
    let orders = tasks
        .iter()
        .map(|(task, command)| order(task, command.clone()));
    let runs = orders.map(|order| match order {
        MasterToSlave::RunTask(run) => *run,
        other => panic!("{other:?}"),
    });
    let runs: Vec<_> = runs.collect();
    let like = runs[0].clone();
    let id = ExecutorId::new("g").unwrap();
    MasterToSlave::RunGroup(Box::new(RunGroup {
        framework: like.framework,
        role: like.role,
        group: TaskGroup {
            executor: ExecutorDescription::group(id, "mem:8".parse().unwrap()),
            tasks: runs.into_iter().map(|run| run.task).collect(),
        },
    }))
}

impl World {
    fn says(&self, message: MasterToSlave) {
        self.runtime.block_on(self.master.say(message));
    }

    /// So many updates, acknowledged, as `task STATE`, by task; and whether the group has ended meanwhile.
    fn told(&mut self, count: usize, until_end: bool) -> (Vec<String>, Vec<TaskStatus>) {
        let mut all: Vec<(String, TaskStatus)> = Vec::new();
        let mut has_ended = false;
        while all.len() < count || has_ended != until_end {
            match self.runtime.block_on(self.master.hear()) {
                SlaveToMaster::Update(update) => {
                    self.runtime.block_on(self.master.acknowledge(&update));
                    let state = update.status.state.name().trim_start_matches("TASK_");
                    let text = format!("{} {state}", update.status.task_id);
                    all.push((text, update.status));
                }
                SlaveToMaster::ExecutorEnded { executor_id, .. } => {
                    assert_eq!(executor_id.as_str(), "g");
                    assert!(!std::mem::replace(&mut has_ended, true), "it ends twice");
                }
                other => panic!("{other:?}"),
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().unzip()
    }
}

pub(crate) fn ends_with_the_first_that_fails(world: &mut World) {
    let slave = world.registered();
    let until_told = Command::shell("echo out; while ! test -e end; do sleep 0.02; done; exit 7");
    world.says(group(&[
        ("a", until_told),
        ("b", Command::shell("echo other; exec sleep 1000")),
    ]));
    let (told, statuses) = world.told(2, false);
    assert_eq!(told, ["a RUNNING", "b RUNNING"]);
    assert_eq!(statuses[0].executor_id, Some(ExecutorId::new("g").unwrap()));
    // Each has its own process, its own sandbox and its own output.
    let pid = pid_of(&slave, "a").expect("it runs");
    assert_ne!(Some(pid), pid_of(&slave, "b"));
    for (task, text) in [("a", "out\n"), ("b", "other\n")] {
        eventually("its output is there", || {
            get(&slave, &format!("/api/v1/logs/F1/{task}/stdout")).text() == text
        });
    }
    let sandboxes = std::fs::read_dir(world.data_dir().join("sandboxes/F1/a"));
    let sandbox = sandboxes.expect("it runs").next().expect("it has one");
    std::fs::write(sandbox.expect("it is read").path().join("end"), "").expect("it is there");
    let (told, statuses) = world.told(2, true);
    assert_eq!(told, ["a FAILED", "b KILLED"]);
    let message = &statuses[1].message;
    assert!(message.contains("another task of its group"), "{message}");
    world.stop(&slave);
}

pub(crate) fn starts_all_or_none(world: &mut World) {
    let slave = world.registered();
    world.says(group(&[
        ("a", Command::shell("exec sleep 1000")),
        ("b", Command::argv(["/nowhere/at-all"])),
    ]));
    let (told, statuses) = world.told(2, true);
    assert_eq!(told, ["a KILLED", "b FAILED"]);
    assert_eq!(statuses[0].reason, Some(Reason::TaskKilledDuringLaunch));
    eventually("nothing is here any more", || {
        pid_of(&slave, "a").is_none() && pid_of(&slave, "b").is_none()
    });
    world.stop(&slave);
}
