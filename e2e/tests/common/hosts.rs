//! Masters and slaves on hosts of their own, with a network that can be cut.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use meros_e2e::cgroups::CgroupRoot;
use meros_e2e::cluster::{ca_init, issue};
use meros_e2e::{Daemon, Network, eventually};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// A client that does not wait for long.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .new_agent()
}

pub(crate) fn get<T: DeserializeOwned>(address: &str, path: &str) -> Option<T> {
    let answer = agent().get(format!("http://{address}{path}")).call();
    answer.ok()?.body_mut().read_json().ok()
}

/// Whether this master leads, as far as it knows.
pub(crate) fn leads(address: &str) -> bool {
    get::<Value>(address, "/health").is_some_and(|health| health["status"] == "leading")
}

/// Three masters on hosts 0 to 2, and slaves on some of the others.
pub(crate) struct Hosts {
    // Dropped in this order: daemons end before their groups, folders and networks go.
    pub(crate) masters: Vec<Daemon>,
    slaves: Vec<Daemon>,
    _cgroups: CgroupRoot,
    /// Of the masters.
    pub(crate) addresses: Vec<String>,
    dir: TempDir,
    pub(crate) network: Network,
}

impl Hosts {
    pub(crate) fn start(network: Network, slave_hosts: Range<usize>) -> Self {
        let dir = TempDir::with_prefix("meros-hosts-").expect("a temp folder");
        let root = dir.path();
        ca_init(root);
        issue(root, "framework", "framework");
        let identity = |name: &str| {
            let path = root.join("identities").join(name);
            format!("--identity={}", path.display())
        };
        let addresses: Vec<String> = (0..3)
            .map(|host| format!("{}:5050", network.address(host)))
            .collect();
        let mut masters = Vec::new();
        for (host, address) in addresses.iter().enumerate() {
            let name = format!("master-{host}");
            issue(root, "master", &name);
            let mut args = vec![
                "master".to_owned(),
                format!("--listen={address}"),
                format!("--http-listen={address}"),
                identity(&name),
            ];
            if host > 0 {
                args.push(format!("--join={}", addresses[0]));
            }
            let mut master = Daemon::new(root, &name, args).on(network.name(host));
            master.start();
            masters.push(master);
        }
        let cgroups = CgroupRoot::new("hosts");
        let mut slaves = Vec::new();
        for host in slave_hosts {
            let name = format!("slave-{host}");
            issue(root, "slave", &name);
            let args = vec![
                "slave".to_owned(),
                format!("--masters={}", addresses.join(",")),
                format!("--http-listen={}:5051", network.address(host)),
                "--resources=cpus:1;mem:2048;disk:64;ports:[31000-31000]".to_owned(),
                format!("--cgroup-root={}", cgroups.name()),
                identity(&name),
            ];
            let mut slave = Daemon::new(root, &name, args).on(network.name(host));
            slave.start();
            slaves.push(slave);
        }
        Self {
            masters,
            slaves,
            _cgroups: cgroups,
            addresses,
            dir,
            network,
        }
    }

    /// The folder of an identity.
    pub(crate) fn identity(&self, name: &str) -> PathBuf {
        self.dir.path().join("identities").join(name)
    }

    /// Waits until one of these masters leads.
    pub(crate) fn await_leader(&self, among: &[usize]) -> usize {
        let mut leader = None;
        eventually("a master leads", PATIENCE, || {
            let mut among = among.iter().copied();
            leader = among.find(|at| leads(&self.addresses[*at]));
            leader.is_some()
        });
        leader.expect("just found")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for daemon in self.masters.iter().chain(&self.slaves) {
                eprintln!("{}\n{}", daemon.data_dir().display(), daemon.log());
            }
        }
        for slave in &mut self.slaves {
            if slave.pid().is_some() && slave.exited().is_none() && !std::thread::panicking() {
                slave.stop();
            }
        }
    }
}
