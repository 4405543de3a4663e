//! Names of resources.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::value::Kind;

/// The name of a resource: 1 to [`ResourceName::BYTES_MAX`] ASCII letters, digits and `_-./`.
///
/// The five names that Meros itself gives a meaning to cost nothing to clone and to compare, and
/// come first in the order; any other name clones as a reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ResourceName(Name);

/// `Other` never holds a name that has a variant of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    Cpus,
    Mem,
    Disk,
    Gpus,
    Ports,
    Other(Arc<str>),
}

/// Why a text is not the name of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceNameError {
    /// Empty, or longer than [`ResourceName::BYTES_MAX`].
    #[error("a resource name has 1 to {max} bytes, this one has {got}", max = ResourceName::BYTES_MAX)]
    Length {
        /// Length in bytes.
        got: usize,
    },
    /// A character other than ASCII letters, digits and `_-./`.
    #[error("a resource name consists of letters, digits and `_-./`")]
    BadCharacter,
}

impl ResourceName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;
    /// Processor cores; a scalar.
    pub const CPUS: ResourceName = ResourceName(Name::Cpus);
    /// Memory in MiB; a scalar.
    pub const MEM: ResourceName = ResourceName(Name::Mem);
    /// Disk space in MiB; a scalar.
    pub const DISK: ResourceName = ResourceName(Name::Disk);
    /// Graphics processors; a whole scalar.
    pub const GPUS: ResourceName = ResourceName(Name::Gpus);
    /// TCP and UDP ports; ranges.
    pub const PORTS: ResourceName = ResourceName(Name::Ports);

    /// Checks and keeps `name`.
    ///
    /// # Errors
    /// Wrong length, then wrong characters.
    pub fn new(name: &str) -> Result<Self, ResourceNameError> {
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err(ResourceNameError::Length { got: name.len() });
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        {
            return Err(ResourceNameError::BadCharacter);
        }
        Ok(Self(match name {
            "cpus" => Name::Cpus,
            "mem" => Name::Mem,
            "disk" => Name::Disk,
            "gpus" => Name::Gpus,
            "ports" => Name::Ports,
            other => Name::Other(other.into()),
        }))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Cpus => "cpus",
            Name::Mem => "mem",
            Name::Disk => "disk",
            Name::Gpus => "gpus",
            Name::Ports => "ports",
            Name::Other(name) => name,
        }
    }

    /// The place of a name that Meros itself gives a meaning to among those: cpus 0, mem 1, disk 2,
    /// gpus 3, ports 4. None for all others.
    #[must_use]
    pub const fn well_known(&self) -> Option<usize> {
        match self.0 {
            Name::Cpus => Some(0),
            Name::Mem => Some(1),
            Name::Disk => Some(2),
            Name::Gpus => Some(3),
            Name::Ports => Some(4),
            Name::Other(_) => None,
        }
    }

    /// The kind that values of this name must have; `None` for names without a meaning of ours.
    #[must_use]
    pub fn required_kind(&self) -> Option<Kind> {
        match self.0 {
            Name::Cpus | Name::Mem | Name::Disk | Name::Gpus => Some(Kind::Scalar),
            Name::Ports => Some(Kind::Ranges),
            Name::Other(_) => None,
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(name: &str) -> Result<Self, ResourceNameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = ResourceNameError;

    fn try_from(name: String) -> Result<Self, ResourceNameError> {
        Self::new(&name)
    }
}

impl Serialize for ResourceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_ascii_of_bounded_length() {
        for good in [
            "cpus",
            "network_bandwidth",
            "vendor.com/tpu-v2",
            "x",
            "CPUS",
        ] {
            assert_eq!(ResourceName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ResourceName::new("ports"), Ok(ResourceName::PORTS));
        assert_eq!(
            ResourceName::new(""),
            Err(ResourceNameError::Length { got: 0 })
        );
        assert_eq!(
            ResourceName::new(&"a".repeat(129)),
            Err(ResourceNameError::Length { got: 129 })
        );
        for bad in ["a b", "a:b", "a(b", "ä", "a\0"] {
            assert_eq!(
                ResourceName::new(bad),
                Err(ResourceNameError::BadCharacter),
                "{bad}"
            );
        }
    }

    #[test]
    fn decoding_finds_the_well_known_names_again() {
        let read = |json: &str| serde_json::from_str::<ResourceName>(json);
        assert_eq!(read(r#""mem""#).unwrap(), ResourceName::MEM);
        assert_eq!(
            serde_json::to_string(&ResourceName::GPUS).unwrap(),
            r#""gpus""#
        );
        assert!(read(r#""""#).is_err());
    }
}
