//! What must not be in a repository: leftovers, bulk, and words about somebody's machine.

use super::scan::{Token, is_word, lines_naming, tokens};
use super::{ProjectFile, Violation};

/// No file of the project is larger: what is larger is generated or does not belong here. 1 MiB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A Rust file with more lines holds two nouns.
const RUST_LINES_MAX: usize = 900;

/// Words in comments that say "not done".
const LEFTOVER_WORDS: [&str; 3] = ["FIXME", "XXX", "TODO"];

/// Macros in code that say "not done".
const LEFTOVER_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Top folders that exist on one machine only.
const MACHINE_FOLDERS: [&str; 3] = ["work", "root", "home"];

/// Looks at each file by itself.
pub(super) fn check(files: &[ProjectFile]) -> Vec<Violation> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &ProjectFile) -> Vec<Violation> {
    let mut found: Vec<(usize, String)> = Vec::new();
    if file.size_bytes > FILE_BYTES_MAX {
        found.push((
            0,
            format!("is over {FILE_BYTES_MAX} bytes: generate or shorten it"),
        ));
    } else if file.text.is_none() {
        found.push((0, "is binary: generate it when it is needed".to_owned()));
    }
    let text = file.text.as_deref().unwrap_or_default();
    found.extend(machine_paths(text).into_iter().map(|line| {
        (
            line,
            "names a folder of one machine: use a relative or temporary path".to_owned(),
        )
    }));
    if let Some(rust) = &file.rust {
        let lines = text.lines().count();
        if lines > RUST_LINES_MAX {
            found.push((
                0,
                format!(
                    "has {lines} lines, at most {RUST_LINES_MAX} are readable: split it by noun"
                ),
            ));
        }
        let comments = tokens(&rust.comments);
        found.extend(leftover_words(&comments));
        let code = tokens(&rust.code);
        for name in LEFTOVER_MACROS {
            let calls = code
                .windows(2)
                .filter(|pair| pair[0].text == name && pair[1].text == "!");
            found.extend(calls.map(|pair| {
                (
                    pair[0].line,
                    format!("{name}! is left over: finish it or remove it"),
                )
            }));
        }
        let ignored = code.windows(4).filter(|four| {
            four[0].text == "#"
                && four[1].text == "["
                && four[2].text == "ignore"
                && four[3].text == "]"
        });
        found.extend(ignored.map(|four| {
            (
                four[0].line,
                "a test is ignored without a reason: write #[ignore = \"why\"]".to_owned(),
            )
        }));
    } else if [".toml", ".sh", ".yml", ".yaml"]
        .iter()
        .any(|end| file.path.ends_with(end))
        || file.path.starts_with(".ci/")
    {
        found.extend(leftover_words(&tokens(text)));
    }
    if is_member_manifest(file) && !text.contains("[lints]\nworkspace = true") {
        found.push((
            0,
            "does not take the lints of the workspace: add [lints] workspace = true".to_owned(),
        ));
    }
    found
        .into_iter()
        .map(|(line, what)| Violation::new(file.path.as_str(), line, what))
        .collect()
}

fn leftover_words(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let words = LEFTOVER_WORDS.into_iter();
    words
        .flat_map(|word| {
            let lines = lines_naming(tokens, &[word]).into_iter();
            lines.map(move |line| {
                (
                    line,
                    format!("{word} is left over: do it now or make it an issue"),
                )
            })
        })
        .collect()
}

/// The manifest of a crate, not of the workspace.
fn is_member_manifest(file: &ProjectFile) -> bool {
    file.path.ends_with("/Cargo.toml")
}

/// The lines with an absolute path below one of [`MACHINE_FOLDERS`].
///
/// A slash counts as the start of a path where a word, a quote or a bracket may start, so that
/// `net/root/x` and `https://host/home/x` are not found. The bare folder is not either: it is an
/// ordinary word of manual pages and of containers.
fn machine_paths(text: &str) -> Vec<usize> {
    let names_one = |line: &str| {
        line.match_indices('/').any(|(at, _)| {
            let opens = line[..at]
                .chars()
                .next_back()
                .is_none_or(|before| before.is_whitespace() || "\"'`(<[{=:,;|".contains(before));
            let after = &line[at + 1..];
            let folder = after.split(|c| !is_word(c)).next().unwrap_or_default();
            let below = after[folder.len()..].strip_prefix('/');
            let goes_on = below.is_some_and(|name| name.starts_with(|c| is_word(c) || c == '.'));
            opens && MACHINE_FOLDERS.contains(&folder) && goes_on
        })
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| names_one(line))
        .map(|(index, _)| index + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&[ProjectFile::of(path, text)])
            .into_iter()
            .map(|violation| violation.line)
            .collect()
    }

    #[test]
    fn leftover_words_are_found_in_comments_but_not_in_strings() {
        for word in LEFTOVER_WORDS {
            assert_eq!(
                lines("a.rs", &format!("fn f() {{}}\n// {word}: later\n")),
                [2]
            );
            assert_eq!(lines("a.toml", &format!("# {word}\n")), [1]);
            assert_eq!(lines("a.rs", &format!("const A: &str = \"{word}\";\n")), []);
        }
        assert_eq!(lines("a.rs", "// fooXXXXXX\n"), []);
    }

    #[test]
    fn leftover_macros_are_found_in_code_but_not_in_comments() {
        for name in LEFTOVER_MACROS {
            assert_eq!(lines("a.rs", &format!("fn f() {{\n  {name}!()\n}}\n")), [2]);
            assert_eq!(lines("a.rs", &format!("/// {name}!()\nfn f() {{}}\n")), []);
        }
    }

    #[test]
    fn a_test_ignored_without_a_reason_is_found() {
        assert_eq!(lines("a.rs", "#[test]\n#[ignore]\nfn f() {}\n"), [2]);
        assert_eq!(
            lines("a.rs", "#[test]\n#[ignore = \"needs root\"]\nfn f() {}\n"),
            []
        );
    }

    #[test]
    fn paths_of_a_machine_are_found_and_relative_ones_are_not() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(lines("a.md", &format!("see\n`/{folder}/x`\n")), [2]);
            assert_eq!(lines("a.sh", &format!("cd /{folder}/.cargo\n")), [1]);
            let harmless =
                format!("net/{folder}/x https://a.b/{folder}/x /{folder}less/x /{folder} ");
            assert_eq!(lines("a.md", &harmless), []);
        }
    }

    #[test]
    fn bulk_is_found() {
        assert_eq!(lines("a.rs", &"\n".repeat(RUST_LINES_MAX)), []);
        assert_eq!(lines("a.rs", &"\n".repeat(RUST_LINES_MAX + 1)), [0]);
        let large = ProjectFile::new("a.txt", FILE_BYTES_MAX + 1, None);
        let binary = ProjectFile::new("a.bin", 4, None);
        let found = check(&[large, binary]);
        assert!(
            found[0].what.contains("over") && found[1].what.contains("binary"),
            "{found:?}"
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_crate_without_the_lints_of_the_workspace_is_found() {
        assert_eq!(lines("a/Cargo.toml", "[package]\n"), [0]);
        assert_eq!(
            lines("a/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"),
            []
        );
    }
}
