//! Checks of a running task: what is probed, how often, and what follows (semantics M8).
//!
//! A *health check* ends a task that fails it; a *check* (readiness) only reports. Both probe the same
//! four ways.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::task::Command;

/// From the start of a task to its first probe, when nobody says otherwise.
pub const CHECK_DELAY_DEFAULT: Duration = Duration::from_secs(15);
/// From the end of a probe to the next.
pub const CHECK_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// How long a probe may take.
pub const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);
/// From the start of a task: failures before the first success do not count so long.
pub const GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(10);
/// So many failures one after the other end a task.
pub const CONSECUTIVE_FAILURES_DEFAULT: u32 = 3;

/// The shortest interval: a slave with thousands of checks has other things to do.
pub const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The shortest timeout: less than a busy machine takes to connect to itself.
pub const CHECK_TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// The longest timeout: a probe that hangs holds one of the slave's places for probes.
pub const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);
/// The longest delay, interval and grace period.
pub const CHECK_PERIOD_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of a check's command, arguments and environment together.
pub const CHECK_COMMAND_BYTES_MAX: usize = 64 << 10;
/// The longest path of a URL, and name of a gRPC service, in bytes.
pub const CHECK_PATH_BYTES_MAX: usize = 2_048;
/// Answers that are healthy: these and those between.
pub const HTTP_HEALTHY: (u16, u16) = (200, 399);

/// What is probed. Ports are those that the task listens at on the loopback address of its network:
/// IPv4, and where nobody listens there IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A command beside the task, as its user, in its sandbox, with its rights and its environment.
    /// Passed by ending with 0. Its own `user` is not used.
    Command(Box<Command>),
    /// `GET` of a path. Passed by an answer of 200 to 399.
    Http(HttpProbe),
    /// A connection. Passed as soon as it stands.
    Tcp {
        /// Where the task listens, 1 to 65535.
        port: u16,
    },
    /// The gRPC health checking protocol, version 1, without TLS. Passed by `SERVING`.
    Grpc {
        /// Where the task listens, 1 to 65535.
        port: u16,
        /// The service that is asked about; empty is the server as a whole.
        service: String,
    },
}

impl Probe {
    /// Where the task listens, unless it is probed by a command.
    pub fn port_mut(&mut self) -> Option<&mut u16> {
        match self {
            Self::Command(_) => None,
            Self::Http(http) => Some(&mut http.port),
            Self::Tcp { port } | Self::Grpc { port, .. } => Some(port),
        }
    }
}

/// What is fetched by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// Where the task listens, 1 to 65535.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Whether by HTTPS. The certificate is not verified: whoever answers on this machine at the task's
    /// port is meant.
    pub tls: bool,
}

/// A check: readiness, as a framework understands it. Its results are reported, nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is probed.
    pub probe: Probe,
    /// From the start of the task to the first probe. Default [`CHECK_DELAY_DEFAULT`], at most
    /// [`CHECK_PERIOD_MAX`].
    pub delay: Duration,
    /// From the end of a probe to the next. [`CHECK_INTERVAL_MIN`] to [`CHECK_PERIOD_MAX`], default
    /// [`CHECK_INTERVAL_DEFAULT`].
    pub interval: Duration,
    /// How long a probe may take. [`CHECK_TIMEOUT_MIN`] to [`CHECK_TIMEOUT_MAX`], default
    /// [`CHECK_TIMEOUT_DEFAULT`].
    pub timeout: Duration,
}

impl Check {
    /// A check with the times of semantics M8.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            delay: CHECK_DELAY_DEFAULT,
            interval: CHECK_INTERVAL_DEFAULT,
            timeout: CHECK_TIMEOUT_DEFAULT,
        }
    }

    /// Runs a line for `/bin/sh -c` beside the task.
    #[must_use]
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Probe::Command(Box::new(Command::shell(line))))
    }

    /// Fetches a path of the task's HTTP server.
    #[must_use]
    pub fn http(port: u16, path: impl Into<String>) -> Self {
        let (path, tls) = (path.into(), false);
        Self::new(Probe::Http(HttpProbe { port, path, tls }))
    }

    /// The same with TLS.
    #[must_use]
    pub fn https(port: u16, path: impl Into<String>) -> Self {
        let (path, tls) = (path.into(), true);
        Self::new(Probe::Http(HttpProbe { port, path, tls }))
    }

    /// Connects to a port of the task.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        Self::new(Probe::Tcp { port })
    }

    /// Asks the task's gRPC server about a service, or with an empty name about all.
    #[must_use]
    pub fn grpc(port: u16, service: impl Into<String>) -> Self {
        let service = service.into();
        Self::new(Probe::Grpc { port, service })
    }

    /// From the start of the task to the first probe.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// From the end of a probe to the next.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a probe may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// A health check: a task that fails it several times in a row is killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is probed, and when.
    pub check: Check,
    /// From the start of the task: failures do not count so long, unless it has passed once. Default
    /// [`GRACE_PERIOD_DEFAULT`], at most [`CHECK_PERIOD_MAX`].
    pub grace_period: Duration,
    /// So many failures one after the other kill the task. At least 1, default
    /// [`CONSECUTIVE_FAILURES_DEFAULT`].
    pub consecutive_failures: u32,
}

impl HealthCheck {
    /// A health check with the defaults of semantics M8.
    #[must_use]
    pub fn new(check: Check) -> Self {
        Self {
            check,
            grace_period: GRACE_PERIOD_DEFAULT,
            consecutive_failures: CONSECUTIVE_FAILURES_DEFAULT,
        }
    }

    /// How long failures before the first success do not count.
    #[must_use]
    pub fn grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// How many failures in a row kill the task.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }
}

impl From<Check> for HealthCheck {
    fn from(check: Check) -> Self {
        Self::new(check)
    }
}

/// What a probe has found, by what was probed; none where it has come to no result, and before the first
/// probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// Of a command.
    Command {
        /// The code that it ended with; none if it did not by itself.
        exit_code: Option<i32>,
    },
    /// Of HTTP.
    Http {
        /// The code of the answer.
        status_code: Option<u16>,
    },
    /// Of a connection.
    Tcp {
        /// Whether it stood.
        succeeded: Option<bool>,
    },
    /// Of gRPC.
    Grpc {
        /// Whether the service is `SERVING`.
        serving: Option<bool>,
    },
}

impl CheckStatus {
    /// Nothing found yet.
    #[must_use]
    pub fn none_of(probe: &Probe) -> Self {
        match probe {
            Probe::Command(_) => Self::Command { exit_code: None },
            Probe::Http(_) => Self::Http { status_code: None },
            Probe::Tcp { .. } => Self::Tcp { succeeded: None },
            Probe::Grpc { .. } => Self::Grpc { serving: None },
        }
    }

    /// Whether the check is passed. What has come to no result is not.
    #[must_use]
    pub fn is_passed(self) -> bool {
        match self {
            Self::Command { exit_code } => exit_code == Some(0),
            Self::Http { status_code } => {
                let (first, last) = HTTP_HEALTHY;
                status_code.is_some_and(|code| (first..=last).contains(&code))
            }
            Self::Tcp { succeeded } => succeeded == Some(true),
            Self::Grpc { serving } => serving == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_m8() {
        let health = HealthCheck::from(Check::tcp(80));
        let times = [
            health.check.delay,
            health.check.interval,
            health.check.timeout,
            health.grace_period,
        ];
        assert_eq!(times.map(|it| it.as_secs()), [15, 10, 20, 10]);
        assert_eq!(health.consecutive_failures, 3);
    }

    #[test]
    fn two_hundred_to_three_hundred_and_ninety_nine_are_passed_and_nothing_without_a_result() {
        let http = |code| {
            let status_code = Some(code);
            CheckStatus::Http { status_code }.is_passed()
        };
        let passed = [199, 200, 302, 399, 400, 500].map(http);
        assert_eq!(passed, [false, true, true, true, false, false]);
        for check in [
            Check::tcp(1),
            Check::http(1, "/"),
            Check::grpc(1, ""),
            Check::shell("true"),
        ] {
            assert!(!CheckStatus::none_of(&check.probe).is_passed());
        }
    }
}
