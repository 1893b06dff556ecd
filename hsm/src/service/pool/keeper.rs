//! The keeper: owns the module, climbs the recovery ladder, makes keys.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Shared;
use crate::error::{Class, Error};
use crate::job::{Phase, Request, Response};
use crate::service::queue::Job;
use crate::token::{Depth, Module};

enum Event {
    /// It is time to ask whether the token is there, or whether it came back.
    Look,
    Generate(Job),
    Stop,
    Trouble,
}

/// How often a refused PIN's source is looked at.
const PIN_LOOK: Duration = Duration::from_millis(250);

/// Runs until the pool stops.
pub(super) fn run(shared: &Shared, mut module: Box<dyn Module>) {
    let mut pause = shared.settings.poll_min;
    recover(shared, &mut *module);
    loop {
        let phase = shared.lock().phase;
        let wait = match phase {
            Phase::Away => pause,
            Phase::PinRefused => PIN_LOOK,
            _ => shared.settings.presence,
        };
        match event(shared, wait) {
            Event::Stop => break,
            Event::Trouble => {
                pause = shared.settings.poll_min;
                recover(shared, &mut *module);
            }
            Event::Generate(job) => generate(shared, &mut *module, &job),
            Event::Look => match phase {
                Phase::Away => {
                    pause = (pause * 2).min(shared.settings.poll_max);
                    recover(shared, &mut *module);
                }
                Phase::PinRefused if !module.is_pin_changed() => {}
                Phase::PinRefused => recover(shared, &mut *module),
                _ => look(shared, &mut *module),
            },
        }
    }
    if !wait_for_workers(shared, |worker| worker.has_ended) {
        // Finalising under a call that never returns may crash; the process ends anyway.
        return;
    }
    let _ = called(shared, &mut *module, |module| {
        module.detach();
        Ok(())
    });
}

fn event(shared: &Shared, wait: Duration) -> Event {
    let until = Instant::now() + wait;
    let mut core = shared.lock();
    loop {
        if core.phase == Phase::Stopping {
            return Event::Stop;
        }
        if core.trouble.take().is_some() {
            return Event::Trouble;
        }
        if core.phase == Phase::Ready
            && let Some(job) = core.generating.pop_front()
        {
            return Event::Generate(job);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Event::Look;
        }
        let waited = shared.keeper.wait_timeout(core, left);
        core = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// A call of the module, under the watchdog's eyes; a panic is an error.
fn called<T>(
    shared: &Shared,
    module: &mut dyn Module,
    call: impl FnOnce(&mut dyn Module) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut core = shared.lock();
    core.keeper_call = Some(Instant::now());
    if !core.is_watched {
        core.is_watched = true;
        shared.watchdog.notify_one();
    }
    drop(core);
    let result = catch_unwind(AssertUnwindSafe(|| call(&mut *module))).unwrap_or_else(|_| {
        Err(Error::Module {
            path: "PKCS#11".into(),
            reason: "a call ended in a panic; please report it with the log".into(),
        })
    });
    let attempts = module.pin_attempts();
    let mut core = shared.lock();
    core.keeper_call = None;
    core.pin_attempts = attempts;
    result
}

/// Climbs the ladder until a generation stands or nothing is left to try for now.
fn recover(shared: &Shared, module: &mut dyn Module) {
    let mut last = None;
    for depth in [Depth::Sessions, Depth::Module] {
        let are_closed = wait_for_workers(shared, |worker| !worker.is_attached);
        if depth == Depth::Module && !are_closed {
            // The library cannot be finalised under a call that never returns.
            shared.restart("a call of the PKCS#11 library does not return");
            break;
        }
        match called(shared, module, |module| module.attach(depth)) {
            Ok(attachment) => return install(shared, attachment),
            Err(error) => {
                tracing::debug!(?depth, %error, "attach");
                let is_hopeful = matches!(error.class(), Class::Away | Class::Retry)
                    && !matches!(error, Error::PinRefused { .. } | Error::Pin { .. });
                last = Some(error);
                if !is_hopeful {
                    break;
                }
            }
        }
    }
    give_up(shared, last);
}

fn install(shared: &Shared, attachment: std::sync::Arc<dyn crate::token::Attachment>) {
    for warning in &attachment.view().warnings {
        tracing::warn!(warning, "token");
    }
    let mut core = shared.lock();
    core.generation += 1;
    core.view = attachment.view().clone();
    core.attachment = Some(attachment);
    core.trouble = None;
    drop(core);
    shared.change(Phase::Ready, None);
}

/// Answers everybody who waits and goes on looking.
fn give_up(shared: &Shared, error: Option<Error>) {
    let retry_after = shared.settings.poll_max;
    let (phase, why) = match error {
        Some(error @ (Error::PinRefused { .. } | Error::Pin { .. })) => (Phase::PinRefused, error),
        Some(Error::Away { reason, .. }) => (Phase::Away, Error::Away { reason, retry_after }),
        Some(Error::Token { fault }) => {
            (Phase::Away, Error::Away { reason: fault.to_string().into(), retry_after })
        }
        Some(error) => (Phase::Away, error),
        None => (Phase::Away, Error::Away { reason: "restarting".into(), retry_after }),
    };
    let mut core = shared.lock();
    core.attachment = None;
    core.trouble = None;
    drop(core);
    shared.change(phase, Some(why.clone()));
    let jobs = shared.lock().take_all();
    shared.answer_all(jobs, &why);
}

/// Waits until `is_done` holds for every worker; false if one is stuck in a call.
fn wait_for_workers(shared: &Shared, is_done: impl Fn(&super::Worker) -> bool) -> bool {
    let until = Instant::now() + shared.settings.wedge_after;
    let mut core = shared.lock();
    loop {
        if core.workers.iter().all(&is_done) {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        let is_stuck = core.workers.iter().any(|worker| worker.is_wedged && !is_done(worker));
        if left.is_zero() || is_stuck {
            return false;
        }
        let waited = shared.keeper.wait_timeout(core, left);
        core = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Asks a token that seems well whether it is.
fn look(shared: &Shared, module: &mut dyn Module) {
    if let Err(error) = called(shared, module, |module| module.check()) {
        let generation = shared.lock().generation;
        shared.trouble(generation, error);
    }
}

/// Makes a key, then attaches anew so that all sessions know it.
fn generate(shared: &Shared, module: &mut dyn Module, job: &Job) {
    let Request::Generate { key } = job.request else {
        return;
    };
    let made = called(shared, module, |module| module.generate(key));
    if made.is_ok() {
        shared.change(Phase::Recovering, None);
        recover(shared, module);
    }
    if let Err(error) = &made
        && matches!(error.class(), Class::Away | Class::Retry)
    {
        let generation = shared.lock().generation;
        shared.trouble(generation, error.clone());
    }
    shared.answer(&job.ticket, made.map(Response::Generated));
}
