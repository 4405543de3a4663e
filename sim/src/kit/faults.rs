//! What can go wrong in a datacenter under test, as verbs. Slaves are named by their host names.

use std::time::Duration;

use super::{Datacenter, GuestId};
use crate::fault::{self, Memory, Targets, Trouble};
use crate::invariants::Broken;
use crate::plan::Client;
use crate::world::Node;

/// Longer than any test: until it is said to be over.
pub(super) const UNTIL_SAID: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Datacenter {
    /// The leading master dies, and starts again after so long. Others elect a leader within
    /// seconds; one alone comes back as the leader. False if nobody leads.
    ///
    /// # Errors
    /// As for all of these: an invariant of Meros does not hold.
    pub fn kill_leader(&mut self, down: Duration) -> Result<bool, Broken> {
        if self.world.leader().is_none() {
            return Ok(false);
        }
        self.world.inject(Trouble::KillMaster { down })?;
        Ok(true)
    }

    /// The leading master is cut off from the other masters, who elect another one; it goes on for a
    /// while without knowing. False if nobody leads, or it is alone.
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    pub fn isolate_leader(&mut self, lasts: Duration) -> Result<bool, Broken> {
        let (masters, ..) = self.world.sizes();
        let Some(leader) = self.world.leader().filter(|_| masters > 1) else {
            return Ok(false);
        };
        self.world.inject(Trouble::Isolate {
            master: Some(leader),
            lasts,
        })?;
        Ok(true)
    }

    /// Nothing passes between a slave and the masters until it is
    /// [reconnected](Self::reconnect_slave).
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    ///
    /// # Panics
    /// There is no such slave.
    pub fn cut_off_slave(&mut self, hostname: &str) -> Result<(), Broken> {
        let slave = self.slave(hostname);
        self.cut_off(Client::Slave(slave))
    }

    /// Nothing passes between a framework and the masters until it is reconnected.
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    pub fn cut_off_framework(&mut self, guest: GuestId) -> Result<(), Broken> {
        let (_, at) = self.named(guest);
        self.cut_off(Client::Framework(at))
    }

    fn cut_off(&mut self, client: Client) -> Result<(), Broken> {
        if self.cut_off.contains_key(&client) {
            return Ok(());
        }
        let fault = self.world.inject(Trouble::Partition {
            client,
            master: None,
            up: true,
            down: true,
            lasts: UNTIL_SAID,
        })?;
        self.cut_off.insert(client, fault);
        Ok(())
    }

    /// Ends [`Datacenter::cut_off_slave`].
    ///
    /// # Panics
    /// There is no such slave.
    pub fn reconnect_slave(&mut self, hostname: &str) {
        let slave = self.slave(hostname);
        self.say(|| format!("{hostname} is reconnected"));
        self.reconnect(Client::Slave(slave));
    }

    /// Ends [`Datacenter::cut_off_framework`].
    pub fn reconnect_framework(&mut self, guest: GuestId) {
        let (name, at) = self.named(guest);
        self.say(|| format!("{name} is reconnected"));
        self.reconnect(Client::Framework(at));
    }

    fn reconnect(&mut self, client: Client) {
        if let Some(fault) = self.cut_off.remove(&client) {
            self.world.relieve(fault);
        }
    }

    /// A slave's process dies, until it is [started](Self::start_slave). Its tasks run on.
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    ///
    /// # Panics
    /// There is no such slave.
    pub fn kill_slave(&mut self, hostname: &str) -> Result<(), Broken> {
        let slave = self.slave(hostname);
        self.world.inject(Trouble::KillSlaves {
            slaves: vec![slave],
            down: UNTIL_SAID,
        })?;
        Ok(())
    }

    /// A slave that was killed is back, with the disk it had.
    ///
    /// # Panics
    /// There is no such slave.
    pub fn start_slave(&mut self, hostname: &str) {
        let slave = self.slave(hostname);
        self.say(|| format!("{hostname} starts"));
        self.world.start_now(Node::Slave(slave));
    }

    /// The host of a slave restarts: all tasks on it die, and it is back after so long. Wiped, it
    /// has lost its disk and comes back as another slave.
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    ///
    /// # Panics
    /// There is no such slave.
    pub fn reboot_slave(
        &mut self,
        hostname: &str,
        down: Duration,
        is_wiped: bool,
    ) -> Result<(), Broken> {
        let slave = self.slave(hostname);
        self.world.inject(Trouble::RebootSlave {
            slave,
            down,
            is_wiped,
        })?;
        Ok(())
    }

    /// A framework's program dies with all that it knew, until it is
    /// [started](Self::start_framework).
    pub fn crash_framework(&mut self, guest: GuestId) {
        let (name, at) = self.named(guest);
        self.say(|| format!("fault: {name} crashes"));
        let memory = self.memory(at);
        self.world.crash_guest(at, UNTIL_SAID, memory);
        let mut guest = self.guest_mut(guest);
        guest.is_subscribed = false;
        guest.offers.clear();
    }

    /// A framework's program that has crashed starts again; [`super::Step::Restarted`] follows. False
    /// if it is not down, or has ended.
    pub fn start_framework(&mut self, guest: GuestId) -> bool {
        let (_, at) = self.named(guest);
        let has_begun = self.guest(guest).lives > 0;
        let is_down = !self.world.framework_is_up(at);
        let starts = has_begun && is_down && self.ended(guest).is_none();
        self.world.start_now(Node::Framework(at));
        starts
    }

    /// The connection of a framework breaks; it comes back by itself.
    ///
    /// # Errors
    /// See [`Datacenter::kill_leader`].
    pub fn break_connection(&mut self, guest: GuestId) -> Result<(), Broken> {
        let (_, at) = self.named(guest);
        self.world.inject(Trouble::Break(Client::Framework(at)))?;
        Ok(())
    }

    /// How long messages take from now on, at the least and at the most.
    pub fn set_latency(&mut self, min: Duration, max: Duration) {
        self.say(|| format!("messages take {min:?} to {max:?} from now on"));
        self.world.set_latency(min, max.max(min));
    }

    /// Faults of all kinds, drawn from the seed: up to so many within this time. They last for up to
    /// two minutes each.
    pub fn draw_faults(&mut self, most: u64, within: Duration) {
        let (masters, slaves, frameworks) = self.world.sizes();
        let targets = Targets {
            masters,
            slaves,
            frameworks,
        };
        let from = self.elapsed();
        for mut fault in fault::draw(&mut self.rng, most, within, targets) {
            // Quotas are the test's own to set.
            if matches!(fault.what, Trouble::Order(_) | Trouble::Change { .. }) {
                continue;
            }
            fault.at += from;
            if let Trouble::CrashFramework {
                framework, memory, ..
            } = &mut fault.what
            {
                *memory = self.memory(*framework);
            }
            self.world.schedule(fault);
        }
    }

    /// All faults are over, also those that were to last until said: what is down starts.
    pub fn heal(&mut self) {
        self.say(|| "the faults are over".to_owned());
        self.cut_off.clear();
        self.world.heal_all();
        self.world
            .set_latency(super::LATENCY_MIN, super::LATENCY_MAX);
    }

    /// What is left of a framework that crashes.
    fn memory(&self, at: usize) -> Memory {
        let place = self.guests.iter().find(|place| place.at == at);
        match place.is_none_or(|place| place.keeps_id) {
            true => Memory::Id,
            false => Memory::Nothing,
        }
    }

    fn named(&self, guest: GuestId) -> (String, usize) {
        let place = &self.guests[guest.0];
        (place.name.clone(), place.at)
    }
}
