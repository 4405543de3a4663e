//! `cargo xtask demo`: a datacenter of four slaves on this machine counts the words of every
//! crate that cargo has downloaded, and nothing of it is left afterwards.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::step::{self, Step};

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
    println!("\n==> a datacenter of {SLAVES} slaves on this machine");
    let mut datacenter = Datacenter::start(&programs.join("meros"))?;
    println!(
        "    master at {}, data in {}",
        datacenter.master,
        datacenter.dir.display()
    );

    println!("\n==> wordcount: one map task per crate of the local cargo registry, then reduce");
    let mut wordcount = Command::new(programs.join("examples/wordcount"));
    let counted = datacenter
        .environment(&mut wordcount)
        .stdin(Stdio::null())
        .status();
    let metrics = format!("http://{}/metrics", datacenter.master);
    println!("\n    metrics: {metrics}");
    let counted = match counted {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("wordcount ended with {status}")),
        Err(error) => Err(format!("cannot run wordcount: {error}")),
    };
    if stay && counted.is_ok() {
        println!("\n==> the datacenter stays up until Ctrl-C; in another terminal:");
        let (master, identity) = (&datacenter.master, datacenter.identity.display());
        println!("    export MEROS_MASTER={master} MEROS_IDENTITY={identity}");
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
    master: String,
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
                    master: value("MEROS_MASTER=").ok_or(missing)?,
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
            .env("MEROS_MASTER", &self.master)
            .env("MEROS_IDENTITY", &self.identity)
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
