//! Rosters: what an account thinks of others, and what it wants to remember about them.
//!
//! Owns the table `Roster`: a row for each contact, and one for the roster's version. Relations go
//! one way: that bob approves alice says nothing about alice. Names and notes are a blob sealed for
//! the owner's devices; the relay stores it and cannot read it. Holds relations in a bounded
//! memory, without blobs. Invariants: what is remembered is durable, so whoever commits a change
//! calls
//! [`Rosters::forget`] when the outcome is known; a version number is given out once. Limits:
//! [`limits`]. SPEC.md §6, §8.

pub mod limits;
mod relation;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use protocol::{Address, AddressBuf};

pub use relation::{Contact, Relation};

use crate::store::{Direction, Operation, Row, Store, StoreError, Table};

/// The relations of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    relations: BTreeMap<AddressBuf, Relation>,
    version: u64,
}

impl Roster {
    /// Rises with each change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What the owner thinks of `contact`; nothing for a stranger.
    #[must_use]
    pub fn relation(&self, contact: Address<'_>) -> Relation {
        self.relations.get(contact.account().as_str()).copied().unwrap_or_default()
    }

    /// Everybody whom the owner has a relation with, by address.
    pub fn relations(&self) -> impl Iterator<Item = (&AddressBuf, Relation)> {
        self.relations.iter().map(|(contact, relation)| (contact, *relation))
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.relations.len()
    }
}

/// The rosters of the domain, read through a bounded memory.
#[derive(Default)]
pub struct Rosters {
    remembered: HashMap<AddressBuf, Rc<Roster>>,
    relation_count: usize,
    /// The highest version given out, for rosters with changes that are not durable yet.
    given_out: HashMap<AddressBuf, u64>,
}

impl Rosters {
    /// Rosters of which none is remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The roster of `owner`'s account; empty if it has none.
    ///
    /// # Errors
    /// Those of [`Store::range`]; [`StoreError::Damaged`] if a row is not a contact.
    pub fn roster(
        &mut self,
        store: &dyn Store,
        owner: Address<'_>,
    ) -> Result<Rc<Roster>, StoreError> {
        let owner = owner.account();
        if let Some(roster) = self.remembered.get(owner.as_str()) {
            return Ok(Rc::clone(roster));
        }
        let mut roster = Roster { version: version(store, owner)?, ..Roster::default() };
        for contact in contacts(store, owner)? {
            roster.relations.insert(contact.address, contact.relation);
        }
        if self.relation_count + roster.count() > limits::RELATIONS_REMEMBERED_MAX {
            self.remembered.clear();
            self.relation_count = 0;
        }
        // The account itself weighs as much as a relation.
        self.relation_count += roster.count() + 1;
        let roster = Rc::new(roster);
        self.remembered.insert(owner.to_buf(), Rc::clone(&roster));
        Ok(roster)
    }

    /// What `owner` thinks of `contact`.
    ///
    /// # Errors
    /// Those of [`Rosters::roster`].
    pub fn relation(
        &mut self,
        store: &dyn Store,
        owner: Address<'_>,
        contact: Address<'_>,
    ) -> Result<Relation, StoreError> {
        Ok(self.roster(store, owner)?.relation(contact))
    }

    /// Makes the next read of this roster come from the store.
    pub fn forget(&mut self, owner: Address<'_>) {
        if let Some(roster) = self.remembered.remove(owner.account().as_str()) {
            self.relation_count = self.relation_count.saturating_sub(roster.count() + 1);
        }
    }

    /// The operations that put `after` into `owner`'s roster in place of `before`, and the version
    /// that the roster then has. They are a conflict if another change of this contact came first.
    ///
    /// # Errors
    /// Those of [`Rosters::roster`].
    pub fn change_operations(
        &mut self,
        store: &dyn Store,
        owner: Address<'_>,
        before: Option<&Contact>,
        after: &Contact,
    ) -> Result<(Vec<Operation>, u64), StoreError> {
        let owner = owner.account();
        let durable = self.roster(store, owner)?.version;
        let given_out = self.given_out.get(owner.as_str()).copied().unwrap_or_default();
        let version = durable.max(given_out) + 1;
        self.given_out.insert(owner.to_buf(), version);
        let row = contact_row(owner, after.address.as_address());
        let mut operations = vec![unchanged_operation(owner, after.address.as_address(), before)];
        operations.push(if after.is_empty() {
            Operation::Delete { row }
        } else {
            Operation::Put { row, value: after.encode() }
        });
        let value = version.to_be_bytes().to_vec();
        operations.push(Operation::Put { row: version_row(owner), value });
        Ok((operations, version))
    }

    /// Forgets which versions were given out. For a moment without commits under way.
    pub fn settle(&mut self) {
        self.given_out.clear();
    }
}

/// What makes a commit a conflict if `contact` in `owner`'s roster is not `found` any more.
#[must_use]
pub fn unchanged_operation(
    owner: Address<'_>,
    contact: Address<'_>,
    found: Option<&Contact>,
) -> Operation {
    let row = contact_row(owner.account(), contact.account());
    match found {
        None => Operation::RequireAbsent { row },
        Some(found) => Operation::RequireEqual { row, value: found.encode() },
    }
}

/// The whole entry for `contact` in `owner`'s roster.
///
/// # Errors
/// Those of [`Store::get`]; [`StoreError::Damaged`] if the row is not that contact.
pub fn contact(
    store: &dyn Store,
    owner: Address<'_>,
    contact: Address<'_>,
) -> Result<Option<Contact>, StoreError> {
    let Some(value) = store.get(&contact_row(owner.account(), contact.account()))? else {
        return Ok(None);
    };
    let found =
        Contact::decode(&value).filter(|found| found.address.as_address() == contact.account());
    found.map(Some).ok_or_else(damaged)
}

/// All entries of `owner`'s roster, in no particular order.
///
/// # Errors
/// Those of [`Store::range`]; [`StoreError::Damaged`] if a row is not a contact.
pub fn contacts(store: &dyn Store, owner: Address<'_>) -> Result<Vec<Contact>, StoreError> {
    let owner = owner.account().as_str().as_bytes();
    // The version's row stands before them all; no address is empty or begins with 0xFF.
    let rows = store.range(
        Table::Roster,
        owner,
        &[1],
        &[0xFF],
        limits::CONTACTS_MAX + limits::REQUESTS_MAX,
        Direction::Forward,
    )?;
    rows.into_iter().map(|(_, value)| Contact::decode(&value).ok_or_else(damaged)).collect()
}

fn version(store: &dyn Store, owner: Address<'_>) -> Result<u64, StoreError> {
    let Some(value) = store.get(&version_row(owner))? else { return Ok(0) };
    value.first_chunk::<8>().map(|number| u64::from_be_bytes(*number)).ok_or_else(damaged)
}

fn contact_row(owner: Address<'_>, contact: Address<'_>) -> Row {
    Row::new(Table::Roster, owner.as_str().as_bytes(), contact.as_str().as_bytes())
}

fn version_row(owner: Address<'_>) -> Row {
    Row::new(Table::Roster, owner.as_str().as_bytes(), b"")
}

fn damaged() -> StoreError {
    StoreError::Damaged { text: "a contact's row".to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
