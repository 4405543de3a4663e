//! What is examined, and the calls that all cases make.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{self, Broken, Reply, Request};
use crate::{Checked, Halt, ensure};

/// Between two looks at what changes by itself.
const GLANCE: Duration = Duration::from_millis(20);

/// Where it is, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The leading master, `host:port`.
    pub(crate) master: String,
    /// A master that follows, `host:port`; A6 needs one.
    pub follower: Option<String>,
    /// The user of tasks; empty: the agent's.
    pub user: String,
    /// For each answer and each event. Default 30 s.
    pub patience: Duration,
    /// How long nothing may come where nothing is to come. Default 2 s.
    pub quiet: Duration,
}

impl Target {
    /// `http://host:port`, with or without the scheme and a last slash.
    ///
    /// # Errors
    /// It is no such address; the text says why.
    pub fn new(url: &str) -> Result<Self, String> {
        Ok(Self {
            master: address(url)?,
            follower: None,
            user: String::new(),
            patience: Duration::from_secs(30),
            quiet: Duration::from_secs(2),
        })
    }

    /// Whether anybody answers there.
    ///
    /// # Errors
    /// Nobody does.
    pub fn reach(&self) -> Result<(), Broken> {
        self.ask("GET", "/version", &[], b"").map(drop)
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Broken> {
        ask_at(&self.master, method, path, headers, body, self.patience)
    }

    /// A JSON document.
    pub(crate) fn get(&self, path: &str) -> Checked<Value> {
        let mut reply = self.ask("GET", path, &[], b"")?;
        ensure!(
            reply.status == 200,
            "GET {path} is answered {}",
            reply.status
        );
        let body = reply.body(self.patience)?;
        json(&body).map_err(|why| Halt::failed(format!("GET {path}: {why}")))
    }

    /// A call in JSON, answered in JSON.
    pub(crate) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        call: &Value,
    ) -> Checked<Reply> {
        let mut all = vec![
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ];
        all.extend_from_slice(headers);
        let body = call.to_string();
        Ok(self.ask("POST", path, &all, body.as_bytes())?)
    }

    /// A call of an operator: its status and what it says.
    pub(crate) fn operate(&self, call: &Value) -> Checked<(u16, Value)> {
        let mut reply = self.post("/api/v1", &[], call)?;
        offered(&reply, call)?;
        let body = reply.body(self.patience)?;
        Ok((reply.status, json(&body).unwrap_or(Value::Null)))
    }

    /// Asks again until it is so: what is read may be a moment behind what was called or told.
    pub(crate) fn eventually(
        &self,
        what: &str,
        mut is_so: impl FnMut() -> Checked<bool>,
    ) -> Checked {
        let deadline = Instant::now() + self.patience;
        while !is_so()? {
            ensure!(Instant::now() < deadline, "{what}");
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// The answer to a question of an operator.
    pub(crate) fn question(&self, call: &Value) -> Checked<Value> {
        let (status, answer) = self.operate(call)?;
        ensure!(status == 200, "{} is answered {status}", call["type"]);
        Ok(answer)
    }
}

fn address(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if url.starts_with("https://") {
        return Err("https is not spoken yet: give the address of a proxy without it".to_owned());
    }
    let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) if !rest.contains(['/', '?', '#', '@', ' ']) => Ok(rest.to_owned()),
        _ => Err(format!("{url:?} is not http://host:port")),
    }
}

pub(crate) fn ask_at(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> Result<Reply, Broken> {
    let request = Request {
        method,
        path,
        headers,
        body,
    };
    http::send(address, &request, patience)
}

pub(crate) fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))
}

/// 501 is the answer of a server that has no such call.
pub(crate) fn offered(reply: &Reply, call: &Value) -> Checked {
    match reply.status {
        501 => Err(Halt::not_offered(format!(
            "{} is answered 501",
            call["type"]
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_with_or_without_http() {
        for url in ["http://m1:5050", "http://m1:5050/", "m1:5050"] {
            assert_eq!(address(url).as_deref(), Ok("m1:5050"));
        }
        assert_eq!(address("[::1]:5050").as_deref(), Ok("[::1]:5050"));
        for url in [
            "",
            "m1",
            "https://m1:5050",
            "m1:0",
            "http://m1:5050/api",
            "a b:1",
        ] {
            assert!(address(url).is_err(), "{url:?}");
        }
    }
}
