//! Who leads: masters start, are elected, are deposed and learn of it late, apply what others have
//! committed, and tell clients where to go. What a shell of several masters does around the core.

use std::time::Duration;

use meros_master_core::{Event, MasterCore};
use meros_proto::ids::Epoch;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;

use super::network::{End, Link, Message, Way};
use super::{Happening, Life, Node, World};
use crate::clock::Clock;
use crate::invariants::{Broken, Reading};
use crate::plan::Client;

/// An election in which too few masters take part is tried again.
const ELECT_AGAIN: Duration = Duration::from_millis(500);
/// How long a deposed master may go on without hearing of it. Longer than any lease: nothing but terms
/// may protect its clients.
const BELIEF_MAX: Duration = Duration::from_secs(30);
/// A commit that too few masters have heard of is looked at again.
const COMMIT_AGAIN: Duration = Duration::from_millis(100);

/// The name by which clients know a master.
pub(super) fn master_name(at: usize) -> String {
    format!("master-{at}")
}

/// The master of this name; what comes from the wire may be nonsense.
pub(super) fn master_named(name: &str, masters: usize) -> Option<usize> {
    let at = name.strip_prefix("master-")?.parse().ok()?;
    (at < masters).then_some(at)
}

impl World {
    pub(super) fn start_master(&mut self, at: usize) {
        let node = &mut self.masters[at];
        if node.core.is_some() {
            return;
        }
        if node.rng.percent(50) {
            node.clock = Clock::draw(&mut node.rng);
        }
        self.follow(at);
        let alone = self.masters.len() == 1;
        if alone || self.log.leader().is_none() {
            let rng = &mut self.masters[at].rng;
            let wait = match rng.percent(50) {
                true => Duration::ZERO,
                false => rng.skewed(Duration::from_millis(1), Duration::from_secs(3)),
            };
            self.call_election(wait);
        }
    }

    /// A core that leads nothing, on what this master has applied.
    fn follow(&mut self, at: usize) {
        let node = &mut self.masters[at];
        node.life += 1;
        node.tick = None;
        node.term = None;
        node.is_catching_up = false;
        node.reading = Reading::default();
        let now = node.clock.local(self.now);
        let core = MasterCore::new(self.plan.master.clone(), node.disk.clone(), now);
        node.core = Some(Box::new(core));
        self.catch_up_soon(at);
    }

    /// Unless another term has begun by then.
    pub(super) fn call_election(&mut self, wait: Duration) {
        self.after(wait, Happening::Elect(self.log.term()));
    }

    /// Another master, or the same one, leads from now on.
    pub(super) fn elect(&mut self, of: Epoch) -> Result<(), Broken> {
        if of != self.log.term() {
            return Ok(());
        }
        let able = self.able_masters();
        if able.len() < self.quorum() {
            self.call_election(ELECT_AGAIN);
            return Ok(());
        }
        let leader = *self.rng.pick(&able);
        for at in 0..self.masters.len() {
            if self.masters[at].term.is_none() {
                continue;
            }
            // One that is cut off or slow goes on for a while.
            match at == leader {
                true => self.step_down(at),
                false => {
                    self.meet("two masters lead at once");
                    let wait = match self.masters[at].is_isolated {
                        true => self.rng.duration(BELIEF_MAX / 3, BELIEF_MAX),
                        false => self.rng.skewed(Duration::from_millis(1), BELIEF_MAX / 3),
                    };
                    let life = Life(Node::Master(at), self.masters[at].life);
                    self.after(wait, Happening::StepDown(life));
                }
            }
        }
        self.log.begin_term(leader, &mut self.rng);
        let epoch = self.log.term();
        self.trace
            .line(|| format!("{} leads term {epoch}", master_name(leader)));
        self.catch_up(leader)?;
        self.tell_followers();
        if self.masters[leader].core.is_none() {
            return Ok(());
        }
        self.masters[leader].term = Some(epoch);
        let remembered = self.masters[leader].standby.tasks();
        self.feed_master(leader, Event::Elected { epoch, remembered })
    }

    fn quorum(&self) -> usize {
        self.masters.len() / 2 + 1
    }

    /// Masters that hear from each other.
    fn able_masters(&self) -> Vec<usize> {
        let is_able = |at: &usize| {
            let node = &self.masters[*at];
            node.core.is_some() && !node.is_isolated && !self.is_paused(Node::Master(*at))
        };
        (0..self.masters.len()).filter(is_able).collect()
    }

    /// It has learnt that another one leads: it begins anew, and its clients look elsewhere.
    pub(super) fn step_down(&mut self, at: usize) {
        self.trace
            .line(|| format!("{} steps down", master_name(at)));
        for link in std::mem::take(&mut self.masters[at].links) {
            self.redirect(at, link);
        }
        self.follow(at);
    }

    /// Tells a client who leads, perhaps, and closes its connection.
    pub(super) fn redirect(&mut self, at: usize, link: Link) {
        let leader = self.log.leader().filter(|leader| *leader != at);
        let tells = self.masters[at].rng.percent(70);
        let leader = leader.filter(|_| self.masters[at].rng.percent(80));
        let refusal = Refusal::NotLeading {
            leader: leader.map(master_name),
        };
        let by = None;
        let message = match self.network.dialled_by(link).0 {
            Client::Slave(_) => Message::ToSlave(MasterToSlave::Refused { refusal, by }),
            Client::Framework(_) => Message::ToFramework(MasterToFramework::Error { refusal, by }),
        };
        if tells {
            self.meet("a client is told who leads");
            self.network
                .send(link, Way::Down, message, self.now, &mut self.queue);
        }
        self.network
            .close(link, End::Master, self.now, &mut self.queue);
    }

    /// The leader's write has ended; true if enough masters have it.
    pub(super) fn may_commit(&mut self, at: usize) -> bool {
        if self.log.leader() != Some(at) || self.masters[at].term != Some(self.log.term()) {
            return false;
        }
        let able = self.able_masters();
        let is_heard = able.contains(&at) && able.len() >= self.quorum();
        if !is_heard {
            let life = Life(Node::Master(at), self.masters[at].life);
            self.after(COMMIT_AGAIN, Happening::Written(life));
        }
        is_heard
    }

    /// What is committed reaches the others after a while.
    pub(super) fn tell_followers(&mut self) {
        for at in 0..self.masters.len() {
            if self.log.leader() != Some(at) {
                self.catch_up_soon(at);
            }
        }
        let applied = self.masters.iter().map(|node| node.applied).min();
        self.log.forget_before(applied.unwrap_or_default());
    }

    fn catch_up_soon(&mut self, at: usize) {
        let is_behind = self.masters[at].applied < self.log.end();
        let node = &mut self.masters[at];
        if node.core.is_none() || !is_behind || std::mem::replace(&mut node.is_catching_up, true) {
            return;
        }
        let wait = node
            .rng
            .skewed(Duration::from_micros(200), Duration::from_millis(200));
        let life = Life(Node::Master(at), node.life);
        self.after(wait, Happening::Replicate(life));
    }

    pub(super) fn on_replicate(&mut self, at: usize) -> Result<(), Broken> {
        let node = &mut self.masters[at];
        node.is_catching_up = false;
        // One that takes itself for the leader hears first that it is not.
        match node.is_isolated || node.term.is_some() {
            true => Ok(()),
            false => self.catch_up(at),
        }
    }

    /// Applies all that is committed.
    fn catch_up(&mut self, at: usize) -> Result<(), Broken> {
        for command in self.log.since(self.masters[at].applied) {
            self.apply(at, &command);
            let proposal = None;
            self.feed_master(at, Event::Committed { proposal, command })?;
            if self.masters[at].core.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A master is cut off from the others; clients may still reach it.
    pub(super) fn isolate(&mut self, at: usize) {
        self.masters[at].is_isolated = true;
        if self.log.leader() == Some(at) && self.masters.len() > 1 {
            let wait = self
                .rng
                .skewed(Duration::from_millis(50), Duration::from_secs(5));
            self.call_election(wait);
        }
    }

    pub(super) fn rejoin(&mut self, at: usize) {
        let node = &mut self.masters[at];
        node.is_isolated = false;
        let life = Life(Node::Master(at), node.life);
        if node.term.is_some() && self.log.leader() != Some(at) {
            self.after(Duration::from_millis(10), Happening::StepDown(life));
        }
        self.catch_up_soon(at);
    }
}
