//! The laws of the algebra, on resources with every feature that keeps entries apart.

use proptest::prelude::*;

use super::*;
use crate::labels::{Label, Labels};

mod declare;
mod select;
mod text;
mod wire;

pub(super) fn resources(text: &str) -> Resources {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn reservations() -> impl Strategy<Value = Reservations> {
    let label = ("[a-c =\"]{0,3}", prop::option::of("[a-c]{0,2}"))
        .prop_map(|(key, value)| Label::new(key, value).unwrap());
    let labels =
        prop::collection::vec(label, 0..3).prop_map(|list| Labels::from_list(list).unwrap());
    let principal = prop::option::of("[a-c )\\\\]{1,3}");
    let dynamic = |role: &'static str| {
        (principal.clone(), labels.clone()).prop_map(move |(principal, labels)| {
            Reservation::dynamic(role.parse().unwrap(), principal, labels).unwrap()
        })
    };
    let fixed = Just(Reservation::fixed("a".parse().unwrap()).unwrap());
    let stack = prop_oneof![
        4 => Just(vec![]),
        2 => fixed.clone().prop_map(|bottom| vec![bottom]),
        2 => dynamic("a").prop_map(|bottom| vec![bottom]),
        1 => (fixed, dynamic("a/b")).prop_map(|(bottom, top)| vec![bottom, top]),
        1 => (dynamic("a"), dynamic("a"), dynamic("a/b/c")).prop_map(|(x, y, z)| vec![x, y, z]),
    ];
    stack.prop_map(|stack| Reservations::from_stack(stack).unwrap())
}

fn amount() -> impl Strategy<Value = Scalar> {
    // Small amounts meet and cancel out often.
    prop_oneof![0_i64..5, 0_i64..5_000_000].prop_map(|t| Scalar::from_thousandths(t).unwrap())
}

fn ranges() -> impl Strategy<Value = Ranges> {
    prop::collection::vec((0_u64..30, 0_u64..5), 0..4).prop_map(|list| {
        Ranges::from_intervals(
            list.into_iter()
                .map(|(begin, n)| Interval::new(begin, begin + n).unwrap()),
        )
    })
}

fn set() -> impl Strategy<Value = Set> {
    prop::collection::vec("[a-c ,\"]{1,2}", 0..4).prop_map(|items| Set::from_items(items).unwrap())
}

fn named() -> impl Strategy<Value = Resource> {
    let scalars = prop_oneof![Just("cpus"), Just("mem"), Just("disk"), Just("licences")];
    prop_oneof![
        3 => (scalars, amount()).prop_map(|(name, amount)| Resource::new(name.parse().unwrap(), amount)),
        1 => (0_u32..4).prop_map(|n| Resource::new(ResourceName::GPUS, Scalar::whole(n))),
        2 => ranges().prop_map(|ranges| Resource::new(ResourceName::PORTS, ranges)),
        1 => set().prop_map(|set| Resource::new("zones".parse().unwrap(), set)),
    ]
    .prop_map(|resource| resource.unwrap())
}

fn volume() -> impl Strategy<Value = Resource> {
    let volume = ("[v-w ]", "[d-e:]{1,2}").prop_map(|(id, path)| Volume::new(id, path).unwrap());
    let reserved = reservations().prop_filter("a volume is reserved", |stack| !stack.is_empty());
    (1_u32..3, reserved, volume, any::<bool>()).prop_map(|(size, reserved, volume, shared)| {
        let disk = Resource::new(ResourceName::DISK, Scalar::whole(size)).unwrap();
        let volume = disk
            .with_reservations(reserved)
            .unwrap()
            .with_volume(volume)
            .unwrap();
        if shared {
            volume.into_shared().unwrap()
        } else {
            volume
        }
    })
}

fn any_resource() -> impl Strategy<Value = Resource> {
    let plain =
        (named(), reservations(), any::<bool>()).prop_map(|(resource, reservations, revocable)| {
            let resource = resource.with_reservations(reservations).unwrap();
            if revocable {
                resource.clone().into_revocable().unwrap_or(resource)
            } else {
                resource
            }
        });
    prop_oneof![5 => plain, 1 => volume()]
}

/// Any sum, also those that no single slave could have.
pub(super) fn any_resources() -> impl Strategy<Value = Resources> {
    prop::collection::vec(any_resource(), 0..8).prop_map(|list| {
        list.into_iter().fold(Resources::new(), |sum, resource| {
            sum.checked_add(&resource.into()).unwrap()
        })
    })
}

/// What a slave could have: passes [`Resources::declare`].
pub(super) fn declarable() -> impl Strategy<Value = Resources> {
    prop::collection::vec(any_resource(), 0..8)
        .prop_filter_map("not of one slave", |list| Resources::declare(list).ok())
}

/// Sums of scalars alone, where addition is exact.
fn scalars() -> impl Strategy<Value = Resources> {
    any_resources().prop_map(|all| all.filter(|entry| entry.value().kind() == Kind::Scalar))
}

fn assert_canonical(sum: &Resources) {
    for pair in sum.entries.windows(2) {
        let order = pair[0].cmp_identity(&pair[1]);
        assert!(
            order.is_lt() || (order.is_eq() && pair[0].volume().is_some()),
            "{sum}"
        );
    }
    assert!(sum.iter().all(|entry| !entry.value().is_empty()), "{sum}");
}

proptest! {
    #[test]
    fn what_was_added_can_be_taken_back(a in scalars(), b in scalars()) {
        let sum = a.checked_add(&b).unwrap();
        assert_canonical(&sum);
        prop_assert_eq!(sum.checked_sub(&b).unwrap(), a);
    }

    #[test]
    fn what_was_taken_can_be_added_back(a in any_resources(), b in any_resources()) {
        // A part of `a` that is not trivial: what is left of it without some of `b`.
        let part = a.filter(|entry| b.iter().any(|other| other.name() == entry.name()));
        let rest = a.checked_sub(&part).unwrap();
        assert_canonical(&rest);
        prop_assert_eq!(rest.checked_add(&part).unwrap(), a);
    }

    #[test]
    fn taking_succeeds_exactly_if_contained_and_never_goes_below_zero(a in any_resources(), b in any_resources()) {
        match a.checked_sub(&b) {
            Ok(rest) => {
                prop_assert!(a.contains(&b));
                assert_canonical(&rest);
                prop_assert_eq!(rest.checked_add(&b).unwrap(), a);
            }
            Err(insufficient) => {
                prop_assert!(!a.contains(&b));
                prop_assert!(!insufficient.shortfalls.is_empty());
                for shortfall in &insufficient.shortfalls {
                    prop_assert!(!shortfall.has.contains(&shortfall.wanted));
                }
            }
        }
    }

    #[test]
    fn addition_is_commutative_and_associative(a in any_resources(), b in any_resources(), c in any_resources()) {
        let add = |x: &Resources, y: &Resources| x.checked_add(y).unwrap();
        prop_assert_eq!(add(&a, &b), add(&b, &a));
        prop_assert_eq!(add(&add(&a, &b), &c), add(&a, &add(&b, &c)));
        assert_canonical(&add(&a, &b));
        prop_assert_eq!(add(&a, &Resources::new()), a);
    }

    #[test]
    fn containment_is_a_partial_order(a in any_resources(), b in any_resources(), c in any_resources()) {
        let ab = a.checked_add(&b).unwrap();
        let abc = ab.checked_add(&c).unwrap();
        prop_assert!(a.contains(&a) && a.contains(&Resources::new()));
        prop_assert!(ab.contains(&a) && abc.contains(&ab) && abc.contains(&a));
        prop_assert!(!a.contains(&b) || !b.contains(&a) || a == b);
        prop_assert!(!(a.contains(&b) && b.contains(&c)) || a.contains(&c));
    }

    #[test]
    fn totals_are_those_of_the_entries(a in declarable()) {
        let cpus = a.iter().filter(|entry| *entry.name() == ResourceName::CPUS);
        let sum: i64 = cpus.map(|entry| match entry.value() {
            Value::Scalar(amount) => amount.thousandths(),
            other => panic!("cpus are a scalar, not {other}"),
        }).sum();
        prop_assert_eq!(a.scalar(&ResourceName::CPUS).thousandths(), sum);
    }
}

#[test]
fn entries_merge_unless_something_keeps_them_apart() {
    let sum =
        resources("mem:1;cpus:1;cpus:2;cpus(ads):1;cpus(ads, bob):1;cpus(ads, bob):1;cpus{REV}:1");
    assert_eq!(
        sum.to_string(),
        "cpus:3;cpus{REV}:1;cpus(ads):1;cpus(ads, bob):2;mem:1"
    );
    // semantics: D6, differing labels never merge.
    let labelled = resources("cpus(ads, bob, k=1):1;cpus(ads, bob, k=2):1");
    assert_eq!(labelled.iter().count(), 2);
    assert_eq!(labelled.scalar(&ResourceName::CPUS), Scalar::whole(2));
}

#[test]
fn a_sum_above_the_maximum_is_refused_and_changes_nothing() {
    let huge = Resources::from(Resource::new(ResourceName::MEM, Scalar::MAX).unwrap());
    let mut sum = resources("cpus:1").checked_add(&huge).unwrap();
    let before = sum.clone();
    let more = resources("cpus:1;mem:0.001");
    assert_eq!(
        sum.checked_add_assign(&more),
        Err(SumTooLarge {
            name: ResourceName::MEM
        })
    );
    assert_eq!(sum, before);
}

#[test]
fn what_is_missing_is_named_and_nothing_is_taken() {
    let mut free = resources("cpus:1.5;mem:100;ports:[1-5]");
    let before = free.clone();
    let error = free
        .checked_sub_assign(&resources("cpus:4;mem:50;ports:[5-6];gpus:1"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cpus: wanted 4, has 1.5; gpus: wanted 1, has 0; ports: wanted [5-6], has [1-5]"
    );
    assert_eq!(free, before);
    let error = free.checked_sub(&resources("cpus(ads):1")).unwrap_err();
    assert_eq!(error.to_string(), "cpus(ads): wanted 1, has 0");
}

#[test]
fn a_volume_is_taken_whole_and_copies_count() {
    let volume = resources("disk(ads, bob)[v:data]:10");
    let two = volume.checked_add(&volume).unwrap();
    assert_eq!(two.iter().count(), 2);
    assert_eq!(two.checked_sub(&volume).unwrap(), volume);
    assert!(!volume.contains(&two));
    assert!(!volume.contains(&resources("disk(ads, bob)[v:data]:5")));
    assert!(!volume.contains(&resources("disk(ads, bob):5")));
    assert_eq!(two.scalar(&ResourceName::DISK), Scalar::whole(20));
    // semantics: D7, several tasks use the same megabytes.
    let shared = resources("disk(ads, bob)[v:data]{SHA}:10");
    let twice = shared.checked_add(&shared).unwrap();
    assert_eq!(twice.scalar(&ResourceName::DISK), Scalar::whole(10));
}

#[test]
fn many_copies_of_volumes_are_told_apart_from_each_other() {
    let (v, w) = (resources("disk(ads)[v:x]:1"), resources("disk(ads)[w:x]:1"));
    let times = |one: &Resources, n: usize| {
        (0..n).fold(Resources::new(), |sum, _| sum.checked_add(one).unwrap())
    };
    let all = times(&v, 20).checked_add(&times(&w, 20)).unwrap();
    assert!(all.contains(&times(&w, 20)) && !all.contains(&times(&w, 21)));
    assert_eq!(all.checked_sub(&times(&w, 20)).unwrap(), times(&v, 20));
    assert_eq!(
        all.checked_sub(&times(&v, 19)).unwrap(),
        v.checked_add(&times(&w, 20)).unwrap()
    );
}

#[test]
fn what_cannot_be_is_refused_at_construction() {
    let scalar =
        |name: ResourceName, text: &str| Resource::new(name, text.parse::<Scalar>().unwrap());
    assert!(matches!(
        scalar(ResourceName::GPUS, "1.5"),
        Err(ResourceError::FractionalGpus { .. })
    ));
    assert!(matches!(
        scalar(ResourceName::PORTS, "1"),
        Err(ResourceError::WrongKind { .. })
    ));
    let disk = scalar(ResourceName::DISK, "10").unwrap();
    let volume = Volume::new("v", "data").unwrap();
    assert_eq!(
        disk.clone().with_volume(volume.clone()),
        Err(ResourceError::VolumeNotReserved)
    );
    assert_eq!(
        disk.clone().into_shared(),
        Err(ResourceError::SharedWithoutVolume)
    );
    let bob =
        Reservation::dynamic("ads".parse().unwrap(), Some("bob".into()), Labels::new()).unwrap();
    let revocable = disk.clone().into_revocable().unwrap();
    assert_eq!(
        revocable.reserve(&bob),
        Err(ResourceError::RevocablePromise)
    );
    let reserved = disk.reserve(&bob).unwrap();
    assert_eq!(
        reserved.clone().into_revocable(),
        Err(ResourceError::RevocablePromise)
    );
    let mem = scalar(ResourceName::MEM, "10")
        .unwrap()
        .reserve(&bob)
        .unwrap();
    assert!(matches!(
        mem.with_volume(volume.clone()),
        Err(ResourceError::VolumeNotOnDisk { .. })
    ));
    let created = reserved.with_volume(volume).unwrap();
    assert_eq!(
        created.unreserve(),
        Err(ResourceError::VolumeInTheWay { id: "v".into() })
    );
}

#[test]
fn long_sums_are_searched_as_well_as_short_ones() {
    let text: Vec<String> = (0..100).map(|i| format!("r{i:03}:{}", i + 1)).collect();
    let all = resources(&text.join(";"));
    for one in &text {
        let one = resources(one);
        let rest = all.checked_sub(&one).unwrap();
        assert_eq!(rest.iter().count(), 99);
        assert!(all.contains(&one) && !rest.contains(&one));
        assert_eq!(rest.checked_add(&one).unwrap(), all);
    }
}

/// Slaves and tasks keep sums by the thousand: what one costs should change on purpose only.
#[test]
fn a_sum_of_four_entries_takes_little_memory() {
    assert!(size_of::<Resource>() <= 80, "{}", size_of::<Resource>());
    assert!(size_of::<Resources>() <= 336, "{}", size_of::<Resources>());
}
