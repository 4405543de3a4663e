//! Who is not let in: masters that are not who or where they say, that are of another cluster, or too many.

use std::time::Instant;

use meros_proto::transport::ClusterCa;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::super::wire::{Answer, Call};
use super::members::{Master, PATIENCE, eventually};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_lies_about_who_or_where_it_is_is_refused_and_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    // Nothing here needs an election, and a busy machine must not cause one.
    let knows = || Knows::this(Pace::new(Duration::from_secs(30)));
    let first = Master::start_knowing(&ca, dir.path(), 1, &[], knows()).await;
    let join = [first.address.clone()];
    let second = Master::start_knowing(&ca, dir.path(), 2, &join, knows()).await;
    // A good certificate and an open port, and no member.
    let third = Master::start(&ca, &dir.path().join("other"), 3, &[]).await;
    let before = |master: &Master| {
        let status = master.replica.status();
        (status.members(), status.progress().term)
    };
    eventually("the second knows what it is", || {
        before(&second).0 == before(&first).0
    })
    .await;
    let known = (before(&first), before(&second));
    let refused = async |at: &Master, call: Call, code: &str| match at
        .answer(&third.client, None, call)
        .await
    {
        Answer::Refused(why) => assert!(why.contains(code), "{code}: {why}"),
        other => panic!("{code}: {other:?}"),
    };
    let join = |number: u64, name: &str, address: &str| Call::Join {
        master_id: MasterId(number),
        member: Member {
            name: name.to_owned(),
            address: address.to_owned(),
        },
    };
    let own = third.address.as_str();
    for (call, code) in [
        // Another name than in its certificate, whether that is taken or not.
        (join(3, "m2", own), "wrong_name"),
        (join(3, "m4", own), "wrong_name"),
        // The numbers of others: it would take their places.
        (join(2, "m3", own), "wrong_name"),
        (join(1, "m3", own), "wrong_name"),
        // Where it is not: nowhere, where the leader is and where a follower is.
        (join(3, "m3", "nowhere"), "wrong_address"),
        (join(3, "m3", &first.address), "wrong_address"),
        (join(3, "m3", &second.address), "wrong_address"),
        // Another number than that of its data directory.
        (join(33, "m3", own), "wrong_address"),
    ] {
        refused(&first, call, code).await;
    }
    // In the name of the leader, of a follower, and of one whose lease has ended.
    let vote = Vote::new_committed(1_000, MasterId(1));
    let of_leader = || AppendEntriesRequest {
        vote,
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let stands = VoteRequest::new(Vote::new(1_000, MasterId(2)), None);
    for call in [
        Call::Append(of_leader()),
        Call::Vote(stands),
        Call::TakeOver { vote },
        Call::MayStand {
            candidate: MasterId(1),
            last: None,
        },
    ] {
        refused(&second, call, "wrong_name").await;
    }
    let after = (before(&first), before(&second));
    assert_eq!(after.0.0, known.0.0, "members of the first");
    assert_eq!(after.1.0, known.1.0, "members of the second");
    // Terms that are far from what was claimed.
    assert!(after.0.1 < 1_000 && after.1.1 < 1_000, "{after:?}");
    for master in [third, second, first] {
        master.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenth_master_is_refused() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    first.leads().await;
    let of = |number: u64| Member {
        name: format!("m{number}"),
        address: "127.0.0.1:1".to_owned(),
    };
    for number in 2..=9 {
        let raft = &first.replica.raft;
        let added = raft.add_learner(MasterId(number), of(number), false).await;
        added.expect("it has no vote, so nobody waits for it");
    }
    let service = first.replica.service();
    match service.join(MasterId(10), of(10), None).await {
        Answer::Refused(why) => assert!(why.contains("too_many_masters"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(first.replica.status().members().0.len(), 9);
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_is_not_taken_over_by_another_certificate() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let first = Master::start(&ca, dir.path(), 1, &[]).await;
    let join = [first.address.clone()];
    let second = Master::start(&ca, dir.path(), 2, &join).await;
    second.stop().await;
    fs::rename(dir.path().join("m2"), dir.path().join("m9")).unwrap();
    let second = Master::begin(&ca, dir.path(), 9, &join).await;
    let refused = second.replica.join(&second.client, &join).await;
    let refused = refused.expect_err("it is of m2").to_string();
    assert!(refused.contains("wrong_name"), "{refused}");
    let (members, _) = first.replica.status().members();
    assert_eq!(members[&MasterId(2)].name, "m2");
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_of_another_cluster_or_authority_are_not_joined() {
    let dir = TempDir::new().unwrap();
    let (ca, others_ca) = (
        ClusterCa::create("test").unwrap(),
        ClusterCa::create("other").unwrap(),
    );
    let ours = Master::start(&ca, &dir.path().join("a"), 1, &[]).await;
    let theirs = Master::start(&ca, &dir.path().join("b"), 2, &[]).await;
    let foreign = Master::start(&others_ca, &dir.path().join("c"), 3, &[]).await;
    for master in [&ours, &theirs, &foreign] {
        master.leads().await;
    }
    let named = [theirs.address.clone()];
    // They were all given the same id by this test.
    join::expect_cluster(&ours.client, &Knows::this(Pace::default()), &named, CLUSTER)
        .await
        .expect("the same");
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        let knows = Knows::this(Pace::default());
        match join::expect_cluster(&ours.client, &knows, &named, ClusterId(5)).await {
            Err(error) => break error.to_string(),
            // Those that do not answer in time are taken for friends.
            Ok(()) => assert!(Instant::now() < deadline, "it is another cluster"),
        }
    };
    assert!(error.contains("wrong_cluster"), "{error}");

    let member = ours.replica.member.clone();
    let knows = Knows {
        cluster_id: Some(ClusterId(5)),
        ..Knows::this(Pace::default())
    };
    let error = join::join(&ours.client, &knows, &named, MasterId(9), &member).await;
    let error = error.expect_err("it has another log").to_string();
    assert!(error.contains("wrong_cluster"), "{error}");
    assert_eq!(theirs.replica.status().members().0.len(), 1);

    let named = [foreign.address.clone()];
    let error = join::join(
        &ours.client,
        &Knows::this(Pace::default()),
        &named,
        MasterId(9),
        &member,
    )
    .await;
    let error = error.expect_err("they do not trust each other").to_string();
    assert!(error.contains("untrusted"), "{error}");
    for master in [ours, theirs, foreign] {
        master.stop().await;
    }
}
