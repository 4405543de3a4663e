//! Several masters: joining, following, and leading in the place of one that is gone.

use std::time::Instant;

use meros_master::{Running, StartError};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::transport::{CloseCode, Disconnect};
use tokio::test;

use crate::site::{
    PATIENCE, Site, eventually, framework_description, get, post, slave_description,
};

/// Three masters of one cluster; the first leads.
async fn three(site: &Site) -> [Running; 3] {
    let first = site.master().await;
    let second = site.config_of("m2", &[&first]);
    let second = site.try_master(second).await.expect("it joins");
    let third = site.config_of("m3", &[&second]);
    let third = site
        .try_master(third)
        .await
        .expect("it joins through a follower");
    [first, second, third]
}

/// Waits until one of them leads.
async fn leader<'a>(masters: &[&'a Running]) -> &'a Running {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for master in masters {
            let health = get(master, "/health").await;
            if health["status"] == "leading" {
                return master;
            }
        }
        assert!(Instant::now() < deadline, "nobody leads");
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_known_everywhere_and_one_that_comes_back_elsewhere_is_found() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    assert_eq!(first.cluster_id, third.cluster_id);
    for master in [&first, &second, &third] {
        eventually(master, "/api/v1/masters", |text| {
            let voters = text.matches("\"voter\"").count();
            voters == 2 && text.matches("\"leader\"").count() == 1
        })
        .await;
    }
    let before = third.quic_addr.to_string();
    third.shutdown().await;
    let again = site.try_master(site.config_of("m3", &[])).await;
    let again = again.expect("it is a member already");
    let address = again.quic_addr.to_string();
    assert_ne!(address, before, "port 0 takes another one");
    for master in [&first, &second, &again] {
        eventually(master, "/api/v1/masters", |text| {
            text.contains(&address) && !text.contains(&before)
        })
        .await;
    }
    for master in [first, second, again] {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_knows_who_was_admitted_and_has_a_higher_epoch() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let (_slave, slave_id) = site.registered("s1", first.quic_addr).await;
    let (mut framework, framework_id) = site.subscribed("f1", first.quic_addr).await;
    let epoch = framework.offer().await.offer_id.epoch;
    let cluster_id = first.cluster_id;
    first.shutdown().await;

    let next = leader(&[&second, &third]).await;
    let slaves = get(next, "/api/v1/slaves").await;
    assert_eq!(
        (&slaves[0]["slave_id"], &slaves[0]["state"]),
        (&"S0".into(), &"recovered".into())
    );
    let mut slave = site.slave("s1", next.quic_addr).await;
    slave
        .send(SlaveToMaster::Reregister {
            slave_id,
            cluster_id,
            slave: slave_description("s1"),
        })
        .await;
    let later = slave
        .find("Registered", |message| match message {
            MasterToSlave::Registered { epoch, .. } => Some(epoch),
            _ => None,
        })
        .await;
    assert!(later > epoch);
    let mut framework = site.framework("f1", next.quic_addr).await;
    let same = framework
        .subscribe(framework_description("f1", Some(framework_id)))
        .await;
    assert_eq!(same, framework_id);
    assert_eq!(framework.offer().await.offer_id.epoch, later);
    second.shutdown().await;
    third.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_tells_its_peers_who_leads() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let leader = Some(first.quic_addr.to_string());
    let mut slave = site.slave("s1", second.quic_addr).await;
    let (last, why) = slave.end().await;
    let refusal = Refusal::NotLeading {
        leader: leader.clone(),
    };
    let by = None;
    let expected = MasterToSlave::Refused {
        refusal: refusal.clone(),
        by,
    };
    assert_eq!(last, Some(expected));
    assert!(
        matches!(
            why,
            Disconnect::ByPeer {
                code: CloseCode::Refused,
                ..
            }
        ),
        "{why}"
    );
    let mut framework = site.framework("f1", third.quic_addr).await;
    let (last, _) = framework.end().await;
    assert_eq!(last, Some(MasterToFramework::Error { refusal, by }));
    for master in [third, second, first] {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_is_not_taken_for_itself() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    third.shutdown().await;
    let mut empty = site.config_of("m3", &[&second]);
    empty.data_dir = Some(site.data_dir().join("../m3-again"));
    match site.try_master(empty).await {
        Err(StartError::Join(error)) => {
            assert!(
                error.to_string().contains("meros masters remove m3"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    // Asked of a follower, which sends it on.
    let remove = "/api/v1/masters/m3/remove";
    let (status, text) = post(&second, remove).await;
    assert_eq!(status, 307, "{text}");
    let (status, text) = post(&first, remove).await;
    assert_eq!(status, 202, "{text}");
    let (status, text) = post(&first, remove).await;
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("master_unknown"), "{text}");
    let mut empty = site.config_of("m3", &[&second]);
    empty.data_dir = Some(site.data_dir().join("../m3-again"));
    let third = site.try_master(empty).await.expect("a new member");
    eventually(&first, "/api/v1/masters", |text| {
        text.matches("\"m3\"").count() == 1 && text.matches("\"voter\"").count() == 2
    })
    .await;
    // The leader lets another one lead before it can be removed by that one.
    let remove = "/api/v1/masters/master/remove";
    let (status, text) = post(&first, remove).await;
    assert_eq!(status, 307, "{text}");
    let next = leader(&[&second, &third]).await;
    let (status, text) = post(next, remove).await;
    assert_eq!(status, 202, "{text}");
    eventually(next, "/api/v1/masters", |text| {
        !text.contains("\"master\"") && text.matches("\"address\"").count() == 2
    })
    .await;
    for master in [third, second, first] {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_leads_at_once_when_it_is_told_to_and_when_the_leader_stops() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let (_slave, slave_id) = site.registered("s1", first.quic_addr).await;
    let (status, text) = post(&first, "/api/v1/masters/m9/lead").await;
    assert_eq!(status, 404, "{text}");
    let (status, text) = post(&first, "/api/v1/masters/master/lead").await;
    assert_eq!(status, 202, "it leads already: {text}");

    let (status, text) = post(&first, "/api/v1/masters/m3/lead").await;
    assert_eq!(status, 202, "{text}");
    let next = leader(&[&first, &second, &third]).await;
    assert_eq!(next.quic_addr, third.quic_addr);
    let (status, text) = post(&first, "/api/v1/masters/m2/lead").await;
    assert_eq!(status, 307, "{text}");

    third.shutdown().await;
    // No election without that of the hand-over: its lease alone would take longer.
    let asked = Instant::now();
    let next = leader(&[&first, &second]).await;
    let slaves = get(next, "/api/v1/slaves").await;
    assert_eq!(slaves[0]["slave_id"], slave_id.to_string());
    eprintln!("led again {:?} after the stop", asked.elapsed());
    first.shutdown().await;
    second.shutdown().await;
}
