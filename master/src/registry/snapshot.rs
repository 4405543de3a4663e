//! The snapshot: the whole registry, in pieces that fit a record.
//!
//! It is JSON, which names its fields, so that a later release can add some and a person can read
//! what is left of a damaged disk; the log in between stays in the compact form of the codec.

use meros_master_core::{Format, Registry};
use rocksdb::{Direction, IteratorMode, WriteBatch};
use serde::{Deserialize, Serialize};

use super::db::{Db, STATE};
use super::error::{OpenStoreError, WriteError};
use super::types::{EntryId, Members, SnapshotMeta, StoredMembers};

const KEY_META: &[u8] = b"snapshot_meta";
/// Before each piece's number.
const PREFIX: &[u8] = b"snapshot/";
/// Bytes of JSON in one piece; well below what a record may hold.
const PIECE_BYTES: usize = 1 << 20;

/// What a snapshot is of. Stored apart from it, since the leader sends it apart, too.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) applied: Option<EntryId>,
    pub(super) members_at: Option<EntryId>,
    pub(super) members: Members,
    pub(super) id: String,
}

/// Puts a snapshot in the place of the one before, durably. Blocks.
pub(super) fn store(
    db: &Db,
    meta: &SnapshotMeta,
    format: Format,
    json: &[u8],
) -> Result<(), WriteError> {
    let mut batch = WriteBatch::default();
    put(db, &mut batch, meta, format, json)?;
    db.write_synced(batch)
}

/// Adds that to a batch.
pub(super) fn put(
    db: &Db,
    batch: &mut WriteBatch,
    meta: &SnapshotMeta,
    format: Format,
    json: &[u8],
) -> Result<(), WriteError> {
    db.put_format(batch, format);
    batch.delete_range_cf(db.state(), PREFIX.to_vec(), key(usize::MAX));
    for (number, piece) in json.chunks(PIECE_BYTES).enumerate() {
        db.put(batch, &key(number), &piece)?;
    }
    let meta = Meta {
        applied: meta.last_log_id,
        members_at: *meta.last_membership.log_id(),
        members: meta.last_membership.membership().into(),
        id: meta.snapshot_id.clone(),
    };
    db.put(batch, KEY_META, &meta)
}

/// The stored snapshot, if there is one.
pub(super) fn load(db: &Db) -> Result<Option<(SnapshotMeta, Vec<u8>)>, OpenStoreError> {
    let Some(meta) = db.get::<Meta>(KEY_META)? else {
        return Ok(None);
    };
    let mut json: Vec<u8> = Vec::new();
    let pieces = db.iterate(STATE, IteratorMode::From(PREFIX, Direction::Forward));
    for (number, item) in pieces.enumerate() {
        let (found, _) = item.map_err(|error| db.unreadable(error))?;
        if !found.starts_with(PREFIX) {
            break;
        }
        if *found != *key(number) {
            return Err(db.corrupt(format!("piece {number} of the snapshot is missing")));
        }
        let piece: Option<Vec<u8>> = db.get(&found)?;
        json.extend(piece.unwrap_or_default());
    }
    let meta = SnapshotMeta {
        last_log_id: meta.applied,
        last_membership: StoredMembers::new(meta.members_at, meta.members.into()),
        snapshot_id: meta.id,
    };
    Ok(Some((meta, json)))
}

/// The text of a registry.
///
/// # Errors
/// It holds something that has no form in JSON, which would be a bug.
pub(super) fn encode(registry: &Registry) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(registry)
}

/// The registry of a text.
pub(super) fn decode(json: &[u8]) -> serde_json::Result<Registry> {
    serde_json::from_slice(json)
}

/// The format of the registry in a text, whatever else is in it.
pub(super) fn format(json: &[u8]) -> serde_json::Result<Format> {
    Ok(serde_json::from_slice::<Head>(json)?.format)
}

/// What the registry of every format has.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Head {
    pub(super) format: Format,
}

/// The key of a piece. Keys order as their numbers.
fn key(number: usize) -> Vec<u8> {
    [PREFIX, &(number as u64).to_be_bytes()].concat()
}
