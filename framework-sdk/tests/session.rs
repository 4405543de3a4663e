//! Sessions against a hand-made master on the real wire.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use meros_proto::attribute::Attributes;
use meros_proto::ids::{ClusterId, Epoch};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Leadership;
use meros_proto::transport::{
    CloseCode, ClusterCa, PeerRole, Protocol, Receiver, Sender, Server, ServerLimits,
};
use meros_sdk::{
    Acknowledge, Actions, CALL_QUEUE, CallError, EndReason, Events, Filters, FrameworkId, Handle,
    NEWS_QUEUE, News, Offer, OfferId, Operation, Placement, Refusal, RoleName, Scheduler, Session,
    SessionConfig, SessionError, SetupError, SlaveId, Source, Task, TaskId, TaskState, TaskStatus,
    Timestamp, UpdateId,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId(9);
const FRAMEWORK: FrameworkId = FrameworkId(3);
const SLAVE: SlaveId = SlaveId(1);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// A certificate authority and the identities it issued.
struct Cluster {
    dir: TempDir,
    ca: ClusterCa,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self {
            dir,
            ca: ClusterCa::create("test").expect("a CA"),
        }
    }

    fn identity(&self, role: PeerRole, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let identity = self.ca.issue(role, name, &[]).expect("issued");
        identity.save(&path).expect("saved");
        path
    }

    fn master(&self) -> FakeMaster {
        // By its name a master is known.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("m{}", MADE.fetch_add(1, Ordering::Relaxed));
        let identity = self.ca.issue(PeerRole::Master, &name, &[]).expect("issued");
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = Server::bind(address, &identity, ServerLimits::default()).expect("bound");
        FakeMaster { server }
    }

    fn config(&self, masters: &[&FakeMaster]) -> SessionConfig {
        let masters = masters.iter().map(|master| master.address()).collect();
        let identity = self.dir.path().join("framework");
        if !identity.exists() {
            self.identity(PeerRole::Framework, "framework");
        }
        SessionConfig::new("test", masters, identity)
    }
}

struct FakeMaster {
    server: Server,
}

impl FakeMaster {
    fn address(&self) -> String {
        self.server.local_addr().expect("bound").to_string()
    }

    /// The next connection, and the id that its subscription bears.
    async fn peer(&mut self) -> (Peer, Option<FrameworkId>) {
        let connection = soon("a connection", self.server.accept())
            .await
            .expect("listening");
        assert_eq!(connection.protocol(), Protocol::Framework);
        let (sender, receiver) = connection.split(1_024);
        let mut peer = Peer { sender, receiver };
        match peer.next().await {
            FrameworkToMaster::Subscribe { framework, .. } => (peer, framework.framework_id),
            other => panic!("expected a subscription, got {other:?}"),
        }
    }

    /// As [`FakeMaster::peer`], subscribed.
    async fn subscribed(&mut self) -> (Peer, Option<FrameworkId>) {
        let (peer, framework_id) = self.peer().await;
        peer.send(MasterToFramework::Subscribed {
            framework_id: FRAMEWORK,
            cluster_id: CLUSTER,
            epoch: Epoch(1),
        });
        (peer, framework_id)
    }
}

struct Peer {
    sender: Sender<MasterToFramework>,
    receiver: Receiver<FrameworkToMaster>,
}

impl Peer {
    fn send(&self, message: MasterToFramework) {
        self.sender.try_send(message).expect("there is room");
    }

    async fn next(&mut self) -> FrameworkToMaster {
        soon("a message", self.receiver.recv())
            .await
            .expect("connected")
    }

    async fn accepted(&mut self) -> Vec<TaskId> {
        match self.next().await {
            FrameworkToMaster::Accept { operations, .. } => {
                let Operation::Launch(tasks) = &operations[0] else {
                    panic!("a launch");
                };
                tasks.iter().map(|task| task.task_id.clone()).collect()
            }
            other => panic!("expected an accept, got {other:?}"),
        }
    }

    async fn acknowledged(&mut self) -> UpdateId {
        match self.next().await {
            FrameworkToMaster::Acknowledge { update_id, .. } => update_id,
            other => panic!("expected an acknowledgement, got {other:?}"),
        }
    }
}

/// The leader of term 1 ends the subscription.
fn error(refusal: Refusal) -> MasterToFramework {
    let by = Some(Leadership {
        cluster_id: CLUSTER,
        epoch: Epoch(1),
    });
    MasterToFramework::Error { refusal, by }
}

fn offer(number: u64, resources: &str) -> Offer {
    Offer {
        offer_id: OfferId {
            epoch: Epoch(1),
            number,
        },
        framework_id: FRAMEWORK,
        slave_id: SLAVE,
        hostname: "here".to_owned(),
        http_address: String::new(),
        role: RoleName::any(),
        resources: resources.parse().expect("resources"),
        attributes: Attributes::default(),
        unavailability: None,
    }
}

fn status(task: &str, state: TaskState, number: u64) -> TaskStatus {
    let task_id = TaskId::new(task).expect("an id");
    let mut status = TaskStatus::new(task_id, state, Source::Slave, Timestamp(1));
    status.slave_id = Some(SLAVE);
    status.update_id = Some(UpdateId::by_slave(SLAVE, 1, number));
    status
}

fn update(task: &str, state: TaskState, number: u64) -> MasterToFramework {
    MasterToFramework::Update(status(task, state, number))
}

async fn news(events: &mut Events) -> News {
    soon("news", events.next())
        .await
        .expect("the session goes on")
}

/// Skips failed attempts.
async fn subscribed_news(events: &mut Events) -> bool {
    loop {
        match news(events).await {
            News::Subscribed {
                framework_id,
                again,
                ..
            } => {
                assert_eq!(framework_id, FRAMEWORK);
                return again;
            }
            News::ConnectFailed { .. } | News::Disconnected { .. } => {}
            other => panic!("expected a subscription, got {other:?}"),
        }
    }
}

fn connect(config: SessionConfig) -> (Events, Handle) {
    Session::connect(config).expect("valid")
}

fn launch(handle: &Handle, offer: &Offer, task: &str) {
    let mut placement = Placement::on(offer);
    placement
        .place(&Task::new(task).command("true").cpus(0.1))
        .expect("room");
    let operations = vec![Operation::Launch(placement.into_tasks())];
    handle
        .accept(vec![offer.offer_id], operations, Filters::default())
        .expect("taken");
}

/// Places one task on the first offer, then tears the framework down.
#[derive(Default)]
struct One {
    launched: bool,
    seen: Vec<TaskState>,
}

impl Scheduler for One {
    fn offers(&mut self, offers: Vec<Offer>, actions: &mut Actions) {
        let mut placement = Placement::on(&offers[0]);
        if !self.launched {
            let task = Task::new("one").command("true").cpus(0.1).mem(32.0);
            placement.place(&task).expect("there is room");
            self.launched = true;
        }
        actions.launch(placement);
    }

    fn update(&mut self, status: TaskStatus, actions: &mut Actions) {
        self.seen.push(status.state);
        if status.state.is_terminal() {
            actions.teardown();
        }
    }
}

#[tokio::test]
async fn a_scheduler_goes_from_an_offer_to_an_acknowledged_end() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let config = cluster.config(&[&master]);
    let mut scheduler = One::default();
    let running = meros_sdk::run(config, &mut scheduler);
    let serving = async {
        let (mut peer, framework_id) = master.subscribed().await;
        assert_eq!(framework_id, None);
        peer.send(MasterToFramework::Offers(vec![
            offer(1, "cpus:1;mem:64"),
            offer(2, "cpus:1"),
        ]));
        assert_eq!(peer.accepted().await, [TaskId::new("one").expect("an id")]);
        let FrameworkToMaster::Decline { offer_ids, .. } = peer.next().await else {
            panic!("the other offer is declined");
        };
        assert_eq!(offer_ids, [offer(2, "").offer_id]);
        peer.send(update("one", TaskState::Running, 1));
        assert_eq!(peer.acknowledged().await, UpdateId::by_slave(SLAVE, 1, 1));
        peer.send(update("one", TaskState::Finished, 2));
        assert_eq!(peer.next().await, FrameworkToMaster::Teardown);
        assert_eq!(peer.acknowledged().await, UpdateId::by_slave(SLAVE, 1, 2));
        let removed = Refusal::FrameworkRemoved {
            framework_id: FRAMEWORK,
        };
        peer.send(error(removed));
        peer
    };
    let (ended, _peer) = soon("the end", async { tokio::join!(running, serving) }).await;
    ended.expect("it ended as it was asked to");
    assert_eq!(scheduler.seen, [TaskState::Running, TaskState::Finished]);
}

#[tokio::test]
async fn a_broken_connection_comes_back_under_the_same_id_and_asks_for_its_tasks() {
    // semantics: H8, N2
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let (mut events, handle) = connect(cluster.config(&[&master]));
    let (mut peer, _) = master.subscribed().await;
    assert!(!subscribed_news(&mut events).await);
    peer.send(MasterToFramework::Offers(vec![offer(1, "cpus:1")]));
    let News::Offers(offers) = news(&mut events).await else {
        panic!("an offer")
    };
    launch(&handle, &offers[0], "a");
    assert_eq!(peer.accepted().await.len(), 1);
    peer.sender.close(CloseCode::ShuttingDown, "restarting");
    assert!(matches!(news(&mut events).await, News::Disconnected { .. }));
    // Offers are void: the launch ends at once, and nothing of it reaches a master.
    launch(&handle, &offers[0], "b");
    let dropped = loop {
        match news(&mut events).await {
            News::Update(status) => break status,
            News::ConnectFailed { .. } => {}
            other => panic!("expected a status, got {other:?}"),
        }
    };
    assert_eq!(
        (dropped.task_id.as_str(), dropped.state),
        ("b", TaskState::Dropped)
    );
    let (mut peer, framework_id) = master.subscribed().await;
    assert_eq!(framework_id, Some(FRAMEWORK));
    assert!(subscribed_news(&mut events).await);
    let FrameworkToMaster::Reconcile { tasks } = peer.next().await else {
        panic!("its tasks are asked for");
    };
    assert_eq!(
        tasks
            .iter()
            .map(|task| task.task_id.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
}

#[tokio::test]
async fn a_hint_at_the_leader_is_followed() {
    let cluster = Cluster::new();
    let mut follower = cluster.master();
    let mut leader = cluster.master();
    let (mut events, _handle) = connect(cluster.config(&[&follower]));
    let (peer, _) = follower.peer().await;
    let refusal = Refusal::NotLeading {
        leader: Some(leader.address()),
    };
    peer.send(error(refusal));
    let (_peer, _) = leader.subscribed().await;
    assert!(!subscribed_news(&mut events).await);
}

#[tokio::test]
async fn masters_that_are_told_of_take_the_place_of_the_only_one_that_was_named() {
    let cluster = Cluster::new();
    let mut named = cluster.master();
    let mut told = [cluster.master(), cluster.master()];
    let gates = [0, 1].map(|at: usize| told[at].server.gate());
    gates.iter().for_each(|gate| gate.close());
    let (mut events, _handle) = connect(cluster.config(&[&named]));
    let (peer, _) = named.subscribed().await;
    let nonsense = vec!["nowhere".to_owned()];
    peer.send(MasterToFramework::Masters {
        addresses: nonsense,
    });
    let addresses = [&named, &told[0]].map(FakeMaster::address).to_vec();
    peer.send(MasterToFramework::Masters { addresses });
    assert!(!subscribed_news(&mut events).await);
    // Another one leads, and the first says nothing of that: it may be dead.
    named.server.gate().close();
    gates[0].open();
    let (next, known) = told[0].subscribed().await;
    assert_eq!(known, Some(FRAMEWORK));
    assert!(subscribed_news(&mut events).await);
    // The one that was named is replaced by a third.
    let addresses = [&told[0], &told[1]].map(FakeMaster::address).to_vec();
    next.send(MasterToFramework::Masters { addresses });
    named.server.close(Duration::from_secs(1)).await;
    gates[0].close();
    gates[1].open();
    let (_last, known) = told[1].subscribed().await;
    assert_eq!(known, Some(FRAMEWORK));
    assert!(subscribed_news(&mut events).await);
}

#[tokio::test]
async fn the_next_master_of_the_list_is_tried_when_one_is_not_there() {
    let cluster = Cluster::new();
    let gone = cluster.master();
    let mut master = cluster.master();
    let config = cluster.config(&[&gone, &master]);
    gone.server.close(Duration::from_secs(1)).await;
    let (mut events, _handle) = connect(config);
    let (_peer, _) = master.subscribed().await;
    assert!(!subscribed_news(&mut events).await);
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_explained_and_final() {
    let cluster = Cluster::new();
    let foreign = Cluster::new();
    let master = foreign.master();
    let (mut events, handle) = connect(cluster.config(&[&master]));
    let News::Ended(EndReason::Untrusted { why }) = news(&mut events).await else {
        panic!("it ends");
    };
    assert!(why.contains("certificate"), "{why}");
    assert!(soon("the end", events.next()).await.is_none());
    assert!(handle.leave().is_err(), "there is nobody to leave");
    let mut scheduler = One::default();
    let outcome = meros_sdk::run(cluster.config(&[&master]), &mut scheduler);
    let error = soon("the end", outcome).await.expect_err("it cannot go on");
    assert!(matches!(error, SessionError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_of_the_wrong_role_is_explained_and_final() {
    let cluster = Cluster::new();
    let master = cluster.master();
    let mut config = cluster.config(&[&master]);
    config.identity = cluster.identity(PeerRole::Slave, "slave");
    let (mut events, _handle) = connect(config);
    let News::Ended(EndReason::Untrusted { why }) = news(&mut events).await else {
        panic!("it ends");
    };
    assert!(why.contains("not_allowed"), "{why}");
}

#[tokio::test]
async fn one_master_that_is_not_trusted_does_not_end_what_another_can_serve() {
    let cluster = Cluster::new();
    let foreign = Cluster::new().master();
    let mut master = cluster.master();
    let (mut events, _handle) = connect(cluster.config(&[&foreign, &master]));
    let (_peer, _) = master.subscribed().await;
    let News::ConnectFailed { why, .. } = news(&mut events).await else {
        panic!("the first attempt failed");
    };
    assert!(why.contains("certificate"), "{why}");
    assert!(!subscribed_news(&mut events).await);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let cluster = Cluster::new();
    let master = cluster.master();
    let mut config = cluster.config(&[&master]);
    config.identity = cluster.dir.path().join("missing");
    let error = Session::connect(config).expect_err("no identity");
    assert!(matches!(error, SetupError::Identity(_)), "{error}");
    assert!(error.to_string().contains("meros ca issue"), "{error}");
    let mut config = cluster.config(&[&master]);
    config.masters.clear();
    assert!(matches!(
        Session::connect(config),
        Err(SetupError::Config(_))
    ));
    let mut config = cluster.config(&[&master]);
    let path = cluster.dir.path().join("state");
    std::fs::write(&path, "something else").expect("written");
    config.state_file = Some(path);
    assert!(matches!(
        Session::connect(config),
        Err(SetupError::StateFile(_))
    ));
}

#[tokio::test]
async fn a_program_with_a_state_file_comes_back_as_the_same_framework() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let path = cluster.dir.path().join("state");
    let config = SessionConfig {
        state_file: Some(path.clone()),
        ..cluster.config(&[&master])
    };
    let (mut events, handle) = connect(config.clone());
    let (_peer, framework_id) = master.subscribed().await;
    assert_eq!(framework_id, None);
    assert!(!subscribed_news(&mut events).await);
    assert!(path.exists(), "kept before it was told");
    handle.leave().expect("taken");
    assert_eq!(news(&mut events).await, News::Ended(EndReason::Left));

    let (mut events, handle) = connect(config);
    let (mut peer, framework_id) = master.subscribed().await;
    assert_eq!(framework_id, Some(FRAMEWORK));
    assert!(!subscribed_news(&mut events).await);
    // What an earlier life launched is asked for.
    assert_eq!(
        peer.next().await,
        FrameworkToMaster::Reconcile { tasks: Vec::new() }
    );
    handle.teardown().expect("taken");
    assert_eq!(peer.next().await, FrameworkToMaster::Teardown);
    peer.send(error(Refusal::FrameworkRemoved {
        framework_id: FRAMEWORK,
    }));
    let ended = News::Ended(EndReason::TornDown { confirmed: true });
    assert_eq!(news(&mut events).await, ended);
    assert!(!path.exists(), "the framework is no more");
}

#[tokio::test]
async fn an_id_that_cannot_be_kept_is_not_told() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let mut config = cluster.config(&[&master]);
    config.state_file = Some(cluster.dir.path().join("missing/state"));
    let (mut events, _handle) = connect(config);
    let (_peer, _) = master.subscribed().await;
    let News::Ended(EndReason::Failed { why }) = news(&mut events).await else {
        panic!("it ends");
    };
    assert!(why.contains("state file"), "{why}");
    assert!(soon("the end", events.next()).await.is_none());
}

#[tokio::test]
async fn an_update_is_acknowledged_when_more_is_asked_for_and_not_before() {
    // D3, through the whole session.
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let (mut events, handle) = connect(cluster.config(&[&master]));
    let (mut peer, _) = master.subscribed().await;
    subscribed_news(&mut events).await;
    peer.send(update("a", TaskState::Running, 1));
    assert!(matches!(news(&mut events).await, News::Update(_)));
    // What is sent now is before the acknowledgement on the ordered wire.
    handle.revive(Vec::new()).expect("taken");
    assert_eq!(
        peer.next().await,
        FrameworkToMaster::Revive { roles: Vec::new() }
    );
    peer.send(update("a", TaskState::Finished, 2));
    assert!(matches!(news(&mut events).await, News::Update(_)));
    assert_eq!(peer.acknowledged().await, UpdateId::by_slave(SLAVE, 1, 1));
}

#[tokio::test]
async fn a_manual_session_acknowledges_only_what_it_is_told_to() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let mut config = cluster.config(&[&master]);
    config.acknowledge = Acknowledge::Manual;
    let (mut events, handle) = connect(config);
    let (mut peer, _) = master.subscribed().await;
    subscribed_news(&mut events).await;
    peer.send(update("a", TaskState::Running, 1));
    peer.send(update("b", TaskState::Running, 2));
    let News::Update(_) = news(&mut events).await else {
        panic!("an update")
    };
    let News::Update(second) = news(&mut events).await else {
        panic!("an update")
    };
    handle.acknowledge(&second).expect("taken");
    assert_eq!(peer.acknowledged().await, UpdateId::by_slave(SLAVE, 1, 2));
}

#[tokio::test]
async fn a_framework_that_does_not_read_loses_nothing_and_is_bounded() {
    const COUNT: u64 = 20_000;
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let (mut events, _handle) = connect(cluster.config(&[&master]));
    let (peer, _) = master.subscribed().await;
    let sending = tokio::spawn(async move {
        for number in 1..=COUNT {
            let message = update(&format!("t{number}"), TaskState::Finished, number);
            peer.sender.send(message).await.expect("connected");
        }
        peer
    });
    subscribed_news(&mut events).await;
    for number in 1..=COUNT {
        let News::Update(status) = news(&mut events).await else {
            panic!("an update")
        };
        assert_eq!(status.update_id, Some(UpdateId::by_slave(SLAVE, 1, number)));
    }
    let _peer = soon("the sending", sending)
        .await
        .expect("it does not panic");
}

#[tokio::test]
async fn calls_are_taken_from_a_framework_that_reads_no_news_meanwhile() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let (mut events, handle) = connect(cluster.config(&[&master]));
    let (mut peer, _) = master.subscribed().await;
    subscribed_news(&mut events).await;
    // More than may wait for it, so that nothing more is read from the master.
    let updates = u64::try_from(NEWS_QUEUE).unwrap() * 2;
    for number in 0..updates {
        let full = update(&format!("t-{number}"), TaskState::Running, number);
        soon("room", peer.sender.send(full)).await.unwrap();
    }
    let calls = u64::try_from(CALL_QUEUE).unwrap() * 2;
    let declines = async {
        for number in 0..calls {
            let id = offer(number, "cpus:1").offer_id;
            while handle.decline(vec![id], Filters::default()) == Err(CallError::Full) {
                tokio::task::yield_now().await;
            }
        }
    };
    let heard = async {
        let mut declined = 0;
        while declined < calls {
            if let FrameworkToMaster::Decline { .. } = peer.next().await {
                declined += 1;
            }
        }
    };
    soon("all calls are heard", async {
        tokio::join!(declines, heard)
    })
    .await;
}

#[tokio::test]
async fn dropping_the_events_leaves() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let (mut events, handle) = connect(cluster.config(&[&master]));
    let (mut peer, _) = master.subscribed().await;
    subscribed_news(&mut events).await;
    drop(events);
    assert!(soon("the close", peer.receiver.recv()).await.is_err());
    soon("the end", async {
        while handle.leave().is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Gives up at the first failure.
struct Impatient {
    why: Option<String>,
}

impl Scheduler for Impatient {
    fn offers(&mut self, _: Vec<Offer>, _: &mut Actions) {}
    fn update(&mut self, _: TaskStatus, _: &mut Actions) {}

    fn connect_failed(&mut self, why: &str, _: Duration, actions: &mut Actions) {
        self.why = Some(why.to_owned());
        actions.leave();
    }
}

#[tokio::test]
async fn a_scheduler_can_give_up_when_nobody_is_there() {
    let cluster = Cluster::new();
    let gone = cluster.master();
    let config = cluster.config(&[&gone]);
    let address = gone.address();
    gone.server.close(Duration::from_secs(1)).await;
    let mut scheduler = Impatient { why: None };
    soon("the end", meros_sdk::run(config, &mut scheduler))
        .await
        .expect("it left by itself");
    let why = scheduler.why.expect("it was told");
    assert!(why.contains(&address), "{why}");
}
