//! What becomes of files that this device offered: verdicts, cancels, bounces, refusals.
//!
//! A file whose fate is told is forgotten in the same commit, so it is told once. Until then it is
//! listed with how far it came ([`Engine::files_sent`]). SPEC.md §9.

use protocol::file::{FileCancel, FileVerdict, Shape};
use protocol::{AddressBuf, Code, Command, Timestamp};

use super::inbound::Arrival;
use super::transfer::{FileOut, leaf_name, sent_name};
use super::{Engine, EngineError, Event, FileSent, Notice};
use crate::directory::Contact;
use crate::file::LEAVES_PER_PAGE;
use crate::outbox::Kind;
use crate::state::Space;

impl Engine {
    /// 806: the receiver's verdict.
    pub(super) fn verdict_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
    ) -> Result<(), EngineError> {
        let Ok(verdict) = FileVerdict::parse(command) else { return Ok(()) };
        let fid = verdict.file.as_str();
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row.filter(|row| row.contact == verdict.from.account().as_str()) else {
            return Ok(());
        };
        let contact = AddressBuf::parse(&row.contact)?;
        let record = Contact::load(&self.state, contact.as_address())?;
        let record = record.as_ref().map(Contact::record).transpose()?;
        if record.is_none_or(|record| record.verify_device_line(command).is_err()) {
            let from = verdict.from.to_string();
            self.tell(Event::Tampering { from, what: "a verdict whose signature does not hold" });
            return Ok(());
        }
        self.forget_sending(fid)?;
        let code = verdict.code.number();
        let fid = fid.to_owned();
        let notice = match code {
            250 => Notice::FileDone { fid, contact, is_received: false },
            _ => {
                let text = "the other side found it broken".into();
                Notice::FileFailed { fid, contact, code, text }
            }
        };
        self.notify(arrival.queue, notice)
    }

    /// 805 for a file that is being sent; `false` if it is none.
    pub(super) fn sending_cancelled(
        &mut self,
        cancel: &FileCancel<'_>,
        arrival: Arrival,
    ) -> Result<bool, EngineError> {
        let fid = cancel.file.as_str();
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(false) };
        let contact = AddressBuf::parse(&row.contact)?;
        let is_theirs = cancel.from.account() == contact.as_address()
            || cancel.from == self.identity.domain().as_address();
        if is_theirs {
            self.forget_sending(fid)?;
            let code = cancel.code.map_or(0, Code::number);
            let text = end_text(cancel, "the other side does not want it").into();
            let notice = Notice::FileFailed { fid: fid.into(), contact, code, text };
            self.notify(arrival.queue, notice)?;
        }
        Ok(true)
    }

    /// 190 for the 800 of a file: nobody fetched it; `false` if this MID is of no file.
    pub(super) fn offer_bounced(
        &mut self,
        mid: &str,
        code: u16,
        arrival: Arrival,
    ) -> Result<bool, EngineError> {
        let rows = self.state.list::<FileOut>(Space::FileOut)?;
        let Some((fid, row)) = rows.into_iter().find(|(_, row)| row.mid == mid) else {
            return Ok(false);
        };
        let contact = AddressBuf::parse(&row.contact)?;
        self.forget_sending(&fid)?;
        let text = "nobody took it in time".into();
        self.notify(arrival.queue, Notice::FileFailed { fid, contact, code, text })?;
        Ok(true)
    }

    /// The files that this device offered and whose fate is open.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn files_sent(&self) -> Result<Vec<FileSent>, EngineError> {
        let mut list = Vec::new();
        for (fid, row) in self.state.list::<FileOut>(Space::FileOut)? {
            let state = self.sent(&fid)?;
            let live = self.chunks.acked(&fid);
            list.push(FileSent {
                contact: AddressBuf::parse(&row.contact)?,
                size: row.size,
                done: live.unwrap_or(state.acked),
                of: row.shape()?.chunk_count(),
                stage: state.stage(),
                name: row.name,
                fid,
            });
        }
        Ok(list)
    }

    /// The relay refused an 800 or 804.
    pub(super) fn file_refused(
        &mut self,
        fid: &str,
        code: u16,
        text: &str,
    ) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let contact = AddressBuf::parse(&row.contact)?;
        self.forget_sending(fid)?;
        let notice = Notice::FileFailed { fid: fid.into(), contact, code, text: text.into() };
        self.notify(None, notice)
    }

    /// Gives a file up and tells both sides.
    pub(super) fn give_up(
        &mut self,
        fid: &str,
        code: u16,
        text: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let to = self.chunks.stop(fid);
        if let Some(to) = to.filter(|to| !to.is_empty()) {
            self.send_cancel(&to, fid, Some(code), now)?;
        }
        self.file_refused(fid, code, text)
    }

    /// Nobody can open the offer of a file.
    pub(super) fn offer_lost(&mut self, fid: &str, now: Timestamp) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return Ok(()) };
        let sent = self.sent(fid)?;
        let to = if sent.to.is_empty() { row.contact } else { sent.to };
        self.send_cancel(&to, fid, Some(456), now)?;
        self.file_refused(fid, 456, "they could not open the offer: send the file again")
    }

    /// Takes back a file that is being sent or received.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] if there is no such file.
    pub fn file_cancel(&mut self, fid: &str, now: Timestamp) -> Result<(), EngineError> {
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let Some(row) = row else { return self.decline(fid, now) };
        let sent = self.sent(fid)?;
        let to = if sent.to.is_empty() { row.contact } else { sent.to };
        self.send_cancel(&to, fid, None, now)?;
        self.forget_sending(fid)
    }

    pub(super) fn send_cancel(
        &mut self,
        to: &str,
        fid: &str,
        code: Option<u16>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let to = AddressBuf::parse(to)?;
        let line = Command::builder(Code::FILE_CANCEL)
            .to(to.as_address())
            .from(self.identity.device())
            .parameter("FID", fid)
            .parameter_if("CODE", code)
            .finish();
        let account = to.account();
        self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), "", line)?;
        self.flush(now)
    }

    fn forget_sending(&mut self, fid: &str) -> Result<(), EngineError> {
        self.chunks.stop(fid);
        let row: Option<FileOut> = self.state.get(Space::FileOut, fid)?;
        let count = row.and_then(|row| row.shape().ok()).map_or(0, Shape::chunk_count);
        for page in 0..count.div_ceil(LEAVES_PER_PAGE as u64) {
            self.state.remove(Space::Leaf, &leaf_name(fid, page))?;
        }
        self.state.remove(Space::Progress, &sent_name(fid))?;
        self.state.remove(Space::FileOut, fid)?;
        Ok(())
    }
}

/// Why a file ends: what the relay says of one that it kept, or else `text`.
pub(super) fn end_text(cancel: &FileCancel<'_>, text: &'static str) -> &'static str {
    match cancel.code.map(Code::number) {
        Some(558) if cancel.from.is_domain() => "nobody took it in time",
        _ if cancel.from.is_domain() => "the relay that kept it lost it",
        _ => text,
    }
}
