//! Calls and events as clients write and read them, and bytes that are neither.

mod storm;

use std::time::Duration;

use meros_proto::check::CheckStatus;
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{
    ClusterId, Epoch, ExecutorId, FrameworkId, OfferId, SlaveId, TaskId, UpdateId,
};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::{Offer, Operation};
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use proptest::prelude::*;

use crate::calls::{Request, request};
use crate::encoding::{Media, decode, encode};
use crate::events::{self, Teller};
use crate::framework::subscription;
use crate::ids::Ids;
use crate::operation::{self, Operations};
use crate::pb;
use crate::pb::scheduler::{Call, Event};
use crate::resources::Form;

const CLUSTER: &str = "00000000-0000-0000-0000-000000000007";

fn ids() -> Ids {
    Ids::new(ClusterId(7))
}

fn call(json: &str) -> Call {
    let json = json.replace("CLUSTER", CLUSTER);
    decode(Media::Json, json.as_bytes()).expect("well formed")
}

fn asked(json: &str) -> FrameworkToMaster {
    match request(&call(json), ids()).expect("possible") {
        Request::Ask { message, .. } => message,
        Request::Nothing => panic!("nothing is asked"),
    }
}

fn teller(multi_role: bool) -> Teller {
    Teller {
        ids: ids(),
        form: Form {
            multi_role,
            refined: false,
        },
    }
}

fn text(event: &Event) -> String {
    String::from_utf8(encode(Media::Json, event)).expect("ASCII")
}

#[test]
fn json_is_read_as_leniently_as_clients_need_it() {
    // semantics: A2, R7, R9
    let call = call(
        r#"{"type":"SUBSCRIBE","framework_id":null,"extra":{"a":[1]},"subscribe":{"force":true,
        "framework_info":{"user":"","name":"é","webui_url":"","hostname":"","checkpoint":"true",
        "failover_timeout":"5","capabilities":[{"type":"PARTITION_AWARE"},{"type":"FROM_TOMORROW"},null],
        "labels":null}}}"#,
    );
    let subscribe = call.subscribe.expect("there");
    let read = subscription(&subscribe, ids()).expect("fine");
    assert_eq!(read.framework.name, "é");
    assert_eq!(read.framework.user, None);
    assert!(read.framework.checkpoint);
    assert_eq!(read.framework.failover_timeout, Duration::from_secs(5));
    assert_eq!(read.framework.roles, [RoleName::any()]);
    let capabilities = [FrameworkCapability::PartitionAware];
    assert_eq!(read.framework.capabilities, capabilities);
    let framework = serde_json_like("Infinity");
    assert!(framework.failover_timeout > Duration::from_secs(86_400 * 365));
}

fn serde_json_like(timeout: &str) -> meros_proto::framework::FrameworkDescription {
    let json = format!(
        r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":
        {{"user":"u","name":"n","failover_timeout":"{timeout}"}}}}}}"#
    );
    let subscribe = call(&json).subscribe.expect("there");
    subscription(&subscribe, ids()).expect("fine").framework
}

#[test]
fn a_missing_required_field_is_named_in_both_encodings() {
    let missing = br#"{"type":"KILL","kill":{"agent_id":{}}}"#;
    let error = decode::<Call>(Media::Json, missing).expect_err("no task id");
    assert!(error.to_string().contains("kill.task_id"), "{error}");
    // KILL with an empty kill, by hand: type is field 2, kill field 6.
    let error = decode::<Call>(Media::Protobuf, &[0x10, 6, 0x32, 0]).expect_err("no task id");
    assert!(error.to_string().contains("kill.task_id"), "{error}");
}

#[test]
fn what_is_wrong_with_a_framework_is_named() {
    for (info, field) in [
        (
            r#""role":"a","capabilities":[{"type":"MULTI_ROLE"}]"#,
            "framework_info.role ",
        ),
        (r#""roles":["a"]"#, "framework_info.roles"),
        (r#""role":"a b""#, "framework_info.role "),
        (r#""principal":"\n""#, "framework_info.principal"),
        (
            r#""failover_timeout":-1"#,
            "framework_info.failover_timeout",
        ),
        (r#""id":{"value":"abc"}"#, "framework_info.id"),
    ] {
        let json = format!(
            r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":{{"user":"","name":"n",{info}}}}}}}"#
        );
        let subscribe = call(&json).subscribe.expect("there");
        let error = subscription(&subscribe, ids()).expect_err(info);
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn wishes_are_read() {
    // semantics: B1
    let subscribe = call(
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"","name":"n","role":"web",
        "offer_filters":{"web":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{"value":2}}}]}}}},
        "suppressed_roles":["web"],"offer_constraints":{"role_constraints":{"web":{"groups":[{"attribute_constraints":[
        {"selector":{"attribute_name":"rack"},"predicate":{"text_equals":{"value":"r1"}}},
        {"selector":{"pseudoattribute_type":"HOSTNAME"},"predicate":{"exists":{}}}]}]}}}}}"#,
    );
    let read = subscription(&subscribe.subscribe.expect("there"), ids()).expect("fine");
    let [wishes] = read.wishes.as_slice() else {
        panic!("{:?}", read.wishes)
    };
    assert_eq!(
        wishes.minimum,
        Some(vec!["cpus:2".parse().expect("well formed")])
    );
    let group: Vec<String> = wishes.constraints.groups[0]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(group, [r#"attribute rack equals "r1""#, "hostname exists"]);
    assert_eq!(read.suppressed_roles.len(), 1);
}

#[test]
fn calls_ask_what_they_say() {
    let slave_id = Some(SlaveId(2));
    let task_id = TaskId::new("t").expect("an id");
    assert_eq!(
        asked(
            r#"{"type":"ACKNOWLEDGE","acknowledge":{"agent_id":{"value":"CLUSTER-S2"},
            "task_id":{"value":"t"},"uuid":"AAAAAAAAAAAAAAAAAAAAAQ=="}}"#
        ),
        FrameworkToMaster::Acknowledge {
            slave_id,
            task_id: task_id.clone(),
            update_id: UpdateId(1)
        }
    );
    assert_eq!(
        asked(
            r#"{"type":"KILL","kill":{"task_id":{"value":"t"},"agent_id":{"value":"CLUSTER-S2"},
            "kill_policy":{"grace_period":{"nanoseconds":"7000"}}}}"#
        ),
        FrameworkToMaster::Kill {
            task_id,
            slave_id,
            grace: Some(Duration::from_micros(7))
        }
    );
    assert_eq!(
        asked(r#"{"type":"REVIVE"}"#),
        FrameworkToMaster::Revive { roles: vec![] }
    );
    for (seconds, refuse) in [
        ("0", Duration::ZERO),
        ("-3", Duration::from_secs(5)),
        ("\"NaN\"", Duration::from_secs(5)),
        ("4294967295", meros_proto::offer::REFUSE_MAX),
    ] {
        let json = format!(
            r#"{{"type":"DECLINE","decline":{{"offer_ids":[],"filters":{{"refuse_seconds":{seconds}}}}}}}"#
        );
        let FrameworkToMaster::Decline { filters, .. } = asked(&json) else {
            panic!("{json}")
        };
        assert_eq!(filters.refuse, refuse, "semantics: E3, {seconds}");
    }
}

#[test]
fn an_update_of_a_framework_says_all_that_a_subscription_says() {
    // semantics: B17
    let call = call(
        r#"{"type": "UPDATE_FRAMEWORK", "update_framework": {"suppressed_roles": ["b"], "framework_info": {
            "user": "u", "name": "n", "id": {"value": "CLUSTER-0003"}, "roles": ["a", "b"],
            "capabilities": [{"type": "MULTI_ROLE"}]}}}"#,
    );
    let update = call.update_framework.as_ref().expect("it is there");
    let read = crate::framework::update(update, ids()).expect("valid");
    assert_eq!(read.framework.framework_id, Some(FrameworkId(3)));
    assert_eq!(read.framework.roles.len(), 2);
    assert_eq!(read.suppressed_roles.len(), 1);
    assert!(read.form.multi_role);
    assert!(
        request(&call, ids()).is_err(),
        "it is answered when it is done"
    );
}

#[test]
fn operations_are_asked_about_and_executors_are_spoken_to() {
    // semantics: B10, B14, B15
    let message = asked(
        r#"{"type": "RECONCILE_OPERATIONS", "reconcile_operations": {"operations": [
            {"operation_id": {"value": "o"}, "agent_id": {"value": "CLUSTER-S2"}}]}}"#,
    );
    let FrameworkToMaster::ReconcileOperations { operations } = message else {
        panic!("{message:?}");
    };
    assert_eq!(operations[0].operation_id.as_str(), "o");
    assert_eq!(operations[0].slave_id, Some(SlaveId(2)));
    let message = asked(
        r#"{"type": "SHUTDOWN", "shutdown": {"executor_id": {"value": "e"},
            "agent_id": {"value": "CLUSTER-S2"}}}"#,
    );
    let executor_id = ExecutorId::new("e").unwrap();
    let slave_id = SlaveId(2);
    let expected = FrameworkToMaster::ShutdownExecutor {
        slave_id,
        executor_id: executor_id.clone(),
    };
    assert_eq!(message, expected);
    let message = asked(
        r#"{"type": "MESSAGE", "message": {"executor_id": {"value": "e"},
            "agent_id": {"value": "CLUSTER-S2"}, "data": "aGk="}}"#,
    );
    let expected = FrameworkToMaster::ExecutorMessage {
        slave_id,
        executor_id,
        data: "hi".into(),
    };
    assert_eq!(message, expected);
    for kind in ["SHUTDOWN", "MESSAGE"] {
        let without = call(&format!(r#"{{"type": "{kind}"}}"#));
        assert!(request(&without, ids()).is_err(), "{kind}");
    }
}

#[test]
fn a_task_that_cannot_be_read_fails_alone() {
    // semantics: D1
    let call = call(
        r#"{"type":"ACCEPT","accept":{"offer_ids":[{"value":"CLUSTER-O1-2"}],"operations":[
        {"type":"LAUNCH","launch":{"task_infos":[
          {"name":"a","task_id":{"value":"a"},"agent_id":{"value":"CLUSTER-S2"},"command":{"value":"true"}},
          {"name":"b","task_id":{"value":"b/c"},"agent_id":{"value":"CLUSTER-S2"},"command":{"value":"true"}}]}},
        {"type":"CREATE_DISK","id":{"value":"op"}},{"type":"GROW_VOLUME"}]}}"#,
    );
    let Ok(Request::Ask {
        message,
        told,
        dropped,
    }) = request(&call, ids())
    else {
        panic!("possible in part")
    };
    let FrameworkToMaster::Accept {
        operations,
        offer_ids,
        ..
    } = message
    else {
        panic!("{message:?}")
    };
    let offer = OfferId {
        epoch: Epoch(1),
        number: 2,
    };
    assert_eq!(offer_ids, [offer]);
    let [Operation::Launch(tasks)] = operations.as_slice() else {
        panic!("{operations:?}")
    };
    assert_eq!(tasks.len(), 1);
    let told: Vec<String> = told.iter().map(text).collect();
    assert!(told[0].contains("TASK_ERROR") && told[0].contains("REASON_TASK_INVALID"));
    assert!(
        told[0].contains(r#""task_id":{"value":"b/c"}"#),
        "{}",
        told[0]
    );
    assert!(told[1].contains("OPERATION_ERROR") && told[1].contains(r#""value":"op""#));
    assert_eq!((told.len(), dropped.len()), (2, 1));
}

fn launch_group(executor: &str, second: &str) -> Operations {
    let task = |rest: &str| {
        format!(
            r#"{{"name":"n","agent_id":{{"value":"CLUSTER-S4"}},"resources":[{{"name":"cpus","type":"SCALAR","scalar":{{"value":1}}}}],{rest}}}"#
        )
    };
    let first = task(r#""task_id":{"value":"a"},"command":{"value":"true"}"#);
    let second = task(second);
    let json = format!(
        r#"{{"type":"LAUNCH_GROUP","launch_group":{{"executor":{executor},"task_group":{{"tasks":[{first},{second}]}}}}}}"#
    );
    let operation = json.replace("CLUSTER", &ids().slave(SlaveId(4)).value.replace("-S4", ""));
    let operation = decode(Media::Json, operation.as_bytes()).expect("well formed");
    operation::operations(&[operation], ids())
}

const DEFAULT_EXECUTOR: &str = r#"{"type":"DEFAULT","executor_id":{"value":"pod"},"resources":[{"name":"mem","type":"SCALAR","scalar":{"value":32}}]}"#;
const GOOD_TASK: &str = r#""task_id":{"value":"b"},"command":{"value":"true"}"#;

#[test]
fn a_group_under_the_default_executor_is_read() {
    // semantics: D2, M7
    let read = launch_group(DEFAULT_EXECUTOR, GOOD_TASK);
    assert_eq!((read.told.len(), read.dropped.len()), (0, 0));
    let [Operation::LaunchGroup(group)] = read.possible.as_slice() else {
        panic!("{:?}", read.possible)
    };
    assert!(group.executor.is_group());
    assert_eq!(group.executor.executor_id.as_str(), "pod");
    assert_eq!(group.executor.resources.to_string(), "mem:32");
    let tasks = group.tasks.iter();
    let tasks: Vec<_> = tasks
        .map(|it| (it.task_id.as_str(), it.executor.is_none()))
        .collect();
    assert_eq!(tasks, [("a", true), ("b", true)]);
}

#[test]
fn a_group_that_cannot_be_read_is_refused_as_a_whole() {
    // semantics: D2
    let cases = [
        (
            r#"{"type":"CUSTOM","executor_id":{"value":"e"},"command":{"value":"true"}}"#,
            GOOD_TASK,
            "executor.type is not supported",
        ),
        (
            r#"{"type":"DEFAULT","executor_id":{"value":"e"},"command":{"value":"true"}}"#,
            GOOD_TASK,
            "executor.command is not valid",
        ),
        (
            DEFAULT_EXECUTOR,
            r#""task_id":{"value":"b/c"},"command":{"value":"true"}"#,
            "task_id is not valid",
        ),
        (
            DEFAULT_EXECUTOR,
            r#""task_id":{"value":"b"},"executor":{"executor_id":{"value":"e"},"command":{"value":"true"}}"#,
            "executor is not supported",
        ),
    ];
    for (executor, second, why) in cases {
        let read = launch_group(executor, second);
        assert!(read.possible.is_empty(), "{:?}", read.possible);
        let told: Vec<String> = read.told.iter().map(text).collect();
        assert_eq!(told.len(), 2, "{why}");
        for told in &told {
            assert!(told.contains("TASK_ERROR"), "{told}");
            assert!(told.contains("REASON_TASK_GROUP_INVALID"), "{told}");
            assert!(told.contains(why), "{told}");
        }
    }
}

#[test]
fn volumes_that_grow_and_shrink_are_read() {
    // semantics: D3, D7
    let disk = |amount: f64, volume: &str| {
        format!(
            r#"{{"name":"disk","type":"SCALAR","scalar":{{"value":{amount}}},"reservations":[{{"type":"DYNAMIC","role":"a"}}]{volume}}}"#
        )
    };
    let db =
        r#","disk":{"persistence":{"id":"db"},"volume":{"container_path":"data","mode":"RW"}}"#;
    let (volume, addition) = (disk(40.0, db), disk(20.0, ""));
    let json = format!(
        r#"{{"type":"ACCEPT","accept":{{"offer_ids":[{{"value":"CLUSTER-O1-2"}}],"operations":[
        {{"type":"GROW_VOLUME","id":{{"value":"g"}},"grow_volume":{{"volume":{volume},"addition":{addition}}}}},
        {{"type":"SHRINK_VOLUME","shrink_volume":{{"volume":{volume},"subtract":{{"value":15.5}}}}}},
        {{"type":"SHRINK_VOLUME","id":{{"value":"s"}},"shrink_volume":{{"volume":{volume},"subtract":{{"value":39.5}}}}}},
        {{"type":"SHRINK_VOLUME","id":{{"value":"n"}},"shrink_volume":{{"volume":{volume},"subtract":{{"value":-1}}}}}},
        {{"type":"SHRINK_VOLUME","id":{{"value":"d"}},"shrink_volume":{{"volume":{addition},"subtract":{{"value":1}}}}}},
        {{"type":"SHRINK_VOLUME","id":{{"value":"m"}}}}]}}}}"#
    );
    let Ok(Request::Ask { message, told, .. }) = request(&call(&json), ids()) else {
        panic!("possible in part")
    };
    let FrameworkToMaster::Accept { operations, .. } = message else {
        panic!("{message:?}")
    };
    let read: Vec<String> = operations
        .iter()
        .map(|operation| match operation {
            Operation::Change(it) => {
                let id = it.operation_id.as_ref().map_or("", |id| id.as_str());
                format!("{id} {} {}", it.change.kind, it.change.resources)
            }
            Operation::Launch(_) | Operation::LaunchGroup(_) => panic!("{operation:?}"),
        })
        .collect();
    assert_eq!(
        read,
        [
            "g grow disk(a, ):20;disk(a, )[db:data]:40",
            " shrink disk(a, ):15.5;disk(a, )[db:data]:24.5",
        ]
    );
    let told: Vec<String> = told.iter().map(text).collect();
    let said = ["keeps at least 1", "subtract", "is no volume", "missing"];
    assert_eq!(told.len(), said.len(), "{told:?}");
    for (event, why) in told.iter().zip(said) {
        assert!(
            event.contains("OPERATION_ERROR") && event.contains(why),
            "{event}"
        );
    }
}

#[test]
fn an_offer_is_what_clients_look_for() {
    // semantics: R8, R10
    let offer = Offer {
        offer_id: OfferId {
            epoch: Epoch(1),
            number: 2,
        },
        framework_id: FrameworkId(3),
        slave_id: SlaveId(4),
        hostname: "höst".to_owned(),
        http_address: "127.0.0.1:5051".to_owned(),
        role: RoleName::any(),
        resources: "cpus:1;ports:[1-2]".parse().expect("well formed"),
        attributes: "rack:r1;size:3;region:eu;zone:a"
            .parse()
            .expect("well formed"),
        unavailability: None,
    };
    let offers = MasterToFramework::Offers(vec![offer]);
    let json = |multi_role| {
        text(
            &teller(multi_role)
                .event(&offers, |_| None)
                .expect("an event"),
        )
    };
    let expected = format!(
        r#"{{"type":"OFFERS","offers":{{"offers":[{{"id":{{"value":"{CLUSTER}-O1-2"}},"framework_id":{{"value":"{CLUSTER}-0003"}},"agent_id":{{"value":"{CLUSTER}-S4"}},"hostname":"h\u00f6st","resources":[{{"name":"cpus","type":"SCALAR","scalar":{{"value":1.0}},"role":"*"}},{{"name":"ports","type":"RANGES","ranges":{{"range":[{{"begin":1,"end":2}}]}},"role":"*"}}],"attributes":[{{"name":"rack","type":"TEXT","text":{{"value":"r1"}}}},{{"name":"region","type":"TEXT","text":{{"value":"eu"}}}},{{"name":"size","type":"SCALAR","scalar":{{"value":3.0}}}},{{"name":"zone","type":"TEXT","text":{{"value":"a"}}}}],"url":{{"scheme":"http","address":{{"hostname":"h\u00f6st","ip":"127.0.0.1","port":5051}},"path":"/slave(1)"}},"domain":{{"fault_domain":{{"region":{{"name":"eu"}},"zone":{{"name":"a"}}}}}}}}]}}}}"#
    );
    assert_eq!(json(false), expected);
    assert!(json(true).contains(r#""allocation_info":{"role":"*"}"#));
}

#[test]
fn what_checks_have_found_is_told_as_mesos_does() {
    // semantics: M8
    let id = TaskId::new("t").expect("an id");
    let mut status = TaskStatus::new(id, TaskState::Running, Source::Executor, Timestamp(1));
    let told = |status: &TaskStatus| {
        let message = MasterToFramework::Update(status.clone());
        let event = teller(false).event(&message, |_| None).expect("an event");
        event.update.expect("there").status
    };
    status.reason = Some(Reason::TaskHealthCheckStatusUpdated);
    status.healthy = Some(false);
    let status_code = Some(503);
    status.check_status = Some(CheckStatus::Http { status_code });
    let running = told(&status);
    assert_eq!(running.healthy, Some(false));
    let reason = pb::task_status::Reason::TaskHealthCheckStatusUpdated;
    assert_eq!(running.reason(), reason);
    let check = running.check_status.expect("there");
    assert_eq!(check.r#type(), pb::check_info::Type::Http);
    assert_eq!(check.http.expect("of HTTP").status_code, Some(503));
    status.state = TaskState::Killed;
    assert_eq!(
        (told(&status).reason, told(&status).healthy),
        (None, Some(false))
    );
    status.check_status = Some(CheckStatus::Grpc { serving: None });
    assert_eq!(told(&status).check_status, None);
}

#[test]
fn an_update_is_to_be_acknowledged_if_a_slave_made_it() {
    // semantics: I2, R11
    let id = TaskId::new("t").expect("an id");
    let mut status = TaskStatus::new(id, TaskState::Running, Source::Slave, Timestamp(1_500_000));
    status.slave_id = Some(SlaveId(2));
    status.update_id = Some(UpdateId::by_slave(SlaveId(2), 0, 1));
    let event = |status: &TaskStatus| {
        let message = MasterToFramework::Update(status.clone());
        let address = |_| Some("127.0.0.1".parse().expect("an address"));
        teller(false).event(&message, address).expect("an event")
    };
    let update = event(&status).update.expect("there").status;
    let uuid: [u8; 16] = update
        .uuid
        .as_deref()
        .expect("reliable")
        .try_into()
        .expect("16 bytes");
    assert_eq!(Some(UpdateId(u128::from_be_bytes(uuid))), status.update_id);
    assert_eq!(update.timestamp, Some(1.5));
    assert_eq!(update.source(), pb::task_status::Source::Agent);
    let container = update.container_status.expect("it runs");
    let address = &container.network_infos[0].ip_addresses[0];
    assert_eq!(address.ip_address.as_deref(), Some("127.0.0.1"));
    status.update_id = Some(UpdateId::by_master(Epoch(1), 1));
    assert_eq!(event(&status).update.expect("there").status.uuid, None);
}

#[test]
fn errors_have_the_words_that_clients_know() {
    let what = "framework".to_owned();
    let json = text(&events::error_of(&Refusal::Superseded { what }));
    assert_eq!(
        json,
        r#"{"type":"ERROR","error":{"message":"Framework failed over"}}"#
    );
    assert_eq!(text(&events::heartbeat()), r#"{"type":"HEARTBEAT"}"#);
}

/// A call with something of everything, to be mutilated.
fn rich() -> Call {
    call(
        r#"{"type":"ACCEPT","framework_id":{"value":"CLUSTER-0003"},"accept":{"offer_ids":[{"value":"CLUSTER-O1-2"}],
        "filters":{"refuse_seconds":1.5},"operations":[{"type":"LAUNCH","launch":{"task_infos":[
          {"name":"a","task_id":{"value":"a"},"agent_id":{"value":"CLUSTER-S2"},
           "command":{"value":"true","environment":{"variables":[{"name":"A","value":"1"}]}},
           "resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}},
             {"name":"ports","type":"RANGES","ranges":{"range":[{"begin":1,"end":9}]}},
             {"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"a"}],
              "disk":{"persistence":{"id":"p"},"volume":{"container_path":"x","mode":"RW"}}}],
           "limits":{"cpus":{"value":2}},"data":"aGk=","labels":{"labels":[{"key":"k","value":"v"}]}}]}},
        {"type":"RESERVE","id":{"value":"o"},"reserve":{"resources":[
          {"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"a","reservation":{"principal":"p"}}]}},
        {"type":"GROW_VOLUME","grow_volume":{"volume":{"name":"disk","type":"SCALAR","scalar":{"value":4},"role":"a",
            "disk":{"persistence":{"id":"p"},"volume":{"container_path":"x","mode":"RW"}}},
          "addition":{"name":"disk","type":"SCALAR","scalar":{"value":1},"role":"a"}}},
        {"type":"SHRINK_VOLUME","shrink_volume":{"volume":{"name":"disk","type":"SCALAR","scalar":{"value":5},"role":"a",
            "disk":{"persistence":{"id":"p"},"volume":{"container_path":"x","mode":"RW"}}},
          "subtract":{"value":1}}}]}}"#,
    )
}

/// Whatever it is: it is read or refused.
fn read(media: Media, bytes: &[u8]) {
    if let Ok(call) = decode::<Call>(media, bytes) {
        if let Some(subscribe) = &call.subscribe {
            let _ = subscription(subscribe, ids());
        }
        let _ = request(&call, ids());
    }
}

#[test]
fn both_encodings_say_the_same() {
    let call = rich();
    for media in [Media::Json, Media::Protobuf] {
        let again: Call = decode(media, &encode(media, &call)).expect("our own");
        assert_eq!(again, call, "{media:?}");
    }
}

#[test]
fn an_amount_of_zero_in_a_map_is_told() {
    let config = pb::quota::QuotaConfig {
        role: "a".to_owned(),
        limits: [("cpus".to_owned(), pb::value::Scalar { value: 0.0 })].into(),
        ..Default::default()
    };
    let json = encode(Media::Json, &config);
    assert_eq!(json, br#"{"role":"a","limits":{"cpus":{"value":0.0}}}"#);
    // role, then an entry of the map: its key, and its value, of which field 1 is written though it is 0.
    let written = encode(Media::Protobuf, &config);
    let scalar = [0x09, 0, 0, 0, 0, 0, 0, 0, 0];
    let entry = [&[0x0a, 4][..], b"cpus", &[0x12, 9], &scalar].concat();
    let limits = [&[0x1a, 17][..], &entry].concat();
    let expected = [&[0x0a, 1][..], b"a", &limits].concat();
    assert_eq!(written, expected);
    assert_eq!(decode(Media::Protobuf, &written).ok(), Some(config));
    // Nothing is no amount where it can be told from zero.
    let without = br#"{"role":"a","limits":{"cpus":{}}}"#;
    assert!(decode::<pb::quota::QuotaConfig>(Media::Json, without).is_err());
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode::<Call>(Media::Json, deep.as_bytes()).is_err());
    // ContainerID.parent, as deep as a body is long.
    let mut bytes = vec![0x0a, 1, b'x'];
    for _ in 0..2_000 {
        let mut outer = vec![0x0a, 1, b'x', 0x12];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).expect("less than 0x80"));
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    assert!(decode::<pb::ContainerId>(Media::Protobuf, &bytes).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(Media::Json, &bytes);
        read(Media::Protobuf, &bytes);
    }

    #[test]
    fn a_call_with_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        for media in [Media::Json, Media::Protobuf] {
            let mut bytes = encode(media, &rich());
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            read(media, &bytes);
        }
    }

    #[test]
    fn media_types_are_read_or_refused(text in ".{0,40}") {
        let _ = (Media::from_accept(&text), Media::from_content_type(&text));
    }
}

#[test]
fn media_types_are_those_of_a2_and_r2() {
    for (accept, media) in [
        ("", Some(Media::Json)),
        ("*/*", Some(Media::Json)),
        ("application/json", Some(Media::Json)),
        ("application/x-protobuf", Some(Media::Protobuf)),
        (
            "application/x-protobuf, application/json",
            Some(Media::Json),
        ),
        (
            "application/json;q=0, application/x-protobuf",
            Some(Media::Protobuf),
        ),
        ("text/html", None),
    ] {
        assert_eq!(Media::from_accept(accept), media, "{accept:?}");
    }
    let json = Media::from_content_type("Application/JSON; charset=utf-8");
    assert_eq!(json, Some(Media::Json));
    assert_eq!(Media::from_content_type("text/plain"), None);
}
