//! Typed ids. Those that the kernel gives out are small numbers, so that tables can be dense;
//! those that frameworks choose are checked text.
//!
//! The Mesos v1 edge prints the numbers in the forms of semantics A9; inside, and on the native
//! wire, they stay numbers. Text forms: `S17` a slave, `F3` a framework, `O2-45` an offer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text does not have the form of this kind of id.
    #[error("{text:?} is not {expected}")]
    Form {
        /// What was given, shortened.
        text: String,
        /// The form that was expected, with an example.
        expected: &'static str,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("an id of {bytes} bytes is too long: at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// A character or a form that cannot stand in a path component (semantics A9).
    #[error(
        "{text:?} cannot be an id: {why}; use letters, digits, '-', '_', '.', ':' and the like"
    )]
    NotAPathComponent {
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The longest id that a framework may choose, in bytes: a file name's limit on Linux, because an
/// id becomes the name of a sandbox directory and of a control group.
pub const NAME_BYTES_MAX: usize = 255;

fn shortened(text: &str) -> String {
    let mut out: String = text.chars().take(64).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

macro_rules! numbered_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .filter(|digits| is_canonical_number(digits))
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError::Form {
                        text: shortened(text),
                        expected: $expected,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
                } else {
                    u32::deserialize(from).map(Self)
                }
            }
        }
    };
}

/// One text for one number: no sign, no leading zero.
fn is_canonical_number(digits: &str) -> bool {
    digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.is_empty()
        && (digits == "0" || !digits.starts_with('0'))
}

numbered_id! {
    /// A slave admitted to the cluster. Numbers are given out by the registry and never used twice.
    SlaveId, "S", "the id of a slave, such as S17"
}

numbered_id! {
    /// A framework. Numbers are given out by the registry and never used twice.
    FrameworkId, "F", "the id of a framework, such as F3"
}

/// The term of a leading master: grows by one or more with each leader, so that orders of a
/// deposed one can be told apart from those of its successor.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An offer. Offers are not persisted (semantics C2), so the epoch keeps the numbers of one
/// leader from meaning something to the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId {
    /// The leader that made it.
    pub epoch: Epoch,
    /// Counted from 1 within the epoch.
    pub number: u64,
}

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O{}-{}", self.epoch, self.number)
    }
}

impl fmt::Debug for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OfferId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix('O')
            .and_then(|rest| rest.split_once('-'))
            .filter(|(epoch, number)| is_canonical_number(epoch) && is_canonical_number(number))
            .and_then(|(epoch, number)| {
                Some(Self {
                    epoch: Epoch(epoch.parse().ok()?),
                    number: number.parse().ok()?,
                })
            })
            .ok_or_else(|| ParseIdError::Form {
                text: shortened(text),
                expected: "the id of an offer, such as O2-45",
            })
    }
}

impl Serialize for OfferId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(self)
        } else {
            (self.epoch, self.number).serialize(to)
        }
    }
}

impl<'de> Deserialize<'de> for OfferId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            let (epoch, number) = Deserialize::deserialize(from)?;
            Ok(Self { epoch, number })
        }
    }
}

/// Checks that a text can be the name of a file in a directory (semantics A9), because that is
/// what it becomes on the slave.
fn check_path_component(text: &str) -> Result<(), ParseIdError> {
    let wrong = |why| {
        Err(ParseIdError::NotAPathComponent {
            text: shortened(text),
            why,
        })
    };
    if text.len() > NAME_BYTES_MAX {
        return Err(ParseIdError::TooLong { bytes: text.len() });
    }
    match text {
        "" => wrong("it is empty"),
        "." | ".." => wrong("it names a directory"),
        _ if text.contains('/') => wrong("it contains a slash"),
        _ if text.chars().any(char::is_control) => wrong("it contains a control character"),
        _ if text.chars().any(char::is_whitespace) => wrong("it contains white space"),
        _ => Ok(()),
    }
}

macro_rules! chosen_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to [`NAME_BYTES_MAX`] bytes, a valid path component without white space or control
        /// characters (semantics A9). Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// The text is empty, too long, or cannot be a path component.
            pub fn new(text: impl AsRef<str>) -> Result<Self, ParseIdError> {
                let text = text.as_ref();
                check_path_component(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(to)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

chosen_id! {
    /// A task, named by its framework; unique in the framework among live and unreachable tasks.
    TaskId
}

chosen_id! {
    /// An executor, named by its framework. A command task's executor bears the task's id.
    ExecutorId
}

chosen_id! {
    /// An operation, named by its framework to hear what became of it (semantics D5).
    OperationId
}

impl From<&TaskId> for ExecutorId {
    fn from(task: &TaskId) -> Self {
        Self(Arc::clone(&task.0))
    }
}

macro_rules! uuid_like {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let n = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    n >> 96,
                    (n >> 80) & 0xffff,
                    (n >> 64) & 0xffff,
                    (n >> 48) & 0xffff,
                    n & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let dashes = [8, 13, 18, 23];
                let good = text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| {
                        if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
                    });
                good.then(|| u128::from_str_radix(&text.replace('-', ""), 16).ok())
                    .flatten()
                    .map(Self)
                    .ok_or_else(|| ParseIdError::Form {
                        text: shortened(text),
                        expected: $expected,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
                } else {
                    u128::deserialize(from).map(Self)
                }
            }
        }
    };
}

uuid_like! {
    /// A cluster, drawn at random when its first master starts with an empty data directory.
    ClusterId, "the id of a cluster: 32 hexadecimal digits as in a UUID"
}

uuid_like! {
    /// One status update of a task (the `uuid` of semantics C5): what is acknowledged, and what
    /// tells a repeated delivery from a new one.
    ///
    /// It is composed, not drawn, so that cores stay deterministic: who made it, in which life of
    /// that maker, and the how many-th.
    UpdateId, "the id of an update: 32 hexadecimal digits as in a UUID"
}

/// Set in an [`UpdateId`] that a master made.
const MADE_BY_MASTER: u128 = 1 << 127;

impl UpdateId {
    /// The `number`-th update made by this life of a slave.
    #[must_use]
    pub fn by_slave(slave: SlaveId, incarnation: u32, number: u64) -> Self {
        Self(
            (u128::from(slave.0) << 96 | u128::from(incarnation) << 64 | u128::from(number))
                & !MADE_BY_MASTER,
        )
    }

    /// The `number`-th update made by the leader of an epoch.
    #[must_use]
    pub fn by_master(epoch: Epoch, number: u64) -> Self {
        Self(MADE_BY_MASTER | u128::from(epoch.0) << 64 | u128::from(number))
    }

    /// Whether a master made it, and so no slave waits for its acknowledgement.
    #[must_use]
    pub fn is_by_master(self) -> bool {
        self.0 & MADE_BY_MASTER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_ids_print_and_parse_in_one_form_only() {
        assert_eq!(SlaveId(17).to_string(), "S17");
        assert_eq!("S17".parse(), Ok(SlaveId(17)));
        assert_eq!("F0".parse(), Ok(FrameworkId(0)));
        assert_eq!(
            "O2-45".parse(),
            Ok(OfferId {
                epoch: Epoch(2),
                number: 45
            })
        );
        for bad in [
            "",
            "S",
            "17",
            "S017",
            "S-1",
            "S+1",
            "s17",
            "S4294967296",
            "F3",
            "S1 ",
        ] {
            assert!(bad.parse::<SlaveId>().is_err(), "{bad:?} was taken");
        }
        for bad in ["O", "O2", "O2-", "O-2", "O02-1", "O2-45-1"] {
            assert!(bad.parse::<OfferId>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_path_or_a_blank_cannot_be_a_task_id() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/etc/passwd",
            "../../x",
            "a b",
            "a\0b",
            "a\n",
        ] {
            assert!(TaskId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(TaskId::new("x".repeat(256)).is_err());
        for good in [
            "a",
            "web.3",
            "job:7",
            "…ünïcode",
            ".hidden",
            &"x".repeat(255),
        ] {
            assert_eq!(
                TaskId::new(good).map(|id| id.as_str().to_owned()),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn ids_are_text_in_json_and_are_checked_when_read() {
        let id = OfferId {
            epoch: Epoch(1),
            number: 9,
        };
        let text = serde_json::to_string(&(SlaveId(4), id)).expect("ids are plain");
        assert_eq!(text, r#"["S4","O1-9"]"#);
        assert_eq!(
            serde_json::from_str::<(SlaveId, OfferId)>(&text).expect("same text"),
            (SlaveId(4), id)
        );
        assert!(serde_json::from_str::<TaskId>(r#""a/b""#).is_err());
    }

    #[test]
    fn update_ids_tell_their_maker_and_print_as_uuids() {
        let slave = UpdateId::by_slave(SlaveId(1), 2, 3);
        let master = UpdateId::by_master(Epoch(2), 3);
        assert_eq!(slave.to_string(), "00000001-0000-0002-0000-000000000003");
        assert_eq!(slave.to_string().parse(), Ok(slave));
        assert!(!slave.is_by_master() && master.is_by_master());
        assert!(!UpdateId::by_slave(SlaveId(u32::MAX), u32::MAX, u64::MAX).is_by_master());
    }
}
