//! A new cluster from a backup, and from the last master that is left.

use std::path::Path;
use std::time::Duration;

use meros_master::Running;
use meros_master::restore::{RestoreFailed, Restored, Source, restore};
use meros_proto::ids::{Epoch, FrameworkId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::state::{Changed, Numbered, StateAnswer, StateCall, StateChange, Token};
use tokio::test;

use crate::site::{FrameworkPeer, Site, framework_description, get_text, slave_description};

/// On a thread of its own, as it blocks.
async fn restored(site: &Site, from: Source, to: &Path) -> Result<Restored, RestoreFailed> {
    let identity = site.identity_of("master");
    let to = to.to_owned();
    let restored =
        tokio::task::spawn_blocking(move || restore(&from, &to, &identity, "127.0.0.1:5050"));
    restored.await.expect("no panic")
}

async fn started_in(site: &Site, data_dir: &Path) -> Running {
    let mut config = site.config();
    config.data_dir = Some(data_dir.to_owned());
    site.try_master(config).await.expect("it starts")
}

/// A slave comes back to this master, and hears in which epoch.
async fn comes_back(site: &Site, master: &Running, slave_id: SlaveId) -> Epoch {
    let mut slave = site.slave("s1", master.quic_addr).await;
    slave
        .send(SlaveToMaster::Reregister {
            slave_id,
            cluster_id: master.cluster_id,
            slave: slave_description("s1"),
        })
        .await;
    let registered = |message| match message {
        MasterToSlave::Registered { epoch, .. } => Some(epoch),
        _ => None,
    };
    slave.find("Registered", registered).await
}

/// A change of framework state, which is carried out.
async fn change(client: &mut FrameworkPeer, by: Option<Numbered>, change: StateChange) -> Changed {
    let request = by.map_or(0, |by| by.number);
    let message = FrameworkToMaster::State {
        request,
        space: "main".parse().expect("a name"),
        call: StateCall::Change { by, change },
    };
    client.send(message).await;
    let answer = |message| match message {
        MasterToFramework::State {
            request: of,
            answer: Ok(StateAnswer::Changed(changed)),
        } if of == request => Some(changed),
        _ => None,
    };
    client.find("a change of state", answer).await
}

/// The fencing token of a lease that is asked for now.
async fn acquires(site: &Site, master: &Running) -> Token {
    let mut client = site.framework("f1", master.quic_addr).await;
    let open = StateChange::Open {
        holder: "test".to_owned(),
        ttl: Duration::from_secs(600),
    };
    let Changed::Opened { session, .. } = change(&mut client, None, open).await else {
        panic!("no session");
    };
    let acquire = StateChange::Acquire {
        lease: "leader".parse().expect("a name"),
        permits: 9,
        wait: true,
    };
    let by = Some(Numbered { session, number: 1 });
    match change(&mut client, by, acquire).await {
        Changed::Queued { token, .. } => token,
        other => panic!("{other:?}"),
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn slaves_and_frameworks_come_back_to_a_cluster_that_was_restored_from_a_backup() {
    let site = Site::new();
    let master = site.master().await;
    let cluster_id = master.cluster_id;
    let (_slave, slave_id) = site.registered("s1", master.quic_addr).await;
    let (mut framework, framework_id) = site.subscribed("f1", master.quic_addr).await;
    let epoch = framework.offer().await.offer_id.epoch;
    let backup = site.dir().join("backup.json");
    std::fs::write(&backup, get_text(&master, "/api/v1/backup").await).unwrap();
    let token = acquires(&site, &master).await;
    // Nobody knows of this one afterwards, so its id must not be given to another.
    let (_late, late_id) = site.registered("s2", master.quic_addr).await;
    master.shutdown().await;

    let new = site.dir().join("restored");
    let from = Source::Backup(backup.clone());
    let what = restored(&site, from.clone(), &new).await.expect("restores");
    assert_eq!(
        (what.cluster_id, what.slaves, what.frameworks),
        (cluster_id, 1, 1)
    );
    let again = restored(&site, from, &new).await;
    let again = again.expect_err("there is one already").to_string();
    assert!(again.contains("already"), "{again}");

    let master = started_in(&site, &new).await;
    assert_eq!(master.cluster_id, cluster_id);
    assert!(comes_back(&site, &master, slave_id).await > epoch);
    let mut framework = site.framework("f1", master.quic_addr).await;
    let same = framework.subscribe(framework_description("f1", Some(framework_id)));
    assert_eq!(same.await, framework_id);
    // R4
    let (_slave, next_id) = site.registered("s3", master.quic_addr).await;
    assert!(next_id > late_id, "{next_id}");
    let (_framework, next_id) = site.subscribed("f2", master.quic_addr).await;
    assert!(next_id > FrameworkId(framework_id.0 + 1), "{next_id}");
    let next = acquires(&site, &master).await;
    assert!(next.0 > token.0 + (1 << 32), "{next}");
    master.shutdown().await;

    // What it has become is kept as any registry is, and can be joined.
    let master = started_in(&site, &new).await;
    let second = site.config_of("m2", &[&master]);
    let second = site.try_master(second).await.expect("it joins");
    second.shutdown().await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_master_that_is_left_makes_a_cluster_again() {
    let site = Site::new();
    let first = site.master().await;
    let (_slave, slave_id) = site.registered("s1", first.quic_addr).await;
    let second = site.config_of("m2", &[&first]);
    let second = site.try_master(second).await.expect("it joins");
    second.shutdown().await;
    first.shutdown().await;

    let new = site.dir().join("restored");
    let from = Source::Survivor(site.dir().join("m2"));
    let what = restored(&site, from, &new).await.expect("restores");
    assert_eq!(what.slaves, 1);
    let master = started_in(&site, &new).await;
    comes_back(&site, &master, slave_id).await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_backup_is_refused() {
    let site = Site::new();
    let new = site.dir().join("restored");
    let file = site.dir().join("file");
    let none = "0";
    for (text, why) in [
        ("", "not a backup"),
        ("{\"format\": 1", "not a backup"),
        ("{\"format\": 2}", "format 2"),
        ("[]", "not a backup"),
        (none, "not a backup"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = restored(&site, Source::Backup(file.clone()), &new).await;
        let error = error.expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert!(!new.exists(), "{text}");
    }
    for from in [
        Source::Backup(site.dir().join("missing")),
        Source::Survivor(site.dir().join("missing")),
    ] {
        assert!(restored(&site, from, &new).await.is_err());
        assert!(!new.exists());
    }
}
