//! This account and device: registration, the own record, prekeys, revocation, restore.
//!
//! Owns what the relay keeps of this account and keeps it true. The invariants: a record or key
//! that is to be published is written down first and published octet for octet until the relay
//! answers; a rotated identity key takes the place of the old one only once the relay has the
//! record that names it (SPEC.md §6).

use protocol::identifier::RecoveryHash;
use protocol::record::{Record, RecordBuilder};
use protocol::reply::Answer;
use protocol::revocation::{Revocation, RevokedBy};
use protocol::signature::Signer;
use protocol::suite::Suite;
use protocol::{AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::link::Request;
use super::{Engine, EngineError, Event};
use crate::directory::{self, Contact};
use crate::keyfile::SigningSecret;
use crate::limits;
use crate::prekey::{self, Purpose};
use crate::session::{self, Session, offer};
use crate::state::Space;

/// What is kept of the own account beside its record.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    is_registered: bool,
    invitation: Option<String>,
    /// The first record, until the account is registered.
    first_record: Option<String>,
    /// A record that the relay has not confirmed.
    pending_record: Option<String>,
    /// When the relay last put off a prekey, in milliseconds since 1970.
    publish_after: u64,
    /// Offers made before this time are not taken: the state was restored from a copy.
    restored_at: u64,
}

const ACCOUNT: &str = "account";
const CURRENT_IDENTITY: &str = "current";
const NEXT_IDENTITY: &str = "next";

impl Engine {
    /// Prepares the opening of the account: the first record is made and kept; it goes to the
    /// relay with the invitation at the next login. `recovery` is the hash of the recovery key.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] if the account is registered, or this device does not hold the
    /// identity key.
    pub fn register(
        &mut self,
        invitation: &str,
        recovery: Option<RecoveryHash>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let mut account = self.account()?;
        if account.is_registered {
            return Err(EngineError::Misuse("the account is registered already"));
        }
        let owner = self.identity.owner().ok_or(NO_IDENTITY)?;
        let device = self.identity.device().device().unwrap_or_default();
        // The relay's clock may be a little behind.
        let from = Timestamp(now.0.saturating_sub(protocol::limits::TIMESTAMP_AHEAD_MS_MAX));
        let own = self.own_account();
        let line =
            RecordBuilder::new(own.as_address(), from, now.plus_ms(self.config.record_life_ms))
                .device(device, self.identity.signer().public_key())
                .suites(&self.config.suites)
                .recovery(recovery)
                .sign(owner)?;
        account.first_record = Some(line);
        account.invitation = Some(invitation.into());
        self.keep_account(&account)
    }

    /// Whether the relay has confirmed the account.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn is_registered(&self) -> Result<bool, EngineError> {
        Ok(self.account()?.is_registered)
    }

    /// Whether the account is open and nothing that was said to the relay is unanswered.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn is_settled(&self) -> Result<bool, EngineError> {
        let is_answered = self.link.as_ref().is_some_and(super::link::Link::is_answered);
        let is_sent = self.outbox.numbers(|_| true).is_empty();
        Ok(is_answered && is_sent && self.is_registered()?)
    }

    /// The TLS keys that the domain's policy names: SHA-256 of each SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn tls_pins(&self) -> Result<Vec<[u8; 32]>, EngineError> {
        let domain = self.identity.domain();
        let policy = directory::held_policy(&self.state, domain.as_address())?;
        Ok(policy.map_or_else(Vec::new, |policy| {
            policy.pins.iter().map(protocol::identifier::KeyPin::to_octets).collect()
        }))
    }

    /// The own record, as the relay last confirmed it.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn own_record(&self) -> Result<Option<Record>, EngineError> {
        match Contact::load(&self.state, self.identity.account())? {
            Some(contact) => Ok(Some(contact.record()?)),
            None => Ok(None),
        }
    }

    /// Replaces the identity key: a new one is made, the old one signs for it, and the record
    /// that names it goes to the relay. [`Event::Done`] `"rotate"` says that it holds.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] while offline, without the identity key, or during another change.
    pub fn rotate(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let record = self.changeable_record()?;
        let next = SigningSecret::generate_ed25519(self.state.random())?;
        let signer = next.to_signer().map_err(protocol::Error::from)?;
        let owner = self.identity.owner().ok_or(NO_IDENTITY)?;
        let line = self.renewed(&record, now).sign_with(&signer, Some(owner), None)?;
        self.state.put(Space::Identity, NEXT_IDENTITY, &next)?;
        self.publish_record(line, now)
    }

    /// The identity key that took the place of the key file's, so that the driver can write it
    /// there too ([`crate::keyfile::replace`]).
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn rotated_identity(&self) -> Result<Option<SigningSecret>, EngineError> {
        Ok(self.state.get(Space::Identity, CURRENT_IDENTITY)?)
    }

    /// Revokes a device, or with `None` the identity key, by `signer`: the recovery key, or with
    /// `None` the identity key held here. [`Event::Done`] `"revoke"` says that it holds.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] while offline, or without any of the keys.
    pub fn revoke(
        &mut self,
        device: Option<&str>,
        signer: Option<&dyn Signer>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let record = self.own_record()?.filter(|_| self.is_online()).ok_or(OFFLINE)?;
        let mid = offer::new_mid(&mut self.state)?;
        let revocation = Revocation {
            account: self.own_account(),
            record: record.name(),
            device: device.map(Into::into),
            by: match signer {
                Some(signer) => RevokedBy::Recovery(signer.public_key().clone()),
                None => RevokedBy::Identity,
            },
            at: now,
            id: protocol::identifier::MessageId::parse(&mid).ok_or(NO_IDENTITY)?,
        };
        let signer = signer.or(self.identity.owner()).ok_or(NO_IDENTITY)?;
        let line = revocation.sign(signer)?;
        self.request_line(Request::Revoke, &line, now)
    }

    /// The state was restored from an older copy: prekeys are replaced, sessions forgotten, and
    /// offers made before `now` are not taken (SPEC.md §7).
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn restored(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let purpose = self.purpose();
        prekey::discard(&mut self.state, &self.identity, &mut *self.holder, &purpose, now)?;
        for (sid, _) in self.state.list::<Session>(Space::Session)? {
            session::erase_session(&mut self.state, &sid)?;
        }
        for (name, _) in self.state.list::<Vec<String>>(Space::Conversation)? {
            self.state.remove(Space::Conversation, &name)?;
        }
        let mut account = self.account()?;
        account.restored_at = now.0;
        self.keep_account(&account)?;
        self.publish_prekeys(now)
    }

    /// Since when offers are taken.
    pub(super) fn restored_at(&self) -> Result<Timestamp, EngineError> {
        Ok(Timestamp(self.account()?.restored_at))
    }

    /// Invitation and first record, if the account is yet to be opened.
    pub(super) fn registration(&self) -> Result<Option<(String, String)>, EngineError> {
        let account = self.account()?;
        Ok(account.invitation.zip(account.first_record))
    }

    /// The login is complete, so the account is open and its first record, if it was new, held.
    pub(super) fn registered(&mut self) -> Result<(), EngineError> {
        let mut account = self.account()?;
        if account.is_registered {
            return Ok(());
        }
        account.is_registered = true;
        account.invitation = None;
        account.first_record = None;
        self.keep_account(&account)
    }

    /// Fetches the own record and the domain's policy.
    pub(super) fn fetch_own(&mut self, now: Timestamp) {
        let own = self.own_account();
        self.fetch_record(own.as_address(), now);
        let policy = Command::builder(Code::POLICY).from(self.identity.device());
        self.request(Request::Policy, policy, now);
    }

    pub(super) fn policy_fetched(
        &mut self,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let domain = self.identity.domain();
        let taken = (|| -> Result<(), directory::DirectoryError> {
            let entry = answer.first().ok_or(directory::DirectoryError::Account)?;
            let (record, policy) = (entry.line("REC")?, entry.line("POL")?);
            let address = domain.as_address();
            directory::learn(&mut self.state, address, &[record], self.pin.as_ref(), now)?;
            directory::learn_policy(&mut self.state, address, &policy)?;
            Ok(())
        })();
        match taken {
            Ok(()) => {}
            Err(directory::DirectoryError::State(error)) => return Err(error.into()),
            Err(error) => {
                self.fetches.policy_failed();
                self.tell(Event::Tampering { from: domain.to_string(), what: BAD_POLICY });
                self.tell(Event::Strange { what: error.to_string() });
            }
        }
        self.pump_drafts();
        self.pump_all(now)
    }

    /// The own record was fetched: settles a change whose answer was lost, sends it again if the
    /// relay never had it, and renews the record in time or if the wishes for it changed.
    pub(super) fn own_record_fetched(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let Some(record) = self.own_record()? else { return Ok(()) };
        if let Some(line) = self.account()?.pending_record {
            let pending = Record::parse(&Command::parse(line.as_bytes())?)?;
            if pending.name() == record.name() {
                let what = self.settle_record(true)?;
                self.tell(Event::Done { what, contact: None });
            } else if !self.is_asked(|asked| matches!(asked, Request::Record)) {
                self.request_line(Request::Record, &line, now)?;
            }
            return Ok(());
        }
        let Some(owner) = self.identity.owner() else { return Ok(()) };
        let left = record.not_after().ms_since(now);
        let is_current = record.suites().as_slice() == self.config.suites.as_slice();
        if is_current && left > self.config.record_life_ms / 4 {
            return Ok(());
        }
        let line = self.renewed(&record, now).sign(owner)?;
        self.publish_record(line, now)
    }

    pub(super) fn record_answered(
        &mut self,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let code = answer.code.number();
        if matches!(code, 421 | 450..=453) {
            // It stands in the state and goes out again at the next login.
            return Ok(());
        }
        let Some(line) = self.account()?.pending_record else { return Ok(()) };
        if code < 400 {
            let own = self.own_account();
            directory::learn(&mut self.state, own.as_address(), &[line], None, now)?;
            directory::shown(&mut self.state, own.as_address())?;
        }
        let what = self.settle_record(code < 400)?;
        self.told(what, None, answer);
        Ok(())
    }

    /// A change of the record has come to its end: an identity key that waited for it takes its
    /// place, or is erased.
    fn settle_record(&mut self, is_published: bool) -> Result<&'static str, EngineError> {
        let mut account = self.account()?;
        account.pending_record = None;
        self.keep_account(&account)?;
        let next: Option<SigningSecret> = self.state.get(Space::Identity, NEXT_IDENTITY)?;
        let Some(next) = next else { return Ok("record") };
        self.state.remove(Space::Identity, NEXT_IDENTITY)?;
        if is_published {
            self.state.put(Space::Identity, CURRENT_IDENTITY, &next)?;
            let signer = next.to_signer().map_err(protocol::Error::from)?;
            self.identity.set_owner(Box::new(signer));
        }
        Ok("rotate")
    }

    /// Puts a rotated identity key in its place after a restart.
    pub(super) fn restore_identity(&mut self) -> Result<(), EngineError> {
        if let Some(secret) = self.rotated_identity()? {
            let signer = secret.to_signer().map_err(protocol::Error::from)?;
            self.identity.set_owner(Box::new(signer));
        }
        Ok(())
    }

    /// Makes prekeys where they lack and replaces old ones.
    pub(super) fn keep_prekeys(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let purpose = self.purpose();
        let top = self.link.as_ref().map_or(u64::MAX, |link| link.top);
        let is_drained = self.queue.is_drained(top);
        let had_none = !prekey::has_signed(&self.state)?;
        let made = prekey::rotate_signed(
            &mut self.state,
            &self.identity,
            &mut *self.holder,
            &purpose,
            is_drained,
            now,
        )?;
        if had_none {
            self.add_prekeys(self.config.one_time_stock, now)?;
        }
        if made || now.0 >= self.account()?.publish_after {
            self.publish_prekeys(now)?;
        }
        Ok(())
    }

    /// Makes `count` one-time prekeys.
    pub(super) fn add_prekeys(&mut self, count: usize, now: Timestamp) -> Result<(), EngineError> {
        let purpose = self.purpose();
        prekey::add_one_time(
            &mut self.state,
            &self.identity,
            &mut *self.holder,
            &purpose,
            count,
            now,
        )?;
        Ok(())
    }

    /// Sends the prekeys that the relay has not confirmed.
    pub(super) fn publish_prekeys(&mut self, now: Timestamp) -> Result<(), EngineError> {
        if !self.is_online() {
            return Ok(());
        }
        for (name, line) in prekey::unpublished(&self.state)? {
            let is_same = |asked: &Request| matches!(asked, Request::Publish(n) if *n == name);
            if !self.is_asked(is_same) {
                self.request_line(Request::Publish(name), &line, now)?;
            }
        }
        Ok(())
    }

    pub(super) fn prekey_answered(
        &mut self,
        name: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        match answer.code.number() {
            code if code < 400 => prekey::published(&mut self.state, name)?,
            421 | 450 | 451 | 453 => {
                let mut account = self.account()?;
                account.publish_after = now.plus_ms(limits::FETCH_RETRY_MS).0;
                self.keep_account(&account)?;
            }
            455 => {
                // The relay has seen higher numbers: this state is a copy of an older one.
                self.restored(now)?;
            }
            code => {
                prekey::refused(&mut self.state, &mut *self.holder, name)?;
                let text = answer.text.clone();
                self.tell(Event::Refused { what: "prekeys", contact: None, code, text });
            }
        }
        Ok(())
    }

    /// The relay's stock of one-time prekeys runs low.
    pub(super) fn prekeys_low(&mut self, count: u64, now: Timestamp) -> Result<(), EngineError> {
        let wanted = self.config.one_time_stock as u64;
        let is_coming = !prekey::unpublished(&self.state)?.is_empty();
        if count < wanted && !is_coming {
            // The difference is at most the wanted stock.
            self.add_prekeys((wanted - count) as usize, now)?;
            self.publish_prekeys(now)?;
        }
        Ok(())
    }

    fn purpose(&self) -> Purpose {
        Purpose {
            suites: self.config.suites.clone(),
            has_one_time_kem: self.config.has_one_time_kem
                && self.config.suites.iter().any(|suite: &Suite| !suite.is_legacy()),
        }
    }

    fn renewed(&self, record: &Record, now: Timestamp) -> RecordBuilder {
        let from = Timestamp(now.0.saturating_sub(protocol::limits::TIMESTAMP_AHEAD_MS_MAX));
        RecordBuilder::after(record)
            .suites(&self.config.suites)
            .validity(from, now.plus_ms(self.config.record_life_ms))
    }

    fn changeable_record(&self) -> Result<Record, EngineError> {
        if self.account()?.pending_record.is_some() {
            return Err(EngineError::Misuse("another change of the record is under way"));
        }
        self.own_record()?.filter(|_| self.is_online()).ok_or(OFFLINE)
    }

    fn publish_record(&mut self, line: String, now: Timestamp) -> Result<(), EngineError> {
        let mut account = self.account()?;
        account.pending_record = Some(line.clone());
        self.keep_account(&account)?;
        self.request_line(Request::Record, &line, now)
    }

    fn account(&self) -> Result<Account, EngineError> {
        Ok(self.state.get(Space::Meta, ACCOUNT)?.unwrap_or_default())
    }

    fn keep_account(&mut self, account: &Account) -> Result<(), EngineError> {
        Ok(self.state.put(Space::Meta, ACCOUNT, account)?)
    }

    /// The domain of an account.
    pub(super) fn domain_of(account: protocol::Address<'_>) -> Result<AddressBuf, EngineError> {
        Ok(AddressBuf::parse(account.domain())?)
    }
}

const NO_IDENTITY: EngineError = EngineError::Misuse("this device does not hold the identity key");
const OFFLINE: EngineError = EngineError::Misuse("the relay must be reached for this");
const BAD_POLICY: &str = "the domain's record or policy does not hold";
