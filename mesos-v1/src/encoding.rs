//! Messages as bytes: JSON or protobuf (semantics A2, R2, R7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, PoisonError};

pub use prost::{Message, Name};
use prost_reflect::{
    Cardinality, DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor,
    ReflectMessage, SerializeOptions, Value,
};

use crate::json;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    /// The protobuf JSON mapping with the names of the definitions: `framework_id`, not `frameworkId`.
    #[default]
    Json,
    /// Protobuf.
    Protobuf,
}

impl Media {
    /// The value of `Content-Type`, without a charset (semantics R2).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    /// What a `Content-Type` says; its parameters do not matter.
    #[must_use]
    pub fn from_content_type(text: &str) -> Option<Self> {
        let kind = text.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Protobuf]
            .into_iter()
            .find(|media| kind.eq_ignore_ascii_case(media.name()))
    }

    /// What an `Accept` allows: JSON if it does, else protobuf (semantics A2).
    #[must_use]
    pub fn from_accept(text: &str) -> Option<Self> {
        let allows = |media: Self| {
            text.split(',').any(|range| {
                let kind = range.split(';').next().unwrap_or_default().trim();
                let is_refused = range.split(';').skip(1).any(|parameter| {
                    let weight = parameter.trim().strip_prefix("q=");
                    weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0))
                });
                !is_refused
                    && (kind.is_empty()
                        || kind == "*/*"
                        || kind.eq_ignore_ascii_case("application/*")
                        || kind.eq_ignore_ascii_case(media.name()))
            })
        };
        [Self::Json, Self::Protobuf]
            .into_iter()
            .find(|media| allows(*media))
    }
}

/// How a call is written and its answer is to be, as its headers say (semantics A2, R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The call.
    pub call: Media,
    /// The answer, or each record of it.
    pub answer: Media,
    /// A stream is to say that it is one of records.
    pub is_recordio: bool,
}

/// Why the headers of a call do not allow an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNegotiated {
    /// How the call is written is not said.
    #[error("Content-Type is missing: application/json or application/x-protobuf")]
    NoContentType,
    /// The call is written in another way.
    #[error("Content-Type must be application/json or application/x-protobuf")]
    ContentType,
    /// The answer is to be written in another way.
    #[error("Accept must allow application/json or application/x-protobuf")]
    Accept,
}

impl NotNegotiated {
    /// The status of HTTP.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoContentType => 400,
            Self::ContentType => 415,
            Self::Accept => 406,
        }
    }

    /// The stable code, for tools.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoContentType => "invalid",
            Self::ContentType => "unsupported",
            Self::Accept => "not_acceptable",
        }
    }
}

impl Negotiated {
    /// `header` gives the value of a header by its name in lower case, if it is there and text.
    ///
    /// # Errors
    /// The first of [`NotNegotiated`] that applies.
    pub fn of<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Result<Self, NotNegotiated> {
        let kind = header("content-type").ok_or(NotNegotiated::NoContentType)?;
        let call = Media::from_content_type(kind).ok_or(NotNegotiated::ContentType)?;
        let accept = header("accept").unwrap_or_default();
        let is_recordio = accept.contains("application/recordio");
        let of_answer = match is_recordio {
            true => header("message-accept").unwrap_or_default(),
            false => accept,
        };
        let answer = Media::from_accept(of_answer).ok_or(NotNegotiated::Accept)?;
        Ok(Self {
            call,
            answer,
            is_recordio,
        })
    }
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Neither JSON nor a JSON of this message.
    #[error("it is no JSON of a {message}: {source}")]
    Json {
        /// The message's name.
        message: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Not protobuf of this message.
    #[error("it is no protobuf of a {message}: {source}")]
    Protobuf {
        /// The message's name.
        message: String,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// A required field is not there.
    #[error("{field} is missing")]
    Missing {
        /// Its path.
        field: String,
    },
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice())
        .expect("made from the same definitions")
});

fn descriptor<M: Name>() -> MessageDescriptor {
    POOL.get_message_by_name(&M::full_name())
        .expect("made from the same definitions")
}

/// Reads a message.
///
/// # Errors
/// [`DecodeError`].
pub fn decode<M: Message + Default + Name>(media: Media, bytes: &[u8]) -> Result<M, DecodeError> {
    let descriptor = descriptor::<M>();
    let protobuf = |source| DecodeError::Protobuf {
        message: M::full_name(),
        source,
    };
    match media {
        Media::Json => {
            let json = |source| DecodeError::Json {
                message: M::full_name(),
                source,
            };
            let mut value = serde_json::from_slice(bytes).map_err(json)?;
            json::tidy(&mut value, &descriptor);
            let options = DeserializeOptions::new().deny_unknown_fields(false);
            let message = DynamicMessage::deserialize_with_options(descriptor, value, &options)
                .map_err(json)?;
            check_required(&message)?;
            message.transcode_to().map_err(protobuf)
        }
        Media::Protobuf => {
            let mut message = DynamicMessage::decode(descriptor, bytes).map_err(protobuf)?;
            complete(&mut message);
            check_required(&message)?;
            M::decode(bytes).map_err(protobuf)
        }
    }
}

/// Writes a message; JSON is compact and plain ASCII (semantics R1).
#[must_use]
pub fn encode<M: Message + Name>(media: Media, message: &M) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let descriptor = descriptor::<M>();
    let whole = || {
        let message = DynamicMessage::decode(descriptor.clone(), bytes.as_slice());
        let mut message = message.expect("what one writes the other reads");
        complete(&mut message);
        message
    };
    match media {
        // Readers of proto2 refuse all of a message in which a required field is missing.
        Media::Protobuf if has_maps(&descriptor) => whole().encode_to_vec(),
        Media::Protobuf => bytes,
        Media::Json => {
            let message = whole();
            let options = SerializeOptions::new()
                .stringify_64_bit_integers(false)
                .use_proto_field_name(true);
            let mut text = Vec::with_capacity(bytes.len() * 4);
            let mut serializer = serde_json::Serializer::new(&mut text);
            message
                .serialize_with_options(&mut serializer, &options)
                .expect("numbers, text and lists of them are always JSON");
            json::to_ascii(text)
        }
    }
}

/// How many bytes of protobuf a message has.
#[must_use]
pub fn size(message: &impl Message) -> usize {
    message.encoded_len()
}

/// Whether a map of messages is anywhere in a message, found out once for each.
fn has_maps(message: &MessageDescriptor) -> bool {
    static KNOWN: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());
    // Nothing panics while it is held.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(has) = known.get(message.full_name()) {
        return *has;
    }
    let (mut seen, mut open) = (BTreeSet::new(), vec![message.clone()]);
    let mut has = false;
    while let Some(next) = open.pop() {
        let is_new = seen.insert(next.full_name().to_owned());
        for field in next.fields().filter(|_| is_new) {
            if let Kind::Message(inner) = field.kind() {
                let value = |entry: &MessageDescriptor| entry.map_entry_value_field().kind();
                has |= field.is_map() && matches!(value(&inner), Kind::Message(_));
                open.push(inner);
            }
        }
    }
    known.insert(message.full_name().to_owned(), has);
    has
}

/// Puts in what protobuf leaves out of a map: a value that is a default, such as a limit of 0, is written
/// as nothing at all.
fn complete(message: &mut DynamicMessage) {
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => complete(inner),
            Value::List(list) => list.iter_mut().for_each(complete_in),
            Value::Map(map) => {
                for value in map.values_mut() {
                    fill(value);
                    complete_in(value);
                }
            }
            _ => {}
        }
    }
}

fn complete_in(value: &mut Value) {
    if let Value::Message(inner) = value {
        complete(inner);
    }
}

/// The required fields of a message that has none.
fn fill(value: &mut Value) {
    let Value::Message(message) = value else {
        return;
    };
    if message.fields().next().is_some() {
        return;
    }
    for field in message.descriptor().fields() {
        if field.cardinality() == Cardinality::Required {
            let default = Value::default_value_for_field(&field);
            message.set_field(&field, default);
        }
    }
}

/// The first required field that is not there.
fn check_required(message: &DynamicMessage) -> Result<(), DecodeError> {
    match missing(message) {
        None => Ok(()),
        Some(mut path) => {
            path.reverse();
            Err(DecodeError::Missing {
                field: path.join("."),
            })
        }
    }
}

/// The path of the missing field, innermost name first. As deep as messages nest, which the decoders
/// bound.
fn missing(message: &DynamicMessage) -> Option<Vec<String>> {
    let descriptor = message.descriptor();
    let required = descriptor
        .fields()
        .filter(|field| field.cardinality() == Cardinality::Required);
    if let Some(field) = required.into_iter().find(|field| !message.has_field(field)) {
        return Some(vec![field.name().to_owned()]);
    }
    message.fields().find_map(|(field, value)| {
        let mut path = match value {
            Value::Message(inner) => missing(inner),
            Value::List(list) => list.iter().find_map(missing_in),
            Value::Map(map) => map.values().find_map(missing_in),
            _ => None,
        }?;
        path.push(field.name().to_owned());
        Some(path)
    })
}

fn missing_in(value: &Value) -> Option<Vec<String>> {
    value.as_message().and_then(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn only_messages_with_maps_are_written_the_long_way() {
        assert!(has_maps(&descriptor::<pb::quota::QuotaConfig>()));
        // In a map of another message, in a list.
        assert!(has_maps(&descriptor::<pb::master::Response>()));
        assert!(has_maps(&descriptor::<pb::agent::Response>()));
        // What every framework is told, many times a second.
        assert!(!has_maps(&descriptor::<pb::scheduler::Event>()));
        assert!(!has_maps(&descriptor::<pb::TaskStatus>()));
    }

    #[test]
    fn what_headers_say_is_looked_at_in_one_order() {
        let of = |headers: &[(&str, &'static str)]| {
            Negotiated::of(|name| {
                let mut found = headers.iter().filter(|(key, _)| *key == name);
                found.next().map(|(_, value)| *value)
            })
        };
        assert_eq!(
            of(&[("accept", "text/html")]),
            Err(NotNegotiated::NoContentType)
        );
        let other = [("content-type", "text/html"), ("accept", "text/html")];
        assert_eq!(of(&other), Err(NotNegotiated::ContentType));
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(
            of(&[json, ("accept", "text/html")]),
            Err(NotNegotiated::Accept)
        );
        // semantics: R2
        let stream = [
            json,
            ("accept", "application/recordio"),
            ("message-accept", "application/x-protobuf"),
        ];
        let negotiated = Negotiated {
            call: Media::Json,
            answer: Media::Protobuf,
            is_recordio: true,
        };
        assert_eq!(of(&stream), Ok(negotiated));
        let statuses = [
            NotNegotiated::NoContentType,
            NotNegotiated::ContentType,
            NotNegotiated::Accept,
        ];
        assert_eq!(statuses.map(NotNegotiated::status), [400, 415, 406]);
    }
}
