//! The HTTP client of the operator's commands: finds the cluster, asks the leading master.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dev;
use crate::exit::CliError;
use crate::output::table::printable;

/// How long one request may take. Reads of a large cluster take tens of milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read, in bytes: a page of 10,000 tasks is about 10 MiB.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// The largest backup: the registry of 50,000 slaves is some 50 MB.
const BACKUP_BYTES_MAX: u64 = 1 << 30;

/// The most pages of one list, of 10,000 rows each unless the master makes them smaller.
const PAGES_MAX: usize = 1_000;
/// The header with the cursor of the next page.
const NEXT: &str = "x-meros-next";

/// The header that says who may answer.
const READ: &str = "x-meros-read";
/// The header that says how old an answer of one that does not lead may be, in milliseconds.
const LAG: &str = "x-meros-lag-ms";

/// Masters that send us to another one, at most: the leader may change meanwhile.
const REDIRECTS_MAX: usize = 3;

/// An answer to a request.
type Answer = ureq::http::Response<ureq::Body>;

/// Where the cluster is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Masters, as `host:port,…`; by default the running `meros dev`, else 127.0.0.1:5050
    #[arg(long, env = "MEROS_MASTER", value_name = "ADDRESSES", value_parser = parse_masters)]
    pub(crate) master: Option<Masters>,
}

/// Addresses of masters that have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Masters(Vec<String>);

impl Masters {
    /// Masters that have told their addresses themselves.
    pub(crate) fn told(addresses: &str) -> Self {
        Self(addresses.split(',').map(str::to_owned).collect())
    }
}

/// No retry helps an address that is none, so it is refused before the first attempt.
fn parse_masters(text: &str) -> Result<Masters, String> {
    let address = |one: &str| {
        let one = one.trim();
        let (host, port) = one.rsplit_once(':').unwrap_or((one, ""));
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty()
            && (is_bracketed || !host.contains(':'))
            && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c));
        if is_host && port.parse::<u16>().is_ok_and(|port| port > 0) {
            Ok(one.to_owned())
        } else {
            Err(format!(
                "{one:?} is not host:port, such as m1.example:5050 or [::1]:5050"
            ))
        }
    };
    text.split(',')
        .map(address)
        .collect::<Result<_, _>>()
        .map(Masters)
}

/// What must be known to speak the native protocol.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct IdentityArgs {
    /// Folder with cert.pem, key.pem and ca.pem; by default that of the running `meros dev`
    #[arg(long, env = "MEROS_IDENTITY", value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
}

impl IdentityArgs {
    /// The folder: given, or of the running `meros dev`.
    ///
    /// # Errors
    /// There is neither.
    pub(crate) fn folder(&self) -> Result<PathBuf, CliError> {
        let running = || dev::Endpoint::of_default_dir().map(|endpoint| endpoint.identity);
        self.identity.clone().or_else(running).ok_or_else(|| {
            CliError::usage(
                "there is no identity to show to the cluster: say where it is with --identity or \
                 MEROS_IDENTITY; `meros ca issue --role operator` makes one, `meros dev` brings one",
            )
        })
    }
}

impl ClusterArgs {
    /// The masters' addresses: given, or of the running `meros dev`, or the default port here.
    pub(crate) fn masters(&self) -> Vec<String> {
        if let Some(given) = &self.master {
            return given.0.clone();
        }
        let running = dev::Endpoint::of_default_dir();
        let addresses = running.map(|endpoint| Masters::told(&endpoint.master).0);
        addresses.unwrap_or_else(|| vec!["127.0.0.1:5050".to_owned()])
    }
}

/// Asks masters and slaves over HTTP.
pub(crate) struct Client {
    agent: ureq::Agent,
    masters: Vec<String>,
}

/// What a server answers when it refuses: `{"code": …, "message": …}`.
#[derive(serde::Deserialize)]
struct Problem {
    code: String,
    message: String,
}

/// One piece of a task's output.
pub(crate) struct LogPiece {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Where they begin, counted from the start of the output.
    pub(crate) offset: u64,
    /// Whether the task has ended and this reaches to the end.
    pub(crate) complete: bool,
}

/// Which piece of a task's output.
pub(crate) enum LogRange {
    /// From an offset, waiting a little for more if there is none yet.
    From {
        /// Counted from the start of the output.
        offset: u64,
        /// How long to wait.
        wait: Duration,
    },
    /// The last so many bytes.
    Tail(u64),
}

/// The largest piece to ask for, in bytes; the slave gives no more at a time.
pub(crate) const LOG_PIECE_BYTES: u64 = 1 << 20;

impl Client {
    /// A client of these masters.
    pub(crate) fn new(cluster: &ClusterArgs) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Self {
            agent: config.into(),
            masters: cluster.masters(),
        }
    }

    /// Reads a list from the first master that answers, page by page to its end. What changes
    /// meanwhile may be in it twice, what does not is in it once.
    ///
    /// # Errors
    /// No master answers, or it refuses.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, CliError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut rows = Vec::new();
        let mut page = path.to_owned();
        for _ in 0..PAGES_MAX {
            let answer = self.read(&page)?;
            let next = answer.headers().get(NEXT);
            let next = next
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            rows.append(&mut read_json(answer)?);
            match next {
                // It is escaped already.
                Some(cursor) => page = format!("{path}{separator}after={cursor}"),
                None => return Ok(rows),
            }
        }
        Err(CliError::failure(format!(
            "the list has no end: {} rows in {PAGES_MAX} pages",
            rows.len()
        )))
    }

    /// Reads one thing from the first master that answers.
    ///
    /// # Errors
    /// No master answers, or it refuses.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        read_json(self.read(path)?)
    }

    /// Asks the leader, so that what has just been ordered is in the answer. While there is none, any master
    /// that knows something will do, and people are told how old that is.
    fn read(&self, path: &str) -> Result<Answer, CliError> {
        let of_leader = |agent: &ureq::Agent, url: &str| {
            let asked = agent.get(url).header(READ, "leader");
            asked.call()
        };
        let of_anybody = |agent: &ureq::Agent, url: &str| agent.get(url).call();
        let first = self.ask_masters(of_leader, path);
        if first.as_ref().is_ok_and(|answer| answer.status() != 503) {
            return first;
        }
        match self.ask_masters(of_anybody, path) {
            Ok(answer) if answer.status().is_success() => {
                if let Some(lag) = answer.headers().get(LAG).and_then(|lag| lag.to_str().ok()) {
                    eprintln!(
                        "warning: no leader answers; this is what another master knew {lag} ms ago"
                    );
                }
                Ok(answer)
            }
            _ => first,
        }
    }

    /// Asks the first master that answers to do something.
    ///
    /// # Errors
    /// No master answers, or it refuses.
    pub(crate) fn post(&self, path: &str) -> Result<(), CliError> {
        let answer = self.ask_masters(|agent, url| agent.post(url).send_empty(), path)?;
        read_json(answer).map(|_: serde::de::IgnoredAny| ())
    }

    /// Reads a document that is kept as it is.
    ///
    /// # Errors
    /// No master answers, or it refuses.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, CliError> {
        let mut answer = self.ask_masters(|agent, url| agent.get(url).call(), path)?;
        if !answer.status().is_success() {
            return Err(refused(answer));
        }
        let body = answer.body_mut().with_config().limit(BACKUP_BYTES_MAX);
        body.read_to_vec()
            .map_err(|error| CliError::failure(format!("the answer broke off: {error}")))
    }

    /// Asks the first master that answers to do something that takes a body, and reads what it
    /// says about it.
    ///
    /// # Errors
    /// No master answers, or it refuses.
    pub(crate) fn order<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CliError::failure(format!("cannot write JSON: {error}")))?;
        let call = |agent: &ureq::Agent, url: &str| {
            let request = agent.post(url).content_type("application/json");
            request.send(&body[..])
        };
        read_json(self.ask_masters(call, path)?)
    }

    fn ask_masters(
        &self,
        call: impl Fn(&ureq::Agent, &str) -> Result<Answer, ureq::Error>,
        path: &str,
    ) -> Result<Answer, CliError> {
        let mut failures = Vec::new();
        let mut refused = None;
        for master in &self.masters {
            match self.follow(&call, format!("http://{master}{path}")) {
                // It does not lead and does not know who does: another one may.
                Ok(response) if response.status() == 503 && self.masters.len() > 1 => {
                    failures.push(format!("{master}: it does not lead"));
                    refused = Some(response);
                }
                Ok(response) => return Ok(response),
                Err(error) => failures.push(format!("{master}: {error}")),
            }
        }
        if let Some(response) = refused {
            return Ok(response);
        }
        Err(CliError::unreachable(format!(
            "no master answers ({}).\n\
             Start a local datacenter with `meros dev`, or say where the masters are with \
             --master or MEROS_MASTER.",
            failures.join("; ")
        )))
    }

    /// Asks, and asks the leader if that is somebody else. By ourselves, since orders are POST, which
    /// the library does not send twice.
    fn follow(
        &self,
        call: impl Fn(&ureq::Agent, &str) -> Result<Answer, ureq::Error>,
        mut url: String,
    ) -> Result<Answer, ureq::Error> {
        let mut answer = call(&self.agent, &url)?;
        for _ in 0..REDIRECTS_MAX {
            let location = answer.headers().get("location");
            match location.and_then(|location| location.to_str().ok()) {
                // By the scheme that we came with, if it names none.
                Some(leader) if answer.status() == 307 => {
                    url = match leader.strip_prefix("//") {
                        Some(rest) => format!("http://{rest}"),
                        None => leader.to_owned(),
                    };
                }
                _ => break,
            }
            answer = call(&self.agent, &url)?;
        }
        Ok(answer)
    }

    /// Reads a piece of a task's output from its slave.
    ///
    /// # Errors
    /// The slave does not answer, or has no such output.
    pub(crate) fn log(
        &self,
        slave: &str,
        path: &str,
        range: &LogRange,
    ) -> Result<LogPiece, CliError> {
        let query = match range {
            LogRange::From { offset, wait } => {
                format!(
                    "offset={offset}&length={LOG_PIECE_BYTES}&wait={}",
                    wait.as_millis()
                )
            }
            LogRange::Tail(bytes) => format!("tail={bytes}"),
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("http://{slave}{path}{separator}{query}");
        let mut response = self.agent.get(&url).call().map_err(|error| {
            CliError::unreachable(format!("slave at {slave} does not answer: {error}"))
        })?;
        if matches!(response.status().as_u16(), 503 | 504) {
            // It is starting, stopping or busy.
            let why = refused(response);
            return Err(CliError::unreachable(why.to_string()));
        }
        if !response.status().is_success() {
            return Err(refused(response));
        }
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let offset = header("x-meros-offset")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let complete = header("x-meros-complete").as_deref() == Some("true");
        let bytes = response
            .body_mut()
            .with_config()
            .limit(LOG_PIECE_BYTES * 2)
            .read_to_vec()
            .map_err(|error| CliError::unreachable(format!("slave at {slave}: {error}")))?;
        Ok(LogPiece {
            bytes,
            offset,
            complete,
        })
    }
}

impl Client {
    /// Reads one thing from a slave.
    ///
    /// # Errors
    /// The slave does not answer, or refuses.
    pub(crate) fn of_slave<T: DeserializeOwned>(
        &self,
        slave: &str,
        path: &str,
    ) -> Result<T, CliError> {
        read_json(self.ask_slave(&self.agent, slave, path)?)
    }

    /// Copies a whole file of a slave, however long that takes. Returns its bytes.
    ///
    /// # Errors
    /// The slave does not answer, refuses or breaks off, or `into` fails.
    pub(crate) fn download(
        &self,
        slave: &str,
        path: &str,
        into: &mut impl std::io::Write,
    ) -> Result<u64, CliError> {
        let patient = ureq::Agent::config_builder()
            .timeout_connect(Some(REQUEST_TIMEOUT))
            .timeout_recv_response(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .build();
        let mut answer = self.ask_slave(&patient.into(), slave, path)?;
        if !answer.status().is_success() {
            return Err(refused(answer));
        }
        let mut from = answer.body_mut().as_reader();
        std::io::copy(&mut from, into)
            .map_err(|error| CliError::failure(format!("the copy broke off: {error}")))
    }

    fn ask_slave(&self, agent: &ureq::Agent, slave: &str, path: &str) -> Result<Answer, CliError> {
        let url = format!("http://{slave}{path}");
        agent.get(&url).call().map_err(|error| {
            CliError::unreachable(format!("slave at {slave} does not answer: {error}"))
        })
    }
}

fn read_json<T: DeserializeOwned>(mut response: Answer) -> Result<T, CliError> {
    if !response.status().is_success() {
        return Err(refused(response));
    }
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_vec()
        .map_err(|error| CliError::unreachable(format!("the answer broke off: {error}")))?;
    let text = if text.is_empty() {
        b"null".to_vec()
    } else {
        text
    };
    serde_json::from_slice(&text).map_err(|error| {
        CliError::failure(format!(
            "the answer is not what this version of meros expects: {error}. \
             Use the `meros` that came with the master."
        ))
    })
}

fn refused(mut response: Answer) -> CliError {
    let status = response.status();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    CliError::failure(problem(status.as_u16(), text.as_bytes()))
}

/// What a server says when it refuses, in a line.
pub(crate) fn problem(status: u16, body: &[u8]) -> String {
    let message = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => format!("{} ({})", problem.message, problem.code),
        Err(_) => format!("HTTP {status}: {}", String::from_utf8_lossy(body).trim()),
    };
    printable(&message)
}

/// A path segment as a URL wants it.
pub(crate) fn escaped(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::stub::{Reply, Stub};

    #[test]
    fn task_ids_of_any_script_survive_a_url() {
        assert_eq!(escaped("web.3"), "web.3");
        assert_eq!(escaped("job:7?x#y%"), "job%3A7%3Fx%23y%25");
        assert_eq!(escaped("ü"), "%C3%BC");
    }

    #[test]
    fn a_list_is_read_page_by_page_to_its_end() {
        let stub = Stub::start(|path| {
            Some(match path {
                "/l?a=1" => Reply::with("x-meros-next", "F0%2Fb", "[1,2]"),
                "/l?a=1&after=F0%2Fb" => Reply::with("x-meros-next", "c", "[3]"),
                "/l?a=1&after=c" => Reply::ok("[4]"),
                _ => return None,
            })
        });
        let rows: Vec<u32> = stub.client().list("/l?a=1").unwrap();
        assert_eq!(rows, [1, 2, 3, 4]);
    }

    #[test]
    fn a_list_without_end_is_given_up() {
        let stub = Stub::start(|_| Some(Reply::with("x-meros-next", "a", "[1]")));
        let error = stub.client().list::<u32>("/l").unwrap_err();
        assert!(error.to_string().contains("has no end"), "{error}");
    }

    #[test]
    fn orders_go_where_a_follower_says_that_the_leader_is() {
        let leader = Stub::start(|path| (path == "/order").then(|| Reply::ok("{}")));
        let location = format!("//{}/order", leader.address);
        let follower =
            Stub::start(move |path| (path == "/order").then(|| Reply::redirect(&location)));
        follower.client().post("/order").unwrap();
    }

    #[test]
    fn masters_that_send_us_in_circles_are_given_up() {
        let itself = Arc::new(OnceLock::<String>::new());
        let known = Arc::clone(&itself);
        let stub = Stub::start(move |_| Some(Reply::redirect(known.get()?)));
        let url = format!("http://{}/order", stub.address);
        itself.set(url).expect("set once");
        assert!(stub.client().post("/order").is_err());
    }

    #[test]
    fn without_a_leader_any_master_that_knows_something_is_read() {
        let alone = Stub::start(|path| {
            let is_known = path == "/l";
            is_known.then(|| Reply::with("x-meros-lag-ms", "1500", "[1]"))
        });
        // The first answer is the leader's, which is gone.
        let gone = Arc::new(OnceLock::<()>::new());
        let leaderless = Stub::start(move |_| {
            let is_first = gone.set(()).is_ok();
            Some(match is_first {
                true => Reply::redirect("http://127.0.0.1:1/l"),
                false => Reply::with("x-meros-lag-ms", "1500", "[1]"),
            })
        });
        for stub in [alone, leaderless] {
            let rows: Vec<u32> = stub.client().list("/l").expect("somebody knows");
            assert_eq!(rows, [1]);
        }
    }

    #[test]
    fn masters_are_a_list() {
        let args = ClusterArgs {
            master: Some(parse_masters("a:1, b:2").unwrap()),
        };
        assert_eq!(args.masters(), ["a:1", "b:2"]);
        assert!(parse_masters("[::1]:5050").is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused_before_any_attempt() {
        for text in [
            "",
            " ",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:b",
            "a:1,",
            "::1:5050",
            "http://a:1",
            "a b:1",
        ] {
            let error = parse_masters(text).expect_err(text);
            assert!(error.contains("host:port"), "{error}");
        }
    }
}
