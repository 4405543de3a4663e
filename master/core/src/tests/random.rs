//! Anything in any order: replays, foreign ids, wrong stages, commits late or from elsewhere.
//! `World::handle` checks all invariants after every event, and each run is repeated (M12).

use std::collections::BTreeMap;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, OperationId, SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, ReconcileTask, SlaveToMaster, StatusUpdate};
use meros_proto::minimum::Minimum;
use meros_proto::offer::{Filters, Operation};
use meros_proto::operation::{
    Change, ChangeKind, DecidedOperation, OperationNumber, ResourceOperation,
};
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveMode;
use meros_proto::state::{
    LeaseName, Numbered, Revision, SessionId, SpaceId, SpaceName, StateCall, StateChange, StateKey,
    StateOperation, Token,
};
use meros_proto::status::{Source, TaskState, TaskStatus};
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

#[derive(Debug, Clone)]
enum Action {
    Connect(bool),
    Disconnect(u64),
    Slave(u64, SlaveToMaster),
    Framework(u64, FrameworkToMaster),
    Operator(OperatorCall),
    /// What well-behaved peers do, about whatever there is at that moment.
    AcceptOffer(usize, &'static str, &'static str),
    ChangeOffer(usize, ChangeKind),
    AnswerOperation(usize),
    UpdateTask(usize, TaskState, TaskState),
    AcknowledgeTask(usize),
    ReturnOfSlave(SlaveId, TaskState),
    HealthyMinutes,
    CommitNext,
    CommitForeign(Command),
    FailOver,
    Pass(u64),
}

const RESOURCES: [&str; 6] = [
    "cpus:4;mem:1024",
    "cpus:1",
    "cpus(a):2;mem:100",
    "cpus:2;ports:[1-100]",
    "mem:33",
    "cpus:1;ports:[5-9]",
];
const CLAIMS: [&str; 7] = [
    "cpus(a,):1",
    "cpus(a,):1;mem(a,):10",
    "cpus(a)(a/b,):1",
    "cpus(a/b,):1",
    "disk(a,)[v:v]:1",
    "cpus(a):1",
    "cpus:1",
];
const KINDS: [ChangeKind; 4] = [
    ChangeKind::Reserve,
    ChangeKind::Unreserve,
    ChangeKind::Create,
    ChangeKind::Destroy,
];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ROLES: [&str; 3] = ["*", "a", "a/b"];

fn slave_id() -> impl Strategy<Value = SlaveId> {
    (0..4u32).prop_map(SlaveId)
}

fn framework_id() -> impl Strategy<Value = FrameworkId> {
    (0..3u32).prop_map(FrameworkId)
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&RESOURCES[..])
}

fn state() -> impl Strategy<Value = TaskState> {
    prop::sample::select(&TaskState::ALL[..])
}

fn update_id() -> impl Strategy<Value = UpdateId> {
    prop_oneof![
        (1..12u128).prop_map(UpdateId),
        (1..12u64).prop_map(by_master)
    ]
}

fn description() -> impl Strategy<Value = FrameworkDescription> {
    let id = prop::option::weighted(0.6, framework_id());
    let roles = prop::sample::subsequence(&ROLES[..], 0..=3);
    (id, roles, 0..3u64, any::<bool>(), any::<bool>()).prop_map(
        |(framework_id, roles, timeout, checkpoint, is_aware)| {
            let mut description = framework();
            description.framework_id = framework_id;
            description.roles = roles.into_iter().map(role).collect();
            description.failover_timeout = secs(timeout * 40);
            description.checkpoint = checkpoint;
            if !is_aware {
                description.capabilities.clear();
            }
            description
        },
    )
}

fn kind() -> impl Strategy<Value = ChangeKind> {
    prop::sample::select(&KINDS[..])
}

fn change() -> impl Strategy<Value = Change> {
    let claims = prop::sample::select(&CLAIMS[..]);
    (kind(), claims).prop_map(|(kind, text)| Change::new(kind, resources(text)))
}

fn number() -> impl Strategy<Value = OperationNumber> {
    (1..3u64, 1..9u64).prop_map(|(epoch, number)| OperationNumber {
        epoch: Epoch(epoch),
        number,
    })
}

fn from_slave() -> impl Strategy<Value = SlaveToMaster> {
    let report = (framework_id(), name(), slave_id(), state())
        .prop_map(|(framework, name, slave, state)| report(framework, name, slave, state));
    let status = (
        framework_id(),
        name(),
        state(),
        state(),
        prop::option::weighted(0.9, update_id()),
    )
        .prop_map(|(framework_id, name, state, latest_state, update_id)| {
            let mut status = TaskStatus::new(task_id(name), state, Source::Slave, Timestamp(5));
            status.update_id = update_id;
            SlaveToMaster::Update(StatusUpdate {
                framework_id,
                status,
                latest_state,
            })
        });
    let cluster = prop::sample::select(&[CLUSTER, CLUSTER, CLUSTER, ClusterId(1)][..]);
    let reregister = (slave_id(), cluster, text()).prop_map(|(slave_id, cluster_id, text)| {
        SlaveToMaster::Reregister {
            slave_id,
            cluster_id,
            slave: slave(text),
        }
    });
    let decided = (number(), any::<bool>()).prop_map(|(number, is_done)| DecidedOperation {
        number,
        refused: (!is_done).then(|| "no".to_owned()),
    });
    let reported = (
        prop::sample::select(&CLAIMS[..]),
        prop::collection::vec(decided, 0..4),
    )
        .prop_map(|(text, decided)| SlaveToMaster::ReportClaims {
            claims: resources(text),
            decided,
        });
    prop_oneof![
        3 => text().prop_map(|text| SlaveToMaster::Register { slave: slave(text) }),
        2 => prop::collection::vec(report, 0..6).prop_map(|tasks| SlaveToMaster::ReportTasks { tasks }),
        4 => reregister,
        1 => Just(SlaveToMaster::Pong),
        6 => status,
        1 => Just(SlaveToMaster::Unregister),
        1 => number().prop_map(|number| SlaveToMaster::ChangeApplied { number }),
        1 => reported,
    ]
}

fn space() -> SpaceId {
    SpaceId {
        principal: "framework".to_owned(),
        name: SpaceName::new("s").expect("a name"),
    }
}

fn state_change() -> impl Strategy<Value = StateChange> {
    let key = || (0..3u8).prop_map(|at| StateKey::new(&at.to_string()).expect("a key"));
    let lease = || Just(LeaseName::new("l").expect("a name"));
    let operation = prop_oneof![
        key().prop_map(|key| StateOperation::Set {
            key,
            value: "v".into()
        }),
        key().prop_map(StateOperation::Delete),
    ];
    prop_oneof![
        2 => (0..90u64).prop_map(|ttl| StateChange::Open {
            holder: "h".to_owned(),
            ttl: secs(ttl),
        }),
        1 => Just(StateChange::Close),
        3 => operation.prop_map(|operation| StateChange::Commit {
            conditions: Vec::new(),
            operations: vec![operation],
        }),
        2 => (lease(), any::<bool>()).prop_map(|(lease, wait)| StateChange::Acquire {
            lease,
            permits: 1,
            wait,
        }),
        1 => (lease(), 0..9u64).prop_map(|(lease, token)| StateChange::Release {
            lease,
            token: Token(token),
        }),
        1 => Just(StateChange::Clear),
    ]
}

fn numbered() -> impl Strategy<Value = Option<Numbered>> {
    let by = (0..9u64, 0..9u64).prop_map(|(session, number)| Numbered {
        session: SessionId(session),
        number,
    });
    prop::option::of(by)
}

fn state_call() -> impl Strategy<Value = StateCall> {
    prop_oneof![
        4 => (numbered(), state_change()).prop_map(|(by, change)| StateCall::Change { by, change }),
        1 => (0..9u64).prop_map(|after| StateCall::Watch {
            prefix: String::new(),
            after: Revision(after),
        }),
        1 => (0..9u64).prop_map(|revision| StateCall::WatchLease {
            lease: LeaseName::new("l").expect("a name"),
            revision: Revision(revision),
        }),
        1 => (0..9u64).prop_map(|session| StateCall::KeepAlive {
            session: SessionId(session),
        }),
    ]
}

fn from_framework() -> impl Strategy<Value = FrameworkToMaster> {
    let offers = prop::collection::vec((1..25u64).prop_map(offer), 0..3);
    let launch =
        (name(), slave_id(), text()).prop_map(|(name, slave, text)| task(name, slave, text));
    let refuse = prop::sample::select(&[0, 1, 30, 10_000_000_000][..]);
    let filters = refuse.prop_map(|refuse| Filters {
        refuse: secs(refuse),
    });
    let roles = prop::sample::subsequence(&ROLES[..], 0..=2)
        .prop_map(|roles| roles.into_iter().map(role).collect::<Vec<_>>());
    let question =
        (name(), prop::option::of(slave_id())).prop_map(|(name, slave_id)| ReconcileTask {
            task_id: task_id(name),
            slave_id,
        });
    let accept = (
        offers.clone(),
        prop::collection::vec(launch, 0..4),
        prop::collection::vec(change(), 0..2),
        filters.clone(),
    )
        .prop_map(
            |(offer_ids, tasks, changes, filters)| FrameworkToMaster::Accept {
                offer_ids,
                operations: changes
                    .into_iter()
                    .map(ordered)
                    .chain([Operation::Launch(tasks)])
                    .collect(),
                filters,
            },
        );
    prop_oneof![
        5 => (description(), roles.clone()).prop_map(|(framework, suppressed_roles)| {
            FrameworkToMaster::Subscribe { framework, suppressed_roles, wishes: Vec::new() }
        }),
        1 => Just(FrameworkToMaster::Teardown),
        8 => accept,
        6 => (offers, filters).prop_map(|(offer_ids, filters)| {
            FrameworkToMaster::Decline { offer_ids, filters }
        }),
        1 => roles.clone().prop_map(|roles| FrameworkToMaster::Revive { roles }),
        1 => roles.prop_map(|roles| FrameworkToMaster::Suppress { roles }),
        6 => (0..9u64, state_call()).prop_map(|(request, call)| FrameworkToMaster::State {
            request,
            space: space().name,
            call,
        }),
        1 => (name(), prop::option::of(slave_id()), prop::option::of(0..5u64)).prop_map(
            |(name, slave_id, grace)| FrameworkToMaster::Kill {
                task_id: task_id(name),
                slave_id,
                grace: grace.map(secs),
            },
        ),
        4 => (name(), prop::option::of(slave_id()), update_id()).prop_map(
            |(name, slave_id, update_id)| FrameworkToMaster::Acknowledge {
                slave_id,
                task_id: task_id(name),
                update_id,
            },
        ),
        1 => prop::collection::vec(question, 0..4)
            .prop_map(|tasks| FrameworkToMaster::Reconcile { tasks }),
    ]
}

fn quotas() -> impl Strategy<Value = Vec<(RoleName, Quota)>> {
    let amounts = || {
        let names = [ResourceName::CPUS, ResourceName::MEM];
        let amount = prop::sample::select(&[0, 1, 2, 3, 100][..]).prop_map(Scalar::whole);
        prop::collection::btree_map(prop::sample::select(names.to_vec()), amount, 0..2)
    };
    let quota =
        (amounts(), amounts()).prop_map(|(guarantees, limits)| Quota { guarantees, limits });
    let role = prop::sample::select(&ROLES[..]).prop_map(role);
    prop::collection::vec((role, quota), 0..3)
}

fn minimums() -> impl Strategy<Value = Vec<(RoleName, Option<Minimum>)>> {
    let text = prop_oneof![Just(""), Just("cpus:1"), Just("mem:64|disk:1")];
    let minimum = prop::option::of(text.prop_map(|text| text.parse().unwrap()));
    let role = prop::sample::select(&ROLES[..]).prop_map(role);
    prop::collection::vec((role, minimum), 0..3)
}

fn weights() -> impl Strategy<Value = Vec<(RoleName, Scalar)>> {
    let role = prop::sample::select(&ROLES[..]).prop_map(role);
    let weight = prop::sample::select(&[0, 1, 3][..]).prop_map(Scalar::whole);
    prop::collection::vec((role, weight), 0..3)
}

fn command() -> impl Strategy<Value = Command> {
    let at = Timestamp(9);
    prop_oneof![
        Just(Command::FormCluster {
            cluster_id: ClusterId(3)
        }),
        (slave_id(), text()).prop_map(move |(slave_id, text)| Command::AdmitSlave {
            slave_id,
            principal: "slave".to_owned(),
            slave: slave(text),
            at,
        }),
        (slave_id(), text()).prop_map(|(slave_id, text)| Command::UpdateSlave {
            slave_id,
            slave: slave(text)
        }),
        slave_id().prop_map(move |slave_id| Command::MarkSlaveUnreachable { slave_id, at }),
        slave_id().prop_map(|slave_id| Command::MarkSlaveReachable { slave_id }),
        slave_id().prop_map(move |slave_id| Command::RemoveSlave { slave_id, at }),
        (framework_id(), description()).prop_map(move |(framework_id, framework)| {
            Command::AdmitFramework {
                framework_id,
                principal: "framework".to_owned(),
                framework,
                suppressed_roles: Vec::new(),
                at,
            }
        }),
        (framework_id(), description()).prop_map(|(framework_id, framework)| {
            Command::UpdateFramework {
                framework_id,
                framework,
                suppressed_roles: Vec::new(),
            }
        }),
        framework_id().prop_map(move |framework_id| Command::RemoveFramework { framework_id, at }),
        quotas().prop_map(|quotas| Command::SetQuotas { quotas }),
        weights().prop_map(|weights| Command::SetWeights { weights }),
        minimums().prop_map(|minimums| Command::SetMinimums { minimums }),
        (slave_id(), mode()).prop_map(move |(slave_id, mode)| Command::SetSlaveMode {
            slave_id,
            mode,
            at
        }),
        slave_id().prop_map(move |slave_id| Command::MarkSlaveGone { slave_id, at }),
        (numbered(), state_change()).prop_map(|(by, change)| Command::ChangeState {
            space: space(),
            by,
            change,
        }),
        (0..9u64).prop_map(|session| Command::EndStateSession {
            space: space(),
            session: SessionId(session),
        }),
    ]
}

fn mode() -> impl Strategy<Value = SlaveMode> {
    prop_oneof![
        Just(SlaveMode::Active),
        Just(SlaveMode::Deactivated),
        (prop::option::of(0..9u64), any::<bool>()).prop_map(|(grace, mark_gone)| {
            SlaveMode::Draining {
                grace: grace.map(secs),
                mark_gone,
            }
        }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let call = prop_oneof![
        framework_id().prop_map(|framework_id| OperatorCall::Teardown { framework_id }),
        (framework_id(), name()).prop_map(|(framework_id, name)| OperatorCall::KillTask {
            framework_id,
            task_id: task_id(name),
            grace: None,
        }),
        (quotas(), any::<bool>())
            .prop_map(|(quotas, force)| OperatorCall::SetQuotas { quotas, force }),
        weights().prop_map(|weights| OperatorCall::SetWeights { weights }),
        minimums().prop_map(|minimums| OperatorCall::SetMinimums { minimums }),
        (slave_id(), mode())
            .prop_map(|(slave_id, mode)| OperatorCall::SetSlaveMode { slave_id, mode }),
        (slave_id(), mode())
            .prop_map(|(slave_id, mode)| OperatorCall::SetSlaveMode { slave_id, mode }),
        slave_id().prop_map(|slave_id| OperatorCall::MarkSlaveGone { slave_id }),
        (slave_id(), change()).prop_map(|(slave_id, change)| OperatorCall::ChangeResources {
            slave_id,
            change: Box::new(change),
        }),
        slave_id().prop_map(|slave_id| OperatorCall::Why(WhyQuestion::Slave(slave_id))),
        framework_id().prop_map(|id| OperatorCall::Why(WhyQuestion::Framework(id))),
        (framework_id(), name())
            .prop_map(|(id, name)| OperatorCall::Why(WhyQuestion::Task(id, task_id(name)))),
    ];
    prop_oneof![
        6 => any::<bool>().prop_map(Action::Connect),
        2 => (0..20u64).prop_map(Action::Disconnect),
        16 => (0..20u64, from_slave()).prop_map(|(at, message)| Action::Slave(at, message)),
        20 => (0..20u64, from_framework()).prop_map(|(at, message)| Action::Framework(at, message)),
        2 => call.prop_map(Action::Operator),
        8 => (0..9usize, name(), text()).prop_map(|(at, name, text)| Action::AcceptOffer(at, name, text)),
        6 => (0..9usize, kind()).prop_map(|(at, kind)| Action::ChangeOffer(at, kind)),
        3 => (0..9usize).prop_map(Action::AnswerOperation),
        8 => (0..9usize, state(), state()).prop_map(|(at, now, latest)| Action::UpdateTask(at, now, latest)),
        6 => (0..9usize).prop_map(Action::AcknowledgeTask),
        4 => (slave_id(), state()).prop_map(|(slave, state)| Action::ReturnOfSlave(slave, state)),
        1 => Just(Action::HealthyMinutes),
        14 => Just(Action::CommitNext),
        1 => command().prop_map(Action::CommitForeign),
        4 => (0..40_000u64).prop_map(Action::Pass),
    ]
}

/// Rarely another master leads: everybody has to come back after that.
fn action_or_failover() -> impl Strategy<Value = Action> {
    prop_oneof![250 => action(), 1 => Just(Action::FailOver)]
}

/// Starts with peers that are what they should be, so that the rest has something to hit.
fn begin() -> World {
    let mut world = World::new();
    world.slave(RESOURCES[0]);
    world.slave(RESOURCES[2]);
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
            Action::AcceptOffer(at, name, text) => accept_offer(&mut world, at, name, text),
            Action::ChangeOffer(at, kind) => change_offer(&mut world, at, kind),
            Action::AnswerOperation(at) => answer_operation(&mut world, at),
            Action::UpdateTask(at, now, latest) => update_task(&mut world, number, at, now, latest),
            Action::AcknowledgeTask(at) => acknowledge_task(&mut world, at),
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

fn accept_offer(world: &mut World, at: usize, name: &str, text: &str) -> Vec<String> {
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
    world.accept(connection, &[number], vec![task(name, slave, text)])
}

fn ordered(change: Change) -> Operation {
    Operation::Change(Box::new(ResourceOperation {
        operation_id: Some(OperationId::new("op").expect("letters")),
        change,
    }))
}

/// Reserves a part of an offer, or undoes that, and launches on it.
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
    let claim = resources(&format!("cpus({role},):0.1"));
    let message = FrameworkToMaster::Accept {
        offer_ids: vec![offer(number)],
        operations: vec![
            ordered(Change::new(kind, claim)),
            Operation::Launch(vec![task("e", slave, &format!("cpus({role},):0.1"))]),
        ],
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

/// A slave comes back as it was, with every other of its tasks, all in one state.
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
    let slave = slave(&text);
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
