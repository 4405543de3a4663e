//! What proves that a caller of the v1 API is the executor in a container (semantics M6): a token in its
//! environment, made of the container's name with a key that only this slave has.
//!
//! The key is kept in the data directory, so that tokens hold across restarts of the slave.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use meros_slave_core::ContainerId;
use tracing::warn;

use crate::sandbox::parse_container;

const KEY_FILE: &str = "executors.key";
const KEY_BYTES: usize = 32;

/// Makes and checks tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    key: Key,
}

impl Tokens {
    /// Reads the key, or makes one.
    ///
    /// # Errors
    /// The data directory cannot be read or written.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(KEY_FILE);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(KEY_BYTES as u64).read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if bytes.len() < KEY_BYTES {
            if path.exists() {
                let what = "the key is damaged, a new one is made: executors that run and send their token \
                            are refused";
                warn!(path = %path.display(), "{what}");
            }
            bytes = make_key(&path)?;
        }
        Ok(Self::of(&bytes))
    }

    fn of(key: &[u8]) -> Self {
        Self {
            key: Key::new(HMAC_SHA256, key),
        }
    }

    /// The token of the executor in a container.
    pub(crate) fn token(&self, container: ContainerId) -> String {
        let name = container.to_string();
        let tag = sign(&self.key, name.as_bytes());
        format!("{name}.{}", hex(tag.as_ref()))
    }

    /// The container whose token this is; none if nobody here has made it.
    pub(crate) fn check(&self, token: &str) -> Option<ContainerId> {
        let (name, tag) = token.split_once('.')?;
        let tag = unhex(tag)?;
        verify(&self.key, name.as_bytes(), &tag).ok()?;
        parse_container(name)
    }
}

/// Complete under its name, or not there.
fn make_key(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; KEY_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_token_of_a_container_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let container = ContainerId {
            incarnation: 2,
            number: 7,
        };
        let token = Tokens::open(dir.path()).unwrap().token(container);
        // After a restart, too.
        let tokens = Tokens::open(dir.path()).unwrap();
        assert_eq!(tokens.check(&token), Some(container));
        let other = token.replacen("2-7", "2-8", 1);
        let cut = &token[..token.len() - 1];
        for bad in ["", ".", "2-7", "2-7.", "2-7.zz", &other, cut] {
            assert_eq!(tokens.check(bad), None, "{bad}");
        }
        fs::write(dir.path().join(KEY_FILE), [1_u8; KEY_BYTES - 1]).unwrap();
        let anew = Tokens::open(dir.path()).unwrap();
        assert_eq!(anew.check(&token), None, "half a key is none");
        let again = Tokens::open(dir.path()).unwrap();
        assert_eq!(again.check(&anew.token(container)), Some(container));
        let strange = Tokens::of(&[7; KEY_BYTES]).token(container);
        assert_eq!(tokens.check(&strange), None, "made elsewhere");
    }
}
