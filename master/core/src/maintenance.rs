//! The maintenance schedule: frameworks hear in each offer when its slave will not be available
//! (semantics C2, E5, K11). It informs; to empty a slave is what draining is for.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::SlaveId;
use meros_proto::maintenance::{MAINTENANCE_MAX, Unavailability};
use meros_proto::refusal::Refusal;
use meros_proto::slave::SlaveMode;
use meros_proto::time::Timestamp;
use meros_proto::view::OfferEnd;
use tracing::info;

use crate::MasterCore;
use crate::command::Command;
use crate::event::RequestId;
use crate::turn::Turn;

/// The most slaves of one call that begins or ends their maintenance: each is a command of the registry.
const MAINTENANCE_SLAVES_MAX: usize = 1_000;

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
            // A plan that is sent again with one window more has those that are over, too.
            let is_new = self.registry.maintenance().get(&slave_id) != Some(window);
            if is_new && window.is_over(now) {
                let why = format!("the window of {slave_id} is over already");
                return Err(invalid("start", why));
            }
        }
        Ok(())
    }

    /// Drains slaves whose maintenance is planned. Each is a command of its own, the last one answers: if the
    /// leader changes in between, some may be drained and the call is not answered as done; it may be
    /// repeated.
    pub(crate) fn on_start_maintenance(
        &mut self,
        request: RequestId,
        slaves: &BTreeSet<SlaveId>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_planned(slaves)?;
        let of_them = slaves.iter().copied();
        let up: Vec<_> = of_them.filter(|id| !self.is_in_maintenance(*id)).collect();
        let mode = SlaveMode::Draining {
            grace: None,
            mark_gone: false,
        };
        let at = turn.now;
        let commands = up
            .into_iter()
            .map(|slave_id| Command::SetSlaveMode { slave_id, mode, at });
        let why = "their maintenance has begun already";
        self.order_all(request, commands.collect(), why, turn)
    }

    /// Takes slaves into use again, and then their windows out of the schedule.
    pub(crate) fn on_stop_maintenance(
        &mut self,
        request: RequestId,
        slaves: &BTreeSet<SlaveId>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_planned(slaves)?;
        let of_them = slaves.iter().copied();
        let down: Vec<_> = of_them.filter(|id| self.is_in_maintenance(*id)).collect();
        let at = turn.now;
        let mode = SlaveMode::Active;
        let modes = down
            .iter()
            .map(|&slave_id| Command::SetSlaveMode { slave_id, mode, at });
        let mut commands: Vec<_> = modes.collect();
        if !commands.is_empty() {
            let windows = down.iter().map(|slave_id| (*slave_id, None)).collect();
            commands.push(Command::SetMaintenance { windows });
        }
        let why = "their maintenance has not begun";
        self.order_all(request, commands, why, turn)
    }

    /// The first that applies: too many, one that is no member, one without a window.
    fn check_planned(&self, slaves: &BTreeSet<SlaveId>) -> Result<(), Refusal> {
        if slaves.len() > MAINTENANCE_SLAVES_MAX {
            return Err(Refusal::OverLimit {
                what: "the number of slaves in one call".to_owned(),
                limit: MAINTENANCE_SLAVES_MAX as u64,
                advice: "name fewer at a time".to_owned(),
            });
        }
        for &slave_id in slaves {
            self.check_member(slave_id)?;
            if !self.registry.maintenance().contains_key(&slave_id) {
                let why = format!("no maintenance of {slave_id} is planned");
                return Err(invalid("slaves", why));
            }
        }
        Ok(())
    }

    /// Whether a slave is being emptied, or is empty, while its maintenance is planned.
    fn is_in_maintenance(&self, slave_id: SlaveId) -> bool {
        let mode = self.registry.slave(slave_id).map(|record| record.mode);
        matches!(mode, Some(SlaveMode::Draining { .. }))
            && self.registry.maintenance().contains_key(&slave_id)
    }

    /// Proposes commands in order; `why` there are none is the refusal.
    fn order_all(
        &mut self,
        request: RequestId,
        mut commands: Vec<Command>,
        why: &str,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let Some(last) = commands.pop() else {
            return Err(invalid("slaves", why.to_owned()));
        };
        self.check_order()?;
        for command in commands {
            self.propose(command, turn);
        }
        self.order(request, last, turn)
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
