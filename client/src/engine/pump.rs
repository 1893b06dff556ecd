//! Texts on their way out: from a draft to a sealed line in the outbox.
//!
//! Owns the rows of [`Space::Conversation`]. [`Engine::pump_all`] looks at what a conversation
//! lacks (a record, a policy, a session, a fresh key, prekeys), asks for it and comes back when it
//! is there. The invariants: nothing is sealed before the relay has the key for every device, nor
//! while a change of identity key was not shown; texts leave in their order.

use protocol::message::Part;
use protocol::policy::Policy;
use protocol::record::Record;
use protocol::{Address, AddressBuf, Code, Timestamp};

use super::compose::{Draft, Receipts, draft_name, retained_name};
use super::{Engine, EngineError, Status};
use crate::directory::{self, Contact};
use crate::limits;
use crate::mime::{Entity, MimeError};
use crate::outbox::Kind;
use crate::session::line;
use crate::session::offer::{self, allows, must_be_signed};
use crate::session::{self, Choice, Generation, Refresh, Session, SessionError};
use crate::state::Space;

/// Whether there is more to do at once.
pub(super) enum Step {
    Again,
    Done,
}

/// Who talks, and by which rules.
pub(super) struct Parties {
    pub(super) own: Record,
    pub(super) peer: Record,
    pub(super) policies: Vec<Policy>,
    pub(super) knows_all_policies: bool,
    pub(super) is_fresh: bool,
}

impl Parties {
    pub(super) fn records(&self) -> [&Record; 2] {
        [&self.own, &self.peer]
    }

    pub(super) fn devices(&self) -> usize {
        self.own.devices().len() + self.peer.devices().len()
    }

    pub(super) fn repair_ms(&self) -> u64 {
        self.policies
            .iter()
            .map(|policy| u64::from(policy.repair_hours) * limits::HOUR_MS)
            .fold(limits::REPAIR_AGE_MS, u64::min)
    }
}

impl Engine {
    /// Looks again at every conversation with something that waits.
    pub(super) fn pump_drafts(&mut self) {
        self.to_pump.extend(self.drafts.accounts().cloned());
        self.to_pump.append(&mut self.unfinished);
    }

    /// Moves every conversation on that has something to do.
    pub(super) fn pump_all(&mut self, now: Timestamp) -> Result<(), EngineError> {
        if !self.is_online() {
            return Ok(());
        }
        let accounts = std::mem::take(&mut self.to_pump);
        for account in &accounts {
            while let Step::Again = self.pump(account, now)? {}
        }
        self.flush(now)
    }

    /// Does one thing for a conversation.
    fn pump(&mut self, account: &str, now: Timestamp) -> Result<Step, EngineError> {
        let address = AddressBuf::parse(account)?;
        let address = address.as_address();
        self.offer_again(address, now)?;
        if self.outbox.count_of(account) >= limits::LINES_IN_FLIGHT_MAX {
            return Ok(Step::Done);
        }
        let Some(number) = self.drafts.first(account) else {
            return self.send_receipts(address, now);
        };
        if self.waits_for_end(address, now)? {
            return Ok(Step::Done);
        }
        let Some(parties) = self.parties(address, now)? else { return Ok(Step::Done) };
        let Some(session) = self.current_session(address, &parties)? else {
            return self.begin_session(address, &parties, now);
        };
        let mut generation = match session::choose(&self.state, &session, self.identity.device())? {
            Choice::None => return self.begin_session(address, &parties, now),
            Choice::Wait => return Ok(Step::Done),
            Choice::Use(generation) => *generation,
        };
        let refresh = Refresh::new(session.suite()?, parties.policies.iter());
        if generation.is_due(&refresh, now) {
            let step = self.refresh(&session, &generation, &parties, now)?;
            if let Some(step) = step {
                return Ok(step);
            }
        }
        match self.seal_draft(&session, &mut generation, number, now) {
            Err(EngineError::Session(SessionError::Exhausted)) => Ok(Step::Done),
            sealed => sealed.map(|()| Step::Again),
        }
    }

    /// The records and policies of a conversation; asks for what is missing.
    fn parties(
        &mut self,
        peer: Address<'_>,
        now: Timestamp,
    ) -> Result<Option<Parties>, EngineError> {
        let own_account = self.own_account();
        let own = Contact::load(&self.state, own_account.as_address())?;
        let contact = Contact::load(&self.state, peer)?;
        let (Some(own), Some(contact)) = (own.as_ref(), contact.as_ref()) else {
            let missing = if own.is_none() { own_account.as_address() } else { peer };
            self.fetch_record(missing, now);
            return Ok(None);
        };
        if contact.unseen_change_from.is_some() {
            return Ok(None);
        }
        if contact.is_frozen {
            self.fail_drafts(peer.as_str(), 521, "the key of this contact was revoked")?;
            return Ok(None);
        }
        let domain = self.identity.domain();
        let has_policy = directory::held_policy(&self.state, domain.as_address())?.is_some();
        if !has_policy && !self.fetches.has_policy_failed() {
            return Ok(None);
        }
        let own_record = own.record()?;
        let peer_record = contact.record()?;
        let accounts = [own_account.as_address(), peer];
        let (policies, knows_all_policies) = self.policies_of(accounts.into_iter())?;
        let is_fresh = |checked: u64| now.0.abs_diff(checked) < limits::RECORD_FRESH_MS;
        Ok(Some(Parties {
            own: own_record,
            peer: peer_record,
            policies,
            knows_all_policies,
            is_fresh: is_fresh(own.checked_at) && is_fresh(contact.checked_at),
        }))
    }

    /// The session to seal in: open, over exactly the devices that the records list, signed if it
    /// must be, under a suite that is still allowed; one in which lines are in doubt, so that they
    /// keep their order, else the one offered last.
    fn current_session(
        &self,
        peer: Address<'_>,
        parties: &Parties,
    ) -> Result<Option<Session>, EngineError> {
        let members = protocol::member::Members::new(parties.records())
            .map_err(protocol::Error::from)?
            .hash();
        let must_sign = must_be_signed(&parties.records(), parties.devices(), &parties.policies);
        let own = self.identity.device();
        let mut best: Option<(bool, Session)> = None;
        for session in self.conversation(peer.as_str())? {
            let is_good = !session.is_closed
                && session.mem == members.as_str()
                && (session.is_signed || !(must_sign || self.config.signs))
                && allows(
                    session.suite()?,
                    &parties.records(),
                    &parties.policies,
                    parties.knows_all_policies,
                );
            if !is_good {
                continue;
            }
            let is_in_doubt = session::is_in_doubt(&self.state, &session, own)?;
            let is_better = best.as_ref().is_none_or(|(is_doubted, best)| {
                let rank = (is_in_doubt, session.offered_at, &best.sid);
                rank > (*is_doubted, best.offered_at, &session.sid)
            });
            if is_better {
                best = Some((is_in_doubt, session));
            }
        }
        Ok(best.map(|(_, session)| session))
    }

    /// Seals the draft of this number.
    fn seal_draft(
        &mut self,
        session: &Session,
        generation: &mut Generation,
        number: u64,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let name = draft_name(number);
        let draft: Option<Draft> = self.state.get(Space::Draft, &name)?;
        let Some(draft) = draft else { return Err(SessionError::Gone.into()) };
        let is_legacy = session.suite()?.is_legacy();
        let contact = AddressBuf::parse(&draft.contact)?;
        if let Some(fid) = draft.fid.as_deref().filter(|_| is_legacy) {
            self.state.remove(Space::Draft, &name)?;
            self.drafts.remove(&draft.contact, number);
            return self.file_refused(fid, 504, "legacy sessions carry no files");
        }
        let (entity, extra) = match &draft.fid {
            Some(fid) => self.manifest(fid)?,
            None => (Entity::text(&draft.text), Vec::new()),
        };
        let plaintext = entity.to_plaintext().map_err(|error| match error {
            MimeError::TooLong => EngineError::TooLong,
            _ => EngineError::Misuse("the text has no plaintext"),
        })?;
        let sealed = line::Draft {
            code: Code::new(draft.code).unwrap_or(Code::MESSAGE),
            to: contact.as_address(),
            mid: &draft.mid,
            about: draft.about.as_deref(),
            part: draft.part.map(|(number, count)| Part { number, count }),
            extra: &extra,
            plaintext: Some(&plaintext),
        };
        let line = line::seal(&mut self.state, &self.identity, session, generation, &sealed, now)?;
        let kind = match (&draft.fid, &draft.first) {
            (Some(fid), _) => Kind::File { fid: fid.clone() },
            (None, Some(first)) => Kind::Part { first: first.clone() },
            (None, None) => Kind::Message,
        };
        self.outbox.push(&mut self.state, kind, contact.as_str(), &draft.mid, line)?;
        self.state.remove(Space::Draft, &name)?;
        self.drafts.remove(&draft.contact, number);
        let is_own_offer = generation.offerer == self.identity.device().as_str();
        if is_own_offer && !generation.is_accepted_by(contact.as_str()) {
            self.state.put(Space::Retained, &retained_name(&generation.name, number), &draft)?;
        }
        self.raise_status(&draft.mid, Status::Sent)
    }

    /// Sends what is owed of receipts, in whatever generation is in use; without a session they
    /// are given up.
    fn send_receipts(&mut self, peer: Address<'_>, now: Timestamp) -> Result<Step, EngineError> {
        let name = peer.as_str();
        let Some(mut owed) = self.state.get::<Receipts>(Space::Receipt, name)? else {
            return Ok(Step::Done);
        };
        let mut sessions = self.conversation(name)?;
        sessions.retain(|session| !session.is_closed);
        sessions.sort_by_key(|session| session.offered_at);
        let Some(session) = sessions.pop() else {
            self.state.remove(Space::Receipt, name)?;
            return Ok(Step::Done);
        };
        let choice = session::choose(&self.state, &session, self.identity.device())?;
        let Choice::Use(mut generation) = choice else {
            self.unfinished.insert(name.into());
            return Ok(Step::Done);
        };
        let (code, list) = if owed.delivered.is_empty() {
            (Code::READ, &mut owed.read)
        } else {
            (Code::DELIVERED, &mut owed.delivered)
        };
        let count = list.len().min(protocol::limits::RECEIPTS_MAX);
        let about: Vec<String> = list.drain(..count).collect();
        if owed.delivered.is_empty() && owed.read.is_empty() {
            self.state.remove(Space::Receipt, name)?;
        } else {
            self.state.put(Space::Receipt, name, &owed)?;
        }
        if about.is_empty() {
            return Ok(Step::Done);
        }
        let mid = offer::new_mid(&mut self.state)?;
        let about = about.join(",");
        let draft = line::Draft {
            code,
            to: peer,
            mid: &mid,
            about: Some(&about),
            part: None,
            extra: &[],
            plaintext: None,
        };
        let sealed =
            line::seal(&mut self.state, &self.identity, &session, &mut generation, &draft, now);
        match sealed {
            Ok(line) => {
                self.outbox.push(&mut self.state, Kind::Silent, name, &mid, line)?;
                Ok(Step::Again)
            }
            Err(SessionError::Exhausted | SessionError::Gone) => Ok(Step::Done),
            Err(error) => Err(error.into()),
        }
    }

    /// The sessions of a conversation.
    pub(super) fn conversation(&self, account: &str) -> Result<Vec<Session>, EngineError> {
        let sids: Vec<String> = self.state.get(Space::Conversation, account)?.unwrap_or_default();
        let mut sessions = Vec::with_capacity(sids.len());
        for sid in sids {
            sessions.extend(Session::load(&self.state, &sid)?);
        }
        Ok(sessions)
    }

    /// Adds a session to a conversation; the oldest goes if there are too many.
    pub(super) fn join_conversation(
        &mut self,
        account: &str,
        sid: &str,
    ) -> Result<(), EngineError> {
        let mut sids: Vec<String> =
            self.state.get(Space::Conversation, account)?.unwrap_or_default();
        if sids.iter().any(|known| known == sid) {
            return Ok(());
        }
        sids.push(sid.into());
        while sids.len() > limits::SESSIONS_MAX {
            let oldest = sids.remove(0);
            session::erase_session(&mut self.state, &oldest)?;
        }
        Ok(self.state.put(Space::Conversation, account, &sids)?)
    }
}
