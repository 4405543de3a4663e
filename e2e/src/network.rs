//! Hosts of a test's own: network namespaces on one bridge, cut from each other in either direction.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

/// The addresses of these are for tests of networks (RFC 2544), so that nobody else has them.
const NET: &str = "198.18";
/// How many networks of tests a machine has room for at the same time.
const NETWORKS_MAX: u8 = 200;
/// Nobody's address on the wire: what is sent there reaches nobody.
const NOBODY: &str = "02:00:00:00:00:01";

/// The hosts; all gone when dropped. The test itself reaches all of them, whatever is cut.
#[derive(Debug)]
pub struct Network {
    hosts: usize,
    bridge: String,
    subnet: String,
    /// While it is held, no other test has the same subnet. The kernel lets go of it in any case.
    _number: UnixListener,
}

impl Network {
    /// So many hosts, at most 200; none if this process may not make any, and says why.
    #[must_use]
    pub fn new(hosts: usize) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let Some((number, held)) = (0..NETWORKS_MAX).find_map(hold) else {
            eprintln!("skipped: {NETWORKS_MAX} networks of tests are in use");
            return None;
        };
        let network = Self {
            hosts,
            bridge: format!("mb{number}"),
            subnet: format!("{NET}.{number}"),
            _number: held,
        };
        // Of a test that was killed: nobody who lives has this number.
        network.remove();
        match network.make() {
            Ok(()) => Some(network),
            Err(why) => {
                eprintln!("skipped: no network namespaces here: {why}");
                None
            }
        }
    }

    fn make(&self) -> Result<(), String> {
        let Self { bridge, subnet, .. } = self;
        run("nsenter", "--version")?;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {subnet}.254/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 0..self.hosts {
            let (name, outside) = (self.name(host), format!("{bridge}x{host}"));
            let address = self.address(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "link add {outside} type veth peer name eth0 netns {name}"
            ))?;
            ip(&format!("link set {outside} master {bridge}"))?;
            ip(&format!("link set {outside} up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
        }
        Ok(())
    }

    /// Some of it may not have been made.
    fn remove(&self) {
        for host in 0..self.hosts {
            let _ = ip(&format!("netns del {}", self.name(host)));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.bridge)
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        format!("{}.{}", self.subnet, host + 1)
    }

    /// Takes the calling thread to a host: sockets that it opens from now on, and those of threads that
    /// it starts, are there.
    ///
    /// # Panics
    /// The system does not let us.
    pub fn enter(&self, host: usize) {
        let path = format!("/run/netns/{}", self.name(host));
        let namespace = std::fs::File::open(path).expect("our own namespace");
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("root may go anywhere");
    }

    /// What one host sends to another is lost from now on, without a word to either.
    ///
    /// # Panics
    /// The system does not let us.
    pub fn cut(&self, from: usize, to: usize) {
        let (name, address) = (self.name(from), self.address(to));
        let cut =
            format!("-n {name} neigh replace {address} lladdr {NOBODY} nud permanent dev eth0");
        ip(&cut).expect("our own namespace");
    }

    /// Cuts these hosts from all others, in both directions.
    pub fn isolate(&self, hosts: &[usize]) {
        for inside in hosts {
            for outside in (0..self.hosts).filter(|host| !hosts.contains(host)) {
                self.cut(*inside, outside);
                self.cut(outside, *inside);
            }
        }
    }

    /// Nothing is cut any more.
    ///
    /// # Panics
    /// The system does not let us.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            let flush = format!("-n {} neigh flush dev eth0 nud permanent", self.name(host));
            ip(&flush).expect("our own namespace");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The number of a network, if no other test has it, and the hold on it.
fn hold(number: u8) -> Option<(u8, UnixListener)> {
    let name = format!("meros-test-network-{number}");
    let address = SocketAddr::from_abstract_name(name).ok()?;
    let held = UnixListener::bind_addr(&address).ok()?;
    Some((number, held))
}

fn ip(args: &str) -> Result<(), String> {
    run("ip", args)
}

fn run(program: &str, args: &str) -> Result<(), String> {
    let output = Command::new(program).args(args.split(' ')).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {args}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_held_is_given_to_nobody_else() {
        let (number, held) = (0..NETWORKS_MAX).find_map(hold).expect("one is free");
        assert!(hold(number).is_none());
        drop(held);
    }
}
