//! The spool: lines that wait for a device, in order, until it has acknowledged them.
//!
//! Owns the tables `Queue`, `Cursor`, `Dedupe` and `Due`. A queue belongs to a device, or to an
//! account whose lines are held while it is busy. Everything here plans operations for a commit
//! and learns their outcome later; between the two, numbers are given but nothing is promised.
//! Invariants: the line of a number never changes; numbers are read back in the order in which
//! they were given; a line leaves only when it was acknowledged or has expired. Holds no
//! connections. Limits: [`limits`], [`Settings`]. SPEC.md §5, §8.

pub mod dedupe;
mod entry;
pub mod limits;
mod queue;
mod release;
mod sweep;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use protocol::AddressBuf;
use protocol::canonical::sha256;
use protocol::timestamp::Timestamp;

pub use entry::{Entry, Kind, Totals};
pub use release::Holders;
pub use sweep::Due;

use crate::store::{Direction, Operation, Row, Store, StoreError, Table};
use queue::{CursorRow, Kept, Queue};

/// What an operator decides about queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lines that may wait for one device.
    pub lines_max: u64,
    /// Octets of the lines that may wait for one device.
    pub line_octets_max: u64,
    /// Milliseconds for which a line waits at most.
    pub life_ms: u64,
}

impl Settings {
    /// As the annotated default configuration has them.
    #[must_use]
    pub const fn defaults() -> Self {
        Self { lines_max: 10_000, line_octets_max: 64 << 20, life_ms: 30 * 24 * 60 * 60 * 1_000 }
    }
}

/// Why the spool does not take a line or an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// Too many queues are in use at once; later some are not.
    #[error("too many queues are in use")]
    Crowded,
    /// The queue holds what it may hold.
    #[error("the queue is full")]
    Full,
    /// The number was never given to a line.
    #[error("no line has this number")]
    NeverGiven,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks for room in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Somebody whom the recipient knows: the whole queue.
    Known,
    /// A line that was promised already: always fits.
    Promised,
    /// A stranger: half the queue.
    Stranger,
}

/// A line on its way into a queue.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The device, or the account that holds.
    pub owner: &'a AddressBuf,
    /// What it is.
    pub kind: Kind,
    /// For whom the room is.
    pub claim: Claim,
    /// When the relay took it.
    pub received_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
}

/// A line in a commit under way. Its outcome goes to [`Spool::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Whose queue.
    pub owner: AddressBuf,
    /// Its number.
    pub number: u64,
    octets: u64,
    due: [u64; 2],
}

/// A move of a queue's cursor in a commit under way. If it is durable it goes to
/// [`Spool::moved`], else to [`Spool::not_moved`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    owner: AddressBuf,
    freed: u64,
    kept: Vec<Kept>,
}

/// What became of a commit, as far as the spool minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Its rows are there.
    Durable,
    /// Its rows are not there.
    Failed,
    /// Nobody knows; [`Spool::certain`] will be called when reads tell the truth again.
    Unknown,
}

/// How a queue stands, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Everything up to here is freed.
    pub freed: u64,
    /// The highest number whose line is durable.
    pub durable: u64,
    /// What waits.
    pub held: Totals,
    /// Lines kept beyond their acknowledgement.
    pub kept: usize,
}

/// All queues of the domain.
#[derive(Debug)]
pub struct Spool {
    settings: Settings,
    queues: HashMap<AddressBuf, Queue>,
    now: Duration,
}

impl Spool {
    /// A spool with nothing in memory yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, queues: HashMap::new(), now: Duration::ZERO }
    }

    /// Lets lines that are taken from now on wait for at most this long.
    pub const fn set_life(&mut self, life_ms: u64) {
        self.settings.life_ms = life_ms;
    }

    /// Other limits from now on; lines that wait keep the life that they were given.
    pub const fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// When a line taken at `at` is given up, if it has `life_seconds` of its own.
    #[must_use]
    pub fn expiry(&self, at: Timestamp, life_seconds: Option<u64>) -> Timestamp {
        let own = life_seconds.map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000));
        at.plus_ms(self.settings.life_ms.min(own))
    }

    /// Plans a line for a queue: `write` appends it, CRLF included, knowing its number; the
    /// operations join those of the commit. Octets appended to the value before the line are
    /// the spool's.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::Crowded`], [`SpoolError::Store`]; then nothing was
    /// planned.
    pub fn append(
        &mut self,
        store: &dyn Store,
        parcel: Parcel<'_>,
        write: impl FnOnce(u64, &mut Vec<u8>),
        operations: &mut Vec<Operation>,
    ) -> Result<Appended, SpoolError> {
        let settings = self.settings;
        let queue = self.queue(store, parcel.owner)?;
        let mut value = vec![0; entry::HEADER_OCTETS];
        write(queue.high + 1, &mut value);
        let octets = (value.len() - entry::HEADER_OCTETS) as u64;
        if !fits(&settings, queue.held().plus(octets), &parcel) {
            return Err(SpoolError::Full);
        }
        let (number, totals) = queue.give(octets);
        let (received_at, expires_at) = (parcel.received_at, parcel.expires_at);
        entry::write_header(&mut value, parcel.kind, received_at, expires_at, totals);
        let owner = parcel.owner.as_str().as_bytes();
        operations.push(Operation::Put { row: Row::numbered(Table::Queue, owner, number), value });
        let due = sweep::due_times(parcel.received_at, parcel.expires_at);
        for (due, noted) in due.into_iter().zip(queue.noted) {
            if due != 0 && due != noted {
                operations.push(sweep::note(owner, due));
            }
        }
        Ok(Appended { owner: parcel.owner.clone(), number, octets, due })
    }

    /// The commit of a line has an outcome.
    pub fn settle(&mut self, appended: &Appended, settlement: Settlement) {
        let Some(queue) = self.queues.get_mut(&appended.owner) else { return };
        match settlement {
            Settlement::Durable => {
                queue.settle(appended.number);
                for (noted, due) in queue.noted.iter_mut().zip(appended.due) {
                    if due != 0 {
                        *noted = due;
                    }
                }
            }
            Settlement::Failed => queue.fail(appended.number, appended.octets),
            Settlement::Unknown => {
                queue.settle(appended.number);
                queue.doubtful.get_or_insert(appended.number);
            }
        }
    }

    /// Reads tell the truth again; gives the owners of the queues that were in doubt.
    pub fn certain(&mut self) -> Vec<AddressBuf> {
        let queues = self.queues.iter_mut();
        queues.filter_map(|(owner, queue)| queue.doubtful.take().map(|_| owner.clone())).collect()
    }

    /// Plans to free everything up to `up_to` but `kept`; `None` if that changes nothing.
    ///
    /// # Errors
    /// [`SpoolError::NeverGiven`], [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn acknowledge(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
        (up_to, kept): (u64, &[u64]),
        at: Timestamp,
        operations: &mut Vec<Operation>,
    ) -> Result<Option<Move>, SpoolError> {
        let queue = self.queue(store, owner)?;
        if up_to > queue.readable() {
            return Err(SpoolError::NeverGiven);
        }
        let freed = up_to.max(queue.freed);
        let kept = queue.keep(kept, freed, at);
        let is_same = freed == queue.freed && kept == queue.kept;
        if is_same && queue.cursors_in_flight == 0 {
            return Ok(None);
        }
        let octets = owner.as_str().as_bytes();
        if freed > queue.freed {
            let sorts = kept.iter().filter(|kept| kept.number > queue.freed);
            operations.push(Operation::DeleteRange {
                table: Table::Queue,
                owner: octets.into(),
                from_sort: (queue.freed + 1).to_be_bytes().into(),
                to_sort: freed.to_be_bytes().into(),
                keep: sorts.map(|kept| Box::from(kept.number.to_be_bytes())).collect(),
            });
        }
        if kept.iter().any(|kept| kept.since == at) {
            operations.push(sweep::note(octets, sweep::kept_due(at)));
        }
        Ok(Some(move_cursor(owner, queue, freed, kept, operations)))
    }

    /// Plans to free what [`Spool::acknowledge`] would, by deletions alone, for a store that takes
    /// nothing else: the last line that was sent stays, so that its number is not given again
    /// even if the cursor on disk never learns of this. `None` if nothing can be freed so.
    ///
    /// # Errors
    /// As [`Spool::acknowledge`].
    pub fn free_only(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
        (up_to, kept): (u64, &[u64]),
        at: Timestamp,
        operations: &mut Vec<Operation>,
    ) -> Result<Option<Move>, SpoolError> {
        let queue = self.queue(store, owner)?;
        if up_to > queue.readable() {
            return Err(SpoolError::NeverGiven);
        }
        let octets = owner.as_str().as_bytes();
        let (from, to) = ((queue.freed + 1).to_be_bytes(), up_to.to_be_bytes());
        let last = store.range(Table::Queue, octets, &from, &to, 1, Direction::Backward)?;
        let Some((sort, _)) = last.first() else { return Ok(None) };
        let freed = number(sort)?.saturating_sub(1);
        if freed <= queue.freed {
            return Ok(None);
        }
        let kept = queue.keep(kept, freed, at);
        operations.push(Operation::DeleteRange {
            table: Table::Queue,
            owner: octets.into(),
            from_sort: from.into(),
            to_sort: freed.to_be_bytes().into(),
            keep: kept.iter().map(|kept| Box::from(kept.number.to_be_bytes())).collect(),
        });
        queue.in_flight += 1;
        queue.cursors_in_flight += 1;
        // What was kept before stays listed: its rows were not deleted.
        let mut all = queue.kept.clone();
        all.extend(kept.into_iter().filter(|kept| queue.kept.iter().all(|old| old != kept)));
        all.truncate(limits::KEPT_MAX);
        Ok(Some(Move { owner: owner.clone(), freed, kept: all }))
    }

    /// The commit of a move is durable.
    ///
    /// # Errors
    /// [`SpoolError::Store`] if the queue cannot be measured now; it is when it is next loaded.
    pub fn moved(&mut self, store: &dyn Store, moved: Move) -> Result<(), SpoolError> {
        let Some(queue) = self.queues.get_mut(&moved.owner) else { return Ok(()) };
        queue.in_flight = queue.in_flight.saturating_sub(1);
        queue.cursors_in_flight = queue.cursors_in_flight.saturating_sub(1);
        queue.kept = moved.kept;
        if moved.freed > queue.freed {
            queue.freed = moved.freed;
            queue.base = match queue.totals_at(moved.freed) {
                Some(totals) => totals,
                None => first_totals(store, &moved.owner, moved.freed)?.unwrap_or(queue.totals),
            };
        }
        Ok(())
    }

    /// The commit of a move failed, or nobody knows.
    pub fn not_moved(&mut self, moved: &Move) {
        let Some(queue) = self.queues.get_mut(&moved.owner) else { return };
        queue.in_flight = queue.in_flight.saturating_sub(1);
        queue.cursors_in_flight = queue.cursors_in_flight.saturating_sub(1);
    }

    /// Lines behind `after` whose commits have an outcome, as many as one read should give; none
    /// means that there are none. Rows that are damaged are given as `None`.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn read(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
        after: u64,
    ) -> Result<Vec<(u64, Option<Entry>)>, SpoolError> {
        let queue = self.queue(store, owner)?;
        let held = queue.held();
        let average = held.line_octets / held.rows.max(1);
        let limit = (limits::READ_OCTETS_AIM / average.max(1)).clamp(1, limits::READ_ROWS_MAX);
        let (from, to) = (after.saturating_add(1), queue.readable());
        if from > to {
            return Ok(Vec::new());
        }
        read_range(store, owner, (from, to), limit)
    }

    /// A kept line; `None` if it is gone.
    ///
    /// # Errors
    /// [`SpoolError::Store`].
    pub fn read_one(
        &self,
        store: &dyn Store,
        owner: &AddressBuf,
        number: u64,
    ) -> Result<Option<Entry>, SpoolError> {
        let row = Row::numbered(Table::Queue, owner.as_str().as_bytes(), number);
        let Some(value) = store.get(&row)? else { return Ok(None) };
        Entry::decode(value).ok_or_else(|| damaged(number).into()).map(Some)
    }

    /// The numbers kept for a device, rising.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn kept(&mut self, store: &dyn Store, owner: &AddressBuf) -> Result<Vec<u64>, SpoolError> {
        Ok(self.queue(store, owner)?.kept.iter().map(|kept| kept.number).collect())
    }

    /// How a queue stands.
    ///
    /// # Errors
    /// [`SpoolError::Crowded`], [`SpoolError::Store`].
    pub fn standing(
        &mut self,
        store: &dyn Store,
        owner: &AddressBuf,
    ) -> Result<Standing, SpoolError> {
        let queue = self.queue(store, owner)?;
        Ok(Standing {
            freed: queue.freed,
            durable: queue.readable(),
            held: queue.held(),
            kept: queue.kept.len(),
        })
    }

    /// How many queues are in memory.
    #[must_use]
    pub fn loaded_count(&self) -> usize {
        self.queues.len()
    }

    /// Passes the time, by which queues not used lately are told from others.
    pub const fn turn(&mut self, since_start: Duration) {
        self.now = since_start;
    }

    /// Forgets the state of a queue whose device left, unless commits are under way.
    pub fn unload(&mut self, owner: &AddressBuf) {
        if self.queues.get(owner).is_some_and(Queue::is_idle) {
            self.queues.remove(owner);
        }
    }

    /// The state of a queue, from the store if it is not in memory.
    fn queue(&mut self, store: &dyn Store, owner: &AddressBuf) -> Result<&mut Queue, SpoolError> {
        if !self.queues.contains_key(owner) {
            if self.queues.len() >= limits::QUEUES_LOADED_MAX {
                self.make_room()?;
            }
            let queue = load(store, owner)?;
            self.queues.insert(owner.clone(), queue);
        }
        let now = self.now;
        let queue = self.queues.get_mut(owner).ok_or(SpoolError::Crowded)?;
        queue.used_at = now;
        Ok(queue)
    }

    /// Forgets the idle half that was used least lately.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        let mut idle: Vec<Duration> =
            self.queues.values().filter(|q| q.is_idle()).map(|q| q.used_at).collect();
        if idle.is_empty() {
            return Err(SpoolError::Crowded);
        }
        let middle = idle.len() / 2;
        let (_, median, _) = idle.select_nth_unstable(middle);
        let median = *median;
        self.queues.retain(|_, queue| !queue.is_idle() || queue.used_at > median);
        Ok(())
    }
}

/// Whether a queue that holds `held` with the new line in it keeps its limits.
fn fits(settings: &Settings, held: Totals, parcel: &Parcel<'_>) -> bool {
    let share = match parcel.claim {
        Claim::Known => 1,
        Claim::Promised => return true,
        Claim::Stranger => 2,
    };
    match parcel.kind {
        Kind::Held => {
            held.rows <= limits::HELD_LINES_MAX && held.line_octets <= limits::HELD_OCTETS_MAX
        }
        Kind::Line => {
            held.rows <= settings.lines_max / share
                && held.line_octets <= settings.line_octets_max / share
        }
    }
}

/// Plans the row of a cursor that moves to `freed`.
fn move_cursor(
    owner: &AddressBuf,
    queue: &mut Queue,
    freed: u64,
    kept: Vec<Kept>,
    operations: &mut Vec<Operation>,
) -> Move {
    let octets = owner.as_str().as_bytes();
    for gone in queue.kept.iter().filter(|old| kept.iter().all(|new| new.number != old.number)) {
        let row = Row::numbered(Table::Queue, octets, gone.number);
        operations.push(Operation::Delete { row });
    }
    let cursor = CursorRow { freed, high: queue.high, kept };
    let row = Row::new(Table::Cursor, octets, b"");
    operations.push(Operation::Put { row, value: cursor.encode() });
    queue.in_flight += 1;
    queue.cursors_in_flight += 1;
    Move { owner: owner.clone(), freed, kept: cursor.kept }
}

fn load(store: &dyn Store, owner: &AddressBuf) -> Result<Queue, SpoolError> {
    let octets = owner.as_str().as_bytes();
    let cursor = match store.get(&Row::new(Table::Cursor, octets, b""))? {
        Some(value) => CursorRow::decode(&value)
            .ok_or_else(|| StoreError::Damaged { text: "a queue's cursor".to_owned() })?,
        None => CursorRow::default(),
    };
    let (first, last) = (0_u64.to_be_bytes(), u64::MAX.to_be_bytes());
    let rows = store.range(Table::Queue, octets, &first, &last, 1, Direction::Backward)?;
    let last = match rows.into_iter().next() {
        Some((sort, value)) => {
            let number = number(&sort)?;
            let entry = Entry::decode(value).ok_or_else(|| damaged(number))?;
            let is_waiting = number > cursor.freed;
            Some((number, if is_waiting { entry.totals } else { Totals::default() }))
        }
        None => None,
    };
    let base = match last {
        Some((number, _)) if number > cursor.freed => first_totals(store, owner, cursor.freed)?,
        _ => None,
    };
    Ok(Queue::restore(cursor, last, base))
}

/// The totals before the first row behind `after`; `None` if there is no row.
fn first_totals(
    store: &dyn Store,
    owner: &AddressBuf,
    after: u64,
) -> Result<Option<Totals>, SpoolError> {
    let (from, to) = (after.saturating_add(1).to_be_bytes(), u64::MAX.to_be_bytes());
    let octets = owner.as_str().as_bytes();
    let rows = store.range(Table::Queue, octets, &from, &to, 1, Direction::Forward)?;
    let Some((sort, value)) = rows.into_iter().next() else { return Ok(None) };
    let number = number(&sort)?;
    let entry = Entry::decode(value).ok_or_else(|| damaged(number))?;
    Ok(Some(entry.totals_before()))
}

/// Rows of a queue; if one of them is damaged, the rows are read one by one and it is `None`.
fn read_range(
    store: &dyn Store,
    owner: &AddressBuf,
    (from, to): (u64, u64),
    limit: u64,
) -> Result<Vec<(u64, Option<Entry>)>, SpoolError> {
    let octets = owner.as_str().as_bytes();
    let (first, last) = (from.to_be_bytes(), to.to_be_bytes());
    let limit_rows = usize::try_from(limit).unwrap_or(1);
    match store.range(Table::Queue, octets, &first, &last, limit_rows, Direction::Forward) {
        Ok(rows) => rows
            .into_iter()
            .map(|(sort, value)| Ok((number(&sort)?, Entry::decode(value))))
            .collect(),
        Err(StoreError::Damaged { .. }) => {
            let mut rows = Vec::new();
            for number in (from..=to).take(limit_rows) {
                match store.get(&Row::numbered(Table::Queue, octets, number)) {
                    Ok(Some(value)) => rows.push((number, Entry::decode(value))),
                    Ok(None) => {}
                    Err(StoreError::Damaged { .. }) => rows.push((number, None)),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(rows)
        }
        Err(error) => Err(error.into()),
    }
}

fn number(sort: &[u8]) -> Result<u64, StoreError> {
    let octets = sort.try_into().map_err(|_| damaged(0))?;
    Ok(u64::from_be_bytes(octets))
}

fn damaged(number: u64) -> StoreError {
    StoreError::Damaged { text: format!("row {number} of a queue") }
}

/// Sixteen octets that stand for an owner where rows of all owners stand together.
fn owner_tag(owner: &[u8]) -> [u8; 16] {
    let mut tag = [0; 16];
    for (place, octet) in tag.iter_mut().zip(sha256(&[owner])) {
        *place = octet;
    }
    tag
}
