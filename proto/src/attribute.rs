//! Attributes: what an admin says of a slave, as text, for frameworks to match on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// At most this many attributes on one slave.
pub const ATTRIBUTES_MAX: usize = 256;
/// The longest name or value, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1_024;

/// Why a text is not a list of attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// A piece has no `name:value` form.
    #[error("attribute {piece:?} has no form `name:value`; write for example rack:r12;os:debian")]
    Form {
        /// The piece, shortened.
        piece: String,
    },
    /// The same name twice.
    #[error("attribute {name:?} is given twice; give each name once")]
    Twice {
        /// The name.
        name: String,
    },
    /// Over [`ATTRIBUTES_MAX`] or [`ATTRIBUTE_BYTES_MAX`].
    #[error(
        "too many or too long attributes: at most {ATTRIBUTES_MAX} of {ATTRIBUTE_BYTES_MAX} bytes"
    )]
    TooLarge,
}

/// Name and value pairs, ordered by name, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// Checks and orders the pairs.
    ///
    /// # Errors
    /// The first that applies: too many or too long, an empty name, a name twice.
    pub fn new(mut pairs: Vec<(String, String)>) -> Result<Self, AttributesError> {
        let long = |text: &String| text.len() > ATTRIBUTE_BYTES_MAX;
        if pairs.len() > ATTRIBUTES_MAX || pairs.iter().any(|(n, v)| long(n) || long(v)) {
            return Err(AttributesError::TooLarge);
        }
        if let Some((name, value)) = pairs.iter().find(|(name, _)| name.trim().is_empty()) {
            return Err(AttributesError::Form {
                piece: format!("{name}:{value}"),
            });
        }
        pairs.sort();
        if let Some(twin) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(AttributesError::Twice {
                name: twin[0].0.clone(),
            });
        }
        Ok(Self(pairs))
    }

    /// The value of a name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()?;
        Some(&self.0[at].1)
    }

    /// All pairs, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds a pair, or replaces the value of a name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) => value.clone_into(&mut self.0[at].1),
            Err(at) => self.0.insert(at, (name.to_owned(), value.to_owned())),
        }
    }
}

impl FromStr for Attributes {
    type Err = AttributesError;

    /// Reads `rack:r12;os:debian`. A value may contain colons.
    fn from_str(text: &str) -> Result<Self, AttributesError> {
        let piece_of = |piece: &str| {
            let (name, value) = piece.split_once(':')?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
        };
        let pairs = text
            .split(';')
            .map(str::trim)
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                piece_of(piece).ok_or_else(|| AttributesError::Form {
                    piece: piece.chars().take(64).collect(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(pairs)
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { ";" };
            write!(f, "{separator}{name}:{value}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_print_as_they_are_read() {
        let attributes: Attributes = " rack : r12; url:http://x:80 ;"
            .parse()
            .expect("well formed");
        assert_eq!(attributes.to_string(), "rack:r12;url:http://x:80");
        assert_eq!(attributes.value("rack"), Some("r12"));
        assert_eq!(attributes.value("os"), None);
    }

    #[test]
    fn a_typo_in_attributes_is_named() {
        let form = |piece: &str| {
            Err(AttributesError::Form {
                piece: piece.to_owned(),
            })
        };
        assert_eq!("rack=r12".parse::<Attributes>(), form("rack=r12"));
        assert_eq!(":r12".parse::<Attributes>(), form(":r12"));
        let twice = AttributesError::Twice {
            name: "a".to_owned(),
        };
        assert_eq!("a:1;a:2".parse::<Attributes>(), Err(twice));
    }
}
