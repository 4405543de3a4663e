//! `meros dev`: a datacenter on one machine. Masters and slaves as child processes, with a
//! certificate authority made on the spot, data in one folder, and a clean end on Ctrl-C. Started
//! again with the same folder it goes on where it was.

mod identities;
mod log;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use meros_proto::slave::SlaveState;
use meros_proto::view::SlaveRow;
use serde::{Deserialize, Serialize};
use tokio::process::Child;

use crate::client::{Client, ClusterArgs, Masters};
use crate::dev::log::Log;
use crate::exit::{CliError, Exit, chain};
use crate::signal::Stop;

/// How long daemons have to come up. A cold start takes well under a second; a loaded machine
/// may swap.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long daemons have to end after SIGTERM: a slave gives its tasks their grace first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A daemon that dies more often than this has something that a restart does not mend.
const RESTARTS_MAX: u32 = 5;
/// Before a dead daemon is started again, so that its port and lock are free.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The most slaves: beyond it, the simulator shows more on one machine.
const SLAVES_MAX: u32 = 64;
/// The most masters that a cluster takes.
const MASTERS_MAX: u32 = 9;
/// All task ports, shared out among the slaves.
const TASK_PORTS: std::ops::RangeInclusive<u32> = 31_000..=32_000;

/// What `meros dev` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many slaves
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(SLAVES_MAX)))]
    slaves: u32,
    /// How many masters; an odd number, of which less than half may fail
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MASTERS_MAX)))]
    masters: u32,
    /// Where to keep everything [default: ~/.local/share/meros/dev]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first master's port; the slaves use those that follow, then the other masters. 0: any free
    /// ones
    #[arg(long, default_value_t = 5050)]
    port: u16,
    /// What each slave offers, such as cpus:2;mem:2048 [default: an equal share of the machine]
    #[arg(long)]
    resources: Option<String>,
    /// Remove the folder at the end; refused if there is something in it
    #[arg(long)]
    temporary: bool,
    #[command(flatten)]
    parent: crate::daemon::ParentArgs,
    /// The control group below which tasks run
    #[arg(long, default_value = "meros")]
    cgroup_root: String,
}

/// Where a running `meros dev` is reached; kept in its folder while it runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The process.
    pid: u32,
    /// The masters, QUIC and HTTP, separated by commas.
    pub(crate) master: String,
    /// An operator's identity.
    pub(crate) identity: PathBuf,
}

impl Endpoint {
    /// That of the default folder, if one runs there.
    pub(crate) fn of_default_dir() -> Option<Self> {
        let text = std::fs::read_to_string(default_dir()?.join("dev.json")).ok()?;
        let endpoint: Self = serde_json::from_str(&text).ok()?;
        Path::new("/proc")
            .join(endpoint.pid.to_string())
            .exists()
            .then_some(endpoint)
    }
}

fn default_dir() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    data.filter(|path| path.is_absolute())
        .or_else(home)
        .map(|data| data.join("meros/dev"))
}

/// One of the children.
struct Daemon {
    name: String,
    args: Vec<String>,
    data_dir: PathBuf,
    log: Log,
    restarts: u32,
    child: Child,
}

/// What a daemon writes into its data folder when it listens.
#[derive(Deserialize)]
struct Listening {
    pid: u32,
    quic: Option<SocketAddr>,
    http: SocketAddr,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    // One thread: PR_SET_PDEATHSIG in the children follows the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<Exit, CliError> {
    args.parent.apply()?;
    let mut stop = Stop::listen()?;
    let dir = args.dir.clone().or_else(default_dir).ok_or_else(|| {
        CliError::usage("there is no home folder: say where to keep the data with --dir")
    })?;
    if args.temporary && std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CliError::usage(format!(
            "{} is not empty: --temporary would remove what is in it",
            dir.display()
        )));
    }
    let dir = create_dir(&dir)?;
    let _lock = lock(&dir)?;
    identities::make(&dir, args.masters, args.slaves)?;

    let mut daemons = Vec::new();
    let started = start_all(args, &dir, &mut daemons, &mut stop).await;
    let ended = match started {
        Ok(Some(endpoint)) => {
            announce(&dir, &endpoint, args);
            supervise(&mut daemons, &mut stop).await
        }
        // Stopped while starting.
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    say("stopping");
    let stopped = stop_all(daemons).await;
    // A stale file does no harm: readers check the process.
    drop(std::fs::remove_file(dir.join("dev.json")));
    if args.temporary {
        std::fs::remove_dir_all(&dir).map_err(|error| {
            CliError::failure(format!("cannot remove {}: {error}", dir.display()))
        })?;
    }
    ended.and(stopped).map(|()| Exit::Success)
}

fn create_dir(dir: &Path) -> Result<PathBuf, CliError> {
    std::fs::create_dir_all(dir.join("logs"))
        .and_then(|()| dir.canonicalize())
        .map_err(|error| CliError::failure(format!("cannot use {}: {error}", dir.display())))
}

/// Keeps a second `meros dev` out of the folder for as long as the file is open.
fn lock(dir: &Path) -> Result<File, CliError> {
    let path = dir.join("dev.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(|error| CliError::failure(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        _ => Err(CliError::failure(format!(
            "another `meros dev` uses {}: stop it, or give this one another folder with --dir \
             and another port with --port",
            dir.display()
        ))),
    }
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// Starts everything and waits until the slaves are registered. `None`: told to stop meanwhile.
async fn start_all(
    args: &Args,
    dir: &Path,
    daemons: &mut Vec<Daemon>,
    stop: &mut Stop,
) -> Result<Option<Endpoint>, CliError> {
    let mut masters = Vec::new();
    for n in 1..=args.masters {
        let Some(address) = start_master(args, dir, n, &masters, daemons, stop).await? else {
            return Ok(None);
        };
        masters.push(address);
    }
    let masters = masters.join(",");
    for n in 1..=args.slaves {
        let name = format!("slave-{n}");
        let flags = vec![
            "slave".to_owned(),
            flag("masters", &masters),
            flag("http-listen", format_args!("127.0.0.1:{}", port(args, n))),
            flag("cgroup-root", &args.cgroup_root),
            flag("resources", resources_of_slave(args, dir, n)?),
            // All of it is to be gone when this has ended.
            flag("tasks-end-with-slave", true),
        ];
        daemons.push(start(dir, &name, flags)?);
    }
    for daemon in daemons.iter_mut().skip(args.masters as usize) {
        if await_listening(daemon, stop).await?.is_none() {
            return Ok(None);
        }
    }
    let endpoint = Endpoint {
        pid: std::process::id(),
        master: masters,
        identity: identities::folder(dir, "operator"),
    };
    if !await_registered(&endpoint, args.slaves, stop).await? {
        return Ok(None);
    }
    let text = serde_json::to_string_pretty(&endpoint)
        .map_err(|error| CliError::failure(format!("cannot write JSON: {error}")))?;
    std::fs::write(dir.join("dev.json"), text)
        .map_err(|error| CliError::failure(format!("cannot write dev.json: {error}")))?;
    Ok(Some(endpoint))
}

/// The port of the nth process, counted from the first master.
fn port(args: &Args, n: u32) -> u16 {
    match args.port {
        0 => 0,
        first => first.saturating_add(u16::try_from(n).unwrap_or(0)),
    }
}

/// Starts the nth master and waits until it is a member; tells its address. `None`: told to stop
/// meanwhile.
async fn start_master(
    args: &Args,
    dir: &Path,
    n: u32,
    others: &[String],
    daemons: &mut Vec<Daemon>,
    stop: &mut Stop,
) -> Result<Option<String>, CliError> {
    let name = format!("master-{n}");
    // Masters know each other by their addresses, so they take the ones that they had.
    let had = dir.join(&name).join("port");
    let port = match port(args, if n == 1 { 0 } else { args.slaves + n - 1 }) {
        0 if args.masters > 1 => std::fs::read_to_string(&had)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        port => port,
    };
    let mut flags = vec![
        "master".to_owned(),
        flag("listen", format_args!("127.0.0.1:{port}")),
        flag("http-listen", format_args!("127.0.0.1:{port}")),
    ];
    if n > 1 {
        flags.push(flag("join", others.join(",")));
    }
    daemons.push(start(dir, &name, flags)?);
    let daemon = daemons.last_mut().expect("pushed above");
    let Some(listening) = await_listening(daemon, stop).await? else {
        return Ok(None);
    };
    let quic = listening.quic.unwrap_or(listening.http);
    std::fs::write(&had, quic.port().to_string())
        .map_err(|error| CliError::failure(format!("{}: {error}", had.display())))?;
    // A restarted master must come back on the same port, also where it was free to choose.
    for listen in ["listen", "http-listen"] {
        let old = flag(listen, format_args!("127.0.0.1:{port}"));
        let new = flag(listen, quic);
        for one in daemon.args.iter_mut().filter(|one| **one == old) {
            one.clone_from(&new);
        }
    }
    Ok(Some(quic.to_string()))
}

/// An equal share of the machine: memory, disk and ports divided exactly; cpus at least one each,
/// since a slave with half a cpu is of no use and shares keep the peace.
fn resources_of_slave(args: &Args, dir: &Path, n: u32) -> Result<String, CliError> {
    let machine =
        meros_slave::detect::machine(dir).map_err(|error| CliError::failure(chain(&error)))?;
    let slaves = u64::from(args.slaves);
    let cpus = (machine.cpus / slaves).max(1);
    let ports = TASK_PORTS.end() - TASK_PORTS.start() + 1;
    let each = ports / args.slaves;
    let first = TASK_PORTS.start() + (n - 1) * each;
    let ports = format!("ports:[{first}-{}]", first + each - 1);
    let given = args.resources.clone().unwrap_or_else(|| {
        format!(
            "cpus:{cpus};mem:{};disk:{}",
            machine.mem_mib / slaves,
            machine.disk_mib / slaves
        )
    });
    Ok(if given.contains("ports:") {
        given
    } else {
        format!("{given};{ports}")
    })
}

fn start(dir: &Path, name: &str, mut args: Vec<String>) -> Result<Daemon, CliError> {
    let data_dir = dir.join(name);
    args.push(flag("data-dir", data_dir.display()));
    args.push(flag("identity", identities::folder(dir, name).display()));
    let mut log = Log::at(dir.join("logs").join(format!("{name}.log")));
    let child = spawn(&args, &mut log)?;
    Ok(Daemon {
        name: name.to_owned(),
        args,
        data_dir,
        log,
        restarts: 0,
        child,
    })
}

fn spawn(args: &[String], log: &mut Log) -> Result<Child, CliError> {
    let failed =
        |what: &str, error: std::io::Error| CliError::failure(format!("cannot {what}: {error}"));
    let out = log.begin()?;
    let err = out
        .try_clone()
        .map_err(|error| failed("open a log", error))?;
    // This very program, also when an upgrade has replaced its file meanwhile.
    tokio::process::Command::new("/proc/self/exe")
        .arg0("meros")
        .args(args)
        .arg("--end-with-parent")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // Ctrl-C goes to the terminal's group: without a group of their own the daemons would
        // end all at once instead of slaves first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("start a daemon", error))
}

/// Waits until the daemon has written where it listens. `None`: told to stop meanwhile.
async fn await_listening(
    daemon: &mut Daemon,
    stop: &mut Stop,
) -> Result<Option<Listening>, CliError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let path = daemon.data_dir.join("endpoint.json");
    loop {
        let read = std::fs::read(&path).ok();
        let listening = read.and_then(|text| serde_json::from_slice::<Listening>(&text).ok());
        // A file of an earlier run names another process.
        if let Some(listening) = listening.filter(|it| Some(it.pid) == daemon.child.id()) {
            return Ok(Some(listening));
        }
        if let Ok(Some(status)) = daemon.child.try_wait() {
            return Err(CliError::failure(format!(
                "{} ended at once ({status}):\n{}",
                daemon.name,
                daemon.log.last_lines()
            )));
        }
        if Instant::now() > deadline {
            return Err(CliError::failure(format!(
                "{} does not come up; its log is {}",
                daemon.name,
                daemon.log.path().display()
            )));
        }
        if pause(Duration::from_millis(10), stop).await {
            return Ok(None);
        }
    }
}

/// Waits until all slaves are registered. False: told to stop meanwhile.
async fn await_registered(
    endpoint: &Endpoint,
    slaves: u32,
    stop: &mut Stop,
) -> Result<bool, CliError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let cluster = ClusterArgs {
        master: Some(Masters::told(&endpoint.master)),
    };
    let client = Client::new(&cluster);
    loop {
        let rows: Vec<SlaveRow> = client.list("/api/v1/slaves").unwrap_or_default();
        let registered = rows
            .iter()
            .filter(|row| row.slave.state == SlaveState::Registered)
            .count();
        if registered >= slaves as usize {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Err(CliError::failure(format!(
                "only {registered} of {slaves} slaves have registered; their logs are beside the data"
            )));
        }
        if pause(Duration::from_millis(20), stop).await {
            return Ok(false);
        }
    }
}

/// Waits a little. True: told to stop.
async fn pause(duration: Duration, stop: &mut Stop) -> bool {
    tokio::select! {
        () = stop.next() => true,
        () = tokio::time::sleep(duration) => false,
    }
}

fn announce(dir: &Path, endpoint: &Endpoint, args: &Args) {
    let master = &endpoint.master;
    let count = |number: u32, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    say(format_args!(
        "a datacenter of {} and {} runs in {}",
        count(args.masters, "master"),
        count(args.slaves, "slave"),
        dir.display()
    ));
    for master in master.split(',') {
        say(format_args!("  master   {master}   (QUIC and HTTP)"));
    }
    let first = master.split(',').next().unwrap_or_default();
    say(format_args!("  metrics  http://{first}/metrics"));
    say(format_args!("  logs     {}", dir.join("logs").display()));
    say("");
    if Endpoint::of_default_dir().is_some_and(|running| running.pid == endpoint.pid) {
        say("try in another terminal:");
    } else {
        say("in another terminal:");
        let identity = endpoint.identity.display();
        say(format_args!(
            "  export MEROS_MASTER={master} MEROS_IDENTITY={identity}"
        ));
    }
    say("  meros slaves");
    say("  meros run -- echo hello");
    say("");
    say("Ctrl-C stops it; started again it goes on where it was.");
}

/// Prints a line. Whoever reads it may have gone: the datacenter goes on all the same.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Watches over the daemons until told to stop.
async fn supervise(daemons: &mut [Daemon], stop: &mut Stop) -> Result<(), CliError> {
    loop {
        if pause(Duration::from_millis(200), stop).await {
            return Ok(());
        }
        for daemon in daemons.iter_mut() {
            let Ok(Some(status)) = daemon.child.try_wait() else {
                continue;
            };
            daemon.restarts += 1;
            if daemon.restarts > RESTARTS_MAX {
                return Err(CliError::failure(format!(
                    "{} ended {} times, last with {status}:\n{}",
                    daemon.name,
                    daemon.restarts,
                    daemon.log.last_lines()
                )));
            }
            eprintln!("{} ended ({status}); starting it again", daemon.name);
            if pause(RESTART_DELAY, stop).await {
                return Ok(());
            }
            match spawn(&daemon.args, &mut daemon.log) {
                Ok(child) => daemon.child = child,
                // The dead child is still there: the next round counts this as a restart, too.
                Err(error) => eprintln!("{error}"),
            }
        }
    }
}

/// Ends slaves first, so that the masters hear of the last updates.
async fn stop_all(mut daemons: Vec<Daemon>) -> Result<(), CliError> {
    let mut stubborn = Vec::new();
    let masters = daemons
        .iter()
        .take_while(|daemon| daemon.name.starts_with("master-"))
        .count();
    let slaves = daemons.split_off(masters);
    for mut group in [slaves, daemons] {
        for daemon in &group {
            terminate(daemon);
        }
        for daemon in &mut group {
            if tokio::time::timeout(STOP_TIMEOUT, daemon.child.wait())
                .await
                .is_err()
            {
                // Nothing to add if it is gone meanwhile.
                drop(daemon.child.kill().await);
                stubborn.push(daemon.name.clone());
            }
        }
    }
    if stubborn.is_empty() {
        return Ok(());
    }
    Err(CliError::failure(format!(
        "{} did not end by themselves and were killed",
        stubborn.join(", ")
    )))
}

fn terminate(daemon: &Daemon) {
    use nix::sys::signal::{Signal, kill};
    let pid = daemon.child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        // It may have ended by itself; it is our child and not reaped, so the pid is still its.
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
}
