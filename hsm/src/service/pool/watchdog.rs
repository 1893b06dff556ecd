//! The watchdog: answers what is overdue and notices calls that never return.
//!
//! It ticks every [`limits::WATCHDOG_TICK`] while there is work and sleeps otherwise. Where the
//! last usable session is stuck, or the keeper is, only a new process helps.

use std::sync::PoisonError;
use std::time::Instant;

use super::{Core, Shared};
use crate::job::Phase;
use crate::limits;

/// Runs until the pool stops.
pub(super) fn run(shared: &Shared) {
    let mut core = shared.lock();
    loop {
        if core.phase == Phase::Stopping && core.workers.iter().all(|worker| worker.has_ended) {
            return;
        }
        if is_idle(&core) && core.phase != Phase::Stopping {
            core.is_watched = false;
            core = shared.watchdog.wait(core).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let now = Instant::now();
        let mut overdue: Vec<_> =
            core.queue.overdue(now).into_iter().map(|job| job.ticket).collect();
        let mut is_stuck = false;
        for worker in &mut core.workers {
            let Some((ticket, since)) = &worker.running else {
                continue;
            };
            if ticket.deadline <= now && !ticket.is_answered() {
                overdue.push(ticket.clone());
            }
            let was_wedged = worker.is_wedged;
            worker.is_wedged = now.duration_since(*since) >= shared.settings.wedge_after;
            is_stuck |= worker.is_wedged && !was_wedged;
        }
        let all_stuck = is_stuck && is_all_stuck(&core);
        let keeper_stuck = core
            .keeper_call
            .is_some_and(|since| now.duration_since(since) >= limits::KEEPER_CALL_MAX);
        drop(core);
        for ticket in overdue {
            let error = ticket.overdue();
            shared.answer(&ticket, Err(error));
        }
        if is_stuck {
            tracing::error!("a call of the PKCS#11 library does not return");
            shared.keeper.notify_all();
        }
        if all_stuck {
            shared.restart("no session is left that is not stuck in the PKCS#11 library");
        } else if keeper_stuck {
            shared.restart("the PKCS#11 library does not return from initialising or logging in");
        }
        core = shared.lock();
        let waited = shared.watchdog.wait_timeout(core, limits::WATCHDOG_TICK);
        core = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn is_idle(core: &Core) -> bool {
    core.queue.len() == 0
        && core.keeper_call.is_none()
        && core.workers.iter().all(|worker| worker.running.is_none())
}

fn is_all_stuck(core: &Core) -> bool {
    let mut usable = core.workers.iter().filter(|worker| worker.retired_in != core.generation);
    usable.all(|worker| worker.is_wedged)
}
