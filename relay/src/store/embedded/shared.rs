//! What the callers, the committer and the keeper of the keys have in common.
//!
//! Owns the queue of jobs, the outcomes to be fetched, the counters and the condition of the
//! store. Locks are held for moments only, never over a write, a flush or a call to the token.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::database::{Database, Space};
use super::desk::Desk;
use super::start::Files;
use super::watermark::Watermark;
use super::{Config, Now};
use crate::keys::KeyService;
use crate::store::commit::Weight;
use crate::store::seal::{KeyId, Seal};
use crate::store::{CommitToken, Operation, Outcome, Statistics, StoreError, limits};

/// Something for the committer to do.
pub(super) enum Job {
    /// A caller's commit.
    Commit { token: CommitToken, operations: Vec<Operation>, only_deletes: bool },
    /// Rows under old keys, as they were read, to be sealed anew.
    Reseal(Vec<OldRow>),
    /// Data keys that no row uses.
    Erase(Vec<KeyId>),
}

/// A row under an old key.
pub(super) struct OldRow {
    pub(super) space: Space,
    pub(super) place: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

/// The jobs that wait.
#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<(Job, usize)>,
    commits: usize,
    octets: usize,
    /// No more jobs come; the committer finishes what there is and ends.
    pub(super) closing: bool,
}

impl Queue {
    pub(super) fn take(&mut self) -> Option<Job> {
        let (job, octets) = self.jobs.pop_front()?;
        if matches!(job, Job::Commit { .. }) {
            self.commits -= 1;
            self.octets -= octets;
        }
        Some(job)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Octets of the next job.
    pub(super) fn next_octets(&self) -> usize {
        self.jobs.front().map_or(0, |(_, octets)| *octets)
    }
}

/// Whether the store takes work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It does.
    Running,
    /// A write failed for want of space: it opens again when there is space.
    Starved,
    /// A write failed: only a restart helps.
    Stopped(String),
}

/// Counters; see [`Statistics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) items: AtomicU64,
    pub(super) number: AtomicU64,
    pub(super) flush_us_max: AtomicU64,
    pub(super) erased: AtomicU64,
    pub(super) resealed: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) free: AtomicU64,
    pub(super) reopened: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// The common part.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) files: Files,
    pub(super) service: Arc<dyn KeyService>,
    pub(super) seal: Seal,
    pub(super) desk: Desk,
    pub(super) watermark: Watermark,
    pub(super) counters: Counters,
    pub(super) wake: Box<dyn Fn() + Send + Sync>,
    database: RwLock<Option<Arc<Database>>>,
    queue: Mutex<Queue>,
    work: Condvar,
    done: Mutex<Vec<(CommitToken, Outcome)>>,
    condition: Mutex<Condition>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shared(..)")
    }
}

/// The parts from which [`Shared`] is made.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) files: Files,
    pub(super) service: Arc<dyn KeyService>,
    pub(super) seal: Seal,
    pub(super) desk: Desk,
    pub(super) watermark: Watermark,
    pub(super) database: Database,
    pub(super) wake: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { config, files, service, seal, desk, watermark, database, wake } = parts;
        Self {
            config,
            files,
            service,
            seal,
            desk,
            watermark,
            counters: Counters::default(),
            wake,
            database: RwLock::new(Some(Arc::new(database))),
            queue: Mutex::default(),
            work: Condvar::new(),
            done: Mutex::default(),
            condition: Mutex::new(Condition::Running),
        }
    }

    pub(super) fn now(&self) -> Now {
        (self.config.clock)()
    }

    /// The database.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while it is being opened again.
    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or(StoreError::Busy)
    }

    /// Puts another database in place, or none; gives the old one back.
    pub(super) fn exchange(&self, database: Option<Database>) -> Option<Arc<Database>> {
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, database.map(Arc::new))
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Queues a caller's commit.
    ///
    /// # Errors
    /// [`StoreError::Busy`] at the limits of the queue.
    pub(super) fn submit(
        &self,
        token: CommitToken,
        operations: Vec<Operation>,
        weight: Weight,
    ) -> Result<(), StoreError> {
        if lock(&self.done).len() >= limits::QUEUE_COMMITS_MAX {
            return Err(StoreError::Busy);
        }
        let mut queue = self.queue();
        let octets = queue.octets + weight.octets;
        if queue.commits >= limits::QUEUE_COMMITS_MAX || octets > limits::QUEUE_OCTETS_MAX {
            return Err(StoreError::Busy);
        }
        queue.octets = octets;
        queue.commits += 1;
        let job = Job::Commit { token, operations, only_deletes: weight.only_deletes };
        queue.jobs.push_back((job, weight.octets));
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    /// Queues a job of the keeper's, unless the queue is half full.
    pub(super) fn offer(&self, job: Job) -> bool {
        let mut queue = self.queue();
        let room = queue.commits < limits::QUEUE_COMMITS_MAX / 2;
        if room {
            queue.jobs.push_back((job, 0));
            drop(queue);
            self.work.notify_one();
        }
        room
    }

    /// Tells the committer that no more jobs come.
    pub(super) fn close(&self) {
        self.queue().closing = true;
        self.work.notify_one();
    }

    /// Waits until there is a job, the end, or `patience` is over.
    pub(super) fn wait(&self, patience: std::time::Duration) -> MutexGuard<'_, Queue> {
        let queue = self.queue();
        let idle = |queue: &mut Queue| queue.is_empty() && !queue.closing;
        let (queue, _) = self
            .work
            .wait_timeout_while(queue, patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        queue
    }

    /// Hands outcomes to the caller and wakes it.
    pub(super) fn finish(&self, outcomes: Vec<(CommitToken, Outcome)>) {
        if outcomes.is_empty() {
            return;
        }
        for (_, outcome) in &outcomes {
            let counter = match outcome {
                Outcome::Conflict { .. } => &self.counters.conflicts,
                Outcome::Durable => &self.counters.commits,
                Outcome::Refused(_) => &self.counters.refused,
                Outcome::Unknown => &self.counters.unknown,
            };
            Counters::add(counter, 1);
        }
        lock(&self.done).extend(outcomes);
        (self.wake)();
    }

    pub(super) fn fetch(&self, into: &mut Vec<(CommitToken, Outcome)>) {
        into.append(&mut lock(&self.done));
    }

    pub(super) fn condition(&self) -> Condition {
        lock(&self.condition).clone()
    }

    pub(super) fn set_condition(&self, condition: Condition) {
        *lock(&self.condition) = condition;
    }

    /// Looks how much space is free; if that cannot be told, as much as is needed.
    pub(super) fn look_at_space(&self) -> u64 {
        let free = (self.config.free_space)(self.files.folder()).unwrap_or(u64::MAX);
        self.counters.free.store(free, Ordering::Relaxed);
        free
    }

    /// Whether a commit must be refused for want of space.
    pub(super) fn space_error(&self, only_deletes: bool) -> Option<StoreError> {
        let reserve = self.config.reserve_octets;
        let free = self.counters.free.load(Ordering::Relaxed);
        let needed = if only_deletes { reserve / 2 } else { reserve };
        (free < needed).then_some(StoreError::Full { free, reserve })
    }

    /// Why no work is taken, if none is.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        match &*lock(&self.condition) {
            Condition::Running => None,
            Condition::Starved => Some(StoreError::Full {
                free: self.counters.free.load(Ordering::Relaxed),
                reserve: self.config.reserve_octets,
            }),
            Condition::Stopped(text) => Some(StoreError::Stopped { text: text.clone() }),
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (queued_commits, queued_octets) = {
            let queue = self.queue();
            (queue.commits as u64, queue.octets as u64)
        };
        Statistics {
            commits: read(&counters.commits),
            conflicts: read(&counters.conflicts),
            refused: read(&counters.refused),
            unknown: read(&counters.unknown),
            batches: read(&counters.batches),
            items: read(&counters.items),
            queued_commits,
            queued_octets,
            commit_number: read(&counters.number),
            flush_us_max: read(&counters.flush_us_max),
            data_keys: self.seal.keys().len() as u64,
            data_keys_erased: read(&counters.erased),
            resealed: read(&counters.resealed),
            damaged: read(&counters.damaged),
            free_octets: read(&counters.free),
            reopened: read(&counters.reopened),
        }
    }
}

/// Octets free to an ordinary user on the file system of `path`.
pub(super) fn free_space(path: &Path) -> std::io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
