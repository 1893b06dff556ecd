//! Where one queue stands: numbers given and freed, what it holds, which lines are kept.
//!
//! Invariant: a number whose line may have been sent is never given to another line. Numbers rise
//! by one but for those whose commit failed. Pure arithmetic; rows are read and written by
//! [`Spool`](super::Spool). SPEC.md §5.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::timestamp::Timestamp;

use super::entry::Totals;
use super::limits;

/// A line that stays although a later one was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) number: u64,
    pub(super) since: Timestamp,
}

/// What survives a restart besides the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CursorRow {
    /// Everything up to here is freed, but for the kept.
    pub(super) freed: u64,
    /// The highest number given when this was written.
    pub(super) high: u64,
    pub(super) kept: Vec<Kept>,
}

const CURSOR_VERSION: u8 = 1;

impl CursorRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![CURSOR_VERSION];
        value.extend_from_slice(&self.freed.to_be_bytes());
        value.extend_from_slice(&self.high.to_be_bytes());
        for kept in &self.kept {
            value.extend_from_slice(&kept.number.to_be_bytes());
            value.extend_from_slice(&kept.since.0.to_be_bytes());
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (&CURSOR_VERSION, rest) = value.split_first()? else { return None };
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let (head, pairs) = numbers.split_first_chunk::<2>()?;
        let [freed, high] = head.map(u64::from_be_bytes);
        let (pairs, []) = pairs.as_chunks::<2>() else { return None };
        let kept = pairs.iter().map(|pair| {
            let [number, since] = pair.map(u64::from_be_bytes);
            Kept { number, since: Timestamp(since) }
        });
        Some(Self { freed, high, kept: kept.collect() })
    }
}

/// One queue in memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) freed: u64,
    /// The highest number given.
    pub(super) high: u64,
    /// The highest number whose commit has an outcome.
    pub(super) settled: u64,
    /// Of everything up to `high`.
    pub(super) totals: Totals,
    /// Of everything up to `freed`.
    pub(super) base: Totals,
    pub(super) kept: Vec<Kept>,
    /// Commits under way that touch this queue.
    pub(super) in_flight: usize,
    /// Those of them that move the cursor.
    pub(super) cursors_in_flight: usize,
    /// The first number whose commit has an outcome that nobody knows. What reads show from
    /// there on may be gone after a restart, so it is not read.
    pub(super) doubtful: Option<u64>,
    /// Due times of which a note is durable: of lines with a long and with a short life.
    pub(super) noted: [u64; 2],
    /// Totals at numbers given lately.
    marks: VecDeque<(u64, Totals)>,
    pub(super) used_at: Duration,
}

impl Queue {
    /// A queue as its rows show it. `last` is the highest row, `base` the totals before the first
    /// row that is not freed.
    pub(super) fn restore(
        cursor: CursorRow,
        last: Option<(u64, Totals)>,
        base: Option<Totals>,
    ) -> Self {
        let (number, totals) = last.unwrap_or_default();
        let high = number.max(cursor.high).max(cursor.freed);
        Self {
            freed: cursor.freed,
            high,
            settled: high,
            totals,
            base: base.unwrap_or(totals),
            kept: cursor.kept,
            ..Self::default()
        }
    }

    /// What it holds, lines on their way to the disk included.
    pub(super) const fn held(&self) -> Totals {
        self.totals.since(self.base)
    }

    /// Gives the next number to a line of `octets`; returns it with the totals up to it.
    pub(super) fn give(&mut self, octets: u64) -> (u64, Totals) {
        self.high += 1;
        self.totals = self.totals.plus(octets);
        self.in_flight += 1;
        self.marks.push_back((self.high, self.totals));
        if self.marks.len() > limits::MARKS_MAX {
            self.marks.pop_front();
        }
        (self.high, self.totals)
    }

    /// The commit of `number` has an outcome, and its row exists or may exist.
    pub(super) fn settle(&mut self, number: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.settled = self.settled.max(number);
    }

    /// The commit of `number` did not happen. The last number is taken back; another leaves a
    /// gap, and its octets count until the lines behind it are freed.
    pub(super) fn fail(&mut self, number: u64, octets: u64) {
        if number != self.high {
            self.settle(number);
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.high -= 1;
        self.totals = self.totals.since(Totals::default().plus(octets));
        if self.marks.back().is_some_and(|(last, _)| *last == number) {
            self.marks.pop_back();
        }
    }

    /// The totals of everything up to `number`, if they are remembered.
    pub(super) fn totals_at(&self, number: u64) -> Option<Totals> {
        if number >= self.high {
            return Some(self.totals);
        }
        self.marks.iter().rev().find(|(mark, _)| *mark <= number).map(|(_, totals)| *totals)
    }

    /// The lines that stay when everything up to `up_to` is freed and `asked` should be kept.
    pub(super) fn keep(&self, asked: &[u64], up_to: u64, at: Timestamp) -> Vec<Kept> {
        let earlier = |number| self.kept.iter().find(|kept| kept.number == number).copied();
        let fresh =
            |number| (number > self.freed && number <= up_to).then_some(Kept { number, since: at });
        asked
            .iter()
            .filter_map(|&number| earlier(number).or_else(|| fresh(number)))
            .filter(|kept| at.ms_since(kept.since) < limits::KEPT_MS_MAX)
            .collect()
    }

    /// Whether nobody would miss it in memory.
    pub(super) const fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.doubtful.is_none()
    }

    /// The highest number whose row may be read.
    pub(super) fn readable(&self) -> u64 {
        self.doubtful.map_or(self.settled, |doubtful| self.settled.min(doubtful - 1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trip() {
        let mut cursor = CursorRow { freed: 7, high: u64::MAX, kept: Vec::new() };
        for number in 0..=limits::KEPT_MAX as u64 {
            assert_eq!(CursorRow::decode(&cursor.encode()), Some(cursor.clone()));
            cursor.kept.push(Kept { number, since: Timestamp(number * 3) });
        }
        let value = cursor.encode();
        for length in 0..value.len() {
            let cut = CursorRow::decode(value.get(..length).unwrap());
            assert!(cut.is_none_or(|cut| cut.kept.len() < cursor.kept.len()), "{length}");
        }
        assert_eq!(CursorRow::decode(&[2; 17]), None);
    }

    #[test]
    fn only_the_last_number_is_given_again() {
        let mut queue = Queue::default();
        assert_eq!(queue.give(10).0, 1);
        assert_eq!(queue.give(10).0, 2);
        queue.fail(1, 10);
        assert_eq!(queue.give(10).0, 3);
        queue.settle(2);
        queue.fail(3, 10);
        assert_eq!((queue.settled, queue.high, queue.in_flight), (2, 2, 0));
        assert_eq!(queue.give(5).0, 3);
        assert_eq!(queue.held(), Totals { rows: 3, line_octets: 25 }, "a gap counts until freed");
    }

    #[test]
    fn totals_are_remembered_for_a_while() {
        let mut queue = Queue::default();
        for _ in 0..=limits::MARKS_MAX {
            queue.give(1);
        }
        assert_eq!(queue.totals_at(1), None, "one more than is remembered");
        assert_eq!(queue.totals_at(2).unwrap().rows, 2);
        assert_eq!(queue.totals_at(1_000).unwrap().rows, 1 + limits::MARKS_MAX as u64);
    }

    #[test]
    fn a_line_is_kept_for_a_day() {
        let mut queue = Queue { high: 9, settled: 9, ..Queue::default() };
        queue.kept = queue.keep(&[3, 10], 5, Timestamp(1_000));
        assert_eq!(queue.kept, [Kept { number: 3, since: Timestamp(1_000) }]);
        queue.freed = 5;
        let later = Timestamp(1_000 + limits::KEPT_MS_MAX);
        assert_eq!(queue.keep(&[3], 5, Timestamp(later.0 - 1)), queue.kept);
        assert_eq!(queue.keep(&[3], 5, later), []);
        assert_eq!(queue.keep(&[4], 5, Timestamp(1_000)), [], "it was freed before");
    }
}
