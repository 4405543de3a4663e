//! Framework state with real masters: linearizable while leaders are killed with -9 and stand still and
//! while the network is cut, leases that one holds at a time, and what operators see of it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use meros_e2e::linearizable::{
    LeaseAnswer, LeaseCall, Model, Operation, Permits, Register, RegisterAnswer, RegisterCall,
    Verdict, check,
};
use meros_e2e::{ClusterOptions, LocalCluster, Network, eventually, meros};
use meros_sdk::state::{
    KeyChange, Revision, State, StateConfig, StateError, StateRefusal, TTL_DEFAULT,
};
use nix::sys::signal::Signal;
use tokio::runtime::{Builder, Runtime};

#[allow(dead_code, reason = "each test program uses some")]
#[path = "common/hosts.rs"]
mod hosts;

use hosts::Hosts;

const PATIENCE: Duration = Duration::from_secs(240);
/// Keys whose histories are recorded.
const KEYS: usize = 3;
/// Permits of the semaphore.
const PERMITS: u32 = 2;

fn cluster(name: &'static str, masters: usize) -> LocalCluster {
    let mut options = ClusterOptions::new(name, 0);
    options.masters = masters;
    LocalCluster::start(options)
}

fn config(cluster: &LocalCluster, holder: &str) -> StateConfig {
    let masters = cluster.address().split(',').map(str::to_owned).collect();
    config_of(masters, cluster.identity("framework"), holder)
}

fn config_of(masters: Vec<String>, identity: PathBuf, holder: &str) -> StateConfig {
    StateConfig {
        masters,
        identity,
        space: "main".to_owned(),
        holder: holder.to_owned(),
        ttl: Duration::from_secs(4),
        call_timeout: Duration::from_secs(30),
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn await_leader(cluster: &LocalCluster) -> usize {
    let mut leader = None;
    eventually("a master leads", PATIENCE, || {
        leader = cluster.leader();
        leader.is_some()
    });
    leader.expect("just found")
}

/// The same numbers from the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What clients have seen, in nanoseconds of one clock.
struct History<C, A> {
    started: Instant,
    rows: Mutex<Vec<Operation<C, A>>>,
}

impl<C, A> History<C, A> {
    fn new(started: Instant) -> Self {
        Self {
            started,
            rows: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("not that long")
    }

    fn add(&self, client: usize, call: C, begin: u64, answer: Option<A>) {
        let end = answer.map(|answer| (self.now(), answer));
        let row = Operation {
            client,
            call,
            begin,
            end,
        };
        self.rows.lock().expect("no panic").push(row);
    }
}

/// What all clients share.
struct Load {
    keys: Vec<History<RegisterCall, RegisterAnswer>>,
    lock: History<LeaseCall, LeaseAnswer>,
    semaphore: History<LeaseCall, LeaseAnswer>,
    done: AtomicUsize,
    is_over: AtomicBool,
    config: StateConfig,
    /// The names of its keys and leases end with this: each load begins with nothing.
    episode: usize,
}

impl Load {
    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.episode)
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn config(&self, holder: String) -> StateConfig {
        StateConfig {
            holder,
            ..self.config.clone()
        }
    }
}

/// Reads, writes and swaps a few keys.
fn use_keys(load: &Load, client: usize) {
    let runtime = runtime();
    runtime.block_on(async {
        let state = State::open(&load.config(format!("keys-{client}"))).expect("it can be used");
        let mut dice = Dice(client as u64 + 1);
        let mut seen = [None; KEYS];
        let mut count = 0;
        while load.goes_on() {
            let at = usize::try_from(dice.roll(KEYS as u64)).expect("small");
            let history = &load.keys[at];
            let key = load.name(&format!("key-{at}"));
            count += 1;
            let value = client as u64 * 1_000_000 + count;
            let begin = history.now();
            let (call, answer) = match dice.roll(10) {
                0..4 => match state.get(&key).await {
                    Ok(entry) => {
                        let text = entry.as_ref().map(|entry| entry.value.as_text());
                        let value = text.map(|text| text.and_then(|it| it.parse().ok()));
                        seen[at] = value.map(|value| value.expect("only numbers are written"));
                        (RegisterCall::Read, Some(RegisterAnswer::Value(seen[at])))
                    }
                    // A read that failed says nothing.
                    Err(_) => continue,
                },
                4..6 => {
                    let written = state.set(&key, value.to_string()).await;
                    (RegisterCall::Write(Some(value)), written_or_not(written))
                }
                6 => {
                    let written = state.delete(&key).await;
                    (RegisterCall::Write(None), written_or_not(written))
                }
                _ => {
                    let transaction = match seen[at] {
                        Some(seen) => state.transaction().equals(&key, seen.to_string()),
                        None => state.transaction().absent(&key),
                    };
                    let swapped = transaction.set(&key, value.to_string()).commit().await;
                    let call = RegisterCall::Swap {
                        from: seen[at],
                        to: value,
                    };
                    (call, written_or_not(swapped))
                }
            };
            history.add(client, call, begin, answer);
            load.done.fetch_add(1, Ordering::Relaxed);
            // What is looked for is in the order of calls, not in their number.
            tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
        }
        state.close().await;
    });
}

/// None if nobody knows whether it was carried out.
fn written_or_not(result: Result<Revision, StateError>) -> Option<RegisterAnswer> {
    match result {
        Ok(_) => Some(RegisterAnswer::Written),
        Err(error) if error.is_conflict() => Some(RegisterAnswer::Different),
        Err(_) => None,
    }
}

/// Holds a lease, acts under its token and gives it up, again and again. Now and then it dies, as a
/// process would that is killed, and acts under its old token in its next life.
fn use_lease(load: &Load, client: usize, name: &str, permits: u32) {
    let name = &*load.name(name);
    let history = match permits {
        1 => &load.lock,
        _ => &load.semaphore,
    };
    let mut dice = Dice(client as u64 + 1);
    let mut left = None;
    let mut life = 0;
    while load.goes_on() {
        life += 1;
        let runtime = runtime();
        let holder = format!("{name}-{client}-{life}");
        let death = runtime.block_on(async {
            let state = State::open(&load.config(holder)).expect("it can be used");
            let act = async |token| {
                let begin = history.now();
                let fenced = state
                    .transaction()
                    .held_by(name.parse().expect("a name"), token);
                let answer = match fenced.set(name, token.to_string()).commit().await {
                    Ok(_) => Some(LeaseAnswer::Done),
                    Err(StateError::Refused(StateRefusal::StaleToken { .. })) => {
                        Some(LeaseAnswer::Stale)
                    }
                    Err(_) => None,
                };
                history.add(client, LeaseCall::Act(token.0), begin, answer);
            };
            if let Some(token) = left.take() {
                act(token).await;
            }
            let semaphore = state.semaphore(name, permits).expect("a name");
            while load.goes_on() {
                let begin = history.now();
                // One that gets none, because its session has ended, says nothing.
                let waits = tokio::time::timeout(Duration::from_secs(20), semaphore.acquire());
                let Ok(Ok(lease)) = waits.await else {
                    continue;
                };
                let token = lease.token();
                let held = Some(LeaseAnswer::Held(token.0));
                history.add(client, LeaseCall::Acquire, begin, held);
                let acquired_at = history.now();
                load.done.fetch_add(1, Ordering::Relaxed);
                act(token).await;
                // Up to here it was held, or it may have been lost any time since it was acquired.
                let begin = history.now();
                let (is_held, dies) = (lease.is_held(), dice.roll(6) == 0);
                if dies || !is_held {
                    let since = if is_held { begin } else { acquired_at };
                    history.add(client, LeaseCall::Expire(token.0), since, None);
                }
                if dies {
                    return Some((state, lease));
                }
                let released = lease.release().await.is_ok() && is_held;
                let answer = released.then_some(LeaseAnswer::Done);
                history.add(client, LeaseCall::Release(token.0), begin, answer);
                if dice.roll(3) == 0 {
                    act(token).await;
                }
            }
            state.close().await;
            None
        });
        // Without a runtime nothing can be sent any more: the masters hear of no end.
        runtime.shutdown_background();
        left = death.map(|(_, lease)| lease.token());
    }
}

fn assert_linearizable<M: Model>(what: &str, model: &M, rows: &[Operation<M::Call, M::Answer>])
where
    Operation<M::Call, M::Answer>: std::fmt::Debug,
{
    let unknown = rows.iter().filter(|row| row.end.is_none()).count();
    eprintln!("{what}: {} calls, {unknown} without an answer", rows.len());
    let verdict = check(model, rows);
    if verdict != Verdict::Linearizable {
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|row| row.begin);
        for row in rows {
            eprintln!("{row:?}");
        }
        panic!("{what}: {verdict:?}");
    }
}

/// Clients at work, and the histories of what they have seen.
struct Clients {
    load: Arc<Load>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Four that use keys, three that use a lock, three a semaphore. With a network, they are on these
    /// hosts in turn.
    fn start(config: StateConfig, episode: usize, on: Option<(&Network, &[usize])>) -> Self {
        let started = Instant::now();
        let load = Arc::new(Load {
            keys: (0..KEYS).map(|_| History::new(started)).collect(),
            lock: History::new(started),
            semaphore: History::new(started),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            config,
            episode,
        });
        let mut threads = Vec::new();
        std::thread::scope(|scope| {
            let mut add = |client: usize, use_it: fn(&Load, usize)| {
                let load = Arc::clone(&load);
                // A thread starts on the host of the one that starts it.
                let start = move || {
                    if let Some((network, hosts)) = on {
                        network.enter(hosts[client % hosts.len()]);
                    }
                    std::thread::spawn(move || use_it(&load, client))
                };
                threads.push(scope.spawn(start).join().expect("no panic"));
            };
            for client in 0..4 {
                add(client, use_keys);
            }
            for client in 0..3 {
                add(client, |load, client| use_lease(load, client, "lock", 1));
                add(client, |load, client| {
                    use_lease(load, client, "slots", PERMITS)
                });
            }
        });
        Self { load, threads }
    }

    fn make_progress(&self, count: usize) {
        let goal = self.load.done.load(Ordering::Relaxed) + count;
        eventually("clients go on", PATIENCE, || {
            self.load.done.load(Ordering::Relaxed) >= goal
        });
    }

    /// Ends them. What they have seen has to be what one master without faults might have answered.
    fn finish(self) {
        self.load.is_over.store(true, Ordering::Relaxed);
        for client in self.threads {
            client.join().expect("no client panics");
        }
        for (at, key) in self.load.keys.iter().enumerate() {
            let rows = key.rows.lock().expect("no panic");
            assert_linearizable(&format!("key {at}"), &Register, &rows);
        }
        let rows = self.load.lock.rows.lock().expect("no panic");
        assert_linearizable("lock", &Permits(1), &rows);
        let rows = self.load.semaphore.rows.lock().expect("no panic");
        assert_linearizable("semaphore", &Permits(PERMITS as usize), &rows);
    }
}

#[test]
fn what_is_kept_is_linearizable_while_leaders_are_killed() {
    let rounds = std::env::var("MEROS_FAILOVERS").map_or(2, |rounds| {
        rounds.parse().expect("MEROS_FAILOVERS is a number")
    });
    let mut cluster = cluster("state", 3);
    await_leader(&cluster);
    let started = Instant::now();
    let clients = Clients::start(config(&cluster, ""), 0, None);
    for _ in 0..rounds {
        clients.make_progress(100);
        let leader = await_leader(&cluster);
        cluster.master_at(leader).kill();
        clients.make_progress(100);
        cluster.master_at(leader).start();
    }
    clients.make_progress(100);
    eprintln!("{rounds} leaders killed in {:.1?}", started.elapsed());
    clients.finish();
}

/// What goes wrong for a while. Each about the master that leads then.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// It is alone with one of the hosts of clients.
    LeaderCutOff,
    /// One that follows is alone.
    FollowerCutOff,
    /// What it sends does not reach one that follows.
    OneWay,
    /// Nobody hears it, and it hears all.
    Unheard,
    /// kill -9.
    Killed,
    /// It stands still, and then goes on as if nothing had been.
    Stopped,
}

/// All of them, begun with another one each time.
const FAULTS: [Fault; 6] = [
    Fault::LeaderCutOff,
    Fault::Stopped,
    Fault::FollowerCutOff,
    Fault::Killed,
    Fault::OneWay,
    Fault::Unheard,
];

impl Fault {
    fn strike(self, hosts: &mut Hosts, duration: Duration) {
        let leader = hosts.await_leader(&[0, 1, 2]);
        let next = (leader + 1) % 3;
        match self {
            Self::LeaderCutOff => hosts.network.isolate(&[leader, 3]),
            Self::FollowerCutOff => hosts.network.isolate(&[next]),
            Self::OneWay => hosts.network.cut(leader, next),
            Self::Unheard => (0..5)
                .filter(|host| *host != leader)
                .for_each(|host| hosts.network.cut(leader, host)),
            Self::Killed => hosts.masters[leader].kill(),
            Self::Stopped => hosts.masters[leader].signal(Signal::SIGSTOP),
        }
        std::thread::sleep(duration);
        hosts.network.heal();
        match self {
            Self::Killed => drop(hosts.masters[leader].start()),
            Self::Stopped => hosts.masters[leader].signal(Signal::SIGCONT),
            _ => {}
        }
    }
}

/// `MEROS_FAULT_SECONDS` is how much time of faults there has to be, in episodes of six faults of up to
/// twenty seconds; without it, there is one episode of short ones.
#[test]
fn what_is_kept_is_linearizable_while_the_network_is_cut_and_leaders_stand_still() {
    let Some(network) = Network::new(5) else {
        return;
    };
    let wanted = std::env::var("MEROS_FAULT_SECONDS").map_or(Duration::ZERO, |seconds| {
        Duration::from_secs(seconds.parse().expect("MEROS_FAULT_SECONDS is a number"))
    });
    let longest_ms = if wanted.is_zero() { 4_000 } else { 20_000 };
    let mut hosts = Hosts::start(network, 0..0);
    let (mut faulty, mut strikes, mut dice) = (Duration::ZERO, 0, Dice(1));
    for episode in 0.. {
        let config = config_of(hosts.addresses.clone(), hosts.identity("framework"), "");
        let clients = Clients::start(config, episode, Some((&hosts.network, &[3, 4])));
        clients.make_progress(50);
        for at in 0..FAULTS.len() {
            let fault = FAULTS[(episode + at) % FAULTS.len()];
            let duration = Duration::from_millis(1_000 + dice.roll(longest_ms - 1_000));
            fault.strike(&mut hosts, duration);
            faulty += duration;
            strikes += 1;
            clients.make_progress(50);
        }
        clients.finish();
        eprintln!("episode {episode}: {strikes} faults, {faulty:.1?} of them");
        if faulty >= wanted {
            break;
        }
    }
}

#[test]
fn a_standby_takes_over_when_the_leading_scheduler_dies_and_fences_it_off() {
    let mut cluster = cluster("election", 1);
    let dying = runtime();
    let (first, lease) = dying.block_on(async {
        // Long enough to be held until it is looked at, on a machine that stands still for a while.
        let mut config = config(&cluster, "first");
        config.ttl = TTL_DEFAULT;
        let state = State::open(&config).expect("it can be used");
        let lease = state.election("leader").expect("a name").campaign().await;
        let lease = lease.expect("nobody else does");
        state.set("framework-id", "F7").await.expect("it is small");
        assert!(lease.is_held());
        (state, lease)
    });
    let living = runtime();
    let second = {
        let _guard = living.enter();
        State::open(&config(&cluster, "second")).expect("it can be used")
    };
    living.block_on(async {
        let election = second.election("leader").expect("a name");
        let leader = election.leader().await.expect("a master answers");
        assert_eq!(leader.expect("one leads").holder, "first");
        let taken = second
            .try_acquire("leader")
            .await
            .expect("a master answers");
        assert!(taken.is_none(), "it is held");
    });
    // Keys and leases survive the only master, too.
    cluster.master.kill();
    cluster.master.start();
    dying.shutdown_background();
    living.block_on(async {
        let election = second.election("leader").expect("a name");
        let won = tokio::time::timeout(PATIENCE, election.campaign()).await;
        let won = won.expect("the time to live is over").expect("it waits");
        assert!(won.token() > lease.token());
        assert!(!lease.is_held(), "it knew before");
        let stale = second.transaction().held(&lease).set("framework-id", "F8");
        match stale.commit().await {
            Err(StateError::Refused(refusal @ StateRefusal::StaleToken { .. })) => {
                assert_eq!(refusal.code(), "stale_token");
            }
            other => panic!("{other:?}"),
        }
        let fenced = second.transaction().held(&won).set("led-by", "second");
        fenced.commit().await.expect("it leads");
        let id = second.get("framework-id").await.expect("a master answers");
        assert_eq!(id.expect("it was kept").value, "F7".into());
        won.release().await.expect("a master answers");
        let leader = election.leader().await.expect("a master answers");
        assert_eq!(leader, None);
    });
    drop((first, lease));
}

/// What there is, and then what changes, a line each.
fn watch_by_cli(cluster: &LocalCluster) {
    let mut child = meros()
        .env("MEROS_MASTER", cluster.address())
        .args(["state", "watch", "framework/main", "new"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let stdout = child.stdout.take().expect("it is piped");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let lines = Arc::clone(&lines);
        move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        }
    });
    let is_shown = |end: &str| {
        let lines = lines.lock().expect("no panic");
        lines.iter().any(|line| line.ends_with(end))
    };
    eventually("what there is is shown", PATIENCE, || {
        is_shown(" set new 1")
    });
    let ran = cluster.meros(&["state", "set", "framework/main", "newer", "7"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    eventually("the change is shown", PATIENCE, || is_shown(" set newer 7"));
    let ran = cluster.meros(&["state", "delete", "framework/main", "newer"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    eventually("the end is shown", PATIENCE, || is_shown(" deleted newer"));
    child.kill().expect("it runs until it is told to stop");
    child.wait().expect("it has ended");
    reader.join().expect("no panic");
}

#[test]
fn a_watcher_sees_every_key_at_last_and_bounds_are_refused_with_codes() {
    let cluster = cluster("watch", 1);
    runtime().block_on(async {
        let state = State::open(&config(&cluster, "w")).expect("it can be used");
        let mut watch = state.watch("jobs/", Revision(0));
        state.set("other", "1").await.expect("it is small");
        for at in 0..20 {
            let key = format!("jobs/{at}");
            state.set(&key, vec![0xff, at]).await.expect("it is small");
        }
        state.delete("jobs/3").await.expect("a master answers");
        let mut seen = std::collections::BTreeMap::new();
        while seen.len() < 20 || seen.get("jobs/3") != Some(&None) {
            let changes = tokio::time::timeout(PATIENCE, watch.next()).await;
            for change in changes.expect("in time").expect("nothing is forgotten") {
                match change {
                    KeyChange::Set(entry) => seen.insert(entry.key.to_string(), Some(entry.value)),
                    KeyChange::Deleted { key, .. } => seen.insert(key.to_string(), None),
                };
            }
        }
        assert!(seen.keys().all(|key| key.starts_with("jobs/")));

        let large = state.set("large", vec![0; (64 << 10) + 1]).await;
        match large {
            Err(StateError::Refused(refusal)) => assert_eq!(refusal.code(), "over_limit"),
            other => panic!("{other:?}"),
        }
        let long = state.set(&"k".repeat(513), "").await;
        assert!(matches!(long, Err(StateError::Name(_))), "{long:?}");
        let seen = state.get("other").await.expect("a master answers");
        let swapped = state.compare_and_set("other", seen.as_ref(), "2").await;
        swapped.expect("nobody else has changed it");
        let again = state.compare_and_set("other", seen.as_ref(), "3").await;
        assert!(again.expect_err("it has changed").is_conflict());
        state.close().await;
    });

    let ran = cluster.meros(&["state", "spaces"]);
    assert!(ran.stdout.contains("framework/main"), "{}", ran.stdout);
    let get = |key: &str| cluster.meros(&["state", "get", "framework/main", key]);
    assert_eq!(get("other").stdout, "2");
    assert_eq!(get("none").code, 1);
    let set = |args: &[&str]| {
        let all = [&["state", "set", "framework/main"], args].concat();
        cluster.meros(&all)
    };
    assert_eq!(set(&["new", "1", "--if-absent"]).code, 0);
    let again = set(&["new", "2", "--if-absent"]);
    assert!(
        again.code == 1 && again.stderr.contains("state_conflict"),
        "{}",
        again.stderr
    );
    assert_eq!(get("new").stdout, "1");
    watch_by_cli(&cluster);
    let ran = cluster.meros(&["state", "delete", "framework/main", "new", "other"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = cluster.meros(&["state", "list", "framework/main", "jobs/1"]);
    assert!(
        ran.stdout.contains("jobs/19") && ran.stdout.contains("(2 bytes)"),
        "{}",
        ran.stdout
    );
    let ran = cluster.meros(&["state", "leases", "framework/main"]);
    assert!(ran.stdout.contains("no leases"), "{}", ran.stdout);
    let ran = cluster.meros(&["state", "clear", "framework/main"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = cluster.meros(&["state", "spaces"]);
    assert!(
        ran.stdout.contains("no framework keeps state"),
        "{}",
        ran.stdout
    );
    let metrics = cluster.metrics();
    assert!(metrics.contains("meros_master_state_keys 0"), "{metrics}");
}
