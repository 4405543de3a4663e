//! Labels: an ordered list of keys with optional values that Meros carries and does not interpret.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounded_list;

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "RawLabel")]
pub struct Label {
    key: String,
    value: Option<String>,
}

/// Labels in the order in which they were given; keys may repeat. At most [`Labels::COUNT_MAX`].
///
/// Order and repetition are part of equality: lists that differ are different labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Labels(Vec<Label>);

/// Why labels were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The key is longer than [`Label::KEY_BYTES_MAX`].
    #[error("the key of a label has at most {max} bytes, this one has {got}", max = Label::KEY_BYTES_MAX)]
    KeyTooLong {
        /// Length in bytes.
        got: usize,
    },
    /// The value is longer than [`Label::VALUE_BYTES_MAX`].
    #[error("the value of a label has at most {max} bytes, this one has {got}", max = Label::VALUE_BYTES_MAX)]
    ValueTooLong {
        /// Length in bytes.
        got: usize,
    },
    /// More labels than [`Labels::COUNT_MAX`].
    #[error("there are at most {max} labels, these are {got}", max = Labels::COUNT_MAX)]
    TooMany {
        /// How many were given.
        got: usize,
    },
}

impl Label {
    /// The longest key, in bytes: some clients put whole paths into keys.
    pub const KEY_BYTES_MAX: usize = 1_024;
    /// The longest value, in bytes: some clients put small documents into values.
    pub const VALUE_BYTES_MAX: usize = 65_536;

    /// A label `key=value`, or `key` alone.
    ///
    /// # Errors
    /// Key, then value, longer than allowed.
    pub fn new(key: impl Into<String>, value: Option<String>) -> Result<Self, LabelsError> {
        RawLabel {
            key: key.into(),
            value,
        }
        .try_into()
    }

    /// The key; may be empty.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl Labels {
    /// The largest number of labels of one thing.
    pub const COUNT_MAX: usize = 1_024;

    /// No labels.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps `labels` in their order.
    ///
    /// # Errors
    /// [`LabelsError::TooMany`].
    pub fn from_list(labels: Vec<Label>) -> Result<Self, LabelsError> {
        if labels.len() > Self::COUNT_MAX {
            return Err(LabelsError::TooMany { got: labels.len() });
        }
        Ok(Self(labels))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter()
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Readable formats leave out what is not there; binary ones are positional.
        let complete = !serializer.is_human_readable();
        let mut out = serializer.serialize_struct("Label", 2)?;
        out.serialize_field("key", &self.key)?;
        if complete || self.value.is_some() {
            out.serialize_field("value", &self.value)?;
        }
        out.end()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    key: String,
    #[serde(default)]
    value: Option<String>,
}

impl TryFrom<RawLabel> for Label {
    type Error = LabelsError;

    fn try_from(raw: RawLabel) -> Result<Self, LabelsError> {
        if raw.key.len() > Self::KEY_BYTES_MAX {
            return Err(LabelsError::KeyTooLong { got: raw.key.len() });
        }
        if let Some(value) = &raw.value
            && value.len() > Self::VALUE_BYTES_MAX
        {
            return Err(LabelsError::ValueTooLong { got: value.len() });
        }
        Ok(Self {
            key: raw.key,
            value: raw.value,
        })
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded_list::read(deserializer, Self::COUNT_MAX, "labels").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_order_repetition_and_absent_values() {
        let json = r#"[{"key":"b","value":"1"},{"key":"a"},{"key":"b","value":null}]"#;
        let labels: Labels = serde_json::from_str(json).unwrap();
        let read: Vec<_> = labels
            .iter()
            .map(|label| (label.key(), label.value()))
            .collect();
        assert_eq!(read, [("b", Some("1")), ("a", None), ("b", None)]);
        let again: Labels = serde_json::from_str(&serde_json::to_string(&labels).unwrap()).unwrap();
        assert_eq!(again, labels);
    }

    #[test]
    fn too_many_or_too_long_labels_are_refused() {
        let long = "x".repeat(Label::VALUE_BYTES_MAX + 1);
        assert_eq!(
            Label::new("k", Some(long.clone())).unwrap_err(),
            LabelsError::ValueTooLong {
                got: Label::VALUE_BYTES_MAX + 1
            }
        );
        assert!(matches!(
            Label::new(long, None),
            Err(LabelsError::KeyTooLong { .. })
        ));
        let many = vec![Label::new("k", None).unwrap(); Labels::COUNT_MAX + 1];
        let json = serde_json::to_string(&many).unwrap();
        assert!(serde_json::from_str::<Labels>(&json).is_err());
        assert!(matches!(
            Labels::from_list(many),
            Err(LabelsError::TooMany { got: 1_025 })
        ));
    }
}
