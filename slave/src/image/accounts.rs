//! Users as an image knows them: its own `/etc/passwd` and `/etc/group`, looked up in its layers.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use meros_shim::Account;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::error::Failure;

/// More than any list of users that is a file.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// The kernel takes 65,536; no image has so many.
const GROUPS_MAX: usize = 1_024;

/// Who somebody is in an image, and where their home is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) account: Account,
    pub(crate) home: String,
}

/// `user`, `uid`, `user:group` and so on, as Docker reads it: names must be known, numbers need not be. The
/// trees of the layers are given with the uppermost first. Blocks.
pub(crate) fn find(layers: &[PathBuf], wanted: &str) -> Result<Found, Failure> {
    let passwd = read(layers, "etc/passwd");
    let groups = read(layers, "etc/group");
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    let unknown = |what: &str, name: &str| {
        let name = shown(name);
        Failure::User(format!("the image has no {what} {name:?}"))
    };
    let number = user.parse::<u32>().ok();
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut known = line.filter(|fields| fields.len() >= 6);
    let known = known.find(|fields| {
        fields[0] == user || (number.is_some() && fields[2].parse::<u32>().ok() == number)
    });
    let (name, uid, gid, home) = match (&known, number) {
        (Some(fields), _) => {
            let wrong = |_| unknown("usable entry for user", user);
            let uid = fields[2].parse().map_err(wrong)?;
            let gid = fields[3].parse().map_err(wrong)?;
            (Some(fields[0]), uid, gid, fields[5])
        }
        (None, Some(uid)) => (None, uid, 0, "/"),
        (None, None) => return Err(unknown("user", user)),
    };
    let line = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let all: Vec<Vec<&str>> = line.filter(|fields| fields.len() >= 3).collect();
    let (gid, mut member) = match group {
        None => {
            let of = |fields: &&Vec<&str>| {
                let mut members = fields.get(3).into_iter().flat_map(|it| it.split(','));
                name.is_some_and(|name| members.any(|it| it == name))
            };
            let ids = all
                .iter()
                .filter(of)
                .filter_map(|fields| fields[2].parse().ok());
            (gid, ids.take(GROUPS_MAX).collect::<Vec<u32>>())
        }
        Some(group) => {
            let named = all.iter().find(|fields| fields[0] == group);
            let id = match named {
                Some(fields) => fields[2].parse().ok(),
                None => group.parse().ok(),
            };
            (id.ok_or_else(|| unknown("group", group))?, Vec::new())
        }
    };
    if !member.contains(&gid) {
        member.push(gid);
    }
    Ok(Found {
        account: Account {
            uid,
            gid,
            groups: member,
        },
        home: if home.starts_with('/') { home } else { "/" }.to_owned(),
    })
}

/// A file of the uppermost layer that has it; empty if none has. Links are followed in the layer itself, as if
/// it were the root.
fn read(layers: &[PathBuf], path: &str) -> String {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for layer in layers {
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = openat(CWD, layer, folder, Mode::empty()) else {
            continue;
        };
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let found = match openat2(&root, path, look, Mode::empty(), resolve) {
            Ok(found) => File::from(found),
            Err(Errno::NOENT) if !is_opaque(layer, path) => continue,
            Err(_) => return String::new(),
        };
        let Ok(about) = found.metadata() else {
            return String::new();
        };
        if about.file_type().is_char_device() && about.rdev() == 0 || !about.is_file() {
            // Gone in this layer, or nothing to be read.
            return String::new();
        }
        let open = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = openat2(&root, path, open, Mode::empty(), resolve) else {
            return String::new();
        };
        let mut bytes = Vec::new();
        let _ = File::from(file)
            .take(LIST_BYTES_MAX)
            .read_to_end(&mut bytes);
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    String::new()
}

/// Whether lower layers are hidden there.
fn is_opaque(layer: &Path, path: &str) -> bool {
    let Some(above) = Path::new(path).parent() else {
        return false;
    };
    let mut value = [0; 4];
    let name = "trusted.overlay.opaque";
    let read = rustix::fs::lgetxattr(layer.join(above), name, &mut value[..]);
    read.is_ok_and(|length| value.get(..length) == Some(b"y".as_slice()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn users_and_groups_are_those_of_the_uppermost_layer_that_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let [upper, middle, lower] = ["upper", "middle", "lower"].map(|it| dir.path().join(it));
        for layer in [&upper, &middle, &lower] {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(lower.join("etc/passwd"), "web:x:1:1::/old:\n").unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:34:Web:/srv:/bin/sh\n";
        fs::write(middle.join("etc/passwd"), passwd).unwrap();
        fs::write(middle.join("etc/group"), "logs:x:4:adm,web\nweb:x:34:\n").unwrap();
        let layers = [upper, middle, lower];
        let found = |wanted: &str| {
            let Found { account, home } = find(&layers, wanted).unwrap();
            (account.uid, account.gid, account.groups, home)
        };
        assert_eq!(found("web"), (33, 34, vec![4, 34], "/srv".to_owned()));
        assert_eq!(found("33"), found("web"));
        assert_eq!(found("web:logs"), (33, 4, vec![4], "/srv".to_owned()));
        assert_eq!(found("7:8"), (7, 8, vec![8], "/".to_owned()));
        assert_eq!(found("7"), (7, 0, vec![0], "/".to_owned()));
        for unknown in ["nobody", "", "web:nobody", "-1", "4294967296"] {
            let error = find(&layers, unknown).unwrap_err();
            assert_eq!(error.code(), "image_user", "{unknown}");
        }
        assert_eq!(find(&[], "0").unwrap().account.uid, 0);
    }
}
