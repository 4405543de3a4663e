//! A restarted master finds its slaves and frameworks again, and takes up their tasks.

use meros_proto::ids::TaskId;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster, TaskReport};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use tokio::test;

use crate::site::{Site, eventually, framework_description, get, slave_description, task};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn slaves_frameworks_and_tasks_are_found_again_after_a_restart() {
    let site = Site::new();
    let first = site.master().await;
    let cluster_id = first.cluster_id;
    let (_slave, slave_id) = site.registered("s1", first.quic_addr).await;
    let (mut framework, framework_id) = site.subscribed("f1", first.quic_addr).await;
    let offer = framework.offer().await;
    let epoch = offer.offer_id.epoch;
    first.shutdown().await;

    let second = site.master().await;
    assert_eq!(second.cluster_id, cluster_id);
    eventually(&second, "/health", |text| text.contains("leading")).await;
    let slaves = get(&second, "/api/v1/slaves").await;
    assert_eq!(
        (&slaves[0]["slave_id"], &slaves[0]["state"]),
        (&"S0".into(), &"recovered".into())
    );
    let frameworks = get(&second, "/api/v1/frameworks").await;
    assert_eq!(frameworks[0]["state"], "recovered", "semantics: Q1");

    let mut slave = site.slave("s1", second.quic_addr).await;
    let mut status = TaskStatus::new(
        TaskId::new("t1").unwrap(),
        TaskState::Running,
        Source::Executor,
        Timestamp(1),
    );
    status.slave_id = Some(slave_id);
    let report = TaskReport {
        framework_id,
        role: "*".parse().unwrap(),
        task: task("t1", &offer),
        state: TaskState::Running,
        status: Some(status),
    };
    slave
        .send(SlaveToMaster::ReportTasks {
            tasks: vec![report],
        })
        .await;
    let slave_description = slave_description("s1");
    slave
        .send(SlaveToMaster::Reregister {
            slave_id,
            cluster_id,
            slave: slave_description,
        })
        .await;
    let (same_id, new_epoch) = slave
        .find("Registered", |message| match message {
            MasterToSlave::Registered {
                slave_id, epoch, ..
            } => Some((slave_id, epoch)),
            _ => None,
        })
        .await;
    assert_eq!(same_id, slave_id);
    assert!(new_epoch > epoch, "a restart is a new term");

    let mut framework = site.framework("f1", second.quic_addr).await;
    let same = framework
        .subscribe(framework_description("f1", Some(framework_id)))
        .await;
    assert_eq!(same, framework_id);
    let offer = framework.offer().await;
    assert_eq!(
        offer.resources,
        "cpus:3;mem:960;ports:[31000-31009]".parse().unwrap()
    );
    framework
        .send(FrameworkToMaster::Reconcile { tasks: Vec::new() })
        .await;
    let status = framework
        .find("the task", |message| match message {
            MasterToFramework::Update(status) => Some(status),
            _ => None,
        })
        .await;
    assert_eq!(
        (status.task_id.as_str(), status.state),
        ("t1", TaskState::Running)
    );
    second.shutdown().await;
}
