//! The maintenance schedule: frameworks hear in each offer when its slave will not be available
//! (semantics C2, E5, K11). It informs; to empty a slave is what draining is for.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::SlaveId;
use meros_proto::maintenance::{MAINTENANCE_MAX, Unavailability};
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;
use meros_proto::view::OfferEnd;
use tracing::info;

use crate::MasterCore;
use crate::command::Command;
use crate::event::RequestId;
use crate::turn::Turn;

fn invalid(field: &str, why: String) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why,
    }
}

impl MasterCore {
    /// Changes the schedule for some slaves, all or none; with `replace` for all the others, too.
    pub(crate) fn on_set_maintenance(
        &mut self,
        request: RequestId,
        windows: Vec<(SlaveId, Option<Unavailability>)>,
        replace: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_maintenance(&windows, turn.now)?;
        let mut windows: BTreeMap<_, _> = windows.into_iter().collect();
        if replace {
            for slave_id in self.registry.maintenance().keys() {
                windows.entry(*slave_id).or_insert(None);
            }
        }
        let windows = windows.into_iter().collect();
        self.order(request, Command::SetMaintenance { windows }, turn)
    }

    /// The first that applies: a slave twice, one that is no member, a window that is over or too
    /// long, one to take away that is not there.
    fn check_maintenance(
        &self,
        windows: &[(SlaveId, Option<Unavailability>)],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for (slave_id, window) in windows {
            let slave_id = *slave_id;
            if !seen.insert(slave_id) {
                return Err(invalid("slaves", format!("{slave_id} is named twice")));
            }
            if self.slaves.get(slave_id).is_none() {
                return Err(Refusal::NoSuchSlave { slave_id });
            }
            let Some(window) = window else {
                if !self.registry.maintenance().contains_key(&slave_id) {
                    let why = format!("no maintenance of {slave_id} is planned");
                    return Err(invalid("slaves", why));
                }
                continue;
            };
            if window.duration.is_some_and(|it| it > MAINTENANCE_MAX) {
                let days = MAINTENANCE_MAX.as_secs() / (24 * 60 * 60);
                let why = format!("at most {days} days are allowed; leave it out for good");
                return Err(invalid("duration", why));
            }
            if window.is_over(now) {
                let why = format!("the window of {slave_id} is over already");
                return Err(invalid("start", why));
            }
        }
        Ok(())
    }

    /// Frameworks decide anew about slaves whose availability has changed (semantics E5).
    pub(crate) fn on_maintenance_set(
        &mut self,
        windows: &[(SlaveId, Option<Unavailability>)],
        turn: &mut Turn<'_>,
    ) {
        info!(slaves = windows.len(), "maintenance schedule changed");
        for (slave_id, _) in windows {
            self.end_offers_of_slave(*slave_id, OfferEnd::Rescinded, turn);
            self.publish_slave(*slave_id, turn);
        }
    }

    /// When a slave will not be available, as far as that still lies ahead or is so now.
    pub(crate) fn unavailability(
        &self,
        slave_id: SlaveId,
        now: Timestamp,
    ) -> Option<Unavailability> {
        let window = self.registry.maintenance().get(&slave_id)?;
        (!window.is_over(now)).then_some(*window)
    }
}
