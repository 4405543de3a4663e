//! Images: brings what a task's file tree is made of to this machine, once for all tasks, and says what runs in it.
//!
//! ```text
//! reference ─► manifest ─► index? our platform ─► configuration ─► each layer: comes, unpacked beside, checked, kept
//!    └── known by its digest and here: nothing comes
//! ```
//! Of one image all tasks that want it wait for one that brings it; at most [`PULLS_MAX`] images come at one time, apart
//! from the places of the fetcher, so that neither waits for the other. A tag is asked for at each start and
//! stands for one digest from then on; a digest that is here is asked for of nobody. A task that is killed stops
//! waiting, and bringing; the next one that waits goes on with the layers that are here.
//!
//! Invariants: S25 (`store`). S26 no layer is used that does not add up to its digests, as it came and as it was
//! unpacked.
//!
//! Absent: building and pushing images; other digests than SHA-256; signatures (docs/decisions/0022).

mod accounts;
mod error;
mod layout;
mod manifest;
mod registry;
mod run;
mod store;
mod unpack;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meros_proto::fetch::Sha256;
use meros_proto::image::{Image, ImageSource, LocalImage, RegistryImage};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub(crate) use error::{Failure, ImageError};
pub(crate) use run::Wanted;
pub(crate) use store::Hold;

use layout::Layout;
use manifest::{ConfigDocument, Descriptor, Document, Manifest, sha256};
use registry::Registry;
use store::{Record, Store, StoredImage};
use unpack::{Sums, unpack};

use crate::fetch::http::Http;
use crate::fetch::store::Store as Blobs;
use crate::fetch::{Cancel, Progress};

/// Images that come at the same time; of each the layers come one after the other.
const PULLS_MAX: usize = 4;

/// What an admin decides about images.
#[derive(Debug, Clone)]
pub(crate) struct ImageSettings {
    /// Folders of which tasks may have images.
    pub(crate) folders: Vec<PathBuf>,
    /// Bytes of the layers of one image, as they come and as they are unpacked.
    pub(crate) image_bytes_max: u64,
    /// Bytes of all layers, beyond which those that nobody uses go.
    pub(crate) store_bytes_max: u64,
    /// Registries without TLS, as `host` or `host:port`.
    pub(crate) insecure: Vec<String>,
    /// As `docker login` writes it.
    pub(crate) credentials: Option<PathBuf>,
    /// A transfer that brings almost nothing for this long is given up.
    pub(crate) stall: Duration,
}

/// What is counted of images.
#[derive(Debug, Default)]
pub(crate) struct ImageCounters {
    /// Images that were brought.
    pub(crate) pulls: AtomicU64,
    /// Images that were here.
    pub(crate) hits: AtomicU64,
    /// Tasks that did not get theirs.
    pub(crate) failures: AtomicU64,
    /// Bytes of layers that came, compressed.
    pub(crate) bytes: AtomicU64,
    /// Layers that were unpacked.
    pub(crate) layers: AtomicU64,
}

/// What there is of images, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    pub(crate) bytes: u64,
    pub(crate) layers: u64,
    pub(crate) images: u64,
    /// Since the slave has started.
    pub(crate) damaged: u64,
    pub(crate) collected_bytes: u64,
}

/// An image as it is listed.
#[derive(Debug, Serialize)]
pub(crate) struct ImageRow {
    /// How it was asked for when it came.
    reference: String,
    /// Of its manifest.
    digest: String,
    /// Of its layers, unpacked; those that it shares count for each.
    bytes: u64,
    /// How many layers it has.
    layers: usize,
    /// Whether a container is made of it.
    in_use: bool,
}

/// All images of one slave.
#[derive(Debug)]
pub(crate) struct Images {
    settings: ImageSettings,
    http: Http,
    store: Arc<Store>,
    /// What comes, until it is unpacked.
    incoming: Blobs,
    places: Semaphore,
    pub(crate) counters: ImageCounters,
}

/// An image that a container can be made of. Its layers stay as long as this is kept.
#[derive(Debug)]
pub(crate) struct Prepared {
    image: Arc<StoredImage>,
    /// By its digest.
    pub(crate) name: String,
    /// The trees, the uppermost first.
    layers: Vec<PathBuf>,
    pub(crate) holds: Vec<Hold>,
}

/// Where an image is brought from.
enum Origin<'a> {
    Registry(Registry<'a>, RegistryImage),
    Local(Arc<Layout>, LocalImage),
}

impl Images {
    /// Reads what is there. Blocks.
    pub(crate) fn open(
        root: PathBuf,
        settings: ImageSettings,
        tls: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let kept = Store::open(root.clone(), settings.store_bytes_max)?;
        Ok(Self {
            http: Http {
                tls,
                stall: settings.stall,
                file_bytes_max: settings.image_bytes_max,
            },
            store: Arc::new(kept),
            // Nothing of it outlives its layer.
            incoming: Blobs::open(root.join("incoming"), 0)?,
            settings,
            places: Semaphore::new(PULLS_MAX),
            counters: ImageCounters::default(),
        })
    }

    pub(crate) fn kept(&self) -> Kept {
        let (bytes, layers, images) = self.store.kept();
        Kept {
            bytes,
            layers,
            images,
            damaged: self.store.damaged.load(Ordering::Relaxed),
            collected_bytes: self.store.collected_bytes.load(Ordering::Relaxed),
        }
    }

    /// All that are here, by their digests.
    pub(crate) fn list(&self) -> Vec<ImageRow> {
        let all = self.store.list().into_iter();
        all.map(|(image, bytes, in_use)| ImageRow {
            reference: image.reference.clone(),
            digest: image.digest.to_string(),
            bytes,
            layers: image.layers.len(),
            in_use,
        })
        .collect()
    }

    /// Removes what nobody uses; says how many bytes that were. Blocks.
    pub(crate) fn prune(&self) -> u64 {
        self.store.prune()
    }

    /// Makes room, if there is too much. Blocks.
    pub(crate) fn collect(&self) {
        self.store.collect();
    }

    /// The hold that a container of an earlier slave has on what it is made of.
    pub(crate) fn inherit(&self, trees: &[PathBuf]) -> Vec<Hold> {
        self.store.hold_trees(trees)
    }

    /// Brings an image, or finds it, and says now and then how far it is.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        image: &Image,
        cancel: &Cancel,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Prepared, ImageError> {
        let progress = Progress::default();
        let work = async {
            image.check().map_err(Failure::Invalid)?;
            let source = image.source().map_err(Failure::Invalid)?;
            self.bring(&source, cancel, &progress).await
        };
        let result = progress.told(work, tell).await;
        result.map_err(|why| {
            if !matches!(why, Failure::Cancelled) {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
            }
            let reference = image.reference.chars().take(200).collect();
            ImageError { reference, why }
        })
    }

    async fn bring(
        self: &Arc<Self>,
        source: &ImageSource,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Prepared, Failure> {
        let text: String = source.to_string().chars().take(200).collect();
        if let Some(found) = self.find(source, source.digest()).await? {
            return Ok(found);
        }
        progress.says(format!("waiting for image {text}"));
        let turn = self.store.turn(&source.to_string());
        let _turn = unless(cancel, async { Ok(turn.lock().await) }).await?;
        // Somebody may have brought it meanwhile.
        if let Some(found) = self.find(source, source.digest()).await? {
            return Ok(found);
        }
        let places = async { self.places.acquire().await.map_err(|_| Failure::Cancelled) };
        let _place = unless(cancel, places).await?;
        progress.says(format!("asking for image {text}"));
        let origin = self.origin(source, cancel).await?;
        let root = unless(cancel, origin.root()).await?;
        let digest = sha256(&root);
        if let Some(expected) = source.digest().filter(|expected| *expected != digest) {
            return Err(Failure::digest("its manifest", expected, digest));
        }
        if let Some(found) = self.find(source, Some(digest)).await? {
            return Ok(found);
        }
        let (index, manifest, bytes) = match Document::parse(&root)? {
            Document::Manifest(manifest) => (None, manifest, root),
            Document::Index(index) => {
                let chosen = index.choose()?;
                let bytes = unless(cancel, origin.manifest(chosen)).await?;
                let Document::Manifest(manifest) = Document::parse(&bytes)? else {
                    let why = "its index leads to another index";
                    return Err(Failure::Unsupported(why.to_owned()));
                };
                if let Some(found) = self.find(source, Some(sha256(&bytes))).await? {
                    return Ok(found);
                }
                (Some(digest), manifest, bytes)
            }
        };
        let parts = Parts {
            text: &text,
            index,
            manifest,
            bytes,
        };
        self.pull(source, &origin, parts, cancel, progress).await
    }

    async fn pull(
        self: &Arc<Self>,
        source: &ImageSource,
        origin: &Origin<'_>,
        parts: Parts<'_>,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Prepared, Failure> {
        let manifest = &parts.manifest;
        let most = self.settings.image_bytes_max;
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        if sizes.fold(0, u64::saturating_add) > most {
            return Err(Failure::TooLarge {
                what: "the sum of its layers",
                max: most,
            });
        }
        let config = unless(cancel, origin.config(&manifest.config)).await?;
        let diff_ids = ConfigDocument::parse(&config)?.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let why = "its manifest and its configuration have not the same layers";
            return Err(Failure::Corrupt(why.to_owned()));
        }
        let mut holds = Vec::with_capacity(diff_ids.len());
        for (nth, (layer, diff)) in manifest.layers.iter().zip(&diff_ids).enumerate() {
            let (number, of_all) = (nth + 1, diff_ids.len());
            progress.says(format!(
                "layer {number} of {of_all} of image {}",
                parts.text
            ));
            let turn = self.store.turn(&diff.to_string());
            let _turn = unless(cancel, async { Ok(turn.lock().await) }).await?;
            let (kept, known) = (Arc::clone(&self.store), *diff);
            let hold = match blocking(move || Ok(kept.hold(known))).await? {
                Some(hold) => hold,
                None => {
                    self.add_layer(origin, layer, *diff, cancel, progress)
                        .await?
                }
            };
            holds.push(hold);
        }
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| Failure::Corrupt("it is not UTF-8".to_owned()))
        };
        let record = Record {
            index: parts.index,
            manifest: text(parts.bytes)?,
            config: text(config)?,
            reference: source.to_string(),
        };
        let kept = Arc::clone(&self.store);
        let image = blocking(move || kept.add(&record)).await?;
        self.counters.pulls.fetch_add(1, Ordering::Relaxed);
        let kept = Arc::clone(&self.store);
        // Nobody waits for room that is not needed yet.
        drop(spawn_blocking(move || kept.collect()));
        Ok(self.prepared(source, image, holds))
    }

    async fn add_layer(
        self: &Arc<Self>,
        origin: &Origin<'_>,
        layer: &Descriptor,
        diff: Sha256,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Hold, Failure> {
        let blob = layer.digest()?;
        progress.meter.bytes.store(0, Ordering::Relaxed);
        let file = unless(cancel, self.blob(origin, layer, blob, progress)).await?;
        let (kept, heard) = (Arc::clone(&self.store), cancel.clone());
        let most = self.settings.image_bytes_max;
        // Looks at the wish to cancel by itself, and is waited for.
        let hold = blocking(move || {
            let scratch = kept.scratch().map_err(Failure::Disk)?;
            let tree = Store::new_tree(&scratch).map_err(Failure::Disk)?;
            unpack(file, &tree, Sums { blob, diff }, most, &heard)?;
            kept.adopt(diff, &scratch)
        })
        .await?;
        self.counters.layers.fetch_add(1, Ordering::Relaxed);
        Ok(hold)
    }

    /// A layer as it comes.
    async fn blob(
        &self,
        origin: &Origin<'_>,
        layer: &Descriptor,
        digest: Sha256,
        progress: &Progress,
    ) -> Result<File, Failure> {
        match origin {
            Origin::Local(layout, _) => {
                let layout = Arc::clone(layout);
                let file = blocking(move || layout.layer(digest)).await?;
                let found = file.metadata().map_err(Failure::Disk)?.len();
                if found != layer.size {
                    return Err(Failure::Corrupt(format!(
                        "a layer has {found} bytes, and {} were expected",
                        layer.size
                    )));
                }
                Ok(file)
            }
            Origin::Registry(registry, _) => {
                let mut incoming = self.incoming.begin().await?;
                let meter = &progress.meter;
                registry.layer(layer, &mut incoming, meter).await?;
                let came = meter.bytes.load(Ordering::Relaxed);
                self.counters.bytes.fetch_add(came, Ordering::Relaxed);
                let finished = self.incoming.finish(incoming, Some(digest), None).await;
                let fetched = finished.map_err(|why| match why {
                    crate::fetch::Failure::Digest { expected, got } => Failure::Corrupt(format!(
                        "a layer adds up to {got}, and {expected} was expected"
                    )),
                    why => Failure::Transfer(why),
                })?;
                Ok(fetched.file)
            }
        }
    }

    async fn origin(&self, source: &ImageSource, cancel: &Cancel) -> Result<Origin<'_>, Failure> {
        let settings = &self.settings;
        let folders = settings.folders.clone();
        match source.clone() {
            ImageSource::Registry(image) => {
                let credentials = settings.credentials.as_deref();
                let registry = Registry::new(&self.http, &image, &settings.insecure, credentials)?;
                Ok(Origin::Registry(registry, image))
            }
            ImageSource::Layout(image) => {
                let layout = Arc::new(Layout::folder(&image, &folders));
                Ok(Origin::Local(layout, image))
            }
            ImageSource::Archive(image) => {
                let (most, heard) = (settings.image_bytes_max, cancel.clone());
                let scratch = self.store.scratch().map_err(Failure::Disk)?;
                let at = image.clone();
                let read = move || Layout::archive(&at, &folders, scratch, most, &heard);
                Ok(Origin::Local(Arc::new(blocking(read).await?), image))
            }
        }
    }

    /// An image that is here.
    async fn find(
        self: &Arc<Self>,
        source: &ImageSource,
        digest: Option<Sha256>,
    ) -> Result<Option<Prepared>, Failure> {
        let Some(digest) = digest else {
            return Ok(None);
        };
        let kept = Arc::clone(&self.store);
        let found = blocking(move || Ok(kept.use_image(digest))).await?;
        Ok(found.map(|(image, holds)| {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            self.prepared(source, image, holds)
        }))
    }

    fn prepared(
        &self,
        source: &ImageSource,
        image: Arc<StoredImage>,
        holds: Vec<Hold>,
    ) -> Prepared {
        let layers = image.layers.iter().rev();
        Prepared {
            name: source.pinned(image.digest).to_string(),
            layers: layers.map(|layer| self.store.tree(*layer)).collect(),
            image,
            holds,
        }
    }
}

/// What is known of an image before its layers come.
struct Parts<'a> {
    text: &'a str,
    index: Option<Sha256>,
    manifest: Manifest,
    /// The manifest as it came.
    bytes: Vec<u8>,
}

impl Origin<'_> {
    /// The manifest or the index that is meant.
    async fn root(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Registry(registry, image) => {
                let digest = image.digest.map(|it| it.to_string());
                let name = digest.or_else(|| image.tag.clone()).unwrap_or_default();
                registry.document(&name).await
            }
            Self::Local(layout, image) => {
                let (layout, image) = (Arc::clone(layout), image.clone());
                blocking(move || layout.root(&image)).await
            }
        }
    }

    /// A manifest that an index names.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = descriptor.digest()?;
        let bytes = match self {
            Self::Registry(registry, _) => registry.document(&digest.to_string()).await?,
            Self::Local(layout, _) => {
                let layout = Arc::clone(layout);
                blocking(move || layout.document(digest)).await?
            }
        };
        added_up("its manifest", bytes, digest)
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = descriptor.digest()?;
        let bytes = match self {
            Self::Registry(registry, _) => registry.small_blob(descriptor).await?,
            Self::Local(layout, _) => {
                let layout = Arc::clone(layout);
                blocking(move || layout.document(digest)).await?
            }
        };
        added_up("its configuration", bytes, digest)
    }
}

fn added_up(what: &str, bytes: Vec<u8>, expected: Sha256) -> Result<Vec<u8>, Failure> {
    let got = sha256(&bytes);
    match got == expected {
        true => Ok(bytes),
        false => Err(Failure::digest(what, expected, got)),
    }
}

/// Gives up when nobody wants it any more.
async fn unless<T>(
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        () = cancel.cancelled() => Err(Failure::Cancelled),
        result = work => result,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::Disk(io::Error::other(error))))
}

#[cfg(test)]
mod tests;
