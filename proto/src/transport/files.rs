//! Certificates and keys on disk: never overwritten, keys readable by their owner only.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::pem;

use super::PeerIdentityError;

/// Such files are a few KiB; more is a mistake, such as a log given as a certificate.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why files of an identity or a CA could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file is there already. Keys are never overwritten: move the old one away first.
    #[error("{} exists already; move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file or directory could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why files of an identity or a CA could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any certificate.
    #[error("{} is too large to be a certificate or key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A key that others than its owner may read or write: whoever can, is who we are.
    #[error("{} has mode {mode:04o}, so others can read or write the key: run `chmod 600` on it, \
             and issue a new one if somebody may have done so", path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions, such as 0o644.
        mode: u32,
    },
    /// The file has no certificate or key in PEM form.
    #[error("{} holds no certificate or key in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate does not say who we are.
    #[error("{} does not hold a usable certificate", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PeerIdentityError,
    },
    /// The key cannot be used, or belongs to another certificate.
    #[error("{} does not hold the key of the certificate beside it", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The CA's certificate or key cannot be used to sign.
    #[error("{} does not hold a usable part of a certificate authority", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
}

/// Makes the directory, closed to others, and its parents.
pub(super) fn create_dir(dir: &Path) -> Result<(), SaveError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| SaveError::Write {
            path: dir.to_owned(),
            source,
        })
}

/// Writes a key: mode 0600 from its first moment, not by a later change.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), SaveError> {
    write_new(path, text, 0o600)
}

/// Writes a certificate, which anyone may read.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), SaveError> {
    write_new(path, text, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), SaveError> {
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // A key that exists only in a cache is a cluster that cannot grow after a power cut.
            file.sync_all()
        });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SaveError::Exists {
            path: path.to_owned(),
        },
        _ => SaveError::Write {
            path: path.to_owned(),
            source,
        },
    })
}

/// Reads a PEM file of a sensible size.
pub(super) fn read(path: &Path) -> Result<String, LoadError> {
    read_open(path, &open(path)?)
}

/// As [`read`], for a key: refused when group or others may read or write it.
pub(super) fn read_secret(path: &Path) -> Result<String, LoadError> {
    let file = open(path)?;
    // Of the open file, so that it is the one that is read.
    let metadata = file.metadata().map_err(|source| failed(path, source))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(LoadError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read_open(path, &file)
}

fn failed(path: &Path, source: io::Error) -> LoadError {
    LoadError::Read {
        path: path.to_owned(),
        source,
    }
}

fn open(path: &Path) -> Result<fs::File, LoadError> {
    fs::File::open(path).map_err(|source| failed(path, source))
}

fn read_open(path: &Path, file: &fs::File) -> Result<String, LoadError> {
    let failed = |source| failed(path, source);
    let mut bytes = Vec::new();
    file.take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}
