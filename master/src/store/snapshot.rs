//! The snapshot: the whole registry, in pieces that fit a record.
//!
//! It is JSON, which names its fields, so that a later release can add some and a person can read
//! what is left of a damaged disk; the log in between stays in the compact form of the codec.

use meros_master_core::Registry;
use meros_proto::codec::{EncodeError, decode_record, encode_record};

use super::{OpenStoreError, STATE, Store};

/// Before each piece's number.
const PREFIX: &[u8] = b"snapshot/";

/// Bytes of JSON in one piece; well below what a record may hold.
const PIECE_BYTES: usize = 1 << 20;

/// The pieces in order.
pub(super) fn records(registry: &Registry) -> Result<Vec<Vec<u8>>, EncodeError> {
    let json = serde_json::to_vec(registry).map_err(|error| EncodeError::Unsupported {
        detail: error.to_string(),
    })?;
    json.chunks(PIECE_BYTES)
        .map(|piece| encode_record(&piece))
        .collect()
}

/// The key of a piece. Keys order as their numbers.
pub(super) fn key(number: usize) -> Vec<u8> {
    [PREFIX, &(number as u64).to_be_bytes()].concat()
}

/// From the first possible key to behind the last.
pub(super) fn key_range() -> (Vec<u8>, Vec<u8>) {
    (PREFIX.to_vec(), key(usize::MAX))
}

/// The registry as of the snapshot; an empty one if there is none.
pub(super) fn read(store: &Store) -> Result<Registry, OpenStoreError> {
    let mut json: Vec<u8> = Vec::new();
    for (number, item) in store.iterate(STATE, Some(PREFIX)).enumerate() {
        let (found, value) = item.map_err(|error| store.unreadable(error))?;
        if !found.starts_with(PREFIX) {
            break;
        }
        if *found != *key(number) {
            return Err(store.corrupt(format!("piece {number} of the snapshot is missing")));
        }
        let piece: Vec<u8> = decode_record(&value)
            .map_err(|error| store.corrupt(format!("piece {number} of the snapshot: {error}")))?;
        json.extend(piece);
    }
    if json.is_empty() {
        return Ok(Registry::default());
    }
    serde_json::from_slice(&json).map_err(|error| store.corrupt(format!("snapshot: {error}")))
}
