//! `codec/*`: what every message costs on its way to the wire and back.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::ids::{FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::message::master::{SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::{MasterToSlave, RunTask, TaskFramework};
use meros_proto::role::RoleName;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;

fn update() -> SlaveToMaster {
    let task_id = TaskId::new("batch-000123").expect("a good id");
    let mut status = TaskStatus::new(
        task_id,
        TaskState::Running,
        Source::Slave,
        Timestamp(1_700_000_000_000_000),
    );
    status.slave_id = Some(SlaveId(17));
    status.update_id = Some(UpdateId::by_slave(SlaveId(17), 1, 42));
    SlaveToMaster::Update(StatusUpdate {
        framework_id: FrameworkId(3),
        status,
        latest_state: TaskState::Running,
    })
}

fn run_task() -> MasterToSlave {
    let resources = "cpus:0.5;mem:64;ports:[31000-31001]"
        .parse()
        .expect("written here");
    let task = TaskDescription::command(
        TaskId::new("batch-000123").expect("a good id"),
        SlaveId(17),
        resources,
        Command::shell("exec ./work --input part-000123"),
    );
    MasterToSlave::RunTask(Box::new(RunTask {
        framework: TaskFramework {
            framework_id: FrameworkId(3),
            name: "batch".to_owned(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: RoleName::new("batch").expect("a good role"),
        task,
    }))
}

/// A batch of frames, as the transport writes them.
const BATCH: u64 = 100;

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(BATCH));
    let (update, run_task) = (update(), run_task());

    group.bench_function("encode/update", |b| {
        let mut out = BytesMut::new();
        b.iter(|| {
            out.clear();
            for _ in 0..BATCH {
                encode(black_box(&update), &mut out).expect("small");
            }
        });
    });
    group.bench_function("encode/run_task", |b| {
        let mut out = BytesMut::new();
        b.iter(|| {
            out.clear();
            for _ in 0..BATCH {
                encode(black_box(&run_task), &mut out).expect("small");
            }
        });
    });

    let mut frames = BytesMut::new();
    for _ in 0..BATCH {
        encode(&update, &mut frames).expect("small");
    }
    group.bench_function("decode/update", |b| {
        b.iter(|| {
            let mut buffer = FrameBuffer::new();
            buffer.push(black_box(&frames));
            let mut decoded = 0;
            while let Some(message) = buffer
                .next_frame::<SlaveToMaster>()
                .expect("our own frames")
            {
                black_box(message);
                decoded += 1;
            }
            assert_eq!(decoded, BATCH);
        });
    });

    frames.clear();
    for _ in 0..BATCH {
        encode(&run_task, &mut frames).expect("small");
    }
    group.bench_function("decode/run_task", |b| {
        b.iter(|| {
            let mut buffer = FrameBuffer::new();
            buffer.push(black_box(&frames));
            let mut decoded = 0;
            while let Some(message) = buffer
                .next_frame::<MasterToSlave>()
                .expect("our own frames")
            {
                black_box(message);
                decoded += 1;
            }
            assert_eq!(decoded, BATCH);
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
