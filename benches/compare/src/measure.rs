//! The clock of the comparison: rounds over all rivals in turn, medians, so that noise hits all
//! alike.
//!
//! Owns the loop. The invariant: every rival of a case is measured in every round, in an order that
//! rotates, on the same buffer size; the figure is the median over rounds. The clock counts the
//! processor time of this thread, so that other programs cost less than they would on a wall clock.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Something measured: does its work once per call.
pub(crate) type Work = Box<dyn FnMut()>;

/// One rival in one case.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) work: Work,
}

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
}

/// Nanoseconds per call: the median, and the quartiles beside it.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Figure {
    pub(crate) nanoseconds: f64,
    pub(crate) quartiles: (f64, f64),
}

/// Measures all contenders, round by round.
pub(crate) fn measure(plan: Plan, contenders: &mut [Contender]) -> Vec<Figure> {
    let calls: Vec<u32> =
        contenders.iter_mut().map(|c| calibrate(plan.slice, &mut c.work)).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..plan.rounds {
        for step in 0..contenders.len() {
            let i = (round + step) % contenders.len();
            let started = now();
            for _ in 0..calls[i] {
                (contenders[i].work)();
            }
            times[i].push((now() - started).as_nanos() as f64 / f64::from(calls[i]));
        }
    }
    times.into_iter().map(figure).collect()
}

/// Processor time of this thread.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn calibrate(slice: Duration, work: &mut Work) -> u32 {
    work();
    let mut calls = 1;
    loop {
        let started = now();
        for _ in 0..calls {
            work();
        }
        let elapsed = now() - started;
        if elapsed * 2 >= slice || calls > 1 << 24 {
            let scale = slice.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            return ((f64::from(calls) * scale) as u32).max(1);
        }
        calls *= 2;
    }
}

fn figure(mut times: Vec<f64>) -> Figure {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    Figure { nanoseconds: at(0.5), quartiles: (at(0.25), at(0.75)) }
}
