//! `POST /api/v1`, and what tools of Mesos read beside it (semantics A2, O4, R2, R6).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use meros_daemon::verbosity;
use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::message::slave::{MasterToSlave, RunTask, TaskFramework};
use meros_proto::status::TaskState;
use meros_proto::task::{Command, TaskDescription};
use meros_slave::Running;
use meros_v1::encoding::{Media, decode, encode};
use meros_v1::pb::ContainerId;
use meros_v1::pb::agent::call::{KillContainer, ListFiles, ReadFile, Type, WaitContainer};
use meros_v1::pb::agent::response::Type as Kind;
use meros_v1::pb::agent::{Call, Response};
use serde_json::{Value, json};

use crate::world::*;

const BOTH: [Media; 2] = [Media::Json, Media::Protobuf];

/// Headers and a body that are refused, with which status and code.
type Refused<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

fn call(kind: Type) -> Call {
    Call {
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

fn send(slave: &Running, media: Media, call: &Call) -> Answer {
    let headers = [("Content-Type", media.name()), ("Accept", media.name())];
    post(slave, "/api/v1", &headers, &encode(media, call))
}

fn asked(slave: &Running, media: Media, call: &Call) -> Response {
    let answer = send(slave, media, call);
    assert_eq!(answer.status, 200, "{call:?}: {}", answer.text());
    assert_eq!(answer.header("content-type"), media.name(), "{call:?}");
    decode(media, &answer.body).expect("as it was asked for")
}

/// A task in an executor that does not speak.
fn in_executor(task: &str) -> MasterToSlave {
    let task_id = TaskId::new(task).unwrap();
    let executor = ExecutorDescription::new(
        ExecutorId::new("silent").unwrap(),
        Command::argv(["sleep", "1000"]),
        "cpus:0.01;mem:64".parse().unwrap(),
    );
    let command = Command::argv(["true"]);
    let resources = "cpus:0.02;mem:32".parse().unwrap();
    let task = TaskDescription {
        command: None,
        executor: Some(executor),
        ..TaskDescription::command(task_id, SLAVE, resources, command)
    };
    let framework = TaskFramework {
        framework_id: FrameworkId(1),
        name: "test".to_owned(),
        user: None,
        checkpoint: true,
        capabilities: Vec::new(),
    };
    let run = RunTask {
        framework,
        role: "*".parse().unwrap(),
        task,
    };
    MasterToSlave::RunInExecutor {
        run: Box::new(run),
        starts: true,
    }
}

/// A slave with a command task that runs, and an executor with a task that waits for it to subscribe.
fn at_work(world: &mut World) -> Running {
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        let command = Command::shell("echo hello > greeting; exec sleep 1000");
        master.say(order("t", command)).await;
        while master.acknowledged().await.status.state != TaskState::Running {}
        master.say(in_executor("e")).await;
    });
    eventually("its executor runs", || {
        let rows = asked(&slave, Media::Json, &call(Type::GetContainers));
        rows.get_containers.unwrap().containers.len() == 2
    });
    eventually("the task has written", || {
        let answer = send(&slave, Media::Json, &read_file(&greeting(&slave), 0, None));
        let read: Option<Response> = decode(Media::Json, &answer.body).ok();
        let read = read.filter(|_| answer.status == 200);
        read.and_then(|it| it.read_file)
            .is_some_and(|it| it.size == 6)
    });
    slave
}

/// The file that the task writes.
fn greeting(slave: &Running) -> String {
    let rows: Value = serde_json::from_str(&get(slave, "/api/v1/tasks").text()).unwrap();
    let rows = rows.as_array().unwrap();
    let row = rows.iter().find(|row| row["task_id"] == "t").unwrap();
    format!("{}/greeting", row["sandbox"].as_str().unwrap())
}

fn read_file(path: &str, offset: u64, length: Option<u64>) -> Call {
    Call {
        read_file: Some(ReadFile {
            path: path.to_owned(),
            offset,
            length,
        }),
        ..call(Type::ReadFile)
    }
}

fn list_files(path: &str) -> Call {
    Call {
        list_files: Some(ListFiles {
            path: path.to_owned(),
        }),
        ..call(Type::ListFiles)
    }
}

pub(crate) fn calls(world: &mut World) {
    // Before a master has admitted it: nothing is here, and it is nobody.
    let mut config = world.config();
    config.masters = vec!["127.0.0.1:1".to_owned()];
    let fresh = world.try_start(config).expect("the slave starts");
    let all = asked(&fresh, Media::Json, &call(Type::GetState));
    assert!(
        all.get_state
            .unwrap()
            .get_tasks
            .unwrap()
            .launched_tasks
            .is_empty()
    );
    let agent = asked(&fresh, Media::Protobuf, &call(Type::GetAgent));
    let info = agent.get_agent.unwrap().agent_info.unwrap();
    assert_eq!((info.id, info.hostname.as_str()), (None, "test-host"));
    world.stop(&fresh);

    let slave = at_work(world);
    for (asks, answers) in [
        (Type::GetHealth, Kind::GetHealth),
        (Type::GetFlags, Kind::GetFlags),
        (Type::GetVersion, Kind::GetVersion),
        (Type::GetMetrics, Kind::GetMetrics),
        (Type::GetLoggingLevel, Kind::GetLoggingLevel),
        (Type::GetState, Kind::GetState),
        (Type::GetFrameworks, Kind::GetFrameworks),
        (Type::GetExecutors, Kind::GetExecutors),
        (Type::GetTasks, Kind::GetTasks),
        (Type::GetOperations, Kind::GetOperations),
        (Type::GetAgent, Kind::GetAgent),
        (Type::GetResourceProviders, Kind::GetResourceProviders),
    ] {
        let [json, protobuf] = BOTH.map(|media| asked(&slave, media, &call(asks)));
        assert_eq!(json.r#type(), answers);
        assert_eq!(json, protobuf, "{asks:?}");
    }

    let state = asked(&slave, Media::Protobuf, &call(Type::GetState));
    let state = state.get_state.unwrap();
    let tasks = state.get_tasks.unwrap();
    let (launched, queued) = (&tasks.launched_tasks[0], &tasks.queued_tasks[0]);
    assert_eq!((launched.task_id.value.as_str(), launched.state), ("t", 1));
    assert_eq!((queued.task_id.value.as_str(), queued.state), ("e", 6));
    assert_eq!(queued.executor_id.as_ref().unwrap().value, "silent");
    let executors = state.get_executors.unwrap().executors;
    let names: Vec<&str> = executors
        .iter()
        .map(|it| it.executor_info.executor_id.value.as_str())
        .collect();
    assert_eq!(names, ["silent", "t"]);
    // What is in its environment is nobody's business.
    assert!(
        executors
            .iter()
            .all(|it| it.executor_info.command.is_none())
    );
    let frameworks = state.get_frameworks.unwrap().frameworks;
    let info = &frameworks[0].framework_info;
    assert_eq!((info.name.as_str(), info.checkpoint), ("test", Some(true)));
    assert_eq!(info.id.as_ref(), Some(&launched.framework_id));

    let agent = asked(&slave, Media::Json, &call(Type::GetAgent));
    let info = agent.get_agent.unwrap().agent_info.unwrap();
    assert_eq!(info.id.as_ref(), Some(&launched.agent_id));
    assert_eq!(info.port, Some(slave.http_addr().port().into()));
    assert!(info.resources.iter().any(|it| it.name == "cpus"));

    for media in BOTH {
        let rows = asked(&slave, media, &call(Type::GetContainers));
        let rows = rows.get_containers.unwrap().containers;
        assert_eq!(rows.len(), 2);
        let row = &rows[0];
        assert_eq!(row.executor_id.as_ref().unwrap().value, "t");
        let status = row.container_status.as_ref().unwrap();
        assert_eq!(status.executor_pid.map(u64::from), pid_of(&slave, "t"));
        let used = row.resource_statistics.as_ref().unwrap();
        assert!(used.timestamp > 1e9, "{used:?}");
        assert_eq!(used.cpus_limit, Some(0.01));
        // The executor's own: it has not come for its task.
        let limit = rows[1].resource_statistics.as_ref().unwrap().cpus_limit;
        assert_eq!(limit, Some(0.01));
    }
    let path = greeting(&slave);
    for media in BOTH {
        let read = asked(&slave, media, &read_file(&path, 1, Some(3)));
        let read = read.read_file.unwrap();
        assert_eq!((read.size, &read.data[..]), (6, &b"ell"[..]));
        for offset in [6, u64::MAX] {
            let read = asked(&slave, media, &read_file(&path, offset, None));
            let read = read.read_file.unwrap();
            assert_eq!((read.size, read.data.len()), (6, 0));
        }
        let folder = path.strip_suffix("greeting").unwrap();
        let listed = asked(&slave, media, &list_files(folder));
        let listed = listed.list_files.unwrap().file_infos;
        let row = listed.iter().find(|row| row.path == path).unwrap();
        assert_eq!((row.size, row.nlink), (Some(6), Some(1)));
        assert_eq!(row.mode.map(|mode| mode & 0o170_000), Some(0o100_000));
        for (call, status) in [
            (list_files(&path), 400),
            (read_file(folder, 0, None), 400),
            (list_files("/nowhere"), 404),
            (
                read_file(&format!("{path}{}", "x".repeat(300)), 0, None),
                404,
            ),
            (read_file(&format!("{folder}../../x"), 0, None), 403),
            (read_file(&"x".repeat(5_000), 0, None), 400),
        ] {
            let answer = send(&slave, media, &call);
            assert_eq!(answer.status, status, "{call:?}: {}", answer.text());
        }
    }
    world.stop(&slave);
}

pub(crate) fn reads(world: &mut World) {
    let slave = at_work(world);
    let json = |path: &str| -> Value {
        let answer = get(&slave, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    };
    for prefix in ["", "/slave(1)"] {
        let rows = json(&format!("{prefix}/containers"));
        assert_eq!(rows[0]["executor_id"], "t");
        assert!(rows[0]["container_id"].is_string());
        assert_eq!(rows[0]["statistics"]["cpus_limit"], 0.01);
        let rows = json(&format!("{prefix}/monitor/statistics.json"));
        assert_eq!(rows[1]["executor_id"], "silent");
        let flags = json(&format!("{prefix}/flags"));
        assert_eq!(flags["flags"]["hostname"], "test-host");
        assert_eq!(json(&format!("{prefix}/version"))["version"], "1.11.0");
        let metrics = json(&format!("{prefix}/metrics/snapshot"));
        assert_eq!(metrics["slave/tasks_running"], 1);
        assert_eq!(metrics["slave/registered"], 1);
        assert_eq!(metrics["slave/cpus_total"], 4.0);
    }
    world.stop(&slave);
}

pub(crate) fn logging(world: &mut World) {
    let (applied, heard) = std::sync::mpsc::sync_channel(8);
    verbosity::install(move |level| applied.try_send(level).map_err(|it| it.to_string()));
    let slave = world.start();
    let level = |slave: &Running| {
        let answer = asked(slave, Media::Protobuf, &call(Type::GetLoggingLevel));
        answer.get_logging_level.unwrap().level
    };
    let set = |level: u32, nanoseconds: i64| {
        let body = json!({"type": "SET_LOGGING_LEVEL", "set_logging_level":
            {"level": level, "duration": {"nanoseconds": nanoseconds}}});
        let headers = [("Content-Type", "application/json")];
        post(&slave, "/api/v1", &headers, body.to_string().as_bytes())
    };
    let answer = set(2, 3_600_000_000_000);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(level(&slave), 2);
    assert_eq!(set(1, -1).status, 400);
    assert_eq!(level(&slave), 2);
    assert_eq!(set(1, 1_000_000).status, 200);
    for expected in [2, 1, 0] {
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(expected));
    }
    eventually("it is as before", || level(&slave) == 0);
    world.stop(&slave);
}

fn kill_container(id: &ContainerId, signal: Option<i32>) -> Call {
    Call {
        kill_container: Some(KillContainer {
            container_id: id.clone(),
            signal,
        }),
        ..call(Type::KillContainer)
    }
}

fn wait_container(id: &ContainerId) -> Call {
    Call {
        wait_container: Some(WaitContainer {
            container_id: id.clone(),
        }),
        ..call(Type::WaitContainer)
    }
}

pub(crate) fn containers(world: &mut World) {
    let slave = world.registered();
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        let script = "trap 'echo usr; exit 7' USR1; echo ready; while :; do sleep 0.05; done";
        master.say(order("trap", Command::shell(script))).await;
        while master.acknowledged().await.status.state != TaskState::Running {}
        master
            .say(order("sleep", Command::argv(["sleep", "1000"])))
            .await;
        while master.acknowledged().await.status.state != TaskState::Running {}
    });
    eventually("it catches the signal", || {
        get(&slave, "/api/v1/logs/F1/trap/stdout").text() == "ready\n"
    });
    let rows = asked(&slave, Media::Json, &call(Type::GetContainers));
    let rows = rows.get_containers.unwrap().containers;
    let id_of = |task: &str| {
        let mut rows = rows.iter();
        let row = rows.find(|row| row.executor_id.as_ref().unwrap().value == task);
        row.unwrap().container_id.clone()
    };
    let (trap, sleep) = (id_of("trap"), id_of("sleep"));
    let below = ContainerId {
        value: "below".to_owned(),
        parent: Some(Box::new(trap.clone())),
    };
    let nobody = ContainerId {
        value: format!("0{}", trap.value),
        parent: None,
    };
    for media in BOTH {
        for id in [&below, &nobody] {
            assert_eq!(send(&slave, media, &wait_container(id)).status, 404);
            assert_eq!(send(&slave, media, &kill_container(id, None)).status, 404);
        }
        for number in [0, -1, 1_000] {
            let answer = send(&slave, media, &kill_container(&trap, Some(number)));
            assert_eq!(answer.status, 400, "{number}");
        }
        assert_eq!(send(&slave, media, &call(Type::WaitContainer)).status, 400);
        assert_eq!(send(&slave, media, &call(Type::KillContainer)).status, 400);
    }
    // One waits in JSON, one in protobuf, each from before the end: the answer begins at once.
    let wait = |media: Media, id: &ContainerId| {
        let headers = [("Content-Type", media.name()), ("Accept", media.name())];
        let call = encode(media, &wait_container(id));
        begin_post(&slave, "/api/v1", &headers, &call)
    };
    let ended = |media: Media, begun| {
        let answer = answer(begun);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, media.name())
        );
        let answer: Response = decode(media, &answer.body).unwrap();
        assert_eq!(answer.r#type(), Kind::WaitContainer);
        answer.wait_container.unwrap()
    };
    let waits = BOTH.map(|media| (media, wait(media, &trap)));
    let answer = send(&slave, Media::Json, &kill_container(&trap, Some(10)));
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    for (media, begun) in waits {
        // As wait(2) has it.
        assert_eq!(ended(media, begun).exit_status, Some(7 << 8));
    }
    let begun = wait(Media::Protobuf, &sleep);
    let answer = send(&slave, Media::Protobuf, &kill_container(&sleep, None));
    assert_eq!(answer.status, 200);
    assert_eq!(ended(Media::Protobuf, begun).exit_status, Some(9));
    let World {
        runtime, master, ..
    } = world;
    runtime.block_on(async {
        // Nobody was asked to kill them: they have failed.
        for _ in 0..2 {
            let status = master.acknowledged().await.status;
            assert_eq!(status.state, TaskState::Failed, "{status:?}");
        }
    });
    eventually("it is not there any more", || {
        send(&slave, Media::Json, &wait_container(&sleep)).status == 404
    });
    // Who waits does not hold up a slave that stops.
    world.runtime.block_on(async {
        let order = order("last", Command::argv(["sleep", "1000"]));
        world.master.say(order).await;
        while world.master.acknowledged().await.status.state != TaskState::Running {}
    });
    let rows = asked(&slave, Media::Json, &call(Type::GetContainers));
    let rows = rows.get_containers.unwrap().containers;
    let _begun = wait(Media::Json, &rows[0].container_id);
    world.stop(&slave);
}

pub(crate) fn bad_calls(world: &mut World) {
    let slave = world.registered();
    let code = |answer: &Answer| {
        let body: Value = serde_json::from_slice(&answer.body).expect("errors are JSON");
        body["code"].as_str().unwrap_or_default().to_owned()
    };
    let good = br#"{"type": "GET_VERSION"}"#;
    let json = ("Content-Type", "application/json");
    let cases: [Refused<'_>; 12] = [
        (&[], good, 400, "invalid"),
        (&[("Content-Type", "text/plain")], good, 415, "unsupported"),
        (
            &[json, ("Accept", "text/html")],
            good,
            406,
            "not_acceptable",
        ),
        (&[json], b"", 400, "invalid"),
        (&[json], b"{}", 400, "invalid"),
        (&[json], br#"{"type": "GET_TOMORROW"}"#, 400, "invalid"),
        (&[json], br#"{"type": 99}"#, 400, "invalid"),
        (&[json], br#"{"type": "READ_FILE"}"#, 400, "invalid"),
        (
            &[json],
            br#"{"type": "LIST_FILES", "list_files": {}}"#,
            400,
            "invalid",
        ),
        (&[json], &good[..9], 400, "invalid"),
        (&[json], &[b' '; (64 << 10) + 1], 413, "body_too_large"),
        (
            &[("Content-Type", "application/x-protobuf")],
            good,
            400,
            "invalid",
        ),
    ];
    for (headers, body, status, expected) in cases {
        let answer = post(&slave, "/api/v1", headers, body);
        let text = answer.text();
        assert_eq!(answer.status, status, "{headers:?} {text}");
        assert_eq!(code(&answer), expected, "{headers:?}");
    }
    let answer = get(&slave, "/api/v1");
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    // semantics: R2, R6
    for path in ["/slave(1)/api/v1", "/api/v1/", "/api/v1/operator"] {
        let answer = post(&slave, path, &[json, ("Accept", "*/*")], good);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    for kind in [
        Type::LaunchNestedContainer,
        Type::WaitNestedContainer,
        Type::KillNestedContainer,
        Type::RemoveNestedContainer,
        Type::LaunchNestedContainerSession,
        Type::AttachContainerInput,
        Type::AttachContainerOutput,
        Type::LaunchContainer,
        Type::RemoveContainer,
        Type::AddResourceProviderConfig,
        Type::UpdateResourceProviderConfig,
        Type::RemoveResourceProviderConfig,
        Type::MarkResourceProviderGone,
        Type::PruneImages,
    ] {
        for media in BOTH {
            let answer = send(&slave, media, &call(kind));
            assert_eq!(answer.status, 501, "{kind:?}");
            assert_eq!(code(&answer), "unsupported");
        }
    }
    storm(&slave);
    // It is as it was.
    assert_eq!(get(&slave, "/health").status, 200);
    world.stop(&slave);
}

const ROUNDS: u32 = 300;

/// Spoiled calls from a fixed seed: each is answered, and none is a fault of the slave.
fn storm(slave: &Running) {
    let rounds = match std::env::var("MEROS_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("MEROS_FUZZ_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let calls = [
        call(Type::GetState),
        call(Type::GetContainers),
        call(Type::GetAgent),
        read_file("/frameworks/F1/executors/t/runs/latest/stdout", 7, Some(9)),
        list_files("/frameworks/F1/executors/t/runs/latest"),
    ];
    let mut seed = 0x6167_u64;
    let mut next = |bound: usize| {
        // SplitMix64: the same on every machine.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    };
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..rounds {
        let media = BOTH[next(2)];
        let mut body = encode(media, &calls[next(calls.len())]);
        for _ in 0..next(4) {
            let at = next(body.len());
            match next(5) {
                0 if !body.is_empty() => body[at] ^= 1 << next(8),
                1 => body.truncate(at),
                2 => body.extend_from_within(at..),
                3 => {
                    let length = next(200);
                    body = (0..length).map(|_| next(256).to_le_bytes()[0]).collect();
                }
                _ => {
                    body.splice(at..at, b"[[[{\"".iter().copied());
                }
            }
        }
        let kind = BOTH[next(2)].name();
        let answer = post(slave, "/api/v1", &[("Content-Type", kind)], &body);
        assert!(
            answer.status < 500 || answer.status == 501,
            "round {round}: {} of {}",
            answer.status,
            body.escape_ascii()
        );
        *seen.entry(answer.status).or_default() += 1;
    }
    for status in [200, 400, 404] {
        assert!(seen.contains_key(&status), "{status} not in {seen:?}");
    }
    // A body that ends before its end.
    let mut stream = TcpStream::connect(slave.http_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /api/v1 HTTP/1.1\r\nhost: s\r\nconnection: close\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{\"type\":";
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let began = std::time::Instant::now();
    let mut left = Vec::new();
    // Closed or answered, soon.
    let _ = stream.read_to_end(&mut left);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(
        left.is_empty() || left.starts_with(b"HTTP/1.1 4"),
        "{}",
        left.escape_ascii()
    );
}
