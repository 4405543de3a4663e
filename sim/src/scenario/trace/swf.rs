//! Parallel jobs in the Standard Workload Format: 18 numbers a line, -1 where nothing is known.

use std::path::Path;
use std::time::Duration;

use super::{Fields, Lines, Shapes, TraceError, whole};
use crate::scenario::arrivals::Listed;

const NAMES: &[&str] = &[
    "job",
    "submit",
    "wait",
    "run",
    "procs used",
    "cpu used",
    "mem used",
    "procs requested",
    "time requested",
    "mem requested",
    "status",
    "user",
    "group",
    "app",
    "queue",
    "partition",
    "preceding job",
    "think time",
];
const NUMBER_MAX: f64 = 1e12;
/// The most processors of one job.
const PROCS_MAX: f64 = 100_000.0;

/// Jobs in order of submission: as many tasks of one cpu as a job used processors. Jobs that never
/// ran, or of which that is not known, are left out.
pub(crate) fn read_swf(path: &Path) -> Result<Vec<Listed>, TraceError> {
    let mut lines = Lines::open(path)?;
    let mut shapes = Shapes::default();
    let mut jobs = Vec::new();
    while let Some(line) = lines.next()? {
        if line.starts_with(';') || line.trim().is_empty() {
            continue;
        }
        let job = parse(line, &mut shapes);
        jobs.extend(job.map_err(|what| lines.broken(what))?);
    }
    jobs.sort_by_key(|job: &Listed| job.at);
    Ok(jobs)
}

fn parse(line: &str, shapes: &mut Shapes) -> Result<Option<Listed>, String> {
    let fields = Fields::new(line.split_whitespace().collect(), NAMES)?;
    for at in 0..NAMES.len() {
        fields.number(at, -1.0, NUMBER_MAX)?;
    }
    let used = fields.number(4, -1.0, PROCS_MAX)?;
    let procs = match used > 0.0 {
        true => used,
        false => fields.number(7, -1.0, PROCS_MAX)?,
    };
    let run = fields.number(3, -1.0, NUMBER_MAX)?;
    if procs < 1.0 || run < 0.0 {
        return Ok(None);
    }
    let mem_kib = fields.number(6, -1.0, NUMBER_MAX)?;
    let mem = whole((mem_kib / 1_024.0).clamp(1.0, 1e6));
    Ok(Some(Listed {
        at: fields.seconds(1)?,
        resources: shapes.of(1_000, mem, 0)?,
        runs: Some(Duration::from_secs_f64(run.min(3e7))),
        count: u32::try_from(whole(procs)).expect("checked above"),
        waits_for: 0,
        unlocks: Vec::new(),
        models: None,
    }))
}
