use super::*;
use crate::codec;
use proptest::sample::Index;

/// The payload of a record: what stands in a frame, too.
fn payload<T: serde::Serialize + ?Sized>(value: &T) -> Vec<u8> {
    codec::encode_record(&value).unwrap().split_off(1)
}

fn frame(resources: &Resources) -> Vec<u8> {
    payload(resources)
}

fn unframe(bytes: &[u8]) -> Result<Resources, codec::DecodeError> {
    codec::decode_record(&[&[codec::RECORD_VERSION], bytes].concat())
}

fn from_json(json: &str) -> Result<Resources, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[test]
fn json_is_a_list_of_readable_objects() {
    let all =
        resources("cpus:1.5;mem{REV}:100;ports:[1-2];zones:{a};disk(ads, bob, k)[v:x]{SHA}:9");
    let expected = [
        r#"{"name":"cpus","type":"scalar","value":1.5}"#,
        r#"{"name":"mem","type":"scalar","value":100,"revocable":true}"#,
        concat!(
            r#"{"name":"disk","type":"scalar","value":9,"#,
            r#""reservations":[{"type":"dynamic","role":"ads","principal":"bob","labels":[{"key":"k"}]}],"#,
            r#""volume":{"id":"v","container_path":"x"},"shared":true}"#
        ),
        r#"{"name":"ports","type":"ranges","value":[{"begin":1,"end":2}]}"#,
        r#"{"name":"zones","type":"set","value":["a"]}"#,
    ];
    assert_eq!(
        serde_json::to_string(&all).unwrap(),
        format!("[{}]", expected.join(","))
    );
    assert_eq!(from_json(&serde_json::to_string(&all).unwrap()), Ok(all));
}

#[test]
fn json_that_is_wrong_is_refused_with_a_reason() {
    let one = |fields: &str| from_json(&format!(r#"[{{{fields}}}]"#)).unwrap_err();
    for (fields, reason) in [
        (
            r#""name":"cpus","type":"scalar","value":-1"#,
            "an amount is not negative",
        ),
        (
            r#""name":"cpus","type":"scalar","value":-0.5"#,
            "an amount is not negative",
        ),
        (
            r#""name":"cpus","type":"scalar","value":1e300"#,
            "an amount is at most",
        ),
        (
            r#""name":"cpus","type":"scalar","value":91000000000"#,
            "more `cpus` than",
        ),
        (
            r#""name":"cpus","type":"scalar","value":"4""#,
            "expected a number, a list of",
        ),
        (
            r#""name":"cpus","type":"scalar","value":[]"#,
            "a value of type scalar is a number",
        ),
        (
            r#""name":"cpus","type":"ranges","value":[]"#,
            "`cpus` is of type scalar, not ranges",
        ),
        (
            r#""name":"","type":"scalar","value":1"#,
            "a resource name has 1 to 128 bytes",
        ),
        (
            r#""name":"ports","type":"ranges","value":[{"begin":2,"end":1}]"#,
            "does not end before it begins",
        ),
        (
            r#""name":"ports","type":"ranges","value":["a"]"#,
            "a list of intervals",
        ),
        (
            r#""name":"ports","type":"ranges","value":7"#,
            "a value of type ranges is a list",
        ),
        (
            r#""name":"zones","type":"set","value":[""]"#,
            "an item of a set is not empty",
        ),
        (
            r#""name":"zones","type":"text","value":"a""#,
            "unknown variant `text`",
        ),
        (r#""name":"cpus","type":"scalar"#, "EOF"),
        (
            r#""name":"cpus","type":"scalar","value":1,"role":"ads""#,
            "unknown field `role`",
        ),
        (
            r#""name":"cpus","type":"scalar","value":1,"shared":true"#,
            "only a volume can be shared",
        ),
    ] {
        let error = one(fields);
        assert!(error.contains(reason), "{fields}: {error}");
    }
}

#[test]
fn not_a_number_cannot_be_written_in_json() {
    for value in ["NaN", "Infinity", "-Infinity", "null"] {
        assert!(
            from_json(&format!(
                r#"[{{"name":"cpus","type":"scalar","value":{value}}}]"#
            ))
            .is_err()
        );
    }
}

#[test]
fn a_frame_with_negative_or_excessive_amounts_is_refused() {
    let good = frame(&resources("cpus:1"));
    // The amount is the last thing before four fields of one byte; 251 announces two bytes.
    let at = good.len() - 7;
    assert_eq!(good[at..at + 3], [251, 232, 3]);
    for amount in [
        u64::MAX,
        i64::MAX.unsigned_abs(),
        i64::MAX.unsigned_abs() + 1,
    ] {
        let mut bad = good[..at].to_vec();
        bad.push(253);
        bad.extend(amount.to_le_bytes());
        bad.extend(&good[at + 3..]);
        assert!(unframe(&bad).is_err(), "{amount}");
    }
}

#[test]
fn a_frame_that_claims_a_huge_list_is_refused_without_allocating_it() {
    for claim in [u64::MAX, u64::MAX / 2, 1 << 40] {
        let mut bytes = vec![253];
        bytes.extend(claim.to_le_bytes());
        assert!(unframe(&bytes).is_err());
    }
}

#[test]
fn a_frame_with_more_entries_than_allowed_is_refused() {
    let entries: Vec<Resource> =
        vec![Resource::new(ResourceName::CPUS, Scalar::ONE).unwrap(); Resources::ENTRIES_MAX + 1];
    let bytes = payload(&entries);
    assert!(
        unframe(&bytes)
            .unwrap_err()
            .to_string()
            .contains("more than 1024 resources")
    );
    let bytes = payload(&entries[1..]);
    assert_eq!(unframe(&bytes).unwrap(), resources("cpus:1024"));
}

proptest! {
    #[test]
    fn json_and_frames_bring_back_what_was_written(a in declarable()) {
        prop_assert_eq!(&from_json(&serde_json::to_string(&a).unwrap()).unwrap(), &a);
        prop_assert_eq!(&unframe(&frame(&a)).unwrap(), &a);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(read) = unframe(&bytes) {
            assert_canonical(&read);
        }
    }

    #[test]
    fn any_change_of_a_frame_gives_a_canonical_sum_or_an_error(
        a in declarable(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let mut bytes = frame(&a);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(read) = unframe(bytes) {
                assert_canonical(&read);
                prop_assert_eq!(unframe(&frame(&read)).unwrap(), read);
            }
        }
    }

    #[test]
    fn any_change_of_json_gives_a_canonical_sum_or_an_error(
        a in declarable(),
        changes in prop::collection::vec((any::<Index>(), prop::char::range(' ', '~')), 1..4),
    ) {
        let mut text: Vec<char> = serde_json::to_string(&a).unwrap().chars().collect();
        for (at, c) in changes {
            let at = at.index(text.len());
            text[at] = c;
        }
        if let Ok(read) = from_json(&text.into_iter().collect::<String>()) {
            assert_canonical(&read);
        }
    }
}
