//! Frames in a stream of bytes: where one ends and the next begins.
//!
//! Absent: sockets. Whoever owns one pushes what it read and takes messages out.

use bytes::{Buf, BytesMut};
use serde::de::DeserializeOwned;

use super::{DecodeError, FRAME_BYTES_MAX, LENGTH_BYTES, WIRE_VERSION, read_versioned};

/// The first bytes of every stream, in both directions: a frame with a version and no message.
///
/// It makes a stream exist for the other side (QUIC announces a stream with its first byte), and
/// makes two releases that cannot talk find out at once, not at their first message.
pub const OPENING: [u8; LENGTH_BYTES + 1] = [0, 0, 0, 1, WIRE_VERSION];

/// A buffer larger than this is given back once empty: one huge frame must not pin its memory to
/// each of thousands of connections.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// Checks the first bytes of a stream against [`OPENING`].
///
/// # Errors
/// [`DecodeError::Version`] for another release; [`DecodeError::TooLong`] or
/// [`DecodeError::Malformed`] for a stranger.
pub fn check_opening(bytes: &[u8; OPENING.len()]) -> Result<(), DecodeError> {
    let [length @ .., theirs] = *bytes;
    if checked_length(length)? != 1 {
        return Err(DecodeError::Malformed {
            detail: "stream does not begin with an opening".into(),
        });
    }
    if theirs != WIRE_VERSION {
        return Err(DecodeError::Version {
            theirs,
            ours: WIRE_VERSION,
        });
    }
    Ok(())
}

/// The length field as a size within bounds.
pub(super) fn checked_length(field: [u8; LENGTH_BYTES]) -> Result<usize, DecodeError> {
    let length = usize::try_from(u32::from_be_bytes(field)).unwrap_or(usize::MAX);
    match length {
        0 => Err(DecodeError::Empty),
        1..=FRAME_BYTES_MAX => Ok(length),
        _ => Err(DecodeError::TooLong { length }),
    }
}

/// Collects bytes from a stream and gives out the messages in them.
///
/// Holds at most one incomplete frame (so at most [`FRAME_BYTES_MAX`] and a length field) plus what
/// was pushed since messages were last taken out: push one read, then take all messages.
///
/// The first error is final: what follows a bad frame cannot be trusted, so the bytes are dropped,
/// and the same error comes back for ever.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
    broken: Option<DecodeError>,
}

impl FrameBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Bytes held that have not yet become a message.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no byte is held, as it should be when a stream ends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[cfg(test)]
    pub(super) fn bytes_capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next message, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`DecodeError`], from then on always the same.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.split_frame().inspect_err(|error| {
            self.bytes = BytesMut::new();
            self.broken = Some(error.clone());
        })
    }

    fn split_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        let Some(field) = self.bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let end = LENGTH_BYTES + checked_length(*field)?;
        let Some(frame) = self.bytes.get(LENGTH_BYTES..end) else {
            return Ok(None);
        };
        let message = read_versioned(WIRE_VERSION, frame)?;
        self.bytes.advance(end);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
        Ok(Some(message))
    }
}
