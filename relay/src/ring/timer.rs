//! Deadlines of the loop: a heap, with late removal.
//!
//! Invariant: every live timer has exactly one heap entry; entries of removed timers are skipped,
//! and swept when they outnumber the live ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;
use std::time::Instant;

/// Names a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId {
    sequence: u64,
    slot: usize,
}

struct Slot {
    sequence: u64,
    waker: Option<Waker>,
}

/// All timers of a loop.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, TimerId)>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    sequence: u64,
    live: usize,
}

impl Timers {
    /// Adds a timer that wakes `waker` at `deadline`. Equal deadlines fire in order of addition.
    pub(super) fn add(&mut self, deadline: Instant, waker: Waker) -> TimerId {
        self.sequence += 1;
        let slot = Slot { sequence: self.sequence, waker: Some(waker) };
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.slots.len(),
        };
        match self.slots.get_mut(index) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        let id = TimerId { sequence: self.sequence, slot: index };
        self.heap.push(Reverse((deadline, id)));
        self.live += 1;
        id
    }

    /// Replaces the waker of a timer; false if it has fired already.
    pub(super) fn update(&mut self, id: TimerId, waker: &Waker) -> bool {
        match self.slot(id).map(|slot| &mut slot.waker) {
            Some(Some(present)) => {
                present.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    /// Removes a timer, fired or not.
    pub(super) fn remove(&mut self, id: TimerId) {
        if let Some(slot) = self.slot(id) {
            slot.sequence = 0;
            if slot.waker.take().is_some() {
                self.live -= 1;
            }
            self.free.push(id.slot);
        }
        if self.heap.len() > 64 && self.heap.len() > 2 * self.live {
            let slots = &self.slots;
            self.heap.retain(|Reverse((_, id))| {
                slots.get(id.slot).is_some_and(|slot| slot.sequence == id.sequence)
            });
        }
    }

    /// When the next timer is due. Drops removed ones on the way.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        loop {
            let Reverse((deadline, id)) = *self.heap.peek()?;
            if self.is_live(id) {
                return Some(deadline);
            }
            self.heap.pop();
        }
    }

    /// Moves the wakers of all timers due at `now` to `wakes`, earliest first.
    pub(super) fn fire(&mut self, now: Instant, wakes: &mut Vec<Waker>) {
        while let Some(Reverse((deadline, id))) = self.heap.peek().copied() {
            if deadline > now {
                break;
            }
            self.heap.pop();
            if let Some(waker) = self.slot(id).and_then(|slot| slot.waker.take()) {
                self.live -= 1;
                wakes.push(waker);
            }
        }
    }

    fn slot(&mut self, id: TimerId) -> Option<&mut Slot> {
        self.slots.get_mut(id.slot).filter(|slot| slot.sequence == id.sequence)
    }

    fn is_live(&self, id: TimerId) -> bool {
        self.slots
            .get(id.slot)
            .is_some_and(|slot| slot.sequence == id.sequence && slot.waker.is_some())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_removed_ones_do_not() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let at = |ms| start + Duration::from_millis(ms);
        let add = |timers: &mut Timers, ms| timers.add(at(ms), Waker::noop().clone());
        let late = add(&mut timers, 30);
        let early = add(&mut timers, 10);
        let middle = add(&mut timers, 20);
        assert_eq!(timers.next_deadline(), Some(at(10)));
        timers.remove(early);
        assert_eq!(timers.next_deadline(), Some(at(20)));
        let mut wakes = Vec::new();
        timers.fire(at(19), &mut wakes);
        assert_eq!(wakes.len(), 0);
        timers.fire(at(25), &mut wakes);
        assert_eq!(wakes.len(), 1);
        assert!(!timers.update(middle, Waker::noop()));
        assert!(timers.update(late, Waker::noop()));
        timers.remove(middle);
        timers.remove(middle);
        timers.fire(at(30), &mut wakes);
        assert_eq!(wakes.len(), 2);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn removal_keeps_the_heap_small() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for round in 0..100_000_u64 {
            let id = timers.add(start + Duration::from_secs(60 + round), Waker::noop().clone());
            timers.remove(id);
        }
        assert!(timers.heap.len() <= 65, "{}", timers.heap.len());
        assert!(timers.slots.len() <= 1, "{}", timers.slots.len());
    }
}
