//! Resources in frames and in JSON.
//!
//! JSON is for people: a list of objects such as
//! `{"name":"cpus","type":"scalar","value":1.5,"reservations":[{"type":"static","role":"ads"}]}`,
//! with `volume`, `revocable` and `shared` where they apply; unknown fields are errors. Frames are
//! positional and always complete. Reading either ends in a canonical sum that one slave could
//! have ([`Resources::declare`]) or in an error.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::resource::Parts;
use super::scalar::UnitsVisitor;
use super::{
    Interval, Kind, Ranges, Reservations, Resource, ResourceName, Resources, Scalar, Set, Value,
    Volume,
};
use crate::bounded_list;

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let readable = serializer.is_human_readable();
        let mut out = serializer.serialize_struct("Resource", 7)?;
        out.serialize_field("name", self.name())?;
        if readable {
            out.serialize_field("type", &self.value().kind())?;
            match self.value() {
                Value::Scalar(amount) => out.serialize_field("value", amount)?,
                Value::Ranges(ranges) => out.serialize_field("value", ranges)?,
                Value::Set(set) => out.serialize_field("value", set)?,
            }
        } else {
            out.serialize_field("value", self.value())?;
        }
        if !readable || !self.is_unreserved() {
            out.serialize_field("reservations", self.reservations())?;
        }
        if !readable || self.volume().is_some() {
            out.serialize_field("volume", &self.volume())?;
        }
        if !readable || self.is_revocable() {
            out.serialize_field("revocable", &self.is_revocable())?;
        }
        if !readable || self.is_shared() {
            out.serialize_field("shared", &self.is_shared())?;
        }
        out.end()
    }
}

/// A resource in JSON, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadableResource {
    name: ResourceName,
    r#type: Kind,
    value: ReadableValue,
    #[serde(default)]
    reservations: Reservations,
    #[serde(default)]
    volume: Option<Volume>,
    #[serde(default)]
    revocable: bool,
    #[serde(default)]
    shared: bool,
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = if deserializer.is_human_readable() {
            let readable = ReadableResource::deserialize(deserializer)?;
            Parts {
                value: readable
                    .value
                    .into_value(readable.r#type)
                    .map_err(D::Error::custom)?,
                name: readable.name,
                reservations: readable.reservations,
                volume: readable.volume,
                revocable: readable.revocable,
                shared: readable.shared,
            }
        } else {
            Parts::deserialize(deserializer)?
        };
        Self::try_from(parts).map_err(D::Error::custom)
    }
}

/// A `value` as it stands in JSON; only with the `type` beside it is it known what it means.
enum ReadableValue {
    Number(Scalar),
    List(Vec<ReadableElement>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "an interval {\"begin\", \"end\"} that does not end before it begins, or a string"
)]
enum ReadableElement {
    Interval(Interval),
    Item(String),
}

impl ReadableValue {
    fn into_value(self, kind: Kind) -> Result<Value, String> {
        match (kind, self) {
            (Kind::Scalar, Self::Number(amount)) => Ok(Value::Scalar(amount)),
            (Kind::Scalar, Self::List(_)) => {
                Err("a value of type scalar is a number, not a list".into())
            }
            (Kind::Ranges | Kind::Set, Self::Number(_)) => {
                Err(format!("a value of type {kind} is a list, not a number"))
            }
            (Kind::Ranges, Self::List(list)) => list
                .into_iter()
                .map(|element| match element {
                    ReadableElement::Interval(interval) => Ok(interval),
                    ReadableElement::Item(_) => {
                        Err("a value of type ranges is a list of intervals".to_owned())
                    }
                })
                .collect::<Result<Vec<_>, _>>()
                .map(|intervals| Value::Ranges(Ranges::from_intervals(intervals))),
            (Kind::Set, Self::List(list)) => {
                let items: Vec<String> = list
                    .into_iter()
                    .map(|element| match element {
                        ReadableElement::Item(item) => Ok(item),
                        ReadableElement::Interval(_) => {
                            Err("a value of type set is a list of strings")
                        }
                    })
                    .collect::<Result<_, _>>()?;
                Set::from_items(items)
                    .map(Value::Set)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

impl<'de> Deserialize<'de> for ReadableValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadableValueVisitor)
    }
}

struct ReadableValueVisitor;

impl<'de> Visitor<'de> for ReadableValueVisitor {
    type Value = ReadableValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a list of intervals {\"begin\", \"end\"}, or a list of strings")
    }

    fn visit_u64<E: Error>(self, units: u64) -> Result<ReadableValue, E> {
        UnitsVisitor.visit_u64(units).map(ReadableValue::Number)
    }

    fn visit_i64<E: Error>(self, units: i64) -> Result<ReadableValue, E> {
        UnitsVisitor.visit_i64(units).map(ReadableValue::Number)
    }

    fn visit_f64<E: Error>(self, units: f64) -> Result<ReadableValue, E> {
        UnitsVisitor.visit_f64(units).map(ReadableValue::Number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ReadableValue, A::Error> {
        let list = serde::de::value::SeqAccessDeserializer::new(seq);
        bounded_list::read(list, Ranges::INTERVALS_MAX, "elements").map(ReadableValue::List)
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = bounded_list::read(deserializer, Self::ENTRIES_MAX, "resources")?;
        Self::declare(list).map_err(D::Error::custom)
    }
}
