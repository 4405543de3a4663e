//! What a framework wishes of its offers: which slaves, and how much at least (semantics B1, E2).
//!
//! ```
//! use meros_proto::constraint::{OfferWishes, Subject};
//!
//! // Four cpus and a gpu on one slave, in rack r1 or r2, or on any slave called db-…
//! let wishes = OfferWishes::for_role("eng/ml".parse()?)
//!     .least("cpus:4;gpus:1".parse()?)
//!     .group([Subject::attribute("rack").matches("r[12]")])
//!     .group([Subject::Hostname.matches("db-.*"), Subject::attribute("spare").not_exists()]);
//! assert_eq!(wishes.constraints.groups.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resources::Resources;
use crate::role::RoleName;

/// The most groups of one set of constraints.
pub const CONSTRAINT_GROUPS_MAX: usize = 64;
/// The most constraints in one group.
pub const CONSTRAINTS_PER_GROUP_MAX: usize = 64;
/// The longest name, text or pattern in a constraint, in bytes.
pub const CONSTRAINT_BYTES_MAX: usize = 1_024;

/// The most bytes of texts and patterns in all wishes of one framework.
pub const WISHES_BYTES_MAX: usize = 16 * 1_024;
/// The most patterns in all wishes of one framework: each is compiled and kept.
pub const WISHES_PATTERNS_MAX: usize = 64;
/// The most alternatives of a minimum.
pub const MINIMUM_ALTERNATIVES_MAX: usize = 16;
/// The most names in one alternative of a minimum, or in the least of constraints.
pub const LEAST_NAMES_MAX: usize = 16;

/// What a framework wishes of its offers in one role. It is stated with each subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferWishes {
    /// One of the framework's roles.
    pub role: RoleName,
    /// The slaves that will do.
    pub constraints: OfferConstraints,
    /// What is worth an offer, in place of the master's minimum: at least the scalars of one of
    /// these. Empty: anything is. None: the master's minimum, `cpus:0.01` or `mem:32` by default.
    pub minimum: Option<Vec<Resources>>,
}

impl OfferWishes {
    /// Nothing in particular.
    #[must_use]
    pub fn for_role(role: RoleName) -> Self {
        Self {
            role,
            constraints: OfferConstraints::default(),
            minimum: None,
        }
    }

    /// Each offer has at least these scalars, all of them on its one slave.
    #[must_use]
    pub fn least(mut self, resources: Resources) -> Self {
        self.constraints.least = resources;
        self
    }

    /// A slave will do if all of these hold, or all of another group.
    #[must_use]
    pub fn group(mut self, constraints: impl IntoIterator<Item = Constraint>) -> Self {
        let group = constraints.into_iter().collect();
        self.constraints.groups.push(group);
        self
    }

    /// An offer is worth making if it has at least the scalars of one of these, whatever the
    /// master's minimum is.
    #[must_use]
    pub fn minimum(mut self, any_of: impl IntoIterator<Item = Resources>) -> Self {
        self.minimum = Some(any_of.into_iter().collect());
        self
    }
}

/// What slaves a framework in a role wants to be offered. Without any group all slaves will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferConstraints {
    /// A slave will do if all constraints of at least one group hold.
    pub groups: Vec<Vec<Constraint>>,
    /// An offer has at least these scalars, unless empty: "4 cpus and one gpu on one slave".
    pub least: Resources,
}

/// One constraint on a slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// What is looked at.
    pub subject: Subject,
    /// What must be true of it.
    pub predicate: Predicate,
}

/// What a constraint looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An attribute of the slave, by name.
    Attribute(String),
    /// The slave's host name.
    Hostname,
    /// The region of its fault domain: its attribute `region`.
    Region,
    /// The zone of its fault domain: its attribute `zone`.
    Zone,
}

impl Subject {
    /// The attribute of this name.
    #[must_use]
    pub fn attribute(name: impl Into<String>) -> Self {
        Self::Attribute(name.into())
    }

    /// It is there.
    #[must_use]
    pub fn exists(self) -> Constraint {
        self.must(Predicate::Exists)
    }

    /// It is not there.
    #[must_use]
    pub fn not_exists(self) -> Constraint {
        self.must(Predicate::NotExists)
    }

    /// It is this text.
    #[must_use]
    pub fn equals(self, text: impl Into<String>) -> Constraint {
        self.must(Predicate::Equals(text.into()))
    }

    /// It is not this text, or not there.
    #[must_use]
    pub fn not_equals(self, text: impl Into<String>) -> Constraint {
        self.must(Predicate::NotEquals(text.into()))
    }

    /// All of it matches this regular expression.
    #[must_use]
    pub fn matches(self, pattern: impl Into<String>) -> Constraint {
        self.must(Predicate::Matches(pattern.into()))
    }

    /// Not all of it matches this regular expression, or it is not there.
    #[must_use]
    pub fn not_matches(self, pattern: impl Into<String>) -> Constraint {
        self.must(Predicate::NotMatches(pattern.into()))
    }

    fn must(self, predicate: Predicate) -> Constraint {
        Constraint {
            subject: self,
            predicate,
        }
    }
}

impl fmt::Display for Constraint {
    /// Such as `attribute rack matches "r[12]"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Attribute(name) => write!(f, "attribute {name}")?,
            Subject::Hostname => f.write_str("hostname")?,
            Subject::Region => f.write_str("region")?,
            Subject::Zone => f.write_str("zone")?,
        }
        match &self.predicate {
            Predicate::Exists => f.write_str(" exists"),
            Predicate::NotExists => f.write_str(" does not exist"),
            Predicate::Equals(text) => write!(f, " equals {text:?}"),
            Predicate::NotEquals(text) => write!(f, " does not equal {text:?}"),
            Predicate::Matches(text) => write!(f, " matches {text:?}"),
            Predicate::NotMatches(text) => write!(f, " does not match {text:?}"),
        }
    }
}

/// What must be true. Of what does not exist only the negative ones are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate {
    /// It is there.
    Exists,
    /// It is not there.
    NotExists,
    /// It is this text.
    Equals(String),
    /// It is not this text, or not there.
    NotEquals(String),
    /// All of it matches this regular expression.
    Matches(String),
    /// Not all of it matches this regular expression, or it is not there.
    NotMatches(String),
}
