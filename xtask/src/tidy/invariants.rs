//! docs/INVARIANTS.md and the sources name the same invariants.
//!
//! Each id of the table is written in some Rust file, and each id that a module header claims
//! (`//! Invariants: M1 a resource unit is in at most one outstanding offer; M3 …`) is in the
//! table. Absent: whether an invariant holds; its tests say that.

use std::collections::BTreeMap;

use super::scan::is_word;
use super::{ProjectFile, Violation};

/// Where the table is.
const DOCUMENT: &str = "docs/INVARIANTS.md";

/// Compares the table with the sources.
pub(super) fn check(files: &[ProjectFile]) -> Vec<Violation> {
    let document = files.iter().find(|file| file.path == DOCUMENT);
    let Some(text) = document.and_then(|file| file.text.as_deref()) else {
        return vec![Violation::new(
            DOCUMENT,
            0,
            "is missing: it lists every invariant, one row each",
        )];
    };
    let mut violations = Vec::new();
    let mut documented = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let Some(id) = row_id(line) else { continue };
        if documented.insert(id, index + 1).is_some() {
            let what = format!("{id} has two rows: give one of them an id of its own");
            violations.push(Violation::new(DOCUMENT, index + 1, what));
        }
    }
    if documented.is_empty() {
        violations.push(Violation::new(
            DOCUMENT,
            0,
            "has no row that starts with an id like `| M1 |`",
        ));
    }
    let sources = || files.iter().filter(|file| file.rust.is_some());
    for (id, line) in &documented {
        let named = |file: &ProjectFile| {
            let words = file
                .text
                .as_deref()
                .unwrap_or_default()
                .split(|c| !is_word(c));
            words.into_iter().any(|word| word == *id)
        };
        if !sources().any(named) {
            let what =
                format!("no Rust file names {id}: cite it where it is upheld, or drop the row");
            violations.push(Violation::new(DOCUMENT, *line, what));
        }
    }
    for file in sources() {
        for (line, id) in claimed(file.text.as_deref().unwrap_or_default()) {
            if !documented.contains_key(id) {
                let what =
                    format!("claims the invariant {id}, which {DOCUMENT} does not have: add it");
                violations.push(Violation::new(file.path.as_str(), line, what));
            }
        }
    }
    violations
}

/// The id in the first cell of a table row: `| M1 | …`, `| **M1** | …`, `` | `M1` | … ``.
fn row_id(line: &str) -> Option<&str> {
    let cell = line.trim_start().strip_prefix('|')?.split('|').next()?;
    let id = cell.trim_matches(|c: char| c.is_whitespace() || c == '*' || c == '`');
    is_id(id).then_some(id)
}

/// One to three capitals and a number.
fn is_id(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let capitals = word.len() - digits.len();
    (1..=3).contains(&capitals) && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// The ids that the header of a module claims, with their lines.
///
/// An id counts where a sentence or a list entry starts and outside of brackets, so that a fact
/// which is cited beside it, `(semantics: E6)`, is not taken for an invariant.
fn claimed(source: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut entry_starts = false;
    let mut brackets = 0_usize;
    for (index, line) in source.lines().enumerate() {
        let Some(header) = line.strip_prefix("//!") else {
            break;
        };
        let mut rest = header.trim();
        if let Some(list) = rest.split_once("Invariants:") {
            (inside, entry_starts, rest) = (true, true, list.1);
        }
        if rest.is_empty() {
            inside = false;
        }
        let words = rest.split_whitespace().take_while(|_| inside);
        for word in words {
            if word == "Absent:" {
                inside = false;
                break;
            }
            let opened = brackets + word.matches('(').count();
            let bare = word.trim_matches(|c: char| !is_word(c));
            let mut ids = bare
                .split(['-', '–', '/', '+'])
                .filter(|id| is_id(id))
                .peekable();
            let names_one = ids.peek().is_some();
            if entry_starts && opened == 0 {
                found.extend(ids.map(|id| (index + 1, id)));
            }
            entry_starts =
                word.ends_with([',', ';', '.']) || (entry_starts && (names_one || bare == "and"));
            brackets = opened.saturating_sub(word.matches(')').count());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "# Invariants\n\n| id | sentence |\n|---|---|\n| M1 | one |\n| **S12** | two |\n";

    fn check_with(source: &str) -> Vec<Violation> {
        check(&[
            ProjectFile::of(DOCUMENT, TABLE),
            ProjectFile::of("a/src/lib.rs", source),
        ])
    }

    #[test]
    fn a_missing_document_is_a_violation() {
        assert_eq!(check(&[])[0].path, DOCUMENT);
        assert_eq!(check(&[ProjectFile::of(DOCUMENT, "# nothing\n")]).len(), 1);
    }

    #[test]
    fn an_id_that_no_source_names_is_found() {
        assert_eq!(
            check_with("//! M1\nfn s() { panic!(\"S12 broken\") }\n"),
            []
        );
        let found = check_with("//! M1 and MS12\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].line, found[0].what.contains("S12")), (6, true));
    }

    #[test]
    fn an_id_with_two_rows_is_found() {
        let table = format!("{TABLE}| M1 | again |\n");
        let files = [
            ProjectFile::of(DOCUMENT, &table),
            ProjectFile::of("a.rs", "// M1 S12"),
        ];
        assert_eq!(check(&files)[0].line, 7);
    }

    #[test]
    fn a_header_that_claims_an_unknown_id_is_found() {
        let found = check_with(
            "//! The table.\n//!\n//! Invariants: M1 a unit is used\n//! once; M7 other.\n//! Absent: S12.\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].line, found[0].what.contains("M7")), (4, true));
        assert_eq!(check_with("//! Invariants: M1, M8 and M9. S12\n").len(), 2);
    }

    #[test]
    fn facts_cited_beside_invariants_are_not_taken_for_them() {
        let source = "//! Invariants: M1 an offer is used once (semantics: E6, E7), S12 as in\n//! (E9; E10) and semantics: E11.\n\n// E8";
        assert_eq!(check_with(source), []);
    }
}
