//! Waiting for something to become true, with a deadline instead of a sleep.

use std::time::{Duration, Instant};

/// Asks again and again until the answer is yes.
///
/// # Panics
/// The deadline passes; the message says what was waited for.
pub fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
