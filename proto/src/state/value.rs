//! Values: bytes that mean something to their framework only.

use std::fmt;

use bytes::Bytes;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of a key: at most [`StateValue::BYTES_MAX`] bytes. Cloning copies a reference.
///
/// In JSON it is a text if it is one in UTF-8, else `{"hex": "…"}`.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct StateValue(Bytes);

impl StateValue {
    /// The most bytes of one value: 64 KiB. What is larger is no state but data, and belongs elsewhere.
    pub const BYTES_MAX: usize = 64 << 10;

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for StateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&[u8]> for StateValue {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for StateValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for StateValue {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for StateValue {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl<const N: usize> From<&[u8; N]> for StateValue {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl Serialize for StateValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !to.is_human_readable() {
            return self.0.serialize(to);
        }
        if let Some(text) = self.as_text() {
            return to.serialize_str(text);
        }
        let mut hex = String::with_capacity(2 * self.0.len());
        for byte in &self.0 {
            for digit in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(digit.into(), 16).expect("below 16"));
            }
        }
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry("hex", &hex)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for StateValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            // Never on the wire, which is not for people.
            from.deserialize_any(Readable)
        } else {
            Bytes::deserialize(from).map(Self)
        }
    }
}

struct Readable;

impl<'de> Visitor<'de> for Readable {
    type Value = StateValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or {\"hex\": \"…\"}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StateValue, E> {
        Ok(text.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StateValue, A::Error> {
        let wrong = || A::Error::custom("a value that is no text is {\"hex\": \"…\"}");
        let (key, hex) = map.next_entry::<String, String>()?.ok_or_else(wrong)?;
        if key != "hex" || map.next_entry::<String, String>()?.is_some() {
            return Err(wrong());
        }
        from_hex(&hex).ok_or_else(wrong)
    }
}

fn from_hex(hex: &str) -> Option<StateValue> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let pairs = hex.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>().map(StateValue::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_it_is_text_if_it_can_be_and_always_comes_back() {
        for (bytes, json) in [
            (&b""[..], r#""""#),
            ("grün".as_bytes(), r#""grün""#),
            (&[0xff, 0x00, 0x1a], r#"{"hex":"ff001a"}"#),
        ] {
            let value = StateValue::from(bytes);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<StateValue>(json).unwrap(), value);
        }
        for bad in [
            r#"{"hex":"f"}"#,
            r#"{"hex":"fg"}"#,
            r#"{"a":"ff"}"#,
            "{}",
            "3",
        ] {
            assert!(serde_json::from_str::<StateValue>(bad).is_err(), "{bad}");
        }
    }
}
