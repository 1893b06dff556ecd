//! The store on disk: fjall with guards, every value sealed.
//!
//! Owns the folder, two threads (the committer, which alone writes, and the keeper of the keys)
//! and the promise of [`Store`](super::Store) against a real device. Reads happen on the caller's
//! thread. At a start every file is checked before it is believed; see [`StartReport`]. Limits:
//! [`limits`](super::limits). RELAY.md, "The store: facts and guards".

mod committer;
mod database;
mod desk;
mod journal;
mod keeper;
mod keyfile;
mod report;
mod shared;
mod start;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod watermark;

pub use report::{Finding, OpenError, StartReport};

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::committer::Committer;
use self::database::{Database, Space};
use self::desk::Desk;
use self::keeper::{Bell, Keeper};
use self::keyfile::{Entry, INDEX_KEY};
use self::shared::{Counters, Parts, Shared};
use self::start::{Files, Started, io_error};
use self::watermark::Watermark;
use super::commit::{self, within};
use super::seal::{DataKey, KeyId, Opened, PLACE_PREFIX_LENGTH, Seal, make_key};
use super::{
    CommitToken, Cursor, Direction, Operation, Outcome, Row, Scanned, Sorted, Statistics, Store,
    StoreError, Table, limits,
};
use crate::clock::{Clock, Now};
use crate::keys::{KeyError, KeyService};

/// Tells the free octets of the file system that holds a path.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// How the store is kept.
#[derive(Clone)]
pub struct Config {
    /// The folder; created if it is not there.
    pub folder: PathBuf,
    /// Octets that stay free. Commits that only delete may use half of them.
    pub reserve_octets: u64,
    /// After this age a data key seals no more.
    pub key_age: Duration,
    /// Rows under keys of this age are sealed anew, so that the keys can be erased. Longer than
    /// the life of a message.
    pub reseal_after: Duration,
    /// Opens in spite of lost or damaged data and keeps what is whole.
    pub accept_loss: bool,
    /// Reads the clocks.
    pub clock: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Looks at the free space.
    pub free_space: FreeSpace,
}

impl Config {
    /// The defaults: 1 GiB in reserve, keys of 24 hours, sealed anew after 32 days.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let clock = Clock::start();
        Self {
            folder: folder.to_owned(),
            reserve_octets: 1 << 30,
            key_age: Duration::from_secs(24 * 3_600),
            reseal_after: Duration::from_secs(32 * 24 * 3_600),
            accept_loss: false,
            clock: Arc::new(move || clock.now()),
            free_space: Arc::new(shared::free_space),
        }
    }

    fn key_age_ms(&self) -> u64 {
        u64::try_from(self.key_age.as_millis()).unwrap_or(u64::MAX)
    }

    fn reseal_after_ms(&self) -> u64 {
        u64::try_from(self.reseal_after.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("folder", &self.folder)
            .field("reserve_octets", &self.reserve_octets)
            .field("key_age", &self.key_age)
            .field("reseal_after", &self.reseal_after)
            .field("accept_loss", &self.accept_loss)
            .finish_non_exhaustive()
    }
}

/// The store on disk. Dropping it finishes what was submitted and closes in order.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as the store is open, so that no other process opens it.
    _lock: File,
}

impl EmbeddedStore {
    /// Opens or creates the store. `wake` is called from another thread whenever
    /// [`Store::completions`] has something new. Blocks on the disk and on the key service.
    ///
    /// # Errors
    /// [`OpenError`]; with [`OpenError::Damaged`] nothing was changed.
    pub fn open(
        config: Config,
        service: Arc<dyn KeyService>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Result<(Self, StartReport), OpenError> {
        let files = Files::new(&config.folder);
        fs::create_dir_all(&config.folder)
            .map_err(|error| io_error("creating", &config.folder, &error))?;
        let lock = take_lock(&files)?;
        let mut report = StartReport::default();
        let Started { database, number, previous } =
            start::start(&files, config.accept_loss, &mut report)?;
        let now_ms = (config.clock)().timestamp.0;
        let keys =
            open_keys(&files, &database, &*service, now_ms, config.accept_loss, &mut report)?;
        let path = files.watermark();
        let watermark =
            Watermark::open(&path, number).map_err(|error| io_error("writing", &path, &error))?;
        let seal = keys.seal;
        let desk = Desk::new(keys.next_id, keys.index.clone());
        let parts = Parts { config, files, service, seal, desk, watermark, database, wake };
        let shared = Arc::new(Shared::new(parts));
        desk::prepare(&shared)?;
        shared.look_at_space();
        let mut committer = Committer::new(shared.clone(), number, previous);
        if number == 0 {
            committer.found(&keys.index).map_err(|error| OpenError::Io {
                what: "writing the first batch".to_owned(),
                text: error.to_string(),
            })?;
        }
        report.data_keys = shared.seal.keys().len();
        report.commit_number = shared.statistics().commit_number;
        let bell = Arc::new(Bell::default());
        let keeper = Keeper::new(shared.clone(), bell.clone());
        let threads = vec![
            spawn("store-committer", move || committer.run())?,
            spawn("store-keeper", move || keeper.run())?,
        ];
        Ok((Self { shared, bell, threads, _lock: lock }, report))
    }

    /// What an operator may do to the store while somebody else owns it.
    #[must_use]
    pub fn controls(&self) -> Controls {
        Controls { shared: self.shared.clone() }
    }

    /// As [`Controls::rekey_now`].
    ///
    /// # Errors
    /// [`StoreError::KeyAway`].
    pub fn rekey_now(&self) -> Result<(), StoreError> {
        self.controls().rekey_now()
    }

    /// Begins a walk over all rows now: what is under old keys is sealed anew, and keys without
    /// rows are erased.
    pub fn sweep_now(&self) {
        self.bell.sweep();
    }

    /// Tells the store that the key service is back, so that it need not find out.
    pub fn key_service_returned(&self) {
        self.bell.hurry();
    }
}

/// A handle for operators. Does not keep the store open.
#[derive(Clone, Debug)]
pub struct Controls {
    shared: Arc<Shared>,
}

impl Controls {
    /// Makes a new data key, with which the next commit that writes is sealed. Blocks on the key
    /// service.
    ///
    /// # Errors
    /// [`StoreError::KeyAway`].
    pub fn rekey_now(&self) -> Result<(), StoreError> {
        desk::prepare(&self.shared).map_err(|error| desk::key_away(&error))?;
        self.shared.desk.ask_for_change();
        Ok(())
    }

    /// Why commits that write are refused now; `None` if they are not.
    #[must_use]
    pub fn refusal(&self) -> Option<StoreError> {
        self.shared
            .refusal()
            .or_else(|| self.shared.space_error(false))
            .or_else(|| self.shared.desk.refusal(self.shared.now().timestamp.0))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.bell.end();
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
        self.shared.exchange(None);
    }
}

impl Store for EmbeddedStore {
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, StoreError> {
        commit::check_row(row)?;
        let place = self.shared.seal.place(row);
        let sealed = self.shared.database()?.read(Space::of(row.table), &place);
        let sealed = sealed.map_err(|error| damaged(&self.shared, &error))?;
        sealed.map(|sealed| open_row(&self.shared, row, &place, &sealed)).transpose()
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
        let database = self.shared.database()?;
        if table.hides_sort() {
            let mut rows: Vec<Sorted> = hidden_rows(&self.shared, &database, table, owner)?
                .into_iter()
                .filter(|opened| *opened.sort >= *from_sort && *opened.sort <= *to_sort)
                .map(|opened| (opened.sort, opened.value))
                .collect();
            rows.sort_unstable();
            if direction == Direction::Backward {
                rows.reverse();
            }
            rows.truncate(limit);
            return Ok(rows);
        }
        let prefix = self.shared.seal.prefix(table, owner);
        let [first, last] = [from_sort, to_sort].map(|sort| [&prefix[..], sort].concat());
        let rows = database
            .range(Space::of(table), &first, &last, limit, direction)
            .map_err(|error| damaged(&self.shared, &error))?;
        rows.iter()
            .map(|(place, sealed)| {
                let opened = open_at(&self.shared, table, owner, place, sealed)?;
                Ok((opened.sort, opened.value))
            })
            .collect()
    }

    fn scan(
        &self,
        table: Table,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<Scanned>, Option<Cursor>), StoreError> {
        let limit = limit.clamp(1, limits::READ_ROWS_MAX);
        let number = table.number();
        let first = after.map_or(vec![number], |cursor| [&cursor.0[..], &[0]].concat());
        let last = [number + 1];
        let rows = self
            .shared
            .database()?
            .range(Space::of(table), &first, &last, limit + 1, Direction::Forward)
            .map_err(|error| damaged(&self.shared, &error))?;
        let more = rows.len() > limit;
        let rows = rows.get(..limit).unwrap_or(&rows);
        let cursor = rows.last().filter(|_| more).map(|(place, _)| Cursor(Box::from(&**place)));
        let scanned = rows
            .iter()
            .map(|(place, sealed)| {
                let opened = self.shared.seal.open(table, place, sealed);
                let Opened { owner, sort, value } =
                    opened.map_err(|error| damaged(&self.shared, &error))?;
                Ok(Scanned { owner, sort, value })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok((scanned, cursor))
    }

    fn submit(&mut self, token: CommitToken, operations: Vec<Operation>) -> Result<(), StoreError> {
        let weight = commit::check(&operations)?;
        if let Some(error) = self.shared.refusal() {
            return Err(error);
        }
        if let Some(error) = self.shared.space_error(weight.only_deletes) {
            return Err(error);
        }
        if !weight.only_deletes
            && let Some(error) = self.shared.desk.refusal(self.shared.now().timestamp.0)
        {
            return Err(error);
        }
        self.shared.submit(token, operations, weight)
    }

    fn completions(&mut self, into: &mut Vec<(CommitToken, Outcome)>) {
        self.shared.fetch(into);
    }

    fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| OpenError::io(format!("starting the thread {name}"), &error))
}

fn take_lock(files: &Files) -> Result<File, OpenError> {
    let path = files.lock();
    let file = File::create(&path).map_err(|error| io_error("creating", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(files.folder().to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error("locking", &path, &error)),
    }
}

/// The keys of a store, opened.
struct Keys {
    seal: Seal,
    index: Entry,
    /// The number of the next data key.
    next_id: u32,
}

/// Reads the wrapped keys from their two homes and opens them all.
fn open_keys(
    files: &Files,
    database: &Database,
    service: &dyn KeyService,
    now_ms: u64,
    accept_loss: bool,
    report: &mut StartReport,
) -> Result<Keys, OpenError> {
    let mut entries = read_keys(files, database, report)?;
    let index = match entries.remove(&INDEX_KEY) {
        Some(copies) => copies,
        None if report.commit_number == 0 => {
            let (_, wrapped) = make_key(service)?;
            let entry = Entry { id: INDEX_KEY, created_ms: now_ms, wrapped };
            let path = files.keys();
            keyfile::write(&path, std::slice::from_ref(&entry))
                .map_err(|error| io_error("writing", &path, &error))?;
            vec![entry]
        }
        None => Vec::new(),
    };
    let opened = first_good(&index, |entry| service.unwrap(&entry.wrapped))?;
    let Some((index, key)) = opened else {
        report.findings.push(Finding::KeyLost { key: INDEX_KEY });
        return Err(OpenError::Damaged(report.clone()));
    };
    let seal = Seal::new(&key);
    let next_id = entries.keys().next_back().map_or(1, |last| last + 1);
    for (id, copies) in entries {
        let open = |entry: &Entry| {
            DataKey::open(KeyId(id), entry.created_ms, entry.wrapped.clone(), service)
        };
        match first_good(&copies, open)? {
            Some((_, key)) => seal.add(Arc::new(key)),
            None => report.findings.push(Finding::KeyLost { key: id }),
        }
    }
    if report.is_loss() && !accept_loss {
        return Err(OpenError::Damaged(report.clone()));
    }
    Ok(Keys { seal, index: index.clone(), next_id })
}

/// All copies of all wrapped keys, by number; the file's before the database's.
fn read_keys(
    files: &Files,
    database: &Database,
    report: &mut StartReport,
) -> Result<BTreeMap<u32, Vec<Entry>>, OpenError> {
    let path = files.keys();
    let listed = match keyfile::read(&path) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("reading", &path, &error)),
    };
    if listed.is_none() && report.commit_number > 0 {
        report.findings.push(Finding::KeyFileRestored);
    }
    let mut entries: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
    let rows = database
        .range(
            Space::Meta,
            keyfile::ROW_PREFIX,
            &[keyfile::ROW_PREFIX, &[0xff; 4]].concat(),
            usize::MAX,
            Direction::Forward,
        )
        .map_err(|error| {
            report.findings.push(Finding::DatabaseDamaged { text: error.to_string() });
            OpenError::Damaged(report.clone())
        })?;
    let stored = rows.iter().filter_map(|(key, value)| Entry::from_row(key, value));
    for entry in listed.into_iter().flatten().chain(stored) {
        let copies = entries.entry(entry.id).or_default();
        if !copies.contains(&entry) {
            copies.push(entry);
        }
    }
    Ok(entries)
}

/// The first copy that opens; `None` if all are damaged.
fn first_good<T>(
    copies: &[Entry],
    open: impl Fn(&Entry) -> Result<T, KeyError>,
) -> Result<Option<(&Entry, T)>, OpenError> {
    for entry in copies {
        match open(entry) {
            Ok(key) => return Ok(Some((entry, key))),
            Err(KeyError::Malformed { .. }) => {}
            Err(error) => return Err(OpenError::Key(error)),
        }
    }
    Ok(None)
}

/// Opens the value of `row`.
fn open_row(
    shared: &Shared,
    row: &Row,
    place: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, StoreError> {
    open_at(shared, row.table, &row.owner, place, sealed).map(|opened| opened.value)
}

fn open_at(
    shared: &Shared,
    table: Table,
    owner: &[u8],
    place: &[u8],
    sealed: &[u8],
) -> Result<Opened, StoreError> {
    let opened = shared.seal.open(table, place, sealed).map_err(|error| damaged(shared, &error))?;
    if *opened.owner == *owner {
        Ok(opened)
    } else {
        Err(damaged(shared, &"a row lies at the place of another owner"))
    }
}

/// All rows of `owner` in a table that hides the sort, in the order of their places.
fn hidden_rows(
    shared: &Shared,
    database: &Database,
    table: Table,
    owner: &[u8],
) -> Result<Vec<Opened>, StoreError> {
    let prefix = shared.seal.prefix(table, owner);
    let last = [&prefix[..], &[0xff; PLACE_PREFIX_LENGTH]].concat();
    let max = limits::HIDDEN_ROWS_MAX;
    let rows = database
        .range(Space::of(table), &prefix, &last, max + 1, Direction::Forward)
        .map_err(|error| damaged(shared, &error))?;
    within("rows of one owner", rows.len(), max)?;
    rows.iter().map(|(place, sealed)| open_at(shared, table, owner, place, sealed)).collect()
}

fn damaged(shared: &Shared, error: &dyn fmt::Display) -> StoreError {
    Counters::add(&shared.counters.damaged, 1);
    StoreError::Damaged { text: error.to_string() }
}
