//! Bytes of all kinds on the HTTP port, at the endpoints of Mesos: each request is answered, none is a fault
//! of the master, nothing of it is left, and clients that mean well are served.
//! `MEROS_FUZZ_ROUNDS` says how many; the seed is the same each time.

use std::collections::BTreeMap;

use meros_master::Running;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::test;
use tokio::time::timeout;

use crate::site::{PATIENCE, Site, eventually_metric, get, get_text};

const ROUNDS: u32 = 600;

/// Far more than an answer that is no stream has.
const ANSWER_BYTES_MAX: usize = 1 << 20;

const CALLS: [(&str, &str); 12] = [
    (
        "/api/v1/scheduler",
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"","name":"n","roles":["a"],
        "capabilities":[{"type":"MULTI_ROLE"}]}}}"#,
    ),
    (
        "/master/api/v1/scheduler",
        r#"{"type":"ACCEPT","framework_id":{"value":"x-0000"},"accept":{"offer_ids":[{"value":"x-O1-1"}],
        "operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"a","task_id":{"value":"a"},
        "agent_id":{"value":"x-S0"},"command":{"value":"true"}}]}}]}}"#,
    ),
    (
        "/api/v1/scheduler",
        r#"{"type":"RECONCILE","framework_id":{"value":"x-0000"},"reconcile":{"tasks":[{"task_id":{"value":"a"}}]}}"#,
    ),
    ("/api/v1", r#"{"type":"GET_STATE"}"#),
    (
        "/api/v1",
        r#"{"type":"READ_FILE","read_file":{"path":"/master/log","offset":0}}"#,
    ),
    (
        "/master/api/v1/",
        r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a","limits":{"cpus":{"value":2}}}]}}"#,
    ),
    ("/api/v1", r#"{"type":"SUBSCRIBE"}"#),
    (
        "/maintenance/schedule",
        r#"{"windows":[{"machine_ids":[{"hostname":"s1"}],"unavailability":{"start":{"nanoseconds":4000000000000000000}}}]}"#,
    ),
    ("/machine/down", r#"[{"hostname":"s1","ip":"127.0.0.1"}]"#),
    (
        "/quota",
        r#"{"role":"b","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}"#,
    ),
    ("/weights", r#"[{"role":"a","weight":2.5}]"#),
    ("/master/tasks?limit=1&order=asc", ""),
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
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A request as somebody might send it who means no good, or does not know better; and whether its end is
/// where it says.
fn request(random: &mut SplitMix64) -> (Vec<u8>, bool) {
    let (path, body) = random.of(&CALLS);
    let mut path = path.as_bytes().to_vec();
    let mut body = body.as_bytes().to_vec();
    let method = random.of(&["POST", "POST", "POST", "POST", "PUT", "GET", "DELETE"]);
    let media = random.of(&[
        "application/json",
        "application/json",
        "application/json",
        "application/x-protobuf",
        "text/plain",
    ]);
    let accept = random.of(&["*/*", "application/json", "application/x-protobuf"]);
    for _ in 0..random.below(4) {
        let at = random.below(body.len());
        match random.below(7) {
            0 if !body.is_empty() => body[at] ^= 1 << random.below(8),
            1 => body.truncate(at),
            2 => {
                let end = (at + random.below(12)).min(body.len());
                body.drain(at..end);
            }
            3 => {
                let word: &[u8] = random.of(&[b"null", b"-1", b"1e99", b"[[[[", b"\"\"", b"{}"]);
                body.splice(at..at, word.iter().copied());
            }
            4 => {
                let length = random.below(200);
                body = random.bytes(length);
            }
            5 => path.extend_from_slice(random.of(&[&b"/x"[..], b"%ff", b"?a=%00", b"/../.."])),
            _ => body.extend_from_within(at..),
        }
    }
    let told = match random.below(8) {
        // More than will come.
        0 => body.len() + 1 + random.below(100),
        _ => body.len(),
    };
    let stream_id = match random.below(3) {
        0 => "mesos-stream-id: 00000000-0000-4000-8000-000000000000\r\n",
        _ => "",
    };
    let mut bytes = method.as_bytes().to_vec();
    bytes.push(b' ');
    bytes.extend(path);
    bytes.extend_from_slice(
        format!(
            " HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-type: {media}\r\naccept: {accept}\r\n\
             {stream_id}content-length: {told}\r\n\r\n"
        )
        .as_bytes(),
    );
    let is_whole = told == body.len();
    bytes.extend(body);
    match random.below(12) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let at = random.below(bytes.len());
            bytes[at] = random.bytes(1)[0];
        }
        _ => return (bytes, is_whole),
    }
    (bytes, false)
}

/// The status that a request is answered with; none if the connection ends without an answer.
async fn answered(master: &Running, request: &[u8], is_whole: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(master.http_addr)
        .await
        .expect("it listens");
    // It may have answered and closed before all of it is sent.
    let _ = stream.write_all(request).await;
    if !is_whole {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let read = timeout(PATIENCE, stream.read(&mut piece)).await;
        let read = read.unwrap_or_else(|_| panic!("no end of {}", request.escape_ascii()));
        match read {
            Ok(0) | Err(_) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
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
    let status = answer.get(9..12)?;
    Some(std::str::from_utf8(status).unwrap().parse().unwrap())
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_requests_is_answered_and_leaves_nothing() {
    let rounds = match std::env::var("MEROS_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("MEROS_FUZZ_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let site = Site::new();
    let master = site.master().await;
    let (_slave, _) = site.registered("s1", master.quic_addr).await;
    get_text(&master, "/api/v1/master").await;
    let mut random = SplitMix64(0x7631);
    let mut seen: BTreeMap<Option<u16>, u32> = BTreeMap::new();
    for _ in 0..rounds {
        let (request, is_whole) = request(&mut random);
        let status = answered(&master, &request, is_whole).await;
        assert!(
            status.is_none_or(|it| it < 500 || it == 501),
            "{status:?} of {}",
            request.escape_ascii()
        );
        *seen.entry(status).or_default() += 1;
    }
    // All kinds of answers occur, or the storm does not reach what it is about.
    for status in [None, Some(200), Some(400), Some(404), Some(405), Some(415)] {
        assert!(seen.contains_key(&status), "{status:?} not in {seen:?}");
    }
    eventually_metric(&master, "meros_master_connections{peer=\"framework\"} 0").await;
    assert_eq!(
        get(&master, "/master/slaves").await["slaves"][0]["hostname"],
        json!("s1")
    );
    master.shutdown().await;
}
