//! Connections to tasks: in the network that the task has.
//!
//! A socket belongs to the network namespace of the thread that made it, and to none that it is used from.
//! So a thread of its own enters the task's namespace, makes the socket there, and ends; the connection is
//! the runtime's like any other. Entering is root's privilege: a slave without it starts no task that has
//! a network of its own and such a check.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Connects to where a task listens: IPv4, and if nobody listens there IPv6. The error is that of the first.
pub(super) async fn connect(pid: i32, port: u16) -> io::Result<TcpStream> {
    let namespace = foreign_namespace(pid)?;
    let [first, second] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        .map(|host| SocketAddr::new(host, port));
    let refused = match attempt(namespace.as_ref(), first).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let connected = attempt(namespace.as_ref(), second).await;
    connected.map_err(|_| refused)
}

async fn attempt(namespace: Option<&File>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match namespace {
        Some(namespace) => socket_in(namespace.try_clone()?, address.is_ipv6()).await?,
        None if address.is_ipv6() => TcpSocket::new_v6()?,
        None => TcpSocket::new_v4()?,
    };
    socket.connect(address).await
}

/// The network namespace of a process; none if it is ours.
fn foreign_namespace(pid: i32) -> io::Result<Option<File>> {
    let path = format!("/proc/{pid}/ns/net");
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "the task has ended"),
        _ => error,
    };
    if fs::read_link(&path).map_err(gone)? == fs::read_link("/proc/self/ns/net")? {
        return Ok(None);
    }
    File::open(path).map_err(gone).map(Some)
}

async fn socket_in(namespace: File, is_v6: bool) -> io::Result<TcpSocket> {
    let (reply, made) = oneshot::channel();
    // Not one of the runtime's: it would stay in the namespace.
    thread::Builder::new().name("probe".into()).spawn(move || {
        // Nobody waits any more if the time of the probe is over.
        let _ = reply.send(make_socket(&namespace, is_v6));
    })?;
    let made = made.await.map_err(|_| io::ErrorKind::Other)?;
    Ok(TcpSocket::from_std_stream(made?.into()))
}

fn make_socket(namespace: &File, is_v6: bool) -> io::Result<OwnedFd> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let family = match is_v6 {
        true => AddressFamily::Inet6,
        false => AddressFamily::Inet,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Stream, flags, None)?)
}
