//! Offer constraints, compiled once (semantics B1, E2).

use meros_proto::attribute::Attributes;
use meros_proto::constraint::{
    CONSTRAINT_BYTES_MAX, CONSTRAINT_GROUPS_MAX, CONSTRAINTS_PER_GROUP_MAX, OfferConstraints,
    Predicate, Subject,
};
use regex::{Regex, RegexBuilder};

use super::Minimum;

/// The most memory that one compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 64 * 1_024;

/// What constraints look at on a slave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its host name.
    pub hostname: String,
    /// Its attributes; `region` and `zone` are its fault domain.
    pub attributes: Attributes,
}

/// Why constraints are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Over [`CONSTRAINT_GROUPS_MAX`] or [`CONSTRAINTS_PER_GROUP_MAX`].
    #[error(
        "at most {CONSTRAINT_GROUPS_MAX} groups of {CONSTRAINTS_PER_GROUP_MAX} constraints are allowed"
    )]
    TooMany,
    /// Over [`CONSTRAINT_BYTES_MAX`].
    #[error("a text in a constraint has at most {CONSTRAINT_BYTES_MAX} bytes")]
    TooLong,
    /// A group that asks for nothing would admit every slave.
    #[error("group {group} has no constraint; leave it out")]
    EmptyGroup {
        /// Its place, from 0.
        group: usize,
    },
    /// Not a regular expression, or one that takes too much memory.
    #[error("{pattern:?} is not a pattern that can be used: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Debug)]
enum Test {
    Exists,
    Equals(String),
    Matches(Regex),
}

#[derive(Debug)]
struct Compiled {
    subject: Subject,
    test: Test,
    /// What the test must say.
    expected: bool,
}

/// Constraints that are ready to be asked.
#[derive(Debug)]
pub struct Constraints {
    groups: Vec<Vec<Compiled>>,
    pub(super) least: Minimum,
}

impl Constraints {
    /// Compiles constraints.
    ///
    /// # Errors
    /// The first that applies: too many, an empty group, a text that is too long, a bad pattern.
    pub fn compile(from: &OfferConstraints) -> Result<Self, ConstraintError> {
        let too_many = |group: &Vec<_>| group.len() > CONSTRAINTS_PER_GROUP_MAX;
        if from.groups.len() > CONSTRAINT_GROUPS_MAX || from.groups.iter().any(too_many) {
            return Err(ConstraintError::TooMany);
        }
        if let Some(group) = from.groups.iter().position(Vec::is_empty) {
            return Err(ConstraintError::EmptyGroup { group });
        }
        let compile_group = |group: &Vec<_>| group.iter().map(compile).collect();
        let groups = from.groups.iter().map(compile_group);
        let any_of = match from.least.is_empty() {
            true => Vec::new(),
            false => vec![from.least.clone()],
        };
        Ok(Self {
            groups: groups.collect::<Result<_, _>>()?,
            least: Minimum { any_of },
        })
    }

    /// Of the group that has the fewest constraints that keep a slave out those, by their places;
    /// none if the slave will do.
    pub(super) fn nearest(&self, profile: &Profile) -> Vec<(usize, usize)> {
        let failing = self.groups.iter().enumerate().map(|(group, constraints)| {
            let failing =
                (0..constraints.len()).filter(|place| !constraints[*place].holds(profile));
            failing.map(|place| (group, place)).collect::<Vec<_>>()
        });
        failing.min_by_key(Vec::len).unwrap_or_default()
    }

    /// The first constraint of the first group that keeps a slave out, by their places; none if
    /// the slave will do.
    pub(super) fn refusing(&self, profile: &Profile) -> Option<(usize, usize)> {
        let mut first = None;
        for (group, constraints) in self.groups.iter().enumerate() {
            let place = constraints.iter().position(|it| !it.holds(profile))?;
            first.get_or_insert((group, place));
        }
        first
    }
}

fn compile(from: &meros_proto::constraint::Constraint) -> Result<Compiled, ConstraintError> {
    let text = match &from.predicate {
        Predicate::Exists | Predicate::NotExists => "",
        Predicate::Equals(text)
        | Predicate::NotEquals(text)
        | Predicate::Matches(text)
        | Predicate::NotMatches(text) => text,
    };
    let name = match &from.subject {
        Subject::Attribute(name) => name,
        Subject::Hostname | Subject::Region | Subject::Zone => "",
    };
    if text.len() > CONSTRAINT_BYTES_MAX || name.len() > CONSTRAINT_BYTES_MAX {
        return Err(ConstraintError::TooLong);
    }
    let (test, expected) = match &from.predicate {
        Predicate::Exists => (Test::Exists, true),
        Predicate::NotExists => (Test::Exists, false),
        Predicate::Equals(text) => (Test::Equals(text.clone()), true),
        Predicate::NotEquals(text) => (Test::Equals(text.clone()), false),
        Predicate::Matches(pattern) => (Test::Matches(compile_pattern(pattern)?), true),
        Predicate::NotMatches(pattern) => (Test::Matches(compile_pattern(pattern)?), false),
    };
    Ok(Compiled {
        subject: from.subject.clone(),
        test,
        expected,
    })
}

fn compile_pattern(pattern: &str) -> Result<Regex, ConstraintError> {
    let refused = |error: &regex::Error| ConstraintError::Pattern {
        pattern: pattern.to_owned(),
        why: error.to_string(),
    };
    // By itself first: what is not a pattern must not become one between the anchors.
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| refused(&error))
}

impl Compiled {
    fn holds(&self, profile: &Profile) -> bool {
        let subject = match &self.subject {
            Subject::Attribute(name) => profile.attributes.value(name),
            Subject::Hostname => Some(profile.hostname.as_str()),
            Subject::Region => profile.attributes.value("region"),
            Subject::Zone => profile.attributes.value("zone"),
        };
        let is_so = match (&self.test, subject) {
            (_, None) => false,
            (Test::Exists, Some(_)) => true,
            (Test::Equals(text), Some(subject)) => text == subject,
            (Test::Matches(pattern), Some(subject)) => pattern.is_match(subject),
        };
        is_so == self.expected
    }
}
