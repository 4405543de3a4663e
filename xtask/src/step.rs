//! A step: one command with a heading, a clock and a verdict.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The cargo that started us, so that a chosen toolchain stays chosen.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// With which a command of ours ends that cannot do its work on this machine and has said why.
pub(crate) const SKIPPED: u8 = 77;

/// The folder of the project.
pub(crate) fn root() -> PathBuf {
    // Asked for at run time first: two clones may share one target directory.
    let own = env::var_os("CARGO_MANIFEST_DIR");
    let own = own.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// One command of a run.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What the summary calls it.
    pub(crate) name: &'static str,
    /// The program and its arguments; `cargo` is the cargo that started us.
    pub(crate) command: Vec<&'static str>,
    /// Set for this command only.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether the steps after it make no sense when it fails.
    pub(crate) gates: bool,
}

impl Step {
    /// A step that runs `command`, split at spaces, and does not stop the run.
    pub(crate) fn new(name: &'static str, command: &'static str) -> Self {
        let command = command.split(' ').collect();
        Self {
            name,
            command,
            environment: Vec::new(),
            gates: false,
        }
    }

    /// Ends the run when the command fails.
    pub(crate) fn gating(self) -> Self {
        Self {
            gates: true,
            ..self
        }
    }

    /// Sets a variable for the command.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs the command to its end, its output going where ours goes.
    fn run(&self, root: &Path) -> Verdict {
        let Some((&program, arguments)) = self.command.split_first() else {
            return Verdict::Failed("names no program".to_owned());
        };
        let mut command = if program == "cargo" {
            cargo()
        } else {
            Command::new(program)
        };
        let status = command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(root)
            .status();
        match status {
            Ok(status) if status.success() => Verdict::Passed,
            Ok(status) if status.code() == Some(SKIPPED.into()) => Verdict::Skipped,
            Ok(status) => Verdict::Failed(status.to_string()),
            Err(error) => Verdict::Failed(format!("cannot run {program}: {error}")),
        }
    }
}

impl fmt::Display for Step {
    /// As a shell takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={value:?} ")?;
        }
        f.write_str(&self.command.join(" "))
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// It has said why.
    Skipped,
    /// With the reason.
    Failed(String),
    /// A gating step failed before it.
    NotRun,
}

/// How a run went, step by step.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Verdict, Duration)>,
}

impl Report {
    /// Whether every step passed, or could not be done here.
    pub(crate) fn passed(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        let verdicts = self.rows.iter().map(|(_, verdict, _)| verdict);
        verdicts
            .filter(|verdict| !matches!(verdict, Verdict::Passed | Verdict::Skipped))
            .count()
    }
}

impl fmt::Display for Report {
    /// A table: verdict, elapsed time, name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.rows.iter().map(|(.., elapsed)| *elapsed).sum();
        for (name, verdict, elapsed) in &self.rows {
            let elapsed = Clock(*elapsed);
            match verdict {
                Verdict::Passed => writeln!(f, "  passed  {elapsed}  {name}")?,
                Verdict::Skipped => {
                    writeln!(f, "  skipped {elapsed}  {name}: the reason is above")?
                }
                Verdict::Failed(reason) => writeln!(f, "  FAILED  {elapsed}  {name}: {reason}")?,
                Verdict::NotRun => writeln!(f, "  not run         {name}")?,
            }
        }
        let skipped = self
            .rows
            .iter()
            .filter(|(_, verdict, _)| *verdict == Verdict::Skipped)
            .count();
        match (self.failed(), skipped) {
            (0, 0) => write!(
                f,
                "all {} steps passed in {}",
                self.rows.len(),
                Clock(total)
            ),
            (0, skipped) => write!(
                f,
                "{} steps passed in {}, {skipped} skipped",
                self.rows.len() - skipped,
                Clock(total)
            ),
            (failed, _) => write!(
                f,
                "{failed} of {} steps did not pass, after {}",
                self.rows.len(),
                Clock(total)
            ),
        }
    }
}

/// Minutes and seconds.
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        f.pad(&format!("{:>3}:{:02}", seconds / 60, seconds % 60))
    }
}

/// Runs `steps` in order below `root`, each under a heading, and prints a summary.
///
/// A step that fails does not hide what the later ones would find, unless it gates them.
pub(crate) fn run(steps: &[Step], root: &Path) -> Report {
    let mut report = Report::default();
    let mut stopped = false;
    for (index, step) in steps.iter().enumerate() {
        if stopped {
            report
                .rows
                .push((step.name, Verdict::NotRun, Duration::ZERO));
            continue;
        }
        println!(
            "\n==> [{}/{}] {}: {step}",
            index + 1,
            steps.len(),
            step.name
        );
        let start = Instant::now();
        let verdict = step.run(root);
        let elapsed = start.elapsed();
        match &verdict {
            Verdict::Failed(reason) => println!(
                "==> {} FAILED after {}: {reason}",
                step.name,
                Clock(elapsed)
            ),
            Verdict::Skipped => println!("==> {} skipped after {}", step.name, Clock(elapsed)),
            _ => println!("==> {} passed in {}", step.name, Clock(elapsed)),
        }
        stopped = step.gates && matches!(verdict, Verdict::Failed(_));
        report.rows.push((step.name, verdict, elapsed));
    }
    println!("\n==> summary\n{report}");
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(steps: &[Step]) -> Vec<Verdict> {
        run(steps, &root())
            .rows
            .into_iter()
            .map(|(_, verdict, _)| verdict)
            .collect()
    }

    #[test]
    fn a_failed_step_does_not_hide_the_next_one() {
        let found = verdicts(&[Step::new("a", "false"), Step::new("b", "true")]);
        assert!(
            matches!(found[..], [Verdict::Failed(_), Verdict::Passed]),
            "{found:?}"
        );
    }

    #[test]
    fn nothing_runs_after_a_failed_gate() {
        let found = verdicts(&[Step::new("a", "false").gating(), Step::new("b", "true")]);
        assert!(
            matches!(found[..], [Verdict::Failed(_), Verdict::NotRun]),
            "{found:?}"
        );
    }

    #[test]
    fn a_step_that_cannot_be_done_here_is_skipped_and_stops_nothing() {
        let mut step = Step::new("a", "sh -c").gating();
        step.command.push("exit 77");
        let report = run(&[step, Step::new("b", "true")], &root());
        let verdicts: Vec<_> = report.rows.iter().map(|(_, verdict, _)| verdict).collect();
        assert_eq!(verdicts, [&Verdict::Skipped, &Verdict::Passed]);
        assert!(report.passed());
        let shown = report.to_string();
        assert!(
            shown.starts_with("  skipped   0:00  a: the reason is above\n"),
            "{shown}"
        );
        assert!(
            shown.ends_with("1 steps passed in   0:00, 1 skipped"),
            "{shown}"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_fails_its_step() {
        let found = verdicts(&[Step::new("a", "no-such-program-of-ours")]);
        assert!(
            matches!(&found[..], [Verdict::Failed(why)] if why.contains("no-such-program-of-ours"))
        );
    }

    #[test]
    fn a_step_has_its_own_environment_and_prints_as_a_shell_takes_it() {
        let step = Step::new("a", "sh -c").with("MEROS_XTASK_TEST", "a b");
        assert_eq!(step.to_string(), "MEROS_XTASK_TEST=\"a b\" sh -c");
        let mut step = step;
        step.command.push("test \"$MEROS_XTASK_TEST\" = 'a b'");
        assert_eq!(verdicts(&[step]), [Verdict::Passed]);
    }

    #[test]
    fn the_summary_says_what_passed_what_failed_and_what_did_not_run() {
        let report = Report {
            rows: vec![
                ("format", Verdict::Passed, Duration::from_secs(2)),
                (
                    "build",
                    Verdict::Failed("exit status: 1".to_owned()),
                    Duration::from_secs(605),
                ),
                ("tests", Verdict::NotRun, Duration::ZERO),
            ],
        };
        assert!(!report.passed());
        assert_eq!(
            report.to_string(),
            "  passed    0:02  format\n  FAILED   10:05  build: exit status: 1\n  not run         tests\n\
             2 of 3 steps did not pass, after  10:07"
        );
    }
}
