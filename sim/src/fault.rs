//! What goes wrong, and when.

use std::fmt;
use std::time::Duration;

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

/// One fault, at a time counted from the beginning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) what: Trouble,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The master dies; after so many effects of its next event that has any.
    CrashMaster { effects: usize, down: Duration },
    /// A slave and its containers die.
    CrashSlave {
        slave: usize,
        effects: usize,
        down: Duration,
    },
    /// A framework dies.
    CrashFramework {
        framework: usize,
        effects: usize,
        down: Duration,
        memory: Memory,
    },
    /// A slave is stopped in good order and started again.
    StopSlave { slave: usize, down: Duration },
    /// A slave leaves for good; the machine comes back as another slave.
    LeaveSlave { slave: usize, down: Duration },
    /// The master dies at once, between two events.
    KillMaster { down: Duration },
    /// These slaves and their containers die at once.
    KillSlaves { slaves: Vec<usize>, down: Duration },
    /// A client's connection breaks.
    Break(Client),
    /// Nothing passes between a client and the master, in one direction or both.
    Partition {
        client: Client,
        up: bool,
        down: bool,
        lasts: Duration,
    },
    /// The disk of a slave, or of the master, takes this long for each write.
    SlowDisk {
        slave: Option<usize>,
        each: Duration,
        lasts: Duration,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} s  {:?}", self.at.as_secs_f64(), self.what)
    }
}

/// Draws up to `max` faults within `time`, in order.
pub(crate) fn draw(
    rng: &mut Rng,
    max: u64,
    time: Duration,
    slaves: usize,
    frameworks: usize,
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = (0..rng.below(max + 1))
        .map(|_| Fault {
            at: rng.duration(Duration::ZERO, time),
            what: trouble(rng, slaves, frameworks),
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn trouble(rng: &mut Rng, slaves: usize, frameworks: usize) -> Trouble {
    let slave = rng.index(slaves);
    let framework = rng.index(frameworks);
    let client = match rng.percent(50) {
        true => Client::Slave(slave),
        false => Client::Framework(framework),
    };
    let down = rng.skewed(Duration::from_millis(10), Duration::from_secs(120));
    let effects = rng.index(6);
    match rng.below(16) {
        0..=2 => Trouble::CrashMaster { effects, down },
        3..=5 => Trouble::CrashSlave {
            slave,
            effects,
            down,
        },
        6..=7 => Trouble::CrashFramework {
            framework,
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
            Trouble::Partition {
                client,
                up,
                down: down_too,
                lasts: down,
            }
        }
        _ => Trouble::SlowDisk {
            slave: rng.percent(50).then_some(slave),
            each: rng.skewed(Duration::from_millis(10), Duration::from_secs(5)),
            lasts: down,
        },
    }
}
