//! The store: everything durable of the relay, as rows of a closed set of tables.
//!
//! Owns the trait [`Store`] and its vocabulary. Two implementations: [`MemoryStore`] for simulation
//! and [`EmbeddedStore`](embedded::EmbeddedStore) on disk. Invariants, the same for both: a commit
//! happens as a whole or not at all; [`Outcome::Durable`] is said only when it survives
//! power loss; reads see durable rows only; outcomes come in the order of submission; an outcome
//! that is not known is an outcome of its own. Limits: [`limits`]. ARCHITECTURE §3, PROTOCOL §8.

mod commit;
pub mod embedded;
pub mod limits;
mod memory;
mod seal;
mod table;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod battery;

pub use memory::{Fault, MemoryStore};
pub use table::Table;

use std::time::Duration;

/// The address of a value: table, whose it is, and the ordered remainder.
///
/// Numbers in `sort` are big-endian so that their order is that of the octets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// Account, device or domain as text; empty where rows belong to nobody. Never on disk in
    /// clear.
    pub owner: Box<[u8]>,
    /// What orders the rows of one owner: a number, a hash, a device's id. In tables of
    /// [`Table::hides_sort`] never on disk in clear; in the others it must not name a person.
    pub sort: Box<[u8]>,
}

impl Row {
    /// The row of `table` that belongs to `owner` at `sort`.
    #[must_use]
    pub fn new(table: Table, owner: &[u8], sort: &[u8]) -> Self {
        Self { table, owner: owner.into(), sort: sort.into() }
    }

    /// The row of `table` that belongs to `owner` under `number`.
    #[must_use]
    pub fn numbered(table: Table, owner: &[u8], number: u64) -> Self {
        Self::new(table, owner, &number.to_be_bytes())
    }
}

/// One step of a commit.
///
/// All requirements are checked against the state before the commit, wherever they stand in it;
/// the other steps then apply in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Removes a row; no matter if there is none.
    Delete {
        /// The row to remove.
        row: Row,
    },
    /// Removes all rows of `owner` from `from_sort` to `to_sort`, both included, but those kept.
    DeleteRange {
        /// The table.
        table: Table,
        /// Whose rows.
        owner: Box<[u8]>,
        /// The first sort to remove.
        from_sort: Box<[u8]>,
        /// The last sort to remove.
        to_sort: Box<[u8]>,
        /// Sorts that stay, at most [`limits::DELETE_RANGE_KEEP_MAX`].
        keep: Vec<Box<[u8]>>,
    },
    /// Writes a row, new or not.
    Put {
        /// Where.
        row: Row,
        /// What, at most [`limits::VALUE_LENGTH_MAX`] octets.
        value: Vec<u8>,
    },
    /// Lets the commit happen only if there is no such row.
    RequireAbsent {
        /// The row that must not exist.
        row: Row,
    },
    /// Lets the commit happen only if the row holds exactly this value.
    RequireEqual {
        /// The row that must exist.
        row: Row,
        /// What it must hold.
        value: Vec<u8>,
    },
}

/// The caller's name for a commit; comes back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitToken(pub u64);

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A requirement did not hold; nothing of the commit happened.
    Conflict {
        /// Which operation it was, counted from 0.
        index: usize,
        /// What the row held instead.
        found: Option<Vec<u8>>,
    },
    /// It happened and survives power loss.
    Durable,
    /// It did not happen.
    Refused(StoreError),
    /// The write was interrupted: it may or may not have happened. Tell the peer neither.
    Unknown,
}

/// Why the store did not do it, by what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Too many commits wait already. Try again after the next completions.
    #[error("the store's queue is full")]
    Busy,
    /// A row or a file is damaged. Other rows may be fine.
    #[error("the store is damaged: {text}")]
    Damaged {
        /// What was found, and where.
        text: String,
    },
    /// The disk is nearly full. Commits that only delete still go through for a while.
    #[error("the store's disk has {free} octets free and keeps {reserve} in reserve")]
    Full {
        /// Octets free.
        free: u64,
        /// Octets that stay free.
        reserve: u64,
    },
    /// The data key in hand is too old and the token that makes a new one is away.
    #[error("the store waits for a new data key: {text}")]
    KeyAway {
        /// When to try again.
        retry_after: Duration,
        /// What the key service said.
        text: String,
    },
    /// A write failed earlier; the store refuses new work until it is opened again.
    #[error("the store stopped: {text}")]
    Stopped {
        /// What failed.
        text: String,
    },
    /// Something in the call exceeds a limit of [`limits`].
    #[error("{what} of {length} where the store takes {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How much it is.
        length: usize,
        /// How much is allowed.
        max: usize,
    },
}

impl StoreError {
    /// What a person can do about it, one sentence.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Busy => "wait; if it lasts, the disk is slower than the load",
            Self::Damaged { .. } => {
                "keep the folder as it is, check the disk, and restore from a backup or accept the \
                 loss by configuration"
            }
            Self::Full { .. } => {
                "free space on the store's file system; the relay goes on by itself"
            }
            Self::KeyAway { .. } => "plug the token in; the relay goes on by itself",
            Self::Stopped { .. } => "check the disk and the kernel's log, then restart the relay",
            Self::TooLarge { .. } => "this is a mistake in the relay: report it",
        }
    }

    /// When the same call is worth trying again; `None` if only a person can help.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(Duration::from_secs(1)),
            Self::Full { .. } => Some(Duration::from_secs(60)),
            Self::KeyAway { retry_after, .. } => Some(*retry_after),
            Self::Damaged { .. } | Self::Stopped { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// Which way a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the last sort to the first.
    Backward,
    /// From the first sort to the last.
    Forward,
}

/// A place in a table from which a scan goes on. Means nothing outside the store that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) Box<[u8]>);

/// A row met by a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Whose it is.
    pub owner: Box<[u8]>,
    /// Its sort.
    pub sort: Box<[u8]>,
    /// What it holds.
    pub value: Vec<u8>,
}

/// A value with its sort, as a range gives it.
pub type Sorted = (Box<[u8]>, Vec<u8>);

/// Counters since the start, and the present state. All figures are for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commits that became durable.
    pub commits: u64,
    /// Commits that met a conflict.
    pub conflicts: u64,
    /// Commits refused after submission.
    pub refused: u64,
    /// Commits whose outcome is unknown.
    pub unknown: u64,
    /// Flushes to the device.
    pub batches: u64,
    /// Rows written or deleted.
    pub items: u64,
    /// Commits waiting now.
    pub queued_commits: u64,
    /// Octets waiting now.
    pub queued_octets: u64,
    /// Number of the last batch on disk.
    pub commit_number: u64,
    /// Longest flush, in microseconds.
    pub flush_us_max: u64,
    /// Data keys alive.
    pub data_keys: u64,
    /// Data keys erased because no row used them any more.
    pub data_keys_erased: u64,
    /// Rows sealed anew under a younger key.
    pub resealed: u64,
    /// Damaged rows met by reads.
    pub damaged: u64,
    /// Octets free on the file system when last looked.
    pub free_octets: u64,
    /// Times the store was opened again without a restart.
    pub reopened: u64,
}

/// Everything durable. See the module for the promises.
pub trait Store: Send {
    /// The value of `row`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Stopped`], [`StoreError::TooLarge`].
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` rows of `owner` from `from_sort` to `to_sort`, both included, from the end
    /// that `direction` names. Never more than [`limits::READ_ROWS_MAX`].
    ///
    /// # Errors
    /// As [`Store::get`].
    fn range(
        &self,
        table: Table,
        owner: &[u8],
        from_sort: &[u8],
        to_sort: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Sorted>, StoreError>;

    /// Rows of all owners in no particular order, for maintenance. The cursor given back leads to
    /// the next; `None` is the end. Rows written meanwhile may be missed.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(
        &self,
        table: Table,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError>;

    /// Queues a commit. Its outcome comes from [`Store::completions`] under `token`.
    ///
    /// # Errors
    /// Every [`StoreError`]; then nothing was queued and no completion follows.
    fn submit(&mut self, token: CommitToken, operations: Vec<Operation>) -> Result<(), StoreError>;

    /// Appends the outcomes that are known by now, in the order of submission.
    fn completions(&mut self, into: &mut Vec<(CommitToken, Outcome)>);

    /// Counters and state.
    fn statistics(&self) -> Statistics;
}
