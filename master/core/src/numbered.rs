//! A dense table by the small numbers that the registry gives out.

/// Rows by number. Numbers are never used twice, so a removed row leaves a hole of one word.
#[derive(Debug, Clone)]
pub(crate) struct Numbered<T> {
    rows: Vec<Option<Box<T>>>,
    len: usize,
}

// Derived, it would ask for `T: Default`.
impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Numbered<T> {
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.rows.get(number as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.rows.get_mut(number as usize)?.as_deref_mut()
    }

    /// Puts a row in, in place of one that was there.
    pub(crate) fn insert(&mut self, number: u32, row: T) -> Option<Box<T>> {
        let at = number as usize;
        if at >= self.rows.len() {
            self.rows.resize_with(at + 1, || None);
        }
        let before = self.rows[at].replace(Box::new(row));
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<Box<T>> {
        let row = self.rows.get_mut(number as usize)?.take();
        self.len -= usize::from(row.is_some());
        row
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + Clone {
        (0u32..)
            .zip(&self.rows)
            .filter_map(|(number, row)| Some((number, row.as_deref()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
