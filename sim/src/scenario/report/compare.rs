//! Several runs of one scenario beside each other.

use super::table::{layout, percent, time};
use super::{Report, Waits};

/// One table for a sweep; for a comparison what each run changes, as text. Empty for one run alone.
#[must_use]
pub fn differences(reports: &[Report]) -> String {
    match reports {
        [] | [_] => String::new(),
        [first, ..] if first.step_of.is_some() => sweep(reports),
        [first, others @ ..] => others
            .iter()
            .map(|other| pair(first, other))
            .collect::<Vec<_>>()
            .join("\n\n"),
    }
}

/// A row for each step and group.
fn sweep(reports: &[Report]) -> String {
    let wait = |wait: Option<&Waits>, of: fn(&Waits) -> f64| {
        wait.map_or("-".to_owned(), |wait| time(of(wait)))
    };
    let mut rows = Vec::new();
    for report in reports {
        let used = report.resources.first().map_or(0.0, |it| it.used_mean);
        let offered = report.resources.first().map_or(0.0, |it| it.offered_mean);
        for group in &report.frameworks {
            let waits = group.wait.as_ref();
            rows.push(vec![
                report.variant.clone(),
                group.name.clone(),
                wait(waits, |it| it.p50),
                wait(waits, |it| it.p99),
                group.finished.to_string(),
                group.pending.to_string(),
                percent(group.share_mean),
                percent(used),
                percent(offered),
            ]);
        }
    }
    let first = reports.first().and_then(|it| it.resources.first());
    let name = first.map_or("", |it| it.name.as_str()).to_uppercase();
    let headings = [
        "STEP",
        "FRAMEWORKS",
        "WAIT p50",
        "p99",
        "FINISHED",
        "WAITING",
        "SHARE",
        &format!("{name} USED"),
        &format!("{name} OFFERED"),
    ];
    layout(&headings, rows)
}

/// What the second run changes.
fn pair(first: &Report, second: &Report) -> String {
    let mut rows = Vec::new();
    let mut row = |what: String, values: [Option<f64>; 2], show: fn(f64) -> String| {
        let [before, after] = values;
        let text = |value: Option<f64>| value.map_or("-".to_owned(), show);
        let change = match (before, after) {
            (Some(before), Some(after)) if before != 0.0 => {
                format!("{:+.1}%", (after / before - 1.0) * 100.0)
            }
            _ => String::new(),
        };
        rows.push(vec![what, text(before), text(after), change]);
    };
    let both = [first, second];
    let number: fn(f64) -> String = |value| format!("{value:.0}");
    let index: fn(f64) -> String = |value| format!("{value:.3}");
    for resource in &first.resources {
        let used = both.map(|report| {
            let found = report.resources.iter().find(|it| it.name == resource.name);
            found.map(|it| it.used_mean)
        });
        row(format!("{} used", resource.name), used, percent);
    }
    let fairness = both.map(|report| report.fairness.map(|it| it.mean));
    row("fairness".to_owned(), fairness, index);
    row(
        "offers".to_owned(),
        both.map(|it| Some(it.offers.made as f64)),
        number,
    );
    for group in &first.frameworks {
        let name = &group.name;
        let of = |value: fn(&super::FrameworksReport) -> Option<f64>| {
            both.map(|report| report.group(name).and_then(value))
        };
        row(
            format!("{name}: finished"),
            of(|it| Some(it.finished as f64)),
            number,
        );
        row(
            format!("{name}: lost"),
            of(|it| Some(it.lost as f64)),
            number,
        );
        row(
            format!("{name}: share"),
            of(|it| Some(it.share_mean)),
            percent,
        );
        row(
            format!("{name}: wait p50"),
            of(|it| Some(it.wait?.p50)),
            time,
        );
        row(
            format!("{name}: wait p99"),
            of(|it| Some(it.wait?.p99)),
            time,
        );
    }
    layout(&["", &first.variant, &second.variant, "CHANGE"], rows)
}
