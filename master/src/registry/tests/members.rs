//! Several members over real connections: what a newcomer receives, and what is refused.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use crossbeam::channel::{self, Receiver};
use meros_master_core::event::ProposalId;
use meros_proto::transport::{ClusterCa, PeerRole, Server, ServerLimits};
use openraft::raft::VoteRequest;

use super::super::peer::dial;
use super::super::wire::{Answer, Call, Request};
use super::*;

/// Far longer than anything here takes; a test that reaches it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Master {
    pub(super) replica: Arc<Replica>,
    proposals: mpsc::Sender<Proposal>,
    pub(super) reports: Receiver<Report>,
    pub(super) client: Client,
    pub(super) address: String,
    pub(super) exit: Exit,
    serving: JoinHandle<()>,
}

impl Master {
    /// Number `number`, which forms a cluster or joins one.
    pub(super) async fn start(ca: &ClusterCa, dir: &Path, number: u64, join: &[String]) -> Self {
        Self::start_at(ca, dir, number, join, None).await
    }

    /// With an address it says that it is there, but listens to nobody.
    async fn start_at(
        ca: &ClusterCa,
        dir: &Path,
        number: u64,
        join: &[String],
        deaf_at: Option<String>,
    ) -> Self {
        let name = format!("m{number}");
        Self::start_as(
            ca,
            dir,
            number,
            name,
            join,
            deaf_at,
            Knows::this(Pace::default()),
        )
        .await
    }

    /// Under a name that another number had.
    async fn start_named(
        ca: &ClusterCa,
        dir: &Path,
        number: u64,
        name: &str,
        join: &[String],
    ) -> Self {
        let dir = dir.join(number.to_string());
        Self::start_as(
            ca,
            &dir,
            number,
            name.to_owned(),
            join,
            None,
            Knows::this(Pace::default()),
        )
        .await
    }

    /// Of another release.
    pub(super) async fn start_knowing(
        ca: &ClusterCa,
        dir: &Path,
        number: u64,
        join: &[String],
        knows: Knows,
    ) -> Self {
        Self::start_as(ca, dir, number, format!("m{number}"), join, None, knows).await
    }

    async fn start_as(
        ca: &ClusterCa,
        dir: &Path,
        number: u64,
        name: String,
        join: &[String],
        deaf_at: Option<String>,
        knows: Knows,
    ) -> Self {
        let master = Self::begin_as(ca, dir, number, name, join, deaf_at, knows).await;
        let joined = master.replica.join(&master.client, join).await;
        joined.expect("it is taken");
        master
    }

    /// Runs, and has not said yet that it wants to be a member.
    pub(super) async fn begin(ca: &ClusterCa, dir: &Path, number: u64, join: &[String]) -> Self {
        let (name, knows) = (format!("m{number}"), Knows::this(Pace::default()));
        Self::begin_as(ca, dir, number, name, join, None, knows).await
    }

    async fn begin_as(
        ca: &ClusterCa,
        dir: &Path,
        number: u64,
        name: String,
        join: &[String],
        deaf_at: Option<String>,
        knows: Knows,
    ) -> Self {
        let identity = ca.issue(PeerRole::Master, &name, &[]).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut server = Server::bind(listen, &identity, ServerLimits::default()).unwrap();
        let is_deaf = deaf_at.is_some();
        let address = deaf_at.unwrap_or_else(|| server.local_addr().unwrap().to_string());
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
        let exit = Exit::new();
        let parts = ReplicaParts {
            member,
            client: client.clone(),
            knows,
            metrics: Arc::default(),
            exit: exit.clone(),
            report: Box::new(move |report| drop(reporter.send(report))),
            on_end: Box::new(|| {}),
            on_members: Box::new(|_| {}),
        };
        let started = Replica::start(opened.expect("opens"), parts).await;
        let (replica, proposals) = started.expect("starts");
        let replica = Arc::new(replica);
        let serves = Arc::clone(&replica);
        let serving = tokio::spawn(async move {
            if is_deaf {
                return;
            }
            while let Some(connection) = server.accept().await {
                let serves = Arc::clone(&serves);
                tokio::spawn(async move { serves.serve(connection).await });
            }
        });
        Self {
            replica,
            proposals,
            reports,
            client,
            address,
            exit,
            serving,
        }
    }

    /// Waits until it leads, and tells the number of its reign.
    pub(super) async fn leads(&self) -> u64 {
        assert!(self.replica.leads().await);
        match self.reports.recv_timeout(PATIENCE).expect("a report") {
            Report::Lead { reign, .. } => reign,
            other => panic!("{other:?}"),
        }
    }

    /// Makes a command part of the registry.
    pub(super) async fn commit(&self, reign: u64, id: u64, command: Command) {
        let proposal = Proposal {
            reign,
            id: ProposalId(id),
            command,
            at: Instant::now(),
        };
        self.proposals.send(proposal).await.expect("it runs");
    }

    pub(super) fn registry(&self) -> Registry {
        self.replica.state.lock().registry.clone()
    }

    /// What it answers to a question of another master.
    pub(super) async fn answer(&self, client: &Client, to: Option<MasterId>, call: Call) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        let (sender, mut receiver) = loop {
            match dial(client, &self.address).await {
                Ok(dialled) => break dialled,
                // A second is not long for a busy machine.
                Err(error) => assert!(Instant::now() < deadline, "it listens: {error}"),
            }
        };
        let number = 7;
        let request = Request { number, to, call };
        sender.send(request).await.expect("it reads");
        let answer = timeout(PATIENCE, receiver.recv()).await;
        let response = answer.expect("in time").expect("an answer");
        assert_eq!(response.number, number);
        response.answer
    }

    pub(super) async fn stop(self) {
        drop(self.proposals);
        self.replica.shutdown().await;
        self.serving.abort();
    }
}

pub(super) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
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
    let (members, voters) = first.replica.status().members();
    assert_eq!((members.len(), voters.len()), (2, 2));
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hears_no_leader_asks_before_it_stands_for_election() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    let join = [first.address.clone()];
    let second = Master::start(&ca, dir.path(), 2, &join).await;
    let third = Master::start(&ca, dir.path(), 3, &join).await;
    let address = third.address.clone();
    third.stop().await;
    let third = Master::start_at(&ca, dir.path(), 3, &join, Some(address)).await;
    let heard = Arc::clone(&third.replica.service.heard);
    let term = || third.replica.status().progress().term;
    // A busy machine may depose a leader; not whenever the third asks.
    let (mut asked, mut since) = (heard.asked(), term());
    eventually("it asks in vain, and leaves the term alone", || {
        if term() != since {
            (asked, since) = (heard.asked(), term());
        }
        heard.asked() >= asked + 4
    })
    .await;
    third.stop().await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_master_becomes_three_and_five_and_three_again_and_no_command_is_lost() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    let reign = first.leads().await;
    let (stop, acknowledged) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let life = {
        let (proposals, reports) = (first.proposals.clone(), first.reports.clone());
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        std::thread::spawn(move || {
            for number in 0.. {
                let proposal = Proposal {
                    reign,
                    id: ProposalId(u64::from(number)),
                    command: admit(number),
                    at: Instant::now(),
                };
                if stop.load(Ordering::Relaxed) || proposals.blocking_send(proposal).is_err() {
                    return;
                }
                // A busy machine may end the reign, and with it what is acknowledged in it.
                match reports.recv_timeout(Duration::from_secs(5)) {
                    Ok(Report::Committed { .. }) => {
                        acknowledged.store(number + 1, Ordering::Release)
                    }
                    _ => return,
                }
            }
        })
    };
    let progress = async || {
        let before = acknowledged.load(Ordering::Acquire);
        let more = || life.is_finished() || acknowledged.load(Ordering::Acquire) >= before + 10;
        eventually("commands are acknowledged", more).await;
    };
    let mut others = Vec::new();
    for number in 2..=5 {
        progress().await;
        let join = [first.address.clone()];
        others.push(Master::start(&ca, dir.path(), number, &join).await);
    }
    eventually("all vote", || first.replica.status().members().1.len() == 5).await;
    // Whoever leads by then.
    let leader = async |masters: &[&Master]| {
        let mut found = None;
        eventually("one leads", || {
            found = masters
                .iter()
                .position(|one| one.replica.leadership().is_acting());
            found.is_some()
        })
        .await;
        found.expect("just found")
    };
    let masters: Vec<&Master> = std::iter::once(&first).chain(&others).collect();
    for name in ["m2", "m3"] {
        progress().await;
        loop {
            let at = leader(&masters).await;
            match masters[at].replica.service().remove(name).await {
                Ok(()) | Err(RemoveError::Unknown) => break,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
    progress().await;
    stop.store(true, Ordering::Relaxed);
    life.join().expect("no panic");
    let all = acknowledged.load(Ordering::Acquire);
    let last = SlaveId(all.checked_sub(1).expect("some were acknowledged"));
    let left = [&first, &others[2], &others[3]];
    for master in left {
        eventually("each that is left has all", || {
            master.replica.status().members().1.len() == 3
                && master.registry().slave(last).is_some()
        })
        .await;
    }
    for other in others {
        other.stop().await;
    }
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_its_disk_takes_its_own_place_when_an_operator_says_so() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    first.leads().await;
    let join = [first.address.clone()];
    let second = Master::start(&ca, dir.path(), 2, &join).await;
    let third = Master::start(&ca, dir.path(), 3, &join).await;
    third.stop().await;

    let newcomer = Member {
        name: "m3".to_owned(),
        address: "127.0.0.1:1".to_owned(),
    };
    let service = first.replica.service();
    let refused = service.join(MasterId(33), newcomer, None).await;
    match refused {
        Answer::Refused(why) => assert!(why.contains("name_taken"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(service.replace("m9"), Err(RemoveError::Unknown));
    assert_eq!(service.replace("m1"), Err(RemoveError::Leads));
    service.replace("m3").expect("it is a member");
    // Another number, so another data directory.
    let third = Master::start_named(&ca, dir.path(), 33, "m3", &join).await;
    eventually("it has the place of the old one", || {
        let (members, voters) = first.replica.status().members();
        let mut names: Vec<&str> = members.values().map(|member| &*member.name).collect();
        names.sort_unstable();
        names == ["m1", "m2", "m3"] && voters.contains(&MasterId(33)) && voters.len() == 3
    })
    .await;
    assert!(
        !first
            .replica
            .status()
            .members()
            .0
            .contains_key(&MasterId(3))
    );
    third.stop().await;
    second.stop().await;
    first.stop().await;
}
