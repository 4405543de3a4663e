//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! Depends on nothing but std: it is what a fresh machine compiles first.

mod demo;
mod setup;
mod step;
mod test;
mod tidy;
mod vm;

use std::env;
use std::process::ExitCode;

use step::Step;
use test::{Runner, Scope};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo              a datacenter of four slaves counts the words of every downloaded crate
  demo --stay       the same, and the datacenter stays up until Ctrl-C
  setup             install or name what this machine lacks to build Meros
  test              everything that must pass: format, clippy, build, tests, doc tests,
                    documentation, benchmarks once, tidy; writes nothing
  test --quick      format, clippy, build and tests only
  test --list       print the steps and run none
  vm [KIND...]      the tests of isolation on a kernel of Debian in qemu; KIND is v2 (root, cgroup2 alone),
                    v2-user (without root, in a group that was given), v1, hybrid or user; else v2
  fix               format the sources and apply what clippy can
  tidy              the rules of the project that neither compiler nor clippy can see
  help              this text";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Setup,
    Demo { stay: bool },
    Test { scope: Scope, list: bool },
    Fix,
    Tidy,
    Vm { kinds: Vec<vm::Kind> },
}

/// Reads the arguments; None if they mean nothing.
fn parse(arguments: &[&str]) -> Option<Request> {
    let (command, flags) = arguments.split_first()?;
    let request = match *command {
        "help" | "--help" | "-h" => Request::Help,
        "setup" => Request::Setup,
        "fix" => Request::Fix,
        "tidy" => Request::Tidy,
        "demo" if flags == ["--stay"] => return Some(Request::Demo { stay: true }),
        "vm" => {
            let kinds: Option<Vec<_>> = flags.iter().map(|name| vm::Kind::named(name)).collect();
            return kinds.map(|kinds| Request::Vm { kinds });
        }
        "demo" => Request::Demo { stay: false },
        "test" => {
            let scope = if flags.contains(&"--quick") {
                Scope::Quick
            } else {
                Scope::Full
            };
            let known = flags
                .iter()
                .all(|flag| matches!(*flag, "--quick" | "--list"));
            return known.then_some(Request::Test {
                scope,
                list: flags.contains(&"--list"),
            });
        }
        _ => return None,
    };
    flags.is_empty().then_some(request)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match parse(&arguments) {
        Some(Request::Help) => {
            println!("{USAGE}");
            true
        }
        Some(Request::Setup) => setup(),
        Some(Request::Test { scope, list }) => test(scope, list),
        Some(Request::Demo { stay }) => setup() && demo::run(stay),
        Some(Request::Fix) => fix(),
        Some(Request::Tidy) => tidy(),
        Some(Request::Vm { kinds }) => match vm::run(&kinds) {
            vm::Outcome::Skipped(why) => {
                println!("vm: skipped: {why}");
                return ExitCode::from(step::SKIPPED);
            }
            vm::Outcome::Failed(why) => {
                eprintln!("vm: {why}");
                false
            }
            vm::Outcome::Passed => true,
        },
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether the machine has everything, now.
fn setup() -> bool {
    let result = setup::run();
    if let Err(error) = &result {
        eprintln!("setup: {error}");
    }
    result.is_ok()
}

fn test(scope: Scope, list: bool) -> bool {
    let runner = Runner::detect();
    let steps = test::steps(scope, runner);
    if list {
        for step in &steps {
            println!("{:<14} {step}", step.name);
        }
        return true;
    }
    if !setup() {
        return false;
    }
    if runner == Runner::CargoTest {
        println!(
            "setup: no cargo-nextest, or an old one: the tests run with cargo test, without time limits"
        );
    }
    step::run(&steps, &step::root()).passed()
}

fn fix() -> bool {
    let clippy =
        "cargo clippy --fix --allow-dirty --allow-staged --workspace --all-targets --all-features";
    let steps = [
        Step::new("clippy", clippy),
        Step::new("format", "cargo fmt --all"),
    ];
    setup() && step::run(&steps, &step::root()).passed()
}

fn tidy() -> bool {
    match tidy::check(&step::root()) {
        Ok(violations) if violations.is_empty() => {
            println!("tidy: nothing found");
            true
        }
        Ok(violations) => {
            for violation in &violations {
                println!("{violation}");
            }
            println!("tidy: {} violations", violations.len());
            false
        }
        Err(error) => {
            eprintln!("tidy: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_flags_are_understood() {
        assert_eq!(parse(&["tidy"]), Some(Request::Tidy));
        let kinds = vec![vm::Kind::V2User, vm::Kind::V1];
        assert_eq!(parse(&["vm", "v2-user", "v1"]), Some(Request::Vm { kinds }));
        assert_eq!(parse(&["demo"]), Some(Request::Demo { stay: false }));
        assert_eq!(
            parse(&["demo", "--stay"]),
            Some(Request::Demo { stay: true })
        );
        let list = Request::Test {
            scope: Scope::Quick,
            list: true,
        };
        assert_eq!(parse(&["test", "--list", "--quick"]), Some(list));
        assert_eq!(
            parse(&["test"]),
            Some(Request::Test {
                scope: Scope::Full,
                list: false
            })
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for arguments in [
            &[][..],
            &["tset"],
            &["test", "--fast"],
            &["tidy", "--quick"],
            &["setup", "x"],
            &["vm", "v3"],
        ] {
            assert_eq!(parse(arguments), None, "{arguments:?}");
        }
    }

    #[test]
    fn the_usage_names_every_command() {
        for command in ["demo", "setup", "test", "vm", "fix", "tidy", "help"] {
            assert!(
                parse(&[command]).is_some() && USAGE.contains(&format!("\n  {command} ")),
                "{command}"
            );
        }
    }
}
