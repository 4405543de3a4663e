//! Ports for servers that are started again and must come back where they were.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// First of all ports that are given away. Below those that the kernel gives to clients: one of those may
/// stand in TIME_WAIT for a minute, while the server that had it before is down and wants it back.
const FIRST: u16 = 20_000;
/// In one block.
const LENGTH: u16 = 10;
/// The last block ends before the ports of tasks.
const BLOCKS: u16 = 1_000;

/// Some ports in a row, on loopback, which no other test gets while this lives.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _held: UnixListener,
}

impl Ports {
    /// Any that are free.
    ///
    /// # Panics
    /// None are.
    #[must_use]
    pub fn reserve() -> Self {
        // Tests that begin together look at different ones first.
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).expect("it is small");
        let blocks = (0..BLOCKS).map(|n| (start + n) % BLOCKS);
        let mut held = blocks.filter_map(hold);
        held.find(|ports| ports.iter().all(is_free))
            .expect("a free block of ports")
    }

    /// The lowest.
    #[must_use]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.first..self.first + LENGTH
    }
}

/// A block, if no other test has it. The hold ends with the process.
fn hold(block: u16) -> Option<Ports> {
    let first = FIRST + block * LENGTH;
    let name = format!("meros-test-ports-{first}");
    let address = SocketAddr::from_abstract_name(name).ok()?;
    let held = UnixListener::bind_addr(&address).ok()?;
    Some(Ports { first, _held: held })
}

/// Whether a server can have it, over TCP and UDP.
fn is_free(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_held_or_used_are_given_to_nobody_else() {
        let ports = Ports::reserve();
        let block = (ports.first() - FIRST) / LENGTH;
        assert!(hold(block).is_none());
        let used = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.first() + 1));
        assert!(!is_free(ports.first() + 1), "{used:?}");
        assert_ne!(Ports::reserve().first(), ports.first());
        assert!(ports.iter().all(|port| port < 31_000));
    }
}
