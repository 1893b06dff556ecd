//! The keeper: what has to happen now and then, off the path of commits.
//!
//! Makes the next data key ahead of need, flushes the watermark about once a second, and walks
//! over all rows about once a day: rows under old keys are sealed anew, and a key that no row uses
//! any more is erased. Invariant: a key is erased only after a whole walk that began when it
//! sealed no more met no row under it and no damage. Limits: [`limits::SWEEP_ROWS`] per step.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::database::Space;
use super::desk;
use super::journal::LINK_KEY;
use super::shared::{Counters, Job, OldRow, Shared};
use crate::store::limits;
use crate::store::seal::{KeyId, Seal};

/// Time between two steps.
const STEP: Duration = Duration::from_millis(200);

/// Time between two steps of a walk.
const SWEEP_STEP: Duration = Duration::from_millis(5);

/// Time between two flushes of the watermark.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// When to ask again a token that refused rather than being away.
const REFUSED_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Time from the start to the first walk, and between the beginnings of two.
const FIRST_SWEEP_MS: u64 = 3_600_000;
const SWEEP_EVERY_MS: u64 = 24 * 3_600_000;

/// How callers speak to the keeper.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<Ring>,
    condition: Condvar,
}

#[derive(Debug, Default)]
struct Ring {
    end: bool,
    hurry: bool,
    sweep: bool,
}

impl Bell {
    /// Asks for a step at once, whatever the token asked to wait for.
    pub(super) fn hurry(&self) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).hurry = true;
        self.condition.notify_one();
    }

    /// Asks for a walk over all rows at once.
    pub(super) fn sweep(&self) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).sweep = true;
        self.condition.notify_one();
    }

    /// Asks the keeper to end.
    pub(super) fn end(&self) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).end = true;
        self.condition.notify_one();
    }

    /// Waits for a word or for the next step.
    fn wait(&self, patience: Duration) -> Ring {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |ring: &mut Ring| !ring.end && !ring.hurry && !ring.sweep;
        let (mut rung, _) = self
            .condition
            .wait_timeout_while(rung, patience, quiet)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// The thread's state.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    /// The number that the device has, and since when.
    flushed: (u64, Duration),
    /// Time since the start before which the token is not asked again.
    patience: Duration,
    next_sweep_ms: u64,
    sweep: Option<Sweep>,
    /// Walks that followed each other at once.
    rounds: u8,
}

/// A walk over all rows.
struct Sweep {
    /// Keys below seal no more since before the walk.
    floor: KeyId,
    space: usize,
    after: Vec<u8>,
    met: BTreeSet<KeyId>,
    /// Keys whose rows are to be sealed anew.
    old: BTreeSet<KeyId>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, bell: Arc<Bell>) -> Self {
        let now_ms = shared.now().timestamp.0;
        let crowded = shared.seal.keys().len() > limits::DATA_KEYS_KEPT;
        let next_sweep_ms = if crowded { 0 } else { now_ms.saturating_add(FIRST_SWEEP_MS) };
        Self {
            shared,
            bell,
            flushed: (0, Duration::ZERO),
            patience: Duration::ZERO,
            next_sweep_ms,
            sweep: None,
            rounds: 0,
        }
    }

    /// Works until told to end.
    pub(super) fn run(mut self) {
        loop {
            let ring = self.bell.wait(if self.sweep.is_some() { SWEEP_STEP } else { STEP });
            if ring.end {
                return;
            }
            if ring.hurry {
                self.patience = Duration::ZERO;
            }
            if ring.sweep {
                self.next_sweep_ms = 0;
                self.sweep = None;
                self.rounds = 0;
            }
            self.flush();
            self.prepare();
            self.sweep();
        }
    }

    fn flush(&mut self) {
        let number = self.shared.counters.number.load(Ordering::Relaxed);
        let now = self.shared.now().since_start;
        let due = now.saturating_sub(self.flushed.1) >= FLUSH_EVERY;
        if due && number != self.flushed.0 && self.shared.watermark.flush().is_ok() {
            self.flushed = (number, now);
        }
    }

    fn prepare(&mut self) {
        let now = self.shared.now();
        let age_ms = self.shared.config.key_age_ms();
        let wanted = self.shared.desk.wants_next(now.timestamp.0, age_ms);
        if !wanted || now.since_start < self.patience {
            return;
        }
        if let Err(error) = desk::prepare(&self.shared) {
            let wait = error.retry_after().unwrap_or(REFUSED_RETRY_AFTER);
            self.patience = now.since_start.saturating_add(wait);
        }
    }

    /// One step of the walk, or the beginning of one.
    fn sweep(&mut self) {
        let now_ms = self.shared.now().timestamp.0;
        if self.sweep.is_none() {
            if now_ms < self.next_sweep_ms {
                return;
            }
            self.next_sweep_ms = now_ms.saturating_add(SWEEP_EVERY_MS);
            self.sweep = Some(self.begin(now_ms));
        }
        let Some(mut sweep) = self.sweep.take() else { return };
        match self.walk(&mut sweep) {
            Walk::Abandon => {}
            Walk::Again => self.sweep = Some(sweep),
            Walk::End => self.end(&sweep),
        }
    }

    fn begin(&self, now_ms: u64) -> Sweep {
        let floor = self.shared.desk.floor();
        let keys = self.shared.seal.keys();
        let crowd = keys.len().saturating_sub(limits::DATA_KEYS_KEPT);
        let too_old = |created_ms: u64| {
            created_ms.saturating_add(self.shared.config.reseal_after_ms()) <= now_ms
        };
        let old = keys
            .iter()
            .enumerate()
            .filter(|(index, key)| key.id < floor && (*index < crowd || too_old(key.created_ms)))
            .map(|(_, key)| key.id)
            .collect();
        Sweep { floor, space: 0, after: Vec::new(), met: BTreeSet::new(), old }
    }

    fn walk(&self, sweep: &mut Sweep) -> Walk {
        let spaces = [Space::Spool, Space::State];
        let Some(space) = spaces.get(sweep.space).copied() else { return Walk::End };
        let Ok(database) = self.shared.database() else { return Walk::Abandon };
        let Ok(rows) = database.after(space, &sweep.after, limits::SWEEP_ROWS) else {
            Counters::add(&self.shared.counters.damaged, 1);
            return Walk::Abandon;
        };
        let mut old_rows = Vec::new();
        for (place, sealed) in &rows {
            if **place == *LINK_KEY {
                continue;
            }
            let Some(id) = Seal::key_of(sealed) else {
                Counters::add(&self.shared.counters.damaged, 1);
                return Walk::Abandon;
            };
            sweep.met.insert(id);
            if sweep.old.contains(&id) {
                let (place, sealed) = (place.to_vec(), sealed.to_vec());
                old_rows.push(OldRow { space, place, sealed });
            }
        }
        if !old_rows.is_empty() && !self.shared.offer(Job::Reseal(old_rows)) {
            // The queue is busy: the same rows again at the next step.
            return Walk::Again;
        }
        match rows.last() {
            Some((place, _)) => sweep.after = place.to_vec(),
            None => {
                sweep.space += 1;
                sweep.after = Vec::new();
            }
        }
        Walk::Again
    }

    /// Erases the keys that no row uses. Where rows were sealed anew, the next walk, begun at
    /// once, finds their old keys unused; where a row does not open, that ends after some rounds.
    fn end(&mut self, sweep: &Sweep) {
        let unused = |id: &KeyId| *id < sweep.floor && !sweep.met.contains(id);
        let keys = self.shared.seal.keys();
        let ids: Vec<_> = keys.iter().map(|key| key.id).filter(unused).collect();
        if !ids.is_empty() {
            self.shared.offer(Job::Erase(ids));
        }
        self.rounds += 1;
        if self.rounds < limits::SWEEP_ROUNDS_MAX && !sweep.old.is_disjoint(&sweep.met) {
            self.next_sweep_ms = 0;
        } else {
            self.rounds = 0;
        }
    }
}

enum Walk {
    Abandon,
    Again,
    End,
}
