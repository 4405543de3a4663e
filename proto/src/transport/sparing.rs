//! Log lines about what strangers do: some in a while, and then how many more there were. A master that
//! has stood still finds hundreds of handshakes that were given up meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines within [`WHILE`]: enough to see that there are several causes.
const LINES_MAX: u32 = 5;
const WHILE: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Sparing(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    untold: u64,
}

impl Sparing {
    /// Whether to write a line now; if so, how many were not written since the last one.
    pub(super) fn line(&self, now: Instant) -> Option<u64> {
        // A panic elsewhere leaves it as good as it was.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *window {
            Some(window) if now.saturating_duration_since(window.began) < WHILE => {
                if window.lines >= LINES_MAX {
                    window.untold += 1;
                    return None;
                }
                window.lines += 1;
                Some(std::mem::take(&mut window.untold))
            }
            over => {
                let untold = over.as_ref().map_or(0, |window| window.untold);
                *over = Some(Window {
                    began: now,
                    lines: 1,
                    untold: 0,
                });
                Some(untold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_become_a_few_and_the_next_tells_how_many_there_were() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let said = (0..100).filter(|_| sparing.line(start).is_some()).count();
        assert_eq!(said, 5);
        assert_eq!(sparing.line(start + WHILE), Some(95));
        assert_eq!(sparing.line(start + WHILE), Some(0));
        assert_eq!(sparing.line(start + WHILE * 3), Some(0), "all were told");
    }
}
