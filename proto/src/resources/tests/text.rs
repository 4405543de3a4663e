use super::*;

fn refused(text: &str) -> ParseResourcesError {
    match text.parse::<Resources>() {
        Err(error) => error,
        Ok(read) => panic!("{text} was read as {read}"),
    }
}

#[test]
fn the_usual_notation_is_read_and_printed() {
    let usual = "cpus:4;mem:8192;ports:[31000-32000, 33000-33010];zones:{a,b}";
    assert_eq!(resources(usual).to_string(), usual);
    assert_eq!(
        resources("cpus:4").scalar(&ResourceName::CPUS),
        Scalar::whole(4)
    );
    assert_eq!(resources(usual).ports().len(), 1_012);
    let spaced = " mem : 8192 ; zones:{ b , a }; ports:[33000 - 33010,31000-32000 ] ;cpus:4; ";
    assert_eq!(resources(spaced), resources(usual));
    assert_eq!(resources(""), Resources::new());
    assert_eq!(
        resources("cpus(*):1;ports:[80]").to_string(),
        "cpus:1;ports:[80-80]"
    );
}

#[test]
fn reservations_volumes_and_marks_are_read_and_printed() {
    for text in [
        "cpus(ads):1",
        "cpus(ads, bob):1",
        "cpus(ads, ):1",
        "cpus(ads)(ads/web, bob):1",
        "cpus(ads, bob, k=v, k2):1",
        "cpus(ads, , \"a key\"=\"\"):1",
        "cpus{REV}:1",
        "disk(ads, bob)[db:data/x]:1",
        "disk(ads, bob)[\"a:b\":\"x]\"]{SHA}:1",
        "zones:{\"\\\\\",\"a,b\",\"say \\\"hi\\\"\"}",
    ] {
        assert_eq!(resources(text).to_string(), text);
    }
    let bob = resources("cpus(ads, bob):1");
    let top = bob.iter().next().unwrap().reservations().top().unwrap();
    assert_eq!(
        (top.kind(), top.principal()),
        (ReservationKind::Dynamic, Some("bob"))
    );
}

#[test]
fn errors_name_the_place_the_piece_and_what_is_expected() {
    for (text, message) in [
        (
            "cpus",
            "expected `:` and a value, or a role in parentheses at byte 4, found the end of the text",
        ),
        (
            "cpus=4",
            "expected `:` and a value, or a role in parentheses at byte 4, found `=`",
        ),
        (
            "cpus:4x",
            "expected a number such as 4 or 1.5, ranges such as [1-9], or a set such as {a,b} at byte 5, found `4x`",
        ),
        (
            "cpus:4,mem:1",
            "expected `;` between resources at byte 6, found `,`",
        ),
        (
            "cpus:4;;",
            "expected the name of a resource, such as `cpus` at byte 7, found `;`",
        ),
        (
            "cpus():4",
            "expected a role, such as `ads` at byte 5, found `)`",
        ),
        (
            "cpus(ads:4",
            "expected `)` after the reservation, or `,` and a principal at byte 8, found `:`",
        ),
        (
            "ports:[1-]",
            "expected a whole number up to 18446744073709551615 at byte 9, found `]`",
        ),
        (
            "ports:[1:2]",
            "expected `-`, `,` or `]` in the ranges at byte 8, found `:`",
        ),
        (
            "zones:{a b}",
            "expected `,` or `}` in the set at byte 9, found `b`",
        ),
        (
            "zones:{\"a}",
            "expected a closing `\"` somewhere after this one at byte 7, found `\"`",
        ),
        (
            "zones:{\"\\n\"}",
            "expected `\\\"` or `\\\\`, the only escapes at byte 8, found `\\`",
        ),
        ("cpus:-1", "`-1` at byte 5 cannot be"),
        ("ports:[2-1]", "`2-1` at byte 7 cannot be"),
        ("cpus(a//b):1", "`a//b` at byte 5 cannot be"),
        ("gpus:0.5", "`gpus:0.5` at byte 0 cannot be"),
    ] {
        assert_eq!(refused(text).to_string(), message, "{text}");
    }
}

#[test]
fn errors_carry_their_reason() {
    let reason = |text: &str| match refused(text) {
        ParseResourcesError::Invalid { source, .. } => source.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(reason("cpus:-1"), "an amount is not negative");
    assert_eq!(
        reason("cpus:99999999999999999999"),
        "an amount is at most 9223372036854775.807"
    );
    assert_eq!(reason("ports:4"), "`ports` is of type ranges, not scalar");
    assert_eq!(
        reason("ports:[9-1]"),
        "the interval 9-1 ends before it begins"
    );
    assert_eq!(
        reason("cpus(ads)(ops, bob):1"),
        "role `ops` is not `ads` or a role below it"
    );
    assert_eq!(
        reason("cpu%:1"),
        "a resource name consists of letters, digits and `_-./`"
    );
    assert_eq!(reason("disk[v:x]:1"), "a volume is made of reserved disk");
    assert_eq!(
        reason("disk(a)[v:../x]:1"),
        VolumeError::BadPath.to_string()
    );
}

#[test]
fn long_pieces_are_shortened_and_long_texts_refused() {
    let long = format!("cpus:4{}", "é".repeat(100));
    assert!(
        refused(&long)
            .to_string()
            .ends_with(&format!("found `4{}…`", "é".repeat(39)))
    );
    let huge = " ".repeat(Resources::TEXT_BYTES_MAX + 1);
    assert_eq!(
        refused(&huge),
        ParseResourcesError::TooLong {
            got: Resources::TEXT_BYTES_MAX + 1
        }
    );
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(a in declarable()) {
        prop_assert_eq!(a.to_string().parse::<Resources>(), Ok(a));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        if let Ok(read) = text.parse::<Resources>() {
            assert_canonical(&read);
        }
    }

    /// Texts from the alphabet of the notation reach deeper than arbitrary ones.
    #[test]
    fn any_text_that_looks_right_is_read_or_refused(
        text in r#"([a-b]|cpus|ports|disk|[0-9.]|\*|[:;()\[\]{},= /"\\-]|\{REV\}|é){0,40}"#
    ) {
        if let Ok(read) = text.parse::<Resources>() {
            assert_canonical(&read);
            prop_assert_eq!(read.to_string().parse::<Resources>(), Ok(read));
        }
    }
}
