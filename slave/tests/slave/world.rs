//! What the tests are made of: a cluster's certificates, a master, a slave.

use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId};
use meros_proto::message::master::{SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::{MasterToSlave, RunTask, TaskFramework};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::transport::{
    ClusterCa, Gate, Identity, PeerRole, Receiver, Sender, Server, ServerLimits,
};
use meros_slave::config::{Config, RawConfig};
use meros_slave::{Running, StartError};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::sweep::Sweep;

/// Nothing here takes longer on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER: ClusterId = ClusterId(77);
pub(crate) const SLAVE: SlaveId = SlaveId(0);

/// The directory of one test, its certificates and its runtime.
pub(crate) struct World {
    // Ended before the directory goes.
    pub(crate) runtime: Runtime,
    // Tests of one process may run at the same time: each has control groups of its own.
    sweep: Sweep,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) master: Master,
    ca: ClusterCa,
}

/// Runs a test in a world of its own.
pub(crate) fn run(body: fn(&mut World)) {
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::create("test").unwrap();
    let slave = ca.issue(PeerRole::Slave, "slave-1", &[]).unwrap();
    slave.save(&dir.path().join("identity")).unwrap();
    let runtime = Runtime::new().unwrap();
    let identity = ca.issue(PeerRole::Master, "master-1", &[]).unwrap();
    let master =
        runtime.block_on(async { Master::listen(&identity, "127.0.0.1:0".parse().unwrap()) });
    let cgroup_root = format!("meros-test-{}-s{number}", std::process::id());
    let mut world = World {
        runtime,
        sweep: Sweep::new(&cgroup_root, dir.path()),
        dir,
        master,
        ca,
    };
    let ended = panic::catch_unwind(AssertUnwindSafe(|| body(&mut world)));
    // A slave that was not stopped would hold a runtime that is merely dropped.
    world.runtime.shutdown_timeout(Duration::from_secs(10));
    if let Err(reason) = ended {
        panic::resume_unwind(reason);
    }
}

impl World {
    pub(crate) fn config(&self) -> Config {
        let raw = RawConfig {
            masters: Some(self.master.address.to_string()),
            http_listen: Some("127.0.0.1:0".parse().unwrap()),
            hostname: Some("test-host".to_owned()),
            data_dir: Some(self.data_dir()),
            identity: Some(self.dir.path().join("identity")),
            resources: Some("cpus:4;mem:4096;disk:100;ports:[31000-31010]".to_owned()),
            cgroup_root: Some(self.sweep.root().to_owned()),
            tasks_end_with_slave: Some(true),
            ..RawConfig::default()
        };
        Config::check(raw).unwrap()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn try_start(&self, config: Config) -> Result<Running, StartError> {
        self.runtime.block_on(meros_slave::start(config))
    }

    pub(crate) fn start(&self) -> Running {
        self.try_start(self.config()).expect("the slave starts")
    }

    /// A slave that is registered with the master.
    pub(crate) fn registered(&mut self) -> Running {
        self.registered_as(self.config())
    }

    pub(crate) fn registered_as(&mut self, config: Config) -> Running {
        let slave = self.try_start(config).expect("the slave starts");
        self.runtime.block_on(async {
            assert!(matches!(
                self.master.accept_and_hear().await,
                SlaveToMaster::Register { .. }
            ));
            self.master.welcome().await;
        });
        slave
    }

    /// Somebody of this cluster.
    pub(crate) fn identity(&self, role: PeerRole, name: &str) -> Identity {
        self.ca.issue(role, name, &[]).unwrap()
    }

    /// Somebody who has the slave's address only: an operator of another cluster, who takes our slave's word
    /// for who it is.
    pub(crate) fn stranger(&self) -> Identity {
        let other = ClusterCa::create("other").unwrap();
        let dir = self.dir.path().join("stranger");
        other
            .issue(PeerRole::Operator, "ada", &[])
            .unwrap()
            .save(&dir)
            .unwrap();
        std::fs::copy(self.dir.path().join("identity/ca.pem"), dir.join("ca.pem")).unwrap();
        Identity::load(&dir).unwrap()
    }

    /// Another master, which does not lead until its gate is opened.
    pub(crate) fn follower(&self, name: &str) -> (Master, Gate) {
        let identity = self.ca.issue(PeerRole::Master, name, &[]).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listen = async { Master::listen(&identity, address) };
        let master = self.runtime.block_on(listen);
        let gate = master.server.gate();
        gate.close();
        (master, gate)
    }

    /// Stops it and waits for its end.
    pub(crate) fn stop(&self, slave: &Running) {
        self.runtime.block_on(async {
            timeout(PATIENCE, slave.shutdown())
                .await
                .expect("it stops in time");
        });
    }
}

/// A master in a few lines: it says what the test says.
pub(crate) struct Master {
    server: Server,
    pub(crate) address: SocketAddr,
    link: Option<(Sender<MasterToSlave>, Receiver<SlaveToMaster>)>,
}

impl Master {
    fn listen(identity: &Identity, address: SocketAddr) -> Self {
        let server = Server::bind(address, identity, ServerLimits::default()).unwrap();
        let address = server.local_addr().unwrap();
        Self {
            server,
            address,
            link: None,
        }
    }

    /// Lets nobody in any more who would rather wait for a leader.
    pub(crate) fn follow(&self) {
        self.server.gate().close();
    }

    /// Waits for the slave's next connection.
    pub(crate) async fn accept(&mut self) {
        let connection = timeout(PATIENCE, self.server.accept())
            .await
            .expect("it connects")
            .unwrap();
        self.link = Some(connection.split(1_024));
    }

    /// What the slave says first on its next connection. One of a slave that was stopped, made while it
    /// was ending, may still wait to be accepted: nobody speaks on it.
    pub(crate) async fn accept_and_hear(&mut self) -> SlaveToMaster {
        loop {
            self.accept().await;
            if let Some(message) = self.try_hear().await {
                return message;
            }
        }
    }

    /// A connection to do bad things with.
    pub(crate) async fn accept_raw<Out: serde::Serialize + Send + 'static>(
        &mut self,
    ) -> Sender<Out> {
        let connection = timeout(PATIENCE, self.server.accept())
            .await
            .expect("it connects")
            .unwrap();
        let (sender, _receiver) = connection.split::<Out, SlaveToMaster>(8);
        sender
    }

    pub(crate) async fn say(&self, message: MasterToSlave) {
        self.link
            .as_ref()
            .unwrap()
            .0
            .send(message)
            .await
            .expect("the slave is there");
    }

    pub(crate) async fn hear(&mut self) -> SlaveToMaster {
        self.try_hear().await.expect("it is there")
    }

    /// None if the slave has closed the connection. That the term is durable comes at any moment, and is
    /// left out.
    pub(crate) async fn try_hear(&mut self) -> Option<SlaveToMaster> {
        let receiver = &mut self.link.as_mut().unwrap().1;
        loop {
            let heard = timeout(PATIENCE, receiver.recv()).await;
            match heard.expect("the slave speaks").ok()? {
                SlaveToMaster::TermHeard { epoch } => assert_eq!(epoch, Epoch(1)),
                other => return Some(other),
            }
        }
    }

    pub(crate) async fn welcome(&self) {
        self.say(MasterToSlave::Registered {
            slave_id: SLAVE,
            cluster_id: CLUSTER,
            epoch: Epoch(1),
            ping_timeout: Duration::from_secs(75),
        })
        .await;
    }

    /// The next update.
    pub(crate) async fn update(&mut self) -> StatusUpdate {
        match self.hear().await {
            SlaveToMaster::Update(update) => update,
            other => panic!("no update: {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&self, update: &StatusUpdate) {
        self.say(MasterToSlave::Acknowledge {
            framework_id: update.framework_id,
            task_id: update.status.task_id.clone(),
            update_id: update.status.update_id.expect("slaves' updates have ids"),
        })
        .await;
    }

    /// The next update, acknowledged.
    pub(crate) async fn acknowledged(&mut self) -> StatusUpdate {
        let update = self.update().await;
        self.acknowledge(&update).await;
        update
    }
}

pub(crate) fn order(task: &str, command: Command) -> MasterToSlave {
    let resources = "cpus:0.01;mem:64".parse().unwrap();
    let task_id = TaskId::new(task).unwrap();
    MasterToSlave::RunTask(Box::new(RunTask {
        framework: TaskFramework {
            framework_id: FrameworkId(1),
            name: "test".to_owned(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: "*".parse().unwrap(),
        task: TaskDescription::command(task_id, SLAVE, resources, command),
    }))
}

/// An answer over HTTP: status, headers by name, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .into()
}

/// All of an answer that has begun.
pub(crate) fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_vec().expect("all of it"),
    }
}

pub(crate) fn get(slave: &Running, path: &str) -> Answer {
    let url = format!("http://{}{path}", slave.http_addr());
    answer(agent().get(url).call().expect("it answers"))
}

pub(crate) fn post(slave: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    answer(begin_post(slave, path, headers, body))
}

/// Until the answer begins.
pub(crate) fn begin_post(
    slave: &Running,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> ureq::http::Response<ureq::Body> {
    let url = format!("http://{}{path}", slave.http_addr());
    let mut request = agent().post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send(body).expect("it answers")
}

/// The first process of a task, as the slave says.
pub(crate) fn pid_of(slave: &Running, task: &str) -> Option<u64> {
    let answer: serde_json::Value =
        serde_json::from_str(&get(slave, "/api/v1/tasks").text()).unwrap();
    let rows = answer.as_array().or_else(|| answer["tasks"].as_array());
    let row = rows?.iter().find(|row| row["task_id"] == task);
    row?["pid"].as_u64()
}

/// Until it holds; a deadline instead of a sleep.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
