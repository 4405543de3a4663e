//! Sets of words, such as the zones that a slave can serve.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::text::Word;
use crate::bounded_list;

/// Distinct words in ascending order.
///
/// A word has 1 to [`Set::ITEM_BYTES_MAX`] bytes and no control characters. Reading from outside
/// drops duplicates and refuses more than [`Set::ITEMS_MAX`] words.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Set(Vec<Arc<str>>);

/// Why words do not make a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A word without characters.
    #[error("an item of a set is not empty")]
    EmptyItem,
    /// A word longer than [`Set::ITEM_BYTES_MAX`].
    #[error("an item of a set has at most {max} bytes, this one has {got}", max = Set::ITEM_BYTES_MAX)]
    ItemTooLong {
        /// Length in bytes.
        got: usize,
    },
    /// A word with a control character.
    #[error("an item of a set contains no control characters")]
    BadCharacter,
    /// More words than [`Set::ITEMS_MAX`], duplicates counted.
    #[error("a set has at most {max} items, this one has {got}", max = Set::ITEMS_MAX)]
    TooMany {
        /// How many were given.
        got: usize,
    },
}

impl Set {
    /// The most words that are read from outside.
    pub const ITEMS_MAX: usize = 4_096;
    /// The longest word, in bytes.
    pub const ITEM_BYTES_MAX: usize = 255;

    /// No words.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The set of `items`; duplicates are dropped.
    ///
    /// # Errors
    /// The first item that is no word, then too many of them.
    pub fn from_items<I>(items: I) -> Result<Self, SetError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let items: Result<Vec<Arc<str>>, _> =
            items.into_iter().map(|item| check(item.as_ref())).collect();
        let mut items = items?;
        if items.len() > Self::ITEMS_MAX {
            return Err(SetError::TooMany { got: items.len() });
        }
        items.sort_unstable();
        items.dedup();
        Ok(Self(items))
    }

    /// Whether there are no words.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The words in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|item| &**item)
    }

    /// Whether `item` is one of the words.
    #[must_use]
    pub fn contains_item(&self, item: &str) -> bool {
        self.0.binary_search_by(|mine| (**mine).cmp(item)).is_ok()
    }

    /// Whether all words of `other` are in here.
    #[must_use]
    pub fn contains(&self, other: &Set) -> bool {
        other.iter().all(|item| self.contains_item(item))
    }

    /// The words that are in either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        Self::union_of([self, other])
    }

    /// The words that are in any of `sets`.
    pub(super) fn union_of<'a>(sets: impl IntoIterator<Item = &'a Set>) -> Set {
        let mut union: Vec<Arc<str>> = sets.into_iter().flat_map(|set| &set.0).cloned().collect();
        // Stable, for its speed on runs that are sorted already.
        union.sort();
        union.dedup();
        Set(union)
    }

    /// The words that are in both.
    #[must_use]
    pub fn intersect(&self, other: &Set) -> Set {
        Set(self
            .0
            .iter()
            .filter(|item| other.contains_item(item))
            .cloned()
            .collect())
    }

    /// The words that are in here and not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Set) -> Set {
        Set(self
            .0
            .iter()
            .filter(|item| !other.contains_item(item))
            .cloned()
            .collect())
    }
}

fn check(item: &str) -> Result<Arc<str>, SetError> {
    if item.is_empty() {
        Err(SetError::EmptyItem)
    } else if item.len() > Set::ITEM_BYTES_MAX {
        Err(SetError::ItemTooLong { got: item.len() })
    } else if item.chars().any(char::is_control) {
        Err(SetError::BadCharacter)
    } else {
        Ok(item.into())
    }
}

impl fmt::Display for Set {
    /// `{a,b}`; words with special characters in double quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, item) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            write!(f, "{separator}{}", Word(item))?;
        }
        f.write_str("}")
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items: Vec<String> = bounded_list::read(deserializer, Self::ITEMS_MAX, "items")?;
        Self::from_items(items).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> Set {
        Set::from_items(items).unwrap()
    }

    #[test]
    fn items_are_sorted_and_distinct() {
        assert_eq!(set(&["b", "a", "b"]).iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(set(&["b", "a c"]).to_string(), r#"{"a c",b}"#);
    }

    #[test]
    fn set_operations_are_those_of_sets() {
        let (ab, bc) = (set(&["a", "b"]), set(&["b", "c"]));
        assert_eq!(ab.union(&bc), set(&["a", "b", "c"]));
        assert_eq!(ab.intersect(&bc), set(&["b"]));
        assert_eq!(ab.subtract(&bc), set(&["a"]));
        assert!(ab.contains(&set(&["a"])) && !ab.contains(&bc) && ab.contains(&Set::new()));
    }

    #[test]
    fn items_that_are_no_words_are_refused() {
        let long = "x".repeat(256);
        assert_eq!(Set::from_items([""]), Err(SetError::EmptyItem));
        assert_eq!(Set::from_items(["a\n"]), Err(SetError::BadCharacter));
        assert_eq!(
            Set::from_items([&long]),
            Err(SetError::ItemTooLong { got: 256 })
        );
        assert_eq!(
            Set::from_items(vec!["a"; 4_097]),
            Err(SetError::TooMany { got: 4_097 })
        );
        assert!(serde_json::from_str::<Set>(r#"["a",""]"#).is_err());
        assert_eq!(
            serde_json::from_str::<Set>(r#"["b","a","b"]"#).unwrap(),
            set(&["a", "b"])
        );
    }
}
