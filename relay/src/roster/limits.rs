//! The named limits of rosters.

/// Contacts that an account may have of its own wish; one more is answered with 452.
pub const CONTACTS_MAX: usize = 2_000;

/// Contacts that are there because others asked; one more request is dropped.
pub const REQUESTS_MAX: usize = 200;

/// Relations kept in memory over all rosters; at more all are forgotten and read again.
pub const RELATIONS_REMEMBERED_MAX: usize = 262_144;

const _: () = {
    use crate::store::limits::{HIDDEN_ROWS_MAX, READ_ROWS_MAX};
    assert!(CONTACTS_MAX + REQUESTS_MAX < READ_ROWS_MAX && READ_ROWS_MAX <= HIDDEN_ROWS_MAX);
    assert!(CONTACTS_MAX + REQUESTS_MAX < RELATIONS_REMEMBERED_MAX);
    assert!(CONTACTS_MAX + REQUESTS_MAX <= protocol::limits::REPLY_ENTRIES_MAX);
};
