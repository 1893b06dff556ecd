//! Removing kept files: a part at a time, and those that a crash or a fault left behind.
//!
//! A removal only deletes, so that it goes through when the disk is full: the chunks from the
//! first on, the card last. The sweep walks over all cards, a part at a time, and finds files that
//! are marked, that have expired, or whose people are gone. SPEC.md §9.

use std::collections::VecDeque;

use super::{Card, Depot, Label, limits};
use crate::store::{Cursor, Operation, Store, StoreError, Table};

/// A part of a file's removal in a commit under way. Its outcome goes to
/// [`Depot::settle_removal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    label: Label,
    chunk_count: u64,
    /// Chunks before this one are deleted.
    from: u64,
}

impl Removal {
    fn end(&self) -> u64 {
        self.from.saturating_add(limits::CHUNKS_REMOVED_AT_ONCE).min(self.chunk_count)
    }
}

/// Removals that wait or are under way.
#[derive(Default)]
pub(super) struct Removals {
    waiting: VecDeque<Removal>,
    is_under_way: bool,
}

/// Cards that a step of the sweep found, and where the next goes on; `None` is the end.
pub type Swept = (Vec<Card>, Option<Cursor>);

impl Depot {
    /// Lets a file be removed whose mark is durable or whose card says itself that it is over.
    pub fn remove(&mut self, card: &Card) {
        let removals = &mut self.removals;
        let is_known = removals.waiting.iter().any(|waiting| waiting.label == card.label);
        if !is_known && removals.waiting.len() < limits::REMOVALS_MAX {
            let (label, chunk_count) = (card.label.clone(), card.shape.chunk_count());
            removals.waiting.push_back(Removal { label, chunk_count, from: 0 });
        }
    }

    /// The next part of a removal, unless one is under way.
    pub fn next_removal(&mut self) -> Option<(Removal, Vec<Operation>)> {
        if self.removals.is_under_way {
            return None;
        }
        let removal = self.removals.waiting.front()?.clone();
        self.removals.is_under_way = true;
        let mut operations = vec![Operation::DeleteRange {
            table: Table::Chunk,
            owner: removal.label.name().into(),
            from_sort: removal.from.to_be_bytes().into(),
            to_sort: removal.end().saturating_sub(1).to_be_bytes().into(),
            keep: Vec::new(),
        }];
        if removal.end() == removal.chunk_count {
            operations.push(Operation::Delete { row: removal.label.card_row() });
        }
        Some((removal, operations))
    }

    /// The commit of a part has an outcome; gives the label of a file that is gone for good.
    pub fn settle_removal(&mut self, removal: Removal, is_durable: bool) -> Option<Label> {
        self.removals.is_under_way = false;
        if !is_durable {
            return None;
        }
        let waiting = self.removals.waiting.pop_front()?;
        if removal.end() == removal.chunk_count {
            return Some(waiting.label);
        }
        self.removals.waiting.push_front(Removal { from: removal.end(), ..waiting });
        None
    }

    /// How many removals wait.
    #[must_use]
    pub fn removal_count(&self) -> usize {
        self.removals.waiting.len()
    }

    /// Some of the cards of all accounts, behind `after`. Damaged ones are left out.
    ///
    /// # Errors
    /// Those of the store.
    pub fn sweep(&self, store: &dyn Store, after: Option<Cursor>) -> Result<Swept, StoreError> {
        let (rows, next) = store.scan(Table::File, after, limits::CARDS_SWEPT)?;
        let cards = rows.iter().filter_map(|row| Card::decode(&row.owner, &row.value));
        Ok((cards.collect(), next))
    }
}
