//! Archives that are hostile, broken or merely usual.

use std::fs;
use std::io::Seek;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use tar::{Builder, Header};

use super::super::cancel::{Canceller, cancel};
use super::*;

/// A sandbox and, beside it, what must not be touched.
struct World {
    dir: tempfile::TempDir,
    left: u64,
    cancel: (Canceller, Cancel),
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sandbox")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "kept").unwrap();
        Self {
            dir,
            left: 1 << 30,
            cancel: cancel(),
        }
    }

    fn sandbox(&self) -> std::path::PathBuf {
        self.dir.path().join("sandbox")
    }

    fn unpack(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let landing = Landing::open(&self.sandbox(), None).unwrap();
        let most = self.left;
        let mut budget = Budget::new(&self.cancel.1, bytes.len() as u64, &mut self.left, most);
        let result = unpack(name, &file, &landing, &mut budget);
        assert_eq!(
            fs::read_to_string(self.dir.path().join("outside/file")).unwrap(),
            "kept"
        );
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        assert_eq!(
            fs::read_dir(self.dir.path().join("outside"))
                .unwrap()
                .count(),
            1
        );
        result
    }

    fn refuses(&mut self, name: &str, bytes: &[u8], why: &str) {
        let error = self.unpack(name, bytes).expect_err(why).to_string();
        assert!(error.contains(why), "{error}, not {why}");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.sandbox().join(path)).expect(path)
    }
}

/// A tar of things that `Builder` itself would not make: names are written as they are.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, name: &str, target: &str, data: &[u8], mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.add(EntryType::Regular, name, "", text.as_bytes(), 0o644)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.add(kind, name, target, b"", 0o777)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1_024]);
        self.0
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_usual_archive_is_unpacked_with_permissions_and_links_and_without_setuid() {
    let mut builder = Builder::new(Vec::new());
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o6755);
    builder
        .append_data(&mut header, "./bin/run", &b"run"[..])
        .unwrap();
    header.set_mode(0o644);
    builder
        .append_data(&mut header, &long, &b"abc"[..])
        .unwrap();
    builder.append_data(&mut header, "ü", &b"ue\n"[..]).unwrap();
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    builder
        .append_link(&mut link, "lib/current", "../bin/run")
        .unwrap();
    link.set_entry_type(EntryType::Link);
    builder
        .append_link(&mut link, "bin/same", "bin/run")
        .unwrap();
    let tar = builder.into_inner().unwrap();
    for (name, bytes) in [("a.tar", tar.clone()), ("a.TGZ", gz(&tar))] {
        let mut world = World::new();
        world.unpack(name, &bytes).expect(name);
        assert_eq!(world.text(&long), "abc");
        assert_eq!(world.text("lib/current"), "run");
        assert_eq!(world.text("bin/same"), "run");
        let found = fs::metadata(world.sandbox().join("bin/run")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o755);
        assert_eq!(found.nlink(), 2);
    }
}

#[test]
fn nothing_leaves_the_sandbox() {
    let mut world = World::new();
    let outside = world.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    let (symlink, hardlink) = (EntryType::Symlink, EntryType::Link);
    for (archive, why) in [
        (
            Tar::default().file("../outside/file", "x"),
            "leaves the sandbox",
        ),
        (
            Tar::default().file("a/../../outside/file", "x"),
            "leaves the sandbox",
        ),
        (Tar::default().file("/outside", "x"), "absolute path"),
        (Tar::default().file("stdout", "x"), "slave's own"),
        (
            Tar::default().link(symlink, "l", outside),
            "not below the sandbox",
        ),
        (
            Tar::default().link(symlink, "l", "../outside"),
            "not below the sandbox",
        ),
        (
            Tar::default()
                .link(symlink, "d", ".")
                .link(symlink, "l", "d/../../outside"),
            "not below the sandbox",
        ),
        (
            Tar::default().link(hardlink, "l", "../outside/file"),
            "leaves the sandbox",
        ),
        (
            Tar::default().link(hardlink, "l", "/etc/passwd"),
            "absolute path",
        ),
        (Tar::default().link(hardlink, "l", "nothing"), "nothing"),
    ] {
        world.refuses("a.tar", &archive.end(), why);
    }
}

#[test]
fn nothing_is_written_through_a_link_that_came_before() {
    for (archive, why) in [
        (
            Tar::default()
                .add(EntryType::Directory, "real", "", b"", 0o755)
                .link(EntryType::Symlink, "l", "real")
                .file("l/x", "x"),
            "there is a link",
        ),
        (
            Tar::default()
                .link(EntryType::Symlink, "l", "x")
                .file("l", "x"),
            "never written through",
        ),
        (
            Tar::default()
                .link(EntryType::Symlink, "l", "x")
                .link(EntryType::Link, "h", "l"),
            "no regular file",
        ),
        (
            Tar::default()
                .add(EntryType::Directory, "d", "", b"", 0o755)
                .link(EntryType::Symlink, "d", "x"),
            "not that link",
        ),
    ] {
        let mut world = World::new();
        world.refuses("a.tar", &archive.end(), why);
        assert!(!world.sandbox().join("real/x").exists());
    }
    // One that was there before the archive, as a volume's is.
    let mut world = World::new();
    let volume = world.dir.path().join("outside");
    std::os::unix::fs::symlink(volume, world.sandbox().join("db")).unwrap();
    world.refuses(
        "a.tar",
        &Tar::default().file("db/file", "x").end(),
        "there is a link",
    );
    world.refuses(
        "a.zip",
        &zip(&[("db/file", b"x", 0o100_644)]),
        "there is a link",
    );
}

#[test]
fn devices_pipes_and_unknown_things_are_refused() {
    let mut world = World::new();
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
    ] {
        let archive = Tar::default().add(kind, "dev", "", b"", 0o666).end();
        world.refuses("a.tar", &archive, "neither a file");
    }
    world.refuses("a.zip", &zip(&[("dev", b"", 0o020_666)]), "neither a file");
}

#[test]
fn bombs_go_off_early() {
    let mut world = World::new();
    let zeros = vec![0; 100 << 20];
    let bomb = gz(&Tar::default()
        .add(EntryType::Regular, "a", "", &zeros, 0o644)
        .end());
    world.refuses("a.tar.gz", &bomb, "times as large");
    world.refuses("a.zip", &zip(&[("a", &zeros, 0o100_644)]), "times as large");
    let written = fs::metadata(world.sandbox().join("a")).unwrap().len();
    assert!(written <= RATIO_FLOOR, "{written}");
    world.left = 1_000;
    let archive = Tar::default().add(EntryType::Regular, "b", "", &zeros[..2_000], 0o644);
    world.refuses("a.tar", &archive.end(), "--fetch-task-bytes-max");
    // A name of a hundred mebibytes would be kept in memory.
    let name = Tar::default().add(EntryType::GNULongName, "n", "", &zeros, 0o644);
    world.refuses("a.tgz", &gz(&name.end()), "has no end");
}

#[test]
fn too_many_entries_are_refused_and_a_cancelled_one_ends() {
    let mut world = World::new();
    let landing = Landing::open(&world.sandbox(), None).unwrap();
    let mut left = 1 << 30;
    let mut budget = Budget::new(&world.cancel.1, 1, &mut left, 1 << 30);
    budget.entries = 1;
    let archive = Tar::default().file("a", "").file("b", "").end();
    let error = untar(&archive[..], &landing, &mut budget).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    world.cancel.0.cancel();
    let error = world.unpack("a.tar", &archive).unwrap_err();
    assert!(
        matches!(error, Failure::Cancelled | Failure::Archive(_)),
        "{error}"
    );
}

#[test]
fn what_is_cut_off_or_garbage_is_an_error_and_never_a_panic() {
    let tar = Tar::default().file("a", &"x".repeat(2_000)).end();
    let (tgz, zipped) = (
        gz(&tar),
        zip(&[("a", b"hello", 0o100_644), ("b", b"", 0o100_644)]),
    );
    for (name, bytes) in [("a.tgz", &tgz), ("a.zip", &zipped)] {
        for cut in 0..bytes.len() {
            let mut world = World::new();
            assert!(world.unpack(name, &bytes[..cut]).is_err(), "{name} {cut}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0xff;
            // Some bits mean nothing; none may do harm.
            let _ = World::new().unpack(name, &bent);
        }
    }
    World::new().refuses("a.tar", &[7; 2_048], "cannot be read");
    World::new().refuses("a.tar.xz", b"no xz at all", "cannot be read");
    World::new().refuses("a.zip", b"PK", "too short");
}

/// A zip as other programs make them, of deflated files with these modes.
fn zip(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    let u16s = |into: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|it| into.extend(it.to_le_bytes()));
    };
    let u32s = |into: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|it| into.extend(it.to_le_bytes()));
    };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    for (name, data, mode) in files {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        let packed = encoder.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let offset = length(&all);
        let name_bytes = u16::try_from(name.len()).unwrap();
        all.extend(b"PK\x03\x04");
        u16s(&mut all, &[20, 0, 8, 0, 0]);
        u32s(&mut all, &[crc.sum(), length(&packed), length(data)]);
        u16s(&mut all, &[name_bytes, 0]);
        all.extend(name.as_bytes());
        all.extend(&packed);
        directory.extend(b"PK\x01\x02");
        u16s(&mut directory, &[3 << 8 | 20, 20, 0, 8, 0, 0]);
        u32s(&mut directory, &[crc.sum(), length(&packed), length(data)]);
        u16s(&mut directory, &[name_bytes, 0, 0, 0, 0]);
        u32s(&mut directory, &[mode << 16, offset]);
        directory.extend(name.as_bytes());
    }
    let (begin, size) = (length(&all), length(&directory));
    let count = u16::try_from(files.len()).unwrap();
    all.extend(directory);
    all.extend(b"PK\x05\x06");
    u16s(&mut all, &[0, 0, count, count]);
    u32s(&mut all, &[size, begin]);
    u16s(&mut all, &[0]);
    all
}

#[test]
fn a_zip_is_unpacked_with_permissions_and_links_and_its_sums_are_checked() {
    let mut world = World::new();
    let bytes = zip(&[
        ("bin/", b"", 0o040_755),
        ("bin/run", b"#!/bin/sh\n", 0o104_755),
        ("link", b"bin/run", 0o120_777),
        ("empty", b"", 0),
    ]);
    world.unpack("A.ZIP", &bytes).unwrap();
    assert_eq!(world.text("link"), "#!/bin/sh\n");
    assert_eq!(world.text("empty"), "");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&world.sandbox().join("bin/run")), 0o755);
    for (name, mode, why) in [
        ("../x", 0o100_644, "leaves the sandbox"),
        ("/x", 0o100_644, "absolute path"),
        ("x", 0o120_777, "not below the sandbox"),
    ] {
        World::new().refuses("a.zip", &zip(&[(name, b"/etc/passwd", mode)]), why);
    }
    // The sum in the directory.
    let mut bent = zip(&[("a", b"hello", 0o100_644)]);
    let at = bent.windows(4).position(|it| it == b"PK\x01\x02").unwrap() + 16;
    bent[at] ^= 1;
    world.refuses("a.zip", &bent, "is damaged");
    // A size of four gibibytes is the mark of the larger form.
    let end = bent.len() - 22;
    bent[end + 12..end + 16].copy_from_slice(&[0xff; 4]);
    world.refuses("a.zip", &bent, "zip64");
}
