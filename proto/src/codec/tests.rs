//! The codec against honest and hostile bytes.

mod messages;

use std::collections::BTreeMap;

use bytes::BytesMut;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::*;

/// The shapes that messages have: variants of every kind, text, bytes, lists, options, maps, nesting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Sample {
    Ping,
    Acknowledge(u64, [u8; 16]),
    Register {
        name: String,
        pid: Option<u32>,
        load: f64,
        attributes: BTreeMap<String, Value>,
    },
    Offers(Vec<Offer>),
    Log(bytes::Bytes),
    Signed(i64, bool, char),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Value {
    Scalar(i64),
    Ranges(Vec<(u64, u64)>),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Offer {
    id: u64,
    slave: Option<Box<str>>,
    resources: Vec<(String, Value)>,
    parent: Option<Box<Offer>>,
}

/// One byte on the wire when empty, 264 in memory.
type Sparse = Option<[u64; 32]>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    Leaf,
    Node(Box<Nested>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nothing;

fn samples() -> Vec<Sample> {
    let offer = |id: u64| Offer {
        id,
        slave: Some("slave-17".into()),
        resources: vec![
            ("cpus".into(), Value::Scalar(24_000)),
            (
                "ports".into(),
                Value::Ranges(vec![(31_000, 31_009), (31_500, 32_000)]),
            ),
        ],
        parent: None,
    };
    vec![
        Sample::Ping,
        Sample::Acknowledge(u64::MAX, *b"0123456789abcdef"),
        Sample::Register {
            name: "rack-3/κόμβος".into(),
            pid: Some(4_711),
            load: 0.25,
            attributes: BTreeMap::from([
                ("zone".into(), Value::Text("b".into())),
                ("gpus".into(), Value::Scalar(-1)),
            ]),
        },
        Sample::Offers((0..20).map(offer).collect()),
        Sample::Offers(vec![Offer {
            parent: Some(Box::new(offer(1))),
            ..offer(2)
        }]),
        Sample::Log(bytes::Bytes::from_static(b"GET / 200\nGET /x 404\n")),
        Sample::Signed(-7, true, 'μ'),
    ]
}

fn frame_of<T: Serialize>(message: &T) -> BytesMut {
    let mut frame = BytesMut::new();
    encode(message, &mut frame).unwrap();
    frame
}

/// A frame with this payload, whatever it is.
fn raw_frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[WIRE_VERSION], payload].concat()
}

fn code_of<T: DeserializeOwned + std::fmt::Debug>(frame: &[u8]) -> &'static str {
    decode::<T>(frame).unwrap_err().code()
}

#[test]
fn every_kind_of_message_comes_back_as_it_was() {
    for sample in samples() {
        assert_eq!(decode::<Sample>(&frame_of(&sample)).unwrap(), sample);
        let record = encode_record(&sample).unwrap();
        assert_eq!(decode_record::<Sample>(&record).unwrap(), sample);
    }
}

#[test]
fn the_layout_of_a_frame_does_not_change_by_accident() {
    let frame = frame_of(&("ab".to_owned(), 300_u32, Some(-1_i8)));
    assert_eq!(
        frame[..],
        [0, 0, 0, 9, 6, 2, b'a', b'b', 251, 44, 1, 1, 255],
        "length, version, text with its length, marker and 300 little endian, Some, -1"
    );
}

#[test]
fn messages_survive_any_split_of_the_stream() {
    let mut stream = BytesMut::new();
    for sample in samples() {
        encode(&sample, &mut stream).unwrap();
    }
    for piece in [1, 2, 3, 7, 64, stream.len()] {
        let mut frames = FrameBuffer::new();
        let mut seen = Vec::new();
        for chunk in stream.chunks(piece) {
            frames.push(chunk);
            while let Some(message) = frames.next_frame::<Sample>().unwrap() {
                seen.push(message);
            }
        }
        assert_eq!(seen, samples(), "in pieces of {piece}");
        assert!(frames.is_empty());
    }
}

#[test]
fn each_kind_of_bad_frame_has_its_code() {
    let good = frame_of(&samples()[2]);
    assert_eq!(code_of::<Sample>(&[]), "payload_truncated");
    assert_eq!(
        code_of::<Sample>(&good[..good.len() - 1]),
        "payload_truncated"
    );
    assert_eq!(
        code_of::<Sample>(&[&good[..], &[0]].concat()),
        "payload_trailing"
    );
    assert_eq!(code_of::<Sample>(&[0, 0, 0, 0]), "frame_empty");
    assert_eq!(code_of::<Sample>(&[0xff; 16]), "frame_too_long");
    assert_eq!(code_of::<Sample>(&raw_frame(&[])), "payload_truncated");
    assert_eq!(code_of::<Sample>(&raw_frame(&[0, 0])), "payload_trailing");
    assert_eq!(code_of::<Sample>(&raw_frame(&[99])), "payload_malformed");
    assert_eq!(
        code_of::<String>(&raw_frame(&[2, 0xff, 0xfe])),
        "payload_malformed"
    );
    assert_eq!(code_of::<bool>(&raw_frame(&[2])), "payload_malformed");
    assert_eq!(decode_record::<bool>(&[]), Err(DecodeError::Empty));
    assert_eq!(
        decode_record::<bool>(&vec![RECORD_VERSION; FRAME_BYTES_MAX + 1]),
        Err(DecodeError::TooLong {
            length: FRAME_BYTES_MAX + 1
        })
    );
}

#[test]
fn a_frame_of_another_version_names_both_versions() {
    let mut frame = frame_of(&Sample::Ping);
    frame[LENGTH_BYTES] = 9;
    let error = decode::<Sample>(&frame).unwrap_err();
    assert_eq!(
        error,
        DecodeError::Version {
            theirs: 9,
            ours: WIRE_VERSION
        }
    );
    assert_eq!(
        error.to_string(),
        "peer speaks format version 9, this release speaks 6"
    );
    let mut opening = OPENING;
    assert_eq!(check_opening(&opening), Ok(()));
    opening[LENGTH_BYTES] = 9;
    assert_eq!(check_opening(&opening), Err(error));
    assert_eq!(
        check_opening(b"GET /").unwrap_err().code(),
        "frame_too_long"
    );
    assert_eq!(
        check_opening(&[0, 0, 0, 2, WIRE_VERSION])
            .unwrap_err()
            .code(),
        "payload_malformed"
    );
}

#[test]
fn a_message_too_long_for_a_frame_leaves_the_buffer_as_it_was() {
    let mut out = frame_of(&Sample::Ping);
    let before = out.clone();
    let overhead = 5; // The length of such a text: a marker and four bytes.
    let fits = "x".repeat(FRAME_BYTES_MAX - 1 - overhead);
    assert_eq!(
        encode(&format!("{fits}x"), &mut out),
        Err(EncodeError::TooLong)
    );
    assert_eq!(out, before);
    encode(&fits, &mut out).unwrap();
    assert_eq!(decode::<String>(&out[before.len()..]).unwrap(), fits);
}

#[test]
fn an_oversized_length_is_refused_before_its_bytes_are_awaited_or_allocated() {
    let mut frames = FrameBuffer::new();
    let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    frames.push(&length.to_be_bytes());
    let error = DecodeError::TooLong {
        length: FRAME_BYTES_MAX + 1,
    };
    assert_eq!(frames.next_frame::<Sample>(), Err(error.clone()));
    frames.push(&frame_of(&Sample::Ping));
    assert_eq!(
        frames.next_frame::<Sample>(),
        Err(error),
        "the first error is final"
    );
    assert_eq!(frames.len(), 0, "and nothing is kept after it");
}

#[test]
fn a_huge_frame_does_not_pin_its_memory() {
    let mut frames = FrameBuffer::new();
    frames.push(&frame_of(&"x".repeat(2 * 1024 * 1024)));
    assert!(frames.next_frame::<String>().unwrap().is_some());
    assert_eq!(frames.bytes_capacity(), 0);
}

#[test]
fn recursion_deeper_than_any_message_is_an_error_not_a_stack_overflow() {
    let nested = |depth: usize| raw_frame(&[&vec![1; depth][..], &[0]].concat());
    let mut expected = Nested::Leaf;
    for _ in 0..20 {
        expected = Nested::Node(Box::new(expected));
    }
    assert_eq!(decode::<Nested>(&nested(20)).unwrap(), expected);
    for depth in [100, 10_000, FRAME_BYTES_MAX - 2] {
        assert_eq!(code_of::<Nested>(&nested(depth)), "payload_too_deep");
    }
}

#[test]
fn elements_that_are_large_only_in_memory_are_bounded() {
    // A length as a marker and eight bytes, then one byte an element of 264 bytes.
    let count = FRAME_BYTES_MAX - 10;
    let mut payload = vec![253];
    payload.extend_from_slice(&u64::try_from(count).unwrap().to_le_bytes());
    payload.resize(9 + count, 0);
    assert_eq!(
        code_of::<Vec<Sparse>>(&raw_frame(&payload)),
        "payload_too_large"
    );

    let honest = vec![Sparse::None; 200];
    assert_eq!(decode::<Vec<Sparse>>(&frame_of(&honest)).unwrap(), honest);
}

#[test]
fn elements_without_bytes_cannot_be_repeated_for_ever() {
    let mut payload = vec![253];
    payload.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(
        code_of::<Vec<Nothing>>(&raw_frame(&payload)),
        "payload_too_large"
    );
    assert_eq!(
        code_of::<BTreeMap<(), ()>>(&raw_frame(&payload)),
        "payload_too_large"
    );
}

#[test]
fn a_length_inside_the_payload_is_not_believed() {
    // Each claims 2^62 elements and brings none.
    let mut payload = vec![253];
    payload.extend_from_slice(&(1_u64 << 62).to_le_bytes());
    assert_eq!(code_of::<String>(&raw_frame(&payload)), "payload_truncated");
    assert_eq!(
        code_of::<bytes::Bytes>(&raw_frame(&payload)),
        "payload_truncated"
    );
    assert_eq!(
        code_of::<Vec<u64>>(&raw_frame(&payload)),
        "payload_truncated"
    );
    assert_eq!(
        code_of::<Vec<Vec<Sparse>>>(&raw_frame(&payload)),
        "payload_truncated"
    );
    assert_eq!(
        code_of::<BTreeMap<u64, String>>(&raw_frame(&payload)),
        "payload_truncated"
    );
}

/// A small generator of our own: the same numbers on every machine, for ever.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Spoils a frame in one of the ways that bytes go wrong.
fn mutate(random: &mut SplitMix64, corpus: &[Vec<u8>], frame: &mut Vec<u8>) {
    let other = &corpus[random.below(corpus.len())];
    match random.below(8) {
        0 => {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        1 => frame.truncate(random.below(frame.len())),
        2 => {
            let at = random.below(frame.len());
            frame.truncate(at);
            frame.extend_from_slice(&other[random.below(other.len())..]);
        }
        3 => {
            let at = random.below(frame.len());
            frame.splice(at..at, (0..9).map(|_| random.byte()));
        }
        4 => {
            let at = random.below(frame.len());
            let end = (at + random.below(16)).min(frame.len());
            frame.drain(at..end);
        }
        // Markers of 2, 4, 8 and 16 byte integers: the lengths and variants that hurt.
        5 => {
            let at = random.below(frame.len());
            frame[at] = 251 + u8::try_from(random.below(5)).unwrap();
        }
        6 => frame
            .iter_mut()
            .skip(5)
            .for_each(|byte| *byte = random.byte()),
        _ => {
            let at = random.below(frame.len());
            frame[at] = random.byte();
        }
    }
    // Half of them get a length that is right again, or the payload would hardly ever be reached.
    if frame.len() > LENGTH_BYTES + 1 && random.below(2) == 0 {
        let length = u32::try_from(frame.len() - LENGTH_BYTES).unwrap();
        frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        frame[LENGTH_BYTES] = WIRE_VERSION;
    }
}

/// Feeds mutated frames of these messages to the decoder, and counts what came of them.
fn storm<T>(messages: &[T], rounds: u32, seed: u64) -> BTreeMap<&'static str, u32>
where
    T: Serialize + DeserializeOwned + std::fmt::Debug,
{
    let corpus: Vec<Vec<u8>> = messages
        .iter()
        .map(|message| frame_of(message).to_vec())
        .collect();
    let mut random = SplitMix64(seed);
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for round in 0..rounds {
        let mut frame = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(3) {
            if frame.is_empty() {
                frame.push(random.byte());
            }
            mutate(&mut random, &corpus, &mut frame);
        }
        let outcome = if round % 2 == 0 {
            decode::<T>(&frame).map(Some)
        } else {
            let mut frames = FrameBuffer::new();
            frames.push(&frame);
            frames.next_frame()
        };
        let kind = match outcome {
            Ok(Some(message)) => {
                // What was accepted is a real message: it can be written and read again (compared
                // as text, since a NaN is not equal to itself).
                let again: T = decode(&frame_of(&message)).unwrap();
                assert_eq!(format!("{again:?}"), format!("{message:?}"));
                "message"
            }
            Ok(None) => "incomplete",
            Err(error) => error.code(),
        };
        *seen.entry(kind).or_default() += 1;
    }
    seen
}

/// Every outcome that an honest shape of message leaves open to mutations.
const OUTCOMES: [&str; 8] = [
    "frame_empty",
    "frame_too_long",
    "frame_version",
    "incomplete",
    "message",
    "payload_malformed",
    "payload_trailing",
    "payload_truncated",
];

#[test]
fn a_million_mutated_frames_end_in_a_message_or_an_error() {
    let seen = storm(&samples(), 1_000_000, 0x004d_6572_6f73);
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        OUTCOMES,
        "{seen:?}"
    );
}
