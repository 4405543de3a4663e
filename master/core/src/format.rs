//! Which forms of the replicated registry there are: a release knows some, a cluster uses one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The forms in which masters store the registry and tell it each other: commands, snapshots, and the
/// messages between masters. A release that adds something to them that the one before cannot read counts
/// up [`Format::NEWEST`], and writes it only into a registry that is of that format: by then every master
/// can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(pub u32);

impl Format {
    /// Of the first masters that were replicated, and of each new cluster.
    pub const FIRST: Self = Self(2);
    /// The oldest that this release reads and writes.
    pub const OLDEST: Self = Self::FIRST;
    /// The newest that this release reads and writes.
    pub const NEWEST: Self = Self::FIRST;
}

impl Default for Format {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
