//! A master's core that leads a cluster of its own, and commits at once what it proposes.

use meros_master_core::{
    Command, Config, ConnectionId, Effect, Effects, Event, MasterCore, Registry,
};
use meros_proto::ids::{ClusterId, Epoch};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveDescription;
use meros_proto::time::Timestamp;

/// The core.
#[derive(Debug)]
pub struct Leader {
    /// What it is made of.
    pub core: MasterCore,
}

impl Leader {
    /// One that has just been elected.
    #[must_use]
    pub fn new(config: Config, now: Timestamp) -> Self {
        let mut leader = Self {
            core: MasterCore::new(config, Registry::default(), now),
        };
        let command = Command::FormCluster {
            cluster_id: ClusterId(7),
        };
        let formed = Event::Committed {
            proposal: None,
            command,
        };
        leader.handle(formed, now);
        let elected = Event::Elected {
            epoch: Epoch(1),
            remembered: Vec::new(),
        };
        leader.handle(elected, now);
        leader
    }

    /// Hands in an event; what others are to hear of it.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut effects = Effects::new();
        self.core.handle(event, now, &mut effects);
        let effects: Vec<Effect> = effects.drain().collect();
        let mut heard = Vec::new();
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => {
                    let committed = Event::Committed {
                        proposal: Some(proposal),
                        command,
                    };
                    heard.extend(self.handle(committed, now));
                }
                Effect::Publish(_) => {}
                effect => heard.push(effect),
            }
        }
        heard
    }

    /// A slave called `host-NUMBER` comes; what others are to hear of it.
    ///
    /// # Panics
    /// The attributes are not well formed.
    pub fn add_slave(
        &mut self,
        (connection, number): (ConnectionId, usize),
        resources: Resources,
        attributes: &str,
        now: Timestamp,
    ) -> Vec<Effect> {
        let connected = Event::SlaveConnected {
            connection,
            principal: format!("slave-{number}"),
        };
        let mut heard = self.handle(connected, now);
        let slave = SlaveDescription {
            hostname: format!("host-{number}.example.org"),
            http_address: format!("10.0.0.1:{}", 5_000 + number),
            resources,
            attributes: attributes.parse().expect("well formed"),
            capabilities: Vec::new(),
            version: "0.1.0".to_owned(),
        };
        let message = SlaveToMaster::Register { slave };
        let registers = Event::Slave {
            connection,
            message,
        };
        heard.extend(self.handle(registers, now));
        heard
    }
}
