//! Pages of a list: some of the rows that match, and where the next page begins.
//!
//! A cursor names the last row that was given, not a position, so rows that come and go meanwhile
//! shift nothing: whatever is there during all of a reading is in it. It is of one master's life.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use meros_proto::ids::{FrameworkId, TaskId};

/// Some of the rows that match, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The first of them, after the cursor.
    pub rows: Vec<T>,
    /// All of them, those before the cursor too.
    pub total: usize,
    /// The cursor of the last row, if there are more after it.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page of a whole table, in the order of its keys.
    pub(super) fn of<K: Ord + Copy + fmt::Display, V>(
        table: &BTreeMap<K, V>,
        after: Option<K>,
        limit: usize,
        row: impl Fn(&V) -> T,
    ) -> Self {
        let mut page = Builder::new(limit);
        for (key, value) in table.range(beyond(after)) {
            page.add(false, || key.to_string(), || row(value));
            if page.more {
                break;
            }
        }
        Page {
            total: table.len(),
            ..page.finish()
        }
    }
}

/// The keys after this one; all without one.
pub(super) fn beyond<K>(after: Option<K>) -> (Bound<K>, Bound<K>) {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}

/// Takes the rows of one page and notices that there are more.
pub(super) struct Builder<T> {
    rows: Vec<T>,
    limit: usize,
    total: usize,
    last: Option<String>,
    more: bool,
}

impl<T> Builder<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            rows: Vec::new(),
            limit,
            total: 0,
            last: None,
            more: false,
        }
    }

    /// A row that matches; `seen` if it comes before the cursor.
    pub(super) fn add(
        &mut self,
        seen: bool,
        cursor: impl FnOnce() -> String,
        row: impl FnOnce() -> T,
    ) {
        self.total += 1;
        if seen {
            return;
        }
        if self.rows.len() == self.limit {
            self.more = true;
            return;
        }
        self.rows.push(row());
        // Only the last one that fits is asked for.
        if self.rows.len() == self.limit {
            self.last = Some(cursor());
        }
    }

    pub(super) fn finish(self) -> Page<T> {
        Page {
            rows: self.rows,
            total: self.total,
            next: self.last.filter(|_| self.more),
        }
    }
}

/// A task's place in the list: those in the master's tables by framework and id, then those that
/// have left them, by framework, newest first.
///
/// As text `live/F0/web.1` and `left/F0/17`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskCursor {
    /// In the tables.
    Live(FrameworkId, TaskId),
    /// The so many-th of its framework to leave them.
    Left(FrameworkId, u64),
}

impl fmt::Display for TaskCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(framework, task) => write!(f, "live/{framework}/{task}"),
            Self::Left(framework, number) => write!(f, "left/{framework}/{number}"),
        }
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("after is no cursor: take it from x-meros-next of the page before")]
pub struct BadCursor;

impl FromStr for TaskCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(BadCursor);
        let (kind, framework, rest) = (part()?, part()?, part()?);
        let framework = framework.parse().map_err(|_| BadCursor)?;
        match kind {
            "live" => TaskId::new(rest)
                .map(|task| Self::Live(framework, task))
                .map_err(|_| BadCursor),
            "left" => rest
                .parse()
                .map(|number| Self::Left(framework, number))
                .map_err(|_| BadCursor),
            _ => Err(BadCursor),
        }
    }
}
