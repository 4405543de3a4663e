//! A report as one page that needs nothing from elsewhere: tables, charts, a style sheet.

use super::svg::{Chart, Line};
use super::text::text;
use super::{Report, Series};

const STYLE: &str = include_str!("style.css");

/// The page of these reports: one run, or the runs that are compared.
#[must_use]
pub fn page(reports: &[Report], differences: &str) -> String {
    let title = reports.first().map_or("", |report| report.title.as_str());
    let mut body = String::new();
    if !differences.is_empty() {
        body.push_str(&format!(
            "<h2>Comparison</h2><pre>{}</pre>",
            escape(differences)
        ));
        body.push_str(&overview(reports));
    }
    for report in reports {
        let variant = match report.variant.is_empty() {
            true => "Run",
            false => report.variant.as_str(),
        };
        body.push_str(&format!("<h2>{}</h2>", escape(variant)));
        body.push_str(&format!("<pre>{}</pre>", escape(&text(report))));
        charts(&report.series)
            .iter()
            .for_each(|chart| body.push_str(&chart.figure()));
    }
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n\
         <body><main><h1>{title}</h1>\n{body}</main></body></html>\n"
    )
}

/// A text in which nothing is taken for markup.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The waits of each group by run: the plot of a sweep.
fn overview(reports: &[Report]) -> String {
    let Some(first) = reports.first() else {
        return String::new();
    };
    let line = |name: &str, dashed: bool, of: fn(&super::Waits) -> f64| Line {
        name: format!("{name} {}", if dashed { "p99" } else { "p50" }),
        points: reports
            .iter()
            .enumerate()
            .filter_map(|(at, report)| {
                let wait = report.group(name)?.wait.as_ref()?;
                Some((report.step.unwrap_or(at as f64), of(wait)))
            })
            .collect(),
        dashed,
    };
    let lines = first
        .frameworks
        .iter()
        .flat_map(|group| {
            [
                line(&group.name, false, |wait| wait.p50),
                line(&group.name, true, |wait| wait.p99),
            ]
        })
        .collect();
    Chart {
        title: "Waits by run".to_owned(),
        x_label: first.step_of.clone().unwrap_or_else(|| "run".to_owned()),
        y_label: "wait, seconds".to_owned(),
        lines,
    }
    .figure()
}

fn charts(series: &Series) -> Vec<Chart> {
    let long = series.seconds.last().is_some_and(|last| *last >= 7_200.0);
    let (unit, x_label) = match long {
        true => (3_600.0, "hours"),
        false => (60.0, "minutes"),
    };
    let line = |name: &str, values: Vec<f64>, dashed: bool| Line {
        name: name.to_owned(),
        points: series
            .seconds
            .iter()
            .zip(values)
            .filter(|(_, value)| value.is_finite())
            .map(|(at, value)| (at / unit, value))
            .collect(),
        dashed,
    };
    let percent = |values: &[f64]| values.iter().map(|value| value * 100.0).collect();
    let whole = |values: &[u64]| values.iter().map(|value| *value as f64).collect();
    let chart = |title: &str, y_label: &str, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        x_label: x_label.to_owned(),
        y_label: y_label.to_owned(),
        lines,
    };
    let mut utilisation: Vec<Line> = Vec::new();
    for resource in &series.resources {
        utilisation.push(line(
            &format!("{} used", resource.name),
            percent(&resource.used),
            false,
        ));
    }
    for resource in &series.resources {
        let name = format!("{} offered", resource.name);
        utilisation.push(line(&name, percent(&resource.offered), true));
    }
    let groups = || series.frameworks.iter();
    let fairness: Vec<f64> = series
        .fairness
        .iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect();
    vec![
        chart("Utilisation", "percent", utilisation),
        chart(
            "Dominant shares",
            "percent",
            groups()
                .map(|it| line(&it.name, percent(&it.share), false))
                .collect(),
        ),
        chart(
            "Tasks that wait",
            "tasks",
            groups()
                .map(|it| line(&it.name, whole(&it.pending), false))
                .collect(),
        ),
        chart(
            "Tasks that run",
            "tasks",
            groups()
                .map(|it| line(&it.name, whole(&it.live), false))
                .collect(),
        ),
        chart(
            "Fairness (Jain's index) among frameworks with work waiting",
            "index",
            vec![line("fairness", fairness, false)],
        ),
        chart(
            "Registered slaves",
            "slaves",
            vec![line("slaves", whole(&series.slaves), false)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_taken_for_markup() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
