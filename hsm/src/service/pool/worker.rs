//! A worker: one thread, one session of the present generation, one job at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Shared;
use crate::error::{Class, Error};
use crate::job::{Phase, Response};
use crate::limits;
use crate::service::queue::Job;
use crate::token::{Attachment, Session};

enum Step {
    Close,
    Open(u64, Arc<dyn Attachment>),
    Run(Job),
    Stop,
}

/// Runs until the pool stops.
pub(super) fn run(shared: &Shared, index: usize) {
    let mut session: Option<(u64, Box<dyn Session>)> = None;
    loop {
        let generation = session.as_ref().map(|(generation, _)| *generation);
        match next(shared, index, generation) {
            Step::Close => {
                close(session.take());
                detached(shared, index);
            }
            Step::Open(generation, attachment) => match guarded(|| attachment.open()) {
                Ok(opened) => session = Some((generation, opened)),
                Err(error) => {
                    detached(shared, index);
                    not_opened(shared, index, generation, error);
                }
            },
            Step::Run(job) => {
                let Some((generation, open)) = &mut session else {
                    continue;
                };
                let generation = *generation;
                let started = Instant::now();
                let outcome = guarded(|| open.execute(&job.request));
                shared.meter.in_token(job.ticket.operation, started.elapsed());
                if is_unusable(&outcome) {
                    close(session.take());
                    detached(shared, index);
                }
                finish(shared, index, generation, job, outcome);
            }
            Step::Stop => {
                close(session.take());
                detached(shared, index);
                let mut core = shared.lock();
                if let Some(worker) = core.workers.get_mut(index) {
                    worker.has_ended = true;
                }
                drop(core);
                shared.keeper.notify_all();
                return;
            }
        }
    }
}

/// Waits for something to do.
fn next(shared: &Shared, index: usize, open: Option<u64>) -> Step {
    let mut core = shared.lock();
    loop {
        let generation = core.generation;
        let is_current = open == Some(generation);
        match core.phase {
            Phase::Ready if is_current => {
                if let Some(job) = core.queue.pop() {
                    if let Some(worker) = core.workers.get_mut(index) {
                        worker.running = Some((Arc::clone(&job.ticket), Instant::now()));
                    }
                    return Step::Run(job);
                }
            }
            Phase::Stopping if is_current => match core.queue.pop() {
                Some(job) => {
                    if let Some(worker) = core.workers.get_mut(index) {
                        worker.running = Some((Arc::clone(&job.ticket), Instant::now()));
                    }
                    return Step::Run(job);
                }
                None => return Step::Stop,
            },
            Phase::Stopping => return Step::Stop,
            _ if open.is_some() => return Step::Close,
            Phase::Ready => {
                let attachment = core.attachment.clone();
                if let (Some(attachment), Some(worker)) = (attachment, core.workers.get_mut(index))
                    && worker.retired_in != generation
                {
                    worker.is_attached = true;
                    return Step::Open(generation, attachment);
                }
            }
            Phase::Away | Phase::PinRefused | Phase::Recovering | Phase::Starting => {}
        }
        core = shared.work.wait(core).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A panic in the module's wrapper is an error of that job, not the end of the worker.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(Error::Module {
            path: "PKCS#11".into(),
            reason: "a call ended in a panic; please report it with the log".into(),
        })
    })
}

/// Closing may fail or panic where the token is gone; nothing depends on it.
fn close(session: Option<(u64, Box<dyn Session>)>) {
    let _ = guarded(|| {
        drop(session);
        Ok(())
    });
}

fn detached(shared: &Shared, index: usize) {
    let mut core = shared.lock();
    if let Some(worker) = core.workers.get_mut(index) {
        worker.is_attached = false;
    }
    drop(core);
    shared.keeper.notify_all();
}

/// Fewer sessions than configured are no trouble as long as there is one.
fn not_opened(shared: &Shared, index: usize, generation: u64, error: Error) {
    const SESSION_COUNT: u64 = 0xB1;
    let mut core = shared.lock();
    if error.fault().is_some_and(|fault| fault.code == SESSION_COUNT) && core.is_any_attached() {
        if let Some(worker) = core.workers.get_mut(index) {
            worker.retired_in = generation;
        }
        drop(core);
        tracing::warn!(%error, "one session fewer");
        return;
    }
    drop(core);
    shared.trouble(generation, error);
}

/// Errors after which the session must not be used again: those that a new one may cure, and a
/// panic, which left it in an unknown state.
fn is_unusable(outcome: &Result<Response, Error>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Error::Module { .. }) => true,
        Err(error) => matches!(error.class(), Class::Away | Class::Retry),
    }
}

/// Answers a job, or puts it back for the next generation.
fn finish(
    shared: &Shared,
    index: usize,
    generation: u64,
    mut job: Job,
    outcome: Result<Response, Error>,
) {
    let mut core = shared.lock();
    if let Some(worker) = core.workers.get_mut(index) {
        worker.running = None;
        worker.is_wedged = false;
    }
    let trouble = match &outcome {
        Err(error) if matches!(error.class(), Class::Away | Class::Retry) => Some(error.clone()),
        _ => None,
    };
    job.attempts += 1;
    let may_repeat = trouble.is_some()
        && job.attempts < limits::ATTEMPTS_MAX
        && !job.ticket.is_answered()
        && core.refusal().is_none();
    // Marked under the same lock, so that no other worker repeats the job in a broken generation.
    let state = trouble.and_then(|error| core.mark(generation, error));
    if may_repeat {
        shared.meter.retried(job.ticket.operation);
        core.queue.put_back(job);
        drop(core);
    } else {
        drop(core);
        if let Err(Error::WrongAnswer { what }) = &outcome {
            tracing::error!(%what, "the token gave a wrong answer");
        }
        shared.answer(&job.ticket, outcome);
    }
    shared.marked(state);
}
