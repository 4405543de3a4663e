//! Faults happen, and end.

use std::time::Duration;

use meros_slave_core::Event;

use super::network::Way;
use super::{Crash, Happening, World};
use crate::fault::{Memory, Trouble};
use crate::invariants::Broken;

/// How long tasks have to end when their slave goes in good order.
const STOP_GRACE: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn on_fault(&mut self, at: usize) -> Result<(), Broken> {
        match self.plan.faults[at].what.clone() {
            Trouble::CrashMaster { effects, down } => {
                let memory = Memory::Everything;
                self.master.crash = Some(Crash {
                    effects,
                    down,
                    memory,
                });
            }
            Trouble::CrashSlave {
                slave,
                effects,
                down,
            } => {
                let memory = Memory::Everything;
                self.slaves[slave].crash = Some(Crash {
                    effects,
                    down,
                    memory,
                });
            }
            Trouble::CrashFramework {
                framework,
                effects,
                down,
                memory,
            } => {
                self.frameworks[framework].crash = Some(Crash {
                    effects,
                    down,
                    memory,
                });
            }
            Trouble::StopSlave { slave, down } => {
                self.slaves[slave].back_in = Some(down);
                self.feed_slave(slave, Event::Stop { grace: STOP_GRACE })?;
            }
            Trouble::LeaveSlave { slave, down } => {
                self.slaves[slave].back_in = Some(down);
                self.feed_slave(slave, Event::Leave { grace: STOP_GRACE })?;
            }
            Trouble::KillMaster { down } => self.crash_master(down),
            Trouble::KillSlaves { slaves, down } => {
                slaves
                    .into_iter()
                    .for_each(|slave| self.crash_slave(slave, down));
            }
            Trouble::Break(client) => {
                for link in self.network.links_of(Some(client)) {
                    self.network.break_off(link, self.now, &mut self.queue);
                }
            }
            Trouble::Partition {
                client,
                up,
                down,
                lasts,
            } => {
                for (way, is_blocked) in [(Way::Up, up), (Way::Down, down)] {
                    if is_blocked {
                        self.network.block(client, way, self.now, &mut self.queue);
                    }
                }
                self.after(lasts, Happening::Relief(at));
            }
            Trouble::SlowDisk { slave, each, lasts } => {
                *self.disk(slave) = Some(each);
                self.after(lasts, Happening::Relief(at));
            }
        }
        Ok(())
    }

    pub(super) fn on_relief(&mut self, at: usize) {
        match self.plan.faults[at].what {
            Trouble::Partition { client, .. } => {
                for way in [Way::Up, Way::Down] {
                    self.network.unblock(client, way, self.now, &mut self.queue);
                }
            }
            Trouble::SlowDisk { slave, .. } => *self.disk(slave) = None,
            _ => {}
        }
    }

    fn disk(&mut self, slave: Option<usize>) -> &mut Option<Duration> {
        match slave {
            Some(slave) => &mut self.slaves[slave].slow,
            None => &mut self.master.slow,
        }
    }

    /// No more faults: what is down comes back when it would have, and everything else is well.
    pub(super) fn end_faults(&mut self) {
        self.network.heal(self.now, &mut self.queue);
        self.master.crash = None;
        self.master.slow = None;
        for slave in &mut self.slaves {
            slave.crash = None;
            slave.slow = None;
        }
        for framework in &mut self.frameworks {
            framework.crash = None;
        }
    }
}
