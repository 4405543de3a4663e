//! What was fetched, on its way to a sandbox: files of the slave alone, and those that are kept for
//! other tasks.
//!
//! `<data_dir>/fetch/` is the slave's own (0700) and is emptied at each start: what a crash left there is
//! in nobody's way, and nothing of it has to be trusted again. A file is known by its digest, which is
//! computed while it comes. Those that are kept are bounded in bytes and number; the least recently used
//! go first. A file that is being read may go, too: its reader has it open.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{Context, SHA256};
use meros_proto::fetch::Sha256;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use super::error::Failure;

/// Files that are kept at most, however small: their names are in memory.
const FILES_MAX: usize = 10_000;

/// The folder of what was fetched.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    bytes_max: u64,
    made: AtomicU64,
    kept: Mutex<Kept>,
    /// One lock for each file that is on its way and will be kept.
    under_way: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Kept {
    files: BTreeMap<Sha256, Entry>,
    by_uri: BTreeMap<String, Sha256>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    used: u64,
}

/// A fetched file, open for reading at its beginning.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

/// A file that comes. Removed when it is dropped.
pub(crate) struct Incoming {
    file: tokio::fs::File,
    path: PathBuf,
    digest: Context,
    bytes: u64,
}

impl Store {
    /// Blocks.
    pub(crate) fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self {
            folder,
            bytes_max,
            made: AtomicU64::new(0),
            kept: Mutex::default(),
            under_way: Mutex::default(),
        })
    }

    /// Bytes and number of the files that are kept.
    pub(crate) fn kept(&self) -> (u64, u64) {
        let kept = self.kept.lock();
        (kept.bytes, kept.files.len() as u64)
    }

    /// Held by whoever brings this file, so that it comes once.
    pub(crate) fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock();
        // As many as there are fetches at work, and those are bounded.
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(under_way.entry(key.to_owned()).or_default())
    }

    /// A file that is kept: the one of this digest, else the one of this URI.
    pub(crate) fn find(&self, uri: &str, digest: Option<Sha256>) -> Option<Fetched> {
        let mut kept = self.kept.lock();
        let digest = digest.or_else(|| kept.by_uri.get(uri).copied())?;
        kept.clock += 1;
        let now = kept.clock;
        let entry = kept.files.get_mut(&digest)?;
        entry.used = now;
        let bytes = entry.bytes;
        let file = File::open(self.path(digest)).ok()?;
        Some(Fetched { file, bytes })
    }

    pub(crate) async fn begin(&self) -> Result<Incoming, Failure> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("incoming-{number}"));
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Failure::Disk)?;
        Ok(Incoming {
            file: tokio::fs::File::from_std(file),
            path,
            digest: Context::new(&SHA256),
            bytes: 0,
        })
    }

    /// Takes a file that has come; with `keep` others find it by that URI.
    pub(crate) async fn finish(
        &self,
        mut incoming: Incoming,
        expected: Option<Sha256>,
        keep: Option<&str>,
    ) -> Result<Fetched, Failure> {
        incoming.file.flush().await.map_err(Failure::Disk)?;
        let digest = incoming.digest.clone().finish();
        let mut got = [0; 32];
        got.copy_from_slice(digest.as_ref());
        let got = Sha256(got);
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            return Err(Failure::Digest {
                expected: expected.to_string(),
                got: got.to_string(),
            });
        }
        let file = incoming.file.try_clone().await.map_err(Failure::Disk)?;
        let mut file = file.into_std().await;
        file.rewind().map_err(Failure::Disk)?;
        let bytes = incoming.bytes;
        if let Some(uri) = keep.filter(|_| bytes <= self.bytes_max) {
            self.keep(uri, got, bytes, &incoming.path)
                .map_err(Failure::Disk)?;
        }
        Ok(Fetched { file, bytes })
    }

    fn keep(&self, uri: &str, digest: Sha256, bytes: u64, path: &Path) -> io::Result<()> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let used = kept.clock;
        if !kept.files.contains_key(&digest) {
            while kept.bytes + bytes > self.bytes_max || kept.files.len() >= FILES_MAX {
                let oldest = kept.files.iter().min_by_key(|(_, entry)| entry.used);
                let Some(oldest) = oldest.map(|(digest, _)| *digest) else {
                    break;
                };
                self.drop_file(&mut kept, oldest);
            }
            fs::rename(path, self.path(digest))?;
            kept.files.insert(digest, Entry { bytes, used });
            kept.bytes += bytes;
        }
        if let Some(entry) = kept.files.get_mut(&digest) {
            entry.used = used;
        }
        if kept.by_uri.len() >= FILES_MAX && !kept.by_uri.contains_key(uri) {
            // Many names of few files: they are fetched again.
            kept.by_uri.clear();
        }
        kept.by_uri.insert(uri.to_owned(), digest);
        Ok(())
    }

    fn drop_file(&self, kept: &mut Kept, digest: Sha256) {
        if let Err(error) = fs::remove_file(self.path(digest)) {
            tracing::warn!(%digest, %error, "failed to remove a cached file");
        }
        if let Some(entry) = kept.files.remove(&digest) {
            kept.bytes -= entry.bytes;
        }
        kept.by_uri.retain(|_, it| *it != digest);
    }

    fn path(&self, digest: Sha256) -> PathBuf {
        self.folder.join(digest.to_string().replace(':', "-"))
    }
}

impl Incoming {
    /// Some more of it.
    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.digest.update(data);
        self.bytes += data.len() as u64;
        self.file.write_all(data).await.map_err(Failure::Disk)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Gone if it is kept.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    async fn bring(store: &Store, uri: &str, text: &str) {
        let mut incoming = store.begin().await.unwrap();
        incoming.write(text.as_bytes()).await.unwrap();
        let mut fetched = store.finish(incoming, None, Some(uri)).await.unwrap();
        let mut read = String::new();
        fetched.file.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first_and_a_reader_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("fetch"), 10).unwrap();
        bring(&store, "a", "1111").await;
        bring(&store, "b", "2222").await;
        let mut a = store.find("a", None).expect("it is kept");
        bring(&store, "c", "333").await;
        assert!(store.find("b", None).is_none(), "used before a");
        assert!(store.find("a", None).is_some());
        bring(&store, "d", "4444444444").await;
        assert_eq!(store.kept(), (10, 1));
        let mut read = String::new();
        a.file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "1111");
        bring(&store, "e", "more than ten bytes").await;
        assert_eq!(store.kept(), (10, 1), "too large to be kept");
        let left = fs::read_dir(dir.path().join("fetch")).unwrap().count();
        assert_eq!(left, 1, "what is not kept is gone");
    }

    #[tokio::test]
    async fn what_does_not_add_up_is_refused_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("fetch"), 100).unwrap();
        let mut incoming = store.begin().await.unwrap();
        incoming.write(b"abc").await.unwrap();
        let wrong = store
            .finish(incoming, Some(Sha256([0; 32])), Some("a"))
            .await;
        let error = wrong.unwrap_err();
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(error.to_string().contains(abc), "{error}");
        assert_eq!(store.kept(), (0, 0));
        let mut incoming = store.begin().await.unwrap();
        incoming.write(b"abc").await.unwrap();
        let digest: Sha256 = abc.parse().unwrap();
        store
            .finish(incoming, Some(digest), Some("a"))
            .await
            .unwrap();
        assert!(store.find("another", Some(digest)).is_some(), "by content");
        // The next life begins with nothing.
        let store = Store::open(dir.path().join("fetch"), 100).unwrap();
        assert!(store.find("a", None).is_none());
        assert_eq!(fs::read_dir(dir.path().join("fetch")).unwrap().count(), 0);
    }
}
