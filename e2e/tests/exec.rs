//! `meros exec` as a person has it: input, output, a terminal, exit codes, and nothing left of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use meros_e2e::{ClusterOptions, LocalCluster, eventually, meros};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

const SLOW: Duration = Duration::from_secs(60);
const TASK: &str = "host.0000";
/// Pieces of output that wait; a terminal waits with the rest.
const PIECES: usize = 64;

/// A process that ends with the test.
struct Ending(Child);

impl Ending {
    fn await_code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("it ends", SLOW, || {
            let ended = self.0.try_wait().expect("it is our child");
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn operator(cluster: &LocalCluster, args: &[&str]) -> Command {
    let mut command = meros();
    command
        .env("MEROS_MASTER", cluster.address())
        .env("MEROS_IDENTITY", cluster.identity("operator"))
        .env("TERM", "xterm")
        .args(args);
    command
}

fn processes(word: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let programs = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let is_one = |line: &Vec<u8>| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first() == Some(&&b"sleep"[..]) && words.contains(&word.as_bytes())
    };
    programs.filter(is_one).count()
}

/// What comes out of a terminal, piece by piece, from a thread that ends with it.
fn heard(mut terminal: File) -> Receiver<Vec<u8>> {
    let (told, pieces) = sync_channel(PIECES);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = terminal.read(&mut bytes) {
            if told.send(bytes[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

fn await_text(pieces: &Receiver<Vec<u8>>, said: &mut String, text: &str) {
    eventually(text, SLOW, || {
        while let Ok(piece) = pieces.try_recv() {
            said.push_str(&String::from_utf8_lossy(&piece));
        }
        said.contains(text)
    });
}

#[test]
fn a_person_works_inside_of_a_container() {
    let cluster = LocalCluster::start(ClusterOptions::new("exec", 1));
    let run = operator(&cluster, &["run", "--name", "host", "--", "sleep", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _run = Ending(run.expect("it starts"));
    eventually("the task runs", SLOW, || {
        cluster.meros(&["exec", TASK, "--", "true"]).code == 0
    });

    let ran = cluster.meros(&[
        "exec",
        TASK,
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"));
    assert_eq!(ran.stderr, "err\n");
    let ran = cluster.meros(&["exec", TASK, "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(ran.code, 128 + 9, "{}", ran.stderr);
    let ran = cluster.meros(&["exec", TASK, "--", "no-such-program"]);
    assert_eq!(ran.code, 127, "{}", ran.stderr);
    let ran = cluster.meros(&["exec", "no-such-task", "--", "true"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("no-such-task"), "{}", ran.stderr);

    // More input than any window or pipe has room for, and all of it back.
    let piped = operator(
        &cluster,
        &[
            "exec",
            "-i",
            "-e",
            "A=b c",
            TASK,
            "--",
            "sh",
            "-c",
            "cat; echo $A",
        ],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn();
    let mut piped = piped.expect("it starts");
    let text: String = (0..40_000).map(|line| format!("{line}\n")).collect();
    let mut input = piped.stdin.take().expect("it is piped");
    let sent = text.clone();
    let feeder = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let output = piped.wait_with_output().expect("it ends");
    feeder
        .join()
        .expect("it does not panic")
        .expect("it is read");
    assert!(output.status.success());
    assert!(
        output.stdout == format!("{text}b c\n").as_bytes(),
        "{} bytes",
        output.stdout.len()
    );

    in_a_terminal(&cluster);
    attached(&cluster);
}

/// To the end of a task, with its exit code.
fn attached(cluster: &LocalCluster) {
    let line = "echo out; echo err >&2; until [ -e go ]; do sleep 0.05; done; exit 6";
    let run = operator(cluster, &["run", "--name", "guest", "--", "sh", "-c", line])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _run = Ending(run.expect("it starts"));
    let guest = "guest.0000";
    eventually("the task runs", SLOW, || {
        cluster.meros(&["exec", guest, "--", "true"]).code == 0
    });
    let attached = operator(cluster, &["attach", guest])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let attached = attached.expect("it starts");
    let ran = cluster.meros(&["exec", guest, "--", "touch", "go"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let output = attached.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );

    let ran = cluster.meros(&["top", TASK, "--once", "--interval", "100ms"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("IN ALL"), "{}", ran.stdout);
    let ran = cluster.meros(&["top", TASK, "--once", "-o", "json"]);
    let usage: serde_json::Value = serde_json::from_str(&ran.stdout).expect("it is JSON");
    assert_eq!(usage["task_id"], TASK);
}

/// A terminal of ours: its modes are as they were on every way out.
fn in_a_terminal(cluster: &LocalCluster) {
    let size = Winsize {
        ws_row: 31,
        ws_col: 71,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).expect("there are terminals");
    let before = tcgetattr(&slave).expect("it is a terminal").local_flags;
    assert!(before.contains(LocalFlags::ECHO));
    let start = |line: &str| {
        let end = || slave.as_fd().try_clone_to_owned().expect("there is room");
        let child = operator(cluster, &["exec", "-it", TASK, "--", "sh", "-c", line])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn();
        Ending(child.expect("it starts"))
    };
    let flags = || tcgetattr(&slave).expect("it is a terminal").local_flags;
    let mut keyboard = File::from(master.try_clone().expect("there is room"));
    let pieces = heard(File::from(master));
    let mut said = String::new();

    let mut session =
        start("trap 'exit 5' INT; test -t 0; stty size; while :; do sleep 0.01; done");
    await_text(&pieces, &mut said, "31 71");
    assert!(!flags().contains(LocalFlags::ECHO), "keys go as they are");
    keyboard.write_all(b"\x03").expect("it is read");
    assert_eq!(session.await_code(), Some(5), "{said}");
    assert_eq!(flags(), before);

    // Ended from outside, politely and not: nothing is left of the command.
    let word = format!("{}.5", 200_000 + std::process::id());
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        said.clear();
        let mut session = start(&format!("echo ready; sleep {word}"));
        await_text(&pieces, &mut said, "ready");
        eventually("it sleeps", SLOW, || processes(&word) == 1);
        let pid = i32::try_from(session.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        session.await_code();
        eventually("it is killed", SLOW, || processes(&word) == 0);
        if signal == Signal::SIGTERM {
            assert_eq!(flags(), before);
        }
    }
}
