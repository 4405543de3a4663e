//! Tables for people: no borders, columns two blanks apart, so that `awk` likes them too.

use std::time::Duration;

use comfy_table::{Table, presets};
use meros_proto::time::Timestamp;

/// Lays out rows under headings; without rows, says so.
pub(crate) fn layout(headings: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return nothing.to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(headings.iter().map(ToString::to_string));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// How long ago, in the largest unit that says enough: `4s`, `12m`, `3h`, `9d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    short(now.since(since))
}

/// A duration in the largest unit that says enough.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The text with a blank for each control character: a terminal would obey those that a task, a
/// framework or a slave has put into it.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The text, or its beginning and an ellipsis.
pub(crate) fn shortened(text: &str, chars: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= chars {
        return text;
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_says_that_there_is_nothing() {
        assert_eq!(layout(&["TASK"], Vec::new(), "no tasks"), "no tasks");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), "2".to_owned()],
        ];
        assert_eq!(layout(&["ID", "N"], rows, ""), "ID   N\na    1\nbcd  2");
    }

    #[test]
    fn ages_are_short() {
        let ages = [
            (5, "5s"),
            (119, "119s"),
            (150, "2m"),
            (7_200, "2h"),
            (200_000, "2d"),
        ];
        for (seconds, text) in ages {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn no_cell_reaches_the_terminal_with_control_characters() {
        let rows = vec![vec!["ho\x07st".to_owned(), "a\u{9b}31mb\n".to_owned()]];
        assert_eq!(layout(&["HOST", "B"], rows, ""), "HOST   B\nho st  a 31mb");
    }

    #[test]
    fn control_characters_of_a_task_do_not_reach_the_terminal() {
        assert_eq!(shortened("a\x1b[2Jb", 10), "a [2Jb");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }
}
