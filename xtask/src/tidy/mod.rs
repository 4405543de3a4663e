//! `cargo xtask tidy`: the rules of the project that neither compiler nor clippy can see.
//!
//! Reads only. Each check is a function from the project's files to violations, tested with
//! hand-made bad files; only this module reads the disk and starts programs.
//! Absent: style (rustfmt has it), names inside expressions (clippy has them).

mod hygiene;
mod invariants;
mod layers;
mod modules;
mod scan;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use crate::step;
use scan::Views;

/// A rule that is broken at a place, and what to do about it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// Relative to the root of the project.
    path: String,
    /// Counted from 1; 0 means the file as a whole.
    line: usize,
    /// What is wrong, and what to do.
    what: String,
}

impl Violation {
    fn new(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A file of the project, read once for all checks.
#[derive(Debug)]
struct ProjectFile {
    /// Relative to the root, with `/`.
    path: String,
    size_bytes: u64,
    /// None for what is not UTF-8 text or is too large to be looked at.
    text: Option<String>,
    /// For Rust sources only.
    rust: Option<Views>,
}

impl ProjectFile {
    fn new(path: impl Into<String>, size_bytes: u64, text: Option<String>) -> Self {
        let path = path.into();
        let source = text.as_deref().filter(|_| path.ends_with(".rs"));
        Self {
            rust: source.map(Views::of),
            path,
            size_bytes,
            text,
        }
    }

    #[cfg(test)]
    fn of(path: &str, text: &str) -> Self {
        Self::new(path, text.len() as u64, Some(text.to_owned()))
    }
}

/// Looks at the project below `root` and returns what is wrong, sorted by place.
///
/// # Errors
/// A file cannot be read, or `git` or `cargo tree` cannot be run or fails.
pub(crate) fn check(root: &Path) -> io::Result<Vec<Violation>> {
    let files = read_project(root)?;
    let mut violations = Vec::new();
    violations.extend(layers::check_sources(&files));
    violations.extend(layers::check_clippy_bans(&files));
    violations.extend(layers::check_codec_wall(&files));
    for core in &layers::CORES {
        let arguments = [
            "tree",
            "--locked",
            "-p",
            core.package,
            "-e",
            "normal",
            "--prefix",
            "none",
        ];
        let tree = output_of(step::cargo().args(arguments).current_dir(root))?;
        violations.extend(layers::check_tree(core, &String::from_utf8_lossy(&tree)));
    }
    violations.extend(invariants::check(&files));
    violations.extend(hygiene::check(&files));
    violations.extend(modules::check(&files));
    violations.sort();
    violations.dedup();
    Ok(violations)
}

/// Reads what git tracks, and what it would track once added.
fn read_project(root: &Path) -> io::Result<Vec<ProjectFile>> {
    let arguments = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listed = output_of(Command::new("git").args(arguments).current_dir(root))?;
    let mut files = Vec::new();
    for path in String::from_utf8_lossy(&listed).split_terminator('\0') {
        let on_disk = root.join(path);
        // Deleted but still in the index: nothing is left to be wrong.
        let Ok(metadata) = fs::symlink_metadata(&on_disk) else {
            continue;
        };
        if metadata.is_file() {
            files.push(ProjectFile::new(path, metadata.len(), read_text(&on_disk)?));
        }
    }
    Ok(files)
}

/// The text of a file, or None if it is binary or over the size that hygiene allows anyway.
fn read_text(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(hygiene::FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > hygiene::FILE_BYTES_MAX || bytes.contains(&0) {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}

/// Runs `command` to its end and returns its standard output.
fn output_of(command: &mut Command) -> io::Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {shown}: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{shown} ended with {}: {}",
        output.status,
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_place_as_editors_understand_it() {
        assert_eq!(
            Violation::new("a/b.rs", 7, "wrong").to_string(),
            "a/b.rs:7: wrong"
        );
        assert_eq!(
            Violation::new("a.bin", 0, "wrong").to_string(),
            "a.bin: wrong"
        );
    }

    #[test]
    fn the_project_is_what_git_has_or_would_have() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| fs::write(root.path().join(path), bytes).unwrap();
        write(".gitignore", b"ignored\n");
        write("ignored", b"x");
        write("new.rs", b"fn f() {} // note");
        write("binary", &[0, 159, 146, 150]);
        output_of(
            Command::new("git")
                .args(["init", "-q"])
                .current_dir(root.path()),
        )
        .unwrap();

        let files = read_project(root.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".gitignore", "binary", "new.rs"]);
        assert!(files[1].text.is_none());
        assert!(files[2].rust.as_ref().unwrap().comments.contains("note"));
    }

    #[test]
    fn a_program_that_fails_is_reported_with_what_it_said() {
        let error = output_of(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
