//! Which lines the relay has taken already: (code, FROM, TO, MID), remembered for 7 days.
//!
//! The rows of one week stand together under the number of that week, an epoch; a line is looked
//! up in the present and the last one, so it is remembered for 7 to 14 days. The rows are written
//! in the commit of the line itself; a repeat shows as a conflict. SPEC.md §8.

use protocol::canonical::{push_lp, sha256};
use protocol::timestamp::Timestamp;
use protocol::{Address, Code};

use super::limits;
use crate::store::{Direction, Operation, Row, Store, StoreError, Table};

/// How many operations [`Statement::operations`] gives, and where its requirements stand: they
/// come first in a commit, so that a conflict at a lower index is a repeat.
pub const REQUIREMENTS: usize = 2;

/// What identifies a line, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    sort: [u8; 32],
    hash: [u8; 32],
    epoch: u64,
}

/// What the relay remembers of a line with the same message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// The same line: it gets the same answer.
    Same {
        /// The code of that answer.
        answer: u16,
    },
    /// Another line.
    Other,
}

impl Statement {
    /// The statement that a line with this address, id and hash makes at `at`.
    #[must_use]
    pub fn new(
        code: Code,
        (from, to): (Address<'_>, Address<'_>),
        message_id: &str,
        hash: [u8; 32],
        at: Timestamp,
    ) -> Self {
        let mut key = Vec::with_capacity(160);
        key.extend_from_slice(&code.number().to_be_bytes());
        push_lp(&mut key, from.as_str().as_bytes());
        push_lp(&mut key, to.as_str().as_bytes());
        push_lp(&mut key, message_id.as_bytes());
        Self { sort: sha256(&[&key]), hash, epoch: epoch(at) }
    }

    /// What makes a commit fail for a repeat and remembers `answer` otherwise. To stand first in
    /// the commit.
    #[must_use]
    pub fn operations(&self, answer: u16) -> Vec<Operation> {
        let mut operations = Vec::with_capacity(8);
        for epoch in [self.epoch, self.epoch.saturating_sub(1)] {
            operations.push(Operation::RequireAbsent { row: self.row(epoch) });
        }
        operations.push(self.remember(answer));
        operations
    }

    /// Remembers `answer` in place of the one before.
    #[must_use]
    pub fn remember(&self, answer: u16) -> Operation {
        let mut value = Vec::with_capacity(34);
        value.extend_from_slice(&self.hash);
        value.extend_from_slice(&answer.to_be_bytes());
        Operation::Put { row: self.row(self.epoch), value }
    }

    /// What a row that was found says about this line; `None` if it is damaged.
    #[must_use]
    pub fn compare(&self, found: &[u8]) -> Option<Earlier> {
        let (hash, answer) = found.split_first_chunk::<32>()?;
        let answer = u16::from_be_bytes(answer.try_into().ok()?);
        Some(if *hash == self.hash { Earlier::Same { answer } } else { Earlier::Other })
    }

    /// Looks the line up. Commits under way do not show.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn look_up(&self, store: &dyn Store) -> Result<Option<Earlier>, StoreError> {
        for epoch in [self.epoch, self.epoch.saturating_sub(1)] {
            if let Some(found) = store.get(&self.row(epoch))? {
                let damaged = || StoreError::Damaged { text: "a row of a message id".to_owned() };
                return self.compare(&found).ok_or_else(damaged).map(Some);
            }
        }
        Ok(None)
    }

    fn row(&self, epoch: u64) -> Row {
        Row::new(Table::Dedupe, &epoch.to_be_bytes(), &self.sort)
    }
}

/// The number of the week.
#[must_use]
pub const fn epoch(at: Timestamp) -> u64 {
    at.0 / limits::EPOCH_MS
}

/// Deletes the epochs of a table that nobody asks for any more, a part at a time.
#[derive(Debug)]
pub struct Sweeper {
    table: Table,
    epoch_ms: u64,
    /// The first epoch that may still have rows; `None` until the store was asked.
    next: Option<u64>,
}

impl Sweeper {
    /// A sweeper of `table`, whose owners are the numbers of epochs of `epoch_ms`.
    #[must_use]
    pub const fn new(table: Table, epoch_ms: u64) -> Self {
        Self { table, epoch_ms, next: None }
    }

    /// The next deletion that is due at `at`, if there is one. To be asked again once it is
    /// durable.
    ///
    /// # Errors
    /// Those of the store.
    pub fn next(
        &mut self,
        store: &dyn Store,
        at: Timestamp,
    ) -> Result<Option<Vec<Operation>>, StoreError> {
        let row = Row::new(Table::Meta, b"", &[b"epoch-", &[self.table.number()][..]].concat());
        let current = at.0 / self.epoch_ms;
        let next = match self.next {
            Some(next) => next,
            None => {
                let stored = store.get(&row)?.and_then(|value| value.try_into().ok());
                let Some(stored) = stored.map(u64::from_be_bytes) else {
                    // A new store: nothing is older than now, but a clock that stood behind.
                    self.next = Some(current.saturating_sub(1));
                    let value = current.saturating_sub(1).to_be_bytes().to_vec();
                    return Ok(Some(vec![Operation::Put { row, value }]));
                };
                *self.next.insert(stored)
            }
        };
        if next.saturating_add(2) > current {
            return Ok(None);
        }
        let owner = next.to_be_bytes();
        let rows = store.range(
            self.table,
            &owner,
            &[],
            &[0xff; 32],
            limits::EPOCH_DELETE_ROWS,
            Direction::Forward,
        )?;
        let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else {
            let after = next + 1;
            self.next = Some(after);
            return Ok(Some(vec![Operation::Put { row, value: after.to_be_bytes().to_vec() }]));
        };
        Ok(Some(vec![Operation::DeleteRange {
            table: self.table,
            owner: owner.into(),
            from_sort: first.clone(),
            to_sort: last.clone(),
            keep: Vec::new(),
        }]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::{CommitToken, MemoryStore, Outcome};

    const WEEK: u64 = limits::EPOCH_MS;

    fn statement(mid: &str, hash: u8, at: u64) -> Statement {
        let from = Address::parse("alice@a/d1").unwrap();
        let to = Address::parse("bob@a").unwrap();
        Statement::new(Code::MESSAGE, (from, to), mid, [hash; 32], Timestamp(at))
    }

    fn commit(store: &mut MemoryStore, operations: Vec<Operation>) -> Outcome {
        store.submit(CommitToken(1), operations).unwrap();
        let mut outcomes = Vec::new();
        store.completions(&mut outcomes);
        outcomes.pop().unwrap().1
    }

    #[test]
    fn a_repeat_is_known_for_a_week_and_gone_after_two() {
        let start = 1_000 * WEEK;
        let last = start + WEEK - 1;
        let mut store = MemoryStore::new();
        let first = statement("m", 1, last);
        assert_eq!(commit(&mut store, first.operations(252)), Outcome::Durable);
        for at in [last, last + WEEK] {
            for (hash, expected) in [(1, Earlier::Same { answer: 252 }), (2, Earlier::Other)] {
                let again = statement("m", hash, at);
                assert_eq!(again.look_up(&store), Ok(Some(expected)));
                let Outcome::Conflict { index, found } = commit(&mut store, again.operations(250))
                else {
                    panic!("{at} {hash}")
                };
                assert!(index < REQUIREMENTS);
                assert_eq!(again.compare(&found.unwrap()), Some(expected));
            }
        }
        assert_eq!(statement("m", 1, last + WEEK + 1).look_up(&store), Ok(None));
        assert_eq!(statement("n", 1, last).look_up(&store), Ok(None));
    }

    #[test]
    fn old_weeks_are_deleted_a_part_at_a_time() {
        let start = 1_000 * WEEK;
        let mut store = MemoryStore::new();
        let mut sweeper = Sweeper::new(Table::Dedupe, WEEK);
        let sweep = |store: &mut MemoryStore, sweeper: &mut Sweeper, at| {
            let mut count = 0;
            while let Some(operations) = sweeper.next(store, Timestamp(at)).unwrap() {
                commit(store, operations);
                count += 1;
            }
            count
        };
        assert_eq!(sweep(&mut store, &mut sweeper, start), 1);
        let rows = limits::EPOCH_DELETE_ROWS + 1;
        for number in 0..rows {
            commit(&mut store, statement(&number.to_string(), 1, start).operations(250));
        }
        assert_eq!(sweep(&mut store, &mut sweeper, start + 2 * WEEK - 1), 1, "an empty week");
        assert_eq!(store.row_count(), rows + 1);
        let mut sweeper = Sweeper::new(Table::Dedupe, WEEK);
        assert_eq!(sweep(&mut store, &mut sweeper, start + 2 * WEEK), 3);
        assert_eq!(store.row_count(), 1);
    }
}
