//! The kit itself: what it shows is true, what it does is one run for one seed, and failures explain
//! themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use meros_proto::ids::FrameworkId;
use meros_proto::status::{TaskState, TaskStatus};

use super::*;
use crate::config::SessionConfig;
use crate::scheduler::{Actions, Scheduler};
use crate::task::{Placement, Task};
use crate::{EndReason, Group, Offer, Steps};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Launches what it is given, and keeps what it is told.
#[derive(Debug, Default)]
struct Plain {
    todo: Vec<Task>,
    subscriptions: u32,
    updates: Vec<(String, TaskState)>,
    disconnects: u32,
}

impl Plain {
    fn with(count: usize) -> Self {
        let task = |number| Task::new(format!("t{number}")).cpus(1.0).mem(10.0);
        Self {
            todo: (0..count).rev().map(task).collect(),
            ..Self::default()
        }
    }
}

impl Scheduler for Plain {
    fn subscribed(&mut self, _: FrameworkId, _: bool, _: &mut Actions) {
        self.subscriptions += 1;
    }

    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        for offer in &offers {
            let mut placement = Placement::on(offer);
            while let Some(task) = self.todo.last()
                && placement.place(task).is_ok()
            {
                self.todo.pop();
            }
            actions.launch(placement);
        }
    }

    fn update(&mut self, status: TaskStatus, _: &mut Actions) {
        let told = (status.task_id.as_str().to_owned(), status.state);
        self.updates.push(told);
    }

    fn disconnected(&mut self, _: &str, _: &mut Actions) {
        self.disconnects += 1;
    }
}

fn forever() -> Builder {
    Cluster::builder()
        .slaves(2, "cpus:4;mem:1000")
        .tasks(|_, _| TaskRun::forever())
}

#[test]
fn a_seed_is_one_run_and_other_seeds_are_others() {
    let hash = |seed| {
        let mut cluster = Cluster::builder()
            .seed(seed)
            .masters(3)
            .slaves(3, "cpus:4;mem:1000")
            .load(
                Load::new("load", "cpus:1;mem:10")
                    .arrive(1.0)
                    .run_for(SECOND),
            )
            .start();
        let _ = cluster.framework("plain", || Plain::with(5));
        cluster.run_with_faults(2 * MINUTE);
        cluster.settle();
        cluster.event_hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn tasks_behave_as_they_are_told_to() {
    let mut cluster = Cluster::builder()
        .slaves(2, "cpus:4;mem:1000")
        .tasks(|task, chance| match task.task_id.as_str() {
            "t0" => TaskRun::finishes_after(SECOND),
            "t1" => TaskRun::fails_after(SECOND, 3),
            "t2" => TaskRun::out_of_memory_after(chance.between(SECOND, 2 * SECOND)),
            "t3" => TaskRun::cannot_start(),
            _ => TaskRun::forever().ignores_sigterm(),
        })
        .start();
    let plain = cluster.framework("plain", || Plain::with(5));
    cluster.run_for(MINUTE);
    let states: Vec<TaskState> = cluster.task_states(plain).into_values().collect();
    use TaskState::{Failed, Finished, Killed, Running};
    assert_eq!(states, [Finished, Failed, Failed, Failed, Running]);
    assert_eq!(
        (cluster.running(plain), cluster.used().to_string().as_str()),
        (1, "cpus:1;mem:10")
    );
    let id = cluster.task(plain, "t4").task_id;
    cluster.act(plain, |_, actions| actions.kill(id, Some(10 * SECOND)));
    let took = cluster.run_until(MINUTE, |cluster| cluster.count(plain, Killed) == 1);
    assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
}

/// Launches one group.
#[derive(Debug, Default)]
struct Pod {
    is_launched: bool,
}

impl Scheduler for Pod {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        let Some(offer) = offers.first().filter(|_| !self.is_launched) else {
            return;
        };
        let task = |id: &str| Task::new(id).cpus(1.0).mem(10.0);
        let group = Group::new("pod").task(task("a")).task(task("b"));
        let mut steps = Steps::on(offer);
        self.is_launched = steps.launch_group(&group).is_ok();
        actions.carry_out(steps);
    }

    fn update(&mut self, _: TaskStatus, _: &mut Actions) {}
}

#[test]
fn tasks_of_a_group_end_together() {
    // semantics: M7
    let mut cluster = Cluster::builder()
        .slaves(1, "cpus:4;mem:1000")
        .tasks(|task, _| match task.task_id.as_str() {
            "a" => TaskRun::fails_after(5 * SECOND, 3),
            _ => TaskRun::forever(),
        })
        .start();
    let pod = cluster.framework("pod", Pod::default);
    cluster.run_until(MINUTE, |cluster| cluster.running(pod) == 2);
    cluster.run_for(MINUTE);
    let states: Vec<TaskState> = cluster.task_states(pod).into_values().collect();
    assert_eq!(states, [TaskState::Failed, TaskState::Killed]);
    cluster.settle();
}

#[test]
fn of_a_group_with_a_task_that_cannot_start_none_runs() {
    let mut cluster = Cluster::builder()
        .slaves(1, "cpus:4;mem:1000")
        .tasks(|task, _| match task.task_id.as_str() {
            "a" => TaskRun::cannot_start(),
            _ => TaskRun::forever(),
        })
        .start();
    let pod = cluster.framework("pod", Pod::default);
    cluster.run_for(MINUTE);
    let states: Vec<TaskState> = cluster.task_states(pod).into_values().collect();
    assert_eq!(states, [TaskState::Failed, TaskState::Killed]);
    cluster.settle();
}

#[test]
fn work_that_is_given_between_two_steps_is_launched() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", Plain::default);
    cluster.run_for(MINUTE);
    assert_eq!(cluster.tasks(plain), []);
    // Its offers are declined for five minutes: it has to ask for them.
    cluster[plain]
        .todo
        .push(Task::new("late").cpus(1.0).mem(1.0));
    cluster.run_for(MINUTE);
    assert_eq!(cluster.running(plain), 0);
    cluster.act(plain, |_, actions| actions.revive(Vec::new()));
    cluster.run_until(SECOND, |cluster| cluster.running(plain) == 1);
    let task = cluster.task(plain, "late");
    assert_eq!(
        (task.told, task.master),
        (TaskState::Staging, Some(TaskState::Staging))
    );
    cluster.settle();
    assert_eq!(cluster.task(plain, "late").told, TaskState::Running);
}

#[test]
fn a_leader_that_dies_or_is_cut_off_is_followed_by_another_one() {
    let mut cluster = forever().masters(3).start();
    let plain = cluster.framework("plain", || Plain::with(8));
    cluster.run_until(MINUTE, |cluster| cluster.running(plain) == 8);
    cluster.kill_leader(MINUTE);
    cluster.run_until(MINUTE, |cluster| !cluster.is_subscribed(plain));
    cluster.run_until(MINUTE, |cluster| cluster.is_subscribed(plain));
    cluster.settle();
    cluster.isolate_leader(MINUTE);
    cluster.run_until(MINUTE, |cluster| !cluster.is_subscribed(plain));
    cluster.settle();
    assert_eq!(cluster[plain].subscriptions, 3);
    assert_eq!(cluster[plain].disconnects, 2);
    assert_eq!(
        cluster.running(plain),
        8,
        "nothing has happened to its tasks"
    );
}

#[test]
fn tasks_on_a_slave_that_is_cut_off_are_unreachable_until_it_is_back() {
    let mut cluster = forever().slave_reregister_timeout(MINUTE).start();
    let plain = cluster.framework("plain", || Plain::with(8));
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 8
    });
    cluster.cut_off("host1");
    cluster.run_for(30 * SECOND);
    assert_eq!(
        cluster.count(plain, TaskState::Unreachable),
        0,
        "it may come back"
    );
    cluster.run_for(2 * MINUTE);
    assert_eq!(cluster.count(plain, TaskState::Unreachable), 4);
    assert_eq!(cluster.running(plain), 8, "they run on");
    cluster.reconnect("host1");
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 8
    });
}

#[test]
fn what_dies_with_its_host_is_told_to_be_gone_and_a_wiped_host_is_another_slave() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", || Plain::with(8));
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 8
    });
    cluster.kill_slave("host0");
    assert!(!cluster.slaves()[0].is_up);
    assert_eq!(cluster.running(plain), 8, "tasks outlive their slave");
    cluster.start_slave("host0");
    cluster.settle();
    assert_eq!(cluster.running(plain), 8);
    cluster.reboot_slave("host0", SECOND);
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 4
    });
    let before = cluster.slaves()[1].slave_id;
    cluster.wipe_slave("host1", SECOND);
    cluster.settle();
    assert_ne!(cluster.slaves()[1].slave_id, before);
    assert_eq!(cluster.running(plain), 0);
}

#[test]
fn a_program_with_a_state_file_comes_back_as_the_same_framework() {
    let mut cluster = forever().start();
    let mut config = SessionConfig::new("plain", Vec::new(), "");
    config.state_file = Some("state".into());
    let plain = cluster.framework_with(config, || Plain::with(3));
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 3
    });
    let id = cluster.framework_id(plain);
    cluster.crash(plain);
    cluster.run_for(MINUTE);
    assert_eq!(cluster.running(plain), 3, "its tasks go on meanwhile");
    cluster.restart_with(plain, Plain::default());
    cluster.settle();
    assert_eq!(cluster.framework_id(plain), id);
    assert_eq!(
        cluster[plain].updates.len(),
        3,
        "it is told of each: {:?}",
        cluster[plain]
    );
}

#[test]
fn a_program_without_a_state_file_comes_back_as_another_framework() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", || Plain::with(3));
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Running) == 3
    });
    let id = cluster.framework_id(plain);
    cluster.crash(plain);
    cluster.restart(plain);
    cluster.run_until(MINUTE, |cluster| cluster.is_subscribed(plain));
    cluster.run_until(MINUTE, |cluster| cluster.running(plain) == 3);
    assert_ne!(cluster.framework_id(plain), id);
    assert_eq!(
        cluster.used().to_string(),
        "cpus:6;mem:60",
        "the old tasks are nobody's"
    );
}

#[test]
fn the_id_of_a_task_that_has_ended_may_be_used_again() {
    let mut cluster = Cluster::builder().slaves(1, "cpus:4;mem:1000").start();
    let plain = cluster.framework("plain", || Plain::with(1));
    for _ in 0..3 {
        cluster.run_until(MINUTE, |cluster| {
            cluster.count(plain, TaskState::Finished) == 1
        });
        cluster.settle();
        cluster.act(plain, |plain, actions| {
            plain.todo.push(Task::new("t0").cpus(1.0).mem(10.0));
            actions.revive(Vec::new());
        });
        cluster.run_until(MINUTE, |cluster| {
            cluster.count(plain, TaskState::Finished) == 0
        });
    }
    cluster.run_until(MINUTE, |cluster| {
        cluster.count(plain, TaskState::Finished) == 1
    });
}

#[test]
fn frameworks_compete_by_their_weights_and_within_their_quotas() {
    let with_role = |role: &str| {
        let mut config = SessionConfig::new(role, Vec::new(), "");
        config.framework.roles = vec![role.parse().expect("a role")];
        config
    };
    let mut cluster = Cluster::builder()
        .slaves(10, "cpus:4;mem:1000")
        .tasks(|_, chance| TaskRun::finishes_after(chance.between(SECOND, 5 * SECOND)))
        .load(
            Load::new("load", "cpus:1;mem:10")
                .start(1_000)
                .run_for(2 * SECOND),
        )
        .quota("small", "", "cpus:3")
        .start();
    let small = cluster.framework_with(with_role("small"), || Plain::with(100));
    let large = cluster.framework_with(with_role("large"), || Plain::with(100));
    let mut most = 0;
    cluster.run_until(10 * MINUTE, |cluster| {
        most = most.max(cluster.running(small));
        cluster.count(large, TaskState::Finished) == 100
    });
    assert_eq!(most, 3);
}

#[test]
fn a_framework_that_leaves_or_is_torn_down_has_ended() {
    let mut cluster = forever().start();
    let leaves = cluster.framework("leaves", || Plain::with(1));
    let ends = cluster.framework("ends", || Plain::with(1));
    cluster.run_for(MINUTE);
    cluster.act(leaves, |_, actions| actions.leave());
    cluster.act(ends, |_, actions| actions.teardown());
    cluster.settle();
    assert_eq!(cluster.ended(leaves), Some(EndReason::Left));
    assert_eq!(
        cluster.ended(ends),
        Some(EndReason::TornDown { confirmed: true })
    );
    assert_eq!((cluster.running(leaves), cluster.running(ends)), (1, 0));
}

#[test]
fn the_network_can_be_slow_and_the_connection_can_break() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", || Plain::with(1));
    cluster.set_latency(SECOND, SECOND);
    let slow = cluster.run_until(MINUTE, |cluster| cluster.is_subscribed(plain));
    assert!(slow > 3 * SECOND, "a dial, a subscription: {slow:?}");
    cluster.heal();
    cluster.disconnect(plain);
    cluster.run_until(MINUTE, |cluster| cluster[plain].disconnects == 1);
    cluster.run_until(MINUTE, |cluster| cluster.is_subscribed(plain));
    cluster.cut_off_framework(plain);
    cluster.run_until(MINUTE, |cluster| !cluster.is_subscribed(plain));
    cluster.run_for(MINUTE);
    assert!(!cluster.is_subscribed(plain));
    cluster.reconnect_framework(plain);
    cluster.run_until(MINUTE, |cluster| cluster.is_subscribed(plain));
}

#[test]
fn calls_that_are_refused_are_kept() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", || Plain::with(1));
    cluster.run_for(MINUTE);
    cluster[plain]
        .todo
        .push(Task::new("t0").cpus(1.0).mem(10.0));
    cluster.act(plain, |_, actions| actions.revive(Vec::new()));
    cluster.run_for(SECOND);
    let refusals = cluster.refusals(plain);
    assert_eq!(refusals.len(), 1);
    assert!(
        refusals[0].1.to_string().contains("t0 is live already"),
        "{refusals:?}"
    );
}

/// The text of a panic.
fn failure(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("it fails");
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| panic.downcast_ref::<&str>().expect("a text").to_string())
}

#[test]
fn what_does_not_come_is_said_with_the_limit_and_the_story_tells_why() {
    let mut cluster = forever().start();
    let plain = cluster.framework("plain", || Plain::with(9));
    let text = failure(|| {
        cluster.run_until(MINUTE, |cluster| cluster.running(plain) == 9);
    });
    assert_eq!(
        text,
        "what was waited for has not come within 60s of simulated time"
    );
    let story = cluster.story();
    let tells = |what: &str| story.iter().any(|line| line.contains(what));
    assert!(tells("plain is told: it is subscribed as F"), "{story:#?}");
    assert!(tells("t7 (cpus:1;mem:10)"), "{story:#?}");
    assert!(
        tells("plain is told: t7 is TASK_RUNNING on S"),
        "{story:#?}"
    );
}

/// Keeps an offer beyond a disconnect, and launches on it again whenever that was for nothing.
#[derive(Default)]
struct Stubborn {
    offer: Option<Offer>,
    launched: u32,
}

impl Stubborn {
    fn launch(&mut self, actions: &mut Actions) {
        let offer = self.offer.as_ref().expect("it has one");
        let mut placement = Placement::on(offer);
        let task = Task::new(format!("t{}", self.launched)).cpus(1.0);
        placement.place(&task).expect("there is room");
        self.launched += 1;
        actions.launch(placement);
    }
}

impl Scheduler for Stubborn {
    fn offers(&mut self, mut offers: Vec<Offer>, actions: &mut Actions) {
        offers.iter().for_each(|offer| actions.hold(offer.offer_id));
        self.offer = offers.pop();
    }

    fn update(&mut self, _: TaskStatus, actions: &mut Actions) {
        self.launch(actions);
    }

    fn disconnected(&mut self, _: &str, actions: &mut Actions) {
        self.launch(actions);
    }
}

#[test]
fn a_scheduler_that_goes_round_in_circles_is_stopped() {
    let mut cluster = forever().start();
    let stubborn = cluster.framework("stubborn", Stubborn::default);
    cluster.run_for(MINUTE);
    cluster.disconnect(stubborn);
    let text = failure(|| cluster.run_for(MINUTE));
    assert!(text.contains("goes round in circles"), "{text}");
}

/// Never says that it has dealt with an update.
struct Thankless(Plain);

impl Scheduler for Thankless {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        self.0.offers(offers, actions);
    }

    fn update(&mut self, _: TaskStatus, _: &mut Actions) {}
}

#[test]
fn updates_that_are_never_acknowledged_keep_a_cluster_from_settling() {
    let mut cluster = Cluster::builder().slaves(1, "cpus:4;mem:1000").start();
    let mut config = SessionConfig::new("thankless", Vec::new(), "");
    config.acknowledge = crate::Acknowledge::Manual;
    let _ = cluster.framework_with(config, || Thankless(Plain::with(1)));
    cluster.run_for(MINUTE);
    let text = failure(|| cluster.settle());
    assert!(
        text.contains("thankless waits for t0, which does not run"),
        "{text}"
    );
}

#[test]
fn a_cluster_that_cannot_be_is_refused_with_what_is_wrong() {
    for (build, expected) in [
        (
            (|| Cluster::builder().slaves(1, "cpus:x")) as fn() -> Builder,
            "\"cpus:x\" are no resources",
        ),
        (|| Cluster::builder().masters(2), "1, 3 or 5 masters, not 2"),
        (|| Cluster::builder().weight("web", 0.0), "at least 0.001"),
        (
            || Cluster::builder().quota("web", "cpus:2", "cpus:1"),
            "only \"cpus:1\" allowed",
        ),
        (
            || Cluster::builder().slaves_with(1, "cpus:1", &[("", "a")]),
            "are no attributes",
        ),
        (
            || Cluster::builder().load(Load::new("a b", "cpus:1")),
            "letters, digits and dashes",
        ),
        (
            || Cluster::builder().load(Load::new("a", "cpus:1").arrive(0.0)),
            "above 0",
        ),
    ] {
        let text = failure(|| drop(build()));
        assert!(text.contains(expected), "{text}");
    }
    let text = failure(|| drop(Cluster::builder().start()));
    assert!(text.contains("a cluster has a slave"), "{text}");
    let mut cluster = forever().start();
    let text = failure(|| cluster.cut_off("host7"));
    assert_eq!(text, "there is no slave \"host7\": they are host0 to host1");
    cluster.kill_leader(SECOND);
    let text = failure(|| cluster.kill_leader(SECOND));
    assert!(text.contains("nobody leads"), "{text}");
    let plain = cluster.framework("plain", Plain::default);
    cluster.run_for(MINUTE);
    let text = failure(|| cluster.restart(plain));
    assert!(text.contains("has not crashed"), "{text}");
    let text = failure(|| drop(cluster.task(plain, "t9")));
    assert_eq!(text, "plain has launched no \"t9\", only []");
}

#[test]
fn ten_minutes_of_an_idle_cluster_are_a_few_hundred_events() {
    // Events and not time, which says more of what else this machine does: ten minutes of idling are
    // as cheap as what happens in them. Each of two slaves is pinged every 15 s, which is a tick, a
    // ping and a pong: 240 events in all. Each looks every 75 s whether its master is silent, and what
    // it has left is offered and declined every 5 min: about 100 more. One process that did something
    // every second would add 600.
    const EVENTS_MAX: u64 = 800;
    let mut cluster = forever().masters(3).start();
    let plain = cluster.framework("plain", || Plain::with(8));
    // Its tasks run long before, and nobody has anything more to say.
    cluster.run_for(MINUTE);
    assert_eq!(cluster.running(plain), 8);
    let begun = cluster.datacenter.steps();
    cluster.run_for(10 * MINUTE);
    assert_eq!(cluster.running(plain), 8);
    let events = cluster.datacenter.steps() - begun;
    println!("{begun} events to begin with, {events} of an idle cluster");
    assert!(events < EVENTS_MAX, "{events} events");
}
