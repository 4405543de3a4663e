//! The layer wall: the cores are deaf and blind, and the codec alone knows bincode.
//!
//! A core has no clock, socket, file, thread, environment or random order. Three nets hold
//! that: its dependencies (`cargo tree`), its words (here), and resolved paths (the core's
//! clippy.toml, which has to repeat the bans of the root's, because it replaces it).

use super::scan::{lines_naming, tokens};
use super::{ProjectFile, Violation};

/// A sans-IO crate.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) package: &'static str,
    /// Relative to the root, without a slash at the end.
    folder: &'static str,
}

/// Every sans-IO crate of the project.
pub(crate) const CORES: [Core; 3] = [
    Core {
        package: "meros-master-core",
        folder: "master/core",
    },
    Core {
        package: "meros-slave-core",
        folder: "slave/core",
    },
    Core {
        package: "meros-sdk-core",
        folder: "framework-sdk/core",
    },
];

/// Crates that bring a clock, a socket, a thread or chance; the crates of their families too
/// (`tokio-util`, `rand_core`).
const CRATES_BANNED: [&str; 11] = [
    "tokio",
    "quinn",
    "openraft",
    "rocksdb",
    "librocksdb",
    "rustls",
    "mio",
    "rand",
    "getrandom",
    "parking_lot",
    "crossbeam",
];

/// Paths that must not be written in a core, and what to do instead.
const PATHS_BANNED: [(&[&str], &str); 20] = [
    (
        &["std", "time", "Instant"],
        "take the time as the argument `now`",
    ),
    (&["Instant", "now"], "take the time as the argument `now`"),
    (&["SystemTime"], "take the time as the argument `now`"),
    (&["HashMap"], "its order is random: use BTreeMap"),
    (&["HashSet"], "its order is random: use BTreeSet"),
    (&["RandomState"], "its order is random: use an ordered map"),
    // Not the whole module: tests ask `std::thread::panicking` before they assert in a drop.
    (&["thread", "spawn"], "the shell owns the threads"),
    (&["thread", "scope"], "the shell owns the threads"),
    (&["thread", "sleep"], "the shell owns the threads"),
    (&["thread", "park"], "the shell owns the threads"),
    (&["thread", "current"], "the shell owns the threads"),
    (&["thread", "yield_now"], "the shell owns the threads"),
    (&["thread", "Builder"], "the shell owns the threads"),
    (
        &["std", "sync", "mpsc"],
        "the shell owns the queues: return an effect",
    ),
    (&["std", "fs"], "the shell owns the files: return an effect"),
    (
        &["std", "net"],
        "the shell owns the sockets: return an effect",
    ),
    (
        &["std", "os"],
        "the shell owns the machine: return an effect",
    ),
    (
        &["std", "process"],
        "the shell owns the processes: return an effect",
    ),
    (
        &["std", "env"],
        "take it from the configuration that the shell passes in",
    ),
    (&["thread_local"], "state belongs to the core's own tables"),
];

/// Finds banned crates in what `cargo tree --prefix none` printed for `core`.
pub(super) fn check_tree(core: &Core, tree: &str) -> Vec<Violation> {
    let manifest = format!("{}/Cargo.toml", core.folder);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let banned = names.filter_map(|name| {
        let of_family = |family: &str| {
            let rest = name.strip_prefix(family)?;
            (rest.is_empty() || rest.starts_with(['-', '_'])).then_some(name)
        };
        CRATES_BANNED.into_iter().find_map(of_family)
    });
    banned
        .map(|name| {
            let what = format!(
                "{} depends on {name}, which a core must not: move its user to the shell \
                 (`cargo tree -p {} -i {name}` shows how it comes in)",
                core.package, core.package
            );
            Violation::new(manifest.as_str(), 0, what)
        })
        .collect()
}

/// Finds banned paths in the sources of the cores, their unit tests included.
pub(super) fn check_sources(files: &[ProjectFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let Some(rust) = &file.rust else { continue };
        if !CORES
            .iter()
            .any(|core| file.path.starts_with(&format!("{}/src/", core.folder)))
        {
            continue;
        }
        let tokens = tokens(&rust.code);
        for (path, instead) in PATHS_BANNED {
            for line in lines_naming(&tokens, path) {
                let what = format!("{} in a core: {instead}", path.join("::"));
                violations.push(Violation::new(file.path.as_str(), line, what));
            }
        }
    }
    violations
}

/// Finds bans of the root's clippy.toml that the clippy.toml of a core forgot.
pub(super) fn check_clippy_bans(files: &[ProjectFile]) -> Vec<Violation> {
    let bans_in = |path: &str| -> Option<Vec<&str>> {
        let file = files.iter().find(|file| file.path == path)?;
        let text = file.text.as_deref()?;
        Some(text.lines().filter_map(banned_path).collect())
    };
    let Some(shared) = bans_in("clippy.toml") else {
        return vec![Violation::new(
            "clippy.toml",
            0,
            "is missing: the bans of all crates go there",
        )];
    };
    let mut violations = Vec::new();
    for core in &CORES {
        let path = format!("{}/clippy.toml", core.folder);
        match bans_in(&path) {
            None => violations.push(Violation::new(path, 0, "is missing: copy another core's")),
            Some(own) => {
                violations.extend(shared.iter().filter(|ban| !own.contains(ban)).map(|ban| {
                    Violation::new(
                        path.as_str(),
                        0,
                        format!("does not repeat the ban of {ban}: add it"),
                    )
                }))
            }
        }
    }
    violations
}

/// The path in a line like `{ path = "std::fs::read", reason = "…" },`.
fn banned_path(line: &str) -> Option<&str> {
    let (_, value) = line
        .trim_start()
        .strip_prefix('{')?
        .split_once("path = \"")?;
    value.split_once('"').map(|(path, _)| path)
}

/// Finds users of bincode beside the codec, so that the format can be replaced in one place.
pub(super) fn check_codec_wall(files: &[ProjectFile]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let lines = match (&file.rust, &file.text) {
            (Some(rust), _) if !file.path.starts_with("proto/src/codec") => {
                lines_naming(&tokens(&rust.code), &["bincode"])
            }
            (None, Some(text)) if is_foreign_manifest(&file.path) => {
                let names = text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| line.starts_with("bincode"));
                names.map(|(index, _)| index + 1).collect()
            }
            _ => continue,
        };
        violations.extend(lines.into_iter().map(|line| {
            let what = "bincode outside proto/src/codec: encode and decode through the codec";
            Violation::new(file.path.as_str(), line, what)
        }));
    }
    violations
}

/// The manifest of a crate that has no reason to depend on bincode.
fn is_foreign_manifest(path: &str) -> bool {
    path.ends_with("/Cargo.toml") && path != "proto/Cargo.toml"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_depends_on_a_runtime_is_found() {
        let core = &CORES[0];
        let tree =
            "meros-master-core v0.1.0 (…)\nserde v1.0.0\ntokio-util v0.7.0\nrand_core v0.9.0\n";
        let found = check_tree(core, tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.contains("tokio-util") && found[1].what.contains("rand_core"));
        assert_eq!(found[0].path, "master/core/Cargo.toml");
        assert_eq!(
            check_tree(core, "tracing v0.1.0\nrandomize v1.0.0\nmiow v0.1.0\n"),
            []
        );
    }

    #[test]
    fn every_banned_path_is_found_in_a_core_and_only_in_code() {
        for (path, _) in PATHS_BANNED {
            let path = path.join("::");
            let bad = format!("//! {path}\nfn f() {{\n    {path};\n}}\n");
            let found = check_sources(&[ProjectFile::of("slave/core/src/a.rs", &bad)]);
            assert!(
                found
                    .iter()
                    .any(|v| v.line == 3 && v.what.starts_with(&path)),
                "{path}: {found:?}"
            );
            assert!(found.iter().all(|v| v.line == 3), "{path}: {found:?}");
            assert_eq!(
                check_sources(&[ProjectFile::of("slave/src/a.rs", &bad)]),
                []
            );
        }
    }

    #[test]
    fn a_core_may_ask_whether_its_test_is_panicking() {
        let source = "fn f() -> bool {\n    std::thread::panicking()\n}\n";
        assert_eq!(
            check_sources(&[ProjectFile::of("master/core/src/a.rs", source)]),
            []
        );
    }

    #[test]
    fn a_core_that_forgets_a_shared_ban_is_found() {
        let root = "disallowed-methods = [\n  { path = \"a::b\", reason = \"c\" },\n]\n";
        let mut files = vec![ProjectFile::of("clippy.toml", root)];
        for core in &CORES {
            files.push(ProjectFile::of(
                &format!("{}/clippy.toml", core.folder),
                root,
            ));
        }
        assert_eq!(check_clippy_bans(&files), []);
        files[3] = ProjectFile::of(
            "framework-sdk/core/clippy.toml",
            "disallowed-methods = []\n",
        );
        let found = check_clippy_bans(&files);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("a::b"));
        files.remove(1);
        assert_eq!(check_clippy_bans(&files).len(), 2);
    }

    #[test]
    fn bincode_is_named_in_the_codec_only() {
        let source = "// bincode\nuse bincode::config;\n";
        let check = |path: &str, text: &str| check_codec_wall(&[ProjectFile::of(path, text)]);
        assert_eq!(check("master/src/net.rs", source)[0].line, 2);
        assert_eq!(check("proto/src/codec.rs", source), []);
        assert_eq!(check("proto/src/codec/tests.rs", source), []);
        assert_eq!(
            check(
                "master/Cargo.toml",
                "[dependencies]\nbincode.workspace = true\n"
            )
            .len(),
            1
        );
        assert_eq!(check("proto/Cargo.toml", "bincode.workspace = true\n"), []);
    }
}
