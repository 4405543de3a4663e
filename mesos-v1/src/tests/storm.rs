//! Calls as they come from outside, spoiled: each is read or refused, and what is read can be written.
//! `MEROS_FUZZ_ROUNDS` says how many; the seed is the same each time.

use std::collections::BTreeMap;

use prost::Name;

use super::*;
use crate::pb::{agent, master};
use crate::recordio::{Decoder, frame};
use crate::{machines, operation, resources, roles, task};

const ROUNDS: u32 = 6_000;

/// Calls of frameworks.
const SCHEDULER: &[&str] = &[
    r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","roles":["a","b/c"],
      "failover_timeout":1.5,"capabilities":[{"type":"MULTI_ROLE"},{"type":"PARTITION_AWARE"}],
      "labels":{"labels":[{"key":"k","value":"v"}]},"offer_filters":{"a":{"min_allocatable_resources":
      {"quantities":[{"quantities":{"cpus":{"value":2}}}]}}}},"suppressed_roles":["a"],
      "offer_constraints":{"role_constraints":{"a":{"groups":[{"attribute_constraints":[
      {"selector":{"attribute_name":"rack"},"predicate":{"text_matches":{"regex":"r.*"}}}]}]}}}}}"#,
    r#"{"type":"ACKNOWLEDGE","framework_id":{"value":"CLUSTER-0003"},"acknowledge":{"agent_id":
      {"value":"CLUSTER-S2"},"task_id":{"value":"t"},"uuid":"AAAAAAAAAAAAAAAAAAAAAQ=="}}"#,
    r#"{"type":"KILL","framework_id":{"value":"CLUSTER-0003"},"kill":{"task_id":{"value":"t"},
      "kill_policy":{"grace_period":{"nanoseconds":7000000000}}}}"#,
    r#"{"type":"RECONCILE","reconcile":{"tasks":[{"task_id":{"value":"t"},"agent_id":{"value":"CLUSTER-S2"}}]}}"#,
    r#"{"type":"DECLINE","decline":{"offer_ids":[{"value":"CLUSTER-O1-2"}],"filters":{"refuse_seconds":"Infinity"}}}"#,
    r#"{"type":"UPDATE_FRAMEWORK","update_framework":{"framework_info":{"user":"","name":"n","id":
      {"value":"CLUSTER-0003"}},"suppressed_roles":["*"]}}"#,
];

/// Calls of operators.
const OPERATOR: &[&str] = &[
    r#"{"type":"UPDATE_QUOTA","update_quota":{"force":true,"quota_configs":[{"role":"a",
      "guarantees":{"cpus":{"value":1}},"limits":{"cpus":{"value":2},"mem":{"value":64.5}}}]}}"#,
    r#"{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"a","guarantee":[
      {"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"*"}]}}}"#,
    r#"{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"a","weight":2.5}]}}"#,
    r#"{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":{"windows":[
      {"machine_ids":[{"hostname":"h","ip":"10.0.0.1"}],"unavailability":{"start":
      {"nanoseconds":4000000000000000000},"duration":{"nanoseconds":60000000000}}}]}}}"#,
    r#"{"type":"START_MAINTENANCE","start_maintenance":{"machines":[{"hostname":"h"}]}}"#,
    r#"{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"CLUSTER-S0"},"resources":[
      {"name":"disk","type":"SCALAR","scalar":{"value":8},"reservations":[{"type":"DYNAMIC","role":"a",
      "labels":{"labels":[{"key":"k"}]}}]},{"name":"ports","type":"RANGES","ranges":{"range":
      [{"begin":1,"end":18446744073709551615}]}}]}}"#,
    r#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"CLUSTER-S0"},"max_grace_period":
      {"seconds":5,"nanos":1},"mark_gone":true}}"#,
];

/// Calls of operators to a slave.
const AGENT: &[&str] = &[
    r#"{"type":"GET_STATE"}"#,
    r#"{"type":"GET_CONTAINERS","get_containers":{"show_nested":true,"show_standalone":false}}"#,
    r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":60000000000}}}"#,
    r#"{"type":"READ_FILE","read_file":{"path":"/frameworks/F1/executors/t/runs/latest/stdout",
      "offset":7,"length":65536}}"#,
    r#"{"type":"LIST_FILES","list_files":{"path":"/frameworks/F1/executors/t/runs/latest"}}"#,
    r#"{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"1-2","parent":{"value":"1-1"}},
      "signal":15}}"#,
    r#"{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"1-2"}}}"#,
];

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
        let bound = u64::try_from(bound.max(1)).expect("small");
        usize::try_from(self.next() % bound).expect("small")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// Words that hurt where another one was.
const WORDS: [&[u8]; 12] = [
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"\"NaN\"",
    b"[]",
    b"{}",
    b"\"\"",
    b"0.0001",
    b"9223372036854775808",
    b"\"\\ud800\"",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
];

/// Spoils bytes in one of the ways that they go wrong.
fn spoil(random: &mut SplitMix64, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let other = &corpus[random.below(corpus.len())];
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes.truncate(at),
        2 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        3 => {
            let end = (at + random.below(16)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let word = WORDS[random.below(WORDS.len())];
            let end = (at + random.below(word.len() + 4)).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        5 => {
            // A part of it twice: what is once in a message comes again.
            let end = (at + random.below(64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes[at] = random.byte(),
    }
}

fn scheduler(call: &Call) {
    if let Some(subscribe) = &call.subscribe {
        let _ = subscription(subscribe, ids());
    }
    if let Some(update) = &call.update_framework {
        let _ = crate::framework::update(update, ids());
    }
    if let Some(accept) = &call.accept {
        let _ = operation::operations(&accept.operations, ids());
    }
    let _ = request(call, ids());
}

fn operator(call: &master::Call) {
    if let Some(update) = &call.update_quota {
        for config in &update.quota_configs {
            let _ = roles::quota(config);
        }
    }
    if let Some(set) = &call.set_quota {
        let _ = roles::quota_request(&set.quota_request);
    }
    if let Some(update) = &call.update_weights {
        let _ = roles::weights(&update.weight_infos);
    }
    if let Some(update) = &call.update_maintenance_schedule {
        let _ = machines::read_schedule(&update.schedule, &[]);
    }
    if let Some(start) = &call.start_maintenance {
        let _ = machines::slaves(&start.machines, &[]);
    }
    if let Some(reserve) = &call.reserve_resources {
        let _ = resources::from_v1("resources", &reserve.resources);
        let _ = ids().read_slave(&reserve.agent_id);
    }
    if let Some(policy) = call.get_metrics.as_ref().and_then(|it| it.timeout) {
        let _ = task::duration("timeout", policy);
    }
}

fn agent_call(call: &agent::Call) {
    if let Some(set) = &call.set_logging_level {
        let _ = task::duration("set_logging_level.duration", set.duration);
    }
}

fn rounds() -> u32 {
    match std::env::var("MEROS_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("MEROS_FUZZ_ROUNDS is a number"),
        Err(_) => ROUNDS,
    }
}

/// Feeds spoiled calls to the decoder, and counts what came of them.
fn storm<M: prost::Message + Default + Name + std::fmt::Debug>(
    media: Media,
    texts: &[&str],
    seed: u64,
    look: impl Fn(&M),
) -> BTreeMap<&'static str, u32> {
    let corpus: Vec<Vec<u8>> = texts
        .iter()
        .map(|text| {
            let json = text.replace("CLUSTER", CLUSTER);
            let message: M = decode(Media::Json, json.as_bytes()).expect("well formed");
            look(&message);
            match media {
                Media::Json => json.into_bytes(),
                Media::Protobuf => encode(media, &message),
            }
        })
        .collect();
    let mut random = SplitMix64(seed);
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for _ in 0..rounds() {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(3) {
            if bytes.is_empty() {
                bytes.push(random.byte());
            }
            spoil(&mut random, &corpus, &mut bytes);
        }
        let outcome = match decode::<M>(media, &bytes) {
            Ok(message) => {
                look(&message);
                // As text, since a NaN is not equal to itself.
                let again: M = decode(media, &encode(media, &message)).expect("our own");
                assert_eq!(format!("{again:?}"), format!("{message:?}"));
                "message"
            }
            Err(crate::encoding::DecodeError::Missing { .. }) => "missing",
            Err(_) => "refused",
        };
        *seen.entry(outcome).or_default() += 1;
    }
    seen
}

/// Every outcome occurs, or the storm does not reach what it is about.
#[track_caller]
fn check(seen: &BTreeMap<&'static str, u32>) {
    let outcomes: Vec<_> = seen.keys().copied().collect();
    assert_eq!(outcomes, ["message", "missing", "refused"], "{seen:?}");
}

#[test]
fn spoiled_calls_of_frameworks_are_read_or_refused() {
    check(&storm(Media::Json, SCHEDULER, 1, scheduler));
    check(&storm(Media::Protobuf, SCHEDULER, 2, scheduler));
}

#[test]
fn spoiled_calls_of_operators_are_read_or_refused() {
    check(&storm(Media::Json, OPERATOR, 3, operator));
    check(&storm(Media::Protobuf, OPERATOR, 4, operator));
}

#[test]
fn spoiled_calls_to_slaves_are_read_or_refused() {
    check(&storm(Media::Json, AGENT, 6, agent_call));
    check(&storm(Media::Protobuf, AGENT, 7, agent_call));
}

#[test]
fn a_spoiled_stream_of_records_ends_in_an_error_and_takes_no_memory() {
    const RECORD_MAX: usize = 2_048;
    let records: Vec<Vec<u8>> = SCHEDULER
        .iter()
        .map(|text| frame(text.as_bytes()).to_vec())
        .collect();
    let mut random = SplitMix64(5);
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..rounds() {
        let mut stream = records.concat();
        for _ in 0..random.below(3) {
            if !stream.is_empty() {
                spoil(&mut random, &records, &mut stream);
            }
        }
        let mut decoder = Decoder::new(RECORD_MAX);
        let mut is_broken = false;
        for mut piece in stream.chunks(1 + random.below(700)) {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(record)) => assert!((1..=RECORD_MAX).contains(&record.len())),
                    Ok(None) => break,
                    Err(_) => {
                        is_broken = true;
                        break;
                    }
                }
            }
            if is_broken {
                break;
            }
        }
        match is_broken {
            true => broken += 1,
            false => whole += 1,
        }
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}
