//! A whole cluster of real processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meros_proto::slave::SlaveState;
use meros_proto::view::{SlaveRow, TaskView};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::cgroups::CgroupRoot;
use crate::daemon::Daemon;
use crate::meros::{Ran, meros};
use crate::ports::Ports;
use crate::wait::eventually;

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// A word that names it: cgroup root and folders.
    pub name: &'static str,
    /// How many masters.
    pub masters: usize,
    /// How many slaves.
    pub slaves: usize,
    /// What each slave offers.
    pub resources: &'static str,
    /// More flags of the master.
    pub master_args: Vec<String>,
    /// More flags of every slave.
    pub slave_args: Vec<String>,
}

impl ClusterOptions {
    /// Slaves with 4 cpus, 1 GiB of memory and a hundred ports each.
    #[must_use]
    pub fn new(name: &'static str, slaves: usize) -> Self {
        Self {
            name,
            masters: 1,
            slaves,
            resources: "cpus:4;mem:1024;disk:1024;ports:[31000-31099]",
            master_args: Vec::new(),
            slave_args: Vec::new(),
        }
    }
}

/// Masters and slaves, as a cluster admin would start them.
#[derive(Debug)]
pub struct LocalCluster {
    // Dropped in this order: daemons end before their groups and folders go.
    /// The master that formed the cluster.
    pub master: Daemon,
    /// Those that have joined it.
    pub others: Vec<Daemon>,
    /// The slaves.
    pub slaves: Vec<Daemon>,
    /// The control groups of the slaves.
    pub cgroups: CgroupRoot,
    address: String,
    addresses: Vec<String>,
    dir: Option<TempDir>,
    _ports: Ports,
}

impl LocalCluster {
    /// Starts everything and waits until all slaves are registered.
    ///
    /// # Panics
    /// Something does not start.
    #[must_use]
    pub fn start(options: ClusterOptions) -> Self {
        let dir = TempDir::with_prefix(format!("meros-{}-", options.name)).expect("a temp folder");
        let root = dir.path().to_owned();
        ca_init(&root);
        for name in ["master", "operator", "framework"] {
            issue(&root, name, name);
        }
        // A restarted master must come back where its slaves look for it.
        let ports = Ports::reserve();
        let mut next = ports.iter();
        let mut master_args = || {
            let port = next.next().expect("there are more than masters");
            master_args(&root, &options, port)
        };
        let mut master = Daemon::new(&root, "master-1", master_args());
        let address = master.start().http.to_string();
        let mut addresses = vec![address.clone()];
        let mut others = Vec::new();
        for number in 2..=options.masters {
            let name = format!("master-{number}");
            issue(&root, "master", &name);
            let mut args = master_args();
            args.push(format!("--join={address}"));
            let mut other = Daemon::new(&root, &name, args);
            let identity = root.join("identities").join(&name);
            other.set_arg("identity", &identity.display().to_string());
            addresses.push(other.start().http.to_string());
            others.push(other);
        }
        let cgroups = CgroupRoot::new(options.name);
        let mut cluster = Self {
            master,
            others,
            slaves: Vec::new(),
            cgroups,
            address: addresses.join(","),
            addresses,
            dir: Some(dir),
            _ports: ports,
        };
        for _ in 0..options.slaves {
            cluster.add_slave(&options);
        }
        cluster.await_registered(options.slaves);
        cluster
    }

    /// Starts one more slave without waiting until it is registered.
    pub fn add_slave(&mut self, options: &ClusterOptions) {
        let name = format!("slave-{}", self.slaves.len() + 1);
        let root = self.dir().to_owned();
        issue(&root, "slave", &name);
        let mut args = vec![
            "slave".to_owned(),
            format!("--masters={}", self.address),
            "--http-listen=127.0.0.1:0".to_owned(),
            format!(
                "--identity={}",
                root.join("identities").join(&name).display()
            ),
            format!("--cgroup-root={}", self.cgroups.name()),
            format!("--resources={}", options.resources),
        ];
        args.extend(options.slave_args.clone());
        let mut slave = Daemon::new(&root, &name, args);
        slave.start();
        self.slaves.push(slave);
    }

    /// Waits until this many slaves are registered with the master.
    ///
    /// # Panics
    /// They are not within a minute.
    pub fn await_registered(&self, slaves: usize) {
        eventually("all slaves are registered", Duration::from_secs(60), || {
            let rows = self
                .try_get::<Vec<SlaveRow>>("/api/v1/slaves")
                .unwrap_or_default();
            rows.iter()
                .filter(|row| row.slave.state == SlaveState::Registered)
                .count()
                == slaves
        });
    }

    /// The folder of everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("taken only in drop").path()
    }

    /// The masters' addresses, for QUIC and HTTP, separated by commas.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The masters in the order of [`LocalCluster::leader`].
    pub fn master_at(&mut self, at: usize) -> &mut Daemon {
        match at {
            0 => &mut self.master,
            at => &mut self.others[at - 1],
        }
    }

    /// The address of a master.
    #[must_use]
    pub fn address_of(&self, at: usize) -> &str {
        &self.addresses[at]
    }

    /// The master that leads, if one says so.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |address: &String| {
            let health: Option<serde_json::Value> = get_from(address, "/health");
            health.is_some_and(|health| health["status"] == "leading")
        };
        self.addresses.iter().position(leads)
    }

    /// The folder of an identity: `operator`, `framework`, `master`, `slave-1` ….
    #[must_use]
    pub fn identity(&self, name: &str) -> PathBuf {
        self.dir().join("identities").join(name)
    }

    /// Runs `meros` as an operator of this cluster.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn meros(&self, args: &[&str]) -> Ran {
        let output = meros()
            .env("MEROS_MASTER", &self.address)
            .env("MEROS_IDENTITY", self.identity("operator"))
            .args(args)
            .output();
        output
            .expect("the binary was found and can be started")
            .into()
    }

    /// Reads a JSON document of the first master that answers.
    #[must_use]
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        self.addresses
            .iter()
            .find_map(|address| get_from(address, path))
    }

    /// Reads a JSON document of the master.
    ///
    /// # Panics
    /// It does not answer with one.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path)
            .unwrap_or_else(|| panic!("GET {path} has no answer"))
    }

    /// All tasks that the master knows, ended ones included.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskView> {
        self.get("/api/v1/tasks")
    }

    /// The master's metrics as text.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.try_metrics_of(0).expect("the master runs")
    }

    /// The metrics of a master, if it answers.
    #[must_use]
    pub fn try_metrics_of(&self, at: usize) -> Option<String> {
        let url = format!("http://{}/metrics", self.addresses[at]);
        let mut response = agent().get(&url).call().ok()?;
        response.body_mut().read_to_string().ok()
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for slave in &mut self.slaves {
            if slave.pid().is_some() && slave.exited().is_none() && !std::thread::panicking() {
                slave.stop();
            }
            slave.kill();
        }
        self.master.kill();
        self.others.iter_mut().for_each(Daemon::kill);
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("logs and data are kept in {}", dir.keep().display());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .new_agent()
}

fn get_from<T: DeserializeOwned>(address: &str, path: &str) -> Option<T> {
    let url = format!("http://{address}{path}");
    // Of the leader, or nothing: what others know is a little older.
    let asked = agent().get(&url).header("x-meros-read", "leader");
    asked.call().ok()?.body_mut().read_json().ok()
}

fn master_args(root: &Path, options: &ClusterOptions, port: u16) -> Vec<String> {
    let mut args = vec![
        "master".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
        format!("--http-listen=127.0.0.1:{port}"),
        format!("--identity={}", root.join("identities/master").display()),
    ];
    args.extend(options.master_args.clone());
    args
}

/// Makes a certificate authority in `root/ca`.
///
/// # Panics
/// `meros ca init` fails.
pub fn ca_init(root: &Path) {
    expect_success(&[
        "ca",
        "init",
        "--dir",
        &root.join("ca").display().to_string(),
    ]);
}

/// Issues a certificate into `root/identities/NAME`.
///
/// # Panics
/// `meros ca issue` fails.
pub fn issue(root: &Path, role: &str, name: &str) {
    let ca = root.join("ca").display().to_string();
    let out = root.join("identities").join(name).display().to_string();
    expect_success(&[
        "ca", "issue", "--ca", &ca, "--role", role, "--name", name, "--out", &out,
    ]);
}

fn expect_success(args: &[&str]) {
    let ran: Ran = meros()
        .args(args)
        .output()
        .expect("the binary was found")
        .into();
    assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
}
