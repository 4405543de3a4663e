//! Framework state against a hand-made master on the real wire: what is asked, and asked again.

use std::path::PathBuf;
use std::time::Duration;

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::state::{Changed, Numbered, SessionId, StateAnswer, StateCall, StateChange};
use meros_proto::transport::{
    CloseCode, ClusterCa, PeerRole, Receiver, Sender, Server, ServerLimits,
};
use meros_sdk::Refusal;
use meros_sdk::state::{
    HoldView, LeaseView, Revision, State, StateConfig, StateError, StateRefusal, Token,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SESSION: SessionId = SessionId(5);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

struct Cluster {
    dir: TempDir,
    ca: ClusterCa,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = ClusterCa::create("test").expect("a CA");
        let identity = ca.issue(PeerRole::Framework, "framework", &[]);
        let identity = identity.expect("issued");
        identity.save(&dir.path().join("framework")).expect("saved");
        Self { dir, ca }
    }

    fn master(&self) -> FakeMaster {
        let identity = self.ca.issue(PeerRole::Master, "m", &[]).expect("issued");
        let address = "127.0.0.1:0".parse().expect("an address");
        let server = Server::bind(address, &identity, ServerLimits::default()).expect("bound");
        FakeMaster { server }
    }

    fn state(&self, master: &FakeMaster) -> State {
        let identity: PathBuf = self.dir.path().join("framework");
        let config = StateConfig {
            masters: vec![master.address()],
            identity,
            space: "main".to_owned(),
            holder: "test".to_owned(),
            // Nothing here is to end by itself.
            ttl: Duration::from_secs(600),
            call_timeout: Duration::from_secs(60),
        };
        State::open(&config).expect("it can be used")
    }
}

struct FakeMaster {
    server: Server,
}

impl FakeMaster {
    fn address(&self) -> String {
        self.server.local_addr().expect("bound").to_string()
    }

    async fn peer(&mut self) -> Peer {
        let accepted = soon("a connection", self.server.accept()).await;
        let (sender, receiver) = accepted.expect("listening").split(64);
        Peer { sender, receiver }
    }
}

struct Peer {
    sender: Sender<MasterToFramework>,
    receiver: Receiver<FrameworkToMaster>,
}

impl Peer {
    async fn call(&mut self) -> (u64, StateCall) {
        let message = soon("a call", self.receiver.recv()).await;
        match message.expect("connected") {
            FrameworkToMaster::State {
                request,
                space,
                call,
            } => {
                assert_eq!(space.as_str(), "main");
                (request, call)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn change(&mut self) -> (u64, Option<Numbered>, StateChange) {
        match self.call().await {
            (request, StateCall::Change { by, change }) => (request, by, change),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, request: u64, answer: Result<StateAnswer, Refusal>) {
        let message = MasterToFramework::State { request, answer };
        self.sender.try_send(message).expect("there is room");
    }

    fn changed(&self, request: u64, changed: Changed) {
        self.answer(request, Ok(StateAnswer::Changed(changed)));
    }

    /// The session that precedes the first change.
    async fn open(&mut self, session: SessionId) {
        let (request, by, change) = self.change().await;
        let StateChange::Open { holder, ttl } = change else {
            panic!("{change:?}");
        };
        assert_eq!((by, holder.as_str()), (None, "test"));
        self.changed(request, Changed::Opened { session, ttl });
    }
}

fn numbered(session: SessionId, number: u64) -> Option<Numbered> {
    Some(Numbered { session, number })
}

fn done(revision: u64) -> Changed {
    Changed::Done {
        revision: Revision(revision),
    }
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_asked_again_under_its_number() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let state = cluster.state(&master);
    let setting = tokio::spawn(async move { state.set("a", "1").await });
    let mut peer = master.peer().await;
    peer.open(SESSION).await;
    let (first, by, change) = peer.change().await;
    assert_eq!(by, numbered(SESSION, 1));
    peer.sender.close(CloseCode::ShuttingDown, "");
    let mut peer = master.peer().await;
    let (second, by, again) = peer.change().await;
    assert_eq!((second, by, again), (first, numbered(SESSION, 1), change));
    // A leader that is about to go answers that it cannot: the next one is asked.
    peer.answer(second, Err(Refusal::Recovering));
    peer.sender.close(CloseCode::ShuttingDown, "");
    let mut peer = master.peer().await;
    let (third, by, _) = peer.change().await;
    assert_eq!(by, numbered(SESSION, 1));
    peer.changed(third, done(9));
    let revision = soon("the answer", setting).await.expect("no panic");
    assert_eq!(revision.expect("it was set"), Revision(9));
}

#[tokio::test]
async fn the_leader_is_found_by_what_the_only_known_master_says() {
    let cluster = Cluster::new();
    let (mut follower, mut leader) = (cluster.master(), cluster.master());
    let state = cluster.state(&follower);
    let reading = tokio::spawn(async move { state.get("a").await });
    let peer = follower.peer().await;
    let refusal = Refusal::NotLeading {
        leader: Some(leader.address()),
    };
    let error = MasterToFramework::Error { refusal, by: None };
    peer.sender.try_send(error).expect("there is room");
    let mut peer = leader.peer().await;
    let (request, call) = peer.call().await;
    assert!(matches!(call, StateCall::Read { .. }), "{call:?}");
    let nothing = StateAnswer::Entries {
        revision: Revision(0),
        entries: Vec::new(),
        more: false,
    };
    peer.answer(request, Ok(nothing));
    let read = soon("the answer", reading).await.expect("no panic");
    assert_eq!(read.expect("it was read"), None);
}

#[tokio::test]
async fn whoever_stops_waiting_for_a_lease_leaves_the_queue() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let state = cluster.state(&master);
    let waiting = tokio::spawn({
        let state = state.clone();
        async move { state.acquire("leader").await.map(drop) }
    });
    let mut peer = master.peer().await;
    peer.open(SESSION).await;
    let (request, _, change) = peer.change().await;
    assert!(
        matches!(
            change,
            StateChange::Acquire {
                permits: 1,
                wait: true,
                ..
            }
        ),
        "{change:?}"
    );
    let queued = Changed::Queued {
        token: Token(7),
        holds: false,
    };
    // Between its call and the answer: nobody is left to be told of the token.
    waiting.abort();
    assert!(waiting.await.expect_err("it was ended").is_cancelled());
    peer.changed(request, queued);
    let (_, by, change) = peer.change().await;
    assert_eq!(by, numbered(SESSION, 2));
    assert!(
        matches!(
            change,
            StateChange::Release {
                token: Token(7),
                ..
            }
        ),
        "{change:?}"
    );
}

#[tokio::test]
async fn a_waiter_holds_when_its_turn_comes_and_knows_when_its_session_has_ended() {
    let cluster = Cluster::new();
    let mut master = cluster.master();
    let state = cluster.state(&master);
    let waiting = tokio::spawn({
        let state = state.clone();
        async move { state.acquire("leader").await }
    });
    let mut peer = master.peer().await;
    peer.open(SESSION).await;
    let (request, _, change) = peer.change().await;
    let StateChange::Acquire { lease, .. } = change else {
        panic!("{change:?}");
    };
    let queued = Changed::Queued {
        token: Token(7),
        holds: false,
    };
    peer.changed(request, queued);
    for (seen, holds) in [(0, false), (7, true)] {
        let (request, call) = peer.call().await;
        let expected = StateCall::WatchLease {
            lease: lease.clone(),
            revision: Revision(seen),
        };
        assert_eq!(call, expected);
        let view = LeaseView {
            lease: lease.clone(),
            permits: 1,
            revision: Revision(if holds { 8 } else { 7 }),
            queue: vec![HoldView {
                token: Token(7),
                session: SESSION,
                holder: "test".to_owned(),
                holds,
            }],
        };
        peer.answer(request, Ok(StateAnswer::Lease(view)));
    }
    let held = soon("the lease", waiting).await.expect("no panic");
    let held = held.expect("its turn has come");
    assert!(held.is_held());

    let setting = tokio::spawn(async move {
        let first = state.set("a", "1").await;
        (first, state.set("a", "2").await)
    });
    let (request, by, _) = peer.change().await;
    assert_eq!(by, numbered(SESSION, 2));
    let ended = StateRefusal::SessionEnded { session: SESSION };
    peer.answer(request, Err(Refusal::State(ended)));
    soon("the loss", held.lost()).await;
    assert!(!held.is_held());
    peer.open(SessionId(11)).await;
    let (request, by, _) = peer.change().await;
    assert_eq!(by, numbered(SessionId(11), 1));
    peer.changed(request, done(12));
    let (first, second) = soon("the answers", setting).await.expect("no panic");
    let first = first.expect_err("the session had ended");
    assert!(
        matches!(
            first,
            StateError::Refused(StateRefusal::SessionEnded { .. })
        ),
        "{first}"
    );
    assert_eq!(second.expect("by another session"), Revision(12));
}
