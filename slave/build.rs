//! Builds the shim, which `meros` carries inside of itself: a program of its own, because a copy of
//! `meros` would take ten times the memory and the time to start, and in the same file, because an
//! administrator installs one (docs/decisions/0013-shim.md).
//!
//! Linked statically where the C library allows it: no dynamic linker has to run for each container,
//! and nothing outside of the file can be missing or replaced.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// For the profile `shim` of the workspace; first the better one.
const LINKING: [&str; 2] = [
    "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static",
    "",
];

fn main() {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    for input in [
        "shim/src",
        "shim/Cargo.toml",
        "Cargo.lock",
        "slave/build.rs",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let built = LINKING
        .iter()
        .find_map(|flags| build(&workspace, &out, flags));
    let built = built.expect("the shim is built; what is wrong is said above");
    fs::copy(built, out.join("meros-shim")).expect("the folder is cargo's for us");
}

/// Where the program is, if it could be built.
fn build(workspace: &Path, out: &Path, flags: &str) -> Option<PathBuf> {
    let target = variable("TARGET");
    // Not the folder of the build that waits for us: cargo holds its lock.
    let folder = out.join("shim");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--locked",
            "--offline",
            "--profile=shim",
            "--package=meros-shim",
        ])
        .args(["--bin=meros-shim", "--target", &target])
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    // What a build of ours is wrapped in (clippy, a coverage tool) is not meant for it.
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let output = cargo.output().expect("cargo runs us, so it can be run");
    if output.status.success() {
        return Some(folder.join(target).join("shim").join("meros-shim"));
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    None
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
