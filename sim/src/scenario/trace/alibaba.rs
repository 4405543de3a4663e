//! Alibaba's batch jobs: the name of a task says which tasks of its job it waits for.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Fields, Lines, Shapes, TraceError, whole};
use crate::scenario::arrivals::Listed;

const NAMES: &[&str] = &[
    "arrival_s",
    "job",
    "task",
    "duration_s",
    "plan_cpu",
    "plan_mem",
    "instances",
];
/// What `plan_mem` is a hundredth of: a machine of the traced cluster, in MiB.
const MACHINE_MEM: f64 = 512.0 * 1_024.0;

/// Groups of instances in order of arrival; of each job those are left out for which `keep` says no.
pub(crate) fn read_alibaba(
    path: &Path,
    mut keep: impl FnMut(&str) -> bool,
) -> Result<Vec<Listed>, TraceError> {
    let mut lines = Lines::open(path)?;
    let mut shapes = Shapes::default();
    let mut list: Vec<Listed> = Vec::new();
    // By job and number, and whom each one waits for.
    let mut places: BTreeMap<(String, u32), u32> = BTreeMap::new();
    let mut waits: Vec<(u32, String, Vec<u32>)> = Vec::new();
    while let Some(line) = lines.next()? {
        let parsed = parse(line, &mut shapes);
        let (job, numbers, listed) = parsed.map_err(|what| lines.broken(what))?;
        if !keep(&job) {
            continue;
        }
        if list.last().is_some_and(|last| last.at > listed.at) {
            return Err(lines.broken("it arrives before the line above: lines are in order"));
        }
        let place = u32::try_from(list.len()).expect("lines are bounded");
        list.push(listed);
        if let Some((own, others)) = numbers.split_first() {
            places.insert((job.clone(), *own), place);
            // A task of a later number is what this one's name cannot mean: it is left alone, so
            // that nobody waits in a circle.
            let others = others.iter().filter(|other| *other < own);
            waits.push((place, job, others.copied().collect()));
        }
    }
    for (place, job, others) in waits {
        for other in others {
            // Of tasks that the sample has left out nobody waits.
            let Some(first) = places.get(&(job.clone(), other)) else {
                continue;
            };
            let [first, second] = [*first, place].map(|at| usize::try_from(at).expect("32 bits"));
            list[first].unlocks.push(place);
            list[second].waits_for += 1;
        }
    }
    Ok(list)
}

fn parse(line: &str, shapes: &mut Shapes) -> Result<(String, Vec<u32>, Listed), String> {
    let fields = Fields::new(line.split(',').collect(), NAMES)?;
    let cpu_milli = whole(fields.number(4, 0.0, 100_000.0)? * 10.0);
    let mem = whole(fields.number(5, 0.0, 100.0)? / 100.0 * MACHINE_MEM);
    let count = whole(fields.number(6, 1.0, 100_000.0)?);
    let listed = Listed {
        at: fields.seconds(0)?,
        resources: shapes.of(cpu_milli, mem, 0)?,
        runs: Some(fields.seconds(3)?),
        count: u32::try_from(count).expect("checked above"),
        waits_for: 0,
        unlocks: Vec::new(),
        models: None,
    };
    Ok((fields.text(1).to_owned(), numbers(fields.text(2)), listed))
}

/// `R23_22` is number 23 and waits for 22; a name without such a form waits for nobody.
fn numbers(name: &str) -> Vec<u32> {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let prefix = name.len() - digits.len();
    let numbers: Option<Vec<u32>> = digits.split('_').map(|it| it.parse().ok()).collect();
    match prefix {
        1 => numbers.unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_waits_for_whom() {
        assert_eq!(numbers("R23_22"), [23, 22]);
        assert_eq!(numbers("J24_20_23"), [24, 20, 23]);
        assert_eq!(numbers("M1"), [1]);
        assert_eq!(numbers("task_Nzg3ODAx"), [] as [u32; 0]);
        assert_eq!(numbers("MergeTask"), [] as [u32; 0]);
    }
}
