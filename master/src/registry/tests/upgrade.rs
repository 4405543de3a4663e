//! Masters of several releases: when the cluster goes on to a newer format, and who is refused then.

use std::time::Instant;

use meros_proto::transport::ClusterCa;

use super::super::wire::{Answer, Call};
use super::members::{Master, PATIENCE, eventually};
use super::*;
use crate::exit::ExitReason;

/// What no release knows yet.
const NEXT: Format = Format(Format::NEWEST.0 + 1);

fn next_release() -> Knows {
    Knows {
        release: "99.0.0".to_owned(),
        newest: NEXT,
        ..Knows::this(Pace::default())
    }
}

fn names(dir: &Path, name: &str) -> String {
    match open(&dir.join(name), &[OURS], ME, Start::Join) {
        Ok(_) => "it opens".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_format_is_raised_when_the_last_master_knows_it_and_older_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let newer = async |number, join: &[String]| {
        Master::start_knowing(&ca, dir.path(), number, join, next_release()).await
    };
    let first = newer(1, &[]).await;
    let join = [first.address.clone()];
    // Alone it goes on at once; the rest of the test begins before that.
    let reign = first.leads().await;
    let older = Master::start(&ca, &dir.path().join("other"), 2, &[]).await;
    older.leads().await;
    assert_eq!(older.registry().format(), Format::FIRST);
    eventually("the only member knows it", || {
        first.registry().format() == NEXT
    })
    .await;
    // The core that leads is told, though it has not proposed it.
    match first.reports.recv_timeout(PATIENCE).expect("a report") {
        Report::Committed {
            reign: of,
            proposal: None,
            command,
        } => assert_eq!(
            (of, *command),
            (reign, Command::RaiseFormat { format: NEXT })
        ),
        other => panic!("{other:?}"),
    }

    let second = newer(2, &join).await;
    eventually("it is told", || second.registry().format() == NEXT).await;
    let rows = serde_json::to_value(first.replica.status().views()).unwrap();
    let row = &rows[1];
    assert_eq!(row["format"], NEXT.0, "{rows}");
    eventually("the first has heard what the second is", || {
        let rows = serde_json::to_value(first.replica.status().views()).unwrap();
        rows[1]["release"] == "99.0.0" && rows[1]["newest_format"] == NEXT.0
    })
    .await;

    // Of this release: it may not join, and nothing has changed.
    let id = MasterId(3);
    let member = Member {
        name: "m2".to_owned(),
        address: "127.0.0.1:1".to_owned(),
    };
    let named = [first.address.clone()];
    let refused = join::join(
        &second.client,
        &Knows::this(Pace::default()),
        &named,
        id,
        &member,
    )
    .await;
    let refused = refused.expect_err("it is too old").to_string();
    assert!(
        refused.contains("too_old") && refused.contains("meros masters list"),
        "{refused}"
    );
    let beyond = Knows {
        oldest: Format(NEXT.0 + 1),
        ..next_release()
    };
    let refused = join::join(&second.client, &beyond, &named, id, &member).await;
    let refused = refused.expect_err("it is too new").to_string();
    assert!(refused.contains("too_new"), "{refused}");
    let answer = first.answer(&second.client, None, Call::Cluster).await;
    assert!(
        matches!(answer, Answer::Cluster { .. }),
        "it needs no format"
    );
    assert_eq!(first.replica.status().members().0.len(), 2);

    // Of this release: neither data directory is opened, also that of one that was only told.
    second.stop().await;
    first.stop().await;
    older.stop().await;
    for name in ["m1", "m2"] {
        let why = names(dir.path(), name);
        assert!(why.contains("newer_format"), "{name}: {why}");
    }
    assert_eq!(names(&dir.path().join("other"), "m2"), "it opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_older_member_keeps_the_format_as_it_is() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let older = Master::start(&ca, dir.path(), 1, &[]).await;
    older.leads().await;
    let join = [older.address.clone()];
    let newer = Master::start_knowing(&ca, dir.path(), 2, &join, next_release()).await;
    // Whoever leads, all is there to decide by: what one does not know yet is not taken for good.
    let service = newer.replica.service();
    let common = || {
        let members = [MasterId(1)];
        service.formats.common(members.iter())
    };
    assert_eq!(service.formats.common([MasterId(9)].iter()), None);
    eventually("it has heard what the older one knows", || {
        common() == Some(Format::NEWEST)
    })
    .await;
    // The older one leaves, and the newer one goes on.
    let deadline = Instant::now() + PATIENCE;
    while !newer.replica.leadership().is_acting() {
        assert!(Instant::now() < deadline, "it does not lead");
        // A busy machine may need more than one attempt.
        let _ = older.replica.service().hand_over(Some("m2")).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(newer.registry().format(), Format::FIRST);
    let removed = async || newer.replica.service().remove("m1").await;
    let mut left = removed().await;
    let deadline = Instant::now() + PATIENCE;
    while left.is_err() && left != Err(RemoveError::Unknown) {
        assert!(Instant::now() < deadline, "{left:?}");
        sleep(Duration::from_millis(50)).await;
        left = removed().await;
    }
    eventually("it goes on alone", || newer.registry().format() == NEXT).await;
    newer.stop().await;
    older.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_master_that_is_told_of_a_newer_format_stops_and_stores_nothing_of_it() {
    let dir = TempDir::new().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let older = Master::start(&ca, dir.path(), 1, &[]).await;
    older.leads().await;
    let batch = Batch {
        reign: Reign {
            master: MasterId(1),
            number: 0,
        },
        body: Body::Commands(vec![(0, Command::RaiseFormat { format: NEXT })]),
        check: None,
    };
    let written = timeout(PATIENCE, older.replica.raft.client_write(batch)).await;
    written
        .expect("it ends")
        .expect_err("it must not be stored");
    let why = timeout(PATIENCE, older.exit.asked()).await;
    let why = why.expect("it ends");
    assert!(matches!(why, ExitReason::TooOld { .. }), "{why}");
    assert_eq!(why.code(), 25);
    assert!(why.to_string().contains("too_old"), "{why}");
    older.stop().await;
    assert_eq!(names(dir.path(), "m1"), "it opens");
}

#[test]
fn a_backup_of_a_newer_cluster_is_refused_also_if_nothing_else_of_it_is_understood() {
    let newer = format!(
        r#"{{"format":1,"release":"99.0.0","index":5,"registry":{{"format":{},"slaves":{{"S0":"a new form"}}}}}}"#,
        NEXT.0
    );
    let refused = Backup::parse(newer.as_bytes()).expect_err("it is newer");
    assert!(
        refused.to_string().contains("newer_format") && refused.to_string().contains("99.0.0"),
        "{refused}"
    );
}
