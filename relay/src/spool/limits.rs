//! The named limits of the spool; what an operator may set is in [`Settings`](super::Settings).

/// Lines that may be held for one busy account; one more is refused with 452.
pub const HELD_LINES_MAX: u64 = 256;

/// Octets of the lines held for one busy account; more is refused with 452.
pub const HELD_OCTETS_MAX: u64 = 4 << 20;

/// Numbers of a queue that `KEEP=` may name (SPEC.md §5).
pub const KEPT_MAX: usize = protocol::limits::KEEP_MAX;

/// Milliseconds for which a kept line stays (SPEC.md §5).
pub const KEPT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Queues whose state is in memory; at more, idle ones are forgotten, and if none is idle the
/// line is refused with 450.
pub const QUEUES_LOADED_MAX: usize = 65_536;

/// Lines of a queue whose totals are remembered, so that an acknowledgement of one of them reads
/// nothing.
pub const MARKS_MAX: usize = 32;

/// Octets of the values that one read of a queue aims at; what a connection may hold is less.
pub const READ_OCTETS_AIM: u64 = 256 * 1_024;

/// Rows that one read of a queue gives at most.
pub const READ_ROWS_MAX: u64 = 256;

/// Accounts with held lines whose names one read of their list gives.
pub const HOLDERS_READ_MAX: usize = 1_024;

/// Milliseconds for which a message id is remembered at least (SPEC.md §8).
pub const EPOCH_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Rows of a past epoch of message ids that are deleted at once.
pub const EPOCH_DELETE_ROWS: usize = 1_024;

const _: () = {
    assert!(KEPT_MAX <= crate::store::limits::DELETE_RANGE_KEEP_MAX);
    assert!(EPOCH_DELETE_ROWS <= crate::store::limits::READ_ROWS_MAX);
    assert!(HOLDERS_READ_MAX <= crate::store::limits::READ_ROWS_MAX);
    assert!(READ_ROWS_MAX as usize <= crate::store::limits::READ_ROWS_MAX);
};
