//! The database under the store: fjall with the configuration that was measured, and its hooks.
//!
//! Owns the handles. Three keyspaces: the spool, whose rows come and go; the state, which stays;
//! the meta rows of the store itself. Panics of the library over damaged files are caught here and
//! become errors. Reads for callers go through a snapshot, so that they see a batch as a whole.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Guard, Keyspace, KeyspaceCreateOptions, KvPair, PersistMode,
    Readable, Slice,
};

use super::journal::LINK_KEY;
use crate::store::{Direction, StoreError, Table};

const CACHE_OCTETS: u64 = 64 << 20;
const JOURNAL_OCTETS_MAX: u64 = 256 << 20;
const SPOOL_MEMTABLE_OCTETS: u64 = 64 << 20;
const STATE_MEMTABLE_OCTETS: u64 = 16 << 20;
const WORKERS: usize = 2;

/// A keyspace of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Space {
    /// The store's own rows: data keys, index key.
    Meta,
    /// Tables of [`Table::is_spool`].
    Spool,
    /// All other tables.
    State,
}

impl Space {
    pub(super) const ALL: [Self; 3] = [Self::Meta, Self::Spool, Self::State];

    /// Where a table lives.
    pub(super) const fn of(table: Table) -> Self {
        if table.is_spool() { Self::Spool } else { Self::State }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Spool => "spool",
            Self::State => "state",
        }
    }

    fn options(self) -> KeyspaceCreateOptions {
        let memtable = match self {
            Self::Spool => SPOOL_MEMTABLE_OCTETS,
            Self::Meta | Self::State => STATE_MEMTABLE_OCTETS,
        };
        // Sealed values do not compress.
        KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(memtable)
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
    }
}

/// What went wrong in the database.
#[derive(Debug)]
pub(super) enum DatabaseError {
    /// Another process has it.
    Locked,
    /// The file system is full.
    NoSpace(String),
    /// A background task failed earlier; nothing was written now.
    Poisoned,
    /// Anything else: damage, or a device that fails.
    Failed(String),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => formatter.write_str("another process uses the store"),
            Self::NoSpace(text) => write!(formatter, "the file system is full: {text}"),
            Self::Poisoned => formatter.write_str("a background task of the database failed"),
            Self::Failed(text) => formatter.write_str(text),
        }
    }
}

impl From<fjall::Error> for DatabaseError {
    fn from(error: fjall::Error) -> Self {
        let io = match &error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => Some(io),
            _ => None,
        };
        if let Some(io) = io {
            let text = io.to_string();
            return match io.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Self::NoSpace(text)
                }
                _ => Self::Failed(text),
            };
        }
        match error {
            fjall::Error::Locked => Self::Locked,
            fjall::Error::Poisoned => Self::Poisoned,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        Self::Damaged { text: error.to_string() }
    }
}

/// The open database.
pub(super) struct Database {
    database: fjall::Database,
    spaces: [Keyspace; 3],
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Database(..)")
    }
}

impl Database {
    /// Opens the database in `path`, creating it.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        guarded(|| {
            let database = fjall::Database::builder(path)
                .cache_size(CACHE_OCTETS)
                .journal_compression(CompressionType::None)
                .manual_journal_persist(true)
                .max_journaling_size(JOURNAL_OCTETS_MAX)
                .worker_threads(WORKERS)
                .open()?;
            let [meta, spool, state] = Space::ALL;
            let keyspace = |space: Space| database.keyspace(space.name(), || space.options());
            let spaces = [keyspace(meta)?, keyspace(spool)?, keyspace(state)?];
            Ok(Self { database, spaces })
        })
    }

    /// The value of `key` now, whether published or not: for the one thread that writes.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, DatabaseError> {
        guarded(|| self.keyspace(space).get(key))
    }

    /// Whether there is such a key, for the one thread that writes.
    pub(super) fn contains(&self, space: Space, key: &[u8]) -> Result<bool, DatabaseError> {
        guarded(|| self.keyspace(space).contains_key(key))
    }

    /// The value of `key` in the last published state.
    pub(super) fn read(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, DatabaseError> {
        guarded(|| self.database.snapshot().get(self.keyspace(space), key))
    }

    /// At most `limit` pairs from `from` to `to`, both included, of the last published state.
    pub(super) fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<KvPair>, DatabaseError> {
        if from > to || limit == 0 {
            return Ok(Vec::new());
        }
        guarded(|| {
            let iterator = self.database.snapshot().range(self.keyspace(space), from..=to);
            match direction {
                Direction::Backward => iterator.rev().take(limit).map(Guard::into_inner).collect(),
                Direction::Forward => iterator.take(limit).map(Guard::into_inner).collect(),
            }
        })
    }

    /// At most `limit` pairs after `after`, of the last published state.
    pub(super) fn after(
        &self,
        space: Space,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<KvPair>, DatabaseError> {
        guarded(|| {
            let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let iterator = self.database.snapshot().range::<&[u8], _>(self.keyspace(space), bounds);
            iterator.take(limit).map(Guard::into_inner).collect()
        })
    }

    /// At most `limit` keys from `from` to `to`, both included.
    pub(super) fn keys(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Slice>, DatabaseError> {
        if from > to {
            return Ok(Vec::new());
        }
        guarded(|| {
            let iterator = self.database.snapshot().range(self.keyspace(space), from..=to);
            iterator.take(limit).map(Guard::key).collect()
        })
    }

    /// The sequence number that the next batch is about to get.
    pub(super) fn sequence(&self) -> u64 {
        self.database.snapshot().seqno()
    }

    /// Writes all items in one batch and waits until it is on the device.
    pub(super) fn commit(&self, items: Vec<Item>) -> Result<(), DatabaseError> {
        guarded(|| {
            let mut batch =
                fjall::OwnedWriteBatch::with_capacity(self.database.clone(), items.len())
                    .durability(Some(PersistMode::SyncData));
            for Item { space, key, value } in items {
                match value {
                    Some(value) => batch.insert(self.keyspace(space), key, value),
                    None => batch.remove(self.keyspace(space), key),
                }
            }
            batch.commit()
        })
    }

    /// The number by which the journals name a keyspace.
    pub(super) fn number(&self, space: Space) -> u64 {
        self.keyspace(space).id()
    }

    /// The link that the tables of `space` hold from before `sequence`, and the highest sequence
    /// number in them.
    pub(super) fn tables(
        &self,
        space: Space,
        sequence: u64,
    ) -> Result<(Option<Slice>, Option<u64>), DatabaseError> {
        guarded(|| {
            let tree = &self.keyspace(space).tree;
            Ok((tree.get(LINK_KEY, sequence)?, tree.get_highest_persisted_seqno()))
        })
    }

    /// Waits until the rows of these keyspaces are in tables, not only in the journal.
    #[cfg(test)]
    pub(super) fn settle(&self, spaces: &[Space]) -> Result<(), DatabaseError> {
        guarded(|| {
            spaces.iter().try_for_each(|space| self.keyspace(*space).rotate_memtable_and_wait())
        })
    }

    const fn keyspace(&self, space: Space) -> &Keyspace {
        let [meta, spool, state] = &self.spaces;
        match space {
            Space::Meta => meta,
            Space::Spool => spool,
            Space::State => state,
        }
    }
}

/// One row of a batch; no value deletes.
pub(super) struct Item {
    pub(super) space: Space,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// Runs a call into the library; a panic becomes an error.
fn guarded<T>(call: impl FnOnce() -> fjall::Result<T>) -> Result<T, DatabaseError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(DatabaseError::from),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(DatabaseError::Failed(format!("the database library panicked: {text}")))
        }
    }
}
