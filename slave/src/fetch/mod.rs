//! The fetcher: brings the files of a task into its sandbox before the task starts.
//!
//! Each file first becomes a file of the slave's own, with its size and digest checked, and goes from
//! there into the sandbox or is unpacked there; so nothing half, wrong or hostile is ever seen by a task.
//! Of one task the files come one after the other, and at most [`TASKS_MAX`] tasks have theirs fetched at
//! one time; the others wait. What is to be cached comes once, however many ask for it.
//!
//! Invariants: S23 nothing that is fetched is put outside of the task's sandbox or through a link, and what
//! a task finds came whole.
//!
//! Absent: proxies, credentials, resumed transfers; who may have which file (docs/decisions/0019).

mod cancel;
mod error;
pub(crate) mod http;
mod landing;
mod progress;
pub(crate) mod store;
mod unpack;
mod zip;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_proto::fetch::{FetchUri, check_uris};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub(crate) use cancel::{Cancel, Canceller, cancel};
pub(crate) use error::{Failure, FetchError};
pub(crate) use landing::Owner;
pub(crate) use progress::Progress;

use error::shortened;
use http::{Http, Meter};
use landing::{Landing, Place};
use store::{Fetched, Incoming, Store};
use unpack::{Budget, unpack};

/// Tasks that have their files fetched at the same time.
const TASKS_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

/// What an admin decides about fetching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchSettings {
    /// Folders of which tasks may have files.
    pub(crate) folders: Vec<PathBuf>,
    /// Bytes of one file.
    pub(crate) file_bytes_max: u64,
    /// Bytes that are put into one sandbox.
    pub(crate) task_bytes_max: u64,
    /// Bytes that are kept for other tasks; 0: nothing is.
    pub(crate) cache_bytes_max: u64,
    /// A transfer that brings almost nothing for this long is given up.
    pub(crate) stall: Duration,
    /// Certificate authorities that are trusted beside those of the system, as PEM.
    pub(crate) ca: Option<PathBuf>,
}

/// The fetcher cannot work.
#[derive(Debug, thiserror::Error)]
pub enum OpenFetcherError {
    /// Its folder cannot be emptied or made.
    #[error("failed to empty {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The authorities that were named cannot be used.
    #[error("cannot use the certificates in {}, see --fetch-ca: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What is counted of fetches.
#[derive(Debug, Default)]
pub(crate) struct FetchCounters {
    /// Files put into sandboxes.
    pub(crate) files: AtomicU64,
    /// Bytes that were downloaded or copied from folders, cache hits excepted.
    pub(crate) bytes: AtomicU64,
    /// Files that were in the cache.
    pub(crate) cache_hits: AtomicU64,
    /// Tasks whose files could not be fetched.
    pub(crate) failures: AtomicU64,
}

/// The fetcher of one slave.
#[derive(Debug)]
pub(crate) struct Fetcher {
    settings: FetchSettings,
    http: Http,
    store: Store,
    places: Semaphore,
    pub(crate) counters: FetchCounters,
}

/// Where files go.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) sandbox: PathBuf,
    /// Whose they will be, if not our own.
    pub(crate) owner: Option<Owner>,
}

impl Fetcher {
    /// Blocks.
    pub(crate) fn open(settings: FetchSettings, folder: PathBuf) -> Result<Self, OpenFetcherError> {
        let tls = Arc::new(trust(settings.ca.as_deref())?);
        let store = Store::open(folder.clone(), settings.cache_bytes_max);
        Ok(Self {
            http: Http {
                tls,
                stall: settings.stall,
                file_bytes_max: settings.file_bytes_max,
            },
            store: store.map_err(|source| OpenFetcherError::Folder {
                path: folder,
                source,
            })?,
            settings,
            places: Semaphore::new(TASKS_MAX),
            counters: FetchCounters::default(),
        })
    }

    /// Bytes and number of the files in the cache.
    pub(crate) fn cached(&self) -> (u64, u64) {
        self.store.kept()
    }

    /// Brings all of them, in their order, and says now and then how far it is. When it returns nothing
    /// is at work for it any more.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        uris: &[FetchUri],
        destination: &Destination,
        cancel: &Cancel,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), FetchError> {
        let progress = Progress::default();
        progress.says("waiting for the fetches of other tasks");
        let work = self.fetch_all(uris, destination, cancel, &progress);
        let result = progress.told(work, tell).await;
        if let Err(error) = &result
            && !matches!(error.why, Failure::Cancelled)
        {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn fetch_all(
        self: &Arc<Self>,
        uris: &[FetchUri],
        destination: &Destination,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let of = |uri: &str, why| FetchError {
            uri: uri.to_owned(),
            why,
        };
        check_uris(uris).map_err(|why| of("its files", Failure::Invalid(why)))?;
        let first = uris.first().map_or("", |uri| uri.value.as_str());
        let place = tokio::select! {
            () = cancel.cancelled() => return Err(of(first, Failure::Cancelled)),
            place = self.places.acquire() => place,
        };
        let mut left = self.settings.task_bytes_max;
        for (nth, uri) in uris.iter().enumerate() {
            let (number, of_all) = (nth + 1, uris.len());
            let name = shortened(&uri.value);
            progress.says(format!("fetching {name} ({number} of {of_all})"));
            let failed = |why| of(&uri.value, why);
            let fetched = self.bring(uri, cancel, &progress.meter).await;
            let fetched = fetched.map_err(failed)?;
            progress.says(format!(
                "putting {name} ({number} of {of_all}) into the sandbox"
            ));
            let put = Put {
                uri: uri.clone(),
                fetched,
                destination: destination.clone(),
                cancel: cancel.clone(),
                left,
                most: self.settings.task_bytes_max,
            };
            // It looks at the wish to cancel by itself, and is waited for.
            let put = spawn_blocking(move || put.run()).await;
            left = put
                .unwrap_or_else(|error| Err(Failure::Disk(io::Error::other(error))))
                .map_err(failed)?;
            self.counters.files.fetch_add(1, Ordering::Relaxed);
        }
        drop(place);
        Ok(())
    }

    /// A file as one of the slave's own.
    async fn bring(
        self: &Arc<Self>,
        uri: &FetchUri,
        cancel: &Cancel,
        meter: &Meter,
    ) -> Result<Fetched, Failure> {
        meter.bytes.store(0, Ordering::Relaxed);
        meter.expected.store(0, Ordering::Relaxed);
        let is_kept = uri.cache && self.settings.cache_bytes_max > 0;
        let digest = uri.digest.map(|it| it.to_string()).unwrap_or_default();
        let turn = is_kept.then(|| self.store.turn(&format!("{digest} {}", uri.value)));
        let download = async {
            let _turn = match &turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            let known = turn
                .as_ref()
                .and_then(|_| self.store.find(&uri.value, uri.digest));
            if let Some(known) = known {
                self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(known);
            }
            let mut incoming = self.store.begin().await?;
            match uri.local_path() {
                Some(path) => self.copy(path, &mut incoming, meter).await?,
                None => self.http.download(&uri.value, &mut incoming, meter).await?,
            }
            let bytes = meter.bytes.load(Ordering::Relaxed);
            self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            let keep = is_kept.then_some(uri.value.as_str());
            self.store.finish(incoming, uri.digest, keep).await
        };
        tokio::select! {
            () = cancel.cancelled() => Err(Failure::Cancelled),
            fetched = download => fetched,
        }
    }

    /// A file of this machine.
    async fn copy(
        self: &Arc<Self>,
        path: &str,
        into: &mut Incoming,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let path = percent_encoding::percent_decode_str(path).decode_utf8();
        let path = path.map_err(|_| Failure::Invalid("its path is not UTF-8".to_owned()))?;
        let (fetcher, path) = (Arc::clone(self), PathBuf::from(path.into_owned()));
        let opened = spawn_blocking(move || open_local(&fetcher.settings.folders, &path)).await;
        let mut file = opened.map_err(|error| Failure::Disk(io::Error::other(error)))??;
        let expected = file.metadata().map_err(Failure::Local)?.len();
        meter.expected.store(expected, Ordering::Relaxed);
        let mut total = 0;
        loop {
            let read = spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let read = file.read(&mut piece)?;
                piece.truncate(read);
                Ok::<_, io::Error>((file, piece))
            });
            let read = read.await.map_err(io::Error::other).and_then(|it| it);
            let (same, piece) = read.map_err(Failure::Local)?;
            file = same;
            if piece.is_empty() {
                return Ok(());
            }
            total += piece.len() as u64;
            if total > self.settings.file_bytes_max {
                return Err(Failure::TooLarge {
                    what: "the file",
                    max: self.settings.file_bytes_max,
                    option: "file",
                });
            }
            into.write(&piece).await?;
            meter.bytes.store(total, Ordering::Relaxed);
        }
    }
}

/// Opens a file below one of the folders that are allowed, whatever links there are.
pub(crate) fn open_local(folders: &[PathBuf], path: &Path) -> Result<File, Failure> {
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let mut folders = folders.iter();
    let below = folders.find_map(|folder| Some((folder, path.strip_prefix(folder).ok()?)));
    let Some((folder, rest)) = below.filter(|_| is_plain) else {
        return Err(Failure::NotAllowed);
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let folder = openat(CWD, folder, flags, Mode::empty());
    let folder = folder.map_err(|error| Failure::Local(error.into()))?;
    // Not blocked by a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&folder, rest, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::XDEV) => return Err(Failure::NotAllowed),
        Err(error) => return Err(Failure::Local(error.into())),
    };
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => Err(Failure::Invalid("it is not a regular file".to_owned())),
        Err(error) => Err(Failure::Local(error)),
    }
}

/// The last step of a file: into the sandbox. Blocks.
struct Put {
    uri: FetchUri,
    fetched: Fetched,
    destination: Destination,
    cancel: Cancel,
    left: u64,
    most: u64,
}

impl Put {
    /// How many bytes are left to the task.
    fn run(mut self) -> Result<u64, Failure> {
        let Fetched { file, bytes } = &mut self.fetched;
        let landing = Landing::open(&self.destination.sandbox, self.destination.owner)?;
        let mut budget = Budget::new(&self.cancel, *bytes, &mut self.left, self.most);
        let name = self.uri.name();
        if self.uri.is_unpacked() {
            unpack(name, file, &landing, &mut budget)?;
            return Ok(self.left);
        }
        let place = Place::parse(name)?;
        let place = place.ok_or_else(|| Failure::Invalid("it has no name".to_owned()))?;
        let mut into = landing.file(&place)?;
        budget.copy(file, &mut into)?;
        let mode = if self.uri.executable { 0o755 } else { 0o644 };
        landing.seal(&place, &into, mode)?;
        Ok(self.left)
    }
}

/// The authorities of the system and those of the admin's.
pub(crate) fn trust(more: Option<&Path>) -> Result<ClientConfig, OpenFetcherError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::warn!(%error, "certificates of the system cannot be read");
    }
    // Some of any system are of no use to anybody.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = more {
        let wrong = |why: String| OpenFetcherError::Ca {
            path: path.to_owned(),
            why,
        };
        let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
        if let Some(error) = found.errors.first() {
            return Err(wrong(error.to_string()));
        }
        if found.certs.is_empty() {
            return Err(wrong("there is none in it".to_owned()));
        }
        for certificate in found.certs {
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the versions that it was made for");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
