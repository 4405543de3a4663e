use super::*;

fn declared(text: &str) -> DeclareError {
    match text.parse::<Resources>() {
        Err(ParseResourcesError::Together { source }) => source,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn lists_that_no_slave_can_have_are_refused() {
    assert!(matches!(
        declared("x:1;x:{a}"),
        DeclareError::KindsDiffer { .. }
    ));
    assert!(matches!(
        declared("mem:90000000000.001"),
        DeclareError::TooMuch { .. }
    ));
    assert!(matches!(
        declared("mem:90000000000;mem(ads):0.001"),
        DeclareError::TooMuch { .. }
    ));
    assert!(matches!(
        declared("mem:9223372036854775;mem:9223372036854775"),
        DeclareError::TooMuch { .. }
    ));
    assert!(matches!(
        declared("ports:[1-10];ports(ads):[10-12]"),
        DeclareError::Overlap { .. }
    ));
    assert!(matches!(
        declared("zones:{a,b};zones(ads):{b}"),
        DeclareError::Overlap { .. }
    ));
    let volumes = "disk(ads, bob)[v:x]:1;disk(ads, eve)[v:y]:1";
    assert!(matches!(
        declared(volumes),
        DeclareError::DuplicateVolume { .. }
    ));
    let many: Vec<String> = (0..=Resources::ENTRIES_MAX)
        .map(|i| format!("r{i}:1"))
        .collect();
    assert_eq!(
        declared(&many.join(";")),
        DeclareError::TooMany { got: 1_025 }
    );
}

#[test]
fn lists_that_only_look_odd_are_normalised() {
    assert_eq!(
        resources("ports:[3-8, 1-5, 9-9];gpus:0;ports:[7-12];zones:{}").to_string(),
        "ports:[1-12]"
    );
    assert_eq!(
        resources("disk(ads)[v:x]:1;disk(bob)[v:x]:1")
            .iter()
            .count(),
        2
    );
    assert_eq!(
        resources("disk(ads)[v:x]{SHA}:1;disk(ads)[v:x]{SHA}:1")
            .iter()
            .count(),
        2
    );
    assert_eq!(
        resources("mem:90000000000").scalar(&ResourceName::MEM),
        Scalar::DECLARED_MAX
    );
}

proptest! {
    #[test]
    fn declaring_is_adding_in_any_order(a in declarable()) {
        let mut list: Vec<Resource> = a.iter().cloned().collect();
        list.reverse();
        prop_assert_eq!(Resources::declare(list), Ok(a));
    }
}
