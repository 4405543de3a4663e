//! Why somebody is offered nothing, and what has become of a task.

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::refusal::Refusal;
use meros_proto::status::TaskState;
use meros_proto::why::{Why, WhyQuestion, WhyTask};

use super::world::{World, check, framework, role, secs, task_id};
use crate::{OperatorCall, WHY_JUDGEMENTS_MAX};

fn why(world: &mut World, question: WhyQuestion) -> Vec<String> {
    world.pass(secs(1));
    world.operator(1, OperatorCall::Why(question))
}

fn why_task(world: &mut World, name: &str) -> WhyTask {
    let question = WhyQuestion::Task(FrameworkId(0), task_id(name));
    let now = world.now;
    match world.core.on_why(&question, now) {
        Ok(Why::Task(task)) => task,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_question_is_answered_from_the_decision_path() {
    let (mut world, s, _) = World::with_a_running_task();
    let f0 = || WhyQuestion::Framework(FrameworkId(0));
    check(
        why(&mut world, f0()),
        &["reply 1 F0 * can=0 cannot=declined:1 left_out=0"],
    );
    check(
        why(&mut world, WhyQuestion::Slave(SlaveId(0))),
        &["reply 1 F0 * can=0 cannot=declined:1 left_out=0"],
    );
    world.update(s, "t", TaskState::Finished);
    check(
        why(&mut world, WhyQuestion::Role(role("*"))),
        &["reply 1 F0 * can=0 cannot=nothing_free:1 left_out=0"],
    );
    world.disconnect(s);
    check(
        why(&mut world, f0()),
        &["reply 1 F0 * can=0 cannot=slave_away:1 left_out=0"],
    );
}

#[test]
fn a_question_about_what_is_not_there_is_refused() {
    let (mut world, ..) = World::with_a_running_task();
    for (question, code) in [
        (WhyQuestion::Framework(FrameworkId(9)), "framework_unknown"),
        (WhyQuestion::Role(role("nobody")), "role_unknown"),
        (WhyQuestion::Slave(SlaveId(9)), "no_such_slave"),
        (
            WhyQuestion::Task(FrameworkId(0), task_id("u")),
            "task_unknown",
        ),
    ] {
        check(why(&mut world, question), &[&format!("reply 1 {code}")]);
    }
    world.operator(
        2,
        OperatorCall::Teardown {
            framework_id: FrameworkId(0),
        },
    );
    check(
        why(&mut world, WhyQuestion::Framework(FrameworkId(0))),
        &["reply 1 framework_removed"],
    );
}

#[test]
fn questions_cost_the_core_a_bounded_part_of_its_time() {
    let mut world = World::new();
    for _ in 0..100 {
        world.slave("cpus:4");
    }
    world.framework(framework());
    let question = WhyQuestion::Framework(FrameworkId(0));
    let mut answered = 0;
    for _ in 0..1_000 {
        let now = world.now;
        match world.core.on_why(&question, now) {
            Ok(_) => answered += 1,
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::OverLimit { .. }), "{refusal:?}");
                assert!(refusal.is_retryable());
            }
        }
        world.now = world.now.after(secs(1) / 1_000);
    }
    assert_eq!(
        answered, 334,
        "2.5 ms each, at least; asked each millisecond"
    );
    // Nobody looks in vain for nothing.
    let now = world.now.after(secs(1));
    let nobodys = WhyQuestion::Role(role("nobodys"));
    let first = world.core.on_why(&nobodys, now);
    assert!(
        matches!(first, Err(Refusal::RoleUnknown { .. })),
        "{first:?}"
    );
    let second = world.core.on_why(&nobodys, now);
    assert!(
        matches!(second, Err(Refusal::OverLimit { .. })),
        "{second:?}"
    );
    world.now = now.after(secs(1));
    // Many frameworks at once: as many as the time is for, and the rest is counted.
    for _ in 0..9 {
        world.framework(framework());
    }
    let pairs = world.core.frameworks.len();
    let slaves = world.core.slaves.len();
    assert!(pairs * slaves < WHY_JUDGEMENTS_MAX, "all fit here");
    let lines = why(&mut world, WhyQuestion::Role(role("*")));
    assert!(lines[0].ends_with("left_out=0"), "{lines:?}");
}

#[test]
fn a_task_tells_what_it_is_waiting_for() {
    let (mut world, s, f) = World::with_a_running_task();
    let running = why_task(&mut world, "t");
    assert_eq!(running.state, TaskState::Running);
    assert_eq!(running.advice, "nothing: it runs");
    world.kill(f, "t");
    let killed = why_task(&mut world, "t");
    assert_eq!(killed.because, ["a kill of it has been ordered"]);
    world.disconnect(f);
    world.update(s, "t", TaskState::Killed);
    let ended = why_task(&mut world, "t");
    assert_eq!(
        ended.because,
        ["its framework, which is away, has not acknowledged its last update"]
    );
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    let away = why_task(&mut world, "t");
    assert!(away.because[0].contains("S0 is broken"), "{away:?}");
    world.pass(secs(11 * 60));
    let lost = why_task(&mut world, "t");
    assert_eq!(lost.state, TaskState::Unreachable);
    assert!(lost.advice.contains("declare it gone"), "{lost:?}");
}
