//! A Raft of one, as the core's thread meets it.

use std::time::Instant;

use crossbeam::channel::{self, Receiver};
use meros_master_core::event::ProposalId;
use meros_proto::ids::Epoch;
use meros_proto::transport::{ClusterCa, PeerRole};

use super::super::types::StateCheck;
use super::*;

/// Far longer than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Alone {
    replica: Replica,
    proposals: mpsc::Sender<Proposal>,
    reports: Receiver<Report>,
    metrics: Arc<Metrics>,
    exit: Exit,
}

impl Alone {
    async fn start(dir: &Path) -> Self {
        let opened = open(dir, &[OURS], ME, form()).expect("opens");
        let ca = ClusterCa::create("test").unwrap();
        let identity = ca.issue(PeerRole::Master, "m1", &[]).unwrap();
        let (reporter, reports) = channel::bounded(1 << 14);
        let (metrics, exit) = (Arc::<Metrics>::default(), Exit::new());
        let parts = ReplicaParts {
            member: member(),
            client: Client::new(&identity).unwrap(),
            knows: Knows::this(Pace::default()),
            metrics: Arc::clone(&metrics),
            exit: exit.clone(),
            report: Box::new(move |report| drop(reporter.send(report))),
            on_end: Box::new(|| {}),
            on_members: Box::new(|_| {}),
        };
        let (replica, proposals) = Replica::start(opened, parts).await.expect("starts");
        Self {
            replica,
            proposals,
            reports,
            metrics,
            exit,
        }
    }

    fn next(&self) -> Report {
        self.reports.recv_timeout(PATIENCE).expect("a report")
    }

    /// Waits until it leads.
    async fn leads(&self) -> (u64, Epoch, Registry) {
        assert!(self.replica.leads().await);
        match self.next() {
            Report::Lead {
                reign,
                epoch,
                registry,
            } => (reign, epoch, *registry),
            other => panic!("{other:?}"),
        }
    }

    async fn propose(&self, reign: u64, id: u64, command: Command) {
        let proposal = Proposal {
            reign,
            id: ProposalId(id),
            command,
            at: Instant::now(),
        };
        self.proposals.send(proposal).await.expect("it runs");
    }

    fn committed(&self, reign: u64) -> (u64, Command) {
        match self.next() {
            Report::Committed {
                reign: of,
                proposal: Some(proposal),
                command,
            } if of == reign => (proposal, *command),
            other => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        drop(self.proposals);
        self.replica.shutdown().await;
    }
}

fn applied(commands: &[Command]) -> Registry {
    let mut registry = Registry::default();
    let form = Command::FormCluster {
        cluster_id: CLUSTER,
    };
    for command in std::iter::once(&form).chain(commands) {
        let _ = registry.apply(command);
    }
    registry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reign_begins_with_all_that_was_committed_and_with_a_higher_epoch() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (reign, mut epoch, registry) = alone.leads().await;
    assert_eq!(registry, applied(&[]));
    for (id, command) in (1..).zip(some_life()) {
        alone.propose(reign, id, command.clone()).await;
        assert_eq!(alone.committed(reign), (id, command));
    }
    alone.stop().await;

    for _ in 0..3 {
        let alone = Alone::start(dir.path()).await;
        let (_, next, registry) = alone.leads().await;
        assert_eq!(registry, applied(&some_life()));
        assert!(next > epoch, "{next} after {epoch}");
        epoch = next;
        alone.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_wait_together_share_entries_and_are_reported_in_order() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (reign, ..) = alone.leads().await;
    let count = 3_000;
    for number in 0..count {
        alone.propose(reign, u64::from(number), admit(number)).await;
    }
    for number in 0..count {
        assert_eq!(alone.committed(reign).0, u64::from(number));
    }
    // Counted after they are reported.
    let deadline = Instant::now() + PATIENCE;
    while alone.metrics.commits().1 < u64::from(count) && Instant::now() < deadline {
        sleep(Duration::from_millis(1)).await;
    }
    let (entries, commands) = alone.metrics.commits();
    assert_eq!(commands, u64::from(count));
    // How many share one depends on the machine: on a fast disk and a busy processor few do.
    assert!(entries < u64::from(count) / 2, "{entries} entries");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_of_an_ended_reign_are_void() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (first, epoch, _) = alone.leads().await;
    alone.replica.leadership().end_reign(first);
    alone.propose(first, 1, admit(0)).await;
    let (second, later, registry) = match alone.next() {
        Report::Lead {
            reign,
            epoch,
            registry,
        } => (reign, epoch, registry),
        other => panic!("{other:?}"),
    };
    assert!(later > epoch);
    assert_eq!(registry.slaves().count(), 0);
    alone.propose(first, 2, admit(0)).await;
    alone.propose(second, 3, admit(0)).await;
    assert_eq!(alone.committed(second), (3, admit(0)));
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_in_a_reign_reaches_its_core_whoever_has_proposed_it() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (first, ..) = alone.leads().await;
    alone.replica.leadership().end_reign(first);
    let (second, ..) = alone.leads().await;
    // As if it had been on its way when the first reign ended.
    let batch = Batch {
        reign: Reign {
            master: ME,
            number: first,
        },
        body: Body::Commands(vec![(5, admit(0))]),
        check: None,
    };
    let written = alone.replica.raft.client_write(batch).await;
    written.expect("it leads");
    match alone.next() {
        Report::Committed {
            reign,
            proposal: None,
            command,
        } => assert_eq!((reign, *command), (second, admit(0))),
        other => panic!("{other:?}"),
    }
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_replaces_the_log_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (reign, ..) = alone.leads().await;
    for (id, command) in (1..).zip(some_life()) {
        alone.propose(reign, id, command).await;
        alone.committed(reign);
    }
    let raft = &alone.replica.raft;
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
    alone.propose(reign, 99, rename(0, 7)).await;
    alone.committed(reign);
    alone.stop().await;

    let alone = Alone::start(dir.path()).await;
    let (_, _, registry) = alone.leads().await;
    let mut life = some_life();
    life.push(rename(0, 7));
    assert_eq!(registry, applied(&life), "snapshot and log together");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_differs_from_the_leaders_ends_the_process() {
    let dir = TempDir::new().unwrap();
    let alone = Alone::start(dir.path()).await;
    let (reign, ..) = alone.leads().await;
    let index = machine::HASH_EVERY;
    for id in 0..index {
        alone.propose(reign, id, rename(0, 1)).await;
        alone.committed(reign);
    }
    let ours = alone.replica.state.lock().check().expect("a hash is due");
    assert_eq!(ours.index, index);
    let propose = |check| {
        alone.replica.raft.client_write(Batch {
            reign: Reign {
                master: MasterId(8),
                number: 1,
            },
            body: Body::Commands(Vec::new()),
            check: Some(check),
        })
    };
    propose(ours).await.expect("the same hash");
    let elsewhere = StateCheck { release: 1, ..ours };
    propose(StateCheck {
        hash: 1,
        ..elsewhere
    })
    .await
    .expect("another release is not compared");
    let broken = StateCheck {
        hash: ours.hash ^ 1,
        ..ours
    };
    let _ = timeout(PATIENCE, propose(broken)).await.expect("it ends");
    let reason = timeout(PATIENCE, alone.exit.asked())
        .await
        .expect("it ends");
    assert!(
        matches!(reason, ExitReason::RegistryDiverged { .. }),
        "{reason}"
    );
    alone.stop().await;
}
