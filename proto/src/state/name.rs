//! Names of spaces, keys and leases: checked text.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not such a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character.
    #[error("{what} is not empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// Longer than `BYTES_MAX` of its type.
    #[error("{what} has at most {max} bytes, this one has {got}")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// The most.
        max: usize,
        /// Bytes given.
        got: usize,
    },
    /// A control character, or a character that this kind of name cannot have.
    #[error("{what} contains no control characters{and}")]
    BadCharacter {
        /// The kind of name.
        what: &'static str,
        /// What else it must not contain.
        and: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $and:literal, $is_bad:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks and keeps a name.
            ///
            /// # Errors
            /// [`NameError`].
            pub fn new(name: &str) -> Result<Self, NameError> {
                let is_bad: fn(char) -> bool = $is_bad;
                if name.is_empty() {
                    return Err(NameError::Empty { what: $what });
                }
                if name.len() > Self::BYTES_MAX {
                    return Err(NameError::TooLong {
                        what: $what,
                        max: Self::BYTES_MAX,
                        got: name.len(),
                    });
                }
                if name.chars().any(|c| c.is_control() || is_bad(c)) {
                    return Err(NameError::BadCharacter { what: $what, and: $and });
                }
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Ordered and compared as its text is, so that maps can be searched by text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }
    };
}

name! {
    /// The name of a space: 1 to 128 bytes without white space, slashes and control characters.
    /// Cloning copies a reference.
    SpaceName, "a space's name", 128, ", white space or slashes", |c| c.is_whitespace() || c == '/'
}
name! {
    /// The name of a lease or semaphore: 1 to 128 bytes without white space and control characters.
    /// Cloning copies a reference.
    LeaseName, "a lease's name", 128, " or white space", char::is_whitespace
}
name! {
    /// A key: 1 to 512 bytes without control characters. Keys are ordered by their bytes; slashes mean
    /// nothing, but a prefix such as `jobs/` makes a list of them. Cloning copies a reference.
    StateKey, "a key", 512, "", |_| false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds_that_are_said() {
        let long = StateKey::new(&"k".repeat(513)).unwrap_err().to_string();
        assert_eq!(long, "a key has at most 512 bytes, this one has 513");
        assert!(StateKey::new(&"k".repeat(512)).is_ok());
        assert!(StateKey::new("jobs/a b/ü").is_ok());
        assert_eq!(
            LeaseName::new("a b").unwrap_err().to_string(),
            "a lease's name contains no control characters or white space"
        );
        for bad in ["", "a/b", "a b", "a\n"] {
            assert!(SpaceName::new(bad).is_err(), "{bad:?}");
        }
    }
}
