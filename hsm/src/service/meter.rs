//! Counters and latency histograms per operation.
//!
//! Bucket `i` counts times below `2^i` microseconds and not below half of that; the last one takes
//! everything longer. All are atomics without order: a description is a snapshot, not a sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Error;
use crate::job::{Operation, OperationCount};

/// Up to 2^27 µs, more than the longest deadline.
const BUCKETS: usize = 28;

#[derive(Default)]
struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - micros.leading_zeros() as usize).min(BUCKETS - 1);
        if let Some(counter) = self.0.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn values(&self) -> Vec<u64> {
        self.0.iter().map(|counter| counter.load(Relaxed)).collect()
    }
}

#[derive(Default)]
struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    busy: AtomicU64,
    overdue: AtomicU64,
    retried: AtomicU64,
    token: Histogram,
    total: Histogram,
}

/// The counters of all operations.
#[derive(Default)]
pub(super) struct Meter([Counters; Operation::ALL.len()]);

impl Meter {
    fn counters(&self, operation: Operation) -> Option<&Counters> {
        let position = Operation::ALL.iter().position(|&other| other == operation)?;
        self.0.get(position)
    }

    /// Counts an answer.
    pub(super) fn answered(&self, operation: Operation, error: Option<&Error>, total: Duration) {
        let Some(counters) = self.counters(operation) else {
            return;
        };
        let counter = match error {
            None => &counters.succeeded,
            Some(Error::Busy { .. }) => &counters.busy,
            Some(Error::Deadline { .. }) => &counters.overdue,
            Some(_) => &counters.failed,
        };
        counter.fetch_add(1, Relaxed);
        counters.total.add(total);
    }

    /// Counts a job's time in the token.
    pub(super) fn in_token(&self, operation: Operation, time: Duration) {
        if let Some(counters) = self.counters(operation) {
            counters.token.add(time);
        }
    }

    /// Counts a job that enters the token again.
    pub(super) fn retried(&self, operation: Operation) {
        if let Some(counters) = self.counters(operation) {
            counters.retried.fetch_add(1, Relaxed);
        }
    }

    /// A snapshot.
    pub(super) fn counts(&self) -> Vec<OperationCount> {
        let pairs = Operation::ALL.into_iter().zip(&self.0);
        pairs
            .map(|(operation, counters)| OperationCount {
                operation,
                succeeded: counters.succeeded.load(Relaxed),
                failed: counters.failed.load(Relaxed),
                busy: counters.busy.load(Relaxed),
                overdue: counters.overdue.load(Relaxed),
                retried: counters.retried.load(Relaxed),
                token_micros: counters.token.values(),
                total_micros: counters.total.values(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_microseconds() {
        for (micros, bucket) in
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1 << 26, 27), (1 << 40, 27)]
        {
            let histogram = Histogram::default();
            histogram.add(Duration::from_micros(micros));
            assert_eq!(histogram.values()[bucket], 1, "{micros}");
        }
    }

    #[test]
    fn answers_are_counted_by_outcome() {
        let meter = Meter::default();
        meter.answered(Operation::Sign, None, Duration::ZERO);
        meter.answered(Operation::Sign, Some(&Error::Stopping), Duration::ZERO);
        let busy = Error::Busy { what: "queue".into(), limit: 1 };
        meter.answered(Operation::Sign, Some(&busy), Duration::ZERO);
        let counts = meter.counts();
        let sign = counts.iter().find(|count| count.operation == Operation::Sign).unwrap();
        assert_eq!((sign.succeeded, sign.failed, sign.busy, sign.overdue), (1, 1, 1, 0));
    }
}
