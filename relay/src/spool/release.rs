//! Lines held for busy accounts: who has some, and taking them out again.
//!
//! The list of accounts is read once and then kept up in memory; a row in table `Due` under owner
//! `held` names each, so that a restart forgets nobody.

use std::collections::BTreeSet;

use protocol::AddressBuf;

use super::{Entry, Spool, SpoolError, Totals, limits, owner_tag, read_range};
use crate::store::{Direction, Operation, Row, Store, StoreError, Table};

/// The accounts for which lines are held.
#[derive(Debug, Default)]
pub struct Holders {
    accounts: BTreeSet<AddressBuf>,
    is_loaded: bool,
    /// Commits under way that put a line into a hold or take lines out.
    in_flight: std::collections::HashMap<AddressBuf, usize>,
}

impl Holders {
    /// Reads the list, if that was not done yet.
    ///
    /// # Errors
    /// Those of the store; then nothing may be assumed about held lines.
    pub fn load(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut from = Vec::new();
        while !self.is_loaded {
            let limit = limits::HOLDERS_READ_MAX;
            let rows =
                store.range(Table::Due, b"held", &from, &[0xff; 16], limit, Direction::Forward)?;
            self.is_loaded = rows.len() < limit;
            from = rows.last().map(|(sort, _)| [&**sort, &[0]].concat()).unwrap_or_default();
            let texts = rows.iter().filter_map(|(_, value)| std::str::from_utf8(value).ok());
            self.accounts.extend(texts.filter_map(|text| AddressBuf::parse(text).ok()));
        }
        Ok(())
    }

    /// Whether lines are, or may be, held for `account`.
    #[must_use]
    pub fn contains(&self, account: &str) -> bool {
        self.accounts.contains(account)
    }

    /// The first account behind `after`, in order.
    #[must_use]
    pub fn next(&self, after: Option<&AddressBuf>) -> Option<AddressBuf> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accounts.range::<AddressBuf, _>((from, Bound::Unbounded)).next().cloned()
    }

    /// Lists an account; to be committed with the first line held for it.
    pub fn add(&mut self, account: &AddressBuf) -> Operation {
        self.accounts.insert(account.clone());
        let value = account.as_str().as_bytes().to_vec();
        Operation::Put { row: row(account), value }
    }

    /// Takes an account off the list that has no held lines and none on their way.
    pub fn remove(&mut self, account: &AddressBuf) -> Operation {
        self.accounts.remove(account);
        Operation::Delete { row: row(account) }
    }

    /// A commit about held lines of `account` was submitted.
    pub fn begin(&mut self, account: &AddressBuf) {
        *self.in_flight.entry(account.clone()).or_default() += 1;
    }

    /// That commit has an outcome.
    pub fn end(&mut self, account: &AddressBuf) {
        if let Some(count) = self.in_flight.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(account);
            }
        }
    }

    /// Whether commits about held lines of `account` are under way.
    #[must_use]
    pub fn is_moving(&self, account: &str) -> bool {
        self.in_flight.contains_key(account)
    }
}

fn row(account: &AddressBuf) -> Row {
    Row::new(Table::Due, b"held", &owner_tag(account.as_str().as_bytes()))
}

impl Spool {
    /// All lines held for an account, in order: at most [`limits::HELD_LINES_MAX`].
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn held_lines(
        &mut self,
        store: &dyn Store,
        account: &AddressBuf,
    ) -> Result<Vec<(u64, Entry)>, SpoolError> {
        let settled = self.queue(store, account)?.readable();
        let limit = limits::HELD_LINES_MAX;
        let rows = read_range(store, account, (0, settled), limit)?;
        Ok(rows.into_iter().filter_map(|(number, entry)| Some((number, entry?))).collect())
    }

    /// Deletes a held line; its queue is measured by [`Spool::released`].
    #[must_use]
    pub fn unhold(&self, account: &AddressBuf, number: u64) -> Operation {
        let row = Row::numbered(Table::Queue, account.as_str().as_bytes(), number);
        Operation::Delete { row }
    }

    /// Measures the queue of an account anew after held lines were deleted.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn released(&mut self, store: &dyn Store, account: &AddressBuf) -> Result<(), SpoolError> {
        let base: Option<Totals> = super::first_totals(store, account, 0)?;
        let queue = self.queue(store, account)?;
        queue.base = base.unwrap_or(queue.totals);
        Ok(())
    }
}
