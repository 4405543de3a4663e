//! The straight way: register, subscribe, offer, launch, update, acknowledge, stop.

use std::time::{Duration, Instant};

use meros_master::endpoint::{ENDPOINT_FILE, Endpoint};
use meros_master::exit::ExitReason;
use meros_proto::ids::UpdateId;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::{Filters, Operation};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_proto::transport::{CloseCode, Disconnect};
use tokio::test;

use crate::site::{PATIENCE, Site, eventually, eventually_metric, get, task};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_from_offer_to_acknowledged_end() {
    let site = Site::new();
    let master = site.master().await;
    let (mut slave, slave_id) = site.registered("s1", master.quic_addr).await;
    let (mut framework, framework_id) = site.subscribed("f1", master.quic_addr).await;

    let offer = framework.offer().await;
    assert_eq!(
        (offer.slave_id, offer.framework_id),
        (slave_id, framework_id)
    );
    assert_eq!(
        offer.resources,
        "cpus:4;mem:1024;ports:[31000-31009]".parse().unwrap()
    );
    let launched = task("t1", &offer);
    framework
        .send(FrameworkToMaster::Accept {
            offer_ids: vec![offer.offer_id],
            operations: vec![Operation::Launch(vec![launched.clone()])],
            filters: Filters::default(),
        })
        .await;
    let run = slave
        .find("RunTask", |message| match message {
            MasterToSlave::RunTask(run) => Some(run),
            _ => None,
        })
        .await;
    assert_eq!(
        (run.framework.framework_id, &run.task),
        (framework_id, &launched)
    );

    for (number, state) in [(1, TaskState::Running), (2, TaskState::Finished)] {
        let update_id = UpdateId::by_slave(slave_id, 1, number);
        let mut status = TaskStatus::new(
            launched.task_id.clone(),
            state,
            Source::Executor,
            Timestamp(1),
        );
        status.slave_id = Some(slave_id);
        status.update_id = Some(update_id);
        slave
            .send(SlaveToMaster::Update(StatusUpdate {
                framework_id,
                status,
                latest_state: state,
            }))
            .await;
        let heard = framework
            .find("the update", |message| match message {
                MasterToFramework::Update(status) => Some(status),
                _ => None,
            })
            .await;
        assert_eq!((heard.state, heard.update_id), (state, Some(update_id)));
        framework
            .send(FrameworkToMaster::Acknowledge {
                slave_id: Some(slave_id),
                task_id: launched.task_id.clone(),
                update_id,
            })
            .await;
        let acknowledged = slave
            .find("the acknowledgement", |message| match message {
                MasterToSlave::Acknowledge { update_id, .. } => Some(update_id),
                _ => None,
            })
            .await;
        assert_eq!(acknowledged, update_id);
    }
    eventually(&master, "/api/v1/tasks?state=ended", |text| {
        text.contains("\"t1\"")
    })
    .await;
    let slaves = get(&master, "/api/v1/slaves").await;
    assert_eq!(
        (&slaves[0]["slave_id"], &slaves[0]["tasks"]),
        (&"S0".into(), &0.into())
    );
    for line in [
        "meros_master_tasks_launched_total 1",
        "meros_master_connections{peer=\"slave\"} 1",
        "meros_master_connections{peer=\"framework\"} 1",
        "meros_master_tasks{state=\"TASK_FINISHED\"} 0",
        "meros_master_leading 1",
        "meros_master_connection_attempts_total{result=\"accepted\"} 2",
    ] {
        eventually_metric(&master, line).await;
    }
    assert_eq!(master.shutdown().await, ExitReason::Stopped);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_s_kill_reaches_the_slave_over_http() {
    let site = Site::new();
    let master = site.master().await;
    let (mut slave, _) = site.registered("s1", master.quic_addr).await;
    let (mut framework, framework_id) = site.subscribed("f1", master.quic_addr).await;
    let offer = framework.offer().await;
    framework
        .send(FrameworkToMaster::Accept {
            offer_ids: vec![offer.offer_id],
            operations: vec![Operation::Launch(vec![task("t1", &offer)])],
            filters: Filters::default(),
        })
        .await;
    slave
        .find("RunTask", |message| {
            matches!(message, MasterToSlave::RunTask(_)).then_some(())
        })
        .await;

    let url = format!(
        "http://{}/api/v1/tasks/{framework_id}/t1/kill?grace=7s",
        master.http_addr
    );
    let status =
        tokio::task::spawn_blocking(move || ureq::post(&url).send_empty().unwrap().status());
    assert_eq!(status.await.unwrap().as_u16(), 202);
    let grace = slave
        .find("KillTask", |message| match message {
            MasterToSlave::KillTask { grace, .. } => Some(grace),
            _ => None,
        })
        .await;
    assert_eq!(grace, Some(Duration::from_secs(7)));
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_tells_the_peers_and_leaves_nothing() {
    let site = Site::new();
    let master = site.master().await;
    let path = site.data_dir().join(ENDPOINT_FILE);
    let endpoint: Endpoint = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (endpoint.quic, endpoint.http),
        (master.quic_addr, master.http_addr)
    );
    assert_eq!(endpoint.pid, std::process::id());
    assert_eq!(
        master.quic_addr.port(),
        master.http_addr.port(),
        "one port number"
    );

    let (mut slave, _) = site.registered("s1", master.quic_addr).await;
    let (mut framework, _) = site.subscribed("f1", master.quic_addr).await;
    assert_eq!(master.shutdown().await, ExitReason::Stopped);
    for why in [slave.end().await.1, framework.end().await.1] {
        assert!(
            matches!(
                why,
                Disconnect::ByPeer {
                    code: CloseCode::ShuttingDown,
                    ..
                }
            ),
            "{why:?}"
        );
    }
    assert!(!path.exists());
    assert_eq!(
        master.wait().await,
        ExitReason::Stopped,
        "waiting again is harmless"
    );
    std::net::TcpListener::bind(master.http_addr).expect("the ports are free again");
    // QUIC's own driver lets go of its socket a moment later.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = std::net::UdpSocket::bind(master.quic_addr) {
        assert!(
            Instant::now() < deadline,
            "the UDP port stays taken: {error}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
