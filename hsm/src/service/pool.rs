//! The pool: workers with one session each, a keeper that owns the module, a watchdog.
//!
//! The recovery ladder lives in the keeper. When a worker's call fails in a way that a new session
//! may cure, the phase becomes [`Phase::Recovering`], every worker closes its session, and the
//! keeper attaches again: with new sessions and handles first, then by finalising and initialising
//! the module, and last, where a call never returned, by restarting the process through
//! [`Restart`]. Jobs wait in the queue meanwhile; a job that failed is repeated once in the new
//! generation. If the token is away, the queue is answered at once and the keeper looks for it with
//! a bounded back-off. Every job gets exactly one answer, at its deadline at the latest.
//!
//! Locks: `core` is never held while calling the module, a session, or a sink; `observers` is held
//! while notices go out, and `core` may be taken under it, never the other way round.

mod keeper;
mod watchdog;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::job::{Description, Operation, Phase, PublicKey, Purpose, Request, Response, State};
use crate::limits;
use crate::service::meter::Meter;
use crate::service::queue::{Job, Queue, Ticket};
use crate::token::{Attachment, Module, View};
use crate::wire::RequestFrame;

pub use crate::service::queue::Sink;

/// What the pool is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The domain whose keys are served.
    pub domain: String,
    /// Sessions, one thread each.
    pub sessions: usize,
    /// Jobs that may wait.
    pub queue: usize,
    /// A call that takes longer counts as wedged.
    pub wedge_after: Duration,
    /// First pause between two looks for a token that is away.
    pub poll_min: Duration,
    /// Longest pause between two looks.
    pub poll_max: Duration,
    /// How often an idle token is asked whether it is there.
    pub presence: Duration,
    /// Whether clients may have keys made.
    pub allow_generate: bool,
}

/// The last rung: ends this process and starts it anew. May return (in tests).
pub type Restart = Box<dyn Fn(&str) + Send + Sync>;

/// A running pool.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    core: Mutex<Core>,
    work: Condvar,
    keeper: Condvar,
    watchdog: Condvar,
    settings: Settings,
    meter: Meter,
    started: Instant,
    observers: Mutex<Vec<Weak<dyn Sink>>>,
    restart: Restart,
    is_restarting: AtomicBool,
}

struct Core {
    queue: Queue,
    generating: VecDeque<Job>,
    phase: Phase,
    /// Why the phase is not ready; what jobs are answered while away.
    why: Option<Error>,
    generation: u64,
    attachment: Option<Arc<dyn Attachment>>,
    view: View,
    workers: Vec<Worker>,
    /// Set by whoever finds the present generation broken.
    trouble: Option<Error>,
    /// When the keeper entered a call of the module.
    keeper_call: Option<Instant>,
    is_watched: bool,
    pin_attempts: u64,
}

#[derive(Default)]
struct Worker {
    running: Option<(Arc<Ticket>, Instant)>,
    is_attached: bool,
    is_wedged: bool,
    /// No session for it in this generation: the token allows no more.
    retired_in: u64,
    has_ended: bool,
}

impl Pool {
    /// Starts the threads; the first attachment is under way when this returns.
    pub fn start(module: Box<dyn Module>, settings: Settings, restart: Restart) -> Self {
        let sessions = settings.sessions.clamp(1, limits::SESSIONS_MAX);
        let core = Core {
            queue: Queue::new(settings.queue),
            generating: VecDeque::new(),
            phase: Phase::Starting,
            why: None,
            generation: 0,
            attachment: None,
            view: View::default(),
            workers: (0..sessions).map(|_| Worker::default()).collect(),
            trouble: None,
            keeper_call: None,
            is_watched: false,
            pin_attempts: 0,
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            work: Condvar::new(),
            keeper: Condvar::new(),
            watchdog: Condvar::new(),
            settings,
            meter: Meter::default(),
            started: Instant::now(),
            observers: Mutex::new(Vec::new()),
            restart,
            is_restarting: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for index in 0..sessions {
            let shared = Arc::clone(&shared);
            threads.push(spawn(&format!("hsm-{index}"), move || worker::run(&shared, index)));
        }
        let watching = Arc::clone(&shared);
        threads.push(spawn("hsm-watchdog", move || watchdog::run(&watching)));
        let keeping = Arc::clone(&shared);
        threads.push(spawn("hsm-keeper", move || keeper::run(&keeping, module)));
        Self { shared, threads: Mutex::new(threads.into_iter().flatten().collect()) }
    }

    /// Takes jobs from `sink`, which gets exactly one answer for each.
    pub fn submit(&self, sink: &Arc<dyn Sink>, frames: Vec<RequestFrame>, now: Instant) {
        self.shared.submit(sink, frames, now);
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.shared.lock().state()
    }

    /// The error behind a state that is not ready.
    pub fn failure(&self) -> Option<Error> {
        self.shared.lock().why.clone()
    }

    /// What the last attachment found.
    pub fn view(&self) -> View {
        self.shared.lock().view.clone()
    }

    /// Waits until the first attachment succeeded or failed.
    pub fn wait_until_started(&self) -> State {
        let mut core = self.shared.lock();
        while core.phase == Phase::Starting {
            core = self.shared.keeper.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
        core.state()
    }

    /// Tells `sink` the state now and whenever it changes, as answers with id 0.
    pub fn observe(&self, sink: &Arc<dyn Sink>) {
        let mut observers = locked(&self.shared.observers);
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(Arc::downgrade(sink));
        sink.answer(0, Ok(Response::State(self.state())));
    }

    /// Attaches anew, so that keys made by others and a changed PIN are seen.
    pub fn refresh(&self) {
        let mut core = self.shared.lock();
        let generation = core.generation;
        let retry_after = self.shared.settings.poll_min;
        let error = Error::Away { reason: "asked to look again".into(), retry_after };
        let is_marked = core.mark(generation, error);
        drop(core);
        self.shared.marked(is_marked);
    }

    /// Everything worth knowing.
    pub fn describe(&self) -> Description {
        self.shared.describe()
    }

    /// Refuses new jobs, lets those under way finish for at most `grace`, ends the threads.
    pub fn stop(&self, grace: Duration) {
        self.shared.change(Phase::Stopping, Some(Error::Stopping));
        let until = Instant::now() + grace;
        let mut core = self.shared.lock();
        loop {
            let is_idle = core.workers.iter().all(|worker| worker.has_ended || worker.is_wedged);
            let left = until.saturating_duration_since(Instant::now());
            if is_idle || left.is_zero() {
                break;
            }
            let waited = self.shared.keeper.wait_timeout(core, left);
            core = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let left = core.take_all();
        drop(core);
        self.shared.answer_all(left, &Error::Stopping);
        self.shared.watchdog.notify_all();
        // The keeper finalises the module now. A thread that stays stuck in the vendor's library
        // ends with the process.
        let until = Instant::now() + limits::FINALISE_MAX;
        for thread in locked(&self.threads).drain(..) {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(limits::FINALISE_TICK);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Core {
    fn state(&self) -> State {
        let reason = self.why.as_ref().map(ToString::to_string).unwrap_or_default();
        State { phase: self.phase, generation: self.generation, reason }
    }

    fn take_all(&mut self) -> Vec<Job> {
        let mut jobs = self.queue.drain();
        jobs.extend(self.generating.drain(..));
        jobs
    }

    /// What a new job is answered at once, if it cannot be done now.
    fn refusal(&self) -> Option<Error> {
        match self.phase {
            Phase::Away | Phase::PinRefused => self.why.clone(),
            Phase::Stopping => Some(Error::Stopping),
            Phase::Ready | Phase::Recovering | Phase::Starting => None,
        }
    }

    /// Enters [`Phase::Recovering`] if `generation` is the present one and seemed well.
    fn mark(&mut self, generation: u64, error: Error) -> bool {
        if self.generation != generation || self.phase != Phase::Ready {
            return false;
        }
        self.phase = Phase::Recovering;
        self.why = Some(error.clone());
        self.trouble = Some(error);
        true
    }

    fn is_any_attached(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_attached)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        locked(&self.core)
    }

    fn submit(&self, sink: &Arc<dyn Sink>, frames: Vec<RequestFrame>, now: Instant) {
        let mut answers = Vec::new();
        let mut admitted = 0;
        let mut core = self.lock();
        for frame in frames {
            let RequestFrame { id, deadline_ms, request } = frame;
            let patience = Duration::from_millis(deadline_ms.into());
            let ticket = Ticket::new(sink, id, request.operation(), now, patience);
            match self.admit(&mut core, &ticket, request) {
                Ok(true) => admitted += 1,
                Ok(false) => self.keeper.notify_all(),
                Err(outcome) => answers.push((ticket, outcome)),
            }
        }
        if admitted > 0 && !core.is_watched {
            core.is_watched = true;
            self.watchdog.notify_one();
        }
        drop(core);
        for _ in 0..admitted.min(limits::SESSIONS_MAX) {
            self.work.notify_one();
        }
        for (ticket, outcome) in answers {
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => Ok(Response::Described(Box::new(self.describe()))),
            };
            self.answer(&ticket, outcome);
        }
    }

    /// Queues a job for the workers (`true`) or the keeper (`false`), or gives its answer; no
    /// answer means a description, which is made without the lock.
    fn admit(
        &self,
        core: &mut Core,
        ticket: &Arc<Ticket>,
        request: Request,
    ) -> Result<bool, Option<Result<Response, Error>>> {
        request.check().map_err(|error| Some(Err(error)))?;
        match &request {
            Request::Ping => return Err(Some(Ok(Response::State(core.state())))),
            Request::Describe => return Err(None),
            Request::PublicKey { key } => {
                let found = core.view.find(*key).cloned().map(Response::PublicKey);
                let missing = || {
                    core.refusal().unwrap_or_else(|| Error::KeyMissing {
                        key: key.to_string().into(),
                        domain: self.settings.domain.clone().into(),
                    })
                };
                return Err(Some(found.ok_or_else(missing)));
            }
            Request::Generate { .. } if !self.settings.allow_generate => {
                let what = "key generation by clients; set service.allow_generate = true";
                return Err(Some(Err(Error::Forbidden { what: what.into() })));
            }
            _ => {}
        }
        if let Some(error) = core.refusal() {
            return Err(Some(Err(error)));
        }
        let job = Job { ticket: Arc::clone(ticket), request, attempts: 0 };
        if ticket.operation == Operation::Generate {
            let limit = limits::GENERATE_JOBS_MAX;
            if core.generating.len() >= limit {
                let what = "the queue of key generation".into();
                return Err(Some(Err(Error::Busy { what, limit: limit as u64 })));
            }
            core.generating.push_back(job);
            return Ok(false);
        }
        core.queue.push(job).map(|()| true).map_err(|error| Some(Err(error)))
    }

    fn answer(&self, ticket: &Ticket, outcome: Result<Response, Error>) {
        let total = ticket.accepted.elapsed();
        let error = outcome.as_ref().err().cloned();
        if ticket.answer(outcome) {
            self.meter.answered(ticket.operation, error.as_ref(), total);
        }
    }

    fn answer_all(&self, jobs: Vec<Job>, error: &Error) {
        for job in jobs {
            self.answer(&job.ticket, Err(error.clone()));
        }
    }

    /// Enters a phase, wakes everybody, tells the observers.
    fn change(&self, phase: Phase, why: Option<Error>) {
        let mut core = self.lock();
        if core.phase == Phase::Stopping {
            return;
        }
        let is_news = core.phase != phase || core.why != why;
        core.phase = phase;
        core.why = why;
        drop(core);
        self.work.notify_all();
        self.keeper.notify_all();
        self.watchdog.notify_all();
        if is_news {
            self.announce();
        }
    }

    /// Tells the observers the state as it is now. Whoever changed it last also reads it last, so
    /// the last notice is true, whatever thread was held up in between.
    fn announce(&self) {
        let observers = locked(&self.observers);
        let state = self.lock().state();
        let (phase, generation) = (state.phase.name(), state.generation);
        match state.phase {
            Phase::Ready => tracing::info!(phase, generation, "state"),
            Phase::Recovering | Phase::Starting | Phase::Stopping => {
                tracing::info!(phase, generation, reason = state.reason, "state");
            }
            Phase::Away => tracing::warn!(phase, generation, reason = state.reason, "state"),
            Phase::PinRefused => tracing::error!(phase, generation, reason = state.reason, "state"),
        }
        for observer in observers.iter().filter_map(Weak::upgrade) {
            observer.answer(0, Ok(Response::State(state.clone())));
        }
    }

    /// Marks `generation` as broken, unless a newer one is in use.
    fn trouble(&self, generation: u64, error: Error) {
        let is_marked = self.lock().mark(generation, error);
        self.marked(is_marked);
    }

    fn marked(&self, is_marked: bool) {
        if is_marked {
            self.work.notify_all();
            self.keeper.notify_all();
            self.announce();
        }
    }

    /// The last rung. Whoever waits is answered first.
    fn restart(&self, why: &str) {
        if self.is_restarting.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(why, "restarting the process");
        let mut core = self.lock();
        let mut jobs = core.take_all();
        let running: Vec<_> =
            core.workers.iter().filter_map(|worker| worker.running.clone()).collect();
        drop(core);
        let reason = format!("cipherim-hsmd restarts: {why}").into();
        let error = Error::Away { reason, retry_after: Duration::from_millis(200) };
        self.answer_all(std::mem::take(&mut jobs), &error);
        for (ticket, _) in running {
            self.answer(&ticket, Err(error.clone()));
        }
        (self.restart)(why);
        self.is_restarting.store(false, Ordering::Release);
    }

    fn describe(&self) -> Description {
        let operations = self.meter.counts();
        let core = self.lock();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: core.state(),
            domain: self.settings.domain.clone(),
            token: core.view.token.clone(),
            keys: newest(&core.view.keys),
            proven: core.view.proven.clone(),
            sessions: count(core.workers.len()),
            wedged: count(core.workers.iter().filter(|worker| worker.is_wedged).count()),
            queued: count(core.queue.len()),
            queue_max: count(core.queue.jobs_max()),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            pin_attempts: core.pin_attempts,
            operations,
        }
    }
}

/// The newest keys of each purpose, so that a description always fits its frame.
fn newest(keys: &[PublicKey]) -> Vec<PublicKey> {
    let each = limits::KEYS_DESCRIBED_MAX / Purpose::ALL.len();
    let mut newest = Vec::new();
    for purpose in Purpose::ALL {
        let mut of_purpose: Vec<_> =
            keys.iter().filter(|key| key.key.purpose == purpose).cloned().collect();
        of_purpose.sort_by_key(|key| std::cmp::Reverse(key.key.version));
        of_purpose.truncate(each);
        newest.extend(of_purpose);
    }
    newest
}

/// A poisoned lock is only a panic elsewhere; the data is changed in single steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::error!(name, %error, "a thread cannot be started");
            None
        }
    }
}

#[cfg(test)]
mod tests;
