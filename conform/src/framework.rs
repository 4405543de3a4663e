//! A framework that does what a case wants: subscribes, calls, waits for events.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::Reply;
use crate::stream::{Events, Next};
use crate::target::{Target, offered};
use crate::{Checked, Halt, ensure};

pub(crate) const SCHEDULER: &str = "/api/v1/scheduler";

/// What every task of ours takes.
pub(crate) const CPUS: f64 = 0.1;
/// In MB.
pub(crate) const MEM: f64 = 32.0;

/// Events that are kept while another is looked for.
const KEPT_MAX: usize = 10_000;

/// A subscribed framework; torn down when dropped.
pub(crate) struct Framework<'a> {
    pub(crate) target: &'a Target,
    pub(crate) id: String,
    pub(crate) stream_id: String,
    pub(crate) events: Events,
    /// Events that came while another was looked for.
    kept: VecDeque<Value>,
    /// The SUBSCRIBED.
    pub(crate) subscribed: Value,
    is_left_alone: bool,
}

/// A framework with the fewest fields.
pub(crate) fn info(target: &Target) -> Value {
    json!({"user": target.user, "name": "conform", "failover_timeout": 60.0})
}

/// The same with more fields, or others.
pub(crate) fn info_with(target: &Target, fields: Value) -> Value {
    let mut info = info(target);
    if let (Some(info), Value::Object(fields)) = (info.as_object_mut(), fields) {
        info.extend(fields);
    }
    info
}

/// Capabilities by name.
pub(crate) fn capabilities(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"type": name})).collect()
}

/// A name that no other run has used.
pub(crate) fn unique(word: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let since = since.unwrap_or_default().as_micros();
    format!("{word}-{since}-{}", LAST.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn scalar(name: &str, value: f64) -> Value {
    json!({"name": name, "type": "SCALAR", "scalar": {"value": value}})
}

/// Disk that is reserved for a role, in MiB.
pub(crate) fn disk(role: &str, mib: f64) -> Value {
    let mut disk = scalar("disk", mib);
    disk["reservations"] = json!([{"type": "DYNAMIC", "role": role}]);
    disk
}

/// A volume of so many MiB on such disk.
pub(crate) fn volume(role: &str, mib: f64) -> Value {
    let mut volume = disk(role, mib);
    volume["disk"] = json!({"persistence": {"id": "db"},
        "volume": {"container_path": "data", "mode": "RW"}});
    volume
}

/// How much of a scalar an offer has.
pub(crate) fn amount(offer: &Value, name: &str) -> f64 {
    let all = offer["resources"].as_array().into_iter().flatten();
    let these = all.filter(|it| it["name"] == name);
    these.filter_map(|it| it["scalar"]["value"].as_f64()).sum()
}

/// Opens a stream.
pub(crate) fn subscribe_raw(target: &Target, subscribe: &Value) -> Checked<Events> {
    let call = json!({"type": "SUBSCRIBE", "subscribe": subscribe});
    subscribe_call(target, &call)
}

/// Opens a stream with a call as it stands.
pub(crate) fn subscribe_call(target: &Target, call: &Value) -> Checked<Events> {
    let mut reply = target.post(SCHEDULER, &[], call)?;
    if reply.status != 200 {
        let body = reply.body(target.patience).unwrap_or_default();
        let why = String::from_utf8_lossy(&body).into_owned();
        return Err(Halt::failed(format!(
            "SUBSCRIBE is answered {}: {why}",
            reply.status
        )));
    }
    Ok(Events::new(reply))
}

/// What the ERROR says that a subscription gets instead of SUBSCRIBED.
pub(crate) fn subscribe_error(target: &Target, subscribe: &Value) -> Checked<String> {
    let mut events = subscribe_raw(target, subscribe)?;
    let deadline = Instant::now() + target.patience;
    match events.next(deadline)? {
        Next::Event(event) if event["type"] == "ERROR" => Ok(event["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()),
        Next::Event(event) => {
            if let Some(id) = event["subscribed"]["framework_id"]["value"].as_str() {
                // It should not have been one; at least it does not stay.
                let teardown =
                    json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": id}}});
                drop(target.operate(&teardown));
            }
            Err(Halt::failed(format!(
                "instead of ERROR came {}",
                event["type"]
            )))
        }
        Next::End => Err(Halt::failed("the stream ended without a word")),
        Next::Nothing => Err(Halt::failed("neither ERROR nor SUBSCRIBED came")),
    }
}

impl<'a> Framework<'a> {
    /// A new one with the fewest fields.
    pub(crate) fn new(target: &'a Target) -> Checked<Self> {
        Self::subscribe(target, &json!({"framework_info": info(target)}))
    }

    /// One with more fields.
    pub(crate) fn with(target: &'a Target, fields: Value) -> Checked<Self> {
        let info = info_with(target, fields);
        Self::subscribe(target, &json!({"framework_info": info}))
    }

    /// With what SUBSCRIBE holds.
    pub(crate) fn subscribe(target: &'a Target, subscribe: &Value) -> Checked<Self> {
        Self::from_stream(target, subscribe_raw(target, subscribe)?)
    }

    /// Of a stream on which SUBSCRIBED comes first.
    pub(crate) fn from_stream(target: &'a Target, mut events: Events) -> Checked<Self> {
        let stream_id = events.header("mesos-stream-id").map(str::to_owned);
        let deadline = Instant::now() + target.patience;
        let subscribed = match events.next(deadline)? {
            Next::Event(event) => event,
            Next::End => return Err(Halt::failed("the stream ended before SUBSCRIBED")),
            Next::Nothing => return Err(Halt::failed("SUBSCRIBED did not come")),
        };
        let id = subscribed["subscribed"]["framework_id"]["value"].as_str();
        let Some(id) = id.map(str::to_owned) else {
            return Err(Halt::failed(format!(
                "instead of SUBSCRIBED came {subscribed}"
            )));
        };
        let mut framework = Self {
            target,
            id,
            stream_id: stream_id.clone().unwrap_or_default(),
            events,
            kept: VecDeque::new(),
            subscribed,
            is_left_alone: false,
        };
        if stream_id.is_none() {
            framework.is_left_alone = true;
            let teardown = json!({"type": "TEARDOWN",
                "teardown": {"framework_id": {"value": framework.id}}});
            drop(target.operate(&teardown));
            return Err(Halt::failed(
                "the answer to SUBSCRIBE has no Mesos-Stream-Id",
            ));
        }
        Ok(framework)
    }

    /// Its stream is closed, and nothing else happens to it.
    pub(crate) fn leave(mut self) -> String {
        self.is_left_alone = true;
        self.id.clone()
    }

    pub(crate) fn call(&self, call: Value) -> Checked<Reply> {
        let headers = [("Mesos-Stream-Id", self.stream_id.as_str())];
        self.call_with(call, &headers)
    }

    /// With these headers instead of its stream id.
    pub(crate) fn call_with(&self, mut call: Value, headers: &[(&str, &str)]) -> Checked<Reply> {
        call["framework_id"] = json!({"value": self.id});
        self.target.post(SCHEDULER, headers, &call)
    }

    /// A call that has to be accepted.
    pub(crate) fn accepted(&self, call: Value) -> Checked {
        let kind = call["type"].clone();
        let mut reply = self.call(call.clone())?;
        offered(&reply, &call)?;
        if reply.status != 202 {
            let body = reply.body(self.target.patience).unwrap_or_default();
            let why = String::from_utf8_lossy(&body).into_owned();
            return Err(Halt::failed(format!(
                "{kind} is answered {}: {why}",
                reply.status
            )));
        }
        Ok(())
    }

    /// The first event that is wanted, of those that came and those that come.
    pub(crate) fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Checked<Value> {
        match self.look(self.target.patience, &wanted)? {
            Some(event) => Ok(event),
            None => Err(Halt::failed(format!("{what} did not come"))),
        }
    }

    fn look(
        &mut self,
        within: Duration,
        wanted: &impl Fn(&Value) -> bool,
    ) -> Checked<Option<Value>> {
        if let Some(at) = self.kept.iter().position(wanted) {
            return Ok(self.kept.remove(at));
        }
        let deadline = Instant::now() + within;
        loop {
            match self.events.next(deadline)? {
                Next::Event(event) if wanted(&event) => return Ok(Some(event)),
                Next::Event(event) => {
                    ensure!(
                        event["type"] != "ERROR",
                        "ERROR: {}",
                        event["error"]["message"]
                    );
                    self.kept.push_back(event);
                    ensure!(self.kept.len() < KEPT_MAX, "events without an end");
                }
                Next::End => return Err(Halt::failed("the stream ended")),
                Next::Nothing => return Ok(None),
            }
        }
    }

    /// That it does not come while nothing is to come.
    pub(crate) fn nothing(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Checked {
        match self.look(self.target.quiet, &wanted)? {
            None => Ok(()),
            Some(event) => Err(Halt::failed(format!("{what} came: {event}"))),
        }
    }

    /// Offers that have come, or come while nothing should.
    pub(crate) fn look_for_offers(&mut self) -> Checked<Option<Value>> {
        let within = self.target.quiet;
        self.look(within, &|event: &Value| event["type"] == "OFFERS")
    }

    /// Forgets what has come.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }

    /// The end of its stream.
    pub(crate) fn ends(&mut self) -> Checked {
        let deadline = Instant::now() + self.target.patience;
        loop {
            match self.events.next(deadline)? {
                Next::Event(event) => self.kept.push_back(event),
                Next::End => return Ok(()),
                Next::Nothing => return Err(Halt::failed("the stream did not end")),
            }
            ensure!(self.kept.len() < KEPT_MAX, "events without an end");
        }
    }

    /// An ERROR that came, or comes.
    pub(crate) fn error(&mut self) -> Checked<String> {
        let event = self.find("ERROR", |event| event["type"] == "ERROR")?;
        let message = event["error"]["message"].as_str();
        Ok(message.unwrap_or_default().to_owned())
    }

    /// An offer that a task of ours fits in. Those that are too small are declined for a while.
    pub(crate) fn offer(&mut self) -> Checked<Value> {
        let is_offers = |event: &Value| event["type"] == "OFFERS";
        loop {
            let Some(event) = self.look(self.target.patience, &is_offers)? else {
                let why = "no offer came: is there an agent with free cpus and mem?";
                return Err(Halt::not_tried(why));
            };
            let mut offers = event["offers"]["offers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let fits = |offer: &Value| amount(offer, "cpus") >= CPUS && amount(offer, "mem") >= MEM;
            let Some(at) = offers.iter().position(fits) else {
                let ids: Vec<Value> = offers.iter().map(|offer| offer["id"].clone()).collect();
                self.accepted(json!({"type": "DECLINE",
                    "decline": {"offer_ids": ids, "filters": {"refuse_seconds": 60.0}}}))?;
                continue;
            };
            let offer = offers.remove(at);
            if !offers.is_empty() {
                let rest = json!({"type": "OFFERS", "offers": {"offers": offers}});
                self.kept.push_front(rest);
            }
            return Ok(offer);
        }
    }

    /// A description of a task for this offer.
    pub(crate) fn task(&self, offer: &Value, command: &str) -> Value {
        let name = unique("conform");
        json!({"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"],
            "command": {"value": command}, "resources": [scalar("cpus", CPUS), scalar("mem", MEM)]})
    }

    /// Uses an offer for these operations.
    pub(crate) fn accept(&self, offer: &Value, operations: &Value) -> Checked {
        self.accepted(
            json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]],
            "operations": operations, "filters": {"refuse_seconds": 0.0}}}),
        )
    }

    /// Launches a task; its id.
    pub(crate) fn launch(&self, offer: &Value, command: &str) -> Checked<Value> {
        let task = self.task(offer, command);
        let id = task["task_id"].clone();
        let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
        self.accept(offer, &launch)?;
        Ok(id)
    }

    /// The next status of a task in this state. Those before it are acknowledged.
    pub(crate) fn update(&mut self, task_id: &Value, state: &str) -> Checked<Value> {
        loop {
            let event = self.find(&format!("UPDATE with {state}"), |event| {
                event["type"] == "UPDATE" && event["update"]["status"]["task_id"] == *task_id
            })?;
            let status = event["update"]["status"].clone();
            if status["state"] == state {
                return Ok(status);
            }
            let came = status["state"].as_str().unwrap_or_default();
            ensure!(
                [
                    "TASK_STAGING",
                    "TASK_STARTING",
                    "TASK_RUNNING",
                    "TASK_KILLING"
                ]
                .contains(&came),
                "instead of {state} came {came}: {}",
                status["message"]
            );
            self.acknowledge(&status)?;
        }
    }

    /// Acknowledges an update, if it has to be.
    pub(crate) fn acknowledge(&self, status: &Value) -> Checked {
        if status["uuid"].is_null() {
            return Ok(());
        }
        self.accepted(json!({"type": "ACKNOWLEDGE", "acknowledge": {
            "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}}))
    }

    /// Kills a task, and waits until it is.
    pub(crate) fn kill(&mut self, task_id: &Value) -> Checked<Value> {
        self.accepted(json!({"type": "KILL", "kill": {"task_id": task_id}}))?;
        let status = self.update(task_id, "TASK_KILLED")?;
        self.acknowledge(&status)?;
        Ok(status)
    }
}

impl Drop for Framework<'_> {
    fn drop(&mut self) {
        if !self.is_left_alone {
            // What fails here has failed in the case, or is the server's to mend.
            drop(self.call(json!({"type": "TEARDOWN"})));
        }
    }
}
