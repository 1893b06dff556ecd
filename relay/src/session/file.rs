//! 800–806: files. All lines but the chunks go the way of messages; chunks go past the store.
//!
//! A chunk is passed to a device that is there and has all its lines, one at a time: at most one
//! is in front of any other line. A few more wait in memory; then the sender is told to wait. For
//! a device that is away chunks are queued, up to a quota of their own. For a chunk that was passed
//! 252 says only that it left the relay, so that the sender keeps its pace; 801 asks for what is
//! missing. SPEC.md §9.

use protocol::{AddressBuf, Code, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use super::delivery::Letter;
use super::failure::{Caller, retry};
use super::limits;
use super::post::{Batch, Chunk};
use crate::clock::Now;
use crate::route::fan_out;
use crate::spool::{Claim, Kind};
use crate::store::Outcome;

impl Domain {
    /// Handles 800–806.
    pub(super) fn file(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let caller = Caller::new(id, command);
        let answer = match command.code() {
            Code::FILE_CHUNK => self.chunk(&caller, command, now),
            Code::FILE_OFFER => self.check_file_size(command),
            Code::FILE_FINISH => self.check_chunks_are_out(id, command),
            Code::FILE_CANCEL => self.cancel_chunks(id, command),
            _ => Ok(None),
        };
        match answer {
            Ok(None) => self.pass(&caller, command, None, Vec::new(), now),
            Ok(Some(answer)) | Err(answer) => answer,
        }
    }

    fn check_file_size(&self, command: &Command<'_>) -> Result<Option<Answer>, Answer> {
        let octets: u64 = command.need("SIZE")?;
        if octets > self.settings.file_octets_max {
            return Err(Answer::text(552, "this domain does not take files of that size"));
        }
        Ok(None)
    }

    /// The line that ends a file does not overtake its chunks.
    fn check_chunks_are_out(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
    ) -> Result<Option<Answer>, Answer> {
        let from = self.proven(id)?;
        let to = self.local_recipient(command)?;
        for device in fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new()).recipients {
            if self.has_waiting_chunks(&device, &from) {
                return Err(retry(450, 1, "chunks are still on their way"));
            }
        }
        Ok(None)
    }

    /// Chunks of a file that is given up do not have to arrive.
    fn cancel_chunks(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
    ) -> Result<Option<Answer>, Answer> {
        let from = self.proven(id)?;
        let to = self.local_recipient(command)?;
        let file = command.parameter("FID").unwrap_or_default();
        for device in fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new()).recipients {
            let link = self.online.get(&device).and_then(|link| self.connections.get_mut(link));
            let Some(link) = link else { continue };
            let octets = &mut self.post.waiting_octets;
            // The sender gives the file up, so nobody waits for their answers.
            link.post.chunks.retain(|chunk| {
                let is_dropped = chunk.from == from && *chunk.file == *file;
                *octets -= if is_dropped { chunk.line.len() } else { 0 };
                !is_dropped
            });
        }
        Ok(None)
    }

    fn chunk(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Option<Answer>, Answer> {
        let from = self.proven(caller.id)?;
        let to = self.local_recipient(command)?;
        let file: &str = command.need("FID")?;
        if command.body_text().is_none() {
            return Err(Error::BadSlot.into());
        }
        let relation = self.relation(to, from.as_address())?;
        if !relation.is_open() {
            self.post.counts.vanished += 1;
            return Ok(Some(if_asked(caller, 252)));
        }
        let devices = fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new()).recipients;
        if devices.is_empty() {
            return Err(Answer::text(550, "no such device"));
        }
        let (live, away): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|device| self.takes_chunks(device, &from));
        let mut line = Vec::with_capacity(command.as_str().len() + 2);
        command.forward(&[], &mut line);
        if live.iter().any(|device| !self.has_room_for_chunk(device, line.len())) {
            return Err(retry(450, 1, "chunks are still on their way"));
        }
        // Where some devices are away, the answer is for what is stored for them.
        let mut asker = Some(caller.clone()).filter(|it| it.hop_id.is_some() && away.is_empty());
        for device in &live {
            let (from, line) = (from.clone(), line.clone());
            self.pass_chunk(device, Chunk { caller: asker.take(), from, file: file.into(), line });
        }
        if away.is_empty() {
            return Ok(Some(Answer::Later));
        }
        self.store_chunk(caller, command, &away, now)?;
        Ok(Some(Answer::Later))
    }

    fn store_chunk(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        devices: &[AddressBuf],
        now: Now,
    ) -> Result<(), Answer> {
        let at = self.post.clock.read(now);
        let expires_at = self.post.spool.expiry(at, None);
        let (kind, claim) = (Kind::Chunk, Claim::Known);
        let letter = Letter { command, kind, claim, received_at: at, expires_at };
        let mut batch = Batch::default();
        for device in devices {
            if let Err(error) = self.enqueue(&mut batch, letter, device, false) {
                self.abandon(&batch);
                return Err(error.into());
            }
        }
        let caller = caller.clone();
        self.commit_batch(batch, now, move |domain, outcome, _, _| match outcome {
            Outcome::Durable => {
                domain.post.counts.chunks_queued += 1;
                let answer = if_asked(&caller, 250);
                domain.reply(&caller, answer);
            }
            outcome => domain.reply_not_durable(&caller, outcome),
        });
        Ok(())
    }

    /// Whether chunks for a device go past the store: it is there and has all its lines, or
    /// earlier chunks of this sender wait for it.
    fn takes_chunks(&self, device: &AddressBuf, from: &AddressBuf) -> bool {
        let link = self.online.get(device).and_then(|id| self.connections.get(id));
        let has_feed = link.is_some_and(|link| {
            !link.is_closing && link.post.feed.as_ref().is_some_and(|feed| !feed.is_behind)
        });
        has_feed || self.has_waiting_chunks(device, from)
    }

    fn has_waiting_chunks(&self, device: &AddressBuf, from: &AddressBuf) -> bool {
        let link = self.online.get(device).and_then(|id| self.connections.get(id));
        link.is_some_and(|link| link.post.chunks.iter().any(|chunk| chunk.from == *from))
    }

    fn has_room_for_chunk(&self, device: &AddressBuf, octets: usize) -> bool {
        let link = self.online.get(device).and_then(|id| self.connections.get(id));
        link.is_some_and(|link| {
            link.post.chunks.len() < limits::CHUNKS_WAITING_MAX
                && self.post.waiting_octets + octets <= limits::CHUNK_OCTETS_WAITING_MAX
        })
    }

    fn pass_chunk(&mut self, device: &AddressBuf, chunk: Chunk) {
        let Some(&id) = self.online.get(device) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.post.waiting_octets += chunk.line.len();
        self.post.counts.chunks_passed += 1;
        connection.post.chunks.push_back(chunk);
        self.pump_chunks(id);
    }

    /// Sends a link the next waiting chunk once the one before is out.
    pub(super) fn pump_chunks(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_chunk_pending() || !connection.has_room() {
            return;
        }
        if let Some(chunk) = connection.post.chunks.pop_front() {
            self.post.waiting_octets -= chunk.line.len();
            self.send_chunk(id, chunk.line);
            self.reply_for_chunk(chunk.caller.as_ref(), Answer::text(252, "passed on, not kept"));
        }
    }

    /// Tells the sender of a chunk what became of it, if the sender asked.
    pub(super) fn reply_for_chunk(&mut self, caller: Option<&Caller>, answer: Answer) {
        if let Some(caller) = caller {
            self.reply(caller, answer);
        }
    }

    /// Sends a chunk, remembering where in the outbox it ends.
    pub(super) fn send_chunk(&mut self, id: ConnectionId, line: Vec<u8>) {
        self.send(id, line);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.post.chunk_end = connection.post.given_octets;
        }
    }
}

/// The answer for a chunk whose recipient left before it was passed on.
pub(super) fn chunk_not_passed() -> Answer {
    retry(450, 1, "the recipient left")
}

/// 802 is answered only if the sender asked.
fn if_asked(caller: &Caller, code: u16) -> Answer {
    if caller.hop_id.is_some() { Answer::text(code, "chunk taken") } else { Answer::Later }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
