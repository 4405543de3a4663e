//! What goes wrong, and when.
//!
//! Absent: the wire. QUIC keeps messages of one connection in
//! order, whole and single, so duplicates and reordering are made by breaking connections.

use std::fmt;
use std::time::Duration;

use meros_proto::operation::ChangeKind;

use crate::behaviour::claiming::KINDS;
use crate::plan::Client;
use crate::prng::Rng;

/// What a framework has left when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Its id, and its records of its tasks.
    Everything,
    /// Its id.
    Id,
    /// Nothing: it comes back as a new framework.
    Nothing,
}

/// Which event a crash waits for. Most events change little: half of the crashes come where something
/// is about to become durable, or has just been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The next that has any effect.
    Any,
    /// The next that makes something durable; of a framework, that sends something.
    Durable,
    /// The next in which a slave takes in an acknowledgement and sends what waited for it.
    Acknowledgement,
}

/// One fault, at a time counted from the beginning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) what: Trouble,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A master, or the one that leads, dies; after so many effects of an event.
    CrashMaster {
        master: Option<usize>,
        point: Point,
        effects: usize,
        down: Duration,
    },
    /// A slave dies; its containers go on.
    CrashSlave {
        slave: usize,
        point: Point,
        effects: usize,
        down: Duration,
    },
    /// A framework dies.
    CrashFramework {
        framework: usize,
        point: Point,
        effects: usize,
        down: Duration,
        memory: Memory,
    },
    /// A slave is stopped in good order and started again.
    StopSlave { slave: usize, down: Duration },
    /// A slave leaves for good; the machine comes back as another slave.
    LeaveSlave { slave: usize, down: Duration },
    /// The host of a slave restarts, and its disk is empty if it is wiped.
    RebootSlave {
        slave: usize,
        down: Duration,
        is_wiped: bool,
    },
    /// All shims of a slave are killed, and with them what they watched over.
    KillShims { slave: usize },
    /// Masters elect a leader anew, for no reason that the leader knows of.
    Depose,
    /// A master, or the one that leads, is cut off from the others; clients still reach it.
    Isolate {
        master: Option<usize>,
        lasts: Duration,
    },
    /// A process stands still, and then deals with all that has waited.
    Pause { process: Process, lasts: Duration },
    /// The clock of a process jumps ahead.
    StepClock { process: Process, by: Duration },
    /// The leading master dies at once, between two events.
    KillMaster { down: Duration },
    /// These slaves die at once; their containers go on.
    KillSlaves { slaves: Vec<usize>, down: Duration },
    /// A client's connection breaks.
    Break(Client),
    /// Nothing passes between a client and a master, or all, in one direction or both.
    Partition {
        client: Client,
        master: Option<usize>,
        up: bool,
        down: bool,
        lasts: Duration,
    },
    /// An operator sets a quota, a weight or a minimum.
    Order(RoleOrder),
    /// An operator reserves a part of a slave for a role, gives it back, makes, destroys or resizes a volume.
    Change {
        slave: usize,
        kind: ChangeKind,
        role: &'static str,
    },
    /// The disk of a slave, or those of the masters, take this long for each write.
    SlowDisk {
        slave: Option<usize>,
        each: Duration,
        lasts: Duration,
    },
}

/// What an operator orders about a role. Not a fault; but it comes at bad times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleOrder {
    /// Guarantee and limit as texts of resources; both empty: none any more.
    Quota {
        role: &'static str,
        guarantee: &'static str,
        limit: &'static str,
        force: bool,
    },
    Weight {
        role: &'static str,
        weight: u32,
    },
    /// What is worth an offer; none takes it away.
    Minimum {
        role: &'static str,
        minimum: Option<&'static str>,
    },
}

/// A process that something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Leader,
    Slave(usize),
    Framework(usize),
}

impl Trouble {
    /// Its name, for counts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CrashMaster { .. } => "a master crashes",
            Self::CrashSlave { .. } => "a slave crashes",
            Self::CrashFramework { .. } => "a framework crashes",
            Self::StopSlave { .. } => "a slave is stopped",
            Self::LeaveSlave { .. } => "a slave leaves",
            Self::RebootSlave {
                is_wiped: false, ..
            } => "a host reboots",
            Self::RebootSlave { is_wiped: true, .. } => "a host reboots with an empty disk",
            Self::KillShims { .. } => "shims are killed",
            Self::Depose => "the leader is deposed",
            Self::Isolate { .. } => "a master is cut off from the others",
            Self::Pause { .. } => "a process stands still",
            Self::StepClock { .. } => "a clock jumps",
            Self::KillMaster { .. } => "the leader is killed",
            Self::KillSlaves { .. } => "slaves are killed",
            Self::Break(_) => "a connection breaks",
            Self::Partition {
                up: true,
                down: true,
                ..
            } => "a partition",
            Self::Partition { .. } => "a partition in one direction",
            Self::Order(RoleOrder::Quota { .. }) => "a quota is set",
            Self::Order(RoleOrder::Weight { .. }) => "a weight is set",
            Self::Order(RoleOrder::Minimum { .. }) => "a minimum is set",
            Self::Change { .. } => "resources are reserved or given back",
            Self::SlowDisk { .. } => "a slow disk",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} s  {:?}", self.at.as_secs_f64(), self.what)
    }
}

/// What faults can be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) masters: usize,
    pub(crate) slaves: usize,
    pub(crate) frameworks: usize,
}

/// Draws up to `max` faults within `time`, in order.
pub(crate) fn draw(rng: &mut Rng, max: u64, time: Duration, targets: Targets) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..rng.below(max + 1) {
        let at = rng.duration(Duration::ZERO, time);
        match rng.percent(5) {
            true => usurp(rng, at, targets, &mut faults),
            false => faults.push(Fault {
                at,
                what: trouble(rng, targets),
            }),
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// What operators reserve and give back meanwhile, in order.
pub(crate) fn draw_changes(rng: &mut Rng, time: Duration, slaves: usize) -> Vec<Fault> {
    let count = *rng.pick(&[0, 0, 4, 16]);
    let change = |rng: &mut Rng| {
        let at = rng.duration(Duration::ZERO, time);
        let slave = rng.index(slaves);
        let kind = *rng.pick(&KINDS);
        let role = *rng.pick(&["web", "web/ads", "batch"]);
        let what = Trouble::Change { slave, kind, role };
        Fault { at, what }
    };
    (0..count).map(|_| change(rng)).collect()
}

/// The leader is cut off and does not hear of its successor, while clients come and go between both.
fn usurp(rng: &mut Rng, at: Duration, targets: Targets, faults: &mut Vec<Fault>) {
    let lasts = rng.duration(Duration::from_secs(10), Duration::from_secs(60));
    let what = Trouble::Isolate {
        master: None,
        lasts,
    };
    faults.push(Fault { at, what });
    let slaves = (0..targets.slaves).map(Client::Slave);
    let frameworks = (0..targets.frameworks).map(Client::Framework);
    for client in slaves.chain(frameworks) {
        for _ in 0..rng.below(4) {
            let at = at + rng.duration(Duration::ZERO, lasts / 2);
            let what = Trouble::Break(client);
            faults.push(Fault { at, what });
        }
    }
}

fn trouble(rng: &mut Rng, targets: Targets) -> Trouble {
    let slave = rng.index(targets.slaves);
    let framework = rng.index(targets.frameworks);
    let client = match rng.percent(50) {
        true => Client::Slave(slave),
        false => Client::Framework(framework),
    };
    // Mostly the one that leads.
    let master = rng.percent(25).then(|| rng.index(targets.masters));
    let down = rng.skewed(Duration::from_millis(10), Duration::from_secs(120));
    let effects = rng.index(6);
    let point = *rng.pick(&[Point::Any, Point::Durable]);
    let point_of_slave = *rng.pick(&[point, point, Point::Acknowledgement]);
    let process = *rng.pick(&[
        Process::Leader,
        Process::Slave(slave),
        Process::Framework(framework),
    ]);
    match rng.below(28) {
        0..=2 => Trouble::CrashMaster {
            master,
            point,
            effects,
            down,
        },
        3..=5 => Trouble::CrashSlave {
            slave,
            point: point_of_slave,
            effects,
            down,
        },
        6..=7 => Trouble::CrashFramework {
            framework,
            point,
            effects,
            down,
            memory: *rng.pick(&[
                Memory::Everything,
                Memory::Everything,
                Memory::Id,
                Memory::Nothing,
            ]),
        },
        8 => Trouble::StopSlave { slave, down },
        9 => Trouble::LeaveSlave { slave, down },
        10..=11 => Trouble::Break(client),
        12..=14 => {
            let (up, down_too) = *rng.pick(&[(true, true), (true, false), (false, true)]);
            let one = rng.percent(30).then(|| rng.index(targets.masters));
            Trouble::Partition {
                client,
                master: one,
                up,
                down: down_too,
                lasts: down,
            }
        }
        15 => Trouble::SlowDisk {
            slave: rng.percent(50).then_some(slave),
            each: rng.skewed(Duration::from_millis(10), Duration::from_secs(5)),
            lasts: down,
        },
        16 => Trouble::RebootSlave {
            slave,
            down,
            is_wiped: rng.percent(40),
        },
        17..=18 => Trouble::Depose,
        19..=20 => Trouble::Isolate {
            master,
            lasts: down,
        },
        21..=22 => Trouble::Pause {
            process,
            lasts: down.min(Duration::from_secs(60)),
        },
        23..=25 => Trouble::Order(order(rng)),
        26 => Trouble::KillShims { slave },
        _ => Trouble::StepClock {
            process,
            by: rng.skewed(Duration::from_millis(100), Duration::from_secs(600)),
        },
    }
}

fn order(rng: &mut Rng) -> RoleOrder {
    let role = *rng.pick(&["web", "web/ads", "batch"]);
    if rng.percent(20) {
        let weight = u32::try_from(rng.between(1, 10)).expect("small");
        return RoleOrder::Weight { role, weight };
    }
    if rng.percent(20) {
        let minimums = [
            None,
            Some(""),
            Some("cpus:1"),
            Some("cpus:2;mem:512|disk:1"),
        ];
        let minimum = *rng.pick(&minimums);
        return RoleOrder::Minimum { role, minimum };
    }
    let limits = [
        "",
        "cpus:1",
        "cpus:3;mem:1024",
        "mem:512",
        "cpus:8;mem:8192",
    ];
    let guarantees = ["", "cpus:1", "cpus:2.5;mem:512"];
    let guarantee = *rng.pick(&guarantees);
    let limit = *rng.pick(&limits);
    RoleOrder::Quota {
        role,
        guarantee,
        limit,
        force: rng.percent(50),
    }
}
