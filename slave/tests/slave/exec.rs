//! Commands in containers, by the way that `meros exec` takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use bytes::{Bytes, BytesMut};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::exec::{
    EXEC_PATH, EXEC_UPGRADE, ExecEnd, FromExec, StartExec, ToExec, WindowSize,
};
use meros_proto::status::TaskState;
use meros_proto::task::Command;
use meros_proto::transport::{Identity, PeerRole, tunnel_to_slave};
use meros_shim::SOCKET;
use meros_slave::Running;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::*;

/// Bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client in a few lines.
struct Session {
    stream: Box<dyn Stream>,
    frames: FrameBuffer,
    /// What came on standard output, or of the terminal.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    taken: u64,
}

impl Session {
    async fn open(slave: &Running, identity: &Identity) -> Self {
        let address = slave.http_addr().to_string();
        let tcp = TcpStream::connect(&address).await.unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await;
        let (mut sender, connection) = handshake.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::get(EXEC_PATH)
            .header(HOST, address)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, EXEC_UPGRADE)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let (stream, peer) = tunnel_to_slave(identity, TokioIo::new(upgraded))
            .await
            .unwrap();
        assert_eq!(peer.to_string(), "slave/slave-1");
        Self {
            stream: Box::new(stream),
            frames: FrameBuffer::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            taken: 0,
        }
    }

    async fn say(&mut self, message: ToExec) {
        let mut frame = BytesMut::new();
        encode(&message, &mut frame).unwrap();
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn type_in(&mut self, text: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.say(ToExec::Stdin(bytes)).await;
    }

    async fn hear(&mut self) -> FromExec {
        let mut bytes = [0; 4096];
        let heard = async {
            loop {
                if let Some(message) = self.frames.next_frame().unwrap() {
                    return message;
                }
                let read = self.stream.read(&mut bytes).await.expect("it speaks");
                assert!(read > 0, "it hung up");
                self.frames.push(&bytes[..read]);
            }
        };
        timeout(PATIENCE, heard).await.expect("it speaks in time")
    }

    /// Takes in one message; the end, if it is that.
    async fn step(&mut self) -> Option<FromExec> {
        match self.hear().await {
            FromExec::Stdout(bytes) => self.stdout.extend_from_slice(&bytes),
            FromExec::Stderr(bytes) => self.stderr.extend_from_slice(&bytes),
            FromExec::StdinTaken(bytes) => self.taken += u64::from(bytes),
            FromExec::Started | FromExec::Alive => {}
            end @ (FromExec::Ended(_) | FromExec::Refused { .. }) => return Some(end),
        }
        None
    }

    async fn end(&mut self) -> ExecEnd {
        loop {
            match self.step().await {
                Some(FromExec::Ended(end)) => return end,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }

    async fn until_said(&mut self, text: &str) {
        while !self.said().contains(text) {
            let end = self.step().await;
            assert!(end.is_none(), "{end:?} after {:?}", self.said());
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn of(task: &str, argv: &[&str]) -> StartExec {
    StartExec {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(task).unwrap(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: BTreeMap::new(),
        stdin: false,
        terminal: None,
    }
}

fn shell(line: &str) -> StartExec {
    of("t", &["sh", "-c", line])
}

fn with_terminal(line: &str) -> StartExec {
    StartExec {
        stdin: true,
        terminal: Some(WindowSize {
            rows: 33,
            columns: 77,
        }),
        ..shell(line)
    }
}

async fn begin(slave: &Running, identity: &Identity, start: StartExec) -> Session {
    let mut session = Session::open(slave, identity).await;
    session.say(ToExec::Start(Box::new(start))).await;
    session
}

async fn refusal(slave: &Running, identity: &Identity, start: StartExec) -> String {
    match begin(slave, identity, start).await.step().await {
        Some(FromExec::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

/// Starts a task that stays.
fn with_task(world: &mut World, slave: &Running) {
    let command = Command::shell("echo $$ > pid; exec sleep 1000").env("MARK", "mine");
    world.runtime.block_on(async {
        world.master.say(order("t", command)).await;
        let status = world.master.acknowledged().await.status;
        assert_eq!(status.state, TaskState::Running);
    });
    let written = || get(slave, "/api/v1/files/F1/t/read?path=pid").body.len() > 1;
    eventually("it says its number", written);
}

/// Processes of this machine with this word on their command line.
fn processes(word: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|it| it == word.as_bytes())
        })
        .count()
}

/// A number of seconds that nobody else sleeps for.
fn long_sleep(nth: u32) -> String {
    format!("{}.{nth}", 100_000 + std::process::id())
}

pub(crate) fn in_and_out(world: &mut World) {
    let slave = world.registered();
    with_task(world, &slave);
    let ada = world.identity(PeerRole::Operator, "ada");
    let usage = get(&slave, "/api/v1/usage/F1/t");
    assert_eq!(usage.status, 200, "{}", usage.text());
    let usage: serde_json::Value = serde_json::from_str(&usage.text()).unwrap();
    assert!(
        usage["at_us"].as_u64() > Some(0) && usage["task_id"] == "t",
        "{usage}"
    );
    // Where there are control groups they count it.
    assert!(
        usage["pids"].is_null() || usage["pids"].as_u64() > Some(0),
        "{usage}"
    );
    let metrics = get(&slave, "/metrics").text();
    let row = r#"meros_slave_container_pids{framework="F1",task="t"}"#;
    assert!(
        usage["pids"].is_null() || metrics.contains(row),
        "{metrics}"
    );
    assert!(
        metrics.contains("meros_slave_containers_untold 0"),
        "{metrics}"
    );
    let unknown = get(&slave, "/api/v1/usage/F1/u");
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.text().contains("task_unknown"),
        "{}",
        unknown.text()
    );
    world.runtime.block_on(async {
        let (slave, ada) = (&slave, &ada);
        let mut session = begin(slave, ada, shell("echo out; echo err >&2; exit 7")).await;
        assert_eq!(session.end().await, ExecEnd::Exited(7));
        assert_eq!(session.said(), "out\n");
        assert_eq!(session.stderr, b"err\n");

        // Where the task is, and with no more rights.
        let same = r#"
            task=$(cat pid)
            for it in mnt ipc uts net pid; do
                test "$(readlink /proc/self/ns/$it)" = "$(readlink /proc/$task/ns/$it)" || exit 3
            done
            test "$(cat /proc/self/cgroup)" = "$(cat /proc/$task/cgroup)" || exit 4
            for it in CapBnd CapEff Seccomp NoNewPrivs Uid Gid; do
                line=$(grep "^$it:" /proc/$task/status)
                test "$line" = "$(grep "^$it:" /proc/self/status)" || exit 5
            done
            test "$MARK/$OWN/$PWD" = "mine/yes/$MEROS_SANDBOX" || exit 6
            test "$(readlink /proc/self/ns/pid)" = "$1" || test ! -d /proc/$2 || exit 8
        "#;
        let own = fs::read_link("/proc/self/ns/pid").unwrap();
        let (own, us) = (own.display().to_string(), std::process::id().to_string());
        let mut start = of("t", &["sh", "-c", same, "sh", &own, &us]);
        start.env.insert("OWN".to_owned(), "yes".to_owned());
        let mut session = begin(slave, ada, start).await;
        assert_eq!(
            session.end().await,
            ExecEnd::Exited(0),
            "{:?}",
            session.stderr
        );

        // Input to its end; without any it is empty.
        let mut start = shell("cat; echo end");
        start.stdin = true;
        let mut session = begin(slave, ada, start).await;
        session.type_in("one\n").await;
        session.until_said("one\n").await;
        session.type_in("two\n").await;
        session.say(ToExec::StdinEnd).await;
        assert_eq!(session.end().await, ExecEnd::Exited(0));
        assert_eq!(
            (session.said().as_str(), session.taken),
            ("one\ntwo\nend\n", 8)
        );
        let mut session = begin(slave, ada, shell("cat; echo end")).await;
        assert_eq!(session.end().await, ExecEnd::Exited(0));
        assert_eq!(session.said(), "end\n");

        // Much output, whole and in order.
        let mut session = begin(slave, ada, shell("seq 100000")).await;
        assert_eq!(session.end().await, ExecEnd::Exited(0));
        let all: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert!(session.said() == all, "{} bytes", session.stdout.len());

        // Signals, and how it ended by one.
        let trap = "trap 'echo heard; exit 9' INT; echo ready; while :; do sleep 0.01; done";
        let mut session = begin(slave, ada, shell(trap)).await;
        session.until_said("ready").await;
        session.say(ToExec::Signal(2)).await;
        assert_eq!(session.end().await, ExecEnd::Exited(9));
        let mut session = begin(slave, ada, shell("kill -9 $$")).await;
        assert_eq!(session.end().await, ExecEnd::Signaled(9));

        // What cannot be executed.
        for (program, code) in [
            ("/not/there", 127),
            ("not-there", 127),
            ("/etc/passwd", 126),
        ] {
            match begin(slave, ada, of("t", &[program])).await.end().await {
                ExecEnd::NotStarted { exit_code, message } => {
                    assert_eq!(exit_code, code, "{program}: {message}");
                }
                other => panic!("{program}: {other:?}"),
            }
        }
    });
    world.stop(&slave);
}

pub(crate) fn terminal(world: &mut World) {
    let slave = world.registered();
    with_task(world, &slave);
    let ada = world.identity(PeerRole::Operator, "ada");
    world.runtime.block_on(async {
        let (slave, ada) = (&slave, &ada);
        let line =
            "test -t 0 && test -t 1 && test -t 2 && tty && stty size && read it && stty size";
        let mut session = begin(slave, ada, with_terminal(line)).await;
        session.until_said("33 77").await;
        let size = WindowSize {
            rows: 44,
            columns: 99,
        };
        session.say(ToExec::Resize(size)).await;
        session.type_in("\n").await;
        assert_eq!(
            session.end().await,
            ExecEnd::Exited(0),
            "{}",
            session.said()
        );
        assert!(session.said().contains("44 99"), "{}", session.said());
        assert!(session.said().contains("/dev/pts/"), "{}", session.said());

        // Ctrl-C is a byte; the terminal makes a signal of it.
        let trap = "trap 'echo heard; exit 5' INT; echo ready; while :; do sleep 0.01; done";
        let mut session = begin(slave, ada, with_terminal(trap)).await;
        session.until_said("ready").await;
        session.type_in("\x03").await;
        assert_eq!(session.end().await, ExecEnd::Exited(5));
        // So is the end of input.
        let mut session = begin(slave, ada, with_terminal("cat; echo end")).await;
        session.type_in("hello\n").await;
        session.until_said("hello\r\nhello").await;
        session.type_in("\x04").await;
        assert_eq!(session.end().await, ExecEnd::Exited(0));
    });
    world.stop(&slave);
}

pub(crate) fn nothing_left(world: &mut World) {
    let mut config = world.config();
    config.tasks_end_with_slave = false;
    let slave = world.registered_as(config);
    with_task(world, &slave);
    let ada = world.identity(PeerRole::Operator, "ada");
    let (left, background) = (long_sleep(1), long_sleep(2));
    world.runtime.block_on(async {
        // A client that hangs up, of pipes and of a terminal; also what the command has started.
        for start in [shell, with_terminal] {
            let line = format!("sleep {left} & echo ready; sleep {left}");
            let mut session = begin(&slave, &ada, start(&line)).await;
            session.until_said("ready").await;
            tokio::task::block_in_place(|| {
                eventually("both sleep", || processes(&left) >= 2);
                drop(session);
                eventually("they are killed", || processes(&left) == 0);
            });
        }
        // The end of the command is that of its session.
        let mut session = begin(&slave, &ada, shell(&format!("sleep {background} & exit 3"))).await;
        assert_eq!(session.end().await, ExecEnd::Exited(3));
    });
    eventually("it is killed", || processes(&background) == 0);

    // The end of the slave; the task goes on.
    let pid = pid_of(&slave, "t").expect("it runs");
    let line = format!("echo ready; exec sleep {left}");
    let mut session = world.runtime.block_on(async {
        let mut session = begin(&slave, &ada, shell(&line)).await;
        session.until_said("ready").await;
        session
    });
    eventually("it sleeps", || processes(&left) == 1);
    world.stop(&slave);
    eventually("it is killed", || processes(&left) == 0);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    match world.runtime.block_on(session.end()) {
        ExecEnd::Cut { code, .. } => assert_eq!(code, "task_ended"),
        other => panic!("{other:?}"),
    }
    // Nothing but the task's own is in its folder.
    let folder = fs::read_dir(world.data_dir().join("containers"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let files = fs::read_dir(folder.path()).unwrap().flatten();
    let sockets = files.filter(|it| it.file_name().to_string_lossy().starts_with("exec-"));
    assert_eq!(sockets.count(), 0);
}

pub(crate) fn refused(world: &mut World) {
    let slave = world.registered();
    with_task(world, &slave);
    let ada = world.identity(PeerRole::Operator, "ada");
    let framework = world.identity(PeerRole::Framework, "f");
    let stranger = world.stranger();
    world.runtime.block_on(async {
        let (slave, ada) = (&slave, &ada);
        assert_eq!(
            refusal(slave, &framework, shell("true")).await,
            "exec_not_allowed"
        );
        assert_eq!(
            refusal(slave, ada, of("u", &["true"])).await,
            "task_unknown"
        );
        assert_eq!(refusal(slave, ada, of("t", &[])).await, "invalid");
        let long = "x".repeat(20_000);
        let code = refusal(slave, ada, of("t", &["echo", &long])).await;
        assert_eq!(code, "exec_command_too_long");

        // As many as there are places, and one more.
        let mut sessions = Vec::new();
        for _ in 0..meros_slave::container::EXECS_MAX {
            let mut session = begin(slave, ada, shell("echo ready; exec sleep 1000")).await;
            session.until_said("ready").await;
            sessions.push(session);
        }
        assert_eq!(refusal(slave, ada, shell("true")).await, "exec_busy");
        drop(sessions);

        // Whoever says nothing we understand.
        let mut session = Session::open(slave, ada).await;
        session.stream.write_all(&[0xff; 64]).await.unwrap();
        session.stream.flush().await.unwrap();
        let mut bytes = [0; 64];
        let read = timeout(PATIENCE, session.stream.read(&mut bytes)).await;
        assert!(matches!(read.expect("it hangs up"), Ok(0) | Err(_)));
    });
    let unsaid = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world
            .runtime
            .block_on(async { refusal(&slave, &stranger, shell("true")).await })
    }));
    assert!(unsaid.is_err(), "a stranger has heard {unsaid:?}");
    assert_eq!(get(&slave, EXEC_PATH).status, 426);
    let metrics = get(&slave, "/metrics").text();
    assert!(
        metrics.contains("meros_slave_execs_refused_total 5"),
        "{metrics}"
    );
    assert!(metrics.contains("meros_slave_execs_total 8"), "{metrics}");
    world.stop(&slave);
}

/// A shim as it was before it knew of commands: it does not say that it does, and hangs up on a slave whose
/// order it does not know.
fn pose_as_older(folder: &Path) {
    let open = fs::File::open(folder).unwrap();
    let at = |name: &str| format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
    fs::rename(folder.join(SOCKET), folder.join("behind")).unwrap();
    let listener = UnixListener::bind(at(SOCKET)).unwrap();
    let shim = UnixStream::connect(at("behind")).unwrap();
    thread::spawn(move || {
        let (slave, _) = listener.accept().unwrap();
        let (mut to_slave, mut to_shim) = (slave.try_clone().unwrap(), shim.try_clone().unwrap());
        let told = thread::spawn(move || {
            for line in BufReader::new(shim).lines() {
                let Ok(line) = line else { return };
                let line = line.replace(",\"execs\":true", "") + "\n";
                if to_slave.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        for line in BufReader::new(&slave).lines() {
            let Ok(line) = line else { break };
            let is_taken = !line.contains("Exec") && writeln!(to_shim, "{line}").is_ok();
            if !is_taken {
                break;
            }
        }
        let _ = slave.shutdown(Shutdown::Both);
        let _ = to_shim.shutdown(Shutdown::Both);
        told.join().unwrap();
    });
}

pub(crate) fn older_shim(world: &mut World) {
    let mut config = world.config();
    config.tasks_end_with_slave = false;
    let slave = world.registered_as(config.clone());
    with_task(world, &slave);
    let pid = pid_of(&slave, "t").expect("it runs");
    world.stop(&slave);
    let mut folders = fs::read_dir(world.data_dir().join("containers")).unwrap();
    pose_as_older(&folders.next().unwrap().unwrap().path());

    let slave = world.try_start(config).expect("it starts again");
    eventually("it has found its task", || pid_of(&slave, "t") == Some(pid));
    let ada = world.identity(PeerRole::Operator, "ada");
    for _ in 0..2 {
        // The second one finds it as it was.
        let code = world.runtime.block_on(refusal(&slave, &ada, shell("true")));
        assert_eq!(code, "exec_unsupported");
    }
    assert_eq!(get(&slave, "/api/v1/usage/F1/t").status, 200);
    assert_eq!(pid_of(&slave, "t"), Some(pid));
    world.stop(&slave);
}

pub(crate) fn off(world: &mut World) {
    let mut config = world.config();
    config.exec = false;
    let slave = world.registered_as(config);
    let answer = get(&slave, EXEC_PATH);
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("exec_off"), "{}", answer.text());
    world.stop(&slave);
}
