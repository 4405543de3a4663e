//! Files into sandboxes, and out of them again.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use flate2::Compression;
use flate2::write::GzEncoder;
use meros_proto::fetch::{FetchUri, Sha256};
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Reason, TaskState, TaskStatus};
use meros_proto::task::Command;
use nix::unistd::geteuid;

use crate::world::*;

/// Serves an archive at `/tool.tgz`; is asked for `/silent` and says nothing. Ends with the test's process.
fn server() -> SocketAddr {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let script = b"#!/bin/sh\necho from the tool: $1 > out/result; cat out/result\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o4755);
    builder
        .append_data(&mut header, "tool/run", &script[..])
        .unwrap();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    builder.append_data(&mut header, "out/", &b""[..]).unwrap();
    let archive = builder.into_inner().unwrap().finish().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let archive = archive.clone();
            // The client may leave.
            std::thread::spawn(move || drop(serve(stream, &archive)));
        }
    });
    address
}

fn serve(mut stream: TcpStream, archive: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    if first.contains("/silent") {
        // Until the client leaves.
        while lines.next().transpose()?.is_some() {}
        return Ok(());
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        archive.len()
    )?;
    stream.write_all(archive)
}

fn tool(at: SocketAddr) -> FetchUri {
    FetchUri::new(format!("http://{at}/tool.tgz")).extract()
}

/// What comes next but progress, which a fast machine has no time to tell.
async fn after_starting(master: &mut Master) -> TaskStatus {
    loop {
        let status = master.acknowledged().await.status;
        if status.state != TaskState::Starting {
            return status;
        }
    }
}

fn is_empty(world: &World) -> bool {
    let left = std::fs::read_dir(world.data_dir().join("fetch")).unwrap();
    left.count() == 0
}

pub(crate) fn in_and_out(world: &mut World) {
    let at = server();
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let command =
            Command::shell("tool/run hello; ln -s /etc/passwd out/leak; ln -s result out/same")
                .fetch(tool(at).cache());
        master.say(order("t", command)).await;
        let running = after_starting(master).await;
        assert_eq!(running.state, TaskState::Running, "{running:?}");
        let finished = master.acknowledged().await.status;
        assert_eq!(finished.state, TaskState::Finished, "{finished:?}");
    });
    let text = "from the tool: hello\n";
    assert_eq!(get(&slave, "/api/v1/logs/F1/t/stdout").text(), text);

    // Ours.
    let rows = get(&slave, "/api/v1/files/F1/t/browse?path=out");
    let rows: serde_json::Value = serde_json::from_str(&rows.text()).unwrap();
    let names: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str())
        .collect();
    assert_eq!(names, [Some("leak"), Some("result"), Some("same")]);
    let part = get(
        &slave,
        "/api/v1/files/F1/t/read?path=out/same&offset=5&length=3&wait=10000",
    );
    assert_eq!((part.status, part.text().as_str()), (200, "the"));
    assert_eq!(part.header("x-meros-offset"), "5");
    assert_eq!(part.header("x-meros-size"), text.len().to_string());
    let end = get(&slave, "/api/v1/files/F1/t/read?path=out/result&tail=6");
    assert_eq!(
        (end.text().as_str(), end.header("x-meros-complete")),
        ("hello\n", "true")
    );
    let all = get(&slave, "/api/v1/files/F1/t/download?path=out/result");
    assert_eq!(all.text(), text);
    assert!(
        all.header("content-disposition")
            .contains("filename=\"result\"")
    );
    for (path, status, code) in [
        ("F1/t/read?path=out/leak", 403, "file_outside"),
        ("F1/t/download?path=../x", 403, "file_outside"),
        ("F1/t/read?path=out", 409, "file_kind"),
        ("F1/t/read?path=missing", 404, "file_unknown"),
        ("F1/other/browse", 404, "file_unknown"),
        ("F1/t/read?path=a&offset=1&tail=1", 400, "invalid"),
        ("F1/t/read", 400, "invalid"),
    ] {
        let answer = get(&slave, &format!("/api/v1/files/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(code), "{path}: {}", answer.text());
    }

    // Those of Mesos. semantics: A10, R6
    let sandbox = std::fs::canonicalize(world.data_dir().join("sandboxes/F1/t/1-1")).unwrap();
    let sandbox = sandbox.display();
    let named = "/frameworks/F1/executors/t/runs/latest";
    for prefix in ["/files/read", "/slave(1)/files/read", "/files/read.json"] {
        let answer = get(
            &slave,
            &format!("{prefix}?path={sandbox}/out/result&offset=5&length=3"),
        );
        assert_eq!(answer.text(), r#"{"data":"the","offset":5}"#, "{prefix}");
        let size = get(
            &slave,
            &format!("{prefix}?path={named}/out/result&offset=-1"),
        );
        assert_eq!(
            size.text(),
            format!(r#"{{"data":"","offset":{}}}"#, text.len())
        );
    }
    let rows = get(
        &slave,
        &format!("/files/browse?path={sandbox}/tool&jsonp=x"),
    );
    let rows: serde_json::Value = serde_json::from_str(&rows.text()).unwrap();
    let row = &rows[0];
    assert_eq!(row["path"], format!("{sandbox}/tool/run"));
    // Not what the archive wanted to be.
    assert_eq!(row["mode"], "-rwxr-xr-x");
    for key in ["size", "nlink", "mtime", "uid", "gid"] {
        assert!(!row[key].is_null(), "{key} in {row}");
    }
    assert_eq!(
        get(&slave, &format!("/files/download?path={named}/out/result")).text(),
        text
    );
    assert!(
        get(&slave, "/files/debug")
            .text()
            .contains("/frameworks/F1/executors/t/runs/1-1")
    );
    for (path, status) in [
        ("/files/browse", 400),
        ("/files/browse?path=/etc", 404),
        ("/files/read?path=/etc/passwd", 404),
        (
            "/files/read?path=/frameworks/F1/executors/t/runs/latest/../../../x",
            403,
        ),
        (
            "/files/read?path=/frameworks/F1/executors/t/runs/latest/out/leak",
            403,
        ),
    ] {
        assert_eq!(get(&slave, path).status, status, "{path}");
    }

    for path in ["/state", "/slave(1)/state.json"] {
        let state: serde_json::Value = serde_json::from_str(&get(&slave, path).text()).unwrap();
        let framework = &state["frameworks"][0];
        let completed = &framework["completed_executors"][0];
        assert_eq!(completed["directory"], sandbox.to_string(), "{state}");
        let id = framework["id"].as_str().unwrap();
        let named = format!("/frameworks/{id}/executors/t/runs/latest/out/result");
        assert_eq!(
            get(&slave, &format!("/files/download?path={named}")).text(),
            text
        );
    }

    let metrics = get(&slave, "/metrics").text();
    for line in [
        "meros_slave_fetch_files_total 1",
        "meros_slave_fetch_failures_total 0",
        "meros_slave_fetch_cache_files 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    world.stop(&slave);
}

pub(crate) fn failed_and_killed(world: &mut World) {
    let at = server();
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let wrong = tool(at).digest(Sha256([7; 32]));
        master
            .say(order("wrong", Command::shell("true").fetch(wrong)))
            .await;
        let failed = after_starting(master).await;
        assert_eq!(failed.state, TaskState::Failed, "{failed:?}");
        assert_eq!(failed.reason, Some(Reason::ContainerLaunchFailed));
        let expected = format!("fetch_digest: http://{at}/tool.tgz: its digest is sha256:");
        assert!(failed.message.starts_with(&expected), "{failed:?}");

        let silent = FetchUri::new(format!("http://{at}/silent"));
        master
            .say(order("hangs", Command::shell("true").fetch(silent)))
            .await;
        let starting = master.acknowledged().await.status;
        assert_eq!(starting.state, TaskState::Starting, "{starting:?}");
        let said = format!("fetching http://{at}/silent (1 of 1)");
        assert!(starting.message.starts_with(&said), "{starting:?}");
        master
            .say(MasterToSlave::KillTask {
                framework_id: FrameworkId(1),
                task_id: TaskId::new("hangs").unwrap(),
                grace: None,
            })
            .await;
        let killed = master.acknowledged().await.status;
        assert_eq!(killed.state, TaskState::Killed, "{killed:?}");
        assert_eq!(killed.reason, Some(Reason::TaskKilledDuringLaunch));
    });
    assert!(is_empty(world), "something is left of a fetch");
    // One that is being fetched holds nobody up who stops.
    world.runtime.block_on(async {
        let master = &mut world.master;
        let silent = FetchUri::new(format!("http://{at}/silent"));
        master
            .say(order("stopped", Command::shell("true").fetch(silent)))
            .await;
        assert_eq!(
            master.acknowledged().await.status.state,
            TaskState::Starting
        );
    });
    world.stop(&slave);
    assert!(is_empty(world), "something is left of a fetch");
}

pub(crate) fn of_another_user(world: &mut World) {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run tasks as another user");
        return;
    }
    let at = server();
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let mut command = Command::shell("stat -c '%U %n' tool tool/run out plain.tgz; tool/run x");
        command.user = Some("nobody".to_owned());
        let plain = FetchUri::new(format!("http://{at}/tool.tgz")).output_file("plain.tgz");
        let command = command.fetch(tool(at)).fetch(plain);
        master.say(order("t", command)).await;
        let mut last = master.acknowledged().await.status;
        while !last.state.is_terminal() {
            last = master.acknowledged().await.status;
        }
        assert_eq!(last.state, TaskState::Finished, "{last:?}");
    });
    let expected = "nobody tool\nnobody tool/run\nnobody out\nnobody plain.tgz\nfrom the tool: x\n";
    assert_eq!(get(&slave, "/api/v1/logs/F1/t/stdout").text(), expected);
    world.stop(&slave);
}
