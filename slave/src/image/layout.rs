//! Images among the slave's files: an OCI layout, as a folder or as a tarball.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use meros_proto::fetch::Sha256;
use meros_proto::image::LocalImage;
use tar::{Archive, EntryType};

use super::error::Failure;
use super::manifest::{DOCUMENT_BYTES_MAX, Descriptor, Document, Index, sha256};
use super::store::Scratch;
use crate::fetch::{self, Cancel, open_local};

/// The file that names the images of a layout.
const INDEX: &str = "index.json";
/// Of a tarball: blobs and what names them.
const ENTRIES_MAX: usize = 10_000;
const PIECE_BYTES: usize = 256 << 10;

/// A layout that is being read. Blocks.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of which it may have files.
    folders: Vec<PathBuf>,
    path: PathBuf,
    /// What was a tarball, as long as it is read.
    _unpacked: Option<Scratch>,
}

impl Layout {
    /// A folder.
    pub(super) fn folder(image: &LocalImage, folders: &[PathBuf]) -> Self {
        Self {
            folders: folders.to_vec(),
            path: PathBuf::from(&image.path),
            _unpacked: None,
        }
    }

    /// A tarball, of which only blobs and their index come out, whatever is in it.
    pub(super) fn archive(
        image: &LocalImage,
        folders: &[PathBuf],
        scratch: Scratch,
        bytes_max: u64,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let file = open(folders, Path::new(&image.path))?;
        untar(file, scratch.path(), bytes_max, cancel)?;
        Ok(Self {
            folders: vec![scratch.path().to_owned()],
            path: scratch.path().to_owned(),
            _unpacked: Some(scratch),
        })
    }

    /// The manifest or index that is meant.
    pub(super) fn root(&self, image: &LocalImage) -> Result<Vec<u8>, Failure> {
        if let Some(digest) = image.digest {
            return self.document(digest);
        }
        let bytes = self.read(Path::new(INDEX))?;
        let Document::Index(index) = Document::parse(&bytes)? else {
            return Err(Failure::Corrupt("its index.json is no index".to_owned()));
        };
        match choose(&index, image.tag.as_deref())? {
            Some(found) => self.document(found.digest()?),
            None => Ok(bytes),
        }
    }

    /// A blob of few bytes, which adds up to its digest.
    pub(super) fn document(&self, digest: Sha256) -> Result<Vec<u8>, Failure> {
        let bytes = self.read(&blob(digest))?;
        let got = sha256(&bytes);
        match got == digest {
            true => Ok(bytes),
            false => Err(Failure::digest("a blob", digest, got)),
        }
    }

    /// A blob, of which nobody has seen what it adds up to.
    pub(super) fn layer(&self, digest: Sha256) -> Result<File, Failure> {
        open(&self.folders, &self.path.join(blob(digest)))
    }

    fn read(&self, name: &Path) -> Result<Vec<u8>, Failure> {
        let file = open(&self.folders, &self.path.join(name))?;
        let mut bytes = Vec::new();
        let read = file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(Failure::Disk)?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let why = format!("{} is larger than any manifest", name.display());
            return Err(Failure::Corrupt(why));
        }
        Ok(bytes)
    }
}

fn blob(digest: Sha256) -> PathBuf {
    let text = digest.to_string();
    Path::new("blobs").join(text.replace(':', "/"))
}

fn open(folders: &[PathBuf], path: &Path) -> Result<File, Failure> {
    open_local(folders, path).map_err(|why| match why {
        fetch::Failure::NotAllowed => Failure::NotAllowed,
        fetch::Failure::Local(error) if error.kind() == io::ErrorKind::NotFound => {
            Failure::Missing(format!("there is no {}", path.display()))
        }
        why => Failure::Transfer(why),
    })
}

/// The image of this name, or the only one; none: the index itself is one, of several platforms.
fn choose<'a>(index: &'a Index, tag: Option<&str>) -> Result<Option<&'a Descriptor>, Failure> {
    let named = |it: &&Descriptor, tag: &str| {
        let behind = |name: &str| name.rsplit_once(':').is_some_and(|(_, end)| end == tag);
        it.name().is_some_and(|name| name == tag || behind(name))
    };
    let mut all = index.manifests.iter();
    let names = || {
        let names = index.manifests.iter().filter_map(Descriptor::name);
        let names = names.take(16).collect::<Vec<_>>().join(", ");
        names.chars().take(400).collect::<String>()
    };
    match (tag, index.manifests.as_slice()) {
        (Some(tag), _) => match all.find(|it| named(it, tag)) {
            Some(found) => Ok(Some(found)),
            None => Err(Failure::Missing(format!(
                "the layout has no {tag:?}; it has: {}",
                names()
            ))),
        },
        (None, []) => Err(Failure::Missing("the layout has no image".to_owned())),
        (None, [only]) => Ok(Some(only)),
        (None, several) if several.iter().all(|it| it.name().is_none()) => Ok(None),
        (None, _) => Err(Failure::Missing(format!(
            "the layout has several images: name one of {}",
            names()
        ))),
    }
}

fn untar(from: File, into: &Path, bytes_max: u64, cancel: &Cancel) -> Result<(), Failure> {
    let damaged = |error: io::Error| Failure::Corrupt(format!("the tarball: {error}"));
    fs::create_dir_all(into.join("blobs/sha256")).map_err(Failure::Disk)?;
    let mut archive = Archive::new(from);
    let (mut left, mut is_layout) = (bytes_max, false);
    let mut is_docker = false;
    for (nth, entry) in archive.entries().map_err(damaged)?.raw(true).enumerate() {
        let mut entry = entry.map_err(damaged)?;
        if nth >= ENTRIES_MAX {
            let why = format!("the tarball has more than {ENTRIES_MAX} files");
            return Err(Failure::Unsupported(why));
        }
        let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        is_docker |= name == "manifest.json";
        let digest = name.strip_prefix("blobs/sha256/");
        let is_blob = digest.is_some_and(|it| it.len() == 64 && it.parse::<Sha256>().is_ok());
        let is_file = entry.header().entry_type() == EntryType::Regular;
        if !is_file || !(is_blob || name == INDEX) {
            continue;
        }
        is_layout |= name == INDEX;
        left = left.checked_sub(entry.size()).ok_or(Failure::TooLarge {
            what: "the tarball",
            max: bytes_max,
        })?;
        // The last of a name counts, as with any tarball.
        let mut file = File::create(into.join(&name)).map_err(Failure::Disk)?;
        copy(&mut entry, &mut file, cancel)?;
    }
    match (is_layout, is_docker) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Unsupported(
            "the tarball is in the older format of `docker save`: write it with Docker 25 or newer, or with `skopeo copy docker-archive:OLD oci-archive:NEW`".to_owned(),
        )),
        (false, false) => Err(Failure::Missing("the tarball has no index.json".to_owned())),
    }
}

fn copy(from: &mut impl Read, to: &mut File, cancel: &Cancel) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let read = from.read(&mut piece);
        let read = read.map_err(|error| Failure::Corrupt(format!("the tarball: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        io::Write::write_all(to, &piece[..read]).map_err(Failure::Disk)?;
    }
}
