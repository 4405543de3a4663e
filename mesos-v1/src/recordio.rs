//! RecordIO: `<decimal length>\n<bytes>`, repeated (semantics A3).

use bytes::{Buf, Bytes, BytesMut};

/// Digits of a length that are read: more would be a record of ten gigabytes.
const DIGITS_MAX: usize = 10;

/// A record in its frame, in one piece, since clients take a chunk for a record (semantics R1).
#[must_use]
pub fn frame(record: &[u8]) -> Bytes {
    let length = record.len().to_string();
    let mut out = BytesMut::with_capacity(length.len() + 1 + record.len());
    out.extend_from_slice(length.as_bytes());
    out.extend_from_slice(b"\n");
    out.extend_from_slice(record);
    out.freeze()
}

/// Why a stream is not RecordIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No decimal length, or one of zero.
    #[error("the length of a record is no number above zero")]
    Length,
    /// Longer than the reader allows.
    #[error("a record is longer than {max} bytes")]
    TooLong {
        /// What is allowed.
        max: usize,
    },
}

/// Reads records from pieces of a stream. Holds at most one record and its length.
#[derive(Debug)]
pub struct Decoder {
    record_max: usize,
    buffer: BytesMut,
    /// Of the record that is being read.
    length: Option<usize>,
}

impl Decoder {
    /// Records of more than `record_max` bytes are an error.
    #[must_use]
    pub fn new(record_max: usize) -> Self {
        Self {
            record_max,
            buffer: BytesMut::new(),
            length: None,
        }
    }

    /// Takes from `piece` until a record is complete; none if all of it is taken before that.
    ///
    /// # Errors
    /// [`RecordError`]; the stream cannot be read any further.
    pub fn next(&mut self, piece: &mut impl Buf) -> Result<Option<Bytes>, RecordError> {
        loop {
            if let Some(length) = self.length {
                let missing = length - self.buffer.len();
                let taken = missing.min(piece.remaining());
                self.buffer.extend_from_slice(&piece.copy_to_bytes(taken));
                if taken < missing {
                    return Ok(None);
                }
                self.length = None;
                return Ok(Some(self.buffer.split().freeze()));
            }
            if !piece.has_remaining() {
                return Ok(None);
            }
            match piece.get_u8() {
                b'\n' => {
                    let digits = std::str::from_utf8(&self.buffer).unwrap_or_default();
                    let length: usize = digits.parse().map_err(|_| RecordError::Length)?;
                    self.buffer.clear();
                    match length {
                        0 => return Err(RecordError::Length),
                        _ if length > self.record_max => {
                            return Err(RecordError::TooLong {
                                max: self.record_max,
                            });
                        }
                        _ => self.length = Some(length),
                    }
                }
                digit if digit.is_ascii_digit() && self.buffer.len() < DIGITS_MAX => {
                    self.buffer.extend_from_slice(&[digit]);
                }
                _ => return Err(RecordError::Length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back_however_the_stream_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            cut in 1..40_usize,
        ) {
            let stream: Vec<u8> = records.iter().flat_map(|record| frame(record)).collect();
            let mut decoder = Decoder::new(50);
            let mut read: Vec<Vec<u8>> = Vec::new();
            for mut piece in stream.chunks(cut) {
                while let Some(record) = decoder.next(&mut piece).expect("well framed") {
                    read.push(record.to_vec());
                }
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_read_without_growing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(64);
            let mut piece = bytes.as_slice();
            while let Ok(Some(record)) = decoder.next(&mut piece) {
                prop_assert!(record.len() <= 64);
            }
            prop_assert!(decoder.buffer.capacity() <= 512);
        }
    }

    #[test]
    fn a_length_that_is_none_is_an_error() {
        for (stream, error) in [
            ("0\n", RecordError::Length),
            ("\n", RecordError::Length),
            ("-1\n", RecordError::Length),
            ("1a\n", RecordError::Length),
            ("99999999999\n", RecordError::Length),
            ("65\n", RecordError::TooLong { max: 64 }),
        ] {
            let read = Decoder::new(64).next(&mut stream.as_bytes());
            assert_eq!(read, Err(error), "{stream:?}");
        }
    }
}
