//! Unpacking archives that nobody vouches for.
//!
//! Memory is bounded whatever an archive says: entries are read one after the other, names and links
//! have a bound, nothing is allocated for a length that is only claimed. Bytes, entries and the ratio
//! of bytes to what was fetched have bounds. Only folders, regular files, and links that stay below the
//! sandbox are made; where they land, [`Landing`] looks after. Blocks.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use tar::{Archive, EntryType, PaxExtensions};

use super::cancel::Cancel;
use super::error::Failure;
use super::landing::{Landing, Place, on_write};
use super::zip;

/// Files, folders and links of one archive; ours is the time to make them and their places on disk.
pub(super) const ENTRIES_MAX: u64 = 200_000;
/// Bytes that one fetched byte may become; deflate itself cannot do more than 1,032.
const RATIO_MAX: u64 = 250;
/// Up to here nobody asks for the ratio.
const RATIO_FLOOR: u64 = 64 << 20;
/// The longest name, target of a link, or table of them.
pub(super) const TEXT_BYTES_MAX: u64 = 64 << 10;
/// For the dictionary of xz, in KiB: what `xz -9` wants.
const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;
const PIECE_BYTES: usize = 64 << 10;

/// What may still be made of what was fetched.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    cancel: &'a Cancel,
    /// Left to this task.
    bytes: &'a mut u64,
    bytes_max: u64,
    entries: u64,
    /// Left to this archive.
    expansion: u64,
}

impl<'a> Budget<'a> {
    /// For an archive of so many bytes, of a task that has so many left out of so many.
    pub(super) fn new(cancel: &'a Cancel, fetched: u64, bytes: &'a mut u64, max: u64) -> Self {
        Self {
            cancel,
            bytes,
            bytes_max: max,
            entries: ENTRIES_MAX,
            expansion: fetched.saturating_mul(RATIO_MAX).max(RATIO_FLOOR),
        }
    }

    /// One more thing is made.
    pub(super) fn entry(&mut self) -> Result<(), Failure> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| {
            Failure::Archive(format!("it has more than {ENTRIES_MAX} files and folders"))
        })?;
        self.check()
    }

    /// So many bytes more have come out of it.
    fn spend(&mut self, bytes: usize) -> Result<(), Failure> {
        let bytes = bytes as u64;
        self.expansion = self.expansion.checked_sub(bytes).ok_or_else(|| {
            Failure::Archive(format!(
                "it becomes more than {RATIO_MAX} times as large as it is: that is a bomb, or data for another program to unpack"
            ))
        })?;
        *self.bytes = self.bytes.checked_sub(bytes).ok_or(Failure::TooLarge {
            what: "what the task has fetched and unpacked",
            max: self.bytes_max,
            option: "task",
        })?;
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        match self.cancel.is_cancelled() {
            true => Err(Failure::Cancelled),
            false => Ok(()),
        }
    }

    /// All of `from` into `to`.
    pub(super) fn copy(&mut self, from: &mut impl Read, to: &mut File) -> Result<u64, Failure> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut total = 0;
        loop {
            let read = match from.read(&mut piece) {
                Ok(0) => return Ok(total),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            self.spend(read)?;
            to.write_all(&piece[..read]).map_err(on_write)?;
            total += read as u64;
        }
    }
}

/// Unpacks by the ending of the name.
pub(super) fn unpack(
    name: &str,
    archive: &File,
    landing: &Landing,
    budget: &mut Budget<'_>,
) -> Result<(), Failure> {
    let name = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&[".zip"]) {
        return zip::unzip(archive, landing, budget);
    }
    let reader = BufReader::with_capacity(PIECE_BYTES, archive);
    if ends(&[".tar.gz", ".tgz"]) {
        untar(MultiGzDecoder::new(reader), landing, budget)
    } else if ends(&[".tar.xz", ".txz"]) {
        let reader = XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB_MAX);
        untar(reader, landing, budget)
    } else {
        untar(reader, landing, budget)
    }
}

/// What headers before an entry say of it.
#[derive(Debug, Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

fn untar(reader: impl Read, landing: &Landing, budget: &mut Budget<'_>) -> Result<(), Failure> {
    // What is skipped comes out of the archive, too: an endless one of entries that are passed over.
    let skipped = Skipped {
        reader,
        cancel: budget.cancel,
        left: budget.expansion.saturating_add(ENTRIES_MAX * 2_048),
    };
    let mut archive = Archive::new(skipped);
    let mut ahead = Ahead::default();
    // Raw: the library would read a name of any length into memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        budget.entry()?;
        let (size, header) = (entry.size(), entry.header().clone());
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName => {
                ahead.name = Some(text(&mut entry)?);
                continue;
            }
            EntryType::GNULongLink => {
                ahead.target = Some(text(&mut entry)?);
                continue;
            }
            EntryType::XHeader => {
                extend(&mut ahead, &text(&mut entry)?)?;
                continue;
            }
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let Ahead { name, target } = std::mem::take(&mut ahead);
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = utf8(name)?;
        let mode = header.mode().map_err(damaged)?;
        let place = Place::parse(&name)?;
        let target = || {
            let target = target.or_else(|| header.link_name_bytes().map(Into::into));
            utf8(target.unwrap_or_default())
        };
        match (kind, place) {
            (EntryType::Directory, Some(place)) => landing.folder(&place, mode)?,
            // The sandbox itself has its mode.
            (EntryType::Directory, None) => {}
            (EntryType::Symlink, Some(place)) => landing.symlink(&place, &target()?)?,
            (EntryType::Link, Some(place)) => {
                let target = target()?;
                let found = Place::parse(&target)?;
                let found =
                    found.ok_or_else(|| Failure::Archive(format!("it links to {target:?}")))?;
                landing.hardlink(&place, &found)?;
            }
            (EntryType::Regular | EntryType::Continuous, Some(place)) => {
                // The oldest archives say by a slash that it is a folder.
                if name.ends_with('/') {
                    landing.folder(&place, mode)?;
                    continue;
                }
                let mut file = landing.file(&place)?;
                if budget.copy(&mut entry, &mut file)? != size {
                    return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
                }
                landing.seal(&place, &file, mode)?;
            }
            (kind, _) => return Err(unwanted(&name, &format!("{kind:?}"))),
        }
    }
    // Behind the end are filling and the sums of what was compressed, which only who reads on sees.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Ok(())
}

/// What comes out of an archive, bounded.
struct Skipped<'a, R> {
    reader: R,
    cancel: &'a Cancel,
    left: u64,
}

impl<R: Read> Read for Skipped<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let read = self.reader.read(into)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("it is far larger than what is in it"))?;
        Ok(read)
    }
}

/// A name or a table of them.
fn text(entry: &mut impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut bounded = entry.take(TEXT_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::Archive("a name in it has no end".to_owned()));
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// The fields of a POSIX header that say where an entry goes.
fn extend(ahead: &mut Ahead, table: &[u8]) -> Result<(), Failure> {
    for field in PaxExtensions::new(table) {
        let field = field.map_err(damaged)?;
        match field.key_bytes() {
            b"path" => ahead.name = Some(field.value_bytes().to_owned()),
            b"linkpath" => ahead.target = Some(field.value_bytes().to_owned()),
            // Of files above 8 GiB, and of those with holes: both would be read wrongly.
            key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                let what = "it has a file of more than 8 GiB or with holes, which is not unpacked";
                return Err(Failure::Archive(what.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::Archive("a name in it is not UTF-8".to_owned()))
}

pub(super) fn unwanted(name: &str, kind: &str) -> Failure {
    let name: String = name.chars().take(200).collect();
    Failure::Archive(format!(
        "it has {name:?}, which is neither a file, a folder nor a link, but {kind}"
    ))
}

pub(super) fn damaged(error: io::Error) -> Failure {
    Failure::Archive(format!("it cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
