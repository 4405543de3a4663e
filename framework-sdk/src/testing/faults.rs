//! What can go wrong in a simulated cluster, as verbs.

use std::time::Duration;

use super::cluster::{Cluster, Framework, sound};
use crate::scheduler::Scheduler;

/// Faults are drawn about this far apart, and at most so many in all.
const FAULTS_APART: Duration = Duration::from_secs(20);
const FAULTS_MAX: u64 = 100;

impl Cluster {
    /// The leading master dies, and starts again after so long. With three masters another one leads
    /// within seconds; one alone comes back as the leader.
    ///
    /// # Panics
    /// Nobody leads at the moment.
    #[track_caller]
    pub fn kill_leader(&mut self, down: Duration) {
        let was_there = sound(self.datacenter.kill_leader(down));
        assert!(
            was_there,
            "nobody leads at the moment: run the cluster for a while"
        );
    }

    /// The leading master is cut off from the others, who elect another one. Slaves and frameworks
    /// still reach it, and it goes on for up to ten seconds before it knows.
    ///
    /// # Panics
    /// Nobody leads at the moment, or there is only one master.
    #[track_caller]
    pub fn isolate_leader(&mut self, lasts: Duration) {
        let was_there = sound(self.datacenter.isolate_leader(lasts));
        assert!(
            was_there,
            "nobody leads at the moment, or there are no other masters: .masters(3)"
        );
    }

    /// A slave is cut off from the masters, and its tasks run on, until it is
    /// [reconnected](Self::reconnect). Its framework hears that they are unreachable once the slave
    /// has been away for [`slave_reregister_timeout`](super::Builder::slave_reregister_timeout).
    ///
    /// # Panics
    /// As for all of these: there is no slave of this name.
    #[track_caller]
    pub fn cut_off(&mut self, hostname: &str) {
        sound(self.datacenter.cut_off_slave(hostname));
    }

    /// A slave that was [cut off](Self::cut_off) is back.
    ///
    /// # Panics
    /// See [`Cluster::cut_off`].
    #[track_caller]
    pub fn reconnect(&mut self, hostname: &str) {
        self.datacenter.reconnect_slave(hostname);
    }

    /// A slave's process dies, until it is [started](Self::start_slave) again. Its tasks run on, and
    /// what ends meanwhile is told afterwards.
    ///
    /// # Panics
    /// See [`Cluster::cut_off`].
    #[track_caller]
    pub fn kill_slave(&mut self, hostname: &str) {
        sound(self.datacenter.kill_slave(hostname));
    }

    /// A slave that was [killed](Self::kill_slave) is back, with the disk that it had.
    ///
    /// # Panics
    /// See [`Cluster::cut_off`].
    #[track_caller]
    pub fn start_slave(&mut self, hostname: &str) {
        self.datacenter.start_slave(hostname);
    }

    /// The host of a slave restarts: all tasks on it die, and it is back after so long.
    ///
    /// # Panics
    /// See [`Cluster::cut_off`].
    #[track_caller]
    pub fn reboot_slave(&mut self, hostname: &str, down: Duration) {
        sound(self.datacenter.reboot_slave(hostname, down, false));
    }

    /// The host of a slave restarts with an empty disk: all tasks on it die, and after so long it is
    /// back as another slave. Nobody can say what became of the tasks: they stay unreachable until an
    /// operator declares the old slave gone.
    ///
    /// # Panics
    /// See [`Cluster::cut_off`].
    #[track_caller]
    pub fn wipe_slave(&mut self, hostname: &str, down: Duration) {
        sound(self.datacenter.reboot_slave(hostname, down, true));
    }

    /// A framework's program dies, and all that its scheduler knew is lost with it, until it is
    /// [restarted](Self::restart). Its tasks run on for its failover timeout.
    pub fn crash<S>(&mut self, framework: Framework<S>) {
        self.datacenter.crash_framework(framework.id);
    }

    /// A program that has [crashed](Self::crash) starts again, with a scheduler made like the first
    /// one. As in production it is the same framework only with a
    /// [`state_file`](crate::SessionConfig::state_file): see [`Cluster::framework_with`]. Else it is a
    /// new one, and nobody's are the tasks that the old one has left.
    ///
    /// # Panics
    /// It is not down, or its session has ended.
    #[track_caller]
    pub fn restart<S>(&mut self, framework: Framework<S>) {
        let starts = self.datacenter.start_framework(framework.id);
        assert!(starts, "a program that has not crashed cannot start again");
    }

    /// As [`Cluster::restart`], with this scheduler: one that has kept records, say.
    ///
    /// # Panics
    /// It is not down, or its session has ended, or it is of another cluster.
    #[track_caller]
    pub fn restart_with<S: Scheduler + 'static>(&mut self, framework: Framework<S>, scheduler: S) {
        self.typed_mut(framework).next = Some(scheduler);
        self.restart(framework);
    }

    /// The connection of a framework breaks, and comes back by itself.
    pub fn disconnect<S>(&mut self, framework: Framework<S>) {
        sound(self.datacenter.break_connection(framework.id));
    }

    /// A framework is cut off from the masters until [`reconnect_framework`](Self::reconnect_framework).
    pub fn cut_off_framework<S>(&mut self, framework: Framework<S>) {
        sound(self.datacenter.cut_off_framework(framework.id));
    }

    /// Ends [`Cluster::cut_off_framework`].
    pub fn reconnect_framework<S>(&mut self, framework: Framework<S>) {
        self.datacenter.reconnect_framework(framework.id);
    }

    /// How long messages take from now on, at the least and at the most. Default 200 µs to 2 ms.
    pub fn set_latency(&mut self, min: Duration, max: Duration) {
        self.datacenter.set_latency(min, max);
    }

    /// All faults are over: what was cut off is connected, what was down starts, messages are fast.
    pub fn heal(&mut self) {
        self.datacenter.heal();
    }

    /// Lets so much time pass with faults of all kinds, drawn from the seed, and heals: masters and
    /// slaves crash, are cut off in one direction or both, stand still, forget their disks; programs of
    /// frameworks crash and start again with a scheduler as `make` makes it; clocks jump, disks are
    /// slow, leaders are deposed.
    ///
    /// # Panics
    /// See [`Cluster::run_for`].
    #[track_caller]
    pub fn run_with_faults(&mut self, time: Duration) {
        let apart = u64::try_from(time.as_millis() / FAULTS_APART.as_millis()).unwrap_or(u64::MAX);
        self.datacenter
            .draw_faults(apart.saturating_add(1).min(FAULTS_MAX), time);
        self.run_for(time);
        self.heal();
    }
}
