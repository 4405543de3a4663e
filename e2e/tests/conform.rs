//! `meros conform` against a cluster, and against the same cluster behind a proxy that lies: each case
//! finds the lie that is about it.

use std::time::Duration;

use meros_conform::{Case, Outcome, Target, cases};
use meros_e2e::liar::Change::{self, Body, Header, Record, Split, Status, Text, Without};
use meros_e2e::liar::{Liar, Lie};
use meros_e2e::{ClusterOptions, LocalCluster};
use serde_json::Value;

/// What Meros does not offer yet.
const NOT_OFFERED: [&str; 0] = [];

/// Far more than it takes until there are offers.
const TRIES_MAX: usize = 30;

/// For each case, in which answers something is different, and what. A wrong server says as much with
/// each of them as one that does not know the rule.
const LIES: &[(&str, &str, Change)] = &[
    ("A1", "", Status(400, 404)),
    ("A2.method", "GET ", Status(405, 200)),
    ("A2.content_type_missing", "", Status(400, 202)),
    ("A2.content_type_other", "", Status(415, 400)),
    ("A2.accept_other", "", Status(406, 200)),
    ("A2.unreadable", "", Status(400, 500)),
    (
        "A2.protobuf",
        "",
        Header("content-type", Some("application/json")),
    ),
    ("A2.accept_both", "", Body("\u{8}\u{3}")),
    ("A3", "SUBSCRIBE", Body("0\n")),
    ("A4", "SUBSCRIBE", Header("mesos-stream-id", None)),
    ("A5.accepted", "REVIVE", Status(202, 200)),
    ("A5.stream_id_missing", "REVIVE", Status(400, 202)),
    ("A5.stream_id_other", "REVIVE", Status(400, 202)),
    ("A5.subscribe_with_stream_id", "SUBSCRIBE", Status(400, 200)),
    ("A5.unknown", "REVIVE", Status(400, 403)),
    ("A5.not_subscribed", "REVIVE", Status(403, 400)),
    ("A6", "", Status(307, 200)),
    (
        "A7",
        "SUBSCRIBE",
        Text("heartbeat_interval_seconds", "interval"),
    ),
    (
        "A8",
        "SUBSCRIBE",
        Header("mesos-stream-id", Some("the-same")),
    ),
    ("A9", "SUBSCRIBE", Text("-S", "_S")),
    ("A10", "/flags", Text("\"flags\"", "\"options\"")),
    ("B1.new", "SUBSCRIBE", Record(SUBSCRIBED)),
    ("B1.role_with_multi_role", "SUBSCRIBE", Record(SUBSCRIBED)),
    (
        "B1.roles_without_multi_role",
        "SUBSCRIBE",
        Record(SUBSCRIBED),
    ),
    ("B1.suppressed_roles", "SUBSCRIBE", Record(SUBSCRIBED)),
    (
        "B1.no_role",
        "GET_ROLES",
        Text("\"name\":\"*\"", "\"name\":\"x\""),
    ),
    ("B2.principal", "conform-b", Record(SUBSCRIBED)),
    ("B2.fields", "GET_FRAMEWORKS", Text("renamed", "conform")),
    ("B3", "TEARDOWN", Status(202, 200)),
    (
        "B4.launch",
        "SUBSCRIBE",
        Text("TASK_FINISHED", "TASK_FAILED"),
    ),
    ("B4.no_operations", "ACCEPT", Status(202, 400)),
    (
        "B4.in_order",
        "SUBSCRIBE",
        Text("TASK_FINISHED", "TASK_ERROR"),
    ),
    ("B5", "DECLINE", Status(202, 400)),
    ("B6", "INVERSE", Status(202, 400)),
    ("B7", "REVIVE", Status(202, 400)),
    ("B8", "SUPPRESS", Status(202, 400)),
    ("B9.task", "SUBSCRIBE", Text("TASK_KILLED", "TASK_LOST")),
    ("B9.unknown", "SUBSCRIBE", Text("TASK_UNKNOWN", "TASK_LOST")),
    ("B10", "SHUTDOWN", Status(202, 400)),
    ("B11", "ACKNOWLEDGE", Status(202, 400)),
    ("B12", "ACKNOWLEDGE", Status(202, 400)),
    (
        "B13.explicit",
        "SUBSCRIBE",
        Text("SOURCE_MASTER", "SOURCE_AGENT"),
    ),
    (
        "B13.implicit",
        "SUBSCRIBE",
        Text("SOURCE_MASTER", "SOURCE_AGENT"),
    ),
    (
        "B13.unknown",
        "SUBSCRIBE",
        Text("REASON_RECONCILIATION", "REASON_TASK_UNKNOWN"),
    ),
    (
        "B14",
        "SUBSCRIBE",
        Text("OPERATION_UNKNOWN", "OPERATION_FAILED"),
    ),
    ("B15", "MESSAGE", Status(202, 400)),
    ("B16", "REQUEST", Status(202, 400)),
    ("B17.update", "UPDATE_FRAMEWORK", Status(200, 202)),
    ("B17.principal", "UPDATE_FRAMEWORK", Status(400, 200)),
    ("B17.roles", "UPDATE_FRAMEWORK", Status(400, 200)),
    ("C1", "SUBSCRIBE", Text("\"master_info\"", "\"master\"")),
    (
        "C2",
        "SUBSCRIBE",
        Text("\"role\":\"conform", "\"role\":\"x"),
    ),
    ("C5", "SUBSCRIBE", Text("\"uuid\"", "\"uid\"")),
    (
        "C6",
        "SUBSCRIBE",
        Text("OPERATION_FINISHED", "OPERATION_FAILED"),
    ),
    (
        "C6.error",
        "SUBSCRIBE",
        Text("OPERATION_ERROR", "OPERATION_FINISHED"),
    ),
    ("C7", "SUBSCRIBE", Text("\"message\"", "\"text\"")),
    ("D1", "SUBSCRIBE", Text("TASK_ERROR", "TASK_FAILED")),
    (
        "D2",
        "SUBSCRIBE",
        Text("REASON_TASK_GROUP_INVALID", "REASON_TASK_INVALID"),
    ),
    (
        "D7.grow",
        "SUBSCRIBE",
        Text("OPERATION_FINISHED", "OPERATION_FAILED"),
    ),
    (
        "D7.shrink",
        "SUBSCRIBE",
        Text("OPERATION_FINISHED", "OPERATION_FAILED"),
    ),
    (
        "D7.shrink_all",
        "SUBSCRIBE",
        Text("OPERATION_ERROR", "OPERATION_FINISHED"),
    ),
    ("D9", "SUBSCRIBE", Text("TASK_ERROR", "TASK_FAILED")),
    (
        "E6",
        "SUBSCRIBE",
        Text("REASON_INVALID_OFFERS", "REASON_TASK_INVALID"),
    ),
    ("M1.unknown", "SUBSCRIBE", ELSEWHERE),
    ("M1.encoding", "SUBSCRIBE", ELSEWHERE),
    ("M1.not_subscribed", "SUBSCRIBE", ELSEWHERE),
    ("M1.heartbeat", "SUBSCRIBE", ELSEWHERE),
    ("M2.subscribed", "SUBSCRIBE", ELSEWHERE),
    ("M2.launch", "SUBSCRIBE", ELSEWHERE),
    ("M2.shutdown", "SUBSCRIBE", ELSEWHERE),
    ("M1.message", "MESSAGE", Status(202, 400)),
    ("M1.update", "SUBSCRIBE", Text("\"said\"", "\"heard\"")),
    ("M2.kill", "SUBSCRIBE", Text("TASK_KILLED", "TASK_FAILED")),
    ("M3", "SUBSCRIBE", Text("TASK_FINISHED", "TASK_RUNNING")),
    ("M7", "SUBSCRIBE", Text("TASK_KILLED", "TASK_LOST")),
    (
        "M8",
        "SUBSCRIBE",
        Text("\"healthy\":false", "\"healthy\":true"),
    ),
    (
        "M8.check",
        "SUBSCRIBE",
        Text("\"exit_code\":5", "\"exit_code\":6"),
    ),
    (
        "N2",
        "SUBSCRIBE",
        Header("mesos-stream-id", Some("the-same")),
    ),
    (
        "N3",
        "GET_FRAMEWORKS",
        Text("completed_frameworks", "ended"),
    ),
    ("O1.GET_HEALTH", "GET_", Text("get_", "got_")),
    ("O1.GET_FLAGS", "GET_", Text("get_", "got_")),
    ("O1.GET_VERSION", "GET_", Text("get_", "got_")),
    ("O1.GET_METRICS", "GET_", Text("get_", "got_")),
    ("O1.GET_LOGGING_LEVEL", "GET_", Text("get_", "got_")),
    ("O1.SET_LOGGING_LEVEL", "LOGGING", Status(200, 202)),
    ("O1.GET_STATE", "GET_", Text("get_", "got_")),
    ("O1.GET_AGENTS", "GET_", Text("get_", "got_")),
    ("O1.GET_FRAMEWORKS", "GET_", Text("get_", "got_")),
    ("O1.GET_EXECUTORS", "GET_", Text("get_", "got_")),
    ("O1.GET_OPERATIONS", "GET_", Text("get_", "got_")),
    ("O1.GET_TASKS", "GET_", Text("\"GET_", "\"")),
    ("O1.GET_ROLES", "GET_", Text("get_", "got_")),
    ("O1.GET_WEIGHTS", "GET_", Text("get_", "got_")),
    ("O1.GET_MASTER", "GET_", Text("get_", "got_")),
    ("O1.GET_MAINTENANCE_STATUS", "GET_", Text("get_", "got_")),
    ("O1.GET_MAINTENANCE_SCHEDULE", "GET_", Text("get_", "got_")),
    ("O1.GET_QUOTA", "GET_", Text("get_", "got_")),
    ("O1.LIST_FILES", "LIST_FILES", Status(404, 500)),
    ("O1.READ_FILE", "READ_FILE", Status(404, 500)),
    ("O1.UPDATE_WEIGHTS", "GET_WEIGHTS", Text("2.5", "3.5")),
    ("O1.UPDATE_QUOTA", "GET_QUOTA", Text("1.5", "9.5")),
    ("O1.SET_QUOTA", "GET_QUOTA", Text("\"infos\"", "\"quotas\"")),
    (
        "O1.UPDATE_MAINTENANCE_SCHEDULE",
        "GET_MAINTENANCE_SCHEDULE",
        Text("4000000000000000000", "4000000000"),
    ),
    ("O1.START_MAINTENANCE", "START_", Status(400, 200)),
    ("O1.STOP_MAINTENANCE", "STOP_", Status(400, 200)),
    ("O1.reads", "/weights", Body("{}")),
    ("O1.TEARDOWN", "TEARDOWN", Status(200, 202)),
    ("O1.MARK_AGENT_GONE", "MARK", Status(404, 200)),
    ("O1.DRAIN_AGENT", "DRAIN", Status(404, 200)),
    ("O1.DEACTIVATE_AGENT", "SUBSCRIBE", Without("RESCIND")),
    ("O2.reserve", "RESERVE_RESOURCES", Status(202, 200)),
    ("O2.resize", "GROW_VOLUME", Status(202, 200)),
    ("O2.insufficient", "RESERVE_RESOURCES", Status(409, 202)),
    ("O2.invalid", "", Status(400, 202)),
    ("O3.subscribed", "SUBSCRIBE", Text("get_state", "state")),
    ("O3.frameworks", "SUBSCRIBE", Without("FRAMEWORK_UPDATED")),
    ("O3.tasks", "SUBSCRIBE", Text("TASK_ADDED", "TASK_UPDATED")),
    ("O4.GET_HEALTH", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_VERSION", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_FLAGS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_METRICS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_STATE", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_TASKS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_CONTAINERS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_AGENT", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_FRAMEWORKS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_EXECUTORS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_OPERATIONS", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_LOGGING_LEVEL", "SUBSCRIBE", ELSEWHERE),
    ("O4.GET_RESOURCE_PROVIDERS", "SUBSCRIBE", ELSEWHERE),
    ("R1.chunks", "SUBSCRIBE", Split),
    ("R1.plain", "SUBSCRIBE", Text("\\u00e4", "ä")),
    ("R2.media_types", "GET_VERSION", CHARSET),
    ("R2.no_content", "REVIVE", CHARSET),
    (
        "R2.recordio",
        "SUBSCRIBE",
        Header("message-content-type", None),
    ),
    ("R3", "/version", Text("\"1.", "\"v1.")),
    ("R4", "SUBSCRIBE", Without("HEARTBEAT")),
    ("R5", "redirect", Header("location", Some("http://leader"))),
    ("R6.prefix", "/master", Status(200, 404)),
    ("R6.below", "/operator", Status(200, 404)),
    ("R7", "DECLINE", Status(202, 400)),
    (
        "R8.single_role",
        "SUBSCRIBE",
        Text(
            "\"resources\":[{",
            "\"resources\":[{\"allocation_info\":{\"role\":\"*\"},",
        ),
    ),
    (
        "R8.multi_role",
        "SUBSCRIBE",
        Text("allocation_info", "allocation"),
    ),
    (
        "R8.old_reservations",
        "SUBSCRIBE",
        Text("\"role\":", "\"for\":"),
    ),
    (
        "R8.new_reservations",
        "SUBSCRIBE",
        Text("\"resources\":[{", "\"resources\":[{\"role\":\"*\","),
    ),
    ("R9.subscribe", "SUBSCRIBE", Status(200, 400)),
    ("R9.calls", "DECLINE", Status(202, 400)),
    ("R9.task", "SUBSCRIBE", Text("TASK_FINISHED", "TASK_ERROR")),
    ("R10", "SUBSCRIBE", Text("\"hostname\":", "\"host\":")),
    (
        "R11",
        "SUBSCRIBE",
        Text("\"container_status\"", "\"container\""),
    ),
    ("R14", "/state", Text("\"master@", "\"")),
    ("R15", "SUBSCRIBE", Text("\"ERROR\"", "\"HEARTBEAT\"")),
];

/// Instead of an ERROR, or of each framework's own.
const SUBSCRIBED: &str = r#"{"type":"SUBSCRIBED","subscribed":{"framework_id":{"value":"x"}}}"#;
/// An address where no agent is.
const ELSEWHERE: Change = Text("\"ip\":\"127.0.0.1\"", "\"ip\":\"127.1.2.3\"");
const CHARSET: Change = Header("content-type", Some("application/json; charset=utf-8"));

fn lie_about(case: &Case) -> Lie {
    let mut lies = LIES.iter().filter(|(id, ..)| *id == case.id);
    let (_, when, change) = lies
        .next()
        .unwrap_or_else(|| panic!("no lie about {}", case.id));
    Lie {
        when,
        change: *change,
    }
}

/// What a lying server is examined with: what does not come is not waited for so long. That something
/// comes too late is a failure, too, but for offers.
fn examined(master: &str) -> Target {
    let mut target = Target::new(master).expect("an address");
    target.patience = Duration::from_secs(1);
    target.quiet = Duration::from_millis(100);
    target
}

#[test]
fn meros_conforms_and_each_case_finds_the_lie_that_is_about_it() {
    let mut options = ClusterOptions::new("conform", 2);
    options.masters = 2;
    // The leader leads to the end, on a busy machine, too.
    options.master_args = ["--heartbeat-interval=1s", "--lease=10s"]
        .map(str::to_owned)
        .to_vec();
    let cluster = LocalCluster::start(options);
    let leader = cluster.leader().expect("one leads");
    let (leader, follower) = (cluster.address_of(leader), cluster.address_of(1 - leader));

    let ran = cluster.meros(&[
        "conform",
        leader,
        "--follower",
        follower,
        "--output",
        "json",
    ]);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", ran.stdout, ran.stderr);
    });
    let is_wrong = |row: &&Value| {
        let id = row["id"].as_str().expect("each has one");
        let expected = match NOT_OFFERED.contains(&id) {
            true => "not_offered",
            false => "passed",
        };
        row["outcome"] != expected
    };
    let wrong: Vec<String> = rows.iter().filter(is_wrong).map(Value::to_string).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rows.len(), cases().count());
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let mut unnoticed = Vec::new();
    for case in cases() {
        let lie = lie_about(case);
        let (master, other) = (Liar::start(leader, lie), Liar::start(follower, lie));
        let mut target = examined(master.address());
        target.follower = Some(other.address().to_owned());
        // Offers may come late, since the case before has only just given them back.
        let mut tries = (0..TRIES_MAX).map(|_| case.run(&target));
        let outcome = tries.find(|it| !matches!(it, Outcome::NotTried(_)));
        if !matches!(outcome, Some(Outcome::Failed(_))) {
            unnoticed.push(format!("{}: {outcome:?}", case.id));
        }
    }
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
    let ran = cluster.meros(&["conform", "127.0.0.1:1", "--only", "A1"]);
    assert_eq!(ran.code, 125, "nobody is there: {}", ran.stderr);
}
