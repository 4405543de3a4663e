//! The data of persistent volumes (semantics D7).
//!
//! `<data_dir>/volumes/<directory>` is the data of one volume; the core gives out the names and never
//! uses one again. A task finds its volume as a symbolic link at the container path in its sandbox: it
//! runs in the host's own tree, and the link works for every user and without root. The directory
//! belongs to the user of the task that had it last, and nobody else can look into it.
//!
//! Only what the core names is ever removed, nothing outside of the folder, and no link is followed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use meros_slave_core::{MountedVolume, VolumeDirectory};
use nix::unistd::chown;

use crate::fetch::Owner;

/// All volumes of one slave.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Below this directory, which is made when needed.
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, directory: &VolumeDirectory) -> io::Result<PathBuf> {
        let name = Path::new(directory.as_str());
        match name.components().collect::<Vec<_>>()[..] {
            [Component::Normal(_)] => Ok(self.root.join(name)),
            // The core makes no such names; a damaged disk may.
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// Puts volumes into a new sandbox, for a task of this owner if it is not us. Says where their
    /// data is. Blocks.
    pub(crate) fn mount(
        &self,
        volumes: &[MountedVolume],
        sandbox: &Path,
        owner: Option<Owner>,
    ) -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::with_capacity(volumes.len());
        if volumes.is_empty() {
            return Ok(all);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.root)?;
        let own = |path: &Path| match owner {
            Some((user, group)) => chown(path, Some(user), Some(group)).map_err(io::Error::from),
            None => Ok(()),
        };
        for volume in volumes {
            let data = self.path(&volume.directory)?;
            match DirBuilder::new().mode(0o700).create(&data) {
                // What a task makes durable in there is not to be lost with the directory itself.
                Ok(()) => File::open(&self.root)?.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            own(&data)?;
            let mut place = sandbox.to_owned();
            let parts = Path::new(&volume.container_path).components();
            let mut parts = parts
                .filter_map(|part| match part {
                    Component::Normal(part) => Some(Ok(part)),
                    Component::CurDir => None,
                    _ => Some(Err(io::Error::from(io::ErrorKind::InvalidInput))),
                })
                .collect::<io::Result<Vec<_>>>()?
                .into_iter()
                .peekable();
            while let Some(part) = parts.next() {
                place.push(part);
                if parts.peek().is_none() {
                    symlink(&data, &place)?;
                } else if !place.is_dir() {
                    DirBuilder::new().mode(0o700).create(&place)?;
                    own(&place)?;
                }
            }
            all.push(data);
        }
        Ok(all)
    }

    /// Removes the data of a destroyed volume; done if there is none. Blocks.
    pub(crate) fn wipe(&self, directory: &VolumeDirectory) -> io::Result<()> {
        let path = self.path(directory)?;
        let removed = match fs::symlink_metadata(&path) {
            // A link in place of a directory of ours: it goes, and not what it points to.
            Ok(found) if !found.is_dir() => fs::remove_file(&path),
            Ok(_) => fs::remove_dir_all(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(directory: &str, path: &str) -> MountedVolume {
        MountedVolume {
            directory: serde_json::from_value(directory.into()).unwrap(),
            container_path: path.to_owned(),
        }
    }

    #[test]
    fn a_volume_keeps_its_data_from_one_sandbox_to_the_next_until_it_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::below(dir.path().join("volumes"));
        let sandbox = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (first, second) = (sandbox("one"), sandbox("two"));
        let all = [mounted("db.1", "var/./db"), mounted("log.2", "log")];
        volumes.mount(&all, &first, None).unwrap();
        fs::write(first.join("var/db/rows"), "written").unwrap();
        fs::remove_dir_all(&first).unwrap();
        volumes.mount(&all[..1], &second, None).unwrap();
        let read = fs::read_to_string(second.join("var/db/rows")).unwrap();
        assert_eq!(read, "written");
        volumes.wipe(&all[0].directory).unwrap();
        assert!(fs::read(second.join("var/db/rows")).is_err());
        assert!(dir.path().join("volumes/log.2").is_dir(), "another one");
        volumes.wipe(&all[0].directory).unwrap();
    }

    #[test]
    fn nothing_outside_of_the_folder_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::below(dir.path().join("volumes"));
        let precious = dir.path().join("precious");
        fs::create_dir_all(dir.path().join("volumes")).unwrap();
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "kept").unwrap();
        for name in ["", ".", "..", "../precious", "/", "a/b"] {
            let bad = mounted(name, "x").directory;
            assert!(volumes.wipe(&bad).is_err(), "{name:?}");
        }
        symlink(&precious, dir.path().join("volumes/link.1")).unwrap();
        volumes.wipe(&mounted("link.1", "x").directory).unwrap();
        let data = dir.path().join("volumes/data.2");
        fs::create_dir(&data).unwrap();
        symlink(&precious, data.join("inside")).unwrap();
        volumes.wipe(&mounted("data.2", "x").directory).unwrap();
        assert!(!data.exists());
        assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "kept");
    }

    #[test]
    fn a_path_that_leaves_the_sandbox_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::below(dir.path().join("volumes"));
        let sandbox = dir.path().join("sandbox");
        fs::create_dir(&sandbox).unwrap();
        for path in ["../x", "/x", "a/../../x"] {
            let bad = [mounted("db.1", path)];
            assert!(volumes.mount(&bad, &sandbox, None).is_err(), "{path}");
        }
    }
}
