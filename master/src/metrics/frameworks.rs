//! Metrics of each framework: how it treats its offers.

use std::fmt;

use meros_daemon::metrics::Out;
use meros_proto::view::{FrameworkRow, FrameworkState};

use crate::projection::Page;

/// Writes how frameworks treat their offers, those that are completed not among them.
pub(super) fn encode(out: &mut Out<'_, '_>, frameworks: &Page<FrameworkRow>) -> fmt::Result {
    let live = |row: &&FrameworkRow| row.framework.state != FrameworkState::Completed;
    let rows: Vec<&FrameworkRow> = frameworks.rows.iter().filter(live).collect();
    let label = |row: &FrameworkRow| [("framework", row.framework.framework_id.to_string())];
    let hoarding = rows.iter().filter(|row| row.framework.offers_max.is_some());
    out.gauge(
        "frameworks_hoarding",
        "Frameworks that keep offers long without using them, and get fewer at a time",
        hoarding.count() as u64,
    )?;
    out.gauges(
        "framework_offers",
        "Offers that a framework holds unanswered",
        rows.iter().map(|row| (label(row), row.offers)),
    )?;
    out.counters(
        "framework_offers_ended",
        "Offers of a framework that have ended, in whatever way",
        rows.iter().map(|row| (label(row), row.offers_ended)),
    )?;
    out.counters(
        "framework_offers_unused",
        "Those of them that it did not accept",
        rows.iter().map(|row| (label(row), row.offers_unused)),
    )?;
    out.gauges(
        "framework_offers_held_seconds",
        "How long a framework keeps offers, on average",
        rows.iter()
            .map(|row| (label(row), row.offers_held_mean.as_secs_f64())),
    )
}
