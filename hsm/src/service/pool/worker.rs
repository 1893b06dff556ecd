//! A worker: one thread, one session of the present generation, one job at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Core, Shared};
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
            // What was accepted before is still done, at most until the grace ends.
            Phase::Stopping if is_current && core.queue.len() > 0 => {
                if let Some(job) = core.queue.pop() {
                    if let Some(worker) = core.workers.get_mut(index) {
                        worker.running = Some((Arc::clone(&job.ticket), Instant::now()));
                    }
                    return Step::Run(job);
                }
            }
            Phase::Stopping if open.is_none() && core.queue.len() > 0 => {
                match attach(&mut core, index) {
                    Some(step) => return step,
                    None => return Step::Stop,
                }
            }
            Phase::Stopping => return Step::Stop,
            _ if open.is_some() => return Step::Close,
            Phase::Ready => {
                if let Some(step) = attach(&mut core, index) {
                    return step;
                }
            }
            Phase::Away | Phase::PinRefused | Phase::Recovering | Phase::Starting => {}
        }
        core = shared.work.wait(core).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The step to a session of the present generation, if this worker may have one.
fn attach(core: &mut Core, index: usize) -> Option<Step> {
    let (generation, attachment) = (core.generation, core.attachment.clone()?);
    let worker = core.workers.get_mut(index)?;
    if worker.retired_in == generation {
        return None;
    }
    worker.is_attached = true;
    Some(Step::Open(generation, attachment))
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
    let is_one_too_many = error.fault().is_some_and(|fault| fault.code == SESSION_COUNT);
    if core.phase == Phase::Stopping || is_one_too_many && core.is_any_attached() {
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
    let is_marked = trouble.is_some_and(|error| core.mark(generation, error));
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
    shared.marked(is_marked);
}
