//! `v1/*`: what the detour over the Mesos v1 messages costs at the master's edge, from native to bytes and
//! back (docs/decisions/0014-mesos-v1.md).

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use meros_benches::cluster::parsed;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::{Offer, Operation};
use meros_proto::role::RoleName;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_v1::calls::{Request, request};
use meros_v1::encoding::{Media, decode, encode};
use meros_v1::events::Teller;
use meros_v1::ids::Ids;
use meros_v1::pb::scheduler::{Call, Event};
use meros_v1::resources::Form;

/// Slaves of one OFFERS.
const SLAVES: u32 = 1_000;
/// Tasks of one ACCEPT.
const TASKS: u32 = 100;

const MEDIA: [(Media, &str); 2] = [(Media::Json, "json"), (Media::Protobuf, "protobuf")];

fn ids() -> Ids {
    Ids::new(ClusterId(7))
}

/// For a framework that knows everything new.
fn teller() -> Teller {
    Teller {
        ids: ids(),
        form: Form {
            multi_role: true,
            refined: true,
        },
    }
}

fn offer(slave: u32) -> Offer {
    Offer {
        offer_id: OfferId {
            epoch: Epoch(1),
            number: slave.into(),
        },
        framework_id: FrameworkId(3),
        slave_id: SlaveId(slave),
        hostname: format!("node-{slave:05}.example"),
        http_address: "10.1.2.3:5051".to_owned(),
        role: RoleName::new("batch").expect("a good role"),
        resources: parsed("cpus:24;mem:65536;disk:1000000;ports:[31000-32000]"),
        attributes: "rack:r17;region:eu;zone:a;size:3"
            .parse()
            .expect("written here"),
        unavailability: None,
    }
}

fn offers() -> MasterToFramework {
    MasterToFramework::Offers((0..SLAVES).map(offer).collect())
}

fn update() -> MasterToFramework {
    let task_id = TaskId::new("batch-000123").expect("a good id");
    let at = Timestamp(1_700_000_000_000_000);
    let mut status = TaskStatus::new(task_id, TaskState::Running, Source::Slave, at);
    status.slave_id = Some(SlaveId(17));
    status.update_id = Some(UpdateId::by_slave(SlaveId(17), 1, 42));
    MasterToFramework::Update(status)
}

/// An ACCEPT of one offer for many small command tasks, as JSON.
fn accept() -> String {
    let (agent, offer) = (ids().slave(SlaveId(17)).value, offer(17).offer_id);
    let offer = ids().offer(offer).value;
    let framework = ids().framework(FrameworkId(3)).value;
    let mut tasks = String::new();
    for number in 0..TASKS {
        if number > 0 {
            tasks.push(',');
        }
        write!(
            tasks,
            r#"{{"name":"batch","task_id":{{"value":"batch-{number:06}"}},"agent_id":{{"value":"{agent}"}},
            "command":{{"value":"exec ./work --input part-{number:06}","environment":{{"variables":[
              {{"name":"LANG","value":"C"}},{{"name":"PART","value":"{number}"}}]}}}},
            "resources":[{{"name":"cpus","type":"SCALAR","scalar":{{"value":0.1}}}},
              {{"name":"mem","type":"SCALAR","scalar":{{"value":64}}}},
              {{"name":"ports","type":"RANGES","ranges":{{"range":[{{"begin":{port},"end":{port}}}]}}}}],
            "labels":{{"labels":[{{"key":"team","value":"a"}}]}}}}"#,
            port = 31_000 + number
        )
        .expect("a string takes all");
    }
    format!(
        r#"{{"type":"ACCEPT","framework_id":{{"value":"{framework}"}},"accept":{{
        "offer_ids":[{{"value":"{offer}"}}],"filters":{{"refuse_seconds":5}},"operations":[
        {{"type":"LAUNCH","launch":{{"task_infos":[{tasks}]}}}}]}}}}"#
    )
}

/// How many tasks of a call can be launched; all else of it is read, too.
fn launched(media: Media, bytes: &[u8]) -> usize {
    let call: Call = decode(media, bytes).expect("our own");
    let Ok(Request::Ask { message, told, .. }) = request(&call, ids()) else {
        panic!("it asks something");
    };
    assert!(told.is_empty(), "all of it can be done");
    let FrameworkToMaster::Accept { operations, .. } = message else {
        panic!("it accepts");
    };
    match operations.as_slice() {
        [Operation::Launch(tasks)] => tasks.len(),
        _ => panic!("it launches"),
    }
}

fn written(media: Media, message: &MasterToFramework) -> Vec<u8> {
    let event = teller().event(message, |_| None).expect("an event");
    encode(media, &event)
}

/// Native to bytes; `count` says how many of what is measured is in an event.
fn to_bytes(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    message: &MasterToFramework,
    count: impl Fn(Event) -> usize,
) {
    for (media, encoding) in MEDIA {
        let bytes = written(media, message);
        let event = decode(media, &bytes).expect("our own");
        let elements = u64::try_from(count(event)).expect("few");
        assert!(elements > 0, "nothing is measured");
        group.throughput(Throughput::Elements(elements));
        group.bench_function(format!("{name}/{encoding}"), |b| {
            b.iter(|| written(media, black_box(message)));
        });
        // The same bytes for the same message, whenever.
        assert_eq!(written(media, message), bytes);
    }
}

fn v1(c: &mut Criterion) {
    let mut group = c.benchmark_group("v1");
    to_bytes(&mut group, "offers/slaves/1000", &offers(), |event| {
        let offers = event.offers.expect("OFFERS").offers.len();
        assert_eq!(offers, 1_000);
        offers
    });
    to_bytes(&mut group, "update", &update(), |event| {
        let status = event.update.expect("UPDATE").status;
        assert!(status.uuid.is_some(), "it has to be acknowledged");
        1
    });

    let json = accept();
    let call: Call = decode(Media::Json, json.as_bytes()).expect("well formed");
    for (media, encoding) in MEDIA {
        let bytes = encode(media, &call);
        assert_eq!(launched(media, &bytes), 100);
        group.throughput(Throughput::Elements(TASKS.into()));
        group.bench_function(format!("accept/tasks/100/{encoding}"), |b| {
            b.iter(|| launched(media, black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, v1);
criterion_main!(benches);
