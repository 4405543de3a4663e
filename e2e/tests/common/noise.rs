//! Requests of clients who mean no good, or do not know better, from a seed: calls of the Mesos v1 APIs that
//! are spoiled, in JSON and in protobuf, wrong headers, lengths that are not so, and bytes that are nothing.

use meros_v1::encoding::{Media, decode, encode};
use meros_v1::pb;

/// A small generator of our own: the same numbers on every machine, for ever.
pub(crate) struct Noise(u64);

/// Which message the body of a call is.
#[derive(Debug, Clone, Copy)]
enum Of {
    Scheduler,
    Master,
    Slave,
    Executor,
    /// Always JSON.
    Document,
}

type Call = (Of, &'static str, &'static str);

/// What a master is asked, spoiled and as it is. Nothing of it harms those who work beside it.
const OF_MASTER: &[Call] = &[
    (Of::Scheduler, "/api/v1/scheduler", SUBSCRIBE),
    (
        Of::Scheduler,
        "/master/api/v1/scheduler",
        r#"{"type":"ACCEPT","framework_id":{"value":"x-0000"},"accept":{"offer_ids":[{"value":"x-O1-1"}],
        "operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"a","task_id":{"value":"a"},
        "agent_id":{"value":"x-S0"},"command":{"value":"true"}}]}}],"filters":{"refuse_seconds":1.5}}}"#,
    ),
    (
        Of::Scheduler,
        "/api/v1/scheduler/",
        r#"{"type":"RECONCILE","framework_id":{"value":"x-0000"},"reconcile":{"tasks":[{"task_id":{"value":"a"}}]}}"#,
    ),
    (
        Of::Scheduler,
        "/api/v1/scheduler",
        r#"{"type":"MESSAGE","framework_id":{"value":"x-0000"},"message":{"agent_id":{"value":"x-S0"},
        "executor_id":{"value":"e"},"data":"aGVsbG8="}}"#,
    ),
    (Of::Master, "/api/v1", r#"{"type":"GET_STATE"}"#),
    (
        Of::Master,
        "/api/v1/operator",
        r#"{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":9}}}"#,
    ),
    (
        Of::Master,
        "/master/api/v1",
        r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":0,"duration":{"nanoseconds":9}}}"#,
    ),
    (
        Of::Master,
        "/api/v1",
        r#"{"type":"READ_FILE","read_file":{"path":"/master/log","offset":0,"length":99}}"#,
    ),
    (
        Of::Master,
        "/api/v1",
        r#"{"type":"LIST_FILES","list_files":{"path":"/"}}"#,
    ),
    (
        Of::Master,
        "/master/api/v1/",
        r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"noise/a","limits":{"cpus":{"value":2}}}]}}"#,
    ),
    (
        Of::Master,
        "/api/v1",
        r#"{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"noise/a","weight":2.5}]}}"#,
    ),
    (
        Of::Master,
        "/api/v1",
        r#"{"type":"RESERVE_RESOURCES","reserve_resources":{"agent_id":{"value":"x-S77"},"resources":[{"name":"cpus",
        "type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"noise"}]}]}}"#,
    ),
    (Of::Master, "/api/v1", SUBSCRIBE_OPERATOR),
    (
        Of::Document,
        "/maintenance/schedule",
        r#"{"windows":[{"machine_ids":[{"hostname":"s1"}],"unavailability":{"start":{"nanoseconds":4000000000000000000}}}]}"#,
    ),
    (
        Of::Document,
        "/master/machine/down",
        r#"[{"hostname":"s1","ip":"127.0.0.1"}]"#,
    ),
    (Of::Document, "/machine/up", r#"[{"hostname":"s1"}]"#),
    (
        Of::Document,
        "/quota",
        r#"{"role":"noise/b","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}}]}"#,
    ),
    (
        Of::Document,
        "/weights",
        r#"[{"role":"noise/a","weight":2.5}]"#,
    ),
    (
        Of::Document,
        "/api/v1/state/noise/space",
        r#"{"list":{"prefix":"a","after":null}}"#,
    ),
    (
        Of::Document,
        "/api/v1/state/noise/space",
        r#"{"change":{"by":null,"change":{"commit":{"conditions":[],"operations":[{"delete":"a"}]}}}}"#,
    ),
    (
        Of::Document,
        "/api/v1/minimums",
        r#"{"minimums":[{"role":"noise/a","minimum":"cpus:0.01|mem:32"}]}"#,
    ),
    (
        Of::Document,
        "/api/v1/slaves/S77/resources/reserve",
        r#"{"resources":"cpus(noise,):1"}"#,
    ),
];

/// What a slave is asked.
const OF_SLAVE: &[Call] = &[
    (
        Of::Executor,
        "/api/v1/executor",
        r#"{"type":"SUBSCRIBE","executor_id":{"value":"e"},"framework_id":{"value":"x-0000"},
        "subscribe":{"unacknowledged_tasks":[],"unacknowledged_updates":[]}}"#,
    ),
    (
        Of::Executor,
        "/slave(1)/api/v1/executor",
        r#"{"type":"UPDATE","executor_id":{"value":"e"},"framework_id":{"value":"x-0000"},"update":{"status":{
        "task_id":{"value":"a"},"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}}"#,
    ),
    (
        Of::Executor,
        "/api/v1/executor/",
        r#"{"type":"MESSAGE","executor_id":{"value":"e"},"framework_id":{"value":"x-0000"},"message":{"data":"aGVsbG8="}}"#,
    ),
    (Of::Slave, "/api/v1", r#"{"type":"GET_STATE"}"#),
    (
        Of::Slave,
        "/slave(1)/api/v1",
        r#"{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}"#,
    ),
    (Of::Slave, "/api/v1/operator", r#"{"type":"GET_AGENT"}"#),
    (
        Of::Slave,
        "/api/v1/",
        r#"{"type":"LIST_FILES","list_files":{"path":"/frameworks/F0/executors/e/runs/latest"}}"#,
    ),
    (
        Of::Slave,
        "/api/v1",
        r#"{"type":"READ_FILE","read_file":{"path":"/slave/log","offset":7,"length":9}}"#,
    ),
    (
        Of::Slave,
        "/api/v1",
        r#"{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":{"value":"c",
        "parent":{"value":"p"}},"command":{"value":"true"}}}"#,
    ),
    (
        Of::Slave,
        "/api/v1",
        r#"{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"container_id":{"value":"c"}}}"#,
    ),
    (
        Of::Slave,
        "/api/v1",
        r#"{"type":"ATTACH_CONTAINER_OUTPUT","attach_container_output":{"container_id":{"value":"c"}}}"#,
    ),
];

/// What masters and slaves show, below each of these prefixes.
const READS: &[&str] = &[
    "/state",
    "/state.json",
    "/state-summary",
    "/slaves",
    "/frameworks",
    "/tasks?limit=1&order=asc",
    "/roles",
    "/version",
    "/flags",
    "/redirect",
    "/metrics/snapshot",
    "/quota",
    "/weights",
    "/maintenance/schedule",
    "/maintenance/status",
    "/health",
    "/containers",
    "/monitor/statistics",
    "/files/browse?path=/",
    "/files/read?path=/slave/log&offset=0",
    "/files/download?path=/frameworks",
    "/files/debug",
    "/metrics",
    "/openapi.json",
    "/api/v1/slaves?limit=1",
    "/api/v1/why?task=a",
    "/api/v1/files/F0/a/browse?path=.",
    "/api/v1/logs/F0/a/stdout",
    "/api/v1/executors",
    "/api/v1/usage/F0/a",
];

/// A framework that wants to be offered nothing.
pub(crate) const SUBSCRIBE: &str = r#"{"type":"SUBSCRIBE","subscribe":{"suppressed_roles":["noise"],"framework_info":{
    "user":"","name":"noise","roles":["noise"],"failover_timeout":0,"capabilities":[{"type":"MULTI_ROLE"}]}}}"#;

/// Of everything that happens.
pub(crate) const SUBSCRIBE_OPERATOR: &str = r#"{"type":"SUBSCRIBE"}"#;

impl Of {
    /// A call, written as JSON here, as protobuf.
    fn protobuf(self, json: &str) -> Option<Vec<u8>> {
        macro_rules! of {
            ($call:ty) => {
                encode(
                    Media::Protobuf,
                    &decode::<$call>(Media::Json, json.as_bytes()).expect("written well here"),
                )
            };
        }
        Some(match self {
            Self::Scheduler => of!(pb::scheduler::Call),
            Self::Master => of!(pb::master::Call),
            Self::Slave => of!(pb::agent::Call),
            Self::Executor => of!(pb::executor::Call),
            Self::Document => return None,
        })
    }
}

/// A scheduler's call as protobuf.
pub(crate) fn subscribe_in_protobuf() -> Vec<u8> {
    Of::Scheduler.protobuf(SUBSCRIBE).expect("it is a message")
}

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("a small number");
        usize::try_from(self.next() % bound).expect("below a small number")
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A request, and whether its end is where it says.
    pub(crate) fn request(&mut self, is_of_master: bool) -> (Vec<u8>, bool) {
        if self.below(4) == 0 {
            return (self.read(is_of_master), true);
        }
        let calls = if is_of_master { OF_MASTER } else { OF_SLAVE };
        let (of, path, json) = self.of(calls);
        let protobuf = if self.below(3) == 0 {
            of.protobuf(json)
        } else {
            None
        };
        let media = match protobuf {
            Some(_) => "application/x-protobuf",
            None => "application/json",
        };
        let mut body = protobuf.unwrap_or_else(|| json.as_bytes().to_vec());
        let mut path = path.as_bytes().to_vec();
        // A third comes as it is.
        for _ in 0..self.below(3) * self.below(3) {
            self.spoil(&mut path, &mut body);
        }
        let told = match self.below(8) {
            // More than will come.
            0 => body.len() + 1 + self.below(100),
            _ => body.len(),
        };
        let method = self.of(&[
            "POST", "POST", "POST", "POST", "POST", "PUT", "GET", "DELETE", "OPTIONS",
        ]);
        let mut request = method.as_bytes().to_vec();
        request.push(b' ');
        request.extend(path);
        request.extend_from_slice(self.headers(media, told).as_bytes());
        let is_whole = told == body.len();
        request.extend(body);
        match self.below(12) {
            0 => {
                let end = self.below(request.len());
                request.truncate(end);
            }
            1 => {
                let at = self.below(request.len());
                request[at] = self.bytes(1)[0];
            }
            _ => return (request, is_whole),
        }
        (request, false)
    }

    fn headers(&mut self, media: &str, length: usize) -> String {
        let media = match self.below(10) {
            0 => String::new(),
            1 => "content-type: text/plain\r\n".to_owned(),
            2 => format!("content-type: {media}\r\ncontent-type: text/plain\r\n"),
            3 => format!("content-type: application/recordio\r\nmessage-content-type: {media}\r\n"),
            _ => format!("content-type: {media}\r\n"),
        };
        let accept = self.of(&[
            "",
            "accept: */*\r\n",
            "accept: application/json\r\n",
            "accept: application/x-protobuf\r\n",
            "accept: application/recordio\r\nmessage-accept: application/json\r\n",
            "accept: text/html\r\n",
        ]);
        let more = self.of(&[
            "",
            "",
            "",
            "mesos-stream-id: 00000000-0000-4000-8000-000000000000\r\n",
            "mesos-stream-id: \u{e9}\r\n",
            "authorization: Bearer none\r\n",
            "origin: http://elsewhere\r\n",
            "expect: 100-continue\r\n",
            "last-event-id: 0-0\r\n",
            "range: bytes=5-1\r\n",
        ]);
        format!(
            " HTTP/1.1\r\nhost: m\r\nconnection: close\r\n{media}{accept}{more}content-length: {length}\r\n\r\n"
        )
    }

    fn spoil(&mut self, path: &mut Vec<u8>, body: &mut Vec<u8>) {
        let at = self.below(body.len());
        match self.below(7) {
            0 if !body.is_empty() => body[at] ^= 1 << self.below(8),
            1 => body.truncate(at),
            2 => {
                let end = (at + self.below(12)).min(body.len());
                body.drain(at..end);
            }
            3 => {
                let word: &[u8] = self.of(&[
                    b"null",
                    b"-1",
                    b"1e99",
                    b"[[[[",
                    b"\"\"",
                    b"{}",
                    b"\xff\xff\xff\xff\x0f",
                ]);
                body.splice(at..at, word.iter().copied());
            }
            4 => {
                let length = self.below(200);
                *body = self.bytes(length);
            }
            5 => path.extend_from_slice(self.of(&[&b"/x"[..], b"%ff", b"?a=%00", b"/../.."])),
            _ => body.extend_from_within(at..),
        }
    }

    fn read(&mut self, is_of_master: bool) -> Vec<u8> {
        let own = if is_of_master { "/master" } else { "/slave(1)" };
        let prefix = self.of(&["", own]);
        let mut path = format!("{prefix}{}", self.of(READS)).into_bytes();
        if self.below(3) == 0 {
            self.spoil(&mut path, &mut vec![0]);
            let at = self.below(path.len());
            path[at] = self.of(b"%?&=/.;+ ~\x7f");
        }
        let mut request = b"GET ".to_vec();
        request.extend(path);
        request.extend_from_slice(self.headers("application/json", 0).as_bytes());
        request
    }
}
