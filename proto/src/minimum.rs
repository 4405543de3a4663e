//! The least that is worth an offer (semantics E2): to anybody, in a role, or to a framework.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::constraint::{LEAST_NAMES_MAX, MINIMUM_ALTERNATIVES_MAX};
use crate::resources::{Resources, Value};

/// The least that is worth an offer. As text, also in JSON: alternatives with a bar between them, such
/// as `cpus:0.01|mem:32`; an empty text if everything is worth an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimum {
    /// At least the scalars of one of these; without any, everything is worth an offer.
    pub any_of: Vec<Resources>,
}

impl Default for Minimum {
    /// `cpus:0.01` or `mem:32`.
    fn default() -> Self {
        let least = |text: &str| text.parse().expect("written well here");
        Self {
            any_of: vec![least("cpus:0.01"), least("mem:32")],
        }
    }
}

/// Why a text is no minimum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MinimumError {
    /// Over [`MINIMUM_ALTERNATIVES_MAX`].
    #[error("at most {MINIMUM_ALTERNATIVES_MAX} alternatives are allowed")]
    TooMany,
    /// Over [`LEAST_NAMES_MAX`].
    #[error("at most {LEAST_NAMES_MAX} names can be asked for together")]
    TooManyNames,
    /// One of the alternatives is none.
    #[error("{alternative:?} is no amount such as cpus:0.01 or mem:32;gpus:1")]
    NotAmounts {
        /// As it was written.
        alternative: String,
    },
}

impl FromStr for Minimum {
    type Err = MinimumError;

    fn from_str(text: &str) -> Result<Self, MinimumError> {
        if text.trim().is_empty() {
            return Ok(Self { any_of: Vec::new() });
        }
        let alternatives: Vec<&str> = text.split('|').collect();
        if alternatives.len() > MINIMUM_ALTERNATIVES_MAX {
            return Err(MinimumError::TooMany);
        }
        let parse = |text: &str| {
            let least: Option<Resources> = text.trim().parse().ok();
            let least = least.filter(|least| !least.is_empty());
            least.ok_or_else(|| MinimumError::NotAmounts {
                alternative: text.to_owned(),
            })
        };
        let any_of = alternatives.into_iter().map(parse);
        Self::checked(any_of.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Minimum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, least) in self.any_of.iter().enumerate() {
            let separator = if at == 0 { "" } else { "|" };
            write!(f, "{separator}{least}")?;
        }
        Ok(())
    }
}

impl Serialize for Minimum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.any_of.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Minimum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse(),
            false => Self::checked(Vec::deserialize(deserializer)?),
        };
        read.map_err(D::Error::custom)
    }
}

impl Minimum {
    /// Of these, if they are few and plain amounts.
    fn checked(any_of: Vec<Resources>) -> Result<Self, MinimumError> {
        if any_of.len() > MINIMUM_ALTERNATIVES_MAX {
            return Err(MinimumError::TooMany);
        }
        let is_amount = |least: &&Resources| {
            let mut parts = least.iter();
            !least.is_empty()
                && parts.all(|it| {
                    let is_scalar = matches!(it.value(), Value::Scalar(_));
                    is_scalar && it.is_unreserved() && !it.is_revocable()
                })
        };
        if let Some(other) = any_of.iter().find(|least| !is_amount(least)) {
            return Err(MinimumError::NotAmounts {
                alternative: other.to_string(),
            });
        }
        match any_of.iter().any(|it| it.iter().len() > LEAST_NAMES_MAX) {
            true => Err(MinimumError::TooManyNames),
            false => Ok(Self { any_of }),
        }
    }

    /// Whether something has enough.
    #[must_use]
    pub fn is_met_by(&self, resources: &Resources) -> bool {
        let has = |least: &Resources| {
            least.iter().all(|it| match it.value() {
                Value::Scalar(scalar) => resources.scalar(it.name()) >= *scalar,
                Value::Ranges(_) | Value::Set(_) => true,
            })
        };
        self.any_of.is_empty() || self.any_of.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_what_its_text_says_and_the_other_way_round() {
        for text in ["cpus:0.01|mem:32", "", "cpus:1;mem:64;gpus:2"] {
            let minimum: Minimum = text.parse().expect("well formed");
            assert_eq!(minimum.to_string(), text);
            let json = serde_json::to_string(&minimum).expect("a text");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(
                serde_json::from_str::<Minimum>(&json).expect("read"),
                minimum
            );
            let bytes = crate::codec::encode_record(&minimum).expect("small");
            let read = crate::codec::decode_record::<Minimum>(&bytes);
            assert_eq!(read.expect("read"), minimum);
        }
        assert_eq!("cpus:0.01 | mem:32".parse(), Ok(Minimum::default()));
    }

    #[test]
    fn what_is_no_amount_is_no_minimum() {
        for text in [
            "cpus",
            "|",
            "cpus:1|",
            "cpus:-1",
            "cpus:NaN",
            "cpus:0",
            "cpus(web):1",
            "ports:[1-2]",
        ] {
            let refused = text.parse::<Minimum>();
            assert!(
                matches!(refused, Err(MinimumError::NotAmounts { .. })),
                "{text}: {refused:?}"
            );
        }
        let many = vec!["cpus:1"; MINIMUM_ALTERNATIVES_MAX + 1].join("|");
        assert_eq!(many.parse::<Minimum>(), Err(MinimumError::TooMany));
        let bytes = crate::codec::encode_record(&vec!["cpus:1".parse::<Resources>().unwrap(); 17]);
        let read = crate::codec::decode_record::<Minimum>(&bytes.unwrap());
        assert!(read.is_err(), "{read:?}");
        let names: Vec<String> = (0..=LEAST_NAMES_MAX).map(|it| format!("n{it}:1")).collect();
        let many = names.join(";").parse::<Minimum>();
        assert_eq!(many, Err(MinimumError::TooManyNames));
    }
}
