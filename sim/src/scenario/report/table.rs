//! Tables for people: no borders, columns two blanks apart, numbers to the right.

use comfy_table::{CellAlignment, Table, presets};

/// Lays out rows under headings; the first column is text, the others numbers.
pub(crate) fn layout(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(headings.iter().map(ToString::to_string));
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A number of seconds, in the unit that says enough.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        _ if seconds < 10.0 => format!("{seconds:.1}s"),
        _ if seconds < 600.0 => format!("{seconds:.0}s"),
        _ if seconds < 36_000.0 => format!("{:.0}m", seconds / 60.0),
        _ => format!("{:.1}h", seconds / 3_600.0),
    }
}

/// A part of a whole in percent.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// A large number with a blank between thousands.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1 234 567");
        assert_eq!(
            [0.0123, 3.25, 59.7, 1_800.0, 90_000.0].map(time),
            ["12ms", "3.2s", "60s", "30m", "25.0h"]
        );
        assert_eq!(percent(0.1234), "12.3%");
    }
}
