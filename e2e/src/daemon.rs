//! One daemon process: started, killed, restarted, and never left behind.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::meros::{meros, meros_on};
use crate::wait::eventually;

/// How long a daemon may take to listen or to end. A loaded two-core machine needs seconds.
pub const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a daemon listens, from the file that it writes.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Listening {
    /// Its process.
    pub pid: u32,
    /// Its QUIC address, if it has one.
    pub quic: Option<SocketAddr>,
    /// Its HTTP address.
    pub http: SocketAddr,
}

/// A daemon under test.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    args: Vec<String>,
    data_dir: PathBuf,
    log: PathBuf,
    namespace: Option<String>,
    child: Option<Child>,
}

impl Daemon {
    /// A daemon that is not started yet. `args` are all but its data folder.
    #[must_use]
    pub fn new(root: &Path, name: &str, args: Vec<String>) -> Self {
        let data_dir = root.join(name);
        let log = root.join(format!("{name}.log"));
        Self {
            name: name.to_owned(),
            args,
            data_dir,
            log,
            namespace: None,
            child: None,
        }
    }

    /// Lets it run on a host of a [`Network`](crate::Network), named by its namespace.
    #[must_use]
    pub fn on(mut self, namespace: String) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// It runs already, or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&self.log)
                .expect("the folder is ours")
        };
        let mut command = self.namespace.as_deref().map_or_else(meros, meros_on);
        let says = |name: &str| self.args.iter().any(|arg| arg.starts_with(name));
        if self.args[0] == "slave" && !says("--tasks-end-with-slave") {
            // Nothing is left of a test, however it ends.
            command
                .arg("slave")
                .arg("--tasks-end-with-slave=true")
                .args(&self.args[1..]);
        } else {
            command.args(&self.args);
        }
        let child = command
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .arg("--end-with-parent")
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .expect("the binary was found and can be started");
        self.child = Some(child);
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// It ends instead, or takes too long; the message has the end of its log.
    pub fn start(&mut self) -> Listening {
        self.spawn();
        let mut found = None;
        eventually(&format!("{} listens", self.name), DAEMON_TIMEOUT, || {
            if let Some(status) = self.exited() {
                panic!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            found = self.listening();
            found.is_some()
        });
        found.expect("just found")
    }

    /// Where it listens, if it does yet.
    #[must_use]
    pub fn listening(&self) -> Option<Listening> {
        let text = std::fs::read(self.data_dir.join("endpoint.json")).ok()?;
        let listening: Listening = serde_json::from_slice(&text).ok()?;
        (Some(listening.pid) == self.pid()).then_some(listening)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, if it has by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("it is our child")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// It does not within [`DAEMON_TIMEOUT`].
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(&format!("{} ends", self.name), DAEMON_TIMEOUT, || {
            status = self.exited();
            status.is_some()
        });
        self.child = None;
        status.expect("just seen")
    }

    /// kill -9: nothing of it gets a chance to clean up.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // An error means that it has ended already.
        drop(child.kill());
        drop(child.wait());
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("pids are small"));
        kill(pid, signal).expect("it is our child and not reaped yet");
    }

    /// SIGTERM, and waits for its clean end.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// More flags for the next start.
    pub fn add_args(&mut self, args: impl IntoIterator<Item = String>) {
        self.args.extend(args);
    }

    /// Replaces the value of a flag for the next start.
    ///
    /// # Panics
    /// It has no such flag.
    pub fn set_arg(&mut self, name: &str, value: &str) {
        let prefix = format!("--{name}=");
        let arg = self.args.iter_mut().find(|arg| arg.starts_with(&prefix));
        *arg.expect("the flag was given at first") = format!("{prefix}{value}");
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// All it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its resident memory in KiB.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let pid = self.pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("in every status");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number of kB")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
