//! The named limits of the directory.

/// Accounts kept in memory; at more all are forgotten and read again when needed.
pub const ACCOUNTS_REMEMBERED_MAX: usize = 65_536;

/// One-time prekeys of a device that may be free at once; one more is answered with 452.
pub const ONE_TIME_PREKEYS_MAX: usize = 200;

/// Free one-time prekeys at and below which the device is told that they run out (613).
pub const ONE_TIME_PREKEYS_LOW: usize = 10;

/// Expired one-time prekeys, and notes of spent ones, that one publication clears away.
pub const EXPIRED_PREKEYS_CLEARED: usize = 256;

/// Rows of prekeys read at once.
pub const PREKEYS_READ_AT_ONCE: usize = 512;

/// Devices whose stock of prekeys is kept in memory; at more all are forgotten.
pub const STOCKS_REMEMBERED_MAX: usize = 4_096;

/// How long an invitation is kept after its end, so that an operator still sees what became of it.
pub const INVITATION_KEPT_MS: u64 = 30 * 24 * 3_600_000;

/// Rows of invitations that one sweep looks at.
pub const INVITATIONS_SWEPT: usize = 256;

const _: () = assert!(ONE_TIME_PREKEYS_LOW < ONE_TIME_PREKEYS_MAX);
// A publication clears more than it adds, even where a whole stock has expired.
const _: () = assert!(EXPIRED_PREKEYS_CLEARED > ONE_TIME_PREKEYS_MAX);
