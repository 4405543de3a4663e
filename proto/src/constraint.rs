//! Offer constraints: which slaves a framework wants to be offered at all (semantics B1, E2).

use serde::{Deserialize, Serialize};

use crate::resources::Resources;

/// The most groups of one set of constraints.
pub const CONSTRAINT_GROUPS_MAX: usize = 64;
/// The most constraints in one group.
pub const CONSTRAINTS_PER_GROUP_MAX: usize = 64;
/// The longest name, text or pattern in a constraint, in bytes.
pub const CONSTRAINT_BYTES_MAX: usize = 1_024;

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
