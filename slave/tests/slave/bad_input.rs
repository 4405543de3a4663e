//! What can go wrong, and what becomes of it.

use meros_proto::ids::{ClusterId, Epoch};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::{Leadership, Refusal};
use meros_proto::status::TaskState;
use meros_proto::task::Command;
use meros_slave::{ExitReason, StartError};
use tokio::time::timeout;

use crate::world::*;

pub(crate) fn garbage(world: &mut World) {
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        master
            .say(order("t", Command::argv(["sleep", "1000"])))
            .await;
        master.acknowledged().await;
    });
    world.runtime.block_on(async {
        let master = &mut world.master;
        // A slave that comes back finds a master that has lost its mind.
        master
            .say(MasterToSlave::Refused {
                refusal: Refusal::Recovering,
                by: None,
            })
            .await;
        let liar = master.accept_raw::<(u8, u64, String)>().await;
        liar.send((255, u64::MAX, "no message of ours".to_owned()))
            .await
            .expect("it is there");
        timeout(PATIENCE, liar.closed())
            .await
            .expect("the slave closes it");
        // It has lost neither its task nor its patience.
        master.accept().await;
        let SlaveToMaster::ReportTasks { tasks } = master.hear().await else {
            panic!("it says what it has");
        };
        assert_eq!(tasks[0].state, TaskState::Running);
        assert!(matches!(
            master.hear().await,
            SlaveToMaster::Reregister { .. }
        ));
        master.welcome().await;
        master.say(MasterToSlave::Ping { registered: true }).await;
        assert_eq!(master.hear().await, SlaveToMaster::Pong);
    });
    let metrics = get(&slave, "/metrics").text();
    assert!(
        metrics.contains("meros_slave_bad_frames_total 1"),
        "{metrics}"
    );
    world.stop(&slave);
}

pub(crate) fn refused(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        let why = Refusal::WrongCluster {
            ours: ClusterId(1),
            theirs: CLUSTER,
        };
        let refusal = why.clone();
        // In the name of the term that it has heard of: an older one would not be believed.
        let by = Some(Leadership {
            cluster_id: CLUSTER,
            epoch: Epoch(1),
        });
        let refused = MasterToSlave::Refused { refusal, by };
        world.master.say(refused).await;
        let reason = timeout(PATIENCE, slave.wait()).await.expect("it ends");
        assert_eq!(reason, ExitReason::Refused { why });
        assert_eq!(reason.code(), 23);
    });
}

pub(crate) fn in_use(world: &mut World) {
    let slave = world.start();
    let error = world
        .try_start(world.config())
        .expect_err("the directory is taken");
    assert!(matches!(error, StartError::Lock(_)), "{error}");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    let mut config = world.config();
    config.data_dir = world.dir.path().join("other");
    config.http_listen = slave.http_addr();
    let error = world.try_start(config).expect_err("the port is taken");
    assert!(
        error.to_string().contains(&slave.http_addr().to_string()),
        "{error}"
    );
    let mut config = world.config();
    config.identity = world.dir.path().join("nowhere");
    let error = world.try_start(config).expect_err("there is no identity");
    assert!(error.to_string().contains("meros ca issue"), "{error}");
    world.stop(&slave);
}

pub(crate) fn http(world: &mut World) {
    let slave = world.start();
    // Not registered: alive, but of no use.
    assert_eq!(get(&slave, "/health").status, 503);
    let cases = [
        ("/nowhere", 404, "not_found"),
        ("/api/v1/tasks?limit=10001", 400, "invalid"),
        ("/api/v1/tasks?limit=-1", 400, "invalid"),
        ("/api/v1/tasks?limit=0", 400, "invalid"),
        ("/api/v1/tasks?typo=1", 400, "invalid"),
        ("/api/v1/logs/F1/t/stdout", 404, "output_unknown"),
        ("/api/v1/logs/F1/t/stdin", 400, "invalid"),
        ("/api/v1/logs/1/t/stdout", 400, "invalid"),
        (
            "/api/v1/logs/F1/..%2F..%2Fcheckpoint/stdout",
            400,
            "invalid",
        ),
        ("/api/v1/logs/F1/%2E%2E/stdout", 400, "invalid"),
        ("/api/v1/logs/F1/t/stdout?offset=-1", 400, "invalid"),
        ("/api/v1/logs/F1/t/stdout?offset=1&tail=1", 400, "invalid"),
    ];
    for (path, status, code) in cases {
        let answer = get(&slave, path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(
            answer.text().contains(&format!("\"code\":\"{code}\"")),
            "{path}: {}",
            answer.text()
        );
    }
    assert_eq!(get(&slave, "/api/v1/tasks").text(), "[]");
    world.stop(&slave);
}
