//! `cargo xtask demo`: a datacenter of three masters and four slaves on this machine counts the words of
//! every crate that cargo has downloaded. In the middle of it the master that leads is killed; the result
//! must be right all the same, and nothing is left afterwards.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::step::{self, Step};

/// How many masters the demo starts.
const MASTERS: &str = "3";
/// The leading master is killed once so many tasks have ended.
const ENDED_BEFORE_KILL: u64 = 100;
/// How long a master may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many slaves the demo starts.
const SLAVES: &str = "4";
/// How long the datacenter has to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Builds, runs and checks the demo; with `stay` the datacenter goes on until Ctrl-C.
pub(crate) fn run(stay: bool) -> bool {
    let build = Step::new(
        "build",
        "cargo build --release --bin meros --example wordcount -p meros -p meros-sdk",
    );
    if !step::run(&[build.gating()], &step::root()).passed() {
        return false;
    }
    match demo(stay) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("demo: {error}");
            false
        }
    }
}

fn demo(stay: bool) -> Result<(), String> {
    let programs = target_dir().join("release");
    println!("\n==> a datacenter of {MASTERS} masters and {SLAVES} slaves on this machine");
    let mut datacenter = Datacenter::start(&programs.join("meros"))?;
    println!(
        "    masters at {}, data in {}",
        datacenter.masters,
        datacenter.dir.display()
    );

    println!("\n==> wordcount: one map task per crate of the local cargo registry, then reduce");
    let mut wordcount = Command::new(programs.join("examples/wordcount"));
    let counted = datacenter
        .environment(&mut wordcount)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run wordcount: {error}"))
        .and_then(|mut wordcount| datacenter.watch(&mut wordcount));
    if let Some(leader) = datacenter.leader() {
        println!("\n    metrics: http://{leader}/metrics");
    }
    if stay && counted.is_ok() {
        println!("\n==> the datacenter stays up until Ctrl-C; in another terminal:");
        let (masters, identity) = (&datacenter.masters, datacenter.identity.display());
        println!("    export MEROS_MASTER={masters} MEROS_IDENTITY={identity}");
        println!("    {} slaves", programs.join("meros").display());
        // Ctrl-C reaches it through the terminal; it then ends by itself.
        drop(datacenter.child.wait());
    }
    println!("\n==> stopping");
    let left = datacenter.stop();
    counted?;
    left?;
    println!("    no process, control group, mount or file is left");
    Ok(())
}

/// Where cargo puts what it builds.
fn target_dir() -> PathBuf {
    let given = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| step::root().join("target"))
}

/// A running `meros dev`.
struct Datacenter {
    child: Child,
    dir: PathBuf,
    /// Separated by commas.
    masters: String,
    identity: PathBuf,
    cgroup_root: String,
}

impl Datacenter {
    fn start(meros: &Path) -> Result<Self, String> {
        let id = std::process::id();
        let dir = env::temp_dir().join(format!("meros-demo-{id}"));
        let cgroup_root = format!("meros-demo-{id}");
        let mut child = Command::new(meros)
            .args([
                "dev",
                "--masters",
                MASTERS,
                "--slaves",
                SLAVES,
                "--port=0",
                "--temporary",
                "--end-with-parent",
            ])
            .arg("--dir")
            .arg(&dir)
            .args(["--cgroup-root", &cgroup_root])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", meros.display()))?;
        let stdout = child.stdout.take().ok_or("its output is piped")?;
        let mut said = Vec::new();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let ready = line.starts_with("Ctrl-C stops it");
            said.push(line);
            if ready {
                let value = |name: &str| {
                    let words = said.iter().flat_map(|line| line.split_whitespace());
                    words
                        .filter_map(|word| word.strip_prefix(name))
                        .next()
                        .map(str::to_owned)
                };
                let missing = "meros dev did not say how to reach it";
                return Ok(Self {
                    masters: value("MEROS_MASTER=").ok_or(missing)?,
                    identity: value("MEROS_IDENTITY=").ok_or(missing)?.into(),
                    child,
                    dir,
                    cgroup_root,
                });
            }
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        Err(format!(
            "the datacenter did not come up ({status}):\n{}",
            said.join("\n")
        ))
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("MEROS_MASTER", &self.masters)
            .env("MEROS_IDENTITY", &self.identity)
    }

    /// Waits until `wordcount` has ended, and kills the leading master once in the middle of it.
    fn watch(&self, wordcount: &mut Child) -> Result<(), String> {
        let mut killed = false;
        loop {
            match wordcount.try_wait() {
                Ok(Some(status)) if status.success() => break,
                Ok(Some(status)) => return Err(format!("wordcount ended with {status}")),
                Ok(None) => {}
                Err(error) => return Err(format!("cannot wait for wordcount: {error}")),
            }
            if !killed && let Some(leader) = self.leader() {
                let ended = ended_tasks(leader).unwrap_or(0);
                killed = ended >= ENDED_BEFORE_KILL && self.kill(leader)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        match killed {
            true => Ok(()),
            false => Err("no master was killed: there was too little to count".to_owned()),
        }
    }

    /// The address of the master that leads.
    fn leader(&self) -> Option<&str> {
        let leads = |address: &&str| {
            get(address, "/health").is_some_and(|text| text.contains("\"leading\""))
        };
        self.masters.split(',').find(leads)
    }

    /// kill -9 of the master that listens there. False if it is not found.
    fn kill(&self, address: &str) -> Result<bool, String> {
        for folder in entries(&self.dir) {
            let text = fs::read_to_string(folder.join("endpoint.json")).unwrap_or_default();
            if !text.contains(&format!("\"{address}\"")) {
                continue;
            }
            let pid = text.split_once("\"pid\":").map_or("", |(_, rest)| rest);
            let pid = pid.split(',').next().unwrap_or_default().trim();
            let killed = Command::new("kill").args(["-KILL", pid]).status();
            let killed = killed.map_err(|error| format!("cannot kill a master: {error}"))?;
            println!("==> kill -9 of the master that leads, at {address} (process {pid})");
            return Ok(killed.success());
        }
        Ok(false)
    }

    /// Ends it and looks whether anything is left.
    fn stop(mut self) -> Result<(), String> {
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if !ended(&mut self.child) {
            let pid = self.child.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status();
            told.map_err(|error| format!("cannot tell it to stop: {error}"))?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !ended(&mut self.child) {
            if Instant::now() > deadline {
                drop(self.child.kill());
                drop(self.child.wait());
                return Err(format!(
                    "it did not end within {STOP_TIMEOUT:?} and was killed"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.left_over();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left over: {}", left.join(", ")))
        }
    }

    fn left_over(&self) -> Vec<String> {
        let dir = self.dir.display().to_string();
        let mut left = Vec::new();
        for entry in entries(Path::new("/proc")) {
            let line = fs::read(entry.join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&dir) {
                left.push(format!("process {}", entry.display()));
            }
        }
        let base = Path::new("/sys/fs/cgroup");
        for folder in entries(base).into_iter().chain([base.to_path_buf()]) {
            let group = folder.join(&self.cgroup_root);
            if group.exists() {
                left.push(format!("control group {}", group.display()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&dir))
                .map(|line| format!("mount {line}")),
        );
        if self.dir.exists() {
            left.push(format!("folder {dir}"));
        }
        left
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// How many tasks have ended since this master leads.
fn ended_tasks(address: &str) -> Option<u64> {
    let metrics = get(address, "/metrics")?;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("meros_master_tasks_ended_total "));
    count?.trim().parse().ok()
}

/// A document over HTTP. By hand: this program depends on nothing.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
