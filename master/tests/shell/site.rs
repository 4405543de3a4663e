//! A cluster for tests: its authority, one master on a free port, and peers that speak the wire by hand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meros_master::config::{Config, RawConfig};
use meros_master::{Running, StartError};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::Offer;
use meros_proto::slave::SlaveDescription;
use meros_proto::task::{Command, TaskDescription};
use meros_proto::transport::{
    Client, ClusterCa, ConnectError, Connection, Disconnect, PeerRole, Protocol, Receiver,
    RecvError, Sender,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

/// Far longer than anything here takes; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Site {
    dir: TempDir,
    ca: ClusterCa,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            dir: TempDir::new().unwrap(),
            ca: ClusterCa::create("test").unwrap(),
        };
        site.issue(PeerRole::Master, "master");
        site
    }

    /// A certificate of the cluster, in a directory of its own.
    pub(crate) fn issue(&self, role: PeerRole, name: &str) -> PathBuf {
        let dir = self.dir.path().join("identities").join(name);
        self.ca.issue(role, name, &[]).unwrap().save(&dir).unwrap();
        dir
    }

    /// The identity of a master, which it keeps when it is started again.
    pub(crate) fn identity_of(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("identities").join(name);
        match dir.exists() {
            true => dir,
            false => self.issue(PeerRole::Master, name),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config(&self) -> RawConfig {
        RawConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            data_dir: Some(self.data_dir()),
            identity: Some(self.dir.path().join("identities/master")),
            ..RawConfig::default()
        }
    }

    /// Of a master with a certificate and a directory of its own, which joins these.
    pub(crate) fn config_of(&self, name: &str, join: &[&Running]) -> RawConfig {
        let join = join.iter().map(|master| master.quic_addr.to_string());
        RawConfig {
            data_dir: Some(self.dir.path().join(name)),
            identity: Some(self.identity_of(name)),
            join: Some(join.collect()),
            ..self.config()
        }
    }

    pub(crate) async fn master(&self) -> Running {
        self.try_master(self.config())
            .await
            .expect("the master starts")
    }

    pub(crate) async fn try_master(&self, raw: RawConfig) -> Result<Running, StartError> {
        meros_master::start(Config::check(raw).expect("a good configuration")).await
    }

    pub(crate) async fn connect(
        &self,
        role: PeerRole,
        name: &str,
        protocol: Protocol,
        master: SocketAddr,
    ) -> Result<Connection, ConnectError> {
        let identity = self.ca.issue(role, name, &[]).unwrap();
        let client = Client::new(&identity).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.connect(protocol, master).await {
                // A machine that stood still left no time for the answer.
                Err(ConnectError::NoAnswer { .. }) if Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn slave(&self, name: &str, master: SocketAddr) -> SlavePeer {
        let connected = self
            .connect(PeerRole::Slave, name, Protocol::Slave, master)
            .await;
        Peer::new(connected.expect("the slave connects"))
    }

    pub(crate) async fn framework(&self, name: &str, master: SocketAddr) -> FrameworkPeer {
        let connected = self
            .connect(PeerRole::Framework, name, Protocol::Framework, master)
            .await;
        Peer::new(connected.expect("the framework connects"))
    }

    /// A slave that is registered.
    pub(crate) async fn registered(&self, name: &str, master: SocketAddr) -> (SlavePeer, SlaveId) {
        let mut peer = self.slave(name, master).await;
        peer.send(SlaveToMaster::Register {
            slave: slave_description(name),
        })
        .await;
        let id = peer
            .find("Registered", |message| match message {
                MasterToSlave::Registered { slave_id, .. } => Some(slave_id),
                _ => None,
            })
            .await;
        (peer, id)
    }

    /// A framework that is subscribed.
    pub(crate) async fn subscribed(
        &self,
        name: &str,
        master: SocketAddr,
    ) -> (FrameworkPeer, FrameworkId) {
        let mut peer = self.framework(name, master).await;
        let id = peer.subscribe(framework_description(name, None)).await;
        (peer, id)
    }
}

pub(crate) fn slave_description(name: &str) -> SlaveDescription {
    SlaveDescription {
        hostname: name.to_owned(),
        http_address: String::new(),
        resources: "cpus:4;mem:1024;ports:[31000-31009]".parse().unwrap(),
        attributes: "rack:r1".parse().unwrap(),
        capabilities: Vec::new(),
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn framework_description(name: &str, id: Option<FrameworkId>) -> FrameworkDescription {
    let mut description = FrameworkDescription::new(name, "*".parse().unwrap());
    description.framework_id = id;
    description
}

pub(crate) fn task(name: &str, offer: &Offer) -> TaskDescription {
    TaskDescription::command(
        TaskId::new(name).unwrap(),
        offer.slave_id,
        "cpus:1;mem:64".parse().unwrap(),
        Command::shell("true"),
    )
}

pub(crate) type SlavePeer = Peer<SlaveToMaster, MasterToSlave>;
pub(crate) type FrameworkPeer = Peer<FrameworkToMaster, MasterToFramework>;

/// One end of a connection, used by hand.
pub(crate) struct Peer<Out, In> {
    pub(crate) sender: Sender<Out>,
    pub(crate) receiver: Receiver<In>,
}

impl<Out, In> Peer<Out, In>
where
    Out: Serialize + Send + std::fmt::Debug + 'static,
    In: DeserializeOwned + std::fmt::Debug,
{
    pub(crate) fn new(connection: Connection) -> Self {
        let (sender, receiver) = connection.split(64);
        Self { sender, receiver }
    }

    pub(crate) async fn send(&self, message: Out) {
        self.sender
            .send(message)
            .await
            .expect("the connection is open");
    }

    /// The first message for which `wanted` gives something; those before it are passed over.
    pub(crate) async fn find<T>(&mut self, what: &str, wanted: impl FnMut(In) -> Option<T>) -> T {
        let found = self.try_find(what, wanted).await;
        found.unwrap_or_else(|error| panic!("waiting for {what}: {error:?}"))
    }

    /// As [`Peer::find`], of a master that may send us away instead.
    pub(crate) async fn try_find<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(In) -> Option<T>,
    ) -> Result<T, RecvError> {
        let search = async {
            loop {
                match self.receiver.recv().await {
                    Ok(message) => {
                        if let Some(found) = wanted(message) {
                            return Ok(found);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .unwrap_or_else(|_| panic!("no {what} came"))
    }

    /// Reads to the end, and tells the last message and how it ended.
    pub(crate) async fn end(&mut self) -> (Option<In>, Disconnect) {
        let mut last = None;
        let reading = async {
            loop {
                match self.receiver.recv().await {
                    Ok(message) => last = Some(message),
                    Err(RecvError::Closed(why)) => return why,
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        let why = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("the connection ends");
        (last, why)
    }
}

impl FrameworkPeer {
    pub(crate) async fn subscribe(&mut self, framework: FrameworkDescription) -> FrameworkId {
        self.send(FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        })
        .await;
        self.find("Subscribed", |message| match message {
            MasterToFramework::Subscribed { framework_id, .. } => Some(framework_id),
            MasterToFramework::Error { refusal, .. } => panic!("{refusal}"),
            _ => None,
        })
        .await
    }

    pub(crate) async fn offer(&mut self) -> Offer {
        self.find("an offer", |message| match message {
            MasterToFramework::Offers(mut offers) => offers.pop(),
            _ => None,
        })
        .await
    }
}

/// What `GET path` answers, as JSON.
pub(crate) async fn get(master: &Running, path: &str) -> Value {
    serde_json::from_str(&get_text(master, path).await).expect("JSON")
}

/// What `POST path` answers: status and text.
pub(crate) async fn post(master: &Running, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", master.http_addr);
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .into();
        let mut response = agent.post(&url).send_empty().expect("an answer");
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), text)
    })
    .await
    .expect("no panic")
}

/// What this very master answers to `GET path`, asked for the leader's answer or any: status, the header with its
/// lag if it follows, and text.
pub(crate) async fn get_here(
    master: &Running,
    path: &str,
    read: &'static str,
) -> (u16, Option<u64>, String) {
    let url = format!("http://{}{path}", master.http_addr);
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .into();
        let asked = agent.get(&url).header("x-meros-read", read);
        let mut response = asked.call().expect("an answer");
        let text = response.body_mut().read_to_string().expect("text");
        let lag = response.headers().get("x-meros-lag-ms");
        let lag = lag.map(|lag| lag.to_str().unwrap().parse().expect("a number"));
        (response.status().as_u16(), lag, text)
    })
    .await
    .expect("no panic")
}

/// A master that has just started answers 503 until it leads.
pub(crate) async fn get_text(master: &Running, path: &str) -> String {
    let url = format!("http://{}{path}", master.http_addr);
    let deadline = Instant::now() + PATIENCE;
    tokio::task::spawn_blocking(move || {
        loop {
            match ureq::get(&url).call() {
                Ok(mut response) => return response.body_mut().read_to_string().expect("text"),
                Err(ureq::Error::StatusCode(503)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("GET {url}: {error}"),
            }
        }
    })
    .await
    .expect("no panic")
}

/// Asks until the answer is as wanted.
pub(crate) async fn eventually(master: &Running, path: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = get_text(master, path).await;
        if wanted(&text) {
            return;
        }
        assert!(Instant::now() < deadline, "{path} stays at\n{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the metrics have this line.
pub(crate) async fn eventually_metric(master: &Running, line: &str) {
    eventually(master, "/metrics", |text| {
        text.lines().any(|one| one == line)
    })
    .await;
}
