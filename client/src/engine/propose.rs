//! New keys for a conversation: sessions begun, refreshed, and offered again.
//!
//! Owns the way from records to offers. The invariants: an offer goes to every device that the
//! records list, or to none; keys of a 701 and one-time prekeys are used for one offer; which
//! suite, and whether lines are signed, follows from records, policies and then wishes
//! (SPEC.md §7).

use protocol::record::Record;
use protocol::suite::Suite;
use protocol::{Address, AddressBuf, Timestamp};

use super::ending::PREKEY_GONE;
use super::link::Request;
use super::pump::{Parties, Step};
use super::{Engine, EngineError};
use crate::directory::Contact;
use crate::limits;
use crate::outbox::Kind;
use crate::session::offer::{self, Proposal, Target, allows, must_be_signed};
use crate::session::{self, Generation, OfferState, Session, SessionError, accept};

impl Engine {
    fn pick_suite(&self, parties: &Parties) -> Option<Suite> {
        let is_allowed = |suite: &Suite| {
            allows(*suite, &parties.records(), &parties.policies, parties.knows_all_policies)
        };
        let wanted = self.config.suites.iter().copied();
        let modern = wanted.clone().filter(|suite| !suite.is_legacy()).find(is_allowed);
        modern.or_else(|| wanted.filter(|suite| suite.is_legacy()).find(is_allowed))
    }

    /// Begins a session: fresh records, prekeys of every device, one offer each.
    pub(super) fn begin_session(
        &mut self,
        peer: Address<'_>,
        parties: &Parties,
        now: Timestamp,
    ) -> Result<Step, EngineError> {
        if !parties.is_fresh {
            let own = self.own_account();
            self.fetch_record(own.as_address(), now);
            self.fetch_record(peer, now);
            return Ok(Step::Done);
        }
        if !parties.peer.is_valid_at(now) {
            self.fail_drafts(peer.as_str(), 558, "the record of this contact has expired")?;
            return Ok(Step::Done);
        }
        let Some(suite) = self.pick_suite(parties) else {
            self.fail_drafts(peer.as_str(), 504, "no suite is allowed by both sides")?;
            return Ok(Step::Done);
        };
        let must_sign = must_be_signed(&parties.records(), parties.devices(), &parties.policies);
        let sid = offer::new_sid(&mut self.state)?;
        let mut session =
            Session::new(sid, suite, must_sign || self.config.signs, &parties.records(), now)?;
        let Some(targets) = self.targets(&mut session, None, parties, now)? else {
            return Ok(Step::Done);
        };
        self.offer_to(&mut session, None, parties, &targets, now)?;
        Ok(Step::Again)
    }

    /// Refreshes a session. `None` if that cannot be done now; the generation in use then goes on.
    pub(super) fn refresh(
        &mut self,
        session: &Session,
        generation: &Generation,
        parties: &Parties,
        now: Timestamp,
    ) -> Result<Option<Step>, EngineError> {
        let mut session = session.clone();
        let Some(targets) = self.targets(&mut session, Some(generation), parties, now)? else {
            let is_coming = self.is_asked(|asked| matches!(asked, Request::Take(_)));
            return Ok(is_coming.then_some(Step::Done));
        };
        self.offer_to(&mut session, Some(generation), parties, &targets, now)?;
        Ok(Some(Step::Again))
    }

    /// Keys for every device but this one: for a refresh those of a 701 where there are any, else
    /// prekeys, which are asked for if they are not here.
    fn targets(
        &mut self,
        session: &mut Session,
        parent: Option<&Generation>,
        parties: &Parties,
        now: Timestamp,
    ) -> Result<Option<Vec<Target>>, EngineError> {
        let own = self.identity.device().to_buf();
        let suite = session.suite()?;
        let mut is_missing = false;
        let mut wanted = Vec::new();
        for member in session.others(own.as_address()) {
            let device = AddressBuf::parse(&member.device)?;
            let has_next = parent.is_some()
                && accept::has_peer_key(&self.state, session, &member.device, now)?;
            let account = device.account();
            if !has_next && self.fetches.prekeys(account.as_str(), now).is_none() {
                self.take_prekeys(account.as_address(), now);
                is_missing = true;
            }
            wanted.push((device, has_next));
        }
        if is_missing {
            return Ok(None);
        }
        let mut targets = Vec::new();
        for (device, has_next) in wanted {
            let account = device.account();
            let record =
                parties.records().into_iter().find(|r| r.account() == account.as_address());
            let record = record.map(Record::name).ok_or(SessionError::Gone)?;
            let next = match has_next {
                true => accept::take_peer_key(&mut self.state, session, device.as_str(), now)?,
                false => None,
            };
            let target = match next {
                Some(key) => Some(Target::from_peer_key(device.clone(), record, &key)),
                None => self.target_from_prekeys(&device, record, suite, now)?,
            };
            let Some(target) = target else {
                self.lacks_prekeys(&device, now);
                return Ok(None);
            };
            targets.push(target);
        }
        Ok(Some(targets))
    }

    fn target_from_prekeys(
        &self,
        device: &AddressBuf,
        record: protocol::identifier::RecordName,
        suite: Suite,
        now: Timestamp,
    ) -> Result<Option<Target>, EngineError> {
        let fetched = self.fetches.prekeys(device.account().as_str(), now).unwrap_or_default();
        let Some(fetched) = fetched.iter().find(|fetched| fetched.device == *device) else {
            return Ok(None);
        };
        Ok(Target::from_prekeys(fetched, record, suite).map_err(SessionError::from)?)
    }

    /// Makes the generation, writes everything down and puts the offers into the outbox.
    fn offer_to(
        &mut self,
        session: &mut Session,
        parent: Option<&Generation>,
        parties: &Parties,
        targets: &[Target],
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let (birth, own_record) = ((&*session, parent, parties.repair_ms()), parties.own.name());
        let made = offer::make(&mut self.state, &self.identity, birth, own_record, targets, now)?;
        session::establish(
            &mut self.state,
            &self.identity,
            session,
            &made.generation,
            &made.root,
            now,
        )?;
        for line in made.lines {
            let account = line.device.account();
            self.fetches.use_prekeys(account.as_str());
            let kind = Kind::Offer {
                generation: made.generation.name.clone(),
                device: line.device.as_str().into(),
            };
            self.outbox.push(&mut self.state, kind, account.as_str(), &line.mid, line.line)?;
        }
        let has_one_time_keys = targets.iter().all(|target| target.is_one_time);
        self.session_opened(session, parent.is_some(), has_one_time_keys)
    }

    /// Offers a generation again to devices whose prekeys were gone (456). A generation that
    /// cannot be offered any more ends its session.
    pub(super) fn offer_again(
        &mut self,
        peer: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        for mut session in self.conversation(peer.as_str())? {
            for mut generation in session.load_generations(&self.state)? {
                let refused: Vec<String> = generation
                    .offers
                    .iter()
                    .filter(|(_, state)| **state == OfferState::Refused)
                    .map(|(device, _)| device.clone())
                    .collect();
                let has_failed = |device: &String| {
                    let count = generation.offers_again.get(device).copied().unwrap_or(0);
                    count >= limits::OFFERS_AGAIN_MAX || generation.seed.is_none()
                };
                if refused.iter().any(has_failed) {
                    self.give_up_session(&mut session, peer.as_str(), PREKEY_GONE, now)?;
                    break;
                }
                for device in refused {
                    self.offer_device_again(peer, (&session, &mut generation), &device, now)?;
                }
            }
        }
        Ok(())
    }

    fn offer_device_again(
        &mut self,
        peer: Address<'_>,
        (session, generation): (&Session, &mut Generation),
        device: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let device = AddressBuf::parse(device)?;
        let account = device.account();
        if self.fetches.prekeys(account.as_str(), now).is_none() {
            self.take_prekeys(account.as_address(), now);
            self.unfinished.insert(peer.as_str().into());
            return Ok(());
        }
        let Some(seed) = generation.seed.clone() else { return Ok(()) };
        let contact = Contact::load(&self.state, account.as_address())?;
        let (Some(contact), Some(own)) = (contact, self.own_record()?) else { return Ok(()) };
        let record = contact.record()?.name();
        let suite = session.suite()?;
        let Some(target) = self.target_from_prekeys(&device, record, suite, now)? else {
            self.lacks_prekeys(&device, now);
            self.unfinished.insert(peer.as_str().into());
            return Ok(());
        };
        let parent = generation.parent.as_deref();
        let proposal = Proposal { session, parent, own_record: own.name() };
        let line = offer::offer_line(
            &mut self.state,
            &self.identity,
            &proposal,
            &generation.name,
            &seed,
            &target,
            now,
        )?;
        self.fetches.use_prekeys(account.as_str());
        generation.offers.insert(device.as_str().into(), OfferState::Queued);
        *generation.offers_again.entry(device.as_str().into()).or_default() += 1;
        generation.store(&mut self.state)?;
        let kind =
            Kind::Offer { generation: generation.name.clone(), device: device.as_str().into() };
        self.outbox.push(&mut self.state, kind, account.as_str(), &line.mid, line.line)?;
        Ok(())
    }
}
