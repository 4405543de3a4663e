//! Explanations: the first reason for each slave, and the smallest change that would do.

use meros_proto::constraint::{Constraint, OfferConstraints, Predicate, Subject};
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use super::super::{
    Abilities, Allocator, Change, Constraints, Explanation, Minimum, Reason, SmallestChange, Wishes,
};
use super::differential::Pair;
use super::policy::{cluster, plan, quota, resources, role};

const F: FrameworkId = FrameworkId(0);
const S: SlaveId = SlaveId(0);

pub(super) fn changes(explained: &Explanation) -> Vec<Change> {
    let smallest = explained.smallest_change.as_ref();
    smallest.map_or(Vec::new(), |it| it.changes.clone())
}

fn text(allocator: &Allocator, framework: FrameworkId, role: &RoleName) -> String {
    let explained = allocator.explain_all(framework, role);
    explained
        .smallest_change
        .map_or(String::new(), |it| it.to_string())
}

#[test]
fn the_smallest_change_is_the_frameworks_own_if_there_is_one() {
    let any = RoleName::any();
    let mut allocator = cluster(2, "cpus:4", &[(0, "*")]);
    for slave in (0..2).map(SlaveId) {
        assert!(allocator.filter(F, &any, slave, resources("cpus:4"), Timestamp(7)));
    }
    allocator.set_offerable(SlaveId(1), false);
    let explained = allocator.explain_all(F, &any);
    assert_eq!(explained.filter_ends, Some(Timestamp(7)));
    assert_eq!(
        explained.smallest_change,
        Some(SmallestChange {
            changes: vec![Change::Revive {
                until: Timestamp(7)
            }],
            slave: SlaveId(0),
            slaves: 1,
        })
    );
    allocator.expire_filters(Timestamp(7));
    let explained = allocator.explain_all(F, &any);
    assert_eq!((explained.offerable, explained.smallest_change), (1, None));
    // Nothing is known of this one, and more than one slave would do if it subscribed.
    allocator.set_offerable(SlaveId(1), true);
    let stranger = text(&allocator, FrameworkId(5), &role("x/y"));
    assert_eq!(
        stranger,
        "subscribe, or revive the role: slave S0 and 1 other"
    );
}

#[test]
fn each_slave_has_the_first_reason_and_the_slave_with_the_least_in_the_way_is_named() {
    // semantics: E2
    let a = role("a");
    let mut allocator = cluster(5, "cpus:4;mem:400", &[(0, "a")]);
    allocator.set_quota(&a, &quota("", "cpus:0;mem:0"));
    allocator.set_excluded(SlaveId(0), true);
    allocator.set_offerable(SlaveId(1), false);
    assert!(allocator.charge(
        FrameworkId(9),
        &role("b"),
        SlaveId(2),
        &resources("cpus:4;mem:400")
    ));
    assert!(allocator.charge(
        FrameworkId(9),
        &role("b"),
        SlaveId(3),
        &resources("cpus:4;mem:380")
    ));
    let explained = allocator.explain_all(F, &a);
    let limit = Reason::Limit {
        role: a.clone(),
        resource: ResourceName::CPUS,
    };
    let kinds: Vec<(String, u32)> = explained
        .refused
        .iter()
        .map(|(reason, count)| (format!("{reason:?}"), *count))
        .collect();
    assert_eq!(explained.refused.values().sum::<u32>(), 5, "{kinds:?}");
    assert_eq!(explained.refused[&limit], 1, "{kinds:?}");
    assert_eq!(explained.refused[&Reason::NothingFree], 1, "{kinds:?}");
    // A hundredth of a processor is the least that is worth an offer.
    assert_eq!(
        text(&allocator, F, &a),
        "raise the limit of cpus of role a by 0.01: slave S4"
    );
}

#[test]
fn several_changes_are_named_if_one_alone_would_not_do() {
    let any = RoleName::any();
    let mut allocator = cluster(1, "cpus:4;gpus:2", &[]);
    let none = Abilities {
        gpus: false,
        ..Abilities::default()
    };
    allocator.set_abilities(F, none);
    let explained = allocator.explain_all(F, &any);
    assert_eq!(explained.refused, [(Reason::Inactive, 1)].into());
    assert_eq!(
        changes(&explained),
        [
            Change::Activate,
            Change::Declare(FrameworkCapability::GpuResources)
        ]
    );
}

#[test]
fn of_several_groups_of_constraints_the_one_with_the_fewest_that_fail_is_named() {
    let is = |name: &str, text: &str| Constraint {
        subject: Subject::Attribute(name.to_owned()),
        predicate: Predicate::Equals(text.to_owned()),
    };
    let wanted = OfferConstraints {
        groups: vec![
            vec![is("rack", "r1"), is("disk", "ssd")],
            vec![is("arch", "x"), is("rack", "r2"), is("os", "y")],
        ],
        least: Resources::new(),
    };
    let any = RoleName::any();
    let mut allocator = cluster(1, "cpus:4", &[(0, "*")]);
    let profile = super::super::Profile {
        hostname: "host".to_owned(),
        attributes: "arch:x;os:y;rack:r3".parse().unwrap(),
    };
    allocator.describe_slave(SlaveId(0), profile);
    let wishes = Wishes {
        constraints: Some(Constraints::compile(&wanted).unwrap()),
        ..Wishes::default()
    };
    allocator.set_wishes(F, &any, Some(wishes));
    let explained = allocator.explain_all(F, &any);
    assert_eq!(changes(&explained), [Change::Relax { group: 1, place: 1 }]);
}

#[test]
fn what_must_become_free_is_told_in_amounts_and_what_never_will_be_as_well() {
    let any = RoleName::any();
    let mut allocator = cluster(2, "cpus:4;mem:400", &[(0, "*")]);
    let other = FrameworkId(9);
    assert!(allocator.charge(other, &any, SlaveId(0), &resources("cpus:3;mem:100")));
    assert!(allocator.charge(other, &any, SlaveId(1), &resources("cpus:2;mem:100")));
    let mut asks_for = |text: &str| {
        let any_of = vec![resources(text)];
        let wishes = Wishes {
            minimum: Some(Minimum { any_of }),
            constraints: None,
        };
        allocator.set_wishes(F, &any, Some(wishes));
        changes(&allocator.explain_all(F, &any))
    };
    let missing = resources("cpus:1");
    assert_eq!(asks_for("cpus:3;mem:200"), [Change::FreeUp { missing }]);
    let missing = resources("cpus:5");
    assert_eq!(asks_for("cpus:9"), [Change::AskForLess { missing }]);
}

#[test]
fn a_minimum_of_a_role_that_no_slave_will_ever_have_is_for_its_operator_to_lower() {
    // semantics: E2
    let (own, above) = (role("a/b"), role("a"));
    let mut allocator = cluster(2, "cpus:4;mem:400", &[(0, "a/b")]);
    allocator.set_minimum(&above, "cpus:9".parse().ok());
    let expected =
        "lower the minimum of role a: the slave lacks cpus:5 of it: slave S0 and 1 other";
    assert_eq!(text(&allocator, F, &own), expected);
    // What it will have one day is waited for.
    assert!(allocator.charge(FrameworkId(9), &own, S, &resources("cpus:1")));
    allocator.set_minimum(&above, "cpus:4".parse().ok());
    let of_first = allocator.explain_one(F, &own, S);
    let missing = resources("cpus:1");
    assert_eq!(changes(&of_first), [Change::FreeUp { missing }]);
    // A framework that asks for something itself is told to ask for less.
    let minimum = "cpus:9".parse().ok();
    let wishes = Wishes {
        minimum,
        constraints: None,
    };
    allocator.set_wishes(F, &own, Some(wishes));
    let missing = resources("cpus:5");
    let explained = allocator.explain_all(F, &own);
    assert_eq!(changes(&explained), [Change::AskForLess { missing }]);
}

#[test]
fn guarantees_of_others_are_told_by_how_much_they_are_too_high() {
    // semantics: E8
    let mut allocator = cluster(1, "cpus:4;mem:400", &[(0, "b")]);
    allocator.set_quota(&role("a"), &quota("cpus:6;mem:500", ""));
    let explained = allocator.explain_all(F, &role("b"));
    // Two processors more than there are, and a hundredth for an offer.
    let by = Scalar::from_thousandths(2_010).unwrap();
    let resource = ResourceName::CPUS;
    assert_eq!(
        changes(&explained),
        [Change::LowerGuarantees { resource, by }]
    );
}

#[test]
fn a_limit_that_cut_what_was_declined_is_named_and_not_the_decline() {
    // semantics: E2, E8
    let a = role("a");
    let mut allocator = cluster(2, "cpus:4;mem:400", &[(0, "a")]);
    allocator.set_quota(&a, &quota("", "cpus:0"));
    // Memory alone is of no use to it.
    for grant in plan(&mut allocator) {
        assert_eq!(*grant.resources, resources("mem:400"));
        let refused = grant.resources.clone();
        assert!(allocator.filter(F, &a, grant.slave, refused, Timestamp(9)));
        allocator.release(F, &a, grant.slave, grant.resources);
    }
    assert!(plan(&mut allocator).is_empty());
    let explained = allocator.explain_all(F, &a);
    let limit = Reason::Limit {
        role: a.clone(),
        resource: ResourceName::CPUS,
    };
    assert_eq!(explained.refused, [(limit.clone(), 2)].into());
    let raise = |by| Change::RaiseLimit {
        role: a.clone(),
        resource: ResourceName::CPUS,
        by: Scalar::from_thousandths(by).unwrap(),
    };
    assert_eq!(changes(&explained), [raise(10)]);
    // When all was refused without a limit once, the decline would hide it even without the limit.
    assert!(allocator.filter(F, &a, S, resources("cpus:4;mem:400"), Timestamp(9)));
    let of_first = allocator.explain_one(F, &a, S);
    assert_eq!(of_first.refused, [(Reason::Filtered, 1)].into());
    let until = Timestamp(9);
    assert_eq!(changes(&of_first), [Change::Revive { until }]);
    // A decline of a part is passed with more than that part.
    assert!(allocator.filter(F, &a, SlaveId(1), resources("cpus:1;mem:400"), Timestamp(9)));
    let of_second = allocator.explain_one(F, &a, SlaveId(1));
    assert_eq!(changes(&of_second), [raise(1_010)]);
    allocator.set_quota(&a, &quota("", "cpus:1.01"));
    let grants = plan(&mut allocator);
    assert_eq!(*grants[0].resources, resources("cpus:1.01;mem:400"));
}

#[test]
fn a_limit_that_leaves_less_than_the_framework_asks_for_is_named() {
    // semantics: E2, E8
    let a = role("a");
    let mut allocator = cluster(1, "cpus:4;mem:400", &[(0, "a")]);
    allocator.set_quota(&a, &quota("", "cpus:1"));
    let wishes = Wishes {
        minimum: Some(Minimum {
            any_of: vec![resources("cpus:3")],
        }),
        constraints: None,
    };
    allocator.set_wishes(F, &a, Some(wishes));
    assert!(plan(&mut allocator).is_empty());
    let explained = allocator.explain_all(F, &a);
    let (role, resource) = (a.clone(), ResourceName::CPUS);
    let limit = Reason::Limit { role, resource };
    assert_eq!(explained.refused, [(limit, 1)].into());
    let expected = "raise the limit of cpus of role a by 2: slave S0";
    assert_eq!(text(&allocator, F, &a), expected);
}

#[test]
fn a_role_is_not_told_that_its_own_guarantee_is_in_its_way() {
    // semantics: E1, E8
    let a = role("a");
    let mut allocator = cluster(1, "cpus:4;mem:400", &[(0, "a")]);
    allocator.set_quota(&a, &quota("cpus:4;mem:400", ""));
    assert!(allocator.filter(F, &a, S, resources("cpus:4;mem:400"), Timestamp(9)));
    assert!(plan(&mut allocator).is_empty());
    let explained = allocator.explain_all(F, &a);
    assert_eq!(explained.refused, [(Reason::Filtered, 1)].into());
    let until = Timestamp(9);
    assert_eq!(changes(&explained), [Change::Revive { until }]);
}

/// Does what was advised, as far as an allocator knows of it.
fn apply(
    pair: &mut Pair,
    quotas: &mut [(RoleName, Quota)],
    who: &(FrameworkId, RoleName),
    slave: SlaveId,
    change: &Change,
) {
    let allocator = &mut pair.fast;
    match change {
        Change::Revive { .. } => allocator.clear_filters(who.0, Some(&who.1)),
        Change::Activate => allocator.set_active(who.0, &who.1, true),
        Change::AnswerOffers { count } => (0..*count).for_each(|_| allocator.offer_ended(who.0)),
        Change::Relax { .. } => allocator.set_wishes(who.0, &who.1, None),
        Change::Declare(capability) => {
            let mut abilities = allocator.framework(who.0).abilities;
            match capability {
                FrameworkCapability::GpuResources => abilities.gpus = true,
                FrameworkCapability::RevocableResources => abilities.revocable = true,
                FrameworkCapability::SharedResources => abilities.shared = true,
                FrameworkCapability::ReservationRefinement => abilities.refined = true,
                other => panic!("{other:?} helps nobody"),
            }
            allocator.set_abilities(who.0, abilities);
        }
        Change::AskForLess { .. } => {
            let wishes = Wishes {
                minimum: Some(Minimum { any_of: Vec::new() }),
                constraints: None,
            };
            allocator.set_wishes(who.0, &who.1, Some(wishes));
        }
        Change::LowerMinimum { role, .. } => {
            let none = Minimum { any_of: Vec::new() };
            allocator.set_minimum(role, Some(none));
        }
        Change::RaiseLimit { role, resource, by } => {
            for (_, quota) in quotas.iter_mut().filter(|(it, _)| it == role) {
                let limit = quota.limits.get_mut(resource).expect("it is limited");
                *limit = limit.saturating_add(*by);
                allocator.set_quota(role, quota);
            }
        }
        Change::LowerGuarantees { resource, by } => {
            let required = |allocator: &Allocator| {
                let number = allocator.names.find(resource).expect("it has one");
                allocator.tree.required_below().get(number)
            };
            let enough = required(allocator) - by.thousandths();
            for (role, quota) in quotas.iter_mut() {
                let Some(guarantee) = quota.guarantees.get_mut(resource) else {
                    continue;
                };
                let unmet = guarantee.saturating_sub(allocator.consumed(role, resource));
                let more = (required(allocator) - enough).min(unmet.thousandths());
                if let Some(less) = Scalar::from_thousandths(more) {
                    *guarantee = guarantee.saturating_sub(less);
                    allocator.set_quota(role, quota);
                }
            }
            // What roles below are due may count for one above as well, so once more.
            for (role, quota) in quotas.iter_mut() {
                if required(allocator) > enough && quota.guarantees.remove(resource).is_some() {
                    allocator.set_quota(role, quota);
                }
            }
        }
        Change::Unreserve => {}
        Change::ReactivateSlave => allocator.set_excluded(slave, false),
        Change::FreeUp { missing } => allocator.grow_slave(slave, missing).expect("small"),
        Change::BringBackSlave => allocator.set_offerable(slave, true),
    }
}

/// A history, whom to ask about, and what they are advised.
fn advised(seed: u64) -> (Pair, (FrameworkId, RoleName), Option<SmallestChange>) {
    let mut pair = Pair::new(seed);
    for _ in 0..40 {
        pair.step();
    }
    let who = pair.who();
    let explained = pair.fast.explain_all(who.0, &who.1);
    let has_slaves = !explained.refused.is_empty();
    let advice = explained.smallest_change;
    assert_eq!(advice.is_some(), has_slaves && explained.offerable == 0);
    // What is reserved for others is not converted here.
    let advice = advice.filter(|it| !it.changes.contains(&Change::Unreserve));
    (pair, who, advice)
}

/// Does some of what was advised, and asks again.
fn obey(
    mut pair: Pair,
    who: &(FrameworkId, RoleName),
    slave: SlaveId,
    changes: &[&Change],
) -> (Result<(), (Reason, Option<Timestamp>)>, Pair) {
    let quotas = pair.naive.quotas().iter();
    let mut quotas: Vec<_> = quotas
        .map(|(role, quota)| (role.clone(), quota.clone()))
        .collect();
    for change in changes {
        apply(&mut pair, &mut quotas, who, slave, change);
    }
    (pair.fast.explain(who.0, &who.1, slave), pair)
}

#[test]
fn who_does_what_is_advised_can_be_offered_something() {
    let mut codes = std::collections::BTreeMap::new();
    for seed in 0..6_000 {
        let (pair, who, Some(advice)) = advised(seed) else {
            continue;
        };
        for change in &advice.changes {
            *codes.entry(change.code()).or_insert(0u32) += 1;
        }
        let all: Vec<&Change> = advice.changes.iter().collect();
        let (answer, mut pair) = obey(pair, &who, advice.slave, &all);
        assert_eq!(answer, Ok(()), "seed {seed}: {who:?}: {advice:?}");
        assert!(!plan(&mut pair.fast).is_empty(), "seed {seed}");
    }
    for code in [
        "revive",
        "activate",
        "declare",
        "raise_limit",
        "lower_guarantees",
        "free_up",
        "ask_for_less",
        "lower_minimum",
    ] {
        assert!(
            codes.contains_key(code),
            "{code} was never advised: {codes:?}"
        );
    }
}

#[test]
fn no_part_of_what_is_advised_is_enough() {
    let mut several = 0;
    for seed in 0..6_000 {
        let (_, who, Some(advice)) = advised(seed) else {
            continue;
        };
        if advice.changes.len() < 2 {
            continue;
        }
        several += 1;
        for without in &advice.changes {
            let rest = advice.changes.iter().filter(|it| *it != without);
            let rest: Vec<&Change> = rest.collect();
            let (answer, _) = obey(advised(seed).0, &who, advice.slave, &rest);
            assert!(
                answer.is_err(),
                "seed {seed}: {who:?}: {advice:?} without {without:?}"
            );
        }
    }
    assert!(several > 100, "{several} times more than one change");
}
