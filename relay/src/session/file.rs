//! 800–806: files. All lines but the chunks go the way of messages; a chunk goes past the store to
//! a device that is there, or into the depot if the relay keeps its file.
//!
//! A chunk is passed to a device that is there and has all its lines, one at a time: at most one
//! is in front of any other line. A few more wait in memory; then the sender is told to wait. For
//! a chunk that was passed 252 says only that it left the relay, so that the sender keeps its
//! pace; 801 asks for what is missing. Kept files: [`super::upload`], [`super::download`],
//! [`super::disposal`]. SPEC.md §9.

use protocol::file::Shape;
use protocol::identifier::FileId;
use protocol::{AddressBuf, Code, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use super::failure::{Caller, retry};
use super::limits;
use super::post::Chunk;
use crate::clock::Now;
use crate::depot::{DepotError, Label};
use crate::route::fan_out;

impl Domain {
    /// Handles 800–806.
    pub(super) fn file(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        let caller = Caller::new(id, command);
        let answer = match command.code() {
            Code::FILE_ACCEPT => self.accept_kept(&caller, command),
            Code::FILE_CANCEL => self.cancel_file(id, command, now),
            Code::FILE_CHUNK => self.chunk(&caller, command, now),
            Code::FILE_FINISH => self.check_chunks_are_out(id, command),
            Code::FILE_OFFER => self.check_offer(command),
            Code::FILE_VERDICT => self.end_kept(command, now),
            Code::FILE_WINDOW => self.widen_kept(&caller, command),
            _ => Ok(None),
        };
        match answer {
            Ok(None) => self.pass(&caller, command, None, Vec::new(), now),
            Ok(Some(answer)) | Err(answer) => answer,
        }
    }

    fn check_offer(&self, command: &Command<'_>) -> Result<Option<Answer>, Answer> {
        let octets: u64 = command.need("SIZE")?;
        if octets > self.settings.file_octets_max {
            return Err(Answer::text(552, "this domain does not take files of that size"));
        }
        match chunk_count(command) {
            Some(_) => Ok(None),
            None => Err(Error::BadParameter("CHUNK").into()),
        }
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
        if to.is_device() || !self.relation(to, from.as_address())?.is_open() {
            return Ok(None);
        }
        let label = Label::new(to, from.as_address(), command.need("FID")?);
        match self.post.depot.card(&*self.store, &label)? {
            Some(card) if !card.is_whole() => Err(DepotError::Missing { next: card.next }.into()),
            _ => Ok(None),
        }
    }

    /// Chunks of a file that is given up do not have to arrive.
    fn cancel_file(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Option<Answer>, Answer> {
        let from = self.proven(id)?;
        let to = self.local_recipient(command)?;
        let file: FileId = command.need("FID")?;
        for device in fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new()).recipients {
            let link = self.online.get(&device).and_then(|link| self.connections.get_mut(link));
            let Some(link) = link else { continue };
            let octets = &mut self.post.waiting_octets;
            // The sender gives the file up, so nobody waits for their answers.
            link.post.chunks.retain(|chunk| {
                let is_dropped = chunk.from == from && *chunk.file == *file.as_str();
                *octets -= if is_dropped { chunk.line.len() } else { 0 };
                !is_dropped
            });
        }
        // Either side may give a kept file up.
        self.dispose(&Label::new(to, from.as_address(), file), now)?;
        self.dispose(&Label::new(from.as_address(), to, file), now)?;
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
        let file: FileId = command.need("FID")?;
        if command.body_text().is_none() {
            return Err(Error::BadSlot.into());
        }
        let relation = self.relation(to, from.as_address())?;
        if !relation.is_open() {
            self.post.counts.vanished += 1;
            return Ok(Some(if_asked(caller, 252)));
        }
        if !to.is_device() {
            let label = Label::new(to, from.as_address(), file);
            if let Some(answer) = self.keep_chunk(caller, &label, command, now)? {
                return Ok(Some(answer));
            }
        }
        let devices = fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new()).recipients;
        if devices.is_empty() {
            return Err(Answer::text(550, "no such device"));
        }
        self.pass_chunk_on(caller, command, (&from, file), devices)?;
        Ok(Some(Answer::Later))
    }

    /// Passes a chunk to those devices that take it now. The others ask for it by 801.
    fn pass_chunk_on(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
        (from, file): (&AddressBuf, FileId),
        mut devices: Vec<AddressBuf>,
    ) -> Result<(), Answer> {
        let is_somebody_here = devices.iter().any(|device| self.online.contains_key(device));
        devices.retain(|device| self.takes_chunks(device, from));
        if devices.is_empty() {
            return Err(if is_somebody_here {
                retry(450, 1, "the recipient takes no chunks yet")
            } else {
                retry(450, limits::AWAY_RETRY_SECONDS, "the recipient is away")
            });
        }
        let mut line = Vec::with_capacity(command.as_str().len() + 2);
        command.forward(&[], &mut line);
        if devices.iter().any(|device| !self.has_room_for_chunk(device, line.len())) {
            return Err(retry(450, 1, "chunks are still on their way"));
        }
        let mut asker = Some(caller.clone()).filter(|it| it.hop_id.is_some());
        for device in &devices {
            let (from, file, line) = (from.clone(), file.as_str().into(), line.clone());
            self.pass_chunk(device, Chunk { caller: asker.take(), from, file, line });
        }
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

    /// Sends a link the next chunk once the one before is out: in turn one that waits in memory
    /// and one of a kept file.
    pub(super) fn pump_chunks(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_chunk_pending() || !connection.has_room() {
            return;
        }
        let is_kept_turn = !connection.post.was_kept_turn || connection.post.chunks.is_empty();
        if is_kept_turn && let Some(line) = self.next_kept(id) {
            return self.send_chunk(id, line, true);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(chunk) = connection.post.chunks.pop_front() {
            self.post.waiting_octets -= chunk.line.len();
            self.send_chunk(id, chunk.line, false);
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
    fn send_chunk(&mut self, id: ConnectionId, line: Vec<u8>, was_kept_turn: bool) {
        self.send(id, line);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.post.chunk_end = connection.post.given_octets;
            connection.post.was_kept_turn = was_kept_turn;
        }
    }
}

/// The number of chunks of the file that an 800 offers; `None` for any other line, and for a
/// file that cannot be cut so.
pub(super) fn chunk_count(command: &Command<'_>) -> Option<u64> {
    Some(shape(command)?.chunk_count())
}

/// SIZE and CHUNK of an 800.
pub(super) fn shape(command: &Command<'_>) -> Option<Shape> {
    if command.code() != Code::FILE_OFFER {
        return None;
    }
    Shape::new(command.need("SIZE").ok()?, command.need("CHUNK").ok()?)
}

/// The answer for a chunk whose recipient left before it was passed on.
pub(super) fn chunk_not_passed() -> Answer {
    retry(450, limits::AWAY_RETRY_SECONDS, "the recipient left")
}

/// 802 is answered only if the sender asked.
pub(super) fn if_asked(caller: &Caller, code: u16) -> Answer {
    if caller.hop_id.is_some() { Answer::text(code, "chunk taken") } else { Answer::Later }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
