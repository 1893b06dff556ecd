//! The named limits of the client and the relations between them.
//!
//! Those of the wire are in [`protocol::limits`]. At each limit the doc says what happens.

/// Draws of a P-256 scalar before the generator is taken for broken.
pub const KEY_GENERATION_TRIES_MAX: usize = 4;
/// Bits of the largest RSA modulus that is used; larger ones are refused as a bad key.
pub const RSA_BITS_MAX: usize = 8_192;

/// Message keys of lines not yet seen, per session; beyond it the oldest is erased and its line,
/// should it still come, cannot be opened.
pub const SKIPPED_KEYS_MAX: usize = 1_000;
/// How long a message key of a line not yet seen is kept, in milliseconds.
pub const SKIPPED_KEY_AGE_MS_MAX: u64 = 4 * DAY_MS;
/// How far SEQ may be ahead of the next expected one; beyond it a line is refused unopened.
pub const SEQUENCE_AHEAD_MAX: u64 = 1_000;

/// Lines over which one text may be cut; a longer one is refused before anything is sent.
pub const PARTS_MAX: usize = 64;

/// Octets of a key file; a larger one is refused as no key file.
pub const KEY_FILE_OCTETS_MAX: u64 = 64 * 1_024;
/// Characters of a password that are judged; the rest counts as nothing.
pub const PASSWORD_CHARACTERS_JUDGED: usize = 100;
/// Octets of an invitation link; a longer one is refused.
pub const LINK_OCTETS_MAX: usize = 2_048;

/// One minute in milliseconds.
pub const MINUTE_MS: u64 = 60 * 1_000;
/// One hour in milliseconds.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// One day in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

const _: () = assert!(SEQUENCE_AHEAD_MAX as usize <= SKIPPED_KEYS_MAX);
