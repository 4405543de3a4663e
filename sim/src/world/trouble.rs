//! Faults happen, and end.

use std::time::Duration;

use meros_slave_core::Event;

use super::network::Way;
use super::{Crash, Happening, Node, World};
use crate::fault::{Memory, Process, Trouble};
use crate::invariants::Broken;

/// How long tasks have to end when their slave goes in good order.
const STOP_GRACE: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn on_fault(&mut self, at: usize) -> Result<(), Broken> {
        let what = self.plan.faults[at].what.clone();
        self.meet(what.kind());
        self.say_fault(&what);
        match what {
            Trouble::CrashMaster {
                master,
                point,
                effects,
                down,
            } => {
                let memory = Memory::Everything;
                if let Some(master) = self.master_of(master) {
                    self.masters[master].crash = Some(Crash {
                        point,
                        effects,
                        down,
                        memory,
                    });
                }
            }
            Trouble::CrashSlave {
                slave,
                point,
                effects,
                down,
            } => {
                let memory = Memory::Everything;
                self.slaves[slave].crash = Some(Crash {
                    point,
                    effects,
                    down,
                    memory,
                });
            }
            Trouble::CrashFramework {
                framework,
                point,
                effects,
                down,
                memory,
            } => {
                self.frameworks[framework].crash = Some(Crash {
                    point,
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
            Trouble::RebootSlave {
                slave,
                down,
                is_wiped,
            } => {
                self.crash_slave(slave, down);
                self.end_containers(slave);
                if is_wiped {
                    self.wipe_slave(slave);
                }
            }
            Trouble::KillShims { slave } => self.kill_shims(slave)?,
            Trouble::KillMaster { down } => {
                if let Some(leader) = self.log.leader() {
                    self.crash_master(leader, down);
                }
            }
            Trouble::KillSlaves { slaves, down } => {
                slaves
                    .into_iter()
                    .for_each(|slave| self.crash_slave(slave, down));
            }
            Trouble::Depose => self.call_election(Duration::ZERO),
            Trouble::Isolate { master, lasts } => {
                // Whom it hits is known when it ends.
                let master = self.master_of(master);
                if let Some(master) = master {
                    self.isolate(master);
                }
                self.isolated.insert(at, master);
                self.after(lasts, Happening::Relief(at));
            }
            Trouble::Pause { process, lasts } => self.pause(process, lasts),
            Trouble::StepClock { process, by } => self.step_clock(process, by),
            Trouble::Break(client) => {
                for link in self.network.links_of(client, None) {
                    self.network.break_off(link, self.now, &mut self.queue);
                }
            }
            Trouble::Partition {
                client,
                master,
                up,
                down,
                lasts,
            } => {
                for master in self.masters_of(master) {
                    for (way, is_blocked) in [(Way::Up, up), (Way::Down, down)] {
                        if is_blocked {
                            let queue = &mut self.queue;
                            self.network.block(client, master, way, self.now, queue);
                        }
                    }
                }
                self.after(lasts, Happening::Relief(at));
            }
            Trouble::Order(order) => self.order_role(&order)?,
            Trouble::Change { slave, kind, role } => self.order_change(slave, kind, role)?,
            Trouble::SlowDisk { slave, each, lasts } => {
                self.slow_disk(slave, Some(each));
                self.after(lasts, Happening::Relief(at));
            }
        }
        Ok(())
    }

    pub(super) fn on_relief(&mut self, at: usize) {
        match self.plan.faults[at].what {
            Trouble::Partition { client, master, .. } => {
                for master in self.masters_of(master) {
                    for way in [Way::Up, Way::Down] {
                        let queue = &mut self.queue;
                        self.network.unblock(client, master, way, self.now, queue);
                    }
                }
            }
            Trouble::SlowDisk { slave, .. } => self.slow_disk(slave, None),
            Trouble::Isolate { .. } => {
                if let Some(master) = self.isolated.remove(&at).flatten() {
                    self.rejoin(master);
                }
            }
            _ => {}
        }
    }

    /// This master, or the one that leads now.
    fn master_of(&self, master: Option<usize>) -> Option<usize> {
        let master = master.filter(|at| *at < self.masters.len());
        master.or(self.log.leader())
    }

    /// This master, or all.
    fn masters_of(&self, master: Option<usize>) -> std::ops::Range<usize> {
        match master.filter(|at| *at < self.masters.len()) {
            Some(at) => at..at + 1,
            None => 0..self.masters.len(),
        }
    }

    fn node_of(&self, process: Process) -> Option<Node> {
        Some(match process {
            Process::Leader => Node::Master(self.log.leader()?),
            Process::Slave(slave) => Node::Slave(slave),
            Process::Framework(framework) => Node::Framework(framework),
        })
    }

    /// A process stands still; whoever waits for it for too long gives its connections up.
    fn pause(&mut self, process: Process, lasts: Duration) {
        let Some(node) = self.node_of(process) else {
            return;
        };
        self.paused.insert(node, self.now.after(lasts));
        let links = match node {
            Node::Master(at) => self.masters[at].links.iter().copied().collect(),
            Node::Slave(slave) => Vec::from_iter(self.slaves[slave].link),
            Node::Framework(framework) => Vec::from_iter(self.frameworks[framework].link),
        };
        let idle = self.plan.network.idle_timeout;
        if lasts > idle {
            for link in links {
                self.after(idle, Happening::Sever(link));
            }
        }
        if let (Node::Master(_), true) = (node, self.masters.len() > 1) {
            let wait = self.rng.skewed(Duration::from_millis(200), lasts.max(idle));
            if wait < lasts {
                self.call_election(wait);
            }
        }
    }

    /// The clock of a process jumps ahead: what is due by then is due now.
    fn step_clock(&mut self, process: Process, by: Duration) {
        match self.node_of(process) {
            Some(Node::Master(at)) => {
                self.masters[at].clock.step(by);
                self.arm_master(at);
            }
            Some(Node::Slave(slave)) => {
                self.slaves[slave].clock.step(by);
                self.arm_slave(slave);
            }
            Some(Node::Framework(framework)) => {
                self.frameworks[framework].clock.step(by);
                self.arm_driver(framework);
            }
            None => {}
        }
    }

    /// The disk of a slave, or the disks of the masters.
    fn slow_disk(&mut self, slave: Option<usize>, each: Option<Duration>) {
        match slave {
            Some(slave) => self.slaves[slave].slow = each,
            None => self.masters.iter_mut().for_each(|node| node.slow = each),
        }
    }

    /// No more faults: what is down comes back when it would have, and everything else is well.
    pub(super) fn end_faults(&mut self) {
        self.network.heal(self.now, &mut self.queue);
        for at in 0..self.masters.len() {
            self.masters[at].crash = None;
            self.rejoin(at);
        }
        self.slow_disk(None, None);
        for slave in &mut self.slaves {
            slave.crash = None;
            slave.slow = None;
        }
        for framework in &mut self.frameworks {
            framework.crash = None;
        }
    }
}
