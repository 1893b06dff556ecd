//! What the store holds at most, by name. Relations between the limits are checked here.

/// Longest owner of a row, in octets.
pub const OWNER_LENGTH_MAX: usize = 512;

/// Longest sort part of a row, in octets.
pub const SORT_LENGTH_MAX: usize = 512;

/// Longest value, in octets. A line of the protocol has at most 65,536.
pub const VALUE_LENGTH_MAX: usize = 1 << 20;

/// Most operations in one commit.
pub const COMMIT_OPERATIONS_MAX: usize = 4_096;

/// Most octets (owners, sorts and values together) in one commit.
pub const COMMIT_OCTETS_MAX: usize = 8 << 20;

/// Most rows that one [`Operation::DeleteRange`](super::Operation::DeleteRange) deletes.
pub const DELETE_RANGE_ROWS_MAX: usize = 65_536;

/// Most sorts that a range deletion may keep. PROTOCOL §5: up to 64 numbers.
pub const DELETE_RANGE_KEEP_MAX: usize = 64;

/// Commits waiting for the committer, and outcomes waiting to be fetched; one more commit is
/// answered with `Busy`.
pub const QUEUE_COMMITS_MAX: usize = 16_384;

/// Octets of commits waiting for the committer; more is answered with `Busy`.
pub const QUEUE_OCTETS_MAX: usize = 64 << 20;

/// Most rows that one call of `range` or `scan` gives back, whatever it is asked for.
pub const READ_ROWS_MAX: usize = 4_096;

/// Rows of one owner in a table whose sort is hidden; reading more is refused.
pub const HIDDEN_ROWS_MAX: usize = 16_384;

/// Rows written by one flush; what waits beyond forms the next. One commit is never divided.
pub const BATCH_ITEMS_MAX: usize = 1_024;

/// Octets written by one flush; what waits beyond forms the next. One commit is never divided.
pub const BATCH_OCTETS_MAX: usize = 16 << 20;

/// Data keys above which rows under the oldest are sealed anew, whatever their age.
pub const DATA_KEYS_KEPT: usize = 64;

/// Values sealed under one data key. GCM with 96-bit counters allows 2^32; a margin of four.
pub const SEALS_PER_KEY_MAX: u64 = 1 << 30;

/// Octets sealed under one data key.
pub const OCTETS_PER_KEY_MAX: u64 = 1 << 40;

/// Rows that the sealer of old rows reads between two pauses.
pub const SWEEP_ROWS: usize = 64;

/// Walks over all rows that follow each other at once, before the next waits for its day.
pub const SWEEP_ROUNDS_MAX: u8 = 4;

/// Octets that must be free, whatever the reserve, before the store opens again after a write
/// failed for want of space: one journal's worth.
pub const REOPEN_FREE_OCTETS: u64 = 64 << 20;

/// Damaged journals kept aside; at more the oldest copies stay and the newest is not made.
pub const ASIDE_COPIES_MAX: usize = 16;

const _: () = {
    assert!(VALUE_LENGTH_MAX + OWNER_LENGTH_MAX + SORT_LENGTH_MAX < COMMIT_OCTETS_MAX);
    assert!(COMMIT_OCTETS_MAX <= BATCH_OCTETS_MAX && COMMIT_OCTETS_MAX <= QUEUE_OCTETS_MAX);
    assert!(READ_ROWS_MAX <= HIDDEN_ROWS_MAX);
    assert!(SWEEP_ROWS <= COMMIT_OPERATIONS_MAX);
};
