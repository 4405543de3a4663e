//! What was acknowledged is found again, or the open is refused; and openraft agrees with our store.

mod identity;
mod members;
mod replica;
mod stored;
mod torn;
mod upgrade;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meros_master_core::command::Command;
use meros_master_core::{Format, Registry};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;
use meros_proto::time::Timestamp;
use openraft::testing::{StoreBuilder, Suite};
use rocksdb::WriteBatch;
use tempfile::TempDir;

use super::types::{Entry, SnapshotMeta, StorageError, StoredMembers};
use super::*;

const CLUSTER: ClusterId = ClusterId(0x1234);
const OURS: &[u8] = b"certificate of our authority";
const THEIRS: &[u8] = b"certificate of another";
const ME: MasterId = MasterId(7);

fn form() -> Start {
    Start::Form {
        cluster_id: CLUSTER,
        member: member(),
    }
}

fn member() -> Member {
    Member {
        name: "m1".to_owned(),
        address: "127.0.0.1:5050".to_owned(),
    }
}

fn open_db(dir: &Path) -> Arc<Db> {
    open(dir, &[OURS], ME, form()).expect("opens").db
}

fn refused(dir: &Path) -> OpenStoreError {
    open(dir, &[OURS], ME, form())
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

/// An entry with one command.
fn entry(index: u64, command: Command) -> Entry {
    let batch = Batch {
        reign: Reign {
            master: ME,
            number: 1,
        },
        body: Body::Commands(vec![(index, command)]),
        check: None,
    };
    Entry {
        log_id: entry_id(1, ME, index),
        payload: EntryPayload::Normal(batch),
    }
}

fn append(db: &Db, entries: Vec<Entry>) -> Result<(), WriteError> {
    let mut batch = WriteBatch::default();
    for entry in entries {
        db.put_entry(&mut batch, entry)?;
    }
    db.write_synced(batch)
}

/// The commands in the log, after those that form the cluster.
fn commands(db: &Db) -> Vec<Command> {
    let entries = db.entries(2).map(|entry| entry.expect("a good entry").0);
    let batches = entries.filter_map(|entry| match entry.payload {
        EntryPayload::Normal(batch) => Some(batch.body),
        _ => None,
    });
    let commands = batches.flat_map(|body| match body {
        Body::Commands(commands) => commands,
        Body::Lead => Vec::new(),
    });
    commands.map(|(_, command)| command).collect()
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
fn openraft_agrees_with_the_store() {
    struct Builder;
    impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
        async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
            let dir = TempDir::new().expect("a directory");
            let db = open(dir.path(), &[OURS], ME, Start::Join)
                .expect("opens")
                .db;
            let formats = Arc::new(Formats::new(Knows::this(Pace::default()), Exit::new()));
            let log = Log::new(Arc::clone(&db), Arc::clone(&formats));
            let report = Box::new(|_| {});
            let machine = Machine::open(db, ME, Arc::default(), formats, report, Exit::new());
            Ok((dir, log, machine.expect("an empty snapshot")))
        }
    }
    Suite::test_all(Builder).expect("openraft's own tests of a store");
}

#[test]
fn what_was_written_is_found_again_under_the_same_number() {
    let dir = TempDir::new().unwrap();
    let db = open_db(dir.path());
    append(&db, vec![entry(2, admit(0)), entry(3, admit(1))]).unwrap();
    drop(db);
    for _ in 0..2 {
        let opened = open(dir.path(), &[OURS], MasterId(99), Start::Join).expect("opens");
        assert_eq!(opened.master_id, ME, "drawn once for a data directory");
        assert_eq!(commands(&opened.db), [admit(0), admit(1)]);
        assert_eq!(
            opened.db.entries(0).count(),
            4,
            "with those that formed the cluster"
        );
    }
}

#[test]
fn a_copy_made_after_the_acknowledgement_holds_all_of_it() {
    let dir = TempDir::new().unwrap();
    let copies = TempDir::new().unwrap();
    let db = open_db(dir.path());
    for (number, command) in (0..).zip(some_life()) {
        append(&db, vec![entry(2 + number, command)]).unwrap();
        // As a crash of the process would leave it: the store is still open.
        let copy = copies.path().join(number.to_string());
        copy_dir(dir.path(), &copy);
        let last = usize::try_from(number).unwrap();
        assert_eq!(commands(&open_db(&copy)), some_life()[..=last]);
    }
}

#[test]
fn a_torn_record_that_was_never_acknowledged_is_dropped() {
    for bytes in [1, 9, 40] {
        let dir = TempDir::new().unwrap();
        let db = open_db(dir.path());
        append(&db, vec![entry(2, admit(0))]).unwrap();
        let acknowledged = fs::read(dir.path().join("acknowledged")).unwrap();
        append(&db, vec![entry(3, admit(1))]).unwrap();
        drop(db);
        // The machine lost power while the second was being written.
        fs::write(dir.path().join("acknowledged"), acknowledged).unwrap();
        cut(&wal(dir.path()), bytes);
        assert_eq!(commands(&open_db(dir.path())), [admit(0)], "cut by {bytes}");
    }
}

#[test]
fn a_log_that_lost_acknowledged_writes_is_refused_and_not_shortened() {
    for bytes in [1, 9, 40] {
        let dir = TempDir::new().unwrap();
        let db = open_db(dir.path());
        append(&db, vec![entry(2, admit(0))]).unwrap();
        append(&db, vec![entry(3, admit(1))]).unwrap();
        drop(db);
        cut(&wal(dir.path()), bytes);
        match refused(dir.path()) {
            OpenStoreError::WritesLost {
                found: 2,
                acknowledged: 3,
                ..
            } => {}
            other => panic!("cut by {bytes}: {other}"),
        }
        fs::remove_file(dir.path().join("acknowledged")).unwrap();
        assert_eq!(
            commands(&open_db(dir.path())),
            [admit(0)],
            "as the message says"
        );
    }
}

#[test]
fn a_lost_vote_is_noticed_as_a_lost_entry_is() {
    let dir = TempDir::new().unwrap();
    let db = open_db(dir.path());
    let mut batch = WriteBatch::default();
    Log::put_vote(&db, &mut batch, Vote::new(5, MasterId(3))).unwrap();
    db.write_synced(batch).unwrap();
    drop(db);
    cut(&wal(dir.path()), 1);
    assert!(matches!(
        refused(dir.path()),
        OpenStoreError::WritesLost { .. }
    ));
}

#[test]
fn damage_anywhere_in_the_log_is_never_taken_for_a_shorter_one() {
    let dir = TempDir::new().unwrap();
    let db = open_db(dir.path());
    let all: Vec<Command> = (0..4).map(admit).collect();
    for (index, command) in (2..).zip(all.clone()) {
        append(&db, vec![entry(index, command)]).unwrap();
    }
    drop(db);
    let copies = TempDir::new().unwrap();
    let length = fs::read(wal(dir.path())).unwrap().len();
    for at in (0..length).step_by(length / 24) {
        let copy = copies.path().join(at.to_string());
        copy_dir(dir.path(), &copy);
        let path = wal(&copy);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        match open(&copy, &[OURS], ME, form()) {
            Ok(opened) => assert_eq!(commands(&opened.db), all, "damaged at {at}"),
            Err(OpenStoreError::Corrupt { .. } | OpenStoreError::WritesLost { .. }) => {}
            Err(other) => panic!("damaged at {at}: {other}"),
        }
    }
}

#[test]
fn a_slower_pace_is_known_to_the_next_process_until_a_faster_one_may_be_used() {
    let dir = TempDir::new().unwrap();
    let (fast, slow) = (Pace::default(), Pace::new(Duration::from_secs(9)));
    assert_eq!(open_db(dir.path()).paced(fast).unwrap(), fast);
    assert_eq!(open_db(dir.path()).paced(slow).unwrap(), fast);
    for _ in 0..2 {
        assert_eq!(open_db(dir.path()).paced(fast).unwrap(), slow);
    }
    open_db(dir.path()).put_pace(fast).unwrap();
    assert_eq!(open_db(dir.path()).paced(fast).unwrap(), fast);
}

#[test]
fn a_registry_that_vanished_is_not_replaced_by_a_new_cluster() {
    let dir = TempDir::new().unwrap();
    drop(open_db(dir.path()));
    fs::remove_dir_all(dir.path().join("registry")).unwrap();
    assert!(matches!(
        refused(dir.path()),
        OpenStoreError::WritesLost { found: 0, .. }
    ));
}

#[test]
fn the_data_of_another_cluster_is_refused_and_a_replaced_authority_is_not() {
    let dir = TempDir::new().unwrap();
    drop(open_db(dir.path()));
    let open_with = |authorities: &[&[u8]]| open(dir.path(), authorities, ME, form()).map(drop);
    assert!(matches!(
        open_with(&[THEIRS]),
        Err(OpenStoreError::OtherCluster { .. })
    ));
    open_with(&[OURS, THEIRS]).expect("both are trusted meanwhile");
    open_with(&[THEIRS]).expect("it is known now");
}

#[test]
fn other_formats_are_refused_with_what_to_do() {
    let format = |number: u32| {
        let dir = TempDir::new().unwrap();
        let db = open_db(dir.path());
        let mut batch = WriteBatch::default();
        batch.put_cf(db.state(), b"format", number.to_be_bytes());
        db.write_synced(batch).unwrap();
        drop(db);
        refused(dir.path())
    };
    let newer = format(9);
    assert!(
        matches!(
            newer,
            OpenStoreError::NewerFormat {
                found: 9,
                ours: 2,
                ..
            }
        ),
        "{newer}"
    );
    let older = format(1);
    assert!(
        matches!(
            older,
            OpenStoreError::OlderFormat {
                found: 1,
                ours: 2,
                ..
            }
        ),
        "{older}"
    );
}

#[test]
fn a_second_master_in_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let _first = open_db(dir.path());
    assert!(matches!(refused(dir.path()), OpenStoreError::Lock(_)));
}

#[test]
fn a_large_snapshot_is_kept_in_several_records_and_replaces_the_one_before() {
    let dir = TempDir::new().unwrap();
    let db = open_db(dir.path());
    let mut registry = Registry::default();
    for number in 0..6_000 {
        registry.apply(&admit(number)).unwrap();
    }
    let meta = |index| SnapshotMeta {
        last_log_id: Some(entry_id(1, ME, index)),
        last_membership: StoredMembers::new(
            Some(entry_id(0, ME, 0)),
            Membership::new(vec![[ME].into()], BTreeMap::from([(ME, member())])),
        ),
        snapshot_id: format!("s{index}"),
    };
    let large = snapshot::encode(&registry).unwrap();
    assert!(large.len() > 2 << 20, "{} bytes", large.len());
    snapshot::store(&db, &meta(5), Format::FIRST, &large).unwrap();
    drop(db);
    let db = open_db(dir.path());
    let (found, json) = snapshot::load(&db).unwrap().expect("it is there");
    assert_eq!(found, meta(5));
    assert_eq!(snapshot::decode(&json).unwrap(), registry);

    let small = snapshot::encode(&Registry::default()).unwrap();
    snapshot::store(&db, &meta(9), Format::FIRST, &small).unwrap();
    let (found, json) = snapshot::load(&db).unwrap().expect("it is there");
    assert_eq!(
        (found, json),
        (meta(9), small),
        "nothing is left of the first"
    );
}

#[test]
fn the_hash_tells_registries_apart_and_is_the_same_for_the_same() {
    let of = |life: &[Command]| {
        let mut registry = Registry::default();
        for command in life {
            let _ = registry.apply(command);
        }
        machine::hash(&registry).expect("it has a form in JSON")
    };
    let life = some_life();
    assert_eq!(of(&life), of(&life));
    for shorter in 0..life.len() - 1 {
        assert_ne!(of(&life[..shorter]), of(&life), "{shorter}");
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
    let db = open_db(&data);
    let ballast = dir.path().join("ballast");
    let disk = nix::sys::statvfs::statvfs(dir.path()).unwrap();
    let left = disk.blocks_available() * disk.fragment_size();
    let left = usize::try_from(left).unwrap();
    fs::write(&ballast, vec![0; left - (64 << 10)]).unwrap();

    let mut admitted = 0;
    let error = loop {
        match append(&db, vec![entry(2 + u64::from(admitted), admit(admitted))]) {
            Ok(()) => admitted += 1,
            Err(error) => break error,
        }
        assert!(admitted < 200_000, "the disk never filled up");
    };
    assert!(error.to_string().contains("no space left"), "{error}");
    drop(db);
    fs::remove_file(&ballast).unwrap();
    let found = commands(&open_db(&data)).len();
    assert!(
        found >= admitted as usize,
        "{found} of {admitted} acknowledged"
    );
}
