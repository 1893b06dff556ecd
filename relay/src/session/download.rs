//! Out of the depot: 801 and 803 for a file that the relay keeps are answered by the relay.
//!
//! Chunks are read one at a time, when the one before has left the outbox, so a slow reader costs
//! no memory and at most one chunk is in front of any other line. Those that still come in are
//! sent as soon as they are durable. What a link was sending is forgotten with it: the device
//! says in its next 801 from where it goes on. SPEC.md §9.

use protocol::file::{FileAccept, FileWindow};
use protocol::limits::CHUNK_TAG_OCTETS;
use protocol::{Code, Command, Error};

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use super::failure::{Caller, retry};
use super::limits;
use super::post::Fetch;
use crate::depot::Label;
use crate::store::StoreError;

impl Domain {
    /// 801: begins to send a kept file; `None` if the relay does not keep it.
    pub(super) fn accept_kept(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
    ) -> Result<Option<Answer>, Answer> {
        let accept = FileAccept::parse(command)?;
        let label = Label::new(accept.from, accept.to, accept.file);
        let card = self.post.depot.card(&*self.store, &label)?;
        let connection = self.connections.get_mut(&caller.id);
        let (Some(card), Some(connection)) = (card, connection) else { return Ok(None) };
        let chunk_count = card.shape.chunk_count();
        if accept.first_chunk > chunk_count {
            return Err(Error::BadParameter("FROM-CHUNK").into());
        }
        if !fits_line(card.shape.chunk_octets(), connection.line_octets_max()) {
            return Err(Answer::text(556, "its chunks are longer than the lines of this link"));
        }
        let fetches = &mut connection.post.fetches;
        fetches.retain(|fetch| fetch.label != label);
        if fetches.len() >= limits::FETCHES_MAX {
            return Err(retry(450, 1, "too many files are on their way"));
        }
        if accept.first_chunk < chunk_count {
            let window_end = accept.window_end.unwrap_or(chunk_count);
            let (next, kept, shape) = (accept.first_chunk, card.next, card.shape);
            fetches.push_back(Fetch { label, next, kept, shape, window_end });
        }
        self.reply(caller, Answer::text(250, "its chunks follow"));
        self.pump_chunks(caller.id);
        Ok(Some(Answer::Later))
    }

    /// 803: lets a kept file go on; `None` if none is on its way.
    pub(super) fn widen_kept(
        &mut self,
        caller: &Caller,
        command: &Command<'_>,
    ) -> Result<Option<Answer>, Answer> {
        let window = FileWindow::parse(command)?;
        let Some(connection) = self.connections.get_mut(&caller.id) else { return Ok(None) };
        let fetches = &mut connection.post.fetches;
        let fetch = fetches.iter_mut().find(|fetch| {
            fetch.label.file == window.file && fetch.label.sender.as_address() == window.to
        });
        let Some(fetch) = fetch else { return Ok(None) };
        fetch.window_end = fetch.window_end.max(window.window_end);
        if caller.hop_id.is_some() {
            self.reply(caller, Answer::text(250, "granted"));
        }
        self.pump_chunks(caller.id);
        Ok(Some(Answer::Later))
    }

    /// Chunks below `end` of a file are kept: sends them to who waits for them.
    pub(super) fn kept_more(&mut self, label: &Label, end: u64) {
        // If the devices cannot be read now, theirs ask again after a while.
        let Ok(devices) = self.devices_of(label.account.as_address()) else { return };
        for device in devices {
            let Some(&id) = self.online.get(&device) else { continue };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let fetches = &mut connection.post.fetches;
            let Some(fetch) = fetches.iter_mut().find(|fetch| fetch.label == *label) else {
                continue;
            };
            fetch.kept = fetch.kept.max(end);
            self.pump_chunks(id);
        }
    }

    /// The line of the next chunk of a kept file that a link waits for; the files take turns.
    pub(super) fn next_kept(&mut self, id: ConnectionId) -> Option<Vec<u8>> {
        loop {
            let connection = self.connections.get_mut(&id)?;
            let fetches = &mut connection.post.fetches;
            let place = fetches.iter().position(Fetch::has_chunk)?;
            let mut fetch = fetches.remove(place)?;
            let chunk = (fetch.shape, fetch.next);
            match self.post.depot.chunk(&*self.store, &fetch.label, chunk) {
                Ok(Some(chunk)) => {
                    let line = chunk_line(&fetch, &chunk);
                    fetch.next += 1;
                    self.post.counts.chunks_fetched += 1;
                    if fetch.next < fetch.shape.chunk_count() {
                        let connection = self.connections.get_mut(&id)?;
                        connection.post.fetches.push_back(fetch);
                    }
                    return Some(line);
                }
                // It was removed meanwhile.
                Ok(None) => {}
                Err(StoreError::Damaged { .. }) => {
                    self.report_damage();
                    if !self.post.spoilt.contains(&fetch.label) {
                        self.post.spoilt.push(fetch.label);
                    }
                }
                Err(_) => {
                    let connection = self.connections.get_mut(&id)?;
                    connection.post.fetches.push_front(fetch);
                    if !self.post.stuck.contains(&id) {
                        self.post.stuck.push(id);
                    }
                    return None;
                }
            }
        }
    }

    /// Nothing more of a file is sent to anybody.
    pub(super) fn drop_fetches(&mut self, label: &Label) {
        for connection in self.connections.values_mut() {
            connection.post.fetches.retain(|fetch| fetch.label != *label);
        }
    }
}

/// Whether the lines of chunks of `chunk_octets` fit a link.
fn fits_line(chunk_octets: u32, line_octets_max: usize) -> bool {
    // What stands before the body of a chunk is well below this.
    const HEAD_OCTETS_MAX: usize = 1_024;
    let sealed = chunk_octets as usize + CHUNK_TAG_OCTETS;
    sealed.div_ceil(3) * 4 + HEAD_OCTETS_MAX <= line_octets_max
}

/// The line of a kept chunk, as its sender wrote it.
fn chunk_line(fetch: &Fetch, chunk: &[u8]) -> Vec<u8> {
    let line = Command::builder(Code::FILE_CHUNK)
        .to(fetch.label.account.as_address())
        .from(fetch.label.sender.as_address())
        .parameter("FID", fetch.label.file)
        .parameter("N", fetch.next)
        .body(chunk);
    let mut octets = line.into_bytes();
    octets.extend_from_slice(b"\r\n");
    octets
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
