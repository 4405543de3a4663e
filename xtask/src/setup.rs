//! `cargo xtask setup`: what a fresh machine lacks to build Meros.
//!
//! A machine with only cargo, gcc and git lacks a C++ compiler (rocksdb), libclang with its
//! headers (the bindings to rocksdb are made while building) and perhaps rustfmt and clippy.
//! Nothing else: the TLS library (aws-lc) needs a C compiler and no cmake on x86-64 Linux.
//! Absent: cargo-nextest, which is used when present (see `test`).

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step;

/// Something that the build needs and the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lack {
    /// What it is and what it is for.
    what: &'static str,
    remedy: Remedy,
}

/// Where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// A package of Debian and what is derived from it.
    Package(&'static str),
    /// A component of the Rust toolchain.
    Component(&'static str),
    /// A variable that leads the build astray; only the user's shell can unset it.
    Unset(&'static str),
}

/// Installs what is missing when that is possible, and says what was done or is to be done.
///
/// # Errors
/// Something is missing and could not be installed; the message says what to run.
pub(crate) fn run() -> Result<(), String> {
    let lacks = missing();
    if lacks.is_empty() {
        println!("setup: this machine has everything that the build needs");
        return Ok(());
    }
    for lack in &lacks {
        println!("setup: missing: {}", lack.what);
    }
    for command in commands(&lacks, is_root()) {
        println!("setup: {}", command.join(" "));
        if matches!(command[0], "sudo" | "unset") {
            continue;
        }
        let status = Command::new(command[0])
            .args(&command[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("setup: that did not work");
        }
    }
    let left = missing();
    if left.is_empty() {
        println!("setup: done");
        return Ok(());
    }
    let what: Vec<_> = left.iter().map(|lack| lack.what).collect();
    let run: Vec<_> = commands(&left, is_root())
        .iter()
        .map(|command| command.join(" "))
        .collect();
    Err(format!(
        "missing: {}\nrun this, then try again:\n    {}",
        what.join("; "),
        run.join("\n    ")
    ))
}

/// What the machine lacks, in the order in which a build would notice.
fn missing() -> Vec<Lack> {
    let cargo_has = |tool: &str| {
        let output = step::cargo().args([tool, "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let needs = [
        (
            cargo_has("fmt"),
            Lack {
                what: "rustfmt (checks the format)",
                remedy: Remedy::Component("rustfmt"),
            },
        ),
        (
            cargo_has("clippy"),
            Lack {
                what: "clippy (checks the code)",
                remedy: Remedy::Component("clippy"),
            },
        ),
        (
            compiles("CXX", "c++", "#include <string>\n"),
            Lack {
                what: "a C++ compiler (compiles rocksdb)",
                remedy: Remedy::Package("g++"),
            },
        ),
        (
            has_libclang(Path::new("/"), &|name| env::var_os(name)),
            match env::var_os("LIBCLANG_PATH") {
                None => Lack {
                    what: "libclang and its headers (make the bindings to rocksdb)",
                    remedy: Remedy::Package("libclang-dev"),
                },
                Some(_) => Lack {
                    what: "libclang (makes the bindings to rocksdb) where LIBCLANG_PATH says",
                    remedy: Remedy::Unset("LIBCLANG_PATH"),
                },
            },
        ),
    ];
    needs
        .into_iter()
        .filter(|(present, _)| !present)
        .map(|(_, lack)| lack)
        .collect()
}

/// The commands that would install `lacks`, each with its arguments.
fn commands(lacks: &[Lack], root: bool) -> Vec<Vec<&'static str>> {
    let (mut packages, mut components, mut variables) = (Vec::new(), Vec::new(), Vec::new());
    for lack in lacks {
        match lack.remedy {
            Remedy::Package(name) => packages.push(name),
            Remedy::Component(name) => components.push(name),
            Remedy::Unset(name) => variables.push(name),
        }
    }
    let mut commands = Vec::new();
    if !packages.is_empty() {
        let sudo = if root { vec![] } else { vec!["sudo"] };
        commands.push([sudo.clone(), vec!["apt-get", "update"]].concat());
        let install = vec!["apt-get", "install", "-y", "--no-install-recommends"];
        commands.push([sudo, install, packages].concat());
    }
    if !components.is_empty() {
        commands.push([vec!["rustup", "component", "add"], components].concat());
    }
    if !variables.is_empty() {
        commands.push([vec!["unset"], variables].concat());
    }
    commands
}

/// Whether we may install packages.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether the compiler that `variable` names, else `default`, takes `source`.
///
/// Asked by compiling, because a compiler without its headers is installed too.
fn compiles(variable: &str, default: &str, source: &str) -> bool {
    let compiler = env::var(variable).unwrap_or_else(|_| default.to_owned());
    // `CXX` may hold a wrapper or flags: `ccache g++`.
    let mut words = compiler.split_whitespace();
    let Some(program) = words.next() else {
        return false;
    };
    let child = Command::new(program)
        .args(words)
        .args(["-x", "c++", "-fsyntax-only", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        return false;
    };
    // Dropping the pipe ends the source; a compiler that is gone already shows in its status.
    let written = child
        .stdin
        .take()
        .map(|mut pipe| io::Write::write_all(&mut pipe, source.as_bytes()));
    child.wait().is_ok_and(|status| status.success()) && matches!(written, Some(Ok(())))
}

/// Where clang-sys, which the bindings use, looks after `LIBCLANG_PATH` and llvm-config.
const LIBRARY_FOLDERS: [&str; 7] = [
    "usr/local/llvm*/lib*",
    "usr/local/lib*/*/*",
    "usr/local/lib*/*",
    "usr/local/lib*",
    "usr/lib*/*/*",
    "usr/lib*/*",
    "usr/lib*",
];

/// The file names that it takes there; `*-cpp.*` is another library.
const LIBRARY_NAMES: [&str; 4] = [
    "libclang.so",
    "libclang-*.so",
    "libclang.so.*",
    "libclang-*.so.*",
];

/// Where clang's own headers (`stddef.h`) lie; libclang without them finds no `size_t`.
const HEADERS: [&str; 3] = [
    "usr/lib/llvm*/lib*/clang/*/include/stddef.h",
    "usr/lib*/clang/*/include/stddef.h",
    "usr/local/lib*/clang/*/include/stddef.h",
];

/// Whether the bindings of rocksdb can be made on the machine whose root folder is `root`.
///
/// Somebody who names a libclang or passes arguments to it is trusted to have its headers.
fn has_libclang(root: &Path, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    if let Some(path) = variable("LIBCLANG_PATH").map(PathBuf::from) {
        return is_library(&path) || has_library(&path);
    }
    let prefix = llvm_prefix(variable("LLVM_CONFIG_PATH"));
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut headers: Vec<PathBuf> = Vec::new();
    if let Some(prefix) = &prefix {
        folders.extend(["bin", "lib", "lib64"].map(|folder| prefix.join(folder)));
        headers.extend(matching(prefix, "lib*/clang/*/include/stddef.h"));
    }
    for name in ["LD_LIBRARY_PATH", "LIBRARY_PATH"] {
        folders.extend(variable(name).iter().flat_map(env::split_paths));
    }
    folders.extend(
        LIBRARY_FOLDERS
            .iter()
            .flat_map(|pattern| matching(root, pattern)),
    );
    headers.extend(HEADERS.iter().flat_map(|pattern| matching(root, pattern)));
    let headers_found = !headers.is_empty() || variable("BINDGEN_EXTRA_CLANG_ARGS").is_some();
    headers_found && folders.iter().any(|folder| has_library(folder))
}

/// What llvm-config calls its prefix, if it is installed.
fn llvm_prefix(program: Option<OsString>) -> Option<PathBuf> {
    let program = program.unwrap_or_else(|| "llvm-config".into());
    let output = Command::new(program).arg("--prefix").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines()
        .next()
        .map(PathBuf::from)
        .filter(|_| output.status.success())
}

/// Whether `folder` holds a libclang that this process could load.
fn has_library(folder: &Path) -> bool {
    LIBRARY_NAMES
        .iter()
        .flat_map(|name| matching(folder, name))
        .any(|path| is_library(&path))
}

/// Whether `path` is a shared library of our word size, and libclang by its name.
fn is_library(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let named = LIBRARY_NAMES.iter().any(|pattern| matches(&name, pattern));
    let class = if cfg!(target_pointer_width = "64") {
        2
    } else {
        1
    };
    let mut header = [0; 5];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    named && !name.contains("-cpp.") && read.is_ok() && header == [0x7f, b'E', b'L', b'F', class]
}

/// What exists below `base` and fits `pattern`, in which `*` stands for any part of one name.
fn matching(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![base.to_path_buf()];
    for part in pattern.split('/') {
        found = found
            .iter()
            .flat_map(|folder| entries_matching(folder, part))
            .collect();
    }
    found
}

fn entries_matching(folder: &Path, part: &str) -> Vec<PathBuf> {
    if !part.contains('*') {
        let path = folder.join(part);
        return if path.exists() {
            vec![path]
        } else {
            Vec::new()
        };
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| matches(&entry.file_name().to_string_lossy(), part))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether `name` fits `pattern`.
fn matches(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| matches(&name[at..], rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files and nothing in its environment but `LLVM_CONFIG_PATH`, so
    /// that the llvm-config of the machine that runs the test is not asked.
    fn machine_has_libclang(files: &[(&str, &[u8])], set: &[(&str, &str)]) -> bool {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        has_libclang(
            root.path(),
            &|name| match set.iter().find(|(set, _)| *set == name) {
                Some((_, value)) => Some(root.path().join(value).into()),
                None if name == "LLVM_CONFIG_PATH" => Some("no-such-program-of-ours".into()),
                None => None,
            },
        )
    }

    const LIBRARY: &[u8] = b"\x7fELF\x02\x01\x01";
    const HEADER: (&str, &[u8]) = ("usr/lib/llvm-14/lib/clang/14.0.6/include/stddef.h", b"");

    #[test]
    fn libclang_is_found_where_distributions_put_it() {
        for path in [
            "usr/lib/llvm-14/lib/libclang.so",
            "usr/lib/x86_64-linux-gnu/libclang-14.so.1",
            "usr/lib64/libclang.so.17",
            "usr/local/lib/libclang-18.so",
        ] {
            assert!(
                machine_has_libclang(&[(path, LIBRARY), HEADER], &[]),
                "{path}"
            );
        }
    }

    #[test]
    fn libclang_without_headers_or_of_another_kind_is_missing() {
        let debian = "usr/lib/x86_64-linux-gnu/libclang-14.so.1";
        assert!(!machine_has_libclang(&[HEADER], &[]));
        assert!(!machine_has_libclang(&[(debian, LIBRARY)], &[]));
        assert!(!machine_has_libclang(
            &[(debian, b"\x7fELF\x01\x01\x01"), HEADER],
            &[]
        ));
        assert!(!machine_has_libclang(&[(debian, b"text"), HEADER], &[]));
        let cpp = "usr/lib/x86_64-linux-gnu/libclang-cpp.so.14";
        assert!(!machine_has_libclang(&[(cpp, LIBRARY), HEADER], &[]));
    }

    #[test]
    fn a_named_libclang_is_the_only_one_that_counts() {
        let files = [
            ("opt/clang/libclang.so", LIBRARY),
            ("usr/lib/libclang.so", LIBRARY),
            HEADER,
        ];
        assert!(machine_has_libclang(
            &files,
            &[("LIBCLANG_PATH", "opt/clang")]
        ));
        assert!(machine_has_libclang(
            &files,
            &[("LIBCLANG_PATH", "opt/clang/libclang.so")]
        ));
        assert!(!machine_has_libclang(
            &files,
            &[("LIBCLANG_PATH", "opt/none")]
        ));
    }

    #[test]
    fn one_command_installs_all_packages() {
        let lacks = [
            Lack {
                what: "",
                remedy: Remedy::Component("clippy"),
            },
            Lack {
                what: "",
                remedy: Remedy::Unset("LIBCLANG_PATH"),
            },
            Lack {
                what: "",
                remedy: Remedy::Package("g++"),
            },
            Lack {
                what: "",
                remedy: Remedy::Package("libclang-dev"),
            },
        ];
        let shown = |root| {
            commands(&lacks, root)
                .iter()
                .map(|c| c.join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(true),
            [
                "apt-get update",
                "apt-get install -y --no-install-recommends g++ libclang-dev",
                "rustup component add clippy",
                "unset LIBCLANG_PATH",
            ]
        );
        assert!(shown(false)[1].starts_with("sudo apt-get install"));
        assert_eq!(commands(&[], true), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn a_compiler_is_asked_by_compiling() {
        assert!(!compiles(
            "MEROS_XTASK_NO_SUCH",
            "no-such-program-of-ours",
            ""
        ));
        assert!(!compiles("MEROS_XTASK_NO_SUCH", "false", "int x;\n"));
    }

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        assert!(matches("libclang-14.so.1", "libclang-*.so.*"));
        assert!(matches("lib", "lib*"));
        assert!(!matches("libclang.so", "libclang-*.so"));
        assert!(matches("λλ", "*λ"));
    }
}
