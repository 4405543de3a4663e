//! Run times alone: one a line, in seconds, under the heading `runtime`.

use std::path::Path;
use std::time::Duration;

use super::{Fields, Lines, TraceError};

const NAMES: &[&str] = &["runtime"];

/// All run times; at least one.
pub(crate) fn read_philly(path: &Path) -> Result<Vec<Duration>, TraceError> {
    let mut lines = Lines::open(path)?;
    if lines.next()? != Some(NAMES[0]) {
        return Err(lines.broken("the first line is not \"runtime\""));
    }
    let mut runs = Vec::new();
    while let Some(line) = lines.next()? {
        let time = Fields::new(vec![line], NAMES).and_then(|fields| fields.seconds(0));
        runs.push(time.map_err(|what| lines.broken(what))?);
    }
    match runs.is_empty() {
        true => Err(lines.broken("there are no run times")),
        false => Ok(runs),
    }
}
