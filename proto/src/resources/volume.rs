//! Persistent volumes: disk that keeps its data when the task is gone (semantics: D7).

use serde::{Deserialize, Serialize};

/// A persistent volume on reserved disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawVolume")]
pub struct Volume {
    id: String,
    container_path: String,
}

/// Why a volume was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// The persistence id becomes the name of a directory.
    #[error("a persistence id is a file name of 1 to {max} bytes without `/` and control characters", max = Volume::ID_BYTES_MAX)]
    BadId,
    /// The path would leave the sandbox.
    #[error("the path of a volume is relative, has 1 to {max} bytes, no `..` and no control characters", max = Volume::PATH_BYTES_MAX)]
    BadPath,
}

impl Volume {
    /// The longest persistence id, in bytes: that of a file name.
    pub const ID_BYTES_MAX: usize = 255;
    /// The longest container path, in bytes: that of a path.
    pub const PATH_BYTES_MAX: usize = 4_096;

    /// A volume `id` that appears at `container_path` in the sandbox of the task.
    ///
    /// # Errors
    /// [`VolumeError::BadId`], then [`VolumeError::BadPath`].
    pub fn new(
        id: impl Into<String>,
        container_path: impl Into<String>,
    ) -> Result<Self, VolumeError> {
        RawVolume {
            id: id.into(),
            container_path: container_path.into(),
        }
        .try_into()
    }

    /// The persistence id: unique per role and slave.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the task finds it, relative to its sandbox.
    #[must_use]
    pub fn container_path(&self) -> &str {
        &self.container_path
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVolume {
    id: String,
    container_path: String,
}

impl TryFrom<RawVolume> for Volume {
    type Error = VolumeError;

    fn try_from(RawVolume { id, container_path }: RawVolume) -> Result<Self, VolumeError> {
        let plain = |text: &str, max: usize| {
            !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
        };
        if !plain(&id, Self::ID_BYTES_MAX) || id.contains('/') || id == "." || id == ".." {
            return Err(VolumeError::BadId);
        }
        if !plain(&container_path, Self::PATH_BYTES_MAX)
            || container_path.starts_with('/')
            || container_path.split('/').any(|part| part == "..")
        {
            return Err(VolumeError::BadPath);
        }
        Ok(Self { id, container_path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_can_neither_leave_its_directory_nor_the_sandbox() {
        assert!(Volume::new("db-1", "data/x").is_ok());
        for id in ["", ".", "..", "a/b", "a\0", "../x"] {
            assert_eq!(Volume::new(id, "data"), Err(VolumeError::BadId), "{id:?}");
        }
        for path in ["", "/etc", "..", "a/../../b", "a\0"] {
            assert_eq!(
                Volume::new("id", path),
                Err(VolumeError::BadPath),
                "{path:?}"
            );
        }
        assert!(serde_json::from_str::<Volume>(r#"{"id":"..","container_path":"x"}"#).is_err());
    }
}
