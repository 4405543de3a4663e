//! Maintenance in the words of v1 (semantics K11): a schedule of machines, which are draining or down.
//!
//! | v1 | Meros |
//! |---|---|
//! | machine | the slaves that have its host name and its address |
//! | window of a machine | the planned maintenance of these slaves |
//! | draining | maintenance is planned, and not all of the slaves are being drained |
//! | down | maintenance is planned, and all of the slaves are being drained, or are drained |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use meros_proto::ids::SlaveId;
use meros_proto::maintenance::Unavailability;
use meros_proto::slave::SlaveMode;
use meros_proto::time::Timestamp;
use meros_proto::view::{SlaveRow, SlaveView};

use crate::pb::maintenance::{ClusterStatus, Schedule, Window, cluster_status::DrainingMachine};
use crate::{Refused, events, pb, task};

/// A machine by what tells it from others; host names are the same in upper and lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Machine {
    hostname: String,
    ip: String,
}

impl Machine {
    fn of(slave: &SlaveView) -> Self {
        let address: Option<SocketAddr> = slave.http_address.parse().ok();
        Self {
            hostname: slave.hostname.to_lowercase(),
            ip: address.map_or_else(String::new, |it| it.ip().to_string()),
        }
    }

    fn read(from: &pb::MachineId) -> Result<Self, Refused> {
        let machine = Self {
            hostname: from.hostname().to_lowercase(),
            ip: from.ip().to_owned(),
        };
        if machine.hostname.is_empty() && machine.ip.is_empty() {
            let why = "it needs a hostname or an ip";
            return Err(Refused::invalid("machine", why));
        }
        Ok(machine)
    }

    /// Whether a slave is on it. What is left out does not matter.
    fn has(&self, other: &Self) -> bool {
        (self.hostname.is_empty() || self.hostname == other.hostname)
            && (self.ip.is_empty() || self.ip == other.ip)
    }

    fn id(&self) -> pb::MachineId {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        pb::MachineId {
            hostname: text(&self.hostname),
            ip: text(&self.ip),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.hostname, &self.ip].map(|part| crate::resources::shortened(part));
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        let first = parts.next().map_or("", |part| part);
        match parts.next() {
            Some(second) => write!(f, "{first} ({second})"),
            None => f.write_str(first),
        }
    }
}

fn is_drained_for(slave: &SlaveView) -> bool {
    matches!(slave.mode, SlaveMode::Draining { .. })
}

/// The machines whose maintenance is planned, and whether they are down.
fn planned(rows: &[SlaveRow]) -> BTreeMap<Machine, bool> {
    let mut machines = BTreeMap::new();
    for row in rows.iter().filter(|row| row.slave.unavailability.is_some()) {
        let is_down = machines.entry(Machine::of(&row.slave)).or_insert(true);
        *is_down &= is_drained_for(&row.slave);
    }
    machines
}

/// The schedule: a window for each time that is planned, with all its machines.
#[must_use]
pub fn schedule(rows: &[SlaveRow]) -> Schedule {
    let mut windows: BTreeMap<Unavailability, BTreeSet<Machine>> = BTreeMap::new();
    for row in rows {
        if let Some(window) = row.slave.unavailability {
            let machines = windows.entry(window).or_default();
            machines.insert(Machine::of(&row.slave));
        }
    }
    let windows = windows.into_iter().map(|(window, machines)| Window {
        machine_ids: machines.iter().map(Machine::id).collect(),
        unavailability: events::unavailability(window),
    });
    Schedule {
        windows: windows.collect(),
    }
}

/// Which machines are draining, and which are down.
#[must_use]
pub fn status(rows: &[SlaveRow]) -> ClusterStatus {
    let mut status = ClusterStatus::default();
    for (machine, is_down) in planned(rows) {
        let id = machine.id();
        match is_down {
            true => status.down_machines.push(id),
            false => status.draining_machines.push(DrainingMachine { id }),
        }
    }
    status
}

/// The whole schedule, as windows of slaves.
///
/// # Errors
/// The first that applies: a window without machines, one before 1970 or of a negative length, a machine
/// without a name, twice, or without a slave; a machine that is down and not in it.
pub fn read_schedule(
    schedule: &Schedule,
    rows: &[SlaveRow],
) -> Result<Vec<(SlaveId, Option<Unavailability>)>, Refused> {
    let slaves = by_machine(rows);
    let mut windows: BTreeMap<SlaveId, Unavailability> = BTreeMap::new();
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            let why = "it needs a machine";
            return Err(Refused::invalid("windows.machine_ids", why));
        }
        let unavailability = unavailability(&window.unavailability)?;
        for id in &window.machine_ids {
            let machine = Machine::read(id)?;
            for slave_id in slaves_of(&machine, &slaves)? {
                if windows.insert(slave_id, unavailability).is_some() {
                    let why = format!("{machine} is in it twice");
                    return Err(Refused::invalid("windows.machine_ids", why));
                }
            }
        }
    }
    for row in rows {
        let slave = &row.slave;
        let is_down = slave.unavailability.is_some() && is_drained_for(slave);
        if is_down && !windows.contains_key(&slave.slave_id) {
            let machine = Machine::of(slave);
            let why = format!("{machine} is down and has to stay in it until it is up");
            return Err(Refused::invalid("windows", why));
        }
    }
    let windows = windows.into_iter();
    Ok(windows.map(|(id, window)| (id, Some(window))).collect())
}

/// The slaves of machines.
///
/// # Errors
/// There is none, or the first that applies: a machine without a name, twice, or without a slave.
pub fn slaves(ids: &[pb::MachineId], rows: &[SlaveRow]) -> Result<BTreeSet<SlaveId>, Refused> {
    if ids.is_empty() {
        return Err(Refused::invalid("machines", "it needs a machine"));
    }
    let slaves = by_machine(rows);
    let mut out = BTreeSet::new();
    for id in ids {
        let machine = Machine::read(id)?;
        for slave_id in slaves_of(&machine, &slaves)? {
            if !out.insert(slave_id) {
                let why = format!("{machine} is in it twice");
                return Err(Refused::invalid("machines", why));
            }
        }
    }
    Ok(out)
}

/// By host name and then address, so that thousands of machines are found among thousands of slaves.
type Slaves = BTreeMap<Machine, Vec<SlaveId>>;

fn by_machine(rows: &[SlaveRow]) -> Slaves {
    let mut slaves = Slaves::new();
    for row in rows {
        let of_machine = slaves.entry(Machine::of(&row.slave)).or_default();
        of_machine.push(row.slave.slave_id);
    }
    slaves
}

fn slaves_of(machine: &Machine, slaves: &Slaves) -> Result<Vec<SlaveId>, Refused> {
    let found: Vec<SlaveId> = match machine.hostname.is_empty() {
        true => {
            let all = slaves.iter().filter(|(it, _)| machine.has(it));
            all.flat_map(|(_, ids)| ids).copied().collect()
        }
        false => {
            let from = Machine {
                hostname: machine.hostname.clone(),
                ip: String::new(),
            };
            let of_name = slaves.range(from..);
            let of_name = of_name.take_while(|(it, _)| it.hostname == machine.hostname);
            let all = of_name.filter(|(it, _)| machine.has(it));
            all.flat_map(|(_, ids)| ids).copied().collect()
        }
    };
    match found.is_empty() {
        true => {
            let why = format!("no slave of this cluster is on {machine}");
            Err(Refused::invalid("machine", why))
        }
        false => Ok(found),
    }
}

fn unavailability(from: &pb::Unavailability) -> Result<Unavailability, Refused> {
    let start = u64::try_from(from.start.nanoseconds)
        .map_err(|_| Refused::invalid("unavailability.start", "it must not be before 1970"))?;
    let duration = from.duration;
    let duration = duration.map(|it| task::duration("unavailability.duration", it));
    Ok(Unavailability {
        start: Timestamp(start / 1_000),
        duration: duration.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meros_proto::resources::Resources;
    use meros_proto::slave::SlaveState;

    use super::*;

    fn row(id: u32, hostname: &str, ip: &str) -> SlaveRow {
        SlaveRow {
            slave: SlaveView {
                slave_id: SlaveId(id),
                hostname: hostname.to_owned(),
                http_address: format!("{ip}:5051"),
                state: SlaveState::Registered,
                state_since: Timestamp(1),
                mode: SlaveMode::Active,
                mode_since: Timestamp(1),
                is_drained: false,
                unavailability: None,
                resources: Resources::new(),
                attributes: Default::default(),
                version: String::new(),
            },
            used: Resources::new(),
            offered: Resources::new(),
            tasks: 0,
        }
    }

    /// One machine with two slaves, one with one.
    fn rows() -> Vec<SlaveRow> {
        vec![
            row(0, "A.example", "10.0.0.1"),
            row(1, "a.example", "10.0.0.1"),
            row(2, "b.example", "10.0.0.2"),
        ]
    }

    fn machine(hostname: &str, ip: &str) -> pb::MachineId {
        pb::MachineId {
            hostname: Some(hostname.to_owned()),
            ip: Some(ip.to_owned()),
        }
    }

    fn window(start: i64, machine_ids: Vec<pb::MachineId>) -> Window {
        Window {
            machine_ids,
            unavailability: pb::Unavailability {
                start: pb::TimeInfo { nanoseconds: start },
                duration: Some(pb::DurationInfo {
                    nanoseconds: 60_000_000_000,
                }),
            },
        }
    }

    const AT: i64 = 2_000_000_000_000_000_000;

    /// With all that a schedule says done.
    fn planned(schedule: &Schedule) -> Vec<SlaveRow> {
        let mut rows = rows();
        for (slave_id, window) in read_schedule(schedule, &rows).expect("a schedule") {
            let at = usize::try_from(slave_id.0).expect("small");
            rows[at].slave.unavailability = window;
        }
        rows
    }

    #[test]
    fn a_schedule_is_of_all_slaves_of_its_machines_and_comes_back() {
        let machines = vec![
            machine("a.example", "10.0.0.1"),
            machine("b.example", "10.0.0.2"),
        ];
        let schedule = Schedule {
            windows: vec![window(AT, machines)],
        };
        let after = planned(&schedule);
        let expected = Some(Unavailability {
            start: Timestamp(2_000_000_000_000_000),
            duration: Some(Duration::from_secs(60)),
        });
        assert!(after.iter().all(|row| row.slave.unavailability == expected));
        assert_eq!(super::schedule(&after), schedule);
        assert_eq!(super::schedule(&rows()), Schedule::default());
    }

    #[test]
    fn a_machine_is_down_when_all_its_slaves_are_drained() {
        // semantics: K11
        let a = machine("a.example", "10.0.0.1");
        let schedule = Schedule {
            windows: vec![window(AT, vec![a.clone()])],
        };
        let mut rows = planned(&schedule);
        let draining = ClusterStatus {
            draining_machines: vec![DrainingMachine { id: a.clone() }],
            down_machines: Vec::new(),
        };
        assert_eq!(status(&rows), draining);
        let mode = SlaveMode::Draining {
            grace: None,
            mark_gone: false,
        };
        rows[0].slave.mode = mode;
        assert_eq!(status(&rows), draining, "one of two");
        rows[1].slave.mode = mode;
        let down = ClusterStatus {
            draining_machines: Vec::new(),
            down_machines: vec![a],
        };
        assert_eq!(status(&rows), down);
        // One that is drained without a plan is none of this.
        rows[2].slave.mode = mode;
        assert_eq!(status(&rows), down);
        let without = read_schedule(&Schedule::default(), &rows);
        let why = without.expect_err("a machine is down").to_string();
        assert!(why.contains("a.example (10.0.0.1) is down"), "{why}");
        assert!(read_schedule(&schedule, &rows).is_ok());
    }

    #[test]
    fn a_machine_is_found_by_either_name_and_what_is_none_is_refused() {
        let ids = |ids: &[u32]| ids.iter().copied().map(SlaveId).collect::<BTreeSet<_>>();
        let rows = rows();
        for (machine, expected) in [
            (machine("A.EXAMPLE", ""), &[0, 1][..]),
            (machine("", "10.0.0.2"), &[2]),
            (machine("a.example", "10.0.0.1"), &[0, 1]),
        ] {
            assert_eq!(slaves(&[machine], &rows), Ok(ids(expected)));
        }
        let a = machine("a.example", "10.0.0.1");
        for (machines, why) in [
            (vec![], "needs a machine"),
            (vec![machine("", "")], "a hostname or an ip"),
            (vec![machine("a.example", "10.0.0.2")], "no slave"),
            (vec![machine("c.example", "")], "no slave"),
            (vec![a.clone(), machine("", "10.0.0.1")], "twice"),
        ] {
            let refused = slaves(&machines, &rows).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
            let schedule = Schedule {
                windows: vec![window(AT, machines)],
            };
            let refused = read_schedule(&schedule, &rows).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let early = Schedule {
            windows: vec![window(-1, vec![a])],
        };
        assert!(read_schedule(&early, &rows).is_err());
    }
}
