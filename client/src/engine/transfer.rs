//! Files on their way out: offered, sent chunk by chunk behind chat, and finished by a signature.
//!
//! Owns the rows of [`Space::FileOut`] and [`Space::Leaf`], and the lane that chunks leave by. The
//! invariants: a chunk leaves only when the driver asks for one ([`Engine::next_chunk`]), and while
//! a line waits for the relay's answer to the one before only one does, so that at most one is
//! between two chat lines; a sealed chunk is compared with its leaf before it leaves;
//! what the relay put off is sent again from there. A file goes to a device that asked for it, or
//! to an account whose relay keeps it; it is called kept only when the relay has answered 250 to
//! every chunk and has taken the signature over the whole (SPEC.md §9). Limits:
//! [`limits::CHUNKS_IN_FLIGHT_MAX`], [`limits::FILES_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protocol::file::{FileAccept, FileWindow, Shape};
use protocol::identifier::FileId;
use protocol::merkle::leaf;
use protocol::reply::Answer;
use protocol::{Address, AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::compose::Draft;
use super::link::Request;
use super::{Engine, EngineError, Event, FileStage, Notice};
use crate::directory;
use crate::file::{ChunkCipher, FileError, LEAVES_PER_PAGE, Manifest, Prepared, Source};
use crate::limits;
use crate::mime::Entity;
use crate::outbox::Kind;
use crate::secret::Secret32;
use crate::session::offer;
use crate::state::{Space, StateError};

/// A file that is being sent.
#[derive(Serialize, Deserialize)]
pub(super) struct FileOut {
    pub(super) contact: String,
    path: String,
    pub(super) name: String,
    media_type: String,
    pub(super) size: u64,
    chunk: u32,
    root: String,
    key: Secret32,
    /// MID of the 800.
    #[serde(default)]
    pub(super) mid: String,
}

impl FileOut {
    pub(super) fn shape(&self) -> Result<Shape, StateError> {
        Shape::new(self.size, self.chunk).ok_or(StateError::Damaged(Space::FileOut))
    }
}

/// How far a file has been sent.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Where chunks go: a device, or an account whose relay keeps them. Empty until accepted.
    pub(super) to: String,
    /// Chunks below this one are with the relay.
    pub(super) acked: u64,
    /// The first chunk that may not be sent yet.
    window_end: Option<u64>,
    /// Whether 804 was sent.
    is_finished: bool,
    /// Whether the relay has all of it, and the 804.
    #[serde(default)]
    is_kept: bool,
}

impl Sent {
    /// Whether chunks go to the relay, which keeps them.
    fn is_for_relay(&self) -> bool {
        Address::parse(&self.to).is_ok_and(Address::is_account)
    }

    pub(super) const fn stage(&self) -> FileStage {
        match (self.to.is_empty(), self.is_kept) {
            (true, _) => FileStage::Offered,
            (false, true) => FileStage::Kept,
            (false, false) => FileStage::Going,
        }
    }
}

/// Parameters of an 800 beside those of every sealed line.
pub(super) type Extra = Vec<(&'static str, String)>;

/// The lane that chunks leave by.
#[derive(Default)]
pub(super) struct Lane {
    sending: BTreeMap<String, Sending>,
    /// The file whose turn it was last.
    last: String,
    /// Whether a chunk left since the last line of the outbox did.
    has_left: bool,
}

/// A file that is open for sending.
struct Sending {
    source: Source,
    cipher: ChunkCipher,
    shape: Shape,
    state: Sent,
    next: u64,
    outstanding: BTreeSet<u64>,
    /// Leaf hashes of one page.
    page: Option<(u64, Vec<u8>)>,
    /// When the relay takes chunks of it again, in milliseconds since 1970.
    paused_until: u64,
    /// Whether its user was told that the relay puts it off.
    is_pause_told: bool,
}

impl Sending {
    fn has_chunk(&self, now: Timestamp) -> bool {
        let end = self.state.window_end.unwrap_or(u64::MAX).min(self.shape.chunk_count());
        !self.state.to.is_empty() && self.next < end && !self.is_paused(now)
    }

    /// A pause that is longer than any there is was begun by a clock that stood ahead.
    fn is_paused(&self, now: Timestamp) -> bool {
        now.0 < self.paused_until && self.paused_until - now.0 <= limits::RETRY_MS_MAX
    }

    /// Goes back to `first`, whose chunk has to be sent again.
    fn rewind(&mut self, first: u64) {
        self.next = self.next.min(first);
        self.state.acked = self.state.acked.min(first);
        self.outstanding.retain(|other| *other < first);
    }
}

impl Lane {
    /// A line of the outbox left.
    pub(super) const fn line_left(&mut self) {
        self.has_left = false;
    }

    /// How many chunks of a file the relay has, if the file is being sent.
    pub(super) fn acked(&self, fid: &str) -> Option<u64> {
        self.sending.get(fid).map(|sending| sending.state.acked)
    }

    /// A file is not sent any more; gives where it went.
    pub(super) fn stop(&mut self, fid: &str) -> Option<String> {
        self.sending.remove(fid).map(|sending| sending.state.to)
    }

    pub(super) fn disconnected(&mut self) {
        self.has_left = false;
        for sending in self.sending.values_mut() {
            sending.paused_until = 0;
            sending.outstanding.clear();
            sending.next = sending.state.acked;
        }
    }

    fn in_flight(&self) -> usize {
        self.sending.values().map(|sending| sending.outstanding.len()).sum()
    }

    /// The next file in turn that has a chunk to send.
    fn turn(&self, now: Timestamp) -> Option<String> {
        let ready =
            |(fid, sending): (&String, &Sending)| sending.has_chunk(now).then(|| fid.clone());
        let after = (std::ops::Bound::Excluded(self.last.clone()), std::ops::Bound::Unbounded);
        self.sending.range(after).find_map(ready).or_else(|| self.sending.iter().find_map(ready))
    }
}

impl Engine {
    /// The size of chunks that fit this link; for [`crate::file::prepare`].
    #[must_use]
    pub fn chunk_octets(&self) -> u32 {
        protocol::file::chunk_octets_for_line(self.sendable_octets_max())
            .unwrap_or(protocol::limits::CHUNK_OCTETS_MIN)
    }

    /// Offers a prepared file to a contact. Returns its FID; [`Event::FileProgress`],
    /// [`Notice::FileDone`] and [`Notice::FileFailed`] tell its fate.
    ///
    /// # Errors
    /// [`EngineError::Full`], [`FileError::TooLarge`] beyond the domain's policy.
    pub fn file_offer(
        &mut self,
        contact: Address<'_>,
        prepared: &Prepared,
        now: Timestamp,
    ) -> Result<String, EngineError> {
        self.check_room(contact, 1)?;
        if self.state.count(Space::FileOut)? >= limits::FILES_MAX {
            return Err(EngineError::Full);
        }
        let domain = self.identity.domain();
        let policy = directory::held_policy(&self.state, domain.as_address())?;
        if policy.is_some_and(|policy| prepared.size() > policy.file_octets_max) {
            return Err(FileError::TooLarge.into());
        }
        let fid = prepared.fid.as_str().to_owned();
        let row = FileOut {
            contact: contact.as_str().into(),
            path: prepared.path.to_string_lossy().into_owned(),
            name: prepared.name.clone(),
            media_type: prepared.media_type.clone(),
            size: prepared.size(),
            chunk: prepared.shape.chunk_octets(),
            root: prepared.root.clone(),
            key: prepared.key.clone(),
            mid: offer::new_mid(&mut self.state)?,
        };
        self.state.put(Space::FileOut, &fid, &row)?;
        for (page, leaves) in (0u64..).zip(prepared.leaves.chunks(LEAVES_PER_PAGE * 32)) {
            let leaves = protocol::base64::encode(leaves);
            self.state.put(Space::Leaf, &leaf_name(&fid, page), &leaves)?;
        }
        self.keep_sent(&fid, &Sent::default())?;
        let draft = Draft {
            contact: contact.as_str().into(),
            mid: row.mid,
            code: Code::FILE_OFFER.number(),
            about: None,
            part: None,
            first: None,
            text: String::new(),
            fid: Some(fid.clone()),
        };
        self.add_draft(&draft, now)?;
        self.pump_all(now)?;
        Ok(fid)
    }

    /// Plaintext and parameters of the 800 that offers a file.
    pub(super) fn manifest(&self, fid: &str) -> Result<(Entity, Extra), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let row = row.ok_or(EngineError::Misuse("the file is not offered any more"))?;
        let extra = vec![
            ("FID", fid.to_owned()),
            ("SIZE", row.size.to_string()),
            ("CHUNK", row.chunk.to_string()),
            ("ROOT", row.root),
        ];
        let manifest = Manifest { name: row.name, media_type: row.media_type, key: row.key };
        Ok((manifest.to_entity(), extra))
    }

    /// One chunk of a file, as a line to be put on the link at once; `None` if none waits. Call
    /// it only when nothing else is left to be written.
    ///
    /// # Errors
    /// [`EngineError::State`]. A file that changed or cannot be read is given up by a notice.
    pub fn next_chunk(&mut self, now: Timestamp) -> Result<Option<Vec<u8>>, EngineError> {
        if !self.is_online() || !self.output.is_empty() {
            return Ok(None);
        }
        let is_full = self.chunks.in_flight() >= limits::CHUNKS_IN_FLIGHT_MAX;
        if is_full || (self.chunks.has_left && self.is_line_waiting()) {
            return Ok(None);
        }
        let Some(fid) = self.chunks.turn(now) else { return Ok(None) };
        self.chunks.last.clone_from(&fid);
        match self.sealed_chunk(&fid) {
            Ok((number, to, chunk)) => {
                let request = Request::Chunk(fid.clone(), number);
                let Some(hop_id) = self.expect(request, now) else { return Ok(None) };
                let line = Command::builder(Code::FILE_CHUNK)
                    .to(to.as_address())
                    .from(self.identity.device())
                    .parameter("FID", &fid)
                    .parameter("N", number)
                    .parameter("H-ID", hop_id)
                    .body(&chunk);
                let mut octets = line.into_bytes();
                octets.extend_from_slice(b"\r\n");
                self.chunks.has_left = true;
                Ok(Some(octets))
            }
            Err(EngineError::File(error)) => {
                self.give_up(&fid, 451, &error.to_string(), now)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a line or a text goes out as soon as the relay has answered the line before it.
    fn is_line_waiting(&self) -> bool {
        let mut under_way = self.outbox.under_way();
        under_way.any(|(account, has_other)| has_other || self.drafts.first(account).is_some())
    }

    /// Reads, seals and checks the next chunk of a file; it counts as under way from here on.
    fn sealed_chunk(&mut self, fid: &str) -> Result<(u64, AddressBuf, Vec<u8>), EngineError> {
        let gone = EngineError::Misuse("the file is not being sent");
        let Some(sending) = self.chunks.sending.get_mut(fid) else { return Err(gone) };
        let number = sending.next;
        let page = number / LEAVES_PER_PAGE as u64;
        if sending.page.as_ref().is_none_or(|(held, _)| *held != page) {
            let text: Option<String> = self.state.get(Space::Leaf, &leaf_name(fid, page))?;
            let leaves = text.and_then(|text| protocol::base64::decode(&text).ok());
            sending.page = Some((page, leaves.ok_or(StateError::Damaged(Space::Leaf))?));
        }
        let mut chunk = sending.source.read(number)?;
        sending.cipher.seal(number, &mut chunk)?;
        let place = (number % LEAVES_PER_PAGE as u64) as usize * 32;
        let announced = sending.page.as_ref().and_then(|(_, l)| l.get(place..place + 32));
        if announced != Some(leaf(&chunk).as_slice()) {
            return Err(FileError::Changed.into());
        }
        sending.next += 1;
        sending.outstanding.insert(number);
        Ok((number, AddressBuf::parse(&sending.state.to)?, chunk))
    }

    pub(super) fn chunk_answered(
        &mut self,
        fid: &str,
        number: u64,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(sending) = self.chunks.sending.get_mut(fid) else { return Ok(()) };
        if !sending.outstanding.remove(&number) {
            return Ok(());
        }
        let code = answer.code.number();
        if matches!(code, 421 | 450..=453) {
            sending.rewind(first_missing(answer).unwrap_or(number).min(number));
            return self.chunk_put_off(fid, answer, now);
        }
        if code >= 400 {
            let text = answer.text.clone();
            return self.give_up(fid, code, &text, now);
        }
        if code != 250 && sending.state.is_for_relay() {
            // Passed on, or nothing told: whatever it is, it is not kept.
            return self.kept_no_longer(fid, &answer.text);
        }
        sending.is_pause_told = false;
        let acked = sending.outstanding.first().copied().unwrap_or(sending.next);
        self.acked(fid, acked, now)
    }

    /// The relay takes no chunk of a file now: the file waits, and its user learns of longer waits.
    fn chunk_put_off(
        &mut self,
        fid: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(sending) = self.chunks.sending.get_mut(fid) else { return Ok(()) };
        let seconds = number_in(answer, "RETRY").unwrap_or(1);
        let pause = seconds.saturating_mul(1_000).clamp(100, limits::RETRY_MS_MAX);
        sending.paused_until = now.plus_ms(pause).0;
        let code = answer.code.number();
        let is_long = pause >= limits::FILE_PAUSE_TOLD_MS || code == 452;
        if !is_long || std::mem::replace(&mut sending.is_pause_told, true) {
            return Ok(());
        }
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let contact = AddressBuf::parse(&row.contact)?;
        self.tell(Event::PutOff { contact, code, text: answer.text.clone() });
        Ok(())
    }

    /// The relay does not keep a file that it kept, or never did: it waits for the other side.
    fn kept_no_longer(&mut self, fid: &str, text: &str) -> Result<(), EngineError> {
        self.chunks.sending.remove(fid);
        self.keep_sent(fid, &Sent::default())?;
        self.file_waits(fid, text)
    }

    fn file_waits(&mut self, fid: &str, text: &str) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        if let Some(row) = row {
            let contact = AddressBuf::parse(&row.contact)?;
            self.tell(Event::FileWaits { fid: fid.into(), contact, text: text.into() });
        }
        Ok(())
    }

    /// Chunks below `acked` are with the relay.
    fn acked(&mut self, fid: &str, acked: u64, now: Timestamp) -> Result<(), EngineError> {
        let Some(sending) = self.chunks.sending.get_mut(fid) else { return Ok(()) };
        let before = sending.state.acked;
        sending.state.acked = acked;
        let count = sending.shape.chunk_count();
        let is_whole = acked == count;
        let is_note = acked / limits::FILE_PROGRESS_CHUNKS != before / limits::FILE_PROGRESS_CHUNKS;
        if !is_note && !is_whole {
            return Ok(());
        }
        let state = sending.state.clone();
        self.keep_sent(fid, &state)?;
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let contact = AddressBuf::parse(&row.contact)?;
        let is_kept = state.is_for_relay();
        self.tell(Event::FileProgress {
            fid: fid.into(),
            contact,
            done: acked,
            of: count,
            is_kept,
        });
        if is_whole && !state.is_finished {
            self.finish_sending(fid, &row, state, now)?;
        }
        Ok(())
    }

    /// 804: signs root and size.
    fn finish_sending(
        &mut self,
        fid: &str,
        row: &FileOut,
        mut state: Sent,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let to = AddressBuf::parse(&state.to)?;
        let mid = offer::new_mid(&mut self.state)?;
        let line = Command::builder(Code::FILE_FINISH)
            .to(to.as_address())
            .from(self.identity.device())
            .parameter("FID", fid)
            .parameter("ROOT", &row.root)
            .parameter("SIZE", row.size)
            .parameter("TS", now)
            .parameter("MID", &mid);
        let line = self.identity.sign(line, &[])?;
        let kind = Kind::File { fid: fid.into() };
        self.outbox.push(&mut self.state, kind, &row.contact, &mid, line)?;
        state.is_finished = true;
        self.keep_sent(fid, &state)?;
        // Who wants chunks again asks for them.
        self.chunks.sending.remove(fid);
        self.flush(now)
    }

    /// The relay took an 800; with 354 it keeps the chunks for an absent recipient.
    pub(super) fn offer_taken(
        &mut self,
        fid: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        if !self.sent(fid)?.to.is_empty() {
            // The other side was faster than this answer.
            return Ok(());
        }
        if answer.code.number() != 354 {
            return self.file_waits(fid, &answer.text);
        }
        self.send_from(fid, &row.contact, 0, number_in(answer, "TO-CHUNK"), now)
    }

    /// The relay took an 804: if it has the chunks, this device is not needed any more.
    pub(super) fn finish_taken(&mut self, fid: &str) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let mut state = self.sent(fid)?;
        if !state.is_for_relay() || !state.is_finished || state.is_kept {
            return Ok(());
        }
        state.is_kept = true;
        self.keep_sent(fid, &state)?;
        let contact = AddressBuf::parse(&row.contact)?;
        self.notify(None, Notice::FileKept { fid: fid.into(), contact })
    }

    /// The relay puts an 804 off because chunks are missing: they are sent again, then another
    /// 804; `false` if that is not why.
    pub(super) fn finish_put_off(
        &mut self,
        fid: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let state = self.sent(fid)?;
        let Some(first) = first_missing(answer).filter(|_| state.is_for_relay()) else {
            return Ok(false);
        };
        self.send_from(fid, &state.to, first, state.window_end, now)?;
        Ok(true)
    }

    pub(super) fn accepted(
        &mut self,
        command: &Command<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(accept) = FileAccept::parse(command) else { return Ok(()) };
        let fid = accept.file.as_str();
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        if row.is_none_or(|row| row.contact != accept.from.account().as_str()) {
            return Ok(());
        }
        self.send_from(fid, accept.from.as_str(), accept.first_chunk, accept.window_end, now)
    }

    /// Sends chunks from `first` on to a device or account.
    fn send_from(
        &mut self,
        fid: &str,
        to: &str,
        first: u64,
        window_end: Option<u64>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let to = to.to_owned();
        let state = Sent { to, acked: first, window_end, is_finished: false, is_kept: false };
        self.keep_sent(fid, &state)?;
        if let Err(error) = self.open_sending(fid, state) {
            return match error {
                EngineError::File(error) => self.give_up(fid, 451, &error.to_string(), now),
                error => Err(error),
            };
        }
        let count = self.chunks.sending.get(fid).map_or(0, |s| s.shape.chunk_count());
        if first >= count { self.acked(fid, count, now) } else { Ok(()) }
    }

    fn open_sending(&mut self, fid: &str, state: Sent) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let shape = row.shape()?;
        let id = FileId::parse(fid).ok_or(StateError::Damaged(Space::FileOut))?;
        let source = Source::open(Path::new(&row.path), shape)?;
        let cipher = ChunkCipher::new(&row.key, id, shape)?;
        let next = state.acked;
        let outstanding = BTreeSet::new();
        let sending = Sending {
            source,
            cipher,
            shape,
            state,
            next,
            outstanding,
            page: None,
            paused_until: 0,
            is_pause_told: false,
        };
        self.chunks.sending.insert(fid.into(), sending);
        Ok(())
    }

    pub(super) fn window_granted(&mut self, command: &Command<'_>) {
        let Ok(window) = FileWindow::parse(command) else { return };
        if let Some(sending) = self.chunks.sending.get_mut(window.file.as_str()) {
            let is_theirs = Address::parse(&sending.state.to)
                .is_ok_and(|to| to.account() == window.from.account());
            if is_theirs {
                let end = sending.state.window_end.unwrap_or(0).max(window.window_end);
                sending.state.window_end = Some(end);
            }
        }
    }

    pub(super) fn sent(&self, fid: &str) -> Result<Sent, EngineError> {
        Ok(self.state.get(Space::Progress, &sent_name(fid))?.unwrap_or_default())
    }

    fn keep_sent(&mut self, fid: &str, state: &Sent) -> Result<(), EngineError> {
        Ok(self.state.put(Space::Progress, &sent_name(fid), state)?)
    }

    /// Opens the files that were being sent and received when the program ended.
    pub(super) fn resume_files(&mut self) -> Result<(), EngineError> {
        for (fid, _) in self.state.list::<FileOut>(Space::FileOut)? {
            let sent = self.sent(&fid)?;
            // What was sent whole is opened again only if somebody asks for it.
            if sent.to.is_empty() || sent.is_finished {
                continue;
            }
            match self.open_sending(&fid, sent) {
                Err(EngineError::File(error)) => {
                    self.file_refused(&fid, 451, &error.to_string())?;
                }
                opened => opened?,
            }
        }
        self.resume_receiving()
    }
}

/// The first chunk that the relay misses, if an answer says so.
fn first_missing(answer: &Answer) -> Option<u64> {
    number_in(answer, "FROM-CHUNK")
}

fn number_in(answer: &Answer, name: &str) -> Option<u64> {
    answer.first().and_then(|entry| entry.get(name)).and_then(protocol::parameter::number)
}

pub(super) fn leaf_name(fid: &str, page: u64) -> String {
    format!("{fid} {page}")
}

pub(super) fn sent_name(fid: &str) -> String {
    format!("out {fid}")
}
