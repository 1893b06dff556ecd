//! The store in memory, for simulation: the same meaning as on disk, and faults on demand.
//!
//! Owns the rows and the commits not yet completed. Deterministic: no threads, no clock. A commit
//! completes when [`Store::completions`] is called, unless [`MemoryStore::hold`] keeps it back.
//! Invariant: a held commit is invisible, and lost by [`MemoryStore::crash`].

use std::collections::{BTreeMap, VecDeque};

use super::commit::{self, Change, View, Weight};
use super::limits;
use super::{
    CommitToken, Cursor, Direction, Operation, Outcome, Row, Scanned, Sorted, Statistics, Store,
    StoreError, Table,
};

/// What may happen to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write is interrupted after the change reached the disk: `Unknown`, and it happened.
    UnknownDone,
    /// The write is interrupted before: `Unknown`, and it did not happen.
    UnknownUndone,
}

/// The store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<Row, Vec<u8>>,
    queue: VecDeque<(CommitToken, Vec<Operation>, Weight)>,
    fault: Option<Fault>,
    full: bool,
    held: bool,
    key_away: Option<std::time::Duration>,
    stopped: Option<String>,
    statistics: Statistics,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the disk full, or no longer. Commits that only delete still go through.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Lets the data key be too old and the token away, or ends that with `None`.
    pub fn set_key_away(&mut self, retry_after: Option<std::time::Duration>) {
        self.key_away = retry_after;
    }

    /// Makes the next commit fail; the store then stops until [`MemoryStore::reopen`].
    pub fn fail_next(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Keeps commits from completing, or lets them go on.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Loses every commit that has not completed, as a crash and a restart do, and ends every
    /// fault.
    pub fn crash(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        *self = Self { rows, ..Self::default() };
    }

    /// Opens again after a failed write.
    pub fn reopen(&mut self) {
        self.stopped = None;
        self.statistics.reopened += 1;
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn complete(&mut self, operations: Vec<Operation>) -> Outcome {
        if let Some(text) = &self.stopped {
            self.statistics.refused += 1;
            return Outcome::Refused(StoreError::Stopped { text: text.clone() });
        }
        let changes = match commit::evaluate(self, operations) {
            Ok(changes) => changes,
            Err(outcome) => {
                match outcome {
                    Outcome::Conflict { .. } => self.statistics.conflicts += 1,
                    _ => self.statistics.refused += 1,
                }
                return outcome;
            }
        };
        let fault = self.fault.take();
        if fault != Some(Fault::UnknownUndone) {
            self.apply(changes);
        }
        if fault.is_some() {
            self.statistics.unknown += 1;
            self.stopped = Some("a write failed on demand".to_owned());
            return Outcome::Unknown;
        }
        self.statistics.commits += 1;
        self.statistics.batches += 1;
        self.statistics.commit_number += 1;
        Outcome::Durable
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.statistics.items += changes.len() as u64;
        for Change { row, value } in changes {
            match value {
                Some(value) => {
                    self.rows.insert(row, value);
                }
                None => {
                    self.rows.remove(&row);
                }
            }
        }
    }

    fn rows_of(
        &self,
        table: Table,
        owner: &[u8],
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Row, &Vec<u8>)> {
        let empty = from > to;
        let first = Row::new(table, owner, from);
        let last = if empty { first.clone() } else { Row::new(table, owner, to) };
        self.rows.range(first..=last).filter(move |_| !empty)
    }
}

impl View for MemoryStore {
    fn exists(&self, row: &Row) -> Result<bool, StoreError> {
        Ok(self.rows.contains_key(row))
    }

    fn value(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(row).cloned())
    }

    fn sorts(
        &self,
        table: Table,
        owner: &[u8],
        from: &[u8],
        to: &[u8],
        max: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError> {
        let sorts: Vec<_> = self
            .rows_of(table, owner, from, to)
            .take(max + 1)
            .map(|(row, _)| row.sort.clone())
            .collect();
        commit::within("rows to delete", sorts.len(), max)?;
        Ok(sorts)
    }
}

impl Store for MemoryStore {
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError> {
        commit::check_row(row)?;
        self.value(row)
    }

    fn range(
        &self,
        table: Table,
        owner: &[u8],
        from_sort: &[u8],
        to_sort: &[u8],
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Sorted>, StoreError> {
        let limit = limit.min(limits::READ_ROWS_MAX);
        let rows = self.rows_of(table, owner, from_sort, to_sort);
        let pair = |(row, value): (&Row, &Vec<u8>)| (row.sort.clone(), value.clone());
        Ok(match direction {
            Direction::Backward => rows.rev().take(limit).map(pair).collect(),
            Direction::Forward => rows.take(limit).map(pair).collect(),
        })
    }

    fn scan(
        &self,
        table: Table,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        let limit = limit.clamp(1, limits::READ_ROWS_MAX);
        let start = match after.as_ref().and_then(|cursor| cursor.0.split_first_chunk::<2>()) {
            None => std::ops::Bound::Included(Row::new(table, b"", b"")),
            Some((length, rest)) => {
                let middle = usize::from(u16::from_be_bytes(*length)).min(rest.len());
                let (owner, sort) = rest.split_at(middle);
                std::ops::Bound::Excluded(Row::new(table, owner, sort))
            }
        };
        let mut rows = self
            .rows
            .range((start, std::ops::Bound::Unbounded))
            .take_while(|(row, _)| row.table == table);
        let scanned: Vec<_> = rows
            .by_ref()
            .take(limit)
            .map(|(row, value)| Scanned {
                owner: row.owner.clone(),
                sort: row.sort.clone(),
                value: value.clone(),
            })
            .collect();
        let more = rows.next().is_some();
        let cursor = scanned.last().filter(|_| more).map(|last| {
            let length = u16::try_from(last.owner.len()).unwrap_or(u16::MAX);
            Cursor([&length.to_be_bytes()[..], &last.owner, &last.sort].concat().into())
        });
        Ok((scanned, cursor))
    }

    fn submit(&mut self, token: CommitToken, operations: Vec<Operation>) -> Result<(), StoreError> {
        let weight = commit::check(&operations)?;
        if let Some(text) = &self.stopped {
            return Err(StoreError::Stopped { text: text.clone() });
        }
        if self.full && !weight.only_deletes {
            return Err(StoreError::Full { free: 0, reserve: 1 });
        }
        if let Some(retry_after) = self.key_away
            && !weight.only_deletes
        {
            let text = "the key service is switched away".to_owned();
            return Err(StoreError::KeyAway { retry_after, text });
        }
        let octets = self.statistics.queued_octets as usize + weight.octets;
        if self.queue.len() >= limits::QUEUE_COMMITS_MAX || octets > limits::QUEUE_OCTETS_MAX {
            return Err(StoreError::Busy);
        }
        self.queue.push_back((token, operations, weight));
        self.statistics.queued_commits += 1;
        self.statistics.queued_octets += weight.octets as u64;
        Ok(())
    }

    fn completions(&mut self, into: &mut Vec<(CommitToken, Outcome)>) {
        while !self.held
            && let Some((token, operations, weight)) = self.queue.pop_front()
        {
            self.statistics.queued_commits -= 1;
            self.statistics.queued_octets -= weight.octets as u64;
            let outcome = self.complete(operations);
            into.push((token, outcome));
        }
    }

    fn statistics(&self) -> Statistics {
        self.statistics
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::super::battery::{Subject, battery, put};
    use super::*;

    fn subject() -> Subject {
        Subject::new(Box::new(MemoryStore::new()), Box::new(|| panic!("nothing more")))
    }

    battery!(subject);

    fn row(number: u64) -> Row {
        Row::numbered(Table::Queue, b"d", number)
    }

    fn completions(store: &mut MemoryStore) -> Vec<(CommitToken, Outcome)> {
        let mut done = Vec::new();
        store.completions(&mut done);
        done
    }

    #[test]
    fn held_commits_are_invisible_and_lost_by_a_crash() {
        let mut store = MemoryStore::new();
        store.submit(CommitToken(1), vec![put(&row(1), b"a")]).unwrap();
        assert_eq!(store.get(&row(1)), Ok(None));
        assert_eq!(completions(&mut store), [(CommitToken(1), Outcome::Durable)]);
        store.hold(true);
        store.submit(CommitToken(2), vec![put(&row(2), b"a")]).unwrap();
        assert_eq!(completions(&mut store), []);
        assert_eq!(store.get(&row(2)), Ok(None));
        store.crash();
        assert_eq!(completions(&mut store), []);
        assert_eq!((store.get(&row(1)), store.get(&row(2))), (Ok(Some(b"a".to_vec())), Ok(None)));
    }

    #[test]
    fn a_failed_write_is_unknown_and_stops_the_store() {
        for (fault, there) in [(Fault::UnknownDone, true), (Fault::UnknownUndone, false)] {
            let mut store = MemoryStore::new();
            store.fail_next(fault);
            store.submit(CommitToken(1), vec![put(&row(1), b"a")]).unwrap();
            store.submit(CommitToken(2), vec![put(&row(2), b"a")]).unwrap();
            let done = completions(&mut store);
            assert_eq!(done[0], (CommitToken(1), Outcome::Unknown));
            assert!(matches!(done[1].1, Outcome::Refused(StoreError::Stopped { .. })));
            let refusal = store.submit(CommitToken(3), vec![]);
            assert!(matches!(refusal, Err(StoreError::Stopped { .. })));
            assert_eq!(store.get(&row(1)).unwrap().is_some(), there);
            store.reopen();
            store.submit(CommitToken(4), vec![put(&row(2), b"a")]).unwrap();
            assert_eq!(completions(&mut store), [(CommitToken(4), Outcome::Durable)]);
        }
    }

    #[test]
    fn full_and_key_away_refuse_writes_and_let_deletes_pass() {
        let mut store = MemoryStore::new();
        let delete = vec![Operation::Delete { row: row(1) }];
        store.set_full(true);
        let refusal = store.submit(CommitToken(1), vec![put(&row(1), b"a")]);
        assert!(matches!(refusal, Err(StoreError::Full { .. })));
        store.submit(CommitToken(2), delete.clone()).unwrap();
        store.set_full(false);
        store.set_key_away(Some(Duration::from_secs(9)));
        let refusal = store.submit(CommitToken(3), vec![put(&row(1), b"a")]).unwrap_err();
        assert_eq!(refusal.retry_after(), Some(Duration::from_secs(9)));
        store.submit(CommitToken(4), delete).unwrap();
        store.set_key_away(None);
        store.submit(CommitToken(5), vec![put(&row(1), b"a")]).unwrap();
        assert_eq!(completions(&mut store).len(), 3);
    }

    #[test]
    fn the_queue_is_busy_at_its_limits() {
        let mut store = MemoryStore::new();
        for number in 0..limits::QUEUE_COMMITS_MAX as u64 {
            store.submit(CommitToken(number), vec![]).unwrap();
        }
        assert_eq!(store.submit(CommitToken(0), vec![]), Err(StoreError::Busy));
        assert_eq!(completions(&mut store).len(), limits::QUEUE_COMMITS_MAX);
        let large = vec![put(&row(1), &vec![0; limits::VALUE_LENGTH_MAX]); 7];
        let mut count = 0;
        while store.submit(CommitToken(count), large.clone()).is_ok() {
            count += 1;
        }
        assert_eq!(count as usize, limits::QUEUE_OCTETS_MAX / (7 * (limits::VALUE_LENGTH_MAX + 9)));
    }
}
