//! The file tree of the virtual machine: files of this host under the names that they have here, as
//! an archive that a kernel unpacks at its start (cpio, format `newc`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;
/// The name by which a kernel knows the end.
const END: &str = "TRAILER!!!";

/// An archive in memory.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

impl Archive {
    /// A folder and those that lead to it.
    pub(super) fn folder(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
            self.entry(path, FOLDER, &[]);
        }
    }

    /// A file of our own.
    pub(super) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) {
        self.folder(path.parent().unwrap_or(path));
        self.entry(path, FILE | mode, content);
    }

    /// A file of this host, with the links that lead to it.
    pub(super) fn copy(&mut self, path: &Path) -> io::Result<()> {
        // Links that go round in circles end here.
        path.canonicalize()?;
        let mut at = PathBuf::from("/");
        let mut components = path.components();
        while let Some(component) = components.next() {
            match component {
                Component::Normal(name) => at.push(name),
                // What leads here has no links any more, so this is the folder that is meant.
                Component::ParentDir => drop(at.pop()),
                _ => continue,
            }
            let kind = fs::symlink_metadata(&at)?;
            if kind.is_symlink() {
                let target = fs::read_link(&at)?;
                self.entry(&at, LINK, target.as_os_str().as_bytes());
                at.pop();
                // Joining nothing would add a slash, which only a folder may have.
                let mut target = at.join(target);
                target.extend(components);
                return self.copy(&target);
            }
            if kind.is_dir() {
                self.entry(&at, FOLDER, &[]);
            } else if !self.names.contains(&at) {
                let mode = kind.permissions().mode() & 0o777;
                self.entry(&at, FILE | mode, &fs::read(&at)?);
            }
        }
        Ok(())
    }

    /// A program of this host and the libraries that it is linked with.
    pub(super) fn program(&mut self, path: &Path) -> io::Result<()> {
        self.copy(path)?;
        libraries(path)?
            .iter()
            .try_for_each(|library| self.copy(library))
    }

    /// The whole of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.names.clear();
        self.entry(Path::new(END), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.names.insert(path.to_owned()) {
            return;
        }
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str();
        if name.is_empty() {
            return;
        }
        let length = |bytes: usize| u32::try_from(bytes).expect("no file here is that large");
        let number = length(self.names.len());
        let (content_length, name_length) = (length(content.len()), length(name.len() + 1));
        // Inode, mode, owner, group, links, time, length, four numbers of devices, length of the name, sum.
        let fields = [
            number,
            mode,
            0,
            0,
            1,
            0,
            content_length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What the dynamic linker would load for it; nothing for a program that is linked statically.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Names and contents, as one who unpacks it would find them.
    fn unpack(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "{at}");
            let field = |number: usize| {
                let from = at + 6 + 8 * number;
                let text = std::str::from_utf8(&bytes[from..from + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, length, name_length) = (field(1), field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_length - 1];
            let content = (at + 110 + name_length).next_multiple_of(4);
            let name = String::from_utf8(name.to_vec()).unwrap();
            if name == END {
                return found;
            }
            let mode = u32::try_from(mode).unwrap();
            found.push((name, mode, bytes[content..content + length].to_vec()));
            at = (content + length).next_multiple_of(4);
        }
    }

    #[test]
    fn what_is_put_in_comes_out_again_once_and_folders_come_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/odd"), 0o755, b"12345");
        archive.file(Path::new("/a/b/more"), 0o600, b"");
        archive.folder(Path::new("/a/c"));
        let found = unpack(&archive.finish());
        let shown: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(shown, ["a", "a/b", "a/b/odd", "a/b/more", "a/c"]);
        assert_eq!(found[2].1, 0o100_755);
        assert_eq!(found[2].2, b"12345");
    }

    #[test]
    fn links_that_lead_to_a_file_of_the_host_are_copied_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/dash"), "text").unwrap();
        symlink("dash", root.join("usr/bin/sh")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("../bin/round", root.join("usr/bin/round")).unwrap();
        let mut archive = Archive::default();
        archive.copy(&root.join("bin/sh")).unwrap();
        assert!(archive.copy(&root.join("bin/round")).is_err());
        let found = unpack(&archive.finish());
        let below = |name: &str| {
            let name = root.join(name);
            let name = name.strip_prefix("/").unwrap().to_str().unwrap();
            found.iter().find(|(found, ..)| found == name).unwrap()
        };
        assert_eq!(below("bin").1, LINK);
        assert_eq!(below("bin").2, b"usr/bin");
        assert_eq!(below("usr/bin/sh").2, b"dash");
        assert_eq!(below("usr/bin/dash").2, b"text");
    }
}
