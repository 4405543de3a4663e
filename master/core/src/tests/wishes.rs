//! What frameworks wish of their offers (semantics B1, B17, E2).

use meros_proto::constraint::{OfferWishes, Predicate, Subject};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::FrameworkId;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::slave::SlaveDescription;
use meros_proto::why::WhyQuestion;

use super::world::{World, check, framework, resources, role, secs, slave};
use crate::{ConnectionId, OperatorCall};

fn in_rack(name: &str, text: &str) -> SlaveDescription {
    SlaveDescription {
        attributes: format!("rack:{name}").parse().expect("attributes"),
        ..slave(text)
    }
}

fn subscribe(
    world: &mut World,
    framework: FrameworkDescription,
    wishes: Vec<OfferWishes>,
) -> (ConnectionId, Vec<String>) {
    let connection = world.connect_framework("framework");
    let message = FrameworkToMaster::Subscribe {
        framework,
        suppressed_roles: Vec::new(),
        wishes,
    };
    let lines = world.framework_says(connection, message);
    (connection, lines)
}

fn any() -> OfferWishes {
    OfferWishes::for_role(role("*"))
}

#[test]
fn only_what_is_wished_for_is_offered_and_why_tells_the_rest() {
    let mut world = World::new();
    for (rack, text) in [("r1", "cpus:8"), ("r2", "cpus:2"), ("x9", "cpus:8")] {
        let connection = world.connect_slave("slave");
        let slave = in_rack(rack, text);
        world.slave_says(connection, SlaveToMaster::Register { slave });
    }
    let wishes = any()
        .least(resources("cpus:4"))
        .group([Subject::attribute("rack").matches("r[0-9]")]);
    let (f, lines) = subscribe(&mut world, framework(), vec![wishes]);
    check(lines, &["f4 subscribed F0", "f4 offers O1-1 S0 * cpus:8"]);
    let why = OperatorCall::Why(WhyQuestion::Framework(FrameworkId(0)));
    let lines = world.operator(1, why);
    assert!(lines[0].contains("can=0"), "{lines:?}");
    for reason in ["constraint:1", "below_minimum:1", "nothing_free:1"] {
        assert!(lines[0].contains(reason), "{lines:?}");
    }
    let text = world
        .core
        .constraint_text(FrameworkId(0), &role("*"), (0, 0));
    assert_eq!(text.as_deref(), Some(r#"attribute rack matches "r[0-9]""#));
    // semantics: B17, the next offers are others, those that it holds stay.
    let wish = FrameworkToMaster::Wish { wishes: Vec::new() };
    check(
        world.framework_says(f, wish),
        &["f4 offers O1-2 S1 * cpus:2 O1-3 S2 * cpus:8"],
    );
    assert_eq!(world.core.offers.of_framework(FrameworkId(0)).len(), 3);
}

#[test]
fn a_framework_has_its_own_minimum_in_place_of_the_masters() {
    // semantics: E2
    let mut world = World::new();
    world.slave("disk:100");
    let (f, lines) = subscribe(&mut world, framework(), Vec::new());
    check(lines, &["f2 subscribed F0"]);
    let wish = |least: &[&str]| FrameworkToMaster::Wish {
        wishes: vec![any().minimum(least.iter().map(|text| resources(text)))],
    };
    check(world.framework_says(f, wish(&["disk:200", "mem:1"])), &[]);
    check(
        world.framework_says(f, wish(&["disk:200", "disk:50"])),
        &["f2 offers O1-1 S0 * disk:100"],
    );
}

#[test]
fn wishes_are_stated_anew_with_each_subscription() {
    // semantics: N6
    let mut world = World::new();
    world.slave("cpus:2");
    let wishes = vec![any().least(resources("cpus:4"))];
    let (f, lines) = subscribe(&mut world, framework(), wishes);
    check(lines, &["f2 subscribed F0"]);
    world.disconnect(f);
    world.pass(secs(1));
    let again = FrameworkDescription {
        framework_id: Some(FrameworkId(0)),
        ..framework()
    };
    let (_, lines) = subscribe(&mut world, again, Vec::new());
    check(lines, &["f3 subscribed F0", "f3 offers O1-1 S0 * cpus:2"]);
}

#[test]
fn wishes_that_break_a_rule_are_refused_with_a_reason_and_change_nothing() {
    let mut world = World::new();
    world.slave("cpus:2");
    let (f, _) = subscribe(&mut world, framework(), Vec::new());
    world.decline(f, &[1], secs(3_600));
    let rack = |predicate: Predicate| {
        let mut wishes = any();
        wishes.constraints.groups = vec![vec![meros_proto::constraint::Constraint {
            subject: Subject::attribute("rack"),
            predicate,
        }]];
        wishes
    };
    let long = "x".repeat(1_025);
    let many = |count: usize| {
        let pattern = |number: usize| Subject::Hostname.matches(format!("h{number}"));
        (0..count).fold(any(), |wishes, number| wishes.group([pattern(number)]))
    };
    for (wishes, reason) in [
        (vec![OfferWishes::for_role(role("b"))], "not one of"),
        (vec![any(), any()], "named twice"),
        (
            vec![any().least(resources("ports:[1-2]"))],
            "no plain amount",
        ),
        (vec![any().least(resources("cpus(a):2"))], "no plain amount"),
        (
            vec![any().minimum(vec![resources("cpus:1"); 17])],
            "alternatives",
        ),
        (vec![any().group([])], "group 0 has no constraint"),
        (vec![many(65)], "patterns"),
        (vec![rack(Predicate::Equals(long))], "at most 1024 bytes"),
        (
            vec![rack(Predicate::Matches("r[".to_owned()))],
            "not a pattern",
        ),
        (
            vec![rack(Predicate::Matches(r"\w{1000}".to_owned()))],
            "not a pattern",
        ),
    ] {
        let state = format!("{:?}", world.core.frameworks.get(FrameworkId(0)));
        let wish = FrameworkToMaster::Wish {
            wishes: wishes.clone(),
        };
        check(world.framework_says(f, wish), &["f2 refused Wish invalid"]);
        let after = format!("{:?}", world.core.frameworks.get(FrameworkId(0)));
        assert_eq!(state, after, "{reason}");
        let error = crate::wishes::check_wishes(wishes.clone(), &framework());
        let error = error.expect_err("refused above").to_string();
        assert!(error.contains(reason), "{error}");
        let (connection, lines) = subscribe(&mut world, framework(), wishes);
        let refused = format!("f{} error invalid", connection.0);
        assert_eq!(lines[0], refused);
    }
    assert!(check_fits(many(64)), "that many are allowed");
}

fn check_fits(wishes: OfferWishes) -> bool {
    crate::wishes::check_wishes(vec![wishes], &framework()).is_ok()
}
