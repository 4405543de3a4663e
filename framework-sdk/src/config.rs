//! What a session is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::role::RoleName;

/// The port of a master when an address names none.
pub const MASTER_PORT_DEFAULT: u16 = 5050;

/// The most masters that can be named: clusters have three or five.
pub const MASTERS_MAX: usize = 64;

/// How long an offer that an idle framework did not use stays away from it (semantics Q6).
/// Resources beyond those declined, such as those of an ended task, are offered at once all the
/// same, and [`Actions::revive`](crate::Actions::revive) brings everything back.
pub const IDLE_REFUSE_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Who acknowledges updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// The SDK: once [`Events::next`](crate::Events::next) is called again, or the callback has
    /// returned. An update whose handling was cut off by a crash comes again.
    #[default]
    Automatic,
    /// The framework, by [`Handle::acknowledge`](crate::Handle::acknowledge) or
    /// [`Actions::acknowledge`](crate::Actions::acknowledge). Until then its task's next update
    /// does not come.
    Manual,
}

/// What a session is told at its start.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Masters as `host:port`, any that know the leader; tried in turn. See [`parse_masters`].
    pub masters: Vec<String>,
    /// The directory with `cert.pem`, `key.pem` and `ca.pem`, as `meros ca issue` writes it; of
    /// the role framework or operator.
    pub identity: PathBuf,
    /// Who the framework is. An id in it takes up where it left off; see also `state_file`.
    pub framework: FrameworkDescription,
    /// Roles it wants no offers for at first. Default: none.
    pub suppressed_roles: Vec<RoleName>,
    /// What it wishes of its offers at first: which slaves, and how much at least, for each of its
    /// roles at most once. What is not offered anyway need not be declined. Default: nothing in
    /// particular. See [`OfferWishes`].
    pub wishes: Vec<OfferWishes>,
    /// Where the framework's id is kept, so that the next start of the program takes up where
    /// this one left off: its tasks go on meanwhile, for at most the failover timeout. The file
    /// is replaced as a whole, and removed with the framework. Default: none, each start is a new
    /// framework.
    pub state_file: Option<PathBuf>,
    /// Who acknowledges updates. Default: the SDK.
    pub acknowledge: Acknowledge,
    /// How long an offer is refused of which [`Scheduler::offers`](crate::Scheduler::offers) used
    /// nothing. At most a year. Default: [`IDLE_REFUSE_DEFAULT`].
    pub idle_refuse: Duration,
}

/// Why a configuration is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No master is named.
    #[error("no master is named: give a list such as 10.0.0.1:5050,10.0.0.2:5050")]
    NoMaster,
    /// More than [`MASTERS_MAX`] masters.
    #[error("{got} masters are named, at most {MASTERS_MAX} can be")]
    TooManyMasters {
        /// How many.
        got: usize,
    },
    /// Not an address.
    #[error("{text:?} is not the address of a master: write host:port, such as 10.0.0.1:5050")]
    Address {
        /// What was given.
        text: String,
    },
    /// A variable of the environment is missing.
    #[error("{name} is not set: {advice}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What to do.
        advice: &'static str,
    },
}

impl SessionConfig {
    /// A session of a new framework with the safe defaults of semantics Q6, for the role `*`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        masters: Vec<String>,
        identity: impl Into<PathBuf>,
    ) -> Self {
        Self {
            masters,
            identity: identity.into(),
            framework: FrameworkDescription::new(name, RoleName::any()),
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
            state_file: None,
            acknowledge: Acknowledge::default(),
            idle_refuse: IDLE_REFUSE_DEFAULT,
        }
    }

    /// As [`SessionConfig::new`], from the environment: `MEROS_MASTER` is a list for
    /// [`parse_masters`], by default the master of this machine; `MEROS_IDENTITY` names the
    /// directory of the identity.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if `MEROS_IDENTITY` is not set; those of [`parse_masters`].
    pub fn from_env(name: impl Into<String>) -> Result<Self, ConfigError> {
        let masters = match std::env::var("MEROS_MASTER") {
            Ok(text) => parse_masters(&text)?,
            Err(_) => vec![format!("127.0.0.1:{MASTER_PORT_DEFAULT}")],
        };
        let identity = std::env::var_os("MEROS_IDENTITY").ok_or(ConfigError::Variable {
            name: "MEROS_IDENTITY",
            advice: "set it to the directory of a certificate that `meros ca issue framework` wrote",
        })?;
        Ok(Self::new(name, masters, PathBuf::from(identity)))
    }
}

/// Reads a list of masters: `host:port,host:port`, names or addresses, IPv6 ones in brackets. A
/// missing port is [`MASTER_PORT_DEFAULT`].
///
/// # Errors
/// [`ConfigError`]: `NoMaster`, `TooManyMasters`, or `Address` for the first piece that is none.
pub fn parse_masters(text: &str) -> Result<Vec<String>, ConfigError> {
    let pieces = text
        .split(',')
        .map(str::trim)
        .filter(|piece| !piece.is_empty());
    let masters = pieces.map(with_port).collect::<Result<Vec<_>, _>>()?;
    match masters.len() {
        0 => Err(ConfigError::NoMaster),
        1..=MASTERS_MAX => Ok(masters),
        got => Err(ConfigError::TooManyMasters { got }),
    }
}

fn with_port(piece: &str) -> Result<String, ConfigError> {
    let wrong = || ConfigError::Address {
        text: piece.chars().take(64).collect(),
    };
    // The colon of a port comes after the bracket of an IPv6 address.
    let after_bracket = piece.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match piece[after_bracket..].rfind(':') {
        Some(at) => {
            let (host, port) = piece.split_at(after_bracket + at);
            (host, port[1..].parse().map_err(|_| wrong())?)
        }
        None => (piece, MASTER_PORT_DEFAULT),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if port == 0 || !(bracketed || plain) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_masters_is_read_and_a_missing_port_is_the_default_one() {
        let masters = |text: &str| parse_masters(text).expect("a list");
        assert_eq!(masters("127.0.0.1:5050"), ["127.0.0.1:5050"]);
        assert_eq!(masters(" a:1 , b.example,"), ["a:1", "b.example:5050"]);
        assert_eq!(masters("[::1]:7,[::1]"), ["[::1]:7", "[::1]:5050"]);
    }

    #[test]
    fn what_is_no_address_of_a_master_is_named() {
        assert_eq!(parse_masters(" , "), Err(ConfigError::NoMaster));
        for bad in [
            "a:",
            "a:x",
            "a:0",
            "a:65536",
            ":5050",
            "::1",
            "[]:1",
            "http://a:5050",
            "a b",
        ] {
            let error = parse_masters(bad).expect_err(bad);
            assert_eq!(
                error,
                ConfigError::Address {
                    text: bad.to_owned()
                }
            );
        }
        let many = vec!["a"; MASTERS_MAX + 1].join(",");
        assert_eq!(
            parse_masters(&many),
            Err(ConfigError::TooManyMasters {
                got: MASTERS_MAX + 1
            })
        );
    }
}
