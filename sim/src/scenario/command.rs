//! `run FILE`: a scenario from the command line.

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::file::Scenario;
use super::report::{Report, differences, page, text};
use super::run::{Progress, RunOptions, run};

/// `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The scenario, a TOML file
    file: PathBuf,
    /// What chance begins with, instead of the scenario's own seed
    #[arg(long)]
    seed: Option<u64>,
    /// Multiply slaves and arrivals by this
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// For whom to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// The folder with the traces that the scenario names
    #[arg(long, value_name = "DIR", env = "MEROS_TRACES")]
    traces: Option<PathBuf>,
    /// Check all invariants after every event, which takes most of the time
    #[arg(long)]
    check: bool,
}

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1_000.0 => Ok(scale),
        _ => Err("a number above 0 and up to 1000 is allowed".to_owned()),
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl RunArgs {
    /// Runs the scenario and prints what it has shown; what went wrong as a text.
    ///
    /// # Errors
    /// The scenario is not allowed, an invariant does not hold, or a file cannot be written.
    pub(crate) fn run(&self) -> Result<(), String> {
        let scenario = Scenario::read(&self.file).map_err(|error| chain(&error))?;
        let options = RunOptions {
            seed: self.seed,
            scale: self.scale,
            checks: self.check,
            traces: self.traces.clone(),
        };
        let variants = scenario.variants().map_err(|error| chain(&error))?;
        let mut reports = Vec::new();
        for variant in &variants {
            let bar = Bar::new(&variant.name);
            let report = run(variant, &options, |progress| bar.show(progress));
            bar.bar.finish_and_clear();
            reports.push(report.map_err(|error| chain(&error))?);
        }
        self.print(&reports)
    }

    fn print(&self, reports: &[Report]) -> Result<(), String> {
        let differences = differences(reports);
        if let Some(path) = &self.html {
            std::fs::write(path, page(reports, &differences))
                .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
        }
        match self.output {
            Output::Text => {
                reports
                    .iter()
                    .for_each(|report| println!("{}", text(report)));
                println!("{differences}");
            }
            Output::Json => {
                let runs: Vec<_> = reports.iter().map(Report::json).collect();
                println!("{:#}", serde_json::json!({ "runs": runs }));
            }
        }
        Ok(())
    }
}

/// How far a run has come, for a terminal at stderr.
struct Bar {
    bar: ProgressBar,
    began: Instant,
    what: String,
}

impl Bar {
    fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr());
        let style = "{elapsed_precise} {bar:30} {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a well-formed template"));
        #[expect(
            clippy::disallowed_methods,
            reason = "how fast it is, for people; no run depends on it"
        )]
        let began = Instant::now();
        let what = what.to_owned();
        Self { bar, began, what }
    }

    fn show(&self, progress: Progress) {
        let per_mille =
            progress.simulated.as_millis() * 1_000 / progress.duration.as_millis().max(1);
        self.bar
            .set_position(u64::try_from(per_mille).unwrap_or(1_000));
        let seconds = self.began.elapsed().as_secs_f64().max(1e-6);
        let simulated = progress.simulated.as_secs_f64();
        self.bar.set_message(format!(
            "{} {} of {} simulated, {:.0} times real time, {:.0} happenings/s",
            self.what,
            super::report::time(simulated),
            super::report::time(progress.duration.as_secs_f64()),
            simulated / seconds,
            progress.steps as f64 / seconds,
        ));
    }
}
