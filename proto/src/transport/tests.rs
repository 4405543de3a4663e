//! The transport over real sockets on the loopback.

mod admission;
mod dialing;
mod hostile;
mod identities;
mod leading;
mod messages;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::*;

/// No test step takes longer on a healthy machine, however busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Call {
    Register {
        name: String,
        incarnation: u64,
    },
    Update {
        sequence: u64,
        detail: Option<String>,
    },
    Blob(bytes::Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    Registered { id: u64 },
    Acknowledged { sequence: u64 },
    Error { why: String },
}

fn update(sequence: u64) -> Call {
    Call::Update {
        sequence,
        detail: Some(format!("task-{sequence} is running")),
    }
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn limits() -> ServerLimits {
    ServerLimits {
        handshake_timeout: PATIENCE,
        ..ServerLimits::default()
    }
}

pub(super) fn cluster() -> ClusterCa {
    ClusterCa::create("test").unwrap()
}

pub(super) fn server_of(ca: &ClusterCa) -> (Server, SocketAddr) {
    server_with(ca, limits())
}

fn server_with(ca: &ClusterCa, limits: ServerLimits) -> (Server, SocketAddr) {
    let identity = ca.issue(PeerRole::Master, "m1", &[]).unwrap();
    let server = Server::bind(anywhere(), &identity, limits).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

pub(super) fn client_of(ca: &ClusterCa, role: PeerRole, name: &str) -> Client {
    Client::new(&ca.issue(role, name, &[]).unwrap()).unwrap()
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("should have happened by now")
}

/// Waits until a condition holds that nothing announces.
async fn eventually(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A connected pair over the slave protocol: the slave's end, then the master's.
pub(super) async fn pair(
    server: &mut Server,
    client: &Client,
    address: SocketAddr,
) -> (Connection, Connection) {
    let connecting = connect(client, Protocol::Slave, address);
    let (slave, master) = soon(async { tokio::join!(connecting, server.accept()) }).await;
    (slave.unwrap(), master.unwrap())
}

/// Connects, and again where a machine that stood still left no time for the answer.
async fn connect(
    client: &Client,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<Connection, ConnectError> {
    loop {
        match client.connect(protocol, address).await {
            Err(ConnectError::NoAnswer { .. }) => {}
            other => return other,
        }
    }
}
