//! Real workloads from files: what arrives when, takes what and runs for how long.
//!
//! | format | what it is |
//! |---|---|
//! | `alibaba` | batch jobs whose tasks wait for each other (cluster-trace-v2018) |
//! | `openb` | pods on machines with GPUs, and the machines (cluster-trace-gpu-v2023) |
//! | `swf` | parallel jobs (Standard Workload Format 2.2) |
//! | `philly` | run times alone |
//!
//! A file may be compressed with xz (`.xz`). Whatever is in it, reading it takes bounded memory,
//! and a line that cannot be used is an error with its number.

mod alibaba;
mod openb;
mod philly;
mod swf;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lzma_rust2::XzReader;
use meros_proto::resources::Resources;

use alibaba::read_alibaba;
pub(crate) use openb::MODEL;
use openb::{read_openb_nodes, read_openb_pods};
use philly::read_philly;
use swf::read_swf;

use super::arrivals::{Listed, RUNS_MAX};
use super::file::{PhillyPart, TraceFormat, TracePart};
use super::plan::Place;
use crate::plan::SlavePlan;
use crate::prng::{digest, mix};

/// The most lines of a trace.
const LINES_MAX: usize = 2_000_000;
/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 4_096;
/// The most that a decompressor may take.
const XZ_MEMORY_KIB: u32 = 128 * 1_024;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Nobody has said where the traces are.
    #[error("{file} is a trace: say in which folder it is, with --traces or MEROS_TRACES")]
    NoFolder {
        /// As the scenario names it.
        file: String,
    },
    /// It cannot be opened or read.
    #[error("failed to read the trace {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line in it is broken.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what is expected.
        what: String,
    },
}

/// A trace that is being read.
pub(crate) struct Lines<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead + 'a>,
    line: usize,
    text: String,
}

impl<'a> Lines<'a> {
    /// Opens a file, compressed or not. Where there is no `x.xz`, an unpacked `x` does as well.
    pub(crate) fn open(path: &'a Path) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Read {
            path: path.to_owned(),
            source,
        };
        let mut is_compressed = path.extension().is_some_and(|it| it == "xz");
        let file = File::open(path).or_else(|error| {
            if !is_compressed || error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            is_compressed = false;
            // What was asked for is what is missing, if this is not there either.
            File::open(path.with_extension("")).map_err(|_| error)
        });
        let file = BufReader::new(file.map_err(failed)?);
        let reader: Box<dyn BufRead> = match is_compressed {
            true => {
                let reader = XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB);
                Box::new(BufReader::new(reader))
            }
            false => Box::new(file),
        };
        Ok(Self::new(path, reader))
    }

    fn new(path: &'a Path, reader: Box<dyn BufRead + 'a>) -> Self {
        Self {
            path,
            reader,
            line: 0,
            text: String::new(),
        }
    }

    /// The next line without its end; None at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<&str>, TraceError> {
        self.text.clear();
        self.line += 1;
        let read = self.reader.by_ref().take(LINE_BYTES_MAX);
        let bytes = { read }.read_line(&mut self.text);
        let bytes = bytes.map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => self.broken("this is not UTF-8 text, or not xz"),
            _ => TraceError::Read {
                path: self.path.to_owned(),
                source,
            },
        })?;
        if bytes == 0 {
            return Ok(None);
        }
        if self.line > LINES_MAX {
            return Err(self.broken(format!("at most {LINES_MAX} lines are read")));
        }
        if !self.text.ends_with('\n') && u64::try_from(bytes).is_ok_and(|it| it == LINE_BYTES_MAX) {
            let what = format!("the line is longer than {LINE_BYTES_MAX} bytes");
            return Err(self.broken(what));
        }
        Ok(Some(self.text.trim_end_matches(['\n', '\r'])))
    }

    /// An error at the present line.
    pub(crate) fn broken(&self, what: impl Into<String>) -> TraceError {
        TraceError::Line {
            path: self.path.to_owned(),
            line: self.line,
            what: what.into(),
        }
    }
}

/// The fields of one line, by name, for errors that name them.
pub(crate) struct Fields<'t> {
    values: Vec<&'t str>,
    names: &'static [&'static str],
}

impl<'t> Fields<'t> {
    /// There have to be exactly as many as names.
    pub(crate) fn new(
        values: Vec<&'t str>,
        names: &'static [&'static str],
    ) -> Result<Self, String> {
        match values.len() == names.len() {
            true => Ok(Self { values, names }),
            false => Err(format!(
                "there are {} fields, not {}: {}",
                values.len(),
                names.len(),
                names.join(", ")
            )),
        }
    }

    pub(crate) fn text(&self, at: usize) -> &'t str {
        self.values[at]
    }

    /// A number from `low` to `high`.
    pub(crate) fn number(&self, at: usize, low: f64, high: f64) -> Result<f64, String> {
        let text = self.values[at];
        let number = text.parse::<f64>().ok();
        number
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| {
                format!(
                    "{} is {text:?}: a number from {low} to {high} is expected",
                    self.names[at]
                )
            })
    }

    /// Whether it is empty.
    pub(crate) fn is_empty(&self, at: usize) -> bool {
        self.values[at].is_empty()
    }

    /// A time in seconds, up to a year.
    pub(crate) fn seconds(&self, at: usize) -> Result<Duration, String> {
        let seconds = self.number(at, 0.0, RUNS_MAX.as_secs_f64())?;
        Ok(Duration::from_secs_f64(seconds))
    }
}

/// The traces that a scenario names, in their folder.
#[derive(Debug)]
pub(crate) struct Traces<'a> {
    folder: Option<&'a Path>,
}

impl<'a> Traces<'a> {
    pub(crate) fn new(folder: Option<&'a Path>) -> Self {
        Self { folder }
    }

    fn path(&self, file: &str) -> Result<PathBuf, TraceError> {
        let folder = self.folder.ok_or_else(|| TraceError::NoFolder {
            file: file.to_owned(),
        })?;
        Ok(folder.join(file))
    }

    /// The tasks of one of the frameworks that share them, in order of arrival; of a scaled-down
    /// scenario a sample, the same whenever it is asked for.
    pub(crate) fn tasks(
        &self,
        part: &TracePart,
        scale: f64,
        place: Place,
    ) -> Result<Arc<[Listed]>, TraceError> {
        let path = self.path(&part.file)?;
        let sample = part.sample.map_or(1.0, |sample| sample.0);
        let keeps = |key: &[u8]| {
            let drawn = mix(digest(key));
            is_sampled(drawn, scale * sample)
                && mix(drawn) % u64::from(place.count) == u64::from(place.number)
        };
        let mut list = match part.format {
            TraceFormat::Alibaba => read_alibaba(&path, |job| keeps(job.as_bytes()))?,
            TraceFormat::Openb => pick(read_openb_pods(&path)?, keeps),
            TraceFormat::Swf => pick(read_swf(&path)?, keeps),
        };
        let speed = part.speed.map_or(1.0, |speed| speed.0);
        for task in &mut list {
            task.at = task.at.div_f64(speed);
            task.runs = task.runs.map(|runs| runs.div_f64(speed));
        }
        Ok(list.into())
    }

    /// Run times to draw from.
    pub(crate) fn runs(&self, part: &PhillyPart) -> Result<Arc<[Duration]>, TraceError> {
        let speed = part.speed.map_or(1.0, |speed| speed.0);
        let runs = read_philly(&self.path(&part.file)?)?;
        Ok(runs.into_iter().map(|runs| runs.div_f64(speed)).collect())
    }

    /// Machines as slaves.
    pub(crate) fn nodes(&self, file: &str, scale: f64) -> Result<Vec<SlavePlan>, TraceError> {
        let nodes = read_openb_nodes(&self.path(file)?)?;
        Ok(pick(nodes, |key| is_sampled(mix(digest(key)), scale)))
    }
}

/// Whether something with this digest is in a sample.
fn is_sampled(digest: u64, scale: f64) -> bool {
    (digest as f64) < scale * u64::MAX as f64 || scale >= 1.0
}

/// Those that are kept, by their place.
fn pick<T>(all: Vec<T>, mut keeps: impl FnMut(&[u8]) -> bool) -> Vec<T> {
    let numbered = all.into_iter().enumerate();
    let kept = numbered.filter(|(at, _)| keeps(&(*at as u64).to_le_bytes()));
    kept.map(|(_, it)| it).collect()
}

/// Resources by amount, each made once.
#[derive(Debug, Default)]
pub(crate) struct Shapes(BTreeMap<[u64; 3], Arc<Resources>>);

impl Shapes {
    /// So many thousandths of a cpu, MiB and gpus.
    pub(crate) fn of(
        &mut self,
        cpu_milli: u64,
        mem: u64,
        gpus: u64,
    ) -> Result<Arc<Resources>, String> {
        let key = [cpu_milli, mem, gpus];
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let mut text = String::new();
        for (name, thousandths) in [
            ("cpus", cpu_milli),
            ("mem", mem * 1_000),
            ("gpus", gpus * 1_000),
        ] {
            if thousandths > 0 {
                let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
                text.push_str(&format!("{name}:{whole}.{rest:03};"));
            }
        }
        let resources: Resources = text
            .trim_end_matches(';')
            .parse()
            .map_err(|error| format!("these are not resources: {error}"))?;
        if resources.is_empty() {
            return Err("it takes no resources at all".to_owned());
        }
        Ok(self.0.entry(key).or_insert(Arc::new(resources)).clone())
    }
}

/// A whole number; those that come here are checked to be small and not negative.
pub(crate) fn whole(number: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked where it was read, and a cast saturates"
    )]
    let whole = number.round() as u64;
    whole
}

#[cfg(test)]
mod tests;
