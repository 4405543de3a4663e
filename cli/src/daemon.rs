//! `meros master` and `meros slave`: configuration, logging, signals and exit codes around the
//! two daemons.

use std::path::PathBuf;

use clap::ValueEnum;
use meros_daemon::verbosity;
use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::Handle;

use crate::config;
use crate::exit::{CliError, Exit, chain};
use crate::signal::{Leave, Stop};

/// What both daemons take beside their own options.
#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// Configuration file in TOML; flags and variables of the environment win over it
    #[arg(long, env = "MEROS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace, also by module
    #[arg(long, env = "MEROS_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How to log
    #[arg(long, env = "MEROS_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    parent: ParentArgs,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum, Default)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether to outlive the process that started this one.
#[derive(Debug, clap::Args)]
pub(crate) struct ParentArgs {
    /// Stop when the process that started this one ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

impl ParentArgs {
    /// Asks the kernel for a SIGTERM when the parent ends.
    ///
    /// # Errors
    /// The kernel refuses, or the parent has ended already.
    pub(crate) fn apply(&self) -> Result<(), CliError> {
        if !self.end_with_parent {
            return Ok(());
        }
        let parent = nix::unistd::getppid();
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(|error| {
            CliError::failure(format!("cannot watch the parent process: {error}"))
        })?;
        // It may have ended before the request, and we been handed to another.
        if nix::unistd::getppid() == parent && parent.as_raw() > 1 {
            return Ok(());
        }
        Err(CliError::failure(
            "the process that started this one has ended",
        ))
    }
}

/// `meros master`.
#[derive(Debug, clap::Args)]
pub(crate) struct MasterArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    options: meros_master::config::RawConfig,
}

/// `meros slave`.
#[derive(Debug, clap::Args)]
pub(crate) struct SlaveArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    options: meros_slave::config::RawConfig,
}

pub(crate) fn master(args: MasterArgs) -> Result<Exit, CliError> {
    args.daemon.prepare()?;
    let raw = args.options.or(args.daemon.file()?);
    let config =
        meros_master::config::Config::check(raw).map_err(|error| CliError::usage(chain(&error)))?;
    runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        let running = meros_master::start(config).await;
        let running = running.map_err(|error| CliError::failure(chain(&error)))?;
        let reason = tokio::select! {
            reason = running.wait() => reason,
            () = stop.next() => running.shutdown().await,
        };
        ended(reason.code(), &reason)
    })
}

pub(crate) fn slave(args: SlaveArgs) -> Result<Exit, CliError> {
    args.daemon.prepare()?;
    let raw = args.options.or(args.daemon.file()?);
    let config =
        meros_slave::config::Config::check(raw).map_err(|error| CliError::usage(chain(&error)))?;
    runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        let mut leave = Leave::listen()?;
        let running = meros_slave::start(config).await;
        let running = running.map_err(|error| CliError::failure(chain(&error)))?;
        let reason = tokio::select! {
            reason = running.wait() => reason,
            () = stop.next() => running.shutdown().await,
            () = leave.next() => running.leave().await,
        };
        ended(reason.code(), &reason)
    })
}

/// A daemon's end as the process's.
fn ended(code: u8, reason: &impl std::fmt::Display) -> Result<Exit, CliError> {
    if code == 0 {
        Ok(Exit::Success)
    } else {
        Err(CliError::with_code(code, reason.to_string()))
    }
}

impl DaemonArgs {
    fn prepare(&self) -> Result<(), CliError> {
        self.parent.apply()?;
        let filter = filter(&self.log, 0)
            .map_err(|error| CliError::usage(format!("--log {:?}: {error}", self.log)))?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // It would say on the same stream that this cannot be written, and panic: a full disk.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => {
                let lines = lines.with_ansi(false).with_filter_reloading();
                self.install_verbosity(lines.reload_handle());
                lines.init();
            }
            LogFormat::Json => {
                let lines = lines.json().with_filter_reloading();
                self.install_verbosity(lines.reload_handle());
                lines.init();
            }
        }
        Ok(())
    }

    /// Lets operators change what is logged (SET_LOGGING_LEVEL of the Mesos v1 API).
    fn install_verbosity<S: 'static>(&self, handle: Handle<EnvFilter, S>) {
        let log = self.log.clone();
        verbosity::install(move |level| {
            let filter = filter(&log, level).map_err(|error| error.to_string())?;
            handle.reload(filter).map_err(|error| error.to_string())
        });
    }

    fn file<T: DeserializeOwned + Default>(&self) -> Result<T, CliError> {
        self.config
            .as_deref()
            .map_or_else(|| Ok(T::default()), config::read_file)
    }
}

/// What is logged at a level: 0 is what `--log` says; at 1 our own modules log `debug`, at 2 and above `trace`,
/// but for those that `--log` names.
fn filter(log: &str, level: u32) -> Result<EnvFilter, ParseError> {
    let own = match level {
        0 => "",
        1 => ",meros=debug",
        _ => ",meros=trace",
    };
    // openraft logs an error for each message to a master that is down; what matters of it is
    // said by ours. It can be switched on by its name.
    EnvFilter::try_new(format!("openraft=off,{log}{own}"))
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Runtime::new()
        .map_err(|error| CliError::failure(format!("cannot start the runtime: {error}")))
}
