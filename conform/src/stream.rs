//! Streams of events: RecordIO over chunks (semantics A3, R1).

use std::time::Instant;

use serde_json::Value;

use crate::http::{Piece, Reply};
use crate::target::json;
use crate::{Checked, Halt, ensure};

/// The largest record, as that of a server with a very large cluster.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// Digits of a length.
const DIGITS_MAX: usize = 10;

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct Events {
    reply: Reply,
    /// What has come and is not a whole record yet.
    bytes: Vec<u8>,
    /// Each chunk so far was one record with its length.
    pub(crate) is_chunk_a_record: bool,
    /// No record so far had a byte beyond ASCII, or a raw newline.
    pub(crate) is_plain: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Event(Value),
    /// The server has ended it.
    End,
    /// Nothing within the time.
    Nothing,
}

impl Events {
    pub(crate) fn new(reply: Reply) -> Self {
        Self {
            reply,
            bytes: Vec::new(),
            is_chunk_a_record: true,
            is_plain: true,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.reply.header(name)
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.reply.is_chunked()
    }

    pub(crate) fn next(&mut self, deadline: Instant) -> Checked<Next> {
        loop {
            if let Some(record) = self.record()? {
                self.is_plain &= record.is_ascii() && !record.contains(&b'\n');
                let event = json(&record)
                    .map_err(|why| Halt::failed(format!("a record of the stream: {why}")))?;
                return Ok(Next::Event(event));
            }
            match self.reply.next(deadline)? {
                Piece::Chunk(chunk) => {
                    self.is_chunk_a_record &= self.bytes.is_empty() && is_one_record(&chunk);
                    self.bytes.extend(chunk);
                }
                Piece::End => {
                    ensure!(self.bytes.is_empty(), "the stream ends within a record");
                    return Ok(Next::End);
                }
                Piece::Nothing => return Ok(Next::Nothing),
            }
        }
    }

    /// Takes a record, if all of it is there.
    fn record(&mut self) -> Checked<Option<Vec<u8>>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            ensure!(self.bytes.len() <= DIGITS_MAX, "no length before a record");
            return Ok(None);
        };
        let length = length_of(&self.bytes[..end])
            .ok_or_else(|| Halt::failed("the length before a record is no number above 0"))?;
        if self.bytes.len() < end + 1 + length {
            return Ok(None);
        }
        let rest = self.bytes.split_off(end + 1 + length);
        let record = self.bytes.split_off(end + 1);
        self.bytes = rest;
        Ok(Some(record))
    }
}

fn length_of(digits: &[u8]) -> Option<usize> {
    let is_short = (1..=DIGITS_MAX).contains(&digits.len());
    let text = std::str::from_utf8(digits).ok()?;
    let is_plain = is_short && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|_| is_plain)?;
    (1..=RECORD_BYTES_MAX).contains(&length).then_some(length)
}

fn is_one_record(chunk: &[u8]) -> bool {
    let end = chunk.iter().position(|byte| *byte == b'\n');
    end.is_some_and(|end| length_of(&chunk[..end]) == Some(chunk.len() - end - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_a_record_or_not() {
        assert!(is_one_record(b"2\n{}"));
        for chunk in [&b"2\n{}2\n{}"[..], b"2\n{", b"2", b"0\n", b"+2\n{}", b"\n"] {
            assert!(!is_one_record(chunk), "{chunk:?}");
        }
    }
}
