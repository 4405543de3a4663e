//! Many seeds, or the one that failed.

use std::cell::Cell;
use std::ops::Range;

/// Set to a number, it makes [`seeds`] run that seed alone.
pub const SEED_VARIABLE: &str = "MEROS_SEED";

thread_local! {
    /// The seed that a loop over `seeds` is at.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seeds to run a test with: `for seed in seeds(0..100) { … }`.
///
/// When one fails, the cluster prints the line that runs it alone: `MEROS_SEED=17 cargo test NAME`.
/// With [`SEED_VARIABLE`] set, only that seed is run, whether it is in the range or not.
///
/// # Panics
/// The variable is set to something that is no number.
#[must_use]
#[track_caller]
pub fn seeds(range: Range<u64>) -> Seeds {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => Seeds(only(&text)),
        Err(_) => Seeds(range),
    }
}

/// Iterates over seeds; made by [`seeds`].
#[derive(Debug, Clone)]
pub struct Seeds(Range<u64>);

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let seed = self.0.next();
        CURRENT.set(seed);
        seed
    }
}

#[track_caller]
fn only(text: &str) -> Range<u64> {
    match text.parse() {
        Ok(seed) if seed < u64::MAX => seed..seed + 1,
        _ => panic!("{SEED_VARIABLE} is {text:?}: a number is expected"),
    }
}

/// The line that runs a seed alone, if a loop over seeds is at it.
pub(super) fn replay(seed: u64) -> Option<String> {
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("");
    let is_current = CURRENT.get() == Some(seed);
    is_current.then(|| {
        format!("{SEED_VARIABLE}={seed} cargo test {test}")
            .trim_end()
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_of_a_loop_is_named_with_the_line_that_runs_it_alone() {
        let mut lines = Vec::new();
        for seed in Seeds(3..5) {
            lines.extend(replay(seed));
            assert_eq!(replay(seed + 1), None);
        }
        assert_eq!(replay(4), None, "the loop is over");
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("MEROS_SEED=3 cargo test "),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with("the_line_that_runs_it_alone"),
            "{lines:?}"
        );
    }

    #[test]
    fn the_variable_names_one_seed() {
        assert_eq!(only("17"), 17..18);
    }

    #[test]
    #[should_panic(expected = "MEROS_SEED is \"x\": a number is expected")]
    fn a_variable_that_is_no_number_is_named() {
        let _ = only("x");
    }
}
