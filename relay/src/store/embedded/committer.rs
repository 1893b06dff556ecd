//! The committer: the only thread that writes.
//!
//! Takes everything that arrived while the last flush ran, decides each commit against the state
//! that includes all earlier ones, writes one batch and flushes it once. Invariants: one flush in
//! flight; every batch carries its number in every keyspace that it touches; no outcome is told
//! before the flush. After a failed write it takes no more work, and opens the database again only
//! where the failure was want of space. Limits: [`limits::BATCH_ITEMS_MAX`] and
//! [`limits::BATCH_OCTETS_MAX`].

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::database::{Database, DatabaseError, Item, Space};
use super::desk;
use super::journal::{LINK_KEY, Link};
use super::keyfile::Entry;
use super::report::StartReport;
use super::shared::{Condition, Counters, Job, OldRow, Queue, Shared};
use super::start;
use crate::store::commit::{self, Change, View};
use crate::store::seal::{KeyId, PLACE_PREFIX_LENGTH, Seal, Sealing};
use crate::store::{CommitToken, Operation, Outcome, Row, StoreError, Table, limits};

/// How long an idle committer waits before it looks at the space again.
const PATIENCE: Duration = Duration::from_millis(200);

/// The thread's state.
pub(super) struct Committer {
    shared: Arc<Shared>,
    sealing: Option<Sealing>,
    /// Whether the row of the key in use is in the database.
    key_written: bool,
    /// The number of the last batch.
    number: u64,
    previous: [u64; 3],
    /// Wall time of the last attempt to open again.
    reopen_ms: u64,
}

/// A batch in the making.
#[derive(Default)]
struct Batch {
    /// The last change of each row, in order of first change.
    changes: Vec<Change>,
    index: HashMap<Row, usize>,
    outcomes: Vec<(CommitToken, Outcome)>,
    erase: Vec<KeyId>,
    resealed: u64,
    octets: usize,
}

impl Batch {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.octets += change.value.as_ref().map_or(0, Vec::len);
            match self.index.get(&change.row).and_then(|index| self.changes.get_mut(*index)) {
                Some(earlier) => earlier.value = change.value,
                None => {
                    self.index.insert(change.row.clone(), self.changes.len());
                    self.changes.push(change);
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= limits::BATCH_ITEMS_MAX || self.octets >= limits::BATCH_OCTETS_MAX
    }
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, number: u64, previous: [u64; 3]) -> Self {
        shared.counters.number.store(number, Ordering::Relaxed);
        Self { shared, sealing: None, key_written: false, number, previous, reopen_ms: 0 }
    }

    /// Works until the queue is closed and empty. A panic stops the store instead of leaving its
    /// callers without an answer for ever.
    pub(super) fn run(self) {
        let shared = self.shared.clone();
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) else { return };
        drop(panic);
        let text = "the committer met a mistake in the program";
        shared.set_condition(Condition::Stopped(text.to_owned()));
        refuse_all(&shared);
        (shared.wake)();
    }

    fn work(mut self) {
        let shared = self.shared.clone();
        loop {
            let queue = shared.wait(PATIENCE);
            if queue.is_empty() && queue.closing {
                drop(queue);
                // The end is orderly: a failure here costs only the exactness of the watermark.
                let _ = shared.watermark.flush();
                return;
            }
            let idle = queue.is_empty();
            drop(queue);
            shared.look_at_space();
            if idle || shared.condition() != Condition::Running {
                self.recover();
            }
            if !idle {
                self.turn();
            }
        }
    }

    /// Writes the first batch of a new store.
    pub(super) fn found(&mut self, index: &Entry) -> Result<(), StoreError> {
        let (key, value) = index.row();
        let items = vec![Item { space: Space::Meta, key, value: Some(value) }];
        let database = self.shared.database()?;
        self.write(&database, items).map_err(StoreError::from)
    }

    /// One turn: everything that waits, in as many batches as the limits ask for.
    fn turn(&mut self) {
        let database = match self.shared.database() {
            Ok(database) if self.shared.refusal().is_none() => database,
            _ => return refuse_all(&self.shared),
        };
        let batch = self.gather(&database);
        self.execute(&database, batch);
    }

    /// Takes jobs and decides them until the batch is full or nothing waits.
    fn gather(&mut self, database: &Database) -> Batch {
        let mut batch = Batch::default();
        let mut key = None;
        while !batch.is_full() {
            let mut queue = self.shared.queue();
            let octets = queue.next_octets() + batch.octets;
            let first = batch.outcomes.is_empty();
            if !first && octets > limits::BATCH_OCTETS_MAX {
                break;
            }
            let Some(job) = Queue::take(&mut queue) else { break };
            drop(queue);
            match job {
                Job::Commit { token, operations, only_deletes } => {
                    let shared = self.shared.clone();
                    let shared = &*shared;
                    let key = || key.get_or_insert_with(|| self.ensure_key()).clone();
                    let outcome = admit(shared, only_deletes, key)
                        .map_err(Outcome::Refused)
                        .and_then(|()| decide(shared, database, &mut batch, operations))
                        .err()
                        .unwrap_or(Outcome::Durable);
                    batch.outcomes.push((token, outcome));
                }
                Job::Reseal(rows) => {
                    if key.get_or_insert_with(|| self.ensure_key()).is_ok() {
                        for row in rows {
                            reseal(&self.shared, database, &mut batch, &row);
                        }
                    }
                }
                Job::Erase(ids) => batch.erase.extend(ids),
            }
        }
        batch
    }

    /// Seals and writes what was gathered, and tells the outcomes.
    fn execute(&mut self, database: &Arc<Database>, mut batch: Batch) {
        let written = match self.seal_all(&batch) {
            Ok(items) if items.is_empty() => Ok(()),
            Ok(items) => self.write(database, items),
            Err(error) => Err(DatabaseError::Failed(error.to_string())),
        };
        match written {
            Ok(()) => {
                if !batch.changes.is_empty() {
                    self.key_written |= self.sealing.is_some();
                }
                Counters::add(&self.shared.counters.resealed, batch.resealed);
                self.erased(&batch.erase);
            }
            Err(error) => self.fail(&error, &mut batch.outcomes),
        }
        self.shared.finish(batch.outcomes);
    }

    fn seal_all(&mut self, batch: &Batch) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::with_capacity(batch.changes.len() + batch.erase.len() + 4);
        for Change { row, value } in &batch.changes {
            let place = self.shared.seal.place(row);
            let value = match (value, &mut self.sealing) {
                (None, _) => None,
                (Some(value), Some(sealing)) => {
                    let sealed = Seal::seal(sealing, row, &place, value);
                    Some(sealed.map_err(|error| StoreError::Damaged { text: error.to_string() })?)
                }
                // A commit that writes was only let in with a key at hand.
                (Some(_), None) => {
                    return Err(StoreError::Damaged { text: "no data key".to_owned() });
                }
            };
            items.push(Item { space: Space::of(row.table), key: place, value });
        }
        if let Some(sealing) = self.sealing.as_ref().filter(|_| !self.key_written)
            && !items.is_empty()
        {
            let (key, value) = desk::entry(&sealing.key).row();
            items.push(Item { space: Space::Meta, key, value: Some(value) });
        }
        items.extend(batch.erase.iter().map(|id| Item {
            space: Space::Meta,
            key: Entry::row_key(id.0),
            value: None,
        }));
        if self.sealing.as_ref().is_some_and(Sealing::nearly_spent) {
            self.shared.desk.note_nearly_spent();
        }
        Ok(items)
    }

    /// Writes one batch with its links, flushed.
    fn write(&mut self, database: &Database, mut items: Vec<Item>) -> Result<(), DatabaseError> {
        let number = self.number + 1;
        let link = Link { number, previous: self.previous, sequence: database.sequence() };
        let mut previous = self.previous;
        let count = items.len() as u64;
        for (space, previous) in Space::ALL.into_iter().zip(&mut previous) {
            if items.iter().any(|item| item.space == space) {
                *previous = number;
                let value = Some(link.octets().to_vec());
                items.push(Item { space, key: LINK_KEY.to_vec(), value });
            }
        }
        let begun = self.shared.now().since_start;
        database.commit(items)?;
        let spent = self.shared.now().since_start.saturating_sub(begun);
        self.number = number;
        self.previous = previous;
        let counters = &self.shared.counters;
        counters.number.store(number, Ordering::Relaxed);
        Counters::add(&counters.batches, 1);
        Counters::add(&counters.items, count);
        let micros = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        counters.flush_us_max.fetch_max(micros, Ordering::Relaxed);
        // The watermark lags if this fails; a lagging one is safe.
        let _ = self.shared.watermark.write(number);
        Ok(())
    }

    /// Turns the outcomes of a failed batch into what can be said, and stops the store.
    fn fail(&mut self, error: &DatabaseError, outcomes: &mut [(CommitToken, Outcome)]) {
        let starved = self.shared.look_at_space() < self.shared.config.reserve_octets;
        let condition = match error {
            DatabaseError::NoSpace(_) => Condition::Starved,
            DatabaseError::Poisoned if starved => Condition::Starved,
            other => Condition::Stopped(other.to_string()),
        };
        if matches!(condition, Condition::Stopped(_)) {
            // A device that fails may refuse this too; the start then has only its checks.
            let _ = start::note_failure(&self.shared.files);
        }
        self.shared.set_condition(condition);
        // A poisoned database refuses before it writes anything.
        let untouched = matches!(error, DatabaseError::Poisoned);
        let refusal = self.shared.refusal().unwrap_or(StoreError::Busy);
        for (_, outcome) in outcomes.iter_mut() {
            if !matches!(outcome, Outcome::Refused(_)) {
                *outcome =
                    if untouched { Outcome::Refused(refusal.clone()) } else { Outcome::Unknown };
            }
        }
    }

    /// Opens the database again where it stopped for want of space and there is space now.
    fn recover(&mut self) {
        let needed = self.shared.config.reserve_octets.max(limits::REOPEN_FREE_OCTETS);
        let free = self.shared.counters.free.load(Ordering::Relaxed);
        if self.shared.condition() != Condition::Starved || free < needed {
            return;
        }
        let now_ms = self.shared.now().timestamp.0;
        if now_ms.abs_diff(self.reopen_ms) < 1_000 {
            return;
        }
        self.reopen_ms = now_ms;
        let Some(old) = self.shared.exchange(None) else { return };
        // Readers hold the database for the length of one call.
        let mut old = Some(old);
        while let Some(held) = old.take() {
            match Arc::try_unwrap(held) {
                Ok(database) => drop(database),
                Err(held) => {
                    std::thread::yield_now();
                    old = Some(held);
                }
            }
        }
        let mut report = StartReport::default();
        match start::start(&self.shared.files, false, &mut report) {
            Ok(started) => {
                self.number = started.number;
                self.previous = started.previous;
                self.key_written = false;
                self.shared.exchange(Some(started.database));
                Counters::add(&self.shared.counters.reopened, 1);
                self.shared.set_condition(Condition::Running);
            }
            Err(error) => self.shared.set_condition(Condition::Stopped(error.to_string())),
        }
    }

    /// Makes sure that a key is in use that may seal at this time.
    fn ensure_key(&mut self) -> Result<(), StoreError> {
        let desk = &self.shared.desk;
        let now_ms = self.shared.now().timestamp.0;
        let usable = self.sealing.as_ref().is_some_and(|sealing| !sealing.spent())
            && !desk.expired(now_ms)
            && !desk.is_change_asked();
        if usable {
            return Ok(());
        }
        if !desk.has_next() {
            desk::prepare(&self.shared).map_err(|error| desk::key_away(&error))?;
        }
        if let Some(key) = desk.take(self.shared.config.key_age_ms()) {
            self.sealing = Some(Sealing::new(key));
            self.key_written = false;
        }
        Ok(())
    }

    fn erased(&self, ids: &[KeyId]) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.shared.seal.forget(*id);
        }
        Counters::add(&self.shared.counters.erased, ids.len() as u64);
        // If it fails, the next key made writes the file anew.
        let _ = desk::rewrite_file(&self.shared);
    }
}

/// Refuses everything that waits, with the reason why no work is taken.
fn refuse_all(shared: &Shared) {
    let error = shared.refusal().unwrap_or(StoreError::Busy);
    let mut outcomes = Vec::new();
    let mut queue = shared.queue();
    while let Some(job) = queue.take() {
        if let Job::Commit { token, .. } = job {
            outcomes.push((token, Outcome::Refused(error.clone())));
        }
    }
    drop(queue);
    shared.finish(outcomes);
}

/// Whether a commit may be decided at all.
fn admit(
    shared: &Shared,
    only_deletes: bool,
    key: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if let Some(error) = shared.space_error(only_deletes) {
        return Err(error);
    }
    if only_deletes { Ok(()) } else { key() }
}

fn decide(
    shared: &Shared,
    database: &Database,
    batch: &mut Batch,
    operations: Vec<Operation>,
) -> Result<(), Outcome> {
    let changes = commit::evaluate(&Present { shared, database, batch }, operations)?;
    batch.apply(changes);
    Ok(())
}

/// Takes a row into the batch unless it changed since it was read.
fn reseal(shared: &Shared, database: &Database, batch: &mut Batch, old: &OldRow) {
    let Some(table) = old.place.first().and_then(|number| Table::from_number(*number)) else {
        return;
    };
    let present = database.get(old.space, &old.place);
    if !matches!(present, Ok(Some(present)) if *present == *old.sealed) {
        return;
    }
    let Ok(opened) = shared.seal.open(table, &old.place, &old.sealed) else {
        Counters::add(&shared.counters.damaged, 1);
        return;
    };
    let row = Row { table, owner: opened.owner, sort: opened.sort };
    if !batch.index.contains_key(&row) {
        batch.resealed += 1;
        batch.apply(vec![Change { row, value: Some(opened.value) }]);
    }
}

/// The state that a commit is decided against: the database and the batch in the making.
struct Present<'a> {
    shared: &'a Shared,
    database: &'a Database,
    batch: &'a Batch,
}

impl Present<'_> {
    /// The change of `row` in this batch, if there is one.
    fn changed(&self, row: &Row) -> Option<&Option<Vec<u8>>> {
        let index = self.batch.index.get(row)?;
        self.batch.changes.get(*index).map(|change| &change.value)
    }

    fn stored_sorts(
        &self,
        table: Table,
        owner: &[u8],
        from: &[u8],
        to: &[u8],
        max: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError> {
        let prefix = self.shared.seal.prefix(table, owner);
        let space = Space::of(table);
        if table.hides_sort() {
            return Ok(super::hidden_rows(self.shared, self.database, table, owner)?
                .into_iter()
                .map(|opened| opened.sort)
                .filter(|sort| (from..=to).contains(&&**sort))
                .collect());
        }
        let [first, last] = [from, to].map(|sort| [&prefix[..], sort].concat());
        let keys = self.database.keys(space, &first, &last, max + 1)?;
        Ok(keys.iter().filter_map(|key| key.get(PLACE_PREFIX_LENGTH..)).map(Box::from).collect())
    }
}

impl View for Present<'_> {
    fn exists(&self, row: &Row) -> Result<bool, StoreError> {
        if let Some(value) = self.changed(row) {
            return Ok(value.is_some());
        }
        let place = self.shared.seal.place(row);
        Ok(self.database.contains(Space::of(row.table), &place)?)
    }

    fn value(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.changed(row) {
            return Ok(value.clone());
        }
        let place = self.shared.seal.place(row);
        let Some(sealed) = self.database.get(Space::of(row.table), &place)? else {
            return Ok(None);
        };
        super::open_row(self.shared, row, &place, &sealed).map(Some)
    }

    fn sorts(
        &self,
        table: Table,
        owner: &[u8],
        from: &[u8],
        to: &[u8],
        max: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError> {
        let mut sorts = self.stored_sorts(table, owner, from, to, max)?;
        for change in &self.batch.changes {
            let row = &change.row;
            let meant = row.table == table && *row.owner == *owner;
            if meant && (from..=to).contains(&&*row.sort) {
                sorts.retain(|sort| *sort != row.sort);
                sorts.extend(change.value.is_some().then(|| row.sort.clone()));
            }
        }
        commit::within("rows to delete", sorts.len(), max)?;
        sorts.sort_unstable();
        Ok(sorts)
    }
}
