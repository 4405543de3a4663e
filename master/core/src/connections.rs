//! Who is connected, as whom, and how far the introduction has come.
//!
//! A connection that the core closes leaves the table at once, so that nothing that still arrives
//! from it can do anything.

use std::collections::BTreeMap;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::slave::RunExecutor;
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;

use crate::event::ConnectionId;
use crate::operations::ReportedClaims;
use crate::tasks::ReportedTask;
use crate::wishes::CheckedWishes;

/// The most connections at a time; one more is closed with `OverLimit`. Twice the slaves and
/// frameworks there can be, since a peer may come back before its old connection has ended.
pub const CONNECTIONS_MAX: usize =
    2 * (crate::slaves::SLAVES_MAX + crate::frameworks::FRAMEWORKS_MAX);

/// How far the introduction of a peer has come.
///
/// `SlaveFresh -> SlaveAdmitting | SlaveClaiming -> SlaveRegistered -> SlaveLeaving`;
/// `FrameworkFresh -> FrameworkAdmitting | FrameworkClaiming -> FrameworkSubscribed`.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A slave that has not asked for anything; what it has reported so far.
    SlaveFresh {
        report: Vec<ReportedTask>,
        executors: Vec<RunExecutor>,
        claims: Option<Box<ReportedClaims>>,
    },
    /// Its admission is being committed.
    SlaveAdmitting { claims: Option<Box<ReportedClaims>> },
    /// It wants to be this slave again; waits until the registry agrees.
    SlaveClaiming {
        slave_id: SlaveId,
        slave: Box<SlaveDescription>,
        report: Vec<ReportedTask>,
        executors: Vec<RunExecutor>,
        claims: Option<Box<ReportedClaims>>,
    },
    /// It is this slave.
    SlaveRegistered(SlaveId),
    /// It is going for good: nothing more is expected of it.
    SlaveLeaving,
    /// A framework that has not asked for anything.
    FrameworkFresh,
    /// Its admission is being committed.
    FrameworkAdmitting,
    /// It wants to be this framework again; waits until the registry agrees.
    FrameworkClaiming {
        framework_id: FrameworkId,
        framework: Box<FrameworkDescription>,
        suppressed_roles: Vec<RoleName>,
    },
    /// It is this framework.
    FrameworkSubscribed(FrameworkId),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The name in its certificate.
    pub(crate) principal: String,
    /// How far it has come.
    pub(crate) stage: Stage,
    /// What a framework has wished of its offers, until it is subscribed.
    pub(crate) wishes: CheckedWishes,
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections(BTreeMap<ConnectionId, Connection>);

impl Connections {
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= CONNECTIONS_MAX
    }

    pub(crate) fn insert(&mut self, id: ConnectionId, principal: String, stage: Stage) {
        let connection = Connection {
            principal,
            stage,
            wishes: CheckedWishes::default(),
        };
        self.0.insert(id, connection);
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.0.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.0.get_mut(&id)
    }

    pub(crate) fn stage_mut(&mut self, id: ConnectionId) -> Option<&mut Stage> {
        self.0.get_mut(&id).map(|connection| &mut connection.stage)
    }

    pub(crate) fn set_stage(&mut self, id: ConnectionId, stage: Stage) {
        if let Some(connection) = self.0.get_mut(&id) {
            connection.stage = stage;
        }
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.0.remove(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.0.iter().map(|(id, connection)| (*id, connection))
    }
}
