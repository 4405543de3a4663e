use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::unistd::geteuid;

use super::*;
use crate::fetch::cancel;
use crate::image::manifest::sha256;

/// A tarball in the making.
struct Tarball(tar::Builder<Vec<u8>>);

impl Tarball {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// The name is put there as it is, however wrong.
    fn add(mut self, name: &str, kind: EntryType, target: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(if kind == EntryType::Directory {
            0o750
        } else {
            0o4755
        });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.add(name, EntryType::Regular, "", text.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.add(name, EntryType::Directory, "", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Symlink, target, b"")
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// Unpacks a blob of this tarball.
fn try_unpack(blob: &[u8], tarball: &[u8], into: &Path) -> Result<(), Failure> {
    let sums = Sums {
        blob: sha256(blob),
        diff: sha256(tarball),
    };
    let (_canceller, cancel) = cancel();
    unpack(file_of(blob), into, sums, 1 << 30, &cancel)
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can give files away and make whiteouts");
    }
    is_root
}

fn opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(path, OPAQUE_ATTRIBUTE, &mut value[..]).is_ok()
}

#[test]
fn a_layer_is_unpacked_with_owners_modes_links_and_what_is_gone() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tarball = Tarball::new()
        .folder("./bin/")
        .file("bin/tool", "tool")
        .add("bin/same", EntryType::Link, "/bin/tool", b"")
        .link("lib", "/bin")
        .file("lib/through", "a link")
        .add("pipe", EntryType::Fifo, "", b"")
        .add("disk", EntryType::Block, "", b"")
        .file("etc/.wh.gone", "")
        .file("etc/.wh..wh..opq", "")
        .file("etc/.wh..wh.plnk", "")
        .file("twice", "first")
        .file("twice", "second")
        .file(".wh.twice", "")
        .file(".wh.again", "")
        .folder("again")
        .file("made/on/the/way", "x")
        .done();
    for blob in [tarball.clone(), gzip(&tarball)] {
        let root = dir.path().join(format!("{}", blob.len()));
        fs::create_dir(&root).unwrap();
        try_unpack(&blob, &tarball, &root).unwrap();
        let tool = fs::symlink_metadata(root.join("bin/tool")).unwrap();
        assert_eq!((tool.uid(), tool.gid(), tool.nlink()), (7, 8, 2));
        assert_eq!(
            (tool.mode() & 0o7777, tool.mtime()),
            (0o4755, 1_000_000_000)
        );
        let bin = fs::metadata(root.join("bin")).unwrap();
        assert_eq!((bin.mode() & 0o7777, bin.uid()), (0o750, 7));
        assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("/bin"));
        // Where the link leads to in the layer, and not on this machine.
        assert_eq!(fs::read(root.join("bin/through")).unwrap(), b"a link");
        assert!(!Path::new("/bin/through").exists());
        assert!(
            fs::metadata(root.join("pipe"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert!(!root.join("disk").exists());
        let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert!(opaque(&root.join("etc")) && !opaque(&root.join("bin")));
        assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 1);
        assert_eq!(fs::read(root.join("twice")).unwrap(), b"second");
        assert!(
            opaque(&root.join("again")),
            "it is instead of what was there"
        );
        assert!(root.join("made/on/the/way").exists());
    }
}

#[test]
fn nothing_in_a_layer_reaches_out_of_its_folder() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let up = "../../../../../../../../../../..";
    let to = format!("{up}{}", outside.display());
    let hostile = [
        Tarball::new().file("../outside/kept", "x"),
        Tarball::new().file("a/../../outside/kept", "x"),
        Tarball::new().link("l", &to).file("l/kept", "x"),
        Tarball::new()
            .link("l", &outside.display().to_string())
            .file("l/kept", "x"),
        Tarball::new()
            .link("l", &format!("{to}/kept"))
            .file("l", "x"),
        Tarball::new()
            .link("l", &to)
            .folder("l/")
            .file("l/new", "x"),
        Tarball::new().link("l", &to).file("l/.wh.kept", ""),
        Tarball::new().link("l", &to).file("l/.wh..wh..opq", ""),
        Tarball::new().file("..", "x"),
        Tarball::new().file("a/.wh...", ""),
        Tarball::new().file(".wh.", ""),
        Tarball::new().add("h", EntryType::Link, &format!("{to}/kept"), b""),
        Tarball::new()
            .link("l", &to)
            .add("h", EntryType::Link, "l/kept", b""),
        Tarball::new().add("h", EntryType::Link, "", b""),
        Tarball::new().link("l", "l").file("l/x", "x"),
    ];
    for (nth, tarball) in hostile.into_iter().enumerate() {
        let root = dir.path().join(format!("layer-{nth}"));
        fs::create_dir(&root).unwrap();
        let tarball = tarball.done();
        // Some are harmless in their own folder, and may be unpacked.
        if let Err(why) = try_unpack(&tarball, &tarball, &root) {
            assert_eq!(why.code(), "image_corrupt", "{nth}: {why}");
        }
        let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(left.len(), 1, "{nth}");
        assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept", "{nth}");
        assert!(!opaque(&outside), "{nth}");
    }
}

#[test]
fn what_does_not_add_up_breaks_off_or_swells_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |blob: &[u8], tarball: &[u8]| {
        let root = tempfile::tempdir_in(dir.path()).unwrap();
        try_unpack(blob, tarball, root.path()).unwrap_err()
    };
    let tarball = Tarball::new().done();
    let blob = gzip(&tarball);
    assert_eq!(refused(&blob, b"another").code(), "image_corrupt");
    assert_eq!(
        refused(&blob[..blob.len() - 4], &tarball).code(),
        "image_corrupt"
    );
    let garbage = [blob.as_slice(), b"garbage"].concat();
    assert_eq!(refused(&garbage, &tarball).code(), "image_corrupt");
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
    assert_eq!(refused(&zstd, &tarball).code(), "image_unsupported");
    // What is behind the end counts as well.
    let mut swollen = tarball.clone();
    swollen.resize(usize::try_from(RATIO_FLOOR).unwrap() + 1, 0);
    let error = refused(&gzip(&swollen), &swollen);
    assert!(error.to_string().contains("bomb"), "{error}");
    let root = tempfile::tempdir_in(dir.path()).unwrap();
    let sums = Sums {
        blob: sha256(&tarball),
        diff: sha256(&tarball),
    };
    let (canceller, heard) = cancel();
    let over = unpack(file_of(&tarball), root.path(), sums, 100, &heard).unwrap_err();
    assert_eq!(over.code(), "image_too_large");
    canceller.cancel();
    let cancelled = unpack(file_of(&tarball), root.path(), sums, 1 << 20, &heard).unwrap_err();
    assert_eq!(cancelled.code(), "image_cancelled");
}

#[test]
fn spoiled_layers_never_panic_and_never_hang() {
    let tarball = Tarball::new()
        .folder("a")
        .file("a/b", "text")
        .link("a/c", "b")
        .file("a/.wh.d", "")
        .done();
    let dir = tempfile::tempdir().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let (_canceller, cancel) = cancel();
    for nth in 0..300 {
        let mut spoiled = tarball.clone();
        for _ in 0..=nth % 4 {
            let at = next() % spoiled.len();
            spoiled[at] = u8::try_from(next() % 256).unwrap();
        }
        spoiled.truncate(tarball.len() - (next() % 3) * 100);
        let root = dir.path().join(nth.to_string());
        fs::create_dir(&root).unwrap();
        let mut all = Summed::new(Cursor::new(spoiled), &cancel, 1 << 20);
        let _ = untar(&mut all, &root);
    }
    // A link that was there before is not followed either.
    let root = dir.path().join("linked");
    fs::create_dir(&root).unwrap();
    symlink(dir.path(), root.join("a")).unwrap();
    let _ = untar(Cursor::new(tarball), &root);
    assert!(!dir.path().join("b").exists());
}
