//! 601 and 610: records are published and fetched (SPEC.md §6).
//!
//! The relay takes a record only if it follows the one it holds; every version is kept for good.

use protocol::record::Record;

use super::Domain;
use super::answer::Answer;
use crate::clock::Now;

impl Domain {
    /// Refuses a record that is expired, or that begins further ahead than clocks may differ.
    pub(super) fn check_validity(&self, record: &Record, now: Now) -> Result<(), Answer> {
        if record.not_after() <= now.timestamp {
            return Err(Answer::text(558, "the record has expired: NA"));
        }
        if record.not_before() > now.timestamp.plus_ms(protocol::limits::TIMESTAMP_AHEAD_MS_MAX) {
            return Err(Answer::text(501, "the record begins in the future: NB"));
        }
        Ok(())
    }
}
