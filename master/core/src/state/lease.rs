//! A lease: a queue in the order of tokens, of which the first ones hold it.

use std::collections::BTreeMap;

use meros_proto::state::{Revision, SessionId, Token};
use serde::{Deserialize, Serialize};

/// A lease that somebody holds, so that there is always somebody in its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// So many of the queue hold it.
    pub(super) permits: u32,
    /// When the queue last changed.
    pub(super) modified: Revision,
    /// Who holds it, and then who waits, by tokens.
    pub(super) queue: BTreeMap<Token, SessionId>,
}

impl Lease {
    /// One that nobody holds yet.
    pub(super) fn new(permits: u32) -> Self {
        Self {
            permits,
            modified: Revision(0),
            queue: BTreeMap::new(),
        }
    }

    /// Whether one more could hold it at once.
    pub(super) fn has_free(&self) -> bool {
        self.queue.len() < self.permits as usize
    }

    /// Whether this token holds it.
    pub(super) fn holds(&self, token: Token) -> bool {
        self.queue.contains_key(&token) && self.queue.range(..token).count() < self.permits as usize
    }

    pub(super) fn push(&mut self, token: Token, session: SessionId, at: Revision) {
        self.queue.insert(token, session);
        self.modified = at;
    }

    /// Takes out what the session has there, or one token of it. Whether there was something.
    pub(super) fn remove(
        &mut self,
        session: SessionId,
        token: Option<Token>,
        at: Revision,
    ) -> bool {
        let before = self.queue.len();
        let is_meant = |it: &Token| token.is_none_or(|token| token == *it);
        self.queue
            .retain(|it, owner| *owner != session || !is_meant(it));
        let has_changed = self.queue.len() < before;
        if has_changed {
            self.modified = at;
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_hold_it() {
        let mut lease = Lease::new(2);
        for token in [3, 5, 8, 9] {
            lease.push(Token(token), SessionId(token % 2), Revision(token));
        }
        let holding = |lease: &Lease| {
            let tokens = lease.queue.keys().copied();
            tokens.filter(|it| lease.holds(*it)).collect::<Vec<_>>()
        };
        assert_eq!(holding(&lease), [Token(3), Token(5)]);
        assert!(!lease.holds(Token(4)), "nobody has this token");
        assert!(!lease.remove(SessionId(0), Some(Token(3)), Revision(10)));
        assert!(lease.remove(SessionId(1), Some(Token(3)), Revision(11)));
        assert_eq!(holding(&lease), [Token(5), Token(8)]);
        assert!(lease.remove(SessionId(1), None, Revision(12)));
        assert_eq!(holding(&lease), [Token(8)]);
        assert_eq!(lease.modified, Revision(12));
        assert!(lease.has_free());
    }
}
