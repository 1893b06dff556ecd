//! The meaning of a commit: limits, requirements and the changes that follow from it.
//!
//! One implementation for all stores, over a [`View`] of the state before the commit. Pure.

use super::limits;
use super::{Operation, Outcome, Row, StoreError, Table};

/// The state before a commit, earlier commits included.
pub(super) trait View {
    /// Whether the row exists.
    fn exists(&self, row: &Row) -> Result<bool, StoreError>;

    /// The value of the row.
    fn value(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError>;

    /// All sorts of `owner` from `from` to `to`, both included, in order; an error if they are
    /// more than `max`.
    fn sorts(
        &self,
        table: Table,
        owner: &[u8],
        from: &[u8],
        to: &[u8],
        max: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError>;
}

/// One row's new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) row: Row,
    pub(super) value: Option<Vec<u8>>,
}

/// What a commit weighs in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Octets of owners, sorts and values.
    pub(super) octets: usize,
    /// Whether it writes no row, only deletes: such commits go through a full disk's reserve.
    pub(super) only_deletes: bool,
}

/// Checks the limits that need no state.
pub(super) fn check(operations: &[Operation]) -> Result<Weight, StoreError> {
    within("operations", operations.len(), limits::COMMIT_OPERATIONS_MAX)?;
    let mut octets = 0_usize;
    let mut only_deletes = true;
    for operation in operations {
        octets += match operation {
            Operation::Delete { row } | Operation::RequireAbsent { row } => check_row(row)?,
            Operation::DeleteRange { owner, from_sort, to_sort, keep, .. } => {
                within("a list of sorts to keep", keep.len(), limits::DELETE_RANGE_KEEP_MAX)?;
                let mut sum = check_owner(owner)? + check_sort(from_sort)? + check_sort(to_sort)?;
                for sort in keep {
                    sum += check_sort(sort)?;
                }
                sum
            }
            Operation::Put { row, value } => {
                only_deletes = false;
                check_row(row)? + check_value(value)?
            }
            Operation::RequireEqual { row, value } => check_row(row)? + check_value(value)?,
        };
    }
    within("octets in a commit", octets, limits::COMMIT_OCTETS_MAX)?;
    Ok(Weight { octets, only_deletes })
}

/// Turns a commit into its changes, or into the outcome that it has without any.
///
/// A row changed twice has its last change only where that is the last of the list; the list is
/// to be applied in order.
pub(super) fn evaluate(
    view: &impl View,
    operations: Vec<Operation>,
) -> Result<Vec<Change>, Outcome> {
    for (index, operation) in operations.iter().enumerate() {
        require(view, index, operation)?;
    }
    let mut changes: Vec<Change> = Vec::with_capacity(operations.len());
    for operation in operations {
        match operation {
            Operation::Put { row, value } => changes.push(Change { row, value: Some(value) }),
            Operation::Delete { row } => changes.push(Change { row, value: None }),
            Operation::DeleteRange { table, owner, from_sort, to_sort, keep } => {
                let range = Range { table, owner, from: from_sort, to: to_sort, keep };
                delete_range(view, &range, &mut changes).map_err(Outcome::Refused)?;
            }
            Operation::RequireAbsent { .. } | Operation::RequireEqual { .. } => {}
        }
    }
    Ok(changes)
}

struct Range {
    table: Table,
    owner: Box<[u8]>,
    from: Box<[u8]>,
    to: Box<[u8]>,
    keep: Vec<Box<[u8]>>,
}

impl Range {
    fn holds(&self, row: &Row) -> bool {
        row.table == self.table && row.owner == self.owner && self.holds_sort(&row.sort)
    }

    fn holds_sort(&self, sort: &[u8]) -> bool {
        *sort >= *self.from && *sort <= *self.to && !self.keep.iter().any(|kept| **kept == *sort)
    }
}

fn require(view: &impl View, index: usize, operation: &Operation) -> Result<(), Outcome> {
    match operation {
        Operation::RequireAbsent { row } => {
            if view.exists(row).map_err(Outcome::Refused)? {
                let found = view.value(row).map_err(Outcome::Refused)?;
                return Err(Outcome::Conflict { index, found });
            }
        }
        Operation::RequireEqual { row, value } => {
            let found = view.value(row).map_err(Outcome::Refused)?;
            if found.as_ref() != Some(value) {
                return Err(Outcome::Conflict { index, found });
            }
        }
        Operation::Delete { .. } | Operation::DeleteRange { .. } | Operation::Put { .. } => {}
    }
    Ok(())
}

fn delete_range(
    view: &impl View,
    range: &Range,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    // Rows that the same commit wrote before are deleted too.
    for change in changes.iter_mut().filter(|change| range.holds(&change.row)) {
        change.value = None;
    }
    if range.from > range.to {
        return Ok(());
    }
    let max = limits::DELETE_RANGE_ROWS_MAX;
    let sorts = view.sorts(range.table, &range.owner, &range.from, &range.to, max)?;
    changes.extend(sorts.into_iter().filter(|sort| range.holds_sort(sort)).map(|sort| Change {
        row: Row { table: range.table, owner: range.owner.clone(), sort },
        value: None,
    }));
    Ok(())
}

/// The error for `length` where only `max` is allowed.
pub(super) fn within(what: &'static str, length: usize, max: usize) -> Result<(), StoreError> {
    if length > max {
        return Err(StoreError::TooLarge { what, length, max });
    }
    Ok(())
}

/// Checks a row's lengths; gives their sum.
pub(super) fn check_row(row: &Row) -> Result<usize, StoreError> {
    Ok(check_owner(&row.owner)? + check_sort(&row.sort)?)
}

fn check_owner(owner: &[u8]) -> Result<usize, StoreError> {
    within("an owner", owner.len(), limits::OWNER_LENGTH_MAX)?;
    Ok(owner.len())
}

fn check_sort(sort: &[u8]) -> Result<usize, StoreError> {
    within("a sort", sort.len(), limits::SORT_LENGTH_MAX)?;
    Ok(sort.len())
}

fn check_value(value: &[u8]) -> Result<usize, StoreError> {
    within("a value", value.len(), limits::VALUE_LENGTH_MAX)?;
    Ok(value.len())
}
