//! The codec: messages to bounded frames and back. The only user of bincode in the project, so that
//! the format can be replaced here alone (bincode is no longer maintained, RUSTSEC-2025-0141).
//!
//! A frame is `length: u32 big endian` (of what follows) · `version: u8` · `payload` (bincode,
//! standard configuration: little endian, variable-length integers). A stored value (a *record*) is
//! `version: u8` · `payload`, its length being known to the store.
//!
//! Bytes from outside end in a message or in a [`DecodeError`]: never a panic, never a wait, never
//! memory out of proportion to the input, never deep recursion.
//!
//! Rules for types on the wire: bincode is positional, so append enum variants at the end, and use
//! no `usize`, `skip_serializing_if`, `flatten`, `untagged` or `deserialize_any`.
//!
//! Absent: sockets, clocks, the meaning of messages.

mod bounded;
mod frame;
#[cfg(test)]
mod tests;

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};

pub use frame::{FrameBuffer, OPENING, check_opening};

/// The version byte of every frame. Peers of different versions refuse each other with
/// [`DecodeError::Version`].
pub const WIRE_VERSION: u8 = 6;

/// The version byte of every stored record; apart from [`WIRE_VERSION`], because what is on disk
/// outlives the release that wrote it.
pub const RECORD_VERSION: u8 = 1;

/// The most bytes that may follow a frame's length field (version byte and payload): 4 MiB.
///
/// The largest honest message is a slave that re-registers with all it runs: 4,000 tasks at 1 KiB.
/// Longer lists are sent in several messages. A peer can make us hold this much, so it is no larger.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the length field.
const LENGTH_BYTES: usize = 4;

// bincode's own limit is not used: it counts every integer at its full width, so it refuses honest
// frames, and `bounded` guards what it would guard.
const FORMAT: bincode::config::Configuration = bincode::config::standard();

/// Why a message could not become a frame. Always our own doing, never a peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message is larger than [`FRAME_BYTES_MAX`]; send it in parts.
    #[error("message does not fit a frame of {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// The type cannot be written in this format, such as a sequence of unknown length.
    #[error("message cannot be encoded: {detail}")]
    Unsupported {
        /// What serde or bincode said.
        detail: String,
    },
}

/// Why bytes are not a message. The set is closed; [`DecodeError::code`] is stable and may be sent,
/// logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The length field is beyond [`FRAME_BYTES_MAX`].
    #[error("frame of {length} bytes is longer than the limit of {FRAME_BYTES_MAX}")]
    TooLong {
        /// What the length field said.
        length: usize,
    },
    /// A frame or record without even a version byte.
    #[error("empty frame")]
    Empty,
    /// Written by a release that speaks another version.
    #[error("peer speaks format version {theirs}, this release speaks {ours}")]
    Version {
        /// The version byte that was found.
        theirs: u8,
        /// The version that this release reads.
        ours: u8,
    },
    /// The payload ends inside a value.
    #[error("payload ends inside a value")]
    Truncated,
    /// Bytes are left after the value.
    #[error("{bytes} bytes left after the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// Nested deeper than any message of ours.
    #[error("message is nested too deeply")]
    TooDeep,
    /// The message would take far more memory than its bytes justify.
    #[error("message would take too much memory")]
    TooLarge,
    /// A byte that the expected type cannot have: an unknown variant, text that is not UTF-8, a value
    /// refused by its type.
    #[error("malformed message: {detail}")]
    Malformed {
        /// What was wrong, at most 200 characters.
        detail: String,
    },
}

impl DecodeError {
    /// The stable name of this kind of error, for metrics and for the reason sent to the peer.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "frame_too_long",
            Self::Empty => "frame_empty",
            Self::Version { .. } => "frame_version",
            Self::Truncated => "payload_truncated",
            Self::Trailing { .. } => "payload_trailing",
            Self::TooDeep => "payload_too_deep",
            Self::TooLarge => "payload_too_large",
            Self::Malformed { .. } => "payload_malformed",
        }
    }
}

/// Appends one frame holding `message` to `out`.
///
/// # Errors
/// [`EncodeError`]; `out` is then as it was before.
pub fn encode<T: Serialize>(message: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let written = write_versioned(WIRE_VERSION, message, out);
    match written {
        Ok(()) => {
            let length = u32::try_from(out.len() - start - LENGTH_BYTES)
                .expect("the writer stops at FRAME_BYTES_MAX, which fits 32 bits");
            out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// How many bytes a value takes in a message.
///
/// # Errors
/// [`EncodeError::Unsupported`].
pub fn encoded_bytes<T: Serialize>(value: &T) -> Result<usize, EncodeError> {
    let mut size = bincode::enc::write::SizeWriter::default();
    bincode::serde::encode_into_writer(value, &mut size, FORMAT).map_err(|error| {
        EncodeError::Unsupported {
            detail: error.to_string(),
        }
    })?;
    Ok(size.bytes_written)
}

/// Reads the one message of a complete frame, length field included.
///
/// For streams use [`FrameBuffer`], which finds the frames.
///
/// # Errors
/// [`DecodeError`]; also when `frame` is shorter or longer than its length field says.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, DecodeError> {
    let (length, rest) = frame
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or(DecodeError::Truncated)?;
    let length = frame::checked_length(*length)?;
    match rest.len().checked_sub(length) {
        None => Err(DecodeError::Truncated),
        Some(0) => read_versioned(WIRE_VERSION, rest),
        Some(bytes) => Err(DecodeError::Trailing { bytes }),
    }
}

/// A value as bytes for a store: version byte and payload, at most [`FRAME_BYTES_MAX`].
///
/// # Errors
/// [`EncodeError`].
pub fn encode_record<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    write_versioned(RECORD_VERSION, value, &mut out)?;
    Ok(out.into())
}

/// The value of a record made by [`encode_record`].
///
/// # Errors
/// [`DecodeError`].
pub fn decode_record<T: DeserializeOwned>(record: &[u8]) -> Result<T, DecodeError> {
    if record.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLong {
            length: record.len(),
        });
    }
    read_versioned(RECORD_VERSION, record)
}

fn write_versioned<T: Serialize>(
    version: u8,
    value: &T,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    out.extend_from_slice(&[version]);
    let writer = PayloadWriter {
        out,
        left: FRAME_BYTES_MAX - 1,
    };
    bincode::serde::encode_into_writer(value, writer, FORMAT).map_err(|error| match error {
        bincode::error::EncodeError::UnexpectedEnd => EncodeError::TooLong,
        other => EncodeError::Unsupported {
            detail: other.to_string(),
        },
    })
}

fn read_versioned<T: DeserializeOwned>(ours: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let (&theirs, payload) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if theirs != ours {
        return Err(DecodeError::Version { theirs, ours });
    }
    bounded::decode_payload(payload)
}

/// Stops at the bound while writing, so that a message that is far too long never fills the memory.
struct PayloadWriter<'a> {
    out: &'a mut BytesMut,
    left: usize,
}

impl bincode::enc::write::Writer for PayloadWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(bincode::error::EncodeError::UnexpectedEnd)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}
