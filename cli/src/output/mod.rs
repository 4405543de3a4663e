//! How rows are shown: tables for people, JSON for programs.

pub(crate) mod table;

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::CliError;

/// For whom to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
}

/// Prints rows in the wanted form.
///
/// # Errors
/// A value cannot be written as JSON, which would be our bug.
pub(crate) fn print<T: Serialize>(
    output: Output,
    rows: &[T],
    table: impl FnOnce(&[T]) -> String,
) -> Result<(), CliError> {
    print_one(output, rows, table)
}

/// Prints one thing in the wanted form.
///
/// # Errors
/// As of [`print()`].
pub(crate) fn print_one<T: Serialize + ?Sized>(
    output: Output,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    match output {
        Output::Table => println!("{}", text(value)),
        Output::Json => {
            let json = serde_json::to_string_pretty(value)
                .map_err(|error| CliError::failure(format!("cannot write JSON: {error}")))?;
            println!("{json}");
        }
    }
    Ok(())
}
