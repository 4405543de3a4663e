//! Connections between clients (slaves, frameworks) and masters: latency, order inside one
//! connection, breaks that lose the end of what is under way, partitions that hold messages up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::time::Timestamp;

use super::Happening;
use crate::plan::{Client, NetworkPlan};
use crate::prng::Rng;
use crate::queue::Queue;

/// A connection; the cores on both ends know it by this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(pub(crate) u64);

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// To the master.
    Up,
    /// To the client.
    Down,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Master,
}

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    FromSlave(SlaveToMaster),
    FromFramework(FrameworkToMaster),
    ToSlave(MasterToSlave),
    ToFramework(MasterToFramework),
    /// The client has closed the connection.
    EndUp,
    /// The master has closed the connection.
    EndDown,
}

#[derive(Debug)]
struct Lane {
    /// With the time of arrival, in order.
    under_way: VecDeque<(Timestamp, Message)>,
    last: Timestamp,
    /// Waits for a partition to end, or for somebody to read.
    is_held: bool,
    /// Was released, and what is due follows message by message: one that is held again after each of
    /// them costs no happening for all that waits.
    is_behind: bool,
    /// What would arrive from then on is lost.
    cut: Option<Timestamp>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    master: usize,
    /// The longest that a message takes on it when nothing is wrong.
    latency_max: Duration,
    up: Lane,
    down: Lane,
    /// Whether the ends still take it for alive.
    client_open: bool,
    master_open: bool,
    /// Nothing that is sent any more arrives.
    is_broken: bool,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    rng: Rng,
    connections: BTreeMap<Link, Connection>,
    /// Partitions: since when a direction of a client is blocked.
    blocked: BTreeMap<(Client, usize, Way), Timestamp>,
    /// Who has dialled which master, by the connection's number less one; kept when it is forgotten.
    dialled: Vec<(Client, usize)>,
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan, rng: Rng) -> Self {
        Self {
            plan,
            rng,
            connections: BTreeMap::new(),
            blocked: BTreeMap::new(),
            dialled: Vec::new(),
        }
    }

    /// From now on messages take so long at the least and at the most; those under way do not.
    pub(crate) fn set_latency(&mut self, min: Duration, max: Duration) {
        self.plan.latency_min = min;
        self.plan.latency_max = max;
        for connection in self.connections.values_mut() {
            connection.latency_max = max;
        }
    }

    /// How long a message takes on a connection; some are slower than others.
    fn latency(&mut self, link: Link) -> Duration {
        let most = self.connections.get(&link).map(|it| it.latency_max);
        let most = most.unwrap_or(self.plan.latency_max);
        self.rng.skewed(self.plan.latency_min, most)
    }

    /// A client dials; `Happening::Arrive` follows at the master, or `Happening::Answer` says no.
    pub(crate) fn dial(
        &mut self,
        client: Client,
        master: usize,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) -> Link {
        self.dialled.push((client, master));
        let link = Link(u64::try_from(self.dialled.len()).expect("lengths fit 64 bits"));
        let lane = || Lane {
            under_way: VecDeque::new(),
            last: now,
            is_held: false,
            is_behind: false,
            cut: None,
        };
        let NetworkPlan {
            latency_min,
            latency_max,
            ..
        } = self.plan;
        let connection = Connection {
            client,
            master,
            latency_max: self.rng.duration(latency_min, latency_max),
            up: lane(),
            down: lane(),
            client_open: true,
            master_open: false,
            is_broken: false,
        };
        self.connections.insert(link, connection);
        let at = now.after(self.latency(link));
        queue.push(at, Happening::Arrive(link));
        link
    }

    /// The master takes the connection, or nobody is there. True if it stands.
    pub(crate) fn arrive(
        &mut self,
        link: Link,
        master_is_up: bool,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) -> Option<Client> {
        let connection = self.connections.get_mut(&link)?;
        let client = connection.client;
        let is_cut_off = [Way::Up, Way::Down]
            .into_iter()
            .any(|way| self.blocked.contains_key(&(client, connection.master, way)));
        let stands = connection.client_open && master_is_up && !is_cut_off;
        connection.master_open = stands;
        let wait = match is_cut_off {
            true => self.plan.idle_timeout,
            false => self.latency(link),
        };
        let at = now.after(wait);
        if stands {
            // The answer is the first that the client hears on it.
            self.connections.get_mut(&link)?.down.last = at;
        }
        queue.push(at, Happening::Answer(link, stands));
        stands.then_some(client)
    }

    /// The client hears that the connection stands, or that it does not; None if it has given up.
    pub(crate) fn answer(&mut self, link: Link, stands: bool) -> Option<Client> {
        let connection = self.connections.get(&link)?;
        let client = connection.client;
        let waits = connection.client_open;
        if !stands {
            self.connections.remove(&link);
        }
        waits.then_some(client)
    }

    pub(crate) fn send(
        &mut self,
        link: Link,
        way: Way,
        message: Message,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        let latency = self.latency(link);
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        let is_open = match way {
            Way::Up => connection.client_open,
            Way::Down => connection.master_open,
        };
        if !is_open || connection.is_broken {
            return;
        }
        let lane = connection.lane(way);
        lane.last = lane.last.max(now.after(latency));
        lane.under_way.push_back((lane.last, message));
        queue.push(lane.last, Happening::Deliver(link, way));
    }

    /// What arrives now, and whose connection it is.
    pub(crate) fn receive(
        &mut self,
        link: Link,
        way: Way,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) -> Option<(Client, Message)> {
        let connection = self.connections.get_mut(&link)?;
        let client = connection.client;
        let is_open = match way {
            Way::Up => connection.master_open,
            Way::Down => connection.client_open,
        };
        let is_blocked = self.blocked.contains_key(&(client, connection.master, way));
        let lane = connection.lane(way);
        if !is_open || lane.cut.is_some_and(|cut| cut <= now) {
            lane.under_way.clear();
            return None;
        }
        lane.is_held |= is_blocked;
        if lane.is_held {
            return None;
        }
        let (_, message) = lane.under_way.pop_front_if(|(at, _)| *at <= now)?;
        lane.is_behind &= lane.under_way.front().is_some_and(|(at, _)| *at <= now);
        if lane.is_behind {
            queue.push(now, Happening::Deliver(link, way));
        }
        Some((client, message))
    }

    /// An end closes after what it has sent; the other hears of it in order.
    pub(crate) fn close(
        &mut self,
        link: Link,
        end: End,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        let (way, message) = match end {
            End::Client => (Way::Up, Message::EndUp),
            End::Master => (Way::Down, Message::EndDown),
        };
        self.send(link, way, message, now, queue);
        // The client forgets at once. What reaches the master before it knows of its own closing
        // still reaches its core.
        match end {
            End::Client => drop(self.forget(link, end)),
            End::Master => queue.push(
                now.after(Duration::from_millis(1)),
                Happening::Lost(link, end),
            ),
        }
    }

    /// An end has no use for the connection any more; true if it had until now.
    pub(crate) fn forget(&mut self, link: Link, end: End) -> bool {
        let Some(connection) = self.connections.get_mut(&link) else {
            return false;
        };
        let open = match end {
            End::Client => &mut connection.client_open,
            End::Master => &mut connection.master_open,
        };
        let was_open = std::mem::take(open);
        if !connection.client_open && !connection.master_open {
            self.connections.remove(&link);
        }
        was_open
    }

    /// Whose connection it is or was, and to which master.
    pub(crate) fn dialled_by(&self, link: Link) -> (Client, usize) {
        let at = usize::try_from(link.0 - 1).expect("it was a length");
        self.dialled[at]
    }

    pub(crate) fn client(&self, link: Link) -> Option<Client> {
        self.connections.get(&link).map(|it| it.client)
    }

    /// The connection breaks: what is under way arrives up to some point, and the ends notice at
    /// different times, up to the idle timeout later.
    pub(crate) fn break_off(&mut self, link: Link, now: Timestamp, queue: &mut Queue<Happening>) {
        let idle = self.plan.idle_timeout;
        let waits = [0, 1].map(|_| match self.rng.percent(50) {
            true => self.latency(link),
            false => self.rng.duration(Duration::ZERO, idle),
        });
        let cuts = waits.map(|wait| now.after(self.rng.duration(Duration::ZERO, wait)));
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        connection.is_broken = true;
        connection.down.cut = Some(cuts[0]);
        connection.up.cut = Some(cuts[1]);
        queue.push(now.after(waits[0]), Happening::Lost(link, End::Client));
        queue.push(now.after(waits[1]), Happening::Lost(link, End::Master));
    }

    /// The process at an end dies: it sends nothing more, and the other end notices later.
    pub(crate) fn die(
        &mut self,
        link: Link,
        end: End,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        let wait = match self.rng.percent(50) {
            true => self.latency(link),
            false => self.rng.duration(Duration::ZERO, self.plan.idle_timeout),
        };
        let cut = now.after(self.rng.duration(Duration::ZERO, wait));
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.is_broken = true;
            let (way, other) = match end {
                End::Client => (Way::Up, End::Master),
                End::Master => (Way::Down, End::Client),
            };
            connection.lane(way).cut.get_or_insert(cut);
            queue.push(now.after(wait), Happening::Lost(link, other));
            self.forget(link, end);
        }
    }

    /// Open connections of one client, to one master or to all.
    pub(crate) fn links_of(&self, client: Client, master: Option<usize>) -> Vec<Link> {
        let of_it = |it: &Connection| {
            it.client == client && master.is_none_or(|master| master == it.master)
        };
        self.connections
            .iter()
            .filter(|(_, it)| of_it(it))
            .map(|(link, _)| *link)
            .collect()
    }

    /// A partition begins: nothing more passes this way; connections die of silence.
    pub(crate) fn block(
        &mut self,
        client: Client,
        master: usize,
        way: Way,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        self.blocked.entry((client, master, way)).or_insert(now);
        let end = match way {
            Way::Up => End::Master,
            Way::Down => End::Client,
        };
        for link in self.links_of(client, Some(master)) {
            queue.push(
                now.after(self.plan.idle_timeout),
                Happening::Idle(link, end),
            );
        }
    }

    /// Whether an end has heard nothing for the idle timeout.
    pub(crate) fn is_idle(&self, link: Link, end: End, now: Timestamp) -> bool {
        let way = match end {
            End::Master => Way::Up,
            End::Client => Way::Down,
        };
        let since = self
            .client(link)
            .and_then(|client| self.blocked.get(&(client, self.dialled_by(link).1, way)));
        since.is_some_and(|since| now.since(*since) >= self.plan.idle_timeout)
    }

    /// A partition ends: what was held up arrives, in its order.
    pub(crate) fn unblock(
        &mut self,
        client: Client,
        master: usize,
        way: Way,
        now: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        self.blocked.remove(&(client, master, way));
        for link in self.links_of(client, Some(master)) {
            let at = now.after(self.latency(link));
            self.release(link, way, at, queue);
        }
    }

    /// An end does not read what comes this way.
    pub(crate) fn hold(&mut self, link: Link, way: Way) {
        if let Some(connection) = self.connections.get_mut(&link) {
            connection.lane(way).is_held = true;
        }
    }

    /// What was held up arrives from then on, in its order.
    pub(crate) fn release(
        &mut self,
        link: Link,
        way: Way,
        at: Timestamp,
        queue: &mut Queue<Happening>,
    ) {
        let Some(connection) = self.connections.get_mut(&link) else {
            return;
        };
        let key = (connection.client, connection.master, way);
        let lane = connection.lane(way);
        if !lane.is_held || self.blocked.contains_key(&key) {
            return;
        }
        lane.is_held = false;
        for (arrives, _) in &mut lane.under_way {
            *arrives = at.max(*arrives);
        }
        lane.is_behind = !lane.under_way.is_empty();
        queue.push(at, Happening::Deliver(link, way));
        lane.last = lane.last.max(at);
    }

    /// All partitions end.
    pub(crate) fn heal(&mut self, now: Timestamp, queue: &mut Queue<Happening>) {
        let blocked: Vec<(Client, usize, Way)> = self.blocked.keys().copied().collect();
        for (client, master, way) in blocked {
            self.unblock(client, master, way, now, queue);
        }
    }
}

impl Connection {
    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client::Framework(0);

    fn ping(number: u64) -> Message {
        let epoch = meros_proto::ids::Epoch(1);
        let offer_id = meros_proto::ids::OfferId { epoch, number };
        Message::ToFramework(MasterToFramework::Rescind { offer_id })
    }

    fn number(message: &Message) -> u64 {
        match message {
            Message::ToFramework(MasterToFramework::Rescind { offer_id }) => offer_id.number,
            other => panic!("{other:?} was not sent"),
        }
    }

    /// Messages are sent on several connections while partitions come and go, somebody does not read
    /// for a while, and connections break.
    #[test]
    fn a_reader_that_is_slow_costs_no_more_than_what_it_reads() {
        let plan = NetworkPlan {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(80),
            idle_timeout: Duration::from_secs(3),
        };
        let mut network = Network::new(plan, Rng::new(1).fork("network"));
        let mut queue = Queue::new();
        let mut now = crate::clock::START;
        let link = network.dial(CLIENT, 0, now, &mut queue);
        let _ = network.arrive(link, true, now, &mut queue);
        for number in 0..1_000 {
            network.send(link, Way::Down, ping(number), now, &mut queue);
        }
        now = now.after(Duration::from_secs(1));
        let mut heard = Vec::new();
        let mut happenings = 0;
        // It reads one, and then nothing for a while.
        for most in 0..=1_000 {
            network.release(link, Way::Down, now, &mut queue);
            while let Some((_, what)) = queue.pop() {
                let Happening::Deliver(link, way) = what else {
                    continue;
                };
                happenings += 1;
                if heard.len() == most {
                    network.hold(link, way);
                } else if let Some((_, message)) = network.receive(link, way, now, &mut queue) {
                    heard.push(number(&message));
                }
            }
        }
        assert_eq!(heard, (0..1_000).collect::<Vec<u64>>());
        assert!(
            happenings <= 3_000,
            "{happenings} deliveries of 1,000 messages"
        );
    }

    #[test]
    fn a_connection_loses_only_its_end_and_swaps_nothing() {
        let mut has_overtaken = false;
        let mut has_lost = false;
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let plan = NetworkPlan {
                latency_min: Duration::from_millis(1),
                latency_max: Duration::from_millis(80),
                idle_timeout: Duration::from_secs(3),
            };
            let mut network = Network::new(plan, rng.fork("network"));
            let mut queue = Queue::new();
            let mut now = crate::clock::START;
            let links = [0, 1].map(|_| network.dial(CLIENT, 0, now, &mut queue));
            let mut sent: BTreeMap<Link, u64> = BTreeMap::new();
            let mut heard: BTreeMap<Link, Vec<u64>> = BTreeMap::new();
            let mut last = 0;
            for step in 1..400 {
                now = now.after(Duration::from_millis(rng.below(20)));
                let link = *rng.pick(&links);
                match rng.below(40) {
                    0 => network.block(CLIENT, 0, Way::Down, now, &mut queue),
                    1..=3 => network.unblock(CLIENT, 0, Way::Down, now, &mut queue),
                    4 => network.hold(link, Way::Down),
                    5..=7 => network.release(link, Way::Down, now, &mut queue),
                    8 if step > 200 => network.break_off(link, now, &mut queue),
                    _ => {
                        network.send(link, Way::Down, ping(step), now, &mut queue);
                        sent.insert(link, step);
                    }
                }
                if step == 399 {
                    network.heal(now, &mut queue);
                    for link in links {
                        network.release(link, Way::Down, now, &mut queue);
                    }
                    now = now.after(Duration::from_secs(60));
                }
                while let Some((at, what)) = queue.pop() {
                    if at > now {
                        queue.push(at, what);
                        break;
                    }
                    match what {
                        Happening::Arrive(link) => {
                            let _ = network.arrive(link, true, at, &mut queue);
                        }
                        Happening::Deliver(link, way) => {
                            if let Some((client, message)) =
                                network.receive(link, way, at, &mut queue)
                            {
                                assert_eq!(client, CLIENT);
                                let number = number(&message);
                                has_overtaken |= number < last;
                                last = number;
                                heard.entry(link).or_default().push(number);
                            }
                        }
                        _ => {}
                    }
                }
            }
            for (link, heard) in heard {
                assert!(heard.is_sorted(), "seed {seed}: {link:?} {heard:?}");
                has_lost |= heard.last() < sent.get(&link);
            }
        }
        assert!(
            has_overtaken,
            "nothing was overtaken by another connection's"
        );
        assert!(has_lost, "nothing was lost with its connection");
    }
}
