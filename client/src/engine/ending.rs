//! The end of sessions: refusals and closes of others (703), own ends, and what becomes of texts.
//!
//! Owns what is left to do once a session is over. The invariants: a session ends once; from then
//! on nothing is sealed in it and no offer of it is taken, here and, once it was told, on the other
//! side. So a refusal for good (any code but 456) or a close says of every offer that its sender
//! did not accept before that it never will, and only texts of such offers are sealed again, in
//! front of all later ones; what may still open is waited for (SPEC.md §7). Limits:
//! [`limits::END_ANSWER_MS_MAX`], [`limits::REFUSALS_MAX`].

use protocol::offer::Close;
use protocol::{Address, AddressBuf, Command, Timestamp};

use super::{Engine, EngineError, Event};
use crate::limits;
use crate::outbox::Kind;
use crate::session::accept::{self, Closing};
use crate::session::{self, Generation, OfferState, Session, awaited, offer};

/// How an offer is refused only for want of its prekey.
pub(super) const PREKEY_GONE: (u16, &str) =
    (456, "the other side has none of its prekeys any more");

impl Engine {
    /// 703.
    pub(super) fn close_received(
        &mut self,
        command: &Command<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(close) = Close::parse(command) else {
            self.tell(Event::Strange { what: "a 703 that is none".into() });
            return Ok(());
        };
        let Some(mut session) =
            self.session_line_holds(command, close.session.as_str(), close.from)?
        else {
            return Ok(());
        };
        let mid = close.id.as_str();
        if offer::is_seen(&self.state, close.from, mid)? {
            return Ok(());
        }
        offer::remember(&mut self.state, close.from, mid, now)?;
        self.to_pump.insert(close.from.account().as_str().into());
        let Some((code, name)) = close.code.zip(close.generation) else {
            self.void_offers(&session, close.from)?;
            return self.end_session(&mut session, None, now);
        };
        let generation = Generation::load(&self.state, name.as_str())?;
        let Some(generation) = generation.filter(|one| one.sid == session.sid) else {
            return Ok(());
        };
        match generation.offers.get(close.from.as_str()) {
            Some(OfferState::Queued | OfferState::Taken) => {}
            _ => return Ok(()),
        }
        self.offer_arrived(&generation.name, close.from.as_str())?;
        if code.number() == PREKEY_GONE.0 {
            self.prekey_was_gone(&mut session, generation, close.from, now)
        } else {
            self.void_offers(&session, close.from)?;
            let why = (code.number(), "the other side refuses the session");
            self.give_up_session(&mut session, close.from.account().as_str(), why, now)
        }
    }

    /// The generation is offered again to fresh prekeys, while that can be done.
    fn prekey_was_gone(
        &mut self,
        session: &mut Session,
        mut generation: Generation,
        from: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let is_over = session.is_closed || generation.seed.is_none();
        let state = if is_over { OfferState::Void } else { OfferState::Refused };
        generation.offers.insert(from.as_str().into(), state);
        generation.store(&mut self.state)?;
        self.fetches.use_prekeys(from.account().as_str());
        if !is_over {
            return Ok(());
        }
        self.give_up_session(session, from.account().as_str(), PREKEY_GONE, now)
    }

    /// A session that cannot go on is ended, and the next is begun over records fetched afresh; a
    /// few times, then the texts that wait are given back as failed, with `code` and `text`.
    pub(super) fn give_up_session(
        &mut self,
        session: &mut Session,
        account: &str,
        (code, text): (u16, &str),
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let is_first = !session.is_closed;
        self.end_session(session, None, now)?;
        if !is_first {
            return Ok(());
        }
        let own = self.own_account();
        let peer = session.peer(own.as_address()).unwrap_or(account).to_owned();
        self.fetches.use_prekeys(&peer);
        let refusals = self.refusals.entry(peer.clone()).or_default();
        *refusals += 1;
        if *refusals > limits::REFUSALS_MAX {
            self.refusals.remove(&peer);
            return self.fail_drafts(&peer, code, text);
        }
        self.refresh_record(Address::parse(account)?, now)
    }

    /// A device takes no more offers of a session: those it did not accept are void.
    fn void_offers(&mut self, session: &Session, device: Address<'_>) -> Result<(), EngineError> {
        for mut generation in session.load_generations(&self.state)? {
            if let Some(state) = generation.offers.get_mut(device.as_str())
                && *state != OfferState::Accepted
            {
                *state = OfferState::Void;
                generation.store(&mut self.state)?;
                self.offer_arrived(&generation.name, device.as_str())?;
            }
        }
        Ok(())
    }

    /// Ends a session, and tells the devices that have keys of it, except `told`. Texts that
    /// nobody they are for will ever open are drafts again.
    pub(super) fn end_session(
        &mut self,
        session: &mut Session,
        told: Option<Address<'_>>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if !session.is_closed {
            session.is_closed = true;
            session.closed_at = now.0;
            session.store(&mut self.state)?;
            self.drop_parked(&session.sid)?;
            awaited::forget_session(&mut self.state, &session.sid)?;
            self.tell_end(session, told, now)?;
        }
        let own = self.own_account();
        let peer = session.peer(own.as_address()).unwrap_or_default();
        for mut generation in session.load_generations(&self.state)? {
            // Nothing is offered again in a session that is over.
            let refused = generation.offers.values_mut().filter(|s| **s == OfferState::Refused);
            if refused.map(|state| *state = OfferState::Void).count() > 0 {
                generation.store(&mut self.state)?;
            }
            if generation.is_void(peer) {
                self.draft_retained(&generation.name, now)?;
            }
        }
        self.to_pump.insert(peer.into());
        Ok(())
    }

    /// 703 without CODE to every device that has keys of the session or may yet get some.
    fn tell_end(
        &mut self,
        session: &Session,
        told: Option<Address<'_>>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let generations = session.load_generations(&self.state)?;
        let own = self.identity.device().to_buf();
        for member in session.others(own.as_address()) {
            let device = AddressBuf::parse(&member.device)?;
            let is_concerned = generations.iter().any(|one| {
                let offered = one.offers.get(&member.device);
                one.offerer == member.device || offered.is_some_and(|s| *s > OfferState::Refused)
            });
            if !is_concerned || told == Some(device.as_address()) {
                continue;
            }
            let closing = Closing { sid: &session.sid, generation: None, code: None, record: None };
            let (mid, line) =
                accept::close(&mut self.state, &self.identity, device.as_address(), &closing, now)?;
            let account = device.account();
            self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), &mid, line)?;
        }
        Ok(())
    }

    /// Whether texts to a contact wait until it is known which earlier ones it has.
    pub(super) fn waits_for_end(
        &self,
        peer: Address<'_>,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let own = self.identity.device();
        for session in self.conversation(peer.as_str())? {
            let is_recent =
                now.0.abs_diff(session.closed_at) < limits::END_ANSWER_MS_MAX && session.is_closed;
            if is_recent && session::is_in_doubt(&self.state, &session, own)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
