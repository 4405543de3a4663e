//! The values of a scenario file, each checked where it stands, so that an error knows its place.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::resources::Resources;
use serde::{Deserialize, Deserializer, de};

use super::arrivals::RUNS_MAX;

/// Reads a text and checks it.
fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

/// A time, as `90s`, `1h 30m` or `200us`; up to a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| {
            let time = humantime::parse_duration(text).map_err(|error| {
                format!(
                    "{text:?} is not a time ({error}); write it as \"90s\", \"1h 30m\" or \"200us\""
                )
            })?;
            match time <= RUNS_MAX {
                true => Ok(Self(time)),
                false => Err(format!("{text:?} is too long: at most a year is allowed")),
            }
        })
    }
}

/// Resources, as `cpus:4;mem:8192`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) Arc<Resources>);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| {
            let resources = Resources::from_str(text).map_err(|error| {
                format!(
                    "{text:?} is not a list of resources ({error}); write it as \"cpus:4;mem:8192\""
                )
            })?;
            match resources.is_empty() {
                true => Err("there are no resources in it".to_owned()),
                false => Ok(Self(Arc::new(resources))),
            }
        })
    }
}

/// The name of a group of slaves or frameworks: letters, digits and dashes, up to 60.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
            match !text.is_empty() && text.len() <= 60 && text.chars().all(fits) {
                true => Ok(Self(text.to_owned())),
                false => Err(format!(
                    "{text:?} is not a name: up to 60 letters, digits and dashes are allowed"
                )),
            }
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that another type of the kernel reads: a role, for example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, |text| {
            text.parse()
                .map(Self)
                .map_err(|error: T::Err| error.to_string())
        })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match u32::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(de::Error::custom(format!(
                "{number} is not allowed here: from {MIN} to {MAX}"
            ))),
        }
    }
}

/// A number above 0 and up to a million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Positive(pub(crate) f64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        match number > 0.0 && number <= 1e6 {
            true => Ok(Self(number)),
            false => Err(de::Error::custom(format!(
                "{number} is not allowed here: above 0 and up to 1000000"
            ))),
        }
    }
}

/// A part of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Part(pub(crate) f64);

impl Part {
    /// In millionths.
    pub(crate) fn ppm(self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        let ppm = (self.0 * 1e6).round() as u64;
        ppm
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        match (0.0..=1.0).contains(&number) {
            true => Ok(Self(number)),
            false => Err(de::Error::custom(format!(
                "{number} is not allowed here: from 0 to 1"
            ))),
        }
    }
}
