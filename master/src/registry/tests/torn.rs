//! A data directory as a copy that was made while it was written leaves it, or a disk that lost the end of
//! a file: all that was promised is there, or it is refused with what to do; never is it quietly older.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Each moment and each cut is drawn from these, so that a failure can be seen again.
const SEEDS: [u64; 3] = [1, 2, 3];
const COPIES: usize = 8;
const CUTS: usize = 16;
/// Writes to begin with, so that there are several files of each kind: the buffers hold 1 MiB.
const WRITES_MIN: u64 = 400;

/// splitmix64: any random numbers will do, if they are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            let other = self.below(at as u64 + 1);
            list.swap(at, usize::try_from(other).unwrap());
        }
    }
}

/// 8 KiB that RocksDB cannot make smaller by much.
fn bulky(index: u64) -> Command {
    let mut random = Random(index);
    let text = |_| char::from(b'a' + u8::try_from(random.below(26)).unwrap());
    let mut slave = description("");
    slave.hostname = (0..8 << 10).map(text).collect();
    Command::UpdateSlave {
        slave_id: SlaveId(0),
        slave,
    }
}

/// Writes one entry as a master does, and now and then a snapshot instead of the entries before.
fn write(db: &Db, index: u64) {
    append(db, vec![entry(index, bulky(index))]).unwrap();
    if index.is_multiple_of(100) {
        let members = Membership::new(vec![[ME].into()], BTreeMap::from([(ME, member())]));
        let meta = SnapshotMeta {
            last_log_id: Some(entry_id(1, ME, index)),
            last_membership: StoredMembers::new(Some(entry_id(0, ME, 0)), members),
            snapshot_id: format!("s{index}"),
        };
        let json = snapshot::encode(&Registry::default()).unwrap();
        snapshot::store(db, &meta, Format::FIRST, &json).unwrap();
        let mut batch = WriteBatch::default();
        let end = (index - 20).to_be_bytes();
        batch.delete_range_cf(db.log(), 0_u64.to_be_bytes(), end);
        db.write_unsynced(batch).unwrap();
    }
}

/// The last entry that a master would find, by its snapshot and its log; or why it does not start.
fn last_found(dir: &Path) -> Result<u64, OpenStoreError> {
    let opened = open(dir, &[OURS], ME, Start::Join)?;
    let db = opened.db;
    let snapshot = snapshot::load(&db)?.and_then(|(meta, _)| meta.last_log_id);
    let mut last = snapshot.map_or(0, |id| id.index);
    let mut before: Option<u64> = None;
    for found in db.entries(0) {
        let index = found?.0.log_id.index;
        let follows = before.map_or(index <= last + 1, |before| before + 1 == index);
        assert!(follows, "a gap before entry {index}");
        before = Some(index);
    }
    last = last.max(before.unwrap_or(0));
    Ok(last)
}

/// Whatever was refused, the message says where and what to do.
fn assert_helpful(error: &OpenStoreError, at: &str) {
    let text = error.to_string();
    assert!(text.contains("registry"), "{at}: {text}");
    let helps = ["meros masters replace", "meros restore"];
    assert!(helps.iter().all(|help| text.contains(help)), "{at}: {text}");
}

/// All files below, as paths from it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = PathBuf::from(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|path| name.join(path))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn a_copy_made_while_it_is_written_holds_all_of_it_or_is_refused() {
    for seed in SEEDS {
        let (dir, mut random) = (TempDir::new().unwrap(), Random(seed));
        let db = open_db(dir.path());
        let (written, stop) = (AtomicU64::new(1), AtomicBool::new(false));
        let mut refused = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for index in 2.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    write(&db, index);
                    written.store(index, Ordering::Release);
                }
            });
            while written.load(Ordering::Acquire) < WRITES_MIN {
                std::thread::yield_now();
            }
            for number in 0..COPIES {
                std::thread::sleep(Duration::from_micros(random.below(20_000)));
                let copy = TempDir::new().unwrap();
                let promised = written.load(Ordering::Acquire);
                fs::create_dir(copy.path().join("registry")).unwrap();
                let mut files = files(dir.path());
                random.shuffle(&mut files);
                for file in files {
                    // One that is gone meanwhile is not in the copy.
                    let _ = fs::copy(dir.path().join(&file), copy.path().join(&file));
                }
                let at = format!("seed {seed}, copy {number}");
                match last_found(copy.path()) {
                    Ok(last) => assert!(last >= promised, "{at}: {last} of {promised}"),
                    Err(error) => {
                        refused += 1;
                        assert_helpful(&error, &at);
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        eprintln!("seed {seed}: {refused} of {COPIES} copies refused");
    }
}

#[test]
fn a_file_that_lost_its_end_or_is_gone_loses_nothing_unnoticed() {
    for seed in SEEDS {
        let (dir, mut random) = (TempDir::new().unwrap(), Random(seed));
        let db = open_db(dir.path());
        for index in 2..=WRITES_MIN {
            write(&db, index);
        }
        drop(db);
        let (mut refused, files) = (0, files(dir.path()));
        for number in 0..CUTS {
            let copy = TempDir::new().unwrap();
            copy_dir(dir.path(), copy.path());
            let at = usize::try_from(random.below(files.len() as u64)).unwrap();
            let path = copy.path().join(&files[at]);
            let length = fs::metadata(&path).unwrap().len();
            let left = random.below(length + 1);
            match number % 4 {
                0 => fs::remove_file(&path).unwrap(),
                _ => cut(&path, length - left),
            }
            let what = format!(
                "seed {seed}, {}, {left} of {length} bytes",
                files[at].display()
            );
            match last_found(copy.path()) {
                Ok(last) => assert_eq!(last, WRITES_MIN, "{what}"),
                Err(error) => {
                    refused += 1;
                    assert_helpful(&error, &what);
                }
            }
        }
        eprintln!("seed {seed}: {refused} of {CUTS} refused");
    }
}
