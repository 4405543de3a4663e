//! What must not harm anybody but the one who did it.

use std::time::{Duration, Instant};

use meros_master::StartError;
use meros_master::config::RawConfig;
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{
    CALL_ITEMS_MAX, FrameworkToMaster, ReconcileTask, SlaveToMaster,
};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::status::TaskState;
use meros_proto::transport::{CloseCode, ClusterCa, ConnectError, Disconnect, PeerRole, Protocol};
use tokio::test;
use tokio::time::sleep;

use crate::site::{
    FrameworkPeer, PATIENCE, Peer, Site, eventually, eventually_metric, framework_description,
    slave_description,
};

/// A framework that asks about a task nobody knows is answered: the master is alive for it.
async fn is_served(framework: &mut FrameworkPeer) {
    let task_id = TaskId::new("nobody-knows").unwrap();
    let tasks = vec![ReconcileTask {
        task_id: task_id.clone(),
        slave_id: None,
    }];
    framework.send(FrameworkToMaster::Reconcile { tasks }).await;
    framework
        .find("an answer", |message| match message {
            MasterToFramework::Update(status) if status.task_id == task_id => {
                assert_eq!(status.state, TaskState::Unknown, "semantics: H6");
                Some(())
            }
            _ => None,
        })
        .await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_after_the_handshake_ends_that_connection_only() {
    let site = Site::new();
    let master = site.master().await;
    let (mut honest, _) = site.subscribed("honest", master.quic_addr).await;
    for (protocol, role) in [
        (Protocol::Slave, PeerRole::Slave),
        (Protocol::Framework, PeerRole::Framework),
    ] {
        let connection = site
            .connect(role, "liar", protocol, master.quic_addr)
            .await
            .unwrap();
        // A well-formed frame whose message has no such variant.
        let mut liar: Peer<(u32, Vec<u64>), MasterToSlave> = Peer::new(connection);
        liar.send((4_000_000, vec![u64::MAX; 100])).await;
        let (_, why) = liar.end().await;
        let Disconnect::ByPeer {
            code: CloseCode::BadFrame,
            reason,
        } = why
        else {
            panic!("{why:?}");
        };
        assert!(reason.starts_with("payload_malformed"), "{reason}");
    }
    eventually_metric(
        &master,
        "meros_master_connections_closed_total{code=\"bad_frame\"} 2",
    )
    .await;
    is_served(&mut honest).await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_other_roles_and_clusters_are_turned_away() {
    let site = Site::new();
    let master = site.master().await;
    let wrong = [
        (PeerRole::Slave, Protocol::Framework),
        (PeerRole::Framework, Protocol::Slave),
        (PeerRole::Operator, Protocol::Raft),
    ];
    for (role, protocol) in wrong {
        match site.connect(role, "p", protocol, master.quic_addr).await {
            Err(ConnectError::Ended {
                source:
                    Disconnect::ByPeer {
                        code: CloseCode::NotAllowed,
                        reason,
                    },
                ..
            }) => assert!(reason.contains(role.as_str()), "{reason}"),
            // The refusal may overtake the end of the handshake on the client's side.
            Ok(connection) => {
                let mut peer: Peer<u8, MasterToSlave> = Peer::new(connection);
                let why = peer.end().await.1;
                assert!(
                    matches!(
                        why,
                        Disconnect::ByPeer {
                            code: CloseCode::NotAllowed,
                            ..
                        }
                    ),
                    "{why:?}"
                );
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    eventually_metric(
        &master,
        "meros_master_connection_attempts_total{result=\"not_allowed\"} 3",
    )
    .await;

    let foreign = ClusterCa::create("foreign").unwrap();
    let identity = foreign.issue(PeerRole::Slave, "s1", &[]).unwrap();
    let client = meros_proto::transport::Client::new(&identity).unwrap();
    let error = client
        .connect(Protocol::Slave, master.quic_addr)
        .await
        .map(drop);
    assert!(error.is_err(), "another cluster's certificate was taken");
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_do_not_exist_are_refused_with_a_code() {
    let site = Site::new();
    let master = site.master().await;

    let mut framework = site.framework("f1", master.quic_addr).await;
    let description = framework_description("f1", Some(FrameworkId(99)));
    framework
        .send(FrameworkToMaster::Subscribe {
            framework: description,
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        })
        .await;
    let (last, why) = framework.end().await;
    let Some(MasterToFramework::Error { refusal, by }) = last else {
        panic!("{last:?}");
    };
    let framework_id = FrameworkId(99);
    assert_eq!(refusal, Refusal::FrameworkUnknown { framework_id });
    assert_eq!(by.map(|by| by.cluster_id), Some(master.cluster_id));
    assert!(
        matches!(
            why,
            Disconnect::ByPeer {
                code: CloseCode::Refused,
                ..
            }
        ),
        "{why:?}"
    );

    let reregister = |slave_id, cluster_id| SlaveToMaster::Reregister {
        slave_id,
        cluster_id,
        slave: slave_description("s1"),
    };
    let cases = [
        (reregister(SlaveId(5), master.cluster_id), "slave_unknown"),
        (reregister(SlaveId(0), ClusterId(1)), "wrong_cluster"),
    ];
    for (message, code) in cases {
        let mut slave = site.slave("s1", master.quic_addr).await;
        slave.send(message).await;
        match slave.end().await.0 {
            Some(MasterToSlave::Refused { refusal, .. }) => assert_eq!(refusal.code(), code),
            other => panic!("{other:?}"),
        }
    }
    eventually_metric(
        &master,
        "meros_master_refusals_total{code=\"slave_unknown\"} 1",
    )
    .await;
    eventually_metric(
        &master,
        "meros_master_connections_cut_total{code=\"wrong_cluster\"} 1",
    )
    .await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_framework_that_does_not_read_is_cut_off_and_others_are_served() {
    let site = Site::new();
    let master = site.master().await;
    let (mut deaf, _) = site.subscribed("deaf", master.quic_addr).await;
    let (mut other, _) = site.subscribed("other", master.quic_addr).await;

    // Each question has ten thousand answers; none of them is read.
    let sender = deaf.sender.clone();
    let asking = tokio::spawn(async move {
        let tasks: Vec<ReconcileTask> = (0..CALL_ITEMS_MAX)
            .map(|number| ReconcileTask {
                task_id: TaskId::new(format!("unknown-{number}")).unwrap(),
                slave_id: None,
            })
            .collect();
        let deadline = Instant::now() + 2 * PATIENCE;
        while sender
            .send(FrameworkToMaster::Reconcile {
                tasks: tasks.clone(),
            })
            .await
            .is_ok()
        {
            assert!(Instant::now() < deadline, "it is never cut off");
        }
    });
    while !asking.is_finished() {
        is_served(&mut other).await;
    }
    asking.await.expect("cut off in time");
    let (_, why) = deaf.end().await;
    assert!(
        matches!(
            why,
            Disconnect::ByPeer {
                code: CloseCode::SlowReader,
                ..
            }
        ),
        "{why:?}"
    );
    eventually_metric(
        &master,
        "meros_master_connections_cut_total{code=\"too_slow\"} 1",
    )
    .await;
    eventually_metric(&master, "meros_master_connections{peer=\"framework\"} 1").await;
    is_served(&mut other).await;
    eventually(&master, "/api/v1/frameworks", |text| {
        text.contains("\"disconnected\"")
    })
    .await;
    eventually_metric(&master, "meros_master_inbox_messages 0").await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let site = Site::new();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp.local_addr().unwrap();
    let start = |raw: RawConfig| site.try_master(raw);
    let error = start(RawConfig {
        listen: Some(taken),
        ..site.config()
    })
    .await
    .expect_err("taken");
    assert!(
        error
            .to_string()
            .contains(&format!("UDP port {} is in use", taken.port())),
        "{error}"
    );

    // One whose UDP port is nobody's.
    let (tcp, taken) = loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = tcp.local_addr().unwrap();
        if std::net::UdpSocket::bind(taken).is_ok() {
            break (tcp, taken);
        }
    };
    let error = start(RawConfig {
        listen: Some(taken),
        ..site.config()
    })
    .await
    .expect_err("taken");
    assert!(
        error
            .to_string()
            .contains(&format!("TCP port {} is in use", taken.port())),
        "{error}"
    );
    drop((udp, tcp));
    // Nothing of the failed starts is left: not the lock of the data directory, not a port, but for the
    // moment until the socket of the last one is closed.
    let deadline = Instant::now() + PATIENCE;
    let master = loop {
        let config = RawConfig {
            listen: Some(taken),
            ..site.config()
        };
        match start(config).await {
            Ok(master) => break master,
            Err(error) => {
                let is_held = error.to_string().contains("UDP port");
                assert!(is_held && Instant::now() < deadline, "{error}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    };
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_right_is_explained() {
    let site = Site::new();
    let slave = site.issue(PeerRole::Slave, "s1");
    let error = site
        .try_master(RawConfig {
            identity: Some(slave),
            ..site.config()
        })
        .await
        .expect_err("a slave's certificate");
    assert!(
        matches!(
            error,
            StartError::NotAMaster {
                role: PeerRole::Slave,
                ..
            }
        ),
        "{error}"
    );

    let error = site
        .try_master(RawConfig {
            identity: Some("/nowhere".into()),
            ..site.config()
        })
        .await
        .expect_err("no certificate");
    assert!(error.to_string().contains("meros ca issue"), "{error}");

    let master = site.master().await;
    let error = site
        .try_master(site.config())
        .await
        .expect_err("the directory is in use");
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    master.shutdown().await;

    let other = Site::new();
    let error = other
        .try_master(RawConfig {
            data_dir: Some(site.data_dir()),
            ..other.config()
        })
        .await
        .expect_err("another cluster's data");
    assert!(
        error.to_string().contains("belongs to a cluster whose"),
        "{error}"
    );
}
