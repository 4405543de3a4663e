//! Reading zip archives, one entry at a time.
//!
//! Our own, because the libraries keep a list of all entries in memory and make room for as many as an
//! archive claims. What is here: the directory at the end, stored and deflated entries, permissions and
//! links of archives that were made on Unix. What is not: archives of more than 4 GiB or 65,534 entries
//! (zip64), passwords, other methods; each is refused with its name.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::error::Failure;
use super::landing::{Landing, Place};
use super::unpack::{Budget, TEXT_BYTES_MAX, damaged, unwanted, utf8};

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
const UNIX: u16 = 3;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;
const KIND: u32 = 0o170_000;

pub(super) fn unzip(
    file: &File,
    landing: &Landing,
    budget: &mut Budget<'_>,
) -> Result<(), Failure> {
    let directory = Directory::find(file)?;
    let mut at = directory.begin;
    for _ in 0..directory.entries {
        budget.entry()?;
        let (entry, next) = Entry::read(file, at, directory.end)?;
        at = next;
        entry.unpack(file, directory.base, landing, budget)?;
    }
    Ok(())
}

struct Directory {
    entries: u16,
    begin: u64,
    end: u64,
    /// What offsets are counted from: not 0 if a program stands before the archive.
    base: u64,
}

impl Directory {
    fn find(file: &File) -> Result<Self, Failure> {
        let length = file.metadata().map_err(damaged)?.len();
        let tail_bytes = length.min((END_BYTES + usize::from(u16::MAX)) as u64);
        let tail = read_at(file, length - tail_bytes, tail_bytes)?;
        let last = tail.len().checked_sub(END_BYTES);
        let mut places = (0..=last.ok_or_else(|| wrong("it is too short"))?).rev();
        let is_end = |at: &usize| {
            let comment = usize::from(u16_at(&tail, at + 20));
            tail[*at..].starts_with(END) && at + END_BYTES + comment == tail.len()
        };
        let at = places
            .find(is_end)
            .ok_or_else(|| wrong("it has no directory"))?;
        let (entries, size) = (u16_at(&tail, at + 10), u32_at(&tail, at + 12));
        let offset = u32_at(&tail, at + 16);
        if entries == u16::MAX || size == u32::MAX || offset == u32::MAX {
            return Err(wrong(
                "it is in the form for very large ones (zip64), which is not unpacked",
            ));
        }
        let end = length - tail_bytes + at as u64;
        let begin = end.checked_sub(size.into());
        let begin = begin.ok_or_else(|| wrong("its directory is cut off"))?;
        let base = begin.checked_sub(offset.into());
        let base = base.ok_or_else(|| wrong("its directory is cut off"))?;
        Ok(Self {
            entries,
            begin,
            end,
            base,
        })
    }
}

struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u32,
    size: u32,
    offset: u32,
    /// Type and permissions, if it says so.
    mode: u32,
}

impl Entry {
    /// The one at this place, and the place of the next.
    fn read(file: &File, at: u64, end: u64) -> Result<(Self, u64), Failure> {
        let head = read_at(file, at, ENTRY_BYTES as u64)?;
        if !head.starts_with(ENTRY) {
            return Err(wrong("its directory is damaged"));
        }
        let name_bytes = u64::from(u16_at(&head, 28));
        let rest = u64::from(u16_at(&head, 30)) + u64::from(u16_at(&head, 32));
        let next = at + ENTRY_BYTES as u64 + name_bytes + rest;
        if next > end {
            return Err(wrong("its directory is cut off"));
        }
        let name = utf8(read_at(file, at + ENTRY_BYTES as u64, name_bytes)?)?;
        let made_on = u16_at(&head, 4) >> 8;
        let mode = match u32_at(&head, 38) >> 16 {
            mode if made_on == UNIX && mode != 0 => mode,
            _ if name.ends_with('/') => FOLDER | 0o755,
            _ => REGULAR | 0o644,
        };
        let entry = Self {
            flags: u16_at(&head, 8),
            method: u16_at(&head, 10),
            crc: u32_at(&head, 16),
            compressed: u32_at(&head, 20),
            size: u32_at(&head, 24),
            offset: u32_at(&head, 42),
            mode,
            name,
        };
        Ok((entry, next))
    }

    fn unpack(
        &self,
        file: &File,
        base: u64,
        landing: &Landing,
        budget: &mut Budget<'_>,
    ) -> Result<(), Failure> {
        if self.flags & 1 != 0 {
            return Err(wrong("it is encrypted"));
        }
        let is_folder = self.name.ends_with('/') || self.mode & KIND == FOLDER;
        let place = match Place::parse(&self.name)? {
            Some(place) => place,
            None if is_folder => return Ok(()),
            None => return Err(wrong("it has a file without a name")),
        };
        match self.mode & KIND {
            _ if is_folder => return landing.folder(&place, self.mode),
            // Some write permissions only.
            REGULAR | 0 => {}
            LINK => {
                let mut target = Vec::new();
                let mut data = self.data(file, base)?.take(TEXT_BYTES_MAX);
                data.read_to_end(&mut target).map_err(damaged)?;
                return landing.symlink(&place, &utf8(target)?);
            }
            kind => return Err(unwanted(&self.name, &format!("of kind {kind:o}"))),
        }
        let mut data = Summed {
            reader: self.data(file, base)?,
            crc: Crc::new(),
        };
        let mut into = landing.file(&place)?;
        // One byte more than there should be says that there is more.
        let bounded = &mut (&mut data).take(u64::from(self.size) + 1);
        let written = budget.copy(bounded, &mut into)?;
        if written != u64::from(self.size) || data.crc.sum() != self.crc {
            return Err(wrong(&format!("{:?} in it is damaged", self.name)));
        }
        landing.seal(&place, &into, self.mode)
    }

    fn data<'a>(&self, file: &'a File, base: u64) -> Result<Box<dyn Read + 'a>, Failure> {
        let at = base + u64::from(self.offset);
        let head = read_at(file, at, LOCAL_BYTES as u64)?;
        if !head.starts_with(LOCAL) {
            return Err(wrong("its directory leads nowhere"));
        }
        let before = u64::from(u16_at(&head, 26)) + u64::from(u16_at(&head, 28));
        let at = at + LOCAL_BYTES as u64 + before;
        let raw = Part { file, at }.take(self.compressed.into());
        match self.method {
            STORED => Ok(Box::new(raw)),
            DEFLATED => Ok(Box::new(DeflateDecoder::new(raw))),
            method => Err(wrong(&format!("it is compressed by method {method}"))),
        }
    }
}

/// A file from some place on.
struct Part<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What has gone through it adds up to this.
struct Summed<R> {
    reader: R,
    crc: Crc,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(into)?;
        self.crc.update(&into[..read]);
        Ok(read)
    }
}

/// Exactly so many bytes, of which there are at most some ten thousand.
fn read_at(file: &File, at: u64, bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    let part = Part { file, at };
    part.take(bytes).read_to_end(&mut all).map_err(damaged)?;
    match all.len() as u64 == bytes {
        true => Ok(all),
        false => Err(wrong("it is cut off")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn wrong(why: &str) -> Failure {
    Failure::Archive(why.to_owned())
}
