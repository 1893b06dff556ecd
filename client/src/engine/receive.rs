//! Files on their way in: accepted, put together, checked, and judged by a signed verdict.
//!
//! Owns the rows of [`Space::FileIn`]. The invariants: nothing is written before the user accepted
//! the file and named a place; how far a file has come is noted only once it is on the disk; the
//! verdict 250 means that every chunk opened, the root is the one announced, and the sender's
//! signature over it holds (SPEC.md §9).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::file::{FileCancel, FileChunk, FileFinish, FileOffer, Shape};
use protocol::identifier::FileId;
use protocol::{Address, AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::fate::end_text;
use super::inbound::Arrival;
use super::{Engine, EngineError, Event, FileOffered, Notice};
use crate::directory::Contact;
use crate::file::{ChunkCipher, FileError, Manifest, Progress, Sink};
use crate::limits;
use crate::mime::Entity;
use crate::outbox::Kind;
use crate::secret::Secret32;
use crate::session::line::Standing;
use crate::session::offer;
use crate::state::{Space, StateError};

/// A file that somebody offered.
#[derive(Clone, Serialize, Deserialize)]
struct FileIn {
    /// The device that offered it.
    from: String,
    name: String,
    media_type: String,
    size: u64,
    chunk: u32,
    root: String,
    key: Secret32,
    /// Where it goes; `None` until it is accepted.
    target: Option<String>,
    /// Whether its sender's signature over root and size has come.
    is_finished: bool,
}

impl FileIn {
    fn shape(&self) -> Result<Shape, StateError> {
        Shape::new(self.size, self.chunk).ok_or(StateError::Damaged(Space::FileIn))
    }
}

/// Files that are open for receiving.
#[derive(Default)]
pub(super) struct Receiving {
    files: BTreeMap<String, Open>,
}

struct Open {
    sink: Sink,
    /// The first chunk not granted.
    window_end: u64,
    /// Whether chunks came that are not noted yet and that the relay will not send again.
    is_dirty: bool,
    /// When something last came, or was last asked for.
    heard_at: u64,
    /// How often chunks were asked for since one came.
    asks: u32,
}

impl Open {
    /// Silence after which chunks are asked for again: twice as long each time, since the sender
    /// may be away, and each question waits for it at the relay.
    fn patience_ms(&self) -> u64 {
        let doublings = self.asks.saturating_sub(1).min(limits::FILE_STALL_DOUBLINGS_MAX);
        (limits::FILE_STALL_MS << doublings).min(limits::FILE_STALL_MS_MAX)
    }
}

impl Engine {
    /// 800 to 806.
    pub(super) fn file_line_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match command.code() {
            Code::FILE_OFFER => self.file_offered(command, arrival, now),
            Code::FILE_ACCEPT => self.accepted(command, now),
            Code::FILE_CHUNK => self.chunk_received(command, arrival, now),
            Code::FILE_WINDOW => {
                self.window_granted(command);
                Ok(())
            }
            Code::FILE_FINISH => self.finish_received(command, arrival, now),
            Code::FILE_CANCEL => self.cancel_received(command, arrival, now),
            _ => self.verdict_received(command, arrival),
        }
    }

    fn file_offered(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(offer) = FileOffer::parse(command) else {
            self.tell(Event::Strange { what: "an offer of a file that is none".into() });
            return Ok(());
        };
        let standing = Standing {
            to: offer.to,
            from: offer.from,
            place: offer.place,
            id: offer.id,
            commitment: offer.commitment,
            body: &offer.body,
            is_receipt: false,
        };
        let Some(opened) = self.open_line(command, &standing, arrival, now)? else {
            return Ok(());
        };
        if self.is_own_account(offer.from.account()) {
            return Ok(());
        }
        let manifest = Entity::from_plaintext(&opened.plaintext)
            .map_err(|_| FileError::Manifest)
            .and_then(|entity| Manifest::from_entity(&entity));
        let Ok(manifest) = manifest else {
            let from = offer.from.to_string();
            self.tell(Event::Unopened { from, what: "an offer of a file that cannot be read" });
            return Ok(());
        };
        let fid = offer.file.as_str();
        if self.state.count(Space::FileIn)? >= limits::FILES_MAX {
            return self.send_cancel(offer.from.as_str(), fid, Some(452), now);
        }
        let contact = offer.from.account().to_buf();
        let row = FileIn {
            from: offer.from.as_str().into(),
            name: manifest.name.clone(),
            media_type: manifest.media_type.clone(),
            size: offer.shape.size_octets(),
            chunk: offer.shape.chunk_octets(),
            root: offer.root.as_str().into(),
            key: manifest.key,
            target: None,
            is_finished: false,
        };
        if self.state.contains(Space::FileIn, fid)? {
            return Ok(());
        }
        self.state.put(Space::FileIn, fid, &row)?;
        let offered = FileOffered {
            fid: fid.into(),
            contact,
            name: manifest.name,
            media_type: manifest.media_type,
            size: row.size,
        };
        self.notify(arrival.queue, Notice::FileOffered(offered))
    }

    /// The files that were offered or are being received.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn files(&self) -> Result<Vec<FileOffered>, EngineError> {
        let mut list = Vec::new();
        for (fid, row) in self.state.list::<FileIn>(Space::FileIn)? {
            list.push(FileOffered {
                fid,
                contact: AddressBuf::parse(&row.from)?.account(),
                name: row.name,
                media_type: row.media_type,
                size: row.size,
            });
        }
        Ok(list)
    }

    /// Accepts a file; it will stand at `target`, which must not exist.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] if there is no such file, [`FileError::Exists`],
    /// [`FileError::Io`].
    pub fn file_accept(
        &mut self,
        fid: &str,
        target: &Path,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        let mut row = row.ok_or(NO_FILE)?;
        if target.try_exists().map_err(FileError::from)? {
            return Err(FileError::Exists.into());
        }
        let target = std::path::absolute(target).map_err(FileError::from)?;
        row.target = Some(target.to_string_lossy().into_owned());
        self.state.put(Space::FileIn, fid, &row)?;
        self.open_receiving(fid, &row, now)?;
        self.ask_chunks(fid, &row, now)
    }

    /// Declines a file.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] if there is no such file.
    pub fn file_decline(&mut self, fid: &str, now: Timestamp) -> Result<(), EngineError> {
        self.decline(fid, now)
    }

    pub(super) fn decline(&mut self, fid: &str, now: Timestamp) -> Result<(), EngineError> {
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        let row = row.ok_or(NO_FILE)?;
        self.send_cancel(&row.from, fid, None, now)?;
        self.forget_receiving(fid)
    }

    fn open_receiving(
        &mut self,
        fid: &str,
        row: &FileIn,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(target) = &row.target else { return Ok(()) };
        let progress: Option<Progress> = self.state.get(Space::Progress, &progress_name(fid))?;
        let id = FileId::parse(fid).ok_or(StateError::Damaged(Space::FileIn))?;
        let shape = row.shape()?;
        let cipher = ChunkCipher::new(&row.key, id, shape)?;
        let sink = Sink::open(Path::new(target), shape, cipher, &progress.unwrap_or_default())?;
        let open = Open { sink, window_end: 0, is_dirty: false, heard_at: now.0, asks: 0 };
        self.receiving.files.insert(fid.into(), open);
        Ok(())
    }

    /// 801: asks for the chunks from the next on.
    fn ask_chunks(&mut self, fid: &str, row: &FileIn, now: Timestamp) -> Result<(), EngineError> {
        let Some(open) = self.receiving.files.get_mut(fid) else { return Ok(()) };
        if open.sink.is_whole() {
            return Ok(());
        }
        let next = open.sink.next();
        open.window_end = next + limits::FILE_WINDOW_CHUNKS;
        open.heard_at = now.0;
        open.asks = open.asks.saturating_add(1);
        let from = AddressBuf::parse(&row.from)?;
        let line = Command::builder(Code::FILE_ACCEPT)
            .to(from.as_address())
            .from(self.identity.device())
            .parameter("FID", fid)
            .parameter("FROM-CHUNK", next)
            .parameter("TO-CHUNK", open.window_end)
            .finish();
        let account = from.account();
        // An older wish for the same file is void.
        let is_same = format!("FID={fid} FROM-CHUNK=");
        self.outbox.remove_if(&mut self.state, |item| item.line.contains(&is_same))?;
        self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), "", line)?;
        self.flush(now)
    }

    fn chunk_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(chunk) = FileChunk::parse(command) else { return Ok(()) };
        let fid = chunk.file.as_str();
        let Some(open) = self.receiving.files.get_mut(fid) else { return Ok(()) };
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        let Some(row) = row.filter(|row| row.from == chunk.from.as_str()) else { return Ok(()) };
        let next = open.sink.next();
        if chunk.number < next {
            return Ok(());
        }
        if chunk.number > next {
            let pause = now.0.abs_diff(open.heard_at);
            return match pause >= limits::FILE_GAP_PAUSE_MS {
                true => self.ask_chunks(fid, &row, now),
                false => Ok(()),
            };
        }
        match open.sink.write(&chunk.body) {
            Ok(()) => {}
            Err(FileError::Io(error)) => return self.fail_receiving(fid, &row, &error.into(), now),
            Err(error) => return self.fail_receiving(fid, &row, &error, now),
        }
        open.heard_at = now.0;
        open.asks = 0;
        open.is_dirty |= arrival.queue.is_some();
        let is_note = (next + 1).is_multiple_of(limits::FILE_PROGRESS_CHUNKS);
        if is_note || open.sink.is_whole() {
            self.note_progress(fid, &row)?;
            self.grant_window(fid, &row, now)?;
        }
        self.finish_if_whole(fid, &row, arrival, now)
    }

    /// Notes how far a file has come, and tells it.
    fn note_progress(&mut self, fid: &str, row: &FileIn) -> Result<(), EngineError> {
        let Some(open) = self.receiving.files.get_mut(fid) else { return Ok(()) };
        let progress = open.sink.flush()?;
        open.is_dirty = false;
        self.state.put(Space::Progress, &progress_name(fid), &progress)?;
        let contact = AddressBuf::parse(&row.from)?.account();
        let of = row.shape()?.chunk_count();
        let done = progress.chunks;
        self.tell(Event::FileProgress { fid: fid.into(), contact, done, of, is_kept: false });
        Ok(())
    }

    /// Notes what came with queue numbers before those are acknowledged.
    pub(super) fn note_dirty_files(&mut self) -> Result<(), EngineError> {
        let files = self.receiving.files.iter();
        let dirty: Vec<String> =
            files.filter(|(_, open)| open.is_dirty).map(|(fid, _)| fid.clone()).collect();
        for fid in dirty {
            let row: Option<FileIn> = self.state.get(Space::FileIn, &fid)?;
            if let Some(row) = row {
                self.note_progress(&fid, &row)?;
            }
        }
        Ok(())
    }

    /// 803: lets the sender go on.
    fn grant_window(&mut self, fid: &str, row: &FileIn, now: Timestamp) -> Result<(), EngineError> {
        let Some(open) = self.receiving.files.get_mut(fid) else { return Ok(()) };
        open.window_end = open.sink.next() + limits::FILE_WINDOW_CHUNKS;
        let from = AddressBuf::parse(&row.from)?;
        let line = Command::builder(Code::FILE_WINDOW)
            .to(from.as_address())
            .from(self.identity.device())
            .parameter("FID", fid)
            .parameter("TO-CHUNK", open.window_end);
        if self.is_online() {
            self.send_line(&line.finish(), now);
        }
        Ok(())
    }

    /// 804: the sender's signature over root and size.
    fn finish_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(finish) = FileFinish::parse(command) else { return Ok(()) };
        let fid = finish.file.as_str();
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        if row.is_none() && self.park_behind_offer(command, arrival, now)? {
            return Ok(());
        }
        let Some(mut row) = row.filter(|row| row.from == finish.from.as_str()) else {
            return Ok(());
        };
        let contact = Contact::load(&self.state, finish.from.account())?;
        let record = contact.as_ref().map(Contact::record).transpose()?;
        let holds = record.is_some_and(|record| record.verify_device_line(command).is_ok())
            && finish.root.as_str() == row.root
            && finish.size_octets == row.size;
        if !holds {
            let from = finish.from.to_string();
            let what = "a signature over a file that does not hold";
            self.tell(Event::Tampering { from, what });
            return match row.target {
                Some(_) => self.fail_receiving(fid, &row, &FileError::Root, now),
                None => Ok(()),
            };
        }
        row.is_finished = true;
        self.state.put(Space::FileIn, fid, &row)?;
        self.finish_if_whole(fid, &row, arrival, now)?;
        match self.state.contains(Space::FileIn, fid)? {
            // Chunks are missing that were sent: they are asked for.
            true => self.ask_chunks(fid, &row, now),
            false => Ok(()),
        }
    }

    fn finish_if_whole(
        &mut self,
        fid: &str,
        row: &FileIn,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let is_whole = self.receiving.files.get(fid).is_some_and(|open| open.sink.is_whole());
        if !is_whole || !row.is_finished {
            return Ok(());
        }
        let Some(open) = self.receiving.files.remove(fid) else { return Ok(()) };
        if let Err(error) = open.sink.finish(&row.root) {
            return self.fail_receiving(fid, row, &error, now);
        }
        self.send_verdict(fid, row, 250, now)?;
        self.forget_receiving(fid)?;
        let contact = AddressBuf::parse(&row.from)?.account();
        let notice = Notice::FileDone { fid: fid.into(), contact, is_received: true };
        self.notify(arrival.queue, notice)
    }

    /// A file is not taken: says so to both sides.
    fn fail_receiving(
        &mut self,
        fid: &str,
        row: &FileIn,
        error: &FileError,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let code = match error {
            FileError::Chunk | FileError::Root | FileError::Manifest => 553,
            FileError::TooLarge => 552,
            _ => 451,
        };
        self.send_verdict(fid, row, code, now)?;
        self.forget_receiving(fid)?;
        let contact = AddressBuf::parse(&row.from)?.account();
        let text = error.to_string();
        self.notify(None, Notice::FileFailed { fid: fid.into(), contact, code, text })
    }

    /// 806.
    fn send_verdict(
        &mut self,
        fid: &str,
        row: &FileIn,
        code: u16,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let to = AddressBuf::parse(&row.from)?;
        let mid = offer::new_mid(&mut self.state)?;
        let line = Command::builder(Code::FILE_VERDICT)
            .to(to.as_address())
            .from(self.identity.device())
            .parameter("FID", fid)
            .parameter("CODE", code)
            .parameter("TS", now)
            .parameter("MID", &mid);
        let line = self.identity.sign(line, &[])?;
        let account = to.account();
        self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), &mid, line)?;
        self.flush(now)
    }

    fn cancel_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(cancel) = FileCancel::parse(command) else { return Ok(()) };
        if self.sending_cancelled(&cancel, arrival)? {
            return Ok(());
        }
        let fid = cancel.file.as_str();
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        let Some(row) = row else {
            return self.park_behind_offer(command, arrival, now).map(|_| ());
        };
        let is_theirs = Address::parse(&row.from)?.account() == cancel.from.account()
            || cancel.from == self.identity.domain().as_address();
        if !is_theirs {
            return Ok(());
        }
        self.forget_receiving(fid)?;
        let contact = AddressBuf::parse(&row.from)?.account();
        let code = cancel.code.map_or(0, Code::number);
        let text = end_text(&cancel, "its sender gave it up").into();
        let notice = Notice::FileFailed { fid: fid.into(), contact, code, text };
        self.notify(arrival.queue, notice)
    }

    /// Forgets a file. Its partial file is removed once that is durable.
    fn forget_receiving(&mut self, fid: &str) -> Result<(), EngineError> {
        self.receiving.files.remove(fid);
        self.has_remains = true;
        let row: Option<FileIn> = self.state.get(Space::FileIn, fid)?;
        if let Some(target) = row.and_then(|row| row.target) {
            self.state.put(Space::Progress, &remains_name(fid), &target)?;
        }
        self.state.remove(Space::Progress, &progress_name(fid))?;
        self.state.remove(Space::FileIn, fid)?;
        Ok(())
    }

    /// Removes the partial files of what is finished or given up; their rows go with the next
    /// commit.
    pub(super) fn remove_remains(&mut self) -> Result<(), EngineError> {
        for (name, target) in self.state.list_prefix::<String>(Space::Progress, REMAINS)? {
            Sink::discard(&PathBuf::from(target));
            self.state.remove(Space::Progress, &name)?;
        }
        Ok(())
    }

    /// Opens the files that were being received when the program ended.
    pub(super) fn resume_receiving(&mut self) -> Result<(), EngineError> {
        self.remove_remains()?;
        for (fid, row) in self.state.list::<FileIn>(Space::FileIn)? {
            match self.open_receiving(&fid, &row, Timestamp(0)) {
                Err(EngineError::File(error)) => {
                    self.fail_receiving(&fid, &row, &error, Timestamp(0))?;
                }
                opened => opened?,
            }
        }
        Ok(())
    }

    /// The link is up, or nothing has come for a while: asks for what is missing.
    pub(super) fn ask_missing_chunks(
        &mut self,
        is_new_link: bool,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let stalled =
            |open: &Open| is_new_link || now.0.abs_diff(open.heard_at) >= open.patience_ms();
        let files = self.receiving.files.iter().filter(|(_, open)| stalled(open));
        let fids: Vec<String> = files.map(|(fid, _)| fid.clone()).collect();
        for fid in fids {
            let row: Option<FileIn> = self.state.get(Space::FileIn, &fid)?;
            if let Some(row) = row {
                self.ask_chunks(&fid, &row, now)?;
            }
        }
        Ok(())
    }
}

const NO_FILE: EngineError = EngineError::Misuse("there is no such file");
const REMAINS: &str = "remains ";

fn progress_name(fid: &str) -> String {
    format!("in {fid}")
}

fn remains_name(fid: &str) -> String {
    format!("{REMAINS}{fid}")
}
