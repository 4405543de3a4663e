//! Images on disk: each layer unpacked once, for all containers; and what images are made of which.
//!
//! ```text
//! <data_dir>/images/layers/<digest>/fs           the tree of a layer, by what its tarball adds up to
//!                                  /layer.json   how many entries and bytes that has
//!                  /manifests/<digest>.json      an image: its manifest and configuration, as they came
//!                  /new-…                        what is being made, or was when a slave crashed
//! ```
//! A layer is made beside, brought to the disk and renamed: after a crash at any moment it is there whole, or
//! not at all. What is read back is checked: documents add up to their digests, and of each layer the entries
//! and bytes are counted when it is first used in a life of the slave. What does not agree is dropped, and
//! comes anew.
//!
//! Containers [hold](Hold) their layers. When there is more than is allowed, images go of which some layer is held
//! by nobody, the least recently used first, and then the layers that are no image's. Invariant S25: a layer that
//! is held is never removed or changed.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use meros_proto::fetch::Sha256;
use parking_lot::Mutex;
use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::Failure;
use super::manifest::{
    ConfigDocument, DOCUMENT_BYTES_MAX, Document, ImageConfig, LAYERS_MAX, sha256,
};

/// Images that are known at most: their commands and variables are in memory.
const IMAGES_MAX: usize = 1_000;
/// Three documents, as text in JSON.
const RECORD_BYTES_MAX: u64 = 8 * DOCUMENT_BYTES_MAX;
const LAYER_FILE: &str = "layer.json";
const TREE: &str = "fs";
const NEW: &str = "new-";

/// What an image is made of, as it came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of several platforms, if it was one of them.
    pub(super) index: Option<Sha256>,
    pub(super) manifest: String,
    pub(super) config: String,
    /// How it was asked for when it came, for people.
    pub(super) reference: String,
}

/// An image that is here.
#[derive(Debug)]
pub(crate) struct StoredImage {
    /// Of its manifest.
    pub(crate) digest: Sha256,
    pub(super) index: Option<Sha256>,
    pub(crate) reference: String,
    pub(crate) config: ImageConfig,
    /// The lowest first.
    pub(super) layers: Vec<Sha256>,
}

impl StoredImage {
    fn parse(record: &Record) -> Result<Self, Failure> {
        let Document::Manifest(manifest) = Document::parse(record.manifest.as_bytes())? else {
            return Err(Failure::Corrupt("its record has no manifest".to_owned()));
        };
        let expected = manifest.config.digest()?;
        let got = sha256(record.config.as_bytes());
        if got != expected {
            return Err(Failure::digest("its configuration", expected, got));
        }
        let ConfigDocument { config, diff_ids } = ConfigDocument::parse(record.config.as_bytes())?;
        if diff_ids.len() != manifest.layers.len() || diff_ids.len() > LAYERS_MAX {
            let why = "its manifest and its configuration have not the same layers";
            return Err(Failure::Corrupt(why.to_owned()));
        }
        Ok(Self {
            digest: sha256(record.manifest.as_bytes()),
            index: record.index,
            reference: record.reference.clone(),
            config,
            layers: diff_ids,
        })
    }
}

/// How much is in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Census {
    entries: u64,
    bytes: u64,
}

impl Census {
    /// Bytes of files; those with several names count once. Blocks.
    fn take(tree: &Path) -> io::Result<Self> {
        let mut folders = vec![tree.to_owned()];
        let mut linked = BTreeSet::new();
        let (mut entries, mut bytes) = (0, 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let found = entry.metadata()?;
                entries += 1;
                if found.is_dir() {
                    folders.push(entry.path());
                } else if found.is_file() && (found.nlink() == 1 || linked.insert(found.ino())) {
                    bytes += found.len();
                }
            }
        }
        Ok(Self { entries, bytes })
    }
}

#[derive(Debug)]
struct Layer {
    census: Census,
    holds: usize,
    /// Whether it was counted in this life.
    is_checked: bool,
}

#[derive(Debug)]
struct Entry {
    image: Arc<StoredImage>,
    used: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    /// By the digests of their manifests.
    images: BTreeMap<Sha256, Entry>,
    layers: BTreeMap<Sha256, Layer>,
}

/// All images of a slave.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    bytes_max: u64,
    made: AtomicU64,
    state: Mutex<State>,
    /// One lock for each thing that is on its way.
    under_way: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Images and layers that were not what they should be.
    pub(super) damaged: AtomicU64,
    /// Bytes of the layers that were removed to make room.
    pub(super) collected_bytes: AtomicU64,
}

/// A layer that is in use. It stays as long as somebody has one.
#[derive(Debug)]
pub(crate) struct Hold {
    store: Arc<Store>,
    layer: Sha256,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        if let Some(layer) = state.layers.get_mut(&self.layer) {
            layer.holds -= 1;
        }
    }
}

/// A folder for something that is being made; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "failed to remove what is no image any more");
        }
        _ => {}
    }
}

fn name(digest: Sha256) -> String {
    digest.to_string().replace("sha256:", "")
}

impl Store {
    /// Reads what an earlier slave has left. Blocks.
    pub(super) fn open(root: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for folder in [root.clone(), root.join("layers"), root.join("manifests")] {
            builder.create(folder)?;
        }
        let store = Self {
            root,
            bytes_max,
            made: AtomicU64::new(0),
            state: Mutex::default(),
            under_way: Mutex::default(),
            damaged: AtomicU64::new(0),
            collected_bytes: AtomicU64::new(0),
        };
        for entry in fs::read_dir(&store.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                remove(&entry.path());
            }
        }
        let mut state = State::default();
        for entry in fs::read_dir(store.root.join("layers"))? {
            let entry = entry?;
            let census = read_json::<Census>(&entry.path().join(LAYER_FILE));
            let digest = entry.file_name().to_str().and_then(|it| it.parse().ok());
            let has_tree = entry.path().join(TREE).is_dir();
            let (Some(digest), Some(census), true) = (digest, census, has_tree) else {
                store.damaged.fetch_add(1, Ordering::Relaxed);
                warn!(path = %entry.path().display(), "a layer of an image is damaged, and removed");
                remove(&entry.path());
                continue;
            };
            let layer = Layer {
                census,
                holds: 0,
                is_checked: false,
            };
            state.layers.insert(digest, layer);
        }
        for entry in fs::read_dir(store.root.join("manifests"))? {
            store.read_image(&entry?.path(), &mut state);
        }
        *store.state.lock() = state;
        Ok(store)
    }

    fn read_image(&self, path: &Path, state: &mut State) {
        let image = read_json::<Record>(path).and_then(|it| StoredImage::parse(&it).ok());
        let stem = path.file_stem().and_then(|it| it.to_str());
        let digest: Option<Sha256> = stem.and_then(|it| it.parse().ok());
        let image = image.filter(|it| digest == Some(it.digest));
        let is_whole = |it: &StoredImage| {
            it.layers
                .iter()
                .all(|layer| state.layers.contains_key(layer))
        };
        let Some(image) = image.filter(is_whole) else {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            warn!(path = %path.display(), "an image is damaged or has lost a layer, and is forgotten");
            let _ = fs::remove_file(path);
            return;
        };
        let used = fs::metadata(path).and_then(|found| found.modified());
        let entry = Entry {
            used: used.unwrap_or(SystemTime::UNIX_EPOCH),
            image: Arc::new(image),
        };
        state.images.insert(entry.image.digest, entry);
    }

    /// Bytes of all layers, their number, and that of images.
    pub(super) fn kept(&self) -> (u64, u64, u64) {
        let state = self.state.lock();
        let bytes = state.layers.values().map(|layer| layer.census.bytes).sum();
        (bytes, state.layers.len() as u64, state.images.len() as u64)
    }

    /// Held by whoever brings this, so that it comes once.
    pub(super) fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock();
        // As many as there are tasks that wait, and those are bounded.
        under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(under_way.entry(key.to_owned()).or_default())
    }

    /// An image by the digest of its manifest or its index, with a hold on each of its layers, the lowest
    /// first. Blocks: its layers may be counted.
    pub(super) fn use_image(
        self: &Arc<Self>,
        digest: Sha256,
    ) -> Option<(Arc<StoredImage>, Vec<Hold>)> {
        let image = {
            let state = self.state.lock();
            let by_index = || {
                let mut all = state.images.values();
                all.find(|entry| entry.image.index == Some(digest))
            };
            Arc::clone(&state.images.get(&digest).or_else(by_index)?.image)
        };
        let holds = image.layers.iter().map(|layer| self.hold(*layer));
        let Some(holds) = holds.collect::<Option<Vec<Hold>>>() else {
            // A layer was damaged.
            self.forget(image.digest);
            return None;
        };
        let now = SystemTime::now();
        if let Some(entry) = self.state.lock().images.get_mut(&image.digest) {
            entry.used = now;
        }
        // For the next life; what is not noted is only collected sooner.
        let noted = File::options()
            .write(true)
            .open(self.manifest(image.digest));
        let _ = noted.and_then(|file| file.set_modified(now));
        Some((image, holds))
    }

    /// A hold on a layer that is here and whole. Blocks when it is used for the first time.
    pub(super) fn hold(self: &Arc<Self>, digest: Sha256) -> Option<Hold> {
        let (hold, census, is_checked) = {
            let mut state = self.state.lock();
            let layer = state.layers.get_mut(&digest)?;
            layer.holds += 1;
            let hold = Hold {
                store: Arc::clone(self),
                layer: digest,
            };
            (hold, layer.census, layer.is_checked)
        };
        if is_checked {
            return Some(hold);
        }
        let found = Census::take(&self.tree(digest));
        let is_whole = found.as_ref().is_ok_and(|found| *found == census);
        let mut state = self.state.lock();
        let layer = state.layers.get_mut(&digest)?;
        if is_whole {
            layer.is_checked = true;
            return Some(hold);
        }
        self.damaged.fetch_add(1, Ordering::Relaxed);
        warn!(layer = %digest, "a layer of an image is damaged, and comes anew");
        let is_ours_alone = layer.holds == 1;
        if is_ours_alone {
            state.layers.remove(&digest);
            let gone = self.set_aside(digest);
            drop(state);
            drop(hold);
            gone.inspect(|path| remove(path));
        } else {
            drop(state);
            drop(hold);
        }
        None
    }

    /// The hold that a container of an earlier slave has on what its tree is made of.
    pub(super) fn hold_trees(self: &Arc<Self>, trees: &[PathBuf]) -> Vec<Hold> {
        let digests = trees.iter().filter_map(|tree| {
            let folder = tree.parent().filter(|it| it.starts_with(&self.root))?;
            folder.file_name()?.to_str()?.parse::<Sha256>().ok()
        });
        let mut state = self.state.lock();
        let held = digests.filter_map(|digest| {
            state.layers.get_mut(&digest)?.holds += 1;
            Some(Hold {
                store: Arc::clone(self),
                layer: digest,
            })
        });
        held.collect()
    }

    /// Where the tree of a layer is.
    pub(super) fn tree(&self, digest: Sha256) -> PathBuf {
        self.layer(digest).join(TREE)
    }

    fn layer(&self, digest: Sha256) -> PathBuf {
        self.root.join("layers").join(name(digest))
    }

    fn manifest(&self, digest: Sha256) -> PathBuf {
        let name = format!("{}.json", name(digest));
        self.root.join("manifests").join(name)
    }

    fn fresh(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("{NEW}{number}"))
    }

    /// A folder of ours for something new.
    pub(super) fn scratch(&self) -> io::Result<Scratch> {
        let path = self.fresh();
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch { path })
    }

    /// Where the tree of a new layer is made.
    pub(super) fn new_tree(scratch: &Scratch) -> io::Result<PathBuf> {
        let tree = scratch.path.join(TREE);
        DirBuilder::new().mode(0o755).create(&tree)?;
        Ok(tree)
    }

    /// Takes a layer that was made. Blocks until it is on the disk.
    pub(super) fn adopt(
        self: &Arc<Self>,
        digest: Sha256,
        scratch: &Scratch,
    ) -> Result<Hold, Failure> {
        let census = Census::take(&scratch.path.join(TREE)).map_err(Failure::Disk)?;
        let write = || {
            write_json(&scratch.path.join(LAYER_FILE), &census)?;
            syncfs(File::open(&scratch.path)?)?;
            Ok(())
        };
        write().map_err(Failure::Disk)?;
        let mut state = self.state.lock();
        let layer = match state.layers.entry(digest) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(place) => {
                let to = self.layer(digest);
                fs::rename(&scratch.path, &to).map_err(Failure::Disk)?;
                place.insert(Layer {
                    census,
                    holds: 0,
                    is_checked: true,
                })
            }
        };
        if !layer.is_checked {
            // Only one that containers of an earlier slave are made of is not replaced.
            return Err(Failure::Corrupt(format!(
                "layer {digest} is damaged on this slave's disk, and containers are made of it: end those first"
            )));
        }
        layer.holds += 1;
        let hold = Hold {
            store: Arc::clone(self),
            layer: digest,
        };
        drop(state);
        sync(&self.root.join("layers")).map_err(Failure::Disk)?;
        Ok(hold)
    }

    /// Takes an image whose layers are held. Blocks until it is on the disk.
    pub(super) fn add(&self, record: &Record) -> Result<Arc<StoredImage>, Failure> {
        let image = Arc::new(StoredImage::parse(record)?);
        let write = || {
            let (new, path) = (self.fresh(), self.manifest(image.digest));
            write_json(&new, record)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, path)?;
            sync(&self.root.join("manifests"))
        };
        write().map_err(Failure::Disk)?;
        let entry = Entry {
            image: Arc::clone(&image),
            used: SystemTime::now(),
        };
        self.state.lock().images.insert(image.digest, entry);
        Ok(image)
    }

    fn forget(&self, digest: Sha256) {
        let mut state = self.state.lock();
        self.drop_image(&mut state, digest);
    }

    fn drop_image(&self, state: &mut State, digest: Sha256) {
        state.images.remove(&digest);
        if let Err(error) = fs::remove_file(self.manifest(digest)) {
            warn!(%digest, %error, "failed to forget an image");
        }
    }

    /// Out of the way of a new one; removed at leisure, or by the next start.
    fn set_aside(&self, digest: Sha256) -> Option<PathBuf> {
        let to = self.fresh();
        match fs::rename(self.layer(digest), &to) {
            Ok(()) => Some(to),
            Err(error) => {
                warn!(layer = %digest, %error, "failed to remove a layer");
                None
            }
        }
    }

    /// Makes room: removes images that nobody uses until no more than the bound is left. Blocks.
    pub(super) fn collect(&self) {
        self.collect_to(self.bytes_max);
    }

    /// Removes what nobody uses; says how many bytes that were. Blocks.
    pub(super) fn prune(&self) -> u64 {
        self.collect_to(0)
    }

    fn collect_to(&self, bytes_max: u64) -> u64 {
        let mut gone = Vec::new();
        let mut freed = 0;
        {
            let mut state = self.state.lock();
            loop {
                freed += self.drop_orphans(&mut state, &mut gone);
                let bytes: u64 = state.layers.values().map(|it| it.census.bytes).sum();
                if bytes <= bytes_max && state.images.len() <= IMAGES_MAX {
                    break;
                }
                let is_held =
                    |layer: &Sha256| state.layers.get(layer).is_some_and(|it| it.holds > 0);
                let idle = state.images.values();
                let idle = idle.filter(|it| !it.image.layers.iter().all(is_held));
                let Some(oldest) = idle.min_by_key(|it| it.used).map(|it| it.image.digest) else {
                    break;
                };
                self.drop_image(&mut state, oldest);
            }
        }
        self.collected_bytes.fetch_add(freed, Ordering::Relaxed);
        gone.iter().for_each(|path| remove(path));
        freed
    }

    /// Layers that are neither an image's nor held.
    fn drop_orphans(&self, state: &mut State, gone: &mut Vec<PathBuf>) -> u64 {
        let wanted = state.images.values().flat_map(|it| &it.image.layers);
        let wanted: BTreeSet<Sha256> = wanted.copied().collect();
        let idle =
            |(digest, layer): &(&Sha256, &mut Layer)| layer.holds == 0 && !wanted.contains(*digest);
        let mut all = state.layers.iter_mut();
        let orphans: Vec<Sha256> = all
            .by_ref()
            .filter(idle)
            .map(|(digest, _)| *digest)
            .collect();
        let mut freed = 0;
        for digest in orphans {
            if let Some(path) = self.set_aside(digest) {
                gone.push(path);
                let layer = state.layers.remove(&digest);
                freed += layer.map_or(0, |it| it.census.bytes);
            } else {
                // Not tried again in this life.
                state.layers.remove(&digest);
            }
        }
        freed
    }

    /// All images, with how many bytes each has and whether it is in use.
    pub(super) fn list(&self) -> Vec<(Arc<StoredImage>, u64, bool)> {
        let state = self.state.lock();
        let all = state.images.values().map(|entry| {
            let layers = entry.image.layers.iter();
            let layers = layers.filter_map(|it| state.layers.get(it));
            let (mut bytes, mut is_used) = (0, true);
            for layer in layers {
                bytes += layer.census.bytes;
                is_used &= layer.holds > 0;
            }
            (Arc::clone(&entry.image), bytes, is_used)
        });
        all.collect()
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write_json(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(what)?;
    File::create_new(path)?.write_all(&bytes)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
