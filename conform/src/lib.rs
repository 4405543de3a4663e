//! Whether a server speaks the Mesos v1 HTTP APIs as their clients expect: one case for each fact
//! that clients rely on, by the id of the fact in `semantics.md`.
//!
//! Knows nothing of Meros: it sends bytes and looks at bytes, and shares no code with the server, so
//! that one mistake is not made on both sides. Runs against any address. Cases subscribe frameworks,
//! launch small tasks, reserve a little, and take all of that back; they expect nobody else at work.
//!
//! Each case must be able to fail: `e2e/tests/conform.rs` lets a proxy lie for each of them.

mod cases;
mod framework;
pub mod http;
mod stream;
mod target;

use serde::Serialize;

pub use target::Target;

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// It is as clients expect.
    Passed,
    /// It is not.
    Failed(String),
    /// The server says that it has no such thing: 404 or 501.
    NotOffered(String),
    /// It could not be found out here, such as without an agent.
    NotTried(String),
}

impl Outcome {
    /// The word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::NotOffered(_) => "not offered",
            Self::NotTried(_) => "not tried",
        }
    }

    /// What there is to say about it.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(why) | Self::NotOffered(why) | Self::NotTried(why) => Some(why),
        }
    }
}

/// Why a check is over early; never [`Outcome::Passed`].
#[derive(Debug)]
struct Halt(Outcome);

type Checked<T = ()> = Result<T, Halt>;

impl Halt {
    fn failed(why: impl Into<String>) -> Self {
        Self(Outcome::Failed(why.into()))
    }

    fn not_offered(why: impl Into<String>) -> Self {
        Self(Outcome::NotOffered(why.into()))
    }

    fn not_tried(why: impl Into<String>) -> Self {
        Self(Outcome::NotTried(why.into()))
    }
}

impl From<http::Broken> for Halt {
    fn from(broken: http::Broken) -> Self {
        Self::failed(broken.to_string())
    }
}

/// Ends the check as failed, unless it is so.
macro_rules! ensure {
    ($is_so:expr, $($why:tt)+) => {
        // Not with `!`: what is compared may be floating point numbers.
        match $is_so {
            true => {}
            false => return Err(crate::Halt::failed(format!($($why)+))),
        }
    };
}
use ensure;

/// One fact.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its id in `semantics.md`, with a word of ours behind a dot where it has several parts.
    pub id: &'static str,
    /// The fact.
    pub says: &'static str,
    check: fn(&Target) -> Checked,
}

impl Case {
    /// Finds out. Takes some milliseconds, or up to a few times the target's patience if the server
    /// is wrong.
    #[must_use]
    pub fn run(&self, target: &Target) -> Outcome {
        match (self.check)(target) {
            Ok(()) => Outcome::Passed,
            Err(Halt(outcome)) => outcome,
        }
    }
}

/// All cases, those that need least first.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_an_id_of_its_own() {
        let mut ids = BTreeSet::new();
        for case in cases() {
            assert!(ids.insert(case.id), "{} twice", case.id);
            let mut letters = case.id.chars();
            assert!(letters.next().is_some_and(|it| it.is_ascii_uppercase()));
            assert!(letters.next().is_some_and(|it| it.is_ascii_digit()));
            assert!(!case.says.is_empty());
        }
    }

    #[test]
    fn every_case_fails_where_nobody_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let target = Target::new(&address).expect("an address");
        for case in cases().filter(|case| case.id != "A6") {
            let outcome = case.run(&target);
            assert!(
                matches!(outcome, Outcome::Failed(_)),
                "{}: {outcome:?}",
                case.id
            );
        }
    }
}
