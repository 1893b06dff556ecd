//! The state file: what the engine knows, sealed row by row, each transaction all or nothing.
//!
//! Owns a SQLite database in which every value is sealed with AES-256-GCM under a key that follows
//! from the state key (in the key file) and the row; names of rows are hidden by a keyed hash. The
//! invariants: nothing is visible outside before [`State::commit`] has flushed it, and what was
//! erased or replaced in a space that holds keys is gone from the database *and* its write-ahead
//! log when `commit` returns (`secure_delete`, then a checkpoint that cuts the log). One process
//! at a time: the file is locked. After a failed commit the state refuses to go on; it must be
//! opened anew. A row moved to another place, or changed, does not open; a whole file set back to
//! an older one cannot be told from the file itself (SPEC.md §7 says what a restored device does).

mod json;
mod space;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

pub use json::to_json;
pub use space::Space;

use crate::random::{self, NoRandom, Random};
use crate::secret::Secret32;

/// The version of the tables and of what is in them.
const SCHEMA_VERSION: i64 = 1;
/// The row by which a wrong key is noticed.
const CHECK_NAME: &str = "check";

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A row was changed, moved or cut: the file is damaged or somebody worked on it.
    #[error("the state file is damaged: a value in {0} does not open")]
    Damaged(Space),
    /// Resource: the database refused.
    #[error("the state file cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// Misuse: another process has the file.
    #[error("the state file is in use by another process")]
    InUse,
    /// Resource: the file cannot be made.
    #[error("the state file cannot be made: {0}")]
    Io(#[from] io::Error),
    /// Misuse: the key is not the one the file was made with.
    #[error("the state file belongs to another key file")]
    Key,
    /// Misuse: an earlier commit failed.
    #[error("an earlier write failed; the state must be opened anew")]
    Poisoned,
    /// Resource: no random octets.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// Incompatible: made by a newer version of this program.
    #[error("the state file was made by another version of this program")]
    Version,
}

/// The open state file.
pub struct State {
    connection: Connection,
    seal: hmac::Key,
    index: hmac::Key,
    random: Box<dyn Random + Send>,
    is_changing: bool,
    /// Whether keys were erased or replaced since the log was last cut.
    has_erased: bool,
    is_poisoned: bool,
    /// Where a test lets the program die.
    #[cfg(test)]
    pub(crate) crash: Option<Crash>,
}

/// A death of the program at a commit.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// Commits that still succeed.
    pub(crate) commits_left: u64,
    /// Whether the fatal commit reaches the disk.
    pub(crate) is_durable: bool,
}

impl State {
    /// Opens the file at `path`, making it if there is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(
        path: &Path,
        key: &Secret32,
        random: Box<dyn Random + Send>,
    ) -> Result<Self, StateError> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Self::start(Connection::open(path)?, key, random)
    }

    /// A state that lives in memory only.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn in_memory(key: &Secret32, random: Box<dyn Random + Send>) -> Result<Self, StateError> {
        Self::start(Connection::open_in_memory()?, key, random)
    }

    fn start(
        connection: Connection,
        key: &Secret32,
        random: Box<dyn Random + Send>,
    ) -> Result<Self, StateError> {
        prepare(&connection).map_err(in_use)?;
        let derive = |label: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, label).as_ref())
        };
        let mut state = Self {
            connection,
            seal: derive(b"CIM1-STATE-SEAL"),
            index: derive(b"CIM1-STATE-INDEX"),
            random,
            is_changing: false,
            has_erased: true,
            is_poisoned: false,
            #[cfg(test)]
            crash: None,
        };
        match state.get::<String>(Space::Meta, CHECK_NAME) {
            Ok(Some(_)) => {}
            Ok(None) if state.is_empty()? => {
                state.put(Space::Meta, CHECK_NAME, &CHECK_NAME)?;
            }
            Ok(None) | Err(StateError::Damaged(_)) => return Err(StateError::Key),
            Err(error) => return Err(error),
        }
        // A log left by a crash may hold what was erased.
        state.commit()?;
        Ok(state)
    }

    /// The value of a row.
    ///
    /// # Errors
    /// [`StateError::Damaged`], [`StateError::Database`].
    pub fn get<T: DeserializeOwned>(
        &self,
        space: Space,
        name: &str,
    ) -> Result<Option<T>, StateError> {
        let hidden = self.hide(space, name);
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT sealed FROM item WHERE space = ?1 AND name = ?2")?
            .query_row(params![space.number(), hidden.as_slice()], |row| row.get(0))
            .optional()?;
        let Some(sealed) = sealed else { return Ok(None) };
        let (found, value) = self.unseal(space, &hidden, sealed)?;
        if found != name {
            return Err(StateError::Damaged(space));
        }
        Ok(Some(value))
    }

    /// Whether there is such a row.
    ///
    /// # Errors
    /// [`StateError::Database`].
    pub fn contains(&self, space: Space, name: &str) -> Result<bool, StateError> {
        let hidden = self.hide(space, name);
        let exists = self
            .connection
            .prepare_cached("SELECT 1 FROM item WHERE space = ?1 AND name = ?2")?
            .exists(params![space.number(), hidden.as_slice()])?;
        Ok(exists)
    }

    /// All rows of a space with their names, in the order of the names.
    ///
    /// # Errors
    /// [`StateError::Damaged`], [`StateError::Database`].
    pub fn list<T: DeserializeOwned>(&self, space: Space) -> Result<Vec<(String, T)>, StateError> {
        self.list_prefix(space, "")
    }

    /// The rows of a space whose names begin with `prefix`, in the order of the names.
    ///
    /// # Errors
    /// [`StateError::Damaged`], [`StateError::Database`].
    pub fn list_prefix<T: DeserializeOwned>(
        &self,
        space: Space,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, StateError> {
        let mut statement =
            self.connection.prepare_cached("SELECT name, sealed FROM item WHERE space = ?1")?;
        let mut rows = statement.query(params![space.number()])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            let hidden: Vec<u8> = row.get(0)?;
            let hidden = hidden.try_into().map_err(|_| StateError::Damaged(space))?;
            let Some((name, value)) = self.unseal_if(space, &hidden, row.get(1)?, prefix)? else {
                continue;
            };
            if self.hide(space, &name) != hidden {
                return Err(StateError::Damaged(space));
            }
            list.push((name, value));
        }
        list.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(list)
    }

    /// The number of rows of a space.
    ///
    /// # Errors
    /// [`StateError::Database`].
    pub fn count(&self, space: Space) -> Result<usize, StateError> {
        let count: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM item WHERE space = ?1")?
            .query_row(params![space.number()], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Writes a row, in place of the one of that name.
    ///
    /// # Errors
    /// [`StateError::Poisoned`], [`StateError::Database`], [`StateError::Random`].
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        space: Space,
        name: &str,
        value: &T,
    ) -> Result<(), StateError> {
        self.begin()?;
        let hidden = self.hide(space, name);
        let nonce = random::octets::<NONCE_LEN>(&mut *self.random)?;
        let mut text = json::to_json_after(name, value).map_err(|_| StateError::Damaged(space))?;
        self.row_key(space, &hidden)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(space, &hidden)),
                &mut *text,
            )
            .map_err(|_| StateError::Damaged(space))?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + text.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO item (space, name, sealed) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![space.number(), hidden.as_slice(), sealed])?;
        self.has_erased |= space.holds_keys();
        Ok(())
    }

    /// Removes a row; says whether there was one.
    ///
    /// # Errors
    /// [`StateError::Poisoned`], [`StateError::Database`].
    pub fn remove(&mut self, space: Space, name: &str) -> Result<bool, StateError> {
        self.begin()?;
        let hidden = self.hide(space, name);
        let removed = self
            .connection
            .prepare_cached("DELETE FROM item WHERE space = ?1 AND name = ?2")?
            .execute(params![space.number(), hidden.as_slice()])?;
        self.has_erased |= removed > 0 && space.holds_keys();
        Ok(removed > 0)
    }

    /// Makes everything since the last commit durable, all of it or nothing, and what was erased
    /// unreadable.
    ///
    /// # Errors
    /// [`StateError::Database`]; nothing since the last commit may then be acted upon, and every
    /// further write is [`StateError::Poisoned`].
    pub fn commit(&mut self) -> Result<(), StateError> {
        if self.is_poisoned {
            return Err(StateError::Poisoned);
        }
        let outcome = self.try_commit();
        self.is_poisoned = outcome.is_err();
        outcome
    }

    /// Whether something waits for [`Self::commit`].
    #[must_use]
    pub const fn is_changing(&self) -> bool {
        self.is_changing
    }

    /// Random octets, from the source that seals the rows.
    pub fn random(&mut self) -> &mut dyn Random {
        &mut *self.random
    }

    fn try_commit(&mut self) -> Result<(), StateError> {
        #[cfg(test)]
        if let Some(crash) = &mut self.crash {
            if crash.commits_left == 0 {
                if crash.is_durable && self.is_changing {
                    self.connection.execute_batch("COMMIT")?;
                }
                return Err(StateError::Poisoned);
            }
            crash.commits_left -= u64::from(self.is_changing);
        }
        if self.is_changing {
            self.connection.execute_batch("COMMIT")?;
            self.is_changing = false;
        }
        if self.has_erased {
            let is_busy: i64 =
                self.connection
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            self.has_erased = is_busy != 0;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StateError> {
        if self.is_poisoned {
            return Err(StateError::Poisoned);
        }
        if !self.is_changing {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.is_changing = true;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool, StateError> {
        Ok(!self.connection.prepare("SELECT 1 FROM item LIMIT 1")?.exists([])?)
    }

    /// The name of a row as the database sees it.
    fn hide(&self, space: Space, name: &str) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.index);
        context.update(&[space.number()]);
        context.update(name.as_bytes());
        let tag = context.sign();
        let mut hidden = [0; 16];
        for (octet, from) in hidden.iter_mut().zip(tag.as_ref()) {
            *octet = *from;
        }
        hidden
    }

    fn row_key(&self, space: Space, hidden: &[u8; 16]) -> Result<LessSafeKey, StateError> {
        let key = hmac::sign(&self.seal, &place(space, hidden));
        UnboundKey::new(&AES_256_GCM, key.as_ref())
            .map(LessSafeKey::new)
            .map_err(|_| StateError::Damaged(space))
    }

    fn unseal<T: DeserializeOwned>(
        &self,
        space: Space,
        hidden: &[u8; 16],
        sealed: Vec<u8>,
    ) -> Result<(String, T), StateError> {
        self.unseal_if(space, hidden, sealed, "")?.ok_or(StateError::Damaged(space))
    }

    /// Opens a row; `None` if its name does not begin with `prefix`.
    fn unseal_if<T: DeserializeOwned>(
        &self,
        space: Space,
        hidden: &[u8; 16],
        sealed: Vec<u8>,
        prefix: &str,
    ) -> Result<Option<(String, T)>, StateError> {
        let damaged = || StateError::Damaged(space);
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self
            .row_key(space, hidden)?
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(place(space, hidden)),
                text.as_mut_slice(),
            )
            .map_err(|_| damaged())?;
        let (name, json) = json::split(opened).ok_or_else(damaged)?;
        if !name.starts_with(prefix) {
            return Ok(None);
        }
        let value = serde_json::from_slice(json).map_err(|_| damaged())?;
        Ok(Some((name.to_owned(), value)))
    }
}

/// Where a row stands: bound into its key and its seal.
fn place(space: Space, hidden: &[u8; 16]) -> [u8; 17] {
    let mut place = [space.number(); 17];
    if let Some(end) = place.last_chunk_mut::<16>() {
        *end = *hidden;
    }
    place
}

fn prepare(connection: &Connection) -> Result<(), StateError> {
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
    )?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(&format!(
            "BEGIN EXCLUSIVE;
             CREATE TABLE IF NOT EXISTS item (
                 space INTEGER NOT NULL, name BLOB NOT NULL, sealed BLOB NOT NULL,
                 PRIMARY KEY (space, name)) WITHOUT ROWID, STRICT;
             PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))?,
        SCHEMA_VERSION => connection.execute_batch("BEGIN EXCLUSIVE; COMMIT;")?,
        _ => return Err(StateError::Version),
    }
    Ok(())
}

/// Tells the lock of another process from other errors.
fn in_use(error: StateError) -> StateError {
    let StateError::Database(rusqlite::Error::SqliteFailure(failure, _)) = &error else {
        return error;
    };
    match failure.code {
        rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => {
            StateError::InUse
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
