//! Several masters: joining, following, and leading in the place of one that is gone.
//!
//! A leader is deposed when it gets no processor for longer than its lease, which is less than a second:
//! on a busy machine that happens. So whoever needs the leader asks again when it is another one by then.

use std::cell::Cell;
use std::time::{Duration, Instant};

use meros_master::{Running, StartError};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, FrameworkId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::{Filters, Operation};
use meros_proto::refusal::Refusal;
use meros_proto::transport::{CloseCode, Disconnect};
use tokio::test;
use tokio::time::{sleep, timeout};

use crate::site::{
    FrameworkPeer, PATIENCE, Site, SlavePeer, eventually, framework_description, get, get_here,
    post, slave_description, task,
};

/// Between two attempts at something.
const AGAIN: Duration = Duration::from_millis(10);

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
        sleep(AGAIN).await;
    }
}

/// Does something with the one that leads, until it succeeds; tells with whom.
async fn with_leader<'a, T>(
    masters: &[&'a Running],
    what: &str,
    step: impl AsyncFn(&'a Running) -> Option<T>,
) -> (&'a Running, T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = leader(masters).await;
        if let Some(done) = step(leader).await {
            return (leader, done);
        }
        assert!(Instant::now() < deadline, "no leader does it: {what}");
        sleep(AGAIN).await;
    }
}

/// Posts to the one that leads, until one says neither that it does not nor that the others did not
/// agree in time.
async fn order(masters: &[&Running], path: &str) -> (u16, String) {
    let step = async |leader: &Running| {
        let (status, text) = post(leader, path).await;
        (status != 307 && status != 503).then_some((status, text))
    };
    with_leader(masters, path, step).await.1
}

/// Removes a master. What was not confirmed in time may have been done none the less: then it is unknown.
async fn remove(masters: &[&Running], name: &str) {
    let path = format!("/api/v1/masters/{name}/remove");
    let unconfirmed = Cell::new(false);
    let step = async |leader: &Running| {
        let (status, text) = post(leader, &path).await;
        match status {
            202 => Some(()),
            404 if unconfirmed.get() => Some(()),
            307 => None,
            503 => {
                unconfirmed.set(true);
                None
            }
            _ => panic!("{status}: {text}"),
        }
    };
    with_leader(masters, "remove a master", step).await;
}

/// Posts to this one, until it knows where to send us.
async fn sent_on(master: &Running, path: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, text) = post(master, path).await;
        if status == 307 {
            return;
        }
        assert!(
            status == 503 && Instant::now() < deadline,
            "{status}: {text}"
        );
        sleep(AGAIN).await;
    }
}

/// The framework of these tests, which outlives its connections.
fn framework(id: Option<FrameworkId>) -> FrameworkDescription {
    let mut description = framework_description("f1", id);
    description.failover_timeout = Duration::from_secs(600);
    description
}

/// Registers with this master, or re-registers; none if it does not lead.
async fn registered(
    site: &Site,
    master: &Running,
    known: Option<SlaveId>,
) -> Option<(SlavePeer, SlaveId, Epoch)> {
    let slave = slave_description("s1");
    let message = match known {
        None => SlaveToMaster::Register { slave },
        Some(slave_id) => SlaveToMaster::Reregister {
            slave_id,
            cluster_id: master.cluster_id,
            slave,
        },
    };
    let mut peer = site.slave("s1", master.quic_addr).await;
    peer.sender.send(message).await.ok()?;
    let welcome = peer.try_find("Registered", |message| match message {
        MasterToSlave::Registered {
            slave_id, epoch, ..
        } => Some((slave_id, epoch)),
        _ => None,
    });
    let (slave_id, epoch) = welcome.await.ok()?;
    Some((peer, slave_id, epoch))
}

/// Subscribes with this master and waits for an offer, of which it tells the epoch; none if it does
/// not lead.
async fn subscribed(
    site: &Site,
    master: &Running,
    known: Option<FrameworkId>,
) -> Option<(FrameworkPeer, FrameworkId, Epoch)> {
    let mut peer = site.framework("f1", master.quic_addr).await;
    let message = FrameworkToMaster::Subscribe {
        framework: framework(known),
        suppressed_roles: Vec::new(),
        wishes: Vec::new(),
    };
    peer.sender.send(message).await.ok()?;
    let welcome = peer.try_find("Subscribed", |message| match message {
        MasterToFramework::Subscribed { framework_id, .. } => Some(framework_id),
        MasterToFramework::Error { refusal, .. } => {
            let elsewhere = matches!(refusal, Refusal::NotLeading { .. } | Refusal::Recovering);
            assert!(elsewhere, "{refusal}");
            None
        }
        _ => None,
    });
    let framework_id = welcome.await.ok()?;
    let offer = peer.try_find("an offer", |message| match message {
        MasterToFramework::Offers(mut offers) => offers.pop(),
        _ => None,
    });
    let epoch = offer.await.ok()?.offer_id.epoch;
    Some((peer, framework_id, epoch))
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
    let all = [&first, &second, &third];
    let admit = async |leader: &Running| {
        let (slave, slave_id, epoch) = registered(&site, leader, None).await?;
        let (framework, framework_id, of_offer) = subscribed(&site, leader, None).await?;
        let admitted = (slave, slave_id, framework, framework_id, epoch);
        (of_offer == epoch).then_some(admitted)
    };
    let (gone, admitted) = with_leader(&all, "admit both", admit).await;
    let (_slave, slave_id, _framework, framework_id, epoch) = admitted;
    gone.shutdown().await;

    let others: Vec<&Running> = all
        .into_iter()
        .filter(|master| !std::ptr::eq(*master, gone))
        .collect();
    let slaves = get(leader(&others).await, "/api/v1/slaves").await;
    let mut slaves = slaves.as_array().expect("a list").iter();
    let slave = slaves.find(|slave| slave["slave_id"] == slave_id.to_string());
    assert_eq!(slave.expect("it is known")["state"], "recovered");
    let readmit = async |leader: &Running| {
        let (_slave, same_slave, later) = registered(&site, leader, Some(slave_id)).await?;
        let known = Some(framework_id);
        let (_framework, same_framework, of_offer) = subscribed(&site, leader, known).await?;
        assert_eq!((same_slave, same_framework), (slave_id, framework_id));
        (of_offer == later).then_some(later)
    };
    let (_, later) = with_leader(&others, "find both again", readmit).await;
    assert!(later > epoch);
    for master in others {
        master.shutdown().await;
    }
}

/// Waits until this very master answers like this, and tells how far behind it says it is.
async fn knows(master: &Running, path: &str, wanted: &str) -> Option<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, lag, text) = get_here(master, path, "any").await;
        if status == 200 && text.contains(wanted) {
            return lag;
        }
        assert!(
            Instant::now() < deadline,
            "{path} of {master:?} stays at {status} {text}"
        );
        sleep(AGAIN).await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_reads_and_the_next_leader_remembers_the_tasks() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let all = [&first, &second, &third];
    let launch = async |leader: &Running| {
        let (slave, slave_id, _) = registered(&site, leader, None).await?;
        let mut framework = site.framework("f1", leader.quic_addr).await;
        let framework_id = framework.subscribe(self::framework(None)).await;
        let offers = framework.try_find("an offer", |message| match message {
            MasterToFramework::Offers(offers) => {
                offers.into_iter().find(|offer| offer.slave_id == slave_id)
            }
            _ => None,
        });
        let offer = offers.await.ok()?;
        framework
            .send(FrameworkToMaster::Accept {
                offer_ids: vec![offer.offer_id],
                operations: vec![Operation::Launch(vec![task("outlives", &offer)])],
                filters: Filters::default(),
            })
            .await;
        Some((slave, slave_id, framework, framework_id))
    };
    let (gone, launched) = with_leader(&all, "launch a task", launch).await;
    let (slave, slave_id, framework, _) = launched;
    // Each answers by itself; those that follow say how far behind they may be.
    for master in all {
        let lag = knows(master, "/api/v1/tasks", "outlives").await;
        knows(master, "/api/v1/slaves", "\"registered\"").await;
        knows(master, "/metrics", "meros_master_leading").await;
        if !std::ptr::eq(master, gone) && lag.is_some() {
            // Unless it has come to lead meanwhile.
            let (status, ..) = get_here(master, "/api/v1/tasks", "leader").await;
            assert!(matches!(status, 307 | 200 | 503), "{status}");
        }
        let (status, _, text) = get_here(master, "/api/v1/tasks", "anything").await;
        assert_eq!(status, 400, "{text}");
    }
    // The slave dies together with the leader.
    drop((slave, framework));
    gone.shutdown().await;
    let others: Vec<&Running> = all
        .into_iter()
        .filter(|master| !std::ptr::eq(*master, gone))
        .collect();
    leader(&others).await;
    for master in &others {
        let lag = knows(master, "/api/v1/tasks", "\"remembered\":true").await;
        let metric = "meros_master_view_lag_seconds{role=\"follower\"}";
        if lag.is_some() {
            eventually(master, "/metrics", |text| {
                text.contains(metric) || text.contains("meros_master_leading 1")
            })
            .await;
        }
    }
    // It is back without the task: what was remembered is forgotten, everywhere.
    let readmit = async |leader: &Running| registered(&site, leader, Some(slave_id)).await;
    let (_, _slave) = with_leader(&others, "find the slave again", readmit).await;
    for master in &others {
        knows(master, "/api/v1/tasks", "[]").await;
    }
    for master in others {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_tells_its_peers_who_leads() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let all = [&first, &second, &third];
    // One that has come to lead meanwhile does not send them away.
    let soon = PATIENCE / 3;
    let step = async |leader: &Running| {
        let leads = Some(leader.quic_addr.to_string());
        let refusal = Refusal::NotLeading { leader: leads };
        let by = None;
        let is_other = |master: &&&Running| !std::ptr::eq(**master, leader);
        let follower = all.iter().find(is_other).expect("there are three");
        let mut slave = site.slave("s1", follower.quic_addr).await;
        let (last, why) = timeout(soon, slave.end()).await.ok()?;
        let expected = MasterToSlave::Refused {
            refusal: refusal.clone(),
            by,
        };
        if last.as_ref() != Some(&expected) {
            eprintln!("{last:?} instead of {expected:?}");
            return None;
        }
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
        let follower = all.iter().rfind(is_other).expect("there are three");
        let mut framework = site.framework("f1", follower.quic_addr).await;
        let (last, _) = timeout(soon, framework.end()).await.ok()?;
        let expected = MasterToFramework::Error { refusal, by };
        if last.as_ref() != Some(&expected) {
            eprintln!("{last:?} instead of {expected:?}");
            return None;
        }
        Some(())
    };
    with_leader(&all, "followers say who leads", step).await;
    for master in [third, second, first] {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_told_which_masters_there_are_and_when_that_changes() {
    let site = Site::new();
    let [first, second, third] = three(&site).await;
    let all = [&first, &second, &third];
    let told = async |leader: &Running| {
        let mut slave = site.slave("s1", leader.quic_addr).await;
        let slave_told = slave.try_find("the masters", |message| match message {
            MasterToSlave::Masters { addresses } => Some(addresses),
            _ => None,
        });
        let mut addresses = slave_told.await.ok()?;
        addresses.sort();
        let mut framework = site.framework("f1", leader.quic_addr).await;
        let framework_told = framework.try_find("the masters", |message| match message {
            MasterToFramework::Masters { addresses } => Some(addresses),
            _ => None,
        });
        let mut same = framework_told.await.ok()?;
        same.sort();
        (addresses == same).then_some((slave, addresses))
    };
    let (leader, (mut slave, addresses)) = with_leader(&all, "tell of the masters", told).await;
    let mut expected = all.map(|master| master.quic_addr.to_string()).to_vec();
    expected.sort();
    assert_eq!(addresses, expected);
    // One is removed: whoever is connected hears of it, unless it is connected to that one.
    let others = all.iter().filter(|master| !std::ptr::eq(**master, leader));
    let names = [(&first, "master"), (&second, "m2"), (&third, "m3")];
    let removed = others.copied().next().expect("there are three");
    let named = names
        .iter()
        .find(|(master, _)| std::ptr::eq(*master, removed));
    let (_, name) = named.expect("it is one of them");
    remove(&all, name).await;
    let gone = removed.quic_addr.to_string();
    let fewer = slave.try_find("fewer masters", |message| match message {
        MasterToSlave::Masters { addresses } => Some(addresses),
        _ => None,
    });
    // On a busy machine another one may have come to lead, which closes the connection.
    if let Ok(fewer) = fewer.await {
        assert!(fewer.len() == 2 && !fewer.contains(&gone), "{fewer:?}");
    }
    for master in [first, second, third] {
        master.shutdown().await;
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_master_is_neither_removed_nor_replaced() {
    let site = Site::new();
    let master = site.master().await;
    leader(&[&master]).await;
    for (order, status, code) in [
        ("master/remove", 409, "only_master"),
        ("master/replace", 409, "master_leads"),
        ("m9/remove", 404, "master_unknown"),
        ("m9/replace", 404, "master_unknown"),
    ] {
        let (found, text) = post(&master, &format!("/api/v1/masters/{order}")).await;
        assert_eq!(found, status, "{order}: {text}");
        assert!(text.contains(code), "{order}: {text}");
    }
    let masters = get(&master, "/api/v1/masters").await;
    let row = &masters[0];
    assert_eq!(row["role"], "leader");
    assert_eq!(row["release"], env!("CARGO_PKG_VERSION"));
    assert_eq!(row["format"], row["newest_format"], "{row}");
    master.shutdown().await;
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
                error.to_string().contains("meros masters replace m3"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    let both = [&first, &second];
    // Asked of a follower, which sends it on. Of one that nobody knows, so that it harms nothing.
    let step = async |leader: &Running| {
        let follower = both.iter().find(|master| !std::ptr::eq(**master, leader));
        let follower = follower.expect("there are two");
        let (status, _) = post(follower, "/api/v1/masters/m9/remove").await;
        (status == 307).then_some(())
    };
    with_leader(&both, "a follower sends it on", step).await;
    remove(&both, "m3").await;
    let (status, text) = order(&both, "/api/v1/masters/m3/remove").await;
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
    sent_on(&first, "/api/v1/masters/master/remove").await;
    remove(&[&second, &third], "master").await;
    eventually(&second, "/api/v1/masters", |text| {
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
    let all = [&first, &second, &third];
    let admit = async |leader: &Running| registered(&site, leader, None).await;
    let (_, (_slave, slave_id, _)) = with_leader(&all, "admit a slave", admit).await;
    let (status, text) = order(&all, "/api/v1/masters/m9/lead").await;
    assert_eq!(status, 404, "{text}");
    let (status, text) = order(&all, "/api/v1/masters/master/lead").await;
    assert_eq!(status, 202, "it leads already: {text}");

    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, text) = order(&all, "/api/v1/masters/m3/lead").await;
        assert_eq!(status, 202, "{text}");
        if get(&third, "/health").await["status"] == "leading" {
            break;
        }
        assert!(Instant::now() < deadline, "the third one does not lead");
    }
    sent_on(&first, "/api/v1/masters/m2/lead").await;

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
