//! A report for people at a terminal.

use std::fmt::Write as _;

use super::table::{layout, number, percent, time};
use super::{FrameworksReport, Report};

/// The whole report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        writeln!(out, "{text}").expect("a string takes everything");
    };
    let variant = match report.variant.is_empty() {
        true => String::new(),
        false => format!(": {}", report.variant),
    };
    line(format!("{}{variant}", report.title));
    line(format!(
        "{} simulated on {} slaves, seed {}, scale {}; {} happenings, hash {}",
        time(report.simulated_seconds),
        number(report.slaves),
        report.seed,
        report.scale,
        number(report.happenings),
        report.hash
    ));
    line(String::new());
    line(resources(report));
    line(String::new());
    line(frameworks(report));
    line(String::new());
    let offers = &report.offers;
    line(format!(
        "offers: {} made, {} used, {} declined, {} taken back, {} held for too long",
        number(offers.made),
        number(offers.accepted),
        number(offers.declined),
        number(offers.rescinded),
        number(offers.timed_out)
    ));
    if let Some(fairness) = &report.fairness {
        line(format!(
            "fairness among frameworks with work waiting (1 is even): {:.3} on average, {:.3} at worst",
            fairness.mean, fairness.min
        ));
    }
    for failover in &report.failovers {
        let after = |time_of: Option<f64>| time_of.map_or("never".to_owned(), time);
        line(format!(
            "failover at {}: a leader after {}, offers after {}, launches after {}, all {} slaves after {}",
            time(failover.at),
            after(failover.led_after),
            after(failover.offered_after),
            after(failover.launched_after),
            number(failover.slaves),
            after(failover.slaves_back_after)
        ));
    }
    line(String::new());
    line(wall(report));
    out
}

fn resources(report: &Report) -> String {
    let rows = report.resources.iter().map(|it| {
        vec![
            it.name.clone(),
            format!("{:.0}", it.total),
            percent(it.used_mean),
            percent(it.used_max),
            percent(it.offered_mean),
        ]
    });
    let headings = [
        "RESOURCE",
        "TOTAL",
        "USED (MEAN)",
        "USED (MAX)",
        "OFFERED (MEAN)",
    ];
    layout(&headings, rows.collect())
}

fn frameworks(report: &Report) -> String {
    let all = (report.frameworks.len() > 1).then_some(&report.total);
    let rows = report.frameworks.iter().chain(all).map(framework);
    let headings = [
        "FRAMEWORKS",
        "N",
        "READY",
        "FINISHED",
        "FAILED",
        "LOST",
        "WAITING",
        "WAIT p50",
        "p90",
        "p99",
        "MAX",
        "SHARE",
        "OFFERS",
        "DECLINED",
    ];
    layout(&headings, rows.collect())
}

fn framework(it: &FrameworksReport) -> Vec<String> {
    let wait = |of: fn(&super::Waits) -> f64| {
        let wait = it.wait.as_ref();
        wait.map_or("-".to_owned(), |wait| time(of(wait)))
    };
    vec![
        it.name.clone(),
        number(it.count),
        number(it.submitted),
        number(it.finished),
        number(it.failed),
        number(it.lost),
        number(it.pending),
        wait(|it| it.p50),
        wait(|it| it.p90),
        wait(|it| it.p99),
        wait(|it| it.max),
        percent(it.share_mean),
        number(it.offers),
        number(it.declined),
    ]
}

/// What depends on the machine and the moment.
fn wall(report: &Report) -> String {
    let wall = &report.wall;
    let memory = wall
        .memory_mib
        .map_or(String::new(), |mib| format!(", {mib:.0} MiB of memory"));
    let hour = wall.cpu_seconds_per_simulated_hour;
    let cpu = hour.map_or(String::new(), |seconds| {
        format!(" ({seconds:.1} s of one processor for a simulated hour)")
    });
    format!(
        "real time (differs from run to run): {:.1} s{cpu}, \
         {:.0} happenings/s{memory}\n\
         of it {:.1} s in the master's core and {:.1} s in the slaves'; \
         an event of the master took {:.1} us (p50), {:.1} us (p99), {:.0} us (max); \
         one that made offers {:.1} us, {:.1} us, {:.0} us",
        wall.seconds,
        wall.happenings_per_second,
        wall.master_seconds,
        wall.slaves_seconds,
        wall.master_event.p50,
        wall.master_event.p99,
        wall.master_event.max,
        wall.master_decision.p50,
        wall.master_decision.p99,
        wall.master_decision.max,
    )
}
