//! The way to a slave: HTTP, an upgrade, and TLS inside of that.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use meros_proto::message::exec::{EXEC_PATH, EXEC_UPGRADE};
use meros_proto::transport::{Identity, tunnel_to_slave};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::problem;
use crate::exit::{CliError, chain};

/// For the whole way.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// A refusal is a line of JSON.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Bytes both ways.
pub(super) trait Tunnel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Tunnel for T {}

/// A connection on which a slave waits for what is wanted.
///
/// # Errors
/// It does not answer, lets nobody in, or is not of our cluster.
pub(super) async fn dial(slave: &str, identity: &Identity) -> Result<Box<dyn Tunnel>, CliError> {
    let dialed = async {
        let upgraded = upgrade(slave).await?;
        let tunnel = tunnel_to_slave(identity, TokioIo::new(upgraded)).await;
        let (stream, _) = tunnel.map_err(|error| {
            CliError::failure(format!(
                "the slave at {slave} and this identity do not trust each other: {}",
                chain(&error)
            ))
        })?;
        let stream: Box<dyn Tunnel> = Box::new(stream);
        Ok(stream)
    };
    let dialed = timeout(DIAL_TIMEOUT, dialed).await;
    dialed.map_err(|_| no_answer(slave, &"no answer in time"))?
}

async fn upgrade(slave: &str) -> Result<Upgraded, CliError> {
    let failed = |error: hyper::Error| no_answer(slave, &chain(&error));
    let tcp = TcpStream::connect(slave).await;
    let tcp = tcp.map_err(|error| no_answer(slave, &error))?;
    // What is typed goes at once. An error only makes it slower.
    let _ = tcp.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(EXEC_PATH)
        .header(HOST, slave)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, EXEC_UPGRADE)
        .body(Empty::<Bytes>::new())
        .map_err(|error| CliError::usage(format!("{slave:?} is no address: {error}")))?;
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return hyper::upgrade::on(answer).await.map_err(failed);
    }
    let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let why = problem(status.as_u16(), &body);
    Err(CliError::with_code(super::NOT_RUN, why))
}

fn no_answer(slave: &str, why: &dyn std::fmt::Display) -> CliError {
    CliError::unreachable(format!("slave at {slave} does not answer: {why}"))
}
