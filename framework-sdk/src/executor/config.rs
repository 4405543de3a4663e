//! What an executor is told by its slave, in its environment.

use std::path::PathBuf;
use std::time::Duration;

use meros_proto::executor::{EXECUTOR_ID_VARIABLE, EXECUTOR_SOCKET_VARIABLE};
use meros_proto::ids::{ExecutorId, FrameworkId};

/// How long an executor tries to reach a slave that is away, such as one that is being restarted (semantics
/// L2). The slave gives it up sooner once it is back.
pub const RECONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Who an executor is, and where its slave listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// `MEROS_FRAMEWORK_ID`.
    pub framework_id: FrameworkId,
    /// `MEROS_EXECUTOR_ID`.
    pub executor_id: ExecutorId,
    /// `MEROS_EXECUTOR_SOCKET`.
    pub socket: PathBuf,
    /// How long it tries to reach a slave that is away. Default: [`RECONNECT_TIMEOUT_DEFAULT`].
    pub reconnect_timeout: Duration,
}

/// The environment is not that of an executor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} is not set as a slave sets it: this program is started by a slave, for the first task that \
         names it as its executor"
)]
pub struct ExecutorConfigError {
    /// The variable that is missing or malformed.
    pub variable: &'static str,
}

impl ExecutorConfig {
    /// As the slave says it.
    ///
    /// # Errors
    /// This program was not started by a slave.
    pub fn from_env() -> Result<Self, ExecutorConfigError> {
        const FRAMEWORK: &str = "MEROS_FRAMEWORK_ID";
        let wrong = |variable| ExecutorConfigError { variable };
        let text = |variable| std::env::var(variable).map_err(|_| wrong(variable));
        Ok(Self {
            framework_id: text(FRAMEWORK)?.parse().map_err(|_| wrong(FRAMEWORK))?,
            executor_id: ExecutorId::new(text(EXECUTOR_ID_VARIABLE)?)
                .map_err(|_| wrong(EXECUTOR_ID_VARIABLE))?,
            socket: text(EXECUTOR_SOCKET_VARIABLE)?.into(),
            reconnect_timeout: RECONNECT_TIMEOUT_DEFAULT,
        })
    }
}
