//! What is drawn: events of every kind, with few names, so that they meet.

use meros_proto::group::TaskGroup;

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Action {
    Connect(bool),
    Disconnect(u64),
    Slave(u64, SlaveToMaster),
    Framework(u64, FrameworkToMaster),
    Operator(OperatorCall),
    /// What well-behaved peers do, about whatever there is at that moment.
    AcceptOffer(usize, Launch),
    ChangeOffer(usize, ChangeKind),
    AnswerOperation(usize),
    UpdateTask(usize, TaskState, TaskState),
    AcknowledgeTask(usize),
    EndExecutor(usize),
    ReturnOfSlave(SlaveId, TaskState),
    HealthyMinutes,
    CommitNext,
    CommitForeign(Command),
    FailOver,
    Pass(u64),
}

/// A task that is to be launched, in which executor, and what it takes.
pub(super) type Launch = (&'static str, Option<&'static str>, &'static str);

pub(super) const RESOURCES: [&str; 6] = [
    "cpus:4;mem:1024;disk:10",
    "cpus:1",
    "cpus(a):2;mem:100",
    "cpus:2;ports:[1-100]",
    "mem:33",
    "cpus:1;ports:[5-9]",
];
pub(super) const CLAIMS: [&str; 9] = [
    "cpus(a,):1",
    "cpus(a,):1;mem(a,):10",
    "cpus(a)(a/b,):1",
    "cpus(a/b,):1",
    "disk(a,):2",
    "disk(a,)[v:v]:1",
    "disk(a,)[v:v]:1;disk(a,):1",
    "cpus(a):1",
    "cpus:1",
];
pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const EXECUTORS: [&str; 2] = ["x", "y"];
pub(super) const ROLES: [&str; 3] = ["*", "a", "a/b"];

pub(super) fn slave_id() -> impl Strategy<Value = SlaveId> {
    (0..4u32).prop_map(SlaveId)
}

pub(super) fn framework_id() -> impl Strategy<Value = FrameworkId> {
    (0..3u32).prop_map(FrameworkId)
}

pub(super) fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

pub(super) fn executor() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&EXECUTORS[..])
}

pub(super) fn launch() -> impl Strategy<Value = Launch> {
    (name(), prop::option::weighted(0.3, executor()), text())
}

pub(super) fn executor_id(id: &str) -> ExecutorId {
    ExecutorId::new(id).expect("a letter")
}

pub(super) fn executor_description(id: &str) -> ExecutorDescription {
    let command = meros_proto::task::Command::shell("true");
    ExecutorDescription::new(executor_id(id), command, resources("cpus:0.1"))
}

/// A task as it was drawn, for this slave.
pub(super) fn drawn((name, executor, text): Launch, slave: SlaveId) -> TaskDescription {
    let task = task(name, slave, text);
    match executor {
        None => task,
        Some(id) => TaskDescription {
            command: None,
            executor: Some(executor_description(id)),
            ..task
        },
    }
}

pub(super) fn run_executor(
    framework_id: FrameworkId,
    in_role: RoleName,
    executor: ExecutorDescription,
) -> RunExecutor {
    RunExecutor {
        framework: TaskFramework {
            framework_id,
            name: String::new(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: in_role,
        executor,
    }
}

/// A slave that runs executors of frameworks.
pub(super) fn able(text: &str) -> SlaveDescription {
    SlaveDescription {
        capabilities: vec![SlaveCapability::CustomExecutors],
        ..slave(text)
    }
}

pub(super) fn text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&RESOURCES[..])
}

pub(super) fn state() -> impl Strategy<Value = TaskState> {
    prop::sample::select(&TaskState::ALL[..])
}

pub(super) fn update_id() -> impl Strategy<Value = UpdateId> {
    prop_oneof![
        (1..12u128).prop_map(UpdateId),
        (1..12u64).prop_map(by_master)
    ]
}

pub(super) fn description() -> impl Strategy<Value = FrameworkDescription> {
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

pub(super) fn kind() -> impl Strategy<Value = ChangeKind> {
    prop::sample::select(&ChangeKind::ALL[..])
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let claims = prop::sample::select(&CLAIMS[..]);
    (kind(), claims).prop_map(|(kind, text)| Change::new(kind, resources(text)))
}

pub(super) fn number() -> impl Strategy<Value = OperationNumber> {
    (1..3u64, 1..9u64).prop_map(|(epoch, number)| OperationNumber {
        epoch: Epoch(epoch),
        number,
    })
}

pub(super) fn from_slave() -> impl Strategy<Value = SlaveToMaster> {
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
            slave: able(text),
        }
    });
    let run = (framework_id(), executor())
        .prop_map(|(id, executor)| run_executor(id, role("*"), executor_description(executor)));
    let ended = (framework_id(), executor()).prop_map(|(framework_id, executor)| {
        SlaveToMaster::ExecutorEnded {
            framework_id,
            executor_id: executor_id(executor),
            exit: None,
        }
    });
    let said = (framework_id(), executor()).prop_map(|(framework_id, executor)| {
        SlaveToMaster::ExecutorMessage {
            framework_id,
            executor_id: executor_id(executor),
            data: "m".into(),
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
        3 => text().prop_map(|text| SlaveToMaster::Register { slave: able(text) }),
        2 => prop::collection::vec(report, 0..6).prop_map(|tasks| SlaveToMaster::ReportTasks { tasks }),
        4 => reregister,
        1 => Just(SlaveToMaster::Pong),
        6 => status,
        1 => Just(SlaveToMaster::Unregister),
        1 => number().prop_map(|number| SlaveToMaster::ChangeApplied { number }),
        1 => reported,
        1 => prop::collection::vec(run, 0..4)
            .prop_map(|executors| SlaveToMaster::ReportExecutors { executors }),
        1 => ended,
        1 => said,
    ]
}

pub(super) fn space() -> SpaceId {
    SpaceId {
        principal: "framework".to_owned(),
        name: SpaceName::new("s").expect("a name"),
    }
}

pub(super) fn state_change() -> impl Strategy<Value = StateChange> {
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

pub(super) fn numbered() -> impl Strategy<Value = Option<Numbered>> {
    let by = (0..9u64, 0..9u64).prop_map(|(session, number)| Numbered {
        session: SessionId(session),
        number,
    });
    prop::option::of(by)
}

pub(super) fn state_call() -> impl Strategy<Value = StateCall> {
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

pub(super) fn from_framework() -> impl Strategy<Value = FrameworkToMaster> {
    let offers = prop::collection::vec((1..25u64).prop_map(offer), 0..3);
    let task = (launch(), slave_id()).prop_map(|(launch, slave)| drawn(launch, slave));
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
        prop::collection::vec(task, 0..4),
        prop::collection::vec(change(), 0..2),
        filters.clone(),
        prop::option::weighted(0.3, executor()),
    )
        .prop_map(
            |(offer_ids, tasks, changes, filters, group)| FrameworkToMaster::Accept {
                offer_ids,
                operations: changes
                    .into_iter()
                    .map(ordered)
                    .chain([match group {
                        None => Operation::Launch(tasks),
                        Some(id) => Operation::LaunchGroup(Box::new(TaskGroup {
                            executor: ExecutorDescription::group(
                                executor_id(id),
                                resources("cpus:0.1"),
                            ),
                            tasks,
                        })),
                    }])
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
        1 => (slave_id(), executor()).prop_map(|(slave_id, executor)| {
            FrameworkToMaster::ShutdownExecutor { slave_id, executor_id: executor_id(executor) }
        }),
        1 => (slave_id(), executor()).prop_map(|(slave_id, executor)| {
            FrameworkToMaster::ExecutorMessage {
                slave_id,
                executor_id: executor_id(executor),
                data: "m".into(),
            }
        }),
    ]
}

pub(super) fn quotas() -> impl Strategy<Value = Vec<(RoleName, Quota)>> {
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

pub(super) fn minimums() -> impl Strategy<Value = Vec<(RoleName, Option<Minimum>)>> {
    let text = prop_oneof![Just(""), Just("cpus:1"), Just("mem:64|disk:1")];
    let minimum = prop::option::of(text.prop_map(|text| text.parse().unwrap()));
    let role = prop::sample::select(&ROLES[..]).prop_map(role);
    prop::collection::vec((role, minimum), 0..3)
}

pub(super) fn weights() -> impl Strategy<Value = Vec<(RoleName, Scalar)>> {
    let role = prop::sample::select(&ROLES[..]).prop_map(role);
    let weight = prop::sample::select(&[0, 1, 3][..]).prop_map(Scalar::whole);
    prop::collection::vec((role, weight), 0..3)
}

pub(super) fn command() -> impl Strategy<Value = Command> {
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

pub(super) fn mode() -> impl Strategy<Value = SlaveMode> {
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

pub(super) fn action() -> impl Strategy<Value = Action> {
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
        8 => (0..9usize, launch()).prop_map(|(at, launch)| Action::AcceptOffer(at, launch)),
        6 => (0..9usize, kind()).prop_map(|(at, kind)| Action::ChangeOffer(at, kind)),
        3 => (0..9usize).prop_map(Action::AnswerOperation),
        8 => (0..9usize, state(), state()).prop_map(|(at, now, latest)| Action::UpdateTask(at, now, latest)),
        6 => (0..9usize).prop_map(Action::AcknowledgeTask),
        2 => (0..9usize).prop_map(Action::EndExecutor),
        4 => (slave_id(), state()).prop_map(|(slave, state)| Action::ReturnOfSlave(slave, state)),
        1 => Just(Action::HealthyMinutes),
        14 => Just(Action::CommitNext),
        1 => command().prop_map(Action::CommitForeign),
        4 => (0..40_000u64).prop_map(Action::Pass),
    ]
}

/// Rarely another master leads: everybody has to come back after that.
pub(super) fn action_or_failover() -> impl Strategy<Value = Action> {
    prop_oneof![250 => action(), 1 => Just(Action::FailOver)]
}
