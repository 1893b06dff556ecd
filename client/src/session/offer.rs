//! Offers of a session key (700) and refreshes (702): made for each covered device, and opened.
//!
//! Owns the order of checks of SPEC.md §7 "Receiving": signature, KF, KR, members, suite and
//! signed mode hold before a private key is touched; then GEN is recomputed. Keys that served an
//! offer once (OPK, NK) are erased when it has opened. The caller has fetched the records.

use std::collections::BTreeMap;

use protocol::canonical::sha256;
use protocol::code::Code;
use protocol::identifier::{MessageId, RecordName, SessionId};
use protocol::member::{Accounts, Members};
use protocol::offer::{Offer, Wrap};
use protocol::policy::Policy;
use protocol::record::Record;
use protocol::{Address, AddressBuf, Command, Timestamp};

use super::{Generation, OfferState, Session, SessionError};
use crate::chain::RootKey;
use crate::identity::Identity;
use crate::limits;
use crate::prekey::{self, Fetched};
use crate::random;
use crate::secret::Secret32;
use crate::session::accept;
use crate::state::{Space, State, StateError};
use crate::suite::{
    DeviceKeys, KeyHolder, LegacyKey, OfferKeys, Suite, SuiteError, curve, unwrap_legacy,
    unwrap_seed, wrap_legacy, wrap_seed,
};

/// A device that an offer goes to, with the keys it is wrapped to.
pub(crate) struct Target {
    /// The device.
    pub(crate) device: AddressBuf,
    /// The name of its account's record.
    record: RecordName,
    keys: Keys,
    wrap: Vec<(&'static str, String)>,
    /// Whether nobody else can have been given the same keys.
    pub(crate) is_one_time: bool,
}

enum Keys {
    Hybrid(DeviceKeys),
    Legacy(LegacyKey),
}

impl Target {
    /// A device whose prekeys were fetched; `None` if it has none for `suite`.
    pub(crate) fn from_prekeys(
        fetched: &Fetched,
        record: RecordName,
        suite: Suite,
    ) -> Result<Option<Self>, SuiteError> {
        let mut wrap = vec![("SPK", fetched.signed.number.to_string())];
        let (keys, is_one_time) = if suite.is_legacy() {
            let Some(spki) = fetched.legacy_key() else { return Ok(None) };
            (Keys::Legacy(LegacyKey::parse(spki, false)?), false)
        } else {
            let Some((keys, has_one_time)) = fetched.keys_for(suite) else { return Ok(None) };
            if let Some(one_time) = fetched.one_time.as_ref().filter(|_| has_one_time) {
                wrap.push(("OPK", one_time.number.to_string()));
            }
            (Keys::Hybrid(keys), has_one_time)
        };
        Ok(Some(Self { device: fetched.device.clone(), record, keys, wrap, is_one_time }))
    }

    /// A device that sent keys for the next refresh.
    pub(crate) fn from_peer_key(
        device: AddressBuf,
        record: RecordName,
        key: &accept::PeerKey,
    ) -> Self {
        let wrap = vec![("NK", key.name.clone())];
        let keys = Keys::Hybrid(key.to_device_keys());
        Self { device, record, keys, wrap, is_one_time: true }
    }
}

/// What is offered: a new session or the next generation of one.
pub(crate) struct Proposal<'a> {
    /// The session; its generations are not looked at.
    pub(crate) session: &'a Session,
    /// PGEN: the generation that a 702 follows on.
    pub(crate) parent: Option<&'a str>,
    /// KF: the own record.
    pub(crate) own_record: RecordName,
}

/// A generation that was made here, and the lines that offer it.
pub(crate) struct Made {
    pub(crate) generation: Generation,
    pub(crate) root: RootKey,
    /// Device, MID and line of each offer.
    pub(crate) lines: Vec<OfferLine>,
}

/// One offer.
pub(crate) struct OfferLine {
    pub(crate) device: AddressBuf,
    pub(crate) mid: String,
    pub(crate) line: String,
}

/// Makes a generation that follows on `parent`, and its offers; GS is kept for `repair_ms`.
pub(crate) fn make(
    state: &mut State,
    identity: &Identity,
    (session, parent, repair_ms): (&Session, Option<&Generation>, u64),
    own_record: RecordName,
    targets: &[Target],
    now: Timestamp,
) -> Result<Made, SessionError> {
    let proposal =
        Proposal { session, parent: parent.map(|parent| parent.name.as_str()), own_record };
    let seed = random::secret(state.random())?;
    let root = RootKey::new(parent.map(|parent| &parent.exporter), &seed);
    let name = root.generation(&session.sid, &session.mem);
    let mut offers = BTreeMap::new();
    let mut lines = Vec::with_capacity(targets.len());
    for target in targets {
        lines.push(offer_line(state, identity, &proposal, &name, &seed, target, now)?);
        offers.insert(target.device.as_str().to_owned(), OfferState::Queued);
    }
    let keeps_seed = repair_ms > 0 && !targets.is_empty();
    let generation = Generation {
        name,
        sid: session.sid.clone(),
        parent: parent.map(|parent| parent.name.clone()),
        depth: parent.map_or(0, |parent| parent.depth + 1),
        offerer: identity.device().as_str().into(),
        offered_at: now.0,
        first_used_at: None,
        exporter: root.exporter(),
        seed: keeps_seed.then_some(seed),
        seed_until: now.plus_ms(repair_ms).0,
        offers,
        lines: 0,
        octets: 0,
        last_sent: 0,
        superseded_at: None,
        offers_again: BTreeMap::new(),
    };
    Ok(Made { generation, root, lines })
}

/// Wraps GS to one device and writes the line.
pub(crate) fn offer_line(
    state: &mut State,
    identity: &Identity,
    proposal: &Proposal<'_>,
    generation: &str,
    seed: &Secret32,
    target: &Target,
    now: Timestamp,
) -> Result<OfferLine, SessionError> {
    let session = proposal.session;
    let mid = new_mid(state)?;
    let code = if proposal.parent.is_some() { Code::REFRESH } else { Code::OFFER };
    let accounts = accounts(session)?;
    let mut line = Command::builder(code)
        .to(target.device.as_address())
        .from(identity.device())
        .parameter("SID", &session.sid)
        .parameter_if("PGEN", proposal.parent)
        .parameter("GEN", generation)
        .parameter("SUITE", session.suite()?)
        .parameter("WITH", accounts)
        .parameter("MEM", &session.mem)
        .parameter("SIGNED", u8::from(session.is_signed))
        .parameter("KR", target.record)
        .parameter("KF", proposal.own_record);
    for (name, value) in &target.wrap {
        line = line.parameter(name, value);
    }
    let line = line.parameter("TS", now).parameter("MID", &mid);
    let body = match &target.keys {
        Keys::Hybrid(keys) => {
            wrap_seed(session.suite()?, &line.aad()?, keys, seed, state.random())?
        }
        Keys::Legacy(key) => wrap_legacy(key, seed)?,
    };
    let line = identity.sign(line, &body)?;
    Ok(OfferLine { device: target.device.clone(), mid, line })
}

/// A new random MID as on the wire.
pub(crate) fn new_mid(state: &mut State) -> Result<String, SessionError> {
    let octets = random::octets(state.random())?;
    Ok(MessageId::from_octets(&octets).as_str().into())
}

/// A new random SID as on the wire.
pub(crate) fn new_sid(state: &mut State) -> Result<String, SessionError> {
    let octets = random::octets(state.random())?;
    Ok(SessionId::from_octets(&octets).as_str().into())
}

fn accounts(session: &Session) -> Result<Accounts, SessionError> {
    let mut list = Vec::with_capacity(session.accounts.len());
    for account in &session.accounts {
        list.push(Address::parse(account)?);
    }
    Accounts::new(&list).ok_or(SessionError::Protocol(protocol::Error::BadParameter("WITH")))
}

/// Why an offer is not taken; becomes `CODE=` of a 703.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 553: members or GEN differ, the offer does not open, or it should be signed.
    Mismatch,
    /// 456: the prekey or NK is gone.
    PrekeyGone,
    /// 553: the session has ended here.
    Ended,
    /// 553: the generation that it follows on is not here.
    Orphan,
    /// 555: KR is not the own record, or KF not the sender's.
    Stale,
    /// 504: the suite is not allowed.
    Suite,
    /// Not answered at all: no valid signature, so nobody knows who sent it.
    Unsigned,
    /// Seen before.
    Repeat,
    /// The engine itself failed.
    Failed(SessionError),
}

impl Refusal {
    /// The code of the 703, if one is sent.
    pub(crate) const fn code(&self) -> Option<u16> {
        match self {
            Self::Mismatch | Self::Ended | Self::Orphan => Some(553),
            Self::PrekeyGone => Some(456),
            Self::Stale => Some(555),
            Self::Suite => Some(504),
            Self::Unsigned | Self::Repeat | Self::Failed(_) => None,
        }
    }
}

impl<E: Into<SessionError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What the receiver knows when it judges an offer.
pub(crate) struct Judgement<'a> {
    /// The sender's record that KF names.
    pub(crate) sender: &'a Record,
    /// The own record that KR names.
    pub(crate) own: &'a Record,
    /// The records of the other accounts of WITH.
    pub(crate) others: &'a [Record],
    /// The policies of the members' domains that are known.
    pub(crate) policies: &'a [Policy],
    /// Whether the policy of every member's domain is known.
    pub(crate) knows_all_policies: bool,
}

impl Judgement<'_> {
    fn records(&self) -> Vec<&Record> {
        [self.own, self.sender].into_iter().chain(self.others).fold(
            Vec::new(),
            |mut list: Vec<&Record>, record| {
                if list.iter().all(|known| known.account() != record.account()) {
                    list.push(record);
                }
                list
            },
        )
    }
}

/// Checks everything that needs no private key.
pub(crate) fn judge(
    identity: &Identity,
    command: &Command<'_>,
    offer: &Offer<'_>,
    known: &Judgement<'_>,
    now: Timestamp,
) -> Result<(), Refusal> {
    known.sender.verify_device_line(command).map_err(|_| Refusal::Unsigned)?;
    if offer.to != identity.device() || offer.from == identity.device() {
        return Err(Refusal::Mismatch);
    }
    let records = known.records();
    if records.iter().any(|record| !record.is_valid_at(now)) {
        return Err(Refusal::Stale);
    }
    let are_all = offer.accounts.as_slice().len() == records.len()
        && records.iter().all(|record| offer.accounts.contains(record.account()));
    let members = Members::new(records.iter().copied()).map_err(|_| Refusal::Mismatch)?;
    if !are_all || members.hash() != offer.members || !members.contains(identity.device()) {
        return Err(Refusal::Mismatch);
    }
    if !allows(offer.suite, &records, known.policies, known.knows_all_policies) {
        return Err(Refusal::Suite);
    }
    let must_sign = must_be_signed(&records, members.as_slice().len(), known.policies);
    if must_sign && !offer.is_signed {
        return Err(Refusal::Mismatch);
    }
    Ok(())
}

/// Whether every member's record names `suite` and no policy forbids it. A legacy suite must be
/// allowed by every domain's policy, so all must be known.
pub(crate) fn allows(
    suite: Suite,
    records: &[&Record],
    policies: &[Policy],
    knows_all_policies: bool,
) -> bool {
    records.iter().all(|record| record.suites().contains(suite))
        && policies.iter().all(|policy| policy.suites.contains(suite))
        && (knows_all_policies || !suite.is_legacy())
}

/// Whether a session must be signed, whatever its users wish (SPEC.md §7).
pub(crate) fn must_be_signed(records: &[&Record], devices: usize, policies: &[Policy]) -> bool {
    devices > 2
        || records.iter().any(|record| record.is_signed())
        || policies.iter().any(|policy| policy.is_signed)
}

/// What an offer opened into: the session with its new generation, both written down.
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) generation: String,
}

/// Opens an offer that [`judge`] found good, and erases what may open only once.
pub(crate) fn open(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    command: &Command<'_>,
    offer: &Offer<'_>,
    known: &Judgement<'_>,
    now: Timestamp,
) -> Result<Opened, Refusal> {
    let gen_name = offer.generation.as_str();
    let (mut session, parent) = place(state, offer, known)?;
    let seed = unwrap(state, holder, command, offer)?;
    let root = RootKey::new(parent.as_ref().map(|parent| &parent.exporter), &seed);
    if root.generation(&session.sid, &session.mem) != gen_name {
        return Err(Refusal::Mismatch);
    }
    match offer.wrap {
        Wrap::Next(name) => accept::erase_next_key(state, holder, name.as_str())?,
        Wrap::Prekeys { one_time: Some(number), .. } => {
            prekey::erase_one_time(state, holder, number)?;
        }
        Wrap::Prekeys { one_time: None, .. } => {}
    }
    let generation = Generation {
        name: gen_name.into(),
        sid: session.sid.clone(),
        depth: parent.as_ref().map_or(0, |parent| parent.depth + 1),
        parent: parent.map(|parent| parent.name),
        offerer: offer.from.as_str().into(),
        offered_at: offer.at.0,
        first_used_at: None,
        exporter: root.exporter(),
        seed: None,
        seed_until: 0,
        offers: BTreeMap::new(),
        lines: 0,
        octets: 0,
        last_sent: 0,
        superseded_at: None,
        offers_again: BTreeMap::new(),
    };
    super::establish(state, identity, &mut session, &generation, &root, now)?;
    Ok(Opened { session, generation: generation.name })
}

/// The session that an offer begins or goes on with, and the generation that it follows on.
pub(crate) fn place(
    state: &State,
    offer: &Offer<'_>,
    known: &Judgement<'_>,
) -> Result<(Session, Option<Generation>), Refusal> {
    if state.contains(Space::Generation, offer.generation.as_str())? {
        return Err(Refusal::Repeat);
    }
    let Some(parent) = offer.parent else {
        return Ok((session_of(state, offer, known)?, None));
    };
    let is_ended = Session::load(state, offer.session.as_str())?.is_some_and(|one| one.is_closed);
    if is_ended {
        return Err(Refusal::Ended);
    }
    let parent = Generation::load(state, parent.as_str())?.ok_or(Refusal::Orphan)?;
    let session = session_of(state, offer, known)?;
    if parent.sid != session.sid {
        return Err(Refusal::Mismatch);
    }
    Ok((session, Some(parent)))
}

/// The session that an offer begins or goes on with.
fn session_of(state: &State, offer: &Offer<'_>, known: &Judgement<'_>) -> Result<Session, Refusal> {
    let sid = offer.session.as_str();
    let held = Session::load(state, sid)?;
    match (held, offer.parent) {
        (None, None) => {
            let records = known.records();
            Ok(Session::new(sid.into(), offer.suite, offer.is_signed, &records, offer.at)?)
        }
        // A refresh keeps suite, signed mode, accounts and members.
        (Some(held), Some(_)) => {
            let keeps = held.suite()? == offer.suite
                && held.is_signed == offer.is_signed
                && held.mem == offer.members.as_str()
                && held.member(offer.from).is_some();
            if keeps { Ok(held) } else { Err(Refusal::Mismatch) }
        }
        // A second 700 begins a session of its own or is none.
        (None, Some(_)) | (Some(_), None) => Err(Refusal::Mismatch),
    }
}

/// Unwraps GS with the private keys that the offer names.
fn unwrap(
    state: &State,
    holder: &dyn KeyHolder,
    command: &Command<'_>,
    offer: &Offer<'_>,
) -> Result<Secret32, Refusal> {
    let gone = |error| match error {
        prekey::PrekeyError::Gone => Refusal::PrekeyGone,
        error => Refusal::Failed(error.into()),
    };
    let sealed = |error| match error {
        SuiteError::Random(_) => Refusal::Failed(error.into()),
        _ => Refusal::Mismatch,
    };
    let aad = command.aad();
    match offer.wrap {
        Wrap::Next(name) => {
            let Some(row) = accept::next_key(state, name.as_str())? else {
                return Err(Refusal::PrekeyGone);
            };
            if row.device != offer.from.as_str() {
                return Err(Refusal::PrekeyGone);
            }
            let signed = row.curve.open(holder).map_err(sealed)?;
            let keys = OfferKeys { signed: &*signed, one_time: None, kem: &row.kem() };
            unwrap_seed(offer.suite, &aad, &keys, &offer.body).map_err(sealed)
        }
        Wrap::Prekeys { signed, one_time } => {
            let signed = prekey::signed(state, signed).map_err(gone)?;
            let Some(curve) = curve(offer.suite) else {
                let key = signed.rsa().map_err(sealed)?.ok_or(Refusal::PrekeyGone)?;
                return unwrap_legacy(&key, &offer.body).map_err(sealed);
            };
            let one_time = match one_time {
                Some(number) => Some(prekey::one_time(state, number).map_err(gone)?),
                None => None,
            };
            let secret = signed.curve(curve).ok_or(Refusal::PrekeyGone)?;
            let signed_key = secret.open(holder).map_err(sealed)?;
            let one_time_key = one_time
                .as_ref()
                .map(|row| row.curve().open(holder))
                .transpose()
                .map_err(sealed)?;
            let kem = one_time
                .as_ref()
                .and_then(prekey::OneTimeSecret::kem)
                .unwrap_or_else(|| signed.kem());
            let keys =
                OfferKeys { signed: &*signed_key, one_time: one_time_key.as_deref(), kem: &kem };
            unwrap_seed(offer.suite, &aad, &keys, &offer.body).map_err(sealed)
        }
    }
}

/// Whether a line of 700 to 703 with this MID was taken before.
pub(crate) fn is_seen(state: &State, from: Address<'_>, mid: &str) -> Result<bool, StateError> {
    state.contains(Space::Seen, &seen_name(from, mid))
}

/// Remembers the MID of a line of 700 to 703.
pub(crate) fn remember(
    state: &mut State,
    from: Address<'_>,
    mid: &str,
    now: Timestamp,
) -> Result<(), StateError> {
    let until = now.plus_ms(limits::OFFER_MEMORY_MS).0;
    state.put(Space::Seen, &seen_name(from, mid), &until)
}

fn seen_name(from: Address<'_>, mid: &str) -> String {
    protocol::base64::encode(&sha256(&[from.as_str().as_bytes(), b" ", mid.as_bytes()]))
}
