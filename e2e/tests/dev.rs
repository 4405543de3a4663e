//! `meros dev` and the operator's commands, as a new user meets them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use meros_e2e::cgroups::CgroupRoot;
use meros_e2e::{Ports, Ran, eventually, meros};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const SLOW: Duration = Duration::from_secs(60);

/// A running `meros dev` in a folder of its own.
struct Dev {
    child: Child,
    dir: Arc<TempDir>,
    cgroups: CgroupRoot,
    master: String,
    identity: String,
}

impl Dev {
    fn start(word: &str, masters: usize) -> Self {
        let dir = TempDir::with_prefix("meros-dev-").expect("a temp folder");
        Self::start_in(Arc::new(dir), word, masters, 0)
    }

    /// From a port on, or on any that are free.
    fn start_in(dir: Arc<TempDir>, word: &str, masters: usize, port: u16) -> Self {
        let cgroups = CgroupRoot::new(word);
        let mut child = meros()
            .args(["dev", "--slaves=2", "--end-with-parent"])
            .args(["--port", &port.to_string()])
            .args(["--dir", dir.path().to_str().expect("temp folders are text")])
            .args(["--cgroup-root", cgroups.name()])
            .args(["--masters", &masters.to_string()])
            .env("MEROS_HOARDING_OFFERS", "7")
            // Nobody else leads while a launch is on its way, which could cost it.
            .env("MEROS_LEASE", "5s")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was found");
        let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        // The last line of the announcement: everything is registered by then.
        let ready = lines
            .map_while(Result::ok)
            .any(|line| line.starts_with("Ctrl-C stops it"));
        assert!(ready, "meros dev ended before it was ready");
        let text = std::fs::read(dir.path().join("dev.json")).expect("written when ready");
        let endpoint: Value = serde_json::from_slice(&text).expect("it is JSON");
        let text = |name: &str| endpoint[name].as_str().expect("it is text").to_owned();
        Self {
            master: text("master"),
            identity: text("identity"),
            child,
            dir,
            cgroups,
        }
    }

    fn meros(&self, args: &[&str]) -> Ran {
        let output = meros()
            .env("MEROS_MASTER", &self.master)
            .env("MEROS_IDENTITY", &self.identity)
            .args(args)
            .output();
        output.expect("the binary was found").into()
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.meros(args);
        assert_eq!(ran.code, 0, "meros {args:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("--output json prints JSON")
    }

    /// The processes that belong to it: those that name its folder.
    fn processes(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")
            .expect("there is /proc")
            .flatten()
        {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&dir.display().to_string()) {
                found.push(line);
            }
        }
        found
    }

    /// Ctrl-C, and waits for the end.
    fn interrupt(&mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pids are small"));
        kill(pid, Signal::SIGINT).expect("it is our child and not reaped yet");
        let status = self.child.wait().expect("it is our child");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A failed test leaves nothing running either.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
        }
    }
}

#[test]
fn a_new_user_runs_lists_reads_and_kills_tasks_and_ctrl_c_leaves_nothing() {
    let mut dev = Dev::start("tour", 1);

    let ran = dev.meros(&["run", "--", "echo", "hello from a task"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "hello from a task\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        dev.meros(&["run", "--", "sh", "-c", "echo oops >&2; exit 7"])
            .code,
        7
    );
    // What runs beside it ends with it; if that fails, it ends with that.
    let ran = dev.meros(&[
        "run",
        "--with",
        "exec sleep 1000",
        "--",
        "sh",
        "-c",
        "echo main",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("] main\n"), "{}", ran.stdout);
    let ran = dev.meros(&["run", "--with", "exit 3", "--", "sleep", "1000"]);
    assert_ne!(ran.code, 0);
    let beside = "sleep.0000.with1 ended: TASK_FAILED exited with code 3";
    assert!(ran.stderr.contains(beside), "{}", ran.stderr);
    let ran = dev.meros(&["run", "--", "no-such-command-here"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("no-such-command-here"),
        "{}",
        ran.stderr
    );

    // As in `meros run -- yes | head`: the task ends with its reader.
    let mut endless = meros()
        .env("MEROS_MASTER", &dev.master)
        .env("MEROS_IDENTITY", &dev.identity)
        .args(["run", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was found");
    drop(
        BufReader::new(endless.stdout.take().expect("piped above"))
            .lines()
            .next(),
    );
    let mut code = None;
    eventually("meros run ends with its reader", SLOW, || {
        code = endless.try_wait().expect("it is our child");
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(141));

    let slaves = dev.json(&["slaves", "--output", "json"]);
    assert_eq!(slaves.as_array().map(Vec::len), Some(2));
    let settings = dev.meros(&["settings"]).stdout;
    assert!(
        settings.contains("hoarding_offers           7\n"),
        "{settings}"
    );

    let mut sleeper = meros()
        .env("MEROS_MASTER", &dev.master)
        .env("MEROS_IDENTITY", &dev.identity)
        .args([
            "run",
            "--name",
            "sleeper",
            "--",
            "sh",
            "-c",
            "echo started; exec sleep 300",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was found");
    let mut task = None;
    eventually("the sleeper is listed as running", SLOW, || {
        let tasks = dev.json(&["ps", "--output", "json"]);
        task = tasks.as_array().into_iter().flatten().find_map(|task| {
            let running = task["name"] == "sleeper" && task["state"] == "TASK_RUNNING";
            running.then(|| task["task_id"].as_str().expect("ids are text").to_owned())
        });
        task.is_some()
    });
    let task = task.expect("just found");
    assert!(dev.meros(&["ps"]).stdout.contains(&task));
    assert!(dev.meros(&["frameworks"]).stdout.contains("subscribed"));
    eventually("its output can be read", SLOW, || {
        dev.meros(&["logs", &task]).stdout == "started\n"
    });
    let files = dev.meros(&["task", "files", &task]);
    assert!(files.stdout.contains("stdout"), "{}", files.stderr);
    assert_eq!(
        dev.meros(&["task", "cat", &task, "stdout"]).stdout,
        "started\n"
    );
    let outside = dev.meros(&["task", "cat", &task, "../stdout"]);
    assert!(
        outside.stderr.contains("file_outside"),
        "{}",
        outside.stderr
    );
    let killed = dev.meros(&["kill", &task]);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert_ne!(sleeper.wait().expect("it is our child").code(), Some(0));
    assert_eq!(dev.meros(&["offers"]).code, 0);

    let unknown = dev.meros(&["logs", "never-heard-of"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("meros ps --all"),
        "{}",
        unknown.stderr
    );

    let second = dev.meros(&[
        "dev",
        "--port=0",
        "--dir",
        dev.dir.path().to_str().expect("text"),
    ]);
    assert_eq!(second.code, 1);
    assert!(
        second.stderr.contains("another `meros dev` uses"),
        "{}",
        second.stderr
    );

    assert_eq!(dev.interrupt(), 0);
    // The kernel may still be at the end of some, which nobody waits for.
    eventually("no process is left", SLOW, || {
        Dev::processes(dev.dir.path()).is_empty()
    });
    assert_eq!(
        dev.cgroups.groups(),
        Vec::<std::path::PathBuf>::new(),
        "control groups are left"
    );
}

#[test]
fn dev_goes_on_where_it_was() {
    let ports = Ports::reserve();
    let dir = TempDir::with_prefix("meros-dev-").expect("a temp folder");
    let mut dev = Dev::start_in(Arc::new(dir), "resume", 3, ports.first());
    let masters = dev.json(&["masters", "list", "-o", "json"]);
    assert_eq!(masters.as_array().map(Vec::len), Some(3), "{masters}");
    let ids = |dev: &Dev| -> Vec<String> {
        let slaves = dev.json(&["slaves", "-o", "json"]);
        let rows = slaves.as_array().expect("a list").iter();
        rows.map(|row| row["slave_id"].as_str().expect("text").to_owned())
            .collect()
    };
    let before = ids(&dev);
    assert_eq!(dev.interrupt(), 0);
    let dir = Arc::clone(&dev.dir);
    drop(dev);
    let mut dev = Dev::start_in(dir, "resume2", 3, ports.first());
    assert_eq!(ids(&dev), before, "the slaves came back as others");
    assert_eq!(dev.meros(&["run", "--", "true"]).code, 0);
    assert_eq!(dev.interrupt(), 0);
}
