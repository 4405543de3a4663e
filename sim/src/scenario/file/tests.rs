//! Every error names file, line and column, and says what is allowed.

use super::*;

/// A scenario in which nothing is wrong, a line for each thing that can be.
const GOOD: &str = r#"title = "x"
duration = "10m"
[slaves.a]
count = 2
resources = "cpus:4;mem:1000"
[frameworks.web]
behaviour = "batch"
[[frameworks.web.work]]
arrivals = { poisson = 1.0 }
task = "cpus:1"
runs = { fixed = "1s" }
[[faults]]
at = "1m"
what = { slaves_lost = { part = 0.5 } }
"#;

fn error(text: String) -> String {
    let parsed = Scenario::parse("s.toml".as_ref(), text.clone());
    match parsed {
        Ok(_) => panic!("this is not allowed:\n{text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn errors_name_line_and_column_and_say_what_is_allowed() {
    assert!(Scenario::parse("s.toml".as_ref(), GOOD.to_owned()).is_ok());
    let cases = [
        (
            "title = \"x\"",
            "titel = \"x\"",
            "s.toml:1:1: unknown field `titel`, expected one of `title`",
        ),
        ("\"10m\"", "\"soon\"", "s.toml:2:12: \"soon\" is not a time"),
        (
            "\"10m\"",
            "\"0s\"",
            "s.toml:2:12: a run has to take some time",
        ),
        (
            "\"10m\"",
            "10",
            "s.toml:2:12: invalid type: integer `10`, expected a string",
        ),
        (
            "count = 2",
            "count = 0",
            "s.toml:4:9: 0 is not allowed here: from 1 to 100000",
        ),
        (
            "count = 2",
            "count = -7",
            "s.toml:4:9: -7 is not allowed here",
        ),
        (
            "cpus:4;mem:1000",
            "cpus:four",
            "s.toml:5:13: \"cpus:four\" is not a list of resources",
        ),
        (
            "[slaves.a]",
            "[slaves.\"a b\"]",
            "s.toml:3:9: \"a b\" is not a name",
        ),
        (
            "\"batch\"",
            "\"lazy\"",
            "s.toml:7:13: unknown variant `lazy`, expected one of `batch`",
        ),
        (
            "\"batch\"",
            "\"slow_decider\"",
            "s.toml:7:13: a slow decider needs a decision time",
        ),
        (
            "\"batch\"",
            "\"service\"",
            "s.toml:11:8: a service runs \"forever\"",
        ),
        (
            "\"batch\"",
            "\"hoarder\"\noffers = { hold = \"1s\" }",
            "s.toml:8:19: a hoarder keeps",
        ),
        (
            "\"batch\"",
            "\"batch\"\nweight = 0.0001",
            "s.toml:8:10: a weight is at least 0.001",
        ),
        (
            "\"batch\"",
            "\"batch\"\nweight = 0",
            "s.toml:8:10: 0 is not allowed here",
        ),
        (
            "\"batch\"",
            "\"batch\"\nquota = { limit = \"cpus:1\" }",
            "s.toml:8:9: `*` is everybody's",
        ),
        (
            "\"batch\"",
            "\"batch\"\nrole = \"w\"\nquota = { limit = \"cpus:1\", guarantee = \"cpus:2\" }",
            "s.toml:9:9: more of cpus is guaranteed than allowed",
        ),
        (
            "poisson = 1.0",
            "poisson = 0",
            "s.toml:9:12: 0 is not allowed here: above 0",
        ),
        (
            "poisson = 1.0",
            "uniform = 1",
            "s.toml:9:14: unknown variant `uniform`, expected one of",
        ),
        (
            "task = \"cpus:1\"\n",
            "",
            "s.toml:9:12: work needs task and runs",
        ),
        (
            "{ fixed = \"1s\" }",
            "{ pareto = { alpha = 1.5, min = \"5s\", max = \"1s\" } }",
            "s.toml:11:8: min is at most as long as max",
        ),
        (
            "at = \"1m\"",
            "at = \"11m\"",
            "s.toml:13:6: the run is over by then",
        ),
        (
            "part = 0.5",
            "part = 1.5",
            "s.toml:14:33: 1.5 is not allowed here: from 0 to 1",
        ),
        (
            "part = 0.5",
            "part = 0.5, shape = \"b\"",
            "s.toml:14:8: there are no slaves of the shape b, only of a",
        ),
        (
            "count = 2\n",
            "",
            "slaves need count and resources, or openb",
        ),
        ("title = \"x\"\n", "", "missing field `title`"),
        ("title = \"x\"", "title = ", "s.toml:1:"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(good, bad, expected)| {
            assert!(GOOD.contains(good), "{good}");
            let error = error(GOOD.replacen(good, bad, 1));
            let gives = format!("{bad}\n  gives    {error}\n  expected {expected}");
            (!error.contains(expected)).then_some(gives)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn too_many_slaves_or_points_are_refused() {
    let many = GOOD.replace(
        "[slaves.a]",
        "[slaves.b]\ncount = 99999\nresources = \"cpus:1\"\n[slaves.a]",
    );
    assert!(error(many).contains("there are 100001 slaves: from 1 to 100000 are allowed"));
    let points = GOOD.replace(
        "duration = \"10m\"",
        "duration = \"10m\"\nreport.every = \"1ms\"",
    );
    assert!(error(points).starts_with("s.toml:3:16: at most 10000 points are taken"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::read("/nowhere/s.toml".as_ref()).expect_err("not there");
    assert_eq!(
        error.to_string(),
        "failed to read the scenario /nowhere/s.toml"
    );
}
