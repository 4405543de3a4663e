//! Probes of tasks: what a check tries, carried out in this process. Only commands run in another one,
//! which is the task's (`Container::check`).
//!
//! What answers is the task's, so nothing of it is trusted: each probe has a time, reads a bounded number
//! of bytes, and keeps a few words of them. At most [`PROBES_MAX`] are under way; who finds no place within
//! its timeout is not tried, which is counted and says nothing of the task.
//!
//! Absent: when to probe, and what follows (`slave/core/src/checks.rs`).

mod grpc;
mod http;
mod net;
mod tls;

use std::time::Duration;

use meros_proto::check::{CheckStatus, HttpProbe, Probe};
use meros_slave_core::{CheckPurpose, Found};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::container::{CheckEnd, Container};
use tls::Tls;

/// Probes under way at one time. One has a socket and some 20 KiB; a thousand checks a second that are
/// answered within a tenth of a second need a hundred places.
const PROBES_MAX: usize = 512;
/// The longest message of a result, in bytes: it is part of status updates.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Carries probes out.
#[derive(Debug)]
pub(crate) struct Prober {
    places: Semaphore,
    tls: Tls,
}

/// A probe that has come to an end, in words if it was no success.
type Answer<T> = Result<T, String>;

impl Prober {
    pub(crate) fn new() -> Self {
        Self {
            places: Semaphore::new(PROBES_MAX),
            tls: Tls::new(),
        }
    }

    /// Tries it once, for so long at the most. None if there was no place, or no answer of the container.
    pub(crate) async fn probe(
        &self,
        container: &Container,
        purpose: CheckPurpose,
        probe: &Probe,
        limit: Duration,
    ) -> Option<Found> {
        let _place = timeout(limit, self.places.acquire()).await.ok()?.ok()?;
        let found = match probe {
            Probe::Command(_) => of_command(container.check(purpose.name(), limit).await?, limit),
            Probe::Http(http) => {
                let tried = within(limit, self.http(container.pid(), http)).await;
                of_http(tried)
            }
            Probe::Tcp { port } => {
                let tried = within(limit, connect(container.pid(), *port)).await;
                of_tcp(tried)
            }
            Probe::Grpc { port, service } => {
                let tried = within(limit, grpc(container.pid(), *port, service)).await;
                of_grpc(tried, service)
            }
        };
        Some(bounded(found))
    }

    async fn http(&self, pid: i32, http: &HttpProbe) -> Answer<u16> {
        let HttpProbe { port, path, tls } = http;
        let stream = connect(pid, *port).await?;
        match tls {
            false => http::get(stream, *port, path).await,
            true => http::get(self.tls.connect(stream).await?, *port, path).await,
        }
    }
}

/// Why a probe was no success.
enum Failed {
    /// Its time was over.
    TimedOut(Duration),
    Because(String),
}

impl Failed {
    fn message(self) -> String {
        match self {
            Self::TimedOut(limit) => format!("no answer within {limit:?}"),
            Self::Because(why) => why,
        }
    }
}

async fn within<T>(limit: Duration, probe: impl Future<Output = Answer<T>>) -> Result<T, Failed> {
    match timeout(limit, probe).await {
        Ok(answer) => answer.map_err(Failed::Because),
        Err(_) => Err(Failed::TimedOut(limit)),
    }
}

async fn connect(pid: i32, port: u16) -> Answer<TcpStream> {
    let connected = net::connect(pid, port).await;
    connected.map_err(|error| format!("no connection to port {port}: {error}"))
}

async fn grpc(pid: i32, port: u16, service: &str) -> Answer<bool> {
    grpc::check(connect(pid, port).await?, port, service).await
}

fn of_command((end, output): (CheckEnd, String), limit: Duration) -> Found {
    let (exit_code, mut message) = match end {
        CheckEnd::Exited(0) => (Some(0), String::new()),
        CheckEnd::Exited(code) => (Some(code), format!("the command exited with code {code}")),
        CheckEnd::Signaled(signal) => (None, format!("the command was ended by signal {signal}")),
        CheckEnd::TimedOut => (None, format!("the command did not end within {limit:?}")),
    };
    let output = output.trim();
    if !message.is_empty() && !output.is_empty() {
        message = format!("{message}: {output}");
    }
    let status = CheckStatus::Command { exit_code };
    Found { status, message }
}

fn of_http(tried: Result<u16, Failed>) -> Found {
    let (status_code, failed) = match tried {
        Ok(code) => (Some(code), None),
        Err(failed) => (None, Some(failed)),
    };
    let status = CheckStatus::Http { status_code };
    let message = match (failed, status_code) {
        (Some(failed), _) => failed.message(),
        (None, Some(code)) if !status.is_passed() => format!("the answer was {code}"),
        _ => String::new(),
    };
    Found { status, message }
}

fn of_tcp(tried: Result<TcpStream, Failed>) -> Found {
    let (succeeded, message) = match tried {
        Ok(_) => (Some(true), String::new()),
        Err(failed @ Failed::TimedOut(_)) => (None, failed.message()),
        Err(failed) => (Some(false), failed.message()),
    };
    let status = CheckStatus::Tcp { succeeded };
    Found { status, message }
}

fn of_grpc(tried: Result<bool, Failed>, service: &str) -> Found {
    let (serving, message) = match tried {
        Ok(true) => (Some(true), String::new()),
        Ok(false) if service.is_empty() => (Some(false), "the server does not serve".to_owned()),
        Ok(false) => (
            Some(false),
            format!("the service {service:?} is not serving"),
        ),
        Err(failed) => (None, failed.message()),
    };
    let status = CheckStatus::Grpc { serving };
    Found { status, message }
}

/// Words of a task are as long as they may be.
fn bounded(mut found: Found) -> Found {
    let message = &mut found.message;
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    message.truncate(end);
    found
}

#[cfg(test)]
mod tests;
