//! Unpacking a layer into a folder of its own, in the form in which overlayfs lays it over others.
//!
//! A layer comes from whoever made the image. No name or link in it reaches out of the folder: every name is
//! resolved by the kernel as if the folder were the root (`RESOLVE_IN_ROOT`), and the last part never followed.
//! Memory is bounded whatever it says; bytes, entries and the ratio of bytes to what came have bounds. Owners,
//! modes and times are kept, and of extended attributes those of capabilities and of users. Devices are left
//! out: no task could open one. What it says is gone from lower layers becomes what overlayfs takes for that.
//! Blocks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use flate2::read::MultiGzDecoder;
use meros_proto::fetch::Sha256;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, EntryType, Header, PaxExtensions};

use super::error::Failure;
use crate::fetch::Cancel;

/// Files, folders and links of one layer: several times what the largest distributions have.
const ENTRIES_MAX: u64 = 2_000_000;
/// Bytes that one byte may become; deflate itself cannot do more than 1,032.
const RATIO_MAX: u64 = 250;
/// Up to here nobody asks for the ratio.
const RATIO_FLOOR: u64 = 64 << 20;
/// The longest name, target of a link, or table of them.
const TEXT_BYTES_MAX: u64 = 64 << 10;
const NAME_BYTES_MAX: usize = 4_095;
const PARTS_MAX: usize = 256;
const PIECE_BYTES: usize = 64 << 10;
/// Not there any more, in a layer.
const WHITEOUT: &[u8] = b".wh.";
/// Nothing of this folder is there any more.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The storage driver's that made it.
const PRIVATE: &[u8] = b".wh..wh.";
/// The same for overlayfs.
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// What a layer must add up to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    /// As it comes.
    pub(super) blob: Sha256,
    /// The tarball in it.
    pub(super) diff: Sha256,
}

/// Unpacks into an empty folder, of which nothing is to be used if that fails.
pub(super) fn unpack(
    mut blob: File,
    into: &Path,
    sums: Sums,
    bytes_max: u64,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let size = blob.metadata().map_err(Failure::Disk)?.len();
    let mut magic = [0; 4];
    let known = read_up_to(&mut blob, &mut magic).map_err(Failure::Disk)?;
    blob.rewind().map_err(Failure::Disk)?;
    let mut blob = Summed::new(blob, cancel, u64::MAX);
    let most = size
        .saturating_mul(RATIO_MAX)
        .max(RATIO_FLOOR)
        .min(bytes_max);
    let buffered = BufReader::with_capacity(PIECE_BYTES, &mut blob);
    let diff = match &magic[..known] {
        [0x1f, 0x8b, ..] => untar_all(MultiGzDecoder::new(buffered), into, most, bytes_max, cancel),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(Failure::Unsupported(
            "a layer is compressed with zstd: push the image with gzip, as `skopeo copy --dest-compress-format gzip` does".to_owned(),
        )),
        _ => untar_all(buffered, into, most, bytes_max, cancel),
    }?;
    // Behind the end of what was compressed; of the digest all the same.
    io::copy(&mut blob, &mut io::sink()).map_err(|error| damaged(&error))?;
    let blob = blob.sum();
    if blob != sums.blob {
        return Err(Failure::digest("a layer", sums.blob, blob));
    }
    if diff != sums.diff {
        return Err(Failure::digest("an unpacked layer", sums.diff, diff));
    }
    Ok(())
}

fn untar_all(
    reader: impl Read,
    into: &Path,
    most: u64,
    bytes_max: u64,
    cancel: &Cancel,
) -> Result<Sha256, Failure> {
    let mut all = Summed::new(reader, cancel, most);
    let untarred = untar(&mut all, into).and_then(|()| {
        // Filling behind the end.
        io::copy(&mut all, &mut io::sink()).map_err(|error| damaged(&error))
    });
    match untarred {
        _ if cancel.is_cancelled() => Err(Failure::Cancelled),
        _ if all.is_over && most == bytes_max => Err(Failure::TooLarge {
            what: "what its layers become",
            max: bytes_max,
        }),
        _ if all.is_over => Err(Failure::Corrupt(format!(
            "a layer becomes more than {RATIO_MAX} times as large as it is, which is a bomb"
        ))),
        Err(why) => Err(why),
        Ok(_) => Ok(all.sum()),
    }
}

fn read_up_to(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Adds up what is read, up to a bound, until nobody wants it any more.
struct Summed<'a, R> {
    reader: R,
    sum: Context,
    left: u64,
    is_over: bool,
    cancel: &'a Cancel,
}

impl<'a, R: Read> Summed<'a, R> {
    fn new(reader: R, cancel: &'a Cancel, most: u64) -> Self {
        Self {
            reader,
            sum: Context::new(&SHA256),
            left: most,
            is_over: false,
            cancel,
        }
    }

    fn sum(&self) -> Sha256 {
        let mut sum = [0; 32];
        sum.copy_from_slice(self.sum.clone().finish().as_ref());
        Sha256(sum)
    }
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let read = self.reader.read(into)?;
        self.sum.update(&into[..read]);
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.is_over = true;
                return Err(io::Error::other("it is too large"));
            }
        }
        Ok(read)
    }
}

/// What headers before an entry say of it.
#[derive(Debug, Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    user: Option<u32>,
    group: Option<u32>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Ahead {
    fn extend(&mut self, table: &[u8]) -> Result<(), Failure> {
        for field in PaxExtensions::new(table) {
            let field = field.map_err(|error| damaged(&error))?;
            let (key, value) = (field.key_bytes(), field.value_bytes());
            let number = || str::from_utf8(value).ok().and_then(|it| it.parse().ok());
            match key {
                b"path" => self.name = Some(value.to_owned()),
                b"linkpath" => self.target = Some(value.to_owned()),
                b"uid" => self.user = number(),
                b"gid" => self.group = number(),
                key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                    let why = "a layer has a file of more than 8 GiB or with holes, which is not unpacked";
                    return Err(Failure::Unsupported(why.to_owned()));
                }
                key => {
                    let name = key.strip_prefix(b"SCHILY.xattr.");
                    let name = name.and_then(|name| str::from_utf8(name).ok());
                    // Others mean something to overlayfs, or to a security module of another machine.
                    let kept =
                        |name: &&str| *name == "security.capability" || name.starts_with("user.");
                    if let Some(name) = name.filter(kept) {
                        self.attributes.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn untar(reader: impl Read, into: &Path) -> Result<(), Failure> {
    let root = openat(CWD, into, FOLDER | OFlags::NOFOLLOW, Mode::empty());
    let layer = Layer {
        root: root.map_err(|error| Failure::Disk(error.into()))?,
    };
    let mut archive = Archive::new(reader);
    let (mut ahead, mut entries) = (Ahead::default(), 0);
    // Raw: the library would read a name of any length into memory.
    for entry in archive.entries().map_err(|it| damaged(&it))?.raw(true) {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(Failure::Unsupported(format!(
                "a layer has more than {ENTRIES_MAX} files and folders"
            )));
        }
        let (size, header) = (entry.size(), entry.header().clone());
        match header.entry_type() {
            EntryType::GNULongName => ahead.name = Some(text(&mut entry)?),
            EntryType::GNULongLink => ahead.target = Some(text(&mut entry)?),
            EntryType::XHeader => ahead.extend(&text(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            _ => {
                let ahead = std::mem::take(&mut ahead);
                layer.put(&header, ahead, size, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// A name or a table of them.
fn text(entry: &mut impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut bounded = entry.take(TEXT_BYTES_MAX + 1);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| damaged(&error))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::Corrupt("a name in a layer has no end".to_owned()));
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn damaged(error: &io::Error) -> Failure {
    Failure::Corrupt(format!("a layer cannot be read: {error}"))
}

/// A name in a layer: without `..`, from its root.
fn place(name: &[u8]) -> Result<PathBuf, Failure> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
    let parts: Vec<Component<'_>> = Path::new(OsStr::from_bytes(name)).components().collect();
    if name.len() > NAME_BYTES_MAX || parts.len() > PARTS_MAX || name.contains(&0) {
        let why = format!("a layer has a name that no file can have: {:?}", shown());
        return Err(Failure::Corrupt(why));
    }
    if parts.contains(&Component::ParentDir) {
        let why = format!("a layer has {:?}, which leads out of it", shown());
        return Err(Failure::Corrupt(why));
    }
    let parts = parts.into_iter();
    Ok(parts
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect())
}

/// The folder that a layer becomes.
struct Layer {
    root: OwnedFd,
}

/// Who has something, and what may be done with it.
struct Rights {
    user: Uid,
    group: Gid,
    mode: Mode,
    modified: u64,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Layer {
    fn put(
        &self,
        header: &Header,
        ahead: Ahead,
        size: u64,
        from: &mut impl Read,
    ) -> Result<(), Failure> {
        let name = ahead
            .name
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let path = place(&name)?;
        let failed = |error: Errno| failed_at(&path, error);
        let bad = |error: io::Error| damaged(&error);
        // A field that is left empty is root's, as other programs take it.
        let id = |known: Option<u32>, found: io::Result<u64>| match known {
            Some(id) => Ok(id),
            None => u32::try_from(found.unwrap_or_default())
                .map_err(|_| Failure::Corrupt("a file belongs to nobody there can be".to_owned())),
        };
        let rights = Rights {
            user: Uid::from_raw(id(ahead.user, header.uid())?),
            group: Gid::from_raw(id(ahead.group, header.gid())?),
            mode: Mode::from_raw_mode(header.mode().map_err(bad)? & 0o7777),
            modified: header.mtime().unwrap_or_default(),
            attributes: ahead.attributes,
        };
        let Some(last) = path.file_name() else {
            // The folder itself, whose rights are those of the upper one.
            return Ok(());
        };
        let above = self.folder(path.parent().unwrap_or(Path::new("")))?;
        if last.as_bytes().starts_with(WHITEOUT) {
            return hide(&above, last.as_bytes()).map_err(failed);
        }
        let target = || {
            let target = ahead.target.clone();
            target.or_else(|| header.link_name_bytes().map(Into::into))
        };
        match header.entry_type() {
            EntryType::Directory => make_folder(&above, last, &rights).map_err(failed),
            EntryType::Symlink => {
                make_room(&above, last).map_err(failed)?;
                let target = target().unwrap_or_default();
                symlinkat(OsStr::from_bytes(&target), &above, last)
                    .and_then(|()| rights.give_name(&above, last))
                    .map_err(failed)
            }
            EntryType::Link => {
                let target = place(&target().unwrap_or_default())?;
                let name = target.file_name().unwrap_or_default();
                let from = self.folder(target.parent().unwrap_or(Path::new("")))?;
                if target == path {
                    return Ok(());
                }
                make_room(&above, last).map_err(failed)?;
                // Of a link the link itself.
                linkat(&from, name, &above, last, AtFlags::empty()).map_err(failed)
            }
            // The oldest archives say by a slash that it is a folder.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => {
                make_folder(&above, last, &rights).map_err(failed)
            }
            EntryType::Regular | EntryType::Continuous => {
                make_room(&above, last).map_err(failed)?;
                let mode = Mode::from_raw_mode(0o600);
                let file = openat(&above, last, NEW_FILE, mode).map_err(failed)?;
                let mut file = File::from(file);
                if copy(from, &mut file)? != size {
                    return Err(damaged(&io::ErrorKind::UnexpectedEof.into()));
                }
                rights.give(&file).map_err(failed)
            }
            EntryType::Fifo => {
                make_room(&above, last).map_err(failed)?;
                mknodat(&above, last, FileType::Fifo, rights.mode, 0)
                    .and_then(|()| rights.give_name(&above, last))
                    .map_err(failed)
            }
            EntryType::Char | EntryType::Block => Ok(()),
            kind => Err(Failure::Unsupported(format!(
                "a layer has {}, which is neither a file, a folder nor a link, but {kind:?}",
                path.display()
            ))),
        }
    }

    /// A folder; what is missing of it is made.
    fn folder(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let failed = |error: Errno| failed_at(path, error);
        let mut known = PathBuf::from(".");
        let open = |path: &Path| openat2(&self.root, path, FOLDER, Mode::empty(), INSIDE);
        match open(&known.join(path)) {
            Err(Errno::NOENT) => {}
            found => return found.map_err(failed),
        }
        let mut folder = open(&known).map_err(failed)?;
        for part in path {
            known.push(part);
            folder = match open(&known) {
                Err(Errno::NOENT) => {
                    mkdirat(&folder, part, Mode::from_raw_mode(0o755)).map_err(failed)?;
                    let made = open(&known).map_err(failed)?;
                    fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
                    made
                }
                found => found.map_err(failed)?,
            };
        }
        Ok(folder)
    }
}

fn failed_at(path: &Path, error: Errno) -> Failure {
    let name: String = path.display().to_string().chars().take(200).collect();
    match error {
        Errno::NOTDIR | Errno::LOOP | Errno::EXIST | Errno::XDEV | Errno::NAMETOOLONG => {
            Failure::Corrupt(format!("a layer has {name:?} where it cannot be: {error}"))
        }
        Errno::NOENT => Failure::Corrupt(format!(
            "a layer links {name:?} to a file that it has not got"
        )),
        other => Failure::Disk(io::Error::other(format!("{name}: {other}"))),
    }
}

impl Rights {
    fn give(&self, to: impl AsFd) -> Result<(), Errno> {
        // In this order: a change of owner takes bits of the mode and capabilities away.
        fchown(&to, Some(self.user), Some(self.group))?;
        fchmod(&to, self.mode)?;
        for (name, value) in &self.attributes {
            match fsetxattr(&to, name.as_str(), value, XattrFlags::empty()) {
                // The file system has none of that kind; the file is of use without.
                Err(Errno::OPNOTSUPP) => {}
                set => set?,
            }
        }
        let time = Timespec {
            tv_sec: i64::try_from(self.modified).unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        futimens(&to, &times)
    }

    /// What has no mode of its own, or cannot be opened.
    fn give_name(&self, above: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(above, name, Some(self.user), Some(self.group), flags)
    }
}

/// A folder, which may be there. One that takes the place of what is gone hides what lies below.
fn make_folder(above: &OwnedFd, name: &OsStr, rights: &Rights) -> Result<(), Errno> {
    let was_gone = match kind(above, name)? {
        Some((FileType::Directory, _)) => false,
        Some((kind, device)) => {
            unlinkat(above, name, AtFlags::empty())?;
            mkdirat(above, name, Mode::from_raw_mode(0o700))?;
            is_whiteout(kind, device)
        }
        None => {
            mkdirat(above, name, Mode::from_raw_mode(0o700))?;
            false
        }
    };
    let folder = openat(above, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    if was_gone {
        set_opaque(&folder)?;
    }
    rights.give(&folder)
}

/// A name that is no more in lower layers, or a folder of which nothing is.
fn hide(above: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    if name == OPAQUE {
        return set_opaque(above);
    }
    if name.starts_with(PRIVATE) {
        return Ok(());
    }
    let gone = OsStr::from_bytes(&name[WHITEOUT.len()..]);
    if matches!(gone.as_bytes(), b"" | b"." | b"..") {
        return Err(Errno::XDEV);
    }
    match kind(above, gone)? {
        None => mknodat(
            above,
            gone,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        ),
        Some((FileType::Directory, _)) => {
            let folder = openat(above, gone, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            set_opaque(&folder)
        }
        // The layer's own is over what it hides.
        Some(_) => Ok(()),
    }
}

fn set_opaque(folder: &OwnedFd) -> Result<(), Errno> {
    fsetxattr(folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

fn kind(above: &OwnedFd, name: &OsStr) -> Result<Option<(FileType, u64)>, Errno> {
    match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
        Ok(found) => Ok(Some((
            FileType::from_raw_mode(found.st_mode),
            found.st_rdev,
        ))),
    }
}

/// Whether overlayfs takes it for something that is no more.
pub(super) fn is_whiteout(kind: FileType, device: u64) -> bool {
    kind == FileType::CharacterDevice && device == rustix::fs::makedev(0, 0)
}

/// Later entries of a layer are instead of earlier ones.
fn make_room(above: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match kind(above, name)? {
        None => Ok(()),
        Some((FileType::Directory, _)) => {
            let path = format!("/proc/self/fd/{}", above.as_raw_fd());
            fs::remove_dir_all(Path::new(&path).join(name)).map_err(|_| Errno::EXIST)
        }
        Some(_) => unlinkat(above, name, AtFlags::empty()),
    }
}

fn copy(from: &mut impl Read, to: &mut File) -> Result<u64, Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(&error)),
        };
        to.write_all(&piece[..read]).map_err(Failure::Disk)?;
        total += read as u64;
    }
}

#[cfg(test)]
mod tests;
