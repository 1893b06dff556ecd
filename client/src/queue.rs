//! The device's queue at the relay: what arrived, what is finished, what may be freed (013, 014).
//!
//! Owns the numbers (H-Q), not the lines. The invariants: a number is taken once; the
//! acknowledgement never covers a line that was not shown or otherwise finished; at most
//! [`protocol::limits::KEEP_MAX`] lines are kept at the relay, each for
//! [`limits::PARKED_AGE_MS_MAX`] (SPEC.md §5).

use std::collections::{BTreeMap, BTreeSet};

use protocol::Timestamp;
use protocol::limits::KEEP_MAX;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::state::{Space, State, StateError};

const NAME: &str = "queue";

/// The queue as this device sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// The highest number that arrived.
    received: u64,
    /// Numbers below it that never arrived: lines that expired, or that a relay sends late. The
    /// newest [`limits::QUEUE_GAPS_MAX`] of them.
    #[serde(default)]
    missing: BTreeSet<u64>,
    /// Numbers that arrived and are not finished: messages not yet shown.
    open: BTreeSet<u64>,
    /// Numbers kept at the relay, with the time until when.
    kept: BTreeMap<u64, u64>,
    /// Up to where the relay was told; it is never told less, for that would end what is kept
    /// above.
    #[serde(default)]
    acknowledged: u64,
    /// What this link was last told: nothing is said twice.
    #[serde(skip)]
    told: Option<(u64, Vec<u64>)>,
    #[serde(skip)]
    is_changed: bool,
}

impl Queue {
    pub(crate) fn load(state: &State) -> Result<Self, StateError> {
        Ok(state.get(Space::Meta, NAME)?.unwrap_or_default())
    }

    /// Writes the numbers down if they changed.
    pub(crate) fn store(&mut self, state: &mut State) -> Result<(), StateError> {
        if std::mem::take(&mut self.is_changed) {
            state.put(Space::Meta, NAME, self)?;
        }
        Ok(())
    }

    /// Begins a link: `top` is the highest number that the relay gave out. A relay that counts
    /// below what arrived has lost its queue; the count then starts anew, and what comes twice
    /// is noticed by its place in the chain. Returns the number from which to resume.
    pub(crate) fn connect(&mut self, top: u64) -> u64 {
        self.told = None;
        if top < self.received {
            *self = Self { is_changed: true, ..Self::default() };
        }
        self.received
    }

    /// Whether everything up to `top` has arrived.
    pub(crate) const fn has_received(&self, top: u64) -> bool {
        self.received >= top
    }

    /// Takes a line's number; `false` if it arrived before.
    pub(crate) fn arrive(&mut self, number: u64) -> bool {
        if number <= self.received {
            let is_late = self.missing.remove(&number);
            self.is_changed |= is_late;
            return is_late;
        }
        let oldest = number.saturating_sub(limits::QUEUE_GAPS_MAX);
        self.missing.extend(oldest.max(self.received + 1)..number);
        while self.missing.len() as u64 > limits::QUEUE_GAPS_MAX {
            self.missing.pop_first();
        }
        self.received = number;
        self.is_changed = true;
        true
    }

    /// Holds the acknowledgement back until [`Self::finish`].
    pub(crate) fn hold(&mut self, number: u64) {
        self.open.insert(number);
        self.is_changed = true;
    }

    /// The line is shown, or done with.
    pub(crate) fn finish(&mut self, number: u64) {
        self.is_changed |= self.open.remove(&number);
        self.is_changed |= self.kept.remove(&number).is_some();
    }

    /// Keeps a line at the relay; `false` if too many are kept already.
    pub(crate) fn keep(&mut self, number: u64, now: Timestamp) -> bool {
        if self.kept.len() >= KEEP_MAX {
            return false;
        }
        self.kept.insert(number, now.plus_ms(limits::PARKED_AGE_MS_MAX).0);
        self.is_changed = true;
        true
    }

    /// Gives up lines that were kept too long.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let before = self.kept.len();
        self.kept.retain(|_, until| now.0 < *until);
        self.is_changed |= self.kept.len() != before;
    }

    /// Whether every line that arrived is finished and acknowledged, up to `top`.
    pub(crate) fn is_drained(&self, top: u64) -> bool {
        self.open.is_empty() && self.kept.is_empty() && self.received >= top
    }

    /// The 014 line to send now, if there is something new to say.
    pub(crate) fn acknowledgement(&mut self) -> Option<String> {
        let finished = self.open.first().map_or(self.received, |first| first - 1);
        let up_to = finished.max(self.acknowledged);
        let kept: Vec<u64> = self.kept.range(..=up_to).map(|(number, _)| *number).collect();
        let said = (up_to, kept);
        if up_to == 0 || self.told.as_ref() == Some(&said) {
            return None;
        }
        let mut line = format!("014 H-Q={up_to}");
        for (position, number) in said.1.iter().enumerate() {
            line.push_str(if position == 0 { " KEEP=" } else { "," });
            line.push_str(&number.to_string());
        }
        self.told = Some(said);
        self.is_changed |= up_to > self.acknowledged;
        self.acknowledged = up_to;
        Some(line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_469_246_123);

    #[test]
    fn acknowledges_only_what_is_finished() {
        let mut queue = Queue::default();
        assert_eq!(queue.connect(9), 0);
        assert_eq!(queue.acknowledgement(), None);
        for number in [5, 6, 7] {
            assert!(queue.arrive(number));
            assert!(!queue.arrive(number));
        }
        queue.hold(6);
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=5"));
        assert_eq!(queue.acknowledgement(), None, "nothing new");
        assert!(!queue.is_drained(7));
        queue.finish(6);
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=7"));
        assert!(queue.is_drained(7) && !queue.is_drained(8));
        assert!(!queue.arrive(6), "replayed");
    }

    #[test]
    fn late_numbers_are_taken_once() {
        let mut queue = Queue::default();
        for number in [2, 5] {
            assert!(queue.arrive(number));
        }
        for number in [4, 1, 3] {
            assert!(queue.arrive(number), "{number} comes late");
            assert!(!queue.arrive(number), "{number} comes twice");
        }
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=5"));
    }

    #[test]
    fn gaps_at_n_and_one_more() {
        let mut queue = Queue::default();
        let far = limits::QUEUE_GAPS_MAX + 2;
        assert!(queue.arrive(far));
        assert!(!queue.arrive(1), "one more than is remembered");
        assert!(queue.arrive(2) && queue.arrive(far - 1));
        assert!(queue.arrive(far + 3));
        assert_eq!(queue.missing.len() as u64, limits::QUEUE_GAPS_MAX);
    }

    #[test]
    fn kept_lines_at_n_and_one_more() {
        let mut queue = Queue::default();
        for number in 1..=KEEP_MAX as u64 {
            assert!(queue.arrive(number) && queue.keep(number, NOW));
        }
        assert!(queue.arrive(65) && !queue.keep(65, NOW));
        let line = queue.acknowledgement().unwrap();
        assert!(line.starts_with("014 H-Q=65 KEEP=1,2,3") && line.ends_with(",64"), "{line}");
        queue.finish(64);
        assert!(queue.keep(65, NOW));
        queue.expire(NOW.plus_ms(limits::PARKED_AGE_MS_MAX - 1));
        assert!(!queue.is_drained(65));
        queue.expire(NOW.plus_ms(limits::PARKED_AGE_MS_MAX));
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=65"));
    }

    #[test]
    fn keep_names_nothing_above_the_acknowledgement() {
        let mut queue = Queue::default();
        for number in 1..=3 {
            queue.arrive(number);
        }
        queue.hold(2);
        queue.keep(1, NOW);
        queue.keep(3, NOW);
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=1 KEEP=1"));
    }

    #[test]
    fn a_kept_line_that_is_shown_late_takes_nothing_back() {
        let mut queue = Queue::default();
        for number in 1..=3 {
            queue.arrive(number);
        }
        queue.keep(1, NOW);
        queue.keep(3, NOW);
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=3 KEEP=1,3"));
        queue.finish(1);
        queue.hold(1);
        assert_eq!(queue.acknowledgement().as_deref(), Some("014 H-Q=3 KEEP=3"));
        assert!(!queue.is_drained(3));
    }

    #[test]
    fn a_relay_that_lost_its_queue_is_believed() {
        let mut queue = Queue::default();
        queue.arrive(50);
        queue.hold(50);
        assert_eq!(queue.connect(50), 50);
        assert_eq!(queue.connect(3), 0);
        assert!(queue.arrive(1));
    }
}
