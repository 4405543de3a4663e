//! Reading sequences whose length a stranger chose.
//!
//! A length in a frame is a claim: nothing is allocated for it, and reading stops with an error at
//! the bound, before the rest of the sequence is looked at.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Reads a sequence of at most `max` elements; `what` names them in errors.
pub(crate) fn read<'de, D, T>(
    deserializer: D,
    max: usize,
    what: &'static str,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(BoundedList {
        max,
        what,
        element: PhantomData,
    })
}

struct BoundedList<T> {
    max: usize,
    what: &'static str,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedList<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} {}", self.max, self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        // The size hint is the stranger's claim; growth follows what has really been read.
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == self.max {
                return Err(A::Error::custom(format_args!(
                    "more than {} {}",
                    self.max, self.what
                )));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}
