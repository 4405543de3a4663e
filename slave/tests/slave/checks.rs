//! Checks of tasks against real servers: this process plays those of the tasks, on loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meros_proto::check::{Check, CheckStatus, HealthCheck, Probe};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Reason, TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use nix::unistd::geteuid;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::world::*;

/// The variable that makes this program a server at its value, a port: for tasks with a network of their own.
pub(crate) const SERVE: &str = "MEROS_TEST_SERVE";

const GOOD: u8 = 0;
const BAD: u8 = 1;
const HANGS: u8 = 2;
const FLOODS: u8 = 3;

/// Often, and with patience for a busy machine.
fn often(check: Check) -> Check {
    check
        .delay(Duration::ZERO)
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_secs(20))
}

fn fatal(check: Check) -> HealthCheck {
    HealthCheck::new(often(check))
        .grace_period(Duration::ZERO)
        .consecutive_failures(2)
}

fn run(task: &str, command: Command, change: impl FnOnce(&mut TaskDescription)) -> MasterToSlave {
    let MasterToSlave::RunTask(mut run) = order(task, command) else {
        unreachable!("an order");
    };
    change(&mut run.task);
    MasterToSlave::RunTask(run)
}

fn sleeper() -> Command {
    Command::shell("exec sleep 1000")
}

/// All statuses of each task, in order, up to when it is enough.
async fn until(
    master: &mut Master,
    told: &mut BTreeMap<String, Vec<TaskStatus>>,
    what: &str,
    enough: impl Fn(&BTreeMap<String, Vec<TaskStatus>>) -> bool,
) {
    while !enough(told) {
        let heard = tokio::time::timeout(PATIENCE * 9 / 10, master.acknowledged()).await;
        let status = heard.unwrap_or_else(|_| panic!("{what}: {told:#?}")).status;
        let task = status.task_id.to_string();
        told.entry(task).or_default().push(status);
    }
}

fn newest<'a>(told: &'a BTreeMap<String, Vec<TaskStatus>>, task: &str) -> Option<&'a TaskStatus> {
    told.get(task)?.last()
}

/// A server of some kind that behaves as it is told.
#[derive(Clone)]
struct Server {
    mood: Arc<AtomicU8>,
    flooded: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    port: u16,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http,
    Https,
    Grpc,
}

impl Server {
    fn start(world: &World, kind: Kind) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self {
            mood: Arc::default(),
            flooded: Arc::default(),
            written: Arc::default(),
            port: listener.local_addr().unwrap().port(),
        };
        let acceptor = acceptor();
        let serving = server.clone();
        world.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (server, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match kind {
                        Kind::Http => server.answer(stream).await,
                        Kind::Https => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                server.answer(stream).await;
                            }
                        }
                        Kind::Grpc => server.answer_grpc(stream).await,
                    }
                });
            }
        });
        server
    }

    fn is(&self, mood: u8) {
        self.mood.store(mood, Ordering::Relaxed);
    }

    fn mood(&self) -> u8 {
        self.mood.load(Ordering::Relaxed)
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        assert!(head.starts_with(b"GET /health?deep=1 HTTP/1.1\r\n"));
        let answer: &[u8] = match self.mood() {
            GOOD => b"HTTP/1.1 204 No Content\r\n\r\n",
            BAD => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            HANGS => return std::future::pending().await,
            _ => b"HTTP/1.1 200 OK\r\n",
        };
        let _ = stream.write_all(answer).await;
        if self.mood() == FLOODS {
            self.flooded.fetch_add(1, Ordering::Relaxed);
        }
        let line = [b"X-Flood: ".as_slice(), &[b'x'; 4_000], b"\r\n"].concat();
        while self.mood() == FLOODS && stream.write_all(&line).await.is_ok() {
            self.written.fetch_add(line.len() as u64, Ordering::Relaxed);
        }
        let _ = stream.shutdown().await;
    }

    async fn answer_grpc(&self, stream: tokio::net::TcpStream) {
        let server = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.judge(request).await) }
        });
        // A probe that has its answer just goes.
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn judge(
        self,
        request: Request<Incoming>,
    ) -> Response<impl Body<Data = Bytes, Error = Infallible> + Send> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        // Field 1 is the name of the service.
        assert_eq!(asked.as_ref(), b"\0\0\0\0\x05\x0a\x03web");
        let status = if self.mood() == GOOD { 1 } else { 2 };
        let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) });
        let response = Response::builder().header(CONTENT_TYPE, "application/grpc");
        response.body(body).unwrap()
    }
}

fn acceptor() -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    // For nobody that is asked for here.
    let names = vec!["example.com".to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Somebody who takes every connection until it is stopped.
fn accepting(world: &World) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = world.runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while listener.accept().await.is_ok() {}
    });
    (port, task)
}

pub(crate) fn each_kind(world: &mut World) {
    let slave = world.registered();
    let path = "/health?deep=1";
    let [http, https, grpc] =
        [Kind::Http, Kind::Https, Kind::Grpc].map(|kind| Server::start(world, kind));
    let (port, tcp) = accepting(world);
    let checks = [
        ("http", Check::http(http.port, path), "the answer was 503"),
        (
            "https",
            Check::https(https.port, path),
            "the answer was 503",
        ),
        (
            "grpc",
            Check::grpc(grpc.port, "web"),
            "the service \"web\" is not serving",
        ),
        ("tcp", Check::tcp(port), "Connection refused"),
        (
            "command",
            Check::shell("test -e bad && echo it is bad && exit 3; exit 0"),
            "the command exited with code 3: it is bad",
        ),
    ];
    let sandbox = world.data_dir().join("sandboxes/F1/command");
    world.runtime.block_on(async {
        let master = &mut world.master;
        for (task, check, _) in checks.clone() {
            let order = run(task, sleeper(), |task| {
                task.health_check = Some(fatal(check))
            });
            master.say(order).await;
        }
        let mut told = BTreeMap::new();
        until(master, &mut told, "healthy", |told| {
            checks.iter().all(|(task, ..)| {
                newest(told, task).is_some_and(|status| status.healthy == Some(true))
            })
        })
        .await;
        for server in [http, https, grpc] {
            server.is(BAD);
        }
        tcp.abort();
        let folder = fs::read_dir(sandbox).unwrap().next().unwrap().unwrap();
        fs::write(folder.path().join("bad"), "").unwrap();
        until(master, &mut told, "killed", |told| {
            checks.iter().all(|(task, ..)| {
                newest(told, task).is_some_and(|status| status.state.is_terminal())
            })
        })
        .await;
        for (task, _, why) in checks {
            let statuses = &told[task];
            let short: Vec<_> = statuses.iter().map(|it| (it.state, it.healthy)).collect();
            let expected = [
                (TaskState::Running, None),
                (TaskState::Running, Some(true)),
                (TaskState::Running, Some(false)),
                (TaskState::Killed, Some(false)),
            ];
            assert_eq!(short, expected, "{statuses:#?}");
            for status in &statuses[1..] {
                assert_eq!(status.reason, Some(Reason::TaskHealthCheckStatusUpdated));
            }
            for status in &statuses[2..] {
                assert!(status.message.contains(why), "{task}: {}", status.message);
            }
            let end = &statuses[3].message;
            assert!(end.contains("failed 2 times in a row"), "{end}");
        }
    });
    let metrics = get(&slave, "/metrics").text();
    assert!(
        metrics.contains("meros_slave_tasks_unhealthy_total 5"),
        "{metrics}"
    );
    world.stop(&slave);
}

pub(crate) fn bad_servers(world: &mut World) {
    let slave = world.registered();
    let path = "/health?deep=1";
    let [hangs, floods] = [Kind::Http; 2].map(|kind| Server::start(world, kind));
    hangs.is(HANGS);
    floods.is(FLOODS);
    world.runtime.block_on(async {
        let master = &mut world.master;
        let mut told = BTreeMap::new();
        for (task, server) in [("hangs", &hangs), ("floods", &floods)] {
            let mut check = often(Check::http(server.port, path));
            if task == "hangs" {
                check.timeout = Duration::from_millis(300);
            }
            let health = HealthCheck::new(check.clone()).consecutive_failures(1_000);
            let order = run(task, sleeper(), |task| {
                task.check = Some(check);
                task.health_check = Some(health.grace_period(Duration::ZERO));
            });
            master.say(order).await;
        }
        until(master, &mut told, "failing", |told| {
            ["hangs", "floods"]
                .iter()
                .all(|task| newest(told, task).is_some_and(|status| status.healthy == Some(false)))
        })
        .await;
        let why = |told: &BTreeMap<String, Vec<TaskStatus>>, task: &str| {
            let status = newest(told, task).unwrap();
            assert_eq!(
                status.check_status,
                Some(CheckStatus::Http { status_code: None })
            );
            status.message.clone()
        };
        assert_eq!(why(&told, "hangs"), "no answer within 300ms");
        let flooded = why(&told, "floods");
        assert!(flooded.contains("head is too large"), "{flooded}");
        // What sockets take before they are closed.
        let written = floods.written.load(Ordering::Relaxed);
        let each = written / floods.flooded.load(Ordering::Relaxed).max(1);
        assert!(each < 16 << 20, "{each} bytes were read of one answer");
        // Both recover, and nothing was killed.
        hangs.is(GOOD);
        floods.is(BAD);
        until(master, &mut told, "ready", |told| {
            let of = |task: &str| newest(told, task).and_then(|status| status.check_status);
            let code = |status_code| Some(CheckStatus::Http { status_code });
            of("hangs") == code(Some(204)) && of("floods") == code(Some(503))
        })
        .await;
        let states = told.values().flatten().map(|status| status.state);
        assert!(states.into_iter().all(|state| state == TaskState::Running));
    });
    world.stop(&slave);
}

pub(crate) fn grace_period(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let mut health = fatal(Check::shell("exit 1"));
        health.grace_period = Duration::from_secs(1_000);
        let order = run("t", sleeper(), |task| task.health_check = Some(health));
        master.say(order).await;
        let status = master.acknowledged().await.status;
        assert_eq!((status.state, status.healthy), (TaskState::Running, None));
    });
    eventually("it fails five times", || {
        let metrics = get(&slave, "/metrics").text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("meros_slave_probes_failed_total "));
        line.is_some_and(|count| count.parse::<u64>().unwrap() >= 5)
    });
    assert!(pid_of(&slave, "t").is_some(), "it runs");
    world.runtime.block_on(async {
        let master = &mut world.master;
        // Nothing was told between.
        master.say(MasterToSlave::Ping { registered: true }).await;
        let heard = master.hear().await;
        assert!(matches!(heard, SlaveToMaster::Pong), "{heard:?}");
    });
    world.stop(&slave);
}

pub(crate) fn commands(world: &mut World) {
    let slave = world.registered();
    let command = Command::shell("echo $$ > pid; exec sleep 1000").env("MARK", "mine");
    // Its own process group outlives it until it is killed; what it says is kept, and not more.
    let hangs = "echo started; sleep 1000 & wait";
    // In the same namespaces and groups as the task, with its environment, in its sandbox.
    let same = r#"
        task=$(cat pid) &&
        for it in mnt ipc uts net pid; do
            test "$(readlink /proc/self/ns/$it)" = "$(readlink /proc/$task/ns/$it)" || exit 3
        done &&
        test "$(cat /proc/self/cgroup)" = "$(cat /proc/$task/cgroup)" &&
        grep -q "$(grep ^CapBnd: /proc/$task/status)" /proc/self/status &&
        grep -q "$(grep ^Seccomp: /proc/$task/status)" /proc/self/status &&
        grep -q "$(grep ^NoNewPrivs: /proc/$task/status)" /proc/self/status &&
        test "$MARK/$OWN/$PWD" = "mine/yes/$MEROS_SANDBOX" && head -c 100000 /dev/zero
    "#;
    let missing = Command::argv(["/not/there"]);
    world.runtime.block_on(async {
        let master = &mut world.master;
        let mut told = BTreeMap::new();
        let orders = [
            (
                "same",
                Check::new(Probe::Command(Box::new(
                    Command::shell(same).env("OWN", "yes"),
                ))),
            ),
            ("hangs", Check::shell(hangs)),
            ("missing", Check::new(Probe::Command(Box::new(missing)))),
            ("signal", Check::shell("kill -9 $$")),
        ];
        for (task, check) in orders {
            let mut check = often(check);
            if task == "hangs" {
                check.timeout = Duration::from_secs(2);
            }
            let health = HealthCheck::new(check.clone()).consecutive_failures(1_000);
            let order = run(task, command.clone(), |task| {
                task.check = Some(check);
                task.health_check = Some(health.grace_period(Duration::ZERO));
            });
            master.say(order).await;
        }
        until(master, &mut told, "checked", |told| {
            let healthy = |task: &str| newest(told, task).and_then(|status| status.healthy);
            let failed = ["hangs", "missing", "signal"];
            // It may have been asked before it had written its number.
            healthy("same") == Some(true) && failed.iter().all(|task| healthy(task).is_some())
        })
        .await;
        let of = |task: &str| {
            let status = newest(&told, task).unwrap();
            (status.healthy, status.message.as_str())
        };
        assert_eq!(of("same").0, Some(true), "{told:#?}");
        let late = "the command did not end within 2s: started";
        assert_eq!(of("hangs"), (Some(false), late));
        let (healthy, why) = of("missing");
        assert_eq!(healthy, Some(false));
        assert!(
            why.starts_with("the command exited with code 127: failed to"),
            "{why}"
        );
        let killed = "the command was ended by signal 9";
        assert_eq!(of("signal"), (Some(false), killed));
    });
    world.stop(&slave);
}

pub(crate) fn own_network(world: &mut World) {
    if !geteuid().is_root() {
        return eprintln!("skipped: only root can enter the network of a task");
    }
    let mut config = world.config();
    config.isolation = "net".parse().unwrap();
    let slave = world.registered_as(config);
    // Somebody listens there, and not here.
    let (port, other) = {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (one, other) = (free(), free());
        (one.local_addr().unwrap().port(), other)
    };
    let here = other.local_addr().unwrap().port();
    let program = std::env::current_exe().unwrap();
    let server = Command::argv([program.to_str().unwrap()]).env(SERVE, port.to_string());
    world.runtime.block_on(async {
        let master = &mut world.master;
        let mut told = BTreeMap::new();
        let order = run("t", server, |task| {
            task.health_check = Some(fatal(Check::tcp(port)).grace_period(Duration::from_secs(60)));
            // Of this machine's network, which is not the task's.
            task.check = Some(often(Check::tcp(here)));
        });
        master.say(order).await;
        until(master, &mut told, "checked", |told| {
            newest(told, "t").is_some_and(|status| {
                let succeeded = Some(false);
                status.healthy == Some(true)
                    && status.check_status == Some(CheckStatus::Tcp { succeeded })
            })
        })
        .await;
    });
    world.stop(&slave);
}

/// As a task: listens for ever.
pub(crate) fn serve_in_task(port: &OsStr) {
    let port: u16 = port
        .to_str()
        .and_then(|it| it.parse().ok())
        .expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
    listener.incoming().for_each(drop);
}

pub(crate) fn restart(world: &mut World) {
    let config = |world: &World| {
        let mut config = world.config();
        config.tasks_end_with_slave = false;
        config
    };
    let first = world.registered_as(config(world));
    let (port, listener) = accepting(world);
    let mut told = BTreeMap::new();
    world.runtime.block_on(async {
        let master = &mut world.master;
        let order = run("t", sleeper(), |task| {
            task.health_check = Some(fatal(Check::tcp(port)));
            task.check = Some(often(Check::shell("exit 4")));
        });
        master.say(order).await;
        until(master, &mut told, "healthy", |told| {
            newest(told, "t").is_some_and(|status| {
                let exit_code = Some(4);
                status.healthy == Some(true)
                    && status.check_status == Some(CheckStatus::Command { exit_code })
            })
        })
        .await;
    });
    let pid = pid_of(&first, "t");
    world.stop(&first);
    drop(first);
    let again = config(world);
    let second = world.try_start(again).expect("it starts");
    assert_eq!(pid_of(&second, "t"), pid, "it runs on");
    listener.abort();
    world.runtime.block_on(async {
        let master = &mut world.master;
        // A connection of the slave that was stopped may still wait to be accepted.
        'back: loop {
            master.accept().await;
            while let Some(message) = master.try_hear().await {
                if matches!(message, SlaveToMaster::Reregister { .. }) {
                    break 'back;
                }
            }
        }
        master.welcome().await;
        until(master, &mut told, "killed", |told| {
            newest(told, "t").is_some_and(|status| status.state.is_terminal())
        })
        .await;
        let end = newest(&told, "t").unwrap();
        assert_eq!((end.state, end.healthy), (TaskState::Killed, Some(false)));
        assert_eq!(end.reason, Some(Reason::TaskHealthCheckStatusUpdated));
    });
    world.stop(&second);
}
