//! The two sockets of a master: UDP for QUIC and TCP for HTTP, on one port number.

use std::io;
use std::net::{IpAddr, SocketAddr};

use meros_proto::transport::{self, Identity, Server, ServerLimits};
use tokio::net::TcpListener;

use crate::config::Config;

/// With port 0 the number that UDP gets may be taken on TCP; then another is tried.
const ATTEMPTS_MAX: usize = 32;

/// Why a master cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("{kind} port {} is in use on {}: stop what uses it (`ss -lnp | grep :{}` shows it), or choose another port with --listen", address.port(), address.ip(), address.port())]
    InUse {
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address is not of this machine, or the port needs more rights.
    #[error(
        "cannot listen on {kind} {address}: use an address of this machine and a port above 1023"
    )]
    Address {
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used for QUIC.
    #[error("cannot set up QUIC")]
    Quic(#[source] transport::BindError),
}

impl BindError {
    fn new(kind: &'static str, address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse {
                kind,
                address,
                source,
            }
        } else {
            Self::Address {
                kind,
                address,
                source,
            }
        }
    }
}

/// Both sockets, and where they are.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) server: Server,
    pub(crate) quic: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) http: SocketAddr,
}

/// Binds both.
pub(crate) async fn bind(config: &Config, identity: &Identity) -> Result<Bound, BindError> {
    let limits = ServerLimits {
        connections_max: config.connections_max as usize,
        ..ServerLimits::default()
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let server = bind_quic(config.listen, identity, limits)?;
        let quic = server
            .local_addr()
            .map_err(|source| BindError::new("UDP", config.listen, source))?;
        match bind_http(config.http_address, quic.port()).await {
            Ok((listener, http)) => {
                return Ok(Bound {
                    server,
                    quic,
                    listener,
                    http,
                });
            }
            Err(BindError::InUse { .. })
                if config.listen.port() == 0 && attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
        }
    }
}

fn bind_quic(
    address: SocketAddr,
    identity: &Identity,
    limits: ServerLimits,
) -> Result<Server, BindError> {
    Server::bind(address, identity, limits).map_err(|error| match error {
        transport::BindError::Socket { address, source } => BindError::new("UDP", address, source),
        other => BindError::Quic(other),
    })
}

async fn bind_http(ip: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let address = SocketAddr::new(ip, port);
    let failed = |source| BindError::new("TCP", address, source);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
