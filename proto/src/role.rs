//! Roles: who resources are offered to and reserved for.
//!
//! Roles form a tree by their path: `eng/web` is below `eng`. A reservation for `eng` may be used
//! by `eng/web`, never the other way round. `*` is everybody's role and no part of the tree.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A validated role such as `eng/web`, or `*`.
///
/// 1 to [`RoleName::BYTES_MAX`] bytes; parts between slashes are not empty, not `.` or `..`, not
/// `*`, do not start with `-`, and contain no white space and no control characters. Cloning
/// copies a reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct RoleName(Arc<str>);

/// Why a text is not a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleNameError {
    /// Nothing between two slashes, before the first, after the last, or at all.
    #[error("a role has no empty part: no leading, trailing or double slash")]
    EmptyPart,
    /// Longer than [`RoleName::BYTES_MAX`].
    #[error("a role has at most {max} bytes, this one has {got}", max = RoleName::BYTES_MAX)]
    TooLong {
        /// Length in bytes.
        got: usize,
    },
    /// A part is `.`, `..`, or `*` inside a path.
    #[error("`.`, `..` and `*` are not allowed as a part of a role")]
    ReservedPart,
    /// A part starts with `-`, which command lines would take for a flag.
    #[error("a part of a role must not start with `-`")]
    LeadingDash,
    /// White space or a control character.
    #[error("a role contains no white space and no control characters")]
    BadCharacter,
}

impl RoleName {
    /// The longest role, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks and keeps `role`.
    ///
    /// # Errors
    /// The first rule that is broken, in the order length, characters, parts.
    pub fn new(role: &str) -> Result<Self, RoleNameError> {
        if role.len() > Self::BYTES_MAX {
            return Err(RoleNameError::TooLong { got: role.len() });
        }
        if role.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(RoleNameError::BadCharacter);
        }
        if role != "*" {
            role.split('/').try_for_each(check_part)?;
        }
        Ok(Self(role.into()))
    }

    /// The role `*`: resources for everybody.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether this is `*`.
    #[must_use]
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// The role as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this role lies below `ancestor`: `a/b/c` is below `a` and `a/b`, not below `a/b/c`
    /// or `a/bc`; nothing is below `*`.
    #[must_use]
    pub fn is_strict_subrole_of(&self, ancestor: &RoleName) -> bool {
        self.0
            .strip_prefix(&*ancestor.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

fn check_part(part: &str) -> Result<(), RoleNameError> {
    match part {
        "" => Err(RoleNameError::EmptyPart),
        "." | ".." | "*" => Err(RoleNameError::ReservedPart),
        _ if part.starts_with('-') => Err(RoleNameError::LeadingDash),
        _ => Ok(()),
    }
}

impl Default for RoleName {
    /// `*`, the role of a framework that names none (semantics: B1).
    fn default() -> Self {
        Self::any()
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(role: &str) -> Result<Self, RoleNameError> {
        Self::new(role)
    }
}

impl TryFrom<String> for RoleName {
    type Error = RoleNameError;

    fn try_from(role: String) -> Result<Self, RoleNameError> {
        Self::new(&role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_path_of_plain_parts_or_the_star() {
        for good in ["*", "eng", "eng/web", "a/b/c", "a.b", "a-b", "..a", "é"] {
            assert_eq!(RoleName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for (bad, why) in [
            ("", RoleNameError::EmptyPart),
            ("/a", RoleNameError::EmptyPart),
            ("a/", RoleNameError::EmptyPart),
            ("a//b", RoleNameError::EmptyPart),
            (".", RoleNameError::ReservedPart),
            ("a/..", RoleNameError::ReservedPart),
            ("a/*", RoleNameError::ReservedPart),
            ("-a", RoleNameError::LeadingDash),
            ("a/-b", RoleNameError::LeadingDash),
            ("a b", RoleNameError::BadCharacter),
            ("a\u{8}", RoleNameError::BadCharacter),
            (&long, RoleNameError::TooLong { got: 256 }),
        ] {
            assert_eq!(RoleName::new(bad).unwrap_err(), why, "{bad:?}");
        }
    }

    #[test]
    fn a_subrole_is_below_its_ancestors_only() {
        let role = |text: &str| RoleName::new(text).unwrap();
        assert!(role("a/b").is_strict_subrole_of(&role("a")));
        assert!(role("a/b/c").is_strict_subrole_of(&role("a")));
        assert!(!role("a").is_strict_subrole_of(&role("a")));
        assert!(!role("ab").is_strict_subrole_of(&role("a")));
        assert!(!role("a").is_strict_subrole_of(&role("a/b")));
        assert!(!role("a").is_strict_subrole_of(&RoleName::any()));
    }

    #[test]
    fn a_decoded_role_is_checked() {
        assert_eq!(
            serde_json::from_str::<RoleName>(r#""a/b""#)
                .unwrap()
                .as_str(),
            "a/b"
        );
        assert!(serde_json::from_str::<RoleName>(r#""a//b""#).is_err());
    }
}
