//! The file of wrapped keys: a second home of the keys beside the database.
//!
//! Owns its format. A key is in the file before the first row under it is written, so the file
//! alone opens every row; the database has a copy of each key that was used. Written as a whole
//! to a new file, flushed and renamed. Without the token the octets are worthless.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::keys::WrappedKey;

const MAGIC: &[u8; 8] = b"CIMKEYF1";

/// Format of a key as a row of the database.
const ROW_FORMAT: u8 = 1;

/// Number of the index key.
pub(super) const INDEX_KEY: u32 = 0;

/// A wrapped key with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number; [`INDEX_KEY`] or a data key's.
    pub(super) id: u32,
    /// When it was made, milliseconds since 1970.
    pub(super) created_ms: u64,
    pub(super) wrapped: WrappedKey,
}

impl Entry {
    /// The entry as a row of the database.
    pub(super) fn row(&self) -> (Vec<u8>, Vec<u8>) {
        let mut value = vec![ROW_FORMAT];
        value.extend_from_slice(&self.created_ms.to_be_bytes());
        value.extend_from_slice(self.wrapped.octets());
        (Self::row_key(self.id), value)
    }

    /// Where the row is.
    pub(super) fn row_key(id: u32) -> Vec<u8> {
        let mut key = ROW_PREFIX.to_vec();
        key.extend_from_slice(&id.to_be_bytes());
        key
    }

    /// The entry in a row of the database.
    pub(super) fn from_row(key: &[u8], value: &[u8]) -> Option<Self> {
        let id = u32::from_be_bytes(key.strip_prefix(ROW_PREFIX)?.try_into().ok()?);
        let (created, wrapped) = value.strip_prefix(&[ROW_FORMAT])?.split_first_chunk::<8>()?;
        let wrapped = WrappedKey::new(wrapped).ok()?;
        Some(Self { id, created_ms: u64::from_be_bytes(*created), wrapped })
    }
}

/// First octets of the rows of keys.
pub(super) const ROW_PREFIX: &[u8] = b"\0key";

/// Reads the file; `None` if it is damaged.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<Entry>>> {
    Ok(parse(&fs::read(path)?))
}

/// Replaces the file, durably.
pub(super) fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&compose(entries))?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn compose(entries: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for entry in entries {
        out.extend_from_slice(&entry.id.to_be_bytes());
        out.extend_from_slice(&entry.created_ms.to_be_bytes());
        let octets = entry.wrapped.octets();
        // `WrappedKey` is at most 512 octets long.
        out.extend_from_slice(&(octets.len() as u16).to_be_bytes());
        out.extend_from_slice(octets);
    }
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

fn parse(octets: &[u8]) -> Option<Vec<Entry>> {
    let (head, sum) = octets.split_last_chunk::<8>()?;
    if xxh3_64(head) != u64::from_be_bytes(*sum) {
        return None;
    }
    let mut rest = head.strip_prefix(MAGIC)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (id, after) = rest.split_first_chunk::<4>()?;
        let (created, after) = after.split_first_chunk::<8>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let (wrapped, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(Entry {
            id: u32::from_be_bytes(*id),
            created_ms: u64::from_be_bytes(*created),
            wrapped: WrappedKey::new(wrapped).ok()?,
        });
        rest = after;
    }
    Some(entries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        [(0, 40), (1, 1), (9, WrappedKey::LENGTH_MAX)]
            .map(|(id, length)| Entry {
                id,
                created_ms: 77 + u64::from(id),
                wrapped: WrappedKey::new(&vec![5; length]).unwrap(),
            })
            .to_vec()
    }

    #[test]
    fn the_file_and_the_rows_give_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        for entries in [vec![], entries()] {
            write(&path, &entries).unwrap();
            assert_eq!(read(&path).unwrap(), Some(entries.clone()));
            for entry in entries {
                let (key, value) = entry.row();
                assert_eq!(Entry::from_row(&key, &value), Some(entry));
            }
        }
        assert_eq!(Entry::from_row(b"\0key", &[ROW_FORMAT; 20]), None);
        assert_eq!(Entry::from_row(b"\0key1234", &[]), None);
        assert_eq!(Entry::from_row(b"\0key1234", &[ROW_FORMAT; 9]), None);
    }

    #[test]
    fn no_damaged_file_parses() {
        let whole = compose(&entries());
        assert!(parse(&whole).is_some());
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 4;
            assert_eq!(parse(&damaged), None, "{position}");
            assert_eq!(parse(&whole[..position]), None);
        }
    }
}
