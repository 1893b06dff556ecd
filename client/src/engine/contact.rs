//! Others: their records and prekeys, the roster, presence, typing.
//!
//! Owns what is being fetched. The invariants: a record is asked for once at a time, and again
//! only after [`limits::FETCH_RETRY_MS`] if the relay did not give it; prekeys are used for one
//! session each. Presence and typing are the relay's word and shown as such.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use protocol::canonical::push_lp;
use protocol::message::{Alternative, Availability, Presence};
use protocol::reply::{Answer, Entry};
use protocol::{Address, AddressBuf, Code, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::link::Request;
use super::{Engine, EngineError, Event, RosterEntry};
use crate::directory::{self, Contact, DirectoryError, Learned};
use crate::limits;
use crate::outbox::Kind;
use crate::prekey::{Fetched, PrekeyError};
use crate::random;
use crate::secret::Secret32;
use crate::session::offer;
use crate::state::Space;

/// What is being fetched, and what was fetched and not used yet.
#[derive(Default)]
pub(super) struct Fetches {
    /// Record lines fetched so far, newest first, by account.
    chains: BTreeMap<String, Vec<String>>,
    /// When the relay last gave no record, and whether it said that there is none.
    records_failed: BTreeMap<String, (u64, bool)>,
    /// Prekeys by account, with the time of the fetch.
    prekeys: BTreeMap<String, (u64, Vec<Fetched>)>,
    /// When the relay last refused prekeys.
    prekeys_failed: BTreeMap<String, u64>,
    has_policy_failed: bool,
    /// When typing was last announced, by account.
    typing: BTreeMap<String, u64>,
}

impl Fetches {
    pub(super) fn disconnected(&mut self) {
        *self = Self::default();
    }

    pub(super) const fn policy_failed(&mut self) {
        self.has_policy_failed = true;
    }

    /// Whether the relay gave no usable policy on this link.
    pub(super) const fn has_policy_failed(&self) -> bool {
        self.has_policy_failed
    }

    /// Whether the relay refused this record a moment ago.
    pub(super) fn has_record_failed(&self, account: &str, now: Timestamp) -> bool {
        is_recent(self.records_failed.get(account).map(|(at, _)| at), now)
    }

    /// Whether the relay put this record off: it may give it later.
    pub(super) fn is_record_late(&self, account: &str) -> bool {
        self.records_failed.get(account).is_some_and(|(_, is_final)| !is_final)
    }

    /// Whether the relay refused these prekeys a moment ago.
    pub(super) fn have_prekeys_failed(&self, account: &str, now: Timestamp) -> bool {
        is_recent(self.prekeys_failed.get(account), now)
    }

    /// Fetched prekeys of an account that are still fresh.
    pub(super) fn prekeys(&self, account: &str, now: Timestamp) -> Option<&[Fetched]> {
        let (at, devices) = self.prekeys.get(account)?;
        let is_fresh = now.ms_since(Timestamp(*at)) < limits::PREKEYS_FRESH_MS;
        is_fresh.then_some(devices)
    }

    /// Forgets the prekeys of an account: they were used.
    pub(super) fn use_prekeys(&mut self, account: &str) {
        self.prekeys.remove(account);
    }
}

fn is_recent(at: Option<&u64>, now: Timestamp) -> bool {
    at.is_some_and(|at| now.ms_since(Timestamp(*at)) < limits::FETCH_RETRY_MS)
}

/// What the user last chose to be met as.
#[derive(Serialize, Deserialize)]
struct Chosen {
    state: String,
    until: Option<u64>,
    alternatives: Vec<String>,
}

const CHOSEN: &str = "presence";
const ROSTER_VERSION: &str = "roster";
const ROSTER_KEY: &str = "roster-key";

impl Engine {
    /// Fetches the newest record of an account or domain, unless that is under way or was refused
    /// a moment ago; says whether it is under way.
    pub(super) fn fetch_record(&mut self, account: Address<'_>, now: Timestamp) -> bool {
        let name = account.as_str();
        if self.is_asked(|asked| matches!(asked, Request::Fetch(one) if one == name)) {
            return true;
        }
        if !self.is_online() || self.fetches.has_record_failed(name, now) {
            return false;
        }
        self.fetches.chains.insert(name.into(), Vec::new());
        let line = Command::builder(Code::RECORD_FETCH).to(account).from(self.identity.device());
        self.request(Request::Fetch(name.into()), line, now);
        true
    }

    pub(super) fn record_fetched(
        &mut self,
        account: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let address = AddressBuf::parse(account)?;
        let address = address.as_address();
        let mut lines = self.fetches.chains.remove(account).unwrap_or_default();
        let line = answer.first().map(|entry| entry.line("REC"));
        let learned = match (answer.code.number(), line) {
            (251, Some(Ok(line))) => {
                lines.push(line);
                let is_own_domain = self.identity.domain().as_address() == address;
                let pin = self.pin.as_ref().filter(|_| is_own_domain);
                directory::learn(&mut self.state, address, &lines, pin, now)
            }
            (251, _) => Err(DirectoryError::Account),
            (code, _) => return self.record_refused(address, code, &answer.text, now),
        };
        match learned {
            Ok(Learned::NeedsOlder(name)) => {
                self.fetches.chains.insert(account.into(), lines);
                let line = Command::builder(Code::RECORD_FETCH)
                    .to(address)
                    .from(self.identity.device())
                    .parameter("KR", name);
                self.request(Request::Fetch(account.into()), line, now);
                return Ok(());
            }
            Ok(Learned::IdentityChanged) if address == self.identity.account() => {
                // Another device rotated the own key; there is nobody to be warned of.
                directory::shown(&mut self.state, address)?;
            }
            Ok(Learned::IdentityChanged) => {
                self.tell(Event::IdentityChanged { contact: address.to_buf() });
            }
            Ok(Learned::New | Learned::Same | Learned::Updated) => {
                self.fetches.records_failed.remove(account);
            }
            Err(DirectoryError::State(error)) => return Err(error.into()),
            Err(error) => {
                self.fetches.records_failed.insert(account.into(), (now.0, true));
                self.tell(Event::Tampering { from: account.into(), what: BAD_RECORD });
                self.tell(Event::Strange { what: error.to_string() });
            }
        }
        if address == self.identity.account() {
            self.own_record_fetched(now)?;
        }
        self.retry_parked(account, now)?;
        self.pump_drafts();
        self.pump_all(now)
    }

    fn record_refused(
        &mut self,
        address: Address<'_>,
        code: u16,
        text: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let is_final = code >= 500;
        self.fetches.records_failed.insert(address.as_str().into(), (now.0, is_final));
        if is_final {
            self.fail_drafts(address.as_str(), code, text)?;
            self.retry_parked(address.as_str(), now)?;
        }
        self.pump_all(now)
    }

    /// Takes prekeys of an account, unless that is under way or was refused a moment ago.
    pub(super) fn take_prekeys(&mut self, account: Address<'_>, now: Timestamp) {
        let name = account.as_str();
        let is_asked = self.is_asked(|asked| matches!(asked, Request::Take(one) if one == name));
        if is_asked || self.fetches.have_prekeys_failed(name, now) {
            return;
        }
        let line = Command::builder(Code::PREKEYS_TAKE).to(account).from(self.identity.device());
        self.request(Request::Take(name.into()), line, now);
    }

    pub(super) fn prekeys_taken(
        &mut self,
        account: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let address = AddressBuf::parse(account)?;
        let code = answer.code.number();
        let contact = Contact::load(&self.state, address.as_address())?;
        let Some(mut contact) = contact.filter(|_| code == 251) else {
            self.fetches.prekeys_failed.insert(account.into(), now.0);
            let text = answer.text.clone();
            let contact = Some(address);
            self.tell(Event::Refused { what: "prekeys", contact, code, text });
            return self.pump_all(now);
        };
        let record = contact.record()?;
        let mut devices = Vec::new();
        for entry in &answer.entries {
            match read_prekeys(&mut contact, &record, entry, now) {
                Ok(fetched) => devices.push(fetched),
                Err(PrekeyError::State(error)) => return Err(error.into()),
                Err(error) => {
                    self.tell(Event::Tampering { from: account.into(), what: BAD_PREKEYS });
                    self.tell(Event::Strange { what: error.to_string() });
                }
            }
        }
        contact.store(&mut self.state, address.as_address())?;
        self.fetches.prekeys.insert(account.into(), (now.0, devices));
        self.to_pump.insert(account.into());
        self.pump_all(now)
    }

    /// The change of a contact's identity key was shown; texts to it are sent on.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn identity_shown(
        &mut self,
        contact: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if directory::shown(&mut self.state, contact)? {
            self.to_pump.insert(contact.as_str().into());
        }
        self.pump_all(now)
    }

    /// Fetches a record whatever was fetched before: what is held proved stale.
    pub(super) fn refresh_record(
        &mut self,
        account: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if let Some(mut contact) = Contact::load(&self.state, account)? {
            contact.checked_at = 0;
            contact.store(&mut self.state, account)?;
        }
        self.fetches.records_failed.remove(account.as_str());
        self.fetch_record(account, now);
        Ok(())
    }

    /// The relay gave no usable prekeys for a device; they are asked for again later.
    pub(super) fn lacks_prekeys(&mut self, device: &AddressBuf, now: Timestamp) {
        let account = device.account();
        self.fetches.use_prekeys(account.as_str());
        self.fetches.prekeys_failed.insert(account.as_str().into(), now.0);
        let text = format!("{device} has no prekeys for this suite");
        self.tell(Event::Refused { what: "prekeys", contact: Some(account), code: 456, text });
    }

    /// What is known of a contact; `None` if its record was never seen.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn contact(&self, contact: Address<'_>) -> Result<Option<Contact>, EngineError> {
        Ok(Contact::load(&self.state, contact)?)
    }

    /// Fetches a contact's record now, for [`Self::safety_number`] or to see a change of key.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] while offline.
    pub fn refresh_contact(
        &mut self,
        contact: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if !self.is_online() {
            return Err(EngineError::Misuse("the relay must be reached for this"));
        }
        self.fetches.records_failed.remove(contact.as_str());
        self.fetch_record(contact, now);
        Ok(())
    }

    /// Sixty digits to be compared with the contact by hand.
    ///
    /// # Errors
    /// [`EngineError::Misuse`] unless both records are known.
    pub fn safety_number(&self, contact: Address<'_>) -> Result<String, EngineError> {
        let own = self.own_record()?;
        let other = match Contact::load(&self.state, contact)? {
            Some(contact) => Some(contact.record()?),
            None => None,
        };
        let (own, other) = own.zip(other).ok_or(UNKNOWN)?;
        Ok(directory::safety_number(&own, &other))
    }

    /// Says how this account wants to be met; kept, and said again at every login.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn set_presence(
        &mut self,
        state: Availability,
        until: Option<Timestamp>,
        alternatives: &[Alternative],
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let chosen = Chosen {
            state: state.name().into(),
            until: until.map(|until| until.0),
            alternatives: alternatives.iter().map(ToString::to_string).collect(),
        };
        self.state.put(Space::Meta, CHOSEN, &chosen)?;
        self.announce_presence(now)
    }

    /// Says what was last chosen; available if nothing was, or the time for it has passed.
    pub(super) fn announce_presence(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let chosen: Option<Chosen> = self.state.get(Space::Meta, CHOSEN)?;
        let chosen = chosen.filter(|chosen| chosen.until.is_none_or(|until| until > now.0));
        let mut line = Command::builder(Code::PRESENCE_SET).from(self.identity.device());
        line = match chosen {
            None => line.parameter("STATE", Availability::Available),
            Some(chosen) => {
                let alternatives = chosen.alternatives.join(",");
                line.parameter("STATE", &chosen.state)
                    .parameter_if("UNTIL", chosen.until)
                    .parameter_if("ALT", (!alternatives.is_empty()).then_some(alternatives))
            }
        };
        self.request(Request::Presence, line, now);
        Ok(())
    }

    /// Asks for a contact's presence; [`Event::Presence`] answers.
    pub fn query_presence(&mut self, contact: Address<'_>, now: Timestamp) {
        let line = Command::builder(Code::PRESENCE_QUERY).to(contact).from(self.identity.device());
        self.request(Request::PresenceQuery(contact.as_str().into()), line, now);
    }

    pub(super) fn presence_fetched(
        &mut self,
        account: &str,
        answer: &Answer,
    ) -> Result<(), EngineError> {
        let contact = AddressBuf::parse(account)?;
        let entry = answer.first().filter(|_| answer.code.number() == 251);
        let state = entry.and_then(|entry| entry.get("STATE")).and_then(availability);
        match state {
            Some(state) => {
                let until = entry.and_then(|entry| entry.get("UNTIL"));
                let until = until.and_then(protocol::parameter::number).map(Timestamp);
                self.tell(Event::Presence { contact, state, until });
            }
            None => self.told("presence", Some(contact), answer),
        }
        Ok(())
    }

    /// 121: a contact's presence.
    pub(super) fn presence_received(&mut self, command: &Command<'_>) {
        let (Some(from), Ok(presence)) = (command.from(), Presence::parse(command)) else {
            return;
        };
        let contact = from.account().to_buf();
        self.tell(Event::Presence { contact, state: presence.state, until: presence.until });
    }

    /// The user is typing a message to a contact; told at most every
    /// [`limits::TYPING_PAUSE_MS`].
    pub fn typing(&mut self, contact: Address<'_>, now: Timestamp) {
        let last = self.fetches.typing.get(contact.as_str()).copied();
        let is_early =
            last.is_some_and(|last| now.ms_since(Timestamp(last)) < limits::TYPING_PAUSE_MS);
        if is_early || !self.is_online() {
            return;
        }
        self.fetches.typing.insert(contact.as_str().into(), now.0);
        let line = Command::builder(Code::TYPING)
            .to(contact)
            .from(self.identity.device())
            .parameter("TTL", limits::TYPING_SECONDS);
        self.send_line(&line.finish(), now);
    }

    /// The user stopped typing without sending.
    pub fn stop_typing(&mut self, contact: Address<'_>, now: Timestamp) {
        if self.fetches.typing.remove(contact.as_str()).is_some() && self.is_online() {
            let line =
                Command::builder(Code::TYPING_STOPPED).to(contact).from(self.identity.device());
            self.send_line(&line.finish(), now);
        }
    }

    /// The notice of typing ends with the message.
    pub(super) fn typing_ended(&mut self, contact: &str) {
        self.fetches.typing.remove(contact);
    }

    /// Adds a contact to the roster or gives it another name. `may_be_urgent` lets its urgent
    /// messages pass while this account is busy. [`Event::Done`] `"roster"` answers.
    ///
    /// # Errors
    /// [`EngineError::TooLong`] for a name that does not fit.
    pub fn roster_set(
        &mut self,
        contact: Address<'_>,
        name: Option<&str>,
        may_be_urgent: bool,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let blob = match name {
            Some(name) => Some(self.seal_name(contact, name)?),
            None => None,
        };
        let line = Command::builder(Code::ROSTER_SET)
            .to(contact)
            .from(self.identity.device())
            .parameter("URGENT", u8::from(may_be_urgent))
            .parameter_if("BLOB", blob);
        self.request(Request::RosterChange("roster", contact.as_str().into()), line, now);
        Ok(())
    }

    /// Removes a contact from the roster and withdraws approvals.
    pub fn roster_remove(&mut self, contact: Address<'_>, now: Timestamp) {
        let line = Command::builder(Code::ROSTER_SET)
            .to(contact)
            .from(self.identity.device())
            .parameter("DEL", 1);
        self.request(Request::RosterChange("remove", contact.as_str().into()), line, now);
    }

    /// Blocks a contact, or ends that.
    pub fn roster_block(&mut self, contact: Address<'_>, is_blocked: bool, now: Timestamp) {
        let line = Command::builder(Code::BLOCK)
            .to(contact)
            .from(self.identity.device())
            .parameter_if("OFF", (!is_blocked).then_some(1));
        self.request(Request::RosterChange("block", contact.as_str().into()), line, now);
    }

    /// Asks a contact for approval.
    ///
    /// # Errors
    /// [`EngineError::Full`], [`EngineError::State`].
    pub fn roster_ask(&mut self, contact: Address<'_>, now: Timestamp) -> Result<(), EngineError> {
        self.subscription(Code::SUBSCRIBE, contact, now)
    }

    /// Approves a contact.
    ///
    /// # Errors
    /// [`EngineError::Full`], [`EngineError::State`].
    pub fn roster_approve(
        &mut self,
        contact: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        self.subscription(Code::APPROVE, contact, now)
    }

    /// Denies a contact, or withdraws the approval.
    ///
    /// # Errors
    /// [`EngineError::Full`], [`EngineError::State`].
    pub fn roster_deny(&mut self, contact: Address<'_>, now: Timestamp) -> Result<(), EngineError> {
        self.subscription(Code::DENY, contact, now)
    }

    fn subscription(
        &mut self,
        code: Code,
        contact: Address<'_>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if self.outbox.is_full() {
            return Err(EngineError::Full);
        }
        let mid = offer::new_mid(&mut self.state)?;
        let line = Command::builder(code)
            .to(contact.account())
            .from(self.identity.device())
            .parameter("TS", now)
            .parameter("MID", &mid)
            .finish();
        let account = contact.account();
        self.outbox.push(&mut self.state, Kind::Subscription, account.as_str(), &mid, line)?;
        self.flush(now)
    }

    /// The contacts of the roster, as the relay last told them.
    ///
    /// # Errors
    /// [`EngineError::State`].
    pub fn roster(&self) -> Result<Vec<RosterEntry>, EngineError> {
        let rows = self.state.list::<RosterEntry>(Space::Roster)?;
        Ok(rows.into_iter().map(|(_, entry)| entry).collect())
    }

    pub(super) fn fetch_roster(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let version: Option<u64> = self.state.get(Space::Meta, ROSTER_VERSION)?;
        let line = Command::builder(Code::ROSTER_GET)
            .from(self.identity.device())
            .parameter_if("VER", version);
        self.request(Request::Roster, line, now);
        Ok(())
    }

    pub(super) fn roster_fetched(&mut self, answer: &Answer) -> Result<(), EngineError> {
        let version = |entry: &Entry| entry.get("VER").and_then(protocol::parameter::number);
        match answer.code.number() {
            251 => {
                let gone: Vec<String> =
                    self.roster()?.into_iter().map(|entry| entry.contact.to_string()).collect();
                let mut kept = Vec::new();
                for entry in &answer.entries {
                    if let Some(contact) = self.roster_entry(|name| entry.get(name))? {
                        kept.push(contact);
                    }
                    if let Some(version) = version(entry) {
                        self.state.put(Space::Meta, ROSTER_VERSION, &version)?;
                    }
                }
                for contact in gone.iter().filter(|contact| !kept.contains(contact)) {
                    self.forget_roster_entry(contact)?;
                }
            }
            250 => {
                let newest = answer.first().and_then(version);
                let held: Option<u64> = self.state.get(Space::Meta, ROSTER_VERSION)?;
                if newest != held {
                    // An empty roster answers 250 with a version that is not ours.
                    for entry in self.roster()? {
                        self.forget_roster_entry(entry.contact.as_str())?;
                    }
                    self.state.put(Space::Meta, ROSTER_VERSION, &newest.unwrap_or(0))?;
                }
            }
            _ => self.told("roster", None, answer),
        }
        Ok(())
    }

    /// 632: one entry changed.
    pub(super) fn roster_pushed(&mut self, command: &Command<'_>) -> Result<(), EngineError> {
        if command.parameter("DEL") == Some("1") {
            if let Some(who) = command.parameter("WHO") {
                self.forget_roster_entry(who)?;
            }
        } else {
            self.roster_entry(|name| command.parameter(name))?;
        }
        if let Ok(Some(version)) = command.parameters().number("VER") {
            self.state.put(Space::Meta, ROSTER_VERSION, &version)?;
        }
        Ok(())
    }

    fn roster_entry<'v>(
        &mut self,
        value: impl Fn(&'static str) -> Option<&'v str>,
    ) -> Result<Option<String>, EngineError> {
        let Some(who) = value("WHO").and_then(|who| AddressBuf::parse(who).ok()) else {
            return Ok(None);
        };
        let name = value("BLOB").and_then(|blob| self.open_name(who.as_address(), blob));
        let (sub, ask) = (value("SUB"), value("ASK"));
        let entry = RosterEntry {
            is_approved: matches!(sub, Some("from" | "both")),
            approves_us: matches!(sub, Some("to" | "both")),
            has_asked: matches!(ask, Some("out" | "both")),
            was_asked: matches!(ask, Some("in" | "both")),
            is_blocked: value("BLOCK") == Some("1"),
            may_be_urgent: value("URGENT") == Some("1"),
            contact: who.clone(),
            name,
        };
        let held: Option<RosterEntry> = self.state.get(Space::Roster, who.as_str())?;
        if held.as_ref() != Some(&entry) {
            self.state.put(Space::Roster, who.as_str(), &entry)?;
            if entry.approves_us {
                // What was refused for want of approval may be asked for again.
                self.fetches.records_failed.remove(who.as_str());
                self.fetches.prekeys_failed.remove(who.as_str());
            }
            self.tell(Event::Roster(entry));
        }
        Ok(Some(who.to_string()))
    }

    fn forget_roster_entry(&mut self, contact: &str) -> Result<(), EngineError> {
        if self.state.remove(Space::Roster, contact)? {
            let contact = AddressBuf::parse(contact)?;
            self.tell(Event::RosterRemoved { contact });
        }
        Ok(())
    }

    /// Seals a contact's name for this account's devices.
    fn seal_name(&mut self, contact: Address<'_>, name: &str) -> Result<String, EngineError> {
        let key = match self.state.get::<Secret32>(Space::Meta, ROSTER_KEY)? {
            Some(key) => key,
            None => {
                let key = random::secret(self.state.random())?;
                self.state.put(Space::Meta, ROSTER_KEY, &key)?;
                key
            }
        };
        let nonce = random::octets::<NONCE_LEN>(self.state.random())?;
        let mut text = name.as_bytes().to_vec();
        let misuse = |_| EngineError::TooLong;
        roster_cipher(&key)
            .ok_or(EngineError::TooLong)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(roster_aad(contact)),
                &mut text,
            )
            .map_err(misuse)?;
        let blob = protocol::base64::encode(&[nonce.as_slice(), &text].concat());
        if blob.len() > protocol::limits::ROSTER_BLOB_OCTETS_MAX {
            return Err(EngineError::TooLong);
        }
        Ok(blob)
    }

    fn open_name(&self, contact: Address<'_>, blob: &str) -> Option<String> {
        let key: Secret32 = self.state.get(Space::Meta, ROSTER_KEY).ok()??;
        let octets = protocol::base64::decode(blob).ok()?;
        let (nonce, text) = octets.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(roster_aad(contact));
        let name = roster_cipher(&key)?.open_in_place(nonce, aad, &mut text).ok()?;
        core::str::from_utf8(name).ok().map(Into::into)
    }
}

fn read_prekeys(
    contact: &mut Contact,
    record: &protocol::record::Record,
    entry: &Entry,
    now: Timestamp,
) -> Result<Fetched, PrekeyError> {
    let device = entry.required("DEV")?;
    let signed = entry.line("PRE")?;
    let one_time = match entry.get("ONE") {
        Some(_) => Some(entry.line("ONE")?),
        None => None,
    };
    Fetched::check(contact, record, device, &signed, one_time.as_deref(), now)
}

fn availability(name: &str) -> Option<Availability> {
    <Availability as protocol::parameter::WireValue<'_>>::read(name)
}

fn roster_cipher(key: &Secret32) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.expose()).ok().map(LessSafeKey::new)
}

fn roster_aad(contact: Address<'_>) -> Vec<u8> {
    let mut aad = Vec::new();
    push_lp(&mut aad, b"CIM1-ROSTER");
    push_lp(&mut aad, contact.account().as_str().as_bytes());
    aad
}

const BAD_RECORD: &str = "the record does not follow from the one held";
const BAD_PREKEYS: &str = "the prekeys do not hold";
const UNKNOWN: EngineError = EngineError::Misuse("the record of this contact is not known yet");
