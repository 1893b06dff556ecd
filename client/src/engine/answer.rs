//! The relay's answers to lines of the outbox: done, later, choose, never.
//!
//! Owns what each reply code means for a line (SPEC.md §3, §8). The invariants: a line leaves the
//! outbox only by an answer; 4xx sends the same octets again later; after 350 nothing is sent on
//! without the user's choice; a refused offer never leads to another suite or to plain sending.

use protocol::message::{Alternative, Via};
use protocol::parameter::{WireValue as _, list, number};
use protocol::reply::Answer;
use protocol::{AddressBuf, Code, Command, Timestamp};

use super::link::Request;
use super::{Engine, EngineError, Event, Status};
use crate::outbox::{Item, Kind};
use crate::session::{Generation, OfferState, Session};

impl Engine {
    /// The user's choice after [`Event::Busy`]: HOLD or URGENT, or with `None` to take the
    /// message back.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] if no choice was asked for this message.
    pub fn answer_busy(
        &mut self,
        mid: &str,
        via: Option<Via>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let newest = self.known_message(mid)?.and_then(|known| known.replaced_by);
        let mid = newest.as_deref().unwrap_or(mid);
        let belongs = |item: &Item| {
            item.mid == mid || matches!(&item.kind, Kind::Part { first } if first == mid)
        };
        let asked = self.outbox.numbers(|item| item.is_asked && belongs(item));
        if asked.is_empty() {
            return Err(EngineError::Misuse("no choice was asked for this message"));
        }
        let Some(via) = via else {
            self.outbox.remove_if(&mut self.state, belongs)?;
            return self.raise_status(mid, Status::Failed);
        };
        // Parts that are still to be asked about follow the first.
        for number in self.outbox.numbers(belongs) {
            self.outbox.update(&mut self.state, number, |item| {
                item.choice = Some(via.to_string());
                item.is_chosen = std::mem::take(&mut item.is_asked);
                item.retry_at = 0;
            })?;
        }
        self.flush(now)
    }

    /// Puts the line of a choice made after 350 on the link.
    pub(super) fn send_choice(
        &mut self,
        number: u64,
        via: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(item) = self.outbox.get(number) else { return Ok(()) };
        let account = AddressBuf::parse(&item.account)?;
        let line = Command::builder(Code::CHOICE)
            .to(account.as_address())
            .from(self.identity.device())
            .parameter("RE", &item.mid)
            .parameter("VIA", via);
        self.request(Request::Choice(number), line, now);
        Ok(())
    }

    pub(super) fn choice_answered(
        &mut self,
        number: u64,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(item) = self.outbox.get(number).cloned() else { return Ok(()) };
        let code = answer.code.number();
        match code {
            // The relay no longer holds the line: it is sent again, and the choice behind it.
            503 => {
                self.outbox.update(&mut self.state, number, |item| item.is_chosen = false)?;
            }
            // This way is refused; the user may take another.
            504 | 521 | 550 => {
                let contact = Some(AddressBuf::parse(&item.account)?);
                let text = answer.text.clone();
                self.tell(Event::Refused { what: "choice", contact, code, text });
                self.ask_choice(number, &item, answer)?;
            }
            350 => self.ask_choice(number, &item, answer)?,
            _ => self.line_answered(number, answer, now)?,
        }
        Ok(())
    }

    pub(super) fn line_answered(
        &mut self,
        number: u64,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(item) = self.outbox.get(number).cloned() else { return Ok(()) };
        let code = answer.code.number();
        match code {
            350 if item.choice.is_some() => {
                self.outbox.update(&mut self.state, number, |item| item.is_chosen = true)?;
            }
            350 => self.ask_choice(number, &item, answer)?,
            200..400 => {
                self.outbox.remove(&mut self.state, number)?;
                self.line_taken(&item, answer, now)?;
            }
            450 if self.is_finish_void(&item, answer, now)? => {
                self.outbox.remove(&mut self.state, number)?;
            }
            421 | 450 | 451 | 452 | 453 => {
                let pause = answer.first().and_then(|entry| entry.get("RETRY")).and_then(number_of);
                self.outbox.put_off(&mut self.state, number, pause, now)?;
                if item.attempts == 0 {
                    let contact = AddressBuf::parse(&item.account)?;
                    let text = answer.text.clone();
                    self.tell(Event::PutOff { contact, code, text });
                }
            }
            _ => {
                self.outbox.remove(&mut self.state, number)?;
                self.line_refused(&item, code, &answer.text, now)?;
            }
        }
        self.to_pump.insert(item.account);
        self.pump_all(now)
    }

    /// Whether an 804 is for chunks that the relay does not have.
    fn is_finish_void(
        &mut self,
        item: &Item,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        match &item.kind {
            Kind::File { fid } if is_finish(&item.line) => self.finish_put_off(fid, answer, now),
            _ => Ok(false),
        }
    }

    fn ask_choice(&mut self, number: u64, item: &Item, answer: &Answer) -> Result<(), EngineError> {
        self.outbox.update(&mut self.state, number, |item| {
            item.is_asked = true;
            item.is_chosen = false;
            item.choice = None;
        })?;
        if matches!(item.kind, Kind::Part { .. }) {
            // The first part asks for the whole text.
            return Ok(());
        }
        let entry = answer.first();
        let alternatives = entry.and_then(|entry| entry.get("ALT"));
        let alternatives = alternatives.and_then(|value| list(value, 8)).unwrap_or_default();
        let until = entry.and_then(|entry| entry.get("UNTIL")).and_then(Timestamp::read);
        self.tell_busy(item, alternatives, until)
    }

    fn tell_busy(
        &mut self,
        item: &Item,
        alternatives: Vec<Alternative>,
        until: Option<Timestamp>,
    ) -> Result<(), EngineError> {
        let contact = AddressBuf::parse(&item.account)?;
        let shown = self.known_message(&item.mid)?.and_then(|known| known.shown_as);
        let mid = shown.unwrap_or_else(|| item.mid.clone());
        self.tell(Event::Busy { contact, mid, alternatives, until });
        Ok(())
    }

    /// Asks again for choices that were open when the program ended.
    pub(super) fn ask_open_choices(&mut self) -> Result<(), EngineError> {
        for number in self.outbox.numbers(|item| item.is_asked) {
            let item = self.outbox.get(number).cloned();
            if let Some(item) = item.filter(|item| !matches!(item.kind, Kind::Part { .. })) {
                self.tell_busy(&item, Vec::new(), None)?;
            }
        }
        Ok(())
    }

    fn line_taken(
        &mut self,
        item: &Item,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match &item.kind {
            Kind::Message => {
                let is_passed = answer.code.number() == 250;
                let status = if is_passed { Status::Passed } else { Status::Taken };
                self.raise_status(&item.mid, status)
            }
            Kind::Offer { generation, device } => {
                let generation = Generation::load(&self.state, generation)?;
                let Some(mut generation) = generation else { return Ok(()) };
                // The device itself may have answered first.
                if let Some(state @ OfferState::Queued) = generation.offers.get_mut(device) {
                    *state = OfferState::Taken;
                }
                generation.store(&mut self.state)?;
                // The conversation may be with another account than this device's.
                self.pump_drafts();
                Ok(())
            }
            Kind::File { fid } if is_finish(&item.line) => self.finish_taken(fid),
            Kind::File { fid } => self.offer_taken(fid, answer, now),
            Kind::Subscription => {
                let contact = Some(AddressBuf::parse(&item.account)?);
                self.tell(Event::Done { what: subscription(&item.line), contact });
                Ok(())
            }
            Kind::Part { .. } | Kind::Silent => Ok(()),
        }
    }

    fn line_refused(
        &mut self,
        item: &Item,
        code: u16,
        text: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match &item.kind {
            Kind::Message => self.fail_message(&item.mid, code, text),
            Kind::Part { first } => {
                let belongs =
                    |item: &Item| matches!(&item.kind, Kind::Part { first: f } if f == first);
                self.outbox.remove_if(&mut self.state, belongs)?;
                self.fail_message(first, code, text)
            }
            Kind::Offer { generation, device } => {
                self.offer_refused(&item.account, (generation, device), (code, text), now)
            }
            Kind::File { fid } => self.file_refused(fid, code, text),
            Kind::Subscription => {
                let contact = Some(AddressBuf::parse(&item.account)?);
                let what = subscription(&item.line);
                self.tell(Event::Refused { what, contact, code, text: text.into() });
                Ok(())
            }
            Kind::Silent => Ok(()),
        }
    }

    /// The relay does not take an offer.
    fn offer_refused(
        &mut self,
        account: &str,
        (generation, device): (&str, &str),
        (code, text): (u16, &str),
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Some(mut generation) = Generation::load(&self.state, generation)? else {
            return Ok(());
        };
        let Some(mut session) = Session::load(&self.state, &generation.sid)? else {
            return Ok(());
        };
        generation.offers.insert(device.into(), OfferState::Void);
        generation.store(&mut self.state)?;
        self.give_up_session(&mut session, account, (code, text), now)?;
        self.pump_drafts();
        Ok(())
    }
}

/// Whether a line of a file is the one that ends it.
fn is_finish(line: &str) -> bool {
    line.starts_with("804 ")
}

fn number_of(value: &str) -> Option<u64> {
    number(value)
}

/// The name of a subscription line for the user.
fn subscription(line: &str) -> &'static str {
    match line.get(..3) {
        Some("633") => "ask",
        Some("634") => "approve",
        _ => "deny",
    }
}
