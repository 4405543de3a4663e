use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::message::slave::{RunExecutor, RunTask, TaskFramework};
use meros_proto::status::{Source, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;
use meros_slave_core::{Claims, RecordId, TaskKey};

use super::writer::Writer;
use super::*;

const SLAVE: SlaveId = SlaveId(3);

fn run(framework: u32, task: &str) -> Record {
    let resources = "cpus:1".parse().unwrap();
    let command = Command::shell("true");
    let task_id = TaskId::new(task).unwrap();
    Record::TaskAdded(Box::new(RunTask {
        framework: TaskFramework {
            framework_id: FrameworkId(framework),
            name: "f".to_owned(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: "*".parse().unwrap(),
        task: TaskDescription::command(task_id, SLAVE, resources, command),
    }))
}

fn key(framework: u32, task: &str) -> TaskKey {
    (FrameworkId(framework), TaskId::new(task).unwrap())
}

fn update(framework: u32, task: &str, number: u64, state: TaskState) -> Record {
    let task_id = TaskId::new(task).unwrap();
    let mut status = TaskStatus::new(task_id, state, Source::Slave, Timestamp(number));
    status.update_id = Some(UpdateId::by_slave(SLAVE, 1, number));
    Record::UpdateMade {
        framework_id: FrameworkId(framework),
        status: Box::new(status),
    }
}

fn executor(framework: u32, id: &str) -> Record {
    let Record::TaskAdded(run) = run(framework, "any") else {
        unreachable!("it makes no other")
    };
    let id = ExecutorId::new(id).unwrap();
    let resources = "cpus:0.1".parse().unwrap();
    Record::ExecutorAdded(Box::new(RunExecutor {
        framework: run.framework,
        role: run.role,
        executor: ExecutorDescription::new(id, Command::shell("true"), resources),
    }))
}

fn group(framework: u32, id: &str, tasks: &[&str]) -> Record {
    let id = ExecutorId::new(id).unwrap();
    let group = ExecutorDescription::group(id, "mem:8".parse().unwrap());
    let members = tasks.iter().map(|task| match run(framework, task) {
        Record::TaskAdded(mut run) => {
            run.task.executor = Some(group.clone());
            *run
        }
        other => unreachable!("it makes no other: {other:?}"),
    });
    let tasks: Vec<_> = members.collect();
    let executor = Box::new(RunExecutor {
        framework: tasks[0].framework.clone(),
        role: tasks[0].role.clone(),
        executor: group,
    });
    Record::GroupAdded { executor, tasks }
}

/// The update of the task `in-e`.
fn heard(framework: u32, id: &str, heard: u64, number: u64, state: TaskState) -> Record {
    let Record::UpdateMade { status, .. } = update(framework, "in-e", number, state) else {
        unreachable!("it makes no other")
    };
    Record::UpdateHeard {
        framework_id: FrameworkId(framework),
        executor_id: ExecutorId::new(id).unwrap(),
        number: heard,
        status,
    }
}

fn identity() -> Record {
    Record::Identity(Identity {
        slave_id: SLAVE,
        cluster_id: ClusterId(9),
    })
}

/// One of each kind, in an order that may happen.
fn life() -> Vec<Record> {
    vec![
        Record::IncarnationStarted(1),
        identity(),
        Record::TermHeard(Epoch(7)),
        run(1, "a"),
        run(1, "aa"),
        run(2, "b"),
        run(u32::MAX, "c"),
        update(1, "a", 1, TaskState::Running),
        update(1, "a", 2, TaskState::Finished),
        update(1, "aa", 3, TaskState::Running),
        update(u32::MAX, "c", 5, TaskState::Running),
        update(u32::MAX, "c", 6, TaskState::Killing),
        Record::UpdateAcknowledged {
            task: key(u32::MAX, "c"),
            update_id: UpdateId::by_slave(SLAVE, 1, 5),
        },
        Record::UpdateAcknowledged {
            task: key(u32::MAX, "c"),
            update_id: UpdateId::by_slave(SLAVE, 1, 6),
        },
        Record::UpdateAcknowledged {
            task: key(1, "a"),
            update_id: UpdateId::by_slave(SLAVE, 1, 1),
        },
        update(2, "b", 4, TaskState::Running),
        update(1, "phantom", 256, TaskState::Gone),
        update(1, "phantom", 255, TaskState::Dropped),
        Record::TaskForgotten { task: key(1, "a") },
        executor(1, "e"),
        executor(1, "gone"),
        executor(2, "e"),
        run(1, "in-e"),
        heard(1, "e", 1, 7, TaskState::Starting),
        heard(1, "e", 2, 8, TaskState::Running),
        heard(1, "e", 3, 9, TaskState::Starting),
        Record::ExecutorForgotten {
            executor: (FrameworkId(1), ExecutorId::new("gone").unwrap()),
        },
        group(1, "g", &["ga", "gb"]),
        group(1, "h", &["ha"]),
        Record::GroupEnding {
            executor: (FrameworkId(1), ExecutorId::new("g").unwrap()),
        },
        update(1, "ga", 10, TaskState::Failed),
        Record::FrameworkShutDown {
            framework_id: FrameworkId(2),
        },
        Record::IncarnationStarted(2),
        claims("cpus(web,):1;disk(web)[db:data]:64"),
    ]
}

fn claims(resources: &str) -> Record {
    let key = ("web".parse().unwrap(), "db".to_owned());
    Record::ClaimsChanged(Box::new(Claims {
        resources: resources.parse().unwrap(),
        volumes: [(key, serde_json::from_value("db.1".into()).unwrap())].into(),
        volumes_made: 1,
        ..Claims::default()
    }))
}

fn reopened(path: &Path) -> Recovered {
    Store::open(path).unwrap().1
}

/// Updates are found in the order of their ids. That is the order in which they are made, but for those of
/// `phantom`, which show that the keys sort as the numbers do.
fn by_id(mut checkpoint: Checkpoint) -> Checkpoint {
    for updates in checkpoint.updates.values_mut() {
        updates
            .make_contiguous()
            .sort_by_key(|status| status.update_id);
    }
    checkpoint
}

#[test]
fn what_is_found_is_what_the_records_add_up_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let mut expected = Checkpoint::default();
    for record in life() {
        let (store, found) = Store::open(&path).unwrap();
        assert_eq!(found.checkpoint, by_id(expected.clone()));
        assert_eq!(found.damaged, 0);
        store.append(std::slice::from_ref(&record)).unwrap();
        expected.apply(record);
    }
    let (store, _) = Store::open(&path).unwrap();
    store.append(&[Record::Left]).unwrap();
    drop(store);
    expected.apply(Record::Left);
    assert_eq!(reopened(&path).checkpoint, expected);
}

#[test]
fn the_same_records_again_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.append(&life()).unwrap();
    store.append(&life()).unwrap();
    drop(store);
    let once: Checkpoint = life().into_iter().collect();
    assert_eq!(reopened(dir.path()).checkpoint, by_id(once));
}

#[test]
fn a_damaged_value_costs_its_own_task_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store
        .append(&[
            identity(),
            run(1, "good"),
            run(1, "bad"),
            update(1, "odd", 1, TaskState::Gone),
        ])
        .unwrap();
    store
        .db
        .put(keys::task(&key(1, "bad")), b"\x01rubbish")
        .unwrap();
    store
        .db
        .put(
            keys::update(&key(1, "odd"), UpdateId::by_slave(SLAVE, 1, 1)),
            b"",
        )
        .unwrap();
    store.db.put(b"t\0\0\0\x01a/b", b"").unwrap();
    drop(store);
    let found = reopened(dir.path());
    assert_eq!(found.damaged, 3);
    let tasks: Vec<TaskKey> = found.checkpoint.tasks.into_keys().collect();
    assert_eq!(tasks, [key(1, "good")]);
    assert!(found.checkpoint.updates.is_empty());
    assert!(found.checkpoint.identity.is_some());
}

#[test]
fn a_damaged_identity_or_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.db.put(keys::IDENTITY, b"\x01").unwrap();
    drop(store);
    let error = Store::open(dir.path()).expect_err("nobody knows who this is");
    assert!(matches!(error, OpenStoreError::Corrupt { .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store
        .db
        .put(keys::FORMAT, encode_own(&(FORMAT + 1)))
        .unwrap();
    drop(store);
    let error = Store::open(dir.path()).expect_err("from the future");
    assert!(
        matches!(
            error,
            OpenStoreError::NewerFormat {
                found: 5,
                ours: 4,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_older_format_is_taken_over_without_tasks_and_refused_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let older = |store: &Store| store.db.put(keys::FORMAT, encode_own(&2_u32)).unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.append(&[identity()]).unwrap();
    older(&store);
    drop(store);
    let (store, found) = Store::open(dir.path()).expect("the same in both");
    assert!(found.checkpoint.identity.is_some());
    assert_eq!(store.read(keys::FORMAT).unwrap(), Some(FORMAT));
    store.append(&[run(1, "a")]).unwrap();
    older(&store);
    drop(store);
    for _ in 0..2 {
        let error = Store::open(dir.path()).expect_err("it would misread the task");
        assert!(
            matches!(error, OpenStoreError::OlderFormat { found: 2, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_torn_write_at_the_end_costs_what_was_not_promised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let (store, _) = Store::open(&path).unwrap();
    store.append(&[identity(), run(1, "a")]).unwrap();
    store.append(&[run(1, "b")]).unwrap();
    // A crash leaves the files as they are now, not as a clean end would.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    drop(store);
    let logs = std::fs::read_dir(&copy)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let log = logs
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .max()
        .unwrap();
    let bytes = std::fs::metadata(&log).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(bytes - 3)
        .unwrap();
    let found = reopened(&copy).checkpoint;
    assert!(found.identity.is_some());
    assert_eq!(found.tasks.into_keys().collect::<Vec<_>>(), [key(1, "a")]);
}

#[test]
fn many_records_share_a_sync_and_are_durable_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let (store, _) = Store::open(&path).unwrap();
    let writer = Writer::start(store, path.clone()).unwrap();
    writer.write(RecordId(1), identity()).unwrap();
    for number in 2..=2_000 {
        writer
            .write(RecordId(number), run(1, &format!("t{number}")))
            .unwrap();
    }
    let progress = std::sync::Arc::clone(&writer.progress);
    while progress.durable() < RecordId(2_000) {
        writer.woken.recv().unwrap();
    }
    let Writer {
        records, thread, ..
    } = writer;
    drop(records);
    thread.join().unwrap();
    // How many share one depends on the machine: on a fast disk and a busy processor few do.
    assert!(
        progress.syncs() < 2_000,
        "{} syncs for 2000 records",
        progress.syncs()
    );
    assert_eq!(reopened(&path).checkpoint.tasks.len(), 1_999);
}

#[test]
fn a_locked_directory_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = DataDirLock::acquire(dir.path()).unwrap();
    let error = DataDirLock::acquire(dir.path())
        .expect_err("it is taken")
        .to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())),
        "{error}"
    );
}

/// A disk of 8 MiB, unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// None, with the reason printed, where we may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (kind, size) = (Some("tmpfs"), Some("size=8m"));
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("tmpfs"), dir.path(), kind, flags, size) {
            Ok(()) => Some(Self { dir }),
            Err(error) => {
                eprintln!("skipped: a small disk cannot be mounted ({error}); run as root");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let block = vec![0; 4_096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_promised_meanwhile() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let path = disk.dir.path().join("checkpoint");
    let (store, _) = Store::open(&path).unwrap();
    let patience = std::time::Duration::from_secs(60);
    let writer = Writer::start_patient(store, path.clone(), patience).unwrap();
    writer.write(RecordId(1), identity()).unwrap();
    writer.woken.recv().unwrap();
    disk.fill();
    let mut last = 1;
    while writer.progress.failures() == 0 {
        last += 1;
        writer
            .write(RecordId(last), run(1, &format!("t{last}")))
            .unwrap();
        std::thread::yield_now();
    }
    assert!(
        writer.progress.durable() < RecordId(last),
        "promised on a full disk"
    );
    std::fs::remove_file(disk.filler()).unwrap();
    while writer.progress.durable() < RecordId(last) {
        writer.woken.recv().expect("it goes on");
    }
    let Writer {
        records, thread, ..
    } = writer;
    drop(records);
    thread.join().unwrap();
    let found = reopened(&path).checkpoint;
    assert_eq!(found.tasks.len() as u64, last - 1);
}

#[test]
fn a_disk_that_stays_full_ends_the_slave_with_a_reason() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let path = disk.dir.path().join("checkpoint");
    let (store, _) = Store::open(&path).unwrap();
    let writer = Writer::start_patient(store, path, std::time::Duration::ZERO).unwrap();
    disk.fill();
    let mut last = 0;
    let reason = loop {
        last += 1;
        if writer
            .write(RecordId(last), run(1, &format!("t{last}")))
            .is_err()
        {
            break writer.failed.recv().unwrap();
        }
    };
    assert!(
        matches!(&reason, crate::ExitReason::CheckpointFailed { .. }),
        "{reason}"
    );
    assert!(reason.to_string().contains("No space left"), "{reason}");
}
