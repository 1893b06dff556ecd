//! What is due: lines that nobody fetched in time, and kept lines whose day is over.
//!
//! A note in table `Due` says by when a queue must be looked through. Notes are coarse (a day for
//! lines that live long, a minute for others), so a queue has few of them. A note stays until a
//! look finds nothing that is due, so whatever fails is tried again.

use protocol::AddressBuf;
use protocol::timestamp::Timestamp;

use super::queue::Kept;
use super::{Entry, Move, Spool, SpoolError, limits, move_cursor, owner_tag, read_range};
use crate::store::{Direction, Operation, Row, Store, StoreError, Table};

const MINUTE_MS: u64 = 60 * 1_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Lines that live longer are noted by the day.
const LONG_LIFE_MS: u64 = 2 * DAY_MS;

/// A note that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    row: Row,
    /// The queue to look through.
    pub owner: AddressBuf,
}

/// Under which times a line is noted: one place for long lives, one for short ones; 0 is no note.
pub(super) const fn due_times(received_at: Timestamp, expires_at: Timestamp) -> [u64; 2] {
    if expires_at.ms_since(received_at) > LONG_LIFE_MS {
        [round_up(expires_at.0, DAY_MS), 0]
    } else {
        [0, round_up(expires_at.0, MINUTE_MS)]
    }
}

/// When a line kept since `at` is due.
pub(super) const fn kept_due(at: Timestamp) -> u64 {
    round_up(at.plus_ms(limits::KEPT_MS_MAX).0, MINUTE_MS)
}

const fn round_up(ms: u64, unit: u64) -> u64 {
    ms.div_ceil(unit).saturating_mul(unit)
}

/// Writes the note that `owner`'s queue is to be looked through at `due`.
pub(super) fn note(owner: &[u8], due: u64) -> Operation {
    let mut sort = [0; 24];
    let tag = owner_tag(owner);
    for (place, octet) in sort.iter_mut().zip(due.to_be_bytes().into_iter().chain(tag)) {
        *place = octet;
    }
    Operation::Put { row: Row::new(Table::Due, b"", &sort), value: owner.to_vec() }
}

impl Spool {
    /// The first note that is due at `at`, behind `after`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn due(
        &self,
        store: &dyn Store,
        at: Timestamp,
        after: Option<&Due>,
    ) -> Result<Option<Due>, StoreError> {
        let mut from = after.map(|due| due.row.sort.to_vec()).unwrap_or_default();
        if after.is_some() {
            from.push(0);
        }
        let to = at.0.saturating_add(1).to_be_bytes();
        let mut rows = store.range(Table::Due, b"", &from, &to, 1, Direction::Forward)?;
        let Some((sort, value)) = rows.pop() else { return Ok(None) };
        let owner = std::str::from_utf8(&value).ok().and_then(|text| AddressBuf::parse(text).ok());
        let damaged = || StoreError::Damaged { text: "a note of what is due".to_owned() };
        let row = Row::new(Table::Due, b"", &sort);
        Ok(Some(Due { row, owner: owner.ok_or_else(damaged)? }))
    }

    /// Deletes a note whose queue has nothing that is due any more.
    #[must_use]
    pub fn done(&self, due: &Due) -> Operation {
        Operation::Delete { row: due.row.clone() }
    }

    /// At most `limit` rows of the queue behind `after`, kept ones included.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn sweep_rows(
        &mut self,
        store: &dyn Store,
        due: &Due,
        after: u64,
        limit: u64,
    ) -> Result<Vec<(u64, Option<Entry>)>, SpoolError> {
        let queue = self.queue(store, &due.owner)?;
        let settled = queue.readable();
        let first = queue.kept.iter().map(|kept| kept.number).min();
        let from = after.saturating_add(1).max(first.unwrap_or(queue.freed + 1));
        if from > settled {
            return Ok(Vec::new());
        }
        read_range(store, &due.owner, (from, settled), limit)
    }

    /// Plans to delete rows that have expired. Numbers are not given again because of it.
    /// `None` if the cursor is on the move already; the next sweep finds the rows again.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn give_up(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
        numbers: &[u64],
        operations: &mut Vec<Operation>,
    ) -> Result<Option<Move>, SpoolError> {
        let queue = self.queue(store, owner)?;
        if queue.cursors_in_flight > 0 {
            return Ok(None);
        }
        for &number in numbers {
            let row = Row::numbered(Table::Queue, owner.as_str().as_bytes(), number);
            operations.push(Operation::Delete { row });
        }
        // What goes from the front is freed, so that the queue has room again.
        let mut freed = queue.freed;
        while numbers.binary_search(&(freed + 1)).is_ok() {
            freed += 1;
        }
        let kept = queue.kept.iter().filter(|kept| !numbers.contains(&kept.number));
        let kept: Vec<Kept> = kept.copied().collect();
        Ok(Some(move_cursor(owner, queue, freed, kept, operations)))
    }

    /// Kept lines of a queue whose day is over at `at`.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn kept_too_long(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
        at: Timestamp,
    ) -> Result<Vec<u64>, SpoolError> {
        let kept = &self.queue(store, owner)?.kept;
        let old = kept.iter().filter(|kept| at.ms_since(kept.since) >= limits::KEPT_MS_MAX);
        Ok(old.map(|kept| kept.number).collect())
    }
}
