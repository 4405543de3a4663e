//! Changes of the cluster as events for operators who watch (semantics O3).

use meros_proto::resources::Resources;
use meros_proto::slave::SlaveState;
use meros_proto::view::{
    ClusterChange, FrameworkRow, FrameworkState, FrameworkView, SlaveRow, SlaveView,
};

use crate::events::Teller;
use crate::ids::Ids;
use crate::pb;
use crate::pb::master::event::{self, Type};
use crate::pb::master::{Event, response};
use crate::views::{self, FORM};

fn empty(kind: Type) -> Event {
    Event {
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

/// HEARTBEAT.
#[must_use]
pub fn heartbeat() -> Event {
    empty(Type::Heartbeat)
}

/// SUBSCRIBED, with all there is.
#[must_use]
pub fn subscribed(state: response::GetState, heartbeat_seconds: f64) -> Event {
    Event {
        subscribed: Some(event::Subscribed {
            get_state: Some(state),
            heartbeat_interval_seconds: Some(heartbeat_seconds),
        }),
        ..empty(Type::Subscribed)
    }
}

/// What a change is as an event; none for those that v1 has no event for.
///
/// `before` tells whether the slave was with the master before, or the framework was there.
#[must_use]
pub fn event(ids: Ids, change: &ClusterChange, before: bool) -> Option<Event> {
    Some(match change {
        ClusterChange::Slave(view) => {
            let is_there = matches!(
                view.state,
                SlaveState::Registered | SlaveState::Disconnected
            );
            match (before, is_there) {
                (false, true) => Event {
                    agent_added: Some(event::AgentAdded {
                        agent: views::agent(ids, &slave_row(view)),
                    }),
                    ..empty(Type::AgentAdded)
                },
                (true, false) => agent_removed(ids.slave(view.slave_id)),
                _ => return None,
            }
        }
        ClusterChange::SlaveRemoved(id) if before => agent_removed(ids.slave(*id)),
        ClusterChange::Framework(view) => {
            let framework = views::framework(ids, &framework_row(view), std::iter::empty());
            match (before, view.state == FrameworkState::Completed) {
                (_, true) => Event {
                    framework_removed: Some(event::FrameworkRemoved {
                        framework_info: framework.framework_info,
                    }),
                    ..empty(Type::FrameworkRemoved)
                },
                (false, false) => Event {
                    framework_added: Some(event::FrameworkAdded { framework }),
                    ..empty(Type::FrameworkAdded)
                },
                (true, false) => Event {
                    framework_updated: Some(event::FrameworkUpdated { framework }),
                    ..empty(Type::FrameworkUpdated)
                },
            }
        }
        ClusterChange::TaskAdded(view) => Event {
            task_added: Some(event::TaskAdded {
                task: views::task(ids, view),
            }),
            ..empty(Type::TaskAdded)
        },
        ClusterChange::TaskChanged {
            framework_id,
            state,
            status: Some(status),
            ..
        } => Event {
            task_updated: Some(event::TaskUpdated {
                framework_id: ids.framework(*framework_id),
                status: Teller { ids, form: FORM }.status(status, None),
                state: *state as i32,
            }),
            ..empty(Type::TaskUpdated)
        },
        ClusterChange::Elected(_)
        | ClusterChange::SlaveRemoved(_)
        | ClusterChange::OfferMade(_)
        | ClusterChange::OfferEnded { .. }
        | ClusterChange::TaskChanged { status: None, .. }
        | ClusterChange::TaskRemoved { .. }
        | ClusterChange::Role(_)
        | ClusterChange::TaskRemembered(_)
        | ClusterChange::TaskForgotten { .. }
        | ClusterChange::ExecutorAdded(_)
        | ClusterChange::ExecutorRemoved { .. } => return None,
    })
}

fn agent_removed(agent_id: pb::AgentId) -> Event {
    Event {
        agent_removed: Some(event::AgentRemoved { agent_id }),
        ..empty(Type::AgentRemoved)
    }
}

/// One that has just come holds nothing yet.
fn slave_row(view: &SlaveView) -> SlaveRow {
    SlaveRow {
        slave: view.clone(),
        used: Resources::new(),
        offered: Resources::new(),
        tasks: 0,
    }
}

/// What it holds is not part of a change.
fn framework_row(view: &FrameworkView) -> FrameworkRow {
    FrameworkRow {
        framework: view.clone(),
        used: Resources::new(),
        tasks: 0,
        offers: 0,
        offers_ended: 0,
        offers_unused: 0,
        offers_held_mean: std::time::Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{ClusterId, FrameworkId, SlaveId, TaskId};
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;

    use super::*;

    fn slave(state: SlaveState) -> ClusterChange {
        ClusterChange::Slave(SlaveView {
            slave_id: SlaveId(2),
            hostname: "h".to_owned(),
            http_address: "127.0.0.1:5051".to_owned(),
            state,
            state_since: Timestamp(1),
            mode: Default::default(),
            mode_since: Default::default(),
            is_drained: false,
            unavailability: None,
            resources: Resources::new(),
            attributes: Default::default(),
            version: "0.1.0".to_owned(),
        })
    }

    fn framework(state: FrameworkState) -> ClusterChange {
        ClusterChange::Framework(FrameworkView {
            framework_id: FrameworkId(3),
            name: "f".to_owned(),
            principal: "p".to_owned(),
            roles: Vec::new(),
            suppressed_roles: Vec::new(),
            state,
            state_since: Timestamp(1),
            failover_timeout: std::time::Duration::ZERO,
            webui_url: String::new(),
            offers_max: None,
        })
    }

    fn kind(change: &ClusterChange, before: bool) -> Option<Type> {
        event(Ids::new(ClusterId(7)), change, before).map(|event| event.r#type())
    }

    #[test]
    fn slaves_come_and_go_once() {
        // semantics: O3
        for (state, before, told) in [
            (SlaveState::Registered, false, Some(Type::AgentAdded)),
            (SlaveState::Registered, true, None),
            (SlaveState::Disconnected, true, None),
            (SlaveState::Unreachable, true, Some(Type::AgentRemoved)),
            (SlaveState::Unreachable, false, None),
            (SlaveState::Recovered, false, None),
        ] {
            assert_eq!(kind(&slave(state), before), told, "{state:?} {before}");
        }
        let removed = ClusterChange::SlaveRemoved(SlaveId(2));
        assert_eq!(kind(&removed, true), Some(Type::AgentRemoved));
        assert_eq!(kind(&removed, false), None);
    }

    #[test]
    fn frameworks_are_added_updated_and_removed() {
        // semantics: O3
        for (state, before, told) in [
            (FrameworkState::Subscribed, false, Type::FrameworkAdded),
            (FrameworkState::Disconnected, true, Type::FrameworkUpdated),
            (FrameworkState::Completed, true, Type::FrameworkRemoved),
        ] {
            assert_eq!(kind(&framework(state), before), Some(told));
        }
    }

    #[test]
    fn an_update_has_the_state_and_the_status() {
        // semantics: O3
        let task_id = TaskId::new("t").expect("an id");
        let status = TaskStatus::new(
            task_id.clone(),
            TaskState::Running,
            Source::Slave,
            Timestamp(1),
        );
        let change = |status| ClusterChange::TaskChanged {
            framework_id: FrameworkId(3),
            task_id: task_id.clone(),
            state: TaskState::Finished,
            status,
        };
        let told = event(Ids::new(ClusterId(7)), &change(Some(status)), true);
        let told = told.and_then(|it| it.task_updated).expect("an update");
        assert_eq!(told.state, TaskState::Finished as i32);
        assert_eq!(told.status.state, TaskState::Running as i32);
        assert_eq!(kind(&change(None), true), None, "nothing to tell");
    }
}
