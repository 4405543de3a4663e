//! `endpoint.json` in the data directory: where a running slave is reached, for tools on its machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::start::StartError;

#[derive(Debug, Serialize)]
struct Content {
    pid: u32,
    http: SocketAddr,
    version: &'static str,
}

/// The file; removed when dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    path: PathBuf,
}

impl Endpoint {
    /// Writes it so that readers see all of it or nothing.
    pub(crate) fn write(data_dir: &Path, http: SocketAddr) -> Result<Self, StartError> {
        let path = data_dir.join("endpoint.json");
        let content = Content {
            pid: std::process::id(),
            http,
            version: env!("CARGO_PKG_VERSION"),
        };
        let text = serde_json::to_vec_pretty(&content).expect("plain types");
        let draft = path.with_extension("json.new");
        let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path));
        written.map_err(|source| StartError::Endpoint {
            path: path.clone(),
            source,
        })?;
        Ok(Self { path })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Readers compare the process id, so one that stays does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}
