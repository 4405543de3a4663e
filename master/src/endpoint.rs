//! `endpoint.json` in the data directory: where a running master can be reached, for tools on the
//! same machine and for tests that let it choose a port.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use meros_proto::ids::ClusterId;
use serde::{Deserialize, Serialize};

/// The name of the file.
pub const ENDPOINT_FILE: &str = "endpoint.json";

/// What the file says. A file whose process is gone is stale: only a clean stop removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The process.
    pub pid: u32,
    /// Where slaves and frameworks connect (UDP).
    pub quic: SocketAddr,
    /// Where HTTP is served (TCP).
    pub http: SocketAddr,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The version of the software.
    pub version: String,
}

impl Endpoint {
    /// Writes the file in one step: readers see the old one or the whole new one.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let draft = data_dir.join(format!("{ENDPOINT_FILE}.new"));
        let text = serde_json::to_vec(self).expect("addresses, numbers and text");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&draft)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        std::fs::rename(&draft, data_dir.join(ENDPOINT_FILE))
    }

    /// The file's place.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(ENDPOINT_FILE)
    }
}
