//! Facts of the protocol that concern the allocator, by their ids, where no rule of policy is about
//! them.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::constraint::{Constraint, OfferConstraints, Predicate, Subject};
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::labels::Labels;
use meros_proto::resources::{Reservation, Resource, ResourceName, Resources, Volume};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use super::super::{
    Abilities, Allocator, Constraints, Exclusion, Minimum, Policy, Profile, Reason, Wishes,
};
use super::differential::Chance;
use super::policy::{cluster, plan, quota, resources, role};

const F: FrameworkId = FrameworkId(0);
const S: SlaveId = SlaveId(0);

fn shuffled(seed: Option<u64>, slaves: u32) -> Allocator {
    let mut allocator = Allocator::new(Policy {
        shuffle: seed,
        ..Policy::default()
    });
    for number in 0..slaves {
        allocator.add_slave(SlaveId(number), &resources("cpus:4;mem:400"));
    }
    allocator.set_active(F, &RoleName::any(), true);
    allocator
}

#[test]
fn slaves_are_visited_in_an_order_of_chance_that_a_seed_fixes() {
    // semantics: E1
    let visited = |allocator: &mut Allocator| -> Vec<u32> {
        let grants = plan(allocator);
        for grant in &grants {
            let resources = grant.resources.clone();
            allocator.release(grant.framework, &grant.role, grant.slave, resources);
        }
        grants.into_iter().map(|grant| grant.slave.0).collect()
    };
    let two_rounds = |seed| {
        let mut allocator = shuffled(seed, 200);
        (visited(&mut allocator), visited(&mut allocator))
    };
    let by_id: Vec<u32> = (0..200).collect();
    assert_eq!(two_rounds(None), (by_id.clone(), by_id.clone()));
    let (first, second) = two_rounds(Some(1));
    assert_eq!(two_rounds(Some(1)), (first.clone(), second.clone()));
    let orders: BTreeSet<Vec<u32>> =
        [by_id.clone(), first.clone(), second, two_rounds(Some(2)).0].into();
    assert_eq!(
        orders.len(),
        4,
        "each round and each seed has an order of its own"
    );
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, by_id, "each is visited once");
    // About half of the first half is in the first half still.
    let stayed = first[..100].iter().filter(|slave| **slave < 100).count();
    assert!((30..=70).contains(&stayed), "{stayed}");
}

#[test]
fn guarantees_that_are_not_met_are_served_before_anybodys_share() {
    // semantics: E1
    let mut allocator = cluster(4, "cpus:4;mem:400", &[(0, "a"), (1, "b")]);
    // `b` holds more than `a` already, and is still owed something.
    let other = FrameworkId(9);
    assert!(allocator.charge(other, &role("b"), S, &resources("cpus:4;mem:400")));
    allocator.set_quota(&role("b"), &quota("cpus:8;mem:800", ""));
    let grants = plan(&mut allocator);
    let of: Vec<u32> = grants.iter().map(|grant| grant.framework.0).collect();
    assert_eq!(of, [1, 0, 0]);
}

#[test]
fn the_first_reason_is_the_first_in_the_order_of_the_rules() {
    // semantics: E2
    let any = RoleName::any();
    let mut allocator = cluster(1, "cpus:4;gpus:1;mem:400", &[]);
    let no_gpus = Abilities {
        gpus: false,
        ..Abilities::default()
    };
    allocator.set_abilities(F, no_gpus);
    let never = OfferConstraints {
        groups: vec![vec![Constraint {
            subject: Subject::Zone,
            predicate: Predicate::Exists,
        }]],
        least: resources("cpus:1"),
    };
    let wishes = |constraints: bool, least: &str| Wishes {
        minimum: Some(Minimum {
            any_of: vec![resources(least)],
        }),
        constraints: constraints.then(|| Constraints::compile(&never).unwrap()),
    };
    allocator.set_wishes(F, &any, Some(wishes(true, "cpus:9")));
    allocator.set_quota(&any, &quota("", "cpus:0;mem:0;gpus:0"));
    assert!(allocator.filter(F, &any, S, resources("cpus:4;gpus:1;mem:400"), Timestamp(9)));
    allocator.set_outstanding_max(F, 0);
    allocator.set_active(FrameworkId(1), &role("b"), true);
    allocator.set_excluded(S, true);
    allocator.set_offerable(S, false);
    let reason = |allocator: &Allocator| allocator.explain(F, &any, S).err().map(|it| it.0);
    // Each obstacle is taken away in turn, and the next one shows.
    assert_eq!(reason(&allocator), Some(Reason::Excluded(Exclusion::Away)));
    allocator.set_offerable(S, true);
    let by_operator = Reason::Excluded(Exclusion::ByOperator);
    assert_eq!(reason(&allocator), Some(by_operator));
    allocator.set_excluded(S, false);
    assert_eq!(reason(&allocator), Some(Reason::Inactive));
    allocator.set_active(F, &any, true);
    assert_eq!(reason(&allocator), Some(Reason::Holding { most: 0 }));
    allocator.set_outstanding_max(F, 1);
    let constraint = Reason::Constraint { group: 0, place: 0 };
    assert_eq!(reason(&allocator), Some(constraint));
    allocator.set_wishes(F, &any, Some(wishes(false, "cpus:9")));
    assert_eq!(reason(&allocator), Some(Reason::Gpus));
    allocator.set_abilities(F, Abilities::default());
    let limit = Reason::Limit {
        role: any.clone(),
        resource: ResourceName::CPUS,
    };
    assert_eq!(reason(&allocator), Some(limit));
    allocator.set_quota(&any, &quota("", ""));
    assert_eq!(reason(&allocator), Some(Reason::BelowMinimum { of: None }));
    allocator.set_wishes(F, &any, Some(wishes(false, "cpus:4")));
    assert_eq!(reason(&allocator), Some(Reason::Filtered));
    allocator.clear_filters(F, Some(&any));
    assert_eq!(reason(&allocator), None);
    assert_eq!(plan(&mut allocator).len(), 1);
}

#[test]
fn a_slave_that_is_another_now_is_offered_in_spite_of_declines() {
    // semantics: E3
    let any = RoleName::any();
    let mut allocator = cluster(1, "cpus:4", &[(0, "*")]);
    assert!(allocator.filter(F, &any, S, resources("cpus:4"), Timestamp(9)));
    assert!(plan(&mut allocator).is_empty());
    let profile = Profile {
        hostname: "host".to_owned(),
        attributes: "rack:r2".parse().unwrap(),
    };
    allocator.describe_slave(S, profile);
    allocator.clear_slave_filters(S);
    assert_eq!(plan(&mut allocator).len(), 1);
}

#[test]
fn what_is_reserved_and_not_held_counts_in_no_share() {
    // semantics: E10
    let mut allocator = cluster(1, "cpus(a):8;mem(a):800", &[]);
    for number in 1..=10 {
        allocator.add_slave(SlaveId(number), &resources("cpus:1;mem:100"));
    }
    // Nobody of `a` holds what is reserved for it: both share what is not as equals.
    allocator.set_offerable(S, false);
    allocator.set_active(F, &role("a"), true);
    allocator.set_active(FrameworkId(1), &role("b"), true);
    let grants = plan(&mut allocator);
    let of_a = grants.iter().filter(|grant| grant.framework == F).count();
    assert_eq!((of_a, grants.len()), (5, 10));
}

fn volume(id: &str) -> Resources {
    let reservation = Reservation::dynamic(role("a"), None, Labels::new()).unwrap();
    let disk = resources("disk:50").push_reservation(&reservation).unwrap();
    let disk = disk.iter().next().unwrap().clone();
    let volume = Volume::new(id, "data").unwrap();
    disk.with_volume(volume).unwrap().into()
}

fn shared(volume: &Resources) -> Resources {
    let volume: &Resource = volume.iter().next().unwrap();
    volume.clone().into_shared().unwrap().into()
}

#[test]
fn a_volume_is_given_whole_or_not_at_all() {
    // semantics: D7, E8
    let mut total = resources("cpus:4;mem:400;disk:100");
    total.checked_add_assign(&volume("v")).unwrap();
    let mut allocator = Allocator::default();
    allocator.add_slave(S, &total);
    allocator.set_active(F, &role("a/x"), true);
    // The volume is reserved for `a`, and so counts against the limit of `a/x` below it.
    allocator.set_quota(&role("a/x"), &quota("", "disk:30"));
    let grants = plan(&mut allocator);
    let offered = grants[0].resources.to_string();
    assert_eq!(
        *grants[0].resources,
        resources("cpus:4;mem:400;disk:30"),
        "{offered}"
    );
}

#[test]
fn a_shared_volume_stays_in_offers_while_it_is_used() {
    // semantics: D7, E2
    let shared = shared(&volume("v"));
    let mut total = resources("cpus:4;mem:400");
    total.checked_add_assign(&shared).unwrap();
    let mut allocator = Allocator::default();
    allocator.add_slave(S, &total);
    for framework in 0..2 {
        allocator.set_active(FrameworkId(framework), &role("a"), true);
    }
    let able = Abilities {
        shared: true,
        ..Abilities::default()
    };
    allocator.set_abilities(F, able);
    // The second one does not know what sharing is and gets the rest of the slave without it.
    allocator.set_active(F, &role("a"), false);
    let grants = plan(&mut allocator);
    assert_eq!(*grants[0].resources, resources("cpus:4;mem:400"));
    let all = grants[0].resources.clone();
    allocator.release(FrameworkId(1), &role("a"), S, all);
    allocator.set_active(FrameworkId(1), &role("a"), false);
    allocator.set_active(F, &role("a"), true);
    let grants = plan(&mut allocator);
    assert_eq!(*grants[0].resources, total);
    assert_eq!(allocator.free(S), Some(&shared));
    // Part of it is used and the rest comes back: the volume is there for the next as well.
    let mut rest = resources("cpus:3;mem:300");
    rest.checked_add_assign(&shared).unwrap();
    allocator.release(F, &role("a"), S, rest.clone());
    assert_eq!(allocator.free(S), Some(&rest));
    let grants = plan(&mut allocator);
    assert_eq!(*grants[0].resources, rest);
    allocator.release(F, &role("a"), S, resources("cpus:1;mem:100"));
    allocator.release(F, &role("a"), S, grants[0].resources.clone());
    assert_eq!(allocator.free(S), Some(&total));
    assert!(allocator.is_consistent());
}

#[test]
fn a_shared_volume_alone_is_no_offer_whatever_is_worth_one() {
    // semantics: D7, E2
    let (a, shared) = (role("a"), shared(&volume("v")));
    let mut total = resources("cpus:4");
    total.checked_add_assign(&shared).unwrap();
    let mut allocator = Allocator::default();
    allocator.add_slave(S, &total);
    allocator.set_active(F, &a, true);
    let able = Abilities {
        shared: true,
        ..Abilities::default()
    };
    allocator.set_abilities(F, able);
    allocator.set_minimum(&a, "".parse().ok());
    let grants = plan(&mut allocator);
    assert_eq!(*grants[0].resources, total);
    // It stays free, so that nothing would end the offers of it.
    allocator.release(F, &a, S, shared.clone());
    assert_eq!(allocator.free(S), Some(&shared));
    assert!(plan(&mut allocator).is_empty());
    let explained = allocator.explain_all(F, &a);
    let too_little = Reason::BelowMinimum { of: None };
    assert_eq!(explained.refused, [(too_little, 1)].into());
    let least = explained.smallest_change.map(|it| it.to_string());
    let expected = "wait until cpus:0.001 more becomes free: slave S0";
    assert_eq!(least.as_deref(), Some(expected));
}

/// What can happen between two rounds, each to something else, so that any order of them is
/// possible.
#[derive(Debug, Clone)]
enum Happening {
    Add(SlaveId, &'static str),
    Release(usize),
    Activate(FrameworkId),
    Return(SlaveId),
    Weigh(RoleName),
}

#[test]
fn the_order_of_events_in_one_batch_changes_no_totals() {
    let mut chance = Chance(5);
    let roles = ["a", "b", "a/x", "c"];
    for _ in 0..200 {
        let new = || {
            let mut allocator = cluster(12, "cpus:4;mem:400", &[(0, "a"), (1, "b")]);
            for slave in 8..12 {
                allocator.set_offerable(SlaveId(slave), false);
            }
            let grants = plan(&mut allocator);
            (allocator, grants)
        };
        let (_, held) = new();
        let mut batch: Vec<Happening> = Vec::new();
        batch.extend((12..18).map(|slave| Happening::Add(SlaveId(slave), "cpus:2;mem:900")));
        batch.extend(
            (0..held.len())
                .filter(|_| chance.below(2) == 0)
                .map(Happening::Release),
        );
        batch.extend((2..6).map(|framework| Happening::Activate(FrameworkId(framework))));
        batch.extend((8..12).map(|slave| Happening::Return(SlaveId(slave))));
        batch.push(Happening::Weigh(role("b")));
        let run = |batch: &[Happening]| {
            let (mut allocator, held) = new();
            for happening in batch {
                match happening {
                    Happening::Add(slave, total) => allocator.add_slave(*slave, &resources(total)),
                    Happening::Release(at) => {
                        let grant = &held[*at];
                        let resources = grant.resources.clone();
                        allocator.release(grant.framework, &grant.role, grant.slave, resources);
                    }
                    Happening::Activate(framework) => {
                        let role = role(roles[framework.0 as usize % roles.len()]);
                        allocator.set_active(*framework, &role, true);
                    }
                    Happening::Return(slave) => allocator.set_offerable(*slave, true),
                    Happening::Weigh(role) => {
                        allocator.set_weight(role, meros_proto::resources::Scalar::whole(3));
                    }
                }
            }
            let grants = plan(&mut allocator);
            let mut of_slaves: BTreeMap<SlaveId, Resources> = BTreeMap::new();
            let mut all = Resources::new();
            for grant in &grants {
                all.checked_add_assign(&grant.resources).unwrap();
                let of_slave = of_slaves.entry(grant.slave).or_default();
                of_slave.checked_add_assign(&grant.resources).unwrap();
            }
            let shares: Vec<f64> = roles[..2]
                .iter()
                .chain(&["c"])
                .map(|name| {
                    let consumed = allocator
                        .consumed(&role(name), &ResourceName::CPUS)
                        .as_f64();
                    let mem = allocator.consumed(&role(name), &ResourceName::MEM).as_f64();
                    f64::max(
                        consumed / allocator.capacity(&ResourceName::CPUS).as_f64(),
                        mem / allocator.capacity(&ResourceName::MEM).as_f64(),
                    )
                })
                .collect();
            (all, of_slaves, shares)
        };
        let (all, of_slaves, shares) = run(&batch);
        for at in (1..batch.len()).rev() {
            batch.swap(at, chance.below(at + 1));
        }
        let (all_then, of_slaves_then, shares_then) = run(&batch);
        assert_eq!((all, of_slaves), (all_then, of_slaves_then), "{batch:?}");
        // Names break ties, not times: shares are the same but for one slave's worth.
        for (one, other) in shares.iter().zip(&shares_then) {
            assert!((one - other).abs() <= 0.11, "{shares:?} {shares_then:?}");
        }
    }
}
