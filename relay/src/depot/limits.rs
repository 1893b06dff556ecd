//! The named limits of the depot; what an operator may set is in [`Settings`](super::Settings).

/// Files that are kept for one account, those under removal included; one more stays with its
/// sender (252).
pub const FILES_KEPT_MAX: usize = 64;

/// Octets that a chunk counts beside what it carries: its place, its seal, its entry in indexes.
pub const CHUNK_EXTRA_OCTETS: u64 = 128;

/// Chunks of one file on their way to the disk; the sender of one more gets 450.
pub const CHUNKS_STORING_MAX: usize = 16;

/// Files whose cards are in memory. At more, those with nothing under way are forgotten; if none
/// is, the chunk gets 450.
pub const FILES_OPEN_MAX: usize = 4_096;

/// Chunks that one step of a removal deletes.
pub const CHUNKS_REMOVED_AT_ONCE: u64 = 1_024;

/// Removals that wait in memory; what is beyond is found again by the sweep of cards.
pub const REMOVALS_MAX: usize = 1_024;

/// Cards that one step of the sweep reads.
pub const CARDS_SWEPT: usize = 256;

const _: () = {
    assert!(FILES_KEPT_MAX < crate::store::limits::READ_ROWS_MAX);
    assert!(CARDS_SWEPT <= crate::store::limits::READ_ROWS_MAX);
    assert!(CHUNKS_REMOVED_AT_ONCE <= crate::store::limits::DELETE_RANGE_ROWS_MAX as u64);
    // Every file in memory may have all its chunks under way before the store says no.
    assert!(CHUNKS_STORING_MAX <= crate::store::limits::QUEUE_COMMITS_MAX);
};
