//! The certificate authority of a `meros dev` folder, and an identity for each of its processes.
//!
//! Identities are made whole again when a file of them is lost or they are of another authority:
//! here nobody else has signed them, and the name, which is the principal, stays. The authority is
//! never remade by itself: whoever trusts it would have to be told.

use std::path::{Path, PathBuf};

use meros_proto::transport::PeerRole;

use crate::ca;
use crate::exit::CliError;

/// The files of an identity; those of the authority are the last and `ca-key.pem`.
const FILES: [&str; 3] = ["cert.pem", "key.pem", "ca.pem"];

/// Makes what is missing for so many masters and slaves, and an operator.
///
/// # Errors
/// The authority is damaged, or a file cannot be written.
pub(super) fn make(dir: &Path, masters: u32, slaves: u32) -> Result<(), CliError> {
    let ca_dir = dir.join("ca");
    let has = |file: &str| ca_dir.join(file).exists();
    let ca = match (has("ca.pem"), has("ca-key.pem")) {
        (true, true) => ca::load(&ca_dir)?,
        (false, false) => ca::create("meros-dev", &ca_dir)?,
        (has_cert, _) => {
            let lost = if has_cert { "ca-key.pem" } else { "ca.pem" };
            return Err(CliError::failure(format!(
                "the certificate authority in {0} has lost {lost}: put it back, or remove {0} to have \
                 a new one made",
                ca_dir.display()
            )));
        }
    };
    let mut wanted = vec![(PeerRole::Operator, "operator".to_owned())];
    wanted.extend((1..=masters).map(|n| (PeerRole::Master, format!("master-{n}"))));
    wanted.extend((1..=slaves).map(|n| (PeerRole::Slave, format!("slave-{n}"))));
    for (role, name) in wanted {
        let folder = folder(dir, &name);
        if is_whole(&folder, &ca_dir) {
            continue;
        }
        if remove(&folder)? {
            eprintln!(
                "meros: the identity of {name} was incomplete or of another authority: issuing it again"
            );
        }
        ca::issue(&ca, role, &name, &[], &folder)?;
    }
    Ok(())
}

/// Where the identity of this name is.
pub(super) fn folder(dir: &Path, name: &str) -> PathBuf {
    dir.join("identities").join(name)
}

fn is_whole(folder: &Path, ca_dir: &Path) -> bool {
    let read = |path: PathBuf| std::fs::read(path).ok();
    let ours = read(ca_dir.join("ca.pem"));
    FILES.iter().all(|file| folder.join(file).exists()) && read(folder.join("ca.pem")) == ours
}

/// Whether there was something to remove.
fn remove(folder: &Path) -> Result<bool, CliError> {
    let mut removed = false;
    for file in FILES {
        let path = folder.join(file);
        match std::fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("cannot remove {}: {error}", path.display());
                return Err(CliError::failure(text));
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use meros_proto::transport::Identity;

    use super::*;

    fn key(dir: &Path, name: &str) -> Vec<u8> {
        fs::read(folder(dir, name).join("key.pem")).unwrap()
    }

    #[test]
    fn an_identity_that_lost_a_file_is_issued_again_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        make(dir, 1, 1).unwrap();
        let (master, slave) = (key(dir, "master-1"), key(dir, "slave-1"));
        make(dir, 1, 2).unwrap();
        assert_eq!(key(dir, "slave-1"), slave, "a whole one stays");
        for file in FILES {
            fs::remove_file(folder(dir, "slave-1").join(file)).unwrap();
            make(dir, 1, 2).unwrap();
            let identity = Identity::load(&folder(dir, "slave-1")).unwrap();
            assert_eq!(identity.peer().name(), "slave-1", "without {file}");
        }
        assert_eq!(key(dir, "master-1"), master);
    }

    #[test]
    fn an_authority_that_lost_a_file_is_named_and_a_new_one_signs_all_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        make(dir, 1, 1).unwrap();
        for file in ["ca.pem", "ca-key.pem"] {
            let path = dir.join("ca").join(file);
            let kept = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let error = make(dir, 1, 1).unwrap_err().to_string();
            assert!(error.contains(&format!("has lost {file}")), "{error}");
            fs::write(&path, kept).unwrap();
            if file == "ca-key.pem" {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
        fs::remove_dir_all(dir.join("ca")).unwrap();
        make(dir, 1, 1).unwrap();
        let roots = |name: &str| {
            let identity = Identity::load(&folder(dir, name)).unwrap();
            identity.roots().to_vec()
        };
        assert_eq!(roots("master-1"), roots("slave-1"));
        let authority = fs::read(dir.join("ca/ca.pem")).unwrap();
        assert_eq!(
            fs::read(folder(dir, "slave-1").join("ca.pem")).unwrap(),
            authority
        );
    }
}
