//! Whatever comes to the HTTP ports of a cluster at work is answered in time, is never a fault of the daemons,
//! and leaves nothing: no connection, no file, no memory (issue 7). Once with schemathesis, which reads
//! `docs/openapi.json` and asks what it allows and what it does not; once with noise of our own on everything
//! of Mesos, streams cut and readers asleep included.
//!
//! `MEROS_FUZZ_SECONDS` is for how long each of the two goes on, `MEROS_FUZZ_SEED` where it begins.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use meros_conform::http::{Piece, Reply, Request, send};
use meros_e2e::{ClusterOptions, Daemon, LocalCluster, eventually};
use serde_json::{Value, json};

#[path = "common/burst.rs"]
#[allow(dead_code, reason = "other tests look at how tasks end")]
mod burst;
#[path = "common/noise.rs"]
mod noise;
#[path = "common/python.rs"]
mod python;

use burst::Burst;
use noise::{Noise, SUBSCRIBE, SUBSCRIBE_OPERATOR, subscribe_in_protobuf};
use python::python_with;

/// How long there is noise, unless `MEROS_FUZZ_SECONDS` says otherwise.
const NOISE: Duration = Duration::from_secs(10);
/// Until an answer is complete, or ended by the daemon: a request that never comes to its end is given 15 s.
const ANSWER: Duration = Duration::from_secs(20);
/// Until a client that means well is answered beside the noise, on a machine that is busy.
const WELL: Duration = Duration::from_secs(10);
/// For everything else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Far more than an answer that is no stream has.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Clients that make noise at a time.
const NOISY: u64 = 3;
/// Connections that each of them keeps open without reading, or in the middle of a request.
const HELD_MAX: usize = 8;
/// By how much a daemon's memory may grow in the second half of the noise. What is remembered of frameworks that
/// have ended is bounded, as is what the allocator keeps.
const GROWTH_KIB_MAX: u64 = 16 << 10;

fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// Open files of a process that are not those of its registry, which come and go.
fn files(daemon: &Daemon) -> usize {
    let pid = daemon.pid().expect("it runs");
    let own = daemon.data_dir().canonicalize().expect("it is there");
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let links = all.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok());
    links.filter(|link| !link.starts_with(&own)).count()
}

#[test]
fn schemathesis_finds_no_fault_and_no_difference_from_the_document() {
    // It has a command, and is a module of Python.
    let Some(python) = python_with("schemathesis") else {
        return;
    };
    // Orders that it finds declare slaves gone, which end then: some are to be left.
    let mut options = ClusterOptions::new("openapi", 3);
    options.resources = "cpus:2;mem:512;disk:512;ports:[31000-31019]";
    let mut cluster = LocalCluster::start(options);
    let dir = tempfile::tempdir().expect("a temp folder");
    let _burst = steady(&cluster, dir.path());
    let own = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli"])
        .arg(format!("--config-file={own}/clients/schemathesis.toml"))
        .arg("run")
        .arg(format!("{own}/../docs/openapi.json"))
        .arg(format!("--url=http://{}", cluster.address()))
        .arg(format!("--seed={}", given("MEROS_FUZZ_SEED").unwrap_or(1)))
        .args(["--no-color", "--workers=2", "--warnings=off"]);
    match given("MEROS_FUZZ_SECONDS") {
        Some(seconds) => command.arg(format!("--max-time={seconds}")),
        None => command.arg("--max-examples=5"),
    };
    // It keeps what it has found where it runs.
    let output = command.current_dir(dir.path()).output();
    let output = output.expect("it was there a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let cases = said.lines().find(|line| line.contains("generated"));
    eprintln!("schemathesis: {}", cases.expect("it made some").trim());
    assert!(cluster.master.exited().is_none());
    let health: Value = cluster.get("/health");
    assert_eq!(health["status"], "leading");
}

/// A framework with tasks that do not end.
fn steady(cluster: &LocalCluster, dir: &std::path::Path) -> Burst {
    let mut command = Command::new(Burst::program());
    command
        .arg(cluster.address())
        .arg(cluster.identity("framework"));
    command.arg(dir).args(["3", "100000"]);
    let burst = Burst::spawn(command, dir);
    eventually("the tasks run", PATIENCE, || burst.started() == 3);
    burst
}

/// Whom the noise is for, and what was seen of it.
struct Site {
    master: SocketAddr,
    slave: SocketAddr,
    is_over: AtomicBool,
    /// How the executor subscribes that the framework of the client that means well has started, if it runs.
    executor: Mutex<Option<Value>>,
    /// Answers by status; none if the connection ended without one.
    seen: Mutex<BTreeMap<Option<u16>, u64>>,
    /// Streams that were open before they were cut.
    cut: Mutex<BTreeMap<&'static str, u64>>,
}

#[test]
fn noise_and_cut_streams_leave_nothing_and_harm_nobody() {
    let mut options = ClusterOptions::new("fuzz", 1);
    options.master_args = ["--heartbeat-interval=1s", "--offer-timeout=2s"]
        .map(str::to_owned)
        .to_vec();
    let mut cluster = LocalCluster::start(options);
    let slave = cluster.slaves[0].listening().expect("it runs").http;
    let dir = tempfile::tempdir().expect("a temp folder");
    let _burst = steady(&cluster, dir.path());
    let site = Site {
        master: cluster.address().parse().expect("an address"),
        slave,
        is_over: AtomicBool::new(false),
        executor: Mutex::new(None),
        seen: Mutex::default(),
        cut: Mutex::default(),
    };
    let before = [&cluster.master, &cluster.slaves[0]].map(files);
    let seed = given("MEROS_FUZZ_SEED").unwrap_or(0x6675_7a7a);
    let lasts = given("MEROS_FUZZ_SECONDS").map_or(NOISE, Duration::from_secs);
    let resident =
        |cluster: &LocalCluster| [&cluster.master, &cluster.slaves[0]].map(Daemon::resident_kib);
    let mut halfway = None;
    thread::scope(|scope| {
        // However this ends, the others do.
        let _over = Over(&site.is_over);
        let mut at_work = vec![scope.spawn(|| mean_well(&site))];
        for client in 0..NOISY {
            let site = &site;
            at_work.push(scope.spawn(move || make_noise(site, Noise::new(seed + client))));
        }
        let began = Instant::now();
        while began.elapsed() < lasts && at_work.iter().all(|it| !it.is_finished()) {
            let ran = cluster.meros(&["run", "--timeout=30s", "--", "true"]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            if began.elapsed() > lasts / 2 {
                halfway.get_or_insert_with(|| resident(&cluster));
            }
        }
        site.is_over.store(true, Ordering::Relaxed);
        for thread in at_work {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let after = resident(&cluster);
    let halfway = halfway.expect("there was a second half");
    let (seen, cut) = (site.seen.into_inner(), site.cut.into_inner());
    let (seen, cut) = (seen.expect("no panic"), cut.expect("no panic"));
    eprintln!("seed {seed}: {seen:?}, cut {cut:?}, KiB {halfway:?} and {after:?}");
    // All kinds occur, or the noise does not reach what it is about.
    for status in [
        None,
        Some(200),
        Some(400),
        Some(403),
        Some(404),
        Some(405),
        Some(406),
        Some(415),
    ] {
        assert!(seen.contains_key(&status), "{status:?} not in {seen:?}");
    }
    for stream in ["scheduler", "operator", "executor"] {
        assert!(cut.contains_key(stream), "{stream} not in {cut:?}");
    }
    for (which, (before, after)) in halfway.into_iter().zip(after).enumerate() {
        let grown = after.saturating_sub(before);
        assert!(grown <= GROWTH_KIB_MAX, "{which} grew by {grown} KiB");
    }
    assert!(cluster.master.exited().is_none() && cluster.slaves[0].exited().is_none());
    let mut now = [0, 0];
    eventually(
        "connections and files are those of before",
        PATIENCE,
        || {
            now = [&cluster.master, &cluster.slaves[0]].map(files);
            now.iter().zip(before).all(|(now, before)| *now <= before)
        },
    );
}

/// Ends the noise when a test ends in any way.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn make_noise(site: &Site, mut noise: Noise) {
    let mut held = VecDeque::new();
    while !site.is_over.load(Ordering::Relaxed) {
        let is_of_master = noise.below(2) == 0;
        let to = if is_of_master {
            site.master
        } else {
            site.slave
        };
        match noise.below(20) {
            0 | 1 => cut_stream(site, &mut noise),
            2 => {
                let mut stream = connected(to);
                let length = noise.below(4_096);
                // It may be refused at any byte.
                drop(stream.write_all(&noise.bytes(length)));
            }
            3 => {
                held.push_back(held_open(to, &mut noise));
                if held.len() > HELD_MAX {
                    held.pop_front();
                }
            }
            _ => {
                let (request, is_whole) = noise.request(is_of_master);
                let status = answered(to, &request, is_whole);
                assert!(
                    status.is_none_or(|it| it < 500 || it == 501),
                    "{status:?} of {}",
                    request.escape_ascii()
                );
                let mut seen = site.seen.lock().expect("no panic");
                *seen.entry(status).or_default() += 1;
            }
        }
    }
}

fn connected(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, ANSWER).expect("it listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a time");
    stream.set_write_timeout(Some(ANSWER)).expect("a time");
    stream
}

/// A connection that nobody reads from, or that is in the middle of a request.
fn held_open(to: SocketAddr, noise: &mut Noise) -> TcpStream {
    let mut stream = connected(to);
    stream.set_nonblocking(true).expect("a socket");
    let read = "GET /state HTTP/1.1\r\nhost: m\r\n\r\n".repeat(300);
    let half = "POST /api/v1 HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let body = SUBSCRIBE_OPERATOR;
    let stream_unread = format!("{}{body}", post("/api/v1", "application/json", body.len()));
    let text = match noise.below(4) {
        0 => read.as_str(),
        1 => half,
        2 => &half[..noise.below(half.len())],
        _ => &stream_unread,
    };
    // What it does not take it does not get.
    drop(stream.write_all(text.as_bytes()));
    stream
}

fn post(path: &str, media: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: m\r\ncontent-type: {media}\r\naccept: {media}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Subscribes, reads some bytes, and is gone.
fn cut_stream(site: &Site, noise: &mut Noise) {
    let json = "application/json";
    let (to, name, head, body) = match noise.below(5) {
        0 => {
            let body = subscribe_in_protobuf();
            let head = post(
                "/master/api/v1/scheduler",
                "application/x-protobuf",
                body.len(),
            );
            (site.master, "scheduler", head, body)
        }
        1 => (
            site.master,
            "scheduler",
            post("/api/v1/scheduler", json, SUBSCRIBE.len()),
            SUBSCRIBE.as_bytes().to_vec(),
        ),
        2 => (
            site.master,
            "operator",
            post("/api/v1", json, SUBSCRIBE_OPERATOR.len()),
            SUBSCRIBE_OPERATOR.as_bytes().to_vec(),
        ),
        3 => (
            site.master,
            "events",
            "GET /api/v1/events HTTP/1.1\r\nhost: m\r\n\r\n".to_owned(),
            Vec::new(),
        ),
        _ => {
            let Some(call) = site.executor.lock().expect("no panic").clone() else {
                return;
            };
            let body = call.to_string().into_bytes();
            (
                site.slave,
                "executor",
                post("/api/v1/executor", json, body.len()),
                body,
            )
        }
    };
    let mut stream = connected(to);
    if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
        return;
    }
    let mut piece = vec![0; 1 + noise.below(600)];
    let read = stream.read(&mut piece).unwrap_or(0);
    let piece = &piece[..read];
    let is_server_fault = piece.starts_with(b"HTTP/1.1 5");
    assert!(!is_server_fault, "{name}: {}", piece.escape_ascii());
    if piece.starts_with(b"HTTP/1.1 200") {
        let mut cut = site.cut.lock().expect("no panic");
        *cut.entry(name).or_default() += 1;
    }
    if noise.below(2) == 0 {
        // Like a client that has stopped sending and still listens, for a moment.
        drop(stream.shutdown(Shutdown::Write));
    }
}

/// The status that a request is answered with; none if the connection ends without an answer.
fn answered(to: SocketAddr, request: &[u8], is_whole: bool) -> Option<u16> {
    let began = Instant::now();
    let mut stream = connected(to);
    // It may have answered and closed before all of it is sent.
    let _ = stream.write_all(request);
    if !is_whole {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let read = match stream.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no end within {ANSWER:?}: {}", request.escape_ascii())
            }
            // It has closed with bytes of ours unread.
            Err(_) => 0,
        };
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
        if answer.starts_with(CONTINUE) {
            answer.drain(..CONTINUE.len());
        }
        assert!(answer.len() <= ANSWER_BYTES_MAX);
        // A stream does not end by itself.
        let is_stream = |text: &[u8]| {
            text.windows(26)
                .any(|it| it == b"transfer-encoding: chunked")
        };
        if answer.starts_with(b"HTTP/1.1 200") && is_stream(&answer) {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took < ANSWER, "{took:?}: {}", request.escape_ascii());
    let status = answer.get(9..12)?;
    Some(std::str::from_utf8(status).ok()?.parse().expect("a status"))
}

/// What comes before the answer of a request that asked for it.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A framework that speaks v1, and reads what there is to read: served in time as long as there is noise. Its
/// tasks are for an executor which does not subscribe itself, so that others can in its name.
fn mean_well(site: &Site) {
    let mut framework = Framework::subscribe(site);
    while !site.is_over.load(Ordering::Relaxed) {
        let id = &framework.id;
        framework
            .call(&json!({"type": "RECONCILE", "framework_id": id, "reconcile": {"tasks": []}}));
        for (address, path) in [
            (site.master, "/master/state-summary"),
            (site.master, "/version"),
            (site.slave, "/slave(1)/state"),
            (site.slave, "/containers"),
        ] {
            assert_eq!(asked(address, path), 200, "{path}");
        }
        framework.read(Instant::now() + Duration::from_millis(100));
        assert!(
            framework.heard.elapsed() < WELL,
            "no heartbeat for {WELL:?}"
        );
    }
    *site.executor.lock().expect("no panic") = None;
    let id = &framework.id;
    framework.call(&json!({"type": "TEARDOWN", "framework_id": id}));
}

fn asked(address: SocketAddr, path: &str) -> u16 {
    let request = Request {
        method: "GET",
        path,
        headers: &[],
        body: b"",
    };
    let mut reply = send(&address.to_string(), &request, WELL).expect("it is served");
    reply.body(WELL).expect("all of it");
    reply.status
}

struct Framework<'a> {
    site: &'a Site,
    id: Value,
    stream_id: String,
    events: Reply,
    /// What has come and is no whole record yet.
    bytes: Vec<u8>,
    /// When the last record came.
    heard: Instant,
    tasks: u64,
}

impl<'a> Framework<'a> {
    fn subscribe(site: &'a Site) -> Self {
        let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "", "name": "well",
            "roles": ["well"], "capabilities": [{"type": "MULTI_ROLE"}]}}});
        let events = posted(site, None, &call);
        assert_eq!(events.status, 200);
        let stream_id = events.header("mesos-stream-id").expect("semantics: A4");
        let mut framework = Self {
            site,
            id: Value::Null,
            stream_id: stream_id.to_owned(),
            events,
            bytes: Vec::new(),
            heard: Instant::now(),
            tasks: 0,
        };
        let deadline = Instant::now() + WELL;
        while framework.id.is_null() {
            assert!(Instant::now() < deadline, "not subscribed");
            framework.read(Instant::now() + Duration::from_millis(100));
        }
        framework
    }

    fn call(&self, call: &Value) {
        let mut reply = posted(self.site, Some(&self.stream_id), call);
        let said = reply.body(WELL).expect("all of it");
        let said = String::from_utf8_lossy(&said);
        assert_eq!(reply.status, 202, "{said}: {call}");
    }

    /// Takes what comes until then.
    fn read(&mut self, until: Instant) {
        while let Piece::Chunk(chunk) = self.events.next(until).expect("it stays open") {
            self.bytes.extend(chunk);
            self.heard = Instant::now();
            while let Some(event) = self.record() {
                self.on_event(&event);
            }
        }
    }

    fn record(&mut self) -> Option<Value> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let length = std::str::from_utf8(&self.bytes[..end]).expect("digits");
        let length: usize = length.parse().expect("digits");
        let rest = self
            .bytes
            .split_off((end + 1 + length).min(self.bytes.len()));
        if self.bytes.len() < end + 1 + length {
            self.bytes.extend(rest);
            return None;
        }
        let record = std::mem::replace(&mut self.bytes, rest);
        Some(serde_json::from_slice(&record[end + 1..]).expect("JSON"))
    }

    fn on_event(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("SUBSCRIBED") => self.id = event["subscribed"]["framework_id"].clone(),
            Some("OFFERS") => {
                for offer in event["offers"]["offers"].as_array().expect("a list") {
                    self.use_offer(offer);
                }
            }
            Some("UPDATE") => {
                let status = &event["update"]["status"];
                let is_live = ["TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"];
                if !is_live.contains(&status["state"].as_str().unwrap_or_default()) {
                    *self.site.executor.lock().expect("no panic") = None;
                }
                if !status["uuid"].is_null() {
                    self.call(&json!({"type": "ACKNOWLEDGE", "framework_id": self.id, "acknowledge": {
                        "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}}));
                }
            }
            Some("ERROR") => panic!("{event}"),
            _ => {}
        }
    }

    /// Starts an executor if there is none, else gives it back.
    fn use_offer(&mut self, offer: &Value) {
        let decline = json!({"type": "DECLINE", "framework_id": self.id, "decline": {
            "offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0.5}}});
        if self.site.executor.lock().expect("no panic").is_some() {
            return self.call(&decline);
        }
        self.tasks += 1;
        let name = format!("well-{}", self.tasks);
        let scalar =
            |name, value| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
        let task = json!({"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"],
            "resources": [scalar("cpus", 0.1), scalar("mem", 32.0)],
            "executor": {"type": "CUSTOM", "executor_id": {"value": name}, "framework_id": self.id,
                "command": {"value": "exec sleep 1000"}, "resources": [scalar("cpus", 0.01), scalar("mem", 32.0)],
                "shutdown_grace_period": {"nanoseconds": 100_000_000}}});
        self.call(&json!({"type": "ACCEPT", "framework_id": self.id, "accept": {"offer_ids": [offer["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": [task]}}],
            "filters": {"refuse_seconds": 0.5}}}));
        *self.site.executor.lock().expect("no panic") = Some(json!({"type": "SUBSCRIBE",
            "executor_id": {"value": name}, "framework_id": self.id, "subscribe": {}}));
    }
}

fn posted(site: &Site, stream_id: Option<&str>, call: &Value) -> Reply {
    let mut headers = vec![
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    headers.extend(stream_id.map(|id| ("Mesos-Stream-Id", id)));
    let body = call.to_string();
    let request = Request {
        method: "POST",
        path: "/api/v1/scheduler",
        headers: &headers,
        body: body.as_bytes(),
    };
    send(&site.master.to_string(), &request, WELL).expect("it is served")
}
