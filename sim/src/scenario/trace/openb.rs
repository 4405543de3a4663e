//! Pods and machines of a cluster with GPUs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::attribute::Attributes;

use super::{Fields, Lines, Shapes, TraceError, whole};
use crate::plan::SlavePlan;
use crate::scenario::arrivals::Listed;

const NODE_NAMES: &[&str] = &["sn", "cpu_milli", "memory_mib", "gpu", "model"];
const POD_NAMES: &[&str] = &[
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "qos",
    "pod_phase",
    "creation_time",
    "deletion_time",
    "scheduled_time",
];
/// The attribute of a slave that says which GPUs it has.
pub(crate) const MODEL: &str = "gpu_model";

/// Machines as slaves, with the model of their GPUs as an attribute.
pub(crate) fn read_openb_nodes(path: &Path) -> Result<Vec<SlavePlan>, TraceError> {
    let mut lines = Lines::open(path)?;
    check_header(&mut lines, NODE_NAMES)?;
    let mut shapes = Shapes::default();
    let mut slaves = Vec::new();
    while let Some(line) = lines.next()? {
        let slave = node(line, &mut shapes);
        slaves.push(slave.map_err(|what| lines.broken(what))?);
    }
    Ok(slaves)
}

fn node(line: &str, shapes: &mut Shapes) -> Result<SlavePlan, String> {
    let fields = Fields::new(line.split(',').collect(), NODE_NAMES)?;
    let cpu_milli = whole(fields.number(1, 1.0, 1e9)?);
    let mem = whole(fields.number(2, 0.0, 1e9)?);
    let gpus = whole(fields.number(3, 0.0, 1_000.0)?);
    let mut pairs = Vec::new();
    if !fields.is_empty(4) {
        pairs.push((MODEL.to_owned(), fields.text(4).to_owned()));
    }
    Ok(SlavePlan {
        resources: shapes.of(cpu_milli, mem, gpus)?.as_ref().clone(),
        attributes: Attributes::new(pairs).map_err(|error| error.to_string())?,
    })
}

/// Pods in order of creation. GPUs of the kernel are whole: a pod that wants a part of one takes
/// one. A pod without an end runs for ever.
pub(crate) fn read_openb_pods(path: &Path) -> Result<Vec<Listed>, TraceError> {
    let mut lines = Lines::open(path)?;
    check_header(&mut lines, POD_NAMES)?;
    let mut shapes = Shapes::default();
    let mut pods = Vec::new();
    while let Some(line) = lines.next()? {
        let pod = pod(line, &mut shapes);
        pods.push(pod.map_err(|what| lines.broken(what))?);
    }
    pods.sort_by_key(|pod: &Listed| pod.at);
    Ok(pods)
}

fn pod(line: &str, shapes: &mut Shapes) -> Result<Listed, String> {
    let fields = Fields::new(line.split(',').collect(), POD_NAMES)?;
    let cpu_milli = whole(fields.number(1, 0.0, 1e9)?);
    let mem = whole(fields.number(2, 0.0, 1e9)?);
    let gpus = whole(fields.number(3, 0.0, 1_000.0)?);
    let at = fields.seconds(8)?;
    let began = match fields.is_empty(10) {
        true => at,
        false => fields.seconds(10)?,
    };
    let runs: Option<Duration> = match fields.is_empty(9) {
        true => None,
        false => Some(fields.seconds(9)?.saturating_sub(began)),
    };
    let models = fields.text(5).split('|').filter(|model| !model.is_empty());
    let models: Vec<String> = models.map(str::to_owned).collect();
    Ok(Listed {
        at,
        resources: shapes.of(cpu_milli, mem, gpus)?,
        runs,
        count: 1,
        waits_for: 0,
        unlocks: Vec::new(),
        models: (!models.is_empty()).then(|| Arc::from(models)),
    })
}

fn check_header(lines: &mut Lines<'_>, names: &[&str]) -> Result<(), TraceError> {
    let header = lines.next()?.unwrap_or_default().to_owned();
    match header.split(',').eq(names.iter().copied()) {
        true => Ok(()),
        false => Err(lines.broken(format!("the first line is not {:?}", names.join(",")))),
    }
}
