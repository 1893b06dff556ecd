//! From a line to the devices that get it: planned, committed, and only then sent.
//!
//! Lines of one queue are sent in the order of their numbers. A device that has all lines before
//! gets the next one from memory; any other reads it from the store when there is room in its
//! outbox, so that a slow reader costs no memory. SPEC.md §5.

use protocol::timestamp::Timestamp;
use protocol::{AddressBuf, Command, Parameter};

use super::Domain;
use super::connection::{Connection, ConnectionId};
use super::post::{Batch, QueuedLine};
use crate::clock::Now;
use crate::event::Event;
use crate::spool::{Claim, Entry, Kind, Parcel, Settlement, SpoolError};
use crate::store::Outcome;

/// A line that goes into queues, the same for all of them.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a> {
    pub(super) command: &'a Command<'a>,
    pub(super) kind: Kind,
    pub(super) claim: Claim,
    pub(super) received_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Domain {
    /// Adds `letter` to a batch for one device.
    ///
    /// # Errors
    /// Those of [`Spool::append`](crate::spool::Spool::append); the batch is as it was.
    pub(super) fn enqueue(
        &mut self,
        batch: &mut Batch,
        letter: Letter<'_>,
        device: &AddressBuf,
        is_copy: bool,
    ) -> Result<(), SpoolError> {
        let is_live = self.online.get(device).and_then(|id| self.connections.get(id));
        let is_live = is_live.is_some_and(Connection::may_take_next);
        let mut octets = None;
        let write = |number: u64, value: &mut Vec<u8>| {
            let start = value.len();
            write_line(letter, number, device, value);
            if is_live {
                octets = value.get(start..).map(<[u8]>::to_vec);
            }
        };
        let parcel = Parcel {
            owner: device,
            kind: letter.kind,
            claim: letter.claim,
            received_at: letter.received_at,
            expires_at: letter.expires_at,
        };
        let appended =
            self.post.spool.append(&*self.store, parcel, write, &mut batch.operations)?;
        batch.lines.push(QueuedLine { appended, octets, is_copy });
        Ok(())
    }

    /// Gives up a batch that was not committed.
    pub(super) fn abandon(&mut self, batch: &Batch) {
        for line in batch.lines.iter().rev() {
            self.post.spool.settle(&line.appended, Settlement::Failed);
        }
    }

    /// Commits a batch, sends its lines to the devices that are there, and goes on with `then`,
    /// which learns the outcome and how many devices other than copies' got theirs.
    pub(super) fn commit_batch(
        &mut self,
        batch: Batch,
        now: Now,
        then: impl FnOnce(&mut Self, Outcome, usize, Now) + 'static,
    ) {
        let Batch { operations, lines } = batch;
        self.commit(operations, now, move |domain, outcome, now| {
            let settlement = match outcome {
                Outcome::Durable => Settlement::Durable,
                Outcome::Unknown => Settlement::Unknown,
                Outcome::Conflict { .. } | Outcome::Refused(_) => Settlement::Failed,
            };
            for line in lines.iter().rev() {
                domain.post.spool.settle(&line.appended, settlement);
            }
            let mut reached = 0;
            if settlement == Settlement::Durable {
                domain.post.counts.queued += lines.len() as u64;
                for line in lines {
                    let is_copy = line.is_copy;
                    reached += usize::from(domain.push(line) && !is_copy);
                }
            }
            then(domain, outcome, reached, now);
        });
    }

    /// Sends a durable line to its device if that is there; whether it was sent.
    fn push(&mut self, line: QueuedLine) -> bool {
        let Some(&id) = self.online.get(&line.appended.owner) else { return false };
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let may_take_next = connection.may_take_next();
        let Some(feed) = &mut connection.post.feed else { return false };
        let number = line.appended.number;
        if feed.sent_up_to >= number {
            return true;
        }
        if let Some(octets) = line.octets.filter(|_| may_take_next) {
            feed.sent_up_to = number;
            self.send(id, octets);
            self.post.counts.passed += 1;
            return true;
        }
        feed.is_behind = true;
        self.pump(id);
        let feed = self.connections.get(&id).and_then(|connection| connection.post.feed.as_ref());
        feed.is_some_and(|feed| feed.sent_up_to >= number)
    }

    /// Sends a link what its queue holds, as far as its outbox has room.
    pub(super) fn pump(&mut self, id: ConnectionId) {
        while let Some(next) = self.next_of_feed(id) {
            let result = match next {
                Next::Kept(device, number) => self.pump_kept(id, &device, number),
                Next::Rows(device, after) => self.pump_rows(id, &device, after),
            };
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    if !self.post.stuck.contains(&id) {
                        self.post.stuck.push(id);
                    }
                    return;
                }
            }
        }
        self.pump_chunks(id);
    }

    /// What a link is to be sent next; `None` if it has everything or takes nothing now.
    fn next_of_feed(&self, id: ConnectionId) -> Option<Next> {
        let connection = self.connections.get(&id)?;
        let feed = connection.post.feed.as_ref()?;
        if !feed.is_behind || !connection.has_room() {
            return None;
        }
        let device = connection.device.clone()?;
        Some(match feed.kept.front() {
            Some(&number) => Next::Kept(device, number),
            None => Next::Rows(device, feed.sent_up_to),
        })
    }

    fn pump_kept(
        &mut self,
        id: ConnectionId,
        device: &AddressBuf,
        number: u64,
    ) -> Result<bool, SpoolError> {
        let entry = match self.post.spool.read_one(&*self.store, device, number) {
            Err(SpoolError::Store(crate::store::StoreError::Damaged { .. })) => {
                self.report_damage();
                None
            }
            other => other?,
        };
        if let Some(entry) = entry
            && !self.send_entry(id, entry)
        {
            return Ok(false);
        }
        if let Some(feed) = self.feed_mut(id) {
            feed.kept.pop_front();
        }
        Ok(true)
    }

    fn pump_rows(
        &mut self,
        id: ConnectionId,
        device: &AddressBuf,
        after: u64,
    ) -> Result<bool, SpoolError> {
        let rows = self.post.spool.read(&*self.store, device, after)?;
        if rows.is_empty() {
            if let Some(feed) = self.feed_mut(id) {
                feed.is_behind = false;
            }
            return Ok(true);
        }
        for (number, entry) in rows {
            if let Some(entry) = entry {
                if !self.send_entry(id, entry) {
                    return Ok(false);
                }
            } else {
                self.report_damage();
            }
            if let Some(feed) = self.feed_mut(id) {
                feed.sent_up_to = number;
            }
        }
        Ok(true)
    }

    /// Sends a row read back; whether there was room for it.
    fn send_entry(&mut self, id: ConnectionId, entry: Entry) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        if !connection.has_room() {
            return false;
        }
        self.post.counts.replayed += 1;
        self.send(id, entry.into_line());
        true
    }

    pub(super) fn report_damage(&mut self) {
        self.post.counts.damaged += 1;
        self.emit(Event::QueueDamaged);
    }

    fn feed_mut(&mut self, id: ConnectionId) -> Option<&mut super::post::Feed> {
        self.connections.get_mut(&id)?.post.feed.as_mut()
    }

    /// Reads tell the truth again after a commit whose outcome is unknown: queues that it may
    /// have touched are sent from the store.
    pub(super) fn end_doubt(&mut self) {
        self.post.is_doubtful = false;
        for device in self.post.spool.certain() {
            let Some(&id) = self.online.get(&device) else { continue };
            if let Some(feed) = self.feed_mut(id) {
                feed.is_behind = true;
                self.pump(id);
            }
        }
    }
}

/// What a link is sent next.
enum Next {
    Kept(AddressBuf, u64),
    Rows(AddressBuf, u64),
}

impl Connection {
    /// Whether a chunk has not left its outbox yet.
    pub(super) const fn has_chunk_pending(&self) -> bool {
        self.post.given_octets.saturating_sub(self.outbox_octets as u64) < self.post.chunk_end
    }

    /// Whether the next line of its device's queue may be sent at once.
    pub(super) fn may_take_next(&self) -> bool {
        let is_up_to_date = self.post.feed.as_ref().is_some_and(|feed| !feed.is_behind);
        is_up_to_date && self.has_room()
    }
}

/// Writes a line as it goes out to `device`: with its number, when it was taken, and the device
/// if TO does not name it. Held lines are written as they came.
fn write_line(letter: Letter<'_>, number: u64, device: &AddressBuf, value: &mut Vec<u8>) {
    if letter.kind == Kind::Held {
        return letter.command.forward(&[], value);
    }
    let number = number.to_string();
    let received_at = letter.received_at.0.to_string();
    let name = device.as_address().device().unwrap_or_default();
    let hops = [
        Parameter { name: "H-Q", value: &number },
        Parameter { name: "H-RCVD", value: &received_at },
        Parameter { name: "H-DEV", value: name },
    ];
    let names_device = letter.command.to().is_some_and(|to| to.is_device());
    let count = if names_device { 2 } else { 3 };
    letter.command.forward(hops.get(..count).unwrap_or_default(), value);
}
