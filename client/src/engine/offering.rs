//! Offers of session keys from others (700, 702), and their acceptance of this device's (701).
//!
//! Owns the order in which an offer is judged: records first (fetched if need be), then
//! [`offer::judge`], then the private keys. A refusal is answered with its code; it never leads to
//! another suite or to plain sending (SPEC.md §7).

use protocol::identifier::RecordName;
use protocol::offer::{Accept, Offer};
use protocol::policy::Policy;
use protocol::record::Record;
use protocol::{Address, AddressBuf, Command, Timestamp};

use super::inbound::{Arrival, Wait};
use super::{Engine, EngineError, Event};
use crate::directory::{self, Contact};
use crate::outbox::Kind;
use crate::session::accept::{self, Closing};
use crate::session::offer::{self, Judgement, Refusal};
use crate::session::{Generation, Member, OfferState, Session, SessionError, awaited};
use crate::state::StateError;

/// What is known about the accounts of an offer.
enum Known {
    /// Everything; judge it.
    All { sender: Box<Record>, own: Box<Record>, others: Vec<Record> },
    /// A record of this account is being fetched.
    Waiting(String),
    /// A record is not the one that the offer names, or not to be had.
    Stale,
}

impl Engine {
    pub(super) fn offer_received(
        &mut self,
        command: &Command<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let offer = match Offer::parse(command) {
            Ok(offer) => offer,
            Err(error) => {
                self.tell(Event::Strange { what: format!("an offer that is none: {error}") });
                return Ok(());
            }
        };
        if offer.at < self.restored_at()? {
            let from = offer.from.to_string();
            self.tell(Event::Unopened { from, what: "an offer older than the restored state" });
            return Ok(());
        }
        if offer::is_seen(&self.state, offer.from, offer.id.as_str())? {
            return Ok(());
        }
        let refusal = match self.known_of(&offer, arrival, now)? {
            Known::Waiting(account) => {
                let wait = Wait::Record(account);
                return self.park_offer(command, &offer, arrival, (wait, false), now);
            }
            Known::Stale => Refusal::Stale,
            Known::All { sender, own, others } => {
                match self.take_offer(command, &offer, (&sender, &own, &others), now) {
                    Ok(()) => return Ok(()),
                    Err(Refusal::Orphan) => match &offer.parent {
                        Some(parent) if self.is_awaited(parent.as_str())? => {
                            let wait = Wait::Generation(parent.as_str().into());
                            return self.park_offer(command, &offer, arrival, (wait, true), now);
                        }
                        _ => Refusal::Orphan,
                    },
                    Err(refusal) => refusal,
                }
            }
        };
        self.refuse_offer(command, &offer, refusal, now)
    }

    /// Parks an offer; its lines, and refreshes that follow on it, then wait as well.
    fn park_offer(
        &mut self,
        command: &Command<'_>,
        offer: &Offer<'_>,
        arrival: Arrival,
        (wait, is_judged): (Wait, bool),
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if self.park(command, arrival, wait, is_judged, now)? {
            self.await_generation(offer, is_judged, now)?;
        }
        Ok(())
    }

    fn await_generation(
        &mut self,
        offer: &Offer<'_>,
        is_judged: bool,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let parent = offer.parent.as_ref().map(|parent| parent.as_str());
        let place = (offer.session.as_str(), parent);
        awaited::note(&mut self.state, offer.generation.as_str(), place, is_judged, now)?;
        Ok(())
    }

    /// The records that an offer speaks of, or what is missing.
    fn known_of(
        &mut self,
        offer: &Offer<'_>,
        arrival: Arrival,
        now: Timestamp,
    ) -> Result<Known, EngineError> {
        let sender_account = offer.from.account().to_buf();
        let own_account = self.own_account();
        let sender = (sender_account, offer.sender_record);
        let own = (own_account, offer.recipient_record);
        let mut found = Vec::new();
        for (account, name) in [sender, own] {
            let address = account.as_address();
            if let Some(record) = self.record_named(address, name, now)? {
                found.push(record);
            } else if self.may_wait_for_record(address, arrival, now)? {
                return Ok(Known::Waiting(account.to_string()));
            } else {
                return Ok(Known::Stale);
            }
        }
        let mut others = Vec::new();
        for account in offer.accounts.as_slice() {
            let address = account.as_address();
            if address == offer.from.account() || address == self.identity.account() {
                continue;
            }
            match Contact::load(&self.state, address)? {
                Some(contact) => others.push(contact.record()?),
                None if self.may_wait_for_record(address, arrival, now)? => {
                    return Ok(Known::Waiting(account.to_string()));
                }
                None => return Ok(Known::Stale),
            }
        }
        let (Some(own), Some(sender)) = (found.pop(), found.pop()) else {
            return Ok(Known::Stale);
        };
        Ok(Known::All { sender: Box::new(sender), own: Box::new(own), others })
    }

    fn record_named(
        &self,
        account: Address<'_>,
        name: RecordName,
        now: Timestamp,
    ) -> Result<Option<Record>, StateError> {
        match Contact::load(&self.state, account)? {
            Some(contact) => contact.record_named(name, now),
            None => Ok(None),
        }
    }

    /// Policies of the domains of `accounts`, and whether all are known.
    pub(super) fn policies_of<'a>(
        &self,
        accounts: impl Iterator<Item = Address<'a>>,
    ) -> Result<(Vec<Policy>, bool), EngineError> {
        let mut policies: Vec<Policy> = Vec::new();
        let mut knows_all = true;
        for account in accounts {
            let domain = Self::domain_of(account)?;
            if policies.iter().any(|policy| policy.domain == domain) {
                continue;
            }
            match directory::held_policy(&self.state, domain.as_address())? {
                Some(policy) => policies.push(policy),
                None => knows_all = false,
            }
        }
        Ok((policies, knows_all))
    }

    fn take_offer(
        &mut self,
        command: &Command<'_>,
        offer: &Offer<'_>,
        (sender, own, others): (&Record, &Record, &[Record]),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        #[cfg(test)]
        if self.refuses_offers > 0 {
            self.refuses_offers -= 1;
            return Err(Refusal::Ended);
        }
        let fail = |error: EngineError| match error {
            EngineError::State(error) => Refusal::from(error),
            EngineError::Session(error) => Refusal::from(error),
            _ => Refusal::from(SessionError::Gone),
        };
        let accounts = offer.accounts.as_slice().iter().map(AddressBuf::as_address);
        let (policies, knows_all_policies) = self.policies_of(accounts).map_err(fail)?;
        let judgement = Judgement { sender, own, others, policies: &policies, knows_all_policies };
        let contact = Contact::load(&self.state, offer.from.account())?;
        let device = offer.from.device().unwrap_or_default();
        if contact.is_some_and(|contact| contact.is_revoked(device)) {
            return Err(Refusal::Unsigned);
        }
        offer::judge(&self.identity, command, offer, &judgement, now)?;
        offer::place(&self.state, offer, &judgement)?;
        offer::remember(&mut self.state, offer.from, offer.id.as_str(), now)?;
        let opened = offer::open(
            &mut self.state,
            &self.identity,
            &mut *self.holder,
            command,
            offer,
            &judgement,
            now,
        )?;
        let (mid, line) = accept::make(
            &mut self.state,
            &self.identity,
            &mut *self.holder,
            &opened.session,
            &opened.generation,
            offer.from,
            now,
        )?;
        let account = offer.from.account();
        self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), &mid, line)?;
        awaited::forget(&mut self.state, &opened.generation)?;
        self.session_opened(&opened.session, offer.parent.is_some(), true).map_err(fail)?;
        self.retry_generation(&opened.generation, now).map_err(fail)
    }

    /// Takes a session into its conversation and tells of its new key.
    pub(super) fn session_opened(
        &mut self,
        session: &Session,
        is_refresh: bool,
        has_one_time_keys: bool,
    ) -> Result<(), EngineError> {
        let own = self.own_account();
        let Some(peer) = session.peer(own.as_address()) else { return Ok(()) };
        self.join_conversation(peer, &session.sid)?;
        self.to_pump.insert(peer.into());
        self.tell(Event::Session {
            contact: AddressBuf::parse(peer)?,
            suite: session.suite()?,
            is_signed: session.is_signed,
            is_refresh,
            has_one_time_keys,
        });
        Ok(())
    }

    /// A parked offer waited too long.
    pub(super) fn offer_expired(
        &mut self,
        command: &Command<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match Offer::parse(command) {
            Ok(offer) => self.refuse_offer(command, &offer, Refusal::Orphan, now),
            Err(_) => Ok(()),
        }
    }

    /// Answers an offer that is not taken. But for want of a prekey, that ends its session.
    fn refuse_offer(
        &mut self,
        command: &Command<'_>,
        offer: &Offer<'_>,
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let from = offer.from.to_string();
        let code = refusal.code();
        let what = match refusal {
            Refusal::Failed(error) => return Err(error.into()),
            Refusal::Repeat => return Ok(()),
            Refusal::Unsigned => "an offer whose signature does not hold",
            Refusal::Mismatch => "an offer whose members, key or signed mode do not hold",
            Refusal::PrekeyGone
            | Refusal::Ended
            | Refusal::Orphan
            | Refusal::Stale
            | Refusal::Suite => "",
        };
        if !what.is_empty() {
            self.tell(Event::Tampering { from, what });
        }
        let Some(code) = code else { return Ok(()) };
        let record = match code {
            555 => self.own_record()?.map(|record| record.name()),
            _ => None,
        };
        let closing = Closing {
            sid: offer.session.as_str(),
            generation: Some(offer.generation.as_str()),
            code: Some(code),
            record,
        };
        let (mid, line) =
            accept::close(&mut self.state, &self.identity, offer.from, &closing, now)?;
        let account = offer.from.account();
        self.outbox.push(&mut self.state, Kind::Silent, account.as_str(), &mid, line)?;
        if matches!(refusal, Refusal::PrekeyGone) {
            // A valid offer: its lines are kept until the key comes again.
            return self.await_generation(offer, true, now);
        }
        let session = Session::load(&self.state, offer.session.as_str())?;
        let key = session.as_ref().and_then(|session| session.member(offer.from));
        let key = key.map(Member::key).transpose()?;
        if let Some(mut session) = session
            && key.is_some_and(|key| command.verify(&key).is_ok())
        {
            self.end_session(&mut session, Some(offer.from), now)?;
        }
        awaited::forget(&mut self.state, offer.generation.as_str())?;
        self.retry_generation(offer.generation.as_str(), now)
    }

    /// Whether an offer of this generation may still bring its key.
    fn is_awaited(&self, generation: &str) -> Result<bool, EngineError> {
        Ok(awaited::get(&self.state, generation)?.is_some())
    }

    pub(super) fn accept_received(
        &mut self,
        command: &Command<'_>,
        _arrival: Arrival,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let Ok(accept) = Accept::parse(command) else {
            self.tell(Event::Strange { what: "a 701 that is none".into() });
            return Ok(());
        };
        let Some(_) = self.session_line_holds(command, accept.session.as_str(), accept.from)?
        else {
            return Ok(());
        };
        let generation = Generation::load(&self.state, accept.generation.as_str())?;
        let Some(mut generation) = generation.filter(|one| one.sid == accept.session.as_str())
        else {
            return Ok(());
        };
        let device = accept.from.as_str();
        match generation.offers.get_mut(device) {
            Some(OfferState::Accepted | OfferState::Void) | None => return Ok(()),
            Some(state) => *state = OfferState::Accepted,
        }
        self.offer_arrived(&generation.name, device)?;
        accept::keep_peer_key(&mut self.state, &accept, now)?;
        if generation.offers.values().all(|state| *state == OfferState::Accepted) {
            generation.seed = None;
        }
        generation.store(&mut self.state)?;
        self.refusals.remove(accept.from.account().as_str());
        self.release_retained(&generation.name)?;
        self.to_pump.insert(accept.from.account().as_str().into());
        Ok(())
    }

    /// A device has answered an offer, so the relay need not answer for it any more.
    pub(super) fn offer_arrived(
        &mut self,
        generation: &str,
        device: &str,
    ) -> Result<(), EngineError> {
        let offer = Kind::Offer { generation: generation.into(), device: device.into() };
        Ok(self.outbox.remove_if(&mut self.state, |item| item.kind == offer)?)
    }

    /// The session of a line that a covered device signed; tells of tampering if it did not.
    pub(super) fn session_line_holds(
        &mut self,
        command: &Command<'_>,
        sid: &str,
        from: Address<'_>,
    ) -> Result<Option<Session>, EngineError> {
        let Some(session) = Session::load(&self.state, sid)? else { return Ok(None) };
        let key = session.member(from).map(|member| member.key()).transpose()?;
        if key.is_some_and(|key| command.verify(&key).is_ok()) {
            return Ok(Some(session));
        }
        let from = from.to_string();
        self.tell(Event::Tampering { from, what: "a session line whose signature does not hold" });
        Ok(None)
    }
}
