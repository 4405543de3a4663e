//! Executors of frameworks with real processes: one runs many tasks, outlives its slave's kill -9, and takes
//! its resources once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually};
use meros_sdk::{
    Command, Events, ExecutorDescription, ExecutorId, Filters, Handle, News, Offer, Operation,
    Placement, Reason, ResourceName, Scalar, Session, SessionConfig, SlaveId, Task, TaskExit,
    TaskState, TaskStatus,
};
use tokio::runtime::Runtime;

const SLOW: Duration = Duration::from_secs(60);
const TASKS: usize = 20;

/// An executor, and how it is told to wait for a file in its sandbox.
struct Kind {
    command: Command,
    wait_for: fn(&str) -> String,
}

impl Kind {
    /// One that is built with the SDK.
    fn native() -> Self {
        Self {
            command: Command::argv([env!("CARGO_BIN_EXE_waiter")]),
            wait_for: str::to_owned,
        }
    }

    /// One that speaks v1 over HTTP; none without Python.
    fn v1() -> Option<Self> {
        let tried = std::process::Command::new("python3")
            .arg("--version")
            .output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            eprintln!("skipped: there is no python3");
            return None;
        }
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let script = format!("{here}/../docs/examples/executor.py");
        Some(Self {
            command: Command::argv(["python3", "-u", script.as_str()]),
            wait_for: |file| {
                format!("echo >> launched; until [ -e {file} ]; do sleep 0.05; done; echo >> ended")
            },
        })
    }

    fn executor(&self) -> ExecutorDescription {
        ExecutorDescription::new(
            ExecutorId::new("pool").expect("a good id"),
            self.command.clone(),
            "cpus:0.5;mem:64".parse().expect("written well here"),
        )
    }
}

struct Framework {
    runtime: Runtime,
    events: Events,
    handle: Handle,
    /// All updates of each task, in order.
    told: BTreeMap<String, Vec<TaskStatus>>,
    executor_ended: Option<Option<TaskExit>>,
    messages: Vec<String>,
    /// Offers that it holds.
    offers: Vec<Offer>,
}

impl Framework {
    fn start(cluster: &LocalCluster) -> Self {
        let runtime = Runtime::new().expect("threads");
        let masters = meros_sdk::parse_masters(cluster.address()).expect("an address");
        let config = SessionConfig::new("executors", masters, cluster.identity("framework"));
        let _inside = runtime.enter();
        let (events, handle) = Session::connect(config).expect("a good identity");
        Self {
            runtime,
            events,
            handle,
            told: BTreeMap::new(),
            executor_ended: None,
            messages: Vec::new(),
            offers: Vec::new(),
        }
    }

    /// Takes news until this holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = std::time::Instant::now() + SLOW;
        while !holds(self) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let events = &mut self.events;
            let next = self
                .runtime
                .block_on(async { tokio::time::timeout(left, events.next()).await });
            let news = next.unwrap_or_else(|_| panic!("never: {what}; told {:?}", self.told));
            match news.expect("the session goes on") {
                News::Offers(offers) => self.offers.extend(offers),
                News::Rescinded(id) => self.offers.retain(|it| it.offer_id != id),
                News::Disconnected { .. } => self.offers.clear(),
                News::Update(status) => {
                    let told = self.told.entry(status.task_id.to_string()).or_default();
                    told.push(status);
                }
                News::ExecutorEnded { exit, .. } => self.executor_ended = Some(exit),
                News::ExecutorMessage { data, .. } => {
                    self.messages
                        .push(String::from_utf8_lossy(&data).into_owned());
                }
                News::Refused { call, refusal } => panic!("{call}: {refusal}"),
                _ => {}
            }
        }
    }

    /// Launches tasks that wait for a file of this name each. Where.
    fn launch(
        &mut self,
        kind: &Kind,
        offer: &Offer,
        tasks: &[(String, &str)],
        is_there: bool,
    ) -> SlaveId {
        let mut placement = Placement::on(offer);
        if is_there {
            placement.has_executor(kind.executor().executor_id);
        }
        for (id, file) in tasks {
            let task = Task::new(id).cpus(0.1).mem(16.0);
            let task = task.data((kind.wait_for)(file));
            let task = task.in_executor(kind.executor());
            placement.place(&task).expect("there is room");
        }
        self.accept(offer, placement)
    }

    fn accept(&mut self, offer: &Offer, placement: Placement<'_>) -> SlaveId {
        let operations = vec![Operation::Launch(placement.into_tasks())];
        let filters = Filters {
            refuse: Duration::ZERO,
        };
        let accepted = self
            .handle
            .accept(vec![offer.offer_id], operations, filters);
        accepted.expect("it is connected");
        offer.slave_id
    }

    fn count(&self, state: TaskState) -> usize {
        let all = self.told.values().flatten();
        all.filter(|status| status.state == state).count()
    }

    /// Gives offers back until one has exactly this.
    fn until_offered(&mut self, cpus: f64, mem: f64) -> Offer {
        let is_it = |offer: &Offer, name, units| {
            Ok(offer.resources.scalar(&name)) == Scalar::from_f64(units)
        };
        self.until("what is free is offered", |it| {
            if let [offer] = &it.offers[..]
                && is_it(offer, ResourceName::CPUS, cpus)
                && is_it(offer, ResourceName::MEM, mem)
            {
                return true;
            }
            let offer_ids: Vec<_> = it.offers.drain(..).map(|offer| offer.offer_id).collect();
            if !offer_ids.is_empty() {
                let filters = Filters {
                    refuse: Duration::ZERO,
                };
                let declined = it.handle.decline(offer_ids, filters);
                declined.expect("it is connected");
            }
            false
        });
        self.offers.remove(0)
    }
}

/// The sandbox of the one executor there is.
fn sandbox(cluster: &LocalCluster) -> PathBuf {
    let all = cluster.slaves[0].data_dir().join("sandboxes");
    let only = |path: PathBuf| {
        let mut entries = std::fs::read_dir(&path).expect("it is there");
        let entry = entries.find_map(|it| it.ok().filter(|it| it.path().is_dir()));
        entry.expect("there is one").path()
    };
    only(only(only(all)))
}

fn lines(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn one_executor_runs_twenty_tasks_over_a_kill_of_its_slave() {
    runs_twenty_tasks_over_a_kill("executors", &Kind::native());
}

#[test]
fn one_that_speaks_v1_does_the_same() {
    // semantics: M1 to M3, L2
    if let Some(kind) = Kind::v1() {
        runs_twenty_tasks_over_a_kill("executors-v1", &kind);
    }
}

fn runs_twenty_tasks_over_a_kill(name: &'static str, kind: &Kind) {
    let mut options = ClusterOptions::new(name, 1);
    options.resources = "cpus:4;mem:2048";
    options.slave_args = vec!["--tasks-end-with-slave=false".to_owned()];
    let mut cluster = LocalCluster::start(options);
    let mut framework = Framework::start(&cluster);
    // Half of them end while there is no slave, half when it is back.
    let file = |nth: usize| match nth % 2 {
        0 => "away",
        _ => "back",
    };
    let tasks: Vec<(String, &str)> = (0..TASKS)
        .map(|nth| (format!("t{nth}"), file(nth)))
        .collect();
    let offer = framework.until_offered(4.0, 2048.0);
    let slave_id = framework.launch(kind, &offer, &tasks, false);
    framework.until("all run", |it| it.count(TaskState::Running) == TASKS);
    // The executor is charged once: 4 - 20 * 0.1 - 0.5.
    let offer = framework.until_offered(1.5, 1664.0);
    let keep = framework
        .handle
        .decline(vec![offer.offer_id], Filters::default());
    keep.expect("it is connected");

    let sandbox = sandbox(&cluster);
    let happens = |what: &str| std::fs::write(sandbox.join(what), "").expect("it is there");
    let slave = &mut cluster.slaves[0];
    // An executor that speaks v1 finds it again where it was.
    let at = slave.listening().expect("it runs").http.to_string();
    slave.set_arg("http-listen", &at);
    slave.kill();
    happens("away");
    eventually("tasks end while there is no slave", SLOW, || {
        lines(&sandbox.join("ended")) == TASKS / 2
    });
    cluster.slaves[0].start();
    framework.until("what has ended meanwhile is told", |it| {
        it.count(TaskState::Finished) == TASKS / 2
    });
    happens("back");
    framework.until("all have finished", |it| {
        it.count(TaskState::Finished) == TASKS
    });
    assert_eq!(
        lines(&sandbox.join("launched")),
        TASKS,
        "each was given once"
    );
    let mut pids: Vec<String> = Vec::new();
    for (id, told) in &framework.told {
        let states: Vec<TaskState> = told.iter().map(|status| status.state).collect();
        assert_eq!(
            states,
            [TaskState::Running, TaskState::Finished],
            "{id}: {told:?}"
        );
        let executor_id = told[1].executor_id.as_ref().map(ExecutorId::as_str);
        assert_eq!(executor_id, Some("pool"));
        pids.push(String::from_utf8_lossy(&told[1].data).into_owned());
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "one process ran them all: {pids:?}");

    // It is still there, and takes more.
    let more = [("long".to_owned(), "never"), ("other".to_owned(), "never")];
    let offer = framework.until_offered(3.5, 1984.0);
    framework.launch(kind, &offer, &more, true);
    framework.until("more run", |it| it.count(TaskState::Running) == TASKS + 2);
    let executor_id = kind.executor().executor_id;
    let said = framework
        .handle
        .message_executor(slave_id, executor_id.clone(), "hello".into());
    said.expect("it is connected");
    framework.until("it answers", |it| it.messages == ["hello"]);
    let kill = framework
        .handle
        .kill(more[1].0.parse().expect("an id"), None);
    kill.expect("it is connected");
    framework.until("a kill reaches it", |it| it.count(TaskState::Killed) == 1);

    // Asked to end, it kills what it runs, and says so.
    let asked = framework.handle.shutdown_executor(slave_id, executor_id);
    asked.expect("it is connected");
    framework.until("it has ended", |it| {
        it.executor_ended.is_some() && it.count(TaskState::Killed) == 2
    });
    assert_eq!(framework.executor_ended, Some(Some(TaskExit::Code(0))));
    framework.until_offered(4.0, 2048.0);
    framework.handle.teardown().expect("it is connected");
}

#[test]
fn an_executor_that_does_not_subscribe_is_ended_and_its_task_says_why() {
    let mut options = ClusterOptions::new("executors-mute", 1);
    options.resources = "cpus:4;mem:2048";
    options.slave_args = vec!["--executor-registration-timeout=1s".to_owned()];
    let cluster = LocalCluster::start(options);
    let mut framework = Framework::start(&cluster);
    let offer = framework.until_offered(4.0, 2048.0);
    let mute = ExecutorDescription {
        command: Some(Command::shell("sleep 600")),
        ..Kind::native().executor()
    };
    let mut placement = Placement::on(&offer);
    let task = Task::new("t").cpus(0.1).mem(16.0).in_executor(mute);
    placement.place(&task).expect("there is room");
    framework.accept(&offer, placement);
    framework.until("it fails", |it| it.count(TaskState::Failed) == 1);
    // semantics: M4
    let failed = &framework.told["t"][0];
    assert_eq!(failed.reason, Some(Reason::ExecutorRegistrationTimeout));
    framework.handle.teardown().expect("it is connected");
}
