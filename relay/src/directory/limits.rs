//! The named limits of the directory.

/// Accounts kept in memory; at more all are forgotten and read again when needed.
pub const ACCOUNTS_REMEMBERED_MAX: usize = 65_536;
