//! Rust source without its comments and strings, and the words that remain.
//!
//! Not a parser: enough to know whether a name is written in code, in a comment or in a string.
//! Absent: macros, types, name resolution (clippy's `disallowed_*` lints have those).

/// One source text in two views. Both have the length and the lines of the original; what does
/// not belong to the view is spaces, so that a line number in one is a line number in the other.
#[derive(Debug)]
pub(crate) struct Views {
    /// Code only: comments blanked, string and character literals emptied.
    pub(crate) code: String,
    /// Comments only, doc comments included.
    pub(crate) comments: String,
}

/// What the scanner is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    LineComment,
    /// Block comments nest; the depth starts at 1.
    BlockComment(u32),
    /// A string that `"` ends and in which `\` escapes.
    Text,
    /// A raw string that `"` and this many `#` end.
    RawText(usize),
}

impl Views {
    /// Splits `source` into its views.
    pub(crate) fn of(source: &str) -> Self {
        let chars: Vec<char> = source.chars().collect();
        let mut code = String::with_capacity(source.len());
        let mut comments = String::with_capacity(source.len());
        let mut inside = Inside::Code;
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            let next = chars.get(at + 1).copied();
            let (taken, then) = match inside {
                Inside::Code => enter(&chars, at),
                Inside::LineComment if c == '\n' => (1, Inside::Code),
                Inside::BlockComment(depth) if c == '/' && next == Some('*') => {
                    (2, Inside::BlockComment(depth + 1))
                }
                Inside::BlockComment(depth) if c == '*' && next == Some('/') => match depth {
                    1 => (2, Inside::Code),
                    _ => (2, Inside::BlockComment(depth - 1)),
                },
                Inside::Text if c == '\\' => (2, Inside::Text),
                Inside::Text if c == '"' => (1, Inside::Code),
                Inside::RawText(hashes) if c == '"' && hashes_at(&chars, at + 1) >= hashes => {
                    (1 + hashes, Inside::Code)
                }
                other => (1, other),
            };
            for &c in chars.iter().skip(at).take(taken) {
                let comment = is_comment(inside) || is_comment(then);
                let blank = if c == '\n' { '\n' } else { ' ' };
                // The quotes of a literal stay, as an empty literal: `#[ignore = ""]`.
                let is_code = !comment && (inside == Inside::Code || then == Inside::Code);
                code.push(if is_code && taken <= 2 { c } else { blank });
                comments.push(if comment { c } else { blank });
            }
            inside = then;
            at += taken;
        }
        Self { code, comments }
    }
}

fn is_comment(inside: Inside) -> bool {
    matches!(inside, Inside::LineComment | Inside::BlockComment(_))
}

/// How many characters of code start at `at` as one unit, and what follows them.
fn enter(chars: &[char], at: usize) -> (usize, Inside) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (2, Inside::LineComment),
        '/' if next == Some('*') => (2, Inside::BlockComment(1)),
        '"' => (1, Inside::Text),
        // `r"`, `br##"`, `cr#"`: the prefix letters were taken as code, which harms nobody.
        'r' if !ends_word(chars, at) => {
            let hashes = hashes_at(chars, at + 1);
            match chars.get(at + 1 + hashes) {
                Some('"') => (2 + hashes, Inside::RawText(hashes)),
                _ => (1, Inside::Code),
            }
        }
        // A character literal, or a lifetime, which has no closing quote.
        '\'' => match (next, chars.get(at + 2)) {
            (Some('\\'), _) => {
                let end = (at + 3..chars.len()).find(|&end| chars[end] == '\'');
                (end.map_or(1, |end| end + 1 - at), Inside::Code)
            }
            (Some(_), Some('\'')) => (3, Inside::Code),
            _ => (1, Inside::Code),
        },
        _ => (1, Inside::Code),
    }
}

/// Whether the `r` at `at` ends a longer word (`for"`) and so cannot open a raw string.
fn ends_word(chars: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|i| chars[i]);
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        Some(c) => is_word(c),
        None => false,
    }
}

fn hashes_at(chars: &[char], at: usize) -> usize {
    chars.iter().skip(at).take_while(|c| **c == '#').count()
}

/// Whether `c` can be part of a name or a number.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A word, `::`, or another single character that is not white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// The tokens of a view, in order.
pub(crate) fn tokens(view: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (index, mut rest) in view.lines().enumerate() {
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(length);
            if !first.is_whitespace() {
                found.push(Token {
                    line: index + 1,
                    text,
                });
            }
            rest = after;
        }
    }
    found
}

/// The lines on which `path` (`std::time::Instant`) is written, as a whole or as a member of a
/// `use` group (`use std::time::{Duration, Instant}`).
pub(crate) fn lines_naming(tokens: &[Token<'_>], path: &[&str]) -> Vec<usize> {
    let Some((&member, parent)) = path.split_last() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for start in 0..tokens.len() {
        let Some(after_parent) = follows(&tokens[start..], parent) else {
            continue;
        };
        let rest = &tokens[start + after_parent..];
        match rest.first() {
            Some(token) if token.text == member => lines.push(token.line),
            Some(token) if token.text == "{" && !parent.is_empty() => {
                lines.extend(
                    group_members(rest)
                        .filter(|t| t.text == member)
                        .map(|t| t.line),
                );
            }
            _ => {}
        }
    }
    lines
}

/// How many tokens `a::b::` takes, if `tokens` starts with that.
fn follows(tokens: &[Token<'_>], path: &[&str]) -> Option<usize> {
    let expected = path.iter().flat_map(|part| [*part, "::"]);
    let mut taken = 0;
    for text in expected {
        if tokens.get(taken)?.text != text {
            return None;
        }
        taken += 1;
    }
    Some(taken)
}

/// The first words of the entries of the group `{…}` that `tokens` starts with.
fn group_members<'a, 'b>(tokens: &'b [Token<'a>]) -> impl Iterator<Item = &'b Token<'a>> {
    let mut depth = 0_usize;
    let mut entry_starts = false;
    let mut closed = false;
    tokens.iter().filter(move |token| {
        let is_member = !closed && depth == 1 && entry_starts;
        entry_starts = matches!(token.text, "{" | ",");
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                closed |= depth == 0;
            }
            _ => return is_member,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        Views::of(source).code
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let source = "let a = \"std::fs \\\" HashMap\"; // HashSet\n/* x /* y */ z */ b(r#\"q\"w\"#, 'c', '\\'', '\"');";
        let views = Views::of(source);
        for hidden in ["std::fs", "HashMap", "HashSet", "x", "z", "q", "w"] {
            assert!(!views.code.contains(hidden), "{hidden} in {:?}", views.code);
        }
        assert!(views.code.contains("let a") && views.code.contains("b("));
        assert!(views.comments.contains("HashSet") && !views.comments.contains("HashMap"));
        assert!(
            views.code.ends_with(");"),
            "a quote in a character literal opened a string"
        );
        assert_eq!(views.code.lines().count(), 2);
    }

    #[test]
    fn lifetimes_do_not_hide_what_follows() {
        assert!(code("fn f<'a>(x: &'a str) -> HashMap {}").contains("HashMap"));
        assert!(code("for\"x\".len(); HashMap").contains("HashMap"));
    }

    #[test]
    fn unfinished_source_ends_the_scan_without_a_panic() {
        for source in ["\"", "r#\"", "/*", "'\\", "'", "\"\\", "r", "br", "/"] {
            assert_eq!(Views::of(source).code.len(), source.len());
        }
    }

    #[test]
    fn a_path_is_found_whole_and_in_a_use_group() {
        let find = |source: &str, path: &[&str]| lines_naming(&tokens(source), path);
        let instant = ["std", "time", "Instant"];
        assert_eq!(find("let a =\n std::time::Instant::now();", &instant), [2]);
        assert_eq!(find("use std::time::{Duration,\n Instant};", &instant), [2]);
        assert_eq!(find("use std::{fs::File, io};", &["std", "fs"]), [1]);
        assert_eq!(find("use std::{io::{fs}}; fs", &["std", "fs"]), []);
        assert_eq!(find("use my::time::Instant;", &instant), []);
        assert_eq!(find("struct HashMapper;", &["HashMap"]), []);
    }
}
