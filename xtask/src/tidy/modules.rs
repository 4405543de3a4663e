//! Every Rust file below a `src/` is compiled: some parent module says `mod` and its name.
//!
//! A file that no module names compiles never, fails never, and is read by people who believe
//! it. Files of `tests/`, `benches/` and `examples/` are found by cargo itself.

use super::scan::tokens;
use super::{ProjectFile, Violation};

/// Finds the orphans.
pub(super) fn check(files: &[ProjectFile]) -> Vec<Violation> {
    let orphans = files
        .iter()
        .filter(|file| file.rust.is_some())
        .filter_map(|file| {
            let (name, parents) = parents_of(&file.path)?;
            let declared = |parent: &String| {
                let found = files.iter().find(|candidate| candidate.path == *parent);
                found.is_some_and(|parent| declares(parent, name))
            };
            (!parents.iter().any(declared)).then(|| {
                let what = format!(
                    "no parent has `mod {name};`, so it is never compiled: declare or delete it"
                );
                Violation::new(file.path.as_str(), 0, what)
            })
        });
    orphans.collect()
}

/// The name of the module in the file at `path`, and the files that may declare it; None for the
/// root of a crate and for what is not below a `src/`.
fn parents_of(path: &str) -> Option<(&str, Vec<String>)> {
    let (package, inside) = match path.split_once("/src/") {
        Some((package, inside)) => (format!("{package}/src"), inside),
        None => ("src".to_owned(), path.strip_prefix("src/")?),
    };
    let module = inside.strip_suffix(".rs")?;
    let module = module.strip_suffix("/mod").unwrap_or(module);
    match module.split('/').collect::<Vec<_>>()[..] {
        ["lib" | "main"] | ["bin", _] | ["bin", _, "main"] => None,
        [name] => Some((
            name,
            vec![format!("{package}/lib.rs"), format!("{package}/main.rs")],
        )),
        [.., name] => {
            let folder = &module[..module.len() - name.len() - 1];
            let files = ["mod.rs", "main.rs"].map(|file| format!("{package}/{folder}/{file}"));
            let mut parents = vec![format!("{package}/{folder}.rs")];
            parents.extend(files);
            Some((name, parents))
        }
        [] => None,
    }
}

/// Whether the code of `parent` has `mod name;`.
fn declares(parent: &ProjectFile, name: &str) -> bool {
    let Some(rust) = &parent.rust else {
        return false;
    };
    let tokens = tokens(&rust.code);
    tokens
        .windows(3)
        .any(|three| three[0].text == "mod" && three[1].text == name && three[2].text == ";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| ProjectFile::of(path, text))
            .collect();
        check(&files)
            .into_iter()
            .map(|violation| violation.path)
            .collect()
    }

    #[test]
    fn a_file_that_no_parent_declares_is_found() {
        let found = orphans(&[
            ("a/src/lib.rs", "mod one;\n// mod three;\nmod inline { }"),
            ("a/src/one.rs", "#[cfg(test)]\nmod tests;"),
            ("a/src/one/tests.rs", ""),
            ("a/src/one/lost.rs", ""),
            ("a/src/three.rs", ""),
            ("a/src/inline.rs", ""),
        ]);
        assert_eq!(
            found,
            ["a/src/one/lost.rs", "a/src/three.rs", "a/src/inline.rs"]
        );
    }

    #[test]
    fn roots_and_folder_modules_are_not_orphans() {
        let found = orphans(&[
            ("a/src/main.rs", "mod two;"),
            ("a/src/two/mod.rs", "mod deep;"),
            ("a/src/two/deep.rs", "mod deeper;"),
            ("a/src/two/deep/deeper/mod.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/src/bin/load/main.rs", "mod part;"),
            ("a/src/bin/load/part.rs", ""),
            ("a/tests/all.rs", ""),
            ("a/examples/b/helper.rs", ""),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
