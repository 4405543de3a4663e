use super::*;
use crate::role::RoleName;

fn role(text: &str) -> RoleName {
    text.parse().unwrap()
}

fn bob(text: &str) -> Reservation {
    Reservation::dynamic(role(text), Some("bob".into()), Labels::new()).unwrap()
}

#[test]
fn parts_are_found_by_reservation_and_role() {
    let all = resources("cpus:1;cpus(eng):2;cpus(eng)(eng/web, bob):4;cpus(ops):8;cpus{REV}:16");
    assert_eq!(all.unreserved().to_string(), "cpus:1;cpus{REV}:16");
    assert_eq!(all.reserved_for(&role("eng")).to_string(), "cpus(eng):2");
    assert_eq!(
        all.reserved_for(&role("eng/web")).to_string(),
        "cpus(eng)(eng/web, bob):4"
    );
    let total = |text: &str| all.allocatable_to(&role(text)).scalar(&ResourceName::CPUS);
    assert_eq!(total("eng"), Scalar::whole(1 + 2 + 16));
    assert_eq!(total("eng/web/x"), Scalar::whole(1 + 2 + 4 + 16));
    assert_eq!(total("*"), Scalar::whole(1 + 16));
    assert_eq!(
        all.revocable().scalar(&ResourceName::CPUS),
        Scalar::whole(16)
    );
    assert_eq!(
        all.non_revocable().checked_add(&all.revocable()).unwrap(),
        all
    );
}

#[test]
fn reserving_moves_a_part_and_unreserving_moves_it_back() {
    let all = resources("cpus:4;ports:[1-9]");
    let part = resources("cpus:1;ports:[3-4]");
    let reserved = all.reserve(&part, &bob("ads")).unwrap();
    assert_eq!(
        reserved.to_string(),
        "cpus:3;cpus(ads, bob):1;ports:[1-2, 5-9];ports(ads, bob):[3-4]"
    );
    assert_eq!(
        reserved
            .unreserve(&resources("cpus(ads, bob):1;ports(ads, bob):[3-4]"))
            .unwrap(),
        all
    );
}

#[test]
fn reserving_and_unreserving_refuse_what_cannot_be() {
    let all = resources("cpus:1;cpus(ads):1;disk(ads, bob)[v:x]:1");
    let refused = |outcome: Result<Resources, ConvertError>| match outcome {
        Err(ConvertError::Resource { source }) => source,
        other => panic!("{other:?}"),
    };
    let missing = all.reserve(&resources("cpus:2"), &bob("ads")).unwrap_err();
    assert!(matches!(missing, ConvertError::Insufficient { .. }));
    let foreign = refused(all.reserve(&resources("cpus(ads):1"), &bob("ops")));
    assert!(matches!(
        foreign,
        ResourceError::Reservation {
            source: ReservationError::NotARefinement { .. },
            ..
        }
    ));
    let fixed = refused(all.unreserve(&resources("cpus(ads):1")));
    assert!(matches!(
        fixed,
        ResourceError::Reservation {
            source: ReservationError::StaticStays,
            ..
        }
    ));
    let unreserved = refused(all.unreserve(&resources("cpus:1")));
    assert!(matches!(
        unreserved,
        ResourceError::Reservation {
            source: ReservationError::NotReserved,
            ..
        }
    ));
    let volume = refused(all.unreserve(&resources("disk(ads, bob)[v:x]:1")));
    assert!(matches!(volume, ResourceError::VolumeInTheWay { .. }));
}

#[test]
fn a_want_is_met_from_reserved_resources_first() {
    let offer =
        resources("cpus:4;cpus(ads, bob):2;mem:100;ports:[1-9];ports(ads):[20-29];cpus{REV}:8");
    let take = |want: &str| {
        offer
            .take_fitting(&resources(want))
            .map(|taken| taken.to_string())
    };
    assert_eq!(take("cpus:1").as_deref(), Some("cpus(ads, bob):1"));
    assert_eq!(
        take("cpus:5;mem:50").as_deref(),
        Some("cpus:3;cpus(ads, bob):2;mem:50")
    );
    assert_eq!(
        take("ports:[5-6, 21-21]").as_deref(),
        Some("ports:[5-6];ports(ads):[21-21]")
    );
    assert_eq!(take("cpus{REV}:8").as_deref(), Some("cpus{REV}:8"));
    assert_eq!(
        take("cpus(ads, bob):2;cpus:4").as_deref(),
        Some("cpus:4;cpus(ads, bob):2")
    );
    assert_eq!(take("").as_deref(), Some(""));
    assert_eq!(take("cpus:6.001"), None);
    assert_eq!(take("cpus(ads, bob):2;cpus:4.5"), None);
    assert_eq!(take("cpus(ops):1"), None);
}

#[test]
fn a_volume_is_never_taken_for_plain_disk() {
    let offer = resources("disk(ads, bob)[v:x]:100;disk:10");
    assert_eq!(offer.take_fitting(&resources("disk:11")), None);
    let volume = resources("disk(ads, bob)[v:x]:100");
    assert_eq!(offer.take_fitting(&volume), Some(volume));
}

#[test]
fn a_shortfall_is_described_for_people() {
    let offer = resources("cpus:1;cpus(ads):0.5;mem:100;zones:{a}");
    let describe = |want: &str| offer.describe_shortfall(&resources(want));
    assert_eq!(
        describe("cpus:4;mem:100;gpus:1;ports:[80-80];zones:{b}"),
        "cpus: wanted 4, has 1.5; gpus: wanted 1, has 0; ports: wanted [80-80], has []; \
         zones: wanted {b}, has {a}"
    );
    assert_eq!(describe("cpus:1.5"), "");
}

#[test]
fn revocable_and_other_resources_of_one_name_do_not_mix() {
    let check = |parts: &[&str]| {
        let parts: Vec<Resources> = parts.iter().map(|text| resources(text)).collect();
        Resources::check_revocable_mix(&parts).map_err(|error| error.name.to_string())
    };
    assert_eq!(check(&["cpus{REV}:1;mem:1", "cpus{REV}:1;mem:1"]), Ok(()));
    assert_eq!(check(&["cpus:1;cpus(ads):1"]), Ok(()));
    assert_eq!(check(&["cpus:1;cpus{REV}:1"]), Err("cpus".into()));
    assert_eq!(check(&["mem:1;cpus:1", "mem{REV}:1"]), Err("mem".into()));
}

proptest! {
    #[test]
    fn unreserving_undoes_reserving(a in any_resources()) {
        let reservation = bob("a/b/c/d");
        let part = a.filter(|entry| entry.reserve(&reservation).is_ok());
        let pushed = part.push_reservation(&reservation).unwrap();
        prop_assert_eq!(&pushed.pop_reservation().unwrap(), &part);
        let reserved = a.reserve(&part, &reservation).unwrap();
        assert_canonical(&reserved);
        prop_assert_eq!(reserved.scalar(&ResourceName::CPUS), a.scalar(&ResourceName::CPUS));
        prop_assert_eq!(reserved.unreserve(&pushed).unwrap(), a);
    }

    #[test]
    fn what_fits_is_a_part_with_the_wanted_totals(a in declarable(), want in declarable()) {
        let want = want.unreserved();
        match a.take_fitting(&want) {
            Some(taken) => {
                assert_canonical(&taken);
                prop_assert!(a.contains(&taken));
                prop_assert_eq!(a.describe_shortfall(&want), "");
                for wanted in &want {
                    prop_assert_eq!(taken.scalar(wanted.name()), want.scalar(wanted.name()));
                    prop_assert_eq!(taken.ranges(wanted.name()), want.ranges(wanted.name()));
                }
            }
            None => prop_assert!(!a.contains(&want) && !a.describe_shortfall(&want).is_empty()),
        }
    }
}
