//! The least that is worth an offer (semantics E2).

use std::fmt;
use std::str::FromStr;

use meros_proto::constraint::{LEAST_NAMES_MAX, MINIMUM_ALTERNATIVES_MAX};
use meros_proto::resources::{Resources, Value};

use super::amounts::{Amounts, Names};

/// The least that is worth an offer. As text: alternatives with a bar between them, such as
/// `cpus:0.01|mem:32`; an empty text if everything is worth an offer.
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
        let any_of = alternatives.into_iter().map(parse_alternative);
        Ok(Self {
            any_of: any_of.collect::<Result<_, _>>()?,
        })
    }
}

fn parse_alternative(text: &str) -> Result<Resources, MinimumError> {
    let least: Option<Resources> = text.trim().parse().ok();
    let is_amount = |least: &Resources| {
        !least.is_empty()
            && least.iter().all(|it| {
                matches!(it.value(), Value::Scalar(_)) && it.is_unreserved() && !it.is_revocable()
            })
    };
    let least = least
        .filter(is_amount)
        .ok_or_else(|| MinimumError::NotAmounts {
            alternative: text.to_owned(),
        })?;
    match least.iter().len() > LEAST_NAMES_MAX {
        true => Err(MinimumError::TooManyNames),
        false => Ok(least),
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

impl Minimum {
    /// Whether something has enough.
    pub(super) fn is_met_by(&self, resources: &Resources) -> bool {
        let has = |least: &Resources| {
            least.iter().all(|it| match it.value() {
                Value::Scalar(scalar) => resources.scalar(it.name()) >= *scalar,
                Value::Ranges(_) | Value::Set(_) => true,
            })
        };
        self.any_of.is_empty() || self.any_of.iter().any(has)
    }

    /// As amounts, for roles that are full.
    pub(super) fn amounts(&self, names: &mut Names) -> Vec<Amounts> {
        let alternatives = self.any_of.iter();
        alternatives.map(|least| names.amounts(least)).collect()
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
        let names: Vec<String> = (0..=LEAST_NAMES_MAX).map(|it| format!("n{it}:1")).collect();
        let many = names.join(";").parse::<Minimum>();
        assert_eq!(many, Err(MinimumError::TooManyNames));
    }
}
