//! Anything in any order: replays, foreign ids, wrong stages, commits late or from elsewhere.
//! `World::handle` checks all invariants after every event, and each run is repeated (M12).

use std::collections::BTreeMap;

use meros_proto::executor::ExecutorDescription;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, OperationId, SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, ReconcileTask, SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::{RunExecutor, TaskFramework};
use meros_proto::minimum::Minimum;
use meros_proto::offer::{Filters, Operation};
use meros_proto::operation::{
    Change, ChangeKind, DecidedOperation, OperationNumber, ResourceOperation,
};
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveCapability, SlaveDescription, SlaveMode};
use meros_proto::state::{
    LeaseName, Numbered, Revision, SessionId, SpaceId, SpaceName, StateCall, StateChange, StateKey,
    StateOperation, Token,
};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use meros_proto::view::ClusterChange;
use meros_proto::why::WhyQuestion;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::world::{
    CLUSTER, World, by_master, framework, offer, report, resources, role, secs, slave, task,
    task_id,
};
use crate::{Command, ConnectionId, Event, OperatorCall, Registry, RequestId};

mod draws;

use draws::*;

/// Starts with peers that are what they should be, so that the rest has something to hit.
fn begin() -> World {
    let mut world = World::new();
    for text in [RESOURCES[0], RESOURCES[2]] {
        let connection = world.connect_slave("slave");
        let slave = able(text);
        world.slave_says(connection, SlaveToMaster::Register { slave });
    }
    world.framework(framework());
    world.framework(FrameworkDescription {
        roles: vec![role("a"), role("a/b")],
        ..framework()
    });
    world.commits = false;
    world
}

fn run(actions: &[Action]) -> (Vec<String>, Vec<ClusterChange>, Registry) {
    let (mut world, lines) = play(actions);
    let mut replayed = Registry::default();
    for command in &world.committed {
        let _ = replayed.apply(command);
    }
    assert_eq!(&replayed, world.core.registry(), "M10");
    (lines, std::mem::take(&mut world.changes), replayed)
}

fn play(actions: &[Action]) -> (World, Vec<String>) {
    let mut world = begin();
    let mut open = 4;
    let mut lines = Vec::new();
    for (number, action) in (0u64..).zip(actions) {
        // Mostly one of the newest connections; also some that never were.
        let connection = |at: u64| ConnectionId((open + 2u64).saturating_sub(at));
        let done = match action.clone() {
            Action::Connect(is_slave) => {
                open += 1;
                let principal = match (number % 7, is_slave) {
                    (0, _) => "another",
                    (_, true) => "slave",
                    (_, false) => "framework",
                };
                world.connect(is_slave, principal).1
            }
            Action::Disconnect(at) => world.disconnect(connection(at)),
            Action::Slave(at, message) => world.slave_says(connection(at), message),
            Action::Framework(at, message) => world.framework_says(connection(at), message),
            Action::AcceptOffer(at, launch) => accept_offer(&mut world, at, launch),
            Action::ChangeOffer(at, kind) => change_offer(&mut world, at, kind),
            Action::AnswerOperation(at) => answer_operation(&mut world, at),
            Action::UpdateTask(at, now, latest) => update_task(&mut world, number, at, now, latest),
            Action::AcknowledgeTask(at) => acknowledge_task(&mut world, at),
            Action::EndExecutor(at) => end_executor(&mut world, at),
            Action::ReturnOfSlave(slave, state) => {
                open += 1;
                return_slave(&mut world, slave, state)
            }
            Action::HealthyMinutes => healthy_minutes(&mut world),
            Action::Operator(call) => {
                let request = RequestId(number);
                world.handle(Event::Operator { request, call })
            }
            Action::CommitNext if world.proposed.is_empty() => Vec::new(),
            Action::CommitNext => world.commit_next(),
            Action::CommitForeign(command) => {
                world.committed.push(command.clone());
                world.handle(Event::Committed {
                    proposal: None,
                    command,
                })
            }
            Action::FailOver => world.fail_over(),
            Action::Pass(millis) => world.pass(std::time::Duration::from_millis(millis)),
        };
        lines.extend(done);
    }
    // In the end everything that was proposed is committed and nothing is wedged.
    while !world.proposed.is_empty() {
        lines.extend(world.commit_next());
    }
    (world, lines)
}

/// The `at`-th of them, counted round.
fn pick<T>(all: Vec<T>, at: usize) -> Option<T> {
    let at = at.checked_rem(all.len())?;
    all.into_iter().nth(at)
}

fn accept_offer(world: &mut World, at: usize, launch: Launch) -> Vec<String> {
    let all = world
        .core
        .offers
        .iter()
        .map(|(number, it)| (number, it.framework, it.slave))
        .collect();
    let Some((number, framework, slave)) = pick(all, at) else {
        return Vec::new();
    };
    let connection = world.core.frameworks.connection(framework).expect("M3");
    world.accept(connection, &[number], vec![drawn(launch, slave)])
}

/// A slave says that an executor that it has is over.
fn end_executor(world: &mut World, at: usize) -> Vec<String> {
    let all = world.core.executors.iter().map(|(at, _)| at.clone());
    let Some((slave, framework_id, executor_id)) = pick(all.collect(), at) else {
        return Vec::new();
    };
    let Some(connection) = world.core.slaves.connection(slave) else {
        return Vec::new();
    };
    let ended = SlaveToMaster::ExecutorEnded {
        framework_id,
        executor_id,
        exit: None,
    };
    world.slave_says(connection, ended)
}

fn ordered(change: Change) -> Operation {
    Operation::Change(Box::new(ResourceOperation {
        operation_id: Some(OperationId::new("op").expect("letters")),
        change,
    }))
}

/// Reserves a part of an offer, or undoes that, or makes a volume there and resizes it, and launches on it.
fn change_offer(world: &mut World, at: usize, kind: ChangeKind) -> Vec<String> {
    let all = world.core.offers.iter();
    let all = all
        .map(|(number, it)| (number, it.framework, it.slave, it.role.clone()))
        .collect();
    let Some((number, framework, slave, role)) = pick(all, at) else {
        return Vec::new();
    };
    let connection = world.core.frameworks.connection(framework).expect("M3");
    if role.is_any() {
        return Vec::new();
    }
    let cpus = format!("cpus({role},):0.1");
    let disk = |size: u8| format!("disk({role},):{size}");
    let volume = |size: u8| format!("disk({role},)[w:w]:{size}");
    let pieces = format!("{};{}", volume(2), disk(1));
    // Some of it is there from the times before, and then fails.
    let (steps, used) = match kind {
        ChangeKind::Reserve | ChangeKind::Unreserve => (vec![(kind, cpus.clone())], cpus),
        ChangeKind::Create => {
            let steps = vec![(ChangeKind::Reserve, disk(3)), (kind, volume(2))];
            (steps, format!("cpus:0.1;{}", volume(2)))
        }
        ChangeKind::Destroy => (vec![(kind, volume(2)), (kind, volume(3))], disk(2)),
        ChangeKind::Grow => (vec![(kind, pieces)], format!("cpus:0.1;{}", volume(3))),
        ChangeKind::Shrink => (vec![(kind, pieces)], format!("cpus:0.1;{}", volume(2))),
    };
    let changes = steps
        .into_iter()
        .map(|(kind, text)| ordered(Change::new(kind, resources(&text))));
    let launch = Operation::Launch(vec![task("e", slave, &used)]);
    let message = FrameworkToMaster::Accept {
        offer_ids: vec![offer(number)],
        operations: changes.chain([launch]).collect(),
        filters: Filters::default(),
    };
    world.framework_says(connection, message)
}

/// A slave says that its oldest operation is done.
fn answer_operation(world: &mut World, at: usize) -> Vec<String> {
    let all = world.core.slaves.iter();
    let all = all
        .filter_map(|(_, it)| Some((it.connection?, it.operations.front()?.number)))
        .collect();
    let Some((connection, number)) = pick(all, at) else {
        return Vec::new();
    };
    let number = OperationNumber {
        epoch: Epoch(1),
        number,
    };
    world.slave_says(connection, SlaveToMaster::ChangeApplied { number })
}

fn update_task(
    world: &mut World,
    number: u64,
    at: usize,
    state: TaskState,
    latest: TaskState,
) -> Vec<String> {
    let all = world.core.tasks.iter();
    let all = all
        .map(|it| (it.framework(), it.id().clone(), it.slave()))
        .collect();
    let Some((framework, id, slave)) = pick(all, at) else {
        return Vec::new();
    };
    let Some(connection) = world.core.slaves.connection(slave) else {
        return Vec::new();
    };
    let update = UpdateId(u128::from(number) + 100);
    world.update_with(connection, framework, id.as_str(), state, latest, update)
}

fn acknowledge_task(world: &mut World, at: usize) -> Vec<String> {
    let of_slaves = world.core.tasks.iter().filter_map(|task| {
        let awaiting = task.awaiting.as_ref()?;
        Some((task.framework(), task.id().clone(), awaiting.update_id))
    });
    let mut all: Vec<_> = of_slaves.collect();
    let own: Vec<_> = world
        .core
        .updates
        .iter()
        .map(|(id, task)| (id, task.clone()))
        .collect();
    for (framework, task) in own {
        let heads = world.core.updates.in_flight(framework);
        let head = heads.into_iter().find(|status| status.task_id == task);
        let id = head.and_then(|status| status.update_id).expect("in flight");
        all.push((framework, task, id));
    }
    let Some((framework, id, update)) = pick(all, at) else {
        return Vec::new();
    };
    let Some(connection) = world.core.frameworks.connection(framework) else {
        return Vec::new();
    };
    world.acknowledge(connection, id.as_str(), update)
}

/// A slave comes back as it was, with every other of its tasks, all in one state, and of its executors.
fn return_slave(world: &mut World, slave_id: SlaveId, state: TaskState) -> Vec<String> {
    let held = world
        .core
        .tasks
        .iter()
        .filter(|task| task.slave() == slave_id)
        .step_by(2);
    let tasks = held
        .map(|it| report(it.framework(), it.id().as_str(), slave_id, state))
        .collect();
    let executors = world.core.executors.iter();
    let executors = executors
        .filter(|((slave, _, _), _)| *slave == slave_id)
        .step_by(2)
        .map(|((_, framework, id), it)| {
            let description = executor_description(id.as_str());
            run_executor(*framework, it.role.clone(), description)
        });
    let executors = executors.collect();
    let text = match world.core.registry().slave(slave_id) {
        // Its configuration has changed: what it runs does not fit any more.
        Some(_) if state == TaskState::Killing => "mem:33".to_owned(),
        Some(record) => record.slave.resources.to_string(),
        None => "cpus:1".to_owned(),
    };
    // It has done all that it was told, or nothing.
    let is_done = !state.is_terminal();
    let row = world.core.slaves.get(slave_id);
    let pending = row.map(|row| row.operations.clone()).unwrap_or_default();
    let decided = pending.iter().map(|it| DecidedOperation {
        number: OperationNumber {
            epoch: Epoch(1),
            number: it.number,
        },
        refused: (!is_done).then(|| "no".to_owned()),
    });
    let claims = row.and_then(|row| row.claims.as_deref().cloned());
    let claims = claims.filter(|_| is_done || pending.is_empty());
    let reported = SlaveToMaster::ReportClaims {
        claims: claims.unwrap_or_default(),
        decided: decided.collect(),
    };
    let (connection, mut lines) = world.connect(true, "slave");
    lines.extend(world.slave_says(connection, reported));
    lines.extend(world.slave_says(connection, SlaveToMaster::ReportTasks { tasks }));
    lines.extend(world.slave_says(connection, SlaveToMaster::ReportExecutors { executors }));
    let slave = able(&text);
    let reregister = SlaveToMaster::Reregister {
        slave_id,
        cluster_id: CLUSTER,
        slave,
    };
    lines.extend(world.slave_says(connection, reregister));
    lines
}

/// Long enough for offers to time out, while every slave answers its pings.
fn healthy_minutes(world: &mut World) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..16 {
        lines.extend(world.pass(secs(20)));
        let all: Vec<_> = world
            .core
            .slaves
            .iter()
            .filter_map(|(_, it)| it.connection)
            .collect();
        for connection in all {
            lines.extend(world.slave_says(connection, SlaveToMaster::Pong));
        }
    }
    lines
}

#[test]
fn random_events_reach_every_corner() {
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..300 {
        let actions = prop::collection::vec(action(), 150).new_tree(&mut runner);
        let (world, _) = play(&actions.expect("nothing is filtered").current());
        for (name, _, count) in world.core.counters().list() {
            *reached.entry(name).or_default() += count;
        }
    }
    // Bounds, and what is remembered, are reached by tests of their own.
    let bounds = [
        "filters_dropped",
        "filters_replaced",
        "tasks_not_kept",
        "tasks_recalled",
        "tasks_remembered",
        "unreachable_tasks_forgotten",
        "updates_unreliable",
    ];
    let missed = reached
        .iter()
        .filter(|(name, count)| **count == 0 && !bounds.contains(name));
    assert_eq!(missed.collect::<Vec<_>>(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_an_invariant_and_the_same_events_give_the_same_effects(
        actions in prop::collection::vec(action_or_failover(), 1..150)
    ) {
        prop_assert_eq!(run(&actions), run(&actions));
    }

    #[test]
    fn the_registry_applies_anything_the_same_way_everywhere(
        commands in prop::collection::vec(command(), 0..60)
    ) {
        let (mut one, mut other) = (Registry::default(), Registry::default());
        for command in &commands {
            let (slaves, frameworks) = (one.slave_next(), one.framework_next());
            let before = one.clone();
            let result = one.apply(command);
            prop_assert_eq!(result, other.apply(command));
            prop_assert!(result.is_ok() || one == before, "a refused command changes nothing");
            // M11: an id below the next one is never given out again.
            prop_assert!(one.slave_next() >= slaves && one.framework_next() >= frameworks);
            prop_assert!(one.slaves().all(|(id, _)| id.0 < one.slave_next()));
            prop_assert!(one.frameworks().all(|(id, _)| id.0 < one.framework_next()));
        }
        prop_assert_eq!(one, other);
    }
}
