//! The same scenario with other values: the pairs of a comparison, the steps of a sweep.

use toml::{Table, Value};

use super::file::{File, Misplaced, Scenario, ScenarioError, locate};

/// Runs of one scenario are at most so many.
const VARIANTS_MAX: usize = 100;

/// One run of a scenario that has several.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What it changes, for people; empty if nothing.
    pub name: String,
    /// In a sweep: where the value stands, and the value in numbers; times are in seconds.
    pub step: Option<(String, f64)>,
    /// With those values.
    pub scenario: Scenario,
}

impl Scenario {
    /// All runs of this scenario: the steps of its sweep, or itself and what it is compared with.
    ///
    /// # Errors
    /// A value is not allowed where it is to stand.
    pub fn variants(&self) -> Result<Vec<Variant>, ScenarioError> {
        self.list()
            .map_err(|error| locate(&self.path, &self.text, &error))
    }

    fn list(&self) -> Result<Vec<Variant>, Misplaced> {
        let mut variants = Vec::new();
        if let Some(sweep) = &self.file.sweep {
            let path = sweep.of.get_ref();
            for (at, value) in sweep.values.iter().enumerate() {
                let changed = self.with([(path, value)].into_iter());
                variants.push(Variant {
                    name: format!("{path} = {value}"),
                    step: Some((path.clone(), in_numbers(value, at))),
                    scenario: changed.map_err(|what| Misplaced::at(&sweep.of, what))?,
                });
            }
            if variants.is_empty() || !self.file.compare.is_empty() {
                let what = "a sweep has at least one value, and nothing is compared beside it";
                return Err(Misplaced::at(&sweep.of, what));
            }
            if variants.len() > VARIANTS_MAX {
                let what = format!("a sweep has at most {VARIANTS_MAX} values");
                return Err(Misplaced::at(&sweep.of, what));
            }
            return Ok(variants);
        }
        variants.push(Variant {
            name: match self.file.compare.is_empty() {
                true => String::new(),
                false => "as it is".to_owned(),
            },
            step: None,
            scenario: self.clone(),
        });
        for compare in &self.file.compare {
            let changed = self.with(compare.set.get_ref().iter());
            variants.push(Variant {
                name: compare.name.clone(),
                step: None,
                scenario: changed.map_err(|what| Misplaced::at(&compare.set, what))?,
            });
            if variants.len() > VARIANTS_MAX {
                let what = format!("at most {VARIANTS_MAX} runs are compared");
                return Err(Misplaced::at(&compare.set, what));
            }
        }
        Ok(variants)
    }

    /// The same with these values; why not as a text.
    fn with<'a>(
        &self,
        values: impl Iterator<Item = (&'a String, &'a Value)>,
    ) -> Result<Self, String> {
        let mut table: Table = self.text.parse().expect("it was read before");
        table.remove("sweep");
        table.remove("compare");
        let mut root = Value::Table(table);
        for (path, value) in values {
            set(&mut root, path, value)?;
        }
        let text = toml::to_string(&root).map_err(|error| error.to_string())?;
        let file: File = toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        file.check().map_err(|error| error.what)?;
        Ok(Self {
            path: self.path.clone(),
            text,
            file,
        })
    }
}

/// Puts a value where `path` says; everything above it has to be there.
fn set(root: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let mut at = root;
    let mut walked = String::new();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let is_last = names.peek().is_none();
        let missing = || match walked.is_empty() {
            true => format!("there is no {name} in the scenario"),
            false => format!("there is no {name} in {walked}"),
        };
        at = match at {
            Value::Table(table) if is_last => {
                table.insert(name.to_owned(), value.clone());
                return Ok(());
            }
            Value::Table(table) => table.get_mut(name).ok_or_else(missing)?,
            Value::Array(array) => {
                let place = name.parse::<usize>().ok();
                let item = place.and_then(|place| array.get_mut(place));
                item.ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
        if is_last {
            *at = value.clone();
            return Ok(());
        }
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(name);
    }
    Ok(())
}

/// A place on an axis.
fn in_numbers(value: &Value, at: usize) -> f64 {
    match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::String(text) => {
            humantime::parse_duration(text).map_or(at as f64, |time| time.as_secs_f64())
        }
        _ => at as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
title = "x"
duration = "1m"
[slaves.a]
count = 2
resources = "cpus:1"
[frameworks.web]
behaviour = "slow_decider"
decision = "1s"
work = [{ arrivals = { poisson = 1.0 }, task = "cpus:1", runs = { fixed = "1s" } }]
"#;

    fn variants(more: &str) -> Result<Vec<Variant>, String> {
        let text = format!("{BASE}{more}");
        let scenario = Scenario::parse("x.toml".as_ref(), text).map_err(|it| it.to_string())?;
        scenario.variants().map_err(|it| it.to_string())
    }

    #[test]
    fn a_sweep_is_a_run_for_each_value_and_a_comparison_one_more_than_its_pairs() {
        let sweep = "[sweep]\nof = \"frameworks.web.decision\"\nvalues = [\"1s\", \"1m\"]";
        let steps = variants(sweep).expect("allowed");
        let places: Vec<f64> = steps
            .iter()
            .filter_map(|it| Some(it.step.as_ref()?.1))
            .collect();
        assert_eq!(places, [1.0, 60.0]);
        let web = &steps[1]
            .scenario
            .file
            .frameworks
            .values()
            .next()
            .expect("one");
        assert_eq!(
            web.decision.as_ref().expect("set").get_ref().0.as_secs(),
            60
        );

        let compare = "[[compare]]\nname = \"more\"\n\
             [compare.set]\n\"slaves.a.count\" = 5\n\"frameworks.web.work.0.task\" = \"cpus:0.5\"";
        let pair = variants(compare).expect("allowed");
        let counts = pair.iter().map(|it| {
            let slaves = it.scenario.file.slaves.values().next().expect("one");
            slaves.count.expect("set").0
        });
        assert_eq!(counts.collect::<Vec<_>>(), [2, 5]);
        assert_eq!(variants("").expect("allowed").len(), 1);
    }

    #[test]
    fn a_value_that_is_not_allowed_is_refused_at_its_line() {
        for (more, expected) in [
            (
                "[sweep]\nof = \"frameworks.web.decision\"\nvalues = [\"soon\"]",
                "x.toml:12:6: \"soon\" is not a time",
            ),
            (
                "[sweep]\nof = \"frameworks.db.decision\"\nvalues = [\"1s\"]",
                "x.toml:12:6: there is no db in frameworks",
            ),
            (
                "[[compare]]\nname = \"c\"\nset = { \"slaves.a.cunt\" = 1 }",
                "x.toml:13:7: unknown field `cunt`, expected one of `count`",
            ),
        ] {
            let error = variants(more).expect_err(more);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
