//! What was acknowledged is found again, or the open is refused.

use std::fs;
use std::path::PathBuf;

use crossbeam::channel;
use meros_master_core::event::ProposalId;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;
use meros_proto::time::Timestamp;
use tempfile::TempDir;

use super::commit::{GROUP_MAX, Proposal};
use super::*;
use crate::metrics::Metrics;

const CLUSTER: ClusterId = ClusterId(0x1234);
const OURS: &[u8] = b"certificate of our authority";
const THEIRS: &[u8] = b"certificate of another";

fn open(dir: &Path) -> (Store, Registry) {
    Store::open(dir, &[OURS], CLUSTER).expect("opens")
}

fn refused(dir: &Path) -> OpenStoreError {
    Store::open(dir, &[OURS], CLUSTER)
        .map(drop)
        .expect_err("is refused")
}

fn description(hostname: &str) -> SlaveDescription {
    SlaveDescription {
        hostname: hostname.to_owned(),
        http_address: "10.0.0.1:5051".to_owned(),
        resources: "cpus:7.125;mem(ads, alice):512;mem:4096;ports:[31000-32000];zones:{a,b}"
            .parse()
            .expect("resources"),
        attributes: "rack:r12;os:debian".parse().expect("attributes"),
        capabilities: Vec::new(),
        version: "0.1.0".to_owned(),
    }
}

fn admit(number: u32) -> Command {
    Command::AdmitSlave {
        slave_id: SlaveId(number),
        principal: format!("slave-{number}"),
        slave: description(&format!("host{number}")),
        at: Timestamp(1_700_000_000_000_000 + u64::from(number)),
    }
}

fn rename(number: u32, to: u32) -> Command {
    Command::UpdateSlave {
        slave_id: SlaveId(number),
        slave: description(&format!("renamed{to}")),
    }
}

fn some_life() -> Vec<Command> {
    let role: RoleName = "ads/web".parse().expect("a role");
    let mut framework = FrameworkDescription::new("spark", role.clone());
    framework.framework_id = Some(FrameworkId(0));
    vec![
        admit(0),
        admit(1),
        Command::AdmitFramework {
            framework_id: FrameworkId(0),
            principal: "spark".to_owned(),
            framework,
            suppressed_roles: vec![role],
            at: Timestamp(u64::MAX),
        },
        Command::MarkSlaveUnreachable {
            slave_id: SlaveId(1),
            at: Timestamp(77),
        },
        admit(2),
        Command::RemoveSlave {
            slave_id: SlaveId(2),
            at: Timestamp(78),
        },
        // No longer fits, and must not disturb a replay.
        Command::RemoveSlave {
            slave_id: SlaveId(2),
            at: Timestamp(79),
        },
    ]
}

fn applied(commands: &[Command]) -> Registry {
    let mut registry = Registry::default();
    for command in std::iter::once(&Command::FormCluster {
        cluster_id: CLUSTER,
    })
    .chain(commands)
    {
        let _ = registry.apply(command);
    }
    registry
}

/// The write-ahead log in use: the newest that is not empty.
fn wal(dir: &Path) -> PathBuf {
    let mut logs: Vec<PathBuf> = fs::read_dir(dir.join("registry"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect();
    logs.sort();
    logs.pop().expect("there is a write-ahead log")
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_reopened_store_holds_the_same_registry_and_begins_a_higher_term() {
    let dir = TempDir::new().unwrap();
    let (mut store, registry) = open(dir.path());
    assert_eq!((store.term(), store.last_index()), (Epoch(1), 1));
    assert_eq!(registry, applied(&[]));
    store.append(&some_life()).unwrap();
    drop(store);

    let mut term = Epoch(1);
    for _ in 0..3 {
        let (store, registry) = open(dir.path());
        assert_eq!(registry, applied(&some_life()));
        assert!(store.term() > term, "each open begins a term");
        term = store.term();
    }
}

#[test]
fn a_copy_made_after_the_acknowledgement_holds_all_of_it() {
    let dir = TempDir::new().unwrap();
    let copies = TempDir::new().unwrap();
    let (mut store, _) = open(dir.path());
    for (number, command) in some_life().into_iter().enumerate() {
        store.append(std::slice::from_ref(&command)).unwrap();
        // As a crash of the process would leave it: the store is still open.
        let copy = copies.path().join(number.to_string());
        copy_dir(dir.path(), &copy);
        let (_, registry) = open(&copy);
        assert_eq!(registry, applied(&some_life()[..=number]));
    }
}

#[test]
fn a_snapshot_replaces_the_log_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = open(dir.path());
    let mut life = some_life();
    store.append(&life).unwrap();
    assert!(!store.compact_if_due().unwrap());
    for batch in 0..SNAPSHOT_EVERY / 1_000 {
        let batch = u32::try_from(batch).unwrap();
        let renames: Vec<Command> = (0..1_000)
            .map(|one| rename(0, batch * 1_000 + one))
            .collect();
        store.append(&renames).unwrap();
        life.extend(renames);
    }
    assert!(
        store.compact_if_due().unwrap(),
        "{SNAPSHOT_EVERY} entries make one due"
    );
    assert_eq!(store.snapshot_index(), store.last_index());
    assert!(
        store.iterate(LOG, None).next().is_none(),
        "the log before it is dropped"
    );
    let index = store.last_index();
    store.append(&[rename(1, 7)]).unwrap();
    life.push(rename(1, 7));
    drop(store);

    let (mut store, registry) = open(dir.path());
    assert_eq!(registry, applied(&life), "snapshot and log together");
    assert_eq!(
        (store.snapshot_index(), store.last_index()),
        (index, index + 1)
    );
    store.compact().unwrap();
    drop(store);
    assert_eq!(
        open(dir.path()).1,
        applied(&life),
        "a second snapshot replaces the first"
    );
}

#[test]
fn a_large_snapshot_is_kept_in_several_records() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = open(dir.path());
    let slaves: Vec<Command> = (0..6_000).map(admit).collect();
    for batch in slaves.chunks(GROUP_MAX) {
        store.append(batch).unwrap();
    }
    store.compact().unwrap();
    let pieces = store.iterate(STATE, Some(b"snapshot/")).count();
    drop(store);
    assert!(pieces > 2, "{pieces} records");
    let (_, registry) = open(dir.path());
    assert_eq!(registry, applied(&slaves));
}

#[test]
fn proposals_that_wait_together_share_one_sync_and_are_reported_in_order() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    let metrics = Metrics::default();
    let count = u32::try_from(2 * GROUP_MAX + 5).unwrap();
    let (sender, receiver) = channel::bounded(count as usize);
    for number in 0..count {
        let proposal = Proposal {
            id: ProposalId(u64::from(number)),
            command: admit(number),
            at: std::time::Instant::now(),
        };
        sender.send(proposal).unwrap();
    }
    drop(sender);
    let mut reported = Vec::new();
    commit::run(store, &receiver, &metrics, |id, _| reported.push(id.0)).expect("a good disk");
    assert_eq!(reported, (0..u64::from(count)).collect::<Vec<_>>());
    assert_eq!(
        metrics.commits(),
        (3, u64::from(count)),
        "three writes for all of them"
    );
    assert_eq!(open(dir.path()).1.slaves().count(), count as usize);
}

#[test]
fn a_torn_record_that_was_never_acknowledged_is_dropped() {
    for bytes in [1, 9, 40] {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = open(dir.path());
        store.append(&[admit(0)]).unwrap();
        let acknowledged = fs::read(dir.path().join("acknowledged")).unwrap();
        store.append(&[admit(1)]).unwrap();
        drop(store);
        // The machine lost power while the second was being written.
        fs::write(dir.path().join("acknowledged"), acknowledged).unwrap();
        cut(&wal(dir.path()), bytes);
        let (store, registry) = open(dir.path());
        assert_eq!(registry, applied(&[admit(0)]), "cut by {bytes}");
        assert_eq!(store.last_index(), 2);
    }
}

#[test]
fn a_log_that_lost_acknowledged_entries_is_refused_and_not_shortened() {
    for bytes in [1, 9, 40] {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = open(dir.path());
        store.append(&[admit(0)]).unwrap();
        store.append(&[admit(1)]).unwrap();
        drop(store);
        cut(&wal(dir.path()), bytes);
        match refused(dir.path()) {
            OpenStoreError::EntriesLost {
                found: 2,
                acknowledged: 3,
                ..
            } => {}
            other => panic!("cut by {bytes}: {other}"),
        }
        fs::remove_file(dir.path().join("acknowledged")).unwrap();
        let (_, registry) = open(dir.path());
        assert_eq!(registry, applied(&[admit(0)]), "as the message says");
    }
}

#[test]
fn damage_anywhere_in_the_log_is_never_taken_for_a_shorter_one() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = open(dir.path());
    for number in 0..4 {
        store.append(&[admit(number)]).unwrap();
    }
    drop(store);
    let whole = applied(&(0..4).map(admit).collect::<Vec<_>>());
    let copies = TempDir::new().unwrap();
    let length = fs::read(wal(dir.path())).unwrap().len();
    for at in (0..length).step_by(length / 24) {
        let copy = copies.path().join(at.to_string());
        copy_dir(dir.path(), &copy);
        let path = wal(&copy);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        match Store::open(&copy, &[OURS], CLUSTER) {
            Ok((_, registry)) => assert_eq!(registry, whole, "damaged at {at}"),
            Err(OpenStoreError::Corrupt { .. } | OpenStoreError::EntriesLost { .. }) => {}
            Err(other) => panic!("damaged at {at}: {other}"),
        }
    }
}

#[test]
fn a_registry_that_vanished_is_not_replaced_by_a_new_cluster() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[admit(0)]).unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("registry")).unwrap();
    assert!(matches!(
        refused(dir.path()),
        OpenStoreError::EntriesLost { found: 0, .. }
    ));
}

#[test]
fn one_process_at_a_time_and_the_message_names_it() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    let error = refused(dir.path());
    assert!(
        matches!(&error, OpenStoreError::Lock(LockError::Held { .. })),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(store);
    open(dir.path());
}

#[test]
fn a_data_directory_of_another_cluster_is_refused_unless_an_authority_is_shared() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let theirs =
        |authorities: &[&[u8]]| Store::open(dir.path(), authorities, ClusterId(9)).map(drop);
    match theirs(&[THEIRS]) {
        Err(OpenStoreError::OtherCluster {
            cluster_id: Some(CLUSTER),
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    theirs(&[THEIRS, OURS]).expect("while an authority is being replaced both are trusted");
    theirs(&[THEIRS]).expect("then the new one alone is enough");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    store
        .db
        .put_cf(store.state(), KEY_FORMAT, 9_u32.to_be_bytes())
        .unwrap();
    drop(store);
    match refused(dir.path()) {
        OpenStoreError::NewerFormat {
            found: 9,
            ours: FORMAT,
            ..
        } => {}
        other => panic!("{other}"),
    }
}

#[test]
fn entries_that_make_no_sense_are_named() {
    let spoil: [fn(&Store); 3] = [
        |store| {
            store
                .db
                .put_cf(store.log(), 2_u64.to_be_bytes(), b"\x01garbage")
                .unwrap()
        },
        |store| {
            store
                .db
                .delete_cf(store.log(), 1_u64.to_be_bytes())
                .unwrap()
        },
        |store| {
            store
                .db
                .put_cf(store.state(), snapshot::key(0), b"\x01\x03abc")
                .unwrap()
        },
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = open(dir.path());
        store.append(&[admit(0)]).unwrap();
        spoil(&store);
        drop(store);
        let error = refused(dir.path());
        assert!(
            matches!(error, OpenStoreError::Corrupt { .. }),
            "{number}: {error}"
        );
    }
}

#[test]
fn a_full_disk_is_said_clearly_and_loses_nothing_that_was_acknowledged() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let dir = TempDir::new().unwrap();
    let none = None::<&str>;
    // A name space of this thread alone: the mount is gone with it, whatever happens.
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            mount(
                Some("tmpfs"),
                dir.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some("size=24m"),
            )
        });
    if let Err(error) = mounted {
        eprintln!("skipped: a small file system needs root: {error}");
        return;
    }
    let data = dir.path().join("data");
    let (mut store, _) = open(&data);
    let ballast = dir.path().join("ballast");
    let disk = nix::sys::statvfs::statvfs(dir.path()).unwrap();
    let left = disk.blocks_available() * disk.fragment_size();
    fs::write(
        &ballast,
        vec![0; usize::try_from(left).unwrap() - (64 << 10)],
    )
    .unwrap();

    let mut admitted = 0;
    let error = loop {
        match store.append(&[admit(admitted)]) {
            Ok(()) => admitted += 1,
            Err(error) => break error,
        }
        assert!(admitted < 200_000, "the disk never filled up");
    };
    assert!(error.to_string().contains("no space left"), "{error}");
    drop(store);
    fs::remove_file(&ballast).unwrap();
    let (_, registry) = open(&data);
    let found = registry.slaves().count();
    assert!(
        found >= admitted as usize,
        "{found} of {admitted} acknowledged"
    );
}
