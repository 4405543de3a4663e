//! Several members over real connections: what a newcomer receives, and what is refused.

use std::time::Instant;

use crossbeam::channel::{self, Receiver};
use meros_master_core::event::ProposalId;
use meros_proto::transport::{ClusterCa, PeerRole, Server, ServerLimits};
use openraft::raft::VoteRequest;

use super::super::peer::dial;
use super::super::wire::{Answer, Call, Request};
use super::*;

/// Far longer than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Master {
    replica: Arc<Replica>,
    proposals: mpsc::Sender<Proposal>,
    reports: Receiver<Report>,
    client: Client,
    address: String,
    serving: JoinHandle<()>,
}

impl Master {
    /// Number `number`, which forms a cluster or joins one.
    async fn start(ca: &ClusterCa, dir: &Path, number: u64, join: &[String]) -> Self {
        let name = format!("m{number}");
        let identity = ca.issue(PeerRole::Master, &name, &[]).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut server = Server::bind(listen, &identity, ServerLimits::default()).unwrap();
        let address = server.local_addr().unwrap().to_string();
        let member = Member {
            name,
            address: address.clone(),
        };
        let start = match join.is_empty() {
            true => Start::Form {
                cluster_id: CLUSTER,
                member: member.clone(),
            },
            false => Start::Join,
        };
        let opened = open(&dir.join(&member.name), &[OURS], MasterId(number), start);
        let client = Client::new(&identity).unwrap();
        let (reporter, reports) = channel::bounded(1 << 14);
        let parts = ReplicaParts {
            member,
            client: client.clone(),
            metrics: Arc::default(),
            exit: Exit::new(),
            report: Box::new(move |report| drop(reporter.send(report))),
            on_end: Box::new(|| {}),
        };
        let started = Replica::start(opened.expect("opens"), parts).await;
        let (replica, proposals) = started.expect("starts");
        let replica = Arc::new(replica);
        let serves = Arc::clone(&replica);
        let serving = tokio::spawn(async move {
            while let Some(connection) = server.accept().await {
                let serves = Arc::clone(&serves);
                tokio::spawn(async move { serves.serve(connection).await });
            }
        });
        replica.join(&client, join).await.expect("it is taken");
        Self {
            replica,
            proposals,
            reports,
            client,
            address,
            serving,
        }
    }

    /// Waits until it leads, and tells the number of its reign.
    async fn leads(&self) -> u64 {
        assert!(self.replica.leads().await);
        match self.reports.recv_timeout(PATIENCE).expect("a report") {
            Report::Lead { reign, .. } => reign,
            other => panic!("{other:?}"),
        }
    }

    /// Makes a command part of the registry.
    async fn commit(&self, reign: u64, id: u64, command: Command) {
        let proposal = Proposal {
            reign,
            id: ProposalId(id),
            command,
            at: Instant::now(),
        };
        self.proposals.send(proposal).await.expect("it runs");
    }

    fn registry(&self) -> Registry {
        self.replica.state.lock().registry.clone()
    }

    /// What it answers to a question of another master.
    async fn answer(&self, client: &Client, to: Option<MasterId>, call: Call) -> Answer {
        let dialled = dial(client, &self.address).await;
        let (sender, mut receiver) = dialled.expect("it listens");
        let number = 7;
        let request = Request { number, to, call };
        sender.send(request).await.expect("it reads");
        let answer = timeout(PATIENCE, receiver.recv()).await;
        let response = answer.expect("in time").expect("an answer");
        assert_eq!(response.number, number);
        response.answer
    }

    async fn stop(self) {
        drop(self.proposals);
        self.replica.shutdown().await;
        self.serving.abort();
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_receives_the_snapshot_in_pieces_and_the_log_since() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    let reign = first.leads().await;
    let count = 6_000;
    for number in 0..count {
        first.commit(reign, u64::from(number), admit(number)).await;
    }
    eventually("all are committed", || {
        first.registry().slaves().count() == count as usize
    })
    .await;
    let raft = &first.replica.raft;
    raft.trigger().snapshot().await.unwrap();
    let wait = raft.wait(Some(PATIENCE));
    let made = wait
        .metrics(|now| now.snapshot == now.last_applied, "snapshot")
        .await
        .unwrap();
    let at = made.snapshot.expect("there is one").index;
    raft.trigger().purge_log(at).await.unwrap();
    wait.metrics(|now| now.purged.map(|id| id.index) == Some(at), "purged")
        .await
        .unwrap();
    first.commit(reign, 9_999, rename(0, 7)).await;

    let join = [first.address.clone()];
    let second = Master::start(&ca, dir.path(), 2, &join).await;
    eventually("the second has all of it", || {
        second.registry() == first.registry()
    })
    .await;
    // Told a moment after it is applied.
    let snapshot = || second.replica.raft.metrics().borrow().snapshot;
    eventually("it has received the snapshot", || {
        snapshot().is_some_and(|id| id.index >= at)
    })
    .await;
    assert_eq!(
        snapshot::encode(&second.registry()).unwrap(),
        snapshot::encode(&first.registry()).unwrap()
    );
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_answered_is_refused() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    first.leads().await;
    let second = Master::start(&ca, dir.path(), 2, std::slice::from_ref(&first.address)).await;
    let vote = |from| {
        let vote = Vote::new(1_000, MasterId(from));
        Call::Vote(VoteRequest::new(vote, None))
    };

    // R2: neither one that has just started votes, nor one that acts, whatever the term.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match first.answer(&second.client, None, vote(2)).await {
            Answer::Failed(why) if why == "this master leads" => break,
            Answer::Failed(why) => assert_eq!(why, "started too recently to vote"),
            // A busy machine may let the lease end: then its log speaks against the candidate.
            Answer::Vote(answer) => assert!(!answer.vote_granted),
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "it never says that it leads");
    }
    assert!(first.replica.status().progress().term < 1_000);

    let answer = second.answer(&first.client, Some(MasterId(5)), vote(1));
    match answer.await {
        Answer::Refused(why) => assert!(why.contains(&MasterId(2).to_string()), "{why}"),
        other => panic!("{other:?}"),
    }
    let join = |name: &str, address: &str| Call::Join {
        master_id: MasterId(9),
        member: Member {
            name: name.to_owned(),
            address: address.to_owned(),
        },
    };
    // Another name than in the certificate, an address that is none, and a name that is taken.
    for call in [
        join("m3", "127.0.0.1:1"),
        join("m2", "nowhere"),
        join("m2", "127.0.0.1:1"),
    ] {
        let answer = first.answer(&second.client, None, call).await;
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
    let (members, voters) = first.replica.status().members();
    assert_eq!((members.len(), voters.len()), (2, 2));
    second.stop().await;
    first.stop().await;
}
