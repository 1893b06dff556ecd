//! What the tick does for lines: expiry with its bounces, held lines, old message ids, retries.
//!
//! Bounded work per tick, one step after the other, each waiting for its commit. While the clock
//! is in doubt, shortly after the start, and while a commit's outcome is unknown, nothing is given
//! up. SPEC.md §8.

use std::time::Duration;

use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf, Code, Command, base64};

use super::Domain;
use super::delivery::Letter;
use super::limits;
use super::post::{Batch, PostCounts};
use crate::clock::Now;
use crate::event::Event;
use crate::keys::SigningKeyName;
use crate::spool::dedupe::{REQUIREMENTS, Statement};
use crate::spool::{Claim, Due, Entry, Kind};
use crate::store::{Outcome, Statistics};

/// Where the sweep of expired lines stands.
#[derive(Default)]
pub(super) struct Sweep {
    /// The note being worked on, and the number behind which its queue is looked at.
    current: Option<(Due, u64)>,
    /// Whether something was due in that queue.
    found: bool,
    /// The note before; the next is looked for behind it.
    last: Option<Due>,
    /// Steps that this tick may still do.
    budget: usize,
    is_waiting: bool,
    resume_at: Duration,
}

/// A bounce that a row asks for.
struct Bounce {
    number: u64,
    to: AddressBuf,
    message_id: Box<str>,
}

impl Domain {
    /// The store's own figures.
    #[must_use]
    pub fn store_statistics(&self) -> Statistics {
        self.store.statistics()
    }

    /// Counters about lines since the start.
    #[must_use]
    pub fn post_counts(&self) -> PostCounts {
        self.post.counts
    }

    /// Does what has become due about lines.
    pub(super) fn tick_post(&mut self, now: Now) {
        self.post.spool.turn(now.since_start);
        let at = self.post.clock.read(now);
        if self.post.clock.take_jump() {
            self.emit(Event::ClockJumped);
        }
        for id in std::mem::take(&mut self.post.stuck) {
            self.pump(id);
        }
        self.tick_held(now);
        if !self.post.is_doubtful {
            self.tick_removals(now);
        }
        let clock = &self.post.clock;
        if clock.is_settling(now) || clock.is_doubted() || self.post.is_doubtful {
            return;
        }
        self.tick_epochs(at, now);
        self.tick_cards(at, now);
        self.post.sweep.budget = limits::SWEEP_STEPS_PER_TICK;
        self.sweep_on(now);
    }

    /// Releases held lines of accounts that are free, some accounts a tick.
    fn tick_held(&mut self, now: Now) {
        if self.post.holders.load(&*self.store).is_err() {
            return;
        }
        for _ in 0..limits::HOLDERS_PER_TICK {
            let next = self.post.holders.next(self.post.held_after.as_ref());
            self.post.held_after.clone_from(&next);
            let Some(account) = next else { return };
            self.release_held(&account, now);
        }
    }

    /// Deletes a part of the message ids and sessions of old epochs.
    fn tick_epochs(&mut self, at: Timestamp, now: Now) {
        for index in 0..self.post.epochs.len() {
            let Some(epochs) = self.post.epochs.get_mut(index) else { return };
            if epochs.is_under_way {
                continue;
            }
            let Ok(Some(operations)) = epochs.sweeper.next(&*self.store, at) else { continue };
            epochs.is_under_way = true;
            self.commit(operations, now, move |domain, _, _| {
                if let Some(epochs) = domain.post.epochs.get_mut(index) {
                    epochs.is_under_way = false;
                }
            });
        }
    }

    /// Goes on with the sweep until its budget is spent or it waits for something.
    fn sweep_on(&mut self, now: Now) {
        while self.post.sweep.budget > 0
            && !self.post.sweep.is_waiting
            && now.since_start >= self.post.sweep.resume_at
        {
            self.post.sweep.budget -= 1;
            self.sweep_step(now);
        }
    }

    /// Looks at some rows of one queue.
    fn sweep_step(&mut self, now: Now) {
        let at = self.post.clock.read(now);
        let Some((due, after)) = self.post.sweep.current.take() else {
            return self.sweep_next(at, now);
        };
        let is_moving = self.post.holders.is_moving(due.owner.as_str());
        let limit = limits::SWEEP_ROWS_PER_STEP;
        let rows = self.post.spool.sweep_rows(&*self.store, &due, after, limit);
        let kept = self.post.spool.kept_too_long(&*self.store, &due.owner, at);
        let (Ok(rows), Ok(kept), false) = (rows, kept, is_moving) else {
            return self.sweep_pause(now);
        };
        let Some(&(mut reached, _)) = rows.last() else {
            return self.sweep_end(due, now);
        };
        let sent_up_to = self.sent_up_to(&due.owner);
        let mut numbers = Vec::new();
        let mut bounce = None;
        for (number, entry) in rows {
            let Some(entry) = entry else { continue };
            let is_expired = entry.expires_at <= at;
            if !is_expired && !kept.contains(&number) {
                continue;
            }
            self.post.sweep.found = true;
            if number <= sent_up_to && !kept.contains(&number) {
                continue;
            }
            bounce = bounce_of(number, &entry, &self.settings.domain).filter(|_| is_expired);
            if bounce.is_some() {
                reached = number - 1;
                break;
            }
            numbers.push(number);
        }
        match bounce {
            Some(bounce) if numbers.is_empty() => {
                self.post.sweep.current = Some((due.clone(), bounce.number));
                self.bounce(due.owner, bounce, at, now);
            }
            // A bounce behind others comes first in the next step.
            _ => {
                self.post.sweep.current = Some((due.clone(), reached));
                self.give_up(due.owner, &numbers, now);
            }
        }
    }

    /// Takes up the next note that is due, or ends the round.
    fn sweep_next(&mut self, at: Timestamp, now: Now) {
        match self.post.spool.due(&*self.store, at, self.post.sweep.last.as_ref()) {
            Ok(Some(due)) => self.post.sweep.current = Some((due, 0)),
            Ok(None) | Err(_) => self.sweep_pause(now),
        }
    }

    /// Ends one queue. Its note goes once nothing was found.
    fn sweep_end(&mut self, due: Due, now: Now) {
        if !std::mem::take(&mut self.post.sweep.found) {
            let operation = self.post.spool.done(&due);
            self.commit(vec![operation], now, |_, _, _| {});
        }
        self.post.sweep.last = Some(due);
    }

    /// Ends the round; the next one begins a while later.
    fn sweep_pause(&mut self, now: Now) {
        self.post.sweep.current = None;
        self.post.sweep.last = None;
        self.post.sweep.found = false;
        self.post.sweep.resume_at = now.since_start + limits::SWEEP_PAUSE;
    }

    /// The highest number that a device's present link was sent; 0 if it has none.
    fn sent_up_to(&self, device: &AddressBuf) -> u64 {
        let link = self.online.get(device).and_then(|id| self.connections.get(id));
        link.and_then(|link| link.post.feed.as_ref()).map_or(0, |feed| feed.sent_up_to)
    }

    /// Deletes expired rows of a queue.
    fn give_up(&mut self, owner: AddressBuf, numbers: &[u64], now: Now) {
        if numbers.is_empty() {
            return;
        }
        let mut operations = Vec::new();
        let moved = self.post.spool.give_up(&*self.store, &owner, numbers, &mut operations);
        let Ok(Some(moved)) = moved else { return };
        let count = numbers.len() as u64;
        self.post.sweep.is_waiting = true;
        self.commit(operations, now, move |domain, outcome, now| {
            domain.post.sweep.is_waiting = false;
            if outcome == Outcome::Durable {
                let _ = domain.post.spool.moved(&*domain.store, moved);
                domain.post.counts.expired += count;
                domain.sweep_on(now);
            } else {
                domain.post.spool.not_moved(&moved);
                domain.sweep_pause(now);
            }
        });
    }

    /// Gives up one row and tells its sender, if the sender had not its share of bounces.
    fn bounce(&mut self, owner: AddressBuf, bounce: Bounce, at: Timestamp, now: Now) {
        let is_known = self.devices_of(bounce.to.as_address());
        let is_known = is_known.is_ok_and(|devices| devices.contains(&bounce.to));
        if !is_known {
            return self.give_up(owner, &[bounce.number], now);
        }
        if self.post.bounces.take(bounce.to.account(), now).is_err() {
            self.post.counts.bounces_counted += 1;
            return self.give_up(owner, &[bounce.number], now);
        }
        let (to, from, message_id) = (&bounce.to, &self.settings.domain, &bounce.message_id);
        let text = format!("190 TO {to} FROM {from} RE={message_id} CODE=558 TS={}", at.0);
        let Ok(message) = Command::parse(text.as_bytes()).map(|command| command.tbs()) else {
            return self.give_up(owner, &[bounce.number], now);
        };
        self.post.sweep.is_waiting = true;
        self.sign(SigningKeyName::Log, message, move |domain, signature, now| {
            domain.post.sweep.is_waiting = false;
            match signature {
                Ok(signature) => domain.queue_bounce(owner, bounce, &text, &signature, now),
                // The row is still there and the next round finds it.
                Err(_) => domain.sweep_pause(now),
            }
        });
    }

    /// Commits a signed bounce together with the end of the row that it is about.
    fn queue_bounce(
        &mut self,
        owner: AddressBuf,
        bounce: Bounce,
        text: &str,
        signature: &[u8],
        now: Now,
    ) {
        let line = format!("{text} - {}", base64::encode(signature));
        let domain = self.settings.domain.clone();
        let (Ok(command), Ok(from)) = (Command::parse(line.as_bytes()), Address::parse(&domain))
        else {
            return self.give_up(owner, &[bounce.number], now);
        };
        let at = self.post.clock.read(now);
        let addresses = (from, bounce.to.as_address());
        let statement = Statement::new(Code::BOUNCE, addresses, &bounce.message_id, [0; 32], at);
        let mut batch = Batch { operations: statement.operations(250), lines: Vec::new() };
        let number = bounce.number;
        let moved = self.post.spool.give_up(&*self.store, &owner, &[number], &mut batch.operations);
        let Ok(Some(moved)) = moved else { return self.sweep_pause(now) };
        let expires_at = self.post.spool.expiry(at, None);
        let (kind, claim) = (Kind::Line, Claim::Known);
        let letter = Letter { command: &command, kind, claim, received_at: at, expires_at };
        // A sender whose own queue is full is not told.
        let _ = self.enqueue(&mut batch, letter, &bounce.to, false);
        self.post.sweep.is_waiting = true;
        self.commit_batch(batch, now, move |domain, outcome, _, now| {
            domain.post.sweep.is_waiting = false;
            match outcome {
                Outcome::Durable => {
                    let _ = domain.post.spool.moved(&*domain.store, moved);
                    domain.post.counts.expired += 1;
                    domain.post.counts.bounced += 1;
                    domain.sweep_on(now);
                }
                // Another device's row of the same line was bounced before.
                Outcome::Conflict { index, .. } if index < REQUIREMENTS => {
                    domain.post.spool.not_moved(&moved);
                    domain.give_up(owner, &[number], now);
                }
                _ => {
                    domain.post.spool.not_moved(&moved);
                    domain.sweep_pause(now);
                }
            }
        });
    }
}

/// The bounce that an expired line asks for: messages, files and offers of people of this domain
/// do, receipts and notices do not.
fn bounce_of(number: u64, entry: &Entry, domain: &str) -> Option<Bounce> {
    let line = entry.line().strip_suffix(b"\r\n")?;
    let command = Command::parse(line).ok()?;
    let is_asked = matches!(command.code().number(), 100 | 103..=105 | 700 | 702 | 800);
    let from = command.from().filter(|from| from.is_device() && from.domain() == domain)?;
    let message_id = command.parameter("MID").filter(|_| is_asked)?.into();
    Some(Bounce { number, to: from.to_buf(), message_id })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
