//! The depot: files whose recipient is away, kept chunk by chunk until somebody takes them.
//!
//! Owns tables `File` (a card for each file) and `Chunk`. Like the spool it plans operations for a
//! commit and learns the outcome later. Invariants: the chunks of a file are there from 0 up to
//! what its card says, without a gap, because each chunk's commit requires the card that the one
//! before left; the octets of a whole file are set aside before its first chunk comes, so that no
//! file is refused half-way; a chunk never changes; a card goes last, so that nothing stays behind
//! unseen. Holds no connections. Limits: [`limits`], [`Settings`]. SPEC.md §9.

mod card;
pub mod limits;
mod removal;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

use std::collections::HashMap;

use protocol::file::Shape;
use protocol::{Address, AddressBuf};

pub use card::{Card, Label, sealed_octets};
pub use removal::{Removal, Swept};

use crate::store::{Direction, Operation, Outcome, Store, StoreError, Table};
use removal::Removals;

/// What an operator decides about kept files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Octets of the files that are kept for one account, with what their chunks cost beside.
    pub octets_max: u64,
}

impl Settings {
    /// As the annotated default configuration has them.
    #[must_use]
    pub const fn defaults() -> Self {
        Self { octets_max: 256 << 20 }
    }
}

/// Why a file or a chunk is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DepotError {
    /// Too many chunks of this file, or too many files, are on their way to the disk.
    #[error("too many chunks are on their way to the disk")]
    Crowded,
    /// The account has no room for the whole file.
    #[error("there is no room for the whole file")]
    Full,
    /// A file with this label is kept already.
    #[error("a file with this id is kept already")]
    Known,
    /// Chunks before this one are missing.
    #[error("chunk {next} comes first")]
    Missing {
        /// The first that is.
        next: u64,
    },
    /// The chunk is not one of the file that was offered.
    #[error("the file has no chunk of this number and length")]
    Misfit,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Room set aside in a commit under way. Its outcome goes to [`Depot::settle_room`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    account: AddressBuf,
    octets: u64,
}

/// A chunk in a commit under way. Its outcome goes to [`Depot::settle_chunk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    label: Label,
    number: u64,
    sealed: Vec<u8>,
    is_repeat: bool,
}

impl Stored {
    /// The file that it belongs to.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// Its number in the file.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable; so are all before it. `is_new` tells it from a repeat.
    Kept {
        /// Whether it was not there before.
        is_new: bool,
    },
    /// Another chunk stands under its number.
    Other,
    /// Something else came between: the sender tries again and is then told what is the case.
    Overtaken,
    /// The store did not do it, or nobody knows.
    Failed(Outcome),
}

/// Room that is set aside for files whose commits are under way.
#[derive(Clone, Copy, Default)]
struct Claim {
    files: usize,
    octets: u64,
}

/// A file that chunks come for.
struct Open {
    /// The card as it is durable.
    card: Card,
    /// The number that the next chunk has, if all commits under way succeed.
    planned: u64,
    in_flight: usize,
    /// Whether a commit failed, so that what is planned will not come true: nothing is planned
    /// until all outcomes are there and the card is read again.
    is_stale: bool,
}

/// All files that are kept in the domain.
pub struct Depot {
    settings: Settings,
    open: HashMap<Label, Open>,
    claims: HashMap<AddressBuf, Claim>,
    removals: Removals,
}

impl Depot {
    /// A depot with nothing in memory yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: HashMap::new(),
            claims: HashMap::new(),
            removals: Removals::default(),
        }
    }

    /// The files that are kept for an account, those under removal included.
    ///
    /// # Errors
    /// Those of the store.
    pub fn cards(&self, store: &dyn Store, account: Address<'_>) -> Result<Vec<Card>, StoreError> {
        let owner = account.as_str().as_bytes();
        let (first, last) = ([], [0xFF; 32]);
        let limit = limits::FILES_KEPT_MAX + 1;
        let rows = store.range(Table::File, owner, &first, &last, limit, Direction::Forward)?;
        rows.iter().map(|(_, value)| Card::decode(owner, value).ok_or_else(damaged)).collect()
    }

    /// The card of a file that is kept and not under removal.
    ///
    /// # Errors
    /// Those of the store.
    pub fn card(&self, store: &dyn Store, label: &Label) -> Result<Option<Card>, StoreError> {
        let card = match self.open.get(label) {
            Some(open) => Some(open.card.clone()),
            None => read_card(store, label)?,
        };
        Ok(card.filter(|card| !card.is_doomed))
    }

    /// Plans to keep a file: sets the octets of the whole aside. The operations join those of the
    /// commit of its offer.
    ///
    /// # Errors
    /// [`DepotError::Full`], [`DepotError::Known`], [`DepotError::Store`]; then nothing was
    /// planned.
    pub fn set_aside(
        &mut self,
        store: &dyn Store,
        card: &Card,
        operations: &mut Vec<Operation>,
    ) -> Result<Room, DepotError> {
        let account = &card.label.account;
        let kept = self.cards(store, account.as_address())?;
        if kept.iter().any(|other| other.label == card.label) {
            return Err(DepotError::Known);
        }
        let claim = self.claims.get(account).copied().unwrap_or_default();
        let files = kept.len() + claim.files;
        let octets = kept.iter().map(Card::octets).chain([claim.octets, card.octets()]);
        let octets = octets.fold(0, u64::saturating_add);
        if files >= limits::FILES_KEPT_MAX || octets > self.settings.octets_max {
            return Err(DepotError::Full);
        }
        let claim = self.claims.entry(account.clone()).or_default();
        claim.files += 1;
        claim.octets = claim.octets.saturating_add(card.octets());
        let row = card.label.card_row();
        operations.push(Operation::RequireAbsent { row: row.clone() });
        operations.push(Operation::Put { row, value: card.encode() });
        Ok(Room { account: account.clone(), octets: card.octets() })
    }

    /// The commit of a file's offer has an outcome, or was given up: what is durable shows in the
    /// store.
    pub fn settle_room(&mut self, room: &Room) {
        let Some(claim) = self.claims.get_mut(&room.account) else { return };
        claim.files = claim.files.saturating_sub(1);
        claim.octets = claim.octets.saturating_sub(room.octets);
        if claim.files == 0 {
            self.claims.remove(&room.account);
        }
    }

    /// Plans to keep a sealed chunk; `None` if the file is not kept. The operations make a commit
    /// of their own.
    ///
    /// # Errors
    /// [`DepotError::Crowded`], [`DepotError::Misfit`], [`DepotError::Missing`],
    /// [`DepotError::Store`].
    pub fn add_chunk(
        &mut self,
        store: &dyn Store,
        label: &Label,
        (number, sealed): (u64, Vec<u8>),
    ) -> Result<Option<(Stored, Vec<Operation>)>, DepotError> {
        let Some(open) = self.open(store, label)? else { return Ok(None) };
        if sealed_octets(open.card.shape, number) != Some(sealed.len()) {
            return Err(DepotError::Misfit);
        }
        if open.is_stale || open.in_flight >= limits::CHUNKS_STORING_MAX {
            return Err(DepotError::Crowded);
        }
        if number > open.planned {
            return Err(DepotError::Missing { next: open.planned });
        }
        let row = label.chunk_row(number);
        // What is there, or on its way, is compared where all commits before have their effect.
        let mut operations = vec![Operation::RequireAbsent { row: row.clone() }];
        let is_repeat = number < open.planned;
        if !is_repeat {
            let card = |next| Card { next, ..open.card.clone() }.encode();
            let at = label.card_row();
            operations.push(Operation::RequireEqual { row: at.clone(), value: card(number) });
            operations.push(Operation::Put { row, value: sealed.clone() });
            operations.push(Operation::Put { row: at, value: card(number + 1) });
            open.planned = number + 1;
        }
        open.in_flight += 1;
        Ok(Some((Stored { label: label.clone(), number, sealed, is_repeat }, operations)))
    }

    /// The commit of a chunk has an outcome; says what to tell the sender.
    pub fn settle_chunk(&mut self, stored: &Stored, outcome: Outcome) -> Verdict {
        let verdict = match outcome {
            // It was on its way when the repeat came, and did not arrive.
            Outcome::Durable if stored.is_repeat => Verdict::Overtaken,
            Outcome::Durable => Verdict::Kept { is_new: true },
            Outcome::Conflict { index: 0, found: Some(found) } if found == stored.sealed => {
                Verdict::Kept { is_new: false }
            }
            Outcome::Conflict { index: 0, .. } => Verdict::Other,
            Outcome::Conflict { .. } => Verdict::Overtaken,
            outcome => Verdict::Failed(outcome),
        };
        let Some(open) = self.open.get_mut(&stored.label) else { return verdict };
        open.in_flight = open.in_flight.saturating_sub(1);
        match verdict {
            Verdict::Kept { is_new: true } => open.card.next = stored.number + 1,
            Verdict::Kept { is_new: false } | Verdict::Other if stored.is_repeat => {}
            _ => open.is_stale = true,
        }
        if open.is_stale && open.in_flight == 0 {
            self.open.remove(&stored.label);
        }
        verdict
    }

    /// A sealed chunk of a file of this shape that is kept; `None` if it is gone.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Damaged`] also for one of another length.
    pub fn chunk(
        &self,
        store: &dyn Store,
        label: &Label,
        (shape, number): (Shape, u64),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(chunk) = store.get(&label.chunk_row(number))? else { return Ok(None) };
        if sealed_octets(shape, number) != Some(chunk.len()) {
            return Err(StoreError::Damaged { text: "a chunk of a kept file".to_owned() });
        }
        Ok(Some(chunk))
    }

    /// Plans the mark that a file is to be removed, by which a removal survives a crash; `None` if
    /// it is not kept. Once that is durable the file goes to [`Depot::remove`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn doom(
        &mut self,
        store: &dyn Store,
        label: &Label,
    ) -> Result<Option<(Card, Operation)>, StoreError> {
        let Some(card) = self.card(store, label)? else { return Ok(None) };
        if let Some(open) = self.open.get_mut(label) {
            // Chunks that come from here on are judged by what becomes of the mark.
            open.is_stale = true;
            if open.in_flight == 0 {
                self.open.remove(label);
            }
        }
        let card = Card { is_doomed: true, ..card };
        let operation = Operation::Put { row: label.card_row(), value: card.encode() };
        Ok(Some((card, operation)))
    }

    /// The file that chunks come for, read if it is not in memory.
    fn open(&mut self, store: &dyn Store, label: &Label) -> Result<Option<&mut Open>, DepotError> {
        if !self.open.contains_key(label) {
            let card = read_card(store, label)?.filter(|card| !card.is_doomed);
            let Some(card) = card else { return Ok(None) };
            if self.open.len() >= limits::FILES_OPEN_MAX {
                self.open.retain(|_, open| open.in_flight > 0);
            }
            if self.open.len() >= limits::FILES_OPEN_MAX {
                return Err(DepotError::Crowded);
            }
            let planned = card.next;
            let open = Open { card, planned, in_flight: 0, is_stale: false };
            self.open.insert(label.clone(), open);
        }
        Ok(self.open.get_mut(label))
    }
}

fn read_card(store: &dyn Store, label: &Label) -> Result<Option<Card>, StoreError> {
    let owner = label.account.as_str().as_bytes();
    let Some(value) = store.get(&label.card_row())? else { return Ok(None) };
    Card::decode(owner, &value).ok_or_else(damaged).map(Some)
}

fn damaged() -> StoreError {
    StoreError::Damaged { text: "the card of a kept file".to_owned() }
}
