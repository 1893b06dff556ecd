//! The desk of data keys: the one that comes next is ready before it is needed.
//!
//! Owns the successor of the key in use, the numbers of keys and the last word of a token that was
//! away. A key is made once at a time, on whatever thread may block; the committer only does it
//! itself when the successor is missing. PROTOCOL §13: the store goes on with the key in hand
//! until its age limit.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::keyfile::{self, Entry};
use super::shared::Shared;
use crate::keys::KeyError;
use crate::store::StoreError;
use crate::store::seal::{DataKey, KeyId};

/// What to tell when the key file cannot be written: like an absent token, it may come back.
const FILE_RETRY_AFTER: Duration = Duration::from_secs(10);

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    /// Held while a key is made, over the call to the token.
    making: Mutex<Making>,
    next: Mutex<Option<Arc<DataKey>>>,
    away: Mutex<Option<KeyError>>,
    /// Wall time in milliseconds after which the key in use may seal no more; 0 with no key.
    expires_ms: AtomicU64,
    /// The number of the key in use; before the first, the number that it will have at least.
    floor: AtomicU32,
    /// The key in use is nearly spent.
    nearly_spent: AtomicBool,
    /// The next batch is to change the key.
    change: AtomicBool,
}

/// What a maker of keys needs.
#[derive(Debug)]
struct Making {
    next_id: u32,
    /// The index key's entry, which leads the key file.
    index: Entry,
}

impl Desk {
    /// A desk whose first key will have the number `next_id`.
    pub(super) fn new(next_id: u32, index: Entry) -> Self {
        Self {
            making: Mutex::new(Making { next_id, index }),
            next: Mutex::default(),
            away: Mutex::default(),
            expires_ms: AtomicU64::new(0),
            floor: AtomicU32::new(next_id),
            nearly_spent: AtomicBool::new(false),
            change: AtomicBool::new(false),
        }
    }

    /// Every key below is used for sealing no more.
    pub(super) fn floor(&self) -> KeyId {
        KeyId(self.floor.load(Ordering::SeqCst))
    }

    /// Whether a successor is at hand.
    pub(super) fn has_next(&self) -> bool {
        lock(&self.next).is_some()
    }

    /// Whether the key in use is too old at `now_ms`.
    pub(super) fn expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms.load(Ordering::SeqCst)
    }

    /// Whether the successor should be made now: an eighth of the age before it is needed.
    pub(super) fn wants_next(&self, now_ms: u64, age_ms: u64) -> bool {
        let early = now_ms.saturating_add(age_ms / 8);
        (self.expired(early) || self.nearly_spent.load(Ordering::SeqCst)) && !self.has_next()
    }

    /// Why no commit that writes can be taken at `now_ms`, if so.
    pub(super) fn refusal(&self, now_ms: u64) -> Option<StoreError> {
        if !self.expired(now_ms) || self.has_next() {
            return None;
        }
        lock(&self.away).as_ref().map(key_away)
    }

    /// Notes that the key in use is nearly spent.
    pub(super) fn note_nearly_spent(&self) {
        self.nearly_spent.store(true, Ordering::SeqCst);
    }

    /// Asks the committer to change the key with its next batch.
    pub(super) fn ask_for_change(&self) {
        self.change.store(true, Ordering::SeqCst);
    }

    /// Whether a change was asked for.
    pub(super) fn is_change_asked(&self) -> bool {
        self.change.load(Ordering::SeqCst)
    }

    /// Takes the successor into use.
    pub(super) fn take(&self, age_ms: u64) -> Option<Arc<DataKey>> {
        let key = lock(&self.next).take()?;
        self.expires_ms.store(key.created_ms.saturating_add(age_ms), Ordering::SeqCst);
        self.floor.store(key.id.0, Ordering::SeqCst);
        self.nearly_spent.store(false, Ordering::SeqCst);
        self.change.store(false, Ordering::SeqCst);
        Some(key)
    }
}

/// Makes the successor, unless there is one. Blocks on the token and on the key file.
///
/// # Errors
/// [`KeyError`], which then is the desk's word until a key is made.
pub(super) fn prepare(shared: &Shared) -> Result<(), KeyError> {
    let desk = &shared.desk;
    let mut making = lock(&desk.making);
    if desk.has_next() {
        return Ok(());
    }
    let made = make(shared, &mut making);
    *lock(&desk.away) = made.as_ref().err().cloned();
    let key = made?;
    shared.seal.add(key.clone());
    *lock(&desk.next) = Some(key);
    Ok(())
}

fn make(shared: &Shared, making: &mut Making) -> Result<Arc<DataKey>, KeyError> {
    let id = KeyId(making.next_id);
    let now_ms = shared.now().timestamp.0;
    let key = Arc::new(DataKey::make(id, now_ms, &*shared.service)?);
    write_file(shared, making, Some(&key)).map_err(|error| KeyError::Away {
        retry_after: FILE_RETRY_AFTER,
        text: format!("the file of wrapped keys cannot be written: {error}"),
    })?;
    making.next_id += 1;
    Ok(key)
}

/// Writes the key file anew, after keys were erased.
pub(super) fn rewrite_file(shared: &Shared) -> std::io::Result<()> {
    let making = lock(&shared.desk.making);
    write_file(shared, &making, None)
}

fn write_file(shared: &Shared, making: &Making, fresh: Option<&DataKey>) -> std::io::Result<()> {
    let mut entries = vec![making.index.clone()];
    entries.extend(shared.seal.keys().iter().map(|key| entry(key)));
    entries.extend(fresh.map(entry));
    keyfile::write(&shared.files.keys(), &entries)
}

/// What is written down about a data key.
pub(super) fn entry(key: &DataKey) -> Entry {
    Entry { id: key.id.0, created_ms: key.created_ms, wrapped: key.wrapped.clone() }
}

/// The store's word for a key service that did not make a key.
pub(super) fn key_away(error: &KeyError) -> StoreError {
    StoreError::KeyAway {
        retry_after: error.retry_after().unwrap_or(FILE_RETRY_AFTER),
        text: error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
